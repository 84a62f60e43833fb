//! A real control plane: only what Kubernetes itself can do.

use anyhow::{Context as _, Result, ensure};

use super::super::{Family, Kubernetes, Overlay, Policy, Proxy, Scenario, Scheduler, Step};

/// Fails with the first contradiction.
pub(super) fn check(scenario: &Scenario) -> Result<()> {
    let Some(kubernetes) = &scenario.kubernetes else {
        return without(scenario);
    };
    let Kubernetes { osrelease, .. } = kubernetes;
    if let Some(osrelease) = osrelease {
        ensure!(
            osrelease.starts_with(|letter: char| letter.is_ascii_digit()),
            "`osrelease`: `{osrelease}` is not a kernel release"
        );
    }
    ensure!(
        scenario.families == [Family::Ipv4],
        "a control plane runs with IPv4 only"
    );
    let topology = &scenario.topology;
    ensure!(
        matches!(topology.proxy, Proxy::Ipvs | Proxy::Iptables),
        "kube-proxy of this version has the modes `ipvs` and `iptables`"
    );
    ensure!(
        topology.overlay == Overlay::None,
        "a control plane cannot be used with an overlay"
    );
    for service in &topology.services {
        let check = || {
            ensure!(
                service.scheduler == Scheduler::default(),
                "kube-proxy runs with its default scheduler"
            );
            ensure!(
                service.internal_traffic_policy == Policy::default(),
                "this version has no internal traffic policy"
            );
            ensure!(
                service.real_servers.iter().all(|server| server.weight == 1),
                "kube-proxy sets the weights"
            );
            Ok(())
        };
        check().with_context(|| service.name.clone())?;
    }
    for (number, step) in (1..).zip(&scenario.steps) {
        let sets_weight = match step {
            Step::SetWeight(_) => true,
            Step::AddRealServer(change) => change.weight != 1,
            _ => false,
        };
        ensure!(!sets_weight, "step {number}: kube-proxy sets the weights");
    }
    Ok(())
}

fn without(scenario: &Scenario) -> Result<()> {
    for (number, step) in (1..).zip(&scenario.steps) {
        ensure!(
            !matches!(step, Step::KubeProxy(_)),
            "step {number}: `kube_proxy` needs a `[kubernetes]` table"
        );
    }
    Ok(())
}
