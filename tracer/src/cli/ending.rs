//! The end of a live run: after a time, a number of flows or a match; its exit status; and `--exec`.

use std::{
    collections::BTreeSet,
    io,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use super::{args::EndOptions, exec::Exec, exit, exit::Failure};
use crate::{
    facts::Facts,
    finding::{
        Finding, Observer,
        costs::Costs,
        head::Head,
        observer::Progress,
        run::{End, Health, Hooks},
        selection::Selection,
        totals::Totals,
    },
    flow::fate::Fate,
    report::{escape::note, json},
};

/// Passes everything on to another observer, and decides when the run ends.
pub(super) struct Ending<'a> {
    inner: &'a mut dyn Observer,
    selection: Selection,
    options: EndOptions,
    /// How long the run continues after a match of `--until`.
    after: Duration,
    /// The end of the run, once known.
    ends: Option<Instant>,
    /// The first flow of `--until`, in words.
    found: Option<String>,
    /// Whether there is a screen, which hides what is printed.
    has_screen: bool,
    /// The flows of `--count`.
    counted: BTreeSet<u64>,
    totals: Totals,
    run: json::Run,
    exec: Option<Exec>,
}

impl<'a> Ending<'a> {
    /// Wraps the observer of a run. Starts the process that runs the command of `--exec`, which keeps its privileges.
    /// `has_screen`: that command must not write to the terminal.
    pub(super) fn new(
        inner: &'a mut dyn Observer,
        selection: &Selection,
        options: &EndOptions,
        after: Duration,
        has_screen: bool,
    ) -> Result<Self, Failure> {
        let exec = options.exec.as_deref();
        Ok(Self {
            inner,
            selection: selection.clone(),
            options: options.clone(),
            after,
            ends: None,
            found: None,
            has_screen,
            counted: BTreeSet::new(),
            totals: Totals::default(),
            run: json::Run::default(),
            exec: exec.map(|command| Exec::start(command, has_screen)).transpose()?,
        })
    }

    /// Waits for the command of `--exec`, and fails if a flow matched `--fail-on`.
    pub(super) fn finish(self) -> Result<(), Failure> {
        if let Some(found) = self.found.filter(|_| self.has_screen) {
            note(found);
        }
        if let Some(exec) = self.exec {
            exec.finish();
        }
        exit::fail_on(&self.options.fail_on, &self.totals)
    }

    fn ends_at(&mut self, moment: Instant) {
        self.ends = Some(self.ends.map_or(moment, |ends| ends.min(moment)));
    }

    /// Whether this flow is one of the first N. Counts it once its fate is known.
    fn is_counted(&mut self, finding: &Finding<'_>) -> bool {
        let Some(most) = self.options.count else {
            return true;
        };
        let id = finding.flow.id;
        let is_full = self.counted.len() as u64 >= most;
        if finding.fate == Fate::Pending || self.counted.contains(&id) {
            return !is_full || self.counted.contains(&id);
        }
        if is_full {
            return false;
        }
        self.counted.insert(id);
        if self.counted.len() as u64 == most {
            self.ends_at(Instant::now());
        }
        true
    }

    fn look_for_match(&mut self, finding: &Finding<'_>) {
        let cause = finding.diagnosis.cause;
        if self.found.is_some()
            || !self
                .options
                .until
                .iter()
                .any(|until| until.matches(finding.fate, cause))
        {
            return;
        }
        self.ends_at(Instant::now() + self.after);
        let cause = cause.map_or_else(String::new, |cause| format!(", {cause}"));
        let rest = match self.after {
            Duration::ZERO => String::new(),
            after => format!("; recording for another {} s", after.as_secs_f64()),
        };
        let found = format!(
            "matched: {} -> {} {}{cause}{rest}",
            finding.flow.client(),
            finding.flow.node(),
            finding.fate,
        );
        self.inner.matched(&found);
        self.found = Some(found);
    }
}

impl Observer for Ending<'_> {
    fn start(&mut self, head: &Head) -> io::Result<()> {
        if let Some(duration) = self.options.duration {
            self.ends_at(Instant::now() + duration);
        }
        if let Some(exec) = &mut self.exec {
            exec.begin();
        }
        self.run.node_name.clone_from(&head.host);
        self.run.boot_id.clone_from(&head.boot_id);
        self.inner.start(head)
    }

    fn hooks(&mut self, hooks: &Hooks) -> io::Result<()> {
        self.inner.hooks(hooks)
    }

    fn flow(&mut self, finding: &Finding<'_>) -> io::Result<()> {
        if !self.selection.wants(finding) {
            return self.inner.flow(finding);
        }
        if !self.is_counted(finding) {
            return Ok(());
        }
        self.totals.add(finding);
        self.inner.flow(finding)?;
        if let Some(exec) = &mut self.exec
            && finding.fate != Fate::Pending
        {
            exec.run(json::flow(&self.run, finding));
        }
        self.look_for_match(finding);
        Ok(())
    }

    fn wants_pending(&self) -> bool {
        self.inner.wants_pending()
    }

    fn health(&mut self, health: &Health) -> io::Result<()> {
        self.inner.health(health)
    }

    fn end(&mut self, end: &End) -> io::Result<()> {
        self.inner.end(end)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }

    fn records(&mut self, records: u64) {
        self.inner.records(records);
    }

    fn now(&mut self, now_ns: u64) -> io::Result<ControlFlow<()>> {
        self.inner.now(now_ns)
    }

    fn damage(&mut self, what: &str) -> io::Result<()> {
        self.inner.damage(what)
    }

    fn facts(&mut self, facts: &Facts) {
        self.inner.facts(facts);
    }

    fn progress(&mut self, progress: Progress) {
        self.inner.progress(progress);
    }

    fn wants_costs(&self) -> bool {
        self.inner.wants_costs()
    }

    fn costs(&mut self, costs: Costs) {
        self.inner.costs(costs);
    }

    fn matched(&mut self, what: &str) {
        self.inner.matched(what);
    }

    fn is_done(&self) -> bool {
        self.ends.is_some_and(|ends| Instant::now() >= ends) || self.inner.is_done()
    }
}
