//! Frozen datasets: what is labelled now, and what was frozen. The canonical bytes are artefacts.

use fleetloop_protocol::Digest;
use fleetloop_protocol::api::datasets::{DatasetSummary, FLEET, Split, import_group};
use fleetloop_protocol::sample::MediaType;
use rusqlite::{Connection, Row, Transaction, params};

use super::samples::media_type_of;
use super::{StoreError, as_sql, audit, digest_at, from_sql};

/// A labelled sample that a dataset may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labelled {
    /// The sample.
    pub sample: Digest,
    /// Its payload.
    pub payload: Digest,
    /// How the payload is encoded.
    pub media_type: MediaType,
    /// Index of its label.
    pub label: u16,
    /// `fleet`, or that of the source it was imported from.
    pub group: String,
    /// What it was imported for; none for one that a device sent.
    pub split: Option<Split>,
    /// The place of its label among all that were given: of two the greater one is newer.
    pub given: i64,
}

/// How many labelled samples no dataset holds, because an operator has not decided about them yet or
/// has decided against them.
///
/// # Errors
/// The database failed.
pub fn held(connection: &Connection) -> Result<u64, StoreError> {
    let count: i64 = connection
        .prepare_cached(
            "SELECT count(*) FROM sample s JOIN current_label l ON l.sample = s.id
             WHERE s.held IS NOT NULL",
        )?
        .query_row([], |row| row.get(0))?;
    Ok(from_sql(count))
}

/// Everything that is labelled now and counts, ordered by sample.
///
/// # Errors
/// The database failed.
pub fn labelled(connection: &Connection) -> Result<Vec<Labelled>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT s.sample, s.payload, s.media_type, s.source, s.split, l.label, l.id
         FROM sample s JOIN current_label l ON l.sample = s.id
         WHERE s.held IS NULL ORDER BY s.sample",
    )?;
    let mut rows = statement.query([])?;
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        out.push(Labelled {
            sample: digest_at(row, 0)?,
            payload: digest_at(row, 1)?,
            media_type: media_type_of(&row.get::<_, String>(2)?)?,
            group: row
                .get::<_, Option<String>>(3)?
                .map_or_else(|| FLEET.to_owned(), |source| import_group(&source)),
            split: match row.get::<_, Option<String>>(4)?.as_deref() {
                None => None,
                Some("train") => Some(Split::Train),
                Some(_) => Some(Split::Gate),
            },
            label: row.get(5)?,
            given: row.get(6)?,
        });
    }
    Ok(out)
}

/// Notes a frozen dataset whose bytes are stored. One that is known stays as it was first frozen.
///
/// # Errors
/// The database failed.
pub fn insert(tx: &Transaction<'_>, new: &DatasetSummary) -> Result<DatasetSummary, StoreError> {
    let added = tx.execute(
        "INSERT INTO dataset (digest, name, train, gate, frozen_by, frozen_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (digest) DO NOTHING",
        params![
            new.digest.as_bytes(),
            new.name,
            as_sql(new.train),
            as_sql(new.gate),
            new.frozen_by,
            as_sql(new.frozen_at_ms)
        ],
    )?;
    if added == 1 {
        let detail = format!("{:?}: {} train, {} gate", new.name, new.train, new.gate);
        audit(tx, &new.frozen_by, "dataset.freeze", &new.digest.to_string(), &detail)?;
    }
    get(tx, new.digest)
}

/// All datasets, the newest first.
///
/// # Errors
/// The database failed.
pub fn list(connection: &Connection) -> Result<Vec<DatasetSummary>, StoreError> {
    let sql = format!("{SUMMARY} ORDER BY frozen_at_ms DESC, digest");
    let mut statement = connection.prepare_cached(&sql)?;
    let all = statement.query_map([], summary)?.collect::<Result<_, _>>()?;
    Ok(all)
}

/// One dataset.
///
/// # Errors
/// [`StoreError::NotFound`] when there is none of that digest.
pub fn get(connection: &Connection, digest: Digest) -> Result<DatasetSummary, StoreError> {
    let sql = format!("{SUMMARY} WHERE digest = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_row([digest.as_bytes()], summary).map_err(|error| match error {
        rusqlite::Error::QueryReturnedNoRows => {
            StoreError::not_found(format!("dataset {digest}; see 'fleet-hub dataset list'"))
        }
        other => other.into(),
    })
}

const SUMMARY: &str = "SELECT digest, name, train, gate, frozen_by, frozen_at_ms FROM dataset";

fn summary(row: &Row<'_>) -> rusqlite::Result<DatasetSummary> {
    Ok(DatasetSummary {
        digest: digest_at(row, 0)?,
        name: row.get(1)?,
        train: from_sql(row.get(2)?),
        gate: from_sql(row.get(3)?),
        frozen_by: row.get(4)?,
        frozen_at_ms: from_sql(row.get(5)?),
    })
}
