//! Bundles on the device's disk.
//!
//! ```text
//! data_dir/
//!   current.json                      {"current": digest, "previous": digest}
//!   bundles/<digest>/                 complete, checked at every opening
//!     .optimised                      the kept proof, see [`crate::infer::optimised`]
//!   bundles/.<digest>.incoming/       being fetched; its files under their own names are complete,
//!     <sha256>.part                   this one is not; `bundle.toml` comes last
//! ```
//!
//! The road of an installation, and what a power cut leaves at each step:
//! 1. files are fetched into `.incoming`: the parts, from which the next attempt goes on;
//! 2. the manifest is written there, last: the same;
//! 3. `.incoming` is renamed into place: a complete bundle that nothing names yet; used when the
//!    order is carried out again;
//! 4. the bundle is swapped in and has answered: the old one starts, and the order is carried out
//!    again;
//! 5. `current.json` is written: the new one starts, the old one stays as `previous`;
//! 6. all other bundles are removed: what is left of them goes the next time.

use std::fs;
use std::path::{Path, PathBuf};

use fleetloop_models::bundle::{Bundle, BundleError, MANIFEST_FILE, Manifest};
use fleetloop_protocol::BundleDigest;
use serde::{Deserialize, Serialize};

use super::error::UpdateError;
use super::http::HubHttp;
use crate::durable;

const CURRENT: &str = "current.json";
const CURRENT_BYTES: u64 = 4096;

/// Which bundles the device keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Installed {
    /// The one that answers.
    pub current: Option<BundleDigest>,
    /// The one before it, to which the device goes back.
    pub previous: Option<BundleDigest>,
}

/// Which bundle a start puts to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// There is none.
    Nothing,
    /// The current one; the one before it if that fails.
    Current(BundleDigest),
    /// The one before, for the current one loops.
    Back(BundleDigest),
    /// The current one after a pause: it loops, and there is no other that does not.
    Later(BundleDigest),
}

impl Installed {
    /// What to start with, where `loops` says which models end the agent.
    pub fn start(self, loops: impl Fn(BundleDigest) -> bool) -> Start {
        match (self.current, self.previous) {
            (None, _) => Start::Nothing,
            (Some(current), _) if !loops(current) => Start::Current(current),
            (Some(_), Some(previous)) if !loops(previous) => Start::Back(previous),
            (Some(current), _) => Start::Later(current),
        }
    }
}

/// The bundles under one data folder.
#[derive(Debug, Clone)]
pub struct Bundles {
    data_dir: PathBuf,
    dir: PathBuf,
}

impl Bundles {
    /// The bundles under `data_dir`.
    pub fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), dir: data_dir.join("bundles") }
    }

    /// Which bundles are installed.
    ///
    /// # Errors
    /// [`UpdateError::Record`] when the record is not readable.
    pub fn installed(&self) -> Result<Installed, UpdateError> {
        let path = self.data_dir.join(CURRENT);
        let Some(bytes) = durable::read(&path, CURRENT_BYTES)? else {
            return Ok(Installed::default());
        };
        serde_json::from_slice(&bytes)
            .map_err(|error| UpdateError::Record { path, reason: error.to_string() })
    }

    /// The bundle, read and checked.
    ///
    /// # Errors
    /// [`BundleError`] names the file and what is wrong with it.
    pub fn open(&self, digest: BundleDigest) -> Result<Bundle, BundleError> {
        Bundle::open(&self.path(digest), Some(digest))
    }

    /// The bundle's folder; what was proven of it is kept there too.
    pub fn folder(&self, digest: BundleDigest) -> PathBuf {
        self.path(digest)
    }

    /// Whether the bundle is there, complete when it was put in place.
    pub fn has(&self, digest: BundleDigest) -> bool {
        self.path(digest).join(MANIFEST_FILE).is_file()
    }

    /// Fetches the files of `manifest` and puts the bundle in place (steps 1 to 3).
    ///
    /// Cancel-safe: what is fetched stays, and the next call goes on from it.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub async fn fetch(
        &self,
        hub: &HubHttp,
        digest: BundleDigest,
        manifest_bytes: &[u8],
    ) -> Result<(), UpdateError> {
        let manifest = Manifest::parse(manifest_bytes).map_err(UpdateError::Bundle)?;
        let incoming = self.incoming(digest);
        durable::create_dir(&incoming)?;
        for file in &manifest.files {
            let path = incoming.join(&file.path);
            if path.is_file() {
                // Renamed only after its bytes were checked and on the disk.
                continue;
            }
            let part = incoming.join(format!("{}.part", file.sha256));
            hub.artefact(file.sha256, file.len_bytes, &part).await?;
            durable::rename(&part, &path)?;
        }
        self.put_in_place(digest, manifest_bytes)
    }

    /// Steps 2 and 3.
    fn put_in_place(&self, digest: BundleDigest, manifest: &[u8]) -> Result<(), UpdateError> {
        let incoming = self.incoming(digest);
        durable::write(&incoming.join(MANIFEST_FILE), manifest)?;
        if let Err(error) = Bundle::open(&incoming, Some(digest)) {
            // Nothing of it can be used: the next attempt begins anew.
            fs::remove_dir_all(&incoming).ok();
            return Err(UpdateError::Bundle(error));
        }
        let place = self.path(digest);
        if place.exists() {
            // It lay there damaged, or it would not have been fetched.
            remove_dir(&place)?;
        }
        durable::rename(&incoming, &place)?;
        Ok(())
    }

    /// Says which bundle answers now (step 5) and removes what is no longer needed (step 6).
    ///
    /// # Errors
    /// [`UpdateError`]; the record before then still holds.
    pub fn answered(&self, digest: BundleDigest) -> Result<Installed, UpdateError> {
        let before = self.installed().unwrap_or_default();
        let now = if before.current == Some(digest) {
            before
        } else {
            Installed { current: Some(digest), previous: before.current }
        };
        self.record(now)?;
        self.remove_others(now);
        Ok(now)
    }

    /// Makes the previous bundle the current one, after the current one failed at start.
    ///
    /// # Errors
    /// [`UpdateError`]; the record before then still holds.
    pub fn went_back_to(&self, digest: BundleDigest) -> Result<(), UpdateError> {
        self.record(Installed { current: Some(digest), previous: None })
    }

    /// Removes a bundle that was refused, unless it is one of the two that are kept.
    pub fn discard(&self, digest: BundleDigest) {
        let keep = self.installed().unwrap_or_default();
        if keep.current != Some(digest) && keep.previous != Some(digest) {
            self.remove_others(keep);
        }
    }

    fn record(&self, installed: Installed) -> Result<(), UpdateError> {
        let path = self.data_dir.join(CURRENT);
        let bytes = serde_json::to_vec_pretty(&installed).map_err(|error| UpdateError::Record {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        Ok(durable::write(&path, &bytes)?)
    }

    /// Removes every bundle but the two that are kept. A failure costs room and nothing else.
    fn remove_others(&self, keep: Installed) {
        let kept: Vec<String> =
            [keep.current, keep.previous].iter().flatten().map(ToString::to_string).collect();
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if kept.iter().any(|kept| name.to_str() == Some(kept)) {
                continue;
            }
            if let Err(error) = remove_dir(&entry.path()) {
                tracing::warn!(path = %entry.path().display(), %error, "cannot remove an old bundle");
            }
        }
    }

    fn path(&self, digest: BundleDigest) -> PathBuf {
        self.dir.join(digest.to_string())
    }

    fn incoming(&self, digest: BundleDigest) -> PathBuf {
        self.dir.join(format!(".{digest}.incoming"))
    }
}

fn remove_dir(path: &Path) -> Result<(), UpdateError> {
    // The manifest goes first: a folder without one is no bundle, whatever a power cut leaves.
    durable::remove(&path.join(MANIFEST_FILE))?;
    fs::remove_dir_all(path)
        .map_err(|source| durable::DurableError::io("remove", path, source).into())
}
