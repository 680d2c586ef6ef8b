//! `trainer train`

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use burn::tensor::Device;
use clap::Args;
use fleetloop_models::bundle::{Bundle, OutputKind};
use fleetloop_models::session::Runtime;
use fleetloop_observe::output::Output;

use super::arrays::{self, Data};
use super::show::{self, Show};
use super::{Compute, NORMALISATIONS, Normalisation, prepared};
use crate::chain::chain;
use crate::dataset::{self, Opened};
use crate::folder::{self, Judged};
use crate::job::{self, ArraysOrder, Base, Event, JobError, Order, Prepared, Product, Tools};
use crate::onnx::{Model, ModelFile};
use crate::pack::declared_input;
use crate::record::{Reproducible, RunRecord};
use crate::starter::Kind;
use crate::train::checkpoint::{Foreign, Place};
use crate::train::{Loss, Recipe};
use crate::{durable, evaluate};

#[derive(Debug, Args)]
#[command(after_long_help = NORMALISATIONS)]
pub struct Train {
    /// What to begin with: a bundle's folder or an ONNX file.
    #[arg(long, conflicts_with = "starter", required_unless_present = "starter")]
    base: Option<PathBuf>,
    /// Begin with a starter graph of this kind instead.
    #[arg(long, value_enum)]
    starter: Option<Kind>,
    /// The starter's input for pictures: channels x height x width. Arrays say it themselves.
    #[arg(long, value_parser = super::shape)]
    input: Option<std::vec::Vec<usize>>,
    /// The folder of a frozen dataset, as 'fleet-hub dataset export' writes it: dataset.json and payloads/.
    #[arg(long, required_unless_present_any = ["arrays", "folder"])]
    dataset: Option<PathBuf>,
    /// A folder with a folder of PNG and JPEG pictures for each class. A fifth is held out and judged by
    /// (--eval-share); where there are folders within the classes, whole ones.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["arrays", "dataset", "eval"])]
    folder: Option<PathBuf>,
    /// What the classes of --folder are called, in their order: a hub's labels, say. The base's if not
    /// given, and without a base the folders' names in order.
    #[arg(long, value_delimiter = ',', requires = "folder", conflicts_with_all = ["arrays", "dataset"])]
    labels: Vec<String>,
    #[command(flatten)]
    data: Data,
    /// The recipe (TOML): loss, optimiser, learning rate, freeze, early stopping and more; see
    /// docs/training.md. What it leaves out keeps its default.
    #[arg(long)]
    recipe: Option<PathBuf>,
    /// What the output of an ONNX file is: logits (scores), softmax or sigmoid (probabilities). Found out
    /// if not given, where graph and samples show it.
    #[arg(long, requires = "base")]
    output: Option<OutputKind>,
    #[command(flatten)]
    normalisation: Normalisation,
    /// Work out mean and deviation from the dataset: for an ONNX file that has learned nothing yet.
    #[arg(long, requires = "base", conflicts_with = "mean")]
    measure: bool,
    /// The seed of everything random.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The new bundle's name; the base's if not given.
    #[arg(long)]
    name: Option<String>,
    /// The new bundle's version; one more than the base's if not given.
    #[arg(long)]
    version: Option<u32>,
    /// The folder to write: the bundle (or model.onnx) and run-record.json. It must not exist.
    #[arg(long)]
    out: PathBuf,
    /// Seconds between two checkpoints, kept in OUT.partial while training is under way. A run that
    /// was stopped or killed goes on from there when the same command is given again, and ends in
    /// the same bytes.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    checkpoint_every: u64,
    #[command(flatten)]
    compute: Compute,
}

impl Train {
    pub fn run(&self, output: Output) -> anyhow::Result<()> {
        let threads = self.compute.prepare(0)?;
        let cancel = super::cancel_on_signal()?;
        anyhow::ensure!(
            !self.out.exists(),
            "cannot write {}: it exists; choose another --out",
            self.out.display()
        );
        durable::make_parent(&self.out).with_context(|| {
            format!("cannot write {}; choose another --out", self.out.display())
        })?;
        let runtime = Runtime::load(self.compute.library.as_deref())?;
        let place = Place {
            folder: beside(&self.out, "partial"),
            every: Duration::from_secs(self.checkpoint_every),
            foreign: Foreign::Refuse,
        };
        let tools = Tools {
            runtime: &runtime,
            device: Device::default(),
            threads,
            cancel: &cancel,
            checkpoints: Some(&place),
        };
        match (&self.data.arrays, &self.dataset, &self.folder) {
            (Some(arrays), ..) => self.on_arrays(arrays, &tools, &place, output),
            (None, Some(dataset), _) => {
                self.on_pictures(dataset::open(dataset)?, &tools, &place, output)
            }
            (None, None, Some(folder)) => {
                let set = self.read_folder(folder)?;
                self.on_pictures(set, &tools, &place, output)
            }
            (None, None, None) => anyhow::bail!("give --dataset, --folder or --arrays"),
        }
    }

    fn on_pictures(
        &self,
        set: Opened,
        tools: &Tools<'_>,
        place: &Place,
        output: Output,
    ) -> anyhow::Result<()> {
        let Opened { dataset, digest: dataset_digest, payloads, removed } = set;
        let labels = dataset.labels.clone();
        let (base, name, version) = self.base(self.input.as_deref())?;
        let defaults =
            if matches!(base, Base::Bundle(_)) { Recipe::retraining() } else { Recipe::starter() };
        let recipe = self.recipe(&defaults)?;
        let order = Order {
            name,
            version,
            base,
            dataset,
            dataset_digest,
            recipe,
            seed: self.seed,
            removed,
        };
        let product = self.watched(place, |watch| job::run(&order, &payloads, tools, watch))?;
        self.write(place, &product.record, &product.bundle.files())?;
        self.tell(&product, &labels, output)
    }

    /// Pictures by class, divided into what is learned from and what is judged by.
    fn read_folder(&self, path: &Path) -> anyhow::Result<Opened> {
        let base = match &self.base {
            Some(base) if base.is_dir() => {
                Some(Bundle::open(base, None)?.manifest().labels.clone())
            }
            _ => None,
        };
        let given = (!self.labels.is_empty()).then_some(&self.labels);
        let labels = given.or(base.as_ref()).map(Vec::as_slice);
        let read = folder::read(path, labels, Judged::Share(self.data.eval_share))?;
        show::refused(&read.refused);
        show::held_out(read.held_out.as_ref());
        let folder::Read { dataset, digest, payloads, .. } = read;
        Ok(Opened { dataset, digest, payloads, removed: BTreeSet::new() })
    }

    fn on_arrays(
        &self,
        path: &Path,
        tools: &Tools<'_>,
        place: &Place,
        output: Output,
    ) -> anyhow::Result<()> {
        let (learning, judging, judged_by) = self.data.read(path)?;
        arrays::say(&judged_by);
        let (base, ..) = self.base(Some(learning.shape()))?;
        let gives_back = self.starter == Some(Kind::Autoencoder);
        let outputs = match &base {
            Base::Model { file, .. } => job::outputs(&Model::parse(file.bytes.clone())?),
            Base::Starter { .. } | Base::Bundle(_) => None,
        };
        let loss = if gives_back { Loss::Reconstruction } else { learning.loss(outputs) };
        let recipe = self.recipe(&Recipe { loss, ..Recipe::starter() })?;
        let seed = self.seed;
        let output_kind = self.output;
        let order =
            ArraysOrder { base, learning, judging, judged_by, recipe, output: output_kind, seed };
        let product = self.watched(place, |watch| job::run_arrays(order, tools, watch))?;
        self.write(place, &product.record, &[("model.onnx", &product.model)])?;
        let made = &product.record.reproducible;
        let outcome = serde_json::json!({
            "out": self.out, "model": made.model, "before": product.before, "after": product.after,
            "curve": made.curve, "kept_epoch": made.kept_epoch, "frozen": made.frozen,
            "measured": product.record.measured,
        });
        output.print(&outcome, |_| {
            let mut lines = vec![format!("{}: model.onnx {}", self.out.display(), made.model)];
            lines.extend(course(made));
            lines.extend(product.before.as_ref().map(|before| arrays::table("before", before)));
            lines.push(arrays::table("after", &product.after));
            lines.join("\n")
        })
    }

    /// Does a job under the eyes of a person. What a run that did not end well leaves is said.
    fn watched<T>(
        &self,
        place: &Place,
        job: impl FnOnce(&mut dyn FnMut(Event)) -> Result<T, JobError>,
    ) -> anyhow::Result<T> {
        let mut show = Show::new();
        let product = job(&mut |event| show.event(&event));
        show.end();
        match product {
            Ok(product) => Ok(product),
            Err(JobError::Diverged { source, good }) => {
                let kept = self.keep(good.as_deref()).with_context(|| chain(&source))?;
                place.remove()?;
                Err(anyhow::Error::new(source).context(kept))
            }
            Err(error) if error.is_cancelled() => {
                Err(anyhow::Error::new(error).context(again(place, "")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps the last good weights of a run whose numbers went out of bounds, and says where.
    fn keep(&self, good: Option<&[u8]>) -> anyhow::Result<String> {
        let Some(good) = good else {
            return Ok("nothing was learned; the base is as it was".to_owned());
        };
        let path = beside(&self.out, "last-good.onnx");
        durable::write(&path, good)?;
        Ok(format!("the weights of the last whole epoch are in {}", path.display()))
    }

    fn base(&self, input: Option<&[usize]>) -> anyhow::Result<(Base, String, u32)> {
        let (base, name, version) = match (&self.base, self.starter, input) {
            (Some(path), _, _) if path.is_dir() => {
                anyhow::ensure!(
                    !self.measure && self.normalisation.mean.is_empty() && self.output.is_none(),
                    "cannot train {}: a bundle keeps its mean, deviation and output; leave out --mean, \
                     --std, --measure and --output",
                    path.display()
                );
                let bundle = Bundle::open(path, None)?;
                let (name, version) =
                    (bundle.manifest().name.clone(), bundle.manifest().version + 1);
                (Base::Bundle(Box::new(bundle)), name, version)
            }
            (Some(path), _, _) => {
                let file = super::model(path)?;
                let (prepared, output) = (self.prepared(path, &file)?, self.output);
                (Base::Model { file, prepared, output }, "model".to_owned(), 1)
            }
            (None, Some(kind), Some(input)) => {
                (Base::Starter { kind, input: input.to_vec() }, kind.to_string(), 1)
            }
            _ => anyhow::bail!("give --base, or --starter and --input"),
        };
        Ok((base, self.name.clone().unwrap_or(name), self.version.unwrap_or(version)))
    }

    /// How pictures are prepared for an ONNX file.
    fn prepared(&self, path: &Path, file: &ModelFile) -> anyhow::Result<Option<Prepared>> {
        if self.data.arrays.is_some() {
            anyhow::ensure!(
                !self.measure && self.normalisation.mean.is_empty(),
                "arrays are given to the model as they are; leave out --mean, --std and --measure"
            );
            return Ok(None);
        }
        let cannot = || format!("cannot train {}", path.display());
        let input = declared_input(&file.bytes).with_context(cannot)?;
        let known = self.normalisation.of(input.channels as usize).with_context(cannot)?;
        let known = known.map(|(mean, std)| Prepared::Known(mean, std));
        let prepared = known.or(self.measure.then_some(Prepared::Measured));
        if prepared.is_none() {
            let error = anyhow::Error::new(JobError::Unprepared);
            return Err(error.context(NORMALISATIONS).context(cannot()));
        }
        Ok(prepared)
    }

    fn recipe(&self, defaults: &Recipe) -> anyhow::Result<Recipe> {
        let text = match &self.recipe {
            Some(path) => std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?,
            None => String::new(),
        };
        Ok(Recipe::parse(&text, defaults)?)
    }

    /// Writes the folder; what was kept for a run that is killed is not needed any more.
    fn write(
        &self,
        place: &Place,
        record: &RunRecord,
        files: &[(&str, &[u8])],
    ) -> anyhow::Result<()> {
        let record = serde_json::to_vec_pretty(record)?;
        let files = [&[("run-record.json", record.as_slice())], files].concat();
        durable::write_folder(&self.out, &files).map_err(|error| {
            let first = if error.is_full() { "free space on the disk, then " } else { "" };
            anyhow::Error::new(error).context(again(place, first))
        })?;
        Ok(place.remove()?)
    }

    fn tell(&self, product: &Product, labels: &[String], output: Output) -> anyhow::Result<()> {
        let after = evaluate::summary(&product.report.outputs);
        let before = product.base_report.as_ref().map(|r| evaluate::summary(&r.outputs));
        let (made, bundle) = (&product.record.reproducible, product.bundle.digest());
        let manifest = product.bundle.manifest();
        let outcome = serde_json::json!({
            "out": self.out, "bundle": bundle, "before": before, "after": after,
            "output": manifest.output, "preprocess": manifest.preprocess,
            "curve": made.curve, "kept_epoch": made.kept_epoch, "frozen": made.frozen,
            "measured": product.record.measured,
        });
        output.print(&outcome, |_| {
            let mut lines = vec![format!("{}: bundle {bundle}", self.out.display())];
            lines.push(format!("output: {}", manifest.output));
            lines.push(prepared(&manifest.preprocess));
            lines.extend(course(made));
            lines.extend(before.as_ref().map(|before| show::accuracy("before", before)));
            lines.push(show::figures("after", &after, labels));
            lines.join("\n")
        })
    }
}

/// What the recipe did besides training every epoch and every parameter.
fn course(made: &Reproducible) -> Vec<String> {
    let stopped = made.recipe.early_stopping.is_some();
    let frozen = !made.frozen.is_empty();
    let epoch = || format!("weights of epoch {} of {}", made.kept_epoch, made.curve.len());
    let kept = || format!("{} parameters kept the base's values", made.frozen.len());
    stopped.then(epoch).into_iter().chain(frozen.then(kept)).collect()
}

/// `out.partial` for `out`.
fn beside(out: &Path, ending: &str) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    out.with_file_name(name)
}

/// What to do after a run that did not end.
fn again(place: &Place, first: &str) -> String {
    if place.is_taken() {
        let folder = place.folder.display();
        format!("not done; {first}give the same command again to go on from {folder}")
    } else {
        format!("not done; {first}give the same command again to begin anew")
    }
}
