//! What goes when the outbox is full, and the signed record that it leaves.
//!
//! The least informative sample goes first: of the uncertain ones the lowest score, of the random
//! ones the oldest. Which kind gives way is decided by number, the more numerous first, so that a
//! long time offline keeps both what was hard and an unbiased share of everything.
//!
//! A gap names the run of sequences and links the headers around it: `before` is what the first
//! missing header named as previous, `after` the last one's body digest. Neighbouring gaps with the
//! same reason merge as long as the hub has seen neither.

use fleetloop_protocol::gap::{Gap, GapReason};
use fleetloop_protocol::keys::SigningKey;
use fleetloop_protocol::{DeviceId, Digest, Epoch, Sequence, Signed};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::schema::Meta;
use super::{OutboxError, epochs};
use crate::config::OutboxConfig;

/// Kinds of rows in `item`.
pub(super) const SAMPLE: i64 = 0;
pub(super) const GAP: i64 = 1;

/// Who signs.
pub(super) struct Signer<'a> {
    pub device: &'a DeviceId,
    pub key: &'a SigningKey,
}

/// What a row says beside its message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    pub id: i64,
    pub kind: i64,
    pub epoch: Epoch,
    pub first_seq: u64,
    pub last_seq: u64,
    pub before: Digest,
    pub after: Digest,
    pub digest: Digest,
    pub message_digest: Digest,
    pub random: bool,
    pub reason: i64,
    pub message_len: u64,
}

/// The columns that [`Item::read`] reads.
pub(super) const ITEM: &str = "id, kind, first_seq, last_seq, before, after, digest, message_digest, random, reason, \
     message_len, epoch";

impl Item {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            kind: row.get(1)?,
            first_seq: row.get::<_, i64>(2)?.cast_unsigned(),
            last_seq: row.get::<_, i64>(3)?.cast_unsigned(),
            before: Digest::from_bytes(row.get(4)?),
            after: Digest::from_bytes(row.get(5)?),
            digest: Digest::from_bytes(row.get(6)?),
            message_digest: Digest::from_bytes(row.get(7)?),
            random: row.get(8)?,
            reason: row.get(9)?,
            message_len: row.get::<_, i64>(10)?.cast_unsigned(),
            epoch: Epoch(row.get::<_, i64>(11)?.cast_unsigned()),
        })
    }
}

/// A failure inside a transaction: the disk's or the encoder's.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    #[error("sqlite")]
    Sql(#[from] rusqlite::Error),
    #[error("outbox")]
    Outbox(#[from] OutboxError),
}

/// Deletes a row, with its payload if that lies beside it, and takes both out of the totals.
pub(super) fn delete(db: &Connection, meta: &mut Meta, item: &Item) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM item WHERE id = ?1")?.execute([item.id])?;
    let payloads = db.prepare_cached("DELETE FROM payload WHERE item = ?1")?.execute([item.id])?;
    meta.uploads = meta.uploads.saturating_sub(payloads as u64);
    meta.bytes = meta.bytes.saturating_sub(item.message_len);
    if item.kind == GAP {
        meta.gaps = meta.gaps.saturating_sub(1);
    } else {
        meta.samples = meta.samples.saturating_sub(1);
        meta.random_samples = meta.random_samples.saturating_sub(u64::from(item.random));
    }
    Ok(())
}

/// Evicts until the limits hold, never a row that `leased` names: the hub may be storing it.
/// Returns which went.
pub(super) fn to_limits(
    db: &Connection,
    meta: &mut Meta,
    limits: &OutboxConfig,
    signer: &Signer<'_>,
    leased: &dyn Fn(i64) -> bool,
) -> Result<Vec<(Epoch, Sequence)>, StepError> {
    let mut evicted = Vec::new();
    while meta.samples > limits.max_rows || meta.bytes > limits.max_bytes {
        let Some(item) = least_informative(db, meta, leased)? else { break };
        delete(db, meta, &item)?;
        leave_gap(db, meta, &item, GapReason::OutboxFull, signer)?;
        meta.evicted_total += 1;
        evicted.push((item.epoch, Sequence(item.first_seq)));
    }
    Ok(evicted)
}

fn least_informative(
    db: &Connection,
    meta: &Meta,
    leased: &dyn Fn(i64) -> bool,
) -> rusqlite::Result<Option<Item>> {
    let random_first = meta.random_samples * 2 > meta.samples;
    for random in [random_first, !random_first] {
        // Random samples have score 0, so among them the index orders by age.
        let mut statement = db.prepare_cached(&format!(
            "SELECT {ITEM} FROM item WHERE kind = 0 AND random = ?1 ORDER BY score, id"
        ))?;
        let mut rows = statement.query([random])?;
        while let Some(row) = rows.next()? {
            let item = Item::read(row)?;
            if !leased(item.id) {
                return Ok(Some(item));
            }
        }
    }
    Ok(None)
}

/// Records that the sample in `item`, whose row is gone, will never arrive.
pub(super) fn leave_gap(
    db: &Connection,
    meta: &mut Meta,
    item: &Item,
    reason: GapReason,
    signer: &Signer<'_>,
) -> Result<(), StepError> {
    let mut gap = gap_of(item, reason, signer);
    // What is to be signed again and what is not stay apart.
    let mark = epochs::mark(db, meta, item.epoch)?;
    let aside = |other: &Item| (other.first_seq < mark) == (item.first_seq < mark);
    let left =
        item.first_seq.checked_sub(1).map(|seq| unseen(db, item.epoch, "last_seq", seq, reason));
    if let Some(left) = left.transpose()?.flatten().filter(aside) {
        (gap.from, gap.before) = (Sequence(left.first_seq), left.before);
        delete(db, meta, &left)?;
    }
    let right = unseen(db, item.epoch, "first_seq", item.last_seq + 1, reason)?;
    if let Some(right) = right.filter(aside) {
        (gap.to, gap.after) = (Sequence(right.last_seq), right.after);
        delete(db, meta, &right)?;
    }
    insert(db, meta, &gap, false, signer)
}

/// Signs a gap anew whose message is damaged and whose row is gone. It is the same gap, so the hub
/// may have seen it: it no longer merges.
pub(super) fn sign_anew(
    db: &Connection,
    meta: &mut Meta,
    item: &Item,
    signer: &Signer<'_>,
) -> Result<(), StepError> {
    insert(db, meta, &gap_of(item, reason_of(item), signer), true, signer)
}

/// Signs a gap again under the current epoch, of as many sequences, whose row is gone.
pub(super) fn move_gap(
    db: &Connection,
    meta: &mut Meta,
    item: &Item,
    signer: &Signer<'_>,
) -> Result<(), StepError> {
    let first_seq = meta.next_sequence;
    let last_seq = first_seq.saturating_add(item.last_seq - item.first_seq);
    let moved = Item { epoch: meta.epoch, first_seq, last_seq, before: meta.head, ..*item };
    insert(db, meta, &gap_of(&moved, reason_of(item), signer), false, signer)?;
    (meta.next_sequence, meta.head) = (last_seq.saturating_add(1), item.after);
    Ok(())
}

fn reason_of(item: &Item) -> GapReason {
    [GapReason::OutboxFull, GapReason::Refused, GapReason::Damaged]
        .into_iter()
        .find(|reason| reason_code(*reason) == item.reason)
        .unwrap_or(GapReason::Damaged)
}

fn gap_of(item: &Item, reason: GapReason, signer: &Signer<'_>) -> Gap {
    Gap {
        device: signer.device.clone(),
        epoch: item.epoch,
        from: Sequence(item.first_seq),
        to: Sequence(item.last_seq),
        before: item.before,
        after: item.after,
        reason,
    }
}

fn insert(
    db: &Connection,
    meta: &mut Meta,
    gap: &Gap,
    offered: bool,
    signer: &Signer<'_>,
) -> Result<(), StepError> {
    let signed = Signed::seal(gap, signer.device, signer.key).map_err(OutboxError::from)?;
    let message = signed.as_bytes();
    db.prepare_cached(
        "INSERT INTO item (kind, epoch, first_seq, last_seq, before, after, digest, message_digest,
                           random, score, reason, offered, message_len, message)
         VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, 0, ?8, ?9, ?10, ?11)",
    )?
    .execute(params![
        gap.epoch.0.cast_signed(),
        gap.from.0.cast_signed(),
        gap.to.0.cast_signed(),
        gap.before.as_bytes(),
        gap.after.as_bytes(),
        signed.body_digest().as_bytes(),
        Digest::of(message).as_bytes(),
        reason_code(gap.reason),
        offered,
        (message.len() as u64).cast_signed(),
        message,
    ])?;
    meta.gaps += 1;
    meta.bytes += message.len() as u64;
    Ok(())
}

/// The gap that begins or ends at `seq`, has this reason and was never offered to the hub.
fn unseen(
    db: &Connection,
    epoch: Epoch,
    column: &str,
    seq: u64,
    reason: GapReason,
) -> rusqlite::Result<Option<Item>> {
    db.prepare_cached(&format!(
        "SELECT {ITEM} FROM item
         WHERE epoch = ?1 AND kind = 1 AND {column} = ?2 AND reason = ?3 AND offered = 0"
    ))?
    .query_row(params![epoch.0.cast_signed(), seq.cast_signed(), reason_code(reason)], Item::read)
    .optional()
}

const fn reason_code(reason: GapReason) -> i64 {
    match reason {
        GapReason::OutboxFull => 0,
        GapReason::Refused => 1,
        GapReason::Damaged => 2,
    }
}
