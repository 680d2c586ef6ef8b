//! Rollouts as the operator sees them.

use serde::{Deserialize, Serialize};

use super::devices::Presence;
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
    /// Every device proved it, but for those that were away or gave no answer in time.
    Done,
    /// A device could not; those that took the new model are sent back.
    Halted {
        /// Which device.
        device: DeviceId,
        /// Why, in its words.
        reason: String,
    },
    /// An operator ended it, or began another one while it waited for devices that are away.
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
    /// Whether it is there; none once the rollout has ended.
    pub presence: Option<Presence>,
}

/// What a rollout waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// For whom.
    pub device: DeviceId,
    /// Whether it is there.
    pub presence: Presence,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// Until when at most, in milliseconds since 1970. None while no other device is there that could
    /// go first instead.
    pub until_ms: Option<u64>,
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
    /// It was asked and gave no answer in time: nobody waits for it. It takes the bundle when it is back.
    Late,
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
    /// Whether it goes back to an earlier bundle: all devices at once, and none halts it.
    pub back: bool,
    /// The canary first, then the others by id.
    pub members: Vec<Member>,
    /// What it waits for now; empty once it has ended.
    pub waits: Vec<Wait>,
    /// Who began it.
    pub started_by: String,
    /// When, in milliseconds since 1970.
    pub started_at_ms: u64,
}
