//! Logins of the web page: a random cookie, known by its SHA-256 only, that stands for a token
//! until it expires or the token ends. Expired ones are swept when a new one is made.

use fleetloop_protocol::{Digest, UnixMillis};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::tokens::{self, Holder, random_text};
use super::{StoreError, as_sql, digest_at};

/// How long a login lasts, in milliseconds: a shift and a half.
pub const VALID_MS: u64 = 12 * 3600 * 1000;

/// Begins a login for the holder of a token and returns the cookie's value.
///
/// # Errors
/// The database failed, or the system has no randomness.
pub fn begin(tx: &Transaction<'_>, holder: &Holder, now: UnixMillis) -> Result<String, StoreError> {
    tx.execute("DELETE FROM session WHERE expires_at_ms <= ?1", [as_sql(now.0)])?;
    let cookie = random_text("")?;
    tx.execute(
        "INSERT INTO session (sha256, token, created_at_ms, expires_at_ms) VALUES (?1, ?2, ?3, ?4)",
        params![
            Digest::of(cookie.as_bytes()).as_bytes(),
            holder.sha256.as_bytes(),
            as_sql(now.0),
            as_sql(now.0.saturating_add(VALID_MS))
        ],
    )?;
    Ok(cookie)
}

/// Who is logged in by that cookie; none when it is unknown or expired.
///
/// # Errors
/// The database failed.
pub fn holder(
    connection: &Connection,
    cookie: &str,
    now: UnixMillis,
) -> Result<Option<Holder>, StoreError> {
    let found = connection
        .prepare_cached(
            "SELECT t.sha256, t.name, t.role FROM session s JOIN api_token t ON t.sha256 = s.token
             WHERE s.sha256 = ?1 AND s.expires_at_ms > ?2 AND t.revoked_at_ms IS NULL
             AND (t.expires_at_ms IS NULL OR t.expires_at_ms > ?2)",
        )?
        .query_row(params![Digest::of(cookie.as_bytes()).as_bytes(), as_sql(now.0)], |row| {
            Ok((digest_at(row, 0)?, row.get(1)?, row.get::<_, String>(2)?))
        })
        .optional()?;
    found
        .map(|(sha256, name, role)| Ok(Holder { name, role: tokens::role_of(&role)?, sha256 }))
        .transpose()
}

/// Ends a login; one that is unknown is ended already.
///
/// # Errors
/// The database failed.
pub fn end(tx: &Transaction<'_>, cookie: &str) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM session WHERE sha256 = ?1",
        [Digest::of(cookie.as_bytes()).as_bytes()],
    )?;
    Ok(())
}
