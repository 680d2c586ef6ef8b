//! A worker's report against what is stored about the same bundle.
//!
//! Before a result is taken, each of its reports is compared with the stored ones about that bundle
//! ([`gate::contradiction`]): the base's with the base's own. A contradiction puts both reports in
//! dispute, records a finding and holds the result. When an operator has accepted one of them
//! ([`accept`]), held results go on: they are taken, or their job fails because its report was rejected.

use fleetloop_protocol::api::jobs::Done;
use fleetloop_protocol::api::models::Model;
use fleetloop_protocol::api::reports::{Report, ReportState, StoredReport};
use fleetloop_protocol::{BundleDigest, Digest, UnixMillis};
use rusqlite::{Connection, Transaction};

use super::conflict;
use super::lease::{Claim, Phase};
use crate::AppState;
use crate::gate;
use crate::registry;
use crate::store::reports::{self as stored, NewReport};
use crate::store::{StoreError, audit, jobs as rows, registry as models};

/// The most stored reports about one bundle that a new one is compared with: those on the same dataset
/// first, then the newest. Each may be as large as a dataset has items for the gate.
const OPPONENTS: u32 = 16;

/// A report of the result that contradicts a stored one, or is in dispute already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispute {
    /// The result's report.
    pub report: Digest,
    /// The stored one.
    pub against: Digest,
    /// What contradicts what, in words.
    pub why: String,
}

/// Bundle, dataset, and the stored reports with how each stood.
type Known = (BundleDigest, Digest, Vec<(Digest, ReportState)>);

/// What a result was compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    known: Vec<Known>,
    /// The first contradiction.
    pub dispute: Option<Dispute>,
}

impl Compared {
    /// Whether no other report came meanwhile and none stands otherwise.
    ///
    /// # Errors
    /// The database failed.
    pub fn still_holds(&self, connection: &Connection) -> Result<bool, StoreError> {
        for (bundle, dataset, known) in &self.known {
            let now = stored::of_bundle(connection, *bundle, *dataset, OPPONENTS)?;
            if states(&now) != *known {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn states(reports: &[StoredReport]) -> Vec<(Digest, ReportState)> {
    reports.iter().map(|report| (report.digest, report.state)).collect()
}

/// Compares each report of a result with the stored ones about the same bundle that nobody rejected.
///
/// # Errors
/// [`StoreError::Invalid`] when an operator rejected this very report; the database's and the disk's.
pub async fn compare(state: &AppState, result: &Done) -> Result<Compared, StoreError> {
    let mut compared = Compared { known: Vec::new(), dispute: None };
    for report in std::iter::once(&result.report).chain(&result.base_report) {
        let digest = registry::document_digest(report)?;
        let (bundle, dataset) = (report.bundle, report.dataset);
        let read = move |c: &Connection| stored::of_bundle(c, bundle, dataset, OPPONENTS);
        let opponents = state.store.read(read).await?;
        compared.known.push((bundle, dataset, states(&opponents)));
        if compared.dispute.is_none() {
            compared.dispute = against(state, report, digest, &opponents).await?;
        }
    }
    Ok(compared)
}

async fn against(
    state: &AppState,
    report: &Report,
    digest: Digest,
    opponents: &[StoredReport],
) -> Result<Option<Dispute>, StoreError> {
    match opponents.iter().find(|known| known.digest == digest).map(|known| known.state) {
        Some(ReportState::Counts) => return Ok(None),
        Some(ReportState::Rejected) => {
            let what = format!("cannot take report {digest}: an operator rejected it");
            return Err(StoreError::Invalid { what });
        }
        Some(ReportState::Disputed) | None => {}
    }
    for opponent in opponents {
        if opponent.state == ReportState::Rejected || opponent.digest == digest {
            continue;
        }
        let theirs = registry::read_report(&state.artefacts, opponent.digest).await?;
        if let Some(found) = gate::contradiction(report, &theirs) {
            let against = opponent.digest;
            let why = format!(
                "report {} on {} ({} of {} right) contradicts report {} of worker {} ({} of {} \
                 right): {found}",
                digest.short(),
                opponent.model,
                report.outputs.iter().filter(|output| output.is_correct()).count(),
                report.outputs.len(),
                against.short(),
                opponent.worker,
                opponent.right,
                opponent.items,
            );
            return Ok(Some(Dispute { report: digest, against, why }));
        }
    }
    Ok(None)
}

/// Stores the reports of a result that is held, those about bundles that the hub lists, and puts the
/// one that contradicts another in dispute.
pub(super) fn keep(
    tx: &Transaction<'_>,
    dispute: &Dispute,
    reports: &[NewReport],
    now: UnixMillis,
) -> Result<(), StoreError> {
    // The result's own bundle is not listed yet, and its report comes with it.
    for report in reports.iter().filter(|report| report.digest == dispute.report) {
        stored::add(tx, report, now)?;
    }
    stored::dispute(tx, dispute.report, dispute.against, &dispute.why, now)
}

/// Accepts a report that is in dispute, as an operator decides, and lets held results go on.
///
/// # Errors
/// [`StoreError::NotFound`]; [`StoreError::Conflict`] when it is not in dispute.
pub async fn accept(
    state: &AppState,
    report: Digest,
    who: &str,
    reason: &str,
) -> Result<Vec<StoredReport>, StoreError> {
    let (now, who, reason) = (state.clock.now(), who.to_owned(), reason.to_owned());
    let decided =
        state.store.write(move |tx| stored::accept(tx, report, &who, &reason, now)).await?;
    // A cut here: the watch goes on with held results at the next start.
    go_on(state).await?;
    Ok(decided)
}

/// Goes on with held results whose reports are no longer in dispute.
///
/// # Errors
/// The database's and the disk's.
pub async fn go_on(state: &AppState) -> Result<(), StoreError> {
    for job in state.store.read(rows::held).await? {
        let Phase::Held { holder, result, .. } = &job.record.phase else { continue };
        let document: Done = registry::read_document(&state.artefacts, *result).await?;
        let mut standing = Vec::new();
        for report in std::iter::once(&document.report).chain(&document.base_report) {
            let digest = registry::document_digest(report)?;
            let known = state.store.read(move |c| stored::get(c, digest)).await;
            standing.extend(known.ok().map(|known| (digest, known.state)));
        }
        if standing.iter().any(|(_, state)| *state == ReportState::Disputed) {
            continue;
        }
        let rejected = standing.iter().find(|(_, state)| *state == ReportState::Rejected);
        let (id, holder) = (job.id, holder.clone());
        let refused = rejected.map(|(digest, _)| format!("an operator rejected report {digest}"));
        let goes_on = state.store.write(move |tx| {
            let mut job = rows::get(tx, id)?;
            let Some((lease, holder)) = job.record.unhold() else { return Ok(false) };
            if let Some(reason) = &refused {
                let claim = Claim { lease: &lease, holder: &holder };
                job.record.failed(claim, reason).map_err(|e| conflict(id, &e))?;
                audit(tx, "hub", "job.failed", &id.0.to_string(), reason)?;
            }
            rows::save(tx, id, &job.record, job.progress.as_ref())?;
            Ok(refused.is_none())
        });
        if goes_on.await? {
            // A cut here leaves the job leasable: another worker does it again.
            match super::done(state, id, document, &holder).await {
                Ok(model) => {
                    tracing::info!(job = id.0, bundle = %model.bundle, "held result taken");
                }
                Err(error) => {
                    tracing::warn!(job = id.0, %error, "a held result cannot be taken");
                }
            }
        }
    }
    Ok(())
}

/// Whether a report that the verdict on this model is made by is in dispute.
///
/// # Errors
/// The database failed.
pub fn concerns(connection: &Connection, model: &Model) -> Result<bool, StoreError> {
    let Some(dataset) = model.dataset else { return Ok(false) };
    for bundle in std::iter::once(model.bundle).chain(model.base) {
        if stored::is_disputed(connection, bundle, dataset)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The model, unless a report that it is judged by is in dispute.
///
/// # Errors
/// [`StoreError::NotFound`]; [`StoreError::Conflict`] while a report is in dispute.
pub fn undisputed(connection: &Connection, bundle: BundleDigest) -> Result<Model, StoreError> {
    let model = models::get(connection, bundle)?;
    if concerns(connection, &model)? {
        let what = format!(
            "cannot judge model {bundle}: reports on it or its base contradict each other; decide \
             which one counts with 'fleet-hub report list'"
        );
        return Err(StoreError::Conflict { what });
    }
    Ok(model)
}

#[cfg(test)]
#[path = "disputes_tests.rs"]
mod tests;
