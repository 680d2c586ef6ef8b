//! Writing the archive of a running hub, encrypted, while it is sent.
//!
//! When something fails underway the answer breaks off, so whoever reads it sees a file that ends
//! early: `age` proves where a file ends, and opening such a one fails.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use fleetloop_protocol::UnixMillis;
use rusqlite::OpenFlags;
use tempfile::NamedTempFile;

use super::{ABOUT, About, FORMAT, key};
use crate::config::Config;
use crate::store::DATABASE;

/// Why the database could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The disk.
    #[error("cannot make a file beside the database")]
    File(#[source] io::Error),
    /// The database.
    #[error("cannot copy the database")]
    Sqlite(#[source] rusqlite::Error),
    /// The copy fails SQLite's own check.
    #[error("cannot copy the database: it is damaged ({0}); restore the hub from an older backup")]
    Damaged(String),
}

/// A copy of the database beside it, whole and checked; gone when the value is dropped.
#[derive(Debug)]
pub struct Copy {
    file: NamedTempFile,
    made_at: UnixMillis,
}

/// Copies the database at `source` and checks the copy. Blocks.
///
/// # Errors
/// [`CopyError`].
pub fn copy_database(source: &Path, now: UnixMillis) -> Result<Copy, CopyError> {
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
    match integrity(copy.path()).map_err(CopyError::Sqlite)? {
        None => Ok(Copy { file: copy, made_at: now }),
        Some(verdict) => Err(CopyError::Damaged(verdict)),
    }
}

/// What SQLite finds wrong with the database at `path`; none when it is whole.
///
/// # Errors
/// It cannot be opened or read.
pub fn integrity(path: &Path) -> rusqlite::Result<Option<String>> {
    let connection = rusqlite::Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let verdict: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    Ok((verdict != "ok").then_some(verdict))
}

/// Writes the whole archive to `out`, encrypted to the recipients of `config`.
///
/// # Errors
/// A file cannot be read, `out` fails, or a recipient cannot be used.
pub fn write<W: Write>(
    config: &Config,
    database: &Copy,
    with_payloads: bool,
    out: W,
) -> io::Result<()> {
    let recipients: Vec<age::x25519::Recipient> = config
        .backup_recipients
        .iter()
        .map(|text| key::recipient(text).map_err(io::Error::other))
        .collect::<io::Result<_>>()?;
    let recipients = recipients.iter().map(|recipient| {
        let recipient: &dyn age::Recipient = recipient;
        recipient
    });
    let encryptor = age::Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
    let mut tar = tar::Builder::new(encryptor.wrap_output(out)?);
    let about = About {
        format: FORMAT,
        hub_version: env!("CARGO_PKG_VERSION").to_owned(),
        made_at: database.made_at,
        with_payloads,
    };
    let about = serde_json::to_vec_pretty(&about).map_err(io::Error::other)?;
    tar.append_data(&mut header(about.len() as u64), ABOUT, about.as_slice())?;
    let paths = &config.paths;
    add(&mut tar, database.file.path(), Path::new(DATABASE))?;
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
    tar.into_inner()?.finish()?.flush()
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
    tar.append_data(&mut header(len), name, source.take(len))
}

fn header(len: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(len);
    header.set_mode(0o600);
    header
}
