//! `GET /metrics`: the agent's [`Status`] in Prometheus' words.
//!
//! Nothing is counted here. Every number but the latencies is read from the same status that
//! `/status` shows, at the moment it is asked for, and `prometheus-client` writes it down: a
//! facade with a recorder of its own would count everything a second time. Format: OpenMetrics
//! text 1.0, which Prometheus reads by its content type.
//!
//! [`METRICS`] is the list; `docs/operations.md` holds it as a table, and a test compares the two.

use std::fmt;

use fleetloop_protocol::ClockState;
use fleetloop_protocol::drift::{Drift, Finding};
use fleetloop_protocol::state::Update;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::health::Health;
use crate::outbox::OutboxStats;
use crate::status::{RunningStatus, State, Status};
use crate::telemetry::Latencies;

/// The content type of [`text()`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What every name begins with.
const PREFIX: &str = "fleetloop_agent";

/// How a value behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, but for a restart.
    Counter,
    /// It comes and goes.
    Gauge,
    /// How values are distributed.
    Histogram,
}

/// A metric.
pub struct Metric {
    name: &'static str,
    unit: Option<&'static str>,
    kind: Kind,
    help: &'static str,
    read: fn(&Snapshot) -> Points,
}

/// Labels and a value, one for each series.
type Points = Vec<(Vec<(&'static str, String)>, u64)>;

/// What a scrape shows.
#[derive(Debug)]
struct Snapshot {
    status: Status,
    latencies: Latencies,
}

impl Metric {
    /// The name as a query names it.
    pub fn full_name(&self) -> String {
        let unit = self.unit.map(|unit| format!("_{unit}")).unwrap_or_default();
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{PREFIX}_{}{unit}{total}", self.name)
    }
}

fn one(value: u64) -> Points {
    vec![(Vec::new(), value)]
}

fn by(label: &'static str, values: &[(&str, u64)]) -> Points {
    values.iter().map(|(name, value)| (vec![(label, (*name).to_owned())], *value)).collect()
}

fn running(of: &Snapshot, read: impl FnOnce(&RunningStatus) -> Points) -> Points {
    of.status.running.as_ref().map(read).unwrap_or_default()
}

fn outbox(of: &Snapshot, read: impl FnOnce(&OutboxStats) -> u64) -> Points {
    of.status.outbox.as_ref().map(|stats| one(read(stats))).unwrap_or_default()
}

fn drift(of: &Snapshot, read: impl FnOnce(&Drift) -> Points) -> Points {
    running(of, |running| running.drift.as_ref().map(|s| read(&s.drift)).unwrap_or_default())
}

const fn metric(
    name: &'static str,
    unit: Option<&'static str>,
    kind: Kind,
    help: &'static str,
    read: fn(&Snapshot) -> Points,
) -> Metric {
    Metric { name, unit, kind, help, read }
}

use Kind::{Counter, Gauge, Histogram};

/// Every metric, in the order in which they are shown.
#[rustfmt::skip]
pub const METRICS: &[Metric] = &[
    metric("build_info", None, Gauge, "1; the label says the agent's version",
        |s| vec![(vec![("version", s.status.agent_version.clone())], 1)]),
    metric("healthy", None, Gauge, "1 while /healthz says 200",
        |s| one(Health::of(&s.status).healthy.into())),
    metric("uptime", Some("seconds"), Gauge, "time since start",
        |s| running(s, |r| one(r.uptime_s))),
    metric("model_answers", None, Gauge, "1 once a model answers",
        |s| one((s.status.state == State::Answering).into())),
    metric("model_info", None, Gauge, "1; the labels say which model is at work",
        |s| s.status.model.iter().map(|model| {
            let name = model.name.clone().unwrap_or_default();
            (vec![("bundle", model.digest.to_string()), ("name", name)], 1)
        }).collect()),
    metric("frames_received", None, Counter, "frames that arrived",
        |s| running(s, |r| one(r.frames.frames_in))),
    metric("frames_answered", None, Counter, "frames that a model answered",
        |s| running(s, |r| one(r.frames.frames_answered))),
    metric("frames_dropped", None, Counter, "frames dropped: queue full, source failed, process stood still",
        |s| running(s, |r| one(r.frames.frames_dropped))),
    metric("frames_failed", None, Counter, "frames that a model took and did not answer",
        |s| running(s, |r| one(r.frames.frames_failed))),
    metric("frames_late", None, Counter, "frames delivered more than a period late",
        |s| running(s, |r| one(r.frames.frames_late))),
    metric("frames_waiting", None, Gauge, "frames that wait for the model",
        |s| running(s, |r| one(r.frames.frames_waiting))),
    metric("silent", Some("seconds"), Gauge, "time since a frame was last answered",
        |s| running(s, |r| one(r.silent_s))),
    metric("answer_latency", Some("seconds"), Histogram, "from the moment a frame is due to its answer",
        |_| Points::new()),
    metric("samples_signed", None, Counter, "samples signed and stored, in the outbox's life",
        |s| outbox(s, |o| o.samples_signed_total)),
    metric("samples_receipted", None, Counter, "samples that the hub gave a receipt for, in the outbox's life",
        |s| outbox(s, |o| o.samples_receipted_total)),
    metric("samples_evicted", None, Counter, "samples evicted at a limit of the outbox, in its life",
        |s| outbox(s, |o| o.evicted_total)),
    metric("samples_refused", None, Counter, "samples that the hub refused for good, in the outbox's life",
        |s| outbox(s, |o| o.refused_total)),
    metric("samples_damaged", None, Counter, "samples lost to damage on the disk, in the outbox's life",
        |s| outbox(s, |o| o.damaged_total)),
    metric("samples_not_stored", None, Counter, "chosen samples that the disk did not take",
        |s| outbox(s, |o| o.append_failed)),
    metric("samples_unsent", None, Counter, "frames worth sending that were not chosen, by reason",
        |s| running(s, |r| by("reason", &[
            ("budget", r.counters.not_selected_budget),
            ("busy", r.counters.not_selected_busy),
            ("disk", r.counters.not_selected_disk),
            ("size", r.counters.not_selected_size),
        ]))),
    metric("outbox_samples", None, Gauge, "samples that wait for a receipt", |s| outbox(s, |o| o.samples)),
    metric("outbox_uploads", None, Gauge, "samples among them whose payload is uploaded first", |s| outbox(s, |o| o.uploads)),
    metric("outbox_gaps", None, Gauge, "gap records that wait for a receipt", |s| outbox(s, |o| o.gaps)),
    metric("outbox", Some("bytes"), Gauge, "messages that wait for a receipt", |s| outbox(s, |o| o.bytes)),
    metric("outbox_paused", None, Gauge, "1 while the disk refuses samples", |s| outbox(s, |o| o.paused.into())),
    metric("dead_letters", None, Gauge, "refused samples that are kept", |s| outbox(s, |o| o.dead_letters)),
    metric("dead_letters_dropped", None, Counter, "refused samples that were not kept, in the outbox's life",
        |s| outbox(s, |o| o.dead_dropped_total)),
    metric("results_dropped", None, Counter, "results that did not go to MQTT",
        |s| running(s, |r| one(r.results_dropped))),
    metric("hub_connected", None, Gauge, "1 while the broker answers; 0 may last for months",
        |s| running(s, |r| one(r.link.connected.into()))),
    metric("hub_heard_timestamp", Some("seconds"), Gauge, "when the hub last said something that is trusted",
        |s| running(s, |r| r.link.last_heard.map(|at| one(at.0 / 1000)).unwrap_or_default())),
    metric("hub_untrusted_messages", None, Counter, "messages that were ignored because they are not trusted",
        |s| running(s, |r| one(r.link.untrusted))),
    metric("certificate_ends_timestamp", Some("seconds"), Gauge, "when the device's certificate ends; it is renewed at two thirds of its life",
        |s| running(s, |r| one(r.link.certificate_ends.0 / 1000))),
    metric("order_generation", None, Gauge, "the generation of the hub's last order",
        |s| running(s, |r| one(r.link.generation))),
    metric("update", None, Gauge, "1 at the state of the last order: idle, installing or failed",
        |s| running(s, |r| by("state", &[
            ("idle", u64::from(matches!(r.link.update, Update::Idle))),
            ("installing", u64::from(matches!(r.link.update, Update::Installing { .. }))),
            ("failed", u64::from(matches!(r.link.update, Update::Failed { .. }))),
        ]))),
    metric("drift", None, Gauge, "the last hour against the reference, by feature: 0 too few frames to tell, 1 steady, 2 shifting, 3 drifted",
        |s| drift(s, |drift| {
            let level = |finding: &Finding| (finding.feature.as_str(), finding.verdict as u64);
            by("feature", &drift.features.iter().map(level).collect::<Vec<_>>())
        })),
    metric("drift_frames", None, Gauge, "frames that are compared for it, by side",
        |s| drift(s, |drift| by("side", &[
            ("reference", drift.reference_frames),
            ("recent", drift.recent_frames),
        ]))),
    metric("config_refused", None, Gauge, "1 while the configuration's file is not the one in force",
        |s| running(s, |r| one(r.config.refused.is_some().into()))),
    metric("clock_synced", None, Gauge, "1 while the time can be relied on",
        |s| running(s, |r| one((r.clock == ClockState::Synced).into()))),
    metric("resident_memory", Some("bytes"), Gauge, "memory that the process holds",
        |s| running(s, |r| one(r.rss_bytes))),
    metric("resident_memory_peak", Some("bytes"), Gauge, "the most memory that the process ever held",
        |s| running(s, |r| one(r.peak_rss_bytes))),
    metric("disk_free", Some("bytes"), Gauge, "space left on the data folder's disk",
        |s| running(s, |r| r.disk_free_bytes.map(one).unwrap_or_default())),
    metric("otlp_spans", None, Counter, "spans for the OTLP collector, by what became of them, when one is configured",
        |s| running(s, |r| r.otlp.map(|otlp| by("fate", &[
            ("exported", otlp.exported),
            ("failed", otlp.failed),
            ("dropped", otlp.dropped),
        ])).unwrap_or_default())),
];

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in METRICS {
            let points = (metric.read)(self);
            if points.is_empty() && metric.kind != Histogram {
                continue;
            }
            let unit = metric.unit.map(|unit| Unit::Other(unit.to_owned()));
            let kind = match metric.kind {
                Counter => MetricType::Counter,
                Gauge => MetricType::Gauge,
                Histogram => MetricType::Histogram,
            };
            let mut series =
                encoder.encode_descriptor(metric.name, metric.help, unit.as_ref(), kind)?;
            if metric.kind == Histogram {
                let Latencies { buckets, count, sum_s } = &self.latencies;
                series.encode_histogram::<NoLabelSet>(*sum_s, *count, buckets, None)?;
            }
            for (labels, value) in &points {
                point(&mut series, metric.kind, labels, *value)?;
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
        Gauge | Histogram => series.encode_gauge(&value),
    }
}

/// What `status` says, as OpenMetrics text.
///
/// # Errors
/// None in practice: writing to a text does not fail.
pub fn text(status: Status, latencies: Latencies) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Snapshot { status, latencies }));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fleetloop_protocol::drift::Verdict;
    use prometheus_parse::{LineInfo, Scrape, Value};

    use super::*;
    use crate::status::testing::answering;
    use crate::telemetry::Meter;

    fn scrape(status: Status) -> (String, Scrape) {
        let text = text(status, Meter::new(Duration::ZERO).latencies()).unwrap();
        let scrape = Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap();
        (text, scrape)
    }

    /// The value of a series, found by an independent parser.
    fn value(scrape: &Scrape, name: &str, label: Option<(&str, &str)>) -> f64 {
        let found = scrape.samples.iter().filter(|sample| {
            sample.metric == name
                && label.is_none_or(|(key, value)| sample.labels.get(key) == Some(value))
        });
        let values: Vec<&Value> = found.map(|sample| &sample.value).collect();
        match values[..] {
            [Value::Untyped(value) | Value::Gauge(value) | Value::Counter(value)] => *value,
            _ => panic!("{name} {label:?}: {values:?}"),
        }
    }

    #[test]
    fn an_independent_parser_reads_every_line_and_every_metric_has_help_and_type() {
        let (text, scrape) = scrape(answering());
        assert!(text.ends_with("# EOF\n"), "{text}");
        for line in text.lines().filter(|l| !l.starts_with("# UNIT") && *l != "# EOF") {
            assert_ne!(LineInfo::parse(line), LineInfo::Ignored, "{line}");
        }
        for metric in METRICS {
            let family = metric.full_name();
            let family = family.strip_suffix("_total").unwrap_or(&family);
            assert_eq!(scrape.docs.get(family).map(String::as_str), Some(metric.help));
            assert!(text.contains(&format!("# TYPE {family} ")), "{family}");
            if let Some(unit) = metric.unit {
                assert!(text.contains(&format!("# UNIT {family} {unit}\n")), "{family}");
            }
        }
    }

    #[test]
    fn the_numbers_are_the_statuses() {
        let status = answering();
        let (_, scrape) = scrape(status.clone());
        let (running, outbox) = (status.running.unwrap(), status.outbox.unwrap());
        for (name, expected) in [
            ("frames_received_total", running.frames.frames_in),
            ("frames_answered_total", running.frames.frames_answered),
            ("frames_dropped_total", running.frames.frames_dropped),
            ("frames_failed_total", running.frames.frames_failed),
            ("frames_late_total", running.frames.frames_late),
            ("frames_waiting", running.frames.frames_waiting),
            ("samples_signed_total", outbox.samples_signed_total),
            ("samples_receipted_total", outbox.samples_receipted_total),
            ("samples_evicted_total", outbox.evicted_total),
            ("samples_refused_total", outbox.refused_total),
            ("samples_damaged_total", outbox.damaged_total),
            ("samples_not_stored_total", outbox.append_failed),
            ("outbox_samples", outbox.samples),
            ("outbox_gaps", outbox.gaps),
            ("outbox_uploads", outbox.uploads),
            ("config_refused", 1),
            ("outbox_bytes", outbox.bytes),
            ("outbox_paused", 0),
            ("dead_letters", outbox.dead_letters),
            ("dead_letters_dropped_total", outbox.dead_dropped_total),
            ("results_dropped_total", running.results_dropped),
            ("hub_connected", 1),
            ("hub_heard_timestamp_seconds", 1_800_000_000),
            ("hub_untrusted_messages_total", running.link.untrusted),
            ("certificate_ends_timestamp_seconds", 1_900_000_000),
            ("order_generation", running.link.generation),
            ("uptime_seconds", running.uptime_s),
            ("resident_memory_bytes", running.rss_bytes),
            ("resident_memory_peak_bytes", running.peak_rss_bytes),
            ("disk_free_bytes", running.disk_free_bytes.unwrap()),
            ("silent_seconds", running.silent_s),
            ("clock_synced", 1),
            ("healthy", 1),
            ("model_answers", 1),
        ] {
            let name = format!("{PREFIX}_{name}");
            assert_eq!(value(&scrape, &name, None), expected as f64, "{name}");
        }
        for (name, label, expected) in [
            ("samples_unsent_total", ("reason", "budget"), running.counters.not_selected_budget),
            ("samples_unsent_total", ("reason", "busy"), running.counters.not_selected_busy),
            ("samples_unsent_total", ("reason", "disk"), running.counters.not_selected_disk),
            ("samples_unsent_total", ("reason", "size"), running.counters.not_selected_size),
            ("update", ("state", "idle"), 1),
            ("update", ("state", "failed"), 0),
            ("model_info", ("name", "wear 3"), 1),
            ("drift", ("feature", "brightness"), Verdict::Drifted as u64),
            ("drift_frames", ("side", "recent"), 71),
            ("otlp_spans_total", ("fate", "dropped"), running.otlp.unwrap().dropped),
        ] {
            let name = format!("{PREFIX}_{name}");
            assert_eq!(value(&scrape, &name, Some(label)), expected as f64, "{name} {label:?}");
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
