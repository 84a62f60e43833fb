//! Modules that come, go, and come again while tracer is at work.
//!
//! What is gone is known at once. What comes must be looked at anew: its functions, the layout of its structs, on
//! kernels without BTF for modules by a proof. That takes a while and is done on a thread of its own.

use std::{collections::BTreeSet, sync::Arc, thread};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{
    fallback::Rehearsal,
    survey::{Survey, SurveyError},
    watch::{self, Change, Watch},
};

/// What a look at the kernel found after modules came.
#[derive(Debug)]
pub struct Found {
    /// What the kernel offers now.
    pub survey: Survey,
    /// The modules that came since the last complete look.
    pub came: Vec<&'static str>,
    /// All that can be learned of them is; otherwise there is more to follow.
    pub is_complete: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Late {
    watch: Watch,
    rehearsal: Arc<Rehearsal>,
    /// Modules that came and were not told of yet.
    came: BTreeSet<&'static str>,
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
        Self {
            watch: Watch::new(watch::wanted()),
            rehearsal: Arc::default(),
            came: BTreeSet::new(),
            is_looking: false,
            is_outdated: false,
            tell,
            told,
        }
    }

    /// The first look, which includes what only a proof tells.
    pub fn first(&self) -> Result<Survey, SurveyError> {
        let mut survey = Survey::take()?;
        if survey.is_proof_due() {
            survey.prove(&self.rehearsal);
        }
        Ok(survey)
    }

    /// Where a proof makes connections that are not the node's.
    #[must_use]
    pub fn rehearsal(&self) -> &Rehearsal {
        &self.rehearsal
    }

    /// Looks for modules that came or went since the last time, and gives those that went. Costs a few microseconds.
    pub fn look(&mut self) -> Vec<&'static str> {
        let mut gone = Vec::new();
        for change in self.watch.changes() {
            match change {
                Change::Gone(module) => {
                    self.came.remove(module);
                    gone.push(module);
                }
                Change::Came(module) => drop(self.came.insert(module)),
                // Perhaps one without which something could not be proven.
                Change::Other => {}
            }
            self.is_outdated = true;
        }
        self.begin();
        gone
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
            let came = self.came.iter().copied().collect();
            if is_complete {
                self.came.clear();
            }
            return Ok(Found {
                survey,
                came,
                is_complete,
            });
        }
    }

    /// Starts a look if one is due.
    fn begin(&mut self) {
        if !self.is_outdated || self.is_looking {
            return;
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
        if let Err(error) = thread::Builder::new().name("survey".to_owned()).spawn(look) {
            let _ = self.tell.send(Look {
                survey: Err(SurveyError::Thread(error)),
                is_complete: true,
            });
        }
    }
}

impl Default for Late {
    fn default() -> Self {
        Self::new()
    }
}
