//! The offline medium: the root key, and what is done with it.
//!
//! ```text
//! dev-root.pk8              the root key, PKCS#8 (0600)
//! dev-root.next.pk8         made for a rotation that is not finished
//! dev-root.before-7.pk8     the key before root 7; destroy it
//! dev-7.root.json           a copy of root 7, for a hub that was restored from an older backup
//! ```
//!
//! Only a person's command opens it, never the running hub. What leaves it are signed documents.
//! A rotation of the root key has four steps, and a power cut leaves:
//! 1. the next key is made. After a cut here the next attempt uses it.
//! 2. the hub has the root that names it. After a cut here the next attempt finds that root at the
//!    hub, keeps a copy and takes step 3.
//! 3. the key before is put aside. After a cut here there is a next key only, which the next attempt
//!    finds named by the newest root.
//! 4. the next key takes its place.

use std::path::{Path, PathBuf};

use fleetloop_protocol::UnixMillis;
use fleetloop_protocol::keys::{PublicKey, SigningKey};
use tough::schema::{RoleType, Root, Signed};

use super::metadata::{Document, RootChange, names_key, next_root};
use super::{CHANNEL, ReleaseError, files};

/// A folder with the root key.
#[derive(Debug, Clone)]
pub struct Medium {
    dir: PathBuf,
}

impl Medium {
    /// Makes the folder and the first root key in it.
    pub(super) fn create(dir: &Path) -> Result<(Self, SigningKey), ReleaseError> {
        files::make_folder(dir)?;
        let medium = Self { dir: dir.to_owned() };
        let key = files::make_key(&medium.key_file())?;
        Ok((medium, key))
    }

    /// The medium in `dir`, which must hold a root key.
    ///
    /// # Errors
    /// [`ReleaseError::Medium`].
    pub fn open(dir: &Path) -> Result<Self, ReleaseError> {
        let medium = Self { dir: dir.to_owned() };
        if medium.key_file().exists() || medium.next_file().exists() {
            return Ok(medium);
        }
        let reason =
            format!("there is no {CHANNEL}-root.pk8; name the folder that 'init' was given");
        Err(ReleaseError::Medium { path: dir.to_owned(), reason })
    }

    /// Brings the medium up to the hub's `roots` (all of them, the first one first): keeps copies of
    /// those it lacks, finishes a rotation that was cut, and says which roots the hub lacks.
    ///
    /// # Errors
    /// [`ReleaseError::Medium`] when the two do not belong together; the disk's.
    pub fn meet(&self, roots: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, ReleaseError> {
        let newest = self.chain(roots)?;
        for (version, bytes) in (1..).zip(roots) {
            match files::read(&self.copy_file(version)) {
                Ok(found) if found == *bytes => {}
                Ok(_) => {
                    return Err(self.wrong(format!(
                        "its copy of root {version} is not the hub's; they belong to different hubs"
                    )));
                }
                Err(_) => self.keep(version, bytes)?,
            }
        }
        self.finish(&newest)?;
        let mut lacks = Vec::new();
        for version in roots.len() as u64 + 1.. {
            let path = self.copy_file(version);
            if !path.exists() {
                return Ok(lacks);
            }
            lacks.push(files::read(&path)?);
        }
        Ok(lacks)
    }

    /// Signs the root after the hub's newest: the same keys but for those in `keys`, and with
    /// `new_root_key` another root key, made here.
    ///
    /// # Errors
    /// [`ReleaseError::Medium`] when the key here is not the newest root's; the disk's.
    pub fn sign_next(
        &self,
        roots: &[Vec<u8>],
        keys: Vec<(RoleType, PublicKey)>,
        new_root_key: bool,
        now: UnixMillis,
    ) -> Result<Vec<u8>, ReleaseError> {
        let last = self.chain(roots)?;
        let key = files::read_key(&self.key_file())?;
        if !names_key(&last, RoleType::Root, &key.public()) {
            return Err(self.wrong(format!(
                "root {} at the hub names another root key; use the medium of the last rotation",
                last.version
            )));
        }
        let mut change = RootChange { keys };
        let next_key = if new_root_key { Some(self.next_key()?) } else { None };
        change.keys.extend(next_key.iter().map(|next| (RoleType::Root, next.public())));
        let root = next_root(&last, &change, now)?;
        let signers: Vec<&SigningKey> = std::iter::once(&key).chain(&next_key).collect();
        Ok(Document::sign_by(root, &signers)?.bytes)
    }

    /// Keeps a copy of a root.
    pub(super) fn keep(&self, version: u64, bytes: &[u8]) -> Result<(), ReleaseError> {
        files::write(&self.copy_file(version), bytes)
    }

    /// Puts the next key in the place of the one before once `newest` names it.
    fn finish(&self, newest: &Root) -> Result<(), ReleaseError> {
        let (key, next) = (self.key_file(), self.next_file());
        if !next.exists() || !names_key(newest, RoleType::Root, &files::read_key(&next)?.public()) {
            return Ok(());
        }
        if key.exists() {
            let aside = format!("{CHANNEL}-root.before-{}.pk8", newest.version);
            files::rename(&key, &self.dir.join(aside))?;
        }
        files::rename(&next, &key)
    }

    /// The newest of `roots`, each trusted by the one before.
    fn chain(&self, roots: &[Vec<u8>]) -> Result<Root, ReleaseError> {
        let mut last: Option<Root> = None;
        for bytes in roots {
            let next: Signed<Root> =
                serde_json::from_slice(bytes).map_err(|e| self.wrong(e.to_string()))?;
            let by = last.as_ref().unwrap_or(&next.signed);
            by.verify_role(&next).map_err(|e| {
                self.wrong(format!("the hub's root {} is not trusted: {e}", next.signed.version))
            })?;
            last = Some(next.signed);
        }
        last.ok_or_else(|| self.wrong("the hub has no root".into()))
    }

    fn next_key(&self) -> Result<SigningKey, ReleaseError> {
        let path = self.next_file();
        if path.exists() { files::read_key(&path) } else { files::make_key(&path) }
    }

    fn wrong(&self, reason: String) -> ReleaseError {
        ReleaseError::Medium { path: self.dir.clone(), reason }
    }

    fn key_file(&self) -> PathBuf {
        self.dir.join(format!("{CHANNEL}-root.pk8"))
    }

    fn next_file(&self) -> PathBuf {
        self.dir.join(format!("{CHANNEL}-root.next.pk8"))
    }

    fn copy_file(&self, version: u64) -> PathBuf {
        self.dir.join(format!("{CHANNEL}-{version}.root.json"))
    }
}
