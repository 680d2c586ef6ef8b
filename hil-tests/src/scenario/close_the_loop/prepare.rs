//! From nothing to a fleet that runs its first model.

use std::time::Duration;

use anyhow::{Result, bail};
use fleetloop_protocol::BundleDigest;
use fleetloop_protocol::api::datasets::DatasetSummary;
use fleetloop_protocol::api::devices::TokenResponse;
use fleetloop_protocol::api::imports::Imported;
use fleetloop_protocol::api::jobs::{Job, JobId, JobState};
use fleetloop_protocol::api::models::Release;
use fleetloop_protocol::api::reports::{GateRequest, Outcome, Verdict};

use super::{MODEL, Rate, Run};
use crate::fleet::{Agent, Selection, Stopped, rollout};
use crate::pictures::{self, Part};
use crate::wait;

/// How long one training may take.
const TRAINING: Duration = Duration::from_secs(600);

/// How often the hub is asked how far something is.
const LOOK: Duration = Duration::from_millis(500);

/// Frames a second while devices wait for their first model and their capacity is not known.
const FIRST_RATE_HZ: f64 = 5.0;

impl Run<'_> {
    /// Imports, trains, releases, enrols, rolls out and measures capacity; the first model.
    pub(super) fn prepare(&mut self) -> Result<BundleDigest> {
        self.import()?;
        let (train, gate) = (self.plan.clean_train, self.plan.clean_gate);
        self.stage(&format!("train the first model on {train} clean pictures"));
        let dataset = self.freeze("clean")?;
        let base = ["--starter", "picture-cnn", "--input", "1x28x28"];
        let job = self.begin_training(&dataset, &base, &self.plan.first_recipe)?;
        let model = self.trained(job.id)?;
        self.stage(&format!("judge it on {gate} reserved pictures and release it, signed"));
        self.release(model)?;
        self.stage(&format!("enrol {} devices and roll it out", self.plan.agents));
        self.enrol()?;
        self.roll_out(model)?;
        self.stage("measure what the devices can do, all at the same time");
        self.choose_rate()?;
        Ok(model)
    }

    fn import(&self) -> Result<()> {
        let (train, gate) = (self.plan.clean_train, self.plan.clean_gate);
        self.stage(&format!("import {train} clean pictures to learn from and {gate} for the gate"));
        let (images, labels) = pictures::paths(&self.assets.fashion_mnist, Part::Train);
        for (range, split) in [(0..train, "train"), (train..train + gate, "gate")] {
            let range = format!("{}..{}", range.start, range.end);
            let mut arguments = vec!["sample".into(), "import".into(), "--images".into()];
            arguments.extend([images.clone().into_os_string(), "--labels".into()]);
            arguments.push(labels.clone().into_os_string());
            let source = "Fashion-MNIST, training set";
            for word in ["--range", &range, "--split", split, "--source", source] {
                arguments.push(word.into());
            }
            let done: Imported = self.hub.admin(arguments)?;
            self.progress.note(&format!("{} pictures imported for {split}", done.stored));
        }
        Ok(())
    }

    /// Freezes all that is labelled now.
    pub(super) fn freeze(&self, name: &str) -> Result<DatasetSummary> {
        let frozen: DatasetSummary =
            self.hub.admin(["dataset", "freeze", name, "--gate-share", "0.2"])?;
        let (train, gate, digest) = (frozen.train, frozen.gate, frozen.digest.short());
        self.progress
            .note(&format!("dataset {digest}: {train} to learn from, {gate} for the gate"));
        Ok(frozen)
    }

    /// Asks for a training.
    pub(super) fn begin_training(
        &self,
        dataset: &DatasetSummary,
        base: &[&str],
        recipe: &str,
    ) -> Result<Job> {
        let (dataset, seed) = (dataset.digest.to_string(), self.plan.seed.to_string());
        let mut words = vec!["train", "start", MODEL, "--dataset", &dataset, "--seed", &seed];
        words.extend_from_slice(base);
        let mut arguments: Vec<_> = words.into_iter().map(std::ffi::OsString::from).collect();
        if !recipe.is_empty() {
            let file = self.rig.folder().join("recipe.toml");
            crate::files::replace(&file, recipe.as_bytes())?;
            arguments.extend(["--recipe".into(), file.into()]);
        }
        self.hub.admin(arguments)
    }

    /// Waits for a training.
    pub(super) fn trained(&self, job: JobId) -> Result<BundleDigest> {
        let path = format!("jobs/{}", job.0);
        let job = wait::until("a training", TRAINING, LOOK, || {
            self.all_run()?;
            let job: Job = self.hub.api().get(&path)?;
            if let Some(progress) = &job.progress {
                let loss = progress.loss.map(|loss| format!(", loss {loss:.3}"));
                let text = format!("{}{}", progress.phase, loss.unwrap_or_default());
                self.progress.at(Some(progress.fraction), &text);
            }
            let goes_on = matches!(job.state, JobState::Queued | JobState::Running { .. });
            Ok((!goes_on).then_some(job))
        })?;
        match job.state {
            JobState::Done { bundle } => {
                let tries = job.attempts;
                self.progress.note(&format!("model {}, made in {tries} tries", bundle.0.short()));
                Ok(bundle)
            }
            state => bail!("the training failed: {state:?}"),
        }
    }

    /// Has the gate judge a model and releases it.
    pub(super) fn release(&self, bundle: BundleDigest) -> Result<()> {
        let bundle = bundle.to_string();
        let verdict: Verdict =
            self.hub.api().ask(&format!("models/{bundle}/gate"), &GateRequest::default())?;
        for check in &verdict.checks {
            let (name, value, least) = (&check.name, check.value, check.at_least);
            let counts = check.basis.as_ref().map(|basis| basis.counts);
            let counts = counts.map_or(String::new(), |c| format!(" ({} of {})", c.good, c.of));
            self.progress.note(&format!("gate: {name} {value:.3}{counts}, at least {least:.3}"));
        }
        let mut publish = vec!["release", "publish", &bundle, "--channel", "dev"];
        match verdict.outcome {
            Outcome::Passed => {}
            // A small plan has few pictures: whether the model is a little worse on them nobody can tell.
            Outcome::TooFew => {
                self.progress.note("gate: not enough to judge; released with --accept-few");
                publish.push("--accept-few");
            }
            Outcome::Failed => bail!("the gate refused model {bundle}: {:?}", verdict.checks),
        }
        let release: Release = self.hub.admin(publish)?;
        self.progress
            .note(&format!("released as {} in channel {}", release.target, release.channel));
        Ok(())
    }

    fn enrol(&mut self) -> Result<()> {
        let first = self.plan.clean_train + self.plan.clean_gate;
        let share = (self.pictures.len() - first) / self.plan.agents;
        for number in 0..self.plan.agents {
            let name = format!("agent-{}", number + 1);
            // Nobody looks at these few frames; samples begin when the rate is known.
            let selection = self.plan.selection.silent();
            let agent = Agent::new(self.rig, &name, &self.assets, selection, FIRST_RATE_HZ)?;
            let range = first + number * share..first + (number + 1) * share;
            self.pictures.write_images(range, None, &agent.images())?;
            let token: TokenResponse = self.hub.admin(["device", "add", &name])?;
            agent.enrol(&token.token)?;
            self.agents.push(agent);
            self.earlier.push(Vec::new());
            self.progress
                .note(&format!("{name} enrolled; it looks at {share} pictures of its own"));
        }
        self.start_agents()
    }

    /// Rolls a released model out and waits until every device has proven it.
    pub(super) fn roll_out(&self, bundle: BundleDigest) -> Result<()> {
        rollout::roll_out(&self.hub, bundle, self.progress, &|| self.all_run())
    }

    fn choose_rate(&mut self) -> Result<()> {
        self.stop_agents()?;
        let rate_hz = match self.plan.rate {
            Rate::Hertz(rate) => rate,
            Rate::OfCapacity(share) => {
                let checks: Result<Vec<_>> = self.agents.iter().map(Agent::start_check).collect();
                let mut slowest = f64::INFINITY;
                for (agent, check) in self.agents.iter().zip(checks?) {
                    let capacity = agent.capacity(&check)?.frames_per_second;
                    self.progress.note(&format!("{}: {capacity:.0} frames/s", agent.name()));
                    slowest = slowest.min(capacity);
                }
                (slowest * share).floor()
            }
        };
        self.progress.note(&format!("frames will arrive at {rate_hz:.0} a second and device"));
        let random_rate = (self.plan.random_per_second / rate_hz).min(1.0) as f32;
        for (number, agent) in self.agents.iter_mut().enumerate() {
            let seed = self.plan.selection.seed + number as u64;
            agent.set_rate(rate_hz)?;
            agent.set_selection(Selection { random_rate, seed, ..self.plan.selection })?;
        }
        Ok(())
    }

    /// Starts all devices.
    pub(super) fn start_agents(&mut self) -> Result<()> {
        self.agents.iter_mut().try_for_each(Agent::start)
    }

    /// Stops all devices and keeps their last words.
    pub(super) fn stop_agents(&mut self) -> Result<()> {
        self.agents.iter().try_for_each(Agent::ask_to_stop)?;
        let words: Result<Vec<Stopped>> = self.agents.iter_mut().map(Agent::stopped).collect();
        for (earlier, words) in self.earlier.iter_mut().zip(words?) {
            earlier.push(words);
        }
        Ok(())
    }

    /// Fails when a device has ended by itself.
    pub(super) fn all_run(&self) -> Result<()> {
        self.agents.iter().try_for_each(Agent::must_run)
    }
}
