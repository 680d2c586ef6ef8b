//! Models: bundles whose manifest and files the hub holds, with lineage and verdict.

use fleetloop_protocol::api::jobs::JobId;
use fleetloop_protocol::api::models::Model;
use fleetloop_protocol::api::reports::Verdict;
use fleetloop_protocol::{BundleDigest, Digest};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::{StoreError, as_sql, digest_at, from_sql};

/// What a model's manifest says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The TUF target.
    pub target: String,
    /// The manifest's length, in bytes.
    pub manifest_len: u64,
    /// How many labels it has.
    pub labels: usize,
}

/// Adds a model. Adding the same bundle again changes nothing.
///
/// # Errors
/// [`StoreError::Conflict`] when another bundle has that name and version.
pub fn insert(tx: &Transaction<'_>, model: &Model, listing: &Listing) -> Result<(), StoreError> {
    let taken: Option<BundleDigest> = tx
        .prepare_cached("SELECT bundle FROM model WHERE name = ?1 AND version = ?2")?
        .query_row(params![model.name, model.version], |row| digest_at(row, 0))
        .optional()?
        .map(BundleDigest);
    match taken {
        Some(taken) if taken == model.bundle => return Ok(()),
        Some(taken) => {
            return Err(StoreError::Conflict {
                what: format!(
                    "cannot add bundle {}: {} version {} is bundle {taken}; give it another version",
                    model.bundle, model.name, model.version
                ),
            });
        }
        None => {}
    }
    tx.prepare_cached(
        "INSERT INTO model (bundle, name, version, target, manifest_len, labels, base, dataset,
            run_record, job, verdict, created_by, created_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?
    .execute(params![
        model.bundle.0.as_bytes(),
        model.name,
        model.version,
        listing.target,
        as_sql(listing.manifest_len),
        as_sql(listing.labels as u64),
        model.base.map(|base| *base.0.as_bytes()),
        model.dataset.map(|dataset| *dataset.as_bytes()),
        model.run_record.map(|record| *record.as_bytes()),
        model.job.map(|job| as_sql(job.0)),
        model.verdict.as_ref().map(json).transpose()?,
        model.created_by,
        as_sql(model.created_at_ms)
    ])?;
    Ok(())
}

/// Keeps what the gate decided last.
///
/// # Errors
/// The database failed.
pub fn judge(
    tx: &Transaction<'_>,
    bundle: BundleDigest,
    verdict: &Verdict,
) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE model SET verdict = ?2 WHERE bundle = ?1")?
        .execute(params![bundle.0.as_bytes(), json(verdict)?])?;
    Ok(())
}

/// Takes back the verdicts that were made by reports about `bundle` on `dataset`: its own, and those
/// of models trained from it.
///
/// # Errors
/// The database failed.
pub fn withdraw_verdicts(
    tx: &Transaction<'_>,
    bundle: BundleDigest,
    dataset: Digest,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE model SET verdict = NULL WHERE (bundle = ?1 OR base = ?1) AND dataset = ?2",
        params![bundle.0.as_bytes(), dataset.as_bytes()],
    )?;
    Ok(())
}

/// How many labels a model has; none when the hub does not hold it.
///
/// # Errors
/// The database failed.
pub fn labels(connection: &Connection, bundle: BundleDigest) -> Result<Option<usize>, StoreError> {
    let found: Option<i64> = connection
        .prepare_cached("SELECT labels FROM model WHERE bundle = ?1")?
        .query_row([bundle.0.as_bytes()], |row| row.get(0))
        .optional()?;
    Ok(found.map(|labels| usize::try_from(labels).unwrap_or(0)))
}

/// The model of that bundle.
///
/// # Errors
/// [`StoreError::NotFound`] when the hub does not hold it.
pub fn get(connection: &Connection, bundle: BundleDigest) -> Result<Model, StoreError> {
    select(connection, "WHERE bundle = ?1", params![bundle.0.as_bytes()])?
        .pop()
        .ok_or_else(|| StoreError::not_found(format!("model {bundle}; see 'fleet-hub model list'")))
}

/// All models by name, the newest version first.
///
/// # Errors
/// The database failed.
pub fn list(connection: &Connection) -> Result<Vec<Model>, StoreError> {
    select(connection, "ORDER BY name, version DESC", [])
}

fn select(
    connection: &Connection,
    rest: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<Model>, StoreError> {
    let sql = format!(
        "SELECT bundle, name, version, base, dataset, run_record, job, verdict, created_by,
            created_at_ms FROM model {rest}"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params)?;
    let mut models = Vec::new();
    while let Some(row) = rows.next()? {
        let mut model = model(row)?;
        model.released_as = released_as(connection, model.bundle)?;
        models.push(model);
    }
    Ok(models)
}

fn model(row: &Row<'_>) -> Result<Model, StoreError> {
    let optional = |column| -> Result<Option<Digest>, StoreError> {
        Ok(row.get::<_, Option<[u8; 32]>>(column)?.map(Digest::from_bytes))
    };
    let bundle = BundleDigest(digest_at(row, 0)?);
    let verdict: Option<String> = row.get(7)?;
    let verdict = verdict
        .map(|text| serde_json::from_str(&text))
        .transpose()
        .map_err(|_| StoreError::damaged(format_args!("model {bundle}")))?;
    Ok(Model {
        bundle,
        name: row.get(1)?,
        version: row.get(2)?,
        base: optional(3)?.map(BundleDigest),
        dataset: optional(4)?,
        run_record: optional(5)?,
        job: row.get::<_, Option<i64>>(6)?.map(|id| JobId(from_sql(id))),
        verdict,
        released_as: Vec::new(),
        created_by: row.get(8)?,
        created_at_ms: from_sql(row.get(9)?),
    })
}

fn released_as(connection: &Connection, bundle: BundleDigest) -> Result<Vec<String>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT channel || '/' || target FROM release
         WHERE bundle = ?1 AND state = 'released' ORDER BY 1",
    )?;
    let targets =
        statement.query_map([bundle.0.as_bytes()], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(targets)
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(StoreError::damaged)
}
