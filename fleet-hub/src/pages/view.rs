//! What the page shows, as the templates want it: text only, each with the tone it is set in.

use std::collections::HashMap;

use askama::Template;
use fleetloop_protocol::api::devices::{Device, DeviceState, Presence};
use fleetloop_protocol::api::drift::FleetDrift;
use fleetloop_protocol::api::findings::{Finding, Severity};
use fleetloop_protocol::api::models::Model;
use fleetloop_protocol::api::reports::Outcome;
use fleetloop_protocol::api::rollouts::{MemberState, Phase, Rollout};
use fleetloop_protocol::api::samples::{Sample, SampleCounts};
use fleetloop_protocol::drift::{Drift, Finding as Moved, Verdict};
use fleetloop_protocol::state::Update;
use fleetloop_protocol::telemetry::Telemetry;
use fleetloop_protocol::{BundleDigest, DeviceId, UnixMillis};
use rusqlite::Connection;

use crate::api::devices;
use crate::cli::{devices as words, human, models, rollouts, samples};
use crate::store::samples::Filter;
use crate::store::{self, StoreError, findings};

/// Samples shown.
const SAMPLES: u32 = 24;

/// Rollouts shown.
const ROLLOUTS: u32 = 5;

/// Open findings shown.
const FINDINGS: u32 = 20;

/// Models shown.
const MODELS: usize = 10;

/// The login form.
#[derive(Debug, Template)]
#[template(path = "login.html")]
pub struct Login<'a> {
    /// What was wrong the last time.
    pub problem: Option<&'a str>,
}

/// The page.
#[derive(Debug, Template)]
#[template(path = "page.html")]
pub struct Page {
    host: String,
    who: String,
    now: String,
    findings: Vec<FindingLine>,
    warnings: Vec<String>,
    devices: Vec<DeviceLine>,
    rollouts: Vec<RolloutLine>,
    models: Vec<ModelLine>,
    counts: Vec<CountLine>,
    samples: Vec<SampleLine>,
}

#[derive(Debug)]
struct FindingLine {
    id: u64,
    kind: String,
    severity: &'static str,
    tone: &'static str,
    device: String,
    subject: String,
    detail: String,
    meaning: String,
    count: u64,
    first: String,
    last: String,
}

#[derive(Debug)]
struct DeviceLine {
    id: String,
    name: String,
    state: &'static str,
    state_tone: &'static str,
    seen: String,
    seen_tone: &'static str,
    running: String,
    desired: String,
    update: String,
    update_tone: &'static str,
    frames_in: String,
    frames_answered: String,
    frames_dropped: String,
    latency: String,
    outbox: String,
    drift: String,
    drift_tone: &'static str,
    drift_detail: String,
    stored: u64,
    refused: u64,
}

#[derive(Debug)]
struct RolloutLine {
    id: u64,
    bundle: String,
    phase: String,
    tone: &'static str,
    open: bool,
    proven: usize,
    started: String,
    by: String,
    waits: Vec<String>,
    members: Vec<MemberLine>,
}

#[derive(Debug)]
struct MemberLine {
    device: String,
    before: String,
    state: String,
    tone: &'static str,
}

#[derive(Debug)]
struct ModelLine {
    name: String,
    digest: String,
    short: String,
    verdict: &'static str,
    tone: &'static str,
    checks: Vec<CheckLine>,
    released: String,
    came: String,
    by: String,
}

#[derive(Debug)]
struct CheckLine {
    text: String,
    tone: &'static str,
}

#[derive(Debug)]
struct CountLine {
    name: &'static str,
    value: u64,
}

#[derive(Debug)]
struct SampleLine {
    digest: String,
    payload: String,
    short: String,
    device: String,
    stored: String,
    prediction: String,
    chosen: String,
    label: String,
    tone: &'static str,
    removed: bool,
}

/// Names that stand in for digests and ids.
struct Names {
    bundles: HashMap<BundleDigest, String>,
    devices: HashMap<DeviceId, String>,
    labels: Vec<String>,
}

impl Names {
    fn bundle(&self, bundle: Option<BundleDigest>) -> String {
        bundle.map_or("-".into(), |bundle| match self.bundles.get(&bundle) {
            Some(name) => name.clone(),
            None => bundle.0.short(),
        })
    }

    fn device(&self, id: &DeviceId) -> String {
        self.devices.get(id).map_or_else(|| id.to_string(), |name| format!("{name} ({id})"))
    }
}

impl Page {
    /// Everything the page shows, out of one snapshot of the database.
    ///
    /// # Errors
    /// The database failed.
    pub fn read(
        connection: &Connection,
        host: String,
        who: String,
        now: UnixMillis,
        warnings: Vec<String>,
        drift: &FleetDrift,
    ) -> Result<Self, StoreError> {
        let devices = devices::all(connection, now)?;
        let mut models = store::registry::list(connection)?;
        models.sort_by_key(|model| std::cmp::Reverse(model.created_at_ms));
        let rollouts = store::rollouts::list(connection, ROLLOUTS)?;
        let known = devices.iter().map(|d| (d.id.clone(), d.presence)).collect();
        let filter = Filter { group: Some("fleet".into()), limit: SAMPLES, ..Filter::default() };
        let samples = store::samples::list(connection, &filter)?;
        let counts = store::samples::counts(connection)?;
        let open = findings::Filter { limit: FINDINGS, ..findings::Filter::default() };
        let findings = findings::list(connection, &open)?;
        let names = Names {
            bundles: models
                .iter()
                .map(|m| (m.bundle, format!("{}/{}", m.name, m.version)))
                .collect(),
            devices: devices.iter().map(|d| (d.id.clone(), d.name.clone())).collect(),
            labels: store::labels::set(connection)?.labels,
        };
        Ok(Self {
            host,
            who,
            now: human::time(now.0),
            findings: findings.iter().map(|f| finding(f, &names, now.0)).collect(),
            warnings,
            devices: devices.iter().map(|d| device(d, &names, now.0, drift)).collect(),
            rollouts: rollouts.iter().map(|r| rollout(&r.to_api(&known), &names, now.0)).collect(),
            models: models.iter().take(MODELS).map(model).collect(),
            counts: count(&counts),
            samples: samples.iter().map(|s| sample(s, &names, now.0)).collect(),
        })
    }
}

fn finding(finding: &Finding, names: &Names, now_ms: u64) -> FindingLine {
    FindingLine {
        id: finding.id,
        kind: finding.kind.clone(),
        severity: finding.severity.as_str(),
        tone: match finding.severity {
            Severity::Alarm => "bad",
            Severity::Warning => "busy",
            Severity::Notice => "",
        },
        device: finding.device.as_ref().map_or("-".into(), |id| names.device(id)),
        subject: finding.subject.clone(),
        detail: finding.detail.clone(),
        meaning: finding.meaning.clone(),
        count: finding.count,
        first: human::time(finding.first_at_ms),
        last: human::ago(finding.last_at_ms, now_ms),
    }
}

fn device(device: &Device, names: &Names, now_ms: u64, drift: &FleetDrift) -> DeviceLine {
    let drift = met(device, drift);
    let revoked = device.state == DeviceState::Revoked;
    let is_away = device.presence != Presence::Online;
    let number = |of: fn(&Telemetry) -> u64| {
        device.telemetry.as_ref().map_or("-".into(), |t| of(t).to_string())
    };
    DeviceLine {
        id: device.id.to_string(),
        name: device.name.clone(),
        state: words::standing(device),
        state_tone: if revoked || device.cloned_since_ms.is_some() { "bad" } else { "good" },
        seen: words::seen(device, now_ms),
        seen_tone: if is_away && !revoked { "bad" } else { "" },
        running: names.bundle(device.running),
        desired: names.bundle(device.desired),
        update: match &device.update {
            Some(Update::Installing { bundle }) => {
                format!("installing {}", names.bundle(Some(*bundle)))
            }
            Some(Update::Failed { bundle, reason }) => {
                format!("failed {}: {reason}", names.bundle(Some(*bundle)))
            }
            Some(Update::Idle) | None => words::update(device),
        },
        update_tone: match &device.update {
            Some(Update::Failed { .. }) => "bad",
            Some(Update::Installing { .. }) => "busy",
            _ => "",
        },
        frames_in: number(|t| t.frames_in),
        frames_answered: device.telemetry.as_ref().map_or("-".into(), answered),
        frames_dropped: number(|t| t.frames_dropped),
        latency: device
            .telemetry
            .as_ref()
            .map_or("-".into(), |t| format!("{:.1} ms", f64::from(t.latency_us_p50) / 1000.0)),
        outbox: number(|t| t.outbox_rows),
        drift: drift.map_or_else(|| "-".to_owned(), in_words),
        drift_tone: match drift.map(|drift| drift.verdict) {
            Some(Verdict::Drifted) => "bad",
            Some(Verdict::Shifting) => "busy",
            Some(Verdict::Steady) => "good",
            Some(Verdict::Unknown) | None => "",
        },
        drift_detail: drift.map_or_else(String::new, moved),
        stored: device.samples_stored,
        refused: device.refusals,
    }
}

/// How what the device meets under the model it runs compares; none when it met nothing lately.
fn met<'a>(device: &Device, drift: &'a FleetDrift) -> Option<&'a Drift> {
    let model = drift.models.iter().find(|model| Some(model.model) == device.running)?;
    model.devices.iter().find(|met| met.device == device.id).map(|met| &met.drift)
}

/// What moved, for somebody who knows the camera.
fn in_words(drift: &Drift) -> String {
    let moved = drift.features.iter().filter(|finding| finding.verdict >= Verdict::Shifting);
    let words: Vec<&str> = moved.map(Moved::words).collect();
    if words.is_empty() { drift.verdict.as_str().to_owned() } else { words.join(", ") }
}

/// What moved, with its figures.
fn moved(drift: &Drift) -> String {
    let moved = drift.features.iter().filter(|finding| finding.verdict >= Verdict::Shifting);
    moved.map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Frames answered, and how many a second over the last window.
fn answered(telemetry: &Telemetry) -> String {
    let window = telemetry.sketch.frames();
    if telemetry.window_s == 0 || window == 0 {
        return telemetry.frames_answered.to_string();
    }
    let rate = window as f64 / f64::from(telemetry.window_s);
    format!("{} ({rate:.1}/s)", telemetry.frames_answered)
}

fn rollout(rollout: &Rollout, names: &Names, now_ms: u64) -> RolloutLine {
    let members = rollout
        .members
        .iter()
        .map(|member| MemberLine {
            device: names.device(&member.device),
            before: names.bundle(member.before),
            state: rollouts::member(member),
            tone: match member.state {
                MemberState::Proven => "good",
                MemberState::Failed { .. } => "bad",
                MemberState::Assigned | MemberState::Late => "busy",
                MemberState::Waiting => "",
            },
        })
        .collect();
    RolloutLine {
        id: rollout.id.0,
        bundle: names.bundle(Some(rollout.bundle)),
        phase: rollouts::phase(rollout),
        waits: rollout.waits.iter().map(|wait| rollouts::waiting(wait, now_ms)).collect(),
        tone: match rollout.phase {
            Phase::Done => "good",
            Phase::Halted { .. } => "bad",
            Phase::Canary | Phase::Everyone => "busy",
            Phase::Cancelled => "",
        },
        open: matches!(rollout.phase, Phase::Canary | Phase::Everyone | Phase::Halted { .. }),
        proven: rollouts::proven(rollout),
        started: human::time(rollout.started_at_ms),
        by: rollout.started_by.clone(),
        members,
    }
}

const fn outcome_tone(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "good",
        Outcome::TooFew => "busy",
        Outcome::Failed => "bad",
    }
}

fn model(model: &Model) -> ModelLine {
    let checks = model.verdict.iter().flat_map(|verdict| &verdict.checks);
    ModelLine {
        name: format!("{}/{}", model.name, model.version),
        digest: model.bundle.to_string(),
        short: model.bundle.0.short(),
        verdict: models::verdict(model),
        tone: match model.verdict.as_ref().map(|verdict| verdict.outcome) {
            Some(outcome) => outcome_tone(outcome),
            None => "",
        },
        checks: checks
            .map(|check| CheckLine {
                text: format!(
                    "{}: {:.4}, at least {:.4}. {}",
                    check.name,
                    check.value,
                    check.at_least,
                    models::basis(check)
                ),
                tone: match check.outcome {
                    Outcome::Passed => "",
                    outcome => outcome_tone(outcome),
                },
            })
            .collect(),
        released: if model.released_as.is_empty() {
            "-".into()
        } else {
            model.released_as.join(", ")
        },
        came: human::time(model.created_at_ms),
        by: model.created_by.clone(),
    }
}

fn count(counts: &SampleCounts) -> Vec<CountLine> {
    [
        ("from devices", counts.fleet),
        ("of them labelled", counts.fleet_labelled),
        ("imported", counts.imported),
        ("removed", counts.removed),
        ("duplicates", counts.repeated),
        ("quarantined", counts.quarantined),
        ("refused", counts.refused),
        ("lost samples", counts.gaps),
    ]
    .into_iter()
    .map(|(name, value)| CountLine { name, value })
    .collect()
}

fn sample(sample: &Sample, names: &Names, now_ms: u64) -> SampleLine {
    let prediction = sample.predictions.first().map_or("-".to_owned(), |p| {
        let class = names.labels.get(usize::from(p.class));
        let class = class.map_or_else(|| format!("class {}", p.class), Clone::clone);
        format!("{class} ({:.0} %)", p.probability * 100.0)
    });
    SampleLine {
        digest: sample.sample.to_string(),
        payload: sample.payload.to_string(),
        short: sample.sample.short(),
        device: sample.id.as_ref().map_or("-".into(), |id| match names.devices.get(&id.device) {
            Some(name) => name.clone(),
            None => id.device.to_string(),
        }),
        stored: human::ago(sample.stored_at_ms, now_ms),
        prediction,
        chosen: sample.selection.as_ref().map_or("-".into(), samples::selection),
        tone: if sample.label.is_some() { "good" } else { "" },
        label: match &sample.removed {
            Some(removed) => format!("removed by {}: {}", removed.by, removed.reason),
            None => sample.label.clone().unwrap_or_else(|| "none yet".into()),
        },
        removed: sample.removed.is_some(),
    }
}
