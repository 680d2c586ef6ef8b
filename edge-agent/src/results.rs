//! Results: the latest for the local HTTP port, and a limited stream for MQTT.
//!
//! [`LATEST`] results are kept. To MQTT goes at most a configured number a second through a channel
//! of [`MQTT_WAITING`]; what is over the limit or finds the channel full is dropped and counted:
//! results are a convenience, samples are what must not be lost.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleetloop_protocol::{BundleDigest, ClockState, UnixMillis};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::infer::Answer;

/// Results kept for the HTTP port: some seconds at usual rates.
pub const LATEST: usize = 256;

/// Results that may wait for MQTT: a short stall of the link; older ones are stale.
pub const MQTT_WAITING: usize = 64;

/// The classes a result names.
const TOP: usize = 3;

/// An answer, for people and machines nearby. Not signed; nothing depends on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResultRecord {
    /// The frame's number since the agent started.
    pub frame: u64,
    /// When it was taken.
    pub captured_at: UnixMillis,
    /// Whether that time can be relied on.
    pub clock: ClockState,
    /// The model that answered.
    pub model: BundleDigest,
    /// The most probable classes, the most probable first.
    pub classes: Vec<ResultClass>,
    /// Normalised entropy, 0 (sure) to 1 (no idea).
    pub uncertainty: f32,
    /// From the moment the frame was due to the answer, in microseconds.
    pub latency_us: u64,
}

/// A class of a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResultClass {
    /// Its label in the bundle.
    pub label: String,
    /// 0 to 1.
    pub probability: f32,
}

impl ResultRecord {
    /// The record of an answer.
    pub fn of(answer: &Answer) -> Self {
        let class = |p: fleetloop_protocol::sample::Prediction| ResultClass {
            label: answer.model.labels.get(usize::from(p.class)).cloned().unwrap_or_default(),
            probability: p.probability,
        };
        Self {
            frame: answer.frame.number,
            captured_at: answer.frame.captured_at,
            clock: answer.frame.clock,
            model: answer.model.digest,
            classes: answer.classification.top(TOP).into_iter().map(class).collect(),
            uncertainty: answer.classification.entropy(),
            latency_us: u64::try_from(answer.latency.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

/// The latest results, shared with the HTTP port.
#[derive(Debug, Default)]
pub struct Latest(Mutex<VecDeque<Arc<ResultRecord>>>);

impl Latest {
    /// The newest `n`, the newest first. Shared, for inference waits while they are taken.
    pub fn newest(&self, n: usize) -> Vec<Arc<ResultRecord>> {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        records.iter().rev().take(n).cloned().collect()
    }

    fn push(&self, record: ResultRecord) {
        let record = Arc::new(record);
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = if records.len() >= LATEST { records.pop_front() } else { None };
        records.push_back(record);
        drop(records);
        drop(oldest);
    }
}

/// The publishing end, owned by the inference thread.
pub struct Results {
    latest: Arc<Latest>,
    mqtt: mpsc::Sender<Vec<u8>>,
    per_second: u32,
    /// The second under way, by the monotonic clock, and what was sent in it.
    second: (u64, u32),
    dropped: Arc<AtomicU64>,
}

impl Results {
    /// The publishing end, and the stream for MQTT.
    pub fn new(per_second: u32) -> (Self, mpsc::Receiver<Vec<u8>>) {
        let (mqtt, receiver) = mpsc::channel(MQTT_WAITING);
        let results = Self {
            latest: Arc::default(),
            mqtt,
            per_second,
            second: (0, 0),
            dropped: Arc::default(),
        };
        (results, receiver)
    }

    /// The latest results.
    pub fn latest(&self) -> Arc<Latest> {
        self.latest.clone()
    }

    /// Results that did not go to MQTT, over the limit or because the link is behind.
    pub fn dropped(&self) -> Arc<AtomicU64> {
        self.dropped.clone()
    }

    /// Publishes that many a second to MQTT from now on.
    pub fn set_per_second(&mut self, per_second: u32) {
        self.per_second = per_second;
    }

    /// Takes a result at monotonic time `now`. Never blocks.
    pub fn publish(&mut self, now: Duration, record: ResultRecord) {
        if !self.send_mqtt(now, &record) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.latest.push(record);
    }

    fn send_mqtt(&mut self, now: Duration, record: &ResultRecord) -> bool {
        if self.second.0 != now.as_secs() {
            self.second = (now.as_secs(), 0);
        }
        if self.second.1 >= self.per_second {
            return false;
        }
        self.second.1 += 1;
        serde_json::to_vec(record).is_ok_and(|json| self.mqtt.try_send(json).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use fleetloop_protocol::Digest;

    use super::*;

    fn record(frame: u64) -> ResultRecord {
        ResultRecord {
            frame,
            captured_at: UnixMillis(1),
            clock: ClockState::Synced,
            model: BundleDigest(Digest::ZERO),
            classes: vec![ResultClass { label: "boot".into(), probability: 0.75 }],
            uncertainty: 0.5,
            latency_us: 10,
        }
    }

    #[test]
    fn no_second_carries_more_than_the_limit_and_the_rest_is_counted() {
        let (mut results, mut mqtt) = Results::new(2);
        for frame in 0..5 {
            results.publish(Duration::from_millis(100 * frame), record(frame));
        }
        results.publish(Duration::from_secs(1), record(5));
        let sent: Vec<ResultRecord> = std::iter::from_fn(|| mqtt.try_recv().ok())
            .map(|json| serde_json::from_slice(&json).unwrap())
            .collect();
        assert_eq!(sent.iter().map(|r| r.frame).collect::<Vec<_>>(), [0, 1, 5]);
        assert_eq!(results.dropped().load(Ordering::Relaxed), 3);
        assert_eq!(sent[0], record(0));
    }

    #[test]
    fn a_link_that_reads_nothing_costs_results_and_never_waits() {
        let (mut results, _mqtt) = Results::new(u32::MAX);
        (0..MQTT_WAITING as u64 + 7).for_each(|f| results.publish(Duration::ZERO, record(f)));
        assert_eq!(results.dropped().load(Ordering::Relaxed), 7);
    }

    #[test]
    fn the_newest_come_first_and_old_ones_go() {
        let (mut results, _mqtt) = Results::new(0);
        (0..LATEST as u64 + 3).for_each(|f| results.publish(Duration::ZERO, record(f)));
        let newest = results.latest().newest(usize::MAX);
        assert_eq!((newest.len(), newest[0].frame), (LATEST, LATEST as u64 + 2));
    }
}
