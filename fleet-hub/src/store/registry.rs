//! Models: bundles whose manifest and files the hub holds, with lineage, verdict and reports.

use fleetloop_protocol::api::jobs::JobId;
use fleetloop_protocol::api::models::Model;
use fleetloop_protocol::api::reports::Verdict;
use fleetloop_protocol::{BundleDigest, Digest};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::{StoreError, as_sql, digest_at, from_sql};

/// A report whose bytes are an artefact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportRow {
    /// The bundle it is about.
    pub bundle: BundleDigest,
    /// The dataset it was made on.
    pub dataset: Digest,
    /// The artefact.
    pub digest: Digest,
    /// The job that made it.
    pub job: Option<JobId>,
    /// The runtime that made it.
    pub runtime: String,
}

/// Adds a model. Adding the same bundle again changes nothing.
///
/// # Errors
/// [`StoreError::Conflict`] when another bundle has that name and version.
pub fn insert(
    tx: &Transaction<'_>,
    model: &Model,
    target: &str,
    manifest_len: u64,
) -> Result<(), StoreError> {
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
        "INSERT INTO model (bundle, name, version, target, manifest_len, base, dataset, run_record,
            job, verdict, created_by, created_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?
    .execute(params![
        model.bundle.0.as_bytes(),
        model.name,
        model.version,
        target,
        as_sql(manifest_len),
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

/// Adds a report; again changes nothing.
///
/// # Errors
/// The database failed, or the hub does not hold the bundle.
pub fn add_report(tx: &Transaction<'_>, report: &ReportRow, at_ms: u64) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO report (bundle, dataset, digest, job, runtime, at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
    )?
    .execute(params![
        report.bundle.0.as_bytes(),
        report.dataset.as_bytes(),
        report.digest.as_bytes(),
        report.job.map(|job| as_sql(job.0)),
        report.runtime,
        as_sql(at_ms)
    ])?;
    Ok(())
}

/// The last report about `bundle` on `dataset`, or on any dataset.
///
/// # Errors
/// The database failed.
pub fn last_report(
    connection: &Connection,
    bundle: BundleDigest,
    dataset: Option<Digest>,
) -> Result<Option<ReportRow>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT bundle, dataset, digest, job, runtime FROM report
         WHERE bundle = ?1 AND (?2 IS NULL OR dataset = ?2) ORDER BY at_ms DESC LIMIT 1",
    )?;
    let params = params![bundle.0.as_bytes(), dataset.map(|d| *d.as_bytes())];
    let row = statement.query_row(params, |row| {
        Ok(ReportRow {
            bundle: BundleDigest(digest_at(row, 0)?),
            dataset: digest_at(row, 1)?,
            digest: digest_at(row, 2)?,
            job: row.get::<_, Option<i64>>(3)?.map(|id| JobId(from_sql(id))),
            runtime: row.get(4)?,
        })
    });
    Ok(row.optional()?)
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
