use super::*;
use crate::{diagnose::cause::Cause, flow::fate::Fate};

const MS: u64 = 1_000_000;

fn side(stalled: usize, healthy: usize) -> Side {
    let stalled = vec![(Fate::Stalled, Some(Cause::IpvsReuseDropped), 1_000 * MS); stalled];
    let healthy = vec![(Fate::Established, None, 2 * MS); healthy];
    Side::with([stalled, healthy].concat())
}

#[test]
fn a_change_that_helped_is_no_chance() {
    let difference = Difference::of(&side(40, 60), &side(0, 100));
    let [cause] = difference.causes.as_slice() else {
        panic!("{difference:?}")
    };
    assert_eq!((cause.verdict, cause.is_significant), (Verdict::Gone, true));
    assert!(difference.answer().starts_with(
        "Failed or delayed: 40 of 100 (40.0 %) before, 0 of 100 (0.0 %) after: less, hardly by chance (p < 0.001)"
    ));
    assert!(difference.connect.is_significant);
    assert_eq!(difference.connect.quantiles[1].ms, [Some(1000.0), Some(2.0)]);
    let text = text(&difference).into_string();
    assert!(text.contains("gone: hardly chance, p < 0.001"), "{text}");
}

#[test]
fn a_difference_of_few_connections_can_be_chance() {
    let difference = Difference::of(&side(2, 8), &side(1, 9));
    assert!(!difference.failures.is_significant && !difference.causes[0].is_significant);
    assert!(
        difference
            .answer()
            .contains("the difference can be chance (p = 1.000)")
    );
}

#[test]
fn a_cause_that_was_not_watched_is_not_gone() {
    let head = |available: bool| {
        let hooks = tracer_common::hook::ALL
            .iter()
            .map(|info| crate::finding::hook_state::HookState {
                name: info.hook.name().to_owned(),
                state: if available {
                    crate::finding::hook_state::State::Attached
                } else {
                    crate::finding::hook_state::State::Missing
                },
                ..Default::default()
            });
        crate::finding::head::Head {
            hooks: hooks.collect(),
            ..Default::default()
        }
    };
    let (mut before, mut after) = (side(40, 60), side(0, 100));
    before.begin(&head(true));
    after.begin(&head(false));
    let difference = Difference::of(&before, &after);
    assert_eq!(difference.causes[0].undetectable, [1]);
    let text = text(&difference).into_string();
    assert!(text.contains("gone: not detectable after"), "{text}");
}

#[test]
fn recordings_without_connections_are_compared_without_numbers() {
    let difference = Difference::of(&side(0, 0), &side(0, 0));
    assert!(
        difference.answer().contains("nothing to compare"),
        "{}",
        difference.answer()
    );
    assert!(page(&difference).contains("nothing to compare"));
}
