//! `GET /metrics`: the hub's [`HubStatus`] in Prometheus' words.
//!
//! Nothing is counted here. Every number is read from the same status that `/api/v1/status` shows,
//! at the moment it is asked for, and `prometheus-client` writes it down. Format: OpenMetrics text
//! 1.0, which Prometheus reads by its content type.
//!
//! [`METRICS`] is the list; `docs/operations.md` holds it as a table, and a test compares the two.

use std::collections::BTreeMap;
use std::fmt;

use fleetloop_protocol::api::status::HubStatus;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

/// The content type of [`text()`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What every name begins with.
const PREFIX: &str = "fleetloop_hub";

/// How a value behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It comes and goes.
    Gauge,
}

/// A metric.
pub struct Metric {
    name: &'static str,
    unit: Option<&'static str>,
    kind: Kind,
    help: &'static str,
    read: fn(&HubStatus) -> Points,
}

/// A label and a value, one for each series.
type Points = Vec<(Option<(&'static str, String)>, u64)>;

/// What a scrape shows.
#[derive(Debug)]
struct Snapshot(HubStatus);

impl Metric {
    /// The name as a query names it.
    pub fn full_name(&self) -> String {
        let unit = self.unit.map(|unit| format!("_{unit}")).unwrap_or_default();
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{PREFIX}_{}{unit}{total}", self.name)
    }
}

fn one(value: u64) -> Points {
    vec![(None, value)]
}

fn by(label: &'static str, values: &[(&str, u64)]) -> Points {
    values.iter().map(|(name, value)| (Some((label, (*name).to_owned())), *value)).collect()
}

fn all(label: &'static str, values: &BTreeMap<String, u64>) -> Points {
    values.iter().map(|(name, value)| (Some((label, name.clone())), *value)).collect()
}

const fn metric(
    name: &'static str,
    unit: Option<&'static str>,
    kind: Kind,
    help: &'static str,
    read: fn(&HubStatus) -> Points,
) -> Metric {
    Metric { name, unit, kind, help, read }
}

use Kind::{Counter, Gauge};

/// Every metric, in the order in which they are shown.
#[rustfmt::skip]
pub const METRICS: &[Metric] = &[
    metric("build_info", None, Gauge, "1; the label says the hub's version",
        |s| by("version", &[(&s.version, 1)])),
    metric("healthy", None, Gauge, "1 while /healthz says 200", |s| one(s.health.healthy.into())),
    metric("uptime", Some("seconds"), Gauge, "time since start", |s| one(s.uptime_s)),
    metric("broker_connected", None, Gauge, "1 while the hub's client is connected to the broker",
        |s| one(s.broker_connected.into())),
    metric("messages_under_way", None, Gauge, "messages of devices being verified and stored",
        |s| one(s.messages_under_way)),
    metric("messages_limit", None, Gauge, "how many may be; one more is refused as busy",
        |s| one(s.messages_limit)),
    metric("samples", None, Counter, "samples stored, by group: fleet or import",
        |s| by("group", &[("fleet", s.samples.fleet), ("import", s.samples.imported)])),
    metric("gaps", None, Counter, "gap records stored", |s| one(s.samples.gaps)),
    metric("repeats", None, Counter, "messages that came again and got the same receipt",
        |s| one(s.samples.repeated)),
    metric("receipts", None, Counter, "receipts given: fleet samples, gaps and repeats",
        |s| one(s.samples.fleet + s.samples.gaps + s.samples.repeated)),
    metric("refusals", None, Counter, "messages refused, by reason",
        |s| all("reason", &s.refused_by_reason)),
    metric("quarantined", None, Counter, "messages with a stored identity and another digest",
        |s| one(s.samples.quarantined)),
    metric("samples_labelled", None, Gauge, "fleet samples that have a label",
        |s| one(s.samples.fleet_labelled)),
    metric("labels", None, Counter, "labels given, superseded ones included", |s| one(s.labels)),
    metric("devices", None, Gauge, "devices, by state: enrolled or revoked",
        |s| by("state", &[("enrolled", s.devices_enrolled), ("revoked", s.devices_revoked)])),
    metric("devices_connected", None, Gauge, "enrolled devices heard within three minutes",
        |s| one(s.devices_connected)),
    metric("datasets", None, Gauge, "frozen datasets", |s| one(s.datasets)),
    metric("jobs", None, Gauge, "training jobs, by state", |s| all("state", &s.jobs)),
    metric("models", None, Gauge, "models", |s| one(s.models)),
    metric("releases", None, Gauge, "signed releases", |s| one(s.releases)),
    metric("rollouts", None, Gauge, "rollouts, by phase", |s| all("phase", &s.rollouts)),
    metric("database", Some("bytes"), Gauge, "size of the database", |s| one(s.database_bytes)),
    metric("disk_free", Some("bytes"), Gauge, "space left for payloads",
        |s| s.disk_free_bytes.map(one).unwrap_or_default()),
    metric("disk_floor", Some("bytes"), Gauge, "with less free than this nothing more is taken in",
        |s| one(s.disk_floor_bytes)),
    metric("resident_memory", Some("bytes"), Gauge, "memory that the process holds",
        |s| one(s.rss_bytes)),
    metric("otlp_spans", None, Counter, "spans for the OTLP collector, by what became of them, when one is configured",
        |s| s.otlp.map(|otlp| by("fate", &[
            ("exported", otlp.exported),
            ("failed", otlp.failed),
            ("dropped", otlp.dropped),
        ])).unwrap_or_default()),
];

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in METRICS {
            let unit = metric.unit.map(|unit| Unit::Other(unit.to_owned()));
            let kind = match metric.kind {
                Counter => MetricType::Counter,
                Gauge => MetricType::Gauge,
            };
            let mut series =
                encoder.encode_descriptor(metric.name, metric.help, unit.as_ref(), kind)?;
            for (label, value) in (metric.read)(&self.0) {
                point(&mut series, metric.kind, label.as_slice(), value)?;
            }
        }
        Ok(())
    }
}

/// Writes one value; a series without labels has no braces, which some readers do not take.
fn point(
    series: &mut MetricEncoder<'_>,
    kind: Kind,
    labels: &[(&'static str, String)],
    value: u64,
) -> fmt::Result {
    if !labels.is_empty() {
        return point(&mut series.encode_family(&labels)?, kind, &[], value);
    }
    match kind {
        Counter => series.encode_counter::<NoLabelSet, u64, f64>(&value, None),
        Gauge => series.encode_gauge(&value),
    }
}

/// What `status` says, as OpenMetrics text.
///
/// # Errors
/// None in practice: writing to a text does not fail.
pub fn text(status: HubStatus) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Snapshot(status)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
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
            refused_by_reason: some,
            disk_free_bytes: Some(7),
            otlp: Some(fleetloop_protocol::api::status::OtlpStatus::default()),
            ..HubStatus::default()
        };
        let text = text(status).unwrap();
        for line in text.lines().filter(|l| !l.starts_with("# UNIT") && *l != "# EOF") {
            assert_ne!(LineInfo::parse(line), LineInfo::Ignored, "{line}");
        }
        for metric in METRICS {
            let name = metric.full_name();
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
        let manual = include_str!("../../docs/operations.md");
        let line = |metric: &Metric| {
            let kind = format!("{:?}", metric.kind).to_lowercase();
            format!("| `{}` | {kind} | {} |", metric.full_name(), metric.help)
        };
        let table: Vec<String> = METRICS.iter().map(line).collect();
        let prefix = format!("| `{PREFIX}_");
        let listed: Vec<&str> = manual.lines().filter(|line| line.starts_with(&prefix)).collect();
        assert_eq!(listed, table, "docs/operations.md should hold:\n{}", table.join("\n"));
    }
}
