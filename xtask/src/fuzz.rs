//! `cargo xtask fuzz <target>`: cargo-fuzz on a target of `fuzz/`, with the toolchain that builds the
//! product.
//!
//! No sanitizer: the targets look for panics and for allocations over a limit, which safe code can
//! have, and run twice as fast without one. What is found lies in `fuzz/artifacts/<target>/`; mended, it
//! is moved to `fuzz/seeds/<target>/`, which the tests run too. The corpus that grows is in
//! `fuzz/corpus/<target>/` and begins with the seeds and with what [`sources`] finds for the target.
//! `fuzz/README.md` lists every decoder and the target that covers it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::shell;

/// The version that is installed when none is there.
const CARGO_FUZZ: &str = "0.13.2";

/// The longest input. Backend tests are below; a seed is below a tenth of it.
const MAX_LEN_BYTES: usize = 1 << 16;

/// An input that takes longer is reported.
const TIMEOUT_S: u32 = 20;

/// Where a target that reads a file has it, if there is such a folder: a file system in memory.
const MEMORY: &str = "/dev/shm";

#[derive(Args)]
pub struct Fuzz {
    /// The target: a file of fuzz/fuzz_targets
    target: String,
    /// Stop after so many runs
    #[arg(long)]
    runs: Option<u64>,
    /// Stop after so many seconds
    #[arg(long)]
    seconds: Option<u64>,
}

impl Fuzz {
    /// Builds the target and runs it until it finds something or has run as told.
    ///
    /// # Errors
    /// There is no such target, cargo-fuzz cannot be installed, or something was found.
    pub fn run(&self) -> Result<bool> {
        let folder = shell::root().join("fuzz");
        if !folder.join("fuzz_targets").join(&self.target).with_extension("rs").is_file() {
            bail!("cannot fuzz '{}': fuzz/fuzz_targets has no such file", self.target);
        }
        let tool = shell::tool("cargo-fuzz", CARGO_FUZZ)?;
        let corpus = folder.join("corpus").join(&self.target);
        if !corpus.is_dir() {
            fs::create_dir_all(&corpus).context("cannot make the corpus")?;
            plant(&self.target, &corpus)?;
        }
        let mut command = shell::program(tool);
        command.current_dir(&folder).env("RUSTC_BOOTSTRAP", "1");
        if Path::new(MEMORY).is_dir() {
            command.env("TMPDIR", MEMORY);
        }
        let target = self.target.as_str();
        command.args(["run", "-O", "--sanitizer", "none", "--features", target, target]);
        command.arg(&corpus).arg(folder.join("seeds").join(&self.target)).arg("--");
        command.arg(format!("-max_len={MAX_LEN_BYTES}")).arg(format!("-timeout={TIMEOUT_S}"));
        command.arg("-print_final_stats=1");
        command.args(self.runs.map(|runs| format!("-runs={runs}")));
        command.args(self.seconds.map(|seconds| format!("-max_total_time={seconds}")));
        shell::run(&mut command)?;
        Ok(true)
    }
}

/// Copies what a target begins with beside its seeds into its corpus.
fn plant(target: &str, corpus: &Path) -> Result<()> {
    let mut planted = 0;
    for (name, file) in sources(target)? {
        planted += u32::from(fs::copy(file, corpus.join(name)).is_ok());
    }
    eprintln!("==> {planted} files beside the seeds to begin with");
    Ok(())
}

/// Files of the checkout, or fetched, that a target can begin with, each with a name of its own.
fn sources(target: &str) -> Result<Vec<(OsString, PathBuf)>> {
    match target {
        "model" | "graph" => backend_models(),
        "wire" | "token" => Ok(named(below(&shell::root().join("protocol/tests/golden"))?)),
        "manifest" => {
            let bundle = shell::root().join("models/tests/data/linear-1");
            Ok(named(["bundle.toml", "golden.json"].map(|file| bundle.join(file))))
        }
        "config" => Ok(named([shell::root().join("edge-agent/agent.example.toml")])),
        _ => Ok(Vec::new()),
    }
}

/// The models of ONNX's backend tests, every operator with every attribute, as far as they have been
/// fetched.
fn backend_models() -> Result<Vec<(OsString, PathBuf)>> {
    let mut models = Vec::new();
    for suites in folders(&shell::cache())? {
        let name = suites.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with("onnx-backend-tests-") {
            continue;
        }
        for suite in folders(&suites)? {
            let tests = folders(&suite)?.into_iter();
            models.extend(tests.map(|test| {
                let name = test.file_name().unwrap_or_default().to_owned();
                (name, test.join("model.onnx"))
            }));
        }
    }
    Ok(models)
}

fn named(files: impl IntoIterator<Item = PathBuf>) -> Vec<(OsString, PathBuf)> {
    let name = |file: PathBuf| (file.file_name().unwrap_or_default().to_owned(), file);
    files.into_iter().map(name).collect()
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(below(folder)?.into_iter().filter(|path| path.is_dir()).collect())
}

fn below(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
}
