//! `GET /metrics/devices`: each enrolled device as the hub last heard of it, in Prometheus' words.
//!
//! Apart from [`super`], for it names devices: a token of the worker does not see it, and a scraper of
//! ten thousand devices asks for it less often. What a device says of itself is as old as its last
//! telemetry (`seen_timestamp_seconds`).

use std::fmt;

use fleetloop_observe::metrics::{Metric, Metrics, Points, counter, gauge};
use fleetloop_protocol::api::devices::{Device, DeviceState};
use fleetloop_protocol::state::Update;
use fleetloop_protocol::telemetry::Telemetry;

/// The devices' metrics.
const DEVICES: Metrics<Vec<Device>> = Metrics { prefix: "fleetloop_device", all: METRICS };

/// A series for each device that has a value.
fn each(devices: &[Device], value: impl Fn(&Device) -> Option<u64>) -> Points {
    let one = |device: &Device| Some((vec![("device", device.id.to_string())], value(device)?));
    devices.iter().filter_map(one).collect()
}

/// The same of what devices say of themselves.
fn said(devices: &[Device], value: impl Fn(&Telemetry) -> u64) -> Points {
    each(devices, |device| device.telemetry.as_ref().map(&value))
}

fn info(devices: &[Device]) -> Points {
    let one = |device: &Device| {
        let model = device.running.map(|model| model.to_string()).unwrap_or_default();
        let labels = vec![
            ("device", device.id.to_string()),
            ("name", device.name.clone()),
            ("agent", device.agent_version.clone()),
            ("model", model),
        ];
        (labels, 1)
    };
    devices.iter().map(one).collect()
}

/// Every metric, in the order in which they are shown.
#[rustfmt::skip]
const METRICS: &[Metric<Vec<Device>>] = &[
    gauge("info", None, "1; the labels say its name, its agent's version and its model", |d| info(d)),
    gauge("seen_timestamp", Some("seconds"), "when the hub last heard of it",
        |d| each(d, |one| Some(one.last_seen_ms? / 1000))),
    gauge("certificate_ends_timestamp", Some("seconds"), "when its newest certificate ends",
        |d| each(d, |one| Some(one.certificate_ends_ms / 1000))),
    gauge("cloned", None, "1 while two machines speak as this device",
        |d| each(d, |one| Some(one.cloned_since_ms.is_some().into()))),
    gauge("up_to_date", None, "1 while it runs the model that it shall run",
        |d| each(d, |one| Some((Some(one.desired?) == one.running).into()))),
    gauge("update_failed", None, "1 while its last order has failed",
        |d| each(d, |one| Some(matches!(one.update, Some(Update::Failed { .. })).into()))),
    counter("samples_stored", None, "samples of it that are stored",
        |d| each(d, |one| Some(one.samples_stored))),
    gauge("samples_held", None, "samples among them that are kept out of datasets",
        |d| each(d, |one| Some(one.samples_held))),
    counter("refusals", None, "messages of it that were refused",
        |d| each(d, |one| Some(one.refusals))),
    counter("frames", None, "frames that arrived since its start", |d| said(d, |t| t.frames_in)),
    counter("frames_answered", None, "frames that its model answered since its start",
        |d| said(d, |t| t.frames_answered)),
    counter("frames_dropped", None, "frames that it dropped since its start",
        |d| said(d, |t| t.frames_dropped)),
    counter("samples_evicted", None, "samples that its outbox evicted since its start",
        |d| said(d, |t| t.samples_evicted)),
    gauge("outbox_messages", None, "messages that it has yet to send", |d| said(d, |t| t.outbox_rows)),
    gauge("outbox", Some("bytes"), "the same in bytes", |d| said(d, |t| t.outbox_bytes)),
    gauge("dead_letters", None, "refused samples that it keeps", |d| said(d, |t| t.dead_letters)),
    gauge("answer_latency_median", Some("microseconds"), "median time from a frame to its answer, of its last window",
        |d| said(d, |t| t.latency_us_p50.into())),
    gauge("answer_latency_p99", Some("microseconds"), "99th percentile of the same",
        |d| said(d, |t| t.latency_us_p99.into())),
    gauge("resident_memory_peak", Some("bytes"), "the most memory that its agent ever held",
        |d| said(d, |t| t.peak_rss_bytes)),
];

/// What is known of the enrolled ones among `devices`, as OpenMetrics text.
///
/// # Errors
/// None in practice: writing to a text does not fail.
pub fn text(mut devices: Vec<Device>) -> Result<String, fmt::Error> {
    devices.retain(|device| device.state == DeviceState::Enrolled);
    DEVICES.text(devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_lists_every_metric_and_no_other() {
        let manual = include_str!("../../../docs/operations.md");
        let table = DEVICES.manual();
        let prefix = format!("| `{}_", DEVICES.prefix);
        let listed: Vec<&str> = manual.lines().filter(|line| line.starts_with(&prefix)).collect();
        assert_eq!(listed, table, "docs/operations.md should hold:\n{}", table.join("\n"));
    }

    #[test]
    fn the_alert_rules_name_metrics_that_there_are() {
        let rules = include_str!("../../alerts.yml");
        let known: Vec<String> = DEVICES
            .manual()
            .into_iter()
            .chain(super::super::HUB.manual())
            .filter_map(|line| Some(line.split('`').nth(1)?.to_owned()))
            .collect();
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
        let named: Vec<&str> = rules
            .lines()
            .filter(|line| line.trim_start().starts_with("expr:"))
            .flat_map(|line| line.split(|c| !is_name(c)))
            .filter(|word| word.starts_with("fleetloop_"))
            .collect();
        assert!(named.len() > 8, "{named:?}");
        for name in named {
            assert!(known.iter().any(|known| known == name), "{name}");
        }
    }
}
