//! Whether devices meet what their models were made for, as the hub tells it.

use serde::{Deserialize, Serialize};

use crate::drift::{Against, Drift};
use crate::ids::{BundleDigest, DeviceId};

/// The last hours, by model and device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FleetDrift {
    /// How many hours, the present one among them.
    pub hours: u32,
    /// Every model that answered in them, by its digest.
    pub models: Vec<ModelDrift>,
}

/// One model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelDrift {
    /// Its bundle.
    pub model: BundleDigest,
    /// Its name and version, `name/version`.
    pub name: String,
    /// What is compared with.
    pub against: Against,
    /// All devices that were asked for, as one; a device weighs at most twice as much as the median one.
    pub fleet: Drift,
    /// The device that `fleet` leaves out, because without it the others have moved less.
    pub left_out: Option<DeviceId>,
    /// Each of them, by id.
    pub devices: Vec<DeviceDrift>,
}

/// One device under one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceDrift {
    /// The device.
    pub device: DeviceId,
    /// What came of it.
    pub drift: Drift,
}
