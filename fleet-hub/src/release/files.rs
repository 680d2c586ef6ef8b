//! The repository's files: metadata that is replaced whole, keys that are made once, one lock.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use fleetloop_protocol::keys::SigningKey;

use super::ReleaseError;
use crate::durable::{self, Access};

/// The largest metadata file that is read, in bytes: about 10,000 targets.
pub(super) const METADATA_BYTES: u64 = 4 * 1024 * 1024;

/// The permissions of a private key.
const SECRET: u32 = 0o600;

/// Replaces (or makes) the file that everybody may read, as [`durable::write`] does.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), ReleaseError> {
    durable::write(path, bytes, Access::Everybody).map_err(|source| ReleaseError::Io {
        what: "write",
        path: path.to_owned(),
        source,
    })
}

/// Waits until nobody else signs for the repository in `dir`, and keeps it so while the file lives.
pub(super) fn lock(dir: &Path) -> Result<File, ReleaseError> {
    let path = dir.join("lock");
    let failed = |source| ReleaseError::Io { what: "lock", path: path.clone(), source };
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|error| failed(error.into()))?;
    Ok(file)
}

/// Makes a private key that must not be there yet, and keeps it readable by its owner only.
pub(super) fn make_key(path: &Path) -> Result<SigningKey, ReleaseError> {
    let pkcs8 = SigningKey::generate_pkcs8().map_err(ReleaseError::Key)?;
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::AlreadyExists => ReleaseError::KeyExists { path: path.to_owned() },
        _ => ReleaseError::Io { what: "write", path: path.to_owned(), source },
    };
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(SECRET).open(path).map_err(failed)?;
    file.write_all(&pkcs8).and_then(|()| file.sync_all()).map_err(failed)?;
    sync_folder(path)?;
    SigningKey::from_pkcs8(&pkcs8).map_err(ReleaseError::Key)
}

/// Reads a private key.
pub(super) fn read_key(path: &Path) -> Result<SigningKey, ReleaseError> {
    SigningKey::from_pkcs8(&read(path)?).map_err(ReleaseError::Key)
}

/// Reads a file of the repository, at most [`METADATA_BYTES`].
pub(super) fn read(path: &Path) -> Result<Vec<u8>, ReleaseError> {
    let failed = |source| ReleaseError::Io { what: "read", path: path.to_owned(), source };
    if fs::metadata(path).map_err(failed)?.len() > METADATA_BYTES {
        return Err(failed(std::io::Error::other("it is larger than release metadata can be")));
    }
    fs::read(path).map_err(failed)
}

/// Makes a folder and those above it.
pub(super) fn make_folder(path: &Path) -> Result<(), ReleaseError> {
    fs::create_dir_all(path).map_err(|source| ReleaseError::Io {
        what: "make",
        path: path.to_owned(),
        source,
    })
}

/// Gives a file another name, durably, in the place of what has that name.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), ReleaseError> {
    fs::rename(from, to).map_err(|source| ReleaseError::Io {
        what: "rename",
        path: from.to_owned(),
        source,
    })?;
    sync_folder(to)
}

fn sync_folder(path: &Path) -> Result<(), ReleaseError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| ReleaseError::Io {
        what: "sync",
        path: folder.to_owned(),
        source,
    })
}
