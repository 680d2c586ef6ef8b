//! `cargo xtask bench <what>`: measurements beside a peer, on the machine at hand.
//!
//! Both sides run in turns, a few steps each, and the medians over the rounds are compared, so that
//! what else the machine does meets both alike. All benchmarks give [`Table`]s of one form.

mod agent;
mod table;
mod trainer;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

pub use table::{Peer, Row, Table};

/// What is measured.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Training steps, beside PyTorch on the same ONNX file
    Trainer(Options<trainer::Trainer>),
    /// Frame latency of a device while something disturbs, beside that of a quiet one
    Agent(Options<agent::Agent>),
}

/// What every benchmark takes.
#[derive(Debug, Args)]
pub struct Options<T: Args> {
    /// Write the figures to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    #[command(flatten)]
    own: T,
}

/// Measures, prints the table, and writes it if that is wanted.
///
/// # Errors
/// When a side cannot be built, installed or run, or the two do not do the same work.
pub fn run(bench: &Bench) -> Result<()> {
    let (table, json) = match bench {
        Bench::Trainer(options) => (trainer::run(&options.own)?, &options.json),
        Bench::Agent(options) => (agent::run(&options.own)?, &options.json),
    };
    print!("{table}");
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&table)?;
        let failed = || format!("cannot write {}", path.display());
        // A file of figures is made anew by running again; nothing depends on it.
        let mut file = std::fs::File::create(path).with_context(failed)?;
        std::io::Write::write_all(&mut file, text.as_bytes()).with_context(failed)?;
    }
    Ok(())
}
