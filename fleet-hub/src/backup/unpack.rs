//! Opening an archive: decrypted, read to its end, every entry checked.
//!
//! Invariants: only plain files with plain relative paths below the folders of a hub are taken, each
//! for its owner only; an archive that is cut, altered or encrypted to another key is an error, and
//! what was unpacked until then is not a hub ([`crate::unfinished`]).

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use super::key::Identities;
use super::{ABOUT, About, FORMAT, archive};
use crate::store::DATABASE;

/// The most bytes of [`ABOUT`].
const ABOUT_BYTES: u64 = 64 * 1024;

/// Why an archive cannot be trusted or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive cannot be read.
    #[error("cannot read backup {archive}")]
    Read {
        /// The archive.
        archive: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The key does not open it, or it is no backup.
    #[error(
        "cannot open backup {archive}: it is not a backup of a fleet-hub, or is encrypted to \
         another key; use the key of the hub that made it"
    )]
    Closed {
        /// The archive.
        archive: PathBuf,
        /// What the decryption met.
        #[source]
        source: age::DecryptError,
    },
    /// It is cut or altered.
    #[error("cannot trust backup {archive}: it is cut or damaged; use another one")]
    Damaged {
        /// The archive.
        archive: PathBuf,
        /// What was met.
        #[source]
        source: io::Error,
    },
    /// It is whole, and not what a backup is.
    #[error("cannot trust backup {archive}: {reason}")]
    Content {
        /// The archive.
        archive: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file or folder of the new hub.
    #[error("cannot write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What an archive holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// How it was made.
    pub about: About,
    /// Its files, without [`ABOUT`].
    pub entries: Vec<String>,
}

/// Reads a whole archive and unpacks it into `data`, or, without one, only checks it. `seen` is
/// called with the bytes of each entry. Blocks. What is unpacked is on the disk when it returns.
///
/// # Errors
/// [`UnpackError`].
pub fn unpack(
    archive: &Path,
    identities: &Identities,
    data: Option<&Path>,
    mut seen: impl FnMut(u64),
) -> Result<Contents, UnpackError> {
    let read = |source| UnpackError::Read { archive: archive.to_owned(), source };
    let damaged = |source| UnpackError::Damaged { archive: archive.to_owned(), source };
    let content = |reason: String| UnpackError::Content { archive: archive.to_owned(), reason };
    let file = BufReader::new(File::open(archive).map_err(read)?);
    let reader = age::Decryptor::new_buffered(file)
        .and_then(|decryptor| decryptor.decrypt(identities.iter()))
        .map_err(|source| UnpackError::Closed { archive: archive.to_owned(), source })?;
    let mut tar = tar::Archive::new(reader);
    let mut about = None;
    let mut entries = Vec::new();
    for entry in tar.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let len = entry.header().size().map_err(damaged)?;
        let path = entry.path().map_err(damaged)?.into_owned();
        if about.is_none() {
            about = Some(read_about(&path, &mut entry).map_err(content)?);
            continue;
        }
        if !entry.header().entry_type().is_file() || !is_a_hubs(&path) {
            return Err(content(format!("it holds {}, which no hub has", path.display())));
        }
        match data {
            Some(data) => place(&data.join(&path), &mut entry)?,
            None => io::copy(&mut entry, &mut io::sink()).map(drop).map_err(damaged)?,
        }
        entries.push(path.display().to_string());
        seen(len);
    }
    // Behind tar's end marker: only the decryption's own end proves that nothing was cut off.
    io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(damaged)?;
    let about = about.ok_or_else(|| content("it is empty".into()))?;
    if !entries.iter().any(|name| name == DATABASE) {
        return Err(content(format!("it holds no {DATABASE}")));
    }
    if let Some(data) = data {
        let database = data.join(DATABASE);
        let verdict = archive::integrity(&database).map_err(|error| content(error.to_string()))?;
        if let Some(verdict) = verdict {
            return Err(content(format!("its database says {verdict:?}")));
        }
        sync(data)?;
    }
    Ok(Contents { about, entries })
}

fn read_about(path: &Path, entry: &mut impl Read) -> Result<About, String> {
    if path != Path::new(ABOUT) {
        return Err(format!("it does not begin with {ABOUT}"));
    }
    let mut bytes = Vec::new();
    entry.take(ABOUT_BYTES).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let about: About =
        serde_json::from_slice(&bytes).map_err(|error| format!("{ABOUT}: {error}"))?;
    if about.format != FORMAT {
        let found = about.format;
        return Err(format!(
            "its format is {found}, this build reads {FORMAT}; restore it with the version that \
             made it ({})",
            about.hub_version
        ));
    }
    Ok(about)
}

/// Whether a hub has a file of that path: a plain one at the top, or below one of its folders.
fn is_a_hubs(path: &Path) -> bool {
    let mut parts = path.components();
    let Some(Component::Normal(first)) = parts.next() else { return false };
    let first = first.to_string_lossy();
    let mut rest = parts.peekable();
    if rest.peek().is_none() {
        return first == DATABASE || (first.ends_with(".toml") && !first.starts_with('.'));
    }
    ["pki", "tuf", "payloads", "artefacts"].contains(&first.as_ref())
        && rest.all(|part| matches!(part, Component::Normal(_)))
}

fn place(path: &Path, from: &mut impl Read) -> Result<(), UnpackError> {
    let failed = |source| UnpackError::Write { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    io::copy(from, &mut file).map(drop).map_err(failed)
}

/// One sync of the whole file system: an archive may hold a million small files.
fn sync(data: &Path) -> Result<(), UnpackError> {
    let failed = |source| UnpackError::Write { path: data.to_owned(), source };
    let folder = File::open(data).map_err(failed)?;
    rustix::fs::syncfs(&folder).map_err(|error| failed(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_hub_has_is_unpacked() {
        for good in ["hub.db", "hub.toml", "admin.toml", "pki/ca.key", "tuf/dev/targets/a/b.toml"] {
            assert!(is_a_hubs(Path::new(good)), "{good}");
        }
        for bad in [
            "../hub.db",
            "/etc/passwd",
            "pki/../../x",
            "hub.db-wal",
            ".hidden.toml",
            "uploads/x",
            "etc/cron.d/x",
            "",
        ] {
            assert!(!is_a_hubs(Path::new(bad)), "{bad}");
        }
    }
}
