//! Rules that drop or reject: which one is named, and when none is.

mod story;

#[path = "rules/dropping.rs"]
mod dropping;
#[path = "rules/kube_proxy.rs"]
mod kube_proxy;
#[path = "rules/legacy.rs"]
mod legacy;
#[path = "rules/rejecting.rs"]
mod rejecting;
#[path = "rules/ruleset.rs"]
mod ruleset;
