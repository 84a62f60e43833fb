//! What `tracer check` needs to know of the rules: which programs keep rules in which flavour, and policies that drop.

use serde::{Deserialize, Serialize};

use super::{
    iptables::{self, Table},
    kube_proxy,
    nft::{self, Family, Policy},
};

/// The hooks `input` and `forward` of the IP families (`enum nf_inet_hooks`).
const INPUT: u32 = 1;
const FORWARD: u32 = 2;

/// A summary of the rules of one flavour: legacy iptables, or nf_tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuleSummary {
    /// Chains that kube-proxy made in its iptables or IPVS mode (`KUBE-*`), and kubelet's.
    pub kube_chains: u32,
    /// Those of single services (`KUBE-SVC-*`), which only the iptables mode has.
    pub kube_service_chains: u32,
    /// The families in which kube-proxy's nftables mode has its table.
    pub kube_tables: Vec<Family>,
    /// Calico's chains (`cali-*`).
    pub calico_chains: u32,
    /// Chains at the hooks input and forward whose policy is to drop.
    pub drop_policies: Vec<DropPolicy>,
}

/// A chain whose policy is to drop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropPolicy {
    /// Its family: `ip`, `ip6` or `inet`.
    pub family: String,
    /// Its table.
    pub table: String,
    /// Its name.
    pub chain: String,
    /// Whether it is at the hook input; at forward otherwise.
    pub is_input: bool,
}

impl RuleSummary {
    /// The summary of legacy tables.
    #[must_use]
    pub fn of_tables(tables: &[Table]) -> Self {
        let mut out = Self::default();
        for table in tables {
            for chain in &table.chains {
                out.count(&chain.name);
                if let Some((hook, iptables::Verdict::Drop)) = chain.base {
                    let family = if table.is_v6 { "ip6" } else { "ip" };
                    out.add_policy(family, &table.name, &chain.name, hook);
                }
            }
        }
        out
    }

    /// The summary of chains of nf_tables.
    #[must_use]
    pub fn of_chains(chains: &[nft::Chain]) -> Self {
        let mut out = Self::default();
        for chain in chains {
            let family = match chain.family {
                Family::Ip => "ip",
                Family::Ip6 => "ip6",
                Family::Inet => "inet",
                _ => continue,
            };
            if chain.table == kube_proxy::TABLE {
                if !out.kube_tables.contains(&chain.family) {
                    out.kube_tables.push(chain.family);
                }
                continue;
            }
            out.count(&chain.name);
            let base = chain.base.as_ref();
            if let Some(base) = base.filter(|base| base.policy == Some(Policy::Drop)) {
                out.add_policy(family, &chain.table, &chain.name, base.hook);
            }
        }
        out
    }

    fn count(&mut self, chain: &str) {
        self.kube_chains += u32::from(chain.starts_with("KUBE-"));
        self.kube_service_chains += u32::from(chain.starts_with("KUBE-SVC-"));
        self.calico_chains += u32::from(chain.starts_with("cali-"));
    }

    fn add_policy(&mut self, family: &str, table: &str, chain: &str, hook: u32) {
        if hook == INPUT || hook == FORWARD {
            self.drop_policies.push(DropPolicy {
                family: family.to_owned(),
                table: table.to_owned(),
                chain: chain.to_owned(),
                is_input: hook == INPUT,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::nft::Base;

    #[test]
    fn chains_are_counted_by_owner() {
        let chain = |table: &str, name: &str, base| nft::Chain {
            family: Family::Ip,
            table: table.to_owned(),
            name: name.to_owned(),
            handle: 1,
            base,
        };
        let drops = |hook| {
            Some(Base {
                hook,
                priority: 0,
                kind: "filter".to_owned(),
                policy: Some(Policy::Drop),
            })
        };
        let summary = RuleSummary::of_chains(&[
            chain("nat", "KUBE-SERVICES", None),
            chain("nat", "KUBE-SVC-AAAA", None),
            chain("filter", "cali-FORWARD", None),
            chain("filter", "FORWARD", drops(FORWARD)),
            chain("filter", "OUTPUT", drops(3)),
            chain("kube-proxy", "services", None),
        ]);
        assert_eq!((summary.kube_chains, summary.kube_service_chains), (2, 1));
        assert_eq!(summary.calico_chains, 1);
        assert_eq!(summary.kube_tables, [Family::Ip]);
        assert_eq!(summary.drop_policies.len(), 1);
        assert!(!summary.drop_policies[0].is_input);
    }

    #[test]
    fn legacy_policies_are_found() {
        let table = Table {
            name: "filter".to_owned(),
            is_v6: true,
            chains: vec![iptables::Chain {
                name: "INPUT".to_owned(),
                base: Some((INPUT, iptables::Verdict::Drop)),
                rules: Vec::new(),
            }],
        };
        let summary = RuleSummary::of_tables(&[table]);
        assert_eq!(summary.drop_policies[0].family, "ip6");
        assert!(summary.drop_policies[0].is_input);
    }
}
