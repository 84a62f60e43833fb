//! Assigns the connections that clients made, or tracer reports, to the scenario's attempts.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use crate::scenario::{Attempt, Connect, Scenario};

/// The address that an attempt connects to.
pub(super) fn target(scenario: &Scenario, connect: &Connect) -> Option<SocketAddr> {
    let topology = &scenario.topology;
    let service = topology.service(connect.to.as_deref())?;
    let node = connect.to_address.unwrap_or(topology.node_address());
    Some(SocketAddr::new(
        node,
        connect.from_node_port.unwrap_or(service.node_port),
    ))
}

/// Unassigned attempts and the addresses they connect to.
type Open = VecDeque<(Attempt, Option<SocketAddr>)>;

/// Assigns connections, in the order of their start, to the attempts of a scenario. A port may have two at
/// once, to two services: each is assigned to the attempt with its destination.
pub(super) struct Assignment {
    /// Unassigned attempts, by client and source port.
    open: BTreeMap<(String, u16), Open>,
    /// The number of connections from each port so far.
    seen: BTreeMap<(String, u16), u16>,
}

impl Assignment {
    pub(super) fn new(scenario: &Scenario, attempts: &[(Attempt, &Connect)]) -> Self {
        let mut open: BTreeMap<_, Open> = BTreeMap::new();
        for (attempt, connect) in attempts {
            open.entry((attempt.client.clone(), attempt.source_port))
                .or_default()
                .push_back((attempt.clone(), target(scenario, connect)));
        }
        Self {
            open,
            seen: BTreeMap::new(),
        }
    }

    /// Returns the next attempt from this port to this address; failing that, the next one from this port;
    /// failing that, an attempt that the scenario does not have.
    pub(super) fn assign(&mut self, client: &str, source_port: u16, to: SocketAddr) -> Attempt {
        let key = (client.to_owned(), source_port);
        let occurrence = self.seen.entry(key.clone()).or_default();
        *occurrence += 1;
        let taken = self.open.get_mut(&key).and_then(|open| {
            let fits = open.iter().position(|(_, target)| *target == Some(to));
            open.remove(fits.unwrap_or(0))
        });
        taken.map_or_else(
            || Attempt {
                client: client.to_owned(),
                source_port,
                occurrence: *occurrence,
            },
            |(attempt, _)| attempt,
        )
    }
}
