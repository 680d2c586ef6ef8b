//! Turns: what disturbs, and what frames took meanwhile and between.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::watch::{Frame, Watch, now_us};
use super::{Run, SOON};
use crate::wait;

/// How often the agent is asked how far something is.
const LOOK: Duration = Duration::from_millis(100);

/// What disturbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disturbance {
    /// Nothing: how far quiet lies from quiet.
    Nothing,
    /// The broker's socket takes connections and is not read, and samples wait.
    StalledLink,
    /// One model after another is rolled out.
    Swap,
    /// The volume of the agent's data is full, and the link stalls, so that the outbox needs room.
    FullDisk,
    /// The broker reads again, and what waited is sent.
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

/// What frames took in the pieces of a turn that are quiet, or in those that are disturbed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Frames that were answered.
    pub frames: u64,
    /// Frames that were dropped, those on the way into a disturbance and out of it included.
    pub dropped: u64,
    /// The middle latency, in microseconds.
    pub p50_us: u64,
    /// The latency that 99 of 100 frames do not exceed, in microseconds.
    pub p99_us: u64,
    /// The longest, in microseconds.
    pub max_us: u64,
    /// How often what disturbs happened: swaps, or samples that were sent.
    pub times: u64,
    /// The latencies of each piece, in microseconds, in the order of the frames.
    pub pieces: Vec<Vec<u64>>,
}

/// A stretch of time, in microseconds since 1970.
#[derive(Debug, Clone, Copy)]
struct Span {
    from_us: u64,
    to_us: u64,
    /// How often what disturbs happened in it.
    times: u64,
}

/// The pieces of one kind in a turn, and the frames dropped in them.
#[derive(Debug, Default)]
struct Pieces {
    spans: Vec<Span>,
    dropped: u64,
}

impl Phase {
    /// Of these pieces of a turn in which all these frames were answered.
    fn of(pieces: &Pieces, frames: &[Frame]) -> Self {
        let mut phase = Self { dropped: pieces.dropped, ..Self::default() };
        for span in &pieces.spans {
            let within = |frame: &&Frame| (span.from_us..span.to_us).contains(&frame.taken_us);
            phase.pieces.push(frames.iter().filter(within).map(|frame| frame.latency_us).collect());
            phase.times += span.times;
        }
        let mut latencies = phase.pieces.concat();
        latencies.sort_unstable();
        let at = |share| quantile(&latencies, share);
        (phase.p50_us, phase.p99_us, phase.max_us) = (at(0.5), at(0.99), at(1.0));
        phase.frames = latencies.len() as u64;
        phase
    }
}

/// The latency that this share of them do not exceed, one of them; 0 of none.
pub(super) fn quantile(sorted: &[u64], share: f64) -> u64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

impl Run<'_> {
    /// Disturbed pieces and quiet ones by turns, with so many frames a second: what frames took in the
    /// disturbed ones, and in the quiet ones.
    pub(super) fn turn(
        &mut self,
        rate_hz: f64,
        disturbance: Disturbance,
    ) -> Result<(Phase, Phase)> {
        self.start_at(rate_hz, rate_hz)?;
        self.settle()?;
        let watch = Watch::begin(self.agent.latest_url(), rate_hz)?;
        let (mut disturbed, mut quiet) = (Pieces::default(), Pieces::default());
        for _ in 0..self.plan.pieces {
            let begun = self.dropped()?;
            disturbed.spans.push(self.disturb(disturbance)?);
            self.settle()?;
            // What is dropped on the way into a disturbance and out of it counts as well.
            let settled = self.dropped()?;
            quiet.spans.push(self.see(Self::pass)?);
            disturbed.dropped += settled - begun;
            quiet.dropped += self.dropped()? - settled;
        }
        let frames = watch.end();
        self.agent.stop()?;
        Ok((Phase::of(&disturbed, &frames), Phase::of(&quiet, &frames)))
    }

    /// One piece of it.
    fn disturb(&mut self, disturbance: Disturbance) -> Result<Span> {
        match disturbance {
            Disturbance::Nothing => self.see(Self::pass),
            Disturbance::StalledLink => {
                self.hold()?;
                let seen = self.see(Self::pass);
                self.plant.hub.stall(false)?;
                seen
            }
            Disturbance::Swap => self.see(Self::swap),
            Disturbance::FullDisk => {
                self.rig.fill(&self.volume)?;
                // Nothing leaves the outbox, or what leaves would make room for what comes.
                self.plant.hub.stall(true)?;
                let seen = self
                    .until_it("finds its disk full", |status| {
                        status.outbox.is_some_and(|outbox| outbox.paused)
                    })
                    .and_then(|()| self.see(Self::pass));
                self.plant.hub.stall(false)?;
                self.rig.make_room(&self.volume)?;
                seen
            }
            Disturbance::Drain => {
                self.hold()?;
                let most = self.waiting()?;
                self.plant.hub.stall(false)?;
                let seen = self.see(Self::drain)?;
                let sent = most.saturating_sub(self.waiting()?);
                ensure!(sent > most / 2, "of {most} samples only {sent} were sent");
                Ok(Span { times: sent, ..seen })
            }
        }
    }

    /// Holds the link for a while.
    fn hold(&mut self) -> Result<()> {
        self.plant.hub.stall(true)?;
        std::thread::sleep(self.plan.held);
        Ok(())
    }

    /// Does something, and tells when it was done and how often.
    fn see(&mut self, work: impl FnOnce(&Self) -> Result<u64>) -> Result<Span> {
        let from_us = now_us();
        let times = work(self)?;
        Ok(Span { from_us, to_us: now_us(), times })
    }

    fn pass(&self) -> Result<u64> {
        std::thread::sleep(self.plan.piece);
        self.agent.must_run()?;
        Ok(0)
    }

    fn swap(&self) -> Result<u64> {
        let begun = Instant::now();
        let mut swaps = 0;
        while begun.elapsed() < self.plan.piece {
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
    fn a_phase_is_the_frames_of_its_pieces_and_a_quantile_is_one_that_was_seen() {
        let frames: Vec<Frame> =
            (1..=400).map(|n| Frame { taken_us: n, latency_us: 1000 - n }).collect();
        let span = |from_us, to_us| Span { from_us, to_us, times: 2 };
        let pieces = Pieces { spans: vec![span(1, 101), span(201, 301)], dropped: 3 };
        let phase = Phase::of(&pieces, &frames);
        assert_eq!(phase.pieces[1], (700..=799).rev().collect::<Vec<u64>>());
        assert_eq!((phase.frames, phase.dropped, phase.times), (200, 3, 4));
        assert_eq!((phase.p50_us, phase.p99_us, phase.max_us), (799, 997, 999));
        let nothing = Phase::of(&Pieces::default(), &frames);
        assert_eq!((nothing.p99_us, nothing.frames), (0, 0));
    }
}
