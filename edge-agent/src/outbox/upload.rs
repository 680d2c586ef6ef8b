//! Payloads that lie beside their message: stored with it, uploaded before it.
//!
//! A row is offered for upload, then its message for publishing, then it waits for its receipt like
//! any other. It begins again at the upload whenever the hub asks for that, the connection is lost,
//! or no receipt comes: an upload is no promise.

use std::time::Duration;

use fleetloop_protocol::sample::commitment;
use fleetloop_protocol::topic::Kind;
use fleetloop_protocol::{Digest, Epoch};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::evict::StepError;
use super::schema::Meta;
use super::writer::{Lease, Writer};
use super::{LEASE, LONGEST_RETRY, Outgoing, UPLOAD_LEASE, Upload};

/// Stores the payload of the row `item`.
pub(super) fn insert(
    db: &Connection,
    meta: &mut Meta,
    item: i64,
    salt: &[u8; 16],
    payload: &[u8],
) -> rusqlite::Result<()> {
    let named = commitment(salt, payload);
    db.prepare_cached(
        "INSERT INTO payload (item, commitment, salt, bytes) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![item, named.as_bytes(), salt, payload])?;
    meta.uploads += 1;
    Ok(())
}

impl Writer {
    pub(super) fn next_upload(
        &mut self,
        db: &Connection,
        meta: &mut Meta,
    ) -> Result<Option<Upload>, StepError> {
        let Some(now) = self.may_offer() else { return Ok(None) };
        let ids: Vec<i64> = db
            .prepare_cached("SELECT item FROM payload ORDER BY item LIMIT ?1")?
            .query_map([(1 + self.leases.len()) as i64], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let Some(id) = ids.into_iter().find(|id| !self.leases.contains_key(id)) else {
            return Ok(None);
        };
        let upload = self.intact(db, meta, id)?;
        if upload.is_some() {
            self.leases.insert(id, Lease { until: now + UPLOAD_LEASE, retry: false });
        }
        Ok(upload)
    }

    /// The payload of a row, if it and its message are intact; otherwise the row becomes a gap.
    pub(super) fn intact(
        &mut self,
        db: &Connection,
        meta: &mut Meta,
        id: i64,
    ) -> Result<Option<Upload>, StepError> {
        let Some((item, _)) = self.offer(db, meta, id)? else { return Ok(None) };
        // Its message may follow at any moment.
        self.mark_offered(meta, &item);
        let upload = db
            .prepare_cached("SELECT commitment, salt, bytes FROM payload WHERE item = ?1")?
            .query_row([id], |row| {
                let commitment = Digest::from_bytes(row.get(0)?);
                Ok(Upload { id, commitment, salt: row.get(1)?, payload: row.get(2)? })
            })?;
        if commitment(&upload.salt, &upload.payload) == upload.commitment {
            return Ok(Some(upload));
        }
        self.replace_damaged(db, meta, &item)?;
        Ok(None)
    }

    pub(super) fn uploaded(
        &mut self,
        db: &Connection,
        id: i64,
    ) -> Result<Option<Outgoing>, StepError> {
        let outgoing = db
            .prepare_cached(
                "SELECT message, message_digest, epoch, first_seq FROM item WHERE id = ?1",
            )?
            .query_row([id], |row| {
                let (bytes, message) = (row.get(0)?, Digest::from_bytes(row.get(1)?));
                let (epoch, sequence) = (row.get::<_, i64>(2)?, row.get::<_, i64>(3)?);
                let sample = Some(self.id(Epoch(epoch.cast_unsigned()), sequence.cast_unsigned()));
                Ok(Outgoing { kind: Kind::Sample, bytes, message, sample })
            })
            .optional()?;
        if outgoing.is_some() {
            let until = self.shared.clock.monotonic() + LEASE;
            self.leases.insert(id, Lease { until, retry: false });
        }
        Ok(outgoing)
    }

    pub(super) fn postpone(&mut self, id: i64, wait: Duration) {
        let until = self.shared.clock.monotonic() + wait.min(LONGEST_RETRY);
        // A row that is gone leaves a lease that runs out.
        self.leases.insert(id, Lease { until, retry: true });
    }
}
