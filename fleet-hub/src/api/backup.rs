//! The backup: everything a hub needs to come back, as one tar that is made while it is sent.
//!
//! Contents, in this order: `hub.db` (a consistent copy, made by SQLite's `VACUUM INTO`), the
//! `*.toml` files of the data directory (configuration and access files), `pki/`, `tuf/` and, when
//! asked for, `payloads/` and `artefacts/`. Not the offline root key: the hub never has it. Not
//! `uploads/`: nothing there has a receipt, so devices still have it.
//!
//! Consistency: the database first, because releases that the repository has and the database has
//! not are adopted at the next start; then `timestamp.json` before the files it names, which never
//! change; files by content hash never change at all. Rows whose payload came after the copy do not
//! exist in it. When something fails underway the answer breaks off, and whoever reads it sees an
//! archive that ends early; `fleet-hub backup` then discards it.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use rusqlite::OpenFlags;
use serde::Deserialize;
use tempfile::NamedTempFile;
use tokio::sync::mpsc;

use super::auth::AdminCaller;
use super::error::Failure;
use super::extract::Params;
use crate::AppState;
use crate::config::Paths;
use crate::store::{DATABASE, audit};

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
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Params(query): Params<Query>,
) -> Result<Response, Failure> {
    let size = tokio::fs::metadata(state.store.path()).await.map_or(0, |meta| meta.len());
    state.artefacts.room_for(size)?;
    let detail = if query.with_payloads { "with payloads and artefacts" } else { "" };
    state.store.write(move |tx| audit(tx, &caller.name, "backup", "hub", detail)).await?;
    let paths = state.config.paths.clone();
    let source = state.store.path().to_owned();
    let database = tokio::task::spawn_blocking(move || copy_database(&source))
        .await
        .map_err(|error| Failure::internal("make a backup", &error))?
        .map_err(|error| Failure::internal("copy the database", &error))?;
    let (pieces, mut answer) = mpsc::channel::<Result<Bytes, io::Error>>(PIECES);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = archive(&paths, &database, query.with_payloads, pieces.clone()) {
            tracing::error!(%error, "cannot finish a backup");
            // The reader hears of it by a body that breaks off; one that is gone need not.
            let _ = pieces.blocking_send(Err(error));
        }
    });
    let stream = futures::stream::poll_fn(move |context| answer.poll_recv(context));
    let headers = [
        (CONTENT_TYPE, "application/x-tar"),
        (CONTENT_DISPOSITION, "attachment; filename=\"fleet-hub-backup.tar\""),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}

/// Why the database could not be copied.
#[derive(Debug, thiserror::Error)]
enum CopyError {
    #[error("cannot make a file beside the database")]
    File(#[source] io::Error),
    #[error("cannot copy the database")]
    Sqlite(#[source] rusqlite::Error),
}

/// A copy of the database beside it, gone when the value is dropped.
fn copy_database(source: &Path) -> Result<NamedTempFile, CopyError> {
    let folder = source.parent().unwrap_or(Path::new("."));
    let copy = tempfile::Builder::new()
        .prefix("backup-")
        .suffix(".tmp")
        .tempfile_in(folder)
        .map_err(CopyError::File)?;
    // SQLite takes a file that is there if it is empty; this one is 0600 already.
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        rusqlite::Connection::open_with_flags(source, flags).map_err(CopyError::Sqlite)?;
    connection
        .execute("VACUUM INTO ?1", [copy.path().to_string_lossy()])
        .map_err(CopyError::Sqlite)?;
    Ok(copy)
}

fn archive(
    paths: &Paths,
    database: &NamedTempFile,
    with_payloads: bool,
    pieces: mpsc::Sender<Result<Bytes, io::Error>>,
) -> io::Result<()> {
    let mut tar = tar::Builder::new(io::BufWriter::with_capacity(PIECE_BYTES, Pieces(pieces)));
    add(&mut tar, database.path(), Path::new(DATABASE))?;
    for file in files(&paths.data, |name| name.ends_with(".toml"))? {
        add_below(&mut tar, &paths.data, &file)?;
    }
    let mut folders = vec![paths.pki(), paths.tuf()];
    if with_payloads {
        folders.extend([paths.payloads(), paths.artefacts()]);
    }
    for folder in folders {
        add_folder(&mut tar, &paths.data, &folder)?;
    }
    tar.into_inner()?.flush()
}

fn add_folder<W: Write>(tar: &mut tar::Builder<W>, data: &Path, folder: &Path) -> io::Result<()> {
    // The mutable file first: what it names is there already and never changes.
    for file in files(folder, |name| name == "timestamp.json")? {
        add_below(tar, data, &file)?;
    }
    for file in files(folder, |name| name != "timestamp.json" && !is_staged(name))? {
        add_below(tar, data, &file)?;
    }
    let mut folders: Vec<PathBuf> = std::fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()?;
    folders.retain(|path| path.is_dir() && !path.is_symlink());
    folders.sort();
    folders.iter().try_for_each(|folder| add_folder(tar, data, folder))
}

/// Whether a file is one that is being written.
fn is_staged(name: &str) -> bool {
    name.contains('#') || name.ends_with(".tmp") || name.starts_with('.')
}

/// The plain files of a folder whose name fits, by name.
fn files(folder: &Path, fits: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && fits(&entry.file_name().to_string_lossy()) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn add_below<W: Write>(tar: &mut tar::Builder<W>, data: &Path, file: &Path) -> io::Result<()> {
    let name = file.strip_prefix(data).map_err(io::Error::other)?;
    match add(tar, file, name) {
        // Replaced or swept since the folder was listed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Adds a file, owner-only: a backup holds keys.
fn add<W: Write>(tar: &mut tar::Builder<W>, file: &Path, name: &Path) -> io::Result<()> {
    let source = File::open(file)?;
    let len = source.metadata()?.len();
    let mut header = tar::Header::new_gnu();
    header.set_size(len);
    header.set_mode(0o600);
    tar.append_data(&mut header, name, source.take(len))
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
