//! Desired and reported: what a device shall run, and what it proves to run.
//!
//! No retained messages: the agent publishes [`Reported`] when it connects, at every change and
//! every minute; the hub answers with a [`Desired`] when the device's generation is behind. The
//! device persists the generation before it acts and never goes below it.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::form;
use crate::ids::{BundleDigest, Epoch, Generation};
use crate::limits::{SIGNED_BODY_BYTES, TEXT_BYTES};
use crate::sample::clock_from_form;
use crate::signed::{Purpose, Signable};
use crate::time::{ClockState, UnixMillis};
use crate::wire::{Invalid, Wire};

/// What a device says of itself, and signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// The generation of the last order it persisted.
    pub generation: Generation,
    /// Drawn at random at each start of the agent. Two that take turns are two machines.
    pub start: u64,
    /// The epoch that it signs samples under.
    pub epoch: Epoch,
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
    /// The generation of the hub's addresses that it knows ([`crate::hub_addresses`]); 0 for those of
    /// its enrolment.
    pub addresses: u64,
    /// Whether it was told to end: it is away from now on, until another start reports.
    pub stopping: bool,
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
    type Form = form::Reported;
    const NAME: &'static str = "reported state";
    const LIMIT_BYTES: usize = SIGNED_BODY_BYTES;

    fn to_form(&self) -> form::Reported {
        form::Reported {
            generation: self.generation.0,
            start: self.start,
            epoch: self.epoch.0,
            agent_version: self.agent_version.clone(),
            at_ms: self.at.0,
            clock_synced: self.clock == ClockState::Synced,
            running: self.running.map(|bundle| *bundle.0.as_bytes()),
            update: match &self.update {
                Update::Idle => form::Update::Idle,
                Update::Installing { bundle } => {
                    form::Update::Installing { bundle: *bundle.0.as_bytes() }
                }
                Update::Failed { bundle, reason } => {
                    form::Update::Failed { bundle: *bundle.0.as_bytes(), reason: reason.clone() }
                }
            },
            addresses: self.addresses,
            stopping: self.stopping,
        }
    }

    fn from_form(form: form::Reported) -> Result<Self, Invalid> {
        let bundle = |bytes| BundleDigest(Digest::from_bytes(bytes));
        text("agent version", &form.agent_version)?;
        Ok(Self {
            generation: Generation(form.generation),
            start: form.start,
            epoch: Epoch(form.epoch),
            agent_version: form.agent_version,
            at: UnixMillis(form.at_ms),
            clock: clock_from_form(form.clock_synced),
            running: form.running.map(bundle),
            update: match form.update {
                form::Update::Idle => Update::Idle,
                form::Update::Installing { bundle: digest } => {
                    Update::Installing { bundle: bundle(digest) }
                }
                form::Update::Failed { bundle: digest, reason } => {
                    text("failure reason", &reason)?;
                    Update::Failed { bundle: bundle(digest), reason }
                }
            },
            addresses: form.addresses,
            stopping: form.stopping,
        })
    }
}

impl Signable for Desired {
    const PURPOSE: Purpose = Purpose::Desired;
}

impl Wire for Desired {
    type Form = form::Desired;
    const NAME: &'static str = "desired state";
    const LIMIT_BYTES: usize = SIGNED_BODY_BYTES;

    fn to_form(&self) -> form::Desired {
        form::Desired {
            generation: self.generation.0,
            at_ms: self.at.0,
            assignment: self.assignment.as_ref().map(|a| form::Assignment {
                target: a.target.clone(),
                bundle: *a.bundle.0.as_bytes(),
            }),
        }
    }

    fn from_form(form: form::Desired) -> Result<Self, Invalid> {
        if let Some(assignment) = &form.assignment {
            text("target name", &assignment.target)?;
        }
        Ok(Self {
            generation: Generation(form.generation),
            at: UnixMillis(form.at_ms),
            assignment: form.assignment.map(|a| Assignment {
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
