//! Advice about ports of services that nothing translates.

use crate::{
    diagnose::{
        case::{Case, Proof},
        cause::Cause,
        evidence::Key,
    },
    facts::rule_owner::Owner,
};

pub(super) fn of(cause: Cause, case: &Case<'_>, proof: &Proof) -> Option<String> {
    match cause {
        Cause::ServiceNotTranslated => not_translated(case, proof),
        Cause::ServiceAnsweredLocally => answered_locally(case, proof),
        _ => None,
    }
}

/// A rule, as evidence names its place.
struct Place<'a> {
    /// Family and name of an nf_tables table, or the name of a legacy one.
    table: &'a str,
    chain: &'a str,
    is_nft: bool,
}

impl<'a> Place<'a> {
    fn of(named: &'a str) -> Option<Self> {
        let (_, rest) = named.split_once(" of chain ")?;
        let nft = rest.split_once(" in the nf_tables table ");
        let is_nft = nft.is_some();
        let (chain, rest) = nft.or_else(|| rest.split_once(" in iptables' legacy table "))?;
        let end = rest.find([':', ',', '(']).unwrap_or(rest.len());
        Some(Self {
            table: rest[..end].trim_end(),
            chain,
            is_nft,
        })
    }

    /// The command that shows its chain.
    fn listing(&self, is_v6: bool) -> String {
        let Self { table, chain, .. } = self;
        if self.is_nft {
            return format!("`nft -a list chain {table} {chain}`");
        }
        let tool = if is_v6 {
            "ip6tables-legacy"
        } else {
            "iptables-legacy"
        };
        format!("`{tool} -t {table} -S {chain}`")
    }
}

fn not_translated(case: &Case<'_>, proof: &Proof) -> Option<String> {
    let flow = case.flow;
    let named = proof.value(Key::PortNamedBy)?;
    let is_v6 = flow.original.is_v6();
    if named.starts_with("IPVS virtual service") {
        return Some(format!(
            "Check that IPVS has the virtual service now (`ipvsadm -Ln -t {}`) and try again. If the SYN is refused again, a rule \
             keeps it from IPVS: `iptables -S INPUT` and `nft list ruleset` show what accepts or drops it first.",
            flow.node()
        ));
    }
    let place = Place::of(named)?;
    let owner = Owner::of(Some(place.table), Some(place.chain), None);
    let whose = match owner {
        Some(owner) => format!("{} owns that rule", owner.name),
        None => "No controller that tracer knows owns that rule".to_owned(),
    };
    let list = place.listing(is_v6);
    Some(if named.contains("no rule leads to it") {
        format!(
            "No base chain jumps to {} any more ({list} shows it). {whose}: restart its owner, which writes the jumps again, and \
             find out who removed them.",
            place.chain
        )
    } else if named.contains("does not match this SYN") {
        format!(
            "Compare the conditions of the rule ({list}) with the SYN from {} to {}. {whose}: correct it there, or connect to the \
             address that it is for.",
            flow.client(),
            flow.node()
        )
    } else {
        format!(
            "Check that the rule was there when the SYN came ({list}). {whose}: its log shows when it wrote its rules."
        )
    })
}

fn answered_locally(case: &Case<'_>, proof: &Proof) -> Option<String> {
    let owner = proof.value(Key::ListenerOwner)?.replace("PID ", "process ");
    let node = case.flow.node();
    let service = case
        .facts
        .service(case.flow.netns, node)
        .map_or_else(String::new, |service| format!(" of {service}"));
    let missing = match proof.value(Key::PortNamedBy) {
        Some(named) if named.starts_with("IP set") => {
            format!("its virtual service is missing (`ipvsadm -Ln -t {node}`)")
        }
        Some(named) if named.starts_with("IPVS") => {
            "IPVS did not see the SYN although it has the virtual service".to_owned()
        }
        _ => "its rules did not translate the SYN (they may have been flushed)".to_owned(),
    };
    Some(format!(
        "{owner} only reserves port {}{service} and never serves it (`ss -ltnp sport = :{}`): {missing}. Find out why in \
         kube-proxy's log, and restart kube-proxy: it then sets up all its services again.",
        node.port(),
        node.port()
    ))
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn a_chain_is_listed_by_the_tool_that_has_it() {
        let of = |named: &str| Place::of(named).map(|place| place.listing(false));
        let nft = "rule 1 (handle 7) of chain pre in the nf_tables table ip hand: it does not match this SYN (read 3 ms before \
                   this SYN)";
        assert_eq!(of(nft).as_deref(), Some("`nft -a list chain ip hand pre`"));
        let legacy = "rule 3 of chain KUBE-NODEPORTS in iptables' legacy table nat, service shop/web (read 3 ms after this SYN)";
        assert_eq!(
            of(legacy).as_deref(),
            Some("`iptables-legacy -t nat -S KUBE-NODEPORTS`")
        );
        assert_eq!(of("IP set KUBE-NODE-PORT-TCP"), None);
    }
}
