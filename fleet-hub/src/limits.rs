//! The hub's limits, each with a default, a unit, and what happens there.

use fleetloop_protocol::limits::PAYLOAD_BYTES;
use serde::{Deserialize, Serialize};

/// The most messages under way at once that can be configured: 13 GB of them.
const BACKLOG_MAX: usize = 100_000;

/// The longest life of a device's certificate that can be configured, in days: the CA's.
const CERTIFICATE_DAYS_MAX: u32 = 3650;

/// Limits, the table `[limits]` of `hub.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Free disk space, in bytes, below which samples are refused (retry) and uploads fail.
    pub disk_floor_bytes: u64,
    /// Messages being verified and stored at once; one more is refused (busy, retry).
    pub backlog_messages: usize,
    /// When a device shall try again after a full disk, in seconds.
    pub retry_full_s: u32,
    /// When a device shall try again after a busy hub, in seconds.
    pub retry_busy_s: u32,
    /// The largest artefact, in bytes; a larger upload is refused.
    pub artefact_bytes: u64,
    /// Payloads that one device uploaded and whose samples have not come yet, in bytes; more drops
    /// its oldest, which it then uploads again.
    pub upload_device_bytes: u64,
    /// The same of all devices together; more is answered with 507, and devices try again.
    pub upload_total_bytes: u64,
    /// How long an upload waits for its sample, in seconds; then it is dropped.
    pub upload_keep_s: u32,
    /// The largest other request body, in bytes; a larger one is answered with 413.
    pub request_bytes: usize,
    /// Quarantined messages kept; the oldest go.
    pub quarantine_rows: u32,
    /// How long a device's certificate is good for, in days; devices renew theirs at two thirds of it.
    pub device_certificate_days: u32,
    /// How long a stop waits for work under way, in seconds; what is left is cut off, which loses
    /// nothing that has a receipt.
    pub drain_s: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            disk_floor_bytes: 256 * 1024 * 1024,
            backlog_messages: 1024,
            retry_full_s: 60,
            retry_busy_s: 5,
            artefact_bytes: 2 * 1024 * 1024 * 1024,
            upload_device_bytes: 64 * 1024 * 1024,
            upload_total_bytes: 4 * 1024 * 1024 * 1024,
            upload_keep_s: 24 * 3600,
            request_bytes: 16 * 1024 * 1024,
            quarantine_rows: 1000,
            device_certificate_days: 365,
            drain_s: 10,
        }
    }
}

impl Limits {
    /// What cannot be, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut positive = |key: &str, is_positive: bool| {
            if !is_positive {
                problems.push(format!("limits.{key} must be above 0"));
            }
        };
        positive("backlog_messages", self.backlog_messages > 0);
        positive("retry_full_s", self.retry_full_s > 0);
        positive("retry_busy_s", self.retry_busy_s > 0);
        positive("artefact_bytes", self.artefact_bytes > 0);
        positive("upload_keep_s", self.upload_keep_s > 0);
        positive("request_bytes", self.request_bytes > 0);
        positive("quarantine_rows", self.quarantine_rows > 0);
        positive("device_certificate_days", self.device_certificate_days > 0);
        for (key, bytes) in [
            ("upload_device_bytes", self.upload_device_bytes),
            ("upload_total_bytes", self.upload_total_bytes),
        ] {
            if bytes < PAYLOAD_BYTES as u64 {
                problems.push(format!("limits.{key} must have room for one: {PAYLOAD_BYTES}"));
            }
        }
        if self.device_certificate_days > CERTIFICATE_DAYS_MAX {
            let most = CERTIFICATE_DAYS_MAX;
            problems.push(format!("limits.device_certificate_days must be at most {most}"));
        }
        if self.backlog_messages > BACKLOG_MAX {
            problems.push(format!("limits.backlog_messages must be at most {BACKLOG_MAX}"));
        }
        problems
    }
}
