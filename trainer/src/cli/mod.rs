//! The command line.
//!
//! Results go to stdout (one JSON object with `--json`), progress and log lines to stderr: a bar on
//! a terminal, one JSON object a line otherwise. Exit codes: 0 done, 1 error (`inspect` of what cannot
//! be trained is one), 2 wrong usage, 130 cancelled. A cancelled or failed command leaves no half file behind; `train` leaves OUT.partial,
//! from which the same command goes on.

mod arrays;
mod bundle;
mod eval;
mod inspect;
mod new;
mod operators;
mod show;
mod train;
mod worker;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use fleetloop_models::bundle::{Fit, PreprocessSpec};
use fleetloop_models::graph::Graph;
use fleetloop_models::session::keep_to_itself;
use fleetloop_observe::output::{self, Output};
use fleetloop_observe::{log, private};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::job::JobError;
use crate::kernels::Instructions;
use crate::onnx::ModelFile;

/// Retrains ONNX models: the model file is the training script.
#[derive(Debug, Parser)]
#[command(name = "trainer", version, about, long_about = None)]
struct Root {
    #[command(subcommand)]
    command: Command,
    /// Print results as one JSON object.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a starter graph with random weights.
    New(new::New),
    /// Make a bundle of an ONNX model as it is, for a hub to take in.
    Bundle(bundle::Bundle),
    /// Train a model on a dataset of pictures and write a bundle, or on arrays and write the model.
    Train(train::Train),
    /// Run a bundle over a dataset, or a model over arrays, in ONNX Runtime and say how good it is.
    Eval(eval::Eval),
    /// Say what a model is, which of its parameters train, and what cannot be done.
    Inspect(inspect::Inspect),
    /// List the ONNX operators that can be trained through.
    Operators(operators::Operators),
    /// Take jobs from a hub, for as long as it runs.
    Worker(worker::Worker),
}

/// How to compute; shared by the commands that do.
#[derive(Debug, Args)]
struct Compute {
    /// Threads to compute with; all processors if not given.
    #[arg(long, env = "TRAINER_THREADS")]
    threads: Option<usize>,
    /// Priority from 0 (normal) to 19 (only when nobody else wants the processor).
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..=19))]
    nice: Option<i32>,
    /// Instructions to train with: avx512, avx2 or plain; the widest that are there if not given. A
    /// run record names those of its run; the same ones give the same bytes again.
    #[arg(long, env = "TRAINER_INSTRUCTIONS")]
    instructions: Option<Instructions>,
    /// ONNX Runtime's library; searched for if not given.
    #[arg(long, env = "FLEETLOOP_ORT_LIB")]
    library: Option<PathBuf>,
}

impl Compute {
    /// Sets priority and threads of this process and says how many threads there are. Has to run
    /// before any other thread is made: on Linux a thread inherits the priority of its maker.
    fn prepare(&self, default_nice: i32) -> anyhow::Result<usize> {
        let nice = self.nice.unwrap_or(default_nice);
        if nice > 0 {
            rustix::process::setpriority_process(None, nice)?;
        }
        if let Some(instructions) = self.instructions {
            instructions.choose().map_err(anyhow::Error::msg)?;
        }
        let threads = match self.threads {
            Some(threads) => threads.max(1),
            None => std::thread::available_parallelism()?.get(),
        };
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
        Ok(threads)
    }
}

/// Reads an ONNX file, checks it as every door does, and says which one could not be used.
fn model(path: &Path) -> anyhow::Result<ModelFile> {
    let cannot = || format!("cannot use {}", path.display());
    let file = ModelFile::read(path).with_context(cannot)?;
    Graph::check(file.bytes.clone()).with_context(cannot)?;
    Ok(file)
}

/// Mean and deviation as a person gives them.
#[derive(Debug, Args)]
struct Normalisation {
    /// Mean of each channel as the model was trained with, or one for all; of values from 0 to 1.
    #[arg(long, value_delimiter = ',', allow_negative_numbers = true, requires = "std")]
    mean: Vec<f32>,
    /// Deviation of each channel, or one for all; of values from 0 to 1.
    #[arg(long, value_delimiter = ',', allow_negative_numbers = true, requires = "mean")]
    std: Vec<f32>,
}

/// What to give for models of common kinds.
const NORMALISATIONS: &str = "\
Mean and deviation are those of the model's training, of pixels from 0 to 1:
  --mean 0 --std 1                             pixels from 0 to 1 as they are (torchvision's ToTensor)
  --mean 0 --std 0.0039216                     pixels from 0 to 255 as they are
  --mean 0.5 --std 0.5                         pixels from -1 to 1
  --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225     ImageNet's (torchvision's models)";

impl Normalisation {
    /// Mean and deviation for so many channels; none if they were not given.
    ///
    /// # Errors
    /// They cannot be meant.
    fn of(&self, channels: usize) -> anyhow::Result<Option<(Vec<f32>, Vec<f32>)>> {
        if self.mean.is_empty() {
            return Ok(None);
        }
        let each = |given: &[f32]| match given {
            [one] => vec![*one; channels],
            all => all.to_vec(),
        };
        let (mean, std) = (each(&self.mean), each(&self.std));
        let spec = PreprocessSpec { fit: Fit::Stretch, mean, std };
        let problems = spec.problems(channels);
        anyhow::ensure!(problems.is_empty(), "{}", problems.join("; "));
        Ok(Some((spec.mean, spec.std)))
    }
}

/// Mean and deviation in a line.
fn prepared(spec: &PreprocessSpec) -> String {
    let words = |values: &[f32]| values.iter().map(f32::to_string).collect::<Vec<_>>().join(",");
    format!("pictures: mean {}, deviation {}", words(&spec.mean), words(&spec.std))
}

/// Runs the command line.
pub fn main() -> ExitCode {
    private::from_now_on();
    crate::memory::keep_freed();
    keep_to_itself();
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,ort=warn"));
    let lines = log::layer(log::Format::Human, std::io::stderr, std::io::stderr().is_terminal());
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    let root = Root::parse();
    let output = Output::with_json(root.json);
    let result = match &root.command {
        Command::New(command) => command.run(output),
        Command::Bundle(command) => command.run(output),
        Command::Train(command) => command.run(output),
        Command::Eval(command) => command.run(output),
        Command::Inspect(command) => command.run(output),
        Command::Operators(command) => command.run(output),
        Command::Worker(command) => command.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", output::error(&error));
            let cancelled = error.downcast_ref::<JobError>().is_some_and(JobError::is_cancelled);
            let unable = error.is::<worker::Unable>();
            ExitCode::from(if cancelled {
                130
            } else if unable {
                worker::Unable::STATUS
            } else {
                1
            })
        }
    }
}

/// A flag that Ctrl-C and SIGTERM set. A second signal ends the process at once; files are written
/// whole or not at all, so that is harmless.
fn cancel_on_signal() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&flag);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    // Asked for here: until then a signal ends the process without a word, or is lost where whoever started
    // it ignores Ctrl-C, as a shell does for what it starts in the background.
    let (mut interrupt, mut terminate) = {
        use tokio::signal::unix::{SignalKind, signal};
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            loop {
                // Both branches only take a signal that has arrived: nothing is lost when one is dropped.
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if seen.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
            }
        });
    })?;
    Ok(flag)
}

/// `height=320`.
fn size(text: &str) -> Result<(String, usize), String> {
    let parts = text.split_once('=').and_then(|(name, size)| Some((name, size.parse().ok()?)));
    match parts {
        Some((name, size @ 1..)) if !name.is_empty() => Ok((name.to_owned(), size)),
        _ => Err(format!("'{text}' is no size such as height=320")),
    }
}

/// `1x28x28`.
fn shape(text: &str) -> Result<Vec<usize>, String> {
    let sizes: Result<Vec<usize>, _> = text.split('x').map(str::parse).collect();
    sizes.map_err(|_| format!("'{text}' is no shape such as 1x28x28"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Root::command().debug_assert();
    }

    #[test]
    fn an_interrupt_right_after_it_was_asked_for_is_heard() {
        let flag = cancel_on_signal().unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::INT)
            .unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !flag.load(Ordering::Relaxed) {
            assert!(std::time::Instant::now() < until, "it was lost");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(size("height=320"), Ok(("height".into(), 320)));
        assert!(size("height").is_err() && size("=3").is_err() && size("h=0").is_err());
    }

    #[test]
    fn shapes_are_read() {
        assert_eq!(shape("3x64x48"), Ok(vec![3, 64, 48]));
        assert!(shape("3x").is_err() && shape("a").is_err());
    }
}
