//! Memory, descriptors and CPU time of tracer while it runs for minutes.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::scenario::Moment;

/// By how much memory may grow after the first round: to five quarters and 8 MiB.
const MEMORY_GROWTH: (u64, u64) = (5, 4);
const MEMORY_SLACK_KIB: u64 = 8 * 1024;
/// How many descriptors more than after the first round may be open: hooks that are attached on demand.
const MORE_DESCRIPTORS: usize = 16;
/// By how much the CPU time may grow from the first half to the second: to three halves and 3 % of a CPU.
const CPU_GROWTH: f64 = 1.5;
const CPU_SLACK_PERCENT: f64 = 3.0;

/// Resource use of a process until now.
#[derive(Debug, Clone, Copy)]
struct Usage {
    at: Instant,
    /// Resident memory.
    memory_kib: u64,
    descriptors: usize,
    /// Since it started.
    cpu: Duration,
}

/// Resource use of a process, in words.
pub(super) fn describe(pid: u32) -> Result<String> {
    let usage = Usage::of(pid)?;
    let (mib, cpu) = (usage.memory_kib.div_ceil(1024), usage.cpu.as_secs_f64());
    Ok(format!(
        "{mib} MiB, {} descriptors, {cpu:.1} s of CPU time",
        usage.descriptors
    ))
}

/// The measurements of a process.
#[derive(Debug, Default)]
pub(super) struct Measurements {
    start: Option<Usage>,
    middle: Option<Usage>,
}

impl Measurements {
    /// Measures a process. Returns a line for the notes. Fails at the end if the process needs more than after the first round.
    pub(super) fn measure(&mut self, pid: u32, moment: Moment) -> Result<String> {
        let now = Usage::of(pid)?;
        let before = self.middle.or(self.start);
        let percent = before.map(|before| now.percent_since(&before));
        let text = now.describe(moment, percent);
        match (moment, self.start, self.middle) {
            (Moment::Start, ..) => self.start = Some(now),
            (Moment::Middle, ..) => self.middle = Some(now),
            (Moment::End, Some(start), Some(middle)) => {
                check(&start, &middle, &now).with_context(|| text.clone())?;
            }
            (Moment::End, ..) => {}
        }
        Ok(text)
    }
}

fn check(start: &Usage, middle: &Usage, end: &Usage) -> Result<()> {
    let (times, parts) = MEMORY_GROWTH;
    let memory = start.memory_kib * times / parts + MEMORY_SLACK_KIB;
    ensure!(
        end.memory_kib <= memory,
        "tracer's memory grew from {} to {} KiB, the limit is {memory}",
        start.memory_kib,
        end.memory_kib
    );
    ensure!(
        end.descriptors <= start.descriptors + MORE_DESCRIPTORS,
        "tracer's open descriptors grew from {} to {}",
        start.descriptors,
        end.descriptors
    );
    let (first, second) = (middle.percent_since(start), end.percent_since(middle));
    ensure!(
        second <= first * CPU_GROWTH + CPU_SLACK_PERCENT,
        "tracer needed {first:.1} % of a CPU in the first half and {second:.1} % in the second"
    );
    Ok(())
}

impl Usage {
    fn of(pid: u32) -> Result<Self> {
        let folder = format!("/proc/{pid}");
        let read = |name: &str| {
            let path = format!("{folder}/{name}");
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
        };
        let status = read("status")?;
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let memory = memory.and_then(|text| text.split_whitespace().next()?.parse().ok());
        let descriptors =
            fs::read_dir(format!("{folder}/fd")).with_context(|| format!("cannot read {folder}/fd"))?;
        Ok(Self {
            at: Instant::now(),
            memory_kib: memory.with_context(|| format!("{folder}/status has no VmRSS"))?,
            descriptors: descriptors.count(),
            cpu: cpu_time(&read("stat")?).with_context(|| format!("cannot parse {folder}/stat"))?,
        })
    }

    /// The CPU time since an earlier measurement, in percent of one CPU.
    fn percent_since(&self, before: &Self) -> f64 {
        let cpu = self.cpu.saturating_sub(before.cpu);
        let time = self.at.duration_since(before.at);
        100.0 * cpu.as_secs_f64() / time.as_secs_f64().max(0.001)
    }

    fn describe(&self, moment: Moment, percent: Option<f64>) -> String {
        let when = match moment {
            Moment::Start => "after the first round",
            Moment::Middle => "in the middle",
            Moment::End => "at the end",
        };
        let mib = self.memory_kib.div_ceil(1024);
        let cpu = percent.map_or_else(String::new, |percent| {
            format!(", {percent:.1} % of a CPU since the last one")
        });
        format!("tracer {when}: {mib} MiB, {} descriptors{cpu}", self.descriptors)
    }
}

/// User and system time in `/proc/PID/stat`, in ticks of 10 ms (`USER_HZ` is 100 on x86-64).
fn cpu_time(stat: &str) -> Option<Duration> {
    // The name in parentheses may contain anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(seconds: u64, memory_kib: u64, descriptors: usize, cpu_ms: u64) -> Usage {
        static ORIGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        Usage {
            at: *ORIGIN.get_or_init(Instant::now) + Duration::from_secs(seconds),
            memory_kib,
            descriptors,
            cpu: Duration::from_millis(cpu_ms),
        }
    }

    #[test]
    fn growth_is_noticed() {
        let start = usage(10, 40_000, 300, 1000);
        let middle = usage(110, 41_000, 310, 11_000);
        let at_end = |memory, descriptors, cpu| check(&start, &middle, &usage(210, memory, descriptors, cpu));
        at_end(45_000, 310, 21_000).unwrap();
        let memory = at_end(90_000, 310, 21_000).unwrap_err().to_string();
        assert!(memory.contains("memory grew from 40000 to 90000"), "{memory}");
        assert!(at_end(45_000, 400, 21_000).is_err());
        assert!(at_end(45_000, 310, 31_000).is_err());
    }

    #[test]
    fn measures_this_process() {
        let mut measurements = Measurements::default();
        let own = std::process::id();
        let text = measurements.measure(own, Moment::Start).unwrap();
        assert!(text.starts_with("tracer after the first round: "), "{text}");
        let text = measurements.measure(own, Moment::Middle).unwrap();
        assert!(text.contains("% of a CPU"), "{text}");
        assert_eq!(
            cpu_time("1 (a) b) S 0 1 1 0 -1 4194560 1 2 3 4 7 5 0 0 20 0"),
            Some(Duration::from_millis(120))
        );
    }
}
