//! Messages that a device could not send any more, brought by an operator in a file
//! ([`fleetloop_protocol::export`]).
//!
//! Each message is verified with its device's key and its payload checked, as if it had come over the
//! broker. What is stored has a receipt, which proves it; the device is not there to take it. Bringing the
//! same file again stores nothing twice.
//!
//! | the device | its samples |
//! |---|---|
//! | is enrolled, or was revoked because another took its place | count |
//! | was revoked by a person | are refused, unless that person's successor vouches for the file; then they are held until `device keep` |

use bytes::Bytes;
use fleetloop_models::content;
use fleetloop_protocol::api::samples::{CollectRefused, CollectResponse};
use fleetloop_protocol::export::{Record, RecordKind};
use fleetloop_protocol::gap::Gap;
use fleetloop_protocol::keys::KeyRing;
use fleetloop_protocol::receipt::{Receipt, Subject};
use fleetloop_protocol::sample::{Payload, VerifiedSample, commitment};
use fleetloop_protocol::signed::VerifyError;
use fleetloop_protocol::{DeviceId, Digest, Signed, Verified};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::state::{AppState, HubEvent};
use crate::store::ingest::{self, Admission, Contradiction, Outcome, Via};
use crate::store::{StoreError, devices};

/// Records stored at once: each waits for its own payload's sync.
const AT_ONCE: usize = 16;

/// What became of a record.
enum Taken {
    Sample { is_held: bool },
    Gap,
    Known,
    Refused(String),
}

/// Takes in records of the outbox of `device`, which `who` brought.
///
/// # Errors
/// [`StoreError::Conflict`] when the device was revoked by a person and nobody vouches for the file;
/// nothing is taken in. Any other: what was stored before stays, and the same again goes on.
pub async fn collect(
    state: &AppState,
    device: &DeviceId,
    records: &[Record<'_>],
    vouched: bool,
    who: &str,
) -> Result<CollectResponse, StoreError> {
    let (id, via) = (device.clone(), Via::File { vouched });
    let (row, admission) = state
        .store
        .read(move |c| Ok((devices::get(c, &id)?, ingest::admission(c, &id, via)?)))
        .await?;
    if admission == Admission::Refused {
        let by = row.revoked_by.unwrap_or_else(|| "a person".to_owned());
        return Err(StoreError::Conflict {
            what: format!(
                "cannot collect samples of device {device}: {by} revoked it, so whoever has its key may \
                 have signed them; if you know where the file comes from, add '--vouch {device}', and \
                 they are held until you decide with 'fleet-hub device keep {device}'"
            ),
        });
    }
    let collector = Collector {
        state,
        device,
        ring: KeyRing::from_iter([row.signing_key]),
        via,
        is_held: admission != Admission::Counts,
    };
    let mut steps = Vec::with_capacity(records.len());
    for record in records {
        steps.push(collector.take(record));
    }
    let taken: Vec<Taken> = futures::stream::iter(steps).buffered(AT_ONCE).try_collect().await?;
    let mut done = CollectResponse::default();
    for (record, taken) in taken.into_iter().enumerate() {
        match taken {
            Taken::Sample { is_held } => {
                done.stored += 1;
                done.held += u64::from(is_held);
            }
            Taken::Gap => done.gaps += 1,
            Taken::Known => done.known += 1,
            Taken::Refused(reason) => done.refused.push(CollectRefused { record, reason }),
        }
    }
    let (id, who, settled) = (device.clone(), who.to_owned(), done.stored + done.gaps + done.known);
    let detail = format!(
        "{} samples and {} gaps stored, {} known, {} refused",
        done.stored,
        done.gaps,
        done.known,
        done.refused.len()
    );
    state.store.write(move |tx| ingest::collected(tx, &id, settled, &detail, &who)).await?;
    Ok(done)
}

struct Collector<'a> {
    state: &'a AppState,
    device: &'a DeviceId,
    ring: KeyRing,
    via: Via,
    is_held: bool,
}

impl Collector<'_> {
    async fn take(&self, record: &Record<'_>) -> Result<Taken, StoreError> {
        match record.kind {
            RecordKind::Sample => self.sample(record).await,
            RecordKind::Gap => self.gap(record).await,
        }
    }

    async fn sample(&self, record: &Record<'_>) -> Result<Taken, StoreError> {
        let (sample, payload) = match self.open(record) {
            Ok(opened) => opened,
            Err(reason) => return Ok(Taken::Refused(reason)),
        };
        let header = sample.header();
        let (digest, identity) = (header.body_digest(), header.get().id.clone());
        let now = self.state.clock.now();
        let receipt =
            Receipt { subject: Subject::Sample(identity.clone()), digest, stored_at: now };
        let receipt = match Signed::seal(&receipt, self.device, &self.state.pki.receipt) {
            Ok(signed) => signed.into_bytes(),
            Err(error) => return Ok(Taken::Refused(error.to_string())),
        };
        // Until the row names the payload, nobody erases it as one that no sample has.
        let _kept = self.state.payloads.keep().await;
        let payload_digest = Digest::of(&payload);
        self.state.payloads.put(payload_digest, payload).await?;
        let (stored, via) = (sample.clone(), self.via);
        let outcome = self
            .state
            .store
            .write(move |tx| ingest::store_sample(tx, &stored, payload_digest, &receipt, via, now))
            .await?;
        if outcome == Outcome::Stored {
            self.state.tell(HubEvent::SampleStored { sample: digest });
            return Ok(Taken::Sample { is_held: self.is_held });
        }
        self.settle(outcome, record, (identity.to_string(), digest, header.envelope())).await
    }

    async fn gap(&self, record: &Record<'_>) -> Result<Taken, StoreError> {
        let gap = match Verified::<Gap>::open(record.message, self.device, &self.ring) {
            Ok(gap) if gap.get().device == *self.device => gap,
            Ok(gap) => {
                return Ok(Taken::Refused(format!("it names device {}", gap.get().device)));
            }
            Err(error) => return Ok(Taken::Refused(error.to_string())),
        };
        let (epoch, from, to) = (gap.get().epoch, gap.get().from, gap.get().to);
        let (digest, now) = (gap.body_digest(), self.state.clock.now());
        let receipt = Receipt { subject: Subject::Gap { epoch, from, to }, digest, stored_at: now };
        let receipt = match Signed::seal(&receipt, self.device, &self.state.pki.receipt) {
            Ok(signed) => signed.into_bytes(),
            Err(error) => return Ok(Taken::Refused(error.to_string())),
        };
        let (stored, via) = (gap.clone(), self.via);
        let outcome = self
            .state
            .store
            .write(move |tx| ingest::store_gap(tx, &stored, &receipt, via, now))
            .await?;
        if outcome == Outcome::Stored {
            return Ok(Taken::Gap);
        }
        let identity = format!("{}/{:016x}/{}..{}", self.device, epoch.0, from.0, to.0);
        self.settle(outcome, record, (identity, digest, gap.envelope())).await
    }

    /// A record that was not stored now.
    async fn settle(
        &self,
        outcome: Outcome,
        record: &Record<'_>,
        (identity, found, envelope): (String, Digest, &[u8]),
    ) -> Result<Taken, StoreError> {
        match outcome {
            Outcome::Stored | Outcome::Repeated { .. } => Ok(Taken::Known),
            Outcome::Conflict { stored } => {
                let reason = format!("{identity} is stored with digest {stored}");
                let contradiction = Contradiction {
                    message: Digest::of(record.message),
                    device: self.device.clone(),
                    identity,
                    stored,
                    found,
                    envelope: envelope.to_vec(),
                };
                let limits = self.state.config.limits.clone();
                let now = self.state.clock.now();
                self.state
                    .store
                    .write(move |tx| ingest::quarantine(tx, &contradiction, &limits, now))
                    .await?;
                Ok(Taken::Refused(reason))
            }
            Outcome::Revoked => Ok(Taken::Refused("its device was revoked meanwhile".to_owned())),
        }
    }

    /// A sample and its payload, both of which are what they say, or why not.
    fn open(&self, record: &Record<'_>) -> Result<(VerifiedSample, Bytes), String> {
        let sample = VerifiedSample::open(record.message, self.device, &self.ring)
            .map_err(|error| error.to_string())?;
        let header = sample.header().get();
        let payload = match sample.payload() {
            Payload::Inline(bytes) => Bytes::copy_from_slice(bytes),
            Payload::Uploaded => Bytes::copy_from_slice(record.payload),
        };
        let is_named = payload.len() == header.payload_len as usize
            && commitment(sample.salt(), &payload) == header.commitment;
        if !is_named {
            return Err(VerifyError::Payload.to_string());
        }
        content::check(header.media_type, &payload).map_err(|error| error.to_string())?;
        Ok((sample, payload))
    }
}

#[cfg(test)]
#[path = "collect_tests.rs"]
mod tests;
