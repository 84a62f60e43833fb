//! A scenario: kernel facts, topology, traffic and expectations, read from one TOML file.
//!
//! The file has that order, from top to bottom. It is the lab's input, and also the catalogue entry that
//! shows a user what a cause looks like. So it is strict: unknown keys are rejected, and
//! [`Scenario::from_toml`] checks that names, ports and counts are consistent.

pub mod address;
mod attempt;
mod catalogue;
mod check;
mod cost;
mod definition;
mod expand;
mod expectation;
mod family;
mod kubernetes;
mod overlay;
mod parse;
mod process;
mod readdress;
mod rounds;
mod step;
mod sysctl_value;
#[cfg(test)]
mod tests;
mod topology;
mod words;

pub use attempt::Attempt;
pub use catalogue::{Named, load, select};
pub use definition::Scenario;
pub use expectation::{Evidence, Expect, Expected, ExpectedAttempt, ExpectedFlow, Totals};
pub use family::Family;
pub use kubernetes::{ControlPlaneVersion, KubeProxy, Kubernetes};
pub use overlay::{OtherNode, Overlay};
pub use process::{Check, Process};
pub use rounds::Rounds;
pub use step::{
    Change, Close, Connect, ExtensionHeader, HalfOpen, Membership, Moment, Removal, RunIn, Step, Strays, Talk,
};
pub use sysctl_value::SysctlValue;
pub use topology::{
    Behaviour, Client, Pod, Policy, Proxy, RealServer, Scheduler, Service, Topology, Version,
};
pub use words::{CAUSES, Cause, Dataplane, Fate, Flavour, KernelName, Span};
