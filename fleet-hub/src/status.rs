//! How the hub is: what `/api/v1/status`, `/metrics` and `/healthz` say.
//!
//! Nothing is counted here: the numbers are the database's and the running parts' own
//! ([`Vitals`]). Healthy is: the database's writer takes a transaction within [`WRITER`], the disk
//! has more free than the floor, and the hub's client is connected to the broker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fleetloop_observe::otlp::Seen;
use fleetloop_protocol::api::status::{Health, HubStatus};
use tokio::sync::{Semaphore, watch};

use crate::AppState;
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
    /// One permit a message under way.
    pub backlog: Arc<Semaphore>,
    /// Spans to the OTLP collector; none when none was asked for.
    pub otlp: Option<Seen>,
}

impl Vitals {
    /// Of a hub that starts now and takes in `backlog` messages at once.
    pub fn new(backlog: usize) -> Self {
        Self {
            started: Instant::now(),
            connected: watch::Sender::new(false),
            backlog: Arc::new(Semaphore::new(backlog)),
            otlp: None,
        }
    }
}

/// The hub in numbers.
///
/// # Errors
/// The database failed.
pub async fn status(state: &AppState) -> Result<HubStatus, StoreError> {
    let (now, limits, vitals) = (state.clock.now(), &state.config.limits, &state.vitals);
    let numbers = state.store.read(move |connection| numbers::numbers(connection, now)).await?;
    let free = vitals.backlog.available_permits();
    Ok(HubStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        health: health(state).await,
        now_ms: now.0,
        uptime_s: vitals.started.elapsed().as_secs(),
        broker_connected: *vitals.connected.borrow(),
        messages_under_way: limits.backlog_messages.saturating_sub(free) as u64,
        messages_limit: limits.backlog_messages as u64,
        disk_free_bytes: state.payloads.free_bytes().ok(),
        disk_floor_bytes: limits.disk_floor_bytes,
        rss_bytes: rss_bytes(),
        otlp: vitals.otlp.as_ref().map(Seen::status),
        ..numbers
    })
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
