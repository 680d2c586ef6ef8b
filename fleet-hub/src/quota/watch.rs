//! Tells what was dropped: a log line and a finding for each device, every few seconds.

use std::time::Duration;

use fleetloop_protocol::{DeviceId, UnixMillis};

use super::drops::Noted;
use crate::AppState;
use crate::store::findings::{self, Kind, NewFinding};
use crate::store::{StoreError, devices};

/// How often.
const EVERY: Duration = Duration::from_secs(2);

/// The devices that are told one by one each time; the others are summed up.
const LINES: usize = 10;

/// A device that was held up for less than this between two reports sent no more than a burst, which
/// is no news.
const SLOWED_LEAST: Duration = Duration::from_secs(1);

/// Tells until the hub stops.
pub(crate) async fn watch(state: AppState) {
    let mut stopping = state.stopping.clone();
    loop {
        // Both are cancel-safe: a sleep holds nothing, the stop stays.
        let stop = tokio::select! {
            () = tokio::time::sleep(EVERY) => false,
            () = crate::release::stopped(&mut stopping) => true,
        };
        tell(&state).await;
        if stop {
            return;
        }
    }
}

async fn tell(state: &AppState) {
    let mut news = state.quotas.drops().fresh();
    news.retain(|_, noted| !noted.dropped.is_empty() || noted.slowed_for >= SLOWED_LEAST);
    for (at, (device, noted)) in news.iter().enumerate() {
        if at == LINES {
            tracing::warn!(devices = news.len() - LINES, "more devices over their quotas");
            break;
        }
        let device = device.as_ref().map_or("others", DeviceId::as_str);
        tracing::warn!(%device, detail = %words(noted), "over its quota; nothing is lost, the device sends again what has no receipt");
    }
    let now = state.clock.now();
    let found: Vec<(DeviceId, String)> = news
        .iter()
        .filter(|(_, noted)| {
            noted.slowed_for >= SLOWED_LEAST || noted.dropped.keys().any(|why| why.is_message())
        })
        .filter_map(|(device, noted)| Some((device.clone()?, words(noted))))
        .collect();
    if found.is_empty() {
        return;
    }
    let recorded = state.store.write(move |tx| {
        for (device, detail) in &found {
            record(tx, device, detail, now)?;
        }
        Ok(())
    });
    if let Err(error) = recorded.await {
        tracing::warn!(%error, "cannot record that a device is over its quota");
    }
}

fn record(
    tx: &rusqlite::Transaction<'_>,
    device: &DeviceId,
    detail: &str,
    at: UnixMillis,
) -> Result<(), StoreError> {
    // An external broker may let through whoever was never enrolled.
    match devices::get(tx, device) {
        Err(StoreError::NotFound { .. }) => return Ok(()),
        found => found.map(drop)?,
    }
    let found = NewFinding { kind: Kind::QuotaDrop, device: Some(device), subject: "", detail, at };
    findings::record(tx, &found).map(drop)
}

fn words(noted: &Noted) -> String {
    let mut parts: Vec<String> = noted
        .dropped
        .iter()
        .map(|(why, count)| format!("{count} {} left out", why.words()))
        .collect();
    if noted.slowed > 0 {
        let seconds = noted.slowed_for.as_secs_f32();
        parts.push(format!("{} messages held up, {seconds:.1} s together", noted.slowed));
    }
    parts.join(", ")
}
