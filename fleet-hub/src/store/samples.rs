//! Samples as people and programs read them, and imported ones as they are written. Those of
//! devices are written by `ingest` only.

use fleetloop_protocol::api::datasets::Split;
use fleetloop_protocol::api::samples::{ImportResponse, Removed, Sample, SampleCounts};
use fleetloop_protocol::sample::MediaType;
use fleetloop_protocol::{BundleDigest, Digest, Epoch, SampleId, Sequence, UnixMillis};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use serde::Serialize;

use super::{StoreError, as_sql, audit, digest_at, from_sql, labels};

/// Which samples to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those of this group: `fleet` or `import`.
    pub group: Option<String>,
    /// Only those with (or without) a label.
    pub labelled: Option<bool>,
    /// How many.
    pub limit: u32,
    /// Only those stored before this one. Unlike a number to pass over, it stays true while samples
    /// come in.
    pub before: Option<Digest>,
}

const COLUMNS: &str = "s.sample, s.payload, s.media_type, s.payload_len, s.grp,
    s.device, s.epoch, s.sequence, s.model, s.selection, s.predictions, s.stored_at_ms,
    (SELECT n.name FROM current_label l JOIN label_name n ON n.idx = l.label
     WHERE l.sample = s.id), s.removed_at_ms, s.removed_by, s.removed_reason";

/// Samples, the newest first.
///
/// # Errors
/// [`StoreError::NotFound`] when there is no sample [`Filter::before`]; the database failed.
pub fn list(connection: &Connection, filter: &Filter) -> Result<Vec<Sample>, StoreError> {
    let before = filter.before.map(|digest| row_of(connection, digest)).transpose()?;
    let sql = format!(
        "SELECT {COLUMNS} FROM sample s
         WHERE (?1 IS NULL OR s.grp = ?1)
           AND (?2 IS NULL OR ?2 = EXISTS (SELECT 1 FROM current_label l WHERE l.sample = s.id))
           AND (?3 IS NULL OR s.id < ?3)
         ORDER BY s.id DESC LIMIT ?4"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![filter.group, filter.labelled, before, filter.limit])?;
    let mut samples = Vec::new();
    while let Some(row) = rows.next()? {
        samples.push(sample(row)?);
    }
    Ok(samples)
}

/// One sample.
///
/// # Errors
/// [`StoreError::NotFound`] when there is none of that digest.
pub fn get(connection: &Connection, digest: Digest) -> Result<Sample, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM sample s WHERE s.sample = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([digest.as_bytes()])?;
    match rows.next()? {
        Some(row) => sample(row),
        None => Err(no_such(digest)),
    }
}

/// The row of a sample.
fn row_of(connection: &Connection, digest: Digest) -> Result<i64, StoreError> {
    connection
        .prepare_cached("SELECT id FROM sample WHERE sample = ?1")?
        .query_row([digest.as_bytes()], |row| row.get(0))
        .optional()?
        .ok_or_else(|| no_such(digest))
}

pub(super) fn no_such(digest: Digest) -> StoreError {
    StoreError::not_found(format!("sample {digest}; see 'fleet-hub sample list'"))
}

/// How a payload is encoded; none when no sample has it, or had it and was removed.
///
/// # Errors
/// The database failed.
pub fn media_type(
    connection: &Connection,
    payload: Digest,
) -> Result<Option<MediaType>, StoreError> {
    let name: Option<String> = connection
        .prepare_cached(
            "SELECT media_type FROM sample
             WHERE payload = ?1 AND removed_at_ms IS NULL LIMIT 1",
        )?
        .query_row([payload.as_bytes()], |row| row.get(0))
        .optional()?;
    name.map(|name| media_type_of(&name)).transpose()
}

/// A media type from its stored name.
pub(super) fn media_type_of(name: &str) -> Result<MediaType, StoreError> {
    MediaType::from_name(name).map_err(|_| StoreError::damaged(format_args!("media type {name:?}")))
}

/// How many samples there are, and what became of other messages.
///
/// # Errors
/// The database failed.
pub fn counts(connection: &Connection) -> Result<SampleCounts, StoreError> {
    let number = |sql: &str| -> Result<u64, StoreError> {
        let value: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        Ok(from_sql(value))
    };
    let counter = |name: &str| -> Result<u64, StoreError> {
        let value: Option<i64> = connection
            .prepare_cached("SELECT value FROM counter WHERE name = ?1")?
            .query_row([name], |row| row.get(0))
            .optional()?;
        Ok(from_sql(value.unwrap_or(0)))
    };
    Ok(SampleCounts {
        fleet: number("SELECT count(*) FROM sample WHERE grp = 'fleet'")?,
        imported: number("SELECT count(*) FROM sample WHERE grp = 'import'")?,
        fleet_labelled: number(
            "SELECT count(*) FROM sample s WHERE s.grp = 'fleet'
             AND EXISTS (SELECT 1 FROM current_label l WHERE l.sample = s.id)",
        )?,
        removed: number("SELECT count(*) FROM sample WHERE removed_at_ms IS NOT NULL")?,
        repeated: counter("repeated")?,
        quarantined: counter("quarantined")?,
        refused: counter("refused")?,
        gaps: number("SELECT count(*) FROM gap")?,
    })
}

/// One labelled picture whose payload is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewImport {
    /// SHA-256 of its payload.
    pub payload: Digest,
    /// The payload's length in bytes.
    pub payload_len: u64,
    /// How it is encoded.
    pub media_type: MediaType,
    /// What it shows.
    pub label: String,
}

/// The name of an imported record: SHA-256 of the JSON, without white space, of its source, label,
/// payload digest and split, in that order.
pub fn record_digest(source: &str, split: Split, label: &str, payload: Digest) -> Digest {
    #[derive(Serialize)]
    struct Record<'a> {
        source: &'a str,
        label: &'a str,
        payload: Digest,
        split: Split,
    }
    let record = Record { source, label, payload, split };
    // Strings, a digest and a name: their JSON cannot fail.
    Digest::of(&serde_json::to_vec(&record).unwrap_or_default())
}

impl NewImport {
    /// The name of its record.
    pub fn record(&self, source: &str, split: Split) -> Digest {
        record_digest(source, split, &self.label, self.payload)
    }
}

/// Writes imported records and their labels; those that are known are passed over.
///
/// # Errors
/// [`StoreError::Invalid`] when the hub has no such label: then nothing is written.
pub fn import(
    tx: &Transaction<'_>,
    source: &str,
    split: Split,
    items: &[NewImport],
    who: &str,
    now: UnixMillis,
) -> Result<ImportResponse, StoreError> {
    let mut done = ImportResponse::default();
    let split_name = split_name(split);
    for item in items {
        let label = labels::index(tx, &item.label)?;
        let record = item.record(source, split);
        let added = tx
            .prepare_cached(
                "INSERT INTO sample (sample, grp, payload, payload_len, media_type, split, source, stored_at_ms)
                 VALUES (?1, 'import', ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (sample) DO NOTHING",
            )?
            .execute(params![
                record.as_bytes(),
                item.payload.as_bytes(),
                as_sql(item.payload_len),
                item.media_type.as_str(),
                split_name,
                source,
                as_sql(now.0)
            ])?;
        if added == 0 {
            done.known += 1;
            continue;
        }
        labels::add(tx, tx.last_insert_rowid(), Some(label), who, now)?;
        done.stored += 1;
    }
    if done.stored > 0 {
        audit(tx, who, "sample.import", source, &format!("{} for {split_name}", done.stored))?;
    }
    Ok(done)
}

/// A split as stored.
pub fn split_name(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Gate => "gate",
    }
}

fn sample(row: &Row<'_>) -> Result<Sample, StoreError> {
    let digest = digest_at(row, 0)?;
    let damaged = || StoreError::damaged(format_args!("sample {digest}"));
    let selection: Option<String> = row.get(9)?;
    let predictions: String = row.get(10)?;
    Ok(Sample {
        sample: digest,
        payload: digest_at(row, 1)?,
        media_type: media_type_of(&row.get::<_, String>(2)?)?,
        payload_len: from_sql(row.get(3)?),
        group: row.get(4)?,
        id: identity(row)?,
        model: row.get::<_, Option<[u8; 32]>>(8)?.map(|b| BundleDigest(Digest::from_bytes(b))),
        selection: selection
            .map(|text| serde_json::from_str(&text).map_err(|_| damaged()))
            .transpose()?,
        predictions: serde_json::from_str(&predictions).map_err(|_| damaged())?,
        stored_at_ms: from_sql(row.get(11)?),
        label: row.get(12)?,
        removed: removed(row)?,
    })
}

fn removed(row: &Row<'_>) -> Result<Option<Removed>, StoreError> {
    let Some(at_ms) = row.get::<_, Option<i64>>(13)? else { return Ok(None) };
    Ok(Some(Removed { at_ms: from_sql(at_ms), by: row.get(14)?, reason: row.get(15)? }))
}

fn identity(row: &Row<'_>) -> Result<Option<SampleId>, StoreError> {
    let Some(device) = row.get::<_, Option<String>>(5)? else { return Ok(None) };
    let device =
        device.parse().map_err(|_| StoreError::damaged(format_args!("device {device:?}")))?;
    Ok(Some(SampleId {
        device,
        epoch: Epoch(from_sql(row.get(6)?)),
        sequence: Sequence(from_sql(row.get(7)?)),
    }))
}
