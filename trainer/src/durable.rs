//! Files that a power cut or a Ctrl-C leaves whole or not at all: temporary file, fsync, rename,
//! fsync of the folder.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// How the names of files begin that are not finished; a process that is killed leaves them.
const UNFINISHED: &str = ".trainer-";

/// A file or folder that could not be written.
#[derive(Debug, Error)]
#[error("cannot {operation} {path}")]
pub struct DurableError {
    operation: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl DurableError {
    /// What could not be done with which file or folder.
    pub fn new(operation: &'static str, path: &Path, source: io::Error) -> Self {
        failed(operation, path)(source)
    }

    /// Whether there was no room.
    pub fn is_full(&self) -> bool {
        self.source.kind() == io::ErrorKind::StorageFull
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DurableError + use<> {
    let path = path.to_owned();
    move |source| DurableError { operation, path, source }
}

/// Writes a file, replacing one that is there.
///
/// # Errors
/// [`DurableError`]; the old file is then still there, whole.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    let folder = folder(path);
    place(path, folder, bytes).map_err(failed("write", path))
}

fn place(path: &Path, folder: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    // A power cut before this line leaves the old file, after it the new one.
    file.persist(path).map_err(|e| e.error)?;
    File::open(folder)?.sync_all()
}

/// Removes what killed processes left unfinished in a folder that only one process uses.
///
/// # Errors
/// The folder, which may be absent, cannot be changed.
pub fn sweep(folder: &Path) -> Result<(), DurableError> {
    let sweep = || -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    match sweep() {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("tidy", folder)(e)),
        _ => Ok(()),
    }
}

/// Writes a folder of files that is not there yet. It appears with all of them or not at all.
///
/// # Errors
/// [`DurableError`] when the folder exists or cannot be written; nothing is left behind then.
pub fn write_folder(path: &Path, files: &[(&str, &[u8])]) -> Result<(), DurableError> {
    if path.exists() {
        let taken = io::Error::new(io::ErrorKind::AlreadyExists, "it exists; choose another name");
        return Err(failed("write", path)(taken));
    }
    let parent = folder(path);
    let write = || -> io::Result<()> {
        let made = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(parent)?;
        for (name, bytes) in files {
            let mut file = File::create_new(made.path().join(name))?;
            file.write_all(bytes)?;
            file.sync_all()?;
        }
        File::open(made.path())?.sync_all()?;
        // Until this rename there is only a hidden temporary folder, removed on error.
        fs::rename(made.path(), path)?;
        let _ = made.keep();
        File::open(parent)?.sync_all()
    };
    write().map_err(failed("write", path))
}

/// Makes the folder that a file or folder is to be written in, and tries whether it can be.
///
/// # Errors
/// [`DurableError`] names that folder.
pub fn make_parent(path: &Path) -> Result<(), DurableError> {
    let parent = folder(path);
    fs::create_dir_all(parent).map_err(failed("make the folder", parent))?;
    tempfile::tempfile_in(parent).map(drop).map_err(failed("write in", parent))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_process_left_is_swept_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        sweep(&dir.path().join("absent")).unwrap();
        write(&dir.path().join("whole"), b"1").unwrap();
        let left = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(dir.path()).unwrap();
        let left = left.into_temp_path().keep().unwrap();
        sweep(dir.path()).unwrap();
        assert!(!left.exists() && dir.path().join("whole").exists());
    }

    #[test]
    fn a_folder_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bundle");
        assert!(write_folder(&path, &[("a", b"1"), ("no/such/place", b"2")]).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left of the failure");
        write_folder(&path, &[("a", b"1"), ("b", b"2")]).unwrap();
        assert_eq!(fs::read(path.join("b")).unwrap(), b"2");
        assert!(write_folder(&path, &[]).is_err(), "an existing folder is not touched");
    }

    #[test]
    fn a_parent_is_made_or_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/bundle");
        make_parent(&path).unwrap();
        write_folder(&path, &[]).unwrap();
        assert_eq!(
            fs::read_dir(dir.path().join("a/b")).unwrap().count(),
            1,
            "nothing else is left"
        );
        write(&dir.path().join("file"), b"").unwrap();
        for under in ["file/bundle", "file/more/bundle"] {
            let path = dir.path().join(under);
            let error = make_parent(&path).unwrap_err();
            let parent = path.parent().unwrap().display().to_string();
            assert!(error.to_string().contains(&parent) && !error.is_full(), "{error}");
        }
    }
}
