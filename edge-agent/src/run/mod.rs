//! `edge-agent run`: wires everything, waits for the signal, drains, ends.
//!
//! Start: identity, runtime, outbox, inference, source, HTTP, link; the link puts the installed
//! model to work. SIGHUP reads the configuration again (see [`crate::reload`]). End, on SIGINT or
//! SIGTERM, all of it within [`DRAIN`]: the source stops; the model answers what waits; the sampler
//! and the outbox write what was chosen; a last report is sent; the link sends what it can; the
//! clock's floor is kept. What could not be sent stays in the outbox.
//!
//! A process runs one agent or several: a machine with two cameras and two models is two devices to
//! the hub, each with its configuration, identity, outbox and model, and rolled out, watched and
//! replaced on its own. What they share is what a process has once: ONNX Runtime with its
//! environment, the log, the allocator, the service manager. One that cannot start is an error for
//! all of them; one that crashes the process ends the others, whose outboxes lose nothing.

mod agent;
mod observed;

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::time::Duration;

use fleetloop_models::session::SessionError;
use fleetloop_observe::otlp::{Export, OtlpError};
use fleetloop_observe::private::PrivateError;
use fleetloop_protocol::keys::KeyError;
use futures::future::{join_all, select_all};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, interval_at};
use tracing::{Instrument as _, Span};

use crate::clock::ClockError;
use crate::config::Config;
use crate::http::HttpError;
use crate::identity::IdentityError;
use crate::memory;
use crate::outbox::OutboxError;
use crate::shutdown::{self, Shutdown, reached};
use crate::source::SourceError;
use crate::supervise::{self, ToServiceManager};
use agent::{Agent, Inputs};

/// How long the end may take before what is left is given up.
pub const DRAIN: Duration = Duration::from_secs(10);

/// What the end of the log's export may take after that.
const EXPORT_ENDS: Duration = Duration::from_secs(2);

/// Why an agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// One of several, and with it all of them.
    #[error("cannot run the agent of {}", path.display())]
    OneOf {
        /// Its configuration.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<RunError>,
    },
    /// Its data folder is another user's, or cannot be closed to other users.
    #[error(transparent)]
    Private(#[from] PrivateError),
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

/// Runs an agent for each configuration until a signal ends them all; the last words of each, in
/// the same order. Each configuration was read from the path beside it, which is followed; `spans`
/// come from the log's OTLP layer, if there is one.
///
/// # Errors
/// [`RunError`] when one cannot start; once they run, they run.
pub async fn run(
    configs: Vec<(PathBuf, Config)>,
    spans: Option<Export>,
) -> Result<Vec<Stopped>, RunError> {
    let mut interrupt = on_signal(SignalKind::interrupt())?;
    let mut terminate = on_signal(SignalKind::terminate())?;
    let mut hangup = on_signal(SignalKind::hangup())?;
    let (shutdown, signal) = shutdown::channel();
    let (agents, spans) = start(configs, spans).await?;
    let mut end = signal.clone();
    // Not before: draining makes steps too.
    let ended = async move { reached(&mut end, Shutdown::Now).await };
    let exporting = spans.map(|spans| tokio::spawn(spans.run(ended)));
    let (reload, asked) = tokio::sync::watch::channel(());
    let agents = agents.into_iter().map(|(agent, span)| {
        tokio::spawn(agent.work(signal.clone(), asked.clone()).instrument(span))
    });
    let mut agents: Vec<_> = agents.collect();
    let mut trims = interval_at(Instant::now() + memory::TRIM_EVERY, memory::TRIM_EVERY);
    loop {
        // Cancel-safe: signals and ticks are only observed, and an agent goes on whoever waits for it.
        tokio::select! {
            // None ends before the signal but by a fault of this program, which ends all of them.
            (Err(fault), ..) = select_all(agents.iter_mut()) => resume_unwind(fault.into_panic()),
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = hangup.recv() => reload.send_replace(()),
            // Not waited for: it holds each heap for a moment, and nothing depends on it.
            _ = trims.tick() => drop(tokio::task::spawn_blocking(memory::trim)),
        }
    }
    supervise::stopping();
    tracing::info!("stopping: what is there is finished first");
    shutdown.send_replace(Shutdown::Drain);
    let stopped = join_all(agents)
        .await
        .into_iter()
        .map(|stopped| stopped.unwrap_or_else(|fault| resume_unwind(fault.into_panic())));
    let stopped = stopped.collect();
    shutdown.send_replace(Shutdown::Now);
    if let Some(mut exporting) = exporting
        && tokio::time::timeout(EXPORT_ENDS, &mut exporting).await.is_err()
    {
        // A collector that does not answer costs the last spans, not the end.
        exporting.abort();
    }
    Ok(stopped)
}

/// Starts all, each with the span that its log lines have: one alone needs none.
async fn start(
    configs: Vec<(PathBuf, Config)>,
    mut spans: Option<Export>,
) -> Result<(Vec<(Agent, Span)>, Option<Export>), RunError> {
    let several = configs.len() > 1;
    let names = configs.iter().map(|(path, _)| path.display().to_string());
    let members = supervise::members(ToServiceManager, names);
    let mut agents: Vec<(Agent, Span)> = Vec::new();
    for ((path, config), manager) in configs.into_iter().zip(members) {
        let name = if several {
            tracing::error_span!("agent", config = %path.display())
        } else {
            Span::none()
        };
        let inputs = Inputs { path: path.clone(), config, manager, spans: spans.as_mut() };
        match Box::pin(Agent::start(inputs)).instrument(name.clone()).await {
            Ok(agent) => agents.push((agent, name)),
            Err(error) => {
                join_all(agents.into_iter().map(|(agent, name)| agent.stop().instrument(name)))
                    .await;
                let one_of = |error| RunError::OneOf { path, source: Box::new(error) };
                return Err(if several { one_of(error) } else { error });
            }
        }
    }
    Ok((agents, spans))
}

fn on_signal(kind: SignalKind) -> Result<tokio::signal::unix::Signal, RunError> {
    signal(kind).map_err(|source| RunError::Thread("signal", source))
}
