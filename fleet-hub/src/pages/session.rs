//! Logging in and out of the page.
//!
//! The form posts a token; the answer is a cookie that names a random session, stored by its hash,
//! good for twelve hours, readable by no script, sent over TLS only and to no request that another
//! site caused (`SameSite=Strict`). A form is taken only when the browser says that it came from
//! this very origin. Workers have no business here. A wrong token or cookie is counted
//! ([`crate::door`]); a cookie that is worth nothing any more is taken back.

use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{FromRequestParts, OptionalFromRequestParts, State};
use axum::http::header::{COOKIE, HOST, ORIGIN, RETRY_AFTER, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use fleetloop_protocol::api::Role;
use serde::Deserialize;

use super::login;
use crate::AppState;
use crate::api::error::Failure;
use crate::door::events::Door;
use crate::door::{Asker, Later};
use crate::listeners::gate::Connection;
use crate::store::tokens::{Holder, Shown};
use crate::store::{audit, sessions, tokens};

/// The prefix binds the cookie to this host, to TLS and to the whole site (RFC 6265bis, 4.1.3.2).
const NAME: &str = "__Host-fleet_hub";

/// Whoever is logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visitor {
    /// The token's name.
    pub name: String,
}

impl OptionalFromRequestParts<AppState> for Visitor {
    type Rejection = Failure;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &AppState,
    ) -> Result<Option<Self>, Failure> {
        let Some(value) = cookie(&parts.headers) else { return Ok(None) };
        let now = state.clock.now();
        let holder =
            state.store.read(move |connection| sessions::holder(connection, &value, now)).await?;
        if holder.is_none() {
            // Held back, and then the form all the same: it takes the stale cookie back, so whoever is
            // behind one address with an attacker is not stuck with it.
            let _ = state.watch.wrong(Door::Session, Asker::of(&parts.extensions), None).await;
        }
        let holder = holder.filter(may_look);
        holder.iter().for_each(|holder| state.last_use.note(holder.sha256, now));
        if let (Some(_), Some(connection)) = (&holder, parts.extensions.get::<Connection>()) {
            connection.authenticated_by_token();
        }
        Ok(holder.map(|holder| Self { name: holder.name }))
    }
}

fn may_look(holder: &Holder) -> bool {
    matches!(holder.role, Role::Admin | Role::Annotator)
}

fn cookie(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == NAME)
        .map(|(_, value)| value.to_owned())
}

/// A request whose browser says that this very origin caused it.
#[derive(Debug)]
pub(super) struct SameOrigin;

impl<S: Send + Sync> FromRequestParts<S> for SameOrigin {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(HOST).or_else(|| parts.uri.authority().map(|a| a.as_str()));
        let origin = text(ORIGIN).and_then(|origin| origin.strip_prefix("https://"));
        match (host, origin) {
            (Some(host), Some(origin)) if host.eq_ignore_ascii_case(origin) => Ok(Self),
            _ => Err(Failure::forbidden(
                "cannot take the form: it was not sent by this hub's own page; open the hub's address and log in there",
            )),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct LoginForm {
    token: String,
}

/// The login form by itself.
pub(super) async fn form() -> Result<Response, Failure> {
    login(StatusCode::OK, None)
}

/// Takes a token, gives a cookie.
pub(super) async fn log_in(
    _same: SameOrigin,
    asker: Asker,
    State(state): State<AppState>,
    form: Result<Form<LoginForm>, FormRejection>,
) -> Result<Response, Failure> {
    let form = match form {
        Ok(Form(form)) => form,
        Err(error) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            return login(StatusCode::PAYLOAD_TOO_LARGE, Some("This is longer than a token."));
        }
        Err(_) => return login(StatusCode::BAD_REQUEST, Some("Paste a token.")),
    };
    let token = form.token.trim().to_owned();
    let now = state.clock.now();
    let shown =
        state.store.read(move |connection| tokens::look_up(connection, &token, now)).await?;
    let Shown::Live(holder) = shown else {
        if let Err(Later { seconds }) = state.watch.wrong(Door::Login, asker, None).await {
            let problem = format!("This token is wrong, too. Try again in {seconds} s.");
            let mut answer = login(StatusCode::TOO_MANY_REQUESTS, Some(&problem))?;
            answer.headers_mut().insert(RETRY_AFTER, seconds.into());
            return Ok(answer);
        }
        let problem = match shown {
            Shown::Expired(_) => "This token's time is over. Ask an admin for a new one.",
            Shown::Revoked(_) => "This token was revoked. Ask an admin for a new one.",
            Shown::Unknown | Shown::Live(_) => "The hub does not know this token.",
        };
        return login(StatusCode::UNAUTHORIZED, Some(problem));
    };
    if !may_look(&holder) {
        return login(StatusCode::FORBIDDEN, Some("A worker's token opens no page."));
    }
    state.last_use.note(holder.sha256, now);
    let cookie = state
        .store
        .write(move |tx| {
            audit(tx, &holder.name, "page.login", "hub", "")?;
            sessions::begin(tx, &holder, now)
        })
        .await?;
    let cookie = attributes(&cookie, sessions::VALID_MS / 1000);
    Ok(([(SET_COOKIE, cookie)], Redirect::to("/")).into_response())
}

/// What makes a browser forget a cookie that opens nothing any more, if it sent one.
pub(super) fn taken_back(headers: &HeaderMap) -> Option<(HeaderName, String)> {
    cookie(headers).map(|_| (SET_COOKIE, attributes("", 0)))
}

/// Ends the session, here and in the browser.
pub(super) async fn log_out(
    _same: SameOrigin,
    State(state): State<AppState>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    if let Some(value) = cookie(&headers) {
        state.store.write(move |tx| sessions::end(tx, &value)).await?;
    }
    Ok(([(SET_COOKIE, attributes("", 0))], Redirect::to("/")).into_response())
}

fn attributes(value: &str, max_age_s: u64) -> String {
    format!("{NAME}={value}; Path=/; Max-Age={max_age_s}; Secure; HttpOnly; SameSite=Strict")
}
