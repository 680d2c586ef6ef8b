//! `trainer worker`

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use fleetloop_models::session::Runtime;
use fleetloop_protocol::api::ApiAccess;

use super::Compute;
use crate::worker::{Settings, work};

/// The priority of a worker that was told nothing: inference on the same machine goes first.
const NICE: i32 = 19;

#[derive(Debug, Args)]
pub struct Worker {
    /// The access file that `fleet-hub init` wrote (worker.toml).
    #[arg(long, env = "TRAINER_ACCESS")]
    access: PathBuf,
    /// Where downloads are kept.
    #[arg(long, env = "TRAINER_CACHE")]
    cache: PathBuf,
    /// The most that is kept there, in bytes; the oldest goes first.
    #[arg(long, default_value_t = 4 << 30)]
    cache_limit_bytes: u64,
    /// The worker's name, for people.
    #[arg(long, default_value = "worker")]
    name: String,
    /// End after one job.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    compute: Compute,
}

impl Worker {
    pub fn run(&self) -> anyhow::Result<()> {
        let threads = self.compute.prepare(NICE)?;
        let stop = super::cancel_on_signal()?;
        let text = std::fs::read_to_string(&self.access)
            .with_context(|| format!("cannot read {}", self.access.display()))?;
        let access: ApiAccess = toml::from_str(&text)
            .with_context(|| format!("cannot use {}", self.access.display()))?;
        let runtime = Runtime::load(self.compute.library.as_deref())?;
        let settings = Settings {
            access,
            name: self.name.clone(),
            cache: self.cache.clone(),
            cache_limit_bytes: self.cache_limit_bytes,
            threads,
            once: self.once,
        };
        let tokio =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(tokio.block_on(work(settings, runtime, stop))?)
    }
}
