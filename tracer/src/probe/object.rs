//! Loads the BPF object of the kernel half with the offsets of this kernel.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Array, LpmTrie, Map, MapData, MapError, lpm_trie::Key},
};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use tracer_common::tuple::Addr;

use super::offsets::{ModuleOffsets, Offsets};
use crate::node::netns;

/// The kernel half, built by `cargo xtask build-ebpf` from `tracer-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/tracer.bpf.o");

/// The environment variable that names another build of the kernel half, for example the debug object. Only debug builds of
/// tracer honour it: it runs any BPF program with tracer's privileges.
const OBJECT_VARIABLE: &str = "TRACER_BPF_OBJECT";

/// Why the kernel half could not be loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The kernel has no kprobes.
    #[error("this kernel has no kprobes (CONFIG_KPROBE_EVENTS is off): its functions cannot be traced")]
    NoKprobes,
    /// The kernel rejected the object.
    #[error("the kernel rejected the BPF object")]
    Load(#[from] EbpfError),
    /// The file that replaces the built-in object cannot be read.
    #[error("cannot read the BPF object {path}")]
    Object {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A map could not be used.
    #[error("cannot use BPF map {name}")]
    Map {
        /// The map.
        name: &'static str,
        /// The kernel's error.
        source: MapError,
    },
    /// The object lacks a map.
    #[error("the BPF object has no map {0}")]
    NoMap(&'static str),
}

/// The flows that the kernel half traces.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Destination ports of SYNs.
    pub ports: Vec<u16>,
    /// Client networks with their prefix lengths; empty for all clients.
    pub clients: Vec<(IpAddr, u8)>,
}

/// Whether this kernel supports kprobes.
#[must_use]
pub fn has_kprobes() -> bool {
    // perf_event_open uses the first since 4.17, and the others before.
    [
        "/sys/bus/event_source/devices/kprobe/type",
        "/sys/kernel/tracing/kprobe_events",
        "/sys/kernel/debug/tracing/kprobe_events",
    ]
    .iter()
    .any(|path| Path::new(path).exists())
}

/// Whether the kernel refused the object because BPF maps are charged to the limit on locked memory, as before 5.11
/// (`kernel/bpf/syscall.c`, `bpf_charge_memlock`). aya raises the limit if `CAP_SYS_RESOURCE` allows it.
#[must_use]
pub fn is_beyond_memlock(error: &AttachError) -> bool {
    let AttachError::Load(EbpfError::MapError(MapError::CreateError { io_error, .. })) = error else {
        return false;
    };
    let is_limited = getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(soft, _)| soft != RLIM_INFINITY);
    io_error.kind() == std::io::ErrorKind::PermissionDenied && is_limited
}

/// The BPF object to load.
fn bytes() -> Result<Cow<'static, [u8]>, AttachError> {
    let path = if cfg!(debug_assertions) {
        std::env::var_os(OBJECT_VARIABLE)
    } else {
        None
    };
    match path {
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

/// Loads the object with the offsets of this kernel and the selection. Nothing is attached yet.
pub(super) fn load(offsets: &Offsets, selection: &Selection) -> Result<Ebpf, AttachError> {
    if !has_kprobes() {
        return Err(AttachError::NoKprobes);
    }
    let constants: Vec<_> = offsets.constants().collect();
    let have_reason = u32::from(!offsets.drop_reasons().is_empty());
    let client_filter = u32::from(!selection.clients.is_empty());
    let mut loader = EbpfLoader::new();
    for (name, value) in &constants {
        loader.override_global(name, value, true);
    }
    for (name, address) in offsets.variables() {
        loader.override_global(name, address, true);
    }
    loader.override_global("HAVE_DROP_REASON", &have_reason, true);
    loader.override_global("CLIENT_FILTER", &client_filter, true);
    // 0 if unknown: then no client counts as one on the node.
    let node_netns = netns::current().unwrap_or(0);
    loader.override_global("NODE_NETNS", &node_netns, true);
    let mut ebpf = loader.load(&bytes()?)?;
    select(&mut ebpf, selection)?;
    Ok(ebpf)
}

/// Takes a map out of the object. The map must be kept: programs loaded later refer to its descriptor.
pub(super) fn take<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, AttachError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or(AttachError::NoMap(name))?;
    T::try_from(map).map_err(|source| AttachError::Map { name, source })
}

/// The map with the offsets of modules' structs: a section of the object, which is a map with one value.
pub(super) struct OffsetsMap(Array<MapData, ModuleOffsets>);

impl OffsetsMap {
    const MAP: &'static str = ".data.offsets";

    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, AttachError> {
        take(ebpf, Self::MAP).map(Self)
    }

    /// Sets the offsets that all programs use from now on.
    pub(super) fn write(&mut self, offsets: &Offsets) -> Result<(), AttachError> {
        self.0
            .set(0, offsets.of_modules(), 0)
            .map_err(|source| AttachError::Map {
                name: Self::MAP,
                source,
            })
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

/// The client networks as IPv6 prefixes, and whether each is traced. A later entry replaces an equal earlier one.
///
/// IPv4 networks become mapped IPv6 networks, with 96 bits more. The first entry keeps a wide IPv6 network such as `::/0`
/// from including IPv4.
fn client_prefixes(clients: &[(IpAddr, u8)]) -> Vec<(IpAddr, u32, bool)> {
    let mapped = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    let mut out = vec![(mapped, 96, false)];
    out.extend(clients.iter().map(|&(ip, length)| {
        let before = if ip.is_ipv4() { 96 } else { 0 };
        (ip, u32::from(length) + before, true)
    }));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_networks_are_mapped_and_part_of_no_ipv6_network() {
        let (v4, v6): (IpAddr, IpAddr) = ([10, 0, 0, 0].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 0].into());
        let all: IpAddr = [0; 4].into();
        assert_eq!(
            client_prefixes(&[(v4, 8), (v6, 8), (all, 0)]),
            [(all, 96, false), (v4, 104, true), (v6, 8, true), (all, 96, true)]
        );
    }
}
