//! Each tab at several sizes.

use std::time::Duration;

use super::show::{busy, draw, empty, flows, press, shown};
use crate::story::MS;
use ratatui::style::{Color, Modifier};
use tracer::{
    finding::costs::Cost,
    finding::costs::Costs,
    flow::fate::Fate,
    tui::{
        flow_update::FlowUpdate,
        message::{Msg, Playing},
        theme::{Depth, Theme},
        update::update,
    },
};

const SIZES: [(u16, u16); 4] = [(60, 15), (80, 24), (100, 30), (140, 40)];
const UNICODE: Theme = Theme {
    depth: Depth::True,
    is_ascii: false,
};

fn at_each_size(name: &str, keys: &str) {
    for (width, height) in SIZES {
        let mut model = busy(UNICODE, width, height);
        press(&mut model, keys);
        insta::assert_snapshot!(format!("{name}_{width}x{height}"), shown(&mut model));
    }
}

#[test]
fn overview_shows_outcomes_causes_and_services() {
    at_each_size("overview", "");
}

#[test]
fn flows_are_listed() {
    at_each_size("flows", "2");
}

#[test]
fn flow_shows_cause_advice_path_and_earlier_flow() {
    at_each_size("flow", "2/cause:ipvs.reuse\n\n");
}

#[test]
fn drops_are_listed_by_function_reason_and_rule() {
    at_each_size("drops", "4");
}

#[test]
fn hooks_show_their_purpose_or_why_they_are_not_attached() {
    at_each_size("hooks", "5");
}

#[test]
fn hooks_show_their_cpu_time_if_the_kernel_counts_it() {
    let mut model = busy(UNICODE, 120, 30);
    press(&mut model, "5");
    let costs = Costs {
        over: Duration::from_secs(2),
        by_hook: [
            (
                "kfree_skb",
                Cost {
                    runs: 24_000,
                    run_ns: 19_200_000,
                },
            ),
            ("nft_do_chain", Cost::default()),
        ]
        .into(),
    };
    update(&mut model, Msg::Costs(costs));
    let screen = shown(&mut model);
    assert!(screen.contains("total 0.96 % of one CPU"), "{screen}");
    assert!(screen.contains("12 000/s, 800 ns each  dropped"), "{screen}");
}

#[test]
fn help_lists_keys_and_fates() {
    at_each_size("help", "?");
}

#[test]
fn before_the_first_flow_the_overview_says_what_to_expect() {
    for (width, height) in SIZES {
        let mut model = empty(UNICODE, width, height);
        insta::assert_snapshot!(format!("waiting_{width}x{height}"), shown(&mut model));
    }
}

#[test]
fn playback_has_a_timeline() {
    let mut model = busy(UNICODE, 80, 24);
    let playing = Playing {
        begin_ns: 0,
        end_ns: 120_000 * MS,
        now_ns: 65_000 * MS,
        speed: 10,
        failures: vec![20_000 * MS, 90_000 * MS],
        ..Playing::default()
    };
    update(&mut model, Msg::Playing(playing));
    press(&mut model, "2");
    insta::assert_snapshot!("playing_80x24", shown(&mut model));
}

#[test]
fn ascii_mode_draws_only_ascii() {
    let theme = Theme {
        depth: Depth::Sixteen,
        is_ascii: true,
    };
    for keys in ["", "2", "2\n", "4", "5", "?"] {
        let mut model = busy(theme, 80, 24);
        press(&mut model, keys);
        let shown = shown(&mut model);
        assert!(shown.is_ascii(), "{shown}");
    }
}

#[test]
fn without_colours_the_selection_is_reversed() {
    let mut model = busy(Theme::default(), 80, 24);
    press(&mut model, "2");
    let buffer = draw(&mut model);
    assert!(
        buffer
            .content
            .iter()
            .all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset)
    );
    let reversed = |y: u16| buffer[(5, y)].modifier.contains(Modifier::REVERSED);
    assert!(reversed(3) && !reversed(4));
}

#[test]
fn a_screen_that_is_too_small_says_so() {
    let mut model = busy(UNICODE, 59, 14);
    assert!(shown(&mut model).contains("needs 60x15"));
    for size in [(1, 1), (0, 0), (5, 3), (u16::MAX, 1)] {
        update(&mut model, Msg::Size(size.0.min(300), size.1));
        shown(&mut model);
    }
}

#[test]
fn text_from_outside_cannot_control_the_terminal() {
    let mut model = empty(UNICODE, 140, 40);
    let mut flow: FlowUpdate = flows().swap_remove(2);
    flow.service = Some("\x1b[2J\u{202e}x".to_owned());
    flow.fate = Fate::Dropped;
    flow.detail.explanation = "first\r\nsecond \x07".to_owned();
    update(&mut model, Msg::Flow(Box::new(flow)));
    update(&mut model, Msg::Log("hook \x1b]0;x\x07 is disabled".to_owned()));
    for keys in ["", "1", "2", "\n", "4", "5"] {
        let text = {
            let shown = shown(&mut model);
            press(&mut model, keys);
            shown
        };
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        assert!(!text.contains('\u{202e}'));
    }
    press(&mut model, "2");
    assert!(shown(&mut model).contains("\\x1b[2J\\u{202e}x"));
}

#[test]
fn a_damaged_recording_stays_marked() {
    for (what, mark) in [
        ("a.trace: damaged: 1 chunk skipped", "DAMAGED"),
        ("a.trace: incomplete (the recorder was killed)", "INCOMPLETE"),
    ] {
        let mut model = busy(UNICODE, 80, 24);
        assert!(!shown(&mut model).contains(mark));
        update(&mut model, Msg::Damage(what.to_owned()));
        update(&mut model, Msg::Rewound);
        let text = shown(&mut model);
        assert!(
            text.lines().nth(1).is_some_and(|line| line.contains(mark)),
            "{text}"
        );
    }
}

#[test]
fn an_unknown_cause_in_the_filter_is_no_silence() {
    let mut model = busy(UNICODE, 140, 40);
    press(&mut model, "2/cause:ipsv");
    assert!(shown(&mut model).contains("no cause ipsv; did you mean ipvs?"));
    press(&mut model, "\n");
    let text = shown(&mut model);
    assert!(
        text.contains("flows match (no cause ipsv; did you mean ipvs?)."),
        "{text}"
    );
}
