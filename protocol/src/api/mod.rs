//! The JSON that the hub's HTTP API speaks with its command line, its workers and programs that
//! label. Paths, methods and who may call them are in `docs/api.md`; a bearer token names a role.

pub mod datasets;
pub mod devices;
pub mod drift;
pub mod findings;
pub mod hosts;
pub mod imports;
pub mod jobs;
pub mod keys;
pub mod labels;
pub mod models;
pub mod reports;
pub mod rollouts;
pub mod samples;
pub mod status;
pub mod tokens;

use serde::{Deserialize, Serialize};

/// What a token's holder may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    Admin,
    /// See samples and label them.
    Annotator,
    /// Lease jobs, read their inputs and write their results.
    Worker,
    /// Take the hub's backup, which is encrypted, and nothing else.
    Backup,
}

/// An error as the API answers it, with the fitting HTTP status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// A stable word for programs: `not_found`, `conflict`, `forbidden`, `invalid`, `full` …
    pub code: String,
    /// Operation, object and next step, for people.
    pub message: String,
}

/// Where a hub's API is and how to call it: what `fleet-hub init` writes for the command line
/// (`admin.toml`) and for a worker (`worker.toml`), readable by their owner only.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiAccess {
    /// The base URL, `https://host:port`.
    pub url: String,
    /// The bearer token.
    pub token: String,
    /// The hub's CA certificate, PEM: the only one that is trusted. Two while the CA is rotated.
    pub ca_pem: String,
}
