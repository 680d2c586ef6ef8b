//! The one form of all benchmarks' figures.

use std::fmt;

use serde::Serialize;

/// What a benchmark came to.
#[derive(Debug, Serialize)]
pub struct Table {
    /// The benchmark.
    pub bench: &'static str,
    /// What it ran on.
    pub machine: Machine,
    /// What it was compared with.
    pub peer: Peer,
    /// The figures.
    pub rows: Vec<Row>,
}

/// What figures are compared with.
#[derive(Debug, Clone, Serialize)]
pub struct Peer {
    /// Its name.
    pub name: &'static str,
    /// Its version, as it says itself.
    pub version: String,
}

/// One figure of both sides; less is better.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What was done.
    pub case: String,
    /// What was measured.
    pub metric: &'static str,
    /// In what.
    pub unit: &'static str,
    /// Ours.
    pub ours: f64,
    /// The peer's.
    pub peer: f64,
    /// Ours divided by the peer's, of pairs the median; 1 where both are the same, 0 included, and
    /// none where only the peer's is 0.
    pub ratio: Option<f64>,
}

/// The machine.
#[derive(Debug, Serialize)]
pub struct Machine {
    processor: String,
    processors: usize,
    memory_bytes: u64,
    system: String,
}

impl Row {
    /// A figure of both sides.
    pub fn new(
        case: &str,
        metric: &'static str,
        unit: &'static str,
        [ours, peer]: [f64; 2],
    ) -> Self {
        let ratio = ratio([ours, peer]);
        Self { case: case.to_owned(), metric, unit, ours, peer, ratio }
    }

    /// A figure whose values were each taken beside one of the peer's: the medians of both, and the
    /// median of the pairs' ratios, which a machine that changes from pair to pair does not change.
    pub fn paired(
        case: &str,
        metric: &'static str,
        unit: &'static str,
        pairs: &[[f64; 2]],
    ) -> Self {
        let middle = |side: usize| median(pairs.iter().map(|pair| pair[side]).collect());
        let ratios: Option<Vec<f64>> = pairs.iter().copied().map(ratio).collect();
        let row = Self::new(case, metric, unit, [middle(0), middle(1)]);
        Self { ratio: ratios.map(median), ..row }
    }
}

fn ratio([ours, peer]: [f64; 2]) -> Option<f64> {
    let ratio = if ours == peer { 1.0 } else { ours / peer };
    Some(ratio).filter(|ratio| ratio.is_finite())
}

impl Machine {
    /// The one this runs on; what Linux does not say stays empty.
    pub fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kibibytes = memory.split(' ').next().and_then(|n| n.parse::<u64>().ok());
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name"),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kibibytes.unwrap_or_default() * 1024,
            system: format!(
                "{} {}",
                std::env::consts::OS,
                read("/proc/sys/kernel/osrelease").trim()
            ),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { processor, processors, memory_bytes, system } = &self.machine;
        let gigabytes = memory_bytes / 1_000_000_000;
        writeln!(f, "{processors} × {processor}, {gigabytes} GB, {system}")?;
        let peer = format!("{} {}", self.peer.name, self.peer.version);
        let peer = peer.trim_end();
        writeln!(f, "{:18} {:42} {:>10} {peer:>20} {:>7}", "case", "metric", "ours", "ratio")?;
        for row in &self.rows {
            let metric = format!("{}, {}", row.metric, row.unit);
            let Row { case, ours, peer, ratio, .. } = row;
            let ratio = ratio.map_or("-".into(), |ratio| format!("{ratio:.2}"));
            writeln!(f, "{case:18} {metric:42} {ours:10.1} {peer:20.1} {ratio:>7}")?;
        }
        Ok(())
    }
}

/// The middle value.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (half, odd) = (values.len() / 2, values.len() % 2 == 1);
    match values.as_slice() {
        [] => f64::NAN,
        all if odd => all[half],
        all => (all[half - 1] + all[half]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(vec![]).is_nan());
    }

    #[test]
    fn of_pairs_the_ratio_is_the_median_of_theirs() {
        let row = Row::paired("case", "time", "ms", &[[2.0, 1.0], [30.0, 20.0], [5.0, 5.0]]);
        assert_eq!((row.ours, row.peer, row.ratio), (5.0, 5.0, Some(1.5)));
        assert_eq!(Row::paired("case", "time", "ms", &[[2.0, 0.0]]).ratio, None);
    }

    #[test]
    fn a_table_says_what_was_measured_on_what_beside_whom() {
        let peer = Peer { name: "peer", version: "1.2".into() };
        let rows = vec![
            Row::new("case", "time", "ms", [3.0, 4.0]),
            Row::new("case", "frames lost", "n", [3.0, 0.0]),
            Row::new("case", "frames late", "n", [0.0, 0.0]),
        ];
        let table = Table { bench: "b", machine: Machine::here(), peer, rows };
        let json = serde_json::to_value(&table).unwrap();
        let ratios: Vec<_> = table.rows.iter().map(|row| row.ratio).collect();
        assert_eq!(ratios, [Some(0.75), None, Some(1.0)]);
        assert_eq!(json["rows"][0]["ratio"], 0.75);
        assert!(json["rows"][1]["ratio"].is_null());
        assert!(json["machine"]["processors"].as_u64() > Some(0));
        let text = table.to_string();
        assert!(text.contains("peer 1.2") && text.contains("0.75"), "{text}");
    }
}
