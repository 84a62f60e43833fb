//! The data kept about one run: its head, hooks, counters, damage, and facts about the node.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::{
    facts::{Facts, NetnsFacts},
    finding::{
        head::Head,
        hook_state::HookState,
        run::{Health, Hooks},
    },
};

/// The most network namespaces shown.
const MOST_NETNS: usize = 4;
/// The most virtual services of each.
const MOST_SERVICES: usize = 50;
/// The most file names of a run.
const MOST_FILES: usize = 8;
/// The most changes of hooks, and lines of damage.
const MOST_LINES: usize = 50;

/// The data that the page keeps about one run.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) files: Vec<String>,
    pub(super) head: Head,
    /// The hooks as they were at the end.
    pub(super) hooks: BTreeMap<String, HookState>,
    /// Changes of hooks: time and reason.
    pub(super) changes: Vec<(Timestamp, String)>,
    /// Changes that are not kept.
    pub(super) changes_omitted: u64,
    /// The counters as last reported.
    pub(super) health: Health,
    /// Damage of the recording.
    pub(super) damage: Vec<String>,
    /// The facts about the network namespaces in which flows were first seen.
    pub(super) netns: BTreeMap<u32, NetnsFacts>,
    /// Virtual services that are not kept.
    pub(super) services_omitted: usize,
    /// The network namespaces in which flows were first seen.
    seen_in: BTreeSet<u32>,
}

impl Recorded {
    pub(super) fn new(head: &Head, files: Vec<String>) -> Self {
        let named = |hook: &HookState| (hook.name.clone(), hook.clone());
        Self {
            files,
            hooks: head.hooks.iter().map(named).collect(),
            head: head.clone(),
            changes: Vec::new(),
            changes_omitted: 0,
            health: Health::default(),
            damage: Vec::new(),
            netns: BTreeMap::new(),
            services_omitted: 0,
            seen_in: BTreeSet::new(),
        }
    }

    /// A flow was first seen in this network namespace.
    pub(super) fn seen_in(&mut self, netns: u32) {
        if self.seen_in.len() < MOST_NETNS {
            self.seen_in.insert(netns);
        }
    }

    pub(super) fn hooks(&mut self, hooks: &Hooks) {
        for hook in &hooks.hooks {
            self.hooks.insert(hook.name.clone(), hook.clone());
        }
        if self.changes.len() < MOST_LINES {
            self.changes.push((hooks.time, hooks.why.clone()));
        } else {
            self.changes_omitted += 1;
        }
    }

    pub(super) fn health(&mut self, health: &Health) {
        self.health.clone_from(health);
    }

    pub(super) fn damage(&mut self, what: &str) {
        if self.damage.len() < MOST_LINES {
            self.damage.push(what.to_owned());
        }
    }

    pub(super) fn facts(&mut self, facts: &Facts) {
        for netns in &self.seen_in {
            let Some(known) = facts.netns.get(netns) else {
                continue;
            };
            let services = known.services.iter().take(MOST_SERVICES);
            self.services_omitted += known.services.len().saturating_sub(MOST_SERVICES);
            let kept = NetnsFacts {
                services: services.cloned().collect(),
                sysctls: known.sysctls.clone(),
                ..NetnsFacts::default()
            };
            self.netns.insert(*netns, kept);
        }
    }

    /// The host on which it was recorded.
    pub(super) fn host(&self) -> &str {
        &self.head.host
    }

    /// The names of its files, or the first of them.
    pub(super) fn names(&self) -> String {
        let most = self.files.iter().take(MOST_FILES).map(String::as_str);
        let names = most.collect::<Vec<_>>().join(", ");
        match self.files.len().saturating_sub(MOST_FILES) {
            0 => names,
            others => format!("{names}, {others} more"),
        }
    }

    /// The file for `tracer show`, quoted for the shell.
    pub(super) fn file(&self) -> String {
        match self.files.as_slice() {
            [file] if file != "-" => quoted(file),
            // There are several, or it came through a pipe.
            _ => "FILE".to_owned(),
        }
    }
}

fn quoted(name: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._-+=,:@%/".contains(letter);
    if !name.is_empty() && name.chars().all(is_plain) {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn names_are_quoted_for_the_shell() {
        assert_eq!(quoted("node-1.0001.trace"), "node-1.0001.trace");
        assert_eq!(quoted("my $(trace)"), "'my $(trace)'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
