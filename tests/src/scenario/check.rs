//! What serde cannot see: whether the parts of a scenario fit together.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail, ensure};

use super::{Change, Connect, Membership, Removal, Scenario, Step, Topology};

/// Linux' limit for a device name, less the four letters that the node's ends of veths begin with.
const LONGEST_NAME: usize = 11;

/// Fails with the first contradiction.
pub(super) fn check(scenario: &Scenario) -> Result<()> {
    ensure!(!scenario.title.trim().is_empty(), "it has no title");
    ensure!(!scenario.story.trim().is_empty(), "it has no story");
    ensure!(!scenario.kernels.is_empty(), "it runs on no kernel");
    unique("kernel", scenario.kernels.iter())?;
    scenario.facts.keys().try_for_each(|name| sysctl(name))?;
    topology(&scenario.topology)?;
    for (number, step) in (1..).zip(&scenario.steps) {
        check_step(&scenario.topology, step).with_context(|| format!("step {number}"))?;
    }
    expectation(scenario)
}

fn topology(topology: &Topology) -> Result<()> {
    let Topology {
        clients,
        pods,
        services,
        nft: _,
    } = topology;
    ensure!(!clients.is_empty(), "there is no client");
    ensure!(!services.is_empty(), "there is no service");
    let names = || {
        clients
            .iter()
            .map(|client| &client.name)
            .chain(pods.iter().map(|pod| &pod.name))
    };
    unique("client or pod", names())?;
    for name in names() {
        let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        ensure!(
            (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(letters),
            "`{name}`: a name is 1 to {LONGEST_NAME} of a-z, 0-9 and -, for it is part of a device's name"
        );
    }
    unique("address", clients.iter().map(|client| client.address))?;
    for client in clients {
        let [a, b, c, d] = client.address.octets();
        ensure!(
            [a, b, c] == [10, 0, 0] && (2..=254).contains(&d),
            "{}: {} is none of 10.0.0.2 to 10.0.0.254",
            client.name,
            client.address
        );
    }
    unique("pod network", pods.iter().map(|pod| network(pod.address)))?;
    for pod in pods {
        let [a, b, _, d] = pod.address.octets();
        ensure!(
            [a, b] == [10, 244] && (2..=254).contains(&d),
            "{}: {} is not in 10.244.0.0/16, or is the node's own end",
            pod.name,
            pod.address
        );
    }
    unique("service", services.iter().map(|service| &service.name))?;
    unique("NodePort", services.iter().map(|service| service.node_port))?;
    for service in services {
        ensure!(
            (30_000..=32_767).contains(&service.node_port),
            "{}: {} is no NodePort: they are 30000 to 32767",
            service.name,
            service.node_port
        );
        unique(
            "real server",
            service.real_servers.iter().map(|server| &server.pod),
        )?;
        for server in &service.real_servers {
            known_pod(topology, &server.pod)?;
        }
    }
    Ok(())
}

fn check_step(topology: &Topology, step: &Step) -> Result<()> {
    match step {
        Step::Connect(connect) => check_connect(topology, connect),
        Step::Parallel(connects) => {
            ensure!(connects.len() > 1, "one connect is not parallel to anything");
            for connect in connects {
                ensure!(
                    !connect.background,
                    "what is parallel cannot be in the background"
                );
                check_connect(topology, connect)?;
            }
            let tuples: Vec<_> = connects
                .iter()
                .flat_map(|connect| {
                    let ports: BTreeSet<u16> = connect.source_ports().collect();
                    ports.into_iter().map(|port| (connect.client.as_str(), port))
                })
                .collect();
            let mut seen = BTreeSet::new();
            for (client, port) in tuples {
                ensure!(
                    seen.insert((client, port)),
                    "{client} connects twice at once from {port}"
                );
            }
            Ok(())
        }
        Step::SetWeight(Membership { service, pod, .. })
        | Step::AddRealServer(Membership { service, pod, .. })
        | Step::RemoveRealServer(Removal { service, pod }) => {
            known_service(topology, service.as_deref())?;
            known_pod(topology, pod)
        }
        Step::Pod(Change { name, .. }) => known_pod(topology, name),
        Step::Sysctl(values) => {
            ensure!(!values.is_empty(), "no sysctl is named");
            values.keys().try_for_each(|name| sysctl(name))
        }
        Step::Nft(text) | Step::Say(text) => {
            ensure!(!text.trim().is_empty(), "the text is empty");
            Ok(())
        }
        Step::SleepMs(_) => Ok(()),
    }
}

fn check_connect(topology: &Topology, connect: &Connect) -> Result<()> {
    ensure!(
        topology.client(&connect.client).is_some(),
        "there is no client `{}`",
        connect.client
    );
    known_service(topology, connect.to.as_deref())?;
    ensure!(
        connect.count > 0 && connect.times > 0,
        "it connects not even once"
    );
    ensure!(
        connect.source_port >= 1024 && connect.source_port.checked_add(connect.count - 1).is_some(),
        "source ports are 1024 to 65535"
    );
    ensure!(
        !connect.hold || connect.times == 1,
        "a connection that is held keeps its port"
    );
    ensure!(connect.timeout_ms > 0, "no connection takes no time");
    Ok(())
}

fn expectation(scenario: &Scenario) -> Result<()> {
    let attempts = scenario.attempts();
    ensure!(
        !attempts.is_empty(),
        "nobody connects, so there is nothing to expect"
    );
    let expect = &scenario.expect;
    for flow in &expect.flows {
        let which = format!("{}:{}", flow.client, flow.source_port);
        let made = attempts.iter().filter(|(attempt, _)| flow.is_of(attempt)).count();
        ensure!(
            made > 0 && made == usize::from(flow.count),
            "flows are expected that no step makes: {which}, count {}, occurrence {}",
            flow.count,
            flow.occurrence
        );
        if let Some(key) = flow.unknown.keys().next() {
            bail!("what is expected of {which} has an unknown key: `{key}`");
        }
    }
    for (attempt, _) in &attempts {
        let said = expect.flows.iter().filter(|flow| flow.is_of(attempt)).count();
        ensure!(
            said <= 1,
            "{attempt}: what is expected of it is said {said} times"
        );
        let Some(expected) = scenario.expected(attempt) else {
            bail!("nothing is expected of {attempt}, and there is no default");
        };
        if let Some(pod) = &expected.backend {
            known_pod(&scenario.topology, pod)?;
        }
        for evidence in &expected.evidence {
            ensure!(
                evidence.what.is_some() || evidence.value.is_some(),
                "{attempt}: evidence of nothing"
            );
        }
    }
    if let Some(totals) = &expect.totals {
        ensure!(
            totals.flows == attempts.len(),
            "{} flows are expected, but the steps make {}",
            totals.flows,
            attempts.len()
        );
        let fates: usize = totals.by_fate.values().sum();
        ensure!(
            fates == totals.flows,
            "the fates add up to {fates}, not to {}",
            totals.flows
        );
    }
    Ok(())
}

fn known_pod(topology: &Topology, name: &str) -> Result<()> {
    ensure!(topology.pod(name).is_some(), "there is no pod `{name}`");
    Ok(())
}

fn known_service(topology: &Topology, name: Option<&str>) -> Result<()> {
    match (topology.service(name), name) {
        (Some(_), _) => Ok(()),
        (None, Some(name)) => bail!("there is no service `{name}`"),
        (None, None) => bail!("there are several services, so it must say which one"),
    }
}

fn sysctl(name: &str) -> Result<()> {
    let word = |part: &str| !part.is_empty() && !part.contains(['/', ' ']);
    ensure!(
        name.starts_with("net.") && name.split('.').all(word),
        "`{name}` is no sysctl of the network"
    );
    Ok(())
}

fn network(address: Ipv4Addr) -> [u8; 3] {
    let [a, b, c, _] = address.octets();
    [a, b, c]
}

fn unique<T: Ord + std::fmt::Debug>(what: &str, all: impl Iterator<Item = T>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for one in all {
        if let Some(twice) = seen.replace(one) {
            bail!("{what} {twice:?} is there twice");
        }
    }
    Ok(())
}
