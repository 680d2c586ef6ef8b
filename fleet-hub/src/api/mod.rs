//! The HTTP API of the admin listener, and the page beside it.
//!
//! `docs/api.md` lists each endpoint with its role. Input goes through [`extract`], callers through
//! [`auth`], errors through [`mod@error`]; a handler is what is left. What comes before all of them,
//! a body's limit for instance, is in [`mod@crate::door`].

pub mod artefacts;
pub mod auth;
pub mod backup;
pub mod datasets;
pub mod devices;
pub mod drift;
pub mod error;
pub mod extract;
pub mod findings;
pub mod imports;
pub mod labels;
pub mod payloads;
pub mod reports;
pub mod samples;
pub mod status;
pub mod tokens;

#[cfg(test)]
mod import_tests;
#[cfg(test)]
mod removal_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod token_tests;

use axum::Router;
use axum::http::Uri;
use axum::middleware::from_fn_with_state;

use crate::AppState;
use error::Failure;

/// Where the API begins.
pub const PREFIX: &str = "/api/v1";

/// Everything the admin listener serves but enrolment: `/api/v1`, the page, `/metrics`, `/healthz`.
pub fn router(state: AppState) -> Router {
    let v1 = Router::new()
        .merge(devices::router())
        .merge(drift::router())
        .merge(findings::router())
        .merge(samples::router())
        .merge(imports::router())
        .merge(payloads::router())
        .merge(reports::router())
        .merge(labels::router())
        .merge(datasets::router())
        .merge(artefacts::router())
        .merge(backup::router())
        .merge(status::router())
        .merge(tokens::router())
        .merge(crate::hosts::http::router())
        .merge(crate::jobs::http::router())
        .merge(crate::keys::http::router())
        .merge(crate::registry::http::router())
        .merge(crate::release::http::router())
        .merge(crate::rollout::http::router())
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(state.clone(), auth::first));
    Router::new()
        .nest(PREFIX, v1)
        .merge(status::beside())
        .merge(crate::pages::router())
        .with_state(state)
}

async fn unknown(uri: Uri) -> Failure {
    Failure::not_found(format!(
        "cannot find {PREFIX}{}: there is no such endpoint; see docs/api.md",
        uri.path()
    ))
}

async fn wrong_method(uri: Uri) -> Failure {
    Failure::new(
        axum::http::StatusCode::METHOD_NOT_ALLOWED,
        "method",
        format!("cannot use this method on {PREFIX}{}; see docs/api.md", uri.path()),
    )
}
