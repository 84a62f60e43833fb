//! The rule that dropped or rejected a packet, as far as it is known.

use std::fmt;

/// The table, the chain and the rule, or the chain's policy, that decided about the packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blame {
    /// The table; an nf_tables table with its family (`ip filter`).
    pub table: Option<String>,
    /// The chain, without its table.
    pub chain: Option<String>,
    /// The part of the chain that decided.
    pub rule: Option<Rule>,
}

/// The part of a chain that decided about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The rule with this number in its chain, counted from 1, and in nf_tables with this handle.
    Number {
        /// Its position in the chain, from 1.
        number: usize,
        /// Its handle; `None` in a legacy iptables table.
        handle: Option<u64>,
    },
    /// A rule known only by its handle: it is no longer loaded.
    Handle(u64),
    /// The policy of the base chain.
    Policy,
}

impl Blame {
    /// Whether nothing is known about it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.table.is_none() && self.chain.is_none() && self.rule.is_none()
    }
}

impl fmt::Display for Blame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.table.as_ref().map(|table| format!("table {table}"));
        let chain = self.chain.as_ref().map(|chain| format!("chain {chain}"));
        let rule = self.rule.map(|rule| rule.to_string());
        let parts: Vec<String> = [table, chain, rule].into_iter().flatten().collect();
        f.write_str(&parts.join(" "))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number { number, handle: None } => write!(f, "rule {number}"),
            Self::Number {
                number,
                handle: Some(handle),
            } => write!(f, "rule {number} (handle {handle})"),
            Self::Handle(handle) => write!(f, "rule with handle {handle}"),
            Self::Policy => f.write_str("policy"),
        }
    }
}
