//! How soon the first frame is answered, with a full outbox and with an empty one.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{FIRST_RATE_HZ, Run};
use crate::draws::Draws;
use crate::fleet::Answered;
use crate::pictures::write_noise;
use crate::{files, wait};

/// Side of the pictures that fill the outbox: noise of this size just fits into a message.
const SIDE: u32 = 320;

/// How many of them there are.
const PICTURES: u32 = 32;

/// Frames a second while it is filled: more than the model answers.
const FILL_HZ: f64 = 500.0;

/// How long filling may take: a gigabyte at 4 MB/s.
const FILL: Duration = Duration::from_secs(300);

/// How long the first answer may take before the run is given up.
const FIRST_ANSWER: Duration = Duration::from_secs(60);

/// How soon the first frame was answered, from the moment the process was asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Starts {
    /// Bytes of messages in the full outbox.
    pub outbox_bytes: u64,
    /// Samples in it.
    pub outbox_samples: u64,
    /// With the full outbox, in milliseconds.
    pub full_ms: Vec<f64>,
    /// With an empty one, in milliseconds.
    pub empty_ms: Vec<f64>,
}

impl Run<'_> {
    /// Fills the outbox with the hub away, and starts the agent with and without it. Leaves an empty
    /// outbox and a hub that serves.
    pub(super) fn starts(&mut self) -> Result<Starts> {
        self.plant.hub.kill()?;
        let usual = std::fs::read(self.agent.images()).context("cannot read the pictures")?;
        // No encoder makes noise smaller.
        write_noise(&self.agent.images(), PICTURES, SIDE, &mut Draws::new(1))?;
        self.agent.set_rate(FILL_HZ)?;
        self.agent.set_outbox(self.plan.outbox_bytes, 100_000_000)?;
        let (outbox_bytes, outbox_samples) = self.fill_outbox()?;
        files::replace(&self.agent.images(), &usual)?;
        self.agent.set_rate(FIRST_RATE_HZ)?;
        let (mut full_ms, mut empty_ms) = (Vec::new(), Vec::new());
        let data = self.agent.data().to_owned();
        let kept = data.join("kept");
        files::folder(&kept)?;
        for _ in 0..self.plan.starts {
            full_ms.push(self.first_answer_ms()?);
            move_outbox(&data, &kept)?;
            empty_ms.push(self.first_answer_ms()?);
            move_outbox(&kept, &data)?;
        }
        std::fs::remove_dir_all(&kept).context("cannot remove a folder")?;
        for entry in outbox_files(&data)? {
            std::fs::remove_file(entry).context("cannot remove the outbox")?;
        }
        self.plant.hub.start()?;
        Ok(Starts { outbox_bytes, outbox_samples, full_ms, empty_ms })
    }

    fn fill_outbox(&mut self) -> Result<(u64, u64)> {
        self.agent.start()?;
        let enough = self.plan.outbox_bytes / 100 * 99;
        let filled = wait::until("a full outbox", FILL, Duration::from_millis(500), || {
            self.agent.must_run()?;
            let outbox = self.status()?.outbox.context("the agent shows no outbox")?;
            let share = outbox.bytes as f32 / enough as f32;
            let text = format!("{} MB wait in the outbox", outbox.bytes / 1_000_000);
            self.progress.at(Some(share), &text);
            Ok((outbox.bytes >= enough).then_some((outbox.bytes, outbox.samples)))
        })?;
        self.agent.stop()?;
        let (bytes, samples) = filled;
        self.progress.note(&format!("{samples} samples, {} MB", bytes / 1_000_000));
        Ok(filled)
    }

    fn first_answer_ms(&mut self) -> Result<f64> {
        let begun = Instant::now();
        self.agent.start()?;
        let what = "a first answer";
        let took = wait::until(what, FIRST_ANSWER, Duration::from_millis(2), || {
            self.agent.must_run()?;
            let answered = !self.local.get::<Vec<Answered>>(&self.agent.latest_url())?.is_empty();
            Ok(answered.then(|| begun.elapsed()))
        })?;
        self.agent.stop()?;
        Ok(took.as_secs_f64() * 1e3)
    }
}

fn outbox_files(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let entries = std::fs::read_dir(folder).context("cannot list the agent's data")?;
    let paths = entries.map(|entry| Ok(entry?.path()));
    let all: Result<Vec<_>> = paths.collect();
    let is_outbox = |path: &std::path::PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("outbox.db"))
    };
    Ok(all?.into_iter().filter(is_outbox).collect())
}

/// Moves the outbox's files and removes those that were in their place.
fn move_outbox(from: &Path, to: &Path) -> Result<()> {
    for old in outbox_files(to)? {
        std::fs::remove_file(old).context("cannot remove an outbox")?;
    }
    let files = outbox_files(from)?;
    ensure!(!files.is_empty(), "there is no outbox in {}", from.display());
    for file in files {
        let name = file.file_name().context("a file has no name")?.to_owned();
        std::fs::rename(&file, to.join(name)).context("cannot move the outbox")?;
    }
    Ok(())
}
