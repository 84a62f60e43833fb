//! QEMU: the program, whether KVM works on this machine, and one guest as a running process.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::kernels::Kernel;
use super::qemu_program;
pub use super::qemu_program::PROGRAM;
use crate::packages::Cache;

/// How long the KVM test may take; where KVM works it takes one or two seconds.
const KVM_TEST_LIMIT: Duration = Duration::from_secs(5);

/// Overrides the KVM test: `kvm` or `tcg`.
const ACCELERATOR: &str = "TRACER_LAB_ACCEL";

/// The kernel's message at the end of booting without a root file system.
const BOOTED: &str = "Unable to mount root fs";

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor itself.
    Kvm,
    /// QEMU's own translator.
    Tcg,
}

impl Accelerator {
    /// QEMU's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    fn processor(self) -> &'static str {
        match self {
            Self::Kvm => "host",
            // QEMU 7.2 mistranslates cmpxchg16b, which corrupts the slab of SMP guests.
            Self::Tcg => "max,-cx16",
        }
    }
}

/// The size of a guest.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// Its processors.
    pub cpus: u8,
    /// Its memory, in MiB.
    pub memory_mib: u32,
    /// Its clock counts executed instructions: each takes one nanosecond, and idle time passes at once. Needs
    /// one emulated processor.
    pub counts_instructions: bool,
}

impl Machine {
    /// The memory that every scenario fits into, in MiB.
    pub const MEMORY_MIB: u32 = 768;
    /// The memory for a real control plane, in MiB.
    pub const MEMORY_MIB_KUBERNETES: u32 = 3072;
}

/// QEMU on this machine.
#[derive(Debug, Clone)]
pub struct Qemu {
    program: PathBuf,
    /// How it runs guests.
    pub accelerator: Accelerator,
}

impl Qemu {
    /// Finds QEMU and tests KVM by booting `kernel` with it. The result is cached until this machine reboots.
    pub fn find(cache: &Cache, kernel: &Kernel) -> Result<Self> {
        let program = qemu_program::find(cache)?;
        let accelerator = match std::env::var(ACCELERATOR).as_deref() {
            Ok("kvm") => Accelerator::Kvm,
            Ok("tcg") => Accelerator::Tcg,
            Ok(other) => anyhow::bail!("{ACCELERATOR}={other}: expected kvm or tcg"),
            Err(_) => cached_accelerator(cache.root(), &program, kernel)?,
        };
        Ok(Self { program, accelerator })
    }

    /// Its version.
    pub fn version(&self) -> Result<String> {
        Ok(qemu_program::version(&self.program)?.to_string())
    }

    /// Starts a guest with this machine; with `screen`, its third serial port is that terminal.
    pub fn boot(
        &self,
        kernel: &Kernel,
        machine: Machine,
        initramfs: &Path,
        console: &Path,
        screen: Option<&Path>,
    ) -> Result<Guest> {
        let ports = if screen.is_some() { 3 } else { 2 };
        let parameters = format!("{PARAMETERS} 8250.nr_uarts={ports}");
        let mut command = command(&self.program, self.accelerator, kernel, machine, &parameters);
        let console_file = format!("file,id=console,path={}", console.display());
        command.arg("-initrd").arg(initramfs);
        command.args(["-chardev", &console_file, "-serial", "chardev:console"]);
        command.args([
            "-chardev",
            "stdio,id=protocol,signal=off",
            "-serial",
            "chardev:protocol",
        ]);
        if let Some(screen) = screen {
            let screen = format!("serial,id=screen,path={}", screen.display());
            command.args(["-chardev", &screen]);
            // With its own interrupt: by default the third port of a PC shares the console's.
            command.args(["-device", "isa-serial,chardev=screen,iobase=0x3e8,irq=5"]);
        }
        Guest::start(command, console)
    }
}

/// Kernel parameters of a guest. A broken guest panics at once instead of hanging.
const PARAMETERS: &str = "console=ttyS0 loglevel=6 panic=-1 oops=panic softlockup_panic=1 mitigations=off rcupdate.rcu_expedited=1 \
                          random.trust_cpu=on tsc=reliable no_timer_check";

fn command(
    program: &Path,
    accelerator: Accelerator,
    kernel: &Kernel,
    machine: Machine,
    parameters: &str,
) -> Command {
    let mut command = Command::new(program);
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args([
            "-machine",
            "q35,hpet=off",
            "-accel",
            accelerator.name(),
            "-cpu",
            accelerator.processor(),
        ])
        .args(["-smp", &machine.cpus.to_string()])
        .args(["-m", &machine.memory_mib.to_string()])
        .arg("-kernel")
        .arg(&kernel.vmlinuz)
        .args(["-append", parameters]);
    if machine.counts_instructions {
        command.args(["-icount", "shift=0,sleep=off"]);
    }
    command
}

fn cached_accelerator(cache: &Path, program: &Path, kernel: &Kernel) -> Result<Accelerator> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(Accelerator::Tcg);
    }
    let version = Command::new(program)
        .arg("--version")
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?
        .stdout;
    let boot = fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digest = Sha256::new().chain_update(version).chain_update(boot).finalize();
    let path = cache.join(format!(
        "kvm-{:02x}{:02x}{:02x}{:02x}",
        digest[0], digest[1], digest[2], digest[3]
    ));
    match fs::read_to_string(&path).as_deref() {
        Ok("works") => return Ok(Accelerator::Kvm),
        Ok("fails") => return Ok(Accelerator::Tcg),
        _ => {}
    }
    eprintln!("     KVM  testing with {} ...", kernel.release);
    let works = kvm_works(program, kernel).unwrap_or(false);
    let answer = if works { "works" } else { "fails" };
    eprintln!(
        "     KVM  {answer}{}",
        if works { "" } else { ": guests will be emulated" }
    );
    fs::create_dir_all(cache).with_context(|| format!("cannot create {}", cache.display()))?;
    fs::write(&path, answer).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(if works { Accelerator::Kvm } else { Accelerator::Tcg })
}

/// Boots a guest: `/dev/kvm` can be opened on machines where no guest ever gets past its firmware, so only a
/// boot proves that KVM works.
fn kvm_works(program: &Path, kernel: &Kernel) -> Result<bool> {
    let machine = Machine {
        cpus: 2,
        memory_mib: Machine::MEMORY_MIB,
        counts_instructions: false,
    };
    let mut command = command(
        program,
        Accelerator::Kvm,
        kernel,
        machine,
        "console=ttyS0 panic=-1",
    );
    command.args(["-serial", "stdio"]);
    let mut process = Process::start(command)?;
    let mut console = process.stdout()?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        // Ends when QEMU ends.
        let _ = console.read_to_end(&mut text);
        let _ = sender.send(String::from_utf8_lossy(&text).contains(BOOTED));
    });
    Ok(receiver.recv_timeout(KVM_TEST_LIMIT).unwrap_or(false))
}

/// One guest. It is killed when this is dropped.
#[derive(Debug)]
pub struct Guest {
    process: Process,
    console: PathBuf,
    lines: Receiver<String>,
}

/// The result of waiting for a guest's next line.
#[derive(Debug, PartialEq, Eq)]
pub enum NextLine {
    /// A line of the protocol.
    Line(String),
    /// Nothing so far.
    TimedOut,
    /// The guest's output has ended.
    Closed,
}

impl Guest {
    fn start(command: Command, console: &Path) -> Result<Self> {
        // An earlier guest's output must not be mistaken for this one's.
        File::create(console).with_context(|| format!("cannot create {}", console.display()))?;
        let mut process = Process::start(command)?;
        let stdout = process.stdout()?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n') {
                let Ok(line) = line else { break };
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            process,
            console: console.to_owned(),
            lines,
        })
    }

    /// Waits for the next line, at most for `wait`.
    #[must_use]
    pub fn next_line(&self, wait: Duration) -> NextLine {
        match self.lines.recv_timeout(wait) {
            Ok(line) => NextLine::Line(line),
            Err(mpsc::RecvTimeoutError::Timeout) => NextLine::TimedOut,
            Err(mpsc::RecvTimeoutError::Disconnected) => NextLine::Closed,
        }
    }

    /// The number of bytes written to the console so far.
    #[must_use]
    pub fn console_size(&self) -> u64 {
        fs::metadata(&self.console).map_or(0, |metadata| metadata.len())
    }

    /// QEMU's error output, if there is any.
    pub fn error_output(&mut self) -> String {
        self.process.error_output()
    }

    /// Waits for the guest to power off; kills it after `wait`.
    pub fn finish(mut self, wait: Duration) {
        let deadline = Instant::now() + wait;
        while self.process.exit_status().is_none() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A QEMU process that does not outlive us.
#[derive(Debug)]
struct Process(Child);

impl Process {
    fn start(command: Command) -> Result<Self> {
        let mut command = killed_with_parent(command);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self(child))
    }

    fn stdout(&mut self) -> Result<ChildStdout> {
        self.0
            .stdout
            .take()
            .context("QEMU's output is already being read")
    }

    fn exit_status(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().ok().flatten()
    }

    fn error_output(&mut self) -> String {
        // Reading to the end would block while QEMU runs.
        self.kill();
        let mut text = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            let _ = stderr.read_to_string(&mut text);
        }
        text.trim().to_owned()
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Makes the kernel kill QEMU when we are killed and cannot run our own cleanup.
fn killed_with_parent(command: Command) -> Command {
    let Some(setpriv) = crate::packages::host::find("setpriv") else {
        return command;
    };
    let mut wrapped = Command::new(setpriv);
    wrapped.args(["--pdeathsig", "KILL", "--"]);
    wrapped.arg(command.get_program()).args(command.get_args());
    wrapped
}
