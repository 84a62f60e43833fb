//! The note of a step that shows a socket.

use tracer_common::{hook::Hook, record::time_wait};

use crate::{
    decode::event::Payload,
    flow::{judge, model::Step},
};

/// The note of a step that shows a socket.
pub(super) fn note(step: &Step) -> String {
    match (&step.event.payload, step.event.hook) {
        (Payload::Socket(socket), Hook::TcpSendReset) if socket.sock == 0 => {
            "no socket for it: RST in reply".to_owned()
        }
        (Payload::Socket(_), Hook::TcpSendReset) => "RST in reply".to_owned(),
        (Payload::Socket(socket), _) if judge::refused_by_listener(step) => format!(
            "the listener dropped the ACK{}",
            accept_queue(socket.ack_backlog, socket.max_ack_backlog)
        ),
        (Payload::Listener(listener), _) => {
            let what = match step.verdict {
                None => "a listener accepted the SYN",
                Some(_) => "a listener got the SYN, and its drop counter rose",
            };
            format!(
                "{what}{}",
                accept_queue(listener.ack_backlog, listener.max_ack_backlog)
            )
        }
        (Payload::TimeWait(_), _) => {
            let what = match step.verdict {
                Some(time_wait::SYN) => "the SYN is accepted",
                Some(time_wait::RST) => "RST in reply",
                Some(time_wait::ACK | time_wait::ACK_OOW) => "ACK in reply",
                Some(_) => "no reply",
                None => "its reply was not seen",
            };
            format!("TIME_WAIT socket: {what}")
        }
        _ => "the handshake finished in the backend".to_owned(),
    }
}

/// The length and limit of the accept queue, if known and not empty.
fn accept_queue(ack_backlog: u32, max_ack_backlog: u32) -> String {
    if ack_backlog == u32::MAX || max_ack_backlog == u32::MAX || ack_backlog == 0 {
        String::new()
    } else {
        format!(" (accept queue {ack_backlog}/{max_ack_backlog})")
    }
}
