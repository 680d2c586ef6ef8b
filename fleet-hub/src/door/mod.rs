//! What happens to a request before a handler sees it, on both HTTPS listeners.
//!
//! In this order: the request must name this hub ([`host`]); its body must fit its route
//! ([`bodies`]), of which nothing is read yet; then whoever asks must show a credential. A wrong
//! credential is counted by address and account, answered later and later ([`throttle`]), and
//! reported in the log, the audit log and the metrics ([`events`]). A right one is never refused
//! because of wrong ones: secrets have 256 bits, so guessing is hopeless at any rate, and shutting a
//! plant out is the greater danger. [`headers`] go on every answer.

pub mod bodies;
pub mod events;
pub mod headers;
pub mod host;
pub mod throttle;
mod watch;

#[cfg(test)]
mod tests;

use axum::Router;
use axum::middleware::from_fn_with_state;

pub use watch::{Asker, Later, Watch};

use crate::AppState;

/// The router with what comes before every handler: the host, then the body's limit.
pub fn before(router: Router, state: &AppState) -> Router {
    router
        .layer(from_fn_with_state(state.clone(), bodies::limit))
        .layer(from_fn_with_state(state.clone(), host::only_ours))
}
