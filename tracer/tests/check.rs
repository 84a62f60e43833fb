//! `tracer check` on trees of files under `--host-root`, and `docs/hazards.md`, which is generated from the rows of the hazards.

use std::{
    env,
    fmt::Write as _,
    fs,
    ops::RangeInclusive,
    path::Path,
    process::{Command, Output},
    thread,
};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use serde_json::Value;
use tempfile::TempDir;
use tracer::{
    check::{Tested, hazards},
    decode::record::RECORDS,
    facts::node_state::NodeState,
    finding::head::Head,
    recording::{
        change::FactChange,
        item::{FactUpdate, Item},
        writer::{ChunkBuilder, Writer},
    },
};

/// The error of a system call that the kernel does not have.
const ENOSYS: u32 = 38;

/// Environment variable that makes the test write the page instead of checking it.
const WRITE: &str = "TRACER_WRITE_HAZARDS";

const HEAD: &str = "\
# Hazards

Every hazard that `tracer check` looks for, by subject: what is read, why it hurts, and where the detection is tested. A hazard
`hurts` if connections suffer now, and is `armed` if they will under a condition that is named. What cannot be read is `unknown`.
`tracer check` is written for Linux 3.10 and later; it is tested on 5.10 and later, and on no 3.10 kernel. This file is generated
from the rows in `tracer/src/check` by `TRACER_WRITE_HAZARDS=1 cargo test -p tracer --test check`.
";

/// The files of a node with `CentOS` 7 in IPVS mode.
const CENTOS: [(&str, &str); 17] = [
    (
        "etc/os-release",
        "ID=\"centos\"\nVERSION_ID=\"7\"\nPRETTY_NAME=\"CentOS Linux 7 (Core)\"\n",
    ),
    ("proc/kallsyms", "0000000000000000 t ip_vs_in\t[ip_vs]\n"),
    ("proc/modules", "ip_vs 145458 6 - Live 0x0000000000000000\n"),
    (
        "proc/net/ip_vs",
        "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\nTCP  0A000001:7580 rr \n  -> 0AF40102:1F90      Masq    1      0          3         \n",
    ),
    (
        "proc/net/netstat",
        "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 0 5 5\n",
    ),
    ("proc/net/softnet_stat", "0000272d 00000000 00000001 00000000\n"),
    ("proc/stat", "cpu  1 2 3\ncpu0 1 2 3\ncpu1 0 0 0\n"),
    ("proc/sys/kernel/hostname", "node-1\n"),
    ("proc/sys/kernel/osrelease", "3.10.0-1160.el7.x86_64\n"),
    ("proc/sys/kernel/perf_event_paranoid", "2\n"),
    ("proc/sys/net/ipv4/ip_forward", "1\n"),
    ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
    ("proc/sys/net/ipv4/tcp_abort_on_overflow", "0\n"),
    ("proc/sys/net/ipv4/tcp_syncookies", "1\n"),
    ("proc/sys/net/ipv4/vs/conn_reuse_mode", "1\n"),
    ("proc/sys/net/ipv4/vs/conntrack", "1\n"),
    ("proc/sys/net/ipv4/vs/expire_nodest_conn", "1\n"),
];

fn tree(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    root
}

fn check(root: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(["check", "--host-root", root.to_str().expect("text")])
        .args(arguments)
        .output()
        .expect("the command runs")
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[test]
fn the_first_line_names_the_setting_that_stalls_a_centos_7_node() {
    let root = tree(&CENTOS);
    let output = check(root.path(), &[]);
    assert!(output.status.success());
    let first = text(&output).lines().next().expect("a line").to_owned();
    assert!(first.starts_with("armed   ipvs-reuse"), "{first}");
    assert!(first.contains("net.ipv4.vs.conn_reuse_mode is 1"), "{first}");
    let verbose = text(&check(root.path(), &["-v"]));
    assert!(
        verbose.contains("do: sysctl -w net.ipv4.vs.conn_reuse_mode=0; no kernel upgrade is needed"),
        "{verbose}"
    );
    assert!(verbose.contains("kernel-eol"), "{verbose}");
}

#[test]
fn the_exit_status_follows_the_states() {
    let root = tree(&CENTOS);
    for (arguments, status) in [
        (&["--fail-on", "armed"][..], 3),
        (&["--fail-on", "hurts"], 0),
        (&["--json"], 0),
        (&["--fail-on", "fine"], 2),
    ] {
        assert_eq!(
            check(root.path(), arguments).status.code(),
            Some(status),
            "{arguments:?}"
        );
    }
    let nowhere = check(&root.path().join("nowhere"), &[]);
    assert_eq!(nowhere.status.code(), Some(1));
    let why = String::from_utf8_lossy(&nowhere.stderr).into_owned();
    assert!(why.contains("cannot use") && why.lines().count() == 1, "{why}");
}

#[test]
fn json_has_every_hazard_once() {
    let root = tree(&CENTOS);
    let line = text(&check(root.path(), &["--json"]));
    let value: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(value["type"], "check");
    assert_eq!(value["host"], "node-1");
    assert_eq!(value["kernel"], "3.10.0-1160.el7.x86_64");
    let all = value["hazards"].as_array().expect("hazards");
    assert_eq!(all.len(), hazards().count());
    let state = |id: &str| {
        let found = all.iter().find(|hazard| hazard["id"] == id).expect(id);
        found["state"].as_str().expect("a state").to_owned()
    };
    assert_eq!(state("ipvs-reuse"), "armed");
    assert_eq!(state("ipvs-nodest"), "fine");
    // Files alone tell nothing about rules, and one reading nothing about growth.
    assert_eq!(state("rules-mixed"), "unknown");
    assert_eq!(state("tcp-accept-queue"), "unknown");
}

#[test]
fn settings_in_files_arm_and_disarm() {
    let cases = [
        ("proc/sys/net/ipv4/vs/expire_nodest_conn", "0\n", "ipvs-nodest"),
        ("proc/sys/net/ipv4/vs/drop_packet", "1\n", "ipvs-defense"),
        (
            "proc/sys/net/ipv4/ip_local_port_range",
            "1024\t65000\n",
            "nodeport-ephemeral",
        ),
        ("proc/sys/net/ipv4/tcp_tw_recycle", "1\n", "tcp-tw-recycle"),
        ("proc/sys/net/ipv4/tcp_syncookies", "0\n", "tcp-syncookies"),
        ("proc/sys/net/ipv4/tcp_abort_on_overflow", "1\n", "tcp-abort"),
        ("proc/sys/net/ipv4/ip_forward", "0\n", "fwd-off"),
        ("proc/sys/kernel/perf_event_paranoid", "3\n", "paranoid"),
    ];
    let armed = |root: &Path, id: &str| {
        let start = format!("armed   {id} ");
        text(&check(root, &[]))
            .lines()
            .any(|line| line.starts_with(&start))
    };
    let healthy = tree(&CENTOS);
    for (name, value, id) in cases {
        assert!(!armed(healthy.path(), id), "{id}");
        let mut files = CENTOS.to_vec();
        files.push((name, value));
        let changed = tree(&files);
        assert!(
            armed(changed.path(), id),
            "{id}: {}",
            text(&check(changed.path(), &["-v"]))
        );
    }
}

#[test]
fn the_machine_itself_is_checked_within_two_seconds_and_without_privileges() {
    let begun = std::time::Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(["check", "--json"])
        .output()
        .expect("the command runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // A loaded machine gets some slack; an idle one needs 1.1 s.
    assert!(begun.elapsed().as_secs() < 10);
    let value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        value["hazards"].as_array().expect("hazards").len(),
        hazards().count()
    );
}

/// System calls of x86-64 that 3.10 does not have: those after `finit_module` (`arch/x86/syscalls/syscall_64.tbl`).
const NEWER_THAN_3_10: RangeInclusive<i64> = 314..=600;

#[test]
fn no_system_call_is_needed_that_3_10_lacks() {
    let rules = NEWER_THAN_3_10.map(|number| (number, Vec::new())).collect();
    let refuse = SeccompAction::Errno(ENOSYS);
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, refuse, TargetArch::x86_64).expect("a filter");
    let program: BpfProgram = filter.try_into().expect("a program");
    // The filter holds for this thread and for what it starts.
    let output = thread::spawn(move || {
        seccompiler::apply_filter(&program).expect("seccomp");
        Command::new(env!("CARGO_BIN_EXE_tracer"))
            .args(["check", "--json"])
            .output()
            .expect("the command runs")
    });
    let output = output.join().expect("no panic");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let states = |bytes: &[u8]| -> Vec<(String, String)> {
        let value: Value = serde_json::from_slice(bytes).expect("JSON");
        let all = value["hazards"].as_array().expect("hazards").iter();
        all.map(|hazard| (hazard["id"].to_string(), hazard["state"].to_string()))
            .collect()
    };
    let unrestricted = Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(["check", "--json"])
        .output()
        .expect("the command runs");
    let unknown = |states: Vec<(String, String)>| -> Vec<String> {
        let unknown = states.into_iter().filter(|(_, state)| state == "\"unknown\"");
        let mut ids: Vec<String> = unknown.map(|(id, _)| id).collect();
        ids.sort();
        ids
    };
    assert_eq!(
        unknown(states(&output.stdout)),
        unknown(states(&unrestricted.stdout))
    );
}

/// Writes a recording of a node with these sysctls; without any, it has no state of the node.
fn record(path: &Path, sysctls: &[(&str, &str)]) {
    let head = Head {
        tracer: "0.1.0".to_owned(),
        records: RECORDS,
        session: "a run".to_owned(),
        host: "node-7".to_owned(),
        ports: vec![30_080],
        ..Head::default()
    };
    let mut builder = ChunkBuilder::new(1);
    if !sysctls.is_empty() {
        let node = NodeState {
            host: head.host.clone(),
            sysctls: sysctls
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..NodeState::default()
        };
        builder.add(&Item::Facts(FactUpdate {
            reported: None,
            change: FactChange::Node(Box::new(node)),
        }));
    }
    builder.add(&Item::Tick(1));
    let mut writer = Writer::new(Vec::new(), &head).expect("memory");
    writer
        .write(&builder.seal(1).expect("a short chunk"))
        .expect("memory");
    fs::write(path, writer.finish().expect("memory")).expect("a file");
}

fn run(arguments: &[&str], path: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(arguments)
        .arg(path)
        .output()
        .expect("the command runs")
}

#[test]
fn a_recording_is_checked_like_a_node() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("node.trace");
    record(&path, &[("net.ipv4.tcp_tw_recycle", "1")]);
    let output = run(&["check", "--fail-on", "armed"], &path);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        text(&output).starts_with("armed   tcp-tw-recycle"),
        "{}",
        text(&output)
    );
    let report = text(&run(&["report"], &path));
    assert!(
        report.contains("\nHazards on node-7 when recording began: 2 armed"),
        "{report}"
    );
    assert!(
        report.contains("do: sysctl -w net.ipv4.tcp_tw_recycle=0"),
        "{report}"
    );
}

#[test]
fn a_recording_without_the_state_of_the_node_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("old.trace");
    record(&path, &[]);
    let output = run(&["check"], &path);
    assert_eq!(output.status.code(), Some(1));
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(why.contains("it has no state of the node"), "{why}");
    assert!(!text(&run(&["report"], &path)).contains("Hazards"));
}

fn page() -> String {
    let mut out = HEAD.to_owned();
    out.push_str("\n| hazard | severity | |\n|---|---|---|\n");
    for hazard in hazards() {
        let id = hazard.id;
        let _ = writeln!(
            out,
            "| [`{id}`](#{id}) | {} | {} |",
            hazard.severity.name(),
            hazard.title
        );
    }
    for hazard in hazards() {
        let _ = write!(
            out,
            "\n## {}\n\n{} ({}).\n\n- **Detected by**: {}\n- **Why**: {}\n- **Reference**: {}\n",
            hazard.id,
            hazard.title,
            hazard.severity.name(),
            hazard.detect,
            hazard.why,
            link(hazard.reference),
        );
        if let Some(cause) = hazard.cause {
            let anchor = cause.replace('.', "");
            let _ = writeln!(
                out,
                "- **Cause of a connection that it hits**: [`{cause}`](causes.md#{anchor})"
            );
        }
        let _ = match hazard.tested {
            Tested::Lab(scenario) => writeln!(out, "- **Tested**: on real kernels, scenario `{scenario}`"),
            Tested::Fixture => writeln!(out, "- **Tested**: fixture only"),
        };
    }
    out
}

/// A reference as a link: an address, or `OWNER/REPOSITORY#NUMBER` on GitHub.
fn link(reference: &str) -> String {
    if reference.starts_with("https://") {
        return format!("<{reference}>");
    }
    let address = reference.replace('#', "/issues/");
    format!("[{reference}](https://github.com/{address})")
}

#[test]
fn the_page_agrees_with_the_rows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/hazards.md");
    let page = page();
    if env::var_os(WRITE).is_some() {
        fs::write(&path, &page).expect("a file");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        written, page,
        "docs/hazards.md is out of date: run this test with {WRITE}=1"
    );
}

#[test]
fn scenarios_of_hazards_exist() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios");
    for hazard in hazards() {
        if let Tested::Lab(scenario) = hazard.tested {
            let text = fs::read_to_string(folder.join(format!("{scenario}.toml")))
                .unwrap_or_else(|error| panic!("{scenario}: {error}"));
            assert!(text.contains(hazard.id), "{scenario} does not name {}", hazard.id);
        }
    }
}
