//! Who asks, and whether they may.
//!
//! A bearer token names its holder and a role; when it was last used is noted. Each endpoint takes one of the five extractors below
//! and thereby says, in its signature, who may call it. No token or an unknown one is 401, a role
//! that may not is 403; both before the body is read. [`first`] asks for a token before any handler
//! is reached, so that an endpoint which forgets to say who may call it is still nobody's without one.

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use fleetloop_protocol::api::Role;

use super::PREFIX;
use super::error::Failure;
use crate::AppState;
use crate::cli::human;
use crate::door::Asker;
use crate::door::events::Door;
use crate::listeners::gate::Connection;
use crate::store::tokens::{self, Shown, role_name};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The token's name, for the audit log.
    pub name: String,
    /// What the token allows.
    pub role: Role,
}

/// An admin.
#[derive(Debug, Clone)]
pub struct AdminCaller(pub Caller);

/// Whoever may see samples and label them: an annotator or an admin.
#[derive(Debug, Clone)]
pub struct LabelCaller(pub Caller);

/// Whoever may take jobs, read their inputs and write their results: a worker or an admin.
#[derive(Debug, Clone)]
pub struct WorkerCaller(pub Caller);

/// Whoever may take the backup: its own role only, for it holds every secret of the hub.
#[derive(Debug, Clone)]
pub struct BackupCaller(pub Caller);

/// Whoever may look: an admin, an annotator or a worker.
#[derive(Debug, Clone)]
pub struct AnyCaller(pub Caller);

impl FromRequestParts<AppState> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Failure> {
        if let Some(caller) = parts.extensions.get::<Self>() {
            return Ok(caller.clone());
        }
        let ask = ask(parts);
        let token = bearer(parts).ok_or_else(|| {
            Failure::unauthorized(format!("{ask}: send a token as 'Authorization: Bearer …'"))
        })?;
        let now = state.clock.now();
        let shown =
            state.store.read(move |connection| tokens::look_up(connection, &token, now)).await?;
        let why = match shown {
            Shown::Live(found) => {
                state.last_use.note(found.sha256, now);
                if let Some(connection) = parts.extensions.get::<Connection>() {
                    connection.authenticated_by_token();
                }
                return Ok(Self { name: found.name, role: found.role });
            }
            other => not_live(&other),
        };
        state.watch.wrong(Door::Bearer, Asker::of(&parts.extensions), None).await?;
        Err(Failure::unauthorized(format!("{ask}: {why}")))
    }
}

/// Why a text opens nothing, for whoever shows it.
pub(crate) fn not_live(shown: &Shown) -> String {
    match shown {
        Shown::Expired(at) => {
            format!("this token ended at {} UTC; ask an admin for a new one", human::time(at.0))
        }
        Shown::Revoked(at) => {
            format!(
                "this token was revoked at {} UTC; ask an admin for a new one",
                human::time(at.0)
            )
        }
        Shown::Unknown | Shown::Live(_) => {
            "the hub does not know this token; use an access file of this hub".to_owned()
        }
    }
}

/// Lets nobody past without a token.
///
/// # Errors
/// 401.
pub async fn first(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Result<Response, Failure> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &state).await?;
    parts.extensions.insert(caller);
    Ok(next.run(Request::from_parts(parts, body)).await)
}

/// What was asked, as the beginning of an error. The router strips what it nests the API under.
fn ask(parts: &Parts) -> String {
    let matched = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let prefix = if matched.starts_with(PREFIX) { PREFIX } else { "" };
    format!("cannot {} {prefix}{}", parts.method, parts.uri.path())
}

fn bearer(parts: &Parts) -> Option<String> {
    let value = parts.headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

async fn one_of(parts: &mut Parts, state: &AppState, roles: &[Role]) -> Result<Caller, Failure> {
    let caller = Caller::from_request_parts(parts, state).await?;
    if roles.contains(&caller.role) {
        return Ok(caller);
    }
    let names: Vec<&str> = roles.iter().map(|role| role_name(*role)).collect();
    Err(Failure::forbidden(format!(
        "{}: the token's role is {}; use one whose role is {}",
        ask(parts),
        role_name(caller.role),
        names.join(" or ")
    )))
}

macro_rules! caller {
    ($name:ident, $roles:expr) => {
        impl FromRequestParts<AppState> for $name {
            type Rejection = Failure;

            async fn from_request_parts(
                parts: &mut Parts,
                state: &AppState,
            ) -> Result<Self, Failure> {
                one_of(parts, state, &$roles).await.map(Self)
            }
        }
    };
}

caller!(AdminCaller, [Role::Admin]);
caller!(LabelCaller, [Role::Admin, Role::Annotator]);
caller!(WorkerCaller, [Role::Admin, Role::Worker]);
caller!(BackupCaller, [Role::Backup]);
caller!(AnyCaller, [Role::Admin, Role::Annotator, Role::Worker]);
