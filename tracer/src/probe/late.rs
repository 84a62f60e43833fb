//! Modules that come, go, and come again while tracer is at work.
//!
//! What is gone is known at once. What comes must be looked at anew: its functions, the layout of its structs, on
//! kernels without BTF for modules by a proof. That takes a while and is done on a thread of its own.

use std::{collections::BTreeSet, io, sync::Arc, thread};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{
    fallback::Rehearsal,
    ipvs_proof,
    survey::{Survey, SurveyError},
    watch::{self, Change, Watch},
};

/// What a look at the kernel found after modules came.
#[derive(Debug)]
pub struct Found {
    /// What the kernel offers now.
    pub survey: Survey,
    /// The modules that came; empty if this only completes what was found before.
    pub came: Vec<&'static str>,
    /// Nothing more will be learned of these.
    pub is_complete: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Late {
    watch: Watch,
    wanted: BTreeSet<&'static str>,
    rehearsal: Arc<Rehearsal>,
    /// Modules that came and were not told of yet.
    came: BTreeSet<&'static str>,
    /// Without a scheduler the layout of IPVS could not be proven.
    is_proof_due: bool,
    is_looking: bool,
    /// Something has changed since the look that is under way began.
    is_outdated: bool,
    tell: UnboundedSender<Look>,
    told: UnboundedReceiver<Look>,
}

/// What a thread that looks has to tell.
#[derive(Debug)]
struct Look {
    survey: Result<Survey, SurveyError>,
    is_complete: bool,
}

impl Late {
    /// Begins to watch. To miss nothing, this comes before the first look at the kernel.
    #[must_use]
    pub fn new() -> Self {
        let (tell, told) = unbounded_channel();
        let wanted = watch::wanted();
        let watched = wanted.iter().copied().chain(ipvs_proof::SCHEDULERS);
        Self {
            watch: Watch::new(watched),
            wanted,
            rehearsal: Arc::default(),
            came: BTreeSet::new(),
            is_proof_due: false,
            is_looking: false,
            is_outdated: false,
            tell,
            told,
        }
    }

    /// The first look, which includes what only a proof tells.
    pub fn first(&mut self) -> Result<Survey, SurveyError> {
        let mut survey = Survey::take()?;
        if survey.is_proof_due() {
            survey.prove(&self.rehearsal);
        }
        self.is_proof_due = survey.is_proof_due();
        Ok(survey)
    }

    /// Where a proof makes connections that are not the node's.
    #[must_use]
    pub fn rehearsal(&self) -> &Rehearsal {
        &self.rehearsal
    }

    /// Looks for modules that came or went since the last time, and gives those that went. Costs a few microseconds.
    pub fn look(&mut self) -> io::Result<Vec<&'static str>> {
        let mut gone = Vec::new();
        for change in self.watch.changes() {
            match change {
                Change::Gone(module) if self.wanted.contains(module) => {
                    self.came.remove(module);
                    gone.push(module);
                }
                Change::Came(module) if self.wanted.contains(module) => drop(self.came.insert(module)),
                Change::Came(_) if self.is_proof_due => {}
                Change::Came(_) | Change::Gone(_) => continue,
            }
            self.is_outdated = true;
        }
        self.begin()?;
        Ok(gone)
    }

    /// Waits until something new is known of the kernel.
    pub async fn found(&mut self) -> Result<Found, SurveyError> {
        loop {
            let Some(Look { survey, is_complete }) = self.told.recv().await else {
                // There is always one sender: `self.tell`.
                return std::future::pending().await;
            };
            self.is_looking &= !is_complete;
            if self.is_outdated {
                // What has changed meanwhile starts another look, at the latest when this one is over.
                continue;
            }
            let survey = survey?;
            if is_complete {
                self.is_proof_due = survey.is_proof_due();
            }
            let came = std::mem::take(&mut self.came).into_iter().collect();
            return Ok(Found {
                survey,
                came,
                is_complete,
            });
        }
    }

    /// Starts a look if one is due.
    fn begin(&mut self) -> io::Result<()> {
        if !self.is_outdated || self.is_looking {
            return Ok(());
        }
        self.is_outdated = false;
        self.is_looking = true;
        let (tell, rehearsal) = (self.tell.clone(), Arc::clone(&self.rehearsal));
        let look = move || {
            // Nobody listens any more if tracing has ended.
            let told = |survey, is_complete| drop(tell.send(Look { survey, is_complete }));
            let mut survey = match Survey::take() {
                Ok(survey) => survey,
                Err(error) => return told(Err(error), true),
            };
            if survey.is_proof_due() {
                told(Ok(survey.clone()), false);
                survey.prove(&rehearsal);
            }
            told(Ok(survey), true);
        };
        thread::Builder::new().name("survey".to_owned()).spawn(look)?;
        Ok(())
    }
}

impl Default for Late {
    fn default() -> Self {
        Self::new()
    }
}
