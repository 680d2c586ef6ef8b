//! The link to the hub: MQTT over mutual TLS, and the updater beside it.
//!
//! ```text
//!  outbox ─► session ─► broker          results, telemetry, Reported ─► session
//!  outbox ◄─ receipts, refusals ◄─ inbox (verified) ─► orders ─► updater ─► progress
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `session` | what is sent over a connection and what is made of what comes |
//! | `connection` | one connection to the broker, from nothing to its end |
//! | `uploads` | payloads that are uploaded before their message |
//! | `window` | how much may be under way at once, and when there is no progress |
//! | `takeovers` | whether another device uses this identity |
//! | `pace` | how fast a long outbox is sent |
//! | [`inbox`] | what the hub sends, verified |
//!
//! Invariants: nothing leaves the outbox but by a verified receipt or refusal; nothing is sent
//! from it before the hub's keys are known, for no receipt could be believed; nothing depends on
//! what the broker keeps. Every connection starts from nothing (a new client, a clean session) and
//! the outbox offers again what has no receipt. A sample that the hub refuses for now waits, and
//! neither it nor an upload holds the others up.

mod connection;
pub mod inbox;
mod pace;
mod session;
mod takeovers;
mod uploads;
mod window;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fleetloop_protocol::UnixMillis;
use fleetloop_protocol::backoff::Backoff;
use fleetloop_protocol::hub_keys::HubKeys;
use fleetloop_protocol::state::Update;
use fleetloop_protocol::telemetry::Telemetry;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use crate::chain::chain;
use crate::clock::Clock;
use crate::identity::Identity;
use crate::infer::Inference;
use crate::outbox::Outbox;
use crate::priority;
use crate::renew::Renewer;
use crate::shutdown::{Shutdown, reached};
use crate::supervise::Pulse;
use crate::update::driver::{Driver, Handle, Progress};
use crate::update::models::Models;
use crate::{threads, tls};
use session::{Ended, Session};
use takeovers::TakeOvers;

/// A connection that lasted this long was a good one: the next failure waits shortly again.
const GOOD_CONNECTION: Duration = Duration::from_secs(60);

const BEAT_EVERY: Duration = Duration::from_secs(1);

/// What the link needs of the agent.
pub struct LinkParts {
    /// The agent's data folder.
    pub data_dir: PathBuf,
    /// Who the device is.
    pub identity: Arc<Identity>,
    /// The clock; the link syncs it.
    pub clock: Clock,
    /// Samples that wait for a receipt.
    pub outbox: Outbox,
    /// The model at work.
    pub inference: Inference,
    /// Results as JSON, sent at most once each.
    pub results: mpsc::Receiver<Vec<u8>>,
    /// Telemetry, to be signed and sent as it comes.
    pub telemetry: mpsc::Receiver<Telemetry>,
    /// Moved every second.
    pub pulse: Pulse,
    /// The signal.
    pub shutdown: watch::Receiver<Shutdown>,
}

/// The link as the device's status shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Whether the broker answers.
    pub connected: bool,
    /// What last went wrong with the connection or an update, until it went well.
    pub last_error: Option<String>,
    /// What becomes of the hub's last order.
    pub update: Update,
    /// The order's generation.
    pub generation: u64,
    /// Messages of the hub that were ignored because they are not trusted, since start.
    pub untrusted: u64,
    /// Whether another device uses this identity: its sessions at the broker are taken.
    pub identity_shared: bool,
    /// When the certificate that is shown ends.
    pub certificate_ends: UnixMillis,
    /// When the hub last said something that is trusted, since start.
    pub last_heard: Option<UnixMillis>,
}

impl LinkStatus {
    /// What a person has to know of who else uses this identity.
    pub fn notice(&self) -> Option<&'static str> {
        self.identity_shared.then_some(takeovers::SHARED)
    }
}

/// Starts the link and the updater. The task ends by itself once the signal says so: at `Drain`
/// after what is there was sent, at `Now` at once.
///
/// The installed bundle is swapped in first, whether the hub can be reached or not.
pub fn start(parts: LinkParts) -> (watch::Receiver<LinkStatus>, JoinHandle<()>) {
    let status = watch::Sender::new(LinkStatus {
        connected: false,
        last_error: None,
        update: Update::Idle,
        generation: 0,
        untrusted: 0,
        identity_shared: false,
        certificate_ends: parts.identity.tls().borrow().life().not_after,
        last_heard: None,
    });
    let receiver = status.subscribe();
    // On the caller's thread, not on one of the runtime's, which give way: a loaded session's own
    // threads would do so too.
    let updater = start_updater(&parts);
    let beating = beat(parts.pulse.clone(), parts.clock.clone());
    let working = async move {
        let updater = match updater {
            Ok(updater) => updater,
            Err(reason) => {
                // The model works, and selection goes on; the outbox keeps what it has.
                tracing::error!(reason, "the link cannot start");
                status.send_modify(|status| status.last_error = Some(reason));
                let mut shutdown = parts.shutdown;
                reached(&mut shutdown, Shutdown::Drain).await;
                return;
            }
        };
        Box::pin(run(parts, updater, &status)).await;
    };
    let both = async move {
        // Cancel-safe: both are dropped together, at the end of the link.
        tokio::select! {
            () = working => {}
            () = beating => {}
        }
    };
    let task = tokio::spawn(both.in_current_span());
    (receiver, task)
}

/// Shows that the link's task is polled.
async fn beat(pulse: Pulse, clock: Clock) {
    loop {
        pulse.beat(clock.monotonic());
        tokio::time::sleep(BEAT_EVERY).await;
    }
}

/// The updater has a thread of its own: it waits for the disk. Without one the installed model works
/// all the same.
fn start_updater(parts: &LinkParts) -> Result<Handle, String> {
    let LinkParts { data_dir, identity, clock, inference, shutdown, .. } = parts;
    let cannot = |error: std::io::Error| format!("cannot start the updater: {error}");
    let models = Models::open(data_dir, inference.clone()).map_err(|error| chain(&error))?;
    let opened = Driver::open(data_dir, identity, clock, models.running());
    let (driver, handle) = match opened {
        Ok((driver, handle)) => (Some(driver), Ok(handle)),
        Err(error) => (None, Err(chain(&error))),
    };
    let shutdown = shutdown.clone();
    let working = async move {
        match driver {
            Some(driver) => Box::pin(driver.run(models, shutdown)).await,
            None => models.alone(shutdown).await,
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(cannot)?;
    let helped = inference.has_helpers();
    let work = move || {
        // It starts the threads that load models.
        if !helped {
            priority::give_way();
        }
        runtime.block_on(working);
    };
    threads::spawn("update", work).map_err(cannot)?;
    handle
}

async fn run(parts: LinkParts, updater: Handle, status: &watch::Sender<LinkStatus>) {
    let mut shutdown = parts.shutdown.clone();
    let mut signal = parts.shutdown.clone();
    let mut progress = updater.progress.clone();
    let mut updater_ends = updater.progress.clone();
    let renewing = Renewer::new(Arc::clone(&parts.identity), parts.clock.clone()).run();
    let mut certificate = parts.identity.tls();
    let mut addresses = parts.identity.contacts().changes();
    let clock = parts.clock.clone();
    let (link, running) = (Arc::new(updater), parts.inference.running());
    let mut session = Session::new(parts, Arc::clone(&link), running, status.clone());
    let following = follow(&mut progress, status);
    // Neither future holds the lock across an await.
    let take_overs = Mutex::new(TakeOvers::default());
    let is_shared = || {
        let take_overs = take_overs.lock().unwrap_or_else(PoisonError::into_inner);
        take_overs.are_many(clock.monotonic())
    };
    // The other may have been stopped: a session that nobody takes is not lost, so nothing else says it.
    let forgetting = async {
        loop {
            tokio::time::sleep(BEAT_EVERY).await;
            status.send_if_modified(|status| {
                let was_shared = status.identity_shared;
                status.identity_shared = was_shared && is_shared();
                was_shared != status.identity_shared
            });
        }
    };
    let connecting = async {
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            let reason = match Box::pin(session.connect_and_run()).await {
                Ended::Shutdown => return,
                Ended::Renewed => {
                    status.send_modify(|status| status.connected = false);
                    continue;
                }
                Ended::Lost(reason) => reason,
            };
            tracing::warn!(reason, "the link is lost");
            if reason == takeovers::TAKEN_OVER {
                let mut take_overs = take_overs.lock().unwrap_or_else(PoisonError::into_inner);
                take_overs.happened(clock.monotonic());
            }
            let is_shared = is_shared();
            if is_shared {
                tracing::error!("{}", takeovers::SHARED);
            }
            status.send_modify(|status| {
                status.connected = false;
                status.identity_shared = is_shared;
                status.last_error = Some(reason);
            });
            if began.elapsed() > GOOD_CONNECTION {
                backoff.reset();
            }
            // Cancel-safe: all only wait. Draining without a link has nothing to wait for.
            tokio::select! {
                () = reached(&mut shutdown, Shutdown::Drain) => return,
                Ok(()) = certificate.changed() => {}
                Ok(()) = addresses.changed() => {}
                () = tokio::time::sleep(backoff.next_wait()) => {}
            }
        }
    };
    // Cancel-safe: all five are dropped together, at the end of the link.
    tokio::select! {
        () = connecting => {}
        () = following => {}
        () = forgetting => {}
        () = renewing => {}
        () = reached(&mut signal, Shutdown::Now) => {}
    }
    // The updater ends at Drain by itself; what it has to write then is on the disk when it is gone.
    while updater_ends.changed().await.is_ok() {}
}

/// Copies the updater's progress into the status for as long as the updater lives and beyond.
async fn follow(progress: &mut watch::Receiver<Progress>, status: &watch::Sender<LinkStatus>) {
    loop {
        let now = progress.borrow_and_update().clone();
        status.send_modify(|status| {
            status.update = now.update;
            status.generation = now.generation.0;
            if now.problem.is_some() || status.connected {
                status.last_error = now.problem;
            }
        });
        if progress.changed().await.is_err() {
            // The updater ends at Drain, before the link.
            std::future::pending::<()>().await;
        }
    }
}

/// The hub's keys, as the session reads them.
pub(crate) type Keys = watch::Receiver<Option<Arc<HubKeys>>>;

/// MQTT's TLS for this device.
pub(crate) fn transport(identity: &Identity, clock: &Clock) -> Result<rumqttc::Transport, String> {
    let config = tls::device_config(identity, clock).map_err(|error| chain(&error))?;
    let config = rumqttc::TlsConfiguration::Rustls(Arc::new(config));
    Ok(rumqttc::Transport::tls_with_config(config))
}
