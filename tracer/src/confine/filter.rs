//! The seccomp filter, for all threads of the process.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};

use super::denied;

/// Rules by number of the system call. A call matches if one of its rules does, or if it has none.
pub(super) type Rules = BTreeMap<libc::c_long, Vec<SeccompRule>>;

/// Why the filter is not in force.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilterError {
    #[error("cannot handle SIGSYS")]
    Signal(#[from] nix::Error),
    #[error("cannot build the filter")]
    Build(#[from] BackendError),
    #[error(transparent)]
    Apply(#[from] seccompiler::Error),
}

/// Calls that start a program.
const PROGRAMS: [libc::c_long; 4] = [
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_execve,
    libc::SYS_execveat,
];
/// Numbers from this one on are newer than tracer. Their callers expect kernels that lack them.
const FIRST_UNKNOWN: libc::c_long = 462;
const LAST_UNKNOWN: libc::c_long = 511;

/// A condition on an argument: `argument & mask == value`.
pub(super) fn masked(
    argument: u8,
    mask: libc::c_int,
    value: libc::c_int,
) -> Result<SeccompCondition, BackendError> {
    let [mask, value] = [mask, value].map(|bits| u64::from(bits.cast_unsigned()));
    SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(mask),
        value,
    )
}

/// A condition on an argument: `argument == value`.
pub(super) fn equal(argument: u8, value: libc::c_int) -> Result<SeccompCondition, BackendError> {
    masked(argument, -1, value)
}

/// A condition on an argument: `argument != value`.
pub(super) fn other(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value)
}

/// The calls that stay possible.
pub(super) struct Calls {
    pub(super) allowed: Rules,
    /// Calls that fail as if the file's mode forbade it, without a note: libraries open files of `/proc` and `/sys` and do
    /// without them.
    pub(super) without_access: Vec<libc::c_long>,
}

/// Leaves only these calls from now on.
///
/// A denied call returns `EPERM` and is noted by [`denied`]. Besides [`Calls::without_access`], two kinds fail without a note,
/// because their callers have blocked all signals, so that a signal would end the process: starting a program, and `clone3`,
/// which libraries replace by `clone`.
pub(super) fn apply(calls: Calls) -> Result<(), FilterError> {
    denied::listen()?;
    let Calls {
        mut allowed,
        without_access,
    } = calls;
    for (rules, action) in quietly_denied(&without_access)? {
        if !rules.is_empty() {
            apply_one(rules, SeccompAction::Allow, action)?;
        }
    }
    // Of several filters the strictest decides, and a signal is stricter than an error.
    let unknown = FIRST_UNKNOWN..=LAST_UNKNOWN;
    let quiet = PROGRAMS.into_iter().chain(unknown).chain(without_access);
    allowed.extend(quiet.map(|call| (call, Vec::new())));
    // The last one: it does not allow another filter.
    apply_one(allowed, SeccompAction::Trap, SeccompAction::Allow)
}

fn apply_one(rules: Rules, otherwise: SeccompAction, matching: SeccompAction) -> Result<(), FilterError> {
    let filter = SeccompFilter::new(rules, otherwise, matching, TargetArch::x86_64)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(apply_filter_all_threads(&program)?)
}

/// Calls that fail although the list of allowed calls has them, and how.
fn quietly_denied(without_access: &[libc::c_long]) -> Result<[(Rules, SeccompAction); 3], BackendError> {
    let errno = |errno: libc::c_int| SeccompAction::Errno(errno.cast_unsigned());
    let all = |calls: &mut dyn Iterator<Item = libc::c_long>| -> Rules {
        calls.map(|call| (call, Vec::new())).collect()
    };
    let mut programs = all(&mut PROGRAMS.into_iter());
    let new_process = SeccompRule::new(vec![masked(0, libc::CLONE_THREAD, 0)?])?;
    programs.insert(libc::SYS_clone, vec![new_process]);
    let unknown = all(&mut (FIRST_UNKNOWN..=LAST_UNKNOWN).chain([libc::SYS_clone3]));
    Ok([
        (programs, errno(libc::EPERM)),
        (unknown, errno(libc::ENOSYS)),
        (all(&mut without_access.iter().copied()), errno(libc::EACCES)),
    ])
}
