//! Which controller a firewall rule belongs to, by the names of its table and chain and by its comment.
//!
//! A controller rewrites its rules, so a manual change does not last.

/// A program that owns rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its name.
    pub name: &'static str,
    /// What to change instead of the rule.
    pub object: &'static str,
}

/// How a controller's rules are recognised.
enum Sign {
    /// The name of the table, without its family.
    Table(&'static str),
    /// The name of the chain.
    Chain(&'static str),
    /// The beginning of the chain's name.
    ChainPrefix(&'static str),
    /// The beginning of the rule's comment.
    Comment(&'static str),
}

const KUBE_PROXY: Owner = Owner {
    name: "kube-proxy",
    object: "Change the Service or its endpoints instead",
};
const KUBELET: Owner = Owner {
    name: "kubelet",
    object: "Change what marks the packet instead",
};
const CALICO: Owner = Owner {
    name: "Calico",
    object: "Change the NetworkPolicy, GlobalNetworkPolicy or HostEndpoint instead (`kubectl get networkpolicy -A`, `calicoctl get \
             globalnetworkpolicy`)",
};
const CILIUM: Owner = Owner {
    name: "Cilium",
    object: "Change the CiliumNetworkPolicy or the agent's configuration instead",
};
const FLANNEL: Owner = Owner {
    name: "flannel",
    object: "Change flannel's configuration instead",
};
const KUBE_ROUTER: Owner = Owner {
    name: "kube-router",
    object: "Change the NetworkPolicy instead (`kubectl get networkpolicy -A`)",
};
const ANTREA: Owner = Owner {
    name: "Antrea",
    object: "Change the NetworkPolicy instead (`kubectl get networkpolicy -A`)",
};
const WEAVE: Owner = Owner {
    name: "Weave Net",
    object: "Change the NetworkPolicy instead (`kubectl get networkpolicy -A`)",
};
const CNI: Owner = Owner {
    name: "a CNI plugin",
    object: "Change the CNI configuration in /etc/cni/net.d, or the pod's hostPort, instead",
};
const FIREWALLD: Owner = Owner {
    name: "firewalld",
    object: "Change the zone or policy with `firewall-cmd --permanent`, then `firewall-cmd --reload`",
};
const UFW: Owner = Owner {
    name: "ufw",
    object: "Change it with `ufw` (`ufw status numbered`; `ufw route` for forwarded packets)",
};
const DOCKER: Owner = Owner {
    name: "Docker",
    object: "Add an exception to the chain DOCKER-USER, which Docker leaves alone",
};
const PODMAN: Owner = Owner {
    name: "Podman (netavark)",
    object: "Change the container network instead (`podman network inspect`)",
};
const LIBVIRT: Owner = Owner {
    name: "libvirt",
    object: "Change the virtual network instead (`virsh net-edit`)",
};
const FAIL2BAN: Owner = Owner {
    name: "fail2ban",
    object: "Unban the address instead (`fail2ban-client unban`)",
};
const ISTIO: Owner = Owner {
    name: "Istio",
    object: "Change the mesh configuration instead",
};

/// The controllers, by sign. The first sign that matches counts.
const SIGNS: &[(Sign, Owner)] = &[
    (Sign::Table("kube-proxy"), KUBE_PROXY),
    (Sign::Table("calico"), CALICO),
    (Sign::Table("firewalld"), FIREWALLD),
    (Sign::Table("docker-bridges"), DOCKER),
    (Sign::Table("netavark"), PODMAN),
    (Sign::Table("libvirt_network"), LIBVIRT),
    (Sign::Table("f2b-table"), FAIL2BAN),
    (Sign::Table("flannel-ipv4"), FLANNEL),
    (Sign::Table("flannel-ipv6"), FLANNEL),
    (Sign::Table("cni_hostport"), CNI),
    (Sign::ChainPrefix("cali-"), CALICO),
    (Sign::Comment("cali:"), CALICO),
    (Sign::ChainPrefix("KUBE-ROUTER-"), KUBE_ROUTER),
    (Sign::ChainPrefix("KUBE-POD-FW-"), KUBE_ROUTER),
    (Sign::ChainPrefix("KUBE-NWPLCY-"), KUBE_ROUTER),
    // Both kubelet and kube-proxy write to this chain. Kubelet's part ended with IPTablesOwnershipCleanup (KEP-3178): an
    // option in 1.25, the default since 1.27.
    (Sign::Chain("KUBE-FIREWALL"), KUBELET),
    (Sign::Chain("KUBE-MARK-DROP"), KUBELET),
    (Sign::ChainPrefix("KUBE-"), KUBE_PROXY),
    (Sign::Comment("kubernetes "), KUBE_PROXY),
    (Sign::ChainPrefix("CILIUM_"), CILIUM),
    (Sign::ChainPrefix("OLD_CILIUM_"), CILIUM),
    (Sign::Comment("cilium"), CILIUM),
    (Sign::ChainPrefix("FLANNEL-"), FLANNEL),
    (Sign::Comment("flanneld "), FLANNEL),
    (Sign::ChainPrefix("ANTREA-"), ANTREA),
    (Sign::ChainPrefix("WEAVE-"), WEAVE),
    (Sign::ChainPrefix("CNI-"), CNI),
    (Sign::ChainPrefix("ufw-"), UFW),
    (Sign::ChainPrefix("ufw6-"), UFW),
    (Sign::ChainPrefix("DOCKER"), DOCKER),
    (Sign::ChainPrefix("NETAVARK"), PODMAN),
    (Sign::ChainPrefix("LIBVIRT_"), LIBVIRT),
    (Sign::ChainPrefix("f2b-"), FAIL2BAN),
    (Sign::ChainPrefix("ISTIO_"), ISTIO),
    (Sign::Chain("INPUT_direct"), FIREWALLD),
    (Sign::Chain("INPUT_ZONES"), FIREWALLD),
    (Sign::Chain("FORWARD_direct"), FIREWALLD),
    (Sign::ChainPrefix("FORWARD_IN_ZONES"), FIREWALLD),
    (Sign::ChainPrefix("FORWARD_OUT_ZONES"), FIREWALLD),
    (Sign::ChainPrefix("IN_"), FIREWALLD),
    (Sign::ChainPrefix("FWDI_"), FIREWALLD),
    (Sign::ChainPrefix("FWDO_"), FIREWALLD),
];

impl Owner {
    /// The owner of a rule in this table (of nf_tables with or without its family) and chain. `None` if no known controller
    /// writes such rules: then it was probably written by hand.
    #[must_use]
    pub fn of(table: Option<&str>, chain: Option<&str>, comment: Option<&str>) -> Option<Self> {
        let table = table.map(|table| table.split_once(' ').map_or(table, |(_, name)| name));
        let fits = |sign: &Sign| match sign {
            Sign::Table(name) => table == Some(name),
            Sign::Chain(name) => chain == Some(name),
            Sign::ChainPrefix(prefix) => chain.is_some_and(|chain| chain.starts_with(prefix)),
            Sign::Comment(prefix) => comment.is_some_and(|comment| comment.starts_with(prefix)),
        };
        SIGNS.iter().find(|(sign, _)| fits(sign)).map(|&(_, owner)| owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_known_by_table_chain_and_comment() {
        let owner = |table, chain, comment| Owner::of(table, Some(chain), comment).map(|owner| owner.name);
        for (table, chain, comment, expected) in [
            (Some("ip kube-proxy"), "filter-input", None, Some("kube-proxy")),
            (
                Some("ip filter"),
                "KUBE-EXTERNAL-SERVICES",
                None,
                Some("kube-proxy"),
            ),
            (Some("filter"), "KUBE-FIREWALL", None, Some("kubelet")),
            (Some("filter"), "KUBE-NWPLCY-X", None, Some("kube-router")),
            (
                Some("filter"),
                "FORWARD",
                Some("cali:wUHhoiAYhphO9Mso"),
                Some("Calico"),
            ),
            (Some("ip filter"), "cali-pi-default.deny", None, Some("Calico")),
            (
                Some("inet firewalld"),
                "filter_IN_public",
                None,
                Some("firewalld"),
            ),
            (Some("filter"), "IN_public", None, Some("firewalld")),
            (Some("filter"), "ufw-user-input", None, Some("ufw")),
            (Some("ip filter"), "INPUT", Some("drop the old backend"), None),
            (None, "FORWARD", None, None),
        ] {
            assert_eq!(owner(table, chain, comment), expected, "{chain}");
        }
    }
}
