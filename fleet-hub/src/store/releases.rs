//! Releases, as intended and as confirmed.

use fleetloop_protocol::api::models::Release;
use fleetloop_protocol::state::Assignment;
use fleetloop_protocol::{BundleDigest, UnixMillis};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::{StoreError, as_sql, digest_at, from_sql};

/// Notes that `release` is about to be made. Saying so again changes nothing.
///
/// # Errors
/// [`StoreError::Conflict`] when the target names another bundle.
pub fn intend(tx: &Transaction<'_>, release: &Release) -> Result<(), StoreError> {
    let taken: Option<BundleDigest> = tx
        .prepare_cached("SELECT bundle FROM release WHERE channel = ?1 AND target = ?2")?
        .query_row(params![release.channel, release.target], |row| digest_at(row, 0))
        .optional()?
        .map(BundleDigest);
    if let Some(taken) = taken.filter(|taken| *taken != release.bundle) {
        return Err(StoreError::Conflict {
            what: format!(
                "cannot release bundle {}: target {} of channel {} is bundle {taken}, and a \
                 released target never changes; give the new bundle another version",
                release.bundle, release.target, release.channel
            ),
        });
    }
    insert(tx, release, "intended")
}

/// Notes that `release` stands in the repository.
///
/// # Errors
/// The database failed.
pub fn confirm(tx: &Transaction<'_>, channel: &str, target: &str) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE release SET state = 'released' WHERE channel = ?1 AND target = ?2")?
        .execute(params![channel, target])?;
    Ok(())
}

/// Notes a release that is found in the repository and not here.
///
/// # Errors
/// The database failed, or the hub does not hold the bundle.
pub fn adopt(tx: &Transaction<'_>, release: &Release) -> Result<(), StoreError> {
    insert(tx, release, "released")
}

fn insert(tx: &Transaction<'_>, release: &Release, state: &str) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO release (channel, target, bundle, state, released_by, released_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (channel, target) DO NOTHING",
    )?
    .execute(params![
        release.channel,
        release.target,
        release.bundle.0.as_bytes(),
        state,
        release.released_by,
        as_sql(release.released_at_ms)
    ])?;
    Ok(())
}

/// Forgets an intention that never reached the repository.
///
/// # Errors
/// The database failed.
pub fn forget(tx: &Transaction<'_>, channel: &str, target: &str) -> Result<(), StoreError> {
    tx.prepare_cached(
        "DELETE FROM release WHERE channel = ?1 AND target = ?2 AND state = 'intended'",
    )?
    .execute(params![channel, target])?;
    Ok(())
}

/// Intentions that were neither confirmed nor forgotten: the hub stopped in between.
///
/// # Errors
/// The database failed.
pub fn intended(connection: &Connection) -> Result<Vec<Release>, StoreError> {
    select(connection, "WHERE state = 'intended' ORDER BY released_at_ms", [])
}

/// All releases, the newest first.
///
/// # Errors
/// The database failed.
pub fn list(connection: &Connection) -> Result<Vec<Release>, StoreError> {
    select(connection, "WHERE state = 'released' ORDER BY released_at_ms DESC, target", [])
}

/// The release of `target` in `channel`.
///
/// # Errors
/// The database failed.
pub fn get(
    connection: &Connection,
    channel: &str,
    target: &str,
) -> Result<Option<Release>, StoreError> {
    let rest = "WHERE state = 'released' AND channel = ?1 AND target = ?2";
    Ok(select(connection, rest, params![channel, target])?.pop())
}

/// How devices are told to run `bundle`, if it is released.
///
/// # Errors
/// The database failed.
pub fn assignment(
    connection: &Connection,
    bundle: BundleDigest,
) -> Result<Option<Assignment>, StoreError> {
    let rest = "WHERE state = 'released' AND bundle = ?1 ORDER BY released_at_ms LIMIT 1";
    let release = select(connection, rest, params![bundle.0.as_bytes()])?.pop();
    Ok(release.map(|r| Assignment { target: r.target, bundle: r.bundle }))
}

fn select(
    connection: &Connection,
    rest: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<Release>, StoreError> {
    let sql =
        format!("SELECT channel, target, bundle, released_by, released_at_ms FROM release {rest}");
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_map(params, release)?.collect::<Result<_, _>>()?;
    Ok(found)
}

fn release(row: &Row<'_>) -> rusqlite::Result<Release> {
    Ok(Release {
        channel: row.get(0)?,
        target: row.get(1)?,
        bundle: BundleDigest(digest_at(row, 2)?),
        released_by: row.get(3)?,
        released_at_ms: UnixMillis(from_sql(row.get(4)?)).0,
    })
}
