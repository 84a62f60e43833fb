//! What a confined process can still do. Each test confines a process of its own.

use std::{
    env, fs,
    io::{ErrorKind, Read as _, Seek as _, Write as _},
    net::{TcpStream, UdpSocket},
    os::unix::{
        fs::{PermissionsExt as _, chown},
        net::UnixStream,
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};
use tracer::confine::{
    denied,
    reading::{Needs, Reading},
    tracing,
};

/// How long a process may take to get confined on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A user that is not the one who runs the tests.
const STRANGER: u32 = 12_345;

fn recording() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/1.0-reuse-after-rst-6.12.trace")
}

/// Runs one of the ignored functions below in a process of its own, in this folder. It must succeed.
fn run_child(name: &str, folder: &Path) {
    let output = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads", "1"])
        .current_dir(folder)
        .output()
        .expect("the test runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{}: {text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

fn tracer(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("the command runs")
}

/// The value of a member of `/proc/PID/status`.
fn status(text: &str, name: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map_or_else(String::new, |value| {
        value.trim_start_matches(':').trim().to_owned()
    })
}

#[test]
fn a_reader_is_confined_before_it_gets_the_first_byte() {
    for arguments in [
        &["replay", "--plain", "-"][..],
        &["report", "-"],
        &["show", "-", "1"],
        &["export", "--to", "pcapng", "-"],
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tracer"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command runs");
        let begun = Instant::now();
        let path = format!("/proc/{}/status", child.id());
        loop {
            let state = fs::read_to_string(&path).expect("the command waits for its input");
            // A container may have a filter of its own from the start.
            let is_confined = status(&state, "Seccomp") == "2"
                && status(&state, "NoNewPrivs") == "1"
                && ["CapInh", "CapPrm", "CapEff", "CapAmb"]
                    .into_iter()
                    .all(|set| status(&state, set) == "0000000000000000");
            if is_confined {
                break;
            }
            assert!(begun.elapsed() < LIMIT, "{arguments:?}: {state}");
            thread::sleep(Duration::from_millis(5));
        }
        let mut input = child.stdin.take().expect("a pipe");
        input
            .write_all(&fs::read(recording()).expect("a recording"))
            .expect("it reads");
        drop(input);
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success() && !output.stdout.is_empty(), "{output:?}");
        // Nothing is denied in good order, and only what the kernel lacks is reported.
        let messages = String::from_utf8_lossy(&output.stderr);
        assert!(!messages.contains("denied"), "{messages}");
    }
}

#[test]
fn a_reader_has_its_open_files_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in [("input", "in"), ("output", ""), ("other", "secret")] {
        fs::write(folder.path().join(name), text).expect("a file");
    }
    run_child("child_reader", folder.path());
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect("a file");
    assert_eq!([read("output"), read("other")], ["out", "secret"]);
}

#[test]
#[ignore = "runs in a process of its own"]
fn child_reader() {
    let mut input = fs::File::open("input").expect("a file");
    let mut output = fs::File::options().write(true).open("output").expect("a file");
    let reading = Reading::begin(Needs::default());
    assert!(
        reading.sandbox.seccomp && reading.sandbox.no_new_privs,
        "{reading:?}"
    );
    assert!(reading.sandbox.capabilities.is_empty(), "{reading:?}");

    let mut text = String::new();
    input.read_to_string(&mut text).expect("an open file can be read");
    input.rewind().expect("and rewound");
    output.write_all(b"out").expect("an open file can be written");
    output.set_len(3).expect("and cut");
    thread::spawn(|| ()).join().expect("threads can start");
    assert!(denied::take().is_empty());

    let refused = |what: &str, error: std::io::Error| {
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{what}: {error}");
    };
    refused("open", fs::File::open("other").expect_err("it is closed"));
    refused("create", fs::File::create("new").expect_err("it is closed"));
    refused("remove", fs::remove_file("other").expect_err("it stays"));
    refused("rename", fs::rename("other", "input").expect_err("it stays"));
    refused(
        "connect",
        TcpStream::connect("127.0.0.1:9").expect_err("no network"),
    );
    refused("run", Command::new("/bin/true").spawn().expect_err("no programs"));
    // Each kind of call is reported once, except opening a file and starting a program.
    assert_eq!(denied::take().len(), 3);
}

#[test]
fn a_screen_creates_new_files_in_its_folder_and_opens_no_others() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("other"), "secret").expect("a file");
    run_child("child_screen", folder.path());
    let other = fs::read_to_string(folder.path().join("other"));
    assert_eq!(other.expect("a file"), "secret");
    // root keeps one capability for another user's folder.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    if chown(folder.path(), Some(STRANGER), Some(STRANGER)).is_ok() {
        fs::remove_file(folder.path().join("new")).expect("a file");
        run_child("child_screen", folder.path());
    }
}

#[test]
#[ignore = "runs in a process of its own"]
fn child_screen() {
    let reading = Reading::begin(Needs {
        screen: true,
        output: None,
    });
    assert!(reading.sandbox.seccomp, "{reading:?}");
    let most =
        usize::from(fs::metadata(".").is_ok_and(|folder| folder.permissions().mode() & 0o777 == 0o755));
    assert!(reading.sandbox.capabilities.len() <= most, "{reading:?}");
    let mut options = fs::File::options();
    let mut new = options
        .write(true)
        .create_new(true)
        .open("new")
        .expect("a new file");
    new.write_all(b"flow").expect("it can be written");
    fs::File::options()
        .append(true)
        .open("other")
        .expect_err("an existing file stays");
    fs::File::create("other").expect_err("it is not emptied");
    fs::remove_file("other").expect_err("it is not removed");
    TcpStream::connect("127.0.0.1:9").expect_err("no network");
    if reading.sandbox.landlock {
        fs::read("other").expect_err("it is not read");
        fs::read("/proc/self/status").expect_err("nor anything else");
        fs::File::create_new("/tmp/tracer-confinement-test").expect_err("nor created elsewhere");
    }
}

#[test]
fn tracing_keeps_seven_capabilities_in_all_threads_and_runs_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    run_child("child_tracing", folder.path());
}

#[test]
#[ignore = "runs in a process of its own"]
fn child_tracing() {
    let (ready, is_ready) = mpsc::channel();
    let (end, is_over) = mpsc::channel::<()>();
    // As the thread that waits for signals.
    let thread = thread::spawn(move || {
        tracing::give_up_all();
        ready.send(()).expect("a receiver");
        let _ = is_over.recv();
    });
    is_ready.recv().expect("a sender");
    let is_root = status(
        &fs::read_to_string("/proc/self/status").expect("status"),
        "CapPrm",
    ) != "0000000000000000";
    // It ends with this process, which holds its input.
    let mut stranger = Command::new("cat");
    stranger
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if is_root {
        stranger.uid(STRANGER);
    }
    let mut stranger = stranger.spawn().expect("a process of another user");
    let confined = tracing::begin(&[PathBuf::from(".")]);
    assert!(confined.missing.is_empty(), "{confined:?}");
    let sandbox = confined.sandbox;
    assert!(sandbox.seccomp && sandbox.no_new_privs, "{sandbox:?}");

    let mut seen = 0;
    for task in fs::read_dir("/proc/self/task").expect("threads") {
        let text = fs::read_to_string(task.expect("a thread").path().join("status")).expect("status");
        assert_eq!(status(&text, "Seccomp"), "2");
        assert_eq!(status(&text, "NoNewPrivs"), "1");
        assert_eq!(status(&text, "CapPrm"), status(&text, "CapEff"));
        seen += 1;
    }
    assert!(seen >= 2, "{seen} threads");
    let expected: &[&str] = &[
        "CAP_DAC_READ_SEARCH",
        "CAP_NET_ADMIN",
        "CAP_SYS_PTRACE",
        "CAP_SYS_ADMIN",
        "CAP_SYSLOG",
        "CAP_PERFMON",
        "CAP_BPF",
    ];
    // A container may have fewer of them. This thread may not be the first one, which the test's framework keeps.
    if is_root && seen == 2 {
        assert!(
            sandbox
                .capabilities
                .iter()
                .all(|name| expected.contains(&name.as_str())),
            "{sandbox:?}"
        );
    }

    fs::write("file", "text").expect("files can be written");
    fs::rename("file", "other").expect("and renamed");
    fs::remove_file("other").expect("and removed");
    let process = Path::new("/proc").join(stranger.id().to_string());
    fs::metadata(process.join("ns/net")).expect("the namespace of another user's process");
    let open = fs::read_dir(process.join("fd")).expect("its files");
    for file in open {
        fs::read_link(file.expect("a file").path()).expect("their names");
    }
    for address in ["127.0.0.1:0", "[::1]:0"] {
        // There may be no IPv6.
        let _ = UdpSocket::bind(address);
    }
    thread::spawn(|| ()).join().expect("threads can start");
    assert!(denied::take().is_empty());
    let error = UnixStream::connect("socket").expect_err("no local sockets");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    Command::new("/bin/true").spawn().expect_err("no programs");
    assert_eq!(denied::take().len(), 1);
    // Signals to other processes are denied, too.
    stranger.kill().expect_err("it is not killed");
    assert_eq!(denied::take().len(), 1);
    drop(end);
    thread.join().expect("no panic");
}

#[test]
fn an_output_is_touched_only_once_the_recording_is_known_to_be_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let is_strangers = |stranger: bool| {
        // root works in other users' folders too.
        !stranger || chown(folder.path(), Some(STRANGER), Some(STRANGER)).is_ok()
    };
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    // A damaged head.
    let mut bytes = fs::read(recording()).expect("a recording");
    bytes[40] ^= 1;
    fs::write(folder.path().join("bad.trace"), &bytes).expect("a file");
    let good = recording();
    let good = good.to_str().expect("text");
    for stranger in [false, true] {
        if !is_strangers(stranger) {
            eprintln!("not root: another user's folder was not tested");
            return;
        }
        let old = folder.path().join("old");
        let _ = fs::remove_file(&old);
        fs::write(&old, "old").expect("a file");
        for arguments in [
            &["export", "--to", "jsonl", "--output", "new", "bad.trace"][..],
            &["export", "--to", "jsonl", "--output", "old", "bad.trace"],
            &[
                "export",
                "--to",
                "jsonl",
                "--output",
                "old",
                "--force",
                "bad.trace",
            ],
            &["report", "--html", "new", "bad.trace"],
        ] {
            let output = tracer(folder.path(), arguments);
            assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        }
        assert_eq!(fs::read_to_string(&old).expect("a file"), "old");
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .expect("a folder")
            .map(|entry| entry.expect("a file").file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["bad.trace", "old"], "another user's folder: {stranger}");

        for arguments in [
            &["export", "--to", "jsonl", "--output", "old", "--force", good][..],
            &["report", "--html", "new", good],
        ] {
            let output = tracer(folder.path(), arguments);
            assert!(output.status.success(), "{arguments:?}: {output:?}");
        }
        let written = fs::read_to_string(&old).expect("a file");
        assert!(written.starts_with("{\"type\":\"start\""), "{written}");
        fs::remove_file(folder.path().join("new")).expect("a file");
    }
}

#[test]
fn a_reader_goes_on_where_the_system_refuses_the_sandbox() {
    let folder = tempfile::tempdir().expect("a folder");
    run_child("child_without_a_sandbox", folder.path());
}

#[test]
#[ignore = "runs in a process of its own"]
fn child_without_a_sandbox() {
    // A kernel without Landlock, and a container that forbids seccomp.
    for (number, errno) in [
        (nix::libc::SYS_landlock_create_ruleset, nix::libc::ENOSYS),
        (nix::libc::SYS_seccomp, nix::libc::EPERM),
    ] {
        let filter = SeccompFilter::new(
            [(number, Vec::new())].into(),
            SeccompAction::Allow,
            SeccompAction::Errno(errno.cast_unsigned()),
            TargetArch::x86_64,
        );
        let program: BpfProgram = filter.and_then(TryInto::try_into).expect("a filter");
        apply_filter(&program).expect("a filter can be added");
        let recording = recording();
        let output = tracer(Path::new("."), &["report", recording.to_str().expect("text")]);
        let messages = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !output.stdout.is_empty(), "{messages}");
        assert_eq!(messages.lines().count(), 1, "{messages}");
        assert!(
            messages.starts_with("tracer: confined: no capabilities, no new privileges")
                && messages.contains("this kernel has no Landlock")
                && messages.contains("seccomp failed") == (number == nix::libc::SYS_seccomp),
            "{messages}"
        );
    }
}
