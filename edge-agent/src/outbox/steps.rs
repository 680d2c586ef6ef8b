//! What each command does inside its transaction: appending, offering, and taking the hub's answers.
//!
//! A step writes through the transaction and into its copy of [`Meta`] only; both count when the
//! transaction commits (see [`super::writer`]). An encoder's error comes before anything is written.

use std::time::Duration;

use fleetloop_protocol::gap::GapReason;
use fleetloop_protocol::keys::random_bytes;
use fleetloop_protocol::limits::{HEADER_PREDICTIONS, INLINE_PAYLOAD_BYTES, PAYLOAD_BYTES};
use fleetloop_protocol::receipt::{Receipt, Refusal, RefusalReason, Subject};
use fleetloop_protocol::sample::{Payload, SampleHeader, SampleMessage, Selection, commitment};
use fleetloop_protocol::topic::Kind;
use fleetloop_protocol::wire::{self, DecodeError};
use fleetloop_protocol::{Digest, Epoch, SampleId, Sequence, Signed};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::epochs;
use super::evict::{self, GAP, ITEM, Item, Signer, StepError};
use super::road::Appended;
use super::schema::Meta;
use super::upload;
use super::writer::{Lease, Writer};
use super::{DEAD_LETTERS, Draft, LEASE, LONGEST_RETRY, OutboxError, Outgoing, Refused, Settled};
use crate::priority;

impl Writer {
    pub(super) fn append(
        &self,
        db: &Connection,
        meta: &mut Meta,
        draft: &Draft,
    ) -> Result<Appended, StepError> {
        let (id, sealed) = self.seal(meta, draft)?;
        let (random, score) = match draft.selection {
            Selection::Random { .. } => (true, 0.0),
            Selection::Uncertain { score } => (false, f64::from(score)),
        };
        let sequence = meta.next_sequence.cast_signed();
        db.prepare_cached(
            "INSERT INTO item (kind, epoch, first_seq, last_seq, before, after, digest,
                               message_digest, random, score, reason, offered, message_len, message)
             VALUES (0, ?1, ?2, ?2, ?3, ?4, ?4, ?5, ?6, ?7, 0, 0, ?8, ?9)",
        )?
        .execute(params![
            meta.epoch.0.cast_signed(),
            sequence,
            meta.head.as_bytes(),
            sealed.body.as_bytes(),
            sealed.digest.as_bytes(),
            random,
            score,
            sealed.len.cast_signed(),
            sealed.message,
        ])?;
        if let Some(salt) = sealed.salt {
            upload::insert(db, meta, db.last_insert_rowid(), &salt, &draft.payload)?;
        }
        meta.next_sequence += 1;
        meta.head = sealed.body;
        meta.samples += 1;
        meta.random_samples += u64::from(random);
        meta.bytes += sealed.len;
        meta.signed_total += 1;
        let evicted = self.evict(db, meta)?;
        Ok(Appended { id, digest: sealed.body, evicted })
    }

    /// Brings the outbox within its limits and says which samples went.
    pub(super) fn evict(
        &self,
        db: &Connection,
        meta: &mut Meta,
    ) -> Result<Vec<SampleId>, StepError> {
        // What the hub refused for now it does not have: such a row may go like any other.
        let leased = |id| self.leases.get(&id).is_some_and(|lease| !lease.retry);
        let evicted = evict::to_limits(db, meta, &self.limits, &self.signer(), &leased)?;
        Ok(evicted.into_iter().map(|(epoch, sequence)| self.id(epoch, sequence.0)).collect())
    }

    fn seal(&self, meta: &Meta, draft: &Draft) -> Result<(SampleId, Sealed), OutboxError> {
        // One that could never be kept would evict all the others first.
        let limit = PAYLOAD_BYTES.min(usize::try_from(self.limits.max_bytes).unwrap_or(usize::MAX));
        if draft.payload.len() > limit {
            let len = draft.payload.len();
            return Err(DecodeError::TooLarge { name: "sample payload", len, limit }.into());
        }
        let salt = random_bytes::<16>()?;
        let id = self.id(meta.epoch, meta.next_sequence);
        let mut predictions = draft.predictions.clone();
        predictions.truncate(HEADER_PREDICTIONS);
        let header = SampleHeader {
            id: id.clone(),
            previous: meta.head,
            captured_at: draft.captured_at,
            clock: draft.clock,
            model: draft.model,
            config: draft.config,
            media_type: draft.media_type,
            // At most PAYLOAD_BYTES.
            payload_len: draft.payload.len() as u32,
            commitment: commitment(&salt, &draft.payload),
            selection: draft.selection,
            predictions,
        };
        let signed = Signed::seal(&header, &self.device, &self.key)?;
        let body = signed.body_digest();
        let is_inline = draft.payload.len() <= INLINE_PAYLOAD_BYTES;
        let payload =
            if is_inline { Payload::Inline(draft.payload.clone()) } else { Payload::Uploaded };
        let message = wire::encode(&SampleMessage::new(signed, salt, payload))?;
        let digest = Digest::of(&message);
        let beside = if is_inline { 0 } else { draft.payload.len() };
        let len = (message.len() + beside) as u64;
        Ok((id, Sealed { body, message, digest, len, salt: (!is_inline).then_some(salt) }))
    }

    pub(super) fn id(&self, epoch: Epoch, sequence: u64) -> SampleId {
        SampleId { device: self.device.clone(), epoch, sequence: Sequence(sequence) }
    }

    pub(super) fn signer(&self) -> Signer<'_> {
        Signer { device: &self.device, key: &self.key }
    }

    pub(super) fn next_batch(
        &mut self,
        db: &Connection,
        meta: &mut Meta,
        max_rows: usize,
        max_bytes: usize,
    ) -> Result<Vec<Outgoing>, StepError> {
        let Some(now) = self.may_offer() else { return Ok(Vec::new()) };
        let mut ids: Vec<i64> = db
            .prepare_cached(
                "SELECT id FROM item WHERE NOT EXISTS (SELECT 1 FROM payload WHERE item = id)
                 ORDER BY id LIMIT ?1",
            )?
            .query_map([(max_rows + self.leases.len()) as i64], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        ids.retain(|id| !self.leases.contains_key(id));
        ids.truncate(max_rows);
        let mut batch: Vec<Outgoing> = Vec::new();
        let mut bytes = 0;
        for id in ids {
            priority::after_you();
            let Some((item, outgoing)) = self.offer(db, meta, id)? else { continue };
            bytes += outgoing.bytes.len();
            if bytes > max_bytes && !batch.is_empty() {
                break;
            }
            self.mark_offered(meta, &item);
            if item.kind == GAP {
                // On the disk before the hub can see it: from here on the gap may not grow.
                db.prepare_cached("UPDATE item SET offered = 1 WHERE id = ?1 AND offered = 0")?
                    .execute([id])?;
            }
            batch.push(outgoing);
            self.leases.insert(id, Lease { until: now + LEASE, retry: false });
        }
        Ok(batch)
    }

    /// The time, if the hub did not ask to wait; leases that ran out are gone.
    pub(super) fn may_offer(&mut self) -> Option<Duration> {
        let now = self.shared.clock.monotonic();
        self.leases.retain(|_, lease| lease.until > now);
        (now >= self.hold_until).then_some(now)
    }

    /// The message of a row, if it is there and intact; one that a former epoch never offered is signed
    /// again first. A damaged one becomes a gap, which comes later; a gap that such a one took in, or
    /// that is signed again, is gone.
    pub(super) fn offer(
        &mut self,
        db: &Connection,
        meta: &mut Meta,
        id: i64,
    ) -> Result<Option<(Item, Outgoing)>, StepError> {
        let row = db
            .prepare_cached(&format!("SELECT {ITEM}, message FROM item WHERE id = ?1"))?
            .query_row([id], |row| Ok((Item::read(row)?, row.get::<_, Vec<u8>>("message")?)))
            .optional()?;
        let Some((mut item, mut bytes)) = row else { return Ok(None) };
        if Digest::of(&bytes) == item.message_digest {
            if item.first_seq >= epochs::mark(db, meta, item.epoch)? {
                let again = self.sign_again(db, meta, &item, &bytes)?;
                let Some(again) = again else { return Ok(None) };
                (item, bytes) = again;
            }
            let (kind, sample) = match item.kind {
                GAP => (Kind::Gap, None),
                _ => (Kind::Sample, Some(self.id(item.epoch, item.first_seq))),
            };
            return Ok(Some((
                item,
                Outgoing { kind, bytes, message: item.message_digest, sample },
            )));
        }
        self.replace_damaged(db, meta, &item)?;
        Ok(None)
    }

    /// A damaged sample becomes a gap, a damaged gap is signed anew.
    pub(super) fn replace_damaged(
        &self,
        db: &Connection,
        meta: &mut Meta,
        item: &Item,
    ) -> Result<(), StepError> {
        let sample = self.id(item.epoch, item.first_seq);
        tracing::error!(%sample, "a row of the outbox is damaged on the disk");
        evict::delete(db, meta, item)?;
        if item.kind == GAP {
            return evict::sign_anew(db, meta, item, &self.signer());
        }
        meta.damaged_total += 1;
        evict::leave_gap(db, meta, item, GapReason::Damaged, &self.signer())
    }

    pub(super) fn settle(
        &mut self,
        db: &Connection,
        meta: &mut Meta,
        receipt: &Receipt,
    ) -> Result<Settled, StepError> {
        let (kind, epoch, first, last) = match &receipt.subject {
            Subject::Sample(id) if id.device != self.device => return Ok(Settled::Unknown),
            Subject::Sample(id) => (evict::SAMPLE, id.epoch, id.sequence, id.sequence),
            Subject::Gap { epoch, from, to } => (GAP, *epoch, *from, *to),
        };
        let item = db
            .prepare_cached(&format!(
                "SELECT {ITEM} FROM item
                 WHERE epoch = ?1 AND kind = ?2 AND first_seq = ?3 AND last_seq = ?4"
            ))?
            .query_row(
                params![epoch.0.cast_signed(), kind, first.0.cast_signed(), last.0.cast_signed()],
                Item::read,
            )
            .optional()?;
        let Some(item) = item else { return Ok(Settled::Unknown) };
        if item.digest != receipt.digest {
            let sample = self.id(epoch, first.0);
            tracing::error!(
                %sample, here = %item.digest, hub = %receipt.digest,
                "the hub's receipt names another digest; the sample stays here"
            );
            return Ok(Settled::OtherDigest);
        }
        evict::delete(db, meta, &item)?;
        meta.receipted_total += u64::from(kind == evict::SAMPLE);
        self.leases.remove(&item.id);
        Ok(Settled::Deleted)
    }

    pub(super) fn refuse(
        &mut self,
        db: &Connection,
        meta: &mut Meta,
        refusal: &Refusal,
    ) -> Result<Refused, StepError> {
        let item = db
            .prepare_cached(&format!("SELECT {ITEM} FROM item WHERE message_digest = ?1"))?
            .query_row([refusal.message.as_bytes()], Item::read)
            .optional()?;
        let Some(item) = item else { return Ok(Refused::Unknown) };
        let sample = self.id(item.epoch, item.first_seq);
        let (reason, detail) = (refusal.reason, &refusal.detail);
        let what = if item.kind == GAP { "gap" } else { "sample" };
        if let Some(seconds) = refusal.retry_after_s {
            let wait = Duration::from_secs(u64::from(seconds)).min(LONGEST_RETRY);
            let until = self.shared.clock.monotonic() + wait;
            self.leases.insert(item.id, Lease { until, retry: true });
            if matches!(reason, RefusalReason::StorageFull | RefusalReason::Busy) {
                // The hub's state, not this message's: every other would meet the same.
                self.hold_until = self.hold_until.max(until);
            }
            tracing::warn!(%sample, ?reason, detail, wait_s = wait.as_secs(), "{what} refused for now");
            return Ok(Refused::Retry);
        }
        if reason == RefusalReason::Conflict {
            self.contradicted(db, meta, &item)?;
            return Ok(Refused::SignedAgain);
        }
        tracing::error!(%sample, ?reason, detail, "{what} refused for good");
        if item.kind != GAP {
            self.bury(db, meta, &item, refusal)?;
        }
        evict::delete(db, meta, &item)?;
        if item.kind != GAP {
            meta.refused_total += 1;
            evict::leave_gap(db, meta, &item, GapReason::Refused, &self.signer())?;
        }
        self.leases.remove(&item.id);
        Ok(Refused::DeadLetter)
    }

    /// Copies a row's message to the dead-letter table and keeps the table within its limit.
    fn bury(
        &self,
        db: &Connection,
        meta: &mut Meta,
        item: &Item,
        refusal: &Refusal,
    ) -> rusqlite::Result<()> {
        db.prepare_cached(
            "INSERT INTO dead_letter (sequence, reason, detail, at_ms, message)
             SELECT first_seq, ?2, ?3, ?4, message FROM item WHERE id = ?1",
        )?
        .execute(params![
            item.id,
            format!("{:?}", refusal.reason),
            refusal.detail,
            self.shared.clock.now().0.cast_signed(),
        ])?;
        meta.dead_letters += 1;
        if meta.dead_letters > DEAD_LETTERS {
            let dropped = db
                .prepare_cached(
                    "DELETE FROM dead_letter WHERE id = (SELECT min(id) FROM dead_letter)",
                )?
                .execute([])? as u64;
            meta.dead_letters -= dropped;
            meta.dead_dropped_total += dropped;
        }
        Ok(())
    }
}

/// A sample's message and its digests.
struct Sealed {
    body: Digest,
    message: Vec<u8>,
    digest: Digest,
    /// What the row takes: the message, and the payload if it lies beside it.
    len: u64,
    /// Of a payload that lies beside the message.
    salt: Option<[u8; 16]>,
}
