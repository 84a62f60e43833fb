//! System calls that the filter denied. They return `EPERM`, as if the kernel had refused them, and are noted.
//!
//! The filter sends SIGSYS instead of returning the error by itself: otherwise nobody would learn of a denied call.

#![expect(
    unsafe_code,
    reason = "a signal handler that gives a system call its result is unsafe by its interface"
)]

use std::sync::atomic::{AtomicU64, Ordering};

use nix::{
    libc,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
};

/// `SYS_SECCOMP` (uapi/asm-generic/siginfo.h): the signal comes from a filter.
const FROM_FILTER: libc::c_int = 1;

/// Numbers of denied calls that were not taken yet, as bits.
static NEW: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];

/// Handles the signal of the filter from now on.
pub(super) fn listen() -> nix::Result<()> {
    let action = SigAction::new(
        SigHandler::SigAction(on_denied),
        SaFlags::SA_ONSTACK,
        SigSet::empty(),
    );
    // SAFETY: the handler uses atomics and the arguments alone, which is safe in a signal handler.
    unsafe { sigaction(Signal::SIGSYS, &action) }.map(drop)
}

extern "C" fn on_denied(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes both to a handler with SA_SIGINFO, which nix sets.
    let (info, context) = unsafe { (&*info, &mut *context.cast::<libc::ucontext_t>()) };
    if info.si_code != FROM_FILTER {
        return;
    }
    // The register holds the number of the call, and its result after the handler (`arch/x86`, `syscall_rollback`).
    let register = &mut context.uc_mcontext.gregs[libc::REG_RAX as usize];
    note(*register);
    *register = -i64::from(libc::EPERM);
}

fn note(number: i64) {
    // A number out of range is noted as the highest one.
    let number = usize::try_from(number)
        .unwrap_or(usize::MAX)
        .min(NEW.len() * 64 - 1);
    NEW[number / 64].fetch_or(1 << (number % 64), Ordering::Relaxed);
}

/// A line about each system call that was denied since the last call.
#[must_use]
pub fn take() -> Vec<String> {
    let mut out = Vec::new();
    for (word, first) in NEW.iter().zip((0..).step_by(64)) {
        let bits = word.swap(0, Ordering::Relaxed);
        let numbers = (0..64_u32).filter(|bit| bits >> bit & 1 != 0);
        out.extend(numbers.map(|bit| {
            format!(
                "the sandbox denied system call {} (x86-64 number): this is a defect of tracer, please report it",
                first + bit
            )
        }));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_denied_call_is_reported_once() {
        note(101);
        note(101);
        note(i64::MAX);
        let lines = take();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("system call 101 ") && lines[1].contains("system call 511 "));
        assert!(take().is_empty());
    }
}
