//! Keys over HTTP; all of it is an admin's.

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use fleetloop_protocol::api::hosts::Retire;
use fleetloop_protocol::api::keys::{KeyName, KeyState, NextKey, RootChain, SignedRoot};

use super::work::{self, KeyError};
use crate::AppState;
use crate::api::auth::AdminCaller;
use crate::api::error::Failure;
use crate::api::extract::{Json, Named};

/// The endpoints.
pub fn router() -> Router<AppState> {
    Router::new()
        .route("/keys", get(list))
        .route("/keys/roots", get(roots).post(take_root))
        .route("/keys/ca/retire", post(retire))
        .route("/keys/{key}/next", post(next))
        .route("/keys/{key}/renew", post(renew))
        .route("/keys/{key}/rotate", post(rotate))
}

async fn list(
    _caller: AdminCaller,
    State(state): State<AppState>,
) -> Result<axum::Json<Vec<KeyState>>, Failure> {
    answer(&state).await
}

async fn roots(
    _caller: AdminCaller,
    State(state): State<AppState>,
) -> Result<axum::Json<RootChain>, Failure> {
    Ok(axum::Json(work::roots(&state).await?))
}

async fn take_root(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Json(signed): Json<SignedRoot>,
) -> Result<axum::Json<Vec<KeyState>>, Failure> {
    work::take_root(&state, signed.root, &caller.name).await?;
    answer(&state).await
}

async fn next(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Named(key): Named<KeyName>,
) -> Result<axum::Json<NextKey>, Failure> {
    Ok(axum::Json(work::next_key(&state, key, &caller.name).await?))
}

async fn renew(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Named(key): Named<KeyName>,
) -> Result<axum::Json<Vec<KeyState>>, Failure> {
    work::renew(&state, &state.pki, key, &caller.name).await?;
    answer(&state).await
}

async fn rotate(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Named(key): Named<KeyName>,
) -> Result<axum::Json<Vec<KeyState>>, Failure> {
    work::rotate(&state, &state.pki, key, &caller.name).await?;
    answer(&state).await
}

async fn retire(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Json(request): Json<Retire>,
) -> Result<axum::Json<Vec<KeyState>>, Failure> {
    work::retire_ca(&state, &state.pki, &request, &caller.name).await?;
    answer(&state).await
}

async fn answer(state: &AppState) -> Result<axum::Json<Vec<KeyState>>, Failure> {
    Ok(axum::Json(super::read(state).await?))
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        let text = error.to_string();
        match error {
            KeyError::NotThis { .. } => Self::conflict(text),
            KeyError::Release(error) => error.into(),
            KeyError::Store(error) => error.into(),
            KeyError::Pki(error) => Self::internal("work with the hub's keys", &error),
        }
    }
}
