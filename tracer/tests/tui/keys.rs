//! The action of each key; no sequence of keys makes the screen panic.

use proptest::prelude::*;
use ratatui::crossterm::event::{KeyCode, KeyModifiers};
use tracer::{
    diagnose::cause::Cause,
    flow::fate::Fate,
    tui::{
        flow_update::FlowUpdate,
        message::{Command, Msg, Play, Playing},
        model::Tab,
        theme::{Depth, Theme},
        update::update,
    },
};

use super::{
    show::{NOW, busy, empty, flows, press, shown},
    story::MS,
};

const THEME: Theme = Theme {
    depth: Depth::Many,
    is_ascii: false,
};

#[test]
fn a_filter_applies_while_typed_and_escape_clears_it() {
    let mut model = busy(THEME, 80, 24);
    press(&mut model, "2");
    let all = model.list.len();
    press(&mut model, "/fate:dro");
    assert_eq!(model.list.len(), 2, "{}", shown(&mut model));
    press(&mut model, "\n");
    assert_eq!((model.list.len(), model.filter.as_str()), (2, "fate:dro"));
    press(&mut model, "\x1b");
    assert_eq!(model.list.len(), all);
    for (filter, expected) in [
        ("port:30080", all),
        ("port:1-100", 0),
        ("client:10.0.0.0/8", all),
        ("client:10.0.0.2:40001", 2),
        ("cause:ipvs.reuse-dropped", 1),
        ("!fate:established fate:stalled", 1),
        ("40003", 1),
        ("TIMEWAIT", 0),
    ] {
        press(&mut model, "/");
        update(&mut model, Msg::Key(KeyCode::Char('u'), KeyModifiers::CONTROL));
        press(&mut model, filter);
        assert_eq!(model.list.len(), expected, "{filter}");
        press(&mut model, "\x1b");
    }
}

#[test]
fn enter_opens_the_flows_of_a_cause_and_then_a_path() {
    let mut model = busy(THEME, 100, 30);
    press(&mut model, "\n");
    assert_eq!(model.tab, Tab::Flows);
    assert!(model.filter.starts_with("cause:"), "{}", model.filter);
    assert!(!model.list.is_empty());
    press(&mut model, "\n");
    assert_eq!(model.tab, Tab::Flow);
    assert!(shown(&mut model).contains("Why:"));
    press(&mut model, "\x1b\x1b\x1b");
    assert_eq!((model.tab, model.filter.as_str()), (Tab::Overview, ""));
}

#[test]
fn keys_typed_at_once_work_like_keys_typed_one_by_one() {
    let mut model = busy(THEME, 80, 24);
    for key in "2tg".chars() {
        update(&mut model, Msg::Key(KeyCode::Char(key), KeyModifiers::NONE));
    }
    update(&mut model, Msg::Key(KeyCode::Enter, KeyModifiers::NONE));
    assert!(shown(&mut model).contains("Why:"));
}

#[test]
fn enter_opens_the_earlier_flow_and_escape_returns() {
    let mut model = busy(THEME, 100, 30);
    press(&mut model, "2/cause:ipvs.reuse\n\n");
    let id = model.flow.expect("a flow");
    press(&mut model, "\n");
    assert_eq!(
        Some(model.flow_row().expect("a row").id),
        model.row_of(id).map(|row| row.earlier)
    );
    press(&mut model, "\x1b");
    assert_eq!(model.flow, Some(id));
}

#[test]
fn a_frozen_screen_does_not_change_while_flows_arrive() {
    let mut all = flows();
    let late = all.split_off(3);
    let mut model = empty(THEME, 80, 24);
    for flow in all {
        update(&mut model, Msg::Flow(Box::new(flow)));
    }
    for view in ["1", "2", "4"] {
        press(&mut model, view);
        press(&mut model, "p");
        let body = |text: String| text.lines().skip(2).collect::<Vec<_>>().join("\n");
        let before = body(shown(&mut model));
        for flow in &late {
            update(&mut model, Msg::Flow(Box::new(flow.clone())));
        }
        assert_eq!(body(shown(&mut model)), before);
        press(&mut model, "p");
    }
    press(&mut model, "2");
    assert!(shown(&mut model).contains("of 2"), "{}", shown(&mut model));
}

#[test]
fn a_flow_reported_again_is_counted_once() {
    let mut model = busy(THEME, 80, 24);
    let (flows_before, listed) = (model.totals.all.clone(), {
        press(&mut model, "2");
        model.list.len()
    });
    for _ in 0..3 {
        for flow in flows() {
            update(&mut model, Msg::Flow(Box::new(flow)));
        }
    }
    press(&mut model, "j");
    assert_eq!(model.totals.all, flows_before);
    assert_eq!(model.list.len(), listed);
}

#[test]
fn a_pending_flow_is_shown_and_counted_once_when_decided() {
    let mut model = busy(THEME, 100, 30);
    let decided = model.totals.all.clone();
    press(&mut model, "2");
    let flow = flows().pop().expect("a flow");
    let open = FlowUpdate {
        id: flow.id + 1,
        start_ns: NOW - 2_000 * MS,
        fate: Fate::Pending,
        connect_ns: None,
        lost_ns: 0,
        ..flow
    };
    update(&mut model, Msg::Flow(Box::new(open.clone())));
    let screen = shown(&mut model);
    assert!(
        screen.contains("pending") && screen.contains("pending for 2 s"),
        "{screen}"
    );
    assert_eq!(model.totals.all.flows(), decided.flows() + 1);
    assert_eq!(model.totals.all.of(Fate::Pending), 1);
    let established = FlowUpdate {
        fate: Fate::Established,
        ..open
    };
    update(&mut model, Msg::Flow(Box::new(established)));
    assert!(!shown(&mut model).contains("pending"));
    assert_eq!(model.totals.all.of(Fate::Pending), 0);
    assert_eq!(model.totals.all.flows(), decided.flows() + 1);
}

#[test]
fn a_misdirected_flow_is_a_failure() {
    let mut model = busy(THEME, 140, 30);
    let before = model.totals.all.clone();
    let flow = flows().pop().expect("a flow");
    assert_eq!(flow.fate, Fate::Established);
    let wrong = FlowUpdate {
        id: flow.id + 1,
        cause: Some(Cause::ConntrackPinned),
        ..flow
    };
    update(&mut model, Msg::Flow(Box::new(wrong)));
    assert_eq!(model.totals.all.failures, before.failures + 1);
    assert_eq!(model.totals.all.misdirected(), 1);
    let overview = shown(&mut model);
    assert!(overview.contains("≠ conntrack.pinned"), "{overview}");
    assert!(overview.contains("1 misdirected"), "{overview}");
    press(&mut model, "2t/conntrack\n");
    assert_eq!(model.list.len(), 1);
    assert!(
        shown(&mut model).contains("≠ established"),
        "{}",
        shown(&mut model)
    );
}

#[test]
fn enter_on_a_drop_site_lists_exactly_its_flows() {
    let mut model = busy(THEME, 120, 30);
    press(&mut model, "4");
    let drops: Vec<(String, u64)> = model
        .shown()
        .drops()
        .into_iter()
        .map(|(name, drops)| (model.names.text(name).to_owned(), drops.sum.flows()))
        .collect();
    assert!(drops.len() > 1, "{drops:?}");
    for (place, (name, flows)) in drops.into_iter().enumerate() {
        press(&mut model, &format!("4g{}\n", "j".repeat(place)));
        assert_eq!(model.tab, Tab::Flows);
        assert_eq!(model.list.len() as u64, flows, "{name}, {}", model.filter);
        press(&mut model, "\x1b");
    }
}

#[test]
fn every_cause_of_a_drop_site_is_shown() {
    let mut model = busy(THEME, 160, 30);
    let (_, drops) = model.shown().drops().remove(0);
    let causes: Vec<String> = drops
        .causes()
        .into_iter()
        .map(|(cause, flows)| format!("{flows} {cause}"))
        .collect();
    assert!(causes.len() > 1, "{causes:?}");
    press(&mut model, "4");
    let screen = shown(&mut model);
    assert!(screen.contains(&causes.join(", ")), "{screen}");
}

#[test]
fn every_order_lists_every_flow_once() {
    let mut model = busy(THEME, 80, 24);
    press(&mut model, "2");
    let all = model.list.len();
    for _ in 0..20 {
        press(&mut model, "sS");
        let mut numbers: Vec<u64> = (0..model.list.len())
            .filter_map(|place| model.list.at(place))
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), all);
    }
}

#[test]
fn keys_control_playback() {
    let mut model = busy(THEME, 80, 24);
    let playing = Playing {
        end_ns: 4_000,
        now_ns: 2_000,
        speed: 1,
        ..Playing::default()
    };
    update(&mut model, Msg::Playing(playing));
    let play = |play| vec![Command::Play(play)];
    assert_eq!(press(&mut model, " "), play(Play::Toggle));
    assert_eq!(press(&mut model, "+"), play(Play::Speed(10)));
    assert_eq!(press(&mut model, "."), play(Play::Seek(2_100)));
    assert_eq!(press(&mut model, "0"), play(Play::Seek(0)));
    assert_eq!(press(&mut model, "x"), play(Play::NextFailure));
    assert_eq!(press(&mut model, "q"), [Command::Quit]);
}

#[derive(Clone, Debug)]
enum Poke {
    Key(KeyCode, KeyModifiers),
    Size(u16, u16),
    Flow(usize),
    Paste(String),
    Rewind,
    Time(u64),
}

fn poke() -> impl Strategy<Value = Poke> {
    let letter = proptest::sample::select(
        "jkhlgGsSftnNpecy?/q12345 +-.,0x!:acdeilprt\u{e9}\u{65e5}"
            .chars()
            .collect::<Vec<_>>(),
    );
    let code = prop_oneof![
        8 => letter.prop_map(KeyCode::Char),
        1 => Just(KeyCode::Enter),
        1 => Just(KeyCode::Esc),
        1 => Just(KeyCode::Backspace),
        1 => Just(KeyCode::Tab),
        1 => Just(KeyCode::BackTab),
        1 => Just(KeyCode::PageDown),
        1 => Just(KeyCode::PageUp),
        1 => Just(KeyCode::End),
        1 => Just(KeyCode::F(3)),
    ];
    let modifiers = prop_oneof![6 => Just(KeyModifiers::NONE), 1 => Just(KeyModifiers::CONTROL), 1 => Just(KeyModifiers::SHIFT)];
    prop_oneof![
        12 => (code, modifiers).prop_map(|(code, modifiers)| Poke::Key(code, modifiers)),
        1 => (0..200_u16, 0..60_u16).prop_map(|(width, height)| Poke::Size(width, height)),
        4 => (0..26_usize).prop_map(Poke::Flow),
        1 => ".{0,20}".prop_map(Poke::Paste),
        1 => Just(Poke::Rewind),
        1 => any::<u64>().prop_map(Poke::Time),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_sequence_of_keys_panics(pokes in proptest::collection::vec(poke(), 0..120), plays in any::<bool>()) {
        let all = flows();
        let mut model = empty(THEME, 80, 24);
        if plays {
            update(&mut model, Msg::Playing(Playing { end_ns: u64::MAX, ..Playing::default() }));
        }
        for poke in pokes {
            let message = match poke {
                Poke::Key(code, modifiers) => Msg::Key(code, modifiers),
                Poke::Size(width, height) => Msg::Size(width, height),
                Poke::Flow(index) => Msg::Flow(Box::new(all[index % all.len()].clone())),
                Poke::Paste(text) => Msg::Pasted(text),
                Poke::Rewind => Msg::Rewound,
                Poke::Time(now_ns) => Msg::Now(now_ns),
            };
            update(&mut model, message);
            let text = shown(&mut model);
            prop_assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
        }
    }
}
