//! Durable files: a power cut leaves the old content or the new one, never a part of either.
//!
//! [`write()`] makes a hidden temporary file beside the target, fsyncs it, renames it over the
//! target and fsyncs the folder. One writer a file: the temporary name is fixed, so a file left
//! over by a power cut is overwritten by the next write and never collects.
//!
//! [`Slots`] keeps two generations of one document, for state whose loss would lose protection
//! (trusted release metadata, the highest order seen). Format of a slot: one line
//! `fleetloop-durable 1 <generation> <SHA-256 of the body>`, then the body. Generation `n` is
//! written to slot `n % 2`, so the generation before it is intact whatever happens. A damaged slot
//! is skipped; two damaged slots are an error and never read as "nothing there".

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fleetloop_protocol::Digest;

/// Durable files are their owner's only: keys lie among them.
const MODE: u32 = 0o600;

/// A durable file that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    /// The system refused.
    #[error("cannot {what} {}; check space, permissions and the disk", path.display())]
    Io {
        /// The operation.
        what: &'static str,
        /// The object.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// More bytes than the file may have.
    #[error("cannot read {}: it is larger than {limit} bytes; restore it or enrol anew", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// Both generations are damaged.
    #[error(
        "cannot read {}: both of its generations are damaged; restore the folder from a backup or \
         enrol the device anew", path.display()
    )]
    Damaged {
        /// The document.
        path: PathBuf,
    },
}

/// The space that the disk of `folder` has left for this process, in bytes; none when the system
/// does not say.
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

impl DurableError {
    pub(crate) fn io(what: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source }
    }

    /// Whether the disk has no room left.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
    }
}

/// Writes `bytes` to `path`: all of them or none, on the disk when this returns.
///
/// # Errors
/// [`DurableError::Io`]; the old content is then still there.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    let temporary = temporary_name(path);
    // A power cut up to the rename leaves the old content and perhaps the temporary file.
    let result = write_synced(&temporary, bytes).and_then(|()| rename(&temporary, path));
    if result.is_err() {
        // Makes room again on a full disk; the next write would overwrite it anyway.
        fs::remove_file(&temporary).ok();
    }
    result
}

/// Moves `from` to `to` within one file system, on the disk when this returns. A power cut leaves
/// it under one of the two names.
///
/// # Errors
/// [`DurableError::Io`].
pub fn rename(from: &Path, to: &Path) -> Result<(), DurableError> {
    fs::rename(from, to).map_err(|source| DurableError::io("put in place", to, source))?;
    sync_parent(to)
}

/// The content of `path`; none when it is not there.
///
/// # Errors
/// [`DurableError::TooLarge`] over `limit` bytes, [`DurableError::Io`] otherwise.
pub fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, DurableError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DurableError::io("open", path, error)),
    };
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|source| DurableError::io("read", path, source))?;
    if bytes.len() as u64 > limit {
        return Err(DurableError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(Some(bytes))
}

/// Makes a folder and the ones above it, for the owner only, on the disk when this returns.
///
/// # Errors
/// [`DurableError::Io`].
pub fn create_dir(path: &Path) -> Result<(), DurableError> {
    if path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| DurableError::io("make folder", path, source))?;
    sync_parent(path)
}

/// Removes a file if it is there.
///
/// # Errors
/// [`DurableError::Io`].
pub fn remove(path: &Path) -> Result<(), DurableError> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(source) => Err(DurableError::io("remove", path, source)),
    }
}

/// Fsyncs a folder, so that the names in it are on the disk.
///
/// # Errors
/// [`DurableError::Io`].
pub fn sync_dir(path: &Path) -> Result<(), DurableError> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(|source| DurableError::io("sync folder", path, source))
}

fn sync_parent(path: &Path) -> Result<(), DurableError> {
    path.parent().map_or(Ok(()), sync_dir)
}

fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp"))
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    let error = |source| DurableError::io("write", path, source);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(MODE)
        .open(path)
        .map_err(error)?;
    // The mode above holds for a new file only, and is subject to the umask.
    file.set_permissions(Permissions::from_mode(MODE)).map_err(error)?;
    file.write_all(bytes).map_err(error)?;
    file.sync_all().map_err(error)
}

/// Two generations of one document.
#[derive(Debug, Clone)]
pub struct Slots {
    dir: PathBuf,
    name: String,
    limit: u64,
}

/// The bytes a slot's first line takes at most.
const HEADER_BYTES: u64 = 128;

impl Slots {
    /// The document `name` in `dir`, of at most `limit` bytes. The folder must exist.
    pub fn new(dir: &Path, name: &str, limit: u64) -> Self {
        Self { dir: dir.to_owned(), name: name.to_owned(), limit }
    }

    /// The newest intact generation and its body; none when nothing was ever written.
    ///
    /// # Errors
    /// [`DurableError::Damaged`] when slots exist and none is intact.
    pub fn read(&self) -> Result<Option<(u64, Vec<u8>)>, DurableError> {
        let mut newest: Option<(u64, Vec<u8>)> = None;
        let mut damaged = false;
        for slot in 0..2 {
            let bytes = match read(&self.path(slot), self.limit + HEADER_BYTES) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => continue,
                Err(DurableError::TooLarge { .. }) => Vec::new(),
                Err(error) => return Err(error),
            };
            match parse_slot(&bytes) {
                Some((generation, body)) => {
                    if newest.as_ref().is_none_or(|(best, _)| generation > *best) {
                        newest = Some((generation, body.to_vec()));
                    }
                }
                None => damaged = true,
            }
        }
        if newest.is_none() && damaged {
            return Err(DurableError::Damaged { path: self.dir.join(&self.name) });
        }
        Ok(newest)
    }

    /// Writes the next generation and returns its number.
    ///
    /// # Errors
    /// [`DurableError::Io`]; the generation before is then still the newest.
    pub fn write(&self, body: &[u8]) -> Result<u64, DurableError> {
        let generation = self.read()?.map_or(1, |(generation, _)| generation + 1);
        let digest = Digest::of(body);
        let mut bytes = format!("fleetloop-durable 1 {generation} {digest}\n").into_bytes();
        bytes.extend_from_slice(body);
        write(&self.path(generation % 2), &bytes)?;
        Ok(generation)
    }

    /// Removes both generations, for a document that may begin anew.
    ///
    /// # Errors
    /// [`DurableError::Io`].
    pub fn clear(&self) -> Result<(), DurableError> {
        (0..2).try_for_each(|slot| remove(&self.path(slot)))
    }

    fn path(&self, slot: u64) -> PathBuf {
        self.dir.join(format!("{}.{slot}", self.name))
    }
}

fn parse_slot(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let end = bytes.iter().take(HEADER_BYTES as usize).position(|byte| *byte == b'\n')?;
    let header = std::str::from_utf8(&bytes[..end]).ok()?;
    let body = &bytes[end + 1..];
    let mut words = header.strip_prefix("fleetloop-durable 1 ")?.split(' ');
    let generation = words.next()?.parse().ok()?;
    let digest: Digest = words.next()?.parse().ok()?;
    (words.next().is_none() && digest == Digest::of(body)).then_some((generation, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_cut_before_the_rename_leaves_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        write(&path, b"old").unwrap();
        // The cut: the temporary file is there in part, the rename never happened.
        write_synced(&temporary_name(&path), b"ne").unwrap();
        assert_eq!(read(&path, 10).unwrap().unwrap(), b"old");
        write(&path, b"new").unwrap();
        assert_eq!(read(&path, 10).unwrap().unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing collects");
    }

    #[test]
    fn a_file_is_its_owners_even_over_a_leftover_that_was_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_synced(&temporary_name(&path), b"x").unwrap();
        fs::set_permissions(temporary_name(&path), Permissions::from_mode(0o644)).unwrap();
        write(&path, b"secret").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_over_its_limit_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("big");
        write(&path, &[0; 11]).unwrap();
        assert!(matches!(read(&path, 10), Err(DurableError::TooLarge { limit: 10, .. })));
        assert!(read(&dir.path().join("none"), 10).unwrap().is_none());
    }

    #[test]
    fn a_damaged_generation_falls_back_to_the_one_before_and_two_are_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let slots = Slots::new(dir.path(), "trusted", 100);
        assert!(slots.read().unwrap().is_none());
        assert_eq!(slots.write(b"one").unwrap(), 1);
        assert_eq!(slots.write(b"two").unwrap(), 2);
        assert_eq!(slots.read().unwrap().unwrap(), (2, b"two".to_vec()));
        damage(&slots.path(0));
        assert_eq!(slots.read().unwrap().unwrap(), (1, b"one".to_vec()));
        assert_eq!(slots.write(b"three").unwrap(), 2, "the damaged slot is the one replaced");
        damage(&slots.path(0));
        damage(&slots.path(1));
        assert!(matches!(slots.read(), Err(DurableError::Damaged { .. })));
        assert!(slots.write(b"four").is_err(), "damage is never overwritten in silence");
    }

    fn damage(path: &Path) {
        let mut bytes = read(path, 1000).unwrap().unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        write(path, &bytes).unwrap();
    }
}
