//! `tracer show`: the path of one flow of a recording, and of its counterparts in recordings of other nodes.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::Path,
};

use anyhow::anyhow;

use super::{
    args::{FlowName, ShowOptions},
    confined,
    exit::Failure,
    output,
};
use crate::{
    finding::{Finding, Observer, head::Head},
    pipeline::{recordings::Recording, replay},
    report::{
        escape::{Text, note},
        joined::{self, Fingerprint, Key, NodeVerdict},
        ladder::{self, Ladder},
        plain,
    },
};

/// The most flows of other runs kept as candidates: their SYNs have the same sequence number at the same time.
const MOST_ALIKE: usize = 1_000;

/// Reads the recordings and shows the last report of the flow.
pub(super) fn run(options: &ShowOptions) -> Result<(), Failure> {
    let mut runs = confined::runs(&options.files)?;
    // The number belongs to the first run named, and only that run has the fingerprint to search the others for.
    if let Some(first) = options.files.first()
        && let Some(at) = runs.iter().position(|run| holds(run, first))
    {
        runs[..=at].rotate_right(1);
    }
    let others = runs.len().saturating_sub(1);
    let mut view = Search {
        name: options.flow,
        id: match options.flow {
            FlowName::Number(id) => Some(id),
            FlowName::Client(_) => None,
        },
        lines: BTreeMap::new(),
        run: 0,
        hosts: Vec::new(),
        found: BTreeMap::new(),
        flows: 0,
    };
    for run in runs {
        replay::play(run, &mut view)?;
        if view.run == 1 && view.lines.len() > 1 {
            return list(&view, options.flow);
        }
        if view.shown().is_none() {
            return Err(Failure::Failed(anyhow!(
                "no {} in {}: it has {}",
                options.flow,
                options
                    .files
                    .first()
                    .map_or_else(String::new, |file| file.display().to_string()),
                match view.flows {
                    0 => "no flows".to_owned(),
                    1 => "only flow 1".to_owned(),
                    last => format!("flows 1 to {last}"),
                }
            )));
        }
    }
    let mut out = io::stdout().lock();
    out.write_all(view.text(others != 0).as_str().as_bytes())?;
    Ok(out.flush()?)
}

/// Lists the flows of a client that used its port for several.
fn list(view: &Search, name: FlowName) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    for line in view.lines.values() {
        out.write_all(line.as_str().as_bytes())?;
    }
    out.flush()?;
    let flows = view.lines.len();
    note(format_args!("{flows} flows match the {name}: give a number"));
    Ok(())
}

fn holds(run: &[Recording], file: &Path) -> bool {
    run.iter().any(|recording| recording.path() == file)
}

/// The last report of a flow.
struct Report {
    text: Text,
    fingerprint: Fingerprint,
    verdict: NodeVerdict,
    explanation: String,
}

struct Search {
    name: FlowName,
    /// The number of the flow; with a client's name, that of its last flow.
    id: Option<u64>,
    /// With a client's name, the line of each of its flows.
    lines: BTreeMap<u64, Text>,
    /// Number of the current run, from 1.
    run: usize,
    /// The hosts of the runs.
    hosts: Vec<String>,
    /// The flow, and those of other runs that may be the same connection.
    found: BTreeMap<Key, Report>,
    /// The highest flow number of the first run.
    flows: u64,
}

impl Search {
    /// The flow to show.
    fn shown(&self) -> Option<&Report> {
        self.found.get(&(1, self.id?))
    }

    /// Whether a flow of another run may be the same connection.
    fn may_match(&self, other: &Fingerprint) -> bool {
        self.found.len() < MOST_ALIKE
            && self.shown().is_some_and(|shown| {
                shown.fingerprint.isn() == other.isn() && shown.fingerprint.is_near(other)
            })
    }

    fn host(&self, (run, _): Key) -> &str {
        let host = run.checked_sub(1).and_then(|run| self.hosts.get(run));
        host.map_or("", String::as_str)
    }

    fn text(&self, has_others: bool) -> Text {
        let Some(shown) = self.shown() else {
            return Text::default();
        };
        if !has_others {
            return shown.text.clone();
        }
        let fingerprints: BTreeMap<Key, Fingerprint> = self
            .found
            .iter()
            .map(|(key, report)| (*key, report.fingerprint.clone()))
            .collect();
        let key = (1, self.id.unwrap_or_default());
        let keys = joined::connections(&fingerprints)
            .into_iter()
            .find(|keys| keys.contains(&key));
        let Some(keys) = keys else {
            let mut out = shown.text.clone();
            out.gap();
            out.line("No other recording has this connection.");
            return out;
        };
        let parts: Vec<(Key, &Report)> = keys
            .iter()
            .filter_map(|key| Some((*key, self.found.get(key)?)))
            .collect();
        let mut out = Text::default();
        out.line(format_args!("On {}:", self.host(key)));
        out.append(&shown.text);
        for (other, report) in parts.iter().filter(|(other, _)| *other != key) {
            out.gap();
            out.line(format_args!("The same connection on {}:", self.host(*other)));
            out.append(&report.text);
        }
        out.gap();
        self.verdict(&parts, &mut out);
        out
    }

    /// The verdict of all nodes together.
    fn verdict(&self, parts: &[(Key, &Report)], out: &mut Text) {
        let nodes: Vec<NodeVerdict> = parts.iter().map(|(_, report)| report.verdict).collect();
        let verdict = joined::judge(&nodes);
        let hosts: Vec<&str> = parts.iter().map(|(key, _)| self.host(*key)).collect();
        let fate = nodes
            .first()
            .map_or_else(String::new, |first| format!("; {}", first.fate));
        let cause = verdict
            .cause
            .map_or_else(String::new, |cause| format!(", {cause}"));
        out.line(format_args!(
            "Together: the SYN reached {}{fate}{cause}.",
            hosts.join(", then ")
        ));
        let mut explained: Vec<usize> = verdict
            .disagreeing
            .into_iter()
            .chain(Some(verdict.decisive))
            .collect();
        explained.sort_unstable();
        explained.dedup();
        for (key, report) in explained.into_iter().filter_map(|index| parts.get(index)) {
            out.line(format_args!("On {}: {}", self.host(*key), report.explanation));
        }
        if verdict.disagreeing.is_some() {
            out.line("The nodes disagree.");
        }
    }
}

impl Observer for Search {
    fn start(&mut self, head: &Head) -> io::Result<()> {
        self.run += 1;
        self.hosts.push(head.host.clone());
        Ok(())
    }

    fn flow(&mut self, finding: &Finding<'_>) -> io::Result<()> {
        let is_first = self.run == 1;
        if is_first {
            self.flows = self.flows.max(finding.flow.id);
            let is_wanted = match self.name {
                FlowName::Number(id) => finding.flow.id == id,
                FlowName::Client(client) => finding.flow.client() == client,
            };
            if !is_wanted {
                return Ok(());
            }
            if self.id != Some(finding.flow.id) {
                self.found.clear();
                self.id = Some(finding.flow.id);
            }
            if matches!(self.name, FlowName::Client(_)) && self.lines.len() < MOST_ALIKE {
                let line = plain::flow(None, finding, None, false);
                self.lines.insert(finding.flow.id, line);
            }
        } else if self
            .shown()
            .is_none_or(|shown| shown.fingerprint.isn() != finding.flow.isn)
        {
            return Ok(());
        }
        let fingerprint = Fingerprint::of(finding);
        if is_first || self.may_match(&fingerprint) {
            let report = Report {
                text: ladder::text(&Ladder::of(finding)),
                verdict: NodeVerdict {
                    fate: finding.fate,
                    cause: finding.diagnosis.cause,
                    dropped: fingerprint.dropped(),
                },
                fingerprint,
                explanation: finding.diagnosis.explanation.clone(),
            };
            self.found.insert((self.run, finding.flow.id), report);
        }
        Ok(())
    }

    fn damage(&mut self, what: &str) -> io::Result<()> {
        output::warn(what);
        Ok(())
    }
}
