//! Loads, attaches and detaches the programs of one hook.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    thread,
};

use aya::{
    Ebpf,
    programs::{
        KProbe, Program, ProgramError, RawTracePoint, kprobe::KProbeLink, raw_trace_point::RawTracePointLink,
    },
};
use tracer_common::hook::{HookInfo, HookKind};

/// The links of a hook's attached programs. Dropping them detaches the programs, which stay loaded.
pub(super) enum Links {
    Tracepoint(RawTracePointLink),
    /// The entry is detached first: a function that was entered still returns.
    Function {
        entry: KProbeLink,
        exit: Option<KProbeLink>,
    },
}

impl Links {
    /// The single links.
    fn split(self) -> impl Iterator<Item = Box<dyn Send>> {
        let function = |link: KProbeLink| Box::new(link) as Box<dyn Send>;
        let links = match self {
            Self::Tracepoint(link) => [Some(Box::new(link) as Box<dyn Send>), None],
            Self::Function { entry, exit } => [Some(function(entry)), exit.map(function)],
        };
        links.into_iter().flatten()
    }
}

/// How many links are closed at once.
const MAX_PARALLEL_CLOSES: usize = 64;
/// A thread that closes a link needs next to no stack.
const CLOSE_STACK: usize = 64 << 10;

/// Detaches programs whose records are no longer read, several at once: closing a probe waits for several RCU grace periods
/// (`kernel/events/core.c`, `perf_event_detach_bpf_prog`; `kernel/kprobes.c`, `unregister_kprobes`), during which the
/// thread only sleeps.
pub(super) fn close_all(links: impl Iterator<Item = Links>) {
    let links = Mutex::new(links.flat_map(Links::split).collect::<Vec<_>>());
    let close_some = || {
        loop {
            let next = links.lock().unwrap_or_else(PoisonError::into_inner).pop();
            if next.is_none() {
                break;
            }
        }
    };
    let threads = links
        .lock()
        .map_or(0, |links| links.len().min(MAX_PARALLEL_CLOSES));
    thread::scope(|scope| {
        for _ in 0..threads {
            let thread = thread::Builder::new()
                .name("detach".to_owned())
                .stack_size(CLOSE_STACK);
            if thread.spawn_scoped(scope, close_some).is_err() {
                break;
            }
        }
        close_some();
    });
}

/// How many programs are verified at once: each takes some megabytes of kernel memory meanwhile.
const MAX_PARALLEL_LOADS: usize = 4;

/// Loads the programs of these hooks, several at once: verifying them takes most of tracer's start. Errors are ignored
/// here, because [`attach`] gets them again.
pub(super) fn load_all<'a>(ebpf: &mut Ebpf, hooks: impl Iterator<Item = &'a HookInfo>) {
    let names: BTreeSet<&str> = hooks.flat_map(|info| [info.name, info.exit_program]).collect();
    if names.is_empty() {
        return;
    }
    let wanted = ebpf.programs_mut().filter(|(name, _)| names.contains(name));
    let programs = Mutex::new(wanted.map(|(_, program)| program));
    let threads = thread::available_parallelism().map_or(1, |cpus| cpus.get().min(MAX_PARALLEL_LOADS));
    thread::scope(|scope| {
        for _ in 0..threads {
            let load_some = || {
                loop {
                    let next = programs.lock().unwrap_or_else(PoisonError::into_inner).next();
                    match next {
                        Some(Program::RawTracePoint(program)) => drop(program.load()),
                        Some(Program::KProbe(program)) => drop(program.load()),
                        Some(_) => {}
                        None => break,
                    }
                }
            };
            // Without a thread, the remaining programs are loaded when they are attached.
            if thread::Builder::new().spawn_scoped(scope, load_some).is_err() {
                break;
            }
        }
    });
}

/// Attaches one hook. The return probe goes first, so that no entry is remembered whose return is not seen.
///
/// # Errors
/// The kernel's reason, in one line.
pub(super) fn attach(ebpf: &mut Ebpf, info: &HookInfo) -> Result<Links, String> {
    let mut attach = || {
        if info.kind == HookKind::Tracepoint {
            let program = tracepoint(ebpf, info.name)?;
            let id = program.attach(info.name)?;
            return program.take_link(id).map(Links::Tracepoint);
        }
        let exit = match info.kind {
            HookKind::Call => Some(attach_kprobe(ebpf, info.exit_program, info.name)?),
            _ => None,
        };
        let entry = attach_kprobe(ebpf, info.name, info.name)?;
        Ok(Links::Function { entry, exit })
    };
    attach().map_err(rejection)
}

fn attach_kprobe(ebpf: &mut Ebpf, name: &str, function: &str) -> Result<KProbeLink, ProgramError> {
    let program = kprobe(ebpf, name)?;
    let id = program.attach(function, 0)?;
    program.take_link(id)
}

fn tracepoint<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut RawTracePoint, ProgramError> {
    let program: &mut RawTracePoint = ebpf
        .program_mut(name)
        .ok_or(ProgramError::NotLoaded)?
        .try_into()?;
    if program.fd().is_err() {
        program.load()?;
    }
    Ok(program)
}

fn kprobe<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut KProbe, ProgramError> {
    let program: &mut KProbe = ebpf
        .program_mut(name)
        .ok_or(ProgramError::NotLoaded)?
        .try_into()?;
    if program.fd().is_err() {
        program.load()?;
    }
    Ok(program)
}

fn rejection(error: ProgramError) -> String {
    let why = anyhow::Error::from(error);
    format!(
        "the kernel rejected the program: {}",
        last_lines(&format!("{why:#}"))
    )
}

/// The end of the verifier's log, where its reason is, in one line.
fn last_lines(text: &str) -> String {
    let statistics = ["verification time", "stack depth", "processed "];
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty() && !statistics.iter().any(|start| line.starts_with(start)))
        .collect();
    lines[lines.len().saturating_sub(4)..].join(" | ")
}
