//! What is done with the body of a request or an answer over HTTPS: read as every JSON document that
//! agent, hub, worker and people exchange, apart from release metadata.
//!
//! The fuzz target and the test that runs every file of `seeds/document/` share this file.

use fleetloop_protocol::UnixMillis;
use fleetloop_protocol::api::ApiError;
use fleetloop_protocol::api::datasets::{Dataset, FreezeRequest};
use fleetloop_protocol::api::devices::{TokenRequest, TokenResponse};
use fleetloop_protocol::api::imports::{ImportRequest, Missing, Pictures};
use fleetloop_protocol::api::jobs::{Done, JobFailed, Lease, LeaseRequest, Renew, TrainRequest};
use fleetloop_protocol::api::labels::{LabelRequest, LabelSet};
use fleetloop_protocol::api::models::{ImportModel, ReleaseRequest};
use fleetloop_protocol::api::rollouts::RolloutRequest;
use fleetloop_protocol::api::samples::Sample;
use fleetloop_protocol::enrol::{EnrolRequest, EnrolResponse};
use fleetloop_protocol::hub_addresses::HubAddresses;
use fleetloop_protocol::hub_keys::{HubKeyUse, HubKeys};
use fleetloop_protocol::time::HubTime;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads `bytes` as every document; whether they are one.
///
/// # Panics
/// When a document that was read is written or read otherwise the second time.
pub fn attempt(bytes: &[u8]) -> bool {
    let documents: [fn(&[u8]) -> bool; 26] = [
        // Between a device and the hub.
        read::<EnrolRequest>,
        read::<EnrolResponse>,
        read::<HubAddresses>,
        read::<HubKeys>,
        read::<HubTime>,
        read::<ApiError>,
        // Between a worker and the hub.
        read::<LeaseRequest>,
        read::<Lease>,
        read::<Renew>,
        read::<Done>,
        read::<JobFailed>,
        read::<Dataset>,
        // From people and their programs, and back.
        read::<TokenRequest>,
        read::<TokenResponse>,
        read::<FreezeRequest>,
        read::<TrainRequest>,
        read::<LabelRequest>,
        read::<LabelSet>,
        read::<ImportModel>,
        read::<ReleaseRequest>,
        read::<RolloutRequest>,
        read::<Missing>,
        read::<Pictures>,
        read::<ImportRequest>,
        read::<Sample>,
        keys,
    ];
    documents.iter().filter(|read| read(bytes)).count() > 0
}

fn read<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> bool {
    let Ok(document) = serde_json::from_slice::<T>(bytes) else { return false };
    let written = serde_json::to_vec(&document).expect("what was read can be written");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(serde_json::to_vec(&again).expect("as before"), written);
    true
}

/// A device trusts no key outside its time.
fn keys(bytes: &[u8]) -> bool {
    let Ok(keys) = serde_json::from_slice::<HubKeys>(bytes) else { return false };
    let now = UnixMillis(1000);
    let ring = keys.ring(HubKeyUse::Receipt, now);
    let late = |key: &&fleetloop_protocol::hub_keys::HubKey| key.not_after <= now;
    for key in keys.keys.iter().filter(late) {
        let twin = |other: &fleetloop_protocol::hub_keys::HubKey| {
            other.public_key == key.public_key && other.not_after > now
        };
        assert!(keys.keys.iter().any(twin) || ring.get(&key.public_key.id()).is_none());
    }
    true
}
