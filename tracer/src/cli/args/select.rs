//! The selection of flows, the same for every command.

use clap::Args as ClapArgs;

use super::value::{Cidr, Ports, ServiceName, WordParser};
use crate::finding::{
    outcome::{CauseTerm, FateTerm},
    selection::Selection,
};

/// The flows to trace and to show.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Flows")]
pub struct Select {
    /// Only these ports: 30080,30443 or 30000-30100
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    pub port: Vec<Ports>,
    /// Only clients in these networks: 10.0.0.0/8
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub client: Vec<Cidr>,
    /// Only these services
    #[arg(long, value_name = "NS/NAME", value_delimiter = ',')]
    pub service: Vec<ServiceName>,
    /// Only these fates; failed: every failure
    #[arg(
        long,
        value_name = "FATE",
        value_delimiter = ',',
        value_parser = WordParser::<FateTerm>::new(),
        hide_possible_values = true
    )]
    pub fate: Vec<FateTerm>,
    /// Only these causes; ipvs: the whole family
    #[arg(
        long,
        value_name = "CAUSE",
        value_delimiter = ',',
        value_parser = WordParser::<CauseTerm>::new(),
        hide_possible_values = true
    )]
    pub cause: Vec<CauseTerm>,
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
