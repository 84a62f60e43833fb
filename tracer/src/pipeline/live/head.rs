//! The head of a run: this machine, this run, and what is traced.

use tracer_common::field;

use crate::{
    decode::record::RECORDS,
    facts::Facts,
    finding::head::Head,
    pipeline::preflight,
    probe::{attach::Selection, offsets::Offsets},
};

/// The head without patience, hooks and offsets. `monotonic_ns` is the current reading of the monotonic clock.
pub(super) fn of(selection: &Selection, facts: &Facts, monotonic_ns: u64) -> Head {
    let now = jiff::Timestamp::now();
    let (host, kernel) = preflight::names();
    let boot_id = preflight::boot_id();
    Head {
        tracer: env!("CARGO_PKG_VERSION").to_owned(),
        records: RECORDS,
        session: format!("{boot_id}-{monotonic_ns}-{}", std::process::id()),
        host,
        kernel,
        uname: preflight::uname(),
        boot_id,
        ready: now,
        wall: now,
        monotonic_ns,
        ports: selection.ports.clone(),
        clients: clients(selection),
        drop_reasons: drop_reasons(facts),
        ..Head::default()
    }
}

/// The offsets of members of the kernel's structs, in bytes.
pub(super) fn offsets(offsets: &Offsets) -> Vec<(String, u32)> {
    field::ALL
        .iter()
        .filter_map(|field| Some((field.path.to_owned(), offsets.get(field).ok()?)))
        .collect()
}

fn clients(selection: &Selection) -> Vec<String> {
    let clients = selection.clients.iter();
    clients
        .map(|(address, length)| format!("{address}/{length}"))
        .collect()
}

fn drop_reasons(facts: &Facts) -> Vec<(u32, String)> {
    let reasons = facts.drop_reasons.iter();
    let mut reasons: Vec<_> = reasons.map(|(number, name)| (*number, name.clone())).collect();
    reasons.sort();
    reasons
}
