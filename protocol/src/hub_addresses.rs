//! Where a hub is and which certificate authorities vouch for it, as a released target.
//!
//! The target [`HUB_ADDRESSES_TARGET`] holds this document as JSON. A device takes it only when the
//! channel's metadata names its digest, and never one with a lower generation than it has. It may
//! fetch metadata and document from a server that it does not trust: their signatures are the proof.

use serde::{Deserialize, Serialize};

/// The TUF target that holds [`HubAddresses`].
pub const HUB_ADDRESSES_TARGET: &str = "hub-addresses.json";

/// The largest document a device reads, in bytes; a larger one is refused.
pub const HUB_ADDRESSES_BYTES: usize = 32 * 1024;

/// The most names of a hub; a document with more is refused, and the hub's configuration too.
pub const HUB_HOSTS: usize = 8;

/// The most certificate authorities at one time; a document with more is refused.
pub const HUB_AUTHORITIES: usize = 4;

/// The longest address, in bytes.
const ADDRESS_BYTES: usize = 300;

/// All that a device needs to reach its hub and to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubAddresses {
    /// Rises with each change: seconds since 1970, or one more than the last.
    pub generation: u64,
    /// Base URLs of the device listener, the first choice first; 1 to [`HUB_HOSTS`].
    pub device_urls: Vec<String>,
    /// Brokers, the first choice first; 1 to [`HUB_HOSTS`].
    pub brokers: Vec<BrokerAddress>,
    /// Certificate authorities (PEM), the newest first; 1 to [`HUB_AUTHORITIES`]. A server whose
    /// certificate is signed by any of them is this hub. The newest signs renewed certificates of
    /// devices.
    pub authorities: Vec<String>,
}

/// Where a broker is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerAddress {
    /// Its host name, as in its certificate.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl HubAddresses {
    /// Checks it against its limits; whoever reads one checks the length of the bytes before.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn check(&self) -> Result<(), String> {
        let within = |what: &str, len: usize, most: usize| {
            if (1..=most).contains(&len) {
                Ok(())
            } else {
                Err(format!("it has {len} {what}, 1 to {most} can be"))
            }
        };
        within("device addresses", self.device_urls.len(), HUB_HOSTS)?;
        within("brokers", self.brokers.len(), HUB_HOSTS)?;
        within("certificate authorities", self.authorities.len(), HUB_AUTHORITIES)?;
        let is_https = |url: &String| url.starts_with("https://") && url.len() <= ADDRESS_BYTES;
        if let Some(url) = self.device_urls.iter().find(|url| !is_https(url)) {
            return Err(format!("device address {url:?} is not an https address"));
        }
        let is_broker = |broker: &BrokerAddress| {
            broker.port != 0 && !broker.host.is_empty() && broker.host.len() <= ADDRESS_BYTES
        };
        match self.brokers.iter().find(|broker| !is_broker(broker)) {
            Some(broker) => Err(format!("broker {:?} port {} is none", broker.host, broker.port)),
            None => Ok(()),
        }
    }

    /// Whether the two say the same but for the generation.
    pub fn says_the_same(&self, other: &Self) -> bool {
        Self { generation: other.generation, ..self.clone() } == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> HubAddresses {
        HubAddresses {
            generation: 1_800_000_000,
            device_urls: vec!["https://hub.plant.example:8444".into()],
            brokers: vec![BrokerAddress { host: "hub.plant.example".into(), port: 8883 }],
            authorities: vec!["-----BEGIN CERTIFICATE-----".into()],
        }
    }

    #[test]
    fn the_document_is_this_json() {
        let golden = include_str!("../tests/documents/hub-addresses.json");
        assert_eq!(serde_json::to_string_pretty(&document()).unwrap() + "\n", golden);
        let read: HubAddresses = serde_json::from_str(golden).unwrap();
        assert_eq!((read.check(), read), (Ok(()), document()));
    }

    #[test]
    fn a_document_over_a_limit_or_with_an_address_that_cannot_be_is_refused() {
        let changes: [fn(&mut HubAddresses); 5] = [
            |d| d.device_urls.clear(),
            |d| d.brokers = vec![d.brokers[0].clone(); HUB_HOSTS + 1],
            |d| d.authorities = vec![String::new(); HUB_AUTHORITIES + 1],
            |d| d.device_urls[0] = "http://hub".into(),
            |d| d.brokers[0].port = 0,
        ];
        for change in changes {
            let mut document = document();
            change(&mut document);
            assert!(document.check().is_err(), "{document:?}");
        }
    }
}
