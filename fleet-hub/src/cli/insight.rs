//! What is behind a model: its training's curve, and its figures on the pictures that it was judged by,
//! beside its base's on the same ones. Read from the run record and the workers' reports.

use std::fmt::Write as _;

use fleetloop_models::figures::Figures;
use fleetloop_protocol::Digest;
use fleetloop_protocol::api::datasets::Dataset;
use fleetloop_protocol::api::models::Model;
use fleetloop_protocol::api::reports::{Report, ReportState, StoredReport};
use serde::{Deserialize, Serialize};

use super::client::Client;
use super::table::Table;

/// A model and what is known of how good it is.
#[derive(Debug, Serialize)]
pub struct Insight {
    /// The model.
    #[serde(flatten)]
    pub model: Model,
    /// Each epoch of its training.
    pub curve: Vec<Epoch>,
    /// Its figures; none before a worker reported on it.
    pub judged: Option<Judged>,
}

/// Figures on the gate items of a dataset.
#[derive(Debug, Serialize)]
pub struct Judged {
    /// The dataset.
    pub on: Digest,
    /// What the classes are called.
    pub labels: Vec<String>,
    /// The model's.
    pub figures: Figures,
    /// Its base's, on the same items.
    pub base: Option<Figures>,
}

/// One epoch, as the run record has it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Epoch {
    epoch: u32,
    loss: f32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accuracy: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    validation_loss: Option<f32>,
}

/// The part of a run record that is shown.
#[derive(Deserialize)]
pub(super) struct RunRecord {
    reproducible: Reproducible,
}

#[derive(Deserialize)]
struct Reproducible {
    curve: Vec<Epoch>,
}

/// What is known of a model, by its newest report that counts.
///
/// # Errors
/// The hub was not reached or refused.
pub async fn of(client: &Client, model: Model) -> anyhow::Result<Insight> {
    insight(client, model, None).await
}

/// The same by its newest report on one dataset.
///
/// # Errors
/// As [`of`].
pub async fn on(client: &Client, model: Model, dataset: Digest) -> anyhow::Result<Insight> {
    insight(client, model, Some(dataset)).await
}

async fn insight(
    client: &Client,
    model: Model,
    dataset: Option<Digest>,
) -> anyhow::Result<Insight> {
    let operation = format!("show model {}", model.bundle.0.short());
    let curve = match model.run_record {
        Some(record) => {
            let path = format!("/artefacts/{record}");
            client.get::<RunRecord>(&operation, &path).await?.reproducible.curve
        }
        None => Vec::new(),
    };
    let all: Vec<StoredReport> = client.get(&operation, "/reports?all=true").await?;
    // The newest first.
    let last = |bundle, dataset: Option<Digest>| {
        all.iter().find(|report| {
            report.bundle == bundle
                && report.state == ReportState::Counts
                && dataset.is_none_or(|wanted| report.dataset == wanted)
        })
    };
    let judged = match last(model.bundle, dataset) {
        None => None,
        Some(report) => {
            let on = report.dataset;
            let labels =
                client.get::<Dataset>(&operation, &format!("/datasets/{on}")).await?.labels;
            let base = match model.base.and_then(|base| last(base, Some(on))) {
                Some(base) => Some(figures(client, &operation, base, labels.len()).await?),
                None => None,
            };
            let figures = figures(client, &operation, report, labels.len()).await?;
            Some(Judged { on, labels, figures, base })
        }
    };
    Ok(Insight { model, curve, judged })
}

async fn figures(
    client: &Client,
    operation: &str,
    stored: &StoredReport,
    classes: usize,
) -> anyhow::Result<Figures> {
    let path = format!("/artefacts/{}", stored.digest);
    let report: Report = client.get(operation, &path).await?;
    let rows = report.outputs.iter().map(|o| (usize::from(o.label), o.probabilities.as_slice()));
    Ok(Figures::of(classes, rows))
}

impl Insight {
    /// For people.
    pub fn render(&self) -> String {
        let mut out = String::new();
        match &self.judged {
            None => {
                out += "\nno worker has reported on it; have one do so with 'fleet-hub model evaluate'\n";
            }
            Some(judged) => {
                let _ = writeln!(out, "\non the gate's pictures of dataset {}:", judged.on.short());
                if let Some(base) = &judged.base {
                    let _ = writeln!(
                        out,
                        "the accuracy of its base is {:.4} ({} of {}) there",
                        base.accuracy, base.correct, base.samples
                    );
                }
                out += &judged.figures.render(&judged.labels);
            }
        }
        if !self.curve.is_empty() {
            let number = |value: Option<f32>| value.map_or("-".into(), |v| format!("{v:.4}"));
            let mut table = Table::new(&["#epoch", "#loss", "#accuracy", "#validation loss"]);
            for epoch in &self.curve {
                table.row([
                    epoch.epoch.to_string(),
                    format!("{:.4}", epoch.loss),
                    number(epoch.accuracy),
                    number(epoch.validation_loss),
                ]);
            }
            out += "\ntraining, epoch by epoch:\n";
            out += &table.render("");
        }
        out
    }
}
