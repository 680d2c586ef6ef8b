//! `cargo xtask demo`: set up, build everything, then become the demo.
//!
//! The demo replaces this process (`exec`), so a signal for one is a signal for the other and
//! nothing stands between it and its end.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::{setup, shell};

/// Never returns when all goes well.
///
/// # Errors
/// When setting up, building or starting the demo fails.
pub fn run(options: &[OsString]) -> Result<Infallible> {
    let asks_for_help = options.iter().any(|option| option == "--help" || option == "-h");
    let demo = if asks_for_help { there()? } else { built()? };
    let error = shell::program(&demo).args(options).exec();
    Err(error).with_context(|| format!("cannot start the demo {}", demo.display()))
}

/// Where the program lies that runs scenarios, if it was built before: whoever asks for help does not
/// want to wait for a build.
///
/// # Errors
/// When it was not built yet.
fn there() -> Result<PathBuf> {
    let demo = program()?;
    anyhow::ensure!(
        demo.exists(),
        "the options are those of a program that is not built yet; type 'cargo build --release --workspace' \
         (about ten minutes on two cores), then ask again"
    );
    Ok(demo)
}

fn program() -> Result<PathBuf> {
    let here = std::env::current_exe().context("cannot tell where xtask was built")?;
    Ok(here.with_file_name("fleetloop-demo"))
}

/// Sets up, builds everything, and says where the program lies that runs scenarios.
///
/// # Errors
/// When setting up or building fails.
pub fn built() -> Result<PathBuf> {
    setup::run()?;
    eprintln!("==> build (the first time takes about ten minutes on two cores)");
    shell::run(shell::cargo().args(["build", "--release", "--workspace"]))?;
    program()
}
