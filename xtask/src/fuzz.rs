//! `cargo xtask fuzz <target>`: cargo-fuzz on a target of `fuzz/`, with the toolchain that builds the
//! product.
//!
//! No sanitizer: the targets look for panics and for allocations over a limit, which safe code can
//! have, and run twice as fast without one. What is found lies in `fuzz/artifacts/<target>/`; mended, it
//! is moved to `fuzz/seeds/<target>/`, which the tests run too. The corpus that grows is in
//! `fuzz/corpus/<target>/` and begins with the seeds and, for `model`, with ONNX's backend tests.

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
            if self.target == "model" {
                plant(&corpus)?;
            }
        }
        let mut command = shell::program(tool);
        command.current_dir(&folder).env("RUSTC_BOOTSTRAP", "1");
        command.args(["run", "-O", "--sanitizer", "none", &self.target]);
        command.arg(&corpus).arg(folder.join("seeds").join(&self.target)).arg("--");
        command.arg(format!("-max_len={MAX_LEN_BYTES}")).arg(format!("-timeout={TIMEOUT_S}"));
        command.arg("-print_final_stats=1");
        command.args(self.runs.map(|runs| format!("-runs={runs}")));
        command.args(self.seconds.map(|seconds| format!("-max_total_time={seconds}")));
        shell::run(&mut command)?;
        Ok(true)
    }
}

/// Copies the models of ONNX's backend tests, every operator with every attribute, as far as they
/// have been fetched.
fn plant(corpus: &Path) -> Result<()> {
    let mut planted = 0;
    for suites in below(&shell::cache())? {
        let name = suites.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with("onnx-backend-tests-") {
            continue;
        }
        for suite in below(&suites)? {
            for test in below(&suite)? {
                let to = corpus.join(test.file_name().unwrap_or_default());
                planted += u32::from(fs::copy(test.join("model.onnx"), to).is_ok());
            }
        }
    }
    eprintln!("==> {planted} models of ONNX's backend tests to begin with");
    Ok(())
}

fn below(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect())
}
