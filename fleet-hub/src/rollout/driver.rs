//! Carries rollouts out: observe, decide, keep, tell.
//!
//! Each step is one transaction on the writer's thread: load the rollout under way, let the machine
//! decide, keep its state together with the orders that follow. Nothing is remembered outside the
//! database, so a restart anywhere changes nothing; what was kept and not yet told is told when the
//! device reports an older generation. Events only say when to look: after a gap in them every
//! device's last stored report is looked at.

use std::time::Duration;

use fleetloop_protocol::api::rollouts::{Rollout, RolloutId, RolloutRequest};
use fleetloop_protocol::state::{Assignment, Desired, Reported};
use fleetloop_protocol::{DeviceId, Generation, UnixMillis};
use rusqlite::Transaction;
use tokio::sync::broadcast::error::RecvError;

use super::machine::{Effect, Event, StartError, State, step};
use crate::store::desired::{self, DesiredRow};
use crate::store::rollouts::{self, Heard};
use crate::store::{StoreError, audit, registry, releases};
use crate::{AppState, HubEvent};

/// How often everything is looked at, whether or not something happened.
const LOOK: Duration = Duration::from_secs(30);

/// How long the link may take to accept orders.
const HAND_OVER: Duration = Duration::from_secs(5);

/// Orders that were kept and are now to be told.
type Orders = Vec<(DeviceId, Desired)>;

/// Starts a rollout of a released bundle to every enrolled device.
///
/// # Errors
/// [`StoreError::NotFound`] for a bundle the hub does not hold; [`StoreError::Conflict`] when it is
/// not released, while another rollout is under way, or without devices; [`StoreError::Invalid`]
/// for a canary that is no device.
pub async fn start(
    state: &AppState,
    request: RolloutRequest,
    who: &str,
) -> Result<Rollout, StoreError> {
    let (now, who) = (state.clock.now(), who.to_owned());
    let (rollout, orders) = state.store.write(move |tx| start_in(tx, &request, &who, now)).await?;
    tell(state, orders).await;
    Ok(rollout)
}

fn start_in(
    tx: &Transaction<'_>,
    request: &RolloutRequest,
    who: &str,
    now: UnixMillis,
) -> Result<(Rollout, Orders), StoreError> {
    let model = registry::get(tx, request.bundle)?;
    let order = releases::assignment(tx, request.bundle)?.ok_or_else(|| StoreError::Conflict {
        what: format!(
            "cannot start rollout: {} version {} is not released; release it with 'fleet-hub \
             release publish'",
            model.name, model.version
        ),
    })?;
    let candidates = rollouts::candidates(tx)?;
    let waiting =
        State::new(order, candidates, request.canary.as_ref()).map_err(|error| match error {
            StartError::NoDevice => StoreError::Conflict { what: error.to_string() },
            StartError::Canary { .. } => StoreError::Invalid { what: error.to_string() },
        })?;
    let id = rollouts::insert(tx, &waiting, who, now)?;
    let (begun, effects) = step(&waiting, &Event::Started, now);
    rollouts::save(tx, id, &begun, &effects)?;
    audit(tx, who, "rollout.start", &id.0.to_string(), &request.bundle.to_string())?;
    Ok((rollouts::get(tx, id)?.to_api(), orders(effects)))
}

/// Ends a rollout; whoever was given the bundle is sent back. One that has ended stays as it is.
///
/// # Errors
/// [`StoreError::NotFound`]; [`StoreError::Conflict`] when it has ended otherwise.
pub async fn cancel(state: &AppState, id: RolloutId, who: &str) -> Result<Rollout, StoreError> {
    let (now, who) = (state.clock.now(), who.to_owned());
    let (rollout, orders) = state
        .store
        .write(move |tx| {
            let stored = rollouts::get(tx, id)?;
            if !stored.state.is_active() {
                let what = format!(
                    "cannot cancel rollout {}: it has ended; see 'fleet-hub rollout show'",
                    id.0
                );
                return Err(StoreError::Conflict { what });
            }
            let (next, effects) = step(&stored.state, &Event::Cancelled, now);
            let orders = keep(tx, &stored, &next, effects)?;
            audit(tx, &who, "rollout.cancel", &id.0.to_string(), "")?;
            Ok((rollouts::get(tx, id)?.to_api(), orders))
        })
        .await?;
    tell(state, orders).await;
    Ok(rollout)
}

/// Keeps what was decided, if anything was.
fn keep(
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

fn orders(effects: Vec<Effect>) -> Orders {
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
    look_at(state, Some(device)).await
}

/// Looks at every device, and whether the rollout can move on by itself.
///
/// # Errors
/// The database failed; looking again later is enough.
pub async fn look_at_all(state: &AppState) -> Result<(), StoreError> {
    look_at(state, None).await
}

async fn look_at(state: &AppState, only: Option<DeviceId>) -> Result<(), StoreError> {
    let now = state.clock.now();
    let orders = state
        .store
        .write(move |tx| {
            let heard = rollouts::heard(tx, only.as_ref())?;
            let mut orders = match rollouts::active(tx)? {
                Some(active) => move_on(tx, &active, &heard, now)?,
                None => Vec::new(),
            };
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
    now: UnixMillis,
) -> Result<Orders, StoreError> {
    let events = heard.iter().filter_map(event_of);
    let (mut state, mut effects) = step(&active.state, &Event::Tick, now);
    for event in events {
        let (next, more) = step(&state, &event, now);
        state = next;
        effects.extend(more);
    }
    keep(tx, active, &state, effects)
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
async fn tell(state: &AppState, orders: Orders) {
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
