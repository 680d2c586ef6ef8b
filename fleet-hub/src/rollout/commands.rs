//! What an operator asks of rollouts: begin one, end it, go back. Each is one transaction, as in
//! [`super::driver`].

use fleetloop_protocol::UnixMillis;
use fleetloop_protocol::api::rollouts::{Rollout, RolloutId, RolloutRequest};
use rusqlite::Transaction;

use super::driver::{Orders, keep, orders, tell};
use super::machine::{Event, StartError, State, step};
use super::{history, waits};
use crate::AppState;
use crate::store::{StoreError, audit, registry, releases, rollouts};

/// Starts a rollout of a released bundle to every enrolled device.
///
/// # Errors
/// [`StoreError::NotFound`] for a bundle the hub does not hold; [`StoreError::Conflict`] when it is
/// not released, while another rollout is under way that waits for more than devices that are away, or
/// without devices; [`StoreError::Invalid`]
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
    let mut orders = supersede(tx, who, now)?;
    let candidates = rollouts::candidates(tx, now)?;
    let waiting =
        State::new(order, candidates, request.canary.as_ref()).map_err(|error| match error {
            StartError::NoDevice => StoreError::Conflict { what: error.to_string() },
            StartError::Canary { .. } => StoreError::Invalid { what: error.to_string() },
        })?;
    let (rollout, more) = begin(tx, &waiting, who, now)?;
    orders.extend(more);
    audit(tx, who, "rollout.start", &rollout.id.0.to_string(), &request.bundle.to_string())?;
    Ok((rollout, orders))
}

fn begin(
    tx: &Transaction<'_>,
    waiting: &State,
    who: &str,
    now: UnixMillis,
) -> Result<(Rollout, Orders), StoreError> {
    let id = rollouts::insert(tx, waiting, who, now)?;
    let (begun, effects) = step(waiting, &Event::Started, now);
    rollouts::save(tx, id, &begun, &effects)?;
    Ok((shown(tx, id, now)?, orders(effects)))
}

fn shown(tx: &Transaction<'_>, id: RolloutId, now: UnixMillis) -> Result<Rollout, StoreError> {
    Ok(rollouts::get(tx, id)?.to_api(&rollouts::known(tx, now)?))
}

/// Ends a rollout that waits for nothing but devices that are away. Any other one stays under way.
fn supersede(tx: &Transaction<'_>, who: &str, now: UnixMillis) -> Result<Orders, StoreError> {
    let Some(active) = rollouts::active(tx)? else { return Ok(Vec::new()) };
    if !waits::is_for_nobody(&active.state, &rollouts::known(tx, now)?) {
        return Ok(Vec::new());
    }
    let (next, effects) = step(&active.state, &Event::Superseded, now);
    let detail = "another one begins, and this one waits for devices that are away";
    audit(tx, who, "rollout.supersede", &active.id.0.to_string(), detail)?;
    keep(tx, &active, &next, effects)
}

/// Goes back: ends the rollout that is under way, which sends its devices back, or rolls the bundle out
/// that the fleet ran before the one that it runs now.
///
/// # Errors
/// [`StoreError::Conflict`] when the fleet ran nothing before, or what it ran is not released any more.
pub async fn back(state: &AppState, who: &str) -> Result<Rollout, StoreError> {
    let (now, by) = (state.clock.now(), who.to_owned());
    let active = state.store.read(rollouts::active).await?;
    if let Some(active) = active {
        return cancel(state, active.id, who).await;
    }
    let (rollout, orders) = state.store.write(move |tx| back_in(tx, &by, now)).await?;
    tell(state, orders).await;
    Ok(rollout)
}

fn back_in(
    tx: &Transaction<'_>,
    who: &str,
    now: UnixMillis,
) -> Result<(Rollout, Orders), StoreError> {
    let conflict = |what: &str| StoreError::Conflict { what: format!("cannot go back: {what}") };
    let before = history::before(&rollouts::done(tx)?).ok_or_else(|| {
        conflict(
            "no other bundle reached the fleet before the one that it runs; see 'fleet-hub rollout \
             list'",
        )
    })?;
    let order = releases::assignment(tx, before)?.ok_or_else(|| {
        conflict("the bundle before is not released; see 'fleet-hub release list'")
    })?;
    let waiting = State::back(order, rollouts::candidates(tx, now)?)
        .map_err(|error| StoreError::Conflict { what: error.to_string() })?;
    let (rollout, orders) = begin(tx, &waiting, who, now)?;
    audit(tx, who, "rollout.back", &rollout.id.0.to_string(), &before.to_string())?;
    Ok((rollout, orders))
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
            Ok((shown(tx, id, now)?, orders))
        })
        .await?;
    tell(state, orders).await;
    Ok(rollout)
}
