//! Training steps of the trainer beside PyTorch's, on the same ONNX file, batch and threads.
//!
//! Our side is the trainer's benchmark program (`trainer/benches/step`), the other `peer.py`, which
//! turns the file's nodes into PyTorch's functions. Before anything is measured, both do one step,
//! whose losses have to agree.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use serde::Deserialize;

use super::table::{Machine, median};
use super::{Peer, Row, Table};
use crate::shell;

/// What PyTorch's side is installed from, by pip, when it is not there.
const PACKAGES: [&str; 3] = ["torch==2.15.0", "onnx==1.23.2", "numpy"];

/// How far the first losses may lie apart, as a share.
const SAME_LOSS: f64 = 1e-4;

/// The cases, each with as many steps a round as take about a second.
const CASES: [(&str, usize); 3] = [("small-cnn", 50), ("cnn-1d", 30), ("resnet18-64", 4)];

/// Options of the benchmark.
#[derive(Debug, Args)]
pub struct Trainer {
    /// Rounds, each of which both sides take a turn in
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Threads that each side computes with
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    threads: u32,
    /// Only this case: small-cnn, cnn-1d or resnet18-64
    #[arg(long)]
    case: Option<String>,
}

/// What a side says after its steps.
#[derive(Debug, Deserialize)]
struct Answer {
    processor_s: f64,
    wall_s: f64,
    loss: Option<f64>,
    now_bytes: f64,
    peak_bytes: f64,
    version: String,
}

/// Measures all cases.
///
/// # Errors
/// When a side cannot be built, installed or run, or the two do not do the same work.
pub fn run(options: &Trainer) -> Result<Table> {
    let cases: Vec<(&str, usize)> = CASES
        .into_iter()
        .filter(|(case, _)| options.case.as_ref().is_none_or(|only| only == case))
        .collect();
    ensure!(
        !cases.is_empty(),
        "there is no such case; there are {}",
        CASES.map(|c| c.0).join(", ")
    );
    let ours = built()?;
    let python = installed()?;
    let mut rows = Vec::new();
    let mut version = String::new();
    for (case, steps) in cases {
        let folder = shell::cache().join("bench").join(case);
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        shell::run(shell::program(&ours).args(["make", case]).arg(&folder))?;
        let threads = options.threads.to_string();
        let sides = [
            Side::start(
                shell::program(&ours).arg("run").arg(&folder).args(["--threads", &threads]),
            )?,
            Side::start(
                shell::program(&python)
                    .args(["-c", include_str!("peer.py")])
                    .arg(&folder)
                    .arg(&threads),
            )?,
        ];
        version.clone_from(&sides[1].begun.version);
        rows.extend(measured(case, steps, options.rounds, sides)?);
    }
    let peer = Peer { name: "PyTorch", version };
    Ok(Table { bench: "trainer", machine: Machine::here(), peer, rows })
}

fn measured(case: &str, steps: usize, rounds: u32, mut sides: [Side; 2]) -> Result<Vec<Row>> {
    let mut first = [0.0; 2];
    for (side, first) in sides.iter_mut().zip(&mut first) {
        *first = side.step(1)?.loss.context("a side gave no loss")?;
    }
    ensure!(
        (first[0] - first[1]).abs() <= SAME_LOSS * first[1].abs(),
        "{case}: the first losses are {} and {}: the sides do not do the same work",
        first[0],
        first[1]
    );
    let mut answers: [Vec<Answer>; 2] = [Vec::new(), Vec::new()];
    for round in 1..=rounds {
        eprintln!("    {case}: round {round} of {rounds}, {steps} steps each");
        for (side, answers) in sides.iter_mut().zip(&mut answers) {
            answers.push(side.step(steps)?);
        }
    }
    let each = |value: fn(&Answer) -> f64| {
        let middle = |side: &Vec<Answer>| median(side.iter().map(value).collect());
        [middle(&answers[0]), middle(&answers[1])]
    };
    let milliseconds = |[ours, peer]: [f64; 2]| [ours, peer].map(|s| s * 1e3 / steps as f64);
    let peak = [0, 1].map(|side: usize| {
        answers[side].iter().map(|answer| answer.peak_bytes).fold(0.0, f64::max) / 1e6
    });
    let above = [0, 1].map(|side: usize| peak[side] - sides[side].begun.now_bytes / 1e6);
    Ok(vec![
        Row::new(case, "processor time a step", "ms", milliseconds(each(|a| a.processor_s))),
        Row::new(case, "wall time a step", "ms", milliseconds(each(|a| a.wall_s))),
        Row::new(case, "peak memory", "MB", peak),
        Row::new(case, "peak above what was loaded", "MB", above),
    ])
}

/// Builds our side and says where it is.
fn built() -> Result<PathBuf> {
    eprintln!("==> build the trainer's benchmark");
    let build = ["build", "--release", "-p", "trainer", "--bench", "step", "--message-format=json"];
    let messages = shell::output(shell::cargo().args(build))?;
    let mut program = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_it = message["target"]["name"] == "step";
        message["executable"].as_str().filter(|_| is_it).map(PathBuf::from)
    });
    program.next_back().context("cargo built no benchmark named 'step'")
}

/// Installs PyTorch's side if it is not there, and says which Python has it.
fn installed() -> Result<PathBuf> {
    let folder = shell::cache().join("pytorch");
    let python = folder.join("bin/python3");
    let done = folder.join("installed");
    if done.is_file() {
        return Ok(python);
    }
    eprintln!("==> install {} into {} (3 GB)", PACKAGES.join(", "), folder.display());
    shell::run(shell::program("python3").args(["-m", "venv"]).arg(&folder))?;
    let install = ["-m", "pip", "install", "--quiet", "--no-cache-dir"];
    shell::run(shell::program(&python).args(install).args(PACKAGES))?;
    std::fs::File::create(&done).with_context(|| format!("cannot make {}", done.display()))?;
    Ok(python)
}

/// A running side.
struct Side {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// What it said before its first step.
    begun: Answer,
}

impl Side {
    fn start(command: &mut Command) -> Result<Self> {
        let name = Path::new(command.get_program()).display().to_string();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("{name} has no pipes");
        };
        let mut answers = BufReader::new(answers);
        let begun = answer(&mut answers)?;
        Ok(Self { child, orders, answers, begun })
    }

    fn step(&mut self, steps: usize) -> Result<Answer> {
        writeln!(self.orders, "{steps}").context("a side has ended")?;
        answer(&mut self.answers)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // It has nothing to lose.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answer(answers: &mut BufReader<ChildStdout>) -> Result<Answer> {
    let mut line = String::new();
    let read = answers.read_line(&mut line)?;
    ensure!(read > 0, "a side has ended; what it said stands above");
    serde_json::from_str(&line).with_context(|| format!("a side said '{}'", line.trim()))
}
