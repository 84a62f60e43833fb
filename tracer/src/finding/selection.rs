//! Selects flows by port, client, service, fate and cause.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use super::{
    outcome::{CauseTerm, FateTerm},
    verdict::Finding,
};
use crate::{diagnose::cause::Cause, flow::fate::Fate};

/// The flows that the user selected. An empty list selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Destination ports of the SYN.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Networks of the clients: an address and the length of its prefix.
    pub clients: Vec<(IpAddr, u8)>,
    /// Services, as `NAMESPACE/NAME`.
    pub services: Vec<String>,
    /// Fates of the flows.
    pub fates: Vec<FateTerm>,
    /// Causes of the flows, each that of the whole flow.
    pub causes: Vec<CauseTerm>,
}

/// The properties of a flow that a selection checks.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The client's address and port.
    pub client: SocketAddr,
    /// The node's address and NodePort.
    pub node: SocketAddr,
    /// The service, as `NAMESPACE/NAME`, where its name is known.
    pub service: Option<&'a str>,
    /// The flow's fate so far.
    pub fate: Fate,
    /// The flow's cause; `None` if it has none yet.
    pub cause: Option<Cause>,
}

impl Selection {
    /// Whether the flow is selected. Live, the kernel half has already filtered ports and clients; a recording holds all flows
    /// that were recorded.
    #[must_use]
    pub fn wants(&self, finding: &Finding<'_>) -> bool {
        // Looking up the service takes time, and most selections name none.
        let service = || finding.service();
        self.includes(&Candidate {
            client: finding.flow.client(),
            node: finding.flow.node(),
            service: (!self.services.is_empty()).then(service).flatten(),
            fate: finding.fate,
            cause: finding.diagnosis.cause,
        })
    }

    /// Whether this flow is selected.
    #[must_use]
    pub fn includes(&self, flow: &Candidate<'_>) -> bool {
        let (port, client) = (flow.node.port(), flow.client.ip());
        (self.ports.is_empty() || self.ports.iter().any(|ports| ports.contains(&port)))
            && (self.clients.is_empty() || self.clients.iter().any(|network| contains(network, client)))
            && (self.fates.is_empty() || self.fates.iter().any(|term| term.matches(flow.fate, flow.cause)))
            && (self.causes.is_empty() || self.causes.iter().any(|term| term.matches(flow.cause)))
            && (self.services.is_empty()
                || self
                    .services
                    .iter()
                    .any(|wanted| Some(wanted.as_str()) == flow.service))
    }

    /// Whether pending flows are selected. Not if a fate or a cause is given: a flow that was shown is not removed.
    #[must_use]
    pub fn wants_pending(&self) -> bool {
        self.fates.is_empty() && self.causes.is_empty()
    }

    /// The selection in the syntax of the screen's filter; empty if all flows are selected.
    #[must_use]
    pub fn words(&self) -> String {
        let terms = self.terms().into_iter();
        let words: Vec<String> = terms.map(|(name, value)| format!("{name}:{value}")).collect();
        words.join(" ")
    }

    /// The selection as options of the command line; empty if all flows are selected.
    #[must_use]
    pub fn options(&self) -> String {
        let terms = self.terms().into_iter();
        let options: Vec<String> = terms.map(|(name, value)| format!("--{name} {value}")).collect();
        options.join(" ")
    }

    /// Whether all flows are selected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Each property that is selected, with its values.
    fn terms(&self) -> Vec<(&'static str, String)> {
        fn list<T>(
            name: &'static str,
            items: &[T],
            word: impl Fn(&T) -> String,
        ) -> Option<(&'static str, String)> {
            let words: Vec<String> = items.iter().map(word).collect();
            (!words.is_empty()).then(|| (name, words.join(",")))
        }
        let port = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        let terms = [
            list("port", &self.ports, port),
            list("client", &self.clients, |(ip, length)| format!("{ip}/{length}")),
            list("service", &self.services, Clone::clone),
            list("fate", &self.fates, ToString::to_string),
            list("cause", &self.causes, ToString::to_string),
        ];
        terms.into_iter().flatten().collect()
    }
}

fn contains(network: &(IpAddr, u8), address: IpAddr) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 4),
        IpAddr::V6(v6) => (v6.to_bits(), 6),
    };
    let ((prefix, family), (address, of)) = (bits(network.0), bits(address));
    let mask = u128::MAX
        .checked_shl(128 - u32::from(network.1))
        .unwrap_or_default();
    family == of && prefix & mask == address & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        let has = |ip: &str, length: u8, address: &str| {
            contains(
                &(ip.parse().expect("an address"), length),
                address.parse().expect("an address"),
            )
        };
        assert!(has("10.0.0.0", 8, "10.255.0.1") && !has("10.0.0.0", 8, "11.0.0.1"));
        assert!(has("10.0.0.1", 32, "10.0.0.1") && !has("10.0.0.1", 32, "10.0.0.2"));
        assert!(has("0.0.0.0", 0, "192.0.2.1") && !has("0.0.0.0", 0, "::1"));
        assert!(has("fd00::", 8, "fd00:1::2") && !has("fd00::", 8, "fe80::1"));
        assert!(has("::1", 128, "::1") && has("::", 0, "2001:db8::1"));
    }

    #[test]
    fn the_words_are_those_of_the_filter() {
        let selection = Selection {
            ports: vec![30_080..=30_080, 30_100..=30_110],
            clients: vec![(IpAddr::from([10, 0, 0, 0]), 8)],
            fates: vec![FateTerm::Fate(Fate::Dropped)],
            ..Selection::default()
        };
        assert_eq!(
            selection.words(),
            "port:30080,30100-30110 client:10.0.0.0/8 fate:dropped"
        );
        assert_eq!(
            selection.options(),
            "--port 30080,30100-30110 --client 10.0.0.0/8 --fate dropped"
        );
        assert_eq!(Selection::default().words(), "");
        assert!(!selection.is_empty() && Selection::default().is_empty());
        assert!(!selection.wants_pending() && Selection::default().wants_pending());
    }
}
