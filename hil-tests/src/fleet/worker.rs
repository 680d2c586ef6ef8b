//! A training worker: `trainer worker`, which takes jobs from the hub.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Assets;
use crate::rig::{Launch, Process, Program, Rig, Signal};

/// How long a killed worker may take until it is gone.
const END: Duration = Duration::from_secs(10);

/// A worker process.
pub struct Worker<'r> {
    rig: &'r dyn Rig,
    access: PathBuf,
    assets: Assets,
    process: Option<Process>,
}

impl<'r> Worker<'r> {
    /// A worker that reaches its hub by `access`; it does not run yet.
    pub fn new(rig: &'r dyn Rig, access: PathBuf, assets: &Assets) -> Self {
        Self { rig, access, assets: assets.clone(), process: None }
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self) -> Result<()> {
        let cache = self.rig.folder().join("worker-cache").into_os_string();
        let access = self.access.clone().into_os_string();
        let arguments: [OsString; 5] =
            ["worker".into(), "--access".into(), access, "--cache".into(), cache];
        let launch = Launch::new("worker", Program::Trainer, arguments)
            .env("FLEETLOOP_ORT_LIB", &self.assets.onnxruntime);
        self.process = Some(self.rig.start(&launch)?);
        Ok(())
    }

    /// Kills it at once.
    ///
    /// # Errors
    /// When it was not running.
    pub fn kill(&mut self) -> Result<()> {
        let process = self.process.take().context("cannot kill the worker: it does not run")?;
        self.rig.signal(&process, Signal::Kill)?;
        self.rig.wait(&process, END).map(drop)
    }
}
