//! `GET /metrics`: the hub's [`HubStatus`] in Prometheus' words ([`fleetloop_observe::metrics`]).
//!
//! Every number is read from the same status that `/api/v1/status` shows. `METRICS` is the list;
//! `docs/operations.md` holds it as a table, and a test compares the two.

pub mod devices;

use std::collections::BTreeMap;
use std::fmt;

use fleetloop_observe::metrics::{Metric, Metrics, Points, by, counter, gauge, one};
use fleetloop_protocol::api::status::HubStatus;

/// The hub's metrics.
const HUB: Metrics<HubStatus> = Metrics { prefix: "fleetloop_hub", all: METRICS };

fn all(label: &'static str, values: &BTreeMap<String, u64>) -> Points {
    by(label, values.iter().map(|(name, value)| (name, *value)))
}

/// Every metric, in the order in which they are shown.
#[rustfmt::skip]
const METRICS: &[Metric<HubStatus>] = &[
    gauge("build_info", None, "1; the label says the hub's version",
        |s| by("version", [(&s.version, 1)])),
    gauge("healthy", None, "1 while /healthz says 200", |s| one(s.health.healthy.into())),
    gauge("uptime", Some("seconds"), "time since start", |s| one(s.uptime_s)),
    gauge("broker_connected", None, "1 while the hub's client is connected to the broker",
        |s| one(s.broker_connected.into())),
    gauge("messages_under_way", None, "messages of devices being verified and stored",
        |s| one(s.messages_under_way)),
    gauge("messages_limit", None, "how many may be; one more is refused as busy",
        |s| one(s.messages_limit)),
    counter("dropped", None, "left out because of a quota or a full queue, by reason; nothing is lost",
        |s| all("reason", &s.messages_dropped)),
    counter("slowed", None, "messages held up because their devices were over their quotas",
        |s| one(s.messages_slowed)),
    counter("samples", None, "samples stored, by group: fleet or import",
        |s| by("group", [("fleet", s.samples.fleet), ("import", s.samples.imported)])),
    counter("gaps", None, "gap records stored", |s| one(s.samples.gaps)),
    counter("repeats", None, "messages that came again and got the same receipt",
        |s| one(s.samples.repeated)),
    counter("receipts", None, "receipts given: fleet samples, gaps and repeats",
        |s| one(s.samples.fleet + s.samples.gaps + s.samples.repeated)),
    counter("refusals", None, "messages refused, by reason",
        |s| all("reason", &s.refused_by_reason)),
    counter("quarantined", None, "messages with a stored identity and another digest",
        |s| one(s.samples.quarantined)),
    gauge("samples_labelled", None, "fleet samples that have a label",
        |s| one(s.samples.fleet_labelled)),
    counter("labels", None, "labels given, superseded ones included", |s| one(s.labels)),
    gauge("devices", None, "devices, by state: enrolled or revoked",
        |s| by("state", [("enrolled", s.devices_enrolled), ("revoked", s.devices_revoked)])),
    gauge("devices_connected", None, "enrolled devices that are online: heard within 150 s, and not stopped",
        |s| one(s.devices_connected)),
    counter("credentials_wrong", None, "wrong credentials, by door: login, bearer, session, enrol, renew, certificate",
        |s| all("door", &s.credentials_wrong)),
    counter("credentials_slowed", None, "those among them that were answered with 429, by door",
        |s| all("door", &s.credentials_slowed)),
    gauge("datasets", None, "frozen datasets", |s| one(s.datasets)),
    gauge("jobs", None, "training jobs, by state", |s| all("state", &s.jobs)),
    gauge("models", None, "models", |s| one(s.models)),
    gauge("releases", None, "signed releases", |s| one(s.releases)),
    gauge("rollouts", None, "rollouts, by phase", |s| all("phase", &s.rollouts)),
    gauge("findings", None, "open findings, by kind", |s| all("kind", &s.findings)),
    gauge("database", Some("bytes"), "size of the database", |s| one(s.database_bytes)),
    gauge("disk_free", Some("bytes"), "space left for payloads",
        |s| s.disk_free_bytes.map(one).unwrap_or_default()),
    gauge("disk_floor", Some("bytes"), "with less free than this nothing more is taken in",
        |s| one(s.disk_floor_bytes)),
    gauge("resident_memory", Some("bytes"), "memory that the process holds",
        |s| one(s.rss_bytes)),
    gauge("key_left", Some("seconds"), "time until each key, or what it signed, ends; 0 once it has",
        |s| all("key", &s.key_left_s)),
    counter("otlp_spans", None, "spans for the OTLP collector, by what became of them, when one is configured",
        |s| s.otlp.map(|otlp| by("fate", [
            ("exported", otlp.exported),
            ("failed", otlp.failed),
            ("dropped", otlp.dropped),
        ])).unwrap_or_default()),
    gauge("descriptors_limit", None, "files and connections that the hub may have open",
        |s| one(s.descriptors)),
    gauge("connections", None, "open connections, by listener, holder and phase",
        |s| s.connections.iter().map(|c| (vec![
            ("listener", c.listener.clone()),
            ("holder", c.holder.clone()),
            ("phase", c.phase.clone()),
        ], c.count)).collect()),
    counter("connections_closed", None, "connections that the hub closed, by listener and reason (a key of limits.connections, or not_enrolled)",
        |s| s.connections_closed.iter().map(|c| (vec![
            ("listener", c.listener.clone()),
            ("reason", c.reason.clone()),
        ], c.count)).collect()),
];

/// What `status` says, as OpenMetrics text.
///
/// # Errors
/// None in practice: writing to a text does not fail.
pub fn text(status: HubStatus) -> Result<String, fmt::Error> {
    HUB.text(status)
}

#[cfg(test)]
mod tests {
    use prometheus_parse::LineInfo;

    use super::*;

    #[test]
    fn an_independent_parser_reads_every_line_and_every_metric_has_help_and_type() {
        let some: BTreeMap<String, u64> = [("done".to_owned(), 1)].into();
        let status = HubStatus {
            jobs: some.clone(),
            rollouts: some.clone(),
            findings: some.clone(),
            refused_by_reason: some.clone(),
            credentials_wrong: some.clone(),
            credentials_slowed: some.clone(),
            key_left_s: some.clone(),
            messages_dropped: some,
            disk_free_bytes: Some(7),
            otlp: Some(fleetloop_protocol::api::status::OtlpStatus::default()),
            connections: vec![fleetloop_protocol::api::status::ConnectionCount::default()],
            connections_closed: vec![fleetloop_protocol::api::status::ClosedCount::default()],
            ..HubStatus::default()
        };
        let text = text(status).unwrap();
        for line in text.lines().filter(|l| !l.starts_with("# UNIT") && *l != "# EOF") {
            assert_ne!(LineInfo::parse(line), LineInfo::Ignored, "{line}");
        }
        for metric in METRICS {
            let name = HUB.full_name(metric);
            let family = name.strip_suffix("_total").unwrap_or(&name);
            assert!(text.contains(&format!("# HELP {family} {}\n", metric.help)), "{family}");
            assert!(text.contains(&format!("# TYPE {family} ")), "{family}");
            let series =
                |line: &str| line.strip_prefix(&*name).is_some_and(|l| l.starts_with(['{', ' ']));
            assert!(text.lines().any(series), "{name}");
        }
    }

    #[test]
    fn the_manual_lists_every_metric_and_no_other() {
        let manual = include_str!("../../../docs/operations.md");
        let table = HUB.manual();
        let prefix = format!("| `{}_", HUB.prefix);
        let listed: Vec<&str> = manual.lines().filter(|line| line.starts_with(&prefix)).collect();
        assert_eq!(listed, table, "docs/operations.md should hold:\n{}", table.join("\n"));
    }
}
