//! The content of the page.

use crate::{
    form,
    pages::{self, Judged, NASTY},
    story::{MS, Story},
};
use tracer::{
    diagnose::{is_failure, words},
    facts::Facts,
    flow::fate::Fate,
    report::summary::{self, Bin},
};

#[test]
fn recorded_text_stays_text() {
    let page = pages::nasty();
    let (tags, text) = form::check(&page);
    assert!(!page.contains("<img") && !page.contains("<b onclick"));
    // Host, kernel, uname, boot, version, client, file, service, hook, reason, setting and its value, damage.
    assert!(
        text.matches(NASTY).count() >= 13,
        "{}",
        text.matches(NASTY).count()
    );
    assert!(text.contains("<b onclick=alert(1)>&") && text.contains("</table>'"));
    let policy = tags
        .iter()
        .find(|tag| tag.get("http-equiv") == Some("Content-Security-Policy"));
    let policy = policy.and_then(|tag| tag.get("content")).expect("a policy");
    assert!(policy.starts_with("default-src 'none';"), "{policy}");
}

#[test]
fn the_page_has_everything_in_the_summary() {
    let mut story = Story::new();
    let judged = pages::flows(&mut story);
    let (page, summary) = pages::page(&judged, &story.facts);
    let (tags, text) = form::check(&page);
    for sentence in summary::sentences(&summary) {
        assert!(text.contains(&sentence), "{sentence}");
    }
    for cause in &summary.causes {
        assert!(text.contains(cause.cause.name()));
        let advice = form::bare(cause.advice.unwrap_or_default());
        assert!(form::bare(&text).contains(&advice), "{advice}");
        assert!(text.contains(&cause.example.explanation));
    }
    for (fate, count) in &summary.by_fate {
        assert!(text.contains(fate.name()) && text.contains(&count.to_string()));
    }
    let drawn: u64 = summary.over_time.bins.iter().map(Bin::flows).sum();
    assert_eq!(drawn, u64::try_from(summary.flows).expect("a number"));
    // Each failed or delayed flow has its ladder, and one healthy flow.
    let ladders = tags
        .iter()
        .filter(|tag| tag.get("class") == Some("ladder"))
        .count();
    let failed = |(_, fate, diagnosis): &&Judged| is_failure(*fate, diagnosis.cause);
    let failures = judged.iter().filter(failed).count();
    assert!(ladders > failures, "{ladders} of {failures}");
    for (flow, fate, diagnosis) in judged.iter().filter(failed) {
        let syns = words::count(flow.attempts.len(), "SYN");
        assert!(text.contains(&format!("flow {}, {syns}, ", flow.id)));
        assert!(text.contains(&diagnosis.explanation), "{fate}");
    }
}

/// Copies of one flow with different numbers.
fn many(one: &Judged, flows: u64) -> Vec<Judged> {
    let copy = |id| {
        let (mut flow, fate, diagnosis) = one.clone();
        flow.id = id;
        (flow, fate, diagnosis)
    };
    (1..=flows).map(copy).collect()
}

#[test]
fn a_long_recording_does_not_make_a_long_page() {
    let mut story = Story::new();
    let judged = pages::flows(&mut story);
    let of = |wanted: Fate| judged.iter().find(|(_, fate, _)| *fate == wanted).expect("one");
    let length = |flows: u64| {
        let mut all = many(of(Fate::Stalled), flows);
        all.extend(many(of(Fate::Established), flows).into_iter().map(|mut one| {
            one.0.id += flows;
            one
        }));
        let (page, summary) = pages::page(&all, &Facts::default());
        assert_eq!(summary.flows, usize::try_from(flows * 2).expect("a number"));
        let (tags, text) = form::check(&page);
        let ladders = tags
            .iter()
            .filter(|tag| tag.get("class") == Some("ladder"))
            .count();
        assert!((2..50).contains(&ladders), "{ladders}");
        let omitted = summary.flows - ladders;
        assert!(text.contains(&format!("{omitted} omitted.")), "{ladders}");
        page.len()
    };
    let (short, long) = (length(100), length(10_000));
    assert!(long < short + 4096, "{short} {long}");
}

#[test]
fn the_last_report_of_a_flow_counts() {
    let mut story = Story::new();
    story.arrives(MS);
    let mut early: Vec<Judged> = Vec::new();
    story.engine.poll(4_000 * MS, |flow, fate| {
        let diagnosis = tracer::diagnose::diagnose(flow, fate, &Facts::default());
        early.push((flow.clone(), fate, diagnosis));
    });
    assert!(
        early
            .iter()
            .all(|(_, fate, diagnosis)| is_failure(*fate, diagnosis.cause))
            && !early.is_empty()
    );
    story.served(5_000 * MS);
    early.extend(story.judged());
    let (page, summary) = pages::page(&early, &Facts::default());
    let (tags, _) = form::check(&page);
    assert_eq!((summary.flows, summary.failures), (1, 1));
    assert_eq!(summary.by_fate.keys().collect::<Vec<_>>(), [&Fate::Stalled]);
    let ladders = tags
        .iter()
        .filter(|tag| tag.get("class") == Some("ladder"))
        .count();
    assert_eq!(ladders, 1);
}

#[test]
fn an_example_has_the_cause_it_stands_for() {
    let mut story = Story::new();
    let judged = pages::flows(&mut story);
    let of = |wanted: Fate| judged.iter().find(|(_, fate, _)| *fate == wanted).expect("one");
    let (stalled, healthy) = (of(Fate::Stalled), of(Fate::Established));
    for (failed, healthy_later) in [(40, 39), (16, 15), (1, 0)] {
        let mut all = many(stalled, failed);
        all.extend(many(healthy, healthy_later));
        let (_, summary) = pages::page(&all, &Facts::default());
        assert_eq!(summary.failures, failed - healthy_later);
        let example = &summary.causes[0].example;
        assert!(!example.explanation.is_empty());
        assert_eq!(example.client, stalled.0.client().to_string());
    }
}

#[test]
fn a_page_without_flows_says_so() {
    let (page, _) = pages::page(&[], &Facts::default());
    let (_, text) = form::check(&page);
    assert!(text.contains("The recording has no flows") && text.contains("No flows."));
}

#[test]
fn the_policy_allows_the_script() {
    use sha2::Digest as _;
    let page = pages::page(&[], &Facts::default()).0;
    let (_, script) = page.split_once("<script>").expect("a script");
    let (script, _) = script.split_once("</script>").expect("its end");
    let digest = sha2::Sha256::digest(script.as_bytes());
    let expected = format!("'sha256-{}'", base64(&digest));
    assert!(
        page.contains(&expected),
        "POLICY in report/html.rs must have {expected}"
    );
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0_usize, |bits, at| {
            bits << 8 | usize::from(*group.get(at).unwrap_or(&0))
        });
        for at in 0..4 {
            let letter = LETTERS[bits >> (18 - 6 * at) & 63];
            out.push(if at > group.len() { '=' } else { char::from(letter) });
        }
    }
    out
}
