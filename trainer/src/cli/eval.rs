//! `trainer eval`

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use fleetloop_models::bundle::Bundle;
use fleetloop_models::session::Runtime;
use fleetloop_protocol::api::datasets::Split;

use super::Compute;
use super::show::{self, Show};
use crate::dataset::{self, Pictures};
use crate::{evaluate, job};

#[derive(Debug, Args)]
pub struct Eval {
    /// The bundle's folder.
    #[arg(long)]
    bundle: PathBuf,
    /// The dataset's folder: dataset.json and payloads/.
    #[arg(long)]
    dataset: PathBuf,
    /// Which of its items.
    #[arg(long, value_enum, default_value_t = Which::Gate)]
    split: Which,
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
    pub fn run(&self, json: bool) -> anyhow::Result<()> {
        let threads = self.compute.prepare(0)?;
        let cancel = super::cancel_on_signal()?;
        let bundle = Bundle::open(&self.bundle, None)?;
        let (dataset, _, payloads) = dataset::open(&self.dataset)?;
        anyhow::ensure!(
            bundle.manifest().labels == dataset.labels,
            "cannot evaluate: the bundle and the dataset have different labels"
        );
        let split = match self.split {
            Which::Gate => Split::Gate,
            Which::Train => Split::Train,
        };
        let pictures = Pictures::read(&dataset, split, &payloads)?;
        let runtime = Runtime::load(self.compute.library.as_deref())?;
        let mut show = Show::new();
        let outputs =
            job::evaluate_bundle(&bundle, &pictures, &runtime, threads, &cancel, &mut |event| {
                show.event(&event);
            });
        show.end();
        let outputs = outputs?;
        let summary = evaluate::summary(&outputs);
        if json {
            println!(
                "{}",
                serde_json::json!({ "bundle": bundle.digest(), "summary": summary, "outputs": outputs })
            );
        } else {
            show::accuracy("accuracy", &summary);
        }
        Ok(())
    }
}
