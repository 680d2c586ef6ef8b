//! Tokens of the API: list, make, rotate, revoke; for admins.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use fleetloop_protocol::UnixMillis;
use fleetloop_protocol::api::ApiAccess;
use fleetloop_protocol::api::tokens::{
    ApiToken, MadeApiToken, NewApiToken, RevokeApiToken, RotateApiToken, TokenId,
};

use super::auth::AdminCaller;
use super::error::Failure;
use super::extract::{Json, Named};
use crate::AppState;
use crate::durable::{self, Access};
use crate::init::ACCESS_FILES;
use crate::store::tokens::{self, TokenRow};

/// The endpoints.
pub fn router() -> Router<AppState> {
    Router::new()
        .route("/tokens", get(list).post(add))
        .route("/tokens/{id}/rotate", post(rotate))
        .route("/tokens/{id}/revoke", post(revoke))
}

async fn list(
    _caller: AdminCaller,
    State(state): State<AppState>,
) -> Result<axum::Json<Vec<ApiToken>>, Failure> {
    let now = state.clock.now();
    let rows = state.store.read(move |connection| tokens::list(connection, now)).await?;
    Ok(axum::Json(rows.into_iter().map(|row| as_of_now(&state, row)).collect()))
}

/// With the last use that is not in the database yet.
fn as_of_now(state: &AppState, row: TokenRow) -> ApiToken {
    let newest = state.last_use.of(row.sha256).map(|UnixMillis(at)| at);
    let last_used_at_ms = newest.max(row.about.last_used_at_ms);
    ApiToken { last_used_at_ms, ..row.about }
}

async fn add(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Json(wanted): Json<NewApiToken>,
) -> Result<(StatusCode, axum::Json<MadeApiToken>), Failure> {
    let now = state.clock.now();
    let made = state.store.write(move |tx| tokens::add(tx, &wanted, &caller.name, now)).await?;
    let (token, about) = made;
    Ok((StatusCode::CREATED, axum::Json(MadeApiToken { token, about })))
}

/// The row first, then the access file of this hub that holds the old token, if one does: a crash
/// between leaves a file whose token works until the overlap ends, and rotating it again mends that.
async fn rotate(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Named(id): Named<TokenId>,
    Json(request): Json<RotateApiToken>,
) -> Result<(StatusCode, axum::Json<MadeApiToken>), Failure> {
    let (now, overlap_s) = (state.clock.now(), request.overlap_s);
    let old = {
        let id = id.clone();
        state.store.read(move |connection| tokens::get(connection, &id, now)).await?
    };
    let made =
        state.store.write(move |tx| tokens::rotate(tx, &id, overlap_s, &caller.name, now)).await?;
    let (token, about) = made;
    let (data, text) = (state.config.paths.data.clone(), token.clone());
    let written = tokio::task::spawn_blocking(move || own_access_file(&data, old.sha256, &text));
    match written.await {
        Ok(Ok(Some(file))) => tracing::info!(file, token = %about.id, "access file written anew"),
        Ok(Ok(None)) => {}
        Ok(Err(error)) => {
            return Err(Failure::internal("write the hub's own access file", &error));
        }
        Err(error) => return Err(Failure::internal("write the hub's own access file", &error)),
    }
    Ok((StatusCode::CREATED, axum::Json(MadeApiToken { token, about })))
}

/// Puts a token into the access file of this hub that holds the old one; the file's name. The worker
/// that the hub starts takes it from there.
fn own_access_file(
    data: &std::path::Path,
    old: fleetloop_protocol::Digest,
    token: &str,
) -> std::io::Result<Option<&'static str>> {
    for name in ACCESS_FILES {
        let path = data.join(name);
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let Ok(access) = toml::from_str::<ApiAccess>(&text) else { continue };
        if fleetloop_protocol::Digest::of(access.token.as_bytes()) != old {
            continue;
        }
        let access = ApiAccess { token: token.to_owned(), ..access };
        let text = toml::to_string(&access).map_err(std::io::Error::other)?;
        durable::write(&path, text.as_bytes(), Access::Owner)?;
        return Ok(Some(name));
    }
    Ok(None)
}

async fn revoke(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Named(id): Named<TokenId>,
    Json(request): Json<RevokeApiToken>,
) -> Result<axum::Json<ApiToken>, Failure> {
    let now = state.clock.now();
    let revoked = state
        .store
        .write(move |tx| tokens::revoke(tx, &id, request.last_admin, &caller.name, now))
        .await?;
    Ok(axum::Json(revoked))
}
