//! Samples as people and programs read them. Those of devices are written by `ingest` only, imported
//! ones by `imports`.

use fleetloop_protocol::api::samples::{Removed, Sample, SampleCounts};
use fleetloop_protocol::sample::MediaType;
use fleetloop_protocol::{BundleDigest, Digest, Epoch, SampleId, Sequence};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{StoreError, digest_at, from_sql};

/// Which samples to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those of this group: `fleet` or `import`.
    pub group: Option<String>,
    /// Only those with (or without) a label.
    pub labelled: Option<bool>,
    /// How many.
    pub limit: u32,
    /// Only those whose digest begins so, in hexadecimal digits.
    pub starts: Option<String>,
    /// Only those stored before this one. Unlike a number to pass over, it stays true while samples
    /// come in.
    pub before: Option<Digest>,
}

const COLUMNS: &str = "s.sample, s.payload, s.media_type, s.payload_len, s.grp,
    s.device, s.epoch, s.sequence, s.model, s.selection, s.predictions, s.stored_at_ms,
    (SELECT n.name FROM current_label l JOIN label_name n ON n.idx = l.label
     WHERE l.sample = s.id), s.removed_at_ms, s.removed_by, s.removed_reason,
    s.source";

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
           AND (?4 IS NULL OR (s.sample >= ?4 AND s.sample <= ?5))
         ORDER BY s.id DESC LIMIT ?6"
    );
    let (least, most) = filter.starts.as_deref().map(bounds).transpose()?.unzip();
    let mut statement = connection.prepare_cached(&sql)?;
    let wanted = params![filter.group, filter.labelled, before, least, most, filter.limit];
    let mut rows = statement.query(wanted)?;
    let mut samples = Vec::new();
    while let Some(row) = rows.next()? {
        samples.push(sample(row)?);
    }
    Ok(samples)
}

/// The least and the greatest digest that begin with these hexadecimal digits.
fn bounds(starts: &str) -> Result<([u8; 32], [u8; 32]), StoreError> {
    let ends = |fill: &str| -> Option<[u8; 32]> {
        let digits = format!("{starts}{}", fill.repeat(64usize.checked_sub(starts.len())?));
        digits.parse::<Digest>().ok().map(|digest| *digest.as_bytes())
    };
    ends("0").zip(ends("f")).ok_or_else(|| StoreError::Invalid {
        what: format!("cannot list samples: {starts:?} is not the beginning of a digest"),
    })
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
        source: row.get(16)?,
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
