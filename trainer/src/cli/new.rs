//! `trainer new`

use std::path::PathBuf;

use clap::Args;
use fleetloop_protocol::Digest;

use crate::durable;
use crate::starter::{Kind, starter};

#[derive(Debug, Args)]
pub struct New {
    /// What to make; picture-cnn is known.
    #[arg(long, default_value = "picture-cnn")]
    kind: Kind,
    /// The input's shape without the batch: channels x height x width.
    #[arg(long, value_parser = super::shape)]
    input: std::vec::Vec<usize>,
    /// How many classes it tells apart.
    #[arg(long)]
    classes: usize,
    /// The seed of the random weights; the same seed gives the same file.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where to write the ONNX file.
    #[arg(long)]
    out: PathBuf,
}

impl New {
    pub fn run(&self, json: bool) -> anyhow::Result<()> {
        let bytes = starter(self.kind, &self.input, self.classes, self.seed)?;
        durable::write(&self.out, &bytes)?;
        let digest = Digest::of(&bytes);
        if json {
            println!(
                "{}",
                serde_json::json!({ "out": self.out, "bytes": bytes.len(), "sha256": digest })
            );
        } else {
            println!("{}: {} bytes, sha256 {digest}", self.out.display(), bytes.len());
        }
        Ok(())
    }
}
