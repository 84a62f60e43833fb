//! `docs/schema.md` is generated from the types of the JSON lines, and real lines follow them.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Map, Value};
use tracer::report::json;

/// Environment variable that makes the test write the file instead of checking it.
const WRITE: &str = "TRACER_WRITE_SCHEMA";

const HEAD: &str = "\
# JSON lines: schema 1

`tracer live --json`, `tracer replay --json` and `tracer export --to jsonl` print one object per line. `type` names one of
the kinds of line below. Unknown values are `null`. Times are RFC 3339 in UTC with nanoseconds; members that end in `_ms` are
milliseconds. Members are only added: a reader must ignore those it does not know. The columns of Parquet have the same names:
see [export.md](export.md). This file is generated from the types in `tracer/src/report/json/line.rs` by
`TRACER_WRITE_SCHEMA=1 cargo test -p tracer --test schema`.
";

/// A schema and the types it refers to.
struct Schema {
    root: Value,
}

/// The members of an object.
type Members<'a> = BTreeMap<&'a str, &'a Value>;

impl Schema {
    fn definition<'a>(&'a self, schema: &'a Value) -> Option<(&'a str, &'a Value)> {
        let name = schema["$ref"].as_str()?.strip_prefix("#/$defs/")?;
        Some((name, &self.root["$defs"][name]))
    }

    /// The lines by type.
    fn lines(&self) -> Vec<(&str, &Value)> {
        let lines = self.root["oneOf"].as_array().expect("kinds of lines").iter();
        lines
            .map(|line| {
                (
                    line["properties"]["type"]["const"].as_str().expect("its type"),
                    line,
                )
            })
            .collect()
    }

    /// The members of an object, and which of them are always there.
    fn members<'a>(&'a self, schema: &'a Value) -> (Members<'a>, BTreeSet<&'a str>) {
        let mut members: Members<'_> = BTreeMap::new();
        let mut required = BTreeSet::new();
        for part in [Some(schema), self.definition(schema).map(|(_, part)| part)] {
            let Some(part) = part else { continue };
            let own = part["properties"].as_object().into_iter().flatten();
            members.extend(own.map(|(name, member)| (name.as_str(), member)));
            let names = part["required"].as_array().into_iter().flatten();
            required.extend(names.filter_map(Value::as_str));
        }
        (members, required)
    }

    /// The type of a member, in words.
    fn kind(&self, schema: &Value) -> String {
        if let Some((name, definition)) = self.definition(schema) {
            return match constants(definition) {
                Some(names) => names,
                None => format!("[{name}](#{})", name.to_lowercase()),
            };
        }
        if let Some(any) = schema["anyOf"].as_array() {
            let kinds: Vec<String> = any.iter().map(|kind| self.kind(kind)).collect();
            return kinds.join(" or ");
        }
        if let Some(constant) = schema["const"].as_str() {
            return format!("`{constant}`");
        }
        match &schema["type"] {
            Value::Array(kinds) => {
                let kinds = kinds.iter().filter_map(Value::as_str).map(|kind| {
                    let mut single = schema.clone();
                    single["type"] = kind.into();
                    self.kind(&single)
                });
                kinds.collect::<Vec<_>>().join(" or ")
            }
            Value::String(kind) => match kind.as_str() {
                "string" => "text".to_owned(),
                "array" => match self.kind(&schema["items"]).as_str() {
                    "integer" => "list of integers".to_owned(),
                    kind => format!("list of {kind}"),
                },
                "object" => format!("{} by name", self.kind(&schema["additionalProperties"])),
                other => other.to_owned(),
            },
            _ => panic!("a schema without a type: {schema}"),
        }
    }

    fn table(&self, schema: &Value, out: &mut String) {
        let (members, required) = self.members(schema);
        out.push_str("\n| member | type | content |\n|---|---|---|\n");
        for (name, member) in members {
            let sometimes = if required.contains(name) {
                ""
            } else {
                ", or missing"
            };
            let content = match (name, member["description"].as_str()) {
                ("type", None) => "the kind of line".to_owned(),
                (_, content) => content
                    .unwrap_or_else(|| panic!("{name} has no description"))
                    .replace('\n', " "),
            };
            let kind = self.kind(member);
            // What is missing is never null.
            let kind = match sometimes {
                "" => kind.as_str(),
                _ => kind.trim_end_matches(" or null"),
            };
            let _ = writeln!(out, "| `{name}` | {kind}{sometimes} | {content} |");
        }
    }

    fn page(&self) -> String {
        let mut out = HEAD.to_owned();
        for (name, line) in self.lines() {
            let description = line["description"]
                .as_str()
                .expect("a description")
                .replace('\n', " ");
            let _ = write!(out, "\n## `{name}`\n\n{description}\n");
            self.table(line, &mut out);
        }
        out.push_str("\n## Objects\n");
        for (name, definition) in self.root["$defs"].as_object().into_iter().flatten() {
            if name == "FlowLine" || definition["properties"].is_null() {
                continue;
            }
            let description = definition["description"]
                .as_str()
                .expect("a description")
                .replace('\n', " ");
            let _ = write!(out, "\n### {name}\n\n{description}\n");
            self.table(definition, &mut out);
        }
        out
    }

    /// How a value breaks the schema.
    fn mismatch(&self, value: &Value, schema: &Value) -> Option<String> {
        if let Some(any) = schema["anyOf"].as_array() {
            let fits = any.iter().any(|schema| self.mismatch(value, schema).is_none());
            return (!fits).then(|| format!("{value} is none of {schema}"));
        }
        if let Some((_, definition)) = self.definition(schema)
            && let Some(names) = names(definition)
        {
            return (!names.contains(&value.as_str()?)).then(|| format!("{value} is none of {names:?}"));
        }
        if let Some(constant) = schema.get("const") {
            return (value != constant).then(|| format!("{value} is not {constant}"));
        }
        let (members, required) = self.members(schema);
        if !members.is_empty() {
            let Some(object) = value.as_object() else {
                return Some(format!("{value} is not an object"));
            };
            return self.object_mismatch(object, &members, &required);
        }
        let kinds: Vec<&str> = match &schema["type"] {
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            kind => kind.as_str().into_iter().collect(),
        };
        let fits = |kind: &&str| match (*kind, value) {
            ("null", Value::Null)
            | ("string", Value::String(_))
            | ("boolean", Value::Bool(_))
            | ("number", Value::Number(_)) => true,
            ("integer", Value::Number(number)) => number.is_u64(),
            ("array", Value::Array(items)) => items
                .iter()
                .all(|item| self.mismatch(item, &schema["items"]).is_none()),
            ("object", Value::Object(object)) => {
                let of = &schema["additionalProperties"];
                object.values().all(|value| self.mismatch(value, of).is_none())
            }
            _ => false,
        };
        (!kinds.iter().any(fits)).then(|| format!("{value} does not fit {schema}"))
    }

    fn object_mismatch(
        &self,
        object: &Map<String, Value>,
        members: &Members<'_>,
        required: &BTreeSet<&str>,
    ) -> Option<String> {
        if let Some(missing) = required.iter().find(|name| !object.contains_key(**name)) {
            return Some(format!("{missing} is missing"));
        }
        object
            .iter()
            .find_map(|(name, value)| match members.get(name.as_str()) {
                Some(schema) => self.mismatch(value, schema).map(|what| format!("{name}: {what}")),
                None => Some(format!("{name} is not in the schema")),
            })
    }
}

/// The values of a closed list.
fn names(definition: &Value) -> Option<Vec<&str>> {
    if let Some(names) = definition["enum"].as_array() {
        return Some(names.iter().filter_map(Value::as_str).collect());
    }
    let mut names = Vec::new();
    for one in definition["oneOf"].as_array()? {
        match (one["const"].as_str(), names_of_group(one)) {
            (Some(name), _) => names.push(name),
            (None, group) => names.extend(group),
        }
    }
    Some(names)
}

fn names_of_group(schema: &Value) -> Vec<&str> {
    let names = schema["enum"].as_array().into_iter().flatten();
    names.filter_map(Value::as_str).collect()
}

/// The same, in words.
fn constants(definition: &Value) -> Option<String> {
    let names = names(definition)?;
    Some(
        names
            .iter()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", "),
    )
}

fn schema() -> Schema {
    Schema { root: json::schema() }
}

#[test]
fn the_page_agrees_with_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema.md");
    let page = schema().page();
    if env::var_os(WRITE).is_some() {
        fs::write(&path, &page).expect("a file");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        written, page,
        "docs/schema.md is out of date: run this test with {WRITE}=1"
    );
}

/// The lines of a command that succeeds.
fn lines(arguments: &[&str]) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(arguments)
        .output()
        .expect("the command runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn the_lines_of_recordings_follow_the_schema() {
    let schema = schema();
    let kinds: BTreeMap<&str, &Value> = schema.lines().into_iter().collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let mut recordings: Vec<PathBuf> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "trace"))
        .collect();
    recordings.sort();
    let names: Vec<&str> = recordings.iter().filter_map(|path| path.to_str()).collect();
    let cut = tempfile::tempdir().expect("a folder");
    let cut = cut.path().join("cut.trace");
    let bytes = fs::read(&recordings[0]).expect("a recording");
    fs::write(&cut, &bytes[..bytes.len() * 3 / 4]).expect("a file");
    let mut all = lines(&["replay", "--json", cut.to_str().expect("text")]);
    for name in &names {
        all.extend(lines(&["replay", "--json", name]));
    }
    // Lines of several runs name their host.
    all.extend(lines(&[&["replay", "--json"], &names[..]].concat()));
    let mut seen = BTreeSet::new();
    for line in &all {
        let kind = line["type"].as_str().expect("a type");
        seen.insert(kind);
        let what = schema.mismatch(line, kinds[kind]);
        assert_eq!(what, None, "{line}");
    }
    for kind in ["start", "flow", "damage", "end"] {
        assert!(seen.contains(kind), "{kind} in {seen:?}");
    }
}

#[test]
fn a_line_that_breaks_the_schema_is_noticed() {
    let schema = schema();
    let (_, end) = schema
        .lines()
        .into_iter()
        .find(|(kind, _)| *kind == "end")
        .expect("the end");
    let line = serde_json::json!({"type": "end", "flows": 1, "flows_seen": 3, "events": 2, "lost": 0, "lost_by_hook": {}, "received": null, "missed": null, "refused": {}, "evicted": {}, "by_fate": {"dropped": 1}, "by_cause": {}});
    assert_eq!(schema.mismatch(&line, end), None);
    for (member, value) in [
        ("flows", Value::from("1")),
        ("by_fate", Value::Null),
        ("more", Value::from(1)),
    ] {
        let mut line = line.clone();
        line[member] = value;
        assert!(schema.mismatch(&line, end).is_some(), "{line}");
    }
    let mut line = line;
    line.as_object_mut().expect("an object").remove("lost");
    assert!(schema.mismatch(&line, end).is_some());
}
