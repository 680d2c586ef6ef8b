//! `trainer eval`

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use clap::{Args, ValueEnum};
use fleetloop_models::bundle::Bundle;
use fleetloop_models::session::Runtime;
use fleetloop_observe::output::Output;
use fleetloop_protocol::Digest;
use fleetloop_protocol::api::datasets::Split;

use super::show::{self, Show};
use super::{Compute, arrays};
use crate::dataset::{self, Pictures};
use crate::job::{Event, Tools};
use crate::onnx::Model;
use crate::train::Loss;
use crate::{evaluate, job};

#[derive(Debug, Args)]
pub struct Eval {
    /// The bundle's folder.
    #[arg(long, required_unless_present = "model", requires = "dataset")]
    bundle: Option<PathBuf>,
    /// The dataset's folder: dataset.json and payloads/.
    #[arg(long)]
    dataset: Option<PathBuf>,
    /// Which of its items.
    #[arg(long, value_enum, default_value_t = Which::Gate)]
    split: Which,
    /// An ONNX file of any kind, for arrays.
    #[arg(long, conflicts_with = "bundle", requires = "arrays")]
    model: Option<PathBuf>,
    /// The arrays: a NumPy .npz file with x and, unless the model gives its input back, y.
    #[arg(long, value_name = "FILE.npz", requires = "model", conflicts_with = "dataset")]
    arrays: Option<PathBuf>,
    /// What is compared: cross-entropy (classes), binary, mse, mae, huber (numbers) or
    /// reconstruction (anomaly scores). Follows from the arrays if not given.
    #[arg(long, value_parser = arrays::loss, requires = "arrays")]
    loss: Option<Loss>,
    #[command(flatten)]
    compute: Compute,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Which {
    /// What the gate judges by.
    Gate,
    /// What was learned from.
    Train,
}

impl Eval {
    pub fn run(&self, output: Output) -> anyhow::Result<()> {
        match (&self.bundle, &self.dataset, &self.model, &self.arrays) {
            (Some(bundle), Some(dataset), ..) => self.on_pictures(bundle, dataset, output),
            (_, _, Some(model), Some(arrays)) => self.on_arrays(model, arrays, output),
            _ => anyhow::bail!("give --bundle and --dataset, or --model and --arrays"),
        }
    }

    fn on_arrays(&self, model: &Path, arrays: &Path, output: Output) -> anyhow::Result<()> {
        let threads = self.compute.prepare(0)?;
        let cancel = super::cancel_on_signal()?;
        let file = super::model(model)?.bytes;
        let arrays = arrays::open(arrays)?;
        let loss = self.loss.unwrap_or(arrays.loss());
        let classes = job::classes(&Model::parse(file.clone())?, &arrays);
        let targets = arrays.targets(loss, classes)?;
        let runtime = Runtime::load(self.compute.library.as_deref())?;
        let device = Device::default();
        let tools =
            Tools { runtime: &runtime, device, threads, cancel: &cancel, checkpoints: None };
        let mut show = Show::new();
        let judged = job::judge_file(&file, &arrays, (loss, &targets), &tools, &mut |event| {
            show.event(&event);
        });
        show.end();
        let judged = judged?;
        let scores = (loss == Loss::Reconstruction).then_some(judged.scores);
        let found = serde_json::json!({
            "model": Digest::of(&file), "arrays": arrays.digest, "loss": loss,
            "summary": judged.judgement, "scores": scores,
        });
        output.print(&found, |_| arrays::table(&loss.to_string(), &judged.judgement))
    }

    fn on_pictures(&self, bundle: &Path, dataset: &Path, output: Output) -> anyhow::Result<()> {
        let threads = self.compute.prepare(0)?;
        let cancel = super::cancel_on_signal()?;
        let bundle = Bundle::open(bundle, None)?;
        let (dataset, _, payloads) = dataset::open(dataset)?;
        anyhow::ensure!(
            bundle.manifest().labels == dataset.labels,
            "cannot evaluate: the bundle and the dataset have different labels"
        );
        let split = match self.split {
            Which::Gate => Split::Gate,
            Which::Train => Split::Train,
        };
        let pictures = Pictures::read(&dataset, split, &payloads, &BTreeSet::new())?;
        let runtime = Runtime::load(self.compute.library.as_deref())?;
        let mut show = Show::new();
        for item in &pictures.left_out {
            show.event(&Event::LeftOut(item.clone()));
        }
        let outputs =
            job::evaluate_bundle(&bundle, &pictures, &runtime, threads, &cancel, &mut |event| {
                show.event(&event);
            });
        show.end();
        let outputs = outputs?;
        let summary = evaluate::summary(&outputs);
        let found = serde_json::json!({
            "bundle": bundle.digest(), "summary": summary, "outputs": outputs,
            "left_out": pictures.left_out,
        });
        output.print(&found, |_| show::accuracy("accuracy", &summary))
    }
}
