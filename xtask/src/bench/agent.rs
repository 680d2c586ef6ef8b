//! What a device's frames wait for: frame latency while something disturbs, beside frame latency
//! while all is quiet; and the start with a full outbox beside the start with an empty one.
//!
//! The measuring is `hil_tests::scenario::nothing_waits`, run by the built program against the real
//! agent and hub, which have a half of the machine's processors each. In a turn disturbed pieces and quiet
//! ones of two seconds follow one another; the 99th percentile is that of all disturbed pieces of all turns
//! at a load, beside that of all quiet ones. The case `nothing` is quiet on both sides: its ratio is the
//! noise, and the program prints between which values each ratio lies in nine of ten runs drawn from this
//! one. Beside it stands the median of the pairs' own ratios, which a few backlogs do not move. No frame is
//! left out; turns that had more than their share of the capacity are, and are counted.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::Deserialize;

use super::table::{Machine, median};
use super::{Peer, Row, Table};
use crate::{demo, shell};

/// The aims, as the table's reader is told.
const AIM: &str = "aims: frame latency p99 at most 1.5 times the quiet one, no frame dropped at up to 70 % of \
                   the capacity, a first answer within 2000 ms";

/// The scenario that measures.
const SCENARIO: &str = "nothing-waits";

/// Options of the benchmark.
#[derive(Debug, Args)]
pub struct Agent {
    /// Rounds, in each of which every disturbance takes a turn at each load
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

/// What the program prints.
#[derive(Debug, Deserialize)]
struct Figures {
    turns: Vec<Turn>,
    beside: Vec<Beside>,
    starts: Starts,
}

#[derive(Debug, Deserialize)]
struct Turn {
    load: f64,
    rate_hz: f64,
    capacity_hz: f64,
    counts: bool,
    disturbance: String,
    quiet: Phase,
    disturbed: Phase,
}

#[derive(Debug, Deserialize)]
struct Phase {
    dropped: f64,
    p50_us: f64,
}

#[derive(Debug, Deserialize)]
struct Beside {
    load: f64,
    disturbance: String,
    disturbed_p99_us: f64,
    quiet_p99_us: f64,
    pairs_p99_us: Vec<[f64; 2]>,
}

#[derive(Debug, Deserialize)]
struct Starts {
    full_ms: Vec<f64>,
    empty_ms: Vec<f64>,
}

/// Measures.
///
/// # Errors
/// When the programs cannot be built, or a part of the scenario fails.
pub fn run(options: &Agent) -> Result<Table> {
    let program = demo::built()?;
    let folder = shell::cache().join("bench");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let file = folder.join("agent.json");
    let rounds = options.rounds.to_string();
    let arguments = ["hil", SCENARIO, "--soak", &rounds, "--json"];
    shell::run(shell::program(&program).args(arguments).arg(&file))?;
    let figures = read(&file)?;
    eprintln!("{AIM}");
    let peer = Peer { name: "quiet", version: String::new() };
    Ok(Table { bench: "agent", machine: Machine::here(), peer, rows: rows(&figures) })
}

fn read(file: &Path) -> Result<Figures> {
    let cannot = || format!("cannot understand the figures in {}", file.display());
    let text = std::fs::read_to_string(file).with_context(cannot)?;
    let mut told: serde_json::Value = serde_json::from_str(&text).with_context(cannot)?;
    let told = told["scenarios"][SCENARIO]["told"].take();
    // A skipped scenario has told why, in words.
    told.as_str().map_or(Ok(()), |why| bail!("{SCENARIO} cannot be run here: {why}"))?;
    serde_json::from_value(told).with_context(cannot)
}

fn rows(figures: &Figures) -> Vec<Row> {
    let Figures { turns, beside, starts } = figures;
    let mut rows: Vec<Row> = told_once(turns.iter().map(|turn| turn.load))
        .into_iter()
        .flat_map(|load| {
            let turns: Vec<&Turn> = turns.iter().filter(|turn| turn.load == load).collect();
            let beside: Vec<&Beside> = beside.iter().filter(|one| one.load == load).collect();
            at_load(&turns, &beside)
        })
        .collect();
    let starts = [&starts.full_ms, &starts.empty_ms].map(|ms| median(ms.clone()));
    rows.push(Row::new("full outbox", "start to first answer", "ms", starts));
    rows
}

/// In the order in which they come.
fn told_once<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut once = Vec::new();
    for one in all {
        if !once.contains(&one) {
            once.push(one);
        }
    }
    once
}

/// The figures of one load, in all rounds.
fn at_load(taken: &[&Turn], beside: &[&Beside]) -> Vec<Row> {
    let Some(first) = taken.first() else { return Vec::new() };
    let share = format!("{:.0} %", first.load * 100.0);
    let all = || taken.iter().filter(|turn| turn.counts);
    let rate_hz = median(all().map(|turn| turn.rate_hz).collect());
    let capacity_hz = median(all().map(|turn| turn.capacity_hz).collect());
    let turns = [all().count() as f64, taken.len() as f64];
    let mut rows = vec![
        Row::new(&share, "frames/s of capacity", "1/s", [rate_hz, capacity_hz]),
        Row::new(&share, "turns that count, of all", "n", turns),
    ];
    for disturbance in told_once(taken.iter().map(|turn| &turn.disturbance)) {
        let turns = || all().filter(|turn| turn.disturbance == *disturbance);
        let p50_ms: Vec<[f64; 2]> = turns()
            .map(|turn| [&turn.disturbed, &turn.quiet].map(|phase| phase.p50_us / 1e3))
            .collect();
        let dropped = [
            turns().map(|turn| turn.disturbed.dropped).sum(),
            turns().map(|turn| turn.quiet.dropped).sum(),
        ];
        let case = format!("{disturbance}, {share}");
        rows.extend(beside.iter().filter(|one| one.disturbance == *disturbance).flat_map(|one| {
            let ms = |pair: [f64; 2]| pair.map(|us| us / 1e3);
            let pairs: Vec<[f64; 2]> = one.pairs_p99_us.iter().copied().map(ms).collect();
            [
                Row::new(
                    &case,
                    "frame latency p99",
                    "ms",
                    ms([one.disturbed_p99_us, one.quiet_p99_us]),
                ),
                Row::paired(&case, "frame latency p99, by pairs", "ms", &pairs),
            ]
        }));
        rows.extend([
            Row::paired(&case, "frame latency p50", "ms", &p50_ms),
            Row::new(&case, "frames dropped, all rounds", "n", dropped),
        ]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_the_median_of_its_rounds_and_their_ratios_and_the_sum_of_its_drops() {
        let turn = |disturbance: &str, disturbed: [f64; 2], quiet: [f64; 2]| {
            let phase = |[p50_us, dropped]: [f64; 2]| Phase { dropped, p50_us };
            Turn {
                load: 0.7,
                rate_hz: 63.0,
                capacity_hz: 100.0,
                counts: true,
                disturbance: disturbance.to_owned(),
                quiet: phase(quiet),
                disturbed: phase(disturbed),
            }
        };
        let turns = vec![
            turn("swap", [9e3, 1.0], [3e3, 0.0]),
            turn("swap", [6e3, 2.0], [5e3, 0.0]),
            turn("drain", [1e3, 5.0], [4e3, 0.0]),
            Turn { counts: false, ..turn("swap", [9e9, 9.0], [9e9, 9.0]) },
            turn("swap", [7e3, 0.0], [4e3, 0.0]),
        ];
        let starts = Starts { full_ms: vec![300.0], empty_ms: vec![200.0] };
        let beside = vec![Beside {
            load: 0.7,
            disturbance: "drain".to_owned(),
            disturbed_p99_us: 6e3,
            quiet_p99_us: 5e3,
            pairs_p99_us: vec![[2e3, 4e3], [9e3, 6e3], [6e3, 5e3]],
        }];
        let rows = rows(&Figures { turns, beside, starts });
        let find = |metric: &str| rows.iter().find(|row| row.metric == metric).unwrap();
        let counting = find("turns that count, of all");
        assert_eq!((counting.ours, counting.peer), (4.0, 5.0));
        // Turns at 3, 1.2 and 1.75 times the quiet latency.
        let p50 = find("frame latency p50");
        assert_eq!((p50.case.as_str(), p50.ours, p50.peer), ("swap, 70 %", 7.0, 4.0));
        assert_eq!(p50.ratio, Some(1.75));
        let p99 = find("frame latency p99");
        assert_eq!((p99.case.as_str(), p99.ratio), ("drain, 70 %", Some(1.2)));
        let by_pairs = find("frame latency p99, by pairs");
        assert_eq!((by_pairs.ours, by_pairs.peer, by_pairs.ratio), (6.0, 5.0, Some(1.2)));
        assert_eq!(find("frames dropped, all rounds").ours, 3.0);
        assert_eq!(find("start to first answer").ratio, Some(1.5));
    }
}
