//! The report as one page for a browser, to attach to a ticket. It loads nothing from the network and works without
//! scripts, which only add convenience.

mod causes;
mod chart;
mod flows;
mod gallery;
mod health;
mod places;
mod recorded;
mod sign;
mod top;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use self::{gallery::Gallery, recorded::Recorded};
use super::{escape, summary::Summary};
use crate::{
    facts::Facts,
    finding::{
        Finding,
        head::Head,
        run::{Health, Hooks},
    },
};

const STYLE: &str = include_str!("html/style.css");
const SCRIPT: &str = include_str!("html/script.js");
/// Lets the page run its own script and nothing else. If recorded text ever got past the escaping, it could neither run
/// nor load anything.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src \
                      'sha256-wK7Vb65XPZSIXu+lyPLmIyEtgEvD38gp0+e8BZIbXqY='; base-uri 'none'; form-action 'none'";

/// Collects what the page shows besides the summary. It keeps a bounded number of flows.
#[derive(Debug, Default)]
pub struct Page {
    gallery: Gallery,
    runs: Vec<Recorded>,
}

impl Page {
    /// A page for several runs, which may have seen the same connections.
    #[must_use]
    pub fn of_several() -> Self {
        Self {
            gallery: Gallery::of_several(),
            ..Self::default()
        }
    }

    /// Starts the next run, recorded in these files.
    pub fn begin(&mut self, head: &Head, files: Vec<String>) {
        self.gallery.begin();
        self.runs.push(Recorded::new(head, files));
    }

    /// A flow's fate is known, or has changed.
    pub fn add(&mut self, finding: &Finding<'_>) {
        self.gallery.add(finding);
        if let Some(run) = self.runs.last_mut() {
            run.seen_in(finding.flow.netns);
        }
    }

    /// Removes a flow that the filter does not select any more.
    pub fn remove(&mut self, finding: &Finding<'_>) {
        self.gallery.remove(finding.flow.id);
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

    /// The recording is damaged or truncated.
    pub fn damage(&mut self, what: &str) {
        if let Some(run) = self.runs.last_mut() {
            run.damage(what);
        }
    }

    /// The facts about the node when the run ended.
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
            (top::header(summary))
            main {
                (top::ticket(summary))
                (top::disagreements(summary))
                (causes::section(summary, &shown))
                (chart::section(summary))
                (places::section(summary))
                (flows::section(summary, &shown, &self.runs))
                (health::section(summary, &self.runs))
            }
            footer {
                p { "Written by tracer " (env!("CARGO_PKG_VERSION")) ". Times are UTC. This page loads nothing from the network." }
            }
        };
        escape::html(document(&top::title(summary), &body).into_string())
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
