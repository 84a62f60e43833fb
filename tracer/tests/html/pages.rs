//! Pages of flows that were not recorded.

use std::net::IpAddr;

use tracer::{
    decode::event::Payload,
    diagnose::Diagnosis,
    facts::{Facts, NetnsFacts},
    finding::{
        head::Head,
        hook_state::{HookState, State},
        run::{End, Health, Hooks},
    },
    flow::{fate::Fate, model::Flow},
    report::{
        html::Page,
        summary::{Collection, Summary},
    },
};
use tracer_common::{
    hook::Hook,
    record::{Chain, chain, ipvs_conn},
    tcp::Part,
    tuple::Addr,
};

use crate::story::{MS, NODE, PATIENCE, Story, clock, entry, finding, original};

/// Text that would run as a script if it were not escaped, and break the layout if it could not wrap.
pub(crate) const NASTY: &str = "\"><script>document.title='broken'</script><img src=x onerror=alert(1)>&amp;'\
                                averyveryveryveryveryverylongnamewithoutanyplacewhereitcouldbebroken";

pub(crate) type Judged = (Flow, Fate, Diagnosis);

fn next(story: &mut Story, port: u16) {
    story.flow += 1;
    story.port = port;
}

/// Flows of all fates, some with hostile names.
pub(crate) fn flows(story: &mut Story) -> Vec<Judged> {
    story.served(MS);
    next(story, 40_002);
    story.expired_and_dropped(20_000 * MS, entry(ipvs_conn::TIME_WAIT, 1, 1, 0));
    story.served(21_000 * MS);
    next(story, 40_003);
    for at in [30_000, 31_000, 33_000] {
        story.expired_and_dropped(at * MS, entry(1, 0, 0, 0));
    }
    next(story, 40_004);
    story.arrives(40_000 * MS);
    let mut by = Chain {
        nf_hook: 1,
        seen: chain::IMMEDIATE,
        ..Chain::default()
    };
    by.table[..21].copy_from_slice(b"<b onclick=alert(1)>&");
    by.chain[..9].copy_from_slice(b"</table>'");
    story.dropped_by(40_001 * MS, Hook::NftDoChain, Payload::Chain(by));
    next(story, 40_005);
    for at in [45_000, 46_000] {
        story.arrives(at * MS);
        story.reaches_pod(at * MS + MS);
    }
    next(story, 40_006);
    story.arrives(50_000 * MS);
    story.seen(
        50_000 * MS + 1,
        Hook::DevStartXmit,
        (Part::Syn, 0xabc),
        (original(40_006), NODE),
        Payload::Packet,
    );
    for port in 40_010..40_040 {
        next(story, port);
        story.served((51_000 + u64::from(port % 10) * 700) * MS);
    }
    let mut judged = story.judged();
    // Some with the longest addresses.
    let long: IpAddr = "2001:db8:1111:2222:3333:4444:5555:6666"
        .parse()
        .expect("an address");
    for (flow, ..) in judged.iter_mut().skip(1).step_by(7) {
        flow.original.saddr = Addr::from(long);
        flow.original.daddr = Addr::from(long);
    }
    judged
}

pub(crate) fn head() -> Head {
    let hook = |name: &str, state: State, why: Option<&str>| HookState {
        name: name.to_owned(),
        kind: "kprobe".to_owned(),
        state,
        why: why.map(str::to_owned),
    };
    Head {
        tracer: NASTY.to_owned(),
        host: NASTY.to_owned(),
        kernel: NASTY.to_owned(),
        uname: NASTY.to_owned(),
        boot_id: NASTY.to_owned(),
        patience_ns: PATIENCE,
        ports: (30_000..32_768).collect(),
        clients: vec![NASTY.to_owned()],
        hooks: vec![
            hook("netif_receive_skb", State::Attached, None),
            hook("ip_vs_in_hook", State::Disabled, Some(NASTY)),
            hook(NASTY, State::Missing, None),
        ],
        ..Head::default()
    }
}

/// A page of these flows, and its summary.
pub(crate) fn page(judged: &[Judged], facts: &Facts) -> (String, Summary) {
    let (head, clock) = (head(), clock());
    let (mut page, mut collection) = (Page::default(), Collection::default());
    collection.begin(&head.host, &head.kernel);
    page.begin(&head, vec![NASTY.to_owned()]);
    page.hooks(&Hooks {
        why: NASTY.to_owned(),
        ..Hooks::default()
    });
    page.health(&Health {
        lost_by_hook: vec![(NASTY.to_owned(), 7)],
        ..Health::default()
    });
    page.damage(NASTY);
    for one in judged {
        let finding = finding(one, facts, &clock);
        collection.add(&finding);
        page.add(&finding);
    }
    page.facts(facts);
    collection.end(&End {
        events: 1_000,
        lost: 7,
        ..End::default()
    });
    let summary = collection.summary();
    (page.render(&summary), summary)
}

/// A page with all parts, and with hostile names.
pub(crate) fn nasty() -> String {
    let mut story = Story::new();
    let sysctls = serde_json::json!({ "values": { NASTY: NASTY, "net.ipv4.vs.conn_reuse_mode": "1" } });
    let names = serde_json::json!([[false, 30_080, [NASTY]], [true, 30_080, [NASTY]]]);
    let facts = NetnsFacts {
        sysctls: serde_json::from_value(sysctls).expect("settings"),
        node_ports: serde_json::from_value(names).expect("names"),
        ..NetnsFacts::default()
    };
    story.facts.netns.insert(NODE, facts);
    let judged = flows(&mut story);
    page(&judged, &story.facts).0
}
