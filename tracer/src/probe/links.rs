//! One hook's programs: loaded, attached, detached.

use aya::{
    Ebpf,
    programs::{KProbe, ProgramError, RawTracePoint, kprobe::KProbeLink, raw_trace_point::RawTracePointLink},
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

/// Has the kernel take a hook's programs, if it has not yet. `Err` is its reason, in one line.
pub(super) fn load(ebpf: &mut Ebpf, info: &HookInfo) -> Result<(), String> {
    let mut load = || {
        match info.kind {
            HookKind::Tracepoint => drop(tracepoint(ebpf, info.name)?),
            HookKind::Entry => drop(kprobe(ebpf, info.name)?),
            HookKind::Call => {
                kprobe(ebpf, info.exit_program)?;
                kprobe(ebpf, info.name)?;
            }
        }
        Ok(())
    };
    load().map_err(refused)
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
