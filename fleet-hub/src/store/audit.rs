//! The audit log: who did what to what, in the same transaction as the deed.

use fleetloop_protocol::UnixMillis;
use rusqlite::{Connection, Transaction, params};

use super::{StoreError, as_sql, from_sql};

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLine {
    /// When, by the hub's clock.
    pub at: UnixMillis,
    /// Who: an API token's name, a device, or `hub`.
    pub who: String,
    /// What was done, a stable word: `device.revoke`, `sample.quarantine` …
    pub action: String,
    /// To what.
    pub object: String,
    /// Details in words.
    pub detail: String,
}

/// Adds a line in the transaction of the deed. The time is the database's, which is the hub's.
///
/// # Errors
/// The database failed.
pub fn audit(
    tx: &Transaction<'_>,
    who: &str,
    action: &str,
    object: &str,
    detail: &str,
) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO audit (at_ms, who, action, object, detail)
         VALUES (CAST(unixepoch('subsec') * 1000 AS INTEGER), ?1, ?2, ?3, ?4)",
    )?
    .execute(params![who, action, object, detail])?;
    Ok(())
}

/// A line to be written.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// Who.
    pub who: &'a str,
    /// What was done, a stable word.
    pub action: &'a str,
    /// To what.
    pub object: &'a str,
    /// Details in words.
    pub detail: &'a str,
}

/// Adds a line that a device caused, unless the device caused `limit` of the last 24 hours' lines: the
/// one that reaches the limit is followed by a line that says so, and then there are none. Says
/// whether the line was written.
///
/// # Errors
/// The database failed.
pub fn of_device(tx: &Transaction<'_>, line: &Line<'_>, limit: u32) -> Result<bool, StoreError> {
    let today: u32 = tx
        .prepare_cached(
            "SELECT count(*) FROM (SELECT 1 FROM audit WHERE who = ?1
                AND at_ms > CAST(unixepoch('subsec') * 1000 AS INTEGER) - 86400000 LIMIT ?2)",
        )?
        .query_row(params![line.who, limit.saturating_add(1)], |row| row.get(0))?;
    if today > limit {
        return Ok(false);
    }
    if today == limit {
        let detail = format!("{limit} lines in 24 hours; more of this device are left out");
        audit(tx, line.who, "device.audit-limit", line.who, &detail)?;
        return Ok(false);
    }
    audit(tx, line.who, line.action, line.object, line.detail)?;
    Ok(true)
}

/// The last `limit` lines, the newest first.
///
/// # Errors
/// The database failed.
pub fn last(connection: &Connection, limit: u32) -> Result<Vec<AuditLine>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT at_ms, who, action, object, detail FROM audit ORDER BY id DESC LIMIT ?1",
    )?;
    let lines = statement
        .query_map([as_sql(limit.into())], |row| {
            Ok(AuditLine {
                at: UnixMillis(from_sql(row.get(0)?)),
                who: row.get(1)?,
                action: row.get(2)?,
                object: row.get(3)?,
                detail: row.get(4)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    Ok(lines)
}
