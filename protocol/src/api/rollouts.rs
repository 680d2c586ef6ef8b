//! Rollouts as the operator sees them.

use serde::{Deserialize, Serialize};

use crate::ids::{BundleDigest, DeviceId};

/// A rollout's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RolloutId(pub u64);

/// A request to roll out, `POST /api/v1/rollouts`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutRequest {
    /// The released bundle.
    pub bundle: BundleDigest,
    /// The device that goes first; the hub picks one when none is named.
    #[serde(default)]
    pub canary: Option<DeviceId>,
}

/// Where a rollout stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub enum Phase {
    /// One device proves it.
    Canary,
    /// All others follow.
    Everyone,
    /// Every device proved it.
    Done,
    /// A device could not; those that took the new model are sent back.
    Halted {
        /// Which device.
        device: DeviceId,
        /// Why, in its words.
        reason: String,
    },
    /// An operator ended it.
    Cancelled,
}

/// A device within a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Which.
    pub device: DeviceId,
    /// What it ran before and is sent back to.
    pub before: Option<BundleDigest>,
    /// Where it stands.
    pub state: MemberState,
}

/// Where a device stands within a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum MemberState {
    /// Not its turn yet.
    Waiting,
    /// Asked to run the bundle.
    Assigned,
    /// Its signed report names the bundle as what answered.
    Proven,
    /// It went back by itself.
    Failed {
        /// Why, in its words.
        reason: String,
    },
}

/// A rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Its number.
    pub id: RolloutId,
    /// What is rolled out.
    pub bundle: BundleDigest,
    /// Where it stands.
    pub phase: Phase,
    /// The canary first, then the others by id.
    pub members: Vec<Member>,
    /// Who began it.
    pub started_by: String,
    /// When, in milliseconds since 1970.
    pub started_at_ms: u64,
}
