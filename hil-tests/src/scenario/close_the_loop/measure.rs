//! What is counted at the end: samples at both ends, frames, and the accuracy of both models.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use fleetloop_models::bundle::Manifest;
use fleetloop_protocol::BundleDigest;
use serde::Deserialize;

use super::{AgentFigures, Figures, Models, Run};
use crate::fleet::Stopped;
use crate::pictures::{self, Part, Pictures};
use crate::rig::{Launch, Program};
use crate::{exam, files};

/// How long one evaluation may take.
const EVALUATION: Duration = Duration::from_secs(300);

/// How often devices are started once more to empty their outboxes.
const EMPTYINGS: usize = 5;

/// How long such a start lasts.
const EMPTYING: Duration = Duration::from_secs(10);

/// What `trainer eval --json` says.
#[derive(Deserialize)]
struct Evaluation {
    summary: Summary,
}

#[derive(Deserialize)]
struct Summary {
    groups: BTreeMap<String, Group>,
}

#[derive(Deserialize)]
struct Group {
    share: f64,
}

/// The share of unseen pictures that a model gets right.
#[derive(Clone, Copy, Default)]
struct Accuracies {
    clean: f64,
    drifted: f64,
}

impl Run<'_> {
    /// Stops the devices, counts, and measures both models on unseen pictures.
    pub(super) fn measure(
        &mut self,
        models: &Models,
        labels_used: u64,
        begun: Instant,
    ) -> Result<Figures> {
        self.stage("stop the devices and count");
        self.stop_agents()?;
        self.empty_outboxes()?;
        let stored = self.hub.stored()?;
        let distinct = stored.iter().collect::<HashSet<_>>().len() as u64;
        self.stage(&format!("measure both models on {} unseen pictures", self.plan.test));
        let [before, after] = self.accuracies(models)?;
        let agents: Vec<AgentFigures> = self
            .agents
            .iter()
            .zip(&self.earlier)
            .map(|(agent, words)| agent_figures(agent.name(), words))
            .collect();
        let sent: u64 = agents.iter().map(|agent| agent.samples_sent).sum();
        let receipted = self.earlier.iter().filter_map(|words| words.last());
        Ok(Figures {
            accuracy_drifted_before: before.drifted,
            accuracy_drifted_after: after.drifted,
            accuracy_clean_before: before.clean,
            accuracy_clean_after: after.clean,
            samples_sent: sent,
            samples_stored: stored.len() as u64,
            samples_receipted: receipted.map(|words| words.samples_receipted_total).sum(),
            samples_lost: sent.saturating_sub(distinct),
            samples_duplicated: stored.len() as u64 - distinct,
            frames_in: agents.iter().map(|agent| agent.frames_in).sum(),
            frames_answered: agents.iter().map(|agent| agent.frames_answered).sum(),
            labels_used,
            wall_seconds: begun.elapsed().as_secs_f64(),
            agent_peak_rss_mb: agents.iter().map(|agent| agent.peak_rss_mb).fold(0.0, f64::max),
            agents,
        })
    }

    /// Starts devices whose outbox still holds something once more, choosing next to nothing.
    fn empty_outboxes(&mut self) -> Result<()> {
        let selection = self.plan.selection;
        for round in 0.. {
            let waiting = self.earlier.iter().filter_map(|words| words.last());
            let waiting: u64 = waiting
                .map(|words| {
                    words.samples_signed_total.saturating_sub(words.samples_receipted_total)
                })
                .sum();
            if waiting == 0 || round == EMPTYINGS {
                break;
            }
            self.progress.note(&format!("{waiting} samples still wait for a receipt"));
            self.agents.iter_mut().try_for_each(|agent| agent.set_selection(selection.silent()))?;
            self.start_agents()?;
            std::thread::sleep(EMPTYING);
            self.stop_agents()?;
        }
        Ok(())
    }

    /// What both models make of unseen pictures, the first model first.
    fn accuracies(&self, models: &Models) -> Result<[Accuracies; 2]> {
        let folder = self.rig.folder().join("exam");
        let (images, labels) = pictures::paths(&self.assets.fashion_mnist, Part::Test);
        let unseen = Pictures::read(&images, &labels)?;
        exam::write(&unseen, self.plan.test, self.plan.drift, &folder)?;
        let mut found = [Accuracies::default(); 2];
        for (number, bundle) in [models.before, models.after].into_iter().enumerate() {
            self.progress.at(Some(number as f32 / 2.0), "evaluating");
            let bundle = self.fetch_bundle(bundle, &self.rig.folder().join(bundle.to_string()))?;
            found[number] = self.evaluate(&bundle, &folder)?;
        }
        Ok(found)
    }

    fn evaluate(&self, bundle: &Path, exam: &Path) -> Result<Accuracies> {
        let mut arguments = vec!["eval".into()];
        for (name, path) in [("--bundle", bundle), ("--dataset", exam)] {
            arguments.extend([name.into(), path.as_os_str().to_owned()]);
        }
        arguments.push("--json".into());
        let launch = Launch::new("evaluate", Program::Trainer, arguments)
            .env("FLEETLOOP_ORT_LIB", &self.assets.onnxruntime);
        let printed = self.rig.run(&launch, EVALUATION)?;
        let found: Evaluation =
            serde_json::from_str(&printed).context("cannot understand an evaluation")?;
        let group = |name| found.summary.groups.get(name).map(|group: &Group| group.share);
        let missing = "an evaluation left a group out";
        Ok(Accuracies {
            clean: group(exam::CLEAN).context(missing)?,
            drifted: group(exam::DRIFTED).context(missing)?,
        })
    }

    /// Takes a bundle out of the hub, as anyone may who has its digest.
    fn fetch_bundle(&self, bundle: BundleDigest, folder: &Path) -> Result<PathBuf> {
        files::folder(folder)?;
        let manifest_bytes = self.hub.api().bytes(&format!("artefacts/{bundle}"))?;
        let manifest = Manifest::parse(&manifest_bytes)?;
        files::replace(&folder.join("bundle.toml"), &manifest_bytes)?;
        for file in &manifest.files {
            let bytes = self.hub.api().bytes(&format!("artefacts/{}", file.sha256))?;
            files::replace(&folder.join(&file.path), &bytes)?;
        }
        Ok(folder.to_owned())
    }
}

fn agent_figures(name: &str, words: &[Stopped]) -> AgentFigures {
    let peak = words.iter().map(|words| words.peak_rss_bytes).max().unwrap_or(0);
    AgentFigures {
        name: name.to_owned(),
        frames_in: words.iter().map(|words| words.frames_in).sum(),
        frames_answered: words.iter().map(|words| words.frames_answered).sum(),
        samples_sent: words.last().map_or(0, |words| words.samples_signed_total),
        peak_rss_mb: peak as f64 / 1e6,
    }
}
