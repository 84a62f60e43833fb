//! The arguments. Selecting is the same for every command.

pub mod look;
mod recording;

use std::{net::IpAddr, ops::RangeInclusive, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum, builder::PossibleValue};

use self::look::Look;
pub use self::recording::{
    ExportOptions, Format, RecordOptions, ReplayOptions, ReportOptions, ShowOptions, Until,
};
use crate::{diagnose::cause::Cause, finding::selection::Selection, flow::fate::Fate};

/// Follows each NodePort SYN through the kernel and says what became of it and why.
#[derive(Debug, Parser)]
#[command(name = "tracer", version, about, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// What to do; without it, `live`.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of `live`.
    #[command(flatten)]
    pub live: LiveOptions,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Trace now, and show each flow when its fate is known: on a screen, or as lines
    Live(LiveOptions),
    /// Trace now into a file, to look at later or elsewhere
    Record(RecordOptions),
    /// Show each flow of a recording: on a screen, or as `live` would have printed it
    Replay(ReplayOptions),
    /// Say what happened in a recording, in a few sentences
    Report(ReportOptions),
    /// Show the way of one flow of a recording, step by step
    Show(ShowOptions),
    /// Give a recording in a format of others: JSON lines, packets for Wireshark, or a table
    Export(ExportOptions),
    /// Show which hooks this kernel offers, which attach, and why the others do not
    Hooks(HooksOptions),
}

/// Options of `live`.
#[derive(Clone, Debug, ClapArgs)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct LiveOptions {
    /// One line a flow, for people (the default where there is no terminal)
    #[arg(long, conflicts_with = "json")]
    pub plain: bool,
    /// One JSON object a line, schema 1
    #[arg(long)]
    pub json: bool,
    /// Lines with the path, the evidence and the advice below each
    #[arg(short, long)]
    pub verbose: bool,
    /// How the screen looks
    #[command(flatten)]
    pub look: Look,
    /// What to follow
    #[command(flatten)]
    pub select: Select,
    /// Report a flow as it stands this long after its last SYN, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub patience: Duration,
    /// End with status 3 if a flow had this fate
    #[arg(long, value_name = "FATE")]
    pub fail_on: Option<Fate>,
    /// Record into this file at the same time
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Options of `hooks`.
#[derive(Clone, Debug, ClapArgs)]
pub struct HooksOptions {
    /// One JSON array
    #[arg(long)]
    pub json: bool,
}

/// What to follow and what to show.
#[derive(Clone, Debug, ClapArgs)]
pub struct Select {
    /// Ports, as `30080,30443` or `30000-30100` [default: all of a recording; live, 30000-32767 and every IPVS service of
    /// the node]
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    pub port: Vec<Ports>,
    /// Only clients in these networks, as `10.0.0.0/8` or one address
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub client: Vec<Cidr>,
    /// Only flows for these services, where a rule of kube-proxy's names the service of a NodePort (not in its
    /// IPVS mode)
    #[arg(long, value_name = "NAMESPACE/NAME", value_delimiter = ',')]
    pub service: Vec<ServiceName>,
    /// Only flows with these fates
    #[arg(long, value_name = "FATE", value_delimiter = ',')]
    pub fate: Vec<Fate>,
    /// Only flows with these causes
    #[arg(long, value_name = "CAUSE", value_delimiter = ',')]
    pub cause: Vec<Cause>,
}

impl Select {
    /// The selection for the pipeline and its observers.
    #[must_use]
    pub fn selection(&self) -> Selection {
        Selection {
            ports: self.port.iter().map(|ports| ports.0.clone()).collect(),
            clients: self.client.iter().map(|cidr| (cidr.0, cidr.1)).collect(),
            services: self.service.iter().map(|service| service.0.clone()).collect(),
            fates: self.fate.clone(),
            causes: self.cause.clone(),
        }
    }
}

/// A port or a range of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(pub RangeInclusive<u16>);

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| match text.trim().parse::<u16>() {
            Ok(0) | Err(_) => Err(format!(
                "`{text}` is not a port: give 1 to 65535, or a range such as 30000-30100"
            )),
            Ok(port) => Ok(port),
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(text)?, port(text)?),
        };
        if first > last {
            return Err(format!("the range {text} runs backwards"));
        }
        Ok(Self(first..=last))
    }
}

/// A service: its namespace and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName(pub String);

impl FromStr for ServiceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(format!(
                "`{text}` is not a service: give NAMESPACE/NAME, such as default/web"
            )),
        }
    }
}

/// A network: an address and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr(pub IpAddr, pub u8);

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a network: give an address or a prefix such as 10.0.0.0/8");
        let (ip, length) = text
            .split_once('/')
            .map_or((text, None), |(ip, length)| (ip, Some(length)));
        let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => longest,
            Some(length) => length
                .parse()
                .ok()
                .filter(|&length| length <= longest)
                .ok_or_else(wrong)?,
        };
        Ok(Self(ip, length))
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| format!("`{text}` is not a number of seconds"))?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(patience) if (0.01..=3600.0).contains(&seconds) => Ok(patience),
        _ => Err(format!("{text} seconds: give 0.01 to 3600")),
    }
}

impl ValueEnum for Fate {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::Established,
            Self::Stalled,
            Self::Dropped,
            Self::Refused,
            Self::Unanswered,
            Self::Pending,
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

impl ValueEnum for Cause {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn ports_are_numbers_or_ranges() {
        assert_eq!("30080".parse(), Ok(Ports(30080..=30080)));
        assert_eq!("30000-30100".parse(), Ok(Ports(30000..=30100)));
        for wrong in ["", "0", "65536", "http", "2-1", "1-", "-1"] {
            assert!(wrong.parse::<Ports>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn services_have_a_namespace() {
        assert_eq!("shop/web".parse(), Ok(ServiceName("shop/web".to_owned())));
        for wrong in ["web", "/web", "shop/", "a/b/c", ""] {
            assert!(wrong.parse::<ServiceName>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn networks_have_a_prefix_that_fits() {
        assert_eq!("10.0.0.0/8".parse(), Ok(Cidr(IpAddr::from([10, 0, 0, 0]), 8)));
        assert_eq!("10.0.0.1".parse(), Ok(Cidr(IpAddr::from([10, 0, 0, 1]), 32)));
        for wrong in ["10.0.0.0/33", "10.0.0/8", "x", "10.0.0.0/"] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong:?}");
        }
    }
}
