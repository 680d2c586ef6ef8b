//! Files of ours are their owner's only.
//!
//! [`from_now_on`] comes first in every `main`: what the program makes from then on, through whatever
//! library, other users can neither read nor enter. [`secure`] is for a data folder that was there
//! before: it closes the folder and, if it was open, everything in it. A folder or file that belongs
//! to another user is refused, with the command that mends it: whoever owns a file can change it
//! whatever its mode says.
//!
//! What is the system administrator's (a file system's `lost+found`) is no other user's.
//!
//! A folder that is closed already is not walked, for nobody else gets to what is in it. Links are
//! not followed, except those right in the folder: an operator may keep payloads on another disk.

use std::fs::{self, Metadata, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

/// What other users may do, in a mode.
const OTHERS: u32 = 0o077;

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// It belongs to another user.
    #[error(
        "cannot use {}: it belongs to user {owner}, and this program runs as user {user}; run it as that user, or type: chown -hR {user} '{}'",
        .path.display(), .path.display()
    )]
    Owner {
        /// The file or folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// It is open to others and could not be closed, or could not be looked at.
    #[error(
        "cannot close {} to other users; type: chmod -R go= '{}'",
        .path.display(), .path.display()
    )]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// From now on, what this process makes is its user's only.
pub fn from_now_on() {
    rustix::process::umask(Mode::from_raw_mode(OTHERS));
}

/// Closes the data folder and what is in it to other users, and logs it if it was open. A folder
/// that is not there is no error.
///
/// # Errors
/// [`PrivateError`]: something belongs to another user, or cannot be closed.
pub fn secure(folder: &Path) -> Result<(), PrivateError> {
    let user = rustix::process::geteuid().as_raw();
    let closed = close_folder(folder, user, true)?;
    if closed > 0 {
        tracing::warn!(
            folder = %folder.display(),
            closed,
            "the data folder was open to other users of this machine, and is closed now; change the secrets in it if others may have read them"
        );
    }
    Ok(())
}

/// How many files and folders were closed.
fn close_folder(folder: &Path, user: u32, is_top: bool) -> Result<usize, PrivateError> {
    let failed = |source| PrivateError::Io { path: folder.to_owned(), source };
    let about = match fs::metadata(folder) {
        Ok(about) => about,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(failed(error)),
    };
    let was_open = about.mode() & OTHERS != 0;
    owned(folder, &about, user, !is_top)?;
    // The folder first: once it is closed, nobody else changes what is in it meanwhile.
    let mut closed = usize::from(close(folder, &about)?);
    if !was_open && !is_top {
        return Ok(closed);
    }
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        closed += close_entry(&path, user, is_top, was_open)?;
    }
    Ok(closed)
}

fn close_entry(
    path: &Path,
    user: u32,
    is_top: bool,
    was_open: bool,
) -> Result<usize, PrivateError> {
    let failed = |source| PrivateError::Io { path: path.to_owned(), source };
    let about = match fs::symlink_metadata(path) {
        Ok(about) => about,
        // A database's journal comes and goes.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(failed(error)),
    };
    owned(path, &about, user, true)?;
    let kind = about.file_type();
    if kind.is_symlink() {
        return if is_top && path.is_dir() { close_folder(path, user, false) } else { Ok(0) };
    }
    match (kind.is_dir(), was_open) {
        (true, true) => close_folder(path, user, false),
        (false, true) if kind.is_file() => Ok(usize::from(close(path, &about)?)),
        // The folder that holds it was closed all along.
        _ => Ok(0),
    }
}

fn owned(path: &Path, about: &Metadata, user: u32, or_root: bool) -> Result<(), PrivateError> {
    let owner = about.uid();
    if owner == user || (or_root && owner == 0) {
        return Ok(());
    }
    Err(PrivateError::Owner { path: path.to_owned(), owner, user })
}

fn close(path: &Path, about: &Metadata) -> Result<bool, PrivateError> {
    let mode = about.mode() & 0o7777;
    if mode & OTHERS == 0 {
        return Ok(false);
    }
    fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS))
        .map_err(|source| PrivateError::Io { path: path.to_owned(), source })?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn open(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn an_open_folder_is_closed_with_everything_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        fs::create_dir_all(data.join("a/b")).unwrap();
        fs::File::create(data.join("a/b/file")).unwrap();
        for (path, mode) in [("", 0o755), ("a", 0o775), ("a/b", 0o755), ("a/b/file", 0o644)] {
            open(&data.join(path), mode);
        }
        secure(&data).unwrap();
        for (path, expected) in [("", 0o700), ("a", 0o700), ("a/b", 0o700), ("a/b/file", 0o600)] {
            assert_eq!(mode(&data.join(path)), expected, "{path}");
        }
        secure(&dir.path().join("none")).unwrap();
    }

    #[test]
    fn a_link_leads_nowhere_but_to_another_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (data, disk) = (dir.path().join("data"), dir.path().join("disk"));
        fs::create_dir_all(data.join("deep")).unwrap();
        fs::create_dir(&disk).unwrap();
        fs::File::create(dir.path().join("others")).unwrap();
        fs::File::create(disk.join("payload")).unwrap();
        std::os::unix::fs::symlink(&disk, data.join("payloads")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("others"), data.join("deep/link")).unwrap();
        for path in [&data, &data.join("deep"), &disk] {
            open(path, 0o755);
        }
        open(&disk.join("payload"), 0o644);
        open(&dir.path().join("others"), 0o644);
        secure(&data).unwrap();
        assert_eq!((mode(&disk), mode(&disk.join("payload"))), (0o700, 0o600));
        assert_eq!(mode(&dir.path().join("others")), 0o644, "a link within is not followed");
    }

    #[test]
    fn what_belongs_to_another_user_is_refused_with_the_command() {
        let dir = tempfile::tempdir().unwrap();
        let us = rustix::process::geteuid().as_raw();
        let error = close_folder(dir.path(), us + 1, true).unwrap_err();
        let said = error.to_string();
        let command = format!("chown -hR {} '{}'", us + 1, dir.path().display());
        assert!(said.contains(&command) && said.contains(&format!("user {us},")), "{said}");
    }
}
