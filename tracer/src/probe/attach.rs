//! Loads the kernel half and attaches the hooks of a plan. Nothing is pinned: when the process ends, in whatever
//! way, the kernel detaches everything.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Array, LpmTrie, MapData, MapError, PerCpuArray, RingBuf, lpm_trie::Key},
    programs::{KProbe, ProgramError, RawTracePoint},
};
use tracer_common::{
    hook::{self, HookInfo, HookKind},
    tuple::Addr,
};

use super::{
    kernel_log::KernelLog,
    offsets::Offsets,
    plan::{Planned, State},
};
use crate::node::netns;

/// The kernel half, built by `cargo xtask build-ebpf` from the source beside it.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/tracer.bpf.o");

/// Why the kernel half is not at work.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The kernel has no kprobes.
    #[error("this kernel has no kprobes (CONFIG_KPROBE_EVENTS is off), so its functions cannot be traced")]
    NoKprobes,
    /// The kernel refused the object.
    #[error("the kernel did not take tracer's BPF object")]
    Load(#[from] EbpfError),
    /// The file that was to replace the built-in object cannot be read.
    #[error("cannot read the BPF object {path}")]
    Object {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A map could not be used.
    #[error("BPF map {name}")]
    Map {
        /// The map.
        name: &'static str,
        /// What the kernel said.
        source: MapError,
    },
    /// The object lacks a map.
    #[error("tracer's BPF object has no map {0}")]
    NoMap(&'static str),
}

/// What is followed.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Destination ports of SYNs.
    pub ports: Vec<u16>,
    /// Client networks with their prefix lengths; empty for all clients.
    pub clients: Vec<(IpAddr, u8)>,
}

/// The kernel half at work. Dropping it detaches everything.
pub struct Probe {
    _ebpf: Ebpf,
    log: Option<KernelLog>,
    lost: PerCpuArray<MapData, u64>,
    hooks: Vec<Planned>,
}

/// Can this kernel put probes on its functions at all?
#[must_use]
pub fn has_kprobes() -> bool {
    // The first is what perf_event_open takes since 4.17, the others what came before it.
    [
        "/sys/bus/event_source/devices/kprobe/type",
        "/sys/kernel/tracing/kprobe_events",
        "/sys/kernel/debug/tracing/kprobe_events",
    ]
    .iter()
    .any(|path| Path::new(path).exists())
}

/// Names a file with another build of the kernel half, for instance the debug object.
const OBJECT_VARIABLE: &str = "TRACER_BPF_OBJECT";

/// The kernel half to load.
fn object() -> Result<Cow<'static, [u8]>, AttachError> {
    match std::env::var_os(OBJECT_VARIABLE) {
        None => Ok(Cow::Borrowed(OBJECT)),
        Some(path) => match std::fs::read(&path) {
            Ok(bytes) => Ok(Cow::Owned(bytes)),
            Err(source) => Err(AttachError::Object {
                path: path.into(),
                source,
            }),
        },
    }
}

/// Loads the object with the offsets of this kernel. Nothing is attached yet.
fn load(offsets: &Offsets, has_clients: bool) -> Result<Ebpf, AttachError> {
    if !has_kprobes() {
        return Err(AttachError::NoKprobes);
    }
    let constants: Vec<_> = offsets.constants().collect();
    let have_reason = u32::from(!offsets.drop_reasons().is_empty());
    let client_filter = u32::from(has_clients);
    let mut loader = EbpfLoader::new();
    for (name, value) in &constants {
        loader.override_global(name, value, true);
    }
    loader.override_global("HAVE_DROP_REASON", &have_reason, true);
    loader.override_global("CLIENT_FILTER", &client_filter, true);
    // Unknown, it is 0: then no client is taken for one on the node.
    let node_netns = netns::current().unwrap_or(0);
    loader.override_global("NODE_NETNS", &node_netns, true);
    Ok(loader.load(&object()?)?)
}

impl Probe {
    /// Attaches every hook of the plan that can be. A hook that the kernel refuses is marked so and left out.
    pub fn attach(
        plan: Vec<Planned>,
        offsets: &Offsets,
        selection: &Selection,
    ) -> Result<(Self, RingBuf<MapData>), AttachError> {
        let mut ebpf = load(offsets, !selection.clients.is_empty())?;
        select(&mut ebpf, selection)?;
        let hooks = plan
            .into_iter()
            .map(|planned| match planned.state {
                State::Attached => Planned {
                    state: attach_hook(&mut ebpf, planned.info),
                    ..planned
                },
                _ => planned,
            })
            .collect();
        let events = ebpf.take_map("EVENTS").ok_or(AttachError::NoMap("EVENTS"))?;
        let ring = RingBuf::try_from(events).map_err(|source| AttachError::Map {
            name: "EVENTS",
            source,
        })?;
        let lost = ebpf.take_map("LOST").ok_or(AttachError::NoMap("LOST"))?;
        let lost = PerCpuArray::try_from(lost).map_err(|source| AttachError::Map { name: "LOST", source })?;
        let log = KernelLog::of(&mut ebpf);
        Ok((
            Self {
                _ebpf: ebpf,
                log,
                lost,
                hooks,
            },
            ring,
        ))
    }

    /// Attaches one hook alone, with the offsets given.
    pub fn attach_one(
        info: &'static HookInfo,
        offsets: &Offsets,
    ) -> Result<(Self, RingBuf<MapData>), AttachError> {
        let plan = vec![Planned {
            info,
            state: State::Attached,
        }];
        Self::attach(plan, offsets, &Selection::default())
    }

    /// Every hook and what became of it.
    #[must_use]
    pub fn hooks(&self) -> &[Planned] {
        &self.hooks
    }

    /// Prints what the debug object had to say since the last call.
    pub fn print_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.print();
        }
    }

    /// Records that did not fit into the ring buffer since the start, by hook; hooks that lost none are left out.
    pub fn lost(&self) -> Result<BTreeMap<&'static str, u64>, AttachError> {
        let mut out = BTreeMap::new();
        for info in hook::ALL {
            let per_cpu = self
                .lost
                .get(&u32::from(info.hook as u16), 0)
                .map_err(|source| AttachError::Map { name: "LOST", source })?;
            let sum: u64 = per_cpu.iter().sum();
            if sum != 0 {
                out.insert(info.name, sum);
            }
        }
        Ok(out)
    }
}

fn select(ebpf: &mut Ebpf, selection: &Selection) -> Result<(), AttachError> {
    let mut words = BTreeMap::new();
    for port in &selection.ports {
        *words.entry(u32::from(port >> 6)).or_insert(0_u64) |= 1 << (port & 63);
    }
    let ports = ebpf.map_mut("PORTS").ok_or(AttachError::NoMap("PORTS"))?;
    let map_error = |name| move |source| AttachError::Map { name, source };
    let mut ports: Array<_, u64> = Array::try_from(ports).map_err(map_error("PORTS"))?;
    for (index, word) in words {
        ports.set(index, word, 0).map_err(map_error("PORTS"))?;
    }
    let clients = ebpf.map_mut("CLIENTS").ok_or(AttachError::NoMap("CLIENTS"))?;
    let mut clients: LpmTrie<_, [u32; 4], u8> = LpmTrie::try_from(clients).map_err(map_error("CLIENTS"))?;
    for (ip, length, followed) in client_prefixes(&selection.clients) {
        clients
            .insert(&Key::new(length, Addr::from(ip).0), u8::from(followed), 0)
            .map_err(map_error("CLIENTS"))?;
    }
    Ok(())
}

/// The client networks as prefixes of IPv6 addresses, and whether each is followed; a later one replaces an earlier
/// one that is the same.
///
/// IPv4 networks are looked up as mapped IPv6: 96 bits come first. A wide IPv6 network would hold them all, which nobody
/// means who writes `::/0`.
fn client_prefixes(clients: &[(IpAddr, u8)]) -> Vec<(IpAddr, u32, bool)> {
    let mapped = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    let mut out = vec![(mapped, 96, false)];
    out.extend(clients.iter().map(|&(ip, length)| {
        let before = if ip.is_ipv4() { 96 } else { 0 };
        (ip, u32::from(length) + before, true)
    }));
    out
}

/// Attaches one hook; the return first, so that no entry is remembered whose return is not seen.
fn attach_hook(ebpf: &mut Ebpf, info: &HookInfo) -> State {
    let done = match info.kind {
        HookKind::Tracepoint => attach_tracepoint(ebpf, info.name),
        HookKind::Entry => attach_kprobe(ebpf, info.name, info.name),
        HookKind::Call => attach_kprobe(ebpf, info.exit_program, info.name)
            .and_then(|()| attach_kprobe(ebpf, info.name, info.name)),
    };
    match done {
        Ok(()) => State::Attached,
        Err(error) => {
            let why = anyhow::Error::from(error);
            State::Disabled(format!(
                "the kernel refused it: {}",
                last_lines(&format!("{why:#}"))
            ))
        }
    }
}

/// The verifier's reason is at the end of its log.
fn last_lines(text: &str) -> String {
    let statistics = ["verification time", "stack depth", "processed "];
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty() && !statistics.iter().any(|start| line.starts_with(start)))
        .collect();
    lines[lines.len().saturating_sub(4)..].join(" | ")
}

fn attach_tracepoint(ebpf: &mut Ebpf, name: &str) -> Result<(), ProgramError> {
    let Some(program) = ebpf.program_mut(name) else {
        return Err(ProgramError::NotLoaded);
    };
    let program: &mut RawTracePoint = program.try_into()?;
    program.load()?;
    program.attach(name)?;
    Ok(())
}

fn attach_kprobe(ebpf: &mut Ebpf, name: &str, function: &str) -> Result<(), ProgramError> {
    let Some(program) = ebpf.program_mut(name) else {
        return Err(ProgramError::NotLoaded);
    };
    let program: &mut KProbe = program.try_into()?;
    program.load()?;
    program.attach(function, 0)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_networks_are_prefixes_of_the_mapped_one_which_is_in_no_ipv6_network() {
        let (v4, v6): (IpAddr, IpAddr) = ([10, 0, 0, 0].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 0].into());
        let all: IpAddr = [0; 4].into();
        assert_eq!(
            client_prefixes(&[(v4, 8), (v6, 8), (all, 0)]),
            [(all, 96, false), (v4, 104, true), (v6, 8, true), (all, 96, true)]
        );
    }
}
