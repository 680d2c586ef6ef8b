//! Who asks, and whether they may.
//!
//! A bearer token names its holder and a role. Each endpoint takes one of the four extractors below
//! and thereby says, in its signature, who may call it. No token or an unknown one is 401, a role
//! that may not is 403; both before the body is read.

use axum::extract::{FromRequestParts, MatchedPath};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use fleetloop_protocol::api::Role;

use super::PREFIX;
use super::error::Failure;
use crate::AppState;
use crate::store::tokens::{self, role_name};

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

/// Whoever has a token.
#[derive(Debug, Clone)]
pub struct AnyCaller(pub Caller);

impl FromRequestParts<AppState> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Failure> {
        let ask = ask(parts);
        let token = bearer(parts).ok_or_else(|| {
            Failure::unauthorized(format!("{ask}: send a token as 'Authorization: Bearer …'"))
        })?;
        let found = state
            .store
            .read(move |connection| tokens::holder(connection, &token))
            .await?
            .ok_or_else(|| {
            Failure::unauthorized(format!(
                "{ask}: the hub does not know this token; use an access file of this hub"
            ))
        })?;
        Ok(Self { name: found.name, role: found.role })
    }
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
caller!(AnyCaller, [Role::Admin, Role::Annotator, Role::Worker]);
