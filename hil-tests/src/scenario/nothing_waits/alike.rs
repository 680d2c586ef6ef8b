//! Disturbed phases beside quiet ones in which the machine was alike.
//!
//! On a machine that others share the same inference takes a third longer while a neighbour is at work
//! on the same core, and that changes from second to second: two phases of a few seconds differ by more
//! than what is looked for. So every phase is cut into windows. What is asked of the machine in one is
//! the frames of a second times how long each takes, which follows from how long a fixed piece of work
//! took in it. To each disturbed window belong the quiet windows, of any turn at this load, of which most
//! nearly as much was asked: nearest neighbours with replacement, on the one covariate that the machine
//! brings (E. A. Stuart, "Matching Methods for Causal Inference", Statistical Science 25, 2010). The
//! percentile of all disturbed windows is held against the one of all that belong to them. The
//! disturbance `nothing` is compared in the same way: its ratio is what is left of the noise.
//!
//! The work is done in registers, so that what a disturbance does to caches, memory and the kernel is
//! no part of it and stays in the ratio.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Turn;
use super::phases::{Disturbance, quantile};
use crate::fleet::Answered;
use crate::rig::Work;

/// How long a window is, in milliseconds: far longer than a frame takes, and shorter than a neighbour
/// stays.
const WINDOW_MS: u64 = 500;

/// How many quiet windows belong to a disturbed one.
const NEAREST: usize = 5;

/// The frames of a piece of a phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Frames a second times the root of the piece of work's time in microseconds: about in proportion
    /// to the share of a processor that they need, for where the work takes 1.9 times as long an
    /// inference takes 1.35 times as long. None where no work was seen; such a window is compared with
    /// nothing.
    pub asked: Option<f64>,
    /// What its frames took.
    pub latencies_us: Vec<u64>,
}

/// A disturbance beside quiet in which the machine was alike, over all turns at a load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alike {
    /// The share of the capacity that no turn exceeded.
    pub load: f64,
    /// What disturbed.
    pub disturbance: Disturbance,
    /// Disturbed windows.
    pub windows: u64,
    /// How far apart what was asked is in a disturbed window and in one that belongs to it, as a share;
    /// of all, the middle one.
    pub apart: f64,
    /// The latency that 99 of 100 frames of the disturbed windows do not exceed, in microseconds.
    pub disturbed_p99_us: u64,
    /// The same of the quiet windows that belong to them.
    pub quiet_p99_us: u64,
}

impl fmt::Display for Alike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { load, disturbance, windows, apart, disturbed_p99_us, quiet_p99_us } = self;
        write!(
            f,
            "up to {:.0} %, {:12} p99 {disturbed_p99_us:6} µs in {windows} windows, alike quiet \
             {quiet_p99_us:6} µs ({:.1} % apart): {:5.2}",
            load * 100.0,
            disturbance.name(),
            apart * 100.0,
            *disturbed_p99_us as f64 / *quiet_p99_us as f64
        )
    }
}

/// Cuts the frames of a phase, so many a second, into windows, each with what was asked of the machine.
pub(super) fn windows(frames: &[Answered], work: &[Work], rate_hz: f64) -> Vec<Window> {
    let (mut windows, mut left) = (Vec::new(), frames);
    while let Some(first) = left.first() {
        let end_ms = first.captured_at_ms + WINDOW_MS;
        let (those, rest) =
            left.split_at(left.partition_point(|f| f.captured_at_ms < end_ms).max(1));
        left = rest;
        let within = first.captured_at_ms * 1000..end_ms * 1000;
        let took: Vec<f64> =
            work.iter().filter(|work| within.contains(&work.at_us)).map(|w| w.took_us).collect();
        let mean_us = took.iter().sum::<f64>() / took.len() as f64;
        let asked = (!took.is_empty()).then(|| rate_hz * mean_us.sqrt());
        windows.push(Window { asked, latencies_us: those.iter().map(|f| f.latency_us).collect() });
    }
    windows
}

/// Each disturbance at each load, in the order in which they come, of the turns that count.
pub(super) fn of(turns: &[Turn]) -> Vec<Alike> {
    let turns = || turns.iter().filter(|turn| turn.counts);
    let mut cases: Vec<(f64, Disturbance)> = Vec::new();
    for turn in turns() {
        let case = (turn.load, turn.disturbance);
        if !cases.contains(&case) {
            cases.push(case);
        }
    }
    cases
        .into_iter()
        .map(|(load, disturbance)| {
            let at_load = || turns().filter(|turn| turn.load == load);
            let quiet = at_load().flat_map(|turn| known(&turn.quiet.windows)).collect();
            let disturbed: Vec<_> = at_load()
                .filter(|turn| turn.disturbance == disturbance)
                .flat_map(|turn| known(&turn.disturbed.windows))
                .collect();
            compare(load, disturbance, &disturbed, quiet)
        })
        .collect()
}

/// What was asked of the machine in a window, and what its frames took.
type Known<'w> = (f64, &'w [u64]);

fn known(windows: &[Window]) -> impl Iterator<Item = Known<'_>> {
    windows.iter().filter_map(|w| w.asked.map(|asked| (asked, &w.latencies_us[..])))
}

fn compare(
    load: f64,
    disturbance: Disturbance,
    disturbed: &[Known<'_>],
    mut quiet: Vec<Known<'_>>,
) -> Alike {
    quiet.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let (mut beside, mut apart) = (Vec::new(), Vec::new());
    for &(asked, _) in disturbed {
        let near = nearest(&quiet, asked);
        apart.extend(near.iter().map(|(near, _)| (near / asked - 1.0).abs()));
        beside.extend_from_slice(near);
    }
    apart.sort_by(f64::total_cmp);
    Alike {
        load,
        disturbance,
        windows: disturbed.len() as u64,
        apart: apart.get(apart.len() / 2).copied().unwrap_or(0.0),
        disturbed_p99_us: p99(disturbed),
        quiet_p99_us: p99(&beside),
    }
}

/// The windows, in order, of which most nearly so much was asked.
fn nearest<'q, 'w>(by_asked: &'q [Known<'w>], asked: f64) -> &'q [Known<'w>] {
    let at = by_asked.partition_point(|(there, _)| *there < asked);
    let (mut from, mut to) = (at, at);
    while to - from < NEAREST.min(by_asked.len()) {
        let below = from.checked_sub(1).map_or(f64::INFINITY, |i| asked - by_asked[i].0);
        let above = by_asked.get(to).map_or(f64::INFINITY, |(there, _)| there - asked);
        if below <= above { from -= 1 } else { to += 1 }
    }
    &by_asked[from..to]
}

fn p99(windows: &[Known<'_>]) -> u64 {
    let mut all: Vec<u64> = windows.iter().flat_map(|(_, took)| took.iter().copied()).collect();
    all.sort_unstable();
    quantile(&all, 0.99)
}

#[cfg(test)]
mod tests {
    use super::super::Phase;
    use super::*;

    fn window(asked: f64, latency_us: u64) -> Window {
        Window { asked: Some(asked), latencies_us: vec![latency_us; 10] }
    }

    #[test]
    fn a_phase_is_cut_by_time_and_what_is_asked_grows_with_rate_and_slowness() {
        let frames: Vec<Answered> = (0..10)
            .map(|n| Answered { frame: n, captured_at_ms: 1000 + n * 100, latency_us: n })
            .collect();
        let work: Vec<Work> = [(900, 4.0), (1000, 10.0), (1400, 22.0), (1999, 25.0)]
            .map(|(at_ms, took_us)| Work { at_us: at_ms * 1000, took_us })
            .to_vec();
        let cut = windows(&frames, &work, 10.0);
        assert_eq!(cut.len(), 2);
        assert_eq!((cut[0].asked, cut[1].asked), (Some(40.0), Some(50.0)));
        assert_eq!(cut[1].latencies_us, [5, 6, 7, 8, 9]);
        assert_eq!(windows(&frames, &[], 10.0)[0].asked, None);
    }

    #[test]
    fn a_slow_machine_is_no_disturbance_and_what_slows_an_equally_fast_one_is() {
        // What is asked alone makes frames slow: ten times as long from 600 on.
        let took = |asked: f64| if asked < 600.0 { 100 } else { 1000 };
        let from_on = |from: u32, times: u64| {
            let asked = (from..from + 40).map(|n| f64::from(n) * 10.0);
            asked.map(|asked| window(asked, times * took(asked))).collect()
        };
        let phase = |windows| Phase { windows, ..Phase::default() };
        let turn = |disturbance, disturbed| Turn {
            load: 0.7,
            rate_hz: 63.0,
            capacity_hz: 100.0,
            counts: true,
            disturbance,
            quiet: phase(from_on(40, 1)),
            disturbed: phase(disturbed),
        };
        let unknown = Window { asked: None, latencies_us: vec![9] };
        let turns = [
            turn(Disturbance::Swap, from_on(50, 1)),
            turn(Disturbance::Drain, from_on(30, 2)),
            turn(Disturbance::Nothing, vec![unknown, window(500.0, 100)]),
            Turn { counts: false, ..turn(Disturbance::Nothing, from_on(30, 9)) },
        ];
        let told = of(&turns);
        let p99 = |alike: &Alike| (alike.disturbed_p99_us, alike.quiet_p99_us);
        assert_eq!(p99(&told[0]), (1000, 1000));
        assert_eq!(p99(&told[1]), (2000, 1000));
        assert_eq!((p99(&told[2]), told[2].windows), ((100, 100), 1));
    }

    #[test]
    fn the_nearest_windows_are_found_at_both_ends_and_among_few() {
        let all: Vec<Known<'_>> = (0..10).map(|n| (f64::from(n), &[][..])).collect();
        let asked = |near: &[Known<'_>]| near.iter().map(|(asked, _)| *asked).collect::<Vec<_>>();
        assert_eq!(asked(nearest(&all, -5.0)), [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(asked(nearest(&all, 6.2)), [4.0, 5.0, 6.0, 7.0, 8.0]);
        assert_eq!(asked(nearest(&all, 50.0)), [5.0, 6.0, 7.0, 8.0, 9.0]);
        assert_eq!(nearest(&all[..2], 0.5).len(), 2);
        assert!(nearest(&[], 0.5).is_empty());
    }
}
