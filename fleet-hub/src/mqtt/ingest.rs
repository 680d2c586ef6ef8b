//! What becomes of a message from a device: verified, stored, answered.
//!
//! A sample's road: signature and payload checked → payload on disk → row on disk with its signed
//! receipt → receipt sent. A power cut after any step leaves what the next attempt finds and goes
//! on from: a payload without a row is written again, a row without a sent receipt answers the
//! repeated sample. A payload too large for a message was uploaded before it: it is taken over from
//! there, and a sample whose upload is not there is refused for now.
//!
//! Messages are handled side by side, and one may overtake another. Samples, gaps and windows of
//! telemetry may: each has an identity, and all count. Of a device's reports the last to come counts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fleetloop_models::content::{self, ContentError};
use fleetloop_protocol::backoff::spread;
use fleetloop_protocol::gap::Gap;
use fleetloop_protocol::keys::{KeyRing, PublicKey};
use fleetloop_protocol::receipt::{Receipt, Refusal, RefusalReason, Subject};
use fleetloop_protocol::sample::{Payload, VerifiedSample};
use fleetloop_protocol::signed::VerifyError;
use fleetloop_protocol::state::{Desired, Reported};
use fleetloop_protocol::telemetry::Telemetry;
use fleetloop_protocol::topic::{Kind, Topic};
use fleetloop_protocol::{DeviceId, Digest, Verified};

use super::answers::Answers;
use crate::config::BrokerKind;
use crate::quota::{Place, Why};
use crate::state::{AppState, HubEvent};
use crate::store::ingest::{self as rows, Contradiction, Outcome, Via};
use crate::store::uploads::Adoption;
use crate::store::{StoreError, desired, devices, sketches};

/// How long a stop gives the link to write the last answers. One that is not written is asked for
/// again by its device.
const FLUSH: Duration = Duration::from_millis(200);

/// Takes messages in; cheap to clone.
#[derive(Clone)]
pub(super) struct Ingest {
    state: AppState,
    answers: Answers,
    /// Keys of devices seen since the start. A device's key never changes; whether the device may
    /// still send is asked of the database in the transaction that stores.
    keys: Arc<RwLock<HashMap<DeviceId, PublicKey>>>,
    /// Messages that came since the start.
    arrived: Arc<AtomicU64>,
    last_reports: LastReports,
}

/// Which message was the last report of each device, of those that were kept since the start.
#[derive(Clone, Default)]
struct LastReports(Arc<Mutex<HashMap<DeviceId, u64>>>);

impl LastReports {
    /// Whether no later report than message `number` was kept. This one is, then.
    fn keeps(&self, device: &DeviceId, number: u64) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = all.entry(device.clone()).or_default();
        *last = number.max(*last);
        *last == number
    }
}

/// Why a message is not accepted.
enum Rejected {
    /// Answered with a refusal.
    Refused(RefusalReason, String),
    /// The database or the disk failed.
    Failed(StoreError),
}

impl From<StoreError> for Rejected {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl From<ContentError> for Rejected {
    fn from(error: ContentError) -> Self {
        Self::Refused(RefusalReason::Content, error.to_string())
    }
}

impl From<VerifyError> for Rejected {
    fn from(error: VerifyError) -> Self {
        Self::Refused(RefusalReason::from(&error), error.to_string())
    }
}

/// What a device is told whose message finds no place.
const fn busy(why: Why) -> &'static str {
    match why {
        Why::Quota => "the device sends more than its quota; it sends again later",
        _ => "the hub is behind",
    }
}

impl Ingest {
    pub(super) fn new(state: AppState, answers: Answers) -> Self {
        let (keys, arrived, last_reports) = Default::default();
        Self { state, answers, keys, arrived, last_reports }
    }

    /// Takes one message; called in the order in which they come. Never waits: above the backlog, or
    /// above its device's share of it, it is refused for now.
    pub(super) fn take(&self, topic: &[u8], payload: Bytes) {
        let Some(topic) = std::str::from_utf8(topic).ok().and_then(|text| Topic::parse(text).ok())
        else {
            tracing::warn!(topic = %String::from_utf8_lossy(topic), "a message on no topic of ours");
            return;
        };
        let place = match self.admit(&topic.device, payload.len()) {
            Ok(place) => place,
            Err(why) => {
                self.state.quotas.drops().note(&topic.device, why);
                let busy = self.refusal(&payload, RefusalReason::Busy, busy(why));
                self.answers.try_refusal(&topic.device, &busy);
                return;
            }
        };
        let number = self.arrived.fetch_add(1, Ordering::Relaxed);
        let ingest = self.clone();
        tokio::spawn(async move {
            ingest.handle(&topic, payload, number).await;
            drop(place);
        });
    }

    /// A place in the backlog for a message, or why there is none for this device.
    fn admit(&self, device: &DeviceId, bytes: usize) -> Result<Place, Why> {
        let quotas = &self.state.quotas;
        // The embedded broker slowed the device before.
        let slowed = self.state.config.broker == BrokerKind::Embedded;
        if !slowed && !quotas.admits(device, bytes) {
            return Err(Why::Quota);
        }
        self.state.vitals.backlog.hold(device).ok_or(Why::Backlog)
    }

    /// Takes nothing more in and waits until everything under way is answered.
    pub(super) async fn drain(&self) {
        self.state.vitals.backlog.close().await;
        self.answers.drained().await;
        // The link has the last answers in its hands; a moment to write them.
        tokio::time::sleep(FLUSH).await;
    }

    async fn handle(&self, topic: &Topic, payload: Bytes, number: u64) {
        let message = payload.clone();
        let device = &topic.device;
        let result = match topic.kind {
            Kind::Sample => Box::pin(self.sample(device, &payload)).await,
            Kind::Gap => self.gap(device, &payload).await,
            Kind::Telemetry => self.telemetry(device, &payload).await,
            Kind::Reported => self.reported(device, &payload, number).await,
            Kind::Result | Kind::Receipt | Kind::Refusal | Kind::Desired => Ok(()),
        };
        match result {
            Ok(()) => {}
            Err(Rejected::Refused(reason, detail)) => {
                self.refuse(device, &message, reason, &detail).await;
            }
            Err(Rejected::Failed(StoreError::Full { what })) => {
                tracing::error!(%device, %what, "the disk is full; devices are told to try later");
                let detail = "the hub's disk is full";
                self.refuse(device, &message, RefusalReason::StorageFull, detail).await;
            }
            Err(Rejected::Failed(error)) => {
                tracing::error!(%device, error = &error as &dyn std::error::Error, "cannot store a message");
                let detail = "the hub could not store it";
                self.refuse(device, &message, RefusalReason::Busy, detail).await;
            }
        }
    }

    async fn sample(&self, device: &DeviceId, bytes: &[u8]) -> Result<(), Rejected> {
        let received = Instant::now();
        let sample = Arc::new(VerifiedSample::open(bytes, device, &self.ring(device).await?)?);
        let identity = sample.header().get().id.to_string();
        tracing::debug!(sample = %identity, bytes = bytes.len(), "sample received");
        let result = self.accept(device, bytes, &sample, &identity, received).await;
        if let Err(Rejected::Refused(reason, detail)) = &result {
            tracing::debug!(sample = %identity, ?reason, detail, "sample refused");
        }
        result
    }

    /// Stores a verified sample, received at that moment, and answers it.
    async fn accept(
        &self,
        device: &DeviceId,
        bytes: &[u8],
        sample: &Arc<VerifiedSample>,
        identity: &str,
        received: Instant,
    ) -> Result<(), Rejected> {
        let looked_up = Arc::clone(sample);
        let known =
            self.state.store.read(move |connection| rows::look_up(connection, &looked_up)).await?;
        let digest = sample.header().body_digest();
        let now = self.state.clock.now();
        let receipt = Receipt {
            subject: Subject::Sample(sample.header().get().id.clone()),
            digest,
            stored_at: now,
        };
        let receipt = self
            .answers
            .sign_receipt(device, &receipt)
            .map_err(|error| Rejected::Refused(RefusalReason::Malformed, error.to_string()))?;
        let outcome = match known {
            Some(outcome) => outcome,
            None => {
                // Until the row names the payload, nobody erases it as one that no sample has.
                let _kept = self.state.payloads.keep().await;
                let payload_digest = self.payload(sample).await?;
                let (stored, signed) = (Arc::clone(sample), receipt.clone());
                let outcome = self
                    .state
                    .store
                    .write(move |tx| {
                        rows::store_sample(tx, &stored, payload_digest, &signed, Via::Link, now)
                    })
                    .await?;
                if outcome == Outcome::Stored {
                    let took_us = u64::try_from(received.elapsed().as_micros()).unwrap_or(u64::MAX);
                    tracing::debug!(
                        sample = identity, %digest, payload = %payload_digest, took_us, "sample stored"
                    );
                }
                outcome
            }
        };
        if *sample.payload() == Payload::Uploaded {
            // Whatever became of it, the upload has served.
            self.state.uploads.discard(device, sample.header().get().commitment).await;
        }
        if outcome == Outcome::Stored {
            self.state.tell(HubEvent::SampleStored { sample: digest });
        }
        let envelope = sample.header().envelope();
        self.settle(device, bytes, outcome, receipt, (identity.to_owned(), digest, envelope)).await
    }

    /// Brings a sample's payload to the disk, if it is what its header says, and names it.
    async fn payload(&self, sample: &VerifiedSample) -> Result<Digest, Rejected> {
        let header = sample.header().get();
        match sample.payload() {
            Payload::Inline(bytes) => {
                content::check(header.media_type, bytes)?;
                let bytes = Bytes::copy_from_slice(bytes);
                let digest = Digest::of(&bytes);
                self.state.payloads.put(digest, bytes).await?;
                Ok(digest)
            }
            Payload::Uploaded => match self.state.uploads.adopt(sample).await? {
                Adoption::Adopted { len, .. } if len != u64::from(header.payload_len) => {
                    Err(VerifyError::Payload.into())
                }
                Adoption::Adopted { payload, .. } => Ok(payload),
                Adoption::Missing => {
                    let detail = "its payload is not here; upload it again".to_owned();
                    Err(Rejected::Refused(RefusalReason::PayloadMissing, detail))
                }
                Adoption::NoPicture(error) => {
                    self.state.uploads.discard(&header.id.device, header.commitment).await;
                    Err(error.into())
                }
            },
        }
    }

    async fn gap(&self, device: &DeviceId, bytes: &[u8]) -> Result<(), Rejected> {
        let gap = Verified::<Gap>::open(bytes, device, &self.ring(device).await?)?;
        let record = gap.get().clone();
        if record.device != *device {
            let detail = format!("cannot trust gap: it names device {}", record.device);
            return Err(Rejected::Refused(RefusalReason::NotTrusted, detail));
        }
        let now = self.state.clock.now();
        let (epoch, from, to) = (record.epoch, record.from, record.to);
        let receipt = Receipt {
            subject: Subject::Gap { epoch, from, to },
            digest: gap.body_digest(),
            stored_at: now,
        };
        let receipt = self
            .answers
            .sign_receipt(device, &receipt)
            .map_err(|error| Rejected::Refused(RefusalReason::Malformed, error.to_string()))?;
        let (stored, signed) = (gap.clone(), receipt.clone());
        let outcome = self
            .state
            .store
            .write(move |tx| rows::store_gap(tx, &stored, &signed, Via::Link, now))
            .await?;
        let identity = format!("{device}/{:016x}/{}..{}", epoch.0, from.0, to.0);
        self.settle(device, bytes, outcome, receipt, (identity, gap.body_digest(), gap.envelope()))
            .await
    }

    /// Answers what became of a sample or gap.
    async fn settle(
        &self,
        device: &DeviceId,
        message: &[u8],
        outcome: Outcome,
        fresh: Vec<u8>,
        (identity, found, envelope): (String, Digest, &[u8]),
    ) -> Result<(), Rejected> {
        match outcome {
            Outcome::Stored => {
                self.answers.receipt(device, fresh).await;
                tracing::debug!(sample = %identity, repeated = false, "receipt sent");
            }
            Outcome::Repeated { receipt } => {
                self.state.store.write(|tx| rows::count(tx, "repeated")).await?;
                self.answers.receipt(device, receipt).await;
                tracing::debug!(sample = %identity, repeated = true, "receipt sent");
            }
            Outcome::Conflict { stored } => {
                if self.state.quotas.may_log(device) {
                    tracing::warn!(%device, sample = %identity, %stored, %found, "ALARM: one identity with two digests; quarantined");
                }
                let contradiction = Contradiction {
                    message: Digest::of(message),
                    device: device.clone(),
                    identity: identity.clone(),
                    stored,
                    found,
                    envelope: envelope.to_vec(),
                };
                let limits = self.state.config.limits.clone();
                let now = self.state.clock.now();
                let audited = self
                    .state
                    .store
                    .write(move |tx| rows::quarantine(tx, &contradiction, &limits, now))
                    .await?;
                if !audited {
                    self.state.quotas.drops().note(device, Why::AuditLine);
                }
                let detail = format!("{identity} is stored with digest {stored}");
                return Err(Rejected::Refused(RefusalReason::Conflict, detail));
            }
            Outcome::Revoked => {
                let detail = format!("device {device} is revoked");
                return Err(Rejected::Refused(RefusalReason::NotTrusted, detail));
            }
        }
        Ok(())
    }

    async fn telemetry(&self, device: &DeviceId, bytes: &[u8]) -> Result<(), Rejected> {
        let telemetry = Verified::<Telemetry>::open(bytes, device, &self.ring(device).await?)?;
        let (id, now) = (device.clone(), self.state.clock.now());
        // The window's identity is its signed body: delivered again, it is the same.
        let window = telemetry.body_digest();
        self.state
            .store
            .write(move |tx| sketches::take(tx, &id, window, telemetry.get(), now))
            .await?;
        self.state.tell(HubEvent::TelemetryStored { device: device.clone() });
        Ok(())
    }

    async fn reported(&self, device: &DeviceId, bytes: &[u8], number: u64) -> Result<(), Rejected> {
        let reported = Verified::<Reported>::open(bytes, device, &self.ring(device).await?)?;
        let reported = reported.into_inner();
        let (id, stored, now) = (device.clone(), reported.clone(), self.state.clock.now());
        let last_reports = self.last_reports.clone();
        let is_last = self
            .state
            .store
            .write(move |tx| {
                // Here one report is handled after another.
                let is_last = last_reports.keeps(&id, number);
                if is_last {
                    devices::set_reported(tx, &id, &stored, now)?;
                }
                Ok(is_last)
            })
            .await?;
        if !is_last {
            return Ok(());
        }
        let id = device.clone();
        let order = self.state.store.read(move |connection| desired::get(connection, &id)).await?;
        if let Some(order) = order.filter(|order| order.generation > reported.generation) {
            let order = Desired {
                generation: order.generation,
                at: order.at,
                assignment: order.assignment,
            };
            self.answers.order(device, &order).await;
        }
        self.state.tell(HubEvent::Reported { device: device.clone(), reported });
        Ok(())
    }

    /// The key that `device` signs with.
    async fn ring(&self, device: &DeviceId) -> Result<KeyRing, Rejected> {
        let known = {
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            keys.get(device).copied()
        };
        if let Some(key) = known {
            return Ok(KeyRing::from_iter([key]));
        }
        let id = device.clone();
        let found = self
            .state
            .store
            .read(move |connection| devices::get(connection, &id).map(|row| row.signing_key))
            .await;
        match found {
            Ok(key) => {
                let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
                keys.insert(device.clone(), key);
                Ok(KeyRing::from_iter([key]))
            }
            Err(StoreError::NotFound { .. }) => {
                let detail = format!("device {device} is not enrolled here");
                Err(Rejected::Refused(RefusalReason::NotTrusted, detail))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn refuse(&self, device: &DeviceId, message: &[u8], reason: RefusalReason, detail: &str) {
        if self.state.quotas.may_log(device) {
            tracing::warn!(%device, ?reason, detail, "message refused");
        }
        let refusal = self.refusal(message, reason, detail);
        let id = device.clone();
        let counted = self.state.store.write(move |tx| rows::count_refusal(tx, &id, reason)).await;
        if let Err(error) = counted {
            tracing::warn!(%device, %error, "cannot count a refusal");
        }
        self.answers.refusal(device, &refusal).await;
    }

    fn refusal(&self, message: &[u8], reason: RefusalReason, detail: &str) -> Refusal {
        let limits = &self.state.config.limits;
        let retry_s = match reason {
            RefusalReason::Busy | RefusalReason::PayloadMissing => limits.retry_busy_s,
            _ => limits.retry_full_s,
        };
        // Many devices hear this at once; they shall not all come back in the same second.
        let retry_s = spread(Duration::from_secs(retry_s.into())).as_secs();
        let retry_s = u32::try_from(retry_s).unwrap_or(u32::MAX);
        Refusal::new(Digest::of(message), reason, detail, retry_s)
    }
}
