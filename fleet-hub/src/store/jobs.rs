//! Jobs: the pure state of [`mod@crate::jobs::lease`], row by row.

use fleetloop_protocol::UnixMillis;
use fleetloop_protocol::api::jobs::{Job, JobId, JobKind, JobSpec, Progress, TrainRequest};
use rusqlite::{Connection, Row, Transaction, params};

use super::{StoreError, as_sql, from_sql};
use crate::jobs::lease::{Phase, Record};

/// A job as stored.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its number.
    pub id: JobId,
    /// What is to be done.
    pub spec: JobSpec,
    /// Where it stands.
    pub record: Record,
    /// What the worker last said.
    pub progress: Option<Progress>,
    /// Who asked for it.
    pub requested_by: String,
}

impl Stored {
    /// As the API shows it at `now`.
    pub fn to_api(&self, now: UnixMillis) -> Job {
        Job {
            id: self.id,
            spec: self.spec.clone(),
            state: self.record.to_api(now),
            attempts: self.record.attempts,
            progress: self.progress.clone(),
            requested_by: self.requested_by.clone(),
        }
    }
}

/// Queues what `request` asks for under the model's next version: one more than the highest that a
/// bundle or a job of that name has, failed ones included.
///
/// # Errors
/// The database failed, or there is no version left.
pub fn queue(
    tx: &Transaction<'_>,
    request: TrainRequest,
    who: &str,
    now: UnixMillis,
) -> Result<Stored, StoreError> {
    let highest: u32 = tx
        .prepare_cached(
            "SELECT coalesce(max(version), 0) FROM (
                SELECT version FROM job WHERE model = ?1
                UNION ALL SELECT version FROM model WHERE name = ?1)",
        )?
        .query_row([&request.model], |row| row.get(0))?;
    let version = highest.checked_add(1).ok_or_else(|| StoreError::Invalid {
        what: format!("cannot train {}: no version is left", request.model),
    })?;
    let spec = JobSpec {
        kind: JobKind::Train,
        model: request.model,
        version,
        base: request.base,
        dataset: request.dataset,
        recipe: request.recipe,
        seed: request.seed,
    };
    add(tx, spec, who, now)
}

/// Queues a job.
///
/// # Errors
/// The database failed, or a job has trained that version.
pub fn add(
    tx: &Transaction<'_>,
    spec: JobSpec,
    who: &str,
    now: UnixMillis,
) -> Result<Stored, StoreError> {
    let record = Record::new();
    tx.prepare_cached(
        "INSERT INTO job (kind, model, version, spec, state, phase, requested_by, requested_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        kind(spec.kind),
        spec.model,
        spec.version,
        json(&spec)?,
        name(&record.phase),
        json(&record.phase)?,
        who,
        as_sql(now.0)
    ])?;
    let id = JobId(from_sql(tx.last_insert_rowid()));
    Ok(Stored { id, spec, record, progress: None, requested_by: who.to_owned() })
}

/// Keeps where a job stands.
///
/// # Errors
/// The database failed.
pub fn save(
    tx: &Transaction<'_>,
    id: JobId,
    record: &Record,
    progress: Option<&Progress>,
) -> Result<(), StoreError> {
    tx.prepare_cached(
        "UPDATE job SET state = ?2, phase = ?3, attempts = ?4, progress = ?5 WHERE id = ?1",
    )?
    .execute(params![
        as_sql(id.0),
        name(&record.phase),
        json(&record.phase)?,
        record.attempts,
        progress.map(json).transpose()?
    ])?;
    Ok(())
}

/// The job of that number.
///
/// # Errors
/// [`StoreError::NotFound`] when there is none.
pub fn get(connection: &Connection, id: JobId) -> Result<Stored, StoreError> {
    select(connection, "WHERE id = ?1", [as_sql(id.0)])?
        .pop()
        .ok_or_else(|| StoreError::not_found(format!("job {}; see 'fleet-hub train list'", id.0)))
}

/// Jobs that have not ended, the oldest first.
///
/// # Errors
/// The database failed.
pub fn open(connection: &Connection) -> Result<Vec<Stored>, StoreError> {
    select(connection, "WHERE state IN ('queued', 'leased') ORDER BY id", [])
}

/// Jobs whose result waits for an operator, the oldest first.
///
/// # Errors
/// The database failed.
pub fn held(connection: &Connection) -> Result<Vec<Stored>, StoreError> {
    select(connection, "WHERE state = 'held' ORDER BY id", [])
}

/// All jobs, the newest first, at most `limit`.
///
/// # Errors
/// The database failed.
pub fn list(connection: &Connection, limit: u32) -> Result<Vec<Stored>, StoreError> {
    select(connection, "ORDER BY id DESC LIMIT ?1", [limit])
}

fn select(
    connection: &Connection,
    rest: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<Stored>, StoreError> {
    let sql = format!("SELECT id, spec, phase, attempts, progress, requested_by FROM job {rest}");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(stored(row)?);
    }
    Ok(found)
}

fn stored(row: &Row<'_>) -> Result<Stored, StoreError> {
    let id = JobId(from_sql(row.get(0)?));
    let damaged = |_| StoreError::damaged(format_args!("job {}", id.0));
    let progress: Option<String> = row.get(4)?;
    Ok(Stored {
        id,
        spec: serde_json::from_str(&row.get::<_, String>(1)?).map_err(damaged)?,
        record: Record {
            phase: serde_json::from_str(&row.get::<_, String>(2)?).map_err(damaged)?,
            attempts: row.get(3)?,
        },
        progress: progress.map(|p| serde_json::from_str(&p)).transpose().map_err(damaged)?,
        requested_by: row.get(5)?,
    })
}

const fn kind(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Train => "train",
        JobKind::Evaluate => "evaluate",
    }
}

fn name(phase: &Phase) -> &'static str {
    match phase {
        Phase::Queued => "queued",
        Phase::Leased { .. } => "leased",
        Phase::Held { .. } => "held",
        Phase::Done { .. } => "done",
        Phase::Failed { .. } => "failed",
    }
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(StoreError::damaged)
}
