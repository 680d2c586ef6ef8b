//! The world changes, and the fleet learns it.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use fleetloop_protocol::BundleDigest;
use fleetloop_protocol::api::jobs::{Job, JobId};
use fleetloop_protocol::api::samples::SampleCounts;

use super::Run;
use crate::annotator;
use crate::pictures::{self, Part};
use crate::rig::{Ended, Launch, Process, Program, Signal, log_tail};
use crate::wait;

/// How often the hub is asked what it has.
const LOOK: Duration = Duration::from_millis(500);

/// How long a killed process stays away.
const AWAY: Duration = Duration::from_secs(2);

/// How long anything may take after a process came back: a lease must run out, a link must be
/// found broken.
const COME_BACK: Duration = Duration::from_secs(120);

impl Run<'_> {
    /// Frames flow, the world changes, labels come, the model is retrained and rolled out. Returns
    /// the new model and how many labels it took.
    pub(super) fn learn(&mut self, base: BundleDigest) -> Result<(BundleDigest, u64)> {
        self.stage("frames flow");
        self.start_agents()?;
        self.flow(self.plan.quiet)?;
        let (drifted, drift) = (self.plan.drifted, self.plan.drift);
        self.stage(&format!(
            "the world of {drifted} devices changes: brightness ×{}, {} px to the right",
            drift.brightness, drift.shift_px
        ));
        self.change_the_world()?;
        if self.plan.kills {
            self.kill_hub_and_agent()?;
        }
        self.flow(self.plan.noticing)?;
        let labels_used = self.label()?;
        self.stage("retrain the running model on what was labelled");
        let dataset = self.freeze("clean and drifted")?;
        let recipe = self.plan.second_recipe.clone();
        let job = self.begin_training(&dataset, &["--base", &base.to_string()], &recipe)?;
        if self.plan.kills {
            self.kill_worker(job.id)?;
        }
        let model = self.trained(job.id)?;
        self.stage(
            "judge it on reserved pictures and a fifth of the new labels; release it, signed",
        );
        self.release(model)?;
        self.stage("roll it out while frames flow");
        self.roll_out(model)?;
        self.flow(Duration::from_secs(5))?;
        Ok((model, labels_used))
    }

    /// Watches for a while.
    fn flow(&self, time: Duration) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.all_run()?;
            let fraction = begun.elapsed().as_secs_f32() / time.as_secs_f32();
            if let Ok(counts) = self.counts() {
                self.progress.at(Some(fraction), &format!("{} samples at the hub", counts.fleet));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    pub(super) fn counts(&self) -> Result<SampleCounts> {
        self.hub.api().get("sample-counts")
    }

    fn change_the_world(&self) -> Result<()> {
        let first = self.plan.clean_train + self.plan.clean_gate;
        let share = (self.pictures.len() - first) / self.plan.agents;
        for number in self.plan.agents - self.plan.drifted..self.plan.agents {
            let range = first + number * share..first + (number + 1) * share;
            let images = self.agents[number].images();
            self.pictures.write_images(range, Some(self.plan.drift), &images)?;
            self.progress.note(&format!("{} sees another world now", self.agents[number].name()));
        }
        Ok(())
    }

    /// Lets the person label until they may no more, or time is up; how many labels there are.
    fn label(&self) -> Result<u64> {
        self.stage("a person labels what the devices sent");
        let files = pictures::paths(&self.assets.fashion_mnist, Part::Train);
        let (at_most, drift) = (self.plan.labels_at_most, self.plan.drift);
        let options = annotator::Options::new(self.hub.access("annotator"), files, drift, at_most);
        let launch = Launch::new("annotator", Program::Demo, options.to_arguments());
        let person = self.rig.start(&launch)?;
        let begun = Instant::now();
        while !self.is_done(&person)? && begun.elapsed() < self.plan.labelling {
            self.all_run()?;
            if let Ok(counts) = self.counts() {
                let (labelled, stored) = (counts.fleet_labelled, counts.fleet);
                let text = format!("{labelled} of at most {at_most} labels, {stored} samples");
                self.progress.at(Some(labelled as f32 / at_most as f32), &text);
            }
            std::thread::sleep(LOOK);
        }
        self.rig.signal(&person, Signal::Kill)?;
        self.rig.wait(&person, Duration::from_secs(10))?;
        let counts = self.counts()?;
        self.progress
            .note(&format!("{} samples of {} labelled", counts.fleet_labelled, counts.fleet));
        if counts.fleet_labelled == 0 {
            bail!("nobody labelled anything: {}", log_tail(&person));
        }
        Ok(counts.fleet_labelled)
    }

    fn is_done(&self, person: &Process) -> Result<bool> {
        match self.rig.ended(person)? {
            None => Ok(false),
            Some(Ended::Exited(0)) => Ok(true),
            Some(ended) => bail!("the annotator ended ({ended:?}): {}", log_tail(person)),
        }
    }

    /// Kills the hub while samples flow, then a device, and waits each time until samples arrive
    /// again.
    fn kill_hub_and_agent(&mut self) -> Result<()> {
        self.more_samples()?;
        self.progress.note("SIGKILL to the hub");
        self.hub.kill()?;
        std::thread::sleep(AWAY);
        self.hub.start()?;
        self.more_samples()?;
        let last = self.agents.len() - 1;
        self.progress.note(&format!("SIGKILL to {}", self.agents[last].name()));
        self.agents[last].kill()?;
        std::thread::sleep(AWAY);
        self.agents[last].start()?;
        self.more_samples()
    }

    /// Waits until some more samples are stored.
    fn more_samples(&self) -> Result<()> {
        /// Enough to come from more than one device.
        const MORE: u64 = 10;
        let before = wait::until("the hub's answer", COME_BACK, LOOK, || self.counts().map(Some))?;
        wait::until("more samples", COME_BACK, LOOK, || {
            self.all_run()?;
            let stored = self.counts()?.fleet;
            self.progress.at(None, &format!("{stored} samples at the hub"));
            Ok((stored >= before.fleet + MORE).then_some(()))
        })
    }

    /// Kills the worker in the midst of training; the job goes to the one that is started then.
    fn kill_worker(&mut self, job: JobId) -> Result<()> {
        let path = format!("jobs/{}", job.0);
        wait::until("the training to be under way", COME_BACK, Duration::from_millis(100), || {
            let job: Job = self.hub.api().get(&path)?;
            let under_way = job.progress.is_some_and(|at| at.phase == "train" && at.fraction > 0.0);
            Ok(under_way.then_some(()))
        })?;
        self.progress.note("SIGKILL to the training worker");
        self.worker.kill()?;
        std::thread::sleep(AWAY);
        self.worker.start()
    }
}
