//! What workers report about bundles, and which of these reports count.
//!
//! A report counts as soon as it is stored, unless it contradicts another one about the same bundle:
//! then both are disputed, and neither is judged by until an operator accepts one. That one counts
//! from then on, and whatever it was in dispute with is rejected. The bytes of a report are an artefact.

use fleetloop_protocol::api::jobs::JobId;
use fleetloop_protocol::api::reports::{Decision, ReportState, StoredReport};
use fleetloop_protocol::{BundleDigest, Digest, UnixMillis};
use rusqlite::{Connection, Row, Transaction, params};

use super::findings::{self, Kind};
use super::{StoreError, as_sql, audit, digest_at, from_sql, registry};

/// A report that is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewReport {
    /// The bundle it is about.
    pub bundle: BundleDigest,
    /// The dataset it was made on.
    pub dataset: Digest,
    /// The artefact.
    pub digest: Digest,
    /// The job that it came with.
    pub job: JobId,
    /// Whose token brought it.
    pub worker: String,
    /// The runtime that made it.
    pub runtime: String,
    /// Items in it.
    pub items: u64,
    /// Items whose most probable class is the label.
    pub right: u64,
}

/// Adds a report that counts; again changes nothing.
///
/// # Errors
/// The database failed, or the hub does not hold the bundle.
pub fn add(tx: &Transaction<'_>, report: &NewReport, now: UnixMillis) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO report (bundle, dataset, digest, job, worker, runtime, items, correct, at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING",
    )?
    .execute(params![
        report.bundle.0.as_bytes(),
        report.dataset.as_bytes(),
        report.digest.as_bytes(),
        as_sql(report.job.0),
        report.worker,
        report.runtime,
        as_sql(report.items),
        as_sql(report.right),
        as_sql(now.0)
    ])?;
    Ok(())
}

/// Puts a report and the one that it contradicts in dispute, and records a finding.
///
/// # Errors
/// The database failed.
pub fn dispute(
    tx: &Transaction<'_>,
    report: Digest,
    against: Digest,
    why: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE report SET state = 'disputed', against = ?2 WHERE digest = ?1",
        params![report.as_bytes(), against.as_bytes()],
    )?;
    tx.execute(
        "UPDATE report SET state = 'disputed' WHERE digest = ?1 AND state = 'counts'",
        [against.as_bytes()],
    )?;
    let found = get(tx, report)?;
    let detail = format!(
        "report {} of worker {} (job {}) contradicts report {}: {why}",
        report.short(),
        found.worker,
        found.job.map_or("-".to_owned(), |job| job.0.to_string()),
        against.short(),
    );
    let finding = findings::NewFinding {
        kind: Kind::ReportContradiction,
        device: None,
        subject: &subject(found.bundle),
        detail: &detail,
        at: now,
    };
    findings::record(tx, &finding).map(drop)
}

/// What a finding about a bundle's reports is about.
fn subject(bundle: BundleDigest) -> String {
    format!("model {bundle}")
}

/// The last `limit` reports about `bundle`, those on `dataset` first.
///
/// # Errors
/// The database failed.
pub fn of_bundle(
    connection: &Connection,
    bundle: BundleDigest,
    dataset: Digest,
    limit: u32,
) -> Result<Vec<StoredReport>, StoreError> {
    let params = params![bundle.0.as_bytes(), dataset.as_bytes(), limit];
    let rest = "WHERE report.bundle = ?1
        ORDER BY report.dataset <> ?2, report.at_ms DESC, report.digest LIMIT ?3";
    select(connection, rest, params)
}

/// The last report about `bundle` on `dataset`, or on any dataset, that counts.
///
/// # Errors
/// The database failed.
pub fn last(
    connection: &Connection,
    bundle: BundleDigest,
    dataset: Option<Digest>,
) -> Result<Option<StoredReport>, StoreError> {
    let params = params![bundle.0.as_bytes(), dataset.map(|d| *d.as_bytes())];
    let rest = "WHERE report.bundle = ?1 AND (?2 IS NULL OR report.dataset = ?2)
        AND report.state = 'counts' ORDER BY report.at_ms DESC LIMIT 1";
    Ok(select(connection, rest, params)?.pop())
}

/// Whether a report about `bundle` on `dataset` is in dispute.
///
/// # Errors
/// The database failed.
pub fn is_disputed(
    connection: &Connection,
    bundle: BundleDigest,
    dataset: Digest,
) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT 1 FROM report WHERE bundle = ?1 AND dataset = ?2 AND state = 'disputed'",
    )?;
    Ok(statement.exists(params![bundle.0.as_bytes(), dataset.as_bytes()])?)
}

/// Reports, the newest first: those in dispute, or all of them.
///
/// # Errors
/// The database failed.
pub fn list(
    connection: &Connection,
    all: bool,
    limit: u32,
) -> Result<Vec<StoredReport>, StoreError> {
    let rest = "WHERE ?1 OR report.state = 'disputed' ORDER BY report.at_ms DESC LIMIT ?2";
    select(connection, rest, params![all, limit])
}

/// The report of that digest.
///
/// # Errors
/// [`StoreError::NotFound`] when there is none.
pub fn get(connection: &Connection, digest: Digest) -> Result<StoredReport, StoreError> {
    select(connection, "WHERE report.digest = ?1", params![digest.as_bytes()])?.pop().ok_or_else(
        || StoreError::not_found(format!("report {digest}; see 'fleet-hub report list --all'")),
    )
}

/// Ends a dispute: `digest` counts, whatever it is in dispute with is rejected, and who was in
/// dispute only with what is rejected counts as well. Verdicts made by a rejected report are taken
/// back. Returns what became of the bundle's reports.
///
/// # Errors
/// [`StoreError::NotFound`]; [`StoreError::Conflict`] when the report is not in dispute.
pub fn accept(
    tx: &Transaction<'_>,
    digest: Digest,
    who: &str,
    reason: &str,
    now: UnixMillis,
) -> Result<Vec<StoredReport>, StoreError> {
    let accepted = get(tx, digest)?;
    if accepted.state != ReportState::Disputed {
        let what = format!("cannot accept report {digest}: it is not in dispute");
        return Err(StoreError::Conflict { what });
    }
    let bundle = accepted.bundle;
    let disputed: Vec<StoredReport> = select(
        tx,
        "WHERE report.bundle = ?1 AND report.state = 'disputed'",
        params![bundle.0.as_bytes()],
    )?;
    for (report, state) in settle(&disputed, digest) {
        tx.execute(
            "UPDATE report SET state = ?2, decided_by = ?3, decided_at_ms = ?4, reason = ?5
             WHERE digest = ?1",
            params![report.as_bytes(), word(state), who, as_sql(now.0), reason],
        )?;
        audit(
            tx,
            who,
            "report.decide",
            &report.to_string(),
            &format!("{}: {reason}", word(state)),
        )?;
        if state == ReportState::Rejected {
            registry::withdraw_verdicts(tx, bundle, get(tx, report)?.dataset)?;
        }
    }
    let left = select(
        tx,
        "WHERE report.bundle = ?1 AND report.state = 'disputed' LIMIT 1",
        params![bundle.0.as_bytes()],
    )?;
    if left.is_empty() {
        let (kind, subject) = (Kind::ReportContradiction, subject(bundle));
        findings::acknowledge_all(tx, kind, None, &subject, who, reason, now)?;
    }
    of_bundle(tx, bundle, accepted.dataset, u32::MAX)
}

/// What becomes of the reports of one bundle that are in dispute when `accepted` counts; those that
/// stay in dispute are left out. Pure.
fn settle(disputed: &[StoredReport], accepted: Digest) -> Vec<(Digest, ReportState)> {
    let against = |a: &StoredReport, b: Digest| {
        a.against == Some(b)
            || disputed.iter().any(|o| o.digest == b && o.against == Some(a.digest))
    };
    let rejected: Vec<Digest> =
        disputed.iter().filter(|r| against(r, accepted)).map(|r| r.digest).collect();
    let state = |report: &StoredReport| {
        if report.digest == accepted {
            return Some(ReportState::Counts);
        }
        if rejected.contains(&report.digest) {
            return Some(ReportState::Rejected);
        }
        let opponents = disputed.iter().filter(|o| against(report, o.digest));
        opponents.into_iter().all(|o| rejected.contains(&o.digest)).then_some(ReportState::Counts)
    };
    disputed.iter().filter_map(|r| Some((r.digest, state(r)?))).collect()
}

const fn word(state: ReportState) -> &'static str {
    match state {
        ReportState::Counts => "counts",
        ReportState::Disputed => "disputed",
        ReportState::Rejected => "rejected",
    }
}

fn select(
    connection: &Connection,
    rest: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<StoredReport>, StoreError> {
    let sql = format!(
        "SELECT report.digest, report.bundle, report.dataset, report.job, report.worker,
            report.runtime, report.items, report.correct, report.at_ms, report.state,
            report.against, report.decided_by, report.decided_at_ms, report.reason,
            model.name || '/' || model.version
         FROM report JOIN model ON model.bundle = report.bundle {rest}"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params, report)?;
    rows.collect::<Result<_, _>>().map_err(StoreError::from)
}

fn report(row: &Row<'_>) -> rusqlite::Result<StoredReport> {
    let decided: Option<(String, i64)> =
        row.get::<_, Option<String>>(11)?.zip(row.get::<_, Option<i64>>(12)?);
    let reason: String = row.get(13)?;
    Ok(StoredReport {
        digest: digest_at(row, 0)?,
        bundle: BundleDigest(digest_at(row, 1)?),
        dataset: digest_at(row, 2)?,
        job: row.get::<_, Option<i64>>(3)?.map(|id| JobId(from_sql(id))),
        worker: row.get(4)?,
        runtime: row.get(5)?,
        items: from_sql(row.get(6)?),
        right: from_sql(row.get(7)?),
        at_ms: from_sql(row.get(8)?),
        state: match row.get::<_, String>(9)?.as_str() {
            "counts" => ReportState::Counts,
            "rejected" => ReportState::Rejected,
            // The table allows no other word.
            _ => ReportState::Disputed,
        },
        against: row.get::<_, Option<[u8; 32]>>(10)?.map(Digest::from_bytes),
        decided: decided.map(|(by, at)| Decision { by, at_ms: from_sql(at), reason }),
        model: row.get(14)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(name: &str, against: Option<&str>) -> StoredReport {
        StoredReport {
            digest: Digest::of(name.as_bytes()),
            bundle: BundleDigest(Digest::of(b"bundle")),
            model: "wear/1".into(),
            dataset: Digest::of(b"dataset"),
            job: None,
            worker: "w".into(),
            runtime: "r".into(),
            items: 1,
            right: 1,
            at_ms: 0,
            state: ReportState::Disputed,
            against: against.map(|name| Digest::of(name.as_bytes())),
            decided: None,
        }
    }

    fn states(disputed: &[StoredReport], accepted: &str) -> Vec<ReportState> {
        let decided = settle(disputed, Digest::of(accepted.as_bytes()));
        disputed
            .iter()
            .map(|r| {
                let of = decided.iter().find(|(digest, _)| *digest == r.digest);
                of.map_or(ReportState::Disputed, |(_, state)| *state)
            })
            .collect()
    }

    #[test]
    fn accepting_a_report_rejects_what_contradicts_it_and_frees_who_agreed() {
        use ReportState::{Counts, Disputed, Rejected};
        // Two workers contradict a stored one; two other reports are in a dispute of their own.
        let all = [
            stored("first", None),
            stored("second", Some("first")),
            stored("third", Some("first")),
            stored("x", None),
            stored("y", Some("x")),
        ];
        assert_eq!(states(&all, "second"), [Rejected, Counts, Counts, Disputed, Disputed]);
        assert_eq!(states(&all, "first"), [Counts, Rejected, Rejected, Disputed, Disputed]);
        assert_eq!(states(&all, "y"), [Disputed, Disputed, Disputed, Rejected, Counts]);
    }
}
