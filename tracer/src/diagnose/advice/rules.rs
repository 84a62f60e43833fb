//! Advice about firewall rules: the object to change if a controller owns the rule, the command that deletes it if none does.

use std::net::IpAddr;

use super::command::{device, endpoints, list_entry, netns_of, run, set};
use crate::{
    diagnose::{
        blame::{Blame, Rule},
        case::{Case, Proof},
        cause::Cause,
        evidence::Key,
        route::freed,
    },
    facts::rule_owner::Owner,
};

pub(super) fn of(cause: Cause, case: &Case<'_>, proof: &Proof) -> Option<String> {
    match cause {
        Cause::NetfilterRuleDropped | Cause::NetfilterRuleRejected => rule(case, proof),
        Cause::ConntrackInvalid => invalid(case),
        Cause::BpfDropped => bpf(case, proof),
        Cause::PolicyLocalNoEndpoint => Some(format!(
            "Send clients only to nodes with an endpoint: a load balancer must use the service's health check node port. Or run \
             an endpoint on this node, or set externalTrafficPolicy: Cluster (then the backend sees this node's address instead \
             of the client's). Check {}.",
            endpoints(case)
        )),
        _ => None,
    }
}

fn bpf(case: &Case<'_>, proof: &Proof) -> Option<String> {
    const SHOWN: usize = 3;
    let freed = freed::step(case)?;
    let programs = proof.evidence.iter().filter(|fact| fact.key == Key::BpfProgram);
    let ids = programs.filter_map(|fact| fact.value.rsplit_once("(id ")?.1.strip_suffix(')'));
    let shows: Vec<String> = ids
        .take(SHOWN)
        .map(|id| format!("`bpftool prog show id {id}`"))
        .collect();
    let look = if shows.is_empty() && freed::reason(case, freed) == Some("BPF_CGROUP_EGRESS") {
        "`bpftool cgroup tree` lists what is attached".to_owned()
    } else if shows.is_empty() {
        let device = device(case, freed)?;
        let list = run(case, netns_of(freed), &format!("bpftool net show dev {device}"));
        format!("{list} lists what is attached")
    } else {
        let verb = if shows.len() == 1 { "shows" } else { "show" };
        format!("{} {verb} who loaded it and when", shows.join(", "))
    };
    Some(format!(
        "Find the owner of the program: {look}. Network plugins and security agents have their own policy and drop log for {}: change \
         the policy, not the program.",
        freed.event.tuple.destination()
    ))
}

fn rule(case: &Case<'_>, proof: &Proof) -> Option<String> {
    let blame = proof.blame.as_ref()?;
    if proof
        .value(Key::Verdict)
        .is_some_and(|verdict| verdict.starts_with("queue"))
    {
        return Some(
            "The rule hands packets to a program by NFQUEUE: start that program (an IDS or proxy), or let packets skip the \
             queue while no program listens on it (`queue bypass` in nft, --queue-bypass in iptables)."
                .to_owned(),
        );
    }
    let (table, chain) = (blame.table.as_deref(), blame.chain.as_deref());
    let comment = proof.value(Key::RuleComment);
    let owner = Owner::of(table, chain, comment);
    match owner {
        Some(owner) if owner.name == "kube-proxy" => Some(format!(
            "kube-proxy owns this rule and restores it after any change. Check {}: kube-proxy writes it for a service without \
             a usable endpoint, or one that restricts its clients (loadBalancerSourceRanges).",
            endpoints(case)
        )),
        Some(owner) => Some(format!(
            "{} owns this rule and restores it after a manual change. {}.",
            owner.name, owner.object
        )),
        None => by_hand(case, blame),
    }
}

/// The advice for a rule that no known controller owns.
fn by_hand(case: &Case<'_>, blame: &Blame) -> Option<String> {
    let (table, chain) = (blame.table.as_deref()?, blame.chain.as_deref()?);
    let is_nft = table.contains(' ');
    let none = "No controller that tracer knows owns this rule.";
    Some(match blame.rule? {
        Rule::Number {
            handle: Some(handle), ..
        } => format!(
            "{none} If it is not wanted, delete it: `nft delete rule {table} {chain} handle {handle}` (`nft -a list chain \
             {table} {chain}` shows it), and remove it from the file that loads it at boot."
        ),
        Rule::Number { number, handle: None } => {
            let tool = legacy_tool(case);
            let is_v6 = case.flow.original.is_v6();
            let text = case
                .netns()
                .and_then(|netns| {
                    netns
                        .tables
                        .iter()
                        .find(|known| known.name == table && known.is_v6 == is_v6)
                })
                .and_then(|table| table.rule_text(chain, number));
            let check = text.map_or_else(String::new, |text| {
                format!(", if `{tool} -t {table} -S {chain} {number}` still shows `{text}`")
            });
            format!(
                "{none} If it is not wanted, delete it{check}: `{tool} -t {table} -D {chain} {number}`. Remove it from the file \
                 that loads it at boot, too."
            )
        }
        Rule::Handle(_) => format!(
            "No single loaded rule has that handle: it was probably deleted or replaced. `nft -a list chain {table} {chain}` \
             shows what is there now."
        ),
        Rule::Policy => policy(case, table, chain, is_nft)?,
    })
}

/// The advice for a chain whose policy dropped the packet: a rule that accepts it.
fn policy(case: &Case<'_>, table: &str, chain: &str, is_nft: bool) -> Option<String> {
    let to = case.dropped?.event.tuple.destination();
    let why = "No rule accepts this packet, and the chain's policy is drop.";
    Some(if is_nft {
        let family = match to.ip() {
            IpAddr::V4(_) => "ip",
            IpAddr::V6(_) => "ip6",
        };
        format!(
            "{why} If it should pass, accept it: `nft insert rule {table} {chain} {family} daddr {} tcp dport {} accept`, and \
             add the rule to the file that sets the policy at boot.",
            to.ip(),
            to.port()
        )
    } else {
        format!(
            "{why} If it should pass, accept it: `{} -t {table} -I {chain} -p tcp -d {} --dport {} -j ACCEPT`, and add the rule \
             to the file that sets the policy at boot.",
            legacy_tool(case),
            to.ip(),
            to.port()
        )
    })
}

/// The tool for legacy tables. Where nf_tables is in use too, the plain name is usually that of iptables-nft.
fn legacy_tool(case: &Case<'_>) -> &'static str {
    let has_nft = case.netns().is_some_and(|netns| !netns.chains.is_empty());
    match (case.flow.original.is_v6(), has_nft) {
        (false, false) => "iptables",
        (false, true) => "iptables-legacy",
        (true, false) => "ip6tables",
        (true, true) => "ip6tables-legacy",
    }
}

fn invalid(case: &Case<'_>) -> Option<String> {
    const LOG: &str = "net.netfilter.nf_conntrack_log_invalid";
    let step = case.dropped?;
    let list = list_entry(&case.flow.original);
    let log = set(case, LOG, "6").map_or_else(String::new, |set| {
        format!(" {set} makes the kernel log why; it can flood the log, so set it back.")
    });
    Some(format!(
        "Find out why conntrack has no connection for {} -> {}: {list} lists the entry of the SYN, `conntrack -E -e DESTROY` shows \
         removed entries.{log}",
        step.event.tuple.source(),
        step.event.tuple.destination()
    ))
}
