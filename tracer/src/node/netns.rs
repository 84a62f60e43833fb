//! Runs code inside a network namespace of the node.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket};
use nix::{getsockopt_impl, libc, sockopt_impl};

/// Why code could not be run inside a network namespace.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// No process and no name refers to the namespace.
    #[error("network namespace {0} is gone, or no process and no name refers to it")]
    Gone(u32),
    /// The kernel denied entering it.
    #[error("cannot enter network namespace {inum}")]
    Enter {
        /// Inode number of the namespace.
        inum: u32,
        /// The system's error.
        source: io::Error,
    },
    /// The thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

sockopt_impl!(
    /// `SO_NETNS_COOKIE`: what no two network namespaces share (since 5.14, `uapi/asm-generic/socket.h`).
    NetnsCookie,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_NETNS_COOKIE,
    u64
);

/// The cookies of the namespaces that have inode numbers now, as far as the kernel half read them.
static COOKIES: Mutex<BTreeMap<u32, u64>> = Mutex::new(BTreeMap::new());

/// How many cookies are kept.
const MAX_COOKIES: usize = 1 << 14;

/// From now on, [`inside`] enters the namespace with this inode number only if it has this cookie (0: any): the kernel may
/// have given the number to another namespace, of which no packet was seen yet.
pub fn expect_cookie(inum: u32, cookie: u64) {
    let mut cookies = COOKIES.lock().unwrap_or_else(PoisonError::into_inner);
    if cookie == 0 {
        cookies.remove(&inum);
        return;
    }
    if cookies.len() >= MAX_COOKIES {
        cookies.clear();
    }
    cookies.insert(inum, cookie);
}

/// Whether the calling thread's namespace is the expected one, as far as this kernel tells.
fn is_expected(inum: u32) -> bool {
    let expected = COOKIES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get(&inum)
        .copied();
    let Some(expected) = expected else {
        return true;
    };
    // Kernels before 5.14 do not know the option.
    cookie().is_none_or(|cookie| cookie == expected)
}

/// The cookie of the calling thread's network namespace.
fn cookie() -> Option<u64> {
    let socket = socket(
        AddressFamily::Unix,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .ok()?;
    getsockopt(&socket, NetnsCookie).ok()
}

/// Inode number of the calling thread's network namespace.
pub fn current() -> io::Result<u32> {
    number(Path::new("/proc/thread-self/ns/net"))
}

/// Runs `work` inside the network namespace with this inode number, on a thread of its own.
///
/// There, `/proc/sys/net` belongs to the namespace. `/proc/net` still belongs to the process's first thread, so `work` has
/// to use `/proc/thread-self/net`.
pub fn inside<T: Send>(inum: u32, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    let path = find(inum).ok_or(NetnsError::Gone(inum))?;
    let refused = |source| NetnsError::Enter { inum, source };
    let namespace = File::open(&path).map_err(refused)?;
    // The process may have ended since, and another may have got its number.
    if namespace.metadata().map_err(refused)?.ino() != u64::from(inum) {
        return Err(NetnsError::Gone(inum));
    }
    let enter = || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| refused(errno.into()))?;
        if !is_expected(inum) {
            return Err(NetnsError::Gone(inum));
        }
        Ok(work())
    };
    on_own_thread(enter).map_err(NetnsError::Thread)?
}

/// Runs `work` on a thread of its own, so that a change of its namespaces ends with it.
pub fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)?;
        Ok(thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Finds a path of the namespace: that of a process in it, or a name given by `ip netns` or Docker.
fn find(inum: u32) -> Option<PathBuf> {
    let own = PathBuf::from("/proc/thread-self/ns/net");
    let processes = entries("/proc")
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit))
        })
        .map(|path| path.join("ns/net"));
    let named = ["/run/netns", "/run/docker/netns"].into_iter().flat_map(entries);
    std::iter::once(own)
        .chain(named)
        .chain(processes)
        .find(|path| number(path).is_ok_and(|found| found == inum))
}

/// The first process in a network namespace: in a container, usually the one that keeps it. `known` is checked first.
#[must_use]
pub fn process(inum: u32, known: Option<u32>) -> Option<u32> {
    let is_in = |pid: &u32| {
        let path = format!("/proc/{pid}/ns/net");
        number(Path::new(&path)).is_ok_and(|found| found == inum)
    };
    if let Some(pid) = known.filter(is_in) {
        return Some(pid);
    }
    let mut pids: Vec<u32> = entries("/proc")
        .filter_map(|path| path.file_name()?.to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids.into_iter().find(is_in)
}

fn entries(directory: &str) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}

fn number(path: &Path) -> io::Result<u32> {
    // A namespace's inode number is a 32-bit number in the kernel.
    u32::try_from(fs::metadata(path)?.ino()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    #[test]
    fn finds_its_own_namespace() {
        let own = current().unwrap();
        assert_eq!(number(&find(own).unwrap()).unwrap(), own);
        assert!(matches!(inside(1, || ()), Err(NetnsError::Gone(1))));
    }

    #[test]
    fn enters_another_namespace_on_a_thread_of_its_own() {
        let own = current().unwrap();
        // Only root may create a network namespace, and not every machine has the tool.
        let child = Command::new("unshare")
            .args(["--net", "sleep", "10"])
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = child else { return };
        let path = PathBuf::from(format!("/proc/{}/ns/net", child.id()));
        let other = (0..100).find_map(|_| {
            thread::sleep(Duration::from_millis(10));
            number(&path).ok().filter(|&other| other != own)
        });
        if let Some(other) = other {
            let links = || {
                (
                    current().unwrap(),
                    fs::read_to_string("/proc/thread-self/net/dev").unwrap(),
                )
            };
            let (inside_is, devices) = inside(other, links).unwrap();
            assert_eq!(inside_is, other);
            assert!(devices.contains("lo:") && devices.lines().all(|line| !line.contains("eth")));
            assert_eq!(current().unwrap(), own);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
