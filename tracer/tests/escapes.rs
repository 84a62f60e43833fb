//! Names and texts from outside cannot control the terminal, forge a line or reverse text, whatever prints them.

use std::{
    fs,
    io::{self, BufReader},
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use ratatui::{
    buffer::Buffer,
    crossterm::event::{KeyCode, KeyModifiers},
    layout::Rect,
};
use serde_json::Value;
use tracer::{
    finding::{Clock, Finding, Observer, head::Head, run::Hooks},
    pipeline::{recordings::Inputs, replay},
    recording::{
        item::{FactUpdate, Item},
        reader::Reader,
        writer::{ChunkBuilder, Writer},
    },
    tui::{
        export,
        flow_update::FlowUpdate,
        message::Msg,
        model::Model,
        theme::{Depth, Theme},
        update::update,
        view::view,
    },
};

/// ESC with a CSI sequence, OSC with BEL, the C1 forms of both, a change of direction and its isolate, a forged line, DEL.
const HOSTILE: &str = "a\x1b[2J\x1b]0;t\x07\u{9b}31m\u{9d}0;t\u{9c}\u{202e}\u{2066}\r\nforged\x7f\x08b";
/// The same in a device's 15 bytes.
const DEVICE: &[u8; 16] = b"e\x1b[2J\x07\xc2\x9b\x0a\xe2\x80\xaet\0\0\0";

/// What replaces the names in a recording.
#[derive(Clone, Copy)]
enum Names {
    Hostile,
    Harmless,
}

impl Names {
    fn text(self) -> &'static str {
        match self {
            Self::Hostile => HOSTILE,
            Self::Harmless => "name",
        }
    }

    /// The chain, which has as many bytes as the original one.
    fn chain(self) -> &'static str {
        match self {
            Self::Hostile => "o\x1b[2J\u{9b}t",
            Self::Harmless => "outgoing",
        }
    }

    /// Replaces comments, and the name of the chain that dropped the SYNs.
    fn put(self, value: &mut Value) {
        match value {
            Value::Array(list) => list.iter_mut().for_each(|value| self.put(value)),
            Value::Object(members) => {
                for (name, value) in members {
                    match (name.as_str(), &mut *value) {
                        ("comment", Value::String(text)) => self.text().clone_into(text),
                        ("chain" | "name", Value::String(text)) if text == "outgoing" => {
                            self.chain().clone_into(text);
                        }
                        (_, value) => self.put(value),
                    }
                }
            }
            _ => {}
        }
    }

    fn facts(self, update: &FactUpdate) -> FactUpdate {
        let mut value = serde_json::to_value(update).expect("JSON");
        self.put(&mut value);
        let change = &mut value["change"];
        if change["of"] == "netns" {
            change["node_ports"] =
                serde_json::json!([[false, 30_080, [self.text()]], [false, 30_081, [self.text()]]]);
        }
        serde_json::from_value(value).expect("facts")
    }
}

/// A recording of a rule that dropped SYNs, with these names, and a path with that name in it.
fn recording(names: Names, folder: &Path) -> PathBuf {
    let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/1.0-rule-dropped-6.12.trace");
    let mut reader =
        Reader::new(BufReader::new(fs::File::open(original).expect("a recording"))).expect("a recording");
    let mut head = reader.head().clone();
    for text in [
        &mut head.host,
        &mut head.kernel,
        &mut head.uname,
        &mut head.boot_id,
        &mut head.tracer,
    ] {
        names.text().clone_into(text);
    }
    for hook in &mut head.hooks {
        hook.why = Some(names.text().to_owned());
    }
    let mut writer = Writer::new(Vec::new(), &head).expect("memory has room");
    while let Some(log) = reader.next_log().expect("a recording") {
        let mut builder = ChunkBuilder::new(log.header.next_flow);
        for item in log.items() {
            match item.expect("an item") {
                Item::Record(bytes) => {
                    let mut bytes = bytes.to_vec();
                    let device = bytes.windows(5).position(|part| part == b"eth0\0");
                    if let (Some(at), Names::Hostile) = (device, names) {
                        bytes[at..at + DEVICE.len()].copy_from_slice(DEVICE);
                    }
                    let chain = bytes.windows(8).position(|part| part == b"outgoing");
                    if let Some(at) = chain {
                        bytes[at..at + 8].copy_from_slice(names.chain().as_bytes());
                    }
                    builder.add(&Item::Record(&bytes));
                }
                Item::Facts(update) => builder.add(&Item::Facts(names.facts(&update))),
                Item::Hooks(hooks) => builder.add(&Item::Hooks(Hooks {
                    why: names.text().to_owned(),
                    ..hooks
                })),
                other => builder.add(&other),
            }
        }
        let chunk = builder.seal(log.header.next_flow).expect("a short chunk");
        writer.write(&chunk).expect("memory has room");
    }
    let mut bytes = writer.finish().expect("memory has room");
    // Damaged, so that the path is printed.
    bytes.truncate(bytes.len() - 3);
    let name = match names {
        Names::Hostile => "a\x1b[2J\u{202e}\nb.trace",
        Names::Harmless => "name.trace",
    };
    let path = folder.join(name);
    fs::write(&path, bytes).expect("a file");
    path
}

fn run(arguments: &[&str], path: &Path) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(arguments)
        .arg(path)
        .args((arguments == ["show"]).then_some("1"))
        .output()
        .expect("the command runs");
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
    output
}

/// Every character that is neither printable nor a line end.
fn harmful(text: &str) -> Vec<char> {
    let is_harmful = |c: &char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
    };
    text.chars().filter(|c| *c != '\n' && is_harmful(c)).collect()
}

#[test]
fn nothing_that_is_printed_controls_the_terminal() {
    let folder = tempfile::tempdir().expect("a folder");
    let hostile = recording(Names::Hostile, folder.path());
    let harmless = recording(Names::Harmless, folder.path());
    for (arguments, names) in [
        (&["replay", "--plain"][..], 1),
        (&["replay", "--plain", "-v"], 5),
        (&["report"], 2),
        (&["show"], 3),
        (&["replay", "--json"], 5),
        (&["report", "--json"], 2),
        (&["export", "--to", "jsonl"], 5),
        (&["report", "--html", "-"], 8),
    ] {
        let output = run(arguments, &hostile);
        let usual = run(arguments, &harmless);
        for (stream, usual) in [(output.stdout, usual.stdout), (output.stderr, usual.stderr)] {
            let text = String::from_utf8(stream).expect("text");
            assert_eq!(harmful(&text), [], "{arguments:?}: {text}");
            let usual = String::from_utf8(usual).expect("text");
            if !arguments.contains(&"--html") {
                assert_eq!(
                    text.lines().count(),
                    usual.lines().count(),
                    "{arguments:?}: {text}"
                );
            }
            if usual.contains("node-1") || usual.lines().count() > 3 {
                let seen = text.matches("forged").count();
                assert!(seen >= names, "{arguments:?}: {seen} of {names} names in {text}");
            }
        }
    }
}

#[test]
fn an_error_about_a_file_is_one_harmless_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("no\x1b[2J\nsuch\u{202e}file");
    let output = Command::new(env!("CARGO_BIN_EXE_tracer"))
        .arg("report")
        .arg(path)
        .output()
        .expect("the command runs");
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(text.contains("no\\x1b[2J\\x0asuch\\u{202e}file"), "{text}");
    assert_eq!((harmful(&text), text.lines().count()), (vec![], 1), "{text}");
}

#[test]
fn json_has_the_unmodified_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = run(&["replay", "--json"], &recording(Names::Hostile, folder.path()));
    let lines: Vec<Value> = String::from_utf8(output.stdout)
        .expect("text")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines[0]["host"], HOSTILE);
    assert!(lines.iter().any(|line| line["service"] == HOSTILE), "{lines:?}");
    let text = |value: &Value| value.as_str().is_some_and(|text| text.contains(HOSTILE));
    let explained = lines
        .iter()
        .find(|line| text(&line["explanation"]))
        .expect("the comment");
    assert!(
        explained.to_string().contains("chain o\\u001b[2J\u{9b}t"),
        "{explained}"
    );
}

struct Screen(Model);

impl Observer for Screen {
    fn start(&mut self, head: &Head) -> io::Result<()> {
        let start = Msg::Start {
            sandbox: String::new(),
            host: head.host.clone(),
            kernel: head.kernel.clone(),
            selection: HOSTILE.to_owned(),
            ports: head.ports.len(),
            hooks: head.hooks.clone(),
            clock: Clock::new(head.wall, head.monotonic_ns),
        };
        update(&mut self.0, start);
        Ok(())
    }

    fn hooks(&mut self, hooks: &Hooks) -> io::Result<()> {
        let (why, hooks) = (hooks.why.clone(), hooks.hooks.clone());
        update(&mut self.0, Msg::Hooks { why, hooks });
        Ok(())
    }

    fn flow(&mut self, finding: &Finding<'_>) -> io::Result<()> {
        update(&mut self.0, Msg::Flow(Box::new(FlowUpdate::of(finding))));
        Ok(())
    }

    fn now(&mut self, now_ns: u64) -> io::Result<ControlFlow<()>> {
        update(&mut self.0, Msg::Now(now_ns));
        Ok(ControlFlow::Continue(()))
    }

    fn damage(&mut self, what: &str) -> io::Result<()> {
        update(&mut self.0, Msg::Notice(what.to_owned()));
        Ok(())
    }
}

#[test]
fn no_cell_of_the_screen_holds_a_control_character() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = recording(Names::Hostile, folder.path());
    let area = Rect::new(0, 0, 200, 60);
    let mut screen = Screen(Model::new(
        Theme {
            depth: Depth::Mono,
            is_ascii: false,
        },
        (area.width, area.height),
    ));
    for run in Inputs::open(&[path])
        .and_then(|inputs| inputs.runs())
        .expect("a recording")
    {
        replay::play(run, &mut screen).expect("it can be played");
    }
    let mut names = 0;
    let keys = ['1', '2', '3', '4', '5', '2', '\n', 'j', 'j', 'j', 'j', 'j', '?'];
    for key in keys {
        let code = if key == '\n' {
            KeyCode::Enter
        } else {
            KeyCode::Char(key)
        };
        update(&mut screen.0, Msg::Key(code, KeyModifiers::NONE));
        let mut buffer = Buffer::empty(area);
        view(&screen.0, area, &mut buffer);
        for cell in buffer.content() {
            assert_eq!(
                harmful(cell.symbol()),
                [],
                "{key}: {:?}",
                export::text_of(&buffer)
            );
            assert_ne!(cell.symbol(), "\n");
        }
        names += export::text_of(&buffer).matches("\\x1b[2J").count();
        if let Some(tracer::tui::message::Command::Export { text, .. }) = export::command(&screen.0) {
            assert_eq!(harmful(&text), [], "{key}: {text}");
        }
        let copied = export::copy(&screen.0).unwrap_or_default();
        assert_eq!(harmful(&copied), [], "{key}: {copied}");
    }
    assert!(names > 10, "{names}");
}
