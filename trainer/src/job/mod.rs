//! One retraining: base and dataset in, bundle, reports and run record out.
//!
//! ```text
//!  dataset ─► pictures ─► preprocess ─► train ─► patch ─► evaluate in ONNX Runtime ─► bundle
//!  base ─────────────────────┴────────────┘       golden cases and reference ─────────┘
//! ```
//!
//! The same order gives the same bundle, bit for bit, so a job that was lost half-way can simply be
//! done again. Nothing but checkpoints is written here; the caller writes once everything is there.

mod arrays;
mod base;
mod error;
mod lesson;
pub(crate) mod limit;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::tensor::Device;
use fleetloop_models::bundle::{Bundle, Description, Lineage, Manifest};
use fleetloop_models::preprocess::Preprocess;
use fleetloop_models::reference::Reference;
use fleetloop_models::session::{Runtime, Session, Threads};
use fleetloop_models::statistics::observe;
use fleetloop_protocol::api::datasets::{Dataset, IMPORT, Split, kind_of};
use fleetloop_protocol::api::jobs::LeftOut;
use fleetloop_protocol::api::reports::{Output, Report};
use fleetloop_protocol::sketch::Sketch;
use fleetloop_protocol::{BundleDigest, Digest};

pub use arrays::{
    ArraysOrder, ArraysProduct, classes, judge_file, judged_kind, outputs, run_arrays,
};
pub use base::{Base, Prepared, Start};
pub use error::JobError;
use lesson::{Lesson, Made, Trained};

use crate::blobs::Blobs;
use crate::dataset::Pictures;
use crate::evaluate;
use crate::pack::Draft;
use crate::record::RunRecord;
use crate::train::checkpoint::Place;
use crate::train::{Progress, Recipe, Targets, TrainingSet};

/// How many golden cases a bundle gets.
const GOLDEN_CASES: usize = 16;
/// Gate pictures that a reference is made from, at most.
const REFERENCE_PICTURES: usize = 4096;

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
    /// Samples of the dataset that were removed at the hub.
    pub removed: BTreeSet<Digest>,
}

/// What a job needs from its surroundings.
pub struct Tools<'a> {
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
    /// The job goes on without an item.
    LeftOut(LeftOut),
    /// A step was made.
    Train(Progress),
    /// So many of so many gate items were evaluated.
    Evaluate(usize, usize),
}

/// Does an order; `payloads` are the dataset's.
///
/// # Errors
/// [`JobError`]: what is wrong with the order, or that it was cancelled.
pub fn run(
    order: &Order,
    payloads: &Blobs,
    tools: &Tools<'_>,
    watch: &mut dyn FnMut(Event),
) -> Result<Product, JobError> {
    let begun = Instant::now();
    watch(Event::Prepare);
    let learning = Pictures::read(&order.dataset, Split::Train, payloads, &order.removed)?;
    let judging = Pictures::read(&order.dataset, Split::Gate, payloads, &order.removed)?;
    let left_out: Vec<LeftOut> =
        learning.left_out.iter().chain(&judging.left_out).cloned().collect();
    for item in &left_out {
        watch(Event::LeftOut(item.clone()));
    }
    let start = order.base.start(&order.dataset.labels, &learning, order.seed, tools)?;
    let about = order.describe(&start)?;
    let set = training_set(&about, &learning, order.dataset.labels.len())?;
    let prepared = Instant::now();

    let lesson = Lesson {
        base: &start.record,
        dataset: order.dataset_digest,
        judged_by: None,
        left_out: &left_out,
        set: &set,
        recipe: &order.recipe,
        output: start.output,
        seed: order.seed,
    };
    let Trained { model, outcome, patches } = lesson.learn(start.model, tools, watch)?;
    let written = Instant::now();

    let (bundle, report) = order.bundle(model, about, &judging, payloads, tools, watch)?;
    let base_report = match &order.base {
        Base::Bundle(base) => {
            let (runtime, threads) = (tools.runtime, tools.threads);
            let outputs = evaluate_bundle(base, &judging, runtime, threads, tools.cancel, watch)?;
            Some(order.report(base.digest(), outputs, tools))
        }
        _ => None,
    };
    let mut learned_from = std::collections::BTreeMap::new();
    for item in &learning.items {
        *learned_from.entry(item.group.clone()).or_default() += 1;
    }
    let made = Made {
        learned_from,
        model: Digest::of(bundle.graph().bytes()),
        bundle: Some(bundle.digest()),
        outcome,
        patches,
        moments: [begun, prepared, written],
    };
    Ok(Product { record: lesson.record(made, tools), bundle, report, base_report })
}

impl Order {
    /// The bundle and its report, both made by the very file that ships.
    fn bundle(
        &self,
        model: Vec<u8>,
        about: Description,
        judging: &Pictures<'_>,
        payloads: &Blobs,
        tools: &Tools<'_>,
        watch: &mut dyn FnMut(Event),
    ) -> Result<(Bundle, Report), JobError> {
        let golden = golden_payloads(judging, payloads)?;
        let mut draft = Draft::open(about, model, tools.runtime, tools.threads)?;
        let outputs = evaluate_draft(&mut draft, judging, tools.cancel, watch)?;
        let bundle = draft.finish(&golden, reference(judging, &outputs).as_ref())?;
        let report = self.report(bundle.digest(), outputs, tools);
        Ok((bundle, report))
    }

    fn describe(&self, start: &Start) -> Result<Description, JobError> {
        let recipe = lesson::text(&self.recipe)?;
        Ok(Description {
            name: self.name.clone(),
            version: self.version,
            labels: self.dataset.labels.clone(),
            output: start.output,
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

    /// What a bundle made of the gate's items.
    fn report(&self, bundle: BundleDigest, outputs: Vec<Output>, tools: &Tools<'_>) -> Report {
        let (dataset, runtime) = (self.dataset_digest, tools.runtime.version());
        Report { bundle, dataset, runtime, outputs }
    }
}

/// Judges a bundle by a dataset's gate items: its report, and the items that are not in it.
///
/// # Errors
/// [`JobError`]: the labels differ, the dataset cannot be used, the bundle does not run, or on cancelling.
pub fn evaluate(
    bundle: &Bundle,
    (dataset, digest): (&Dataset, Digest),
    payloads: &Blobs,
    removed: &BTreeSet<Digest>,
    tools: &Tools<'_>,
    watch: &mut dyn FnMut(Event),
) -> Result<(Report, Vec<LeftOut>), JobError> {
    watch(Event::Prepare);
    if bundle.manifest().labels != dataset.labels {
        return Err(JobError::Mismatch(format!(
            "the model knows the labels {:?}, the dataset has {:?}",
            bundle.manifest().labels,
            dataset.labels
        )));
    }
    let pictures = Pictures::read(dataset, Split::Gate, payloads, removed)?;
    for item in &pictures.left_out {
        watch(Event::LeftOut(item.clone()));
    }
    let (runtime, threads) = (tools.runtime, tools.threads);
    let outputs = evaluate_bundle(bundle, &pictures, runtime, threads, tools.cancel, watch)?;
    let report =
        Report { bundle: bundle.digest(), dataset: digest, runtime: runtime.version(), outputs };
    Ok((report, pictures.left_out))
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
    let _limited = limit::limit_runs(&mut session);
    evaluate_parts((bundle.manifest(), &mut session), pictures, cancel, watch)
}

/// The same of what is about to be a bundle.
///
/// # Errors
/// As [`evaluate_bundle`].
pub fn evaluate_draft(
    draft: &mut Draft,
    pictures: &Pictures<'_>,
    cancel: &AtomicBool,
    watch: &mut dyn FnMut(Event),
) -> Result<Vec<Output>, JobError> {
    evaluate_parts(draft.parts(), pictures, cancel, watch)
}

fn evaluate_parts(
    (manifest, session): (&Manifest, &mut Session),
    pictures: &Pictures<'_>,
    cancel: &AtomicBool,
    watch: &mut dyn FnMut(Event),
) -> Result<Vec<Output>, JobError> {
    let inputs = pictures.inputs(&mut Preprocess::new(manifest))?;
    Ok(evaluate::outputs(session, &pictures.items, &inputs, |done, total| {
        watch(Event::Evaluate(done, total));
        !cancel.load(Ordering::Relaxed)
    })?)
}

/// What a device would have counted of pictures that gave `outputs`, evenly spread over them; none
/// when they are too few to compare with.
pub fn reference(pictures: &Pictures<'_>, outputs: &[Output]) -> Option<Reference> {
    let count = outputs.len().min(REFERENCE_PICTURES);
    let mut sketch = Sketch::default();
    for at in (0..count).map(|n| n * outputs.len() / count) {
        let output = &outputs[at];
        if let (Some(frame), Some(best)) = (pictures.frames.get(at), output.best()) {
            sketch.add(&observe(frame, output.probabilities.len(), best));
        }
    }
    Reference::new(sketch).ok()
}

fn training_set(
    about: &Description,
    pictures: &Pictures<'_>,
    classes: usize,
) -> Result<TrainingSet, JobError> {
    let manifest = Manifest::draft(about.clone())?;
    let values = pictures.inputs(&mut Preprocess::new(&manifest))?;
    let labels = pictures.items.iter().map(|i| usize::from(i.label)).collect();
    // A recipe weighs what devices sent against what was imported, whatever its source.
    let groups = pictures.items.iter().map(|i| kind_of(&i.group).to_owned()).collect();
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
    let imported: Vec<_> = judging.items.iter().filter(|i| kind_of(&i.group) == IMPORT).collect();
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
