//! Names that kube-proxy derives from a service's name and an endpoint's address.

use std::net::SocketAddr;

use sha2::{Digest, Sha256};

/// The chains of a service in iptables mode: `KUBE-SVC-…`, `KUBE-SVL-…`, `KUBE-EXT-…`.
#[derive(Debug, Clone)]
pub(super) struct ServiceChains {
    pub(super) cluster: String,
    pub(super) local: String,
    pub(super) external: String,
}

impl ServiceChains {
    /// The chains of a TCP port with this name.
    pub(super) fn iptables(name: &str) -> Self {
        let hash = hash(&format!("{name}tcp"), 16);
        Self {
            cluster: format!("KUBE-SVC-{hash}"),
            local: format!("KUBE-SVL-{hash}"),
            external: format!("KUBE-EXT-{hash}"),
        }
    }

    /// The same in nftables mode: `service-…`, `local-…`, `external-…`.
    pub(super) fn nftables(name: &str) -> Self {
        let path = path(name);
        let base = format!("{}-{path}", hash(&path, 8));
        Self {
            cluster: format!("service-{base}"),
            local: format!("local-{base}"),
            external: format!("external-{base}"),
        }
    }
}

/// The chain of an endpoint in iptables mode: `KUBE-SEP-…`. The list of its sticky clients has the same name.
pub(super) fn iptables_endpoint(name: &str, at: SocketAddr) -> String {
    format!("KUBE-SEP-{}", hash(&format!("{name}tcp{at}"), 16))
}

/// The suffix of an endpoint's chain (`endpoint-`) and set of sticky clients (`affinity-`) in nftables mode.
pub(super) fn nftables_endpoint(name: &str, at: SocketAddr) -> String {
    // A name cannot contain a colon.
    let address = at.ip().to_string().replace(':', ".");
    let path = format!("{}__{address}/{}", path(name), at.port());
    format!("{}-{path}", hash(&path, 8))
}

/// `default/web:http` as `default/web/tcp/http`.
fn path(name: &str) -> String {
    let (service, port) = name.split_once(':').unwrap_or((name, ""));
    format!("{service}/tcp/{port}")
}

/// The start of a text's SHA-256 in base 32 (RFC 4648).
fn hash(text: &str, letters: usize) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let digest = Sha256::digest(text.as_bytes());
    let bit = |nth: usize| usize::from(digest[nth / 8] >> (7 - nth % 8) & 1);
    (0..letters)
        .map(|nth| (0..5).fold(0, |five, of| five << 1 | bit(nth * 5 + of)))
        .map(|five| char::from(LETTERS[five]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected names are kube-proxy's own for these services.
    #[test]
    fn names_match_kube_proxy() {
        let at = "10.180.0.1:80".parse().unwrap();
        let chains = ServiceChains::iptables("ns1/svc1:p80");
        assert_eq!(chains.cluster, "KUBE-SVC-XPGD46QRK7WJZT7O");
        assert_eq!(chains.external, "KUBE-EXT-XPGD46QRK7WJZT7O");
        assert_eq!(iptables_endpoint("ns1/svc1:p80", at), "KUBE-SEP-SXIVWICOYRO3J4NJ");

        let chains = ServiceChains::nftables("ns1/svc1:p80");
        assert_eq!(chains.cluster, "service-ULMVA6XW-ns1/svc1/tcp/p80");
        assert_eq!(chains.local, "local-ULMVA6XW-ns1/svc1/tcp/p80");
        assert_eq!(
            nftables_endpoint("ns1/svc1:p80", at),
            "5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80"
        );
    }
}
