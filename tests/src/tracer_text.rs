//! The parts of tracer's messages that the lab looks for.
//!
//! A test compares them with tracer's source, so that a reworded message fails here and not hours later in a
//! guest.

/// `tracer record` is ready.
pub(crate) const RECORDING: &str = "recording on ";

/// `tracer record --until` has seen the event.
pub(crate) const EVENT_SEEN: &str = "matched: ";

/// `tracer record` ends without a flow.
pub(crate) const NO_FLOW: &str = "no flows";

/// `tracer record` cannot write.
pub(crate) const CANNOT_RECORD: &str = "cannot continue recording";

/// A recording has no end.
pub(crate) const UNCLEAN_END: &str = "incomplete (the recorder was killed or the disk was full)";

/// A recording ends with a partial chunk.
pub(crate) const PARTIAL_CHUNK: &str = " bytes are unusable";

/// A hook could not be attached: in the table of `tracer hooks`, or on standard error.
pub(crate) const HOOK_REFUSED: &str = "the kernel rejected the program";

/// The sandbox denied a system call that tracer needs.
pub(crate) const DENIED: &str = "the sandbox denied system call ";

/// A path lacks the steps of some probes.
pub(crate) const PROBES_SKIPPED: &str = "the kernel skipped the probes";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::scenario::{Step, load};

    /// tracer's source without comments and line continuations.
    fn source(folder: &Path) -> String {
        let mut text = String::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                text += &source(&path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                for line in fs::read_to_string(path).unwrap().lines() {
                    let line = line.trim_start();
                    if !line.starts_with("//") {
                        text += line.strip_suffix('\\').unwrap_or(line);
                    }
                }
            }
        }
        text
    }

    fn tracer_source() -> String {
        source(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tracer/src"))
    }

    #[test]
    fn tracer_prints_these_messages() {
        let source = tracer_source();
        for text in [
            RECORDING,
            EVENT_SEEN,
            NO_FLOW,
            CANNOT_RECORD,
            UNCLEAN_END,
            PARTIAL_CHUNK,
            HOOK_REFUSED,
            DENIED,
            PROBES_SKIPPED,
        ] {
            assert!(source.contains(text), "tracer's source does not contain `{text}`");
        }
    }

    #[test]
    fn tracer_prints_what_scenarios_wait_for() {
        let source = tracer_source();
        let folders = ["scenarios", "kubernetes"];
        let scenarios = folders
            .map(|folder| load(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap())
            .concat();
        let mut waits = 0;
        for named in &scenarios {
            for step in &named.scenario.steps {
                let Step::WaitForOutput(text) = step else {
                    continue;
                };
                waits += 1;
                // tracer fills in the name of the module.
                for part in text.split("ip_vs") {
                    assert!(
                        source.contains(part),
                        "{}: tracer's source does not contain `{part}`",
                        named.name
                    );
                }
            }
        }
        assert!(waits > 0, "no scenario waits for output");
    }
}
