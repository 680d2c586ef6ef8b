//! Epochs: what an outbox does when the hub has another sample under one of its identities.
//!
//! An identity is (epoch, sequence). A file that was restored from an image gives sequences a second
//! time, and so does one of two devices that were made from one card. The hub stores what came first
//! and refuses the other for good. At that first conflict a new epoch begins, and each row that waits
//! is one of three:
//!
//! | row of the former epoch | what happens |
//! |---|---|
//! | the hub has another sample under its identity (it was refused for that) | signed again at once |
//! | never offered | signed again before it is offered |
//! | offered, without an answer | waits for it: a receipt ends it, a conflict makes it the first kind |
//!
//! The third kind may be stored already under its old identity; signed again it would be stored
//! twice. What is signed again keeps its payload, salt and capture time.
//!
//! **What was offered** is known by one mark for an epoch: no sequence from there on was ever
//! offered. It is on the disk before a message goes out, [`AHEAD`] sequences at a time, so that it
//! costs one write for as many samples. After a power cut the mark may name rows that were not offered;
//! they wait for an answer like the others, and are offered under their old identity to get it.
//!
//! **Numbers** rise with time on each device and are drawn at random within a second, so that two
//! copies of one card hardly ever draw the same; if they do, the next conflict draws again. Each epoch
//! after the first that is opened since start waits longer before anything is offered, so that a hub
//! that refuses everything is not asked at the speed of the network.

use std::time::Duration;

use fleetloop_protocol::gap::GapReason;
use fleetloop_protocol::keys::{KeyError, KeyRing, random_bytes};
use fleetloop_protocol::sample::{SampleMessage, VerifiedSample};
use fleetloop_protocol::{Digest, Epoch, SampleId, Signed, UnixMillis, wire};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::evict::{self, GAP, Item, StepError};
use super::schema::Meta;
use super::writer::Writer;
use super::{LONGEST_RETRY, OutboxError};

/// How far ahead of what was offered the mark is written.
const AHEAD: u64 = 256;

/// Bits of an epoch that are drawn at random; above them are seconds since 1970.
const RANDOM_BITS: u32 = 28;

/// What the writer knows of epochs beside the file.
#[derive(Debug, Clone)]
pub(super) struct Epochs {
    /// No sequence of the current epoch from here on was ever offered: the file's mark, or less.
    offered_to: u64,
    /// Epochs opened since start.
    opened: u32,
    /// To be logged when it is on the disk: an epoch that was opened,
    begun: Option<Epoch>,
    /// and samples signed again, by their old identities and their new ones.
    again: Vec<(SampleId, SampleId)>,
}

impl Epochs {
    /// Of a file that was just opened: what was not signed by then was not offered either.
    pub(super) fn of(meta: &Meta) -> Self {
        let offered_to = meta.offered_to.min(meta.next_sequence);
        Self { offered_to, opened: 0, begun: None, again: Vec::new() }
    }

    /// Moves the mark on in a transaction that writes anyway, so that offering alone seldom has to.
    pub(super) const fn keep_ahead(&self, meta: &mut Meta) {
        if meta.offered_to < self.offered_to.saturating_add(AHEAD / 2) {
            meta.offered_to = self.offered_to.saturating_add(AHEAD);
        }
    }

    /// Logs what is on the disk now.
    pub(super) fn log(&mut self) {
        if let Some(epoch) = self.begun.take() {
            tracing::error!(
                epoch = format!("{:016x}", epoch.0),
                "THE HUB HAS ANOTHER SAMPLE UNDER AN IDENTITY OF THIS DEVICE: it was restored from an \
                 image, or another device uses its identity; a new epoch begins and nothing is lost"
            );
        }
        for (former, sample) in self.again.drain(..) {
            tracing::debug!(%sample, %former, "sample signed again");
        }
    }
}

/// From which sequence on nothing of `epoch` was offered and all is signed again: never, for the
/// current one.
pub(super) fn mark(db: &Connection, meta: &Meta, epoch: Epoch) -> rusqlite::Result<u64> {
    if epoch == meta.epoch {
        return Ok(u64::MAX);
    }
    let mark: Option<i64> = db
        .prepare_cached("SELECT offered_to FROM former_epoch WHERE epoch = ?1")?
        .query_row([epoch.0.cast_signed()], |row| row.get(0))
        .optional()?;
    Ok(mark.map_or(u64::MAX, i64::cast_unsigned))
}

/// A number for an epoch that begins at `now`, after `former`.
pub(super) fn draw(former: Epoch, now: UnixMillis) -> Result<Epoch, KeyError> {
    Ok(after(former, now, u64::from_le_bytes(random_bytes()?)))
}

fn after(former: Epoch, now: UnixMillis, random: u64) -> Epoch {
    let most = u64::MAX >> (RANDOM_BITS + 1);
    let seconds = (now.0 / 1000).max((former.0 >> RANDOM_BITS) + 1).min(most);
    Epoch(seconds << RANDOM_BITS | random >> (u64::BITS - RANDOM_BITS))
}

impl Writer {
    /// Notes that a row goes out. The mark is on the disk when the transaction is, and nobody has the
    /// message before.
    pub(super) fn mark_offered(&mut self, meta: &mut Meta, item: &Item) {
        if item.epoch != meta.epoch {
            // Below its epoch's mark, or it would have been signed again.
            return;
        }
        let offered_to = self.epochs.offered_to.max(item.last_seq.saturating_add(1));
        self.epochs.offered_to = offered_to;
        if offered_to > meta.offered_to {
            meta.offered_to = offered_to.saturating_add(AHEAD);
        }
    }

    /// The hub has another message under the identity of `item`.
    pub(super) fn contradicted(
        &mut self,
        db: &Connection,
        meta: &mut Meta,
        item: &Item,
    ) -> Result<(), StepError> {
        if item.epoch == meta.epoch {
            // Of a contradicted gap nobody knows where the two histories part: all waits for its answer.
            let is_gap = item.kind == GAP;
            let offered_to = if is_gap { meta.next_sequence } else { self.epochs.offered_to };
            self.open_epoch(db, meta, offered_to)?;
        }
        self.leases.remove(&item.id);
        let message: Vec<u8> = db
            .prepare_cached("SELECT message FROM item WHERE id = ?1")?
            .query_row([item.id], |row| row.get(0))?;
        self.sign_again(db, meta, item, &message).map(drop)
    }

    /// Begins a new epoch. A power cut before the commit leaves the former one, whose row is offered
    /// and refused again; the number is drawn anew then.
    fn open_epoch(
        &mut self,
        db: &Connection,
        meta: &mut Meta,
        offered_to: u64,
    ) -> Result<(), StepError> {
        let now = self.shared.clock.now();
        let epoch = draw(meta.epoch, now).map_err(OutboxError::Salt)?;
        // A gap across the mark stays in its epoch as a whole.
        let across: Option<i64> = db
            .prepare_cached(
                "SELECT max(last_seq) FROM item
                 WHERE epoch = ?1 AND kind = 1 AND first_seq < ?2 AND last_seq >= ?2",
            )?
            .query_row(params![meta.epoch.0.cast_signed(), offered_to.cast_signed()], |row| {
                row.get(0)
            })?;
        let mark = across.map_or(offered_to, |last| last.cast_unsigned().saturating_add(1));
        db.prepare_cached("DELETE FROM former_epoch WHERE epoch NOT IN (SELECT epoch FROM item)")?
            .execute([])?;
        db.prepare_cached("INSERT INTO former_epoch (epoch, offered_to) VALUES (?1, ?2)")?
            .execute(params![meta.epoch.0.cast_signed(), mark.cast_signed()])?;
        (meta.epoch, meta.next_sequence, meta.head) = (epoch, 0, Digest::ZERO);
        meta.offered_to = 0;
        meta.epochs_opened_total += 1;
        self.epochs.offered_to = 0;
        self.epochs.begun = Some(epoch);
        if self.epochs.opened > 0 {
            let wait = Duration::from_secs(1 << self.epochs.opened.min(31)).min(LONGEST_RETRY);
            self.hold_until = self.hold_until.max(self.shared.clock.monotonic() + wait);
        }
        self.epochs.opened = self.epochs.opened.saturating_add(1);
        Ok(())
    }

    /// Signs a row of a former epoch again, under the next identity of the current one, and returns it
    /// with its new message; none for a gap, which comes later, and for a row that is damaged, which
    /// becomes one. A power cut before the commit leaves the row as it was.
    pub(super) fn sign_again(
        &mut self,
        db: &Connection,
        meta: &mut Meta,
        item: &Item,
        message: &[u8],
    ) -> Result<Option<(Item, Vec<u8>)>, StepError> {
        if item.kind == GAP {
            evict::delete(db, meta, item)?;
            evict::move_gap(db, meta, item, &self.signer())?;
            return Ok(None);
        }
        let keys: KeyRing = [self.key.public()].into_iter().collect();
        let Ok(sample) = VerifiedSample::open(message, &self.device, &keys) else {
            self.lose_damaged(db, meta, item)?;
            return Ok(None);
        };
        let (former, id) =
            (self.id(item.epoch, item.first_seq), self.id(meta.epoch, meta.next_sequence));
        let mut header = sample.header().get().clone();
        (header.id, header.previous) = (id.clone(), meta.head);
        let signed = Signed::seal(&header, &self.device, &self.key).map_err(OutboxError::Encode)?;
        let body = signed.body_digest();
        let again = SampleMessage::new(signed, *sample.salt(), sample.payload().clone());
        let bytes = wire::encode(&again).map_err(OutboxError::Encode)?;
        let message_len = item.message_len - message.len() as u64 + bytes.len() as u64;
        let item = Item {
            epoch: meta.epoch,
            first_seq: meta.next_sequence,
            last_seq: meta.next_sequence,
            before: meta.head,
            after: body,
            digest: body,
            message_digest: Digest::of(&bytes),
            message_len,
            ..*item
        };
        update(db, &item, &bytes)?;
        meta.bytes = (meta.bytes + bytes.len() as u64).saturating_sub(message.len() as u64);
        (meta.next_sequence, meta.head) = (meta.next_sequence + 1, body);
        meta.signed_again_total += 1;
        self.epochs.again.push((former, id));
        Ok(Some((item, bytes)))
    }

    /// A damaged row that was to be signed again leaves a gap under its new identity.
    fn lose_damaged(&self, db: &Connection, meta: &mut Meta, item: &Item) -> Result<(), StepError> {
        let sample = self.id(item.epoch, item.first_seq);
        tracing::error!(%sample, "a row of the outbox is damaged on the disk");
        evict::delete(db, meta, item)?;
        let (epoch, sequence) = (meta.epoch, meta.next_sequence);
        let lost =
            Item { epoch, first_seq: sequence, last_seq: sequence, before: meta.head, ..*item };
        (meta.next_sequence, meta.head) = (sequence + 1, item.after);
        meta.damaged_total += 1;
        evict::leave_gap(db, meta, &lost, GapReason::Damaged, &self.signer())
    }
}

/// Writes a sample's row anew; its place in the queue and a payload beside it stay.
fn update(db: &Connection, item: &Item, message: &[u8]) -> rusqlite::Result<()> {
    db.prepare_cached(
        "UPDATE item SET epoch = ?2, first_seq = ?3, last_seq = ?3, before = ?4, after = ?5,
                digest = ?5, message_digest = ?6, message_len = ?7, message = ?8 WHERE id = ?1",
    )?
    .execute(params![
        item.id,
        item.epoch.0.cast_signed(),
        item.first_seq.cast_signed(),
        item.before.as_bytes(),
        item.after.as_bytes(),
        item.message_digest.as_bytes(),
        item.message_len.cast_signed(),
        message,
    ])
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_of_a_device_rise_and_two_copies_do_not_draw_the_same() {
        let now = UnixMillis(1_800_000_000_000);
        let first = after(Epoch(0), now, 1 << 60);
        assert!(after(first, now, 0) > first, "in the same second");
        assert!(after(first, UnixMillis(0), 0) > first, "with a clock that was set back");
        assert!(after(first, UnixMillis(now.0 + 1000), 0) > first);
        assert_ne!(after(first, now, 1 << 60), after(first, now, 1 << 61));
        assert!(after(Epoch(u64::MAX), now, u64::MAX).0.cast_signed() > 0, "as SQL orders them");
    }
}
