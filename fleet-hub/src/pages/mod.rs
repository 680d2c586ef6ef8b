//! Pages for people: devices, rollouts, models and the latest samples with their pictures; and labelling.
//!
//! Plain HTML; no script runs and none is allowed. Nothing renews itself, so nothing that somebody opened
//! closes. Everything
//! that a device, a label or an operator said is escaped, HTML by the templates and hidden characters
//! on the way out. Whoever holds an admin's
//! or an annotator's token logs in with it ([`session`]). The only forms are logging in and out, and
//! labelling ([`label`]).

mod label;
pub mod session;
pub mod view;

#[cfg(test)]
mod tests;

use askama::Template as _;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use fleetloop_observe::text::visible_lines;
use fleetloop_protocol::Digest;

use crate::AppState;
use crate::api::error::Failure;
use crate::api::extract::Named;
use crate::api::payloads;
use crate::drift::{self, Question};
use session::Visitor;

/// Hours that the page compares, the present one among them: it renews itself often, and a device's
/// row of each is read.
const DRIFT_HOURS: u32 = 2;

/// Nothing but our own style sheet, our own pictures and our own forms.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
    base-uri 'none'; frame-ancestors 'none'";

/// The page, its style sheet and pictures, logging in and out.
pub fn router() -> Router<AppState> {
    Router::new()
        .route("/", get(page))
        .route("/pictures/{digest}", get(picture))
        .route("/login", post(session::log_in).get(session::form))
        .route("/logout", post(session::log_out))
        .route("/label", get(label::show).post(label::give))
        .route("/label/undo", post(label::undo))
        .route("/style.css", get(style))
        .layer(from_fn(guard))
}

/// What the page may load; all other headers are those of every answer ([`crate::door::headers`]).
/// The referrer stays within this origin: browsers leave out the origin of a form otherwise, and
/// [`session`] wants it.
async fn guard(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

async fn page(
    visitor: Option<Visitor>,
    State(state): State<AppState>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let Some(visitor) = visitor else {
        let mut form = login(StatusCode::OK, None)?;
        if let Some((name, value)) = session::taken_back(&headers) {
            form.headers_mut().extend(value.parse().ok().map(|value| (name, value)));
        }
        return Ok(form);
    };
    let now = state.clock.now();
    let host = state.config.host().to_owned();
    let warnings = state.vitals.warnings(now);
    let question = Question { hours: DRIFT_HOURS, ..Question::default() };
    let drift = drift::look(&state, &question).await?;
    let page = state
        .store
        .read(move |connection| {
            view::Page::read(connection, host, visitor.name, now, warnings, &drift)
        })
        .await?;
    html(StatusCode::OK, page.render())
}

/// The login form, with what was wrong the last time.
///
/// # Errors
/// The template failed.
pub(crate) fn login(status: StatusCode, problem: Option<&str>) -> Result<Response, Failure> {
    html(status, view::Login { problem }.render())
}

fn html(status: StatusCode, text: Result<String, askama::Error>) -> Result<Response, Failure> {
    let text = text.map_err(|error| Failure::internal("show the page", &error))?;
    // The templates escape HTML; what is hidden or runs the other way is escaped here.
    Ok((status, Html(visible_lines(&text).into_owned())).into_response())
}

async fn picture(
    visitor: Option<Visitor>,
    State(state): State<AppState>,
    Named(digest): Named<Digest>,
) -> Result<Response, Failure> {
    if visitor.is_none() {
        return Err(Failure::unauthorized("cannot show the picture: log in first"));
    }
    payloads::upright(&state, digest).await
}

async fn style() -> Response {
    let headers = [(CONTENT_TYPE, "text/css; charset=utf-8"), (CACHE_CONTROL, "max-age=3600")];
    (headers, include_str!("../../templates/style.css")).into_response()
}
