//! `fleet-hub model …`

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use fleetloop_models::bundle::{Bundle, MANIFEST_FILE, Manifest};
use fleetloop_observe::output::Output;
use fleetloop_protocol::api::jobs::{EvaluateRequest, Job};
use fleetloop_protocol::api::models::{Compared, ImportModel, Model};
use fleetloop_protocol::api::reports::{
    Check, Counts, GateRequest, Interval, Outcome, Paired, Verdict,
};
use fleetloop_protocol::{BundleDigest, Digest};
use serde::Serialize;

use super::client::Client;
use super::fetch::{self, Making};
use super::human;
use super::insight;
use super::progress::Progress;
use super::resolve;
use super::table::{Table, facts};
use super::training;
use crate::gate;

/// The file beside a bundle that says how it was made.
const RUN_RECORD: &str = "run-record.json";

/// What can be done with models.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Lists the models, the newest first.
    List,
    /// Shows one model: where it came from, its training's curve, its figures by class with the confusion
    /// matrix and its base's figure beside them, and what its gate looked at.
    Show {
        /// Its digest, the beginning of it, NAME/VERSION, or NAME for the newest version.
        bundle: String,
    },
    /// Has a worker judge a model by a dataset's gate pictures, an imported one too; 'model gate' decides by
    /// that afterwards.
    Evaluate {
        /// Its digest, the beginning of it, NAME/VERSION, or NAME for the newest version.
        bundle: String,
        /// The frozen dataset: its digest, the beginning of it, or its name.
        #[arg(long)]
        dataset: String,
        /// Waits until it is judged.
        #[arg(long)]
        wait: bool,
    },
    /// Writes a model's bundle into a folder, with its run record: what 'model import' and 'trainer' take.
    Export {
        /// Its digest, the beginning of it, NAME/VERSION, or NAME for the newest version.
        bundle: String,
        /// The folder to make.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Asks the gate again, over the stored reports.
    Gate {
        /// Its digest, the beginning of it, NAME/VERSION, or NAME for the newest version.
        bundle: String,
        /// The accuracy that it must reach over all pictures, from 0 to 1. Without it a first model must
        /// be better than always answering the most frequent class.
        #[arg(long)]
        floor: Option<f64>,
    },
    /// Brings a bundle: a folder with bundle.toml and the files it names. What 'trainer train' wrote keeps its
    /// base, its dataset and its run record.
    Import {
        /// The folder.
        dir: PathBuf,
    },
}

/// Runs a command.
///
/// # Errors
/// The hub was not reached or refused, or the folder is no bundle.
pub async fn run(client: &Client, output: Output, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List => {
            let models: Vec<Model> = client.get("list models", "/models").await?;
            let compared: Vec<Compared> = client.get("compare models", "/models/compared").await?;
            output.print(&models, |all| list(all, &compared))
        }
        Command::Show { bundle } => {
            let bundle = resolve::bundle(client, &bundle).await?;
            let operation = format!("show model {}", bundle.0.short());
            let model: Model = client.get(&operation, &format!("/models/{bundle}")).await?;
            let found = insight::of(client, model).await?;
            output.print(&found, |found| show(&found.model) + &found.render())
        }
        Command::Evaluate { bundle, dataset, wait } => {
            evaluate(client, output, &bundle, &dataset, wait).await
        }
        Command::Export { bundle, out } => export(client, output, &bundle, &out).await,
        Command::Gate { bundle, floor } => {
            let bundle = resolve::bundle(client, &bundle).await?;
            let operation = format!("ask the gate about model {}", bundle.0.short());
            let path = format!("/models/{bundle}/gate");
            let verdict: Verdict = client.post(&operation, &path, &GateRequest { floor }).await?;
            output.print(&verdict, checks)?;
            let model = bundle.0.short();
            match verdict.outcome {
                Outcome::Passed => Ok(()),
                Outcome::TooFew => bail!(
                    "the gate has too few pictures to judge model {model}: label or import more of \
                     them, or release it with --accept-few"
                ),
                Outcome::Failed => bail!("the gate refused model {model}; see its checks"),
            }
        }
        Command::Import { dir } => import(client, output, &dir).await,
    }
}

async fn import(client: &Client, output: Output, dir: &Path) -> anyhow::Result<()> {
    let bundle = Bundle::open(dir, None)?;
    let files = bundle.files();
    let record = dir.join(RUN_RECORD);
    let record = match std::fs::read(&record) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        read => Some(read.with_context(|| format!("cannot read {}", record.display()))?),
    };
    let mut progress = Progress::new("uploading", files.len() as u64);
    let mut run_record = None;
    if let Some(bytes) = record {
        serde_json::from_slice::<insight::RunRecord>(&bytes).with_context(|| {
            format!(
                "cannot import {}: its {RUN_RECORD} is not one of 'trainer train'",
                dir.display()
            )
        })?;
        let operation = format!("upload {RUN_RECORD} of {}", dir.display());
        run_record = Some(client.put_artefact(&operation, bytes).await?);
    }
    for (path, bytes) in files {
        let operation = format!("upload {path} of {}", dir.display());
        let note = if path == MANIFEST_FILE { "manifest" } else { path };
        progress.say("uploading", note);
        client.put_artefact(&operation, bytes.to_vec()).await?;
        progress.add(1);
    }
    progress.finish();
    let operation = format!("import bundle {}", dir.display());
    let request = ImportModel { bundle: bundle.digest(), run_record };
    let model: Model = client.post(&operation, "/models", &request).await?;
    output.print(&model, show)
}

async fn evaluate(
    client: &Client,
    output: Output,
    bundle: &str,
    dataset: &str,
    wait: bool,
) -> anyhow::Result<()> {
    let bundle = resolve::bundle(client, bundle).await?;
    let request = EvaluateRequest { dataset: resolve::dataset(client, dataset).await? };
    let operation = format!("evaluate model {}", bundle.0.short());
    let path = format!("/models/{bundle}/evaluate");
    let mut job: Job = client.post(&operation, &path, &request).await?;
    if !wait {
        return output.print(&job, training::show);
    }
    job = training::wait(client, job.id).await?;
    training::ended_well(&job)?;
    let model: Model = client.get(&operation, &format!("/models/{bundle}")).await?;
    let found = insight::on(client, model, request.dataset).await?;
    output.print(&found, insight::Insight::render)
}

/// What was written.
#[derive(Debug, Serialize)]
struct Exported {
    folder: PathBuf,
    bundle: BundleDigest,
}

async fn export(client: &Client, output: Output, bundle: &str, out: &Path) -> anyhow::Result<()> {
    let bundle = resolve::bundle(client, bundle).await?;
    let operation = format!("export model {}", bundle.0.short());
    let model: Model = client.get(&operation, &format!("/models/{bundle}")).await?;
    let making = Making::begin(out)?;
    let artefact = async |digest: Digest| {
        fetch::bytes(client, &operation, &format!("/artefacts/{digest}"), digest).await
    };
    let manifest = artefact(bundle.0).await?;
    for file in &Manifest::parse(&manifest)?.files {
        making.write(&file.path, &artefact(file.sha256).await?)?;
    }
    if let Some(record) = model.run_record {
        making.write(RUN_RECORD, &artefact(record).await?)?;
    }
    making.write(MANIFEST_FILE, &manifest)?;
    making.finish()?;
    let done = Exported { folder: out.to_owned(), bundle };
    output.print(&done, |done| {
        format!("{}: {}/{}, bundle {bundle}\n", done.folder.display(), model.name, model.version)
    })
}

/// What a gate said, in a word.
pub fn verdict(model: &Model) -> &'static str {
    model.verdict.as_ref().map_or("not asked", |verdict| gate::word(verdict.outcome))
}

/// A share with its counts and where it lies: `0.843 (91 of 108; 0.762 to 0.900)`.
pub fn share(counts: Counts, interval: Interval) -> String {
    let Counts { good, of } = counts;
    let Interval { low, high } = interval;
    format!("{:.3} ({good} of {of}; {low:.3} to {high:.3})", counts.share())
}

/// What a check rests on, in words; empty of what is only counted.
pub fn basis(check: &Check) -> String {
    let Some(basis) = &check.basis else { return String::new() };
    let found = share(basis.counts, basis.interval);
    let Some(paired) = &basis.paired else { return found };
    let Paired { base, won, lost, change, p_value } = paired;
    format!(
        "{found}; base {:.3} on the same, {won} won, {lost} lost, change {:+.3} to {:+.3}, p {p_value:.3}",
        base.share(),
        change.low,
        change.high
    )
}

fn list(models: &[Model], compared: &[Compared]) -> String {
    // The one figure that may be compared: on the pictures that every version of a name was judged by.
    let mut table = Table::new(&[
        "bundle",
        "model",
        "gate",
        "on the same pictures",
        "released as",
        "came (UTC)",
        "by",
    ]);
    for model in models {
        let figure = compared.iter().find(|one| one.bundle == model.bundle);
        table.row([
            model.bundle.0.short(),
            format!("{}/{}", model.name, model.version),
            verdict(model).to_owned(),
            figure.map_or("-".into(), |one| share(one.counts, one.interval)),
            if model.released_as.is_empty() { "-".into() } else { model.released_as.join(", ") },
            human::time(model.created_at_ms),
            model.created_by.clone(),
        ]);
    }
    table.render("no models yet; train one with 'fleet-hub train start' or bring one with 'fleet-hub model import'")
}

fn show(model: &Model) -> String {
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    let mut out = facts(&[
        ("bundle", model.bundle.to_string()),
        ("model", format!("{}/{}", model.name, model.version)),
        ("trained from", text(model.base.map(|b| b.to_string()))),
        ("dataset", text(model.dataset.map(|d| d.to_string()))),
        ("run record", text(model.run_record.map(|d| d.to_string()))),
        ("job", text(model.job.map(|j| j.0.to_string()))),
        ("gate", verdict(model).to_owned()),
        ("released as", model.released_as.join(", ")),
        ("came", format!("{} by {}", human::time(model.created_at_ms), model.created_by)),
    ]);
    if let Some(verdict) = &model.verdict {
        out.push('\n');
        out.push_str(&checks(verdict));
    }
    out
}

fn checks(verdict: &Verdict) -> String {
    let mut table = Table::new(&["check", "#found", "#at least", "outcome", "rests on"]);
    for check in &verdict.checks {
        table.row([
            check.name.clone(),
            format!("{:.4}", check.value),
            format!("{:.4}", check.at_least),
            match check.outcome {
                Outcome::Passed => "passed",
                Outcome::TooFew => "TOO FEW",
                Outcome::Failed => "FAILED",
            }
            .to_owned(),
            basis(check),
        ]);
    }
    table.render("no checks")
}
