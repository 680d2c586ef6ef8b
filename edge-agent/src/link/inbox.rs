//! What the hub sends, verified. Pure.

use fleetloop_protocol::hub_keys::{HubKeyUse, HubKeys};
use fleetloop_protocol::receipt::{Receipt, Refusal};
use fleetloop_protocol::signed::VerifyError;
use fleetloop_protocol::state::Desired;
use fleetloop_protocol::topic::{Kind, NotOurs, Topic};
use fleetloop_protocol::{DeviceId, UnixMillis, Verified};

/// A message of the hub whose signature holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Inbound {
    /// Something is stored.
    Receipt(Receipt),
    /// Something is not.
    Refusal(Refusal),
    /// What to run.
    Desired(Desired),
}

/// A message that is ignored.
#[derive(Debug, thiserror::Error)]
pub enum Ignored {
    /// Not a topic of ours.
    #[error(transparent)]
    Topic(#[from] NotOurs),
    /// A topic the hub does not write to this device.
    #[error("cannot take a message on {0}: the hub writes no such topic to this device")]
    OtherTopic(String),
    /// The hub's keys are not known yet.
    #[error("cannot trust a message yet: the hub's keys are not known")]
    NoKeys,
    /// The signature does not hold.
    #[error(transparent)]
    Untrusted(#[from] VerifyError),
}

impl Ignored {
    /// Whether newer keys might help.
    pub fn asks_for_keys(&self) -> bool {
        matches!(self, Self::NoKeys | Self::Untrusted(VerifyError::UnknownKey { .. }))
    }
}

/// Verifies a message that came on `topic` at `now`.
///
/// # Errors
/// [`Ignored`] says why nothing follows from it.
pub fn open(
    topic: &str,
    payload: &[u8],
    device: &DeviceId,
    keys: Option<&HubKeys>,
    now: UnixMillis,
) -> Result<Inbound, Ignored> {
    let topic = Topic::parse(topic)?;
    if topic.device != *device || topic.kind.from_device() {
        return Err(Ignored::OtherTopic(topic.to_string()));
    }
    let keys = keys.ok_or(Ignored::NoKeys)?;
    let ring = |usage| keys.ring(usage, now);
    Ok(match topic.kind {
        Kind::Receipt => Inbound::Receipt(
            Verified::open(payload, device, &ring(HubKeyUse::Receipt))?.into_inner(),
        ),
        Kind::Refusal => Inbound::Refusal(
            Verified::open(payload, device, &ring(HubKeyUse::Receipt))?.into_inner(),
        ),
        Kind::Desired => Inbound::Desired(
            Verified::open(payload, device, &ring(HubKeyUse::Assignment))?.into_inner(),
        ),
        _ => return Err(Ignored::OtherTopic(topic.to_string())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetloop_protocol::hub_keys::HubKey;
    use fleetloop_protocol::keys::SigningKey;
    use fleetloop_protocol::{Generation, Signed};

    const NOW: UnixMillis = UnixMillis(1000);

    fn key() -> SigningKey {
        SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap()
    }

    fn keys(key: &SigningKey, usage: HubKeyUse, from: u64, to: u64) -> HubKeys {
        let (not_before, not_after) = (UnixMillis(from), UnixMillis(to));
        HubKeys { keys: vec![HubKey { public_key: key.public(), usage, not_before, not_after }] }
    }

    fn desired(device: &DeviceId, key: &SigningKey) -> Vec<u8> {
        let desired = Desired { generation: Generation(3), at: NOW, assignment: None };
        Signed::seal(&desired, device, key).unwrap().into_bytes()
    }

    #[test]
    fn an_order_is_trusted_by_a_valid_assignment_key_and_by_nothing_else() {
        let device: DeviceId = "dev-a".parse().unwrap();
        let topic = Topic::new(&device, Kind::Desired).to_string();
        let (hub, other) = (key(), key());
        let bytes = desired(&device, &hub);
        let good = keys(&hub, HubKeyUse::Assignment, 0, 2000);
        assert!(matches!(
            open(&topic, &bytes, &device, Some(&good), NOW),
            Ok(Inbound::Desired(Desired { generation: Generation(3), .. }))
        ));
        for bad in [
            keys(&hub, HubKeyUse::Receipt, 0, 2000),
            keys(&hub, HubKeyUse::Assignment, 0, 1000),
            keys(&hub, HubKeyUse::Assignment, 1001, 2000),
            keys(&other, HubKeyUse::Assignment, 0, 2000),
        ] {
            let error = open(&topic, &bytes, &device, Some(&bad), NOW).unwrap_err();
            assert!(error.asks_for_keys(), "{error}");
        }
        assert!(matches!(open(&topic, &bytes, &device, None, NOW), Err(Ignored::NoKeys)));
    }

    #[test]
    fn a_message_for_another_device_or_altered_on_the_way_is_ignored() {
        let device: DeviceId = "dev-a".parse().unwrap();
        let other: DeviceId = "dev-b".parse().unwrap();
        let topic = Topic::new(&device, Kind::Desired).to_string();
        let hub = key();
        let keys = keys(&hub, HubKeyUse::Assignment, 0, 2000);
        let theirs = desired(&other, &hub);
        let error = open(&topic, &theirs, &device, Some(&keys), NOW).unwrap_err();
        assert!(matches!(error, Ignored::Untrusted(VerifyError::Device { .. })), "{error}");
        let mut altered = desired(&device, &hub);
        *altered.last_mut().unwrap() ^= 1;
        let error = open(&topic, &altered, &device, Some(&keys), NOW).unwrap_err();
        assert!(matches!(error, Ignored::Untrusted(VerifyError::Signature { .. })), "{error}");
        let wrong = Topic::new(&device, Kind::Reported).to_string();
        let bytes = desired(&device, &hub);
        assert!(matches!(
            open(&wrong, &bytes, &device, Some(&keys), NOW),
            Err(Ignored::OtherTopic(_))
        ));
    }
}
