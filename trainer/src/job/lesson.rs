//! From a training set to the written file and its record: one road for pictures and for arrays.

use std::collections::BTreeMap;
use std::time::Instant;

use fleetloop_models::bundle::OutputKind;
use fleetloop_protocol::api::jobs::LeftOut;
use fleetloop_protocol::{BundleDigest, Digest};

use super::{Event, JobError, Tools};
use crate::graph::{Graph, Sizes};
use crate::onnx::{Model, Patch, patch};
use crate::record::{BaseRecord, JudgedBy, Measured, Reproducible, RunRecord, Versions};
use crate::train::checkpoint::Key;
use crate::train::{Outcome, Recipe, Task, TrainingSet, train};

/// What is to be learned, and from what.
pub struct Lesson<'a> {
    /// What the model began as.
    pub base: &'a BaseRecord,
    /// What the set was made from.
    pub dataset: Digest,
    /// How what the model is judged by was chosen, where that takes samples away.
    pub judged_by: Option<&'a JudgedBy>,
    /// Items of the dataset that are not in the set, nor among what the model is judged by.
    pub left_out: &'a [LeftOut],
    /// Inputs and targets.
    pub set: &'a TrainingSet,
    /// How.
    pub recipe: &'a Recipe,
    /// What the base's output is.
    pub output: OutputKind,
    /// The seed of everything random.
    pub seed: u64,
}

/// The new file, before it is judged.
pub struct Trained {
    /// Its bytes.
    pub model: Vec<u8>,
    /// How the training went.
    pub outcome: Outcome,
    /// What was overwritten.
    pub patches: Vec<Patch>,
}

/// What a lesson came to, once it is judged.
pub struct Made {
    /// Items learned from, by group.
    pub learned_from: BTreeMap<String, usize>,
    /// The new file.
    pub model: Digest,
    /// Its bundle.
    pub bundle: Option<BundleDigest>,
    /// How the training went.
    pub outcome: Outcome,
    /// What was overwritten.
    pub patches: Vec<Patch>,
    /// When the job began, when the set was there, and when the file was written.
    pub moments: [Instant; 3],
}

impl Lesson<'_> {
    /// Trains the model and writes the new values into its file.
    pub fn learn(
        &self,
        model: Model,
        tools: &Tools<'_>,
        watch: &mut dyn FnMut(Event),
    ) -> Result<Trained, JobError> {
        let batch = self.recipe.batch_size;
        let inputs = Sizes::samples(&model, batch, self.set.shape()).inputs(&model)?;
        let mut graph = Graph::load_answer(model, &inputs, &tools.device)?;
        graph.kind = self.output;
        let key = self.key(tools.threads)?;
        let task = Task {
            set: self.set,
            recipe: self.recipe,
            seed: self.seed,
            device: &tools.device,
            cancel: tools.cancel,
            checkpoints: tools.checkpoints.map(|place| (place, key)),
        };
        let outcome = train(&mut graph, &task, &mut |p| watch(Event::Train(p.clone())));
        let written = || patch(&graph.model.bytes, &graph.parameters.stored());
        match outcome {
            Ok(outcome) => {
                let patched = written()?;
                Ok(Trained { model: patched.bytes, outcome, patches: patched.patches })
            }
            Err(source) if source.is_divergence() => {
                let good = Some(written()?.bytes).filter(|good| *good != graph.model.bytes);
                Err(JobError::Diverged { source, good })
            }
            Err(other) => Err(other.into()),
        }
    }

    /// Who learned what from what, and what it took until now.
    pub fn record(&self, made: Made, tools: &Tools<'_>) -> RunRecord {
        let [begun, prepared, written] = made.moments;
        RunRecord {
            format: 1,
            reproducible: Reproducible {
                dataset: self.dataset,
                judged_by: self.judged_by.cloned(),
                left_out: self.left_out.to_vec(),
                learned_from: made.learned_from,
                base: self.base.clone(),
                model: made.model,
                bundle: made.bundle,
                recipe: self.recipe.clone(),
                seed: self.seed,
                versions: Versions::of(tools.runtime.version(), tools.threads),
                curve: made.outcome.curve,
                kept_epoch: made.outcome.kept_epoch,
                frozen: made.outcome.frozen,
                patches: made.patches,
            },
            measured: Measured {
                prepare_s: (prepared - begun).as_secs_f64(),
                train_s: (written - prepared).as_secs_f64(),
                evaluate_s: written.elapsed().as_secs_f64(),
                resumed_at_step: made.outcome.resumed_at_step,
            },
        }
    }

    /// What has to be the same for a run to go on from a checkpoint.
    fn key(&self, threads: usize) -> Result<Key, JobError> {
        let part = |name: &str, value: String| (name.to_owned(), value);
        let trained_by = Versions::of(String::new(), threads);
        Ok(Key(vec![
            part("base", format!("{:?}", self.base)),
            part("dataset", self.dataset.to_string()),
            part("samples held out", format!("{:?}", self.judged_by)),
            part("items left out", format!("{:?}", self.left_out)),
            part("recipe", text(self.recipe)?),
            part("output", self.output.to_string()),
            part("seed", self.seed.to_string()),
            part("trainer", format!("{} {}", trained_by.trainer, trained_by.burn)),
            part("machine", trained_by.target),
            part("number of threads", threads.to_string()),
        ]))
    }
}

/// A recipe as it is recorded.
pub fn text(recipe: &Recipe) -> Result<String, JobError> {
    toml::to_string(recipe).map_err(|e| JobError::Recipe(e.to_string()))
}
