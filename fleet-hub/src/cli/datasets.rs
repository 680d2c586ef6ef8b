//! `fleet-hub dataset …`

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fleetloop_observe::output::Output;
use fleetloop_protocol::Digest;
use fleetloop_protocol::api::datasets::{Dataset, DatasetSummary, FreezeRequest, Frozen, Split};

use serde::Serialize;

use super::client::Client;
use super::fetch::{self, Making};
use super::human;
use super::progress::Progress;
use super::resolve;
use super::table::Table;

/// What can be done with datasets.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Freezes everything that is labelled now into a dataset with its own digest.
    Freeze {
        /// A name for people.
        name: String,
        /// The share of device samples that the gate keeps, 0 to 1, chosen by their digest.
        #[arg(long, default_value_t = 0.2)]
        gate_share: f64,
        /// Only samples of this group (fleet or import); may be given twice.
        #[arg(long, value_parser = ["fleet", "import"])]
        group: Vec<String>,
    },
    /// Lists the datasets, the newest first.
    List,
    /// Writes a dataset into a folder that 'trainer train --dataset' takes: dataset.json, which has the
    /// dataset's digest, payloads/ with its pictures, and removed.json with what was removed since.
    Export {
        /// Its digest, the beginning of it, or its name.
        dataset: String,
        /// The folder to make.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Shows what a dataset holds; with --json the dataset itself.
    Show {
        /// Its digest, the beginning of it, or its name.
        dataset: String,
    },
}

/// Runs a command.
///
/// # Errors
/// The hub was not reached or refused.
pub async fn run(client: &Client, output: Output, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Freeze { name, gate_share, group } => {
            let operation = format!("freeze dataset {name:?}");
            let request = FreezeRequest { name, gate_share, groups: group };
            let frozen: Frozen = client.post(&operation, "/datasets", &request).await?;
            output.print(&frozen, |Frozen { dataset: d, held, unreadable }| {
                let mut left_out = match held {
                    0 => String::new(),
                    held => format!(
                        "{held} labelled samples of cloned or revoked devices are left out; \
                         see 'fleet-hub device list'\n"
                    ),
                };
                for one in unreadable {
                    left_out += &format!("left out {}: {}\n", one.sample.short(), one.reason);
                }
                format!(
                    "{}\n{}: {} to train on, {} for the gate\n{left_out}",
                    d.digest, d.name, d.train, d.gate
                )
            })
        }
        Command::List => {
            let all: Vec<DatasetSummary> = client.get("list datasets", "/datasets").await?;
            output.print(&all, |all| list(all))
        }
        Command::Export { dataset, out } => export(client, output, &dataset, &out).await,
        Command::Show { dataset } => {
            let digest = resolve::dataset(client, &dataset).await?;
            let operation = format!("show dataset {}", digest.short());
            let found: Dataset = client.get(&operation, &format!("/datasets/{digest}")).await?;
            output.print(&found, show)
        }
    }
}

/// What was written.
#[derive(Debug, Serialize)]
struct Exported {
    folder: PathBuf,
    dataset: Digest,
    pictures: usize,
    removed: usize,
}

async fn export(client: &Client, output: Output, dataset: &str, out: &Path) -> anyhow::Result<()> {
    let digest = resolve::dataset(client, dataset).await?;
    let making = Making::begin(out)?;
    let operation = format!("export dataset {}", digest.short());
    let path = format!("/datasets/{digest}");
    let bytes = fetch::bytes(client, &operation, &path, digest).await?;
    let found: Dataset = serde_json::from_slice(&bytes)
        .with_context(|| format!("cannot {operation}: it is no dataset of this version"))?;
    let removed: Vec<Digest> = client.get(&operation, &format!("{path}/removed")).await?;
    let gone: HashSet<Digest> = removed.iter().copied().collect();
    let payloads: BTreeSet<Digest> = found
        .items
        .iter()
        .filter(|item| !gone.contains(&item.sample))
        .map(|item| item.payload)
        .collect();
    let mut progress = Progress::new("exporting", payloads.len() as u64);
    for payload in &payloads {
        let path = format!("/payloads/{payload}");
        let bytes = fetch::bytes(client, &operation, &path, *payload).await?;
        making.write(&format!("payloads/{payload}"), &bytes)?;
        progress.add(1);
    }
    progress.finish();
    making.write("removed.json", &serde_json::to_vec(&removed)?)?;
    making.write("dataset.json", &bytes)?;
    making.finish()?;
    let done = Exported {
        folder: out.to_owned(),
        dataset: digest,
        pictures: payloads.len(),
        removed: removed.len(),
    };
    output.print(&done, |done| {
        format!(
            "{}: dataset {}, {} pictures; train with 'trainer train --dataset {} …'\n",
            done.folder.display(),
            done.dataset,
            done.pictures,
            done.folder.display()
        )
    })
}

fn list(all: &[DatasetSummary]) -> String {
    let mut table = Table::new(&["dataset", "name", "#train", "#gate", "frozen (UTC)", "by"]);
    for d in all {
        table.row([
            d.digest.short(),
            d.name.clone(),
            d.train.to_string(),
            d.gate.to_string(),
            human::time(d.frozen_at_ms),
            d.frozen_by.clone(),
        ]);
    }
    table.render("no datasets yet; freeze one with 'fleet-hub dataset freeze NAME'")
}

fn show(dataset: &Dataset) -> String {
    let mut counts: BTreeMap<(&str, u16), (u64, u64)> = BTreeMap::new();
    for item in &dataset.items {
        let (train, gate) = counts.entry((&item.group, item.label)).or_default();
        match item.split {
            Split::Train => *train += 1,
            Split::Gate => *gate += 1,
        }
    }
    let mut table = Table::new(&["group", "label", "#train", "#gate"]);
    for ((group, label), (train, gate)) in counts {
        let name = dataset.labels.get(usize::from(label)).map_or("?", String::as_str);
        table.row([group.to_owned(), name.to_owned(), train.to_string(), gate.to_string()]);
    }
    table.render("it is empty")
}
