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
#[expect(dead_code, reason = "links only exist to be dropped")]
pub(super) enum Links {
    Tracepoint(RawTracePointLink),
    /// The entry is detached first: a function that was entered still returns.
    Function {
        entry: KProbeLink,
        exit: Option<KProbeLink>,
    },
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
