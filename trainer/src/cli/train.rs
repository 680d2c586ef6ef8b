//! `trainer train`

use std::path::PathBuf;

use anyhow::Context as _;
use burn::tensor::Device;
use clap::Args;
use fleetloop_models::bundle::Bundle;
use fleetloop_models::session::Runtime;

use super::Compute;
use super::show::{self, Show};
use crate::job::{self, Base, Order, Product, Tools};
use crate::onnx::ModelFile;
use crate::starter::Kind;
use crate::train::Recipe;
use crate::{dataset, durable, evaluate};

#[derive(Debug, Args)]
pub struct Train {
    /// What to begin with: a bundle's folder or an ONNX file.
    #[arg(long, conflicts_with = "starter", required_unless_present = "starter")]
    base: Option<PathBuf>,
    /// Begin with a starter graph of this kind instead.
    #[arg(long, requires = "input")]
    starter: Option<Kind>,
    /// The starter's input: channels x height x width.
    #[arg(long, value_parser = super::shape)]
    input: Option<std::vec::Vec<usize>>,
    /// The dataset's folder: dataset.json and payloads/.
    #[arg(long)]
    dataset: PathBuf,
    /// The recipe (TOML); what it leaves out keeps its default.
    #[arg(long)]
    recipe: Option<PathBuf>,
    /// The seed of everything random.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The new bundle's name; the base's if not given.
    #[arg(long)]
    name: Option<String>,
    /// The new bundle's version; one more than the base's if not given.
    #[arg(long)]
    version: Option<u32>,
    /// The folder to write: the bundle and run-record.json. It must not exist.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    compute: Compute,
}

impl Train {
    pub fn run(&self, json: bool) -> anyhow::Result<()> {
        let threads = self.compute.prepare(0)?;
        let cancel = super::cancel_on_signal()?;
        anyhow::ensure!(
            !self.out.exists(),
            "cannot write {}: it exists; choose another --out",
            self.out.display()
        );
        let (dataset, dataset_digest, payloads) = dataset::open(&self.dataset)?;
        let (base, name, version) = self.base()?;
        let recipe = self.recipe(&base)?;
        let order = Order { name, version, base, dataset, dataset_digest, recipe, seed: self.seed };
        let runtime = Runtime::load(self.compute.library.as_deref())?;
        let tools = Tools {
            payloads: &payloads,
            runtime: &runtime,
            device: Device::default(),
            threads,
            cancel: &cancel,
        };
        let mut show = Show::new();
        let product = job::run(&order, &tools, &mut |event| show.event(&event));
        show.end();
        self.finish(&product?, json)
    }

    fn base(&self) -> anyhow::Result<(Base, String, u32)> {
        let (base, name, version) = match (&self.base, self.starter, &self.input) {
            (Some(path), _, _) if path.is_dir() => {
                let bundle = Bundle::open(path, None)?;
                let (name, version) =
                    (bundle.manifest().name.clone(), bundle.manifest().version + 1);
                (Base::Bundle(Box::new(bundle)), name, version)
            }
            (Some(path), _, _) => (Base::Model(ModelFile::read(path)?), "model".to_owned(), 1),
            (None, Some(kind), Some(input)) => {
                (Base::Starter { kind, input: input.clone() }, kind.to_string(), 1)
            }
            _ => anyhow::bail!("give --base, or --starter and --input"),
        };
        Ok((base, self.name.clone().unwrap_or(name), self.version.unwrap_or(version)))
    }

    fn recipe(&self, base: &Base) -> anyhow::Result<Recipe> {
        let text = match &self.recipe {
            Some(path) => std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?,
            None => String::new(),
        };
        let defaults =
            if matches!(base, Base::Bundle(_)) { Recipe::retraining() } else { Recipe::starter() };
        Ok(Recipe::parse(&text, &defaults)?)
    }

    fn finish(&self, product: &Product, json: bool) -> anyhow::Result<()> {
        let record = serde_json::to_vec_pretty(&product.record)?;
        let mut files = product.bundle.files();
        files.insert(0, ("run-record.json", &record));
        durable::write_folder(&self.out, &files)?;
        let after = evaluate::summary(&product.report.outputs);
        let before = product.base_report.as_ref().map(|r| evaluate::summary(&r.outputs));
        if json {
            println!(
                "{}",
                serde_json::json!({
                    "out": self.out, "bundle": product.bundle.digest(), "before": before, "after": after,
                    "curve": product.record.reproducible.curve, "measured": product.record.measured,
                })
            );
        } else {
            println!("{}: bundle {}", self.out.display(), product.bundle.digest());
            if let Some(before) = &before {
                show::accuracy("before", before);
            }
            show::accuracy("after", &after);
        }
        Ok(())
    }
}
