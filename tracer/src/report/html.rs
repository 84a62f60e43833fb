//! The report as one page for a browser, to attach to a ticket. It loads nothing from anywhere, and works without
//! scripts: these only make it handier.

mod causes;
mod chart;
mod flows;
mod front;
mod gallery;
mod health;
mod places;
mod recorded;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use self::{gallery::Gallery, recorded::Recorded};
use super::summary::Summary;
use crate::{
    diagnose::Diagnosis,
    facts::Facts,
    finding::{
        clock::Clock,
        head::Head,
        run::{Health, Hooks},
    },
    flow::{fate::Fate, model::Flow},
};

const STYLE: &str = include_str!("html/style.css");
const SCRIPT: &str = include_str!("html/script.js");
/// What the page may do: show itself. Should anything that was recorded ever get past the escaping, it can neither run
/// nor load anything.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src \
                      'sha256-wK7Vb65XPZSIXu+lyPLmIyEtgEvD38gp0+e8BZIbXqY='; base-uri 'none'; form-action 'none'";

/// Collects what the page tells besides the summary. It keeps a bounded number of flows.
#[derive(Debug, Default)]
pub struct Page {
    gallery: Gallery,
    runs: Vec<Recorded>,
}

impl Page {
    /// Of several runs, which may have seen the same connections.
    #[must_use]
    pub fn of_several() -> Self {
        Self {
            gallery: Gallery::of_several(),
            ..Self::default()
        }
    }

    /// What follows is of another run of the tracer, in these files.
    pub fn begin(&mut self, head: &Head, files: Vec<String>) {
        self.gallery.begin(head.patience_ns);
        self.runs.push(Recorded::new(head, files));
    }

    /// A flow's fate is known, or has changed.
    pub fn add(&mut self, flow: &Flow, fate: Fate, diagnosis: &Diagnosis, facts: &Facts, clock: &Clock) {
        self.gallery.add(flow, fate, diagnosis, facts, clock);
        if let Some(run) = self.runs.last_mut() {
            run.met(flow.netns);
        }
    }

    /// What is known of a flow now is not what was asked for.
    pub fn leave_out(&mut self, flow: &Flow) {
        self.gallery.leave_out(flow.id);
    }

    /// Hooks changed their state.
    pub fn hooks(&mut self, hooks: &Hooks) {
        if let Some(run) = self.runs.last_mut() {
            run.hooks(hooks);
        }
    }

    /// Records were lost.
    pub fn health(&mut self, health: &Health) {
        if let Some(run) = self.runs.last_mut() {
            run.health(health);
        }
    }

    /// Something is wrong with the recording.
    pub fn damage(&mut self, what: &str) {
        if let Some(run) = self.runs.last_mut() {
            run.damage(what);
        }
    }

    /// What was known of the node when the run ended.
    pub fn facts(&mut self, facts: &Facts) {
        if let Some(run) = self.runs.last_mut() {
            run.facts(facts);
        }
    }

    /// The page.
    #[must_use]
    pub fn render(&self, summary: &Summary) -> String {
        let shown = self.gallery.shown(summary.several.as_ref());
        let body = html! {
            (front::header(summary))
            main {
                (front::ticket(summary))
                (front::differently(summary))
                (causes::section(summary, &shown))
                (chart::section(summary))
                (places::section(summary))
                (flows::section(summary, &shown, &self.runs))
                (health::section(summary, &self.runs))
            }
            footer {
                p { "Made by tracer " (env!("CARGO_PKG_VERSION")) ". Times are UTC. This page loads nothing from the network." }
            }
        };
        document(&front::title(summary), &body).into_string()
    }
}

fn document(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (body)
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
}

/// The sign of a fate: colour is never the only one.
const fn sign(fate: Fate) -> &'static str {
    match fate {
        Fate::Established => "✓",
        Fate::Stalled => "~",
        Fate::Dropped => "✗",
        Fate::Refused => "!",
        Fate::Unanswered => "?",
        Fate::Pending => "…",
    }
}

/// A fate with its sign.
fn fate(fate: Fate) -> Markup {
    html! {
        span class={ "fate " (fate.name()) } { span.sign aria-hidden="true" { (sign(fate)) } (fate.name()) }
    }
}

/// Fates with the worst first: these are what a page is read for.
const ORDER: [Fate; 6] = [
    Fate::Dropped,
    Fate::Refused,
    Fate::Unanswered,
    Fate::Stalled,
    Fate::Established,
    Fate::Pending,
];

/// Where on the page a cause is told of.
fn anchor(cause: crate::diagnose::cause::Cause) -> String {
    format!("cause-{}", cause.name().replace('.', "-"))
}
