//! Where trusted metadata lies: one document of two generations, `tuf/trusted.{0,1}`.
//!
//! All four files are kept together, so a power cut leaves the state before or after, never a
//! mixture. A damaged store is an error and never an empty one: that would forget which versions
//! may not come back.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tough::schema::{Role, Signed};

use super::{Doc, TrustedState, TufError, walk};
use crate::durable::{self, DurableError, Slots};
use crate::identity::Identity;

/// The largest store, in bytes: the limits of the four files and their quoting.
const STORE_BYTES: u64 = 16 * 1024 * 1024;

/// Trusted metadata that could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system, or what it gives back.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// What lies there was written by something else.
    #[error(
        "cannot read trusted release metadata: {reason}; restore tuf/ or enrol the device anew"
    )]
    Format {
        /// What is wrong.
        reason: String,
    },
    /// What lies there does not verify.
    #[error(
        "cannot use the trusted release metadata on the disk; restore tuf/ or enrol the device anew"
    )]
    Untrusted(#[from] TufError),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    root: String,
    timestamp: Option<String>,
    snapshot: Option<String>,
    targets: Option<String>,
}

/// The store of one device.
#[derive(Debug)]
pub struct TufStore {
    slots: Slots,
}

impl TufStore {
    /// The store under `data_dir`; the folder is made.
    ///
    /// # Errors
    /// [`StoreError::Durable`].
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let dir = data_dir.join("tuf");
        durable::create_dir(&dir)?;
        Ok(Self { slots: Slots::new(&dir, "trusted", STORE_BYTES) })
    }

    /// The trusted state; trust as it begins with the identity's root when there is none yet.
    ///
    /// # Errors
    /// [`StoreError`] when what is there cannot be used.
    pub fn load(&self, identity: &Identity) -> Result<TrustedState, StoreError> {
        let Some((_, body)) = self.slots.read()? else {
            return Ok(TrustedState::begin(identity.root_json(), identity.record().root)?);
        };
        restore(&body)
    }

    /// Keeps `state`.
    ///
    /// # Errors
    /// [`StoreError::Durable`]; the state before is then still there.
    pub fn save(&self, state: &TrustedState) -> Result<(), StoreError> {
        let stored = Stored {
            format: 1,
            root: text(&state.root),
            timestamp: state.timestamp.as_ref().map(text),
            snapshot: state.snapshot.as_ref().map(text),
            targets: state.targets.as_ref().map(text),
        };
        let body = serde_json::to_vec(&stored)
            .map_err(|error| StoreError::Format { reason: error.to_string() })?;
        self.slots.write(&body)?;
        Ok(())
    }
}

/// Metadata that parsed as JSON is UTF-8.
fn text<T>(doc: &Doc<T>) -> String {
    String::from_utf8_lossy(&doc.bytes).into_owned()
}

fn restore(body: &[u8]) -> Result<TrustedState, StoreError> {
    let stored: Stored = serde_json::from_slice(body)
        .map_err(|error| StoreError::Format { reason: error.to_string() })?;
    if stored.format != 1 {
        return Err(StoreError::Format { reason: format!("format {}", stored.format) });
    }
    let root = walk::parse("root.json", stored.root.into_bytes(), STORE_BYTES)?;
    Ok(TrustedState {
        timestamp: restore_role("timestamp.json", stored.timestamp)?,
        snapshot: restore_role("snapshot.json", stored.snapshot)?,
        targets: restore_role("targets.json", stored.targets)?,
        root,
    })
}

fn restore_role<T>(file: &str, text: Option<String>) -> Result<Option<Doc<T>>, TufError>
where
    T: Role,
    Signed<T>: serde::de::DeserializeOwned,
    T: serde::de::DeserializeOwned,
{
    text.map(|text| walk::parse(file, text.into_bytes(), STORE_BYTES)).transpose()
}
