//! The list of revoked devices as this device keeps it, to show it to a hub that forgot some.
//!
//! One file, `tuf/revoked-list.json`: the newest list whose digest the channel's metadata named, and
//! that metadata ([`NewerList`]). A list that lacks devices of the kept one is the list of a hub that
//! was restored from a backup: the hub is shown the kept one, and only when it has taken that is the
//! new one kept. A file that is damaged is as good as none: another device has it too.

use std::path::{Path, PathBuf};

use fleetloop_protocol::Digest;
use fleetloop_protocol::revoked::{NEWER_LIST_BYTES, NewerList, RevokedList};

use super::error::UpdateError;
use crate::durable;

/// What to do with a list that the metadata names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Keep it: it has all that the kept one has.
    Keep,
    /// Show the hub the kept one first: so many devices are missing in the new one.
    Show(Box<NewerList>, usize),
}

/// The kept list of one device.
#[derive(Debug)]
pub(super) struct Kept {
    file: PathBuf,
}

impl Kept {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self { file: data_dir.join("tuf").join("revoked-list.json") }
    }

    /// Whether the list of that digest is the one that is kept.
    pub(super) fn is(&self, digest: Digest) -> bool {
        self.read().is_some_and(|(kept, _)| Digest::of(kept.list.as_bytes()) == digest)
    }

    /// What to do with `new`.
    pub(super) fn next(&self, new: &RevokedList) -> Next {
        let Some((kept, list)) = self.read() else { return Next::Keep };
        match list.missing_in(new).count() {
            0 => Next::Keep,
            missing => Next::Show(Box::new(kept), missing),
        }
    }

    /// Keeps a list and the metadata that names it. A power cut leaves the one before or this one.
    ///
    /// # Errors
    /// The disk's; the one before is then still there.
    pub(super) fn keep(&self, list: &NewerList) -> Result<(), UpdateError> {
        let bytes = serde_json::to_vec(list).map_err(|error| UpdateError::BadAnswer {
            url: self.file.display().to_string(),
            reason: error.to_string(),
        })?;
        Ok(durable::write(&self.file, &bytes)?)
    }

    fn read(&self) -> Option<(NewerList, RevokedList)> {
        let bytes = durable::read(&self.file, NEWER_LIST_BYTES as u64).ok()??;
        let kept: NewerList = serde_json::from_slice(&bytes).ok()?;
        let list = serde_json::from_str(&kept.list).ok()?;
        Some((kept, list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> NewerList {
        NewerList { targets: "{}".into(), list: text.into() }
    }

    fn parsed(text: &str) -> RevokedList {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_list_that_lacks_a_device_of_the_kept_one_is_not_kept_before_the_hub_was_shown() {
        let (both, one) = (r#"{"devices":{"dev-a":1,"dev-b":2}}"#, r#"{"devices":{"dev-a":1}}"#);
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tuf")).unwrap();
        let kept = Kept::new(dir.path());
        assert_eq!(kept.next(&parsed(one)), Next::Keep, "nothing is kept yet");
        kept.keep(&list(both)).unwrap();
        assert!(kept.is(Digest::of(both.as_bytes())) && !kept.is(Digest::of(one.as_bytes())));
        assert_eq!(kept.next(&parsed(one)), Next::Show(Box::new(list(both)), 1));
        assert_eq!(kept.next(&parsed(both)), Next::Keep);
        durable::write(&dir.path().join("tuf/revoked-list.json"), b"damaged").unwrap();
        assert_eq!(kept.next(&parsed(one)), Next::Keep);
    }
}
