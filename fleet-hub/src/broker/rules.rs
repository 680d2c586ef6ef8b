//! Who may connect, publish and subscribe: pure functions over names and topics.

use fleetloop_protocol::DeviceId;
use fleetloop_protocol::topic::{Kind, Topic};

use crate::pki::HUB_CLIENT;

/// Who a session belongs to, by its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// The hub's own client.
    Hub,
    /// A device.
    Device(DeviceId),
}

impl Peer {
    /// The peer of that certificate name, if it can be one.
    pub fn named(common_name: &str) -> Option<Self> {
        match common_name {
            HUB_CLIENT => Some(Self::Hub),
            name => name.parse().ok().map(Self::Device),
        }
    }

    /// The peer of a connection that claims `client_id` under a certificate for `common_name`;
    /// none when the two differ.
    pub fn claiming(common_name: Option<&str>, client_id: &str) -> Option<Self> {
        common_name.filter(|name| *name == client_id).and_then(Self::named)
    }

    /// Whether the peer may publish to `topic`, itself or as its will. Nothing is ever retained.
    pub fn may_publish(&self, topic: &str, retain: bool) -> bool {
        let Ok(topic) = Topic::parse(topic) else { return false };
        !retain
            && match self {
                Self::Hub => !topic.kind.from_device(),
                Self::Device(device) => topic.writable_by(device),
            }
    }

    /// Whether the peer may subscribe to `filter`; shared subscriptions are for nobody, for they
    /// would take messages from whom they are meant for.
    pub fn may_subscribe(&self, filter: &str, shared: bool) -> bool {
        if shared {
            return false;
        }
        match self {
            Self::Hub => Kind::ALL.into_iter().any(|kind| filter == Topic::all(kind)),
            Self::Device(device) => {
                Topic::parse(filter).is_ok_and(|topic| topic.readable_by(device))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str) -> Peer {
        Peer::named(name).unwrap()
    }

    #[test]
    fn a_client_id_that_is_not_the_certificates_name_is_nobody() {
        assert_eq!(Peer::claiming(Some("dev-a"), "dev-a"), Some(device("dev-a")));
        assert_eq!(Peer::claiming(Some("dev-a"), "dev-b"), None);
        assert_eq!(Peer::claiming(Some("dev-a"), "hub"), None);
        assert_eq!(Peer::claiming(None, "dev-a"), None);
        assert_eq!(Peer::claiming(Some("DEV A"), "DEV A"), None);
    }

    #[test]
    fn a_device_writes_and_reads_only_what_is_its_own() {
        let me = device("dev-a");
        assert!(me.may_publish("fleetloop/v1/device/dev-a/sample", false));
        assert!(!me.may_publish("fleetloop/v1/device/dev-a/sample", true));
        assert!(!me.may_publish("fleetloop/v1/device/dev-b/sample", false));
        assert!(!me.may_publish("fleetloop/v1/device/dev-a/receipt", false));
        assert!(!me.may_publish("anything", false));
        assert!(me.may_subscribe("fleetloop/v1/device/dev-a/receipt", false));
        for filter in [
            "#",
            "fleetloop/#",
            "fleetloop/v1/device/+/receipt",
            "fleetloop/v1/device/dev-b/receipt",
            "fleetloop/v1/device/dev-a/+",
        ] {
            assert!(!me.may_subscribe(filter, false), "{filter}");
        }
        assert!(!me.may_subscribe("fleetloop/v1/device/dev-a/receipt", true));
    }

    #[test]
    fn the_hub_answers_devices_and_never_speaks_for_them() {
        assert!(Peer::Hub.may_publish("fleetloop/v1/device/dev-a/receipt", false));
        assert!(!Peer::Hub.may_publish("fleetloop/v1/device/dev-a/sample", false));
        assert!(Peer::Hub.may_subscribe("fleetloop/v1/device/+/sample", false));
        assert!(!Peer::Hub.may_subscribe("#", false));
    }
}
