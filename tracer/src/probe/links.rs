//! One hook's programs: loaded, attached, detached.

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

/// What holds a hook's programs at their places. Dropping it detaches them; they stay loaded.
#[expect(dead_code, reason = "links are there to be dropped")]
pub(super) enum Links {
    Tracepoint(RawTracePointLink),
    /// The entry goes first: what has been entered still returns.
    Function {
        entry: KProbeLink,
        exit: Option<KProbeLink>,
    },
}

/// So many programs are verified at once, at most: each takes some megabytes of the kernel's memory meanwhile.
const MOST_AT_ONCE: usize = 4;

/// Has the kernel take the programs of these hooks, several at once where there are CPUs for it: what it thinks about each
/// is most of the time until tracer is ready. What it refuses is not told here: [`attach`] will hear it again.
pub(super) fn load_all<'a>(ebpf: &mut Ebpf, hooks: impl Iterator<Item = &'a HookInfo>) {
    let names: BTreeSet<&str> = hooks.flat_map(|info| [info.name, info.exit_program]).collect();
    if names.is_empty() {
        return;
    }
    let wanted = ebpf.programs_mut().filter(|(name, _)| names.contains(name));
    let programs = Mutex::new(wanted.map(|(_, program)| program));
    let threads = thread::available_parallelism().map_or(1, |cpus| cpus.get().min(MOST_AT_ONCE));
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
            // Without a thread, what is left is loaded when it is attached.
            if thread::Builder::new().spawn_scoped(scope, load_some).is_err() {
                break;
            }
        }
    });
}

/// Attaches one hook; the return first, so that no entry is remembered whose return is not seen. `Err` is the
/// kernel's reason, in one line.
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
    attach().map_err(refused)
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

fn refused(error: ProgramError) -> String {
    let why = anyhow::Error::from(error);
    format!("the kernel refused it: {}", last_lines(&format!("{why:#}")))
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
