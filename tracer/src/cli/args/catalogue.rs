//! Options of `causes`.

use clap::Args as ClapArgs;

use super::value::WordParser;
use crate::finding::outcome::CauseTerm;

/// Options of `causes`.
#[derive(Clone, Debug, ClapArgs)]
pub struct CausesOptions {
    /// A cause to explain, or a family to list: ipvs
    #[arg(value_name = "CAUSE", value_parser = WordParser::<CauseTerm>::new(), hide_possible_values = true)]
    pub cause: Option<CauseTerm>,
    /// Print one JSON array
    #[arg(long)]
    pub json: bool,
}
