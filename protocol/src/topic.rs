//! MQTT topics, built and parsed in one place: `fleetloop/v1/device/<id>/<kind>`.
//!
//! Only `[a-z0-9_-]` and `/`, QoS 1 (results: QoS 0), nothing retained: any broker serves.

use std::fmt;

use crate::ids::DeviceId;

const BASE: &str = "fleetloop/v1/device";

/// What a topic carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Samples, device to hub.
    Sample,
    /// Gap records, device to hub.
    Gap,
    /// Telemetry, device to hub.
    Telemetry,
    /// Reported state, device to hub.
    Reported,
    /// Results as JSON, device to whoever listens; not signed, nothing depends on them.
    Result,
    /// Receipts, hub to device.
    Receipt,
    /// Refusals, hub to device.
    Refusal,
    /// Desired state, hub to device.
    Desired,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Sample,
        Self::Gap,
        Self::Telemetry,
        Self::Reported,
        Self::Result,
        Self::Receipt,
        Self::Refusal,
        Self::Desired,
    ];

    /// The last level of the topic.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sample => "sample",
            Self::Gap => "gap",
            Self::Telemetry => "telemetry",
            Self::Reported => "reported",
            Self::Result => "result",
            Self::Receipt => "receipt",
            Self::Refusal => "refusal",
            Self::Desired => "desired",
        }
    }

    /// Whether the device is the one that writes it; the hub writes the others.
    pub const fn from_device(self) -> bool {
        match self {
            Self::Sample | Self::Gap | Self::Telemetry | Self::Reported | Self::Result => true,
            Self::Receipt | Self::Refusal | Self::Desired => false,
        }
    }
}

/// One device's topic of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Topic {
    /// Whose.
    pub device: DeviceId,
    /// What it carries.
    pub kind: Kind,
}

/// A topic that is not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("topic {topic:?} is not {BASE}/<device>/<kind>")]
pub struct NotOurs {
    topic: String,
}

impl Topic {
    /// The topic of `device` that carries `kind`.
    pub fn new(device: &DeviceId, kind: Kind) -> Self {
        Self { device: device.clone(), kind }
    }

    /// The topic that `text` names; filters with wildcards name none.
    ///
    /// # Errors
    /// [`NotOurs`] when it is anything else.
    pub fn parse(text: &str) -> Result<Self, NotOurs> {
        let not_ours = || NotOurs { topic: crate::limits::shorten(text) };
        let rest = text.strip_prefix(BASE).and_then(|rest| rest.strip_prefix('/'));
        let (device, kind) = rest.and_then(|rest| rest.split_once('/')).ok_or_else(not_ours)?;
        let kind = Kind::ALL.into_iter().find(|k| k.as_str() == kind).ok_or_else(not_ours)?;
        Ok(Self { device: device.parse().map_err(|_| not_ours())?, kind })
    }

    /// Whether `device` may publish to this topic.
    pub fn writable_by(&self, device: &DeviceId) -> bool {
        self.device == *device && self.kind.from_device()
    }

    /// Whether `device` may subscribe to this topic: what the hub writes to it, and its own results.
    pub fn readable_by(&self, device: &DeviceId) -> bool {
        self.device == *device && (!self.kind.from_device() || self.kind == Kind::Result)
    }

    /// The filter that matches `kind` of every device, for the hub.
    pub fn all(kind: Kind) -> String {
        format!("{BASE}/+/{}", kind.as_str())
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{BASE}/{}/{}", self.device, self.kind.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_parsed_and_nothing_else_is() {
        let device: DeviceId = "dev-1".parse().unwrap();
        for kind in Kind::ALL {
            let topic = Topic::new(&device, kind);
            assert_eq!(Topic::parse(&topic.to_string()), Ok(topic));
        }
        for bad in [
            "",
            "#",
            "fleetloop/v1/device/+/sample",
            "fleetloop/v1/device/dev-1",
            "fleetloop/v1/device/dev-1/sample/x",
            "fleetloop/v2/device/dev-1/sample",
            "$share/g/fleetloop/v1/device/dev-1/desired",
            "fleetloop/v1/devicedev-1/sample",
        ] {
            assert!(Topic::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_device_writes_its_own_reports_and_reads_its_own_answers() {
        let (me, other): (DeviceId, DeviceId) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert!(Topic::new(&me, Kind::Sample).writable_by(&me));
        assert!(!Topic::new(&other, Kind::Sample).writable_by(&me));
        assert!(!Topic::new(&me, Kind::Receipt).writable_by(&me));
        assert!(Topic::new(&me, Kind::Receipt).readable_by(&me));
        assert!(!Topic::new(&other, Kind::Receipt).readable_by(&me));
        assert!(!Topic::new(&me, Kind::Sample).readable_by(&me));
    }
}
