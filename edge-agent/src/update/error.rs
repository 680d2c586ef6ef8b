//! Why an update did not happen, and whether trying again can help.

use std::path::PathBuf;

use fleetloop_models::bundle::BundleError;
use fleetloop_protocol::{BundleDigest, Digest};

use super::models::NotSwapped;
use super::tuf::{StoreError, TufError};
use crate::contacts::ContactsError;
use crate::durable::DurableError;
use crate::tls::TlsError;

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The network or the clock: try again for as long as it takes.
    Always,
    /// The hub or this disk is at fault, perhaps for a moment: try a few times, then give up.
    AFewTimes,
    /// The same bytes would fail again: give up at once.
    Never,
}

/// Why an update did not happen.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// No connection, or one that broke.
    #[error("cannot fetch {url}; it is tried again")]
    Unreachable {
        /// The address.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The hub answered something else.
    #[error("cannot fetch {url}: the hub answered {status}; see the hub's log")]
    Status {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The answer is not what was asked for.
    #[error("cannot use what {url} gives: {reason}")]
    BadAnswer {
        /// The address.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// Other bytes than the ones that were named.
    #[error("cannot trust artefact {expected}: its bytes have SHA-256 {found}")]
    WrongBytes {
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// The time is a guess, so nothing new is installed.
    #[error("cannot refresh release metadata: the clock is not synced ({reason})")]
    ClockUnsynced {
        /// Why not.
        reason: String,
    },
    /// Release metadata is not trusted.
    #[error("cannot trust the channel's release metadata")]
    Tuf(#[from] TufError),
    /// Trusted metadata cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The released target is not what was ordered.
    #[error(
        "the channel releases {target} as {released}, the order names {ordered}; assign it again"
    )]
    OtherBundle {
        /// The target.
        target: String,
        /// The digest in the channel.
        released: Digest,
        /// The digest in the order.
        ordered: BundleDigest,
    },
    /// The manifest's name and version are not the target's.
    #[error("the bundle under target {target} calls itself {found}; release it under its own name")]
    OtherName {
        /// The target.
        target: String,
        /// What the manifest says.
        found: String,
    },
    /// The bundle cannot be used.
    #[error("cannot use the fetched bundle")]
    Bundle(#[source] BundleError),
    /// The bundle is on the disk, and does not answer.
    #[error("cannot install a bundle")]
    Swap(#[source] NotSwapped),
    /// The hub's keys cannot be read.
    #[error(
        "cannot read the hub's keys (target {})",
        fleetloop_protocol::hub_keys::HUB_KEYS_TARGET
    )]
    HubKeys(#[source] serde_json::Error),
    /// The hub's addresses cannot be taken.
    #[error(transparent)]
    Addresses(#[from] ContactsError),
    /// The disk is full.
    #[error("cannot keep {}: the disk is full; make room on the device", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// The file system.
    #[error("cannot keep the update")]
    Durable(#[source] DurableError),
    /// A damaged record of bundles or orders.
    #[error("cannot read {}: {reason}; remove the file and the hub's order is carried out again", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl From<DurableError> for UpdateError {
    fn from(error: DurableError) -> Self {
        let full = error.is_disk_full();
        match error {
            DurableError::Io { path, .. } if full => Self::DiskFull { path },
            error => Self::Durable(error),
        }
    }
}

impl UpdateError {
    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unreachable { .. } | Self::ClockUnsynced { .. } => Retry::Always,
            Self::Status { .. } | Self::BadAnswer { .. } | Self::DiskFull { .. } => {
                Retry::AFewTimes
            }
            Self::Durable(_) | Self::Store(StoreError::Durable(_)) => Retry::AFewTimes,
            // A hub that was down signs anew within moments of its start.
            Self::Tuf(TufError::Expired { .. } | TufError::Missing { .. }) => Retry::AFewTimes,
            Self::Tuf(TufError::NoTarget { .. }) => Retry::AFewTimes,
            Self::Swap(error) => error.retry,
            _ => Retry::Never,
        }
    }
}
