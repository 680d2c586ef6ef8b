//! The chain of root metadata: `1.root.json`, `2.root.json` and so on, each trusted by the one before
//! and by itself.
//!
//! A root names the keys of all roles and ends after three years. It is signed where the root key is,
//! never here: this process takes a next root only as a signed document ([`check_next`]). None is ever
//! removed or changed, so that a device that was away walks the whole chain.

use std::path::Path;

use fleetloop_protocol::keys::SigningKey;
use fleetloop_protocol::{Digest, UnixMillis};
use tough::schema::{RoleType, Root, Signed};

use super::metadata::{Document, after, names_key};
use super::{ReleaseError, files};

/// The largest root metadata that is taken, in bytes: ten times what there is. Devices read 256 KiB.
pub const ROOT_BYTES: usize = 32 * 1024;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A next root must be good for so long at least, in milliseconds: less is a wrong clock.
const SHORTEST_LIFE_MS: u64 = 30 * DAY_MS;

/// A next root may be good for so long at most, in milliseconds: more is a wrong clock.
const LONGEST_LIFE_MS: u64 = 10 * 365 * DAY_MS;

/// All roots of a channel, the first one first; never empty.
#[derive(Debug, Clone)]
pub(super) struct Roots {
    first: Document<Root>,
    later: Vec<Document<Root>>,
}

impl Roots {
    /// Reads and checks the chain in `dir`.
    ///
    /// # Errors
    /// The first is missing, or one is not trusted by the one before.
    pub(super) fn read(dir: &Path) -> Result<Self, ReleaseError> {
        let bytes = files::read(&dir.join("1.root.json"))?;
        let damaged = |reason: String| ReleaseError::Damaged { file: "1.root.json".into(), reason };
        let unchecked: Signed<Root> =
            serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        let first = Document::<Root>::read(bytes, &unchecked.signed, "1.root.json")?;
        let mut roots = Self { first, later: Vec::new() };
        loop {
            let file = format!("{}.root.json", after(roots.newest().version)?);
            let path = dir.join(&file);
            if !path.exists() {
                return Ok(roots);
            }
            let bytes = files::read(&path)?;
            let next = Document::<Root>::read(bytes.clone(), roots.newest(), &file)?;
            roots.later.push(Document::read(bytes, &next.signed.signed, &file)?);
        }
    }

    fn newest_document(&self) -> &Document<Root> {
        self.later.last().unwrap_or(&self.first)
    }

    /// The root that counts.
    pub(super) fn newest(&self) -> &Root {
        &self.newest_document().signed.signed
    }

    /// When the root that counts ends.
    pub(super) fn ends(&self) -> UnixMillis {
        self.newest_document().ends()
    }

    /// All of them, the newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Root> {
        let all = std::iter::once(&self.first).chain(&self.later);
        all.rev().map(|document| &document.signed.signed)
    }

    /// The bytes of all of them, the first one first.
    pub(super) fn bytes(&self) -> Vec<Vec<u8>> {
        std::iter::once(&self.first).chain(&self.later).map(|root| root.bytes.clone()).collect()
    }

    /// The bytes of the root with that digest; of the newest without one.
    pub(super) fn with_digest(&self, digest: Option<Digest>) -> Option<Vec<u8>> {
        let Some(digest) = digest else { return Some(self.newest_document().bytes.clone()) };
        self.bytes().into_iter().find(|bytes| Digest::of(bytes) == digest)
    }

    /// Whether any of them lets `key` sign roots.
    pub(super) fn name_as_root_key(&self, key: &SigningKey) -> bool {
        self.newest_first().any(|root| names_key(root, RoleType::Root, &key.public()))
    }
}

/// Checks that `bytes` are the root after `last`: signed by a threshold of the keys of both, one
/// version more, of the kind that devices follow, and good for a time that can be meant.
///
/// # Errors
/// [`ReleaseError::NotNextRoot`] says what it is not.
pub(super) fn check_next(
    last: &Root,
    bytes: &[u8],
    now: UnixMillis,
) -> Result<Document<Root>, ReleaseError> {
    let refused = |reason: String| ReleaseError::NotNextRoot { reason };
    if bytes.len() > ROOT_BYTES {
        return Err(refused(format!("it has {} bytes, at most {ROOT_BYTES}", bytes.len())));
    }
    let next: Signed<Root> =
        serde_json::from_slice(bytes).map_err(|e| refused(format!("it is no root: {e}")))?;
    let version = after(last.version)?;
    if next.signed.version != version {
        return Err(refused(format!("it is version {}, not {version}", next.signed.version)));
    }
    last.verify_role(&next)
        .map_err(|e| refused(format!("root {} does not trust it: {e}", last.version)))?;
    next.signed
        .verify_role(&next)
        .map_err(|e| refused(format!("its own root key did not sign it: {e}")))?;
    if !next.signed.consistent_snapshot || !next.signed.spec_version.starts_with("1.") {
        return Err(refused("devices do not follow its kind".into()));
    }
    let document = Document { signed: next, bytes: bytes.to_vec() };
    let left_ms = document.ends().0.saturating_sub(now.0);
    if !(SHORTEST_LIFE_MS..=LONGEST_LIFE_MS).contains(&left_ms) {
        return Err(refused(format!(
            "it ends {} days from now; check the clocks of this hub and of where it was signed",
            left_ms / DAY_MS
        )));
    }
    Ok(document)
}
