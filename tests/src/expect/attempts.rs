//! The attempts of a flow: one for each SYN that the client sent.

use super::flow::{Attempt, Flow};
use crate::scenario::{Cause, ExpectedAttempt};

/// How attempts differ from the expected ones.
pub(super) fn unexpected(attempts: &[Attempt], wanted: &[ExpectedAttempt]) -> Option<String> {
    if wanted.is_empty() {
        return None;
    }
    let is_wanted = |(attempt, wanted): (&Attempt, &ExpectedAttempt)| {
        attempt.cause.as_deref() == wanted.cause.map(Cause::word)
            && wanted.lost_ms.is_none_or(|span| span.contains(attempt.lost_ms))
    };
    let all = attempts.len() == wanted.len() && attempts.iter().zip(wanted).all(is_wanted);
    let line = |attempt: &Attempt| format!("{} ({:.0} ms lost)", attempt.cause(), attempt.lost_ms);
    let must = |wanted: &ExpectedAttempt| {
        let span = wanted
            .lost_ms
            .map_or_else(String::new, |span| format!(" ({span} ms lost)"));
        format!("{}{span}", wanted.cause.map_or("none", Cause::word))
    };
    (!all).then(|| {
        let (is, must): (Vec<_>, Vec<_>) = (
            attempts.iter().map(line).collect(),
            wanted.iter().map(must).collect(),
        );
        format!("the attempts are {}; expected {}", is.join(", "), must.join(", "))
    })
}

/// How the attempts contradict the flow, whatever is expected: its cause must be that of one of them, its lost time that of all
/// of them, and each but the last must cost the time until the next one.
pub(super) fn contradiction(flow: &Flow) -> Option<String> {
    let attempts = &flow.attempts;
    if attempts.is_empty() {
        return None;
    }
    let is_numbered = attempts
        .iter()
        .zip(1..)
        .all(|(attempt, number)| attempt.n == number);
    let has_cause = attempts.iter().any(|attempt| attempt.cause == flow.cause);
    let lost: f64 = attempts.iter().map(|attempt| attempt.lost_ms).sum();
    // Each number is rounded to a microsecond.
    #[allow(clippy::cast_precision_loss, reason = "a few attempts")]
    let rounding = attempts.len() as f64 * 0.002;
    let is_sum = flow.lost_ms.is_some_and(|all| (all - lost).abs() <= rounding);
    let goes_on = attempts
        .windows(2)
        .all(|pair| (pair[1].t_ms - pair[0].t_ms - pair[0].lost_ms).abs() <= rounding);
    (!is_numbered || !has_cause || !is_sum || !goes_on).then(|| {
        format!(
            "its attempts contradict it: {attempts:?}; cause {:?}, lost {:?}",
            flow.cause, flow.lost_ms
        )
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize as _;

    use super::*;
    use crate::scenario::Span;

    fn attempt(n: usize, t_ms: f64, cause: Option<&str>, lost_ms: f64) -> Attempt {
        Attempt {
            n,
            t_ms,
            cause: cause.map(str::to_owned),
            lost_ms,
        }
    }

    fn wanted(cause: Option<Cause>, lost_ms: Span) -> ExpectedAttempt {
        ExpectedAttempt {
            cause,
            lost_ms: Some(lost_ms),
        }
    }

    #[test]
    fn causes_and_lost_times_must_match() {
        let attempts = [attempt(1, 0.0, None, 0.0)];
        let zero: Span = toml::Value::from(vec![0, 0]).try_into().unwrap();
        let more: Span = toml::Value::from(vec![900, 1100]).try_into().unwrap();
        assert_eq!(unexpected(&attempts, &[]), None);
        assert_eq!(unexpected(&attempts, &[wanted(None, zero)]), None);
        assert!(unexpected(&attempts, &[wanted(None, more)]).is_some());
        assert!(unexpected(&attempts, &[wanted(None, zero), wanted(None, zero)]).is_some());
        let cause = toml::Value::from("backend.silent").try_into().unwrap();
        assert!(unexpected(&attempts, &[wanted(Some(cause), zero)]).is_some());
    }

    fn contradicts(cause: Option<&str>, lost_ms: f64, attempts: &[Attempt]) -> bool {
        let line = serde_json::json!({
            "id": 1, "start": "2026-01-01T00:00:00Z", "client": {"ip": "10.0.0.2", "port": 1},
            "node": {"ip": "10.0.0.1", "port": 2}, "backend": null, "fate": "stalled", "cause": cause,
            "explanation": "", "syns": 1, "connect_ms": null, "stall_ms": null, "lost_ms": lost_ms,
        });
        let mut flow = Flow::deserialize(line).unwrap();
        flow.attempts = attempts.to_vec();
        contradiction(&flow).is_some()
    }

    #[test]
    fn attempts_must_agree_with_their_flow() {
        let silent = Some("backend.silent");
        let attempts = [attempt(1, 0.0, silent, 1000.0), attempt(2, 1000.0, None, 0.0)];
        assert!(!contradicts(silent, 1000.0, &attempts));
        assert!(contradicts(Some("ipvs.no-service"), 1000.0, &attempts));
        assert!(contradicts(silent, 1500.0, &attempts));
        assert!(contradicts(silent, 1000.0, &attempts[1..]));
        let gap = [attempt(1, 0.0, silent, 900.0), attempt(2, 1000.0, None, 100.0)];
        assert!(contradicts(silent, 1000.0, &gap));
    }
}
