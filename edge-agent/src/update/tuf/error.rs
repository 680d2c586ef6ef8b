//! Why release metadata is refused.

use fleetloop_protocol::{Digest, UnixMillis};

/// Release metadata that is not trusted. Nothing of it is used.
#[derive(Debug, thiserror::Error)]
pub enum TufError {
    /// Not the root metadata that the device enrolled with.
    #[error("cannot trust root.json: its SHA-256 is {found}, the device enrolled with {expected}")]
    RootPin {
        /// The digest of the bytes.
        found: Digest,
        /// The digest the enrolment token named.
        expected: Digest,
    },
    /// The repository lacks a file that must be there.
    #[error(
        "cannot refresh release metadata: the repository has no {file}; publish the channel again"
    )]
    Missing {
        /// The file.
        file: String,
    },
    /// More bytes than the file may have.
    #[error("cannot trust {file}: it is larger than {limit} bytes")]
    TooLarge {
        /// The file.
        file: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// Not the metadata it should be.
    #[error("cannot read {file}")]
    Parse {
        /// The file.
        file: String,
        /// What the parser met.
        #[source]
        source: serde_json::Error,
    },
    /// Uses a part of TUF that devices do not follow.
    #[error("cannot follow {file}: {what} is not supported by this agent")]
    Unsupported {
        /// The file.
        file: String,
        /// The part.
        what: &'static str,
    },
    /// Too few valid signatures.
    #[error("cannot trust {file}: its signatures do not meet the threshold of root {root_version}")]
    Signature {
        /// The file.
        file: String,
        /// The root whose keys were asked.
        root_version: u64,
        /// What the check said.
        #[source]
        source: Box<tough::schema::Error>,
    },
    /// Not the version that the file before it named, or not the next root.
    #[error("cannot trust {file}: it is version {found}, expected {expected}")]
    Version {
        /// The file.
        file: String,
        /// The version in the file.
        found: u64,
        /// The version it must have.
        expected: u64,
    },
    /// Older than what the device has already trusted.
    #[error("cannot trust {file}: it goes back from version {trusted} to {found}")]
    Rollback {
        /// The file.
        file: String,
        /// The version offered.
        found: u64,
        /// The version trusted.
        trusted: u64,
    },
    /// Not the bytes that the file before it named.
    #[error("cannot trust {file}: its SHA-256 is not the one that {named_by} names")]
    Hash {
        /// The file.
        file: String,
        /// The file that names the digest.
        named_by: &'static str,
    },
    /// A file that the metadata must name is not named.
    #[error("cannot trust {file}: it does not name {missing}")]
    Incomplete {
        /// The file.
        file: String,
        /// What it should name.
        missing: String,
    },
    /// Too old to be trusted for installing.
    #[error(
        "cannot trust {file}: it expired at {} and the time is {}; the hub must sign it anew",
        expired_at.0, now.0
    )]
    Expired {
        /// The file.
        file: String,
        /// The end of its life.
        expired_at: UnixMillis,
        /// The device's time.
        now: UnixMillis,
    },
    /// More root versions in one refresh than a device follows.
    #[error("cannot follow the chain of roots: more than {limit} versions in one refresh")]
    TooManyRoots {
        /// The limit.
        limit: u32,
    },
    /// The channel does not release that target.
    #[error("the channel releases no target {name:?}; publish it before assigning it")]
    NoTarget {
        /// The target.
        name: String,
    },
}
