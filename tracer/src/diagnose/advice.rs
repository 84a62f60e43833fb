//! Commands for advice about one flow, with its real addresses and settings.

use tracer_common::tuple::Tuple;

use super::case::Case;

/// Deletes the conntrack entry of this connection, and no other. The tuple is the one of its first direction.
pub(super) fn delete_entry(original: &Tuple) -> String {
    let (from, to) = (original.source(), original.destination());
    let family = if original.is_v6() { "-f ipv6 " } else { "" };
    format!(
        "`conntrack -D {family}-p tcp -s {} --sport {} -d {} --dport {}`",
        from.ip(),
        from.port(),
        to.ip(),
        to.port()
    )
}

/// The value of a sysctl of the node's netns, if it is known.
pub(super) fn setting<'a>(case: &Case<'a>, name: &str) -> Option<&'a str> {
    case.netns()?.sysctls.get(name)
}
