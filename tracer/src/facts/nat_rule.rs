//! The rules that translated the destination of a flow: all that could have.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{kube_proxy, nft::rule::Rule};

/// The rules that lead from a NodePort to a backend, and when they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatRules {
    /// The rules; usually one.
    pub rules: Vec<NatRule>,
    /// Monotonic nanoseconds.
    pub at_ns: u64,
}

/// A rule that translates the destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatRule {
    /// The table; in nf_tables, with its family (`ip nat`).
    pub table: String,
    /// The chain.
    pub chain: String,
    /// Its number in the chain, from 1.
    pub number: usize,
    /// Its handle; `None` in a legacy table of iptables.
    pub handle: Option<u64>,
    /// Its comment.
    pub comment: Option<String>,
}

impl NatRules {
    /// The rule, if it is the only one.
    #[must_use]
    pub fn only(&self) -> Option<&NatRule> {
        self.rules.first().filter(|_| self.rules.len() == 1)
    }
}

impl NatRule {
    /// The service that the rule is for, if kube-proxy wrote it.
    #[must_use]
    pub fn service(&self) -> Option<String> {
        let by_comment = self.comment.as_deref().and_then(kube_proxy::in_comment);
        by_comment.or_else(|| kube_proxy::in_chain(&self.chain))
    }
}

impl From<&Rule> for NatRule {
    fn from(rule: &Rule) -> Self {
        Self {
            table: format!("{} {}", rule.family, rule.table),
            chain: rule.chain.clone(),
            number: rule.number,
            handle: Some(rule.handle),
            comment: rule.comment.clone(),
        }
    }
}

impl fmt::Display for NatRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {}", self.number)?;
        if let Some(handle) = self.handle {
            write!(f, " (handle {handle})")?;
        }
        write!(f, " of chain {} in table {}", self.chain, self.table)?;
        match self.service() {
            Some(service) => write!(f, ", service {service}"),
            None => Ok(()),
        }
    }
}
