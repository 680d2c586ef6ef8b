//! `fleet-hub model …`

use std::path::PathBuf;

use anyhow::bail;
use fleetloop_models::bundle::{Bundle, MANIFEST_FILE};
use fleetloop_observe::output::Output;
use fleetloop_protocol::api::models::{ImportModel, Model};
use fleetloop_protocol::api::reports::Verdict;

use super::client::Client;
use super::human;
use super::progress::Progress;
use super::resolve;
use super::table::{Table, facts};

/// What can be done with models.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Lists the models, the newest first.
    List,
    /// Shows one model and what its gate looked at.
    Show {
        /// Its digest, the beginning of it, or NAME/VERSION.
        bundle: String,
    },
    /// Asks the gate again, over the stored reports.
    Gate {
        /// Its digest, the beginning of it, or NAME/VERSION.
        bundle: String,
    },
    /// Brings a bundle: a folder with bundle.toml and the files it names.
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
            output.print(&models, |all| list(all))
        }
        Command::Show { bundle } => {
            let bundle = resolve::bundle(client, &bundle).await?;
            let operation = format!("show model {}", bundle.0.short());
            let model: Model = client.get(&operation, &format!("/models/{bundle}")).await?;
            output.print(&model, show)
        }
        Command::Gate { bundle } => {
            let bundle = resolve::bundle(client, &bundle).await?;
            let operation = format!("ask the gate about model {}", bundle.0.short());
            let path = format!("/models/{bundle}/gate");
            let verdict: Verdict = client.post(&operation, &path, &serde_json::json!({})).await?;
            output.print(&verdict, checks)?;
            if !verdict.passed {
                bail!("the gate refused model {}; see its checks", bundle.0.short());
            }
            Ok(())
        }
        Command::Import { dir } => {
            let bundle = Bundle::open(&dir, None)?;
            let files = bundle.files();
            let mut progress = Progress::new("uploading", files.len() as u64);
            for (path, bytes) in files {
                let operation = format!("upload {path} of {}", dir.display());
                let note = if path == MANIFEST_FILE { "manifest" } else { path };
                progress.say("uploading", note);
                client.put_artefact(&operation, bytes.to_vec()).await?;
                progress.add(1);
            }
            progress.finish();
            let operation = format!("import bundle {}", dir.display());
            let request = ImportModel { bundle: bundle.digest() };
            let model: Model = client.post(&operation, "/models", &request).await?;
            output.print(&model, show)
        }
    }
}

/// What a gate said, in a word.
pub fn verdict(model: &Model) -> &'static str {
    match &model.verdict {
        None => "not asked",
        Some(verdict) if verdict.passed => "passed",
        Some(_) => "failed",
    }
}

fn list(models: &[Model]) -> String {
    let mut table = Table::new(&["bundle", "model", "gate", "released as", "came (UTC)", "by"]);
    for model in models {
        table.row([
            model.bundle.0.short(),
            format!("{}/{}", model.name, model.version),
            verdict(model).to_owned(),
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
    let mut table = Table::new(&["check", "#found", "#at least", "passed"]);
    for check in &verdict.checks {
        table.row([
            check.name.clone(),
            format!("{:.4}", check.value),
            format!("{:.4}", check.at_least),
            if check.passed { "yes" } else { "NO" }.to_owned(),
        ]);
    }
    table.render("no checks")
}
