//! Measurements of the guest: what `cargo xtask bench` asks for, and what the guest reports.

use serde::{Deserialize, Serialize};

/// The guest's folder with pwru, its libraries and their loader.
pub const PWRU_DIR: &str = "/pwru";

/// What a guest measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bench {
    /// Only the most important rows, and fewer batches of each.
    pub quick: bool,
    /// Measure beside pwru too; the guest has it in [`PWRU_DIR`].
    pub pwru: bool,
}

/// One row beside one program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// What was measured, for example `IPVS: new connection`.
    pub row: String,
    /// What ran at the same time.
    pub beside: Beside,
    /// One value per batch, in the unit of the row.
    pub samples: Vec<f64>,
}

/// What runs beside the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Beside {
    /// Nothing.
    Nothing,
    /// The programs of `tracer live --depth light` in the kernel; the process that reads their records is stopped.
    LightKernel,
    /// `tracer live --depth light --json`.
    Light,
    /// The programs of `tracer live --depth full` in the kernel; the process that reads their records is stopped.
    Kernel,
    /// `tracer record --depth full`.
    Record,
    /// `tracer live --depth full --json`.
    Live,
    /// pwru.
    Pwru,
}

impl Beside {
    /// The program's part in the kernel alone, where that is measured.
    #[must_use]
    pub const fn kernel_part(self) -> Option<Self> {
        match self {
            Self::Light => Some(Self::LightKernel),
            Self::Live => Some(Self::Kernel),
            _ => None,
        }
    }

    /// Whether this is the kernel's part of a program.
    #[must_use]
    pub const fn is_kernel_part(self) -> bool {
        matches!(self, Self::LightKernel | Self::Kernel)
    }
}

/// The cost of one BPF program while a row was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProgramCost {
    /// What was measured.
    pub row: String,
    /// The program's name.
    pub program: String,
    /// How often it ran per operation.
    pub runs: f64,
    /// Instructions per run.
    pub cost: f64,
}
