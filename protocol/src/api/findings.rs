//! Findings: what the hub noticed about a device, a worker or itself, and an operator should know.

use serde::{Deserialize, Serialize};

use crate::ids::DeviceId;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; nothing is wrong yet.
    Notice,
    /// Something is wrong; look at it this week.
    Warning,
    /// Data, trust or a device is at risk; look at it now.
    Alarm,
}

impl Severity {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Alarm => "alarm",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Its number.
    pub id: u64,
    /// What kind it is: a stable word, `chain.previous`, `clone` …
    pub kind: String,
    /// How much it matters.
    pub severity: Severity,
    /// The device that it is about; none for a worker or the hub itself.
    pub device: Option<DeviceId>,
    /// What exactly it is about; with kind and device, its identity.
    pub subject: String,
    /// What was seen the first time.
    pub detail: String,
    /// What the kind means and what to do next, in one sentence.
    pub meaning: String,
    /// How often it was seen.
    pub count: u64,
    /// When it was first seen, in milliseconds since 1970.
    pub first_at_ms: u64,
    /// When it was last seen.
    pub last_at_ms: u64,
    /// Who has seen to it; none while it is open.
    pub acknowledged: Option<Acknowledged>,
}

/// Who has seen to a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// Who.
    pub by: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What they found or did; may be empty.
    pub note: String,
}

/// `POST /api/v1/findings/{id}/acknowledge`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcknowledgeRequest {
    /// What was found or done, at most 500 characters; may be empty.
    #[serde(default)]
    pub note: String,
}
