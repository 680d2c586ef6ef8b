//! `edge-agent run`: wires everything, waits for the signal, drains, ends.
//!
//! Start: identity, runtime, outbox, inference, source, HTTP, link; the link puts the installed
//! model to work. SIGHUP reads the configuration again (see [`crate::reload`]). End, on SIGINT or SIGTERM, all of it within [`DRAIN`]: the source stops; the model
//! answers what waits; the sampler and the outbox write what was chosen; a last report is sent; the
//! link sends what it can; the clock's floor is kept. What could not be sent stays in the outbox.

mod agent;
mod observed;

use std::path::Path;
use std::time::Duration;

use fleetloop_models::session::SessionError;
use fleetloop_protocol::keys::KeyError;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, Interval, interval_at};

use crate::clock::ClockError;
use crate::config::Config;
use crate::http::HttpError;
use crate::identity::IdentityError;
use crate::otlp::{Export, OtlpError};
use crate::outbox::OutboxError;
use crate::source::SourceError;
use crate::supervise;
use agent::Agent;

/// How long the end may take before what is left is given up.
pub const DRAIN: Duration = Duration::from_secs(10);

/// How often the clock's floor is looked at.
const FLOOR_EVERY: Duration = Duration::from_secs(60);

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It is not enrolled, or its identity is broken.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// There is no runtime.
    #[error(transparent)]
    Runtime(#[from] SessionError),
    /// The clock's floor cannot be read.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The outbox cannot be used.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The source gives nothing.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The port is taken.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The OTLP collector's address or variables cannot be used.
    #[error(transparent)]
    Otlp(#[from] OtlpError),
    /// No random bytes for the seed.
    #[error("cannot seed the selection")]
    Seed(#[from] KeyError),
    /// The system has no thread or signal handler to give.
    #[error("cannot start the {0} thread")]
    Thread(&'static str, #[source] std::io::Error),
}

/// The agent's last words: one JSON line on standard output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// Always `stopped`.
    pub event: String,
    /// Frames that arrived.
    pub frames_in: u64,
    /// Frames that were answered.
    pub frames_answered: u64,
    /// Frames that were dropped.
    pub frames_dropped: u64,
    /// Frames that a model took and did not answer.
    pub frames_failed: u64,
    /// Samples signed and stored in the life of this outbox.
    pub samples_signed_total: u64,
    /// Samples with a receipt in the life of this outbox.
    pub samples_receipted_total: u64,
    /// Samples that wait in the outbox.
    pub samples_waiting: u64,
    /// The most memory the process ever held resident, in bytes.
    pub peak_rss_bytes: u64,
}

/// Runs the agent until a signal ends it. `config` was read from `path`, which is followed;
/// `spans` come from the log's OTLP layer, if there is one.
///
/// # Errors
/// [`RunError`] when it cannot start; once it runs, it runs.
pub async fn run(path: &Path, config: &Config, spans: Option<Export>) -> Result<Stopped, RunError> {
    let mut interrupt = on_signal(SignalKind::interrupt())?;
    let mut terminate = on_signal(SignalKind::terminate())?;
    let mut hangup = on_signal(SignalKind::hangup())?;
    let mut agent = Box::pin(Agent::start(path, config, spans)).await?;
    let mut every = agent.telemetry_every();
    let mut reports = reports_every(*every.borrow_and_update());
    let mut floor = tokio::time::interval(FLOOR_EVERY);
    loop {
        // Cancel-safe: all of them keep their state when another wins.
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = hangup.recv() => agent.reload(),
            Ok(()) = every.changed() => reports = reports_every(*every.borrow_and_update()),
            _ = reports.tick() => agent.report(),
            _ = floor.tick() => agent.keep_floor(),
        }
    }
    supervise::stopping();
    tracing::info!("stopping: what is there is finished first");
    Ok(agent.stop().await)
}

/// Ticks, the first time in `period`.
fn reports_every(period: Duration) -> Interval {
    interval_at(Instant::now() + period, period)
}

fn on_signal(kind: SignalKind) -> Result<tokio::signal::unix::Signal, RunError> {
    signal(kind).map_err(|source| RunError::Thread("signal", source))
}
