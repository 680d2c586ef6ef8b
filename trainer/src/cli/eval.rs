//! `trainer eval`

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use clap::{Args, ValueEnum};
use fleetloop_models::bundle::{Bundle, OutputKind};
use fleetloop_models::session::Runtime;
use fleetloop_observe::output::Output;
use fleetloop_protocol::Digest;
use fleetloop_protocol::api::datasets::Split;

use super::show::{self, Show};
use super::{Compute, arrays};
use crate::dataset::{self, Opened, Pictures};
use crate::folder::{self, Judged};
use crate::job::{Event, Tools};
use crate::onnx::Model;
use crate::train::Loss;
use crate::{evaluate, job};

#[derive(Debug, Args)]
pub struct Eval {
    /// The bundle's folder.
    #[arg(long, required_unless_present = "model")]
    bundle: Option<PathBuf>,
    /// The folder of a frozen dataset: dataset.json and payloads/.
    #[arg(long, requires = "bundle")]
    dataset: Option<PathBuf>,
    /// A folder with a folder of PNG and JPEG pictures for each of the bundle's labels.
    #[arg(long, value_name = "DIR", requires = "bundle", conflicts_with = "dataset")]
    folder: Option<PathBuf>,
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
    /// What the model's output is: logits (scores), softmax or sigmoid (probabilities). Found out if not
    /// given, where graph and samples show it.
    #[arg(long, requires = "arrays")]
    output: Option<OutputKind>,
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
        match (&self.bundle, &self.model, &self.arrays) {
            (Some(bundle), ..) => self.on_pictures(bundle, output),
            (None, Some(model), Some(arrays)) => self.on_arrays(model, arrays, output),
            _ => {
                anyhow::bail!("give --bundle with --dataset or --folder, or --model with --arrays")
            }
        }
    }

    fn on_arrays(&self, model: &Path, arrays: &Path, output: Output) -> anyhow::Result<()> {
        let threads = self.compute.prepare(0)?;
        let cancel = super::cancel_on_signal()?;
        let file = super::model(model)?.bytes;
        let arrays = arrays::open(arrays)?;
        let graph = Model::parse(file.clone())?;
        let loss = self.loss.unwrap_or(arrays.loss(job::outputs(&graph)));
        let classes = job::classes(&graph, &arrays);
        let targets = arrays.targets(loss, classes)?;
        let runtime = Runtime::load(self.compute.library.as_deref())?;
        let device = Device::default();
        let tools =
            Tools { runtime: &runtime, device, threads, cancel: &cancel, checkpoints: None };
        let mut show = Show::new();
        // The largest is the class, of scores as of probabilities.
        let kind = match loss {
            Loss::Binary => job::judged_kind(&file, &arrays, loss, self.output, &tools)?,
            _ => OutputKind::Logits,
        };
        let how = (loss, &targets, kind);
        let judged = job::judge_file(&file, &arrays, how, &tools, &mut |event| show.event(&event));
        show.end();
        let judged = judged?;
        let scores = (loss == Loss::Reconstruction).then_some(judged.scores);
        let found = serde_json::json!({
            "model": Digest::of(&file), "arrays": arrays.digest, "loss": loss,
            "summary": judged.judgement, "scores": scores,
        });
        output.print(&found, |_| arrays::table(&loss.to_string(), &judged.judgement))
    }

    fn on_pictures(&self, bundle: &Path, output: Output) -> anyhow::Result<()> {
        let threads = self.compute.prepare(0)?;
        let cancel = super::cancel_on_signal()?;
        let bundle = Bundle::open(bundle, None)?;
        let labels = &bundle.manifest().labels;
        let mut refused = Vec::new();
        let (set, split) = match (&self.dataset, &self.folder) {
            (Some(dataset), _) => {
                let split = match self.split {
                    Which::Gate => Split::Gate,
                    Which::Train => Split::Train,
                };
                (dataset::open(dataset)?, split)
            }
            (None, Some(folder)) => {
                let read = folder::read(folder, Some(labels), Judged::All)?;
                refused = read.refused;
                show::refused(&refused);
                let folder::Read { dataset, digest, payloads, .. } = read;
                (Opened { dataset, digest, payloads, removed: BTreeSet::new() }, Split::Gate)
            }
            (None, None) => anyhow::bail!("give --dataset or --folder"),
        };
        anyhow::ensure!(
            *labels == set.dataset.labels,
            "cannot evaluate: the bundle and the dataset have different labels"
        );
        let pictures = Pictures::read(&set.dataset, split, &set.payloads, &set.removed)?;
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
            "left_out": pictures.left_out, "refused": refused,
        });
        output.print(&found, |_| show::figures("accuracy", &summary, labels))
    }
}
