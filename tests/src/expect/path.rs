//! The order of a flow's path.

use serde::Deserialize;

use crate::tracer_text::PROBES_SKIPPED;

/// One step of a path, as tracer prints it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Step {
    t_ms: f64,
    hook: String,
    dev: Option<String>,
    note: String,
}

impl Step {
    /// The text that expectations match: hook, device and note, in one line.
    fn line(&self) -> String {
        let dev = self.dev.as_deref().unwrap_or("-");
        format!("{} {dev} {}", self.hook, self.note)
    }
}

/// The mismatch of a path in which each of these texts must occur, in this order, each in a separate step.
pub(super) fn path_mismatch(path: &[Step], wanted: &[String]) -> Option<String> {
    if let Some(pair) = path.windows(2).find(|pair| pair[1].t_ms < pair[0].t_ms) {
        return Some(format!(
            "its path goes back in time: `{}` at {} ms follows {} ms",
            pair[1].line(),
            pair[1].t_ms,
            pair[0].t_ms
        ));
    }
    // tracer notes it: the steps of those probes are in no flow's path.
    if path.iter().any(|step| step.note.contains(PROBES_SKIPPED)) {
        return None;
    }
    let mut steps = path.iter();
    let mut last = "the start";
    for text in wanted {
        if !steps.any(|step| step.line().contains(text)) {
            let lines: Vec<_> = path.iter().map(Step::line).collect();
            return Some(format!(
                "its path has no step `{text}` after `{last}`: {}",
                lines.join("; ")
            ));
        }
        last = text;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> Vec<Step> {
        let step = |t_ms, hook: &str, note: &str| Step {
            t_ms,
            hook: hook.to_owned(),
            dev: Some("eth0".to_owned()),
            note: note.to_owned(),
        };
        vec![
            step(0.0, "netif_receive_skb", "SYN came in"),
            step(0.1, "ip_vs_in_hook", "routing decision"),
            step(0.1, "net_dev_start_xmit", "SYN went out"),
        ]
    }

    fn wanted(texts: &[&str]) -> Option<String> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        path_mismatch(&path(), &texts)
    }

    #[test]
    fn steps_of_skipped_probes_are_not_required() {
        let mut steps = path();
        let missing = ["handle_response".to_owned()];
        assert!(path_mismatch(&steps, &missing).is_some());
        steps[2]
            .note
            .push_str("; the kernel skipped the probes that follow");
        assert_eq!(path_mismatch(&steps, &missing), None);
        steps.swap(0, 2);
        assert!(path_mismatch(&steps, &missing).unwrap().contains("back in time"));
    }

    #[test]
    fn texts_must_occur_in_order() {
        assert_eq!(wanted(&[]), None);
        assert_eq!(wanted(&["came in", "net_dev_start_xmit eth0 SYN"]), None);
        let wrong = wanted(&["went out", "came in"]).unwrap();
        assert!(wrong.starts_with("its path has no step `came in` after `went out`: netif"));
        // One step does not match two texts.
        assert!(wanted(&["routing", "routing"]).is_some());
    }

    #[test]
    fn time_does_not_go_back() {
        let mut path = path();
        path[2].t_ms = 0.05;
        assert!(
            path_mismatch(&path, &[])
                .unwrap()
                .starts_with("its path goes back in time")
        );
    }
}
