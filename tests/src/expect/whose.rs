//! Whose a connection is that was made, or that tracer tells of: which of the scenario's attempts it was.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use crate::scenario::{Attempt, Connect, Scenario};

/// Where an attempt goes.
pub(super) fn target(scenario: &Scenario, connect: &Connect) -> Option<SocketAddr> {
    let topology = &scenario.topology;
    let service = topology.service(connect.to.as_deref())?;
    let node = connect.to_address.unwrap_or(topology.node_address());
    Some(SocketAddr::new(node, service.node_port))
}

/// Attempts and where they go.
type Open = VecDeque<(Attempt, Option<SocketAddr>)>;

/// Gives connections, in the order in which they began, to the attempts of a scenario. A port may have two at once, to
/// two services: each goes to the attempt that it was made to.
pub(super) struct Whose {
    /// By client and source port: attempts that nothing was given to yet, and where they go.
    open: BTreeMap<(String, u16), Open>,
    /// How many there were of each port.
    seen: BTreeMap<(String, u16), u16>,
}

impl Whose {
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

    /// The next attempt from this port to this address; if there is none the next from this port, and if that port has no
    /// more of them an attempt that the scenario does not know.
    pub(super) fn take(&mut self, client: &str, source_port: u16, to: SocketAddr) -> Attempt {
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
