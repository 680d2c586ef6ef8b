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
    let demo = built()?;
    let error = shell::program(&demo).args(options).exec();
    Err(error).with_context(|| format!("cannot start the demo {}", demo.display()))
}

/// Sets up, builds everything, and says where the program lies that runs scenarios.
///
/// # Errors
/// When setting up or building fails.
pub fn built() -> Result<PathBuf> {
    setup::run()?;
    eprintln!("==> build (the first time takes about ten minutes on two cores)");
    shell::run(shell::cargo().args(["build", "--release", "--workspace"]))?;
    let here = std::env::current_exe().context("cannot tell where xtask was built")?;
    Ok(here.with_file_name("fleetloop-demo"))
}
