//! Drift as the hub tells it: the last hours of each device and of all, against what the model was
//! made for.
//!
//! Compared is with the reference in the model's bundle, read from its artefacts; where there is
//! none, with what the model met first at any device ([`sketches::First`]), and then only hours after
//! that are looked at. Nothing is kept here: the same question at the same moment has the same answer.

use std::collections::BTreeMap;

use fleetloop_models::bundle::{self, Role};
use fleetloop_models::reference::Reference;
use fleetloop_protocol::api::drift::{DeviceDrift, FleetDrift, ModelDrift};
use fleetloop_protocol::drift::{Against, Drift, Verdict, compare};
use fleetloop_protocol::sketch::Sketch;
use fleetloop_protocol::{BundleDigest, DeviceId};
use rusqlite::Connection;

use crate::AppState;
use crate::registry;
use crate::store::payloads::Blobs;
use crate::store::sketches::{self, Filter, First, KEPT_HOURS};
use crate::store::{StoreError, devices, registry as models};

/// The most hours of all devices at once: a week. A fleet's every hour of 90 days would keep a
/// reader busy for minutes.
pub const FLEET_HOURS: u32 = 7 * 24;

/// How much more than the median device one may weigh in the fleet.
const HEAVIEST: u64 = 2;

/// The fewest devices of which one may be left out: of two, nobody knows which is right.
const FEWEST_DEVICES: usize = 3;

/// What is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// Of that device only.
    pub device: Option<DeviceId>,
    /// Of that model only.
    pub model: Option<BundleDigest>,
    /// How many hours, the present one among them.
    pub hours: u32,
}

/// What devices met under one model.
struct Met {
    name: String,
    first: Option<First>,
    /// By device and hour.
    hours: Vec<(DeviceId, u64, Sketch)>,
}

/// Answers a question.
///
/// # Errors
/// [`StoreError::Invalid`] for more hours than are kept or may be asked of all devices at once;
/// [`StoreError::NotFound`] for a device that is none; the database's.
pub async fn look(state: &AppState, question: &Question) -> Result<FleetDrift, StoreError> {
    let most = if question.device.is_some() { KEPT_HOURS as u32 } else { FLEET_HOURS };
    if !(1..=most).contains(&question.hours) {
        let what = format!(
            "cannot compare {} hours: 1 to {FLEET_HOURS} for all devices, to {KEPT_HOURS} for one",
            question.hours
        );
        return Err(StoreError::Invalid { what });
    }
    let now = sketches::hour(state.clock.now());
    let filter = Filter {
        device: question.device.clone(),
        model: question.model,
        after_hour: now.saturating_sub(u64::from(question.hours)),
    };
    let met = state.store.read(move |connection| read(connection, &filter)).await?;
    let mut models = Vec::with_capacity(met.len());
    for (model, met) in met {
        let reference = reference(&state.artefacts, model).await;
        models.push(judge(model, met, reference.as_ref(), now));
    }
    Ok(FleetDrift { hours: question.hours, models })
}

fn read(
    connection: &Connection,
    filter: &Filter,
) -> Result<BTreeMap<BundleDigest, Met>, StoreError> {
    if let Some(device) = &filter.device {
        devices::get(connection, device)?;
    }
    let mut met: BTreeMap<BundleDigest, Met> = BTreeMap::new();
    sketches::each(connection, filter, |row| {
        let model = met.entry(row.model).or_insert_with(|| Met {
            name: String::new(),
            first: None,
            hours: Vec::new(),
        });
        model.hours.push((row.device, row.hour, row.sketch));
    })?;
    for (digest, met) in &mut met {
        let model = models::get(connection, *digest)?;
        met.name = format!("{}/{}", model.name, model.version);
        met.first = sketches::first(connection, *digest)?;
    }
    Ok(met)
}

/// Pure.
fn judge(model: BundleDigest, met: Met, reference: Option<&Reference>, now: u64) -> ModelDrift {
    let Met { name, first, mut hours } = met;
    let (against, reference) = match (reference, first) {
        (Some(reference), _) => (Against::Bundle, reference.sketch().clone()),
        (None, Some(first)) => {
            let complete = first.is_complete(now);
            // What is gathered, or was, is not compared with itself.
            hours.retain(|(_, hour, _)| complete && *hour > first.to_hour);
            (if complete { Against::First } else { Against::Nothing }, first.sketch)
        }
        (None, None) => (Against::Nothing, Sketch::default()),
    };
    let mut devices = BTreeMap::<DeviceId, Sketch>::new();
    for (device, _, sketch) in hours {
        devices.entry(device).or_default().merge(&sketch);
    }
    let (fleet, left_out) = together(&reference, &devices);
    let devices = devices
        .into_iter()
        .map(|(device, recent)| DeviceDrift { device, drift: compare(&reference, &recent) })
        .collect();
    ModelDrift { model, name, against, fleet, left_out, devices }
}

/// All devices as one. Two rules keep one device from speaking for all:
///
/// - A device weighs at most [`HEAVIEST`] times as much as the median one: its frames beyond that are
///   scaled down, its shares stay. Weighing all alike would give five frames the weight of five million.
/// - Of [`FEWEST_DEVICES`] or more, the fleet shifts or drifts only when it does so whichever one device is
///   left out. One camera in the dark is that device's drift, in its own line. Returned is the
///   mildest comparison and the device that it leaves out, if leaving it out makes it milder.
///
/// Pure.
fn together(reference: &Sketch, devices: &BTreeMap<DeviceId, Sketch>) -> (Drift, Option<DeviceId>) {
    let mut frames: Vec<u64> = devices.values().map(Sketch::frames).filter(|n| *n > 0).collect();
    frames.sort_unstable();
    // The lower of the two in the middle: of two devices the slower one is the measure.
    let median = frames.get(frames.len().saturating_sub(1) / 2).copied().unwrap_or(0);
    let most = median.saturating_mul(HEAVIEST);
    let weighed = || devices.iter().map(|(device, sketch)| (device, sketch.at_most(most)));
    let mut all = Sketch::default();
    weighed().for_each(|(_, sketch)| all.merge(&sketch));
    let whole = compare(reference, &all);
    if frames.len() < FEWEST_DEVICES || whole.verdict < Verdict::Shifting {
        return (whole, None);
    }
    let without =
        weighed().map(|(device, sketch)| (compare(reference, &all.without(&sketch)), device));
    let mildest = without
        .min_by(|(a, _), (b, _)| a.verdict.cmp(&b.verdict).then_with(|| psi(a).total_cmp(&psi(b))));
    match mildest {
        Some((drift, device)) if drift.verdict < whole.verdict => (drift, Some(device.clone())),
        _ => (whole, None),
    }
}

/// The largest PSI of all features.
fn psi(drift: &Drift) -> f64 {
    drift.features.iter().filter_map(|f| f.psi).map(|psi| psi.found).fold(0.0, f64::max)
}

/// The reference in a bundle. One that cannot be read is as good as none, and the log says so: drift
/// can still be told from what came first.
async fn reference(artefacts: &Blobs, model: BundleDigest) -> Option<Reference> {
    let warn = |error: &(dyn std::error::Error + 'static)| {
        tracing::warn!(%model, error, "a model's reference cannot be read");
    };
    let held = registry::hold(artefacts, model).await.inspect_err(|error| warn(error)).ok()?;
    let entry = held.manifest.file(Role::Reference)?;
    let bytes = artefacts.get(entry.sha256).await.inspect_err(|error| warn(error)).ok()?;
    bundle::reference(&bytes, &held.manifest).inspect_err(|error| warn(error)).ok()
}

#[cfg(test)]
#[path = "drift_tests.rs"]
pub(crate) mod tests;
