//! `fleet-hub dataset …`

use std::collections::BTreeMap;

use fleetloop_observe::output::Output;
use fleetloop_protocol::api::datasets::{Dataset, DatasetSummary, FreezeRequest, Frozen, Split};

use super::client::Client;
use super::human;
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
            output.print(&frozen, |Frozen { dataset: d, held }| {
                let left_out = match held {
                    0 => String::new(),
                    held => format!(
                        "{held} labelled samples of cloned or revoked devices are left out; \
                         see 'fleet-hub device list'\n"
                    ),
                };
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
        Command::Show { dataset } => {
            let digest = resolve::dataset(client, &dataset).await?;
            let operation = format!("show dataset {}", digest.short());
            let found: Dataset = client.get(&operation, &format!("/datasets/{digest}")).await?;
            output.print(&found, show)
        }
    }
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
