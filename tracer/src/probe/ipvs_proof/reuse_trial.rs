//! Shows whether the running IPVS drops the first SYN of a reused client port, in a private network namespace that ends with its
//! thread.

use std::{
    fs,
    io::{self, Read as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Socket, Type};

use super::control::{Control, Forward, Service, loopback_up};
use crate::{
    facts::{modules::Modules, node_state::ReuseTrial, reading::Reading},
    node::netns,
};

/// The client, and the service. IPVS itself makes the kernel track connections of a namespace that has a service at the port of
/// FTP (`__ip_vs_update_dest`, `net/netfilter/ipvs/ip_vs_ctl.c`): without an entry of conntrack nothing is dropped.
const CLIENT: ([u8; 4], u16) = ([127, 0, 0, 10], 41_000);
const SERVICE: ([u8; 4], u16) = ([127, 0, 0, 20], 21);
const REAL_SERVER: ([u8; 4], u16) = ([127, 0, 0, 30], 8080);

/// How long a connection may take: two retransmissions of a SYN.
const TIMEOUT: Duration = Duration::from_secs(4);
/// How long the ends of the first connection may take. They never leave the machine.
const SETTLE: Duration = Duration::from_millis(100);

/// What [`try_reuse`] makes, for the user.
pub const MAKES: &str = "a private network namespace with the IPVS service 127.0.0.20:21, for up to 2 s";

/// Opens two connections from the same port through IPVS, and reports how long each took. The module and a scheduler must be
/// loaded: otherwise the kernel would load them, and the result is [`Reading::Absent`]. Nothing remains afterwards.
#[must_use]
pub fn try_reuse(modules: &Modules) -> Reading<ReuseTrial> {
    let Some(scheduler) = super::pick_scheduler(modules) else {
        return Reading::Absent;
    };
    let done = netns::on_own_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        run(scheduler)
    });
    match done.and_then(|done| done) {
        Ok(trial) => Reading::Is(trial),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Reading::Failed("CAP_SYS_ADMIN or CAP_NET_ADMIN is missing".to_owned())
        }
        Err(error) => Reading::Failed(error.to_string()),
    }
}

/// The trial, in a new network namespace.
fn run(scheduler: &str) -> io::Result<ReuseTrial> {
    loopback_up()?;
    let mut control = Control::open()?;
    for (setting, value) in [("conntrack", "1"), ("conn_reuse_mode", "1")] {
        fs::write(format!("/proc/sys/net/ipv4/vs/{setting}"), value)?;
    }
    let listener = TcpListener::bind(SocketAddr::from(REAL_SERVER))?;
    let service = Service {
        protocol: 6,
        address: SERVICE.into(),
        real_server: REAL_SERVER.into(),
        forward: Forward::Masquerade,
        weight: 1,
        limit: 0,
    };
    control.add_service(&service, scheduler)?;
    control.add_real_server(&service)?;
    let fresh_ms = connect(&listener)?;
    let tracked = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count")?;
    if tracked.trim() == "0" {
        return Err(io::Error::other(
            "conntrack did not track the connection of the trial",
        ));
    }
    thread::sleep(SETTLE);
    Ok(ReuseTrial {
        fresh_ms: Some(fresh_ms),
        reused_ms: Some(connect(&listener)?),
    })
}

/// Opens a connection and lets the server close it first, so that the client's port is free at once. Returns the milliseconds
/// until it was open.
fn connect(listener: &TcpListener) -> io::Result<u64> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from(CLIENT).into())?;
    let begun = Instant::now();
    socket.connect_timeout(&SocketAddr::from(SERVICE).into(), TIMEOUT)?;
    let took = begun.elapsed();
    let (server, _) = listener.accept()?;
    drop(server);
    let mut client = TcpStream::from(socket);
    client.set_read_timeout(Some(TIMEOUT))?;
    let _ = client.read(&mut [0])?;
    Ok(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
}
