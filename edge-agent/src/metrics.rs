//! `GET /metrics`: the agent's [`Status`] in Prometheus' words ([`fleetloop_observe::metrics`]).
//!
//! Every number but the latencies is read from the same status that `/status` shows. `METRICS` is the
//! list; `docs/operations.md` holds it as a table, and a test compares the two.

use std::fmt;

use fleetloop_observe::metrics::{
    Distribution, Metric, Metrics, Points, by, counter, gauge, histogram, one,
};
use fleetloop_protocol::ClockState;
use fleetloop_protocol::drift::{Drift, Finding};
use fleetloop_protocol::state::Update;

use crate::health::Health;
use crate::outbox::OutboxStats;
use crate::status::{RunningStatus, State, Status};

/// The agent's metrics.
const AGENT: Metrics<Snapshot> = Metrics { prefix: "fleetloop_agent", all: METRICS };

/// What a scrape shows.
#[derive(Debug)]
struct Snapshot {
    status: Status,
    latencies: Distribution,
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

/// Every metric, in the order in which they are shown.
#[rustfmt::skip]
const METRICS: &[Metric<Snapshot>] = &[
    gauge("build_info", None, "1; the label says the agent's version",
        |s| vec![(vec![("version", s.status.agent_version.clone())], 1)]),
    gauge("healthy", None, "1 while /healthz says 200",
        |s| one(Health::of(&s.status).healthy.into())),
    gauge("uptime", Some("seconds"), "time since start",
        |s| running(s, |r| one(r.uptime_s))),
    gauge("model_answers", None, "1 once a model answers",
        |s| one((s.status.state == State::Answering).into())),
    gauge("model_info", None, "1; the labels say which model is at work",
        |s| s.status.model.iter().map(|model| {
            let name = model.name.clone().unwrap_or_default();
            (vec![("bundle", model.digest.to_string()), ("name", name)], 1)
        }).collect()),
    counter("frames_received", None, "frames that arrived",
        |s| running(s, |r| one(r.frames.frames_in))),
    counter("frames_answered", None, "frames that a model answered",
        |s| running(s, |r| one(r.frames.frames_answered))),
    counter("frames_dropped", None, "frames dropped: queue full, source failed, process stood still",
        |s| running(s, |r| one(r.frames.frames_dropped))),
    counter("frames_failed", None, "frames that a model took and did not answer",
        |s| running(s, |r| one(r.frames.frames_failed))),
    counter("frames_late", None, "frames delivered more than a period late",
        |s| running(s, |r| one(r.frames.frames_late))),
    gauge("frames_waiting", None, "frames that wait for the model",
        |s| running(s, |r| one(r.frames.frames_waiting))),
    gauge("silent", Some("seconds"), "time since a frame was last answered",
        |s| running(s, |r| one(r.silent_s))),
    histogram("answer_latency", Some("seconds"), "from the moment a frame is due to its answer",
        |s| &s.latencies),
    counter("samples_signed", None, "samples signed and stored, in the outbox's life",
        |s| outbox(s, |o| o.samples_signed_total)),
    counter("samples_receipted", None, "samples that the hub gave a receipt for, in the outbox's life",
        |s| outbox(s, |o| o.samples_receipted_total)),
    counter("samples_evicted", None, "samples evicted at a limit of the outbox, in its life",
        |s| outbox(s, |o| o.evicted_total)),
    counter("samples_refused", None, "samples that the hub refused for good, in the outbox's life",
        |s| outbox(s, |o| o.refused_total)),
    counter("samples_damaged", None, "samples lost to damage on the disk, in the outbox's life",
        |s| outbox(s, |o| o.damaged_total)),
    counter("samples_signed_again", None, "samples signed again under a new epoch, in the outbox's life",
        |s| outbox(s, |o| o.signed_again_total)),
    counter("epochs_opened", None, "epochs opened because the hub had another sample under an identity of this device, in the outbox's life",
        |s| outbox(s, |o| o.epochs_opened_total)),
    counter("samples_not_stored", None, "chosen samples that the disk did not take",
        |s| outbox(s, |o| o.append_failed)),
    counter("samples_unsent", None, "frames worth sending that were not chosen, by reason",
        |s| running(s, |r| by("reason", [
            ("budget", r.counters.not_selected_budget),
            ("busy", r.counters.not_selected_busy),
            ("disk", r.counters.not_selected_disk),
            ("size", r.counters.not_selected_size),
        ]))),
    gauge("outbox_samples", None, "samples that wait for a receipt", |s| outbox(s, |o| o.samples)),
    gauge("outbox_uploads", None, "samples among them whose payload is uploaded first", |s| outbox(s, |o| o.uploads)),
    gauge("outbox_gaps", None, "gap records that wait for a receipt", |s| outbox(s, |o| o.gaps)),
    gauge("outbox", Some("bytes"), "messages that wait for a receipt", |s| outbox(s, |o| o.bytes)),
    gauge("outbox_paused", None, "1 while the disk refuses samples", |s| outbox(s, |o| o.paused.into())),
    gauge("dead_letters", None, "refused samples that are kept", |s| outbox(s, |o| o.dead_letters)),
    counter("dead_letters_dropped", None, "refused samples that were not kept, in the outbox's life",
        |s| outbox(s, |o| o.dead_dropped_total)),
    counter("results_dropped", None, "results that did not go to MQTT",
        |s| running(s, |r| one(r.results_dropped))),
    gauge("hub_connected", None, "1 while the broker answers; 0 may last for months",
        |s| running(s, |r| one(r.link.connected.into()))),
    gauge("hub_heard_timestamp", Some("seconds"), "when the hub last said something that is trusted",
        |s| running(s, |r| r.link.last_heard.map(|at| one(at.0 / 1000)).unwrap_or_default())),
    counter("hub_untrusted_messages", None, "messages that were ignored because they are not trusted",
        |s| running(s, |r| one(r.link.untrusted))),
    gauge("certificate_ends_timestamp", Some("seconds"), "when the device's certificate ends; it is renewed at two thirds of its life",
        |s| running(s, |r| one(r.link.certificate_ends.0 / 1000))),
    gauge("order_generation", None, "the generation of the hub's last order",
        |s| running(s, |r| one(r.link.generation))),
    gauge("update", None, "1 at the state of the last order: idle, installing or failed",
        |s| running(s, |r| by("state", [
            ("idle", u64::from(matches!(r.link.update, Update::Idle))),
            ("installing", u64::from(matches!(r.link.update, Update::Installing { .. }))),
            ("failed", u64::from(matches!(r.link.update, Update::Failed { .. }))),
        ]))),
    gauge("drift", None, "the last hour against the reference, by feature: 0 too few frames to tell, 1 steady, 2 shifting, 3 drifted",
        |s| drift(s, |drift| {
            let level = |finding: &Finding| (finding.feature.as_str(), finding.verdict as u64);
            by("feature", drift.features.iter().map(level))
        })),
    gauge("drift_frames", None, "frames that are compared for it, by side",
        |s| drift(s, |drift| by("side", [
            ("reference", drift.reference_frames),
            ("recent", drift.recent_frames),
        ]))),
    gauge("config_refused", None, "1 while the configuration's file is not the one in force",
        |s| running(s, |r| one(r.config.refused.is_some().into()))),
    gauge("clock_synced", None, "1 while the time can be relied on",
        |s| running(s, |r| one((r.clock == ClockState::Synced).into()))),
    gauge("resident_memory", Some("bytes"), "memory that the process holds",
        |s| running(s, |r| one(r.rss_bytes))),
    gauge("resident_memory_peak", Some("bytes"), "the most memory that the process ever held",
        |s| running(s, |r| one(r.peak_rss_bytes))),
    gauge("disk_free", Some("bytes"), "space left on the data folder's disk",
        |s| running(s, |r| r.disk_free_bytes.map(one).unwrap_or_default())),
    counter("otlp_spans", None, "spans for the OTLP collector, by what became of them, when one is configured",
        |s| running(s, |r| r.otlp.map(|otlp| by("fate", [
            ("exported", otlp.exported),
            ("failed", otlp.failed),
            ("dropped", otlp.dropped),
        ])).unwrap_or_default())),
];

/// What `status` says, as OpenMetrics text; latencies are in seconds.
///
/// # Errors
/// None in practice: writing to a text does not fail.
pub fn text(status: Status, latencies: Distribution) -> Result<String, fmt::Error> {
    AGENT.text(Snapshot { status, latencies })
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
            let family = AGENT.full_name(metric);
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
            ("samples_signed_again_total", outbox.signed_again_total),
            ("epochs_opened_total", outbox.epochs_opened_total),
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
            let name = format!("{}_{name}", AGENT.prefix);
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
            let name = format!("{}_{name}", AGENT.prefix);
            assert_eq!(value(&scrape, &name, Some(label)), expected as f64, "{name} {label:?}");
        }
    }

    #[test]
    fn the_manual_lists_every_metric_and_no_other() {
        let manual = include_str!("../../docs/operations.md");
        let table = AGENT.manual();
        let prefix = format!("| `{}_", AGENT.prefix);
        let listed: Vec<&str> = manual.lines().filter(|line| line.starts_with(&prefix)).collect();
        assert_eq!(listed, table, "docs/operations.md should hold:\n{}", table.join("\n"));
    }
}
