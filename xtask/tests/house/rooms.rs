//! The rooms of crate `tracer`, and the direction in which arrows between them may run.

/// Rooms and their floors, the same as in ARCHITECTURE.md. An arrow runs from a higher floor to a lower one.
pub(crate) const FLOORS: [(&str, u8); 19] = [
    // The crate's root declares the rooms and nothing else.
    ("lib", 8),
    ("main", 8),
    ("cli", 7),
    ("pipeline", 6),
    ("agent", 5),
    ("confine", 4),
    ("export", 5),
    ("node", 4),
    ("passive", 5),
    ("probe", 5),
    ("recording", 4),
    ("report", 4),
    ("tui", 5),
    ("finding", 3),
    ("check", 2),
    ("diagnose", 2),
    ("facts", 1),
    ("flow", 1),
    ("decode", 0),
];

/// Files outside the crate that may not import a room.
pub(crate) const BARRED: [(&str, &str); 1] = [("tracer/fuzz/", "cli")];

/// Rooms that do no I/O and use no clock except that of the events.
pub(crate) const PURE: [&str; 6] = ["check", "decode", "diagnose", "facts", "finding", "flow"];

/// The paths that do I/O or read a clock; a name includes everything below it.
const IMPURE: [&str; 29] = [
    "aya",
    "jiff::Timestamp::now",
    "jiff::Zoned::now",
    "libc",
    "netlink_sys",
    "nix",
    "rustix",
    "socket2",
    "std::dbg",
    "std::env",
    "std::eprint",
    "std::eprintln",
    "std::fs",
    "std::io::stderr",
    "std::io::stdin",
    "std::io::stdout",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::os::fd",
    "std::os::unix",
    "std::print",
    "std::println",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "tokio",
];

/// The pure paths below an impure name.
const HARMLESS: [&str; 1] = ["nix::errno"];

/// The room of a file of crate `tracer`.
pub(crate) fn room(path: &str) -> Option<&str> {
    let inner = path.strip_prefix("tracer/src/")?;
    let top = inner.split('/').next()?;
    Some(top.strip_suffix(".rs").unwrap_or(top))
}

/// The floor of a room that the table has.
pub(crate) fn floor(room: &str) -> Option<u8> {
    FLOORS
        .iter()
        .find(|(name, _)| *name == room)
        .map(|(_, floor)| *floor)
}

/// Whether a path into another crate does I/O or reads a clock. Constants do neither; a `*` may bring in both.
pub(crate) fn is_impure(path: &str) -> bool {
    if let Some(opened) = path.strip_suffix("::*") {
        return IMPURE
            .iter()
            .any(|name| is_below(opened, name) || is_below(name, opened));
    }
    let last = path.rsplit("::").next().unwrap_or(path);
    let is_constant = !last.contains(char::is_lowercase);
    // Imported for its constants; its functions are seen where they are called.
    let is_libc_itself = last == "libc";
    !is_constant
        && !is_libc_itself
        && IMPURE.iter().any(|name| is_below(path, name))
        && !HARMLESS.iter().any(|name| is_below(path, name))
}

fn is_below(path: &str, name: &str) -> bool {
    path.strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}
