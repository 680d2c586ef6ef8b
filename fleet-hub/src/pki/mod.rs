//! The hub's certificates and keys.
//!
//! One CA (P-256, ten years) signs the server certificate, the hub's own MQTT client certificate
//! and a certificate for each device. While it is rotated there are two, and both are accepted: the
//! next one signs the renewed certificates of devices, the one before everything else, so that
//! devices that know only that one still find the hub. Two Ed25519 keys sign receipts and orders. All lie under
//! `pki/` in the data directory, secrets readable by their owner only; a backup of the data
//! directory holds them.
//!
//! `not_before` is 1970 where a device checks it: it says nothing that the pinned CA does not, and
//! a device without a clock starts in 1970.

mod ca;
mod life;
pub mod tls;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fleetloop_protocol::Digest;
use fleetloop_protocol::UnixMillis;
use fleetloop_protocol::hub_keys::HubKeyUse;
use fleetloop_protocol::keys::{KeyError, SigningKey};

use crate::config::{Config, Paths};
use crate::durable::{self, Access};

pub use ca::{Authority, HUB_CLIENT, Issued, OWN_DAYS, SIGNING_KEY_URI, request_key};

/// The CA's files, without their ending.
const CA: &str = "ca";

/// The next CA's files, without their ending.
const NEXT_CA: &str = "ca-next";

/// Why keys or certificates cannot be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file.
    #[error("cannot {verb} {path}; restore the data directory from a backup if it was damaged")]
    File {
        /// `"read"`, `"write"` or `"rename"`.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// An Ed25519 key.
    #[error("cannot use the key {path}")]
    Key {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: KeyError,
    },
    /// A certificate.
    #[error("cannot {what}")]
    Certificate {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: rcgen::Error,
    },
    /// TLS.
    #[error("cannot set up TLS with {path}")]
    Tls {
        /// The file or what it is.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A certificate request that proves nothing or asks for a wrong key.
    #[error("cannot certify the device: {0}")]
    Request(String),
}

/// Everything secret that the hub works with.
pub struct Pki {
    /// Signs the hub's certificates and those of devices that enrol.
    pub authority: Authority,
    /// Signs renewed certificates of devices while the CA is rotated.
    pub next: Option<Authority>,
    /// Signs receipts and refusals.
    pub receipt: SigningKey,
    /// Signs orders.
    pub assignment: SigningKey,
    paths: Paths,
}

impl Pki {
    /// Makes everything anew; only `init` does.
    ///
    /// # Errors
    /// The disk or the random source failed.
    pub fn create(config: &Config, now: UnixMillis) -> Result<Self, PkiError> {
        let paths = &config.paths;
        let folder = paths.pki();
        std::fs::create_dir_all(&folder).map_err(|source| PkiError::File {
            verb: "write",
            path: folder.clone(),
            source,
        })?;
        for name in ["receipt.pk8", "assignment.pk8"] {
            let path = folder.join(name);
            let key = SigningKey::generate_pkcs8()
                .map_err(|source| PkiError::Key { path: path.clone(), source })?;
            write(&path, &key, Access::Owner)?;
        }
        Authority::create(&folder, CA, now)?;
        let pki = Self::load(paths)?;
        pki.issue_own(config, now)?;
        Ok(pki)
    }

    /// Reads what [`create`](Self::create) made.
    ///
    /// # Errors
    /// A file is missing or damaged.
    pub fn load(paths: &Paths) -> Result<Self, PkiError> {
        let folder = paths.pki();
        finish_retirement(&folder)?;
        let key = |name: &str| {
            let path = folder.join(name);
            SigningKey::from_pkcs8(&read(&path)?).map_err(|source| PkiError::Key { path, source })
        };
        Ok(Self {
            authority: Authority::load(&folder, CA)?,
            next: folder
                .join(format!("{NEXT_CA}.pem"))
                .exists()
                .then(|| Authority::load(&folder, NEXT_CA))
                .transpose()?,
            receipt: key("receipt.pk8")?,
            assignment: key("assignment.pk8")?,
            paths: paths.clone(),
        })
    }

    /// Issues the server's and the hub client's certificate anew, with fresh keys, each file
    /// replaced whole. `serve` does so at every start, so that a changed host name takes effect, and
    /// again at two thirds of their life.
    ///
    /// # Errors
    /// The disk failed.
    pub fn issue_own(&self, config: &Config, now: UnixMillis) -> Result<(), PkiError> {
        let names = config.server_names();
        write(&self.accepted_pem(), self.accepted().concat().as_bytes(), Access::Everybody)?;
        write(&self.server_pem(), self.authority.server(&names, now)?.as_bytes(), Access::Owner)?;
        write(&self.client_pem(), self.authority.hub_client(now)?.as_bytes(), Access::Owner)
    }

    /// The server's key and certificate chain (leaf, CA) in one file.
    pub fn server_pem(&self) -> PathBuf {
        self.paths.pki().join("server.pem")
    }

    /// The hub client's key and certificate chain in one file.
    pub fn client_pem(&self) -> PathBuf {
        self.paths.pki().join("hub-client.pem")
    }

    /// The CA's certificate.
    pub fn ca_pem(&self) -> PathBuf {
        ca_pem(&self.paths)
    }

    /// The CA that signs renewed certificates of devices.
    pub fn newest(&self) -> &Authority {
        self.next.as_ref().unwrap_or(&self.authority)
    }

    /// The certificates of all CAs that are accepted, PEM, the newest first.
    pub fn accepted(&self) -> Vec<String> {
        self.next.iter().chain([&self.authority]).map(|ca| ca.pem().to_owned()).collect()
    }

    /// The same in one file, for the broker and the listeners; written by [`issue_own`](Self::issue_own).
    pub fn accepted_pem(&self) -> PathBuf {
        self.paths.pki().join("accepted-ca.pem")
    }

    /// For sharing between tasks.
    pub fn shared(self) -> Arc<Self> {
        Arc::new(self)
    }
}

/// Makes the next CA; it is accepted from the next start on.
///
/// # Errors
/// The disk failed.
pub fn make_next_ca(paths: &Paths, now: UnixMillis) -> Result<(), PkiError> {
    Authority::create(&paths.pki(), NEXT_CA, now)
}

/// Puts the next CA in the place of the one before, from the next start on.
///
/// # Errors
/// There is no next one; the disk failed.
pub fn retire_ca(paths: &Paths) -> Result<(), PkiError> {
    let folder = paths.pki();
    rename(&folder.join(format!("{NEXT_CA}.key")), &folder.join(format!("{CA}.key")))?;
    // A cut here leaves the next CA's certificate without its key: `finish_retirement` goes on.
    finish_retirement(&folder)
}

fn finish_retirement(folder: &Path) -> Result<(), PkiError> {
    let next = folder.join(format!("{NEXT_CA}.pem"));
    if next.exists() && !folder.join(format!("{NEXT_CA}.key")).exists() {
        rename(&next, &folder.join(format!("{CA}.pem")))?;
    }
    Ok(())
}

/// Draws a new key that signs receipts (or orders), in the place of the one before, from the next
/// start on. The running hub goes on with the one before, which devices still accept.
///
/// # Errors
/// The disk or the random source failed.
pub fn replace_hub_key(paths: &Paths, usage: HubKeyUse) -> Result<(), PkiError> {
    let path = paths.pki().join(match usage {
        HubKeyUse::Receipt => "receipt.pk8",
        HubKeyUse::Assignment => "assignment.pk8",
    });
    let key = SigningKey::generate_pkcs8()
        .map_err(|source| PkiError::Key { path: path.clone(), source })?;
    write(&path, &key, Access::Owner)
}

/// When the first certificate in the file ends.
///
/// # Errors
/// The file is missing or no certificate.
pub fn certificate_ends(path: &Path) -> Result<UnixMillis, PkiError> {
    life::ends(&read(path)?)
        .map_err(|reason| PkiError::Tls { path: path.to_owned(), source: reason.into() })
}

/// Where the CA's certificate lies.
pub fn ca_pem(paths: &Paths) -> PathBuf {
    paths.pki().join("ca.pem")
}

/// SHA-256 of the CA's certificate (DER): what enrolment tokens name.
///
/// # Errors
/// The file is missing or no certificate.
pub fn ca_digest(paths: &Paths) -> Result<Digest, PkiError> {
    let path = ca_pem(paths);
    Ok(Digest::of(tls::certificate(&path)?.as_ref()))
}

fn read(path: &Path) -> Result<Vec<u8>, PkiError> {
    std::fs::read(path).map_err(|source| PkiError::File {
        verb: "read",
        path: path.to_owned(),
        source,
    })
}

fn write(path: &Path, bytes: &[u8], access: Access) -> Result<(), PkiError> {
    durable::write(path, bytes, access).map_err(|source| PkiError::File {
        verb: "write",
        path: path.to_owned(),
        source,
    })
}

fn rename(from: &Path, to: &Path) -> Result<(), PkiError> {
    std::fs::rename(from, to)
        .and_then(|()| durable::sync_parent(to))
        .map_err(|source| PkiError::File { verb: "rename", path: from.to_owned(), source })
}
