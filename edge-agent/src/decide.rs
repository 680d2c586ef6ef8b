//! What happens to an answer: it is counted and published, and a frame worth sending goes to the
//! sampler.
//!
//! What is decided by, [`Rules`], may change at any time; a frame that was chosen carries the rules
//! it was chosen by, so that its header names the configuration that chose it.
//!
//! [`Decide`] runs on the inference thread and never waits. The sampler is a thread of its own: it
//! encodes the frame as PNG (lossless: the pixels that inference saw), spends the budget and hands
//! the sample to the outbox. Whatever keeps a sample from being sent is counted by its reason.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use fleetloop_models::content;
use fleetloop_protocol::limits::{HEADER_PREDICTIONS, PAYLOAD_BYTES};
use fleetloop_protocol::sample::{MediaType, Prediction, Selection};
use fleetloop_protocol::{BundleDigest, Digest};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::{Config, SelectionConfig};
use crate::frames::Arrived;
use crate::infer::{Answer, Sink};
use crate::outbox::{Draft, Outbox, OutboxError};
use crate::priority;
use crate::results::{ResultRecord, Results};
use crate::select::{Budget, Selector};
use crate::telemetry::Meter;
use crate::threads;

/// Frames that may wait for the sampler: more would only hold memory while the disk is slow.
pub const CHOSEN: usize = 32;

/// What an answer is decided by: what of the configuration concerns answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// The configuration in force, as sample headers name it.
    pub config: Digest,
    /// What is worth sending.
    pub selection: SelectionConfig,
    /// Results published to MQTT a second at most.
    pub mqtt_per_second: u32,
}

impl Rules {
    /// The rules of a configuration.
    pub fn of(config: &Config) -> Self {
        Self {
            config: config.digest,
            selection: config.selection.clone(),
            mqtt_per_second: config.results.mqtt_per_second,
        }
    }
}

/// A frame worth sending.
struct Chosen {
    /// By what it was chosen.
    rules: Arc<Rules>,
    frame: Box<Arrived>,
    model: BundleDigest,
    selection: Selection,
    predictions: Vec<Prediction>,
}

/// The sink of the inference thread.
pub struct Decide {
    clock: Clock,
    meter: Arc<Meter>,
    results: Results,
    selector: Selector,
    /// In force for the answer under way, and where the next ones come from.
    rules: Arc<Rules>,
    latest_rules: watch::Receiver<Arc<Rules>>,
    chosen: SyncSender<Chosen>,
}

impl Decide {
    /// The sink, and the sampler that takes what it chooses. `seed` starts the random draws.
    pub fn new(
        clock: Clock,
        meter: Arc<Meter>,
        results: Results,
        mut latest_rules: watch::Receiver<Arc<Rules>>,
        seed: u64,
    ) -> (Self, Sampler) {
        let (chosen, receiver) = sync_channel(CHOSEN);
        let rules = latest_rules.borrow_and_update().clone();
        let sampler = Sampler {
            clock: clock.clone(),
            meter: meter.clone(),
            budget: Budget::new(&rules.selection, clock.monotonic()),
            rules: rules.clone(),
            chosen: receiver,
            last_len: 0,
        };
        let selector = Selector::new(&rules.selection, seed);
        (Self { clock, meter, results, selector, rules, latest_rules, chosen }, sampler)
    }

    /// Takes over new rules, if there are any: between two answers, never within one.
    fn follow(&mut self) {
        // An error means that the sender is gone: these are the last rules.
        if !self.latest_rules.has_changed().unwrap_or(false) {
            return;
        }
        let rules = self.latest_rules.borrow_and_update().clone();
        self.selector.adjust(&self.rules.selection, &rules.selection);
        self.results.set_per_second(rules.mqtt_per_second);
        self.rules = rules;
    }
}

impl Sink for Decide {
    fn answered(&mut self, answer: Answer) {
        self.follow();
        self.meter.answered(&answer);
        self.results.publish(self.clock.monotonic(), ResultRecord::of(&answer));
        let Some(selection) = self.selector.consider(answer.classification.entropy()) else {
            return;
        };
        let chosen = Chosen {
            rules: self.rules.clone(),
            model: answer.model.digest,
            selection,
            predictions: answer.classification.top(HEADER_PREDICTIONS),
            frame: answer.frame,
        };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.chosen.try_send(chosen)
        {
            self.meter.count(|counters| counters.not_selected_busy += 1);
        }
    }

    fn failed(&mut self, _number: u64) {
        self.meter.count(|counters| counters.frames_failed += 1);
    }
}

/// Encodes what was chosen and stores it within the budget.
pub struct Sampler {
    clock: Clock,
    meter: Arc<Meter>,
    budget: Budget,
    rules: Arc<Rules>,
    chosen: Receiver<Chosen>,
    /// The last payload's length: what the next one will be about.
    last_len: u64,
}

impl Sampler {
    /// Starts the thread. It ends when the inference thread has ended and all it chose is handed
    /// on.
    ///
    /// # Errors
    /// The system's, when it has no thread to give.
    pub fn spawn(mut self, outbox: Outbox) -> std::io::Result<JoinHandle<()>> {
        threads::spawn("sampler", move || {
            priority::give_way();
            while let Ok(chosen) = self.chosen.recv() {
                self.store(chosen, &outbox);
            }
        })
    }

    fn store(&mut self, chosen: Chosen, outbox: &Outbox) {
        if !outbox.accepting() {
            return self.meter.count(|counters| counters.not_selected_disk += 1);
        }
        let now = self.clock.monotonic();
        if !Arc::ptr_eq(&self.rules, &chosen.rules) {
            self.budget.adjust(&chosen.rules.selection, now);
            self.rules = chosen.rules;
        }
        // Encoding what cannot be afforded would cost more than all the rest.
        if self.budget.level_bytes(now, &chosen.selection) < self.last_len / 2 {
            return self.meter.count(|counters| counters.not_selected_budget += 1);
        }
        let payload = match chosen.frame.frame.encode_png() {
            Ok(payload) => payload,
            Err(error) => return tracing::error!(%error, "a chosen frame is not sent"),
        };
        if payload.len() > PAYLOAD_BYTES {
            return self.meter.count(|counters| counters.not_selected_size += 1);
        }
        // What the hub would refuse for good is not signed: a frame over the limits of pictures.
        if let Err(error) = content::check(MediaType::Png, &payload) {
            return tracing::error!(%error, "a chosen frame is not sent");
        }
        let len = payload.len() as u64;
        self.last_len = len;
        if !self.budget.take(now, len, &chosen.selection) {
            return self.meter.count(|counters| counters.not_selected_budget += 1);
        }
        let draft = Draft {
            captured_at: chosen.frame.captured_at,
            clock: chosen.frame.clock,
            model: chosen.model,
            config: self.rules.config,
            media_type: MediaType::Png,
            payload,
            selection: chosen.selection,
            predictions: chosen.predictions,
        };
        // The answer is not waited for: the outbox counts what it stored and what it could not.
        match outbox.append(draft) {
            Ok(_) => {}
            Err(OutboxError::Busy) => {
                self.budget.give_back(len);
                self.meter.count(|counters| counters.not_selected_busy += 1);
            }
            Err(error) => tracing::error!(%error, "a chosen frame is not sent"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fleetloop_models::picture::{Channels, Frame};
    use fleetloop_models::postprocess::Classification;
    use fleetloop_protocol::keys::SigningKey;
    use fleetloop_protocol::sample::VerifiedSample;
    use fleetloop_protocol::{ClockState, UnixMillis};

    use super::*;
    use crate::clock::ManualTime;
    use crate::config::OutboxConfig;
    use crate::infer::ModelInfo;

    const UNSURE: [f32; 2] = [0.0, 0.0];
    const SURE: [f32; 2] = [50.0, 0.0];

    struct Bench {
        _dir: tempfile::TempDir,
        decide: Decide,
        sampler: Sampler,
        outbox: Outbox,
        meter: Arc<Meter>,
        key: Arc<SigningKey>,
        time: ManualTime,
        rules: watch::Sender<Arc<Rules>>,
    }

    fn bench(burst_bytes: u64) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let pkcs8 = SigningKey::generate_pkcs8().unwrap();
        let key = Arc::new(SigningKey::from_pkcs8(&pkcs8).unwrap());
        let (clock, time) = Clock::manual(UnixMillis(5));
        let selection = SelectionConfig {
            random_rate: 0.0,
            budget_bytes_per_hour: 100_000,
            burst_bytes,
            ..SelectionConfig::default()
        };
        let outbox = Outbox::open(
            dir.path(),
            &OutboxConfig::default(),
            "dev-1".parse().unwrap(),
            key.clone(),
            clock.clone(),
        )
        .unwrap();
        let meter = Arc::new(Meter::new(Duration::ZERO));
        let (results, _) = Results::new(0);
        let config = Digest::of(b"config");
        let rules = Arc::new(Rules { config, selection, mqtt_per_second: 0 });
        let (rules, latest) = watch::channel(rules);
        let (decide, sampler) = Decide::new(clock, meter.clone(), results, latest, 1);
        Bench { _dir: dir, decide, sampler, outbox, meter, key, time, rules }
    }

    fn frame() -> Frame {
        let pixels = (0..64 * 64u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        Frame::new(64, 64, Channels::Grey, pixels).unwrap()
    }

    impl Bench {
        fn answer(&mut self, logits: &[f32]) {
            let frame = Box::new(Arrived {
                frame: frame(),
                number: 0,
                due: Duration::ZERO,
                captured_at: UnixMillis(77),
                clock: ClockState::Synced,
            });
            let model = Arc::new(ModelInfo {
                digest: BundleDigest(Digest::of(b"bundle")),
                name: "m".into(),
                version: 1,
                labels: vec!["a".into(), "b".into()],
                reference: None,
            });
            let classification = Classification::from_logits(logits);
            self.decide.answered(Answer { frame, model, classification, latency: Duration::ZERO });
            if let Ok(chosen) = self.sampler.chosen.try_recv() {
                self.sampler.store(chosen, &self.outbox);
            }
        }

        async fn waiting(&self) -> Vec<crate::outbox::Outgoing> {
            self.outbox.flush().await.unwrap();
            self.outbox.next_batch(100, usize::MAX).await.unwrap()
        }
    }

    #[tokio::test]
    async fn what_is_sent_is_the_frame_that_inference_saw_with_all_its_facts() {
        let mut bench = bench(1 << 20);
        bench.answer(&SURE);
        bench.answer(&UNSURE);
        let waiting = bench.waiting().await;
        assert_eq!(waiting.len(), 1, "only the uncertain one");
        let keys = [bench.key.public()].into_iter().collect();
        let device = "dev-1".parse().unwrap();
        let sample = VerifiedSample::open(&waiting[0].bytes, &device, &keys).unwrap();
        assert_eq!(
            Frame::decode(MediaType::Png, sample.payload().inline().unwrap()).unwrap(),
            frame()
        );
        let header = sample.header().get();
        assert_eq!(header.model, BundleDigest(Digest::of(b"bundle")));
        assert_eq!(header.config, Digest::of(b"config"));
        assert_eq!((header.captured_at, header.clock), (UnixMillis(77), ClockState::Synced));
        assert_eq!(header.selection, Selection::Uncertain { score: 1.0 });
        assert_eq!(header.predictions.len(), 2);
    }

    #[tokio::test]
    async fn a_sample_names_the_configuration_that_chose_it_and_the_next_one_the_next() {
        let mut bench = bench(1 << 20);
        bench.answer(&UNSURE);
        let new = Rules {
            config: Digest::of(b"new"),
            selection: SelectionConfig { uncertainty_threshold: 0.0, ..Default::default() },
            mqtt_per_second: 0,
        };
        bench.rules.send_replace(Arc::new(new));
        bench.answer(&SURE);
        let keys = [bench.key.public()].into_iter().collect();
        let device = "dev-1".parse().unwrap();
        let configs = bench.waiting().await.into_iter().map(|outgoing| {
            VerifiedSample::open(&outgoing.bytes, &device, &keys).unwrap().header().get().config
        });
        assert_eq!(configs.collect::<Vec<_>>(), [Digest::of(b"config"), Digest::of(b"new")]);
    }

    #[tokio::test]
    async fn over_the_budget_nothing_is_sent_and_everything_is_counted() {
        let len = frame().encode_png().unwrap().len() as u64;
        // A quarter is kept for random samples.
        let mut bench = bench(3 * len);
        (0..5).for_each(|_| bench.answer(&UNSURE));
        assert_eq!(bench.waiting().await.len(), 2);
        assert_eq!(bench.meter.counters().not_selected_budget, 3);
        bench.time.advance(Duration::from_secs(3600));
        bench.answer(&UNSURE);
        // The first two are offered again: an hour went by without a receipt.
        assert_eq!(bench.waiting().await.len(), 3);
        assert_eq!(bench.meter.counters().not_selected_budget, 3);
        assert_eq!(bench.meter.counters().frames_answered, 6);
    }
}
