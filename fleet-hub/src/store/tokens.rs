//! API tokens: known by their SHA-256 only. A token is 32 random bytes, so its hash needs no salt
//! and finding it by its hash tells an onlooker nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fleetloop_protocol::api::Role;
use fleetloop_protocol::{Digest, UnixMillis};
use ring::rand::{SecureRandom as _, SystemRandom};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::{StoreError, as_sql, audit, digest_at};

/// What every token begins with, so that one is known when it turns up where it should not.
pub const PREFIX: &str = "fleethub1_";

/// Who a token belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// A name for the audit log.
    pub name: String,
    /// What the holder may do.
    pub role: Role,
    /// The token's SHA-256.
    pub sha256: Digest,
}

/// A role as stored and as written in messages.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
        Role::Annotator => "annotator",
        Role::Worker => "worker",
    }
}

/// Random text of 32 bytes, for tokens and cookies.
///
/// # Errors
/// The system has no randomness.
pub fn random_text(prefix: &str) -> Result<String, StoreError> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| StoreError::Invalid {
        what: "cannot draw a secret: the system gave no randomness; try again".into(),
    })?;
    Ok(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// Makes a token and returns its text, which is shown once and stored nowhere.
///
/// # Errors
/// The database failed, or the system has no randomness.
pub fn create(
    tx: &Transaction<'_>,
    name: &str,
    role: Role,
    who: &str,
    now: UnixMillis,
) -> Result<String, StoreError> {
    let text = random_text(PREFIX)?;
    tx.execute(
        "INSERT INTO api_token (sha256, name, role, created_at_ms) VALUES (?1, ?2, ?3, ?4)",
        params![Digest::of(text.as_bytes()).as_bytes(), name, role_name(role), as_sql(now.0)],
    )?;
    audit(tx, who, "token.create", name, role_name(role))?;
    Ok(text)
}

/// Who holds the token of that text; none when it is unknown.
///
/// # Errors
/// The database failed.
pub fn holder(connection: &Connection, text: &str) -> Result<Option<Holder>, StoreError> {
    let sha256 = Digest::of(text.as_bytes());
    let found = connection
        .prepare_cached("SELECT sha256, name, role FROM api_token WHERE sha256 = ?1")?
        .query_row([sha256.as_bytes()], |row| {
            Ok((digest_at(row, 0)?, row.get(1)?, row.get::<_, String>(2)?))
        })
        .optional()?;
    found.map(|(sha256, name, role)| Ok(Holder { name, role: role_of(&role)?, sha256 })).transpose()
}

/// A role from its stored name.
///
/// # Errors
/// It is not a role's name.
pub fn role_of(name: &str) -> Result<Role, StoreError> {
    [Role::Admin, Role::Annotator, Role::Worker]
        .into_iter()
        .find(|role| role_name(*role) == name)
        .ok_or_else(|| StoreError::damaged(format_args!("role {name:?}")))
}
