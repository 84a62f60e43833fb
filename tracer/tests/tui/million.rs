//! A million flows: memory is bounded, and no frame scans all of them.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use tracer::tui::{message::Msg, model::Model, store::MAX_ROWS, theme::Theme, update::update};

use super::show::{draw, empty, flows, press};
use crate::story::MS;

/// The longest a frame may take in a release build; a debug build on a busy machine gets more.
const BUDGET: Duration = if cfg!(debug_assertions) {
    Duration::from_millis(1_500)
} else {
    Duration::from_millis(16)
};

fn fill(model: &mut Model, flows_wanted: usize) {
    let kinds = flows();
    for index in 0..flows_wanted as u64 {
        let mut flow = kinds[usize::try_from(index % 26).unwrap_or(0) % kinds.len()].clone();
        flow.id = index + 1;
        flow.start_ns = index * MS / 50;
        flow.client
            .set_port(u16::try_from(index % 60_000).unwrap_or(0) + 1024);
        flow.earlier = None;
        update(model, Msg::Flow(Box::new(flow)));
        if index % 4096 == 0 {
            update(model, Msg::Frame);
        }
    }
}

/// CPU time of this thread: other load does not count.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock");
    Duration::from(time)
}

/// The longest and the median time of several frames, each after `before`.
fn frames(
    model: &mut Model,
    count: usize,
    mut before: impl FnMut(&mut Model, usize),
) -> (Duration, Duration) {
    let mut times: Vec<Duration> = (0..count)
        .map(|frame| {
            before(model, frame);
            let begun = cpu_time();
            draw(model);
            cpu_time().saturating_sub(begun)
        })
        .collect();
    times.sort_unstable();
    (times[count - 1], times[count / 2])
}

/// Run with `--release -- --ignored --nocapture` to print the times.
#[test]
#[ignore = "slow without optimization"]
fn a_million_flows_are_drawn_in_time() {
    let mut model = empty(Theme::default(), 140, 40);
    let begun = cpu_time();
    fill(&mut model, MAX_ROWS + 100_000);
    println!(
        "{} flows in {:?}",
        MAX_ROWS + 100_000,
        cpu_time().saturating_sub(begun)
    );
    assert!(model.store.len() <= MAX_ROWS);
    let mut slowest = Duration::ZERO;
    let mut report = |what: &str, (longest, median): (Duration, Duration)| {
        println!("{what}: {median:?} a frame, at most {longest:?}");
        slowest = slowest.max(median);
    };
    let more = flows();
    let mut next = 2_000_000;
    for (what, keys) in [
        ("overview", "1"),
        ("flows", "2"),
        ("middle of the flows", "2"),
        ("drops", "4"),
        ("hooks", "5"),
    ] {
        press(&mut model, keys);
        let times = frames(&mut model, 50, |model, _| {
            for flow in more.iter().cycle().take(1_000) {
                let mut flow = flow.clone();
                next += 1;
                flow.id = next;
                flow.earlier = None;
                flow.start_ns = 30_000_000_000;
                update(model, Msg::Flow(Box::new(flow)));
            }
        });
        report(what, times);
    }
    for (what, keys) in [
        ("sorted again", "2s"),
        ("filtered", "2/40003\n"),
        ("filtered by fate", "2/\u{8}fate:dropped\n"),
        ("sorted by client", "2ss"),
    ] {
        for c in keys.chars() {
            press(&mut model, &c.to_string());
        }
        report(what, frames(&mut model, 30, |_, _| {}));
    }
    assert!(slowest <= BUDGET, "{slowest:?}");
}

#[test]
fn flows_that_are_no_longer_kept_are_still_counted() {
    let mut model = empty(Theme::default(), 80, 24);
    model.store = tracer::tui::store::Store::new(2_000);
    fill(&mut model, 5_000);
    assert!(model.store.len() <= 2_000);
    assert_eq!(model.totals.all.flows(), 5_000);
    press(&mut model, "2");
    draw(&mut model);
    assert_eq!(model.list.len(), model.store.len());
}
