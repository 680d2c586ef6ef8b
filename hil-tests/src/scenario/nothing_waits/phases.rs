//! Phases: what disturbs, and what frames took meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::alike::{self, Window};
use super::watch::Watch;
use super::{Run, SOON};
use crate::fleet::Answered;
use crate::rig::{HostSeen, Pause};
use crate::wait;

/// How often the agent is asked how far something is.
const LOOK: Duration = Duration::from_millis(100);

/// What disturbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disturbance {
    /// Nothing: how far two quiet phases lie apart.
    Nothing,
    /// The broker's socket takes connections and is not read.
    StalledLink,
    /// One model after another is rolled out.
    Swap,
    /// The volume of the agent's data is full, and the link stalls, so that the outbox needs room.
    FullDisk,
    /// The hub is back, and what waited is sent.
    Drain,
}

impl Disturbance {
    /// All, in their order.
    pub const ALL: [Self; 5] =
        [Self::Nothing, Self::StalledLink, Self::Swap, Self::FullDisk, Self::Drain];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::StalledLink => "stalled link",
            Self::Swap => "swap",
            Self::FullDisk => "full disk",
            Self::Drain => "drain",
        }
    }
}

/// What frames took in a phase.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Frames whose latency counts.
    pub frames: u64,
    /// Frames that were dropped.
    pub dropped: u64,
    /// The middle latency, in microseconds.
    pub p50_us: u64,
    /// The latency that 99 of 100 frames do not exceed, in microseconds.
    pub p99_us: u64,
    /// The longest, in microseconds.
    pub max_us: u64,
    /// How often what disturbs happened: swaps, or samples that were sent.
    pub times: u64,
    /// Frames that are not among these because the machine stood still.
    pub left_out: u64,
    /// Its frames, piece by piece, and what was asked of the machine meanwhile.
    pub windows: Vec<Window>,
}

/// The frames of a phase, or of both halves of one.
#[derive(Debug, Default)]
struct Seen {
    windows: Vec<Window>,
    left_out: u64,
    times: u64,
}

impl Seen {
    fn and(mut self, other: Self) -> Self {
        self.windows.extend(other.windows);
        let (left_out, times) = (self.left_out + other.left_out, self.times + other.times);
        Self { left_out, times, ..self }
    }
}

impl Phase {
    fn of(seen: Seen, dropped: u64) -> Self {
        let Seen { windows, left_out, times } = seen;
        let mut latencies: Vec<u64> =
            windows.iter().flat_map(|window| window.latencies_us.iter().copied()).collect();
        latencies.sort_unstable();
        let at = |share| quantile(&latencies, share);
        let (p50_us, p99_us, max_us) = (at(0.5), at(0.99), at(1.0));
        let frames = latencies.len() as u64;
        Self { frames, dropped, p50_us, p99_us, max_us, times, left_out, windows }
    }

    /// Whether it has enough frames for a percentile, and a share that stands for the rest.
    pub(super) const fn tells(&self) -> bool {
        self.frames > 100 && self.frames > (self.frames + self.left_out) / 4
    }
}

/// The latency that this share of them do not exceed, one of them; 0 of none.
pub(super) fn quantile(sorted: &[u64], share: f64) -> u64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// Leaves out the frames that a pause of the machine delayed: those under way during one, and those
/// behind them until the backlog is gone. At load ρ a backlog of length g is gone after g/(1 − ρ); twice
/// that is left out.
fn undelayed(frames: &[Answered], pauses: &[Pause], load: f64) -> Vec<Answered> {
    let was_delayed = |frame: &Answered| {
        // Due at most its latency before it was taken, in a millisecond; answered as long after it.
        let taken_us = frame.captured_at_ms * 1000;
        let begins = taken_us.saturating_sub(frame.latency_us);
        let ends = taken_us + 999 + frame.latency_us;
        pauses.iter().any(|pause| {
            let length = (pause.to_us - pause.from_us) as f64;
            let backlog = (2.0 * length / (1.0 - load)).ceil() as u64;
            begins <= pause.from_us + backlog && pause.from_us <= ends
        })
    };
    frames.iter().filter(|frame| !was_delayed(frame)).copied().collect()
}

/// Where the frames of a turn are read, how many come in a second, and the share of the capacity that
/// they are.
struct Frames {
    watch: Watch,
    rate_hz: f64,
    load: f64,
}

impl Run<'_> {
    /// A quiet phase and a disturbed one amid it, with so many frames a second, which are a share of
    /// the capacity.
    pub(super) fn turn(
        &mut self,
        load: f64,
        rate_hz: f64,
        disturbance: Disturbance,
    ) -> Result<(Phase, Phase)> {
        self.start_at(rate_hz, rate_hz)?;
        self.settle()?;
        let watch = Watch::begin(self.agent.latest_url(), rate_hz)?;
        let frames = Frames { watch, rate_hz, load };
        let half = self.plan.phase / 2;
        let begun = self.dropped()?;
        let before = self.see(&frames, |run| run.pass(half))?;
        let until = self.dropped()?;
        let disturbed = self.disturb(&frames, disturbance)?;
        self.settle()?;
        // What is dropped on the way into a disturbance and out of it counts as well.
        let since = self.dropped()?;
        let after = self.see(&frames, |run| run.pass(half))?;
        let ended = self.dropped()?;
        self.agent.stop()?;
        let quiet = Phase::of(before.and(after), (until - begun) + (ended - since));
        Ok((quiet, Phase::of(disturbed, since - until)))
    }

    fn disturb(&mut self, frames: &Frames, disturbance: Disturbance) -> Result<Seen> {
        let whole = self.plan.phase;
        match disturbance {
            Disturbance::Nothing => self.see(frames, |run| run.pass(whole)),
            Disturbance::StalledLink => {
                self.plant.hub.stall(true)?;
                let seen = self.see(frames, |run| run.pass(whole));
                self.plant.hub.stall(false)?;
                seen
            }
            Disturbance::Swap => self.see(frames, |run| run.swap()),
            Disturbance::FullDisk => {
                self.rig.fill(&self.volume)?;
                // Nothing leaves the outbox, or what leaves would make room for what comes.
                self.plant.hub.stall(true)?;
                let seen = self
                    .until_it("finds its disk full", |status| {
                        status.outbox.is_some_and(|outbox| outbox.paused)
                    })
                    .and_then(|()| self.see(frames, |run| run.pass(whole)));
                self.plant.hub.stall(false)?;
                self.rig.make_room(&self.volume)?;
                seen
            }
            Disturbance::Drain => {
                self.plant.hub.kill()?;
                std::thread::sleep(self.plan.away);
                self.plant.hub.start()?;
                self.until_it("finds the hub", |status| status.connected())?;
                let (most, seen) = (self.waiting()?, self.see(frames, |run| run.drain())?);
                let sent = most.saturating_sub(self.waiting()?);
                ensure!(sent > most / 2, "of {most} samples only {sent} were sent");
                Ok(Seen { times: sent, ..seen })
            }
        }
    }

    /// What frames took while `work` was done, and how often it did it.
    fn see(
        &mut self,
        frames: &Frames,
        work: impl FnOnce(&mut Self) -> Result<u64>,
    ) -> Result<Seen> {
        frames.watch.take();
        self.host.take();
        let times = work(self)?;
        let answered = frames.watch.take();
        let HostSeen { pauses, work } = self.host.take();
        let undelayed = undelayed(&answered, &pauses, frames.load);
        let left_out = (answered.len() - undelayed.len()) as u64;
        let windows = alike::windows(&undelayed, &work, frames.rate_hz);
        Ok(Seen { windows, left_out, times })
    }

    fn pass(&self, lasts: Duration) -> Result<u64> {
        std::thread::sleep(lasts);
        self.agent.must_run()?;
        Ok(0)
    }

    fn swap(&self) -> Result<u64> {
        let begun = Instant::now();
        let mut swaps = 0;
        while begun.elapsed() < self.plan.phase {
            let now = self.status()?.answering();
            let other = self.plant.bundles.iter().find(|bundle| Some(**bundle) != now);
            self.plant.roll_out(*other.unwrap_or(&self.plant.bundles[0]), &self.agent)?;
            swaps += 1;
        }
        Ok(swaps)
    }

    fn drain(&self) -> Result<u64> {
        self.until_it("sends what waited", |status| {
            status.outbox.is_some_and(|outbox| (outbox.samples as f64) < self.plan.samples_hz)
        })?;
        Ok(0)
    }

    /// Waits until nothing waits, the link is there and a model answers.
    fn settle(&self) -> Result<()> {
        self.until_it("has settled", |status| {
            let little = status.outbox.is_some_and(|o| (o.samples as f64) < self.plan.samples_hz);
            little && status.connected() && status.answering().is_some()
        })
    }

    pub(super) fn until_it(
        &self,
        does: &str,
        wanted: impl Fn(&crate::fleet::AgentStatus) -> bool,
    ) -> Result<()> {
        wait::until(&format!("an agent that {does}"), SOON, LOOK, || {
            self.agent.must_run()?;
            Ok(wanted(&self.status()?).then_some(()))
        })
    }

    fn waiting(&self) -> Result<u64> {
        Ok(self.status()?.outbox.map_or(0, |outbox| outbox.samples))
    }

    fn dropped(&self) -> Result<u64> {
        Ok(self.status()?.frames().map_or(0, |frames| frames.frames_dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_latency_that_was_seen() {
        let half = |latencies_us: Vec<u64>| Seen {
            windows: vec![Window { asked: None, latencies_us }],
            left_out: 1,
            times: 2,
        };
        let seen = half((101..=200).rev().collect()).and(half((1..=100).collect()));
        let phase = Phase::of(seen, 3);
        assert_eq!((phase.frames, phase.p50_us, phase.p99_us, phase.max_us), (200, 100, 198, 200));
        assert_eq!((phase.dropped, phase.left_out, phase.times), (3, 2, 4));
        assert!(phase.tells());
        let nothing = Phase::of(Seen::default(), 0);
        assert_eq!((nothing.p99_us, nothing.tells()), (0, false));
        let delayed = Seen { left_out: 700, ..half(vec![1; 200]) };
        assert!(!Phase::of(delayed, 0).tells());
    }

    #[test]
    fn frames_that_a_pause_delayed_are_left_out_and_no_others() {
        let frame = |captured_at_ms, latency_us| Answered { frame: 0, captured_at_ms, latency_us };
        let pause = Pause { from_us: 1_000_000, to_us: 1_010_000 };
        // At half the capacity ten milliseconds of backlog are gone after twenty; forty are left out.
        for (frame, is_left_out) in [
            (frame(990, 5_000), false),
            (frame(996, 5_000), true),
            (frame(1012, 1_000), true),
            (frame(1040, 1_000), true),
            (frame(1042, 1_000), false),
            (frame(1060, 30_000), true),
        ] {
            let left = undelayed(&[frame], &[pause], 0.5);
            assert_eq!(left.is_empty(), is_left_out, "{frame:?}");
        }
    }
}
