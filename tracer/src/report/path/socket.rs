//! What a socket did with a packet, in words.

use tracer_common::{hook::Hook, record::time_wait};

use crate::{
    decode::event::Payload,
    flow::{judge, model::Step},
};

/// What happened at a step that tells of a socket.
pub(super) fn note(step: &Step) -> String {
    match (&step.event.payload, step.event.hook) {
        (Payload::Socket(socket), Hook::TcpSendReset) if socket.sock == 0 => {
            "no socket for it: an RST is to be sent".to_owned()
        }
        (Payload::Socket(_), Hook::TcpSendReset) => "an RST is to be sent".to_owned(),
        (Payload::Socket(socket), _) if judge::refused_by_listener(step) => format!(
            "the listener threw the ACK away{}",
            waiting(socket.ack_backlog, socket.max_ack_backlog)
        ),
        (Payload::Listener(listener), _) => {
            let what = match step.verdict {
                None => "a listener took the SYN",
                Some(_) => "a listener was asked, and its drop counter grew",
            };
            format!(
                "{what}{}",
                waiting(listener.ack_backlog, listener.max_ack_backlog)
            )
        }
        (Payload::TimeWait(_), _) => {
            let what = match step.verdict {
                Some(time_wait::SYN) => "it lets the SYN in",
                Some(time_wait::RST) => "it answers with RST",
                Some(time_wait::ACK | time_wait::ACK_OOW) => "it answers with an ACK",
                Some(_) => "it answers nothing",
                None => "what it does was not seen",
            };
            format!("the socket of an ended connection is asked: {what}")
        }
        _ => "the handshake ended in the backend".to_owned(),
    }
}

/// How full an accept queue is, where that is worth a word.
fn waiting(ack_backlog: u32, max_ack_backlog: u32) -> String {
    if ack_backlog == u32::MAX || max_ack_backlog == u32::MAX || ack_backlog == 0 {
        String::new()
    } else {
        format!(" ({ack_backlog} of {max_ack_backlog} connections wait for accept())")
    }
}
