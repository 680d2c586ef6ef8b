//! Files from the hub into a folder of this machine: whole, checked against their digests, and the
//! folder appears with all of them or not at all.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use fleetloop_protocol::Digest;

use super::client::Client;
use crate::durable::sync_parent;

/// A folder under way; what is not finished is removed.
pub struct Making {
    at: PathBuf,
    wanted: PathBuf,
    finished: bool,
}

impl Making {
    /// Begins a folder that is not there yet.
    ///
    /// # Errors
    /// It is there, or cannot be made.
    pub fn begin(wanted: &Path) -> anyhow::Result<Self> {
        if wanted.exists() {
            bail!("cannot write {}: it exists; choose another --out", wanted.display());
        }
        let Some(name) = wanted.file_name() else {
            bail!("cannot write {}: it names no folder", wanted.display());
        };
        let mut part = std::ffi::OsString::from(".");
        part.push(name);
        part.push(".part");
        let at = wanted.with_file_name(part);
        // What a command that was killed left.
        let _ = fs::remove_dir_all(&at);
        fs::create_dir_all(&at).with_context(|| format!("cannot make {}", at.display()))?;
        Ok(Self { at, wanted: wanted.to_owned(), finished: false })
    }

    /// Writes a file; folders in its name are made.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.at.join(name);
        let write = || {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut file = File::create_new(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    /// The disk's.
    pub fn finish(mut self) -> anyhow::Result<()> {
        // A power cut before the rename leaves a hidden folder, which the next attempt removes.
        fs::rename(&self.at, &self.wanted)
            .and_then(|()| sync_parent(&self.wanted))
            .with_context(|| format!("cannot put {} in place", self.wanted.display()))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_dir_all(&self.at);
        }
    }
}

/// The bytes under a path of the API, which have that digest.
///
/// # Errors
/// The hub was not reached or refused, or what arrived is something else.
pub async fn bytes(
    client: &Client,
    operation: &str,
    path: &str,
    digest: Digest,
) -> anyhow::Result<Vec<u8>> {
    let mut download = client.stream(operation, path).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = download.next().await? {
        bytes.extend_from_slice(&piece);
    }
    if Digest::of(&bytes) != digest {
        bail!("cannot {operation}: what arrived does not have the digest {digest}; try again");
    }
    Ok(bytes)
}
