//! `trainer worker`

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use fleetloop_models::session::{Runtime, SessionError};
use fleetloop_observe::private;
use fleetloop_protocol::api::ApiAccess;

use super::Compute;
use crate::worker::{Settings, work};

/// The priority of a worker that was told nothing: inference on the same machine goes first.
const NICE: i32 = 19;

/// Set by a hub that starts a worker beside itself: the worker ends when its stdin does, so that a
/// hub that was killed leaves none behind.
const EXIT_WITH_STDIN: &str = "FLEETLOOP_EXIT_WITH_STDIN";
/// How long a worker may take to stop by itself then.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub struct Worker {
    /// The access file that `fleet-hub init` wrote (worker.toml).
    #[arg(long, env = "TRAINER_ACCESS")]
    access: PathBuf,
    /// Where downloads are kept; worker-cache beside the access file if not given.
    #[arg(long, env = "TRAINER_CACHE")]
    cache: Option<PathBuf>,
    /// The most that is kept there, in bytes; the oldest goes first.
    #[arg(long, default_value_t = 4 << 30)]
    cache_limit_bytes: u64,
    /// The worker's name, for people.
    #[arg(long, default_value = "worker")]
    name: String,
    /// Seconds between two checkpoints of a job, kept beside the cache: what a worker that dies
    /// loses at most when it gets the job again.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    checkpoint_every: u64,
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
        if std::env::var_os(EXIT_WITH_STDIN).is_some() {
            stop_with_stdin(Arc::clone(&stop))?;
        }
        let text = std::fs::read_to_string(&self.access)
            .with_context(|| format!("cannot read {}", self.access.display()))?;
        let access: ApiAccess = toml::from_str(&text)
            .with_context(|| format!("cannot use {}", self.access.display()))?;
        let cache =
            self.cache.clone().unwrap_or_else(|| self.access.with_file_name("worker-cache"));
        private::secure(&cache)?;
        let runtime = Runtime::load(self.compute.library.as_deref()).map_err(Unable)?;
        let settings = Settings {
            access,
            access_file: Some(self.access.clone()),
            name: self.name.clone(),
            cache,
            cache_limit_bytes: self.cache_limit_bytes,
            threads,
            checkpoint_every: Duration::from_secs(self.checkpoint_every),
            once: self.once,
        };
        let tokio =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(tokio.block_on(work(settings, runtime, stop))?)
    }
}

/// This machine lacks what every job needs: starting again changes nothing.
#[derive(Debug, thiserror::Error)]
#[error("cannot work on this machine")]
pub struct Unable(#[source] SessionError);

impl Unable {
    /// The exit status that says so: `EX_CONFIG` of `sysexits.h`.
    pub const STATUS: u8 = 78;
}

fn stop_with_stdin(stop: Arc<AtomicBool>) -> anyhow::Result<()> {
    let wait = move || {
        // An unreadable stdin is as good as a closed one.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        stop.store(true, Ordering::Relaxed);
        std::thread::sleep(GRACE);
        // Nothing is lost: the lease ends, and the job is done again.
        std::process::exit(0);
    };
    std::thread::Builder::new().name("stdin".into()).spawn(wait)?;
    Ok(())
}
