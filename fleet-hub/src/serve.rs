//! The running hub: everything started in order, watched, and stopped in order.
//!
//! A kill at any time is recovered from at the next start: what has a receipt is on disk, what has
//! none is sent again by its device, orders are in the database, a release that was cut short is
//! finished or forgotten ([`release::reconcile`]).

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::middleware::from_fn;
use fleetloop_observe::otlp::{Export, OtlpError, Speaker};
use fleetloop_observe::private::{self, PrivateError};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

use crate::broker::{Broker, BrokerError};
use crate::clock::Clock;
use crate::config::{BrokerKind, Config};
use crate::door::{self, Watch};
use crate::last_use::LastUse;
use crate::listeners::gate::Gate;
use crate::listeners::gate::book::ListenerKind;
use crate::listeners::gate::budget;
use crate::listeners::{self, ListenError, Listener, device};
use crate::mqtt::Client;
use crate::own_certificates::{self, OwnCertificates};
use crate::pki::tls::{self, ClientCertificates};
use crate::pki::{Pki, PkiError};
use crate::published;
use crate::quota::{self, Quotas};
use crate::release::{self, ReleaseError};
use crate::state::{AppState, DesiredPublisher, EVENTS};
use crate::status::Vitals;
use crate::store::payloads::Blobs;
use crate::store::uploads::Uploads;
use crate::store::{Store, StoreError, removal};
use crate::unfinished::{self, UnfinishedError};
use crate::{access_files, api, enrol};

/// How long a start waits for its own broker to take the hub's client in.
const CONNECT: Duration = Duration::from_secs(60);

/// Why the hub does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its data folder is open to other users and cannot be closed.
    #[error(transparent)]
    Private(#[from] PrivateError),
    /// Its making was cut short.
    #[error(transparent)]
    Folder(#[from] UnfinishedError),
    /// The root key is here, or the release repository is damaged.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// Another process serves the same data.
    #[error("cannot serve {path}: another fleet-hub serves it")]
    Locked {
        /// The data directory.
        path: PathBuf,
    },
    /// A file.
    #[error("cannot open {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A key or certificate.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The database or the files beside it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The embedded broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The OTLP collector's address or variables cannot be used.
    #[error(transparent)]
    Otlp(#[from] OtlpError),
    /// A listener.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The hub's client and the embedded broker do not come together.
    #[error("cannot reach the embedded broker within {} s; the log says why", CONNECT.as_secs())]
    NotConnected,
    /// Something that should run for ever ended.
    #[error("cannot go on: the hub's {what} ended; the log says why")]
    Ended {
        /// What.
        what: &'static str,
    },
}

/// A running hub. Dropping it without [`stop`](Self::stop) is as good as a kill.
pub struct Hub {
    state: AppState,
    stopping: watch::Sender<bool>,
    /// Becomes true once nothing more happens that the OTLP export should send.
    ended: watch::Sender<bool>,
    broker: Option<Broker>,
    client: Client,
    listeners: Vec<Listener>,
    own: Arc<Mutex<OwnCertificates>>,
    /// The end of any is a failure.
    tasks: Tasks,
    _lock: File,
}

impl Hub {
    /// Starts everything and returns when it serves.
    ///
    /// # Errors
    /// [`ServeError`]: nothing is left running.
    pub async fn start(config: Config, clock: Clock) -> Result<Self, ServeError> {
        Box::pin(Self::start_with(config, clock, None)).await
    }

    /// The same; `spans` come from the log's OTLP layer, if there is one.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(
        config: Config,
        clock: Clock,
        spans: Option<Export>,
    ) -> Result<Self, ServeError> {
        private::secure(&config.paths.data)?;
        unfinished::refuse(&config.paths.data)?;
        release::refuse_root_key_inside(&config.paths.data)?;
        let lock = lock(&config)?;
        let pki = Pki::load(&config.paths)?;
        pki.issue_own(&config, clock.now())?;
        let pki = pki.shared();
        let keys = Arc::clone(&pki);
        let (desired, orders) = DesiredPublisher::channel();
        let (stopping, stopping_rx) = watch::channel(false);
        let mut state = open(config, clock, keys, desired, stopping_rx)?;
        let ended = watch::Sender::new(false);
        let spans = export(&mut state, spans, ended.subscribe())?;
        publish(&state, &pki).await?;
        access_files::refresh(&state.config, &pki);
        removal::erase_due(&state.store, &state.payloads, state.clock.now()).await?;
        let broker = match state.config.broker {
            BrokerKind::Embedded => Some(Broker::start(&state, &pki).await?),
            BrokerKind::External { .. } => None,
        };
        let (listeners, mut tasks) = listen(&state, &pki)?;
        let client = Client::start(state.clone(), Arc::clone(&pki), orders)?;
        let mut own = OwnCertificates::new(&state, &pki, client.certificate());
        own.shown_by(&listeners[0], ClientCertificates::NotAsked);
        own.shown_by(&listeners[1], ClientCertificates::Asked);
        if let Some(broker) = &broker {
            own.shown_by(broker.listener(), ClientCertificates::Required);
        }
        let own = Arc::new(Mutex::new(own));
        let renewing =
            tokio::spawn(own_certificates::run(Arc::clone(&own), state.stopping.clone()));
        tasks.push(("renewal of the hub's certificates", renewing));
        let mut connected = client.connected();
        tasks.push(("rollout driver", tokio::spawn(drive(state.clone()))));
        tasks.push(("report of what was dropped", tokio::spawn(quota::watch(state.clone()))));
        tasks.extend(spans);
        let hub =
            Self { state, stopping, ended, broker, client, listeners, own, tasks, _lock: lock };
        // An external broker may be away; the hub serves people meanwhile.
        if hub.broker.is_some() {
            let waited = tokio::time::timeout(CONNECT, connected.wait_for(|up| *up)).await;
            let is_up = matches!(waited, Ok(Ok(_)));
            if !is_up {
                hub.stop().await;
                return Err(ServeError::NotConnected);
            }
        }
        Ok(hub)
    }

    /// What the hub shares between its parts.
    pub fn state(&self) -> &AppState {
        &self.state
    }

    /// The embedded broker, if that carries the messages.
    pub fn broker(&self) -> Option<&Broker> {
        self.broker.as_ref()
    }

    /// Renews the hub's own certificates if they are due, as it does every day by itself; whether
    /// they were.
    ///
    /// # Errors
    /// The disk failed.
    pub fn renew_own_certificates(&self) -> Result<bool, PkiError> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).look()
    }

    /// Waits until something ends that should not.
    pub async fn failed(&mut self) -> ServeError {
        let tasks = self.tasks.iter_mut().map(|(what, task)| {
            let what = *what;
            Box::pin(async move {
                let _ = task.await;
                what
            })
        });
        let broker = self.broker.as_mut().map(|broker| {
            Box::pin(async move {
                broker.ended().await;
                "broker"
            }) as std::pin::Pin<Box<dyn Future<Output = &'static str> + Send + '_>>
        });
        let client = self.client.ended();
        // Cancel-safe: nothing is lost by not waiting any longer.
        let what = tokio::select! {
            (what, ..) = futures::future::select_all(tasks) => what,
            what = async { match broker { Some(broker) => broker.await, None => std::future::pending().await } } => what,
            () = client => "MQTT client",
        };
        ServeError::Ended { what }
    }

    /// Stops taking things in, finishes what is under way within the configured time, and ends.
    pub async fn stop(self) {
        let drain = Duration::from_secs(self.state.config.limits.drain_s.into());
        self.stopping.send_replace(true);
        for listener in &self.listeners {
            listener.stop(drain);
        }
        self.client.drain(drain).await;
        if let Some(broker) = self.broker {
            broker.stop().await;
        }
        self.ended.send_replace(true);
        let deadline = tokio::time::Instant::now() + drain;
        for (what, mut task) in self.tasks {
            if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
                tracing::warn!(what, "cut off: it did not end in time");
                task.abort();
            }
        }
    }
}

/// Opens the database and the files beside it.
fn open(
    config: Config,
    clock: Clock,
    pki: Arc<Pki>,
    desired: DesiredPublisher,
    stopping: watch::Receiver<bool>,
) -> Result<AppState, StoreError> {
    let (paths, floor) = (&config.paths, config.limits.disk_floor_bytes);
    let payloads = Blobs::open("payload", &paths.payloads(), floor)?;
    let gate = Gate::new(budget::raise(), &config.limits.connections);
    let budget = gate.budget();
    tracing::info!(
        descriptors = budget.descriptors,
        unauthenticated = budget.unauthenticated,
        authenticated = budget.authenticated,
        "connections that there may be"
    );
    Ok(AppState {
        vitals: Vitals::new(config.limits.backlog_messages, gate),
        quotas: Quotas::new(&config.limits),
        store: Store::open(&paths.data)?,
        uploads: Uploads::open(&paths.uploads(), &config.limits, payloads.clone())?,
        payloads,
        artefacts: Blobs::open("artefact", &paths.artefacts(), floor)?,
        clock,
        watch: Watch::default(),
        last_use: LastUse::default(),
        pki,
        events: broadcast::channel(EVENTS).0,
        desired,
        stopping,
        config: Arc::new(config),
    })
}

/// Publishes what the hub's files say, and brings database and repository together. A lost online key
/// keeps nobody out: the hub serves, so that the key can be rotated, and signs nothing until then.
async fn publish(state: &AppState, pki: &Arc<Pki>) -> Result<(), ReleaseError> {
    let publishing = async {
        published::publish(state, pki).await?;
        release::catch_up(state).await?;
        release::reconcile(state).await
    };
    match publishing.await {
        Err(error @ ReleaseError::KeyLost { .. }) => {
            tracing::error!(error = &error as &dyn std::error::Error, "nothing can be released");
            Ok(())
        }
        other => other,
    }
}

/// Starts sending spans, if the configuration names a collector.
fn export(
    state: &mut AppState,
    spans: Option<Export>,
    mut stopping: watch::Receiver<bool>,
) -> Result<Option<(&'static str, JoinHandle<()>)>, OtlpError> {
    let (Some(mut spans), Some(collector)) = (spans, &state.config.telemetry.otlp) else {
        return Ok(None);
    };
    let speaker = Speaker {
        program: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        instance: state.config.host().to_owned(),
        device: None,
    };
    let clock = state.clock.clone();
    state.vitals.otlp = Some(spans.add(collector, speaker, Box::new(move || clock.now()))?);
    // An error means that the sender is gone, which is as good as the signal.
    let ended = async move { drop(stopping.wait_for(|now| *now).await) };
    Ok(Some(("OTLP export", tokio::spawn(spans.run(ended)))))
}

/// What runs for ever, by name.
type Tasks = Vec<(&'static str, JoinHandle<()>)>;

/// Starts the two HTTPS listeners.
fn listen(state: &AppState, pki: &Arc<Pki>) -> Result<(Vec<Listener>, Tasks), ServeError> {
    let admin = api::router(state.clone()).merge(enrol::router(state.clone(), Arc::clone(pki)));
    let admin = door::before(admin, state).layer(from_fn(door::headers::add));
    let (admin, admin_task) = listeners::https(
        (ListenerKind::Admin, "people and programs"),
        state.config.admin_listen,
        tls::server(pki, ClientCertificates::NotAsked, &state.clock)?,
        admin,
        state,
    )?;
    let (devices, devices_task) = listeners::https(
        (ListenerKind::Device, "devices"),
        state.config.device_listen,
        tls::server(pki, ClientCertificates::Asked, &state.clock)?,
        door::before(device::router(state.clone(), Arc::clone(pki)), state),
        state,
    )?;
    let last_use = state.last_use.clone().run(state.store.clone(), state.stopping.clone());
    let watch = state.watch.clone().run(state.store.clone(), state.stopping.clone());
    let tasks = vec![
        ("admin listener", admin_task),
        ("device listener", devices_task),
        ("watch over credentials", tokio::spawn(watch)),
        ("last use of tokens", tokio::spawn(last_use)),
    ];
    Ok((vec![admin, devices], tasks))
}

async fn drive(state: AppState) {
    if let Err(error) = release::run(state).await {
        tracing::error!(error = &error as &dyn std::error::Error, "the rollout driver stopped");
    }
}

/// One hub a data directory.
pub(crate) fn lock(config: &Config) -> Result<File, ServeError> {
    let path = config.paths.data.join("hub.lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| ServeError::File { path, source })?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| ServeError::Locked { path: config.paths.data.clone() })?;
    Ok(file)
}
