//! `GET /backup`: the hub's encrypted archive, made while it is sent (see [`crate::backup`]).
//!
//! A right of its own: an admin's token may not. What is sent can be opened only with the key on the
//! offline medium.

use std::io::{self, Write};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::auth::BackupCaller;
use super::error::Failure;
use super::extract::Params;
use crate::AppState;
use crate::backup::archive;
use crate::store::audit;

/// Bytes of one piece of the answer.
const PIECE_BYTES: usize = 256 * 1024;

/// Pieces on their way to a slow reader: 1 MiB.
const PIECES: usize = 4;

/// The endpoint.
pub fn router() -> Router<AppState> {
    Router::new().route("/backup", get(backup))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    #[serde(default)]
    with_payloads: bool,
}

async fn backup(
    BackupCaller(caller): BackupCaller,
    State(state): State<AppState>,
    Params(query): Params<Query>,
) -> Result<Response, Failure> {
    if state.config.backup_recipients.is_empty() {
        return Err(Failure::conflict(
            "cannot make a backup: hub.toml has no backup_recipients; add an age recipient (age1…) \
             and restart the hub",
        ));
    }
    let size = tokio::fs::metadata(state.store.path()).await.map_or(0, |meta| meta.len());
    state.artefacts.room_for(size)?;
    let detail = if query.with_payloads { "with payloads and artefacts" } else { "" };
    state.store.write(move |tx| audit(tx, &caller.name, "backup", "hub", detail)).await?;
    let (source, now) = (state.store.path().to_owned(), state.clock.now());
    let database = tokio::task::spawn_blocking(move || archive::copy_database(&source, now))
        .await
        .map_err(|error| Failure::internal("make a backup", &error))?
        .map_err(|error| Failure::internal("copy the database", &error))?;
    let (pieces, mut answer) = mpsc::channel::<Result<Bytes, io::Error>>(PIECES);
    let config = state.config.clone();
    tokio::task::spawn_blocking(move || {
        let out = io::BufWriter::with_capacity(PIECE_BYTES, Pieces(pieces.clone()));
        if let Err(error) = archive::write(&config, &database, query.with_payloads, out) {
            tracing::error!(%error, "cannot finish a backup");
            // The reader hears of it by a body that breaks off; one that is gone need not.
            let _ = pieces.blocking_send(Err(error));
        }
    });
    let stream = futures::stream::poll_fn(move |context| answer.poll_recv(context));
    let headers = [
        (CONTENT_TYPE, "application/octet-stream"),
        (CONTENT_DISPOSITION, "attachment; filename=\"fleet-hub-backup.tar.age\""),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}

/// Hands what is written to the answer; a reader that went away is a broken pipe.
struct Pieces(mpsc::Sender<Result<Bytes, io::Error>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(Ok(Bytes::copy_from_slice(bytes)))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
