//! The host's part: speed and memory of reading a recording.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::results::{HostRow, Results};
use crate::{static_build, workspace};

/// The recording that is read if the guest has not recorded one yet.
const COMMITTED: &str = "tracer/tests/recordings/1.1-demo-registry-5.10.trace";

/// The size of the long recording that is made of it, in MiB.
const MIB: u32 = 256;
const MIB_QUICK: u32 = 24;

/// Measures with this recording, or with a committed one.
pub(super) fn measure(recorded: &Path, quick: bool, results: &mut Results) -> Result<()> {
    let committed = workspace::root().join(COMMITTED);
    let (file, source) = if recorded.is_file() {
        (recorded, "recorded in the guest by a full run")
    } else {
        (committed.as_path(), COMMITTED)
    };
    let mib = if quick { MIB_QUICK } else { MIB };
    eprintln!("   Bench  the host, a recording of {mib} MiB");
    let mut command = Command::new(workspace::cargo());
    command
        .args(["bench", "--quiet", "--target", static_build::TARGET])
        .args(["--package", "tracer", "--bench", "recording", "--"])
        .arg(file)
        .arg(mib.to_string())
        .env("RUSTFLAGS", static_build::FLAGS)
        .current_dir(workspace::root())
        .stderr(Stdio::inherit());
    let output = command.output().context("cannot run cargo bench")?;
    ensure!(output.status.success(), "the benchmark of recordings failed");
    results.host_source = format!("{source}, repeated to {mib} MiB");
    results
        .host
        .extend(rows(&String::from_utf8_lossy(&output.stdout)));
    ensure!(
        !results.host.is_empty(),
        "the benchmark of recordings printed nothing"
    );
    Ok(())
}

/// Parses name, value and unit, separated by tabs.
fn rows(printed: &str) -> impl Iterator<Item = HostRow> {
    printed.lines().filter_map(|line| {
        let mut columns = line.split('\t');
        let row = HostRow {
            name: columns.next()?.to_owned(),
            value: columns.next()?.parse().ok()?,
            unit: columns.next()?.to_owned(),
        };
        Some(row)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_parsed() {
        let printed = "warming up\nreport\t2.8\tM records/s\nsteps\t17.0\t\n";
        let rows: Vec<_> = rows(printed)
            .map(|row| (row.name, row.value.to_string(), row.unit))
            .collect();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].1, "2.8");
        assert_eq!(rows[1].2, "");
    }
}
