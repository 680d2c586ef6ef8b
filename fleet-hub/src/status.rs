//! How the hub is: what `/api/v1/status`, `/metrics` and `/healthz` say.
//!
//! Nothing is counted here: the numbers are the database's and the running parts' own
//! ([`Vitals`]). Healthy is: the database's writer takes a transaction within [`WRITER`], the disk
//! has more free than the floor, and the hub's client is connected to the broker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleetloop_observe::otlp::Seen;
use fleetloop_protocol::UnixMillis;
use fleetloop_protocol::api::keys::KeyState;
use fleetloop_protocol::api::status::{ClosedCount, ConnectionCount, Health, HubStatus};
use tokio::sync::watch;

use crate::AppState;
use crate::keys::{self, clock::Doubt};
use crate::listeners::gate::Gate;
use crate::listeners::gate::book::{ListenerKind, Phase, Reason};
use crate::quota::Places;
use crate::store::{StoreError, numbers};

/// How long the writer may take to answer: a group takes 20 ms and a sync, a backup holds it longer.
const WRITER: Duration = Duration::from_secs(5);

/// What the running parts show of themselves; cheap to clone.
#[derive(Clone)]
pub struct Vitals {
    /// When the hub started.
    pub started: Instant,
    /// Whether the hub's client is connected to the broker and subscribed.
    pub connected: watch::Sender<bool>,
    /// A place for each message under way.
    pub backlog: Arc<Places>,
    /// Spans to the OTLP collector; none when none was asked for.
    pub otlp: Option<Seen>,
    /// Lets connections in.
    pub gate: Gate,
    /// The hub's keys as they were last looked at.
    pub keys: watch::Sender<Vec<KeyState>>,
    /// Why the worker beside the hub cannot work on this machine, if it cannot.
    pub worker: watch::Sender<Option<String>>,
    /// What is wrong with the clock by what the hub signed before, if anything.
    pub clock: watch::Sender<Option<Doubt>>,
}

impl Vitals {
    /// Of a hub that starts now, takes in `backlog` messages at once, and lets in whom `gate` does.
    pub fn new(backlog: usize, gate: Gate) -> Self {
        Self {
            started: Instant::now(),
            connected: watch::Sender::new(false),
            backlog: Arc::new(Places::new(backlog)),
            otlp: None,
            gate,
            keys: watch::Sender::new(Vec::new()),
            worker: watch::Sender::new(None),
            clock: watch::Sender::new(None),
        }
    }
}

impl Vitals {
    /// How long each key is good for, in seconds; 0 once it has ended.
    fn key_left_s(&self, now: UnixMillis) -> BTreeMap<String, u64> {
        let left_s = |key: &KeyState| key.ends_ms.saturating_sub(now.0) / 1000;
        self.keys.borrow().iter().map(|key| (key.key.to_string(), left_s(key))).collect()
    }

    /// What somebody must do about keys, the clock and the worker, in words.
    pub fn warnings(&self, now: UnixMillis) -> Vec<String> {
        let clock = self.clock.borrow().map(|doubt| format!("the clock may be wrong: {doubt}"));
        let keys = self.keys.borrow();
        let keys = keys.iter().filter(|key| key.warns).map(|key| keys::warning(key, now));
        let worker = self.worker.borrow().clone();
        let worker =
            worker.map(|why| format!("no job is done by the worker beside the hub: {why}"));
        clock.into_iter().chain(keys).chain(worker).collect()
    }
}

/// The hub in numbers.
///
/// # Errors
/// The database failed.
pub async fn status(state: &AppState) -> Result<HubStatus, StoreError> {
    let (now, limits, vitals) = (state.clock.now(), &state.config.limits, &state.vitals);
    let numbers = state.store.read(move |connection| numbers::numbers(connection, now)).await?;
    Ok(HubStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        health: health(state).await,
        now_ms: now.0,
        uptime_s: vitals.started.elapsed().as_secs(),
        broker_connected: *vitals.connected.borrow(),
        messages_under_way: vitals.backlog.in_use() as u64,
        messages_limit: limits.backlog_messages as u64,
        messages_dropped: state.quotas.drops().total(),
        messages_slowed: state.quotas.drops().total_slowed(),
        disk_free_bytes: state.payloads.free_bytes().ok(),
        disk_floor_bytes: limits.disk_floor_bytes,
        rss_bytes: rss_bytes(),
        credentials_wrong: state.watch.failures(),
        credentials_slowed: state.watch.slowed(),
        otlp: vitals.otlp.as_ref().map(Seen::status),
        descriptors: vitals.gate.budget().descriptors,
        connections: connections(&vitals.gate),
        connections_closed: closed(&vitals.gate),
        key_left_s: vitals.key_left_s(now),
        warnings: vitals.warnings(now),
        ..numbers
    })
}

fn connections(gate: &Gate) -> Vec<ConnectionCount> {
    let count =
        |((listener, holder, phase), count): ((ListenerKind, &str, Phase), u64)| ConnectionCount {
            listener: listener.name().to_owned(),
            holder: holder.to_owned(),
            phase: phase.name().to_owned(),
            count,
        };
    gate.open().into_iter().map(count).collect()
}

fn closed(gate: &Gate) -> Vec<ClosedCount> {
    let count = |((listener, reason), count): ((ListenerKind, Reason), u64)| ClosedCount {
        listener: listener.name().to_owned(),
        reason: reason.name().to_owned(),
        count,
    };
    gate.closed().into_iter().map(count).collect()
}

/// Whether the hub does its work.
pub async fn health(state: &AppState) -> Health {
    let mut reasons = Vec::new();
    let written = tokio::time::timeout(WRITER, state.store.write(|_| Ok(()))).await;
    if !matches!(written, Ok(Ok(()))) {
        reasons.push("the database takes no transaction; see the hub's log".to_owned());
    }
    if state.payloads.room_for(0).is_err() {
        reasons.push("the disk has less free than limits.disk_floor_bytes; make room".to_owned());
    }
    if !*state.vitals.connected.borrow() {
        reasons.push("the broker is not connected; see the hub's log".to_owned());
    }
    Health { healthy: reasons.is_empty(), reasons }
}

/// The memory this process holds resident, from `/proc/self/status`; 0 where there is no such file.
fn rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
