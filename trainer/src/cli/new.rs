//! `trainer new`

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use fleetloop_observe::output::Output;
use fleetloop_protocol::Digest;

use crate::durable;
use crate::starter::{Head, Kind, starter};

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct New {
    /// What to make.
    #[arg(value_enum)]
    kind: Kind,
    /// The input's shape without the batch: CxHxW of a picture, channels x samples of a window, the
    /// number of a table's columns.
    #[arg(long, value_parser = super::shape, value_name = "SHAPE")]
    input: std::vec::Vec<usize>,
    /// The output is one score for each of so many classes.
    #[arg(long, value_name = "N", conflicts_with = "outputs")]
    classes: Option<usize>,
    /// The output is so many numbers to be estimated (regression).
    #[arg(long, value_name = "N")]
    outputs: Option<usize>,
    /// The seed of the random weights; the same seed gives the same file.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where to write the ONNX file.
    #[arg(long)]
    out: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  trainer new picture-mobile --input 3x96x96 --classes 5 --out parts.onnx
  trainer new signal-cnn     --input 1x2048  --classes 4 --out bearing.onnx
  trainer new table-mlp      --input 9       --outputs 1 --out wear.onnx
  trainer new autoencoder    --input 3x512   --out normal.onnx

An autoencoder takes neither --classes nor --outputs: it gives its input back. Train it on
normal data alone; the anomaly score of an input is the mean of (output - input)^2 over its
values, and a threshold is a high percentile of that score over normal data that it has not
learned from.";

impl ValueEnum for Kind {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(self.purpose()))
    }
}

impl New {
    pub fn run(&self, output: Output) -> anyhow::Result<()> {
        let bytes = starter(self.kind, &self.input, self.head(), self.seed)?;
        durable::write(&self.out, &bytes)?;
        let digest = Digest::of(&bytes);
        let made = serde_json::json!({ "out": self.out, "bytes": bytes.len(), "sha256": digest });
        output.print(&made, |_| {
            format!("{}: {} bytes, sha256 {digest}", self.out.display(), bytes.len())
        })
    }

    fn head(&self) -> Head {
        let classes = self.classes.map(Head::Classes);
        classes.or(self.outputs.map(Head::Values)).unwrap_or(Head::Reconstruction)
    }
}
