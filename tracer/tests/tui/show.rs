//! A model with flows, and how it is drawn.

use ratatui::{
    buffer::Buffer,
    crossterm::event::{KeyCode, KeyModifiers},
    layout::Rect,
};
use tracer::{
    finding::{
        Finding,
        clock::Clock,
        hook_state::{HookState, State},
    },
    tui::{
        export::text_of,
        flow_update::FlowUpdate,
        message::{Command, Msg},
        model::Model,
        theme::Theme,
        update::update,
        view::view,
    },
};
use tracer_common::record::{self, ipvs_conn};

use crate::story::{MS, POD, Story, entry};

/// A time after all flows.
pub(crate) const NOW: u64 = 65_000 * MS;

pub(crate) fn hooks() -> Vec<HookState> {
    let hook = |name: &str, kind: &str, state: State, why: Option<&str>| HookState {
        name: name.to_owned(),
        kind: kind.to_owned(),
        state,
        why: why.map(str::to_owned),
    };
    vec![
        hook("netif_receive_skb", "tracepoint", State::Attached, None),
        hook("kfree_skb", "tracepoint", State::Attached, None),
        hook("ip_vs_in_hook", "kprobe+kretprobe", State::Attached, None),
        hook(
            "ip_vs_remote_request4",
            "kprobe+kretprobe",
            State::Missing,
            Some("this kernel has ip_vs_in_hook instead"),
        ),
        hook(
            "nft_do_chain",
            "kprobe+kretprobe",
            State::OnDemand,
            Some("runs for every packet of the node: attached while a rule may have dropped one"),
        ),
        hook(
            "ip_vs_leave",
            "kprobe",
            State::Disabled,
            Some("the kernel rejected the program: invalid argument"),
        ),
    ]
}

pub(crate) fn empty(theme: Theme, width: u16, height: u16) -> Model {
    let mut model = Model::new(theme, (width, height));
    let start = Msg::Start {
        host: "node-1".to_owned(),
        kernel: "6.12.117+deb13-cloud-amd64".to_owned(),
        selection: String::new(),
        ports: 2768,
        hooks: hooks(),
        sandbox: "confined: 7 capabilities, no new privileges, seccomp".to_owned(),
        clock: Clock::new("2026-11-22T18:35:45.5Z".parse().expect("a time"), 0),
    };
    update(&mut model, start);
    update(&mut model, Msg::Now(NOW));
    model
}

/// Flows from several client ports, one for each outcome.
pub(crate) fn flows() -> Vec<FlowUpdate> {
    let mut story = Story::new();
    story.facts.symbols.insert(0x1234, "nf_hook_slow+0xc3".to_owned());
    // The port is reused while IPVS holds the old entry: two flows.
    story.served(1_000 * MS);
    story.acknowledged(1_031 * MS);
    next(&mut story, 40_001);
    story.expired_and_dropped(20_000 * MS, entry(ipvs_conn::TIME_WAIT, 1, 1, 0));
    story.served(21_000 * MS);
    // The backend was removed.
    next(&mut story, 40_002);
    for at in [30_000, 31_000, 33_000] {
        story.expired_and_dropped(at * MS, entry(1, 0, 0, 0));
    }
    // A rule drops the SYN.
    next(&mut story, 40_003);
    story.arrives(40_000 * MS);
    story.dropped_by_rule(40_001 * MS);
    // The backend does not answer.
    next(&mut story, 40_004);
    for at in [45_000, 46_000] {
        story.arrives(at * MS);
        story.reaches_pod(at * MS + MS);
    }
    // A rule rejects the SYN.
    next(&mut story, 40_005);
    story.arrives(50_000 * MS);
    let reject = record::Reject::default();
    story.rejected_by(
        50_000 * MS + 1,
        tracer_common::hook::Hook::NftReject,
        reject,
        true,
    );
    for port in 40_010..40_030 {
        next(&mut story, port);
        story.served((51_000 + u64::from(port % 10) * 700) * MS);
    }
    let _ = POD;
    let facts = story.facts.clone();
    let clock = Clock::new(jiff::Timestamp::UNIX_EPOCH, 0);
    story
        .judged()
        .into_iter()
        .map(|(flow, fate, diagnosis)| {
            let finding = Finding {
                flow: &flow,
                fate,
                diagnosis: &diagnosis,
                facts: &facts,
                clock: &clock,
            };
            FlowUpdate::of(&finding)
        })
        .collect()
}

/// Starts a new flow from this client port.
fn next(story: &mut Story, port: u16) {
    story.flow += 1;
    story.port = port;
}

pub(crate) fn busy(theme: Theme, width: u16, height: u16) -> Model {
    let mut model = empty(theme, width, height);
    for flow in flows() {
        update(&mut model, Msg::Flow(Box::new(flow)));
    }
    update(&mut model, Msg::Records(12_345));
    model
}

pub(crate) fn press(model: &mut Model, keys: &str) -> Vec<Command> {
    let mut out = Vec::new();
    for c in keys.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            '\t' => KeyCode::Tab,
            c => KeyCode::Char(c),
        };
        out.extend(update(model, Msg::Key(code, KeyModifiers::NONE)));
        update(model, Msg::Frame);
    }
    out
}

pub(crate) fn draw(model: &mut Model) -> Buffer {
    update(model, Msg::Frame);
    let area = Rect::new(0, 0, model.size.0, model.size.1);
    let mut buffer = Buffer::empty(area);
    view(model, area, &mut buffer);
    buffer
}

pub(crate) fn shown(model: &mut Model) -> String {
    text_of(&draw(model))
}
