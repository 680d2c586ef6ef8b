//! The hub's limits, each with a default, a unit, and what happens there.

use fleetloop_protocol::limits::{MESSAGE_BYTES, PAYLOAD_BYTES};
use serde::{Deserialize, Serialize};

use crate::listeners::gate::limits::ConnectionLimits;

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
    /// Messages being verified and stored at once; one more is refused (busy, retry). One device
    /// holds at most half as many as are free.
    pub backlog_messages: usize,
    /// Messages a second from one device; above that it is slowed, or refused for now where an
    /// external broker is used.
    pub device_messages_per_s: u32,
    /// Messages that one device may send at once after a pause.
    pub device_messages_burst: u32,
    /// Bytes a second from one device, as for messages.
    pub device_bytes_per_s: u64,
    /// Bytes that one device may send at once after a pause.
    pub device_bytes_burst: u64,
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
    /// The largest import of pictures or result of a job, in bytes; a larger one is answered with 413.
    /// Every other request has its own limit (`door/bodies.rs`).
    pub request_bytes: usize,
    /// Quarantined messages kept of each device; its oldest go, never another device's.
    pub device_quarantine_rows: u32,
    /// Lines a day that one device's messages write into the audit log; more are only counted.
    pub device_audit_rows: u32,
    /// How long a device's certificate is good for, in days; devices renew theirs at two thirds of it.
    pub device_certificate_days: u32,
    /// How long a stop waits for work under way, in seconds; what is left is cut off, which loses
    /// nothing that has a receipt.
    pub drain_s: u32,
    /// How many connections there may be, and how long each may take.
    pub connections: ConnectionLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            disk_floor_bytes: 256 * 1024 * 1024,
            backlog_messages: 1024,
            device_messages_per_s: 1000,
            device_messages_burst: 4000,
            device_bytes_per_s: 8 * 1024 * 1024,
            device_bytes_burst: 32 * 1024 * 1024,
            retry_full_s: 60,
            retry_busy_s: 5,
            artefact_bytes: 2 * 1024 * 1024 * 1024,
            upload_device_bytes: 64 * 1024 * 1024,
            upload_total_bytes: 4 * 1024 * 1024 * 1024,
            upload_keep_s: 24 * 3600,
            request_bytes: 16 * 1024 * 1024,
            device_quarantine_rows: 100,
            device_audit_rows: 100,
            device_certificate_days: 365,
            drain_s: 10,
            connections: ConnectionLimits::default(),
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
        positive("device_messages_per_s", self.device_messages_per_s > 0);
        positive("device_messages_burst", self.device_messages_burst > 0);
        positive("device_quarantine_rows", self.device_quarantine_rows > 0);
        positive("device_audit_rows", self.device_audit_rows > 0);
        positive("device_certificate_days", self.device_certificate_days > 0);
        for (key, bytes) in [
            ("upload_device_bytes", self.upload_device_bytes),
            ("upload_total_bytes", self.upload_total_bytes),
        ] {
            if bytes < PAYLOAD_BYTES as u64 {
                problems.push(format!("limits.{key} must have room for one: {PAYLOAD_BYTES}"));
            }
        }
        for (key, bytes) in [
            ("device_bytes_per_s", self.device_bytes_per_s),
            ("device_bytes_burst", self.device_bytes_burst),
        ] {
            // A message is held up for a second at most, and any passes.
            if bytes < MESSAGE_BYTES as u64 {
                problems
                    .push(format!("limits.{key} must have room for a message: {MESSAGE_BYTES}"));
            }
        }
        if self.device_certificate_days > CERTIFICATE_DAYS_MAX {
            let most = CERTIFICATE_DAYS_MAX;
            problems.push(format!("limits.device_certificate_days must be at most {most}"));
        }
        if self.backlog_messages > BACKLOG_MAX {
            problems.push(format!("limits.backlog_messages must be at most {BACKLOG_MAX}"));
        }
        problems.extend(self.connections.problems());
        problems
    }
}
