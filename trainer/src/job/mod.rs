//! One retraining: base and dataset in, bundle, reports and run record out.
//!
//! ```text
//!  dataset ─► pictures ─► preprocess ─► train ─► patch ─► evaluate in ONNX Runtime ─► bundle
//!  base ─────────────────────┴────────────┘                 golden cases ─────────────┘
//! ```
//!
//! The same order gives the same bundle, bit for bit, so a job that was lost half-way can simply be
//! done again. Nothing but checkpoints is written here; the caller writes once everything is there.

mod base;
mod error;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::tensor::Device;
use fleetloop_models::bundle::{Bundle, Description, Lineage, Manifest};
use fleetloop_models::preprocess::Preprocess;
use fleetloop_models::session::{Runtime, Session, Threads};
use fleetloop_protocol::Digest;
use fleetloop_protocol::api::datasets::{Dataset, Split};
use fleetloop_protocol::api::reports::{Output, Report};

pub use base::{Base, Start};
pub use error::JobError;

use crate::blobs::Blobs;
use crate::dataset::Pictures;
use crate::evaluate;
use crate::graph::{Graph, Sizes};
use crate::onnx::{Model, Patch, patch};
use crate::pack::pack;
use crate::record::{BaseRecord, Measured, Reproducible, RunRecord, Versions};
use crate::train::checkpoint::{Key, Place};
use crate::train::{Outcome, Progress, Recipe, Targets, Task, TrainingSet, train};

/// How many golden cases a bundle gets.
const GOLDEN_CASES: usize = 16;
/// Samples evaluated at a time.
const EVALUATE_BATCH: usize = 64;

/// What is to be trained.
#[derive(Debug)]
pub struct Order {
    /// Name of the new bundle.
    pub name: String,
    /// Version of the new bundle.
    pub version: u32,
    /// What it begins with.
    pub base: Base,
    /// The frozen dataset.
    pub dataset: Dataset,
    /// Its digest.
    pub dataset_digest: Digest,
    /// How to train.
    pub recipe: Recipe,
    /// The seed of everything random.
    pub seed: u64,
}

/// What a job needs from its surroundings.
pub struct Tools<'a> {
    /// The dataset's payloads.
    pub payloads: &'a Blobs,
    /// ONNX Runtime.
    pub runtime: &'a Runtime,
    /// Where burn computes.
    pub device: Device,
    /// Threads for computing.
    pub threads: usize,
    /// Set from outside to cancel.
    pub cancel: &'a AtomicBool,
    /// Where training is kept while it is under way, so that a job that was killed goes on.
    pub checkpoints: Option<&'a Place>,
}

/// What a job came to.
#[derive(Debug)]
pub struct Product {
    /// The new bundle.
    pub bundle: Bundle,
    /// How it was made.
    pub record: RunRecord,
    /// What it makes of the gate's items.
    pub report: Report,
    /// What the base makes of them; none for a starter.
    pub base_report: Option<Report>,
}

/// How far a job is.
#[derive(Debug, Clone)]
pub enum Event {
    /// Pictures are read.
    Prepare,
    /// A step was made.
    Train(Progress),
    /// So many of so many gate items were evaluated.
    Evaluate(usize, usize),
}

/// Does an order.
///
/// # Errors
/// [`JobError`]: what is wrong with the order, or that it was cancelled.
pub fn run(
    order: &Order,
    tools: &Tools<'_>,
    watch: &mut dyn FnMut(Event),
) -> Result<Product, JobError> {
    let begun = Instant::now();
    watch(Event::Prepare);
    let learning = Pictures::read(&order.dataset, Split::Train, tools.payloads)?;
    let judging = Pictures::read(&order.dataset, Split::Gate, tools.payloads)?;
    let start = order.base.start(&order.dataset.labels, &learning, order.seed)?;
    let about = order.describe(&start)?;
    let set = training_set(&about, &learning, order.dataset.labels.len())?;
    let prepared = Instant::now();

    let key = order.key(&start.record, tools.threads)?;
    let trained = Trained::make(order, start.model, &set, key, tools, watch)?;
    let trained_at = Instant::now();

    let (bundle, report) = trained.bundle(order, about, &judging, tools, watch)?;
    let base_report = match &order.base {
        Base::Bundle(base) => Some(order.report(base, &judging, tools, watch)?),
        _ => None,
    };
    let mut learned_from = std::collections::BTreeMap::new();
    for item in &learning.items {
        *learned_from.entry(item.group.clone()).or_default() += 1;
    }
    let record = RunRecord {
        format: 1,
        reproducible: Reproducible {
            dataset: order.dataset_digest,
            learned_from,
            base: start.record,
            model: Digest::of(bundle.model()),
            bundle: bundle.digest(),
            recipe: order.recipe.clone(),
            seed: order.seed,
            versions: Versions::of(tools.runtime.version(), tools.threads),
            curve: trained.outcome.curve,
            kept_epoch: trained.outcome.kept_epoch,
            frozen: trained.outcome.frozen,
            patches: trained.patches,
        },
        measured: Measured {
            prepare_s: (prepared - begun).as_secs_f64(),
            train_s: (trained_at - prepared).as_secs_f64(),
            evaluate_s: trained_at.elapsed().as_secs_f64(),
            resumed_at_step: trained.outcome.resumed_at_step,
        },
    };
    Ok(Product { bundle, record, report, base_report })
}

/// The new file, before it is a bundle.
struct Trained {
    model: Vec<u8>,
    outcome: Outcome,
    patches: Vec<Patch>,
}

impl Trained {
    fn make(
        order: &Order,
        model: Model,
        set: &TrainingSet,
        key: Key,
        tools: &Tools<'_>,
        watch: &mut dyn FnMut(Event),
    ) -> Result<Self, JobError> {
        let inputs = Sizes::batch(order.recipe.batch_size).inputs(&model)?;
        let mut graph = Graph::load(model, &inputs, &tools.device)?;
        let task = Task {
            set,
            recipe: &order.recipe,
            seed: order.seed,
            device: &tools.device,
            cancel: tools.cancel,
            checkpoints: tools.checkpoints.map(|place| (place, key)),
        };
        let outcome = train(&mut graph, &task, &mut |p| watch(Event::Train(p.clone())));
        let written = || patch(&graph.model.bytes, &graph.parameters.stored());
        match outcome {
            Ok(outcome) => {
                let patched = written()?;
                Ok(Self { model: patched.bytes, outcome, patches: patched.patches })
            }
            Err(source) if source.is_divergence() => {
                let good = Some(written()?.bytes).filter(|good| *good != graph.model.bytes);
                Err(JobError::Diverged { source, good })
            }
            Err(other) => Err(other.into()),
        }
    }

    /// The bundle and its report, both made by the very file that ships.
    fn bundle(
        &self,
        order: &Order,
        about: Description,
        judging: &Pictures<'_>,
        tools: &Tools<'_>,
        watch: &mut dyn FnMut(Event),
    ) -> Result<(Bundle, Report), JobError> {
        let payloads = golden_payloads(judging, tools.payloads)?;
        let bundle = pack(about, self.model.clone(), &payloads, tools.runtime, tools.threads)?;
        let report = order.report(&bundle, judging, tools, watch)?;
        Ok((bundle, report))
    }
}

impl Order {
    /// What has to be the same for a job to go on from a checkpoint.
    fn key(&self, base: &BaseRecord, threads: usize) -> Result<Key, JobError> {
        let part = |name: &str, value: String| (name.to_owned(), value);
        let trained_by = Versions::of(String::new(), threads);
        Ok(Key(vec![
            part("base", format!("{base:?}")),
            part("dataset", self.dataset_digest.to_string()),
            part("recipe", self.recipe_text()?),
            part("seed", self.seed.to_string()),
            part("trainer", format!("{} {}", trained_by.trainer, trained_by.burn)),
            part("machine", trained_by.target),
            part("number of threads", threads.to_string()),
        ]))
    }

    fn recipe_text(&self) -> Result<String, JobError> {
        toml::to_string(&self.recipe).map_err(|e| JobError::Recipe(e.to_string()))
    }

    fn describe(&self, start: &Start) -> Result<Description, JobError> {
        let recipe = self.recipe_text()?;
        Ok(Description {
            name: self.name.clone(),
            version: self.version,
            labels: self.dataset.labels.clone(),
            input: start.input.clone(),
            preprocess: start.preprocess.clone(),
            lineage: Some(Lineage {
                base: start.record.bundle,
                dataset: Some(self.dataset_digest),
                recipe: Some(Digest::of(recipe.as_bytes())),
                trainer: format!("fleetloop trainer {}", env!("CARGO_PKG_VERSION")),
            }),
        })
    }

    /// What a bundle makes of the gate's items.
    fn report(
        &self,
        bundle: &Bundle,
        judging: &Pictures<'_>,
        tools: &Tools<'_>,
        watch: &mut dyn FnMut(Event),
    ) -> Result<Report, JobError> {
        let outputs =
            evaluate_bundle(bundle, judging, tools.runtime, tools.threads, tools.cancel, watch)?;
        Ok(Report {
            bundle: bundle.digest(),
            dataset: self.dataset_digest,
            runtime: tools.runtime.version(),
            outputs,
        })
    }
}

/// The outputs of a bundle for pictures, in their order.
///
/// # Errors
/// [`JobError`] when the bundle does not run, or on cancelling.
pub fn evaluate_bundle(
    bundle: &Bundle,
    pictures: &Pictures<'_>,
    runtime: &Runtime,
    threads: usize,
    cancel: &AtomicBool,
    watch: &mut dyn FnMut(Event),
) -> Result<Vec<Output>, JobError> {
    let mut session = Session::open(runtime, bundle, Threads(threads))?;
    let inputs = pictures.inputs(&mut Preprocess::new(bundle.manifest()))?;
    let batch =
        if Model::parse(bundle.model().to_vec())?.has_open_batch() { EVALUATE_BATCH } else { 1 };
    Ok(evaluate::outputs(&mut session, &pictures.items, &inputs, batch, |done, total| {
        watch(Event::Evaluate(done, total));
        !cancel.load(Ordering::Relaxed)
    })?)
}

fn training_set(
    about: &Description,
    pictures: &Pictures<'_>,
    classes: usize,
) -> Result<TrainingSet, JobError> {
    let manifest = Manifest::new(about.clone(), b"", b"")?;
    let values = pictures.inputs(&mut Preprocess::new(&manifest))?;
    let labels = pictures.items.iter().map(|i| usize::from(i.label)).collect();
    let groups = pictures.items.iter().map(|i| i.group.clone()).collect();
    let shape =
        [about.input.channels, about.input.height, about.input.width].map(|d| d as usize).to_vec();
    let black = about
        .preprocess
        .mean
        .iter()
        .zip(&about.preprocess.std)
        .map(|(mean, std)| -mean / std)
        .collect();
    let targets = Targets::Classes { labels, count: classes };
    Ok(TrainingSet::new(shape, values, targets, groups)?.of_pictures(black))
}

/// Evenly spread over the gate's items. Imported ones are preferred: golden cases travel to every
/// device, and what one device saw is no business of the others.
fn golden_payloads(
    judging: &Pictures<'_>,
    payloads: &Blobs,
) -> Result<Vec<(fleetloop_protocol::sample::MediaType, Vec<u8>)>, JobError> {
    let imported: Vec<_> = judging.items.iter().filter(|i| i.group == "import").collect();
    let from = if imported.is_empty() { judging.items.iter().collect() } else { imported };
    let count = from.len().min(GOLDEN_CASES);
    (0..count)
        .map(|n| {
            let item = from[n * from.len() / count];
            let payload = payloads.get(item.payload).map_err(|source| {
                crate::dataset::DatasetError::Payload { sample: item.sample, source }
            })?;
            Ok((item.media_type, payload))
        })
        .collect()
}
