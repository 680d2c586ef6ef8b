//! `fleet-hub status`

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fleetloop_observe::output::Output;
use fleetloop_protocol::api::status::{HubStatus, RestoredStatus};

use super::client::Client;
use super::human;

/// Asks the hub how it is.
///
/// # Errors
/// The hub was not reached or refused.
pub async fn run(client: &Client, output: Output) -> anyhow::Result<()> {
    let status: HubStatus = client.get("ask for the hub's status", "/status").await?;
    output.print(&status, describe)
}

fn describe(status: &HubStatus) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        // Writing to a text does not fail.
        let _ = writeln!(out, "{name:<10}{text}");
    };
    line("hub", format!("{}, up {} s", status.version, status.uptime_s));
    for reason in &status.health.reasons {
        line("unwell", reason.clone());
    }
    for warning in &status.warnings {
        line("warning", warning.clone());
    }
    let broker = if status.broker_connected { "connected" } else { "not connected" };
    let (under_way, limit) = (status.messages_under_way, status.messages_limit);
    line("broker", format!("{broker}; {under_way} of {limit} messages under way"));
    let (enrolled, revoked) = (status.devices_enrolled, status.devices_revoked);
    line(
        "devices",
        format!(
            "{} of {enrolled} heard within three minutes; {revoked} revoked",
            status.devices_connected
        ),
    );
    let samples = &status.samples;
    line(
        "samples",
        format!(
            "{} of the fleet ({} labelled), {} imported; {} gaps",
            samples.fleet, samples.fleet_labelled, samples.imported, samples.gaps
        ),
    );
    line(
        "messages",
        format!(
            "{} repeated, {} refused{}, {} quarantined",
            samples.repeated,
            samples.refused,
            bracketed(&status.refused_by_reason),
            samples.quarantined
        ),
    );
    for (device, waiting) in &status.left_behind {
        line("left", left_behind(device, *waiting));
    }
    if let Some(restored) = &status.restored {
        line("restored", self::restored(restored));
    }
    line("findings", findings(&status.findings));
    line("jobs", sum(&status.jobs));
    line(
        "models",
        format!("{}, {} released; {} datasets", status.models, status.releases, status.datasets),
    );
    line("rollouts", sum(&status.rollouts));
    let free = status.disk_free_bytes.map_or("unknown".to_owned(), human::bytes);
    line(
        "disk",
        format!(
            "{free} free, floor {}; database {}",
            human::bytes(status.disk_floor_bytes),
            human::bytes(status.database_bytes)
        ),
    );
    line("memory", human::bytes(status.rss_bytes));
    if let Some(otlp) = &status.otlp {
        let (sent, failed, dropped) = (otlp.exported, otlp.failed, otlp.dropped);
        line("otlp", format!("{sent} spans sent, {failed} failed, {dropped} dropped"));
    }
    out
}

fn findings(open: &BTreeMap<String, u64>) -> String {
    if open.is_empty() {
        return "none open".to_owned();
    }
    format!("{} open; see 'fleet-hub finding list'", parts(open))
}

/// What a device could not send before another took its place.
fn left_behind(device: &str, waiting: u64) -> String {
    format!(
        "{waiting} messages on replaced device {device}, as it last said; {}",
        super::devices::FETCH_LEFT_BEHIND
    )
}

fn restored(restored: &RestoredStatus) -> String {
    let lost: u64 = restored.samples_lost.values().sum();
    let mut text = format!(
        "from a backup of {}; lost since: {lost} samples of {} devices, as far as they say",
        human::time(restored.backup_made_at_ms),
        restored.samples_lost.len()
    );
    if restored.strangers > 0 {
        text += &format!(
            "; {} devices are not known any more: see 'fleet-hub device strangers'",
            restored.strangers
        );
    }
    text
}

fn bracketed(counts: &BTreeMap<String, u64>) -> String {
    if counts.is_empty() { String::new() } else { format!(" ({})", parts(counts)) }
}

fn sum(counts: &BTreeMap<String, u64>) -> String {
    if counts.is_empty() { "none".to_owned() } else { parts(counts) }
}

fn parts(counts: &BTreeMap<String, u64>) -> String {
    let parts: Vec<String> = counts.iter().map(|(name, n)| format!("{n} {name}")).collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use fleetloop_protocol::api::status::Health;

    use super::*;

    #[test]
    fn an_operator_reads_what_is_wrong_before_any_number() {
        let status = HubStatus {
            version: "0.1.0".into(),
            uptime_s: 9,
            health: Health { healthy: false, reasons: vec!["the broker is not connected".into()] },
            refused_by_reason: [("busy".to_owned(), 4)].into(),
            findings: [("clone".to_owned(), 1)].into(),
            left_behind: [("dev-old".to_owned(), 12)].into(),
            jobs: [("queued".to_owned(), 1), ("done".to_owned(), 2)].into(),
            ..HubStatus::default()
        };
        let text = describe(&status);
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("hub       0.1.0, up 9 s"));
        assert_eq!(lines.next(), Some("unwell    the broker is not connected"));
        assert!(text.contains("refused (4 busy)") && text.contains("2 done, 1 queued"), "{text}");
        assert!(text.contains("1 clone open; see 'fleet-hub finding list'"), "{text}");
        assert!(text.contains("12 messages on replaced device dev-old"), "{text}");
        assert!(text.contains("edge-agent outbox export"), "{text}");
    }
}
