//! Desired and reported: what a device shall run, and what it proves to run.
//!
//! No retained messages: the agent publishes [`Reported`] when it connects, at every change and
//! every minute; the hub answers with a [`Desired`] when the device's generation is behind. The
//! device persists the generation before it acts and never goes below it.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::{BundleDigest, Generation};
use crate::limits::{SIGNED_BODY_BYTES, TEXT_BYTES};
use crate::sample::clock_from_v1;
use crate::signed::{Purpose, Signable};
use crate::time::{ClockState, UnixMillis};
use crate::v1;
use crate::wire::{Invalid, Wire};

/// What a device says of itself, and signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// The generation of the last order it persisted.
    pub generation: Generation,
    /// The highest wire version it reads.
    pub reads_version: u8,
    /// The agent's version.
    pub agent_version: String,
    /// When, by its clock.
    pub at: UnixMillis,
    /// Whether that clock can be relied on.
    pub clock: ClockState,
    /// The bundle that answered a frame last, after its probe passed; none before the first.
    pub running: Option<BundleDigest>,
    /// What becomes of the last order.
    pub update: Update,
}

/// What becomes of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Update {
    /// Nothing is under way.
    Idle,
    /// Being fetched, verified, probed or swapped in.
    Installing {
        /// What is being installed.
        bundle: BundleDigest,
    },
    /// Given up: the device runs what it ran before.
    Failed {
        /// What could not be installed.
        bundle: BundleDigest,
        /// Why, in words.
        reason: String,
    },
}

/// What the hub wants a device to run, and signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// The order's place among all orders for this device.
    pub generation: Generation,
    /// When it was given, by the hub's clock.
    pub at: UnixMillis,
    /// What to run; none leaves the device as it is.
    pub assignment: Option<Assignment>,
}

/// A model to run. Without the channel's signature over the target it is worth nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The TUF target: the bundle's manifest in the channel's repository.
    pub target: String,
    /// The digest that target must have.
    pub bundle: BundleDigest,
}

impl Signable for Reported {
    const PURPOSE: Purpose = Purpose::Reported;
}

impl Wire for Reported {
    type Frozen = v1::Reported;
    const NAME: &'static str = "reported state";
    const LIMIT_BYTES: usize = SIGNED_BODY_BYTES;

    fn freeze(&self, _reads: u8) -> Option<v1::Reported> {
        Some(v1::Reported {
            generation: self.generation.0,
            reads_version: self.reads_version,
            agent_version: self.agent_version.clone(),
            at_ms: self.at.0,
            clock_synced: self.clock == ClockState::Synced,
            running: self.running.map(|bundle| *bundle.0.as_bytes()),
            update: match &self.update {
                Update::Idle => v1::Update::Idle,
                Update::Installing { bundle } => {
                    v1::Update::Installing { bundle: *bundle.0.as_bytes() }
                }
                Update::Failed { bundle, reason } => {
                    v1::Update::Failed { bundle: *bundle.0.as_bytes(), reason: reason.clone() }
                }
            },
        })
    }

    fn thaw(wire: v1::Reported) -> Result<Self, Invalid> {
        let bundle = |bytes| BundleDigest(Digest::from_bytes(bytes));
        text("agent version", &wire.agent_version)?;
        Ok(Self {
            generation: Generation(wire.generation),
            reads_version: wire.reads_version,
            agent_version: wire.agent_version,
            at: UnixMillis(wire.at_ms),
            clock: clock_from_v1(wire.clock_synced),
            running: wire.running.map(bundle),
            update: match wire.update {
                v1::Update::Idle => Update::Idle,
                v1::Update::Installing { bundle: digest } => {
                    Update::Installing { bundle: bundle(digest) }
                }
                v1::Update::Failed { bundle: digest, reason } => {
                    text("failure reason", &reason)?;
                    Update::Failed { bundle: bundle(digest), reason }
                }
            },
        })
    }
}

impl Signable for Desired {
    const PURPOSE: Purpose = Purpose::Desired;
}

impl Wire for Desired {
    type Frozen = v1::Desired;
    const NAME: &'static str = "desired state";
    const LIMIT_BYTES: usize = SIGNED_BODY_BYTES;

    fn freeze(&self, _reads: u8) -> Option<v1::Desired> {
        Some(v1::Desired {
            generation: self.generation.0,
            at_ms: self.at.0,
            assignment: self.assignment.as_ref().map(|a| v1::Assignment {
                target: a.target.clone(),
                bundle: *a.bundle.0.as_bytes(),
            }),
        })
    }

    fn thaw(wire: v1::Desired) -> Result<Self, Invalid> {
        if let Some(assignment) = &wire.assignment {
            text("target name", &assignment.target)?;
        }
        Ok(Self {
            generation: Generation(wire.generation),
            at: UnixMillis(wire.at_ms),
            assignment: wire.assignment.map(|a| Assignment {
                target: a.target,
                bundle: BundleDigest(Digest::from_bytes(a.bundle)),
            }),
        })
    }
}

fn text(name: &str, value: &str) -> Result<(), Invalid> {
    if value.len() > TEXT_BYTES {
        return Err(Invalid(format!("{name} of {} bytes, the limit is {TEXT_BYTES}", value.len())));
    }
    Ok(())
}
