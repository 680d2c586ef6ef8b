//! Where the hub is and who may say to be it: what enrolment told, and what the hub's signed
//! addresses ([`fleetloop_protocol::hub_addresses`]) say since.
//!
//! ```text
//! data_dir/identity/hub-addresses.json   the newest signed addresses; written before they are used
//! ```
//!
//! A device tries the addresses in turn: whoever cannot reach one calls [`Contacts::failed`], and the
//! next attempt, after its back-off, goes to the next address. What was reached last is tried first.
//! A generation never goes back. A file that cannot be read is left aside for what enrolment told;
//! the next refresh brings the addresses again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleetloop_protocol::hub_addresses::{BrokerAddress, HUB_ADDRESSES_BYTES, HubAddresses};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::watch;

use crate::durable::{self, DurableError};
use crate::identity::Record;

/// The file below the identity's folder.
pub(crate) const FILE: &str = "hub-addresses.json";

/// Addresses that cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum ContactsError {
    /// Not a document of addresses, or one over a limit.
    #[error("cannot take the hub's addresses: {0}; see the hub's 'fleet-hub host list'")]
    Document(String),
    /// Older than what is known.
    #[error("cannot take the hub's addresses: generation {found} is older than {known}")]
    Older {
        /// The document's.
        found: u64,
        /// What the device has.
        known: u64,
    },
    /// The disk.
    #[error("cannot keep the hub's addresses")]
    Durable(#[from] DurableError),
}

/// What is known at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The generation; 0 for what enrolment told.
    pub generation: u64,
    /// The CAs that are trusted, the newest first; never empty.
    pub authorities: Vec<CertificateDer<'static>>,
    device_urls: Vec<String>,
    brokers: Vec<BrokerAddress>,
}

/// Which address is tried next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The device listener.
    Https,
    /// The broker.
    Mqtt,
}

/// The hub's addresses and CAs. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Contacts {
    file: std::path::PathBuf,
    known: watch::Sender<Arc<Known>>,
    turns: Arc<Mutex<[usize; 2]>>,
}

impl Contacts {
    /// What enrolment told, or the newer addresses in `folder`.
    pub(crate) fn open(
        folder: &std::path::Path,
        record: &Record,
        ca: CertificateDer<'static>,
    ) -> Result<Self, DurableError> {
        let file = folder.join(FILE);
        let enrolled = Known {
            generation: 0,
            authorities: vec![ca],
            device_urls: vec![record.device_url.clone()],
            brokers: vec![BrokerAddress { host: record.mqtt_host.clone(), port: record.mqtt_port }],
        };
        let known = match durable::read(&file, HUB_ADDRESSES_BYTES as u64)? {
            None => enrolled,
            Some(bytes) => Known::parse(&bytes).unwrap_or_else(|reason| {
                let file = file.display();
                tracing::error!(%file, reason, "the hub's addresses are left aside");
                enrolled
            }),
        };
        let known = watch::Sender::new(Arc::new(known));
        Ok(Self { file, known, turns: Arc::new(Mutex::new([0; 2])) })
    }

    /// What is known now.
    pub fn known(&self) -> Arc<Known> {
        self.known.borrow().clone()
    }

    /// Told of every change.
    pub fn changes(&self) -> watch::Receiver<Arc<Known>> {
        self.known.subscribe()
    }

    /// The base URL of the device listener to try.
    pub fn device_url(&self) -> String {
        let known = self.known();
        known.device_urls[self.turn(Way::Https, known.device_urls.len())].clone()
    }

    /// The broker to try.
    pub fn broker(&self) -> BrokerAddress {
        let known = self.known();
        known.brokers[self.turn(Way::Mqtt, known.brokers.len())].clone()
    }

    /// What was tried could not be reached: the next attempt tries the next address.
    pub fn failed(&self, way: Way) {
        let turn = &mut self.turns()[way as usize];
        *turn = turn.wrapping_add(1);
    }

    /// The same, when it was this device URL that is tried now; others know that it failed.
    pub fn url_failed(&self, url: &str) {
        if self.device_url() == url {
            self.failed(Way::Https);
        }
    }

    /// Takes the bytes of a document that the release metadata names. Returns whether it is news.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// [`ContactsError`]; nothing changed.
    pub fn take(&self, bytes: &[u8]) -> Result<bool, ContactsError> {
        let next = Known::parse(bytes).map_err(ContactsError::Document)?;
        let known = self.known();
        if next == *known {
            return Ok(false);
        }
        if next.generation < known.generation {
            let (found, known) = (next.generation, known.generation);
            return Err(ContactsError::Older { found, known });
        }
        // A power cut before the rename within leaves the addresses before; the next refresh brings
        // these again.
        durable::write(&self.file, bytes)?;
        *self.turns() = [0; 2];
        self.known.send_replace(Arc::new(next));
        Ok(true)
    }

    fn turn(&self, way: Way, addresses: usize) -> usize {
        self.turns()[way as usize] % addresses.max(1)
    }

    fn turns(&self) -> MutexGuard<'_, [usize; 2]> {
        // A panic elsewhere leaves plain numbers behind, which are still right.
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > HUB_ADDRESSES_BYTES {
            return Err(format!("{} bytes, the limit is {HUB_ADDRESSES_BYTES}", bytes.len()));
        }
        let document: HubAddresses =
            serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        document.check()?;
        let one = |pem: &String| {
            CertificateDer::from_pem_slice(pem.as_bytes())
                .map_err(|error| format!("a certificate authority cannot be read: {error}"))
        };
        Ok(Self {
            generation: document.generation,
            authorities: document.authorities.iter().map(one).collect::<Result<_, _>>()?,
            device_urls: document
                .device_urls
                .iter()
                .map(|url| url.trim_end_matches('/').to_owned())
                .collect(),
            brokers: document.brokers,
        })
    }

    /// All device URLs, the first choice first.
    pub fn device_urls(&self) -> &[String] {
        &self.device_urls
    }
}

#[cfg(test)]
mod tests {
    use fleetloop_protocol::{Digest, UnixMillis};

    use super::*;
    use crate::testing::Ca;

    fn record() -> Record {
        Record {
            format: crate::identity::FORMAT,
            device: "dev-a".parse().unwrap(),
            hub: "https://old:8443".into(),
            mqtt_host: "old".into(),
            mqtt_port: 8883,
            device_url: "https://old:8444".into(),
            channel: "dev".into(),
            ca: Digest::ZERO,
            root: Digest::ZERO,
            enrolled_at: UnixMillis(0),
        }
    }

    fn document(generation: u64, hosts: &[&str], ca: &Ca) -> Vec<u8> {
        let document = HubAddresses {
            generation,
            device_urls: hosts.iter().map(|host| format!("https://{host}:8444")).collect(),
            brokers: hosts
                .iter()
                .map(|host| BrokerAddress { host: (*host).to_owned(), port: 8883 })
                .collect(),
            authorities: vec![ca.pem()],
        };
        serde_json::to_vec(&document).unwrap()
    }

    fn open(folder: &std::path::Path, ca: &Ca) -> Contacts {
        let der = CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap();
        Contacts::open(folder, &record(), der).unwrap()
    }

    #[test]
    fn addresses_are_tried_in_turn_and_what_worked_stays_first() {
        let (dir, ca) = (tempfile::tempdir().unwrap(), Ca::new());
        let contacts = open(dir.path(), &ca);
        assert_eq!(contacts.device_url(), "https://old:8444");
        contacts.failed(Way::Https);
        assert_eq!(contacts.device_url(), "https://old:8444", "there is only one");
        assert!(contacts.take(&document(5, &["old", "new"], &ca)).unwrap());
        assert_eq!(contacts.broker().host, "old");
        contacts.failed(Way::Mqtt);
        assert_eq!(
            (contacts.broker().host, contacts.device_url()),
            ("new".into(), "https://old:8444".into())
        );
        assert_eq!(contacts.broker().host, "new", "until it fails");
        contacts.failed(Way::Mqtt);
        assert_eq!(contacts.broker().host, "old");
        contacts.url_failed("https://new:8444");
        assert_eq!(contacts.device_url(), "https://old:8444", "another one failed");
    }

    #[test]
    fn newer_addresses_are_there_after_a_restart_and_never_go_back() {
        let (dir, ca) = (tempfile::tempdir().unwrap(), Ca::new());
        let contacts = open(dir.path(), &ca);
        let mut told = contacts.changes();
        assert!(contacts.take(&document(5, &["new"], &ca)).unwrap());
        assert!(told.has_changed().unwrap());
        told.mark_unchanged();
        assert!(!contacts.take(&document(5, &["new"], &ca)).unwrap());
        let older = contacts.take(&document(4, &["old"], &ca));
        assert!(matches!(older, Err(ContactsError::Older { found: 4, known: 5 })));
        assert!(matches!(contacts.take(b"{}"), Err(ContactsError::Document(_))));
        assert!(!told.has_changed().unwrap());
        assert_eq!(open(dir.path(), &ca).device_url(), "https://new:8444");
        durable::write(&dir.path().join(FILE), b"damaged").unwrap();
        assert_eq!(open(dir.path(), &ca).device_url(), "https://old:8444");
    }
}
