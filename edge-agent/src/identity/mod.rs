//! Who this device is: two keys that never leave it, a certificate, and what enrolment told it.
//!
//! ```text
//! data_dir/identity/           0700
//!   signing.key                Ed25519, PKCS#8 DER, 0600: samples, reports
//!   tls.key                    P-256, PKCS#8 PEM, 0600: TLS client
//!   certificate.pem            the device's certificate, then the CA's
//!   renewed.pem                a newer key and the certificates for it, once it was renewed
//!   ca.pem                     the hub's CA, the one the token named
//!   root.json                  the channel's root metadata, the one the token named
//!   identity.json              the enrolment record; written last
//!   hub-addresses.json         the hub's newest signed addresses and CAs (see [`crate::contacts`])
//! ```
//!
//! Invariant: a folder with `identity.json` is complete. Without it the device is not enrolled,
//! whatever else lies there, and enrolling again uses the keys that are there: a power cut or a
//! lost reply at any moment of enrolment strands nobody. Nothing here prints a key.
//!
//! A renewed key and its certificate are one file that is replaced whole, so they always fit: a
//! power cut at any moment leaves the pair before or the new one, both good. A `renewed.pem` that
//! cannot be used is left aside for the pair of enrolment, and the certificate is renewed from that:
//! nothing but the signing key is needed to get another.

mod keys;
mod pair;
mod record;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fleetloop_protocol::keys::SigningKey;
use fleetloop_protocol::{DeviceId, Digest};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::watch;

pub use keys::{DeviceKeys, TlsKey};
pub use pair::{Life, TlsPair};
pub(crate) use record::FORMAT;
pub use record::Record;

use crate::contacts::Contacts;
use crate::durable::{self, DurableError};

/// The largest certificate, key or record a device reads back, in bytes.
const FILE_BYTES: u64 = 64 * 1024;
/// The pair that a renewal gave.
const RENEWED: &str = "renewed.pem";
/// The largest root metadata a device keeps, in bytes.
pub const ROOT_BYTES: u64 = 256 * 1024;

/// An identity that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The folder holds no enrolment record.
    #[error(
        "the device in {} is not enrolled; run 'edge-agent enroll --token TOKEN --data {}'",
        dir.display(), dir.display()
    )]
    NotEnrolled {
        /// The data folder.
        dir: PathBuf,
    },
    /// A file is missing or is not what it should be.
    #[error("cannot use {}: {reason}; restore it from a backup or enrol the device anew", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system has no random bytes, or refused to make a key.
    #[error("cannot make the device's {what}; check the system's random source")]
    MakeKey {
        /// Which key.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file could not be read or written.
    #[error("cannot keep the device's identity")]
    Durable(#[from] DurableError),
}

/// The identity folder of one data folder.
#[derive(Debug, Clone)]
pub struct IdentityDir {
    data_dir: PathBuf,
    dir: PathBuf,
}

/// What the hub gave a device, checked by enrolment and ready to be kept.
#[derive(Debug)]
pub struct Enrolment<'a> {
    /// The record.
    pub record: &'a Record,
    /// The device's certificate and the CA's.
    pub certificate_pem: &'a str,
    /// The CA's certificate.
    pub ca_pem: &'a str,
    /// The root metadata that the token named, as served.
    pub root_json: &'a [u8],
}

impl IdentityDir {
    /// The identity folder under `data_dir`.
    pub fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), dir: data_dir.join("identity") }
    }

    /// The enrolment record, when the device is enrolled.
    ///
    /// # Errors
    /// [`IdentityError`] when it is there and cannot be used.
    pub fn record(&self) -> Result<Option<Record>, IdentityError> {
        let path = self.path("identity.json");
        let Some(bytes) = durable::read(&path, FILE_BYTES)? else { return Ok(None) };
        let record =
            Record::parse(&bytes).map_err(|reason| IdentityError::Broken { path, reason })?;
        Ok(Some(record))
    }

    /// The two keys; made and kept when they are not there yet.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn keys(&self) -> Result<DeviceKeys, IdentityError> {
        durable::create_dir(&self.dir)?;
        DeviceKeys::load_or_make(&self.path("signing.key"), &self.path("tls.key"))
    }

    /// Keeps what enrolment gave, the record last.
    ///
    /// # Errors
    /// [`IdentityError::Durable`]; the device is then not enrolled.
    pub fn keep(&self, enrolled: &Enrolment<'_>) -> Result<(), IdentityError> {
        let put = |name: &str, bytes: &[u8]| durable::write(&self.path(name), bytes);
        // A power cut before the last line leaves "not enrolled" and the keys; enrolling again
        // with the same token gives the same answer and overwrites all of these.
        put("root.json", enrolled.root_json)?;
        put("ca.pem", enrolled.ca_pem.as_bytes())?;
        put("certificate.pem", enrolled.certificate_pem.as_bytes())?;
        put("identity.json", &enrolled.record.to_json())?;
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The renewed pair, when there is one that can be used.
    fn renewed(&self) -> Result<Option<TlsPair>, IdentityError> {
        let path = self.path(RENEWED);
        let Some(bytes) = durable::read(&path, FILE_BYTES)? else { return Ok(None) };
        Ok(TlsPair::from_pem(&bytes).map_or_else(
            |reason| {
                let file = path.display();
                tracing::error!(%file, reason, "the renewed certificate is left aside");
                None
            },
            Some,
        ))
    }

    fn enrolled_pair(&self, keys: &DeviceKeys) -> Result<TlsPair, IdentityError> {
        let path = || self.path("certificate.pem");
        TlsPair::new(self.certificates("certificate.pem")?, keys.tls().to_der())
            .map_err(|reason| IdentityError::Broken { path: path(), reason })
    }

    fn required(&self, name: &str, limit: u64) -> Result<Vec<u8>, IdentityError> {
        let path = self.path(name);
        durable::read(&path, limit)?
            .ok_or_else(|| IdentityError::Broken { path, reason: "it is missing".into() })
    }

    fn certificates(&self, name: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        let bytes = self.required(name, FILE_BYTES)?;
        let broken = |reason: String| IdentityError::Broken { path: self.path(name), reason };
        let certificates = CertificateDer::pem_slice_iter(&bytes)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| broken(error.to_string()))?;
        if certificates.is_empty() {
            return Err(broken("it holds no certificate".into()));
        }
        Ok(certificates)
    }
}

/// An enrolled device's identity, read and checked once at start; only its TLS pair changes.
#[derive(Debug)]
pub struct Identity {
    dir: IdentityDir,
    record: Record,
    signing: Arc<SigningKey>,
    tls: watch::Sender<Arc<TlsPair>>,
    contacts: Contacts,
    root_json: Vec<u8>,
}

impl Identity {
    /// Reads the identity under `data_dir`.
    ///
    /// # Errors
    /// [`IdentityError::NotEnrolled`] when there is none, [`IdentityError::Broken`] names the file
    /// that cannot be used.
    pub fn load(data_dir: &Path) -> Result<Self, IdentityError> {
        let dir = IdentityDir::new(data_dir);
        let record = dir
            .record()?
            .ok_or_else(|| IdentityError::NotEnrolled { dir: dir.data_dir.clone() })?;
        let keys = DeviceKeys::load(&dir.path("signing.key"), &dir.path("tls.key"))?;
        let pair = match dir.renewed()? {
            Some(pair) => pair,
            None => dir.enrolled_pair(&keys)?,
        };
        let ca = dir.certificates("ca.pem")?.swap_remove(0);
        if Digest::of(&ca) != record.ca {
            return Err(IdentityError::Broken {
                path: dir.path("ca.pem"),
                reason: "it is not the CA the device enrolled with".into(),
            });
        }
        let root_json = dir.required("root.json", ROOT_BYTES)?;
        if Digest::of(&root_json) != record.root {
            return Err(IdentityError::Broken {
                path: dir.path("root.json"),
                reason: "it is not the root metadata the device enrolled with".into(),
            });
        }
        let tls = watch::Sender::new(Arc::new(pair));
        let contacts = Contacts::open(&dir.dir, &record, ca)?;
        Ok(Self { dir, record, signing: keys.into_signing(), tls, contacts, root_json })
    }

    /// The name the hub gave.
    pub fn device(&self) -> &DeviceId {
        &self.record.device
    }

    /// The enrolment record.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The key that signs samples and reports.
    pub fn signing_key(&self) -> Arc<SigningKey> {
        Arc::clone(&self.signing)
    }

    /// The newest key and certificate for TLS; told of each that follows.
    pub fn tls(&self) -> watch::Receiver<Arc<TlsPair>> {
        self.tls.subscribe()
    }

    /// Takes a renewed key and the certificates (PEM) for it, which were checked: from now on they
    /// are what is shown, and they are on the disk when this succeeds. Blocks on the disk.
    ///
    /// # Errors
    /// [`IdentityError::Broken`] when they do not fit: nothing changed. [`IdentityError::Durable`]
    /// when the disk refuses: they are shown until the process ends.
    pub fn renewed(&self, key: &TlsKey, certificate_pem: &str) -> Result<(), IdentityError> {
        let path = self.dir.path(RENEWED);
        let text = key.to_pem() + certificate_pem;
        let pair = TlsPair::from_pem(text.as_bytes())
            .map_err(|reason| IdentityError::Broken { path: path.clone(), reason })?;
        // A power cut before the rename within leaves the pair before, which is good until its end.
        let kept = durable::write(&path, text.as_bytes());
        self.tls.send_replace(Arc::new(pair));
        Ok(kept?)
    }

    /// Where the hub is, and which CAs are trusted.
    pub fn contacts(&self) -> &Contacts {
        &self.contacts
    }

    /// The root metadata that the token named, whose digest is the record's.
    pub fn root_json(&self) -> &[u8] {
        &self.root_json
    }
}
