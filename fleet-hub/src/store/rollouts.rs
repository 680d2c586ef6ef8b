//! Rollouts and their members: the machine's state, row by row.

use std::collections::BTreeMap;

use fleetloop_protocol::api::devices::Presence;
use fleetloop_protocol::api::rollouts::{self as api, MemberState, Phase, RolloutId};
use fleetloop_protocol::state::{Assignment, Reported};
use fleetloop_protocol::{BundleDigest, DeviceId, Generation, UnixMillis};
use rusqlite::{Connection, Row, Transaction, params};

use super::desired::{self, DesiredRow};
use super::{StoreError, as_sql, digest_at, from_sql, releases};
use crate::presence::presence;
use crate::rollout::machine::{Candidate, Effect, Member, State};
use crate::rollout::waits;

/// A rollout as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its number.
    pub id: RolloutId,
    /// What the machine decides from.
    pub state: State,
    /// Who began it.
    pub started_by: String,
    /// When.
    pub started_at: UnixMillis,
}

/// Which devices are there.
pub type Known = BTreeMap<DeviceId, Presence>;

/// Whether each device is there at `now`.
///
/// # Errors
/// The database failed, or a row is damaged.
pub fn known(connection: &Connection, now: UnixMillis) -> Result<Known, StoreError> {
    let all = heard(connection, None)?.into_iter();
    Ok(all.map(|heard| (heard.device.clone(), heard.presence(now))).collect())
}

impl Stored {
    /// As the API shows it, by what is [`known`].
    pub fn to_api(&self, known: &Known) -> api::Rollout {
        let is_active = self.state.is_active();
        let presence = |m: &Member| known.get(&m.device).copied().unwrap_or(Presence::Never);
        let member = |m: &Member| api::Member {
            device: m.device.clone(),
            before: m.before.as_ref().map(|a| a.bundle),
            state: m.state.clone(),
            presence: is_active.then(|| presence(m)),
        };
        api::Rollout {
            id: self.id,
            bundle: self.state.order.bundle,
            phase: self.state.phase.clone(),
            back: self.state.back,
            members: self.state.members.iter().map(member).collect(),
            waits: waits::of(&self.state, known),
            started_by: self.started_by.clone(),
            started_at_ms: self.started_at.0,
        }
    }
}

/// Stores a rollout that begins now.
///
/// # Errors
/// [`StoreError::Conflict`] while another is under way.
pub fn insert(
    tx: &Transaction<'_>,
    state: &State,
    started_by: &str,
    at: UnixMillis,
) -> Result<RolloutId, StoreError> {
    if let Some(active) = active(tx)? {
        return Err(StoreError::Conflict {
            what: format!(
                "cannot start rollout: rollout {} is under way; wait for it or end it with \
                 'fleet-hub rollout cancel {}'",
                active.id.0, active.id.0
            ),
        });
    }
    tx.prepare_cached(
        "INSERT INTO rollout (bundle, target, phase, active, back, started_by, started_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        state.order.bundle.0.as_bytes(),
        state.order.target,
        json(&state.phase)?,
        state.is_active().then_some(1),
        state.back,
        started_by,
        as_sql(at.0)
    ])?;
    let id = RolloutId(from_sql(tx.last_insert_rowid()));
    write_members(tx, id, &state.members)?;
    Ok(id)
}

/// Keeps `state` and the orders that follow from it.
///
/// # Errors
/// [`StoreError::Conflict`] when a device got another order in between.
pub fn save(
    tx: &Transaction<'_>,
    id: RolloutId,
    state: &State,
    effects: &[Effect],
) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE rollout SET phase = ?2, active = ?3 WHERE id = ?1")?
        .execute(params![as_sql(id.0), json(&state.phase)?, state.is_active().then_some(1)])?;
    tx.prepare_cached("DELETE FROM rollout_member WHERE rollout = ?1")?.execute([as_sql(id.0)])?;
    write_members(tx, id, &state.members)?;
    for Effect::SetDesired { device, generation, assignment, at } in effects {
        let order = DesiredRow { generation: *generation, assignment: assignment.clone(), at: *at };
        desired::give(tx, device, &order)?;
    }
    Ok(())
}

fn write_members(
    tx: &Transaction<'_>,
    id: RolloutId,
    members: &[Member],
) -> Result<(), StoreError> {
    let mut statement = tx.prepare_cached(
        "INSERT INTO rollout_member
         (rollout, position, device, before_bundle, before_target, state, generation, asked_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    for (position, member) in (0_i64..).zip(members) {
        let before = member.before.as_ref();
        statement.execute(params![
            as_sql(id.0),
            position,
            member.device.as_str(),
            before.map(|a| *a.bundle.0.as_bytes()),
            before.map(|a| a.target.as_str()),
            json(&member.state)?,
            as_sql(member.generation.0),
            member.asked_at.map(|at| as_sql(at.0))
        ])?;
    }
    Ok(())
}

/// The rollout of that number.
///
/// # Errors
/// [`StoreError::NotFound`] when there is none.
pub fn get(connection: &Connection, id: RolloutId) -> Result<Stored, StoreError> {
    select(connection, "WHERE id = ?1", [as_sql(id.0)])?
        .pop()
        .ok_or_else(|| StoreError::not_found(format!("rollout {}", id.0)))
}

/// The rollout that is under way.
///
/// # Errors
/// The database failed.
pub fn active(connection: &Connection) -> Result<Option<Stored>, StoreError> {
    Ok(select(connection, "WHERE active = 1", [])?.pop())
}

/// All rollouts, the newest first, at most `limit`.
///
/// # Errors
/// The database failed.
pub fn list(connection: &Connection, limit: u32) -> Result<Vec<Stored>, StoreError> {
    select(connection, "ORDER BY id DESC LIMIT ?1", [limit])
}

/// What the channel runs: the bundle of the last rollout that reached everyone and was not halted.
/// Devices that are no members of the rollout under way are given this.
///
/// # Errors
/// The database failed.
pub fn current(connection: &Connection) -> Result<Option<Assignment>, StoreError> {
    // The phases are few and the scan ends at the first that fits.
    let mut statement =
        connection.prepare_cached("SELECT phase, bundle, target FROM rollout ORDER BY id DESC")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let phase: Phase = from_json("rollout", &row.get::<_, String>(0)?)?;
        if matches!(phase, Phase::Everyone | Phase::Done) {
            let bundle = BundleDigest(digest_at(row, 1)?);
            return Ok(Some(Assignment { target: row.get(2)?, bundle }));
        }
    }
    Ok(None)
}

/// The bundles of the rollouts that reached the fleet, the oldest first, and whether each went back.
///
/// # Errors
/// The database failed.
pub fn done(connection: &Connection) -> Result<Vec<(BundleDigest, bool)>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT phase, bundle, back FROM rollout ORDER BY id")?;
    let mut rows = statement.query([])?;
    let mut done = Vec::new();
    while let Some(row) = rows.next()? {
        let phase: Phase = from_json("rollout", &row.get::<_, String>(0)?)?;
        if phase == Phase::Done {
            done.push((BundleDigest(digest_at(row, 1)?), row.get(2)?));
        }
    }
    Ok(done)
}

/// The last rollout that ended while `device` was late.
///
/// # Errors
/// The database failed.
pub fn late(connection: &Connection, device: &DeviceId) -> Result<Option<Stored>, StoreError> {
    let late = json(&MemberState::Late)?;
    let rest = "WHERE active IS NULL AND id = (SELECT max(rollout) FROM rollout_member
        WHERE device = ?1 AND state = ?2)";
    Ok(select(connection, rest, params![device.as_str(), late])?.pop())
}

/// What is known of a device that decides about its orders.
#[derive(Debug, Clone)]
pub struct Heard {
    /// Which.
    pub device: DeviceId,
    /// Whether it may never connect again.
    pub is_revoked: bool,
    /// What it last said and signed.
    pub reported: Option<Reported>,
    /// When the hub last heard of it.
    pub last_seen: Option<UnixMillis>,
}

impl Heard {
    /// Whether it is there at `now`; one that may not connect is not.
    pub fn presence(&self, now: UnixMillis) -> Presence {
        let is_stopping = self.reported.as_ref().is_some_and(|reported| reported.stopping);
        presence(self.last_seen, is_stopping || self.is_revoked, now)
    }
}

/// What is known of `only`, or of all devices by id.
///
/// # Errors
/// The database failed.
pub fn heard(connection: &Connection, only: Option<&DeviceId>) -> Result<Vec<Heard>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, state, reported, last_seen_ms FROM device
         WHERE ?1 IS NULL OR id = ?1 ORDER BY id",
    )?;
    let mut rows = statement.query([only.map(DeviceId::as_str)])?;
    let mut heard = Vec::new();
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        let reported: Option<String> = row.get(2)?;
        heard.push(Heard {
            device: id.parse().map_err(StoreError::damaged)?,
            is_revoked: row.get::<_, String>(1)? != "enrolled",
            reported: reported.map(|text| from_json("report of a device", &text)).transpose()?,
            last_seen: row.get::<_, Option<i64>>(3)?.map(|ms| UnixMillis(from_sql(ms))),
        });
    }
    Ok(heard)
}

/// The devices that may take part, with what they run.
///
/// # Errors
/// The database failed, or a row is damaged.
pub fn candidates(connection: &Connection, now: UnixMillis) -> Result<Vec<Candidate>, StoreError> {
    let mut candidates = Vec::new();
    for heard in heard(connection, None)?.into_iter().filter(|heard| !heard.is_revoked) {
        let order = desired::get(connection, &heard.device)?;
        let reported = heard.reported.as_ref();
        let before = match reported.and_then(|r| r.running) {
            Some(bundle) => releases::assignment(connection, bundle)?,
            None => order.as_ref().and_then(|o| o.assignment.clone()),
        };
        candidates.push(Candidate {
            before,
            generation: desired::highest(order.as_ref(), reported),
            is_online: heard.presence(now) == Presence::Online,
            last_report: reported.and(heard.last_seen),
            device: heard.device,
        });
    }
    Ok(candidates)
}

fn select(
    connection: &Connection,
    rest: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<Stored>, StoreError> {
    let sql = format!(
        "SELECT id, bundle, target, phase, started_by, started_at_ms, back FROM rollout {rest}"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let id = RolloutId(from_sql(row.get(0)?));
        let order = Assignment { bundle: BundleDigest(digest_at(row, 1)?), target: row.get(2)? };
        let phase = from_json("rollout", &row.get::<_, String>(3)?)?;
        let state = State { order, phase, back: row.get(6)?, members: members(connection, id)? };
        let started_at = UnixMillis(from_sql(row.get(5)?));
        found.push(Stored { id, state, started_by: row.get(4)?, started_at });
    }
    Ok(found)
}

fn members(connection: &Connection, id: RolloutId) -> Result<Vec<Member>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT device, before_bundle, before_target, state, generation, asked_at_ms
         FROM rollout_member WHERE rollout = ?1 ORDER BY position",
    )?;
    let mut rows = statement.query([as_sql(id.0)])?;
    let mut members = Vec::new();
    while let Some(row) = rows.next()? {
        members.push(member(row)?);
    }
    Ok(members)
}

fn member(row: &Row<'_>) -> Result<Member, StoreError> {
    let device: String = row.get(0)?;
    let before = match row.get::<_, Option<String>>(2)? {
        None => None,
        Some(target) => Some(Assignment { target, bundle: BundleDigest(digest_at(row, 1)?) }),
    };
    let state: MemberState = from_json("rollout member", &row.get::<_, String>(3)?)?;
    Ok(Member {
        device: device.parse().map_err(StoreError::damaged)?,
        before,
        state,
        generation: Generation(from_sql(row.get(4)?)),
        asked_at: row.get::<_, Option<i64>>(5)?.map(|ms| UnixMillis(from_sql(ms))),
    })
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(StoreError::damaged)
}

fn from_json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::damaged(what))
}
