//! The mark of a data directory that is still being made.
//!
//! `fleet-hub init` and `fleet-hub restore` place it first and remove it last. What a crash leaves
//! is named as such by the next command and is never mistaken for a hub.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::durable::{self, Access};

/// The file, within the data directory. It says what to do about it.
const FILE: &str = "unfinished";

/// Why a data directory cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum UnfinishedError {
    /// An earlier command was cut short.
    #[error("cannot use {path}: {}", .advice.trim())]
    Unfinished {
        /// The folder.
        path: PathBuf,
        /// What happened and what to do.
        advice: String,
    },
    /// The folder is in use.
    #[error(
        "cannot make a hub in {path}: it is not empty; choose another folder, or serve the hub that is there"
    )]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// A file or folder.
    #[error("cannot write {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Takes an empty data directory (made if it is not there, its owner's only) and marks it.
/// `advice` says to the next who finds it what happened and what to do.
///
/// # Errors
/// [`UnfinishedError`].
pub fn claim(data: &Path, advice: &str) -> Result<(), UnfinishedError> {
    let failed = |source| UnfinishedError::File { path: data.to_owned(), source };
    refuse(data)?;
    // Its owner's alone: keys and the database are in it.
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(failed)?;
    if std::fs::read_dir(data).map_err(failed)?.next().is_some() {
        return Err(UnfinishedError::NotEmpty { path: data.to_owned() });
    }
    let mark = data.join(FILE);
    durable::write(&mark, advice.as_bytes(), Access::Owner)
        .map_err(|source| UnfinishedError::File { path: mark, source })
}

/// Refuses a directory whose making was cut short.
///
/// # Errors
/// [`UnfinishedError::Unfinished`].
pub fn refuse(data: &Path) -> Result<(), UnfinishedError> {
    match std::fs::read_to_string(data.join(FILE)) {
        Ok(advice) => Err(UnfinishedError::Unfinished { path: data.to_owned(), advice }),
        Err(_) => Ok(()),
    }
}

/// Removes the mark: from here on the directory is a hub.
///
/// # Errors
/// The disk failed; the directory is still unfinished.
pub fn done(data: &Path) -> Result<(), UnfinishedError> {
    let mark = data.join(FILE);
    durable::remove(&mark).map_err(|source| UnfinishedError::File { path: mark, source })
}
