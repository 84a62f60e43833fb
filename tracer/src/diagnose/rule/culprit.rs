//! The part of netfilter that dropped or rejected a packet, and its name.

use crate::diagnose::{
    blame::Blame,
    evidence::{Evidence, Key},
};

/// The source of nf_tables rules.
pub(super) const NETLINK: &str = "nf_tables (netlink)";
/// The source of legacy iptables tables.
pub(super) const GETSOCKOPT: &str = "ip_tables (getsockopt)";

/// The part of netfilter that dropped or rejected a packet.
pub(in crate::diagnose) struct Culprit<'a> {
    /// Its description, which follows "by" in a sentence.
    pub(in crate::diagnose) words: String,
    /// The facts that prove it.
    pub(in crate::diagnose) evidence: Vec<Evidence>,
    /// Table, chain and rule, as far as they are known.
    pub(in crate::diagnose) blame: Blame,
    /// The rule, if it is known.
    pub(in crate::diagnose) known: Option<Known<'a>>,
}

/// The known facts about a rule.
pub(in crate::diagnose) struct Known<'a> {
    pub(in crate::diagnose) table: &'a str,
    /// The comment that its author gave it.
    pub(in crate::diagnose) comment: Option<String>,
    /// The map in which it found its verdict.
    pub(in crate::diagnose) map: Option<&'a str>,
    /// Whether it matches packets that conntrack marked INVALID.
    pub(in crate::diagnose) matches_invalid: bool,
}

/// Name of a netfilter hook (`enum nf_inet_hooks`, uapi/linux/netfilter.h).
pub(super) fn hook_name(number: u32) -> &'static str {
    match number {
        0 => "prerouting",
        1 => "input",
        2 => "forward",
        3 => "output",
        4 => "postrouting",
        _ => "unknown",
    }
}

/// The meaning of a Calico chain's name.
pub(super) fn calico(chain: &str) -> Option<Evidence> {
    let by_name = |key: Key, name: &str| Evidence::read(key, name, "name of the chain");
    let rest = chain.strip_prefix("cali-")?;
    for (prefix, key) in [
        ("pi-", Key::CalicoPolicyIn),
        ("po-", Key::CalicoPolicyOut),
        ("pri-", Key::CalicoProfileIn),
        ("pro-", Key::CalicoProfileOut),
        ("tw-", Key::CalicoToWorkload),
        ("fw-", Key::CalicoFromWorkload),
        ("th-", Key::CalicoToHost),
        ("fh-", Key::CalicoFromHost),
    ] {
        if let Some(name) = rest.strip_prefix(prefix) {
            return Some(by_name(key, name));
        }
    }
    Some(by_name(Key::CalicoChain, chain))
}
