//! What became of a process's memory. Pure.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::GROWTH_BYTES;

/// The fewest readings that a trend is told from.
const FEWEST: usize = 20;

/// What a process held at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Reading {
    /// Seconds since the run began.
    pub at_s: f64,
    /// What it held resident.
    pub resident_bytes: u64,
}

/// The trend after the warm-up.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trend {
    /// How long it was watched, in seconds.
    pub seconds: f64,
    /// Readings.
    pub readings: usize,
    /// The middle of the first tenth, in bytes.
    pub begin_bytes: f64,
    /// The middle of the last tenth, in bytes.
    pub end_bytes: f64,
    /// The most that was ever held, in bytes.
    pub peak_bytes: u64,
    /// The slope of the straight line with the least squares, in kilobytes an hour.
    pub slope_kb_per_hour: f64,
}

impl Trend {
    /// The trend of what was read after `warm_up`.
    ///
    /// # Errors
    /// When there is too little.
    pub fn of(readings: &[Reading], warm_up: Duration) -> Result<Self> {
        let warm: Vec<Reading> =
            readings.iter().copied().filter(|r| r.at_s >= warm_up.as_secs_f64()).collect();
        let count = warm.len();
        ensure!(count >= FEWEST, "{count} readings after the warm-up say nothing; run longer");
        let tenth = count.div_ceil(10);
        Ok(Self {
            seconds: warm[count - 1].at_s - warm[0].at_s,
            readings: count,
            begin_bytes: middle(&warm[..tenth]),
            end_bytes: middle(&warm[count - tenth..]),
            peak_bytes: warm.iter().map(|r| r.resident_bytes).max().unwrap_or(0),
            slope_kb_per_hour: slope(&warm) * 3600.0 / 1e3,
        })
    }

    /// Whether no more was added than may be.
    pub fn is_flat(&self) -> bool {
        self.end_bytes - self.begin_bytes <= GROWTH_BYTES
    }
}

impl fmt::Display for Trend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = |bytes: f64| bytes / 1e6;
        writeln!(f, "watched for       {:9.0} s, {} readings", self.seconds, self.readings)?;
        writeln!(f, "after the warm-up {:9.2} MB", megabytes(self.begin_bytes))?;
        writeln!(f, "at the end        {:9.2} MB", megabytes(self.end_bytes))?;
        writeln!(f, "at most           {:9.2} MB", megabytes(self.peak_bytes as f64))?;
        writeln!(f, "slope             {:9.0} KB an hour", self.slope_kb_per_hour)?;
        let (grown, may) = (self.end_bytes - self.begin_bytes, GROWTH_BYTES);
        let mark = if self.is_flat() { "ok" } else { "MISSED" };
        write!(f, "grown by          {:9.2} MB  {mark}: at most ", megabytes(grown))?;
        writeln!(f, "{:.2} MB", megabytes(may))
    }
}

fn middle(readings: &[Reading]) -> f64 {
    let mut values: Vec<u64> = readings.iter().map(|reading| reading.resident_bytes).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0) as f64
}

/// Bytes a second.
fn slope(readings: &[Reading]) -> f64 {
    let count = readings.len() as f64;
    let at = readings.iter().map(|r| r.at_s).sum::<f64>() / count;
    let held = readings.iter().map(|r| r.resident_bytes as f64).sum::<f64>() / count;
    let with = |r: &Reading| (r.at_s - at) * (r.resident_bytes as f64 - held);
    let spread: f64 = readings.iter().map(|r| (r.at_s - at).powi(2)).sum();
    if spread > 0.0 { readings.iter().map(with).sum::<f64>() / spread } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(bytes: impl Fn(f64) -> f64) -> Vec<Reading> {
        let at = |i: u32| f64::from(i) * 5.0;
        (0..720).map(|i| Reading { at_s: at(i), resident_bytes: bytes(at(i)) as u64 }).collect()
    }

    #[test]
    fn a_leak_of_four_megabytes_an_hour_is_found_and_a_large_warm_up_is_not_one() {
        let warm_up = Duration::from_secs(300);
        let leak = line(|at_s| 5e7 + at_s * 4.0 * 1024.0 * 1024.0 / 3200.0);
        let trend = Trend::of(&leak, warm_up).unwrap();
        assert!(!trend.is_flat(), "{trend}");
        assert!((trend.slope_kb_per_hour - 4718.6).abs() < 5.0, "{trend}");
        let steps = line(|at_s| if at_s < 300.0 { 2e7 } else { 5e7 });
        let trend = Trend::of(&steps, warm_up).unwrap();
        assert!(trend.is_flat() && trend.slope_kb_per_hour.abs() < 1.0, "{trend}");
    }

    #[test]
    fn too_few_readings_say_nothing() {
        assert!(Trend::of(&line(|_| 1.0)[..10], Duration::ZERO).is_err());
    }
}
