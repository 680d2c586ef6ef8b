//! The database in numbers, for [`mod@crate::status`].

use std::collections::BTreeMap;

use fleetloop_protocol::UnixMillis;
use fleetloop_protocol::api::status::HubStatus;
use rusqlite::{Connection, Params};

use super::{StoreError, as_sql, findings, from_sql, restores, samples};
use crate::presence::SILENT_AFTER_MS;

/// What the database knows of a status; the other fields keep their defaults.
///
/// # Errors
/// The database failed.
pub fn numbers(connection: &Connection, now: UnixMillis) -> Result<HubStatus, StoreError> {
    let one = |sql: &str| number(connection, sql, []);
    let since = now.0.saturating_sub(SILENT_AFTER_MS);
    let devices = by_name(connection, "SELECT state, count(*) FROM device GROUP BY state")?;
    let devices = |state: &str| devices.get(state).copied().unwrap_or(0);
    Ok(HubStatus {
        samples: samples::counts(connection)?,
        refused_by_reason: by_name(
            connection,
            "SELECT substr(name, 9), value FROM counter WHERE name LIKE 'refused.%'",
        )?,
        labels: one("SELECT count(*) FROM label WHERE label IS NOT NULL")?,
        devices_enrolled: devices("enrolled"),
        devices_revoked: devices("revoked"),
        devices_connected: number(
            connection,
            "SELECT count(*) FROM device WHERE state = 'enrolled' AND last_seen_ms >= ?1
             AND NOT coalesce(json_extract(reported, '$.stopping'), 0)",
            [as_sql(since)],
        )?,
        datasets: one("SELECT count(*) FROM dataset")?,
        jobs: by_name(connection, "SELECT state, count(*) FROM job GROUP BY state")?,
        models: one("SELECT count(*) FROM model")?,
        releases: one("SELECT count(*) FROM release WHERE state = 'released'")?,
        rollouts: by_name(
            connection,
            "SELECT json_extract(phase, '$.phase'), count(*) FROM rollout GROUP BY 1",
        )?,
        left_behind: by_name(
            connection,
            "SELECT old.id, json_extract(old.telemetry, '$.outbox_rows') - old.collected AS waiting
             FROM device AS old JOIN device AS new ON new.replaces = old.id
             WHERE old.state = 'revoked' AND waiting > 0",
        )?,
        restored: restores::status(connection)?,
        findings: findings::open_by_kind(connection)?,
        database_bytes: one(
            "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
        )?,
        ..HubStatus::default()
    })
}

fn number(connection: &Connection, sql: &str, params: impl Params) -> Result<u64, StoreError> {
    let value = connection.prepare_cached(sql)?.query_row(params, |row| row.get(0))?;
    Ok(from_sql(value))
}

fn by_name(connection: &Connection, sql: &str) -> Result<BTreeMap<String, u64>, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, from_sql(row.get(1)?))))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
