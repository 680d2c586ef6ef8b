//! Who can open a backup: `age` recipients (public) and identities (secret).

use std::io::BufReader;
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret as _;
use age::x25519;

use crate::durable::{self, Access};

/// The file that `fleet-hub init` writes the key to, in the folder of the offline keys.
pub const KEY_FILE: &str = "backup.key";

/// Why a key cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not the text of a recipient.
    #[error(
        "cannot encrypt backups to {text:?}: {reason}; want an age recipient (age1…), as \
         'age-keygen' prints it"
    )]
    Recipient {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A key file cannot be read.
    #[error(
        "cannot read backup key {path}; it is the file {KEY_FILE} that 'fleet-hub init' wrote \
         beside the offline keys"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A key file holds no key.
    #[error("cannot use backup key {path}: it holds no age identity (AGE-SECRET-KEY-1…)")]
    NoIdentity {
        /// The file.
        path: PathBuf,
    },
    /// A key file cannot be written.
    #[error("cannot write backup key {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A key is already where one was to be made.
    #[error(
        "cannot make backup key {path}: there is one already, and a key is never overwritten; \
         choose a fresh folder"
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
}

/// Makes a key in `folder` (file [`KEY_FILE`], its owner's only) and returns its recipient.
///
/// # Errors
/// [`KeyError::Exists`], or the disk's.
pub fn make(folder: &Path) -> Result<String, KeyError> {
    let path = folder.join(KEY_FILE);
    if path.exists() {
        return Err(KeyError::Exists { path });
    }
    let identity = x25519::Identity::generate();
    let recipient = identity.to_public().to_string();
    let secret = identity.to_string();
    let text = format!(
        "# Opens the backups of a Fleetloop hub ('fleet-hub restore --key FILE').\n\
         # public key: {recipient}\n{}\n",
        secret.expose_secret()
    );
    durable::write(&path, text.as_bytes(), Access::Owner)
        .map_err(|source| KeyError::Write { path, source })?;
    Ok(recipient)
}

/// The recipient of that text.
///
/// # Errors
/// [`KeyError::Recipient`].
pub fn recipient(text: &str) -> Result<x25519::Recipient, KeyError> {
    text.parse().map_err(|reason| KeyError::Recipient { text: text.to_owned(), reason })
}

/// The secrets of a key file, as `init` or `age-keygen` wrote it.
pub struct Identities(Vec<Box<dyn age::Identity + Send + Sync>>);

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} identities", self.0.len())
    }
}

impl Identities {
    /// Reads a key file.
    ///
    /// # Errors
    /// It cannot be read or holds no key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Read { path: path.to_owned(), source };
        let file = BufReader::new(std::fs::File::open(path).map_err(failed)?);
        let none = || KeyError::NoIdentity { path: path.to_owned() };
        let identities = age::IdentityFile::from_buffer(file)
            .map_err(|_| none())?
            .into_identities()
            .map_err(|_| none())?;
        if identities.is_empty() {
            return Err(none());
        }
        Ok(Self(identities))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &dyn age::Identity> {
        self.0.iter().map(|identity| {
            let identity: &dyn age::Identity = &**identity;
            identity
        })
    }
}
