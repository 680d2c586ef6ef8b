//! Files of the scenarios: written beside their place and renamed, so that a process that reads
//! one sees the old or the new and never a half.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Puts `bytes` at `path` in one step.
///
/// # Errors
/// When the file system refuses.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let write = || {
        File::create(&fresh)?.write_all(bytes)?;
        std::fs::rename(&fresh, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Makes a folder and those above it.
///
/// # Errors
/// When the file system refuses.
pub fn folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path)
        .with_context(|| format!("cannot make the folder {}", path.display()))
}
