//! What the device counts: counters since start, distributions over a window.
//!
//! Latency is kept in a histogram of logarithmic buckets, eight to an octave: a quantile read from
//! it is at most 1/8 above the true one, and goes on from start: a window's latencies are what came
//! since it began. The window restarts whenever a report is taken, its sketch also when another model
//! answers: what was counted of the one before in that window is left out of the report, and only
//! there.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleetloop_models::statistics::observe_answer;
use fleetloop_observe::metrics::Distribution;
use fleetloop_protocol::BundleDigest;
use fleetloop_protocol::sketch::{Observation, Sketch};
use fleetloop_protocol::telemetry::Telemetry;
use serde::{Deserialize, Serialize};

use crate::infer::Answer;

/// Buckets for one octave.
const STEPS: u32 = 8;
/// Enough for any `u32` of microseconds, over an hour.
const BUCKETS: usize = (33 * STEPS) as usize;

/// Counters since start that nobody else owns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Frames that were answered.
    pub frames_answered: u64,
    /// Frames that a model took and could not answer.
    pub frames_failed: u64,
    /// Worth sending, but over the budget.
    pub not_selected_budget: u64,
    /// Worth sending, but encoder or outbox were behind.
    pub not_selected_busy: u64,
    /// Worth sending, but the disk refuses.
    pub not_selected_disk: u64,
    /// Worth sending, but larger than a message may be.
    pub not_selected_size: u64,
}

/// What goes on from start.
#[derive(Debug)]
struct SinceStart {
    counters: Counters,
    latency: [u64; BUCKETS],
    latency_us: u64,
    /// When the last answer came, by the monotonic clock.
    answered_at: Duration,
}

#[derive(Debug)]
struct Window {
    since: Duration,
    /// The histogram at its beginning.
    latency_before: [u64; BUCKETS],
    sketch: Sketch,
    model: Option<BundleDigest>,
}

impl Window {
    fn new(since: Duration, latency_before: [u64; BUCKETS], model: Option<BundleDigest>) -> Self {
        Self { since, latency_before, sketch: Sketch::default(), model }
    }
}

/// The counting end and the reading end; shared by `Arc`.
#[derive(Debug)]
pub struct Meter {
    inner: Mutex<(SinceStart, Window)>,
}

/// What others count and a report names.
#[derive(Debug, Clone, Copy, Default)]
pub struct Others {
    /// Frames that arrived, since start.
    pub frames_in: u64,
    /// Frames dropped, since start.
    pub frames_dropped: u64,
    /// Samples signed and stored, since start.
    pub samples_selected: u64,
    /// Samples evicted, since start.
    pub samples_evicted: u64,
    /// Samples with a receipt, in the outbox's life.
    pub samples_receipted: u64,
    /// Rows waiting in the outbox.
    pub outbox_rows: u64,
    /// Bytes waiting in the outbox.
    pub outbox_bytes: u64,
    /// Dead letters.
    pub dead_letters: u64,
}

impl Meter {
    /// A meter whose first window begins at monotonic time `now`.
    pub fn new(now: Duration) -> Self {
        let since_start = SinceStart {
            counters: Counters::default(),
            latency: [0; BUCKETS],
            latency_us: 0,
            answered_at: now,
        };
        Self { inner: Mutex::new((since_start, Window::new(now, [0; BUCKETS], None))) }
    }

    fn lock(&self) -> MutexGuard<'_, (SinceStart, Window)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an answer. The frame is looked at before anything is locked.
    pub fn answered(&self, answer: &Answer) {
        let seen = observe_answer(&answer.frame.frame, &answer.classification);
        self.record(answer.model.digest, answer.latency, &seen);
        self.lock().0.answered_at = answer.frame.due + answer.latency;
    }

    fn record(&self, model: BundleDigest, latency: Duration, seen: &Observation) {
        let mut inner = self.lock();
        let (since_start, window) = &mut *inner;
        since_start.counters.frames_answered += 1;
        since_start.latency[bucket(latency)] += 1;
        since_start.latency_us += u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        if window.model != Some(model) {
            window.sketch = Sketch::default();
            window.model = Some(model);
        }
        window.sketch.add(seen);
    }

    /// Changes the counters.
    pub fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.lock().0.counters);
    }

    /// The counters since start.
    pub fn counters(&self) -> Counters {
        self.lock().0.counters
    }

    /// When a frame was last answered, by the monotonic clock; the meter's beginning before that.
    pub fn answered_at(&self) -> Duration {
        self.lock().0.answered_at
    }

    /// The latencies since start, in seconds, by powers of two: each octave of the histogram is one bucket.
    pub fn latencies(&self) -> Distribution {
        let (latency, sum_us) = {
            let inner = self.lock();
            (inner.0.latency, inner.0.latency_us)
        };
        let octaves = latency.chunks(STEPS as usize).enumerate();
        let mut buckets: Vec<(f64, u64)> = octaves
            // The first bound is 8 us: below it the histogram counts single microseconds.
            .map(|(octave, counts)| {
                let bound_us = f64::from(STEPS) * 2f64.powi(octave as i32);
                (bound_us / 1e6, counts.iter().sum())
            })
            .collect();
        if let Some((last, _)) = buckets.last_mut() {
            *last = f64::INFINITY;
        }
        Distribution { count: latency.iter().sum(), buckets, sum: sum_us as f64 / 1e6 }
    }

    /// The report of the window that ends at `now` (monotonic) and `at_ms` (wall); the next begins.
    pub fn report(&self, now: Duration, at_ms: u64, others: Others) -> Telemetry {
        let mut inner = self.lock();
        let (counters, mut latency) = (inner.0.counters, inner.0.latency);
        let next = Window::new(now, latency, inner.1.model);
        let window = std::mem::replace(&mut inner.1, next);
        drop(inner);
        latency.iter_mut().zip(window.latency_before).for_each(|(now, before)| *now -= before);
        let seconds = now.saturating_sub(window.since).as_secs();
        Telemetry {
            model: window.model,
            at_ms,
            window_s: u32::try_from(seconds).unwrap_or(u32::MAX),
            frames_in: others.frames_in,
            frames_answered: counters.frames_answered,
            frames_dropped: others.frames_dropped,
            samples_selected: others.samples_selected,
            samples_evicted: others.samples_evicted,
            samples_receipted: others.samples_receipted,
            outbox_rows: others.outbox_rows,
            outbox_bytes: others.outbox_bytes,
            dead_letters: others.dead_letters,
            peak_rss_bytes: peak_rss_bytes(),
            latency_us_p50: quantile(&latency, 0.5),
            latency_us_p99: quantile(&latency, 0.99),
            sketch: window.sketch,
        }
    }
}

/// The bucket of a latency: its octave and the three bits after the leading one.
fn bucket(latency: Duration) -> usize {
    let us = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
    if us < STEPS {
        return us as usize;
    }
    let octave = us.ilog2() - STEPS.ilog2();
    (octave * STEPS + (us >> octave)) as usize
}

/// The largest latency of a bucket, in microseconds.
fn upper_us(bucket: usize) -> u32 {
    let bucket = bucket as u32;
    if bucket < STEPS {
        return bucket;
    }
    let octave = bucket / STEPS - 1;
    let first = u64::from(bucket - octave * STEPS) << octave;
    u32::try_from(first + (1u64 << octave) - 1).unwrap_or(u32::MAX)
}

/// The latency that a share `q` of the answers does not exceed; 0 without answers.
fn quantile(histogram: &[u64], q: f64) -> u32 {
    let total: u64 = histogram.iter().sum();
    let rank = (total as f64 * q).ceil() as u64;
    let mut seen = 0;
    for (bucket, count) in histogram.iter().enumerate() {
        seen += count;
        if seen >= rank && seen > 0 {
            return upper_us(bucket);
        }
    }
    0
}

/// The most memory this process ever held resident, from `/proc/self/status`; 0 where there is no
/// such file.
pub fn peak_rss_bytes() -> u64 {
    memory_bytes("VmHWM:")
}

/// The memory this process holds resident now; 0 as above.
pub fn rss_bytes() -> u64 {
    memory_bytes("VmRSS:")
}

fn memory_bytes(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|found| found.strip_prefix(line));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use fleetloop_protocol::limits::TELEMETRY_CLASSES;
    use fleetloop_protocol::sketch::{CONFIDENCE_BINS, INPUT_BINS};
    use fleetloop_protocol::{DeviceId, Digest, Signed, keys::SigningKey};
    use proptest::prelude::*;

    use super::*;

    const MODEL: BundleDigest = BundleDigest(Digest::ZERO);

    proptest! {
        #[test]
        fn a_quantile_is_at_most_an_eighth_above_the_true_one(
            mut us in prop::collection::vec(0u32..4_000_000_000, 1..200), q in 0.01f64..=1.0,
        ) {
            let mut histogram = [0; BUCKETS];
            for value in &us {
                histogram[bucket(Duration::from_micros(u64::from(*value)))] += 1;
            }
            us.sort_unstable();
            let rank = (us.len() as f64 * q).ceil() as usize;
            let (exact, found) = (us[rank - 1], quantile(&histogram, q));
            prop_assert!(found >= exact);
            prop_assert!(u64::from(found) <= u64::from(exact) + u64::from(exact) / 8 + 1);
        }
    }

    fn seen(classes: usize, class: usize) -> Observation {
        Observation { classes, class, confidence: 1.0, brightness: 0.5, contrast: 0.1 }
    }

    #[test]
    fn a_window_starts_anew_and_counters_do_not() {
        let meter = Meter::new(Duration::ZERO);
        for _ in 0..3 {
            meter.record(MODEL, Duration::from_micros(100), &seen(10, 4));
        }
        let first = meter.report(Duration::from_secs(60), 5, Others::default());
        assert_eq!((first.frames_answered, first.window_s), (3, 60));
        assert_eq!((first.sketch.classes[4], first.sketch.frames()), (3, 3));
        assert!((100..=113).contains(&first.latency_us_p50));
        let second = meter.report(Duration::from_secs(70), 6, Others::default());
        assert_eq!((second.frames_answered, second.window_s), (3, 10));
        assert_eq!((second.latency_us_p99, second.sketch.frames()), (0, 0));
        assert_eq!(second.model, Some(MODEL));
    }

    #[test]
    fn a_sketch_is_of_one_model() {
        let meter = Meter::new(Duration::ZERO);
        let next = BundleDigest(Digest::of(b"next"));
        (0..5).for_each(|_| meter.record(MODEL, Duration::ZERO, &seen(10, 4)));
        meter.record(next, Duration::ZERO, &seen(3, 1));
        let report = meter.report(Duration::from_secs(60), 5, Others::default());
        assert_eq!((report.model, report.sketch.frames()), (Some(next), 1));
        assert_eq!(report.sketch.classes, [0, 1, 0]);
        assert_eq!(report.frames_answered, 6);
    }

    #[test]
    fn the_histogram_goes_on_over_windows_and_adds_up() {
        let meter = Meter::new(Duration::ZERO);
        for us in [0, 7, 8, 1000, 1_000_000] {
            meter.record(MODEL, Duration::from_micros(us), &seen(2, 0));
        }
        meter.report(Duration::from_secs(60), 5, Others::default());
        meter.record(MODEL, Duration::from_secs(5000), &seen(2, 0));
        let found = meter.latencies();
        let up_to =
            |s: f64| found.buckets.iter().filter(|(le, _)| *le <= s).map(|(_, n)| n).sum::<u64>();
        assert_eq!((up_to(8e-6), up_to(16e-6), up_to(1.024e-3)), (2, 3, 4));
        assert_eq!((up_to(1.1), up_to(f64::INFINITY), found.count), (5, 6, 6));
        assert!((found.sum - 5_001.001_015).abs() < 1e-9);
        assert!(found.buckets.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn a_report_with_the_most_classes_fits_a_signed_message() {
        let meter = Meter::new(Duration::ZERO);
        let full = vec![u64::MAX; TELEMETRY_CLASSES];
        meter.lock().1.sketch = Sketch {
            classes: full.clone(),
            confidence: full[..CONFIDENCE_BINS].to_vec().try_into().unwrap(),
            brightness: full[..INPUT_BINS].to_vec().try_into().unwrap(),
            contrast: full[..INPUT_BINS].to_vec().try_into().unwrap(),
        };
        let device: DeviceId = "dev-1".parse().unwrap();
        let key = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap();
        let report = meter.report(Duration::from_secs(60), 5, Others::default());
        assert!(Signed::seal(&report, &device, &key).is_ok());
    }

    #[test]
    fn the_peak_of_memory_is_read() {
        assert!(rss_bytes() > 1024 * 1024 && peak_rss_bytes() >= rss_bytes());
    }
}
