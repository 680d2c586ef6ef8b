//! How many frames a second a device answers at work, when more arrive than it can.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Run;

/// Frames that arrive for each that can be answered: those that are dropped cost something too.
const TOO_MUCH: f64 = 1.25;

/// Who answers a larger share of what arrives than this could answer more.
const ALL_BUT: f64 = 0.95;

/// How long they are counted.
const COUNTED: Duration = Duration::from_secs(8);

/// How often more frames are tried.
const TRIES: u32 = 8;

impl Run<'_> {
    /// Frames that it answers in a second, now.
    pub(super) fn capacity_hz(&mut self) -> Result<f64> {
        let mut arrive_hz = self.expected_hz()? * TOO_MUCH;
        for _ in 0..TRIES {
            let answered_hz = self.answered_hz(arrive_hz)?;
            if answered_hz < arrive_hz * ALL_BUT {
                self.last_capacity_hz = Some(answered_hz);
                return Ok(answered_hz);
            }
            arrive_hz *= TOO_MUCH;
        }
        anyhow::bail!("it answers all of {arrive_hz:.0} frames/s: what it can do was not found")
    }

    /// What it answered the last time; at first, what `edge-agent check` says, which answers one frame
    /// after another and can be off by a third in both directions.
    fn expected_hz(&self) -> Result<f64> {
        if let Some(last_hz) = self.last_capacity_hz {
            return Ok(last_hz);
        }
        let alone_hz = self.agent.capacity(&self.agent.start_check()?)?.frames_per_second;
        ensure!(alone_hz.is_finite() && alone_hz > 1.0, "{alone_hz} frames/s is no rate");
        self.progress.note(&format!("{alone_hz:.0} frames/s one after another"));
        Ok(alone_hz)
    }

    /// Frames that are answered in a second in which so many arrive.
    fn answered_hz(&mut self, arrive_hz: f64) -> Result<f64> {
        self.start_at(arrive_hz, arrive_hz / TOO_MUCH)?;
        self.until_it("answers and is connected", |status| {
            status.connected() && status.answering().is_some()
        })?;
        let answered = || {
            let frames = self.status()?.frames().context("it does not run")?;
            Ok::<_, anyhow::Error>((Instant::now(), frames.frames_answered))
        };
        let (begun, before) = answered()?;
        std::thread::sleep(COUNTED);
        let (ended, after) = answered()?;
        self.agent.stop()?;
        Ok((after - before) as f64 / ended.duration_since(begun).as_secs_f64())
    }
}
