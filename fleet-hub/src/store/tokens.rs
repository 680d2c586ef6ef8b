//! API tokens: known by their SHA-256 only. A token is 32 random bytes, so its hash needs no salt
//! and finding it by its hash tells an onlooker nothing.
//!
//! Invariants: a token that was revoked or has expired stays so; a login of the page ends with its
//! token; a row stays after its token's end, for the audit log names it, until [`TOKENS`] are there
//! and the one that ended longest ago makes room. Revoking the last admin token that does not end by
//! itself has to be asked for in so many words.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fleetloop_observe::text::has_hidden;
use fleetloop_protocol::api::Role;
use fleetloop_protocol::api::tokens::{
    ApiToken, LastAdmin, NAME_BYTES, NewApiToken, OVERLAP_MAX_S, TokenId, TokenState, VALID_MAX_S,
};
use fleetloop_protocol::{Digest, UnixMillis};
use ring::rand::{SecureRandom as _, SystemRandom};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::{StoreError, as_sql, audit, digest_at, from_sql};

/// What every token begins with, so that one is known when it turns up where it should not.
pub const PREFIX: &str = "fleethub1_";

/// The most tokens that are kept, those that ended included.
pub const TOKENS: u64 = 1000;

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

/// What the hub knows of a text that was shown as a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// A token that works.
    Live(Holder),
    /// One whose time is over. Only who holds it learns that.
    Expired(UnixMillis),
    /// One that somebody ended. Only who holds it learns that.
    Revoked(UnixMillis),
    /// None.
    Unknown,
}

/// A role as stored and as written in messages.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
        Role::Annotator => "annotator",
        Role::Worker => "worker",
        Role::Backup => "backup",
    }
}

/// A role from its stored name.
///
/// # Errors
/// It is not a role's name.
pub fn role_of(name: &str) -> Result<Role, StoreError> {
    [Role::Admin, Role::Annotator, Role::Worker, Role::Backup]
        .into_iter()
        .find(|role| role_name(*role) == name)
        .ok_or_else(|| StoreError::damaged(format_args!("role {name:?}")))
}

fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| StoreError::Invalid {
        what: "cannot draw a secret: the system gave no randomness; try again".into(),
    })?;
    Ok(bytes)
}

/// Random text of 32 bytes, for tokens and cookies.
///
/// # Errors
/// The system has no randomness.
pub fn random_text(prefix: &str) -> Result<String, StoreError> {
    Ok(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random::<32>()?)))
}

fn draw_id() -> Result<TokenId, StoreError> {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let text: String =
        random::<8>()?.iter().map(|b| char::from(ALPHABET[usize::from(b % 32)])).collect();
    format!("tok-{text}").parse().map_err(StoreError::damaged)
}

/// Makes a token that does not end by itself and returns its text, which is shown once and stored
/// nowhere.
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
    let wanted = NewApiToken { name: name.to_owned(), role, valid_s: None };
    add(tx, &wanted, who, now).map(|(text, _)| text)
}

/// Makes a token; its text, which is shown once and stored nowhere, and what is known of it.
///
/// # Errors
/// A name or time that cannot be, or a name that a live token has; the database failed.
pub fn add(
    tx: &Transaction<'_>,
    wanted: &NewApiToken,
    who: &str,
    now: UnixMillis,
) -> Result<(String, ApiToken), StoreError> {
    let NewApiToken { name, role, valid_s } = wanted;
    let wrong = |why: &str| StoreError::Invalid { what: format!("cannot make a token: {why}") };
    if name.trim().is_empty() || name.trim() != name || name.len() > NAME_BYTES || has_hidden(name)
    {
        return Err(wrong(&format!(
            "its name has 1 to {NAME_BYTES} bytes, no spaces around it and nothing hidden"
        )));
    }
    if valid_s.is_some_and(|valid| valid == 0 || valid > VALID_MAX_S) {
        return Err(wrong(&format!("it is good for 1 to {VALID_MAX_S} s, or does not end")));
    }
    if list(tx, now)?.iter().any(|row| row.about.name == *name && is_live(&row.about)) {
        let what = format!(
            "cannot make a token: {name:?} has one; choose another name, or see 'fleet-hub token rotate'"
        );
        return Err(StoreError::Conflict { what });
    }
    make_room(tx, now)?;
    let expires_at = valid_s.map(|valid| UnixMillis(now.0.saturating_add(valid * 1000)));
    insert(tx, name, *role, expires_at, who, now)
}

fn insert(
    tx: &Transaction<'_>,
    name: &str,
    role: Role,
    expires_at: Option<UnixMillis>,
    who: &str,
    now: UnixMillis,
) -> Result<(String, ApiToken), StoreError> {
    let (text, id) = (random_text(PREFIX)?, draw_id()?);
    tx.execute(
        "INSERT INTO api_token (id, sha256, name, role, created_by, created_at_ms, expires_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            id.as_str(),
            Digest::of(text.as_bytes()).as_bytes(),
            name,
            role_name(role),
            who,
            as_sql(now.0),
            expires_at.map(|at| as_sql(at.0))
        ],
    )?;
    audit(tx, who, "token.create", name, &format!("{} {id}", role_name(role)))?;
    Ok((text, get(tx, &id, now)?.about))
}

/// Forgets the token that ended longest ago, when there are too many.
fn make_room(tx: &Transaction<'_>, now: UnixMillis) -> Result<(), StoreError> {
    let there: i64 = tx.query_row("SELECT count(*) FROM api_token", [], |row| row.get(0))?;
    if from_sql(there) < TOKENS {
        return Ok(());
    }
    let gone = tx.execute(
        "DELETE FROM api_token WHERE id = (
            SELECT id FROM api_token
            WHERE revoked_at_ms IS NOT NULL OR expires_at_ms <= ?1
            ORDER BY coalesce(revoked_at_ms, expires_at_ms) LIMIT 1)",
        [as_sql(now.0)],
    )?;
    if gone == 0 {
        let what = format!("cannot make a token: {TOKENS} are live; revoke one first");
        return Err(StoreError::Conflict { what });
    }
    Ok(())
}

/// What the text is that somebody shows as a token.
///
/// # Errors
/// The database failed.
pub fn look_up(connection: &Connection, text: &str, now: UnixMillis) -> Result<Shown, StoreError> {
    let sha256 = Digest::of(text.as_bytes());
    let found = connection
        .prepare_cached(
            "SELECT name, role, expires_at_ms, revoked_at_ms FROM api_token WHERE sha256 = ?1",
        )?
        .query_row([sha256.as_bytes()], |row| {
            let time = |column| -> rusqlite::Result<Option<u64>> {
                Ok(row.get::<_, Option<i64>>(column)?.map(from_sql))
            };
            Ok((row.get(0)?, row.get::<_, String>(1)?, time(2)?, time(3)?))
        })
        .optional()?;
    let Some((name, role, expires_at, revoked_at)) = found else { return Ok(Shown::Unknown) };
    match (revoked_at, expires_at.filter(|at| *at <= now.0)) {
        (Some(at), _) => Ok(Shown::Revoked(UnixMillis(at))),
        (None, Some(at)) => Ok(Shown::Expired(UnixMillis(at))),
        (None, None) => Ok(Shown::Live(Holder { name, role: role_of(&role)?, sha256 })),
    }
}

/// A token as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// What the hub shows of it.
    pub about: ApiToken,
    /// The token's SHA-256.
    pub sha256: Digest,
}

fn is_live(about: &ApiToken) -> bool {
    about.state == TokenState::Live
}

const COLUMNS: &str = "id, sha256, name, role, created_by, created_at_ms, expires_at_ms,
    revoked_at_ms, last_used_at_ms, replaced_by";

fn read(row: &Row<'_>, now: UnixMillis) -> Result<TokenRow, StoreError> {
    let id = |text: String| text.parse::<TokenId>().map_err(StoreError::damaged);
    let time = |column| -> Result<Option<u64>, StoreError> {
        Ok(row.get::<_, Option<i64>>(column)?.map(from_sql))
    };
    let (expires_at_ms, revoked_at_ms) = (time(6)?, time(7)?);
    let state = match (revoked_at_ms, expires_at_ms) {
        (Some(_), _) => TokenState::Revoked,
        (None, Some(end)) if end <= now.0 => TokenState::Expired,
        _ => TokenState::Live,
    };
    let about = ApiToken {
        id: id(row.get(0)?)?,
        name: row.get(2)?,
        role: role_of(&row.get::<_, String>(3)?)?,
        state,
        created_by: row.get(4)?,
        created_at_ms: from_sql(row.get(5)?),
        expires_at_ms,
        revoked_at_ms,
        last_used_at_ms: time(8)?,
        replaced_by: row.get::<_, Option<String>>(9)?.map(id).transpose()?,
    };
    Ok(TokenRow { about, sha256: digest_at(row, 1)? })
}

/// All tokens, the newest first.
///
/// # Errors
/// The database failed.
pub fn list(connection: &Connection, now: UnixMillis) -> Result<Vec<TokenRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM api_token ORDER BY created_at_ms DESC, id");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(read(row, now)?);
    }
    Ok(all)
}

/// One token.
///
/// # Errors
/// [`StoreError::NotFound`] when there is none of that id.
pub fn get(connection: &Connection, id: &TokenId, now: UnixMillis) -> Result<TokenRow, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM api_token WHERE id = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([id.as_str()])?;
    match rows.next()? {
        Some(row) => read(row, now),
        None => Err(StoreError::not_found(format!("token {id}; see 'fleet-hub token list'"))),
    }
}

/// Makes a token that takes the place of a live one: with its name and role, and a life as long as
/// the old one's if that ends. The old one goes on working for `overlap_s`.
///
/// # Errors
/// There is no such live token, or the overlap is too long.
pub fn rotate(
    tx: &Transaction<'_>,
    id: &TokenId,
    overlap_s: u64,
    who: &str,
    now: UnixMillis,
) -> Result<(String, ApiToken), StoreError> {
    if overlap_s > OVERLAP_MAX_S {
        let what = format!("cannot rotate token {id}: the old one lives {OVERLAP_MAX_S} s at most");
        return Err(StoreError::Invalid { what });
    }
    let old = get(tx, id, now)?.about;
    if !is_live(&old) {
        let what =
            format!("cannot rotate token {id}: it has ended; make one with 'fleet-hub token add'");
        return Err(StoreError::Conflict { what });
    }
    make_room(tx, now)?;
    let life_ms = old.expires_at_ms.map(|end| end.saturating_sub(old.created_at_ms));
    let expires_at = life_ms.map(|life| UnixMillis(now.0.saturating_add(life)));
    let (text, new) = insert(tx, &old.name, old.role, expires_at, who, now)?;
    let end = now.0.saturating_add(overlap_s * 1000).min(old.expires_at_ms.unwrap_or(u64::MAX));
    tx.execute(
        "UPDATE api_token SET expires_at_ms = ?2, replaced_by = ?3 WHERE id = ?1",
        params![id.as_str(), as_sql(end), new.id.as_str()],
    )?;
    audit(tx, who, "token.rotate", &old.name, &format!("{id} by {}", new.id))?;
    Ok((text, new))
}

/// Ends a token and its logins. Again is allowed.
///
/// # Errors
/// There is no such token, or it is the last of an admin and that was not asked for.
pub fn revoke(
    tx: &Transaction<'_>,
    id: &TokenId,
    last_admin: LastAdmin,
    who: &str,
    now: UnixMillis,
) -> Result<ApiToken, StoreError> {
    let row = get(tx, id, now)?;
    let lasts = |about: &ApiToken| {
        about.role == Role::Admin && is_live(about) && about.expires_at_ms.is_none()
    };
    let is_last = lasts(&row.about)
        && !list(tx, now)?.iter().any(|other| lasts(&other.about) && other.about.id != *id);
    if is_last && last_admin == LastAdmin::Keep {
        let what = format!(
            "cannot revoke token {id}: it is the last admin token that does not end by itself, and nobody could administer this hub; make another with 'fleet-hub token add', or revoke it with --lock-out-all-admins"
        );
        return Err(StoreError::Conflict { what });
    }
    if row.about.state != TokenState::Revoked {
        tx.execute(
            "UPDATE api_token SET revoked_at_ms = ?2 WHERE id = ?1",
            params![id.as_str(), as_sql(now.0)],
        )?;
        tx.execute("DELETE FROM session WHERE token = ?1", [row.sha256.as_bytes()])?;
        audit(tx, who, "token.revoke", &row.about.name, id.as_str())?;
    }
    Ok(get(tx, id, now)?.about)
}

/// Notes when tokens were last used; a time before the one that is stored changes nothing.
///
/// # Errors
/// The database failed.
pub fn used(tx: &Transaction<'_>, times: &[(Digest, UnixMillis)]) -> Result<(), StoreError> {
    let mut statement = tx.prepare_cached(
        "UPDATE api_token SET last_used_at_ms = max(coalesce(last_used_at_ms, 0), ?2)
         WHERE sha256 = ?1",
    )?;
    for (sha256, at) in times {
        statement.execute(params![sha256.as_bytes(), as_sql(at.0)])?;
    }
    Ok(())
}
