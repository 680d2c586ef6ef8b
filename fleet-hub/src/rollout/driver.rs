//! Carries rollouts out: observe, decide, keep, tell.
//!
//! Each step is one transaction on the writer's thread: load the rollout under way, let the machine
//! decide, keep its state together with the orders that follow. Nothing is remembered outside the
//! database, so a restart anywhere changes nothing; what was kept and not yet told is told when the
//! device reports an older generation. Events only say when to look: after a gap in them every
//! device's last stored report is looked at.

use std::time::{Duration, Instant};

use fleetloop_protocol::api::devices::Presence;
use fleetloop_protocol::state::{Assignment, Desired, Reported};
use fleetloop_protocol::{DeviceId, Generation, UnixMillis};
use rusqlite::Transaction;
use tokio::sync::broadcast::error::RecvError;

use super::machine::{Effect, Event, State, step};
use crate::presence::SILENT_AFTER_MS;
use crate::store::desired::{self, DesiredRow};
use crate::store::rollouts::{self, Heard};
use crate::store::{StoreError, audit};
use crate::{AppState, HubEvent};

/// How often everything is looked at, whether or not something happened.
const LOOK: Duration = Duration::from_secs(30);

/// How long the link may take to accept orders.
const HAND_OVER: Duration = Duration::from_secs(5);

/// Orders that were kept and are now to be told.
pub(super) type Orders = Vec<(DeviceId, Desired)>;

/// Keeps what was decided, if anything was.
pub(super) fn keep(
    tx: &Transaction<'_>,
    before: &rollouts::Stored,
    next: &State,
    effects: Vec<Effect>,
) -> Result<Orders, StoreError> {
    if *next == before.state && effects.is_empty() {
        return Ok(Vec::new());
    }
    rollouts::save(tx, before.id, next, &effects)?;
    if next.phase != before.state.phase {
        let phase = format!("{:?}", next.phase);
        tracing::info!(rollout = before.id.0, phase, "rollout moves on");
        audit(tx, "hub", "rollout.phase", &before.id.0.to_string(), &phase)?;
    }
    Ok(orders(effects))
}

pub(super) fn orders(effects: Vec<Effect>) -> Orders {
    let order = |effect| match effect {
        Effect::SetDesired { device, generation, assignment, at } => {
            (device, Desired { generation, at, assignment })
        }
    };
    effects.into_iter().map(order).collect()
}

/// Looks at what a device said of itself, or that it is gone.
///
/// # Errors
/// The database failed; looking again later is enough.
pub async fn look(state: &AppState, device: DeviceId) -> Result<(), StoreError> {
    look_at(state, Some(device), Patience::Waits).await
}

/// Looks at every device, and whether the rollout can move on by itself.
///
/// # Errors
/// The database failed; looking again later is enough.
pub async fn look_at_all(state: &AppState) -> Result<(), StoreError> {
    look_at(state, None, Patience::GivesUp).await
}

/// Whether a look may find that a device gave no answer in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// It may not: one device was looked at, or the hub was away itself and has yet to hear of them.
    Waits,
    /// It may.
    GivesUp,
}

async fn look_at(
    state: &AppState,
    only: Option<DeviceId>,
    patience: Patience,
) -> Result<(), StoreError> {
    let now = state.clock.now();
    let orders = state
        .store
        .write(move |tx| {
            let heard = rollouts::heard(tx, only.as_ref())?;
            let mut orders = match rollouts::active(tx)? {
                Some(active) => move_on(tx, &active, &heard, patience, now)?,
                None => Vec::new(),
            };
            take_late(tx, &heard, now)?;
            let active = rollouts::active(tx)?;
            let is_member = |device: &DeviceId| {
                active.as_ref().is_some_and(|a| a.state.members.iter().any(|m| m.device == *device))
            };
            if let Some(current) = rollouts::current(tx)? {
                for heard in heard.iter().filter(|h| !h.is_revoked && !is_member(&h.device)) {
                    if let Some(reported) = &heard.reported {
                        orders.extend(catch_up(tx, &heard.device, reported, &current, now)?);
                    }
                }
            }
            Ok(orders)
        })
        .await?;
    tell(state, orders).await;
    Ok(())
}

/// Lets the machine see the time and what was heard of each member.
fn move_on(
    tx: &Transaction<'_>,
    active: &rollouts::Stored,
    heard: &[Heard],
    patience: Patience,
    now: UnixMillis,
) -> Result<Orders, StoreError> {
    let is_online = |heard: &&Heard| heard.presence(now) == Presence::Online;
    // Time goes by after what was heard: a device that has answered is not late.
    let tick = (patience == Patience::GivesUp).then(|| Event::Tick {
        online: heard.iter().filter(is_online).map(|heard| heard.device.clone()).collect(),
    });
    let (mut state, mut effects) = (active.state.clone(), Vec::new());
    for event in heard.iter().filter_map(event_of).chain(tick) {
        let (next, more) = step(&state, &event, now);
        state = next;
        effects.extend(more);
    }
    keep(tx, active, &state, effects)
}

/// Devices that were late in a rollout that has ended.
fn take_late(tx: &Transaction<'_>, heard: &[Heard], now: UnixMillis) -> Result<(), StoreError> {
    for heard in heard {
        let Some(ended) = rollouts::late(tx, &heard.device)? else { continue };
        let Some(event) = event_of(heard) else { continue };
        let (next, effects) = step(&ended.state, &event, now);
        keep(tx, &ended, &next, effects)?;
    }
    Ok(())
}

fn event_of(heard: &Heard) -> Option<Event> {
    let device = heard.device.clone();
    if heard.is_revoked {
        return Some(Event::DeviceRevoked { device });
    }
    let Reported { generation, running, update, .. } = heard.reported.clone()?;
    Some(Event::Reported { device, generation, running, update })
}

/// A device that is in no rollout (it enrolled after one began) gets what the channel runs.
fn catch_up(
    tx: &Transaction<'_>,
    device: &DeviceId,
    reported: &Reported,
    current: &Assignment,
    now: UnixMillis,
) -> Result<Option<(DeviceId, Desired)>, StoreError> {
    let row = desired::get(tx, device)?;
    let last = desired::highest(row.as_ref(), Some(reported));
    let is_told = row
        .as_ref()
        .is_some_and(|row| row.generation == last && row.assignment.as_ref() == Some(current));
    if is_told {
        return Ok(None);
    }
    let order = DesiredRow {
        generation: Generation(last.0 + 1),
        assignment: Some(current.clone()),
        at: now,
    };
    desired::give(tx, device, &order)?;
    audit(tx, "hub", "rollout.catch_up", device.as_str(), &current.target)?;
    Ok(Some((device.clone(), order.to_desired())))
}

/// Hands kept orders to the link. Losing one costs a minute, for the device's next report asks
/// again, so a link that takes nothing is not waited for.
pub(super) async fn tell(state: &AppState, orders: Orders) {
    let hand_over = async {
        for (device, desired) in orders {
            state.desired.publish(device, desired).await;
        }
    };
    if tokio::time::timeout(HAND_OVER, hand_over).await.is_err() {
        tracing::warn!("the MQTT link takes no orders; devices get theirs when they report");
    }
}

/// Carries rollouts out until the hub stops.
pub async fn run(state: AppState) {
    let mut events = state.events.subscribe();
    let mut stopping = state.stopping.clone();
    let began = Instant::now();
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // All three are cancel-safe: a broadcast keeps its place, a tick is kept, the stop stays.
        let event = tokio::select! {
            event = events.recv() => event,
            _ = looks.tick() => Err(RecvError::Lagged(0)),
            () = crate::release::stopped(&mut stopping) => return,
        };
        let looked = match event {
            Ok(HubEvent::Reported { device, .. } | HubEvent::DeviceRevoked { device }) => {
                look(&state, device).await
            }
            Ok(_) => Ok(()),
            Err(RecvError::Lagged(_)) if began.elapsed().as_millis() < SILENT_AFTER_MS.into() => {
                look_at(&state, None, Patience::Waits).await
            }
            Err(RecvError::Lagged(_)) => look_at_all(&state).await,
            Err(RecvError::Closed) => return,
        };
        if let Err(error) = looked {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "cannot carry out the rollout; looking again soon");
        }
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
