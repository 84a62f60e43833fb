//! Parts of the rules of every version.

/// Matches the first packet of a connection.
pub(super) const NEW: &str = "-m conntrack --ctstate NEW ";

/// The chain by which kube-proxy notices that a table was flushed.
pub(super) const CANARY: &str = "KUBE-PROXY-CANARY";

/// The rule that jumps from a chain of the kernel's.
pub(super) fn jump_rule((_, chain, from, comment, matches): &(&str, &str, &str, &str, &str)) -> String {
    let comment = match *comment {
        "" => String::new(),
        text => format!("-m comment --comment \"{text}\" "),
    };
    format!("-I {from} {matches}{comment}-j {chain}\n")
}

/// The match that chooses one of `left` remaining pods at random; none for the last.
pub(super) fn probability(left: usize) -> String {
    match left {
        1 => String::new(),
        #[expect(clippy::cast_precision_loss, reason = "there are a handful of endpoints")]
        left => format!(
            "-m statistic --mode random --probability {:.10} ",
            1.0 / left as f64
        ),
    }
}
