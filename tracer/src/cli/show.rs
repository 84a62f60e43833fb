//! `tracer show`: the way of one flow of a recording, and what recordings of other nodes tell of it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write as _},
    path::Path,
};

use anyhow::anyhow;

use super::{args::ShowOptions, exit::Failure, output};
use crate::{
    finding::{Finding, Observer, head::Head},
    pipeline::{
        recordings::{self, Recording},
        replay,
    },
    report::{
        joined::{self, Key, Said, Sight},
        ladder,
    },
};

/// So many flows of other runs are kept that may be the same connection: their SYNs have the same number, at the same
/// time.
const MOST_ALIKE: usize = 1_000;

/// Plays the recordings and shows what was last told of the flow.
pub(super) fn run(options: &ShowOptions) -> Result<(), Failure> {
    let mut runs = recordings::open(&options.files)?;
    // The number is one of the run that was named first; only that run knows what to look for in the others.
    if let Some(first) = options.files.first()
        && let Some(at) = runs.iter().position(|run| holds(run, first))
    {
        runs[..=at].rotate_right(1);
    }
    let others = runs.len().saturating_sub(1);
    let mut view = Search {
        id: options.id,
        run: 0,
        hosts: Vec::new(),
        found: BTreeMap::new(),
        flows: 0,
    };
    for run in runs {
        replay::play(run, &mut view)?;
        if view.asked().is_none() {
            return Err(Failure::Failed(anyhow!(
                "no flow {} in {}: it has flows 1 to {}",
                options.id,
                options
                    .files
                    .first()
                    .map_or_else(String::new, |file| file.display().to_string()),
                view.flows
            )));
        }
    }
    let mut out = io::stdout().lock();
    out.write_all(view.text(others != 0).as_bytes())?;
    Ok(out.flush()?)
}

fn holds(run: &[Recording], file: &Path) -> bool {
    run.iter().any(|recording| recording.path() == file)
}

/// A flow as it was last told of.
struct Seen {
    text: String,
    sight: Sight,
    said: Said,
    /// What happened, in words.
    explanation: String,
}

struct Search {
    id: u64,
    /// The run that is played, from 1 on.
    run: usize,
    /// The hosts of the runs.
    hosts: Vec<String>,
    /// The flow, and those of other runs that may be the same connection.
    found: BTreeMap<Key, Seen>,
    /// The highest number of a flow of the first run.
    flows: u64,
}

impl Search {
    fn asked(&self) -> Option<&Seen> {
        self.found.get(&(1, self.id))
    }

    /// Is this the flow, or one that may be its other half?
    fn may_be(&self, sight: &Sight) -> bool {
        self.found.len() < MOST_ALIKE
            && self
                .asked()
                .is_some_and(|asked| asked.sight.isn() == sight.isn() && asked.sight.is_near(sight))
    }

    fn host(&self, (run, _): Key) -> &str {
        let host = run.checked_sub(1).and_then(|run| self.hosts.get(run));
        host.map_or("", String::as_str)
    }

    fn text(&self, has_others: bool) -> String {
        let Some(asked) = self.asked() else {
            return String::new();
        };
        if !has_others {
            return asked.text.clone();
        }
        let sights: BTreeMap<Key, Sight> = self
            .found
            .iter()
            .map(|(key, seen)| (*key, seen.sight.clone()))
            .collect();
        let key = (1, self.id);
        let keys = joined::connections(&sights)
            .into_iter()
            .find(|keys| keys.contains(&key));
        let Some(keys) = keys else {
            return format!(
                "{}\nNone of the other recordings tells of this connection.\n",
                asked.text
            );
        };
        let halves: Vec<(Key, &Seen)> = keys
            .iter()
            .filter_map(|key| Some((*key, self.found.get(key)?)))
            .collect();
        let mut out = format!("On {}:\n{}", self.host(key), asked.text);
        for (other, seen) in halves.iter().filter(|(other, _)| *other != key) {
            // Writing to a string cannot fail.
            let _ = write!(
                out,
                "\nThe same connection on {}:\n{}",
                self.host(*other),
                seen.text
            );
        }
        out.push_str(&self.verdict(&halves));
        out
    }

    /// What all of them say together.
    fn verdict(&self, halves: &[(Key, &Seen)]) -> String {
        let said: Vec<Said> = halves.iter().map(|(_, seen)| seen.said).collect();
        let verdict = joined::judge(&said);
        let way: Vec<&str> = halves.iter().map(|(key, _)| self.host(*key)).collect();
        let mut out = format!("\nTogether: the SYN came to {}", way.join(", then to "));
        if let Some((_, first)) = halves.first() {
            let _ = write!(out, "; {}", first.said.fate);
        }
        if let Some(cause) = verdict.cause {
            let _ = write!(out, ", {cause}");
        }
        out.push_str(".\n");
        let told = verdict.otherwise.into_iter().chain(Some(verdict.from));
        let mut told: Vec<usize> = told.collect();
        told.sort_unstable();
        told.dedup();
        for (key, seen) in told.into_iter().filter_map(|index| halves.get(index)) {
            let _ = writeln!(out, "On {}: {}", self.host(*key), seen.explanation);
        }
        if verdict.otherwise.is_some() {
            out.push_str("They do not say the same.\n");
        }
        out
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
            if finding.flow.id != self.id {
                return Ok(());
            }
        } else if self
            .asked()
            .is_none_or(|asked| asked.sight.isn() != finding.flow.isn)
        {
            return Ok(());
        }
        let sight = Sight::of(finding.flow, finding.clock);
        if is_first || self.may_be(&sight) {
            let seen = Seen {
                text: ladder::flow(
                    finding.flow,
                    finding.fate,
                    finding.diagnosis,
                    finding.facts,
                    finding.clock,
                ),
                said: Said {
                    fate: finding.fate,
                    cause: finding.diagnosis.cause,
                    discarded: sight.discarded(),
                },
                sight,
                explanation: finding.diagnosis.explanation.clone(),
            };
            self.found.insert((self.run, finding.flow.id), seen);
        }
        Ok(())
    }

    fn damage(&mut self, what: &str) -> io::Result<()> {
        output::complain(what);
        Ok(())
    }
}
