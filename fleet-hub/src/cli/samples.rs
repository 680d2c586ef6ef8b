//! `fleet-hub sample …`

use fleetloop_observe::output::Output;
use fleetloop_protocol::api::labels::LabelSet;
use fleetloop_protocol::api::samples::{RemoveRequest, Sample, SampleCounts};
use fleetloop_protocol::sample::{Prediction, Selection};

use super::client::{Client, query};
use super::collect;
use super::human;
use super::import;
use super::resolve;
use super::table::{Table, facts};

/// What can be done with samples.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Lists samples, the newest first.
    List {
        /// Only those sent by devices, or only imported ones.
        #[arg(long, value_parser = ["fleet", "import"])]
        group: Option<String>,
        /// Only those that have a label (true) or have none (false).
        #[arg(long)]
        labelled: Option<bool>,
        /// How many.
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Only those stored before this sample (its digest, or the beginning of it): the last of the page
        /// before.
        #[arg(long)]
        before: Option<String>,
    },
    /// Shows one sample.
    Show {
        /// Its digest, or the beginning of it.
        sample: String,
    },
    /// Counts samples, repeats, refusals and gaps.
    Count,
    /// Removes samples for good: their pictures are erased and nothing is learned from them any more.
    /// Their signed headers and receipts stay as proof.
    Remove {
        /// The samples: their digests, or the beginnings of them.
        #[arg(required = true)]
        samples: Vec<String>,
        /// Why, in words; kept with each, and in the audit log.
        #[arg(long)]
        reason: String,
    },
    /// Brings what a replaced device could not send, from a file that 'edge-agent outbox export' wrote.
    /// Running it again brings nothing twice.
    Collect(collect::Args),
    /// Imports labelled pictures from a folder by class, or from IDX files: all or none. Running it again
    /// goes on where it was, and imports nothing twice.
    Import(import::Args),
}

/// Runs a command.
///
/// # Errors
/// The hub was not reached or refused, or the files of an import cannot be read.
pub async fn run(client: &Client, output: Output, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List { group, labelled, limit, before } => {
            let before = match before {
                Some(text) => Some(resolve::sample(client, &text).await?),
                None => None,
            };
            let query = query(&[
                ("group", group),
                ("labelled", labelled.map(|yes| yes.to_string())),
                ("limit", Some(limit.to_string())),
                ("before", before.map(|digest| digest.to_string())),
            ]);
            let samples: Vec<Sample> =
                client.get("list samples", &format!("/samples{query}")).await?;
            let labels = names(client).await?;
            output.print(&samples, |all| list(all, &labels))
        }
        Command::Show { sample } => {
            let sample = resolve::sample(client, &sample).await?;
            let operation = format!("show sample {}", sample.short());
            let found: Sample = client.get(&operation, &format!("/samples/{sample}")).await?;
            let labels = names(client).await?;
            output.print(&found, |sample| show(sample, &labels))
        }
        Command::Count => {
            let counts: SampleCounts = client.get("count samples", "/sample-counts").await?;
            output.print(&counts, count)
        }
        Command::Remove { samples, reason } => {
            let samples = resolve::samples(client, &samples).await?;
            let request = RemoveRequest { samples, reason };
            let removed: Vec<Sample> =
                client.post("remove samples", "/samples/remove", &request).await?;
            output.print(&removed, |samples| {
                let line = |sample: &Sample| format!("{} is removed\n", sample.sample.short());
                samples.iter().map(line).collect()
            })
        }
        Command::Collect(args) => collect::run(client, output, args).await,
        Command::Import(args) => import::run(client, output, args).await,
    }
}

/// What the hub's labels are called, by class.
async fn names(client: &Client) -> anyhow::Result<Vec<String>> {
    let set: LabelSet = client.get("read the labels", "/labels/set").await?;
    Ok(set.labels)
}

/// Samples as a table. `labels` are the names of the classes.
pub fn list(samples: &[Sample], labels: &[String]) -> String {
    let mut table =
        Table::new(&["sample", "from", "stored (UTC)", "chosen", "prediction", "label"]);
    for sample in samples {
        table.row([
            sample.sample.short(),
            from(sample),
            human::time(sample.stored_at_ms),
            sample.selection.as_ref().map_or("-".into(), selection),
            sample.predictions.first().map_or("-".into(), |p| prediction(p, labels)),
            label(sample),
        ]);
    }
    table.render("no such samples")
}

/// Why a sample was chosen, in a few words.
pub fn selection(selection: &Selection) -> String {
    match selection {
        Selection::Uncertain { score } => format!("uncertain {score:.2}"),
        Selection::Random { rate } => format!("random {:.1} %", f64::from(*rate) * 100.0),
    }
}

/// What the model made of a sample, by name.
pub fn prediction(prediction: &Prediction, labels: &[String]) -> String {
    let class = labels.get(usize::from(prediction.class));
    let class = class.map_or_else(|| format!("class {}", prediction.class), Clone::clone);
    format!("{class} ({:.0} %)", prediction.probability * 100.0)
}

fn show(sample: &Sample, labels: &[String]) -> String {
    let predictions: Vec<String> =
        sample.predictions.iter().map(|p| prediction(p, labels)).collect();
    let identity = sample.id.as_ref().map_or("-".into(), ToString::to_string);
    let size = human::bytes(sample.payload_len);
    let removed = sample.removed.as_ref().map(|removed| {
        format!("{} by {}: {}", human::time(removed.at_ms), removed.by, removed.reason)
    });
    facts(&[
        ("sample", sample.sample.to_string()),
        ("from", sample.group.clone()),
        ("source", sample.source.clone().unwrap_or_else(|| "-".into())),
        ("identity", identity),
        ("payload", sample.payload.to_string()),
        ("picture", format!("{}, {size}", sample.media_type.as_str())),
        ("stored", human::time(sample.stored_at_ms)),
        ("model", sample.model.map_or("-".into(), |m| m.to_string())),
        ("chosen", sample.selection.as_ref().map_or("-".into(), selection)),
        ("predictions", predictions.join(", ")),
        ("label", sample.label.clone().unwrap_or_else(|| "-".into())),
        ("removed", removed.unwrap_or_else(|| "-".into())),
    ])
}

/// Where a sample comes from: the device, or what was said when it was imported.
fn from(sample: &Sample) -> String {
    match (&sample.id, &sample.source) {
        (Some(id), _) => id.device.to_string(),
        (None, Some(source)) => format!("{}: {source}", sample.group),
        (None, None) => sample.group.clone(),
    }
}

/// A sample's label in a list, or that it was removed.
pub fn label(sample: &Sample) -> String {
    match (&sample.removed, &sample.label) {
        (Some(_), _) => "(removed)".into(),
        (None, label) => label.clone().unwrap_or_else(|| "-".into()),
    }
}

fn count(counts: &SampleCounts) -> String {
    facts(&[
        ("from devices", counts.fleet.to_string()),
        ("  labelled", counts.fleet_labelled.to_string()),
        ("imported", counts.imported.to_string()),
        ("removed", counts.removed.to_string()),
        ("duplicates", counts.repeated.to_string()),
        ("quarantined", counts.quarantined.to_string()),
        ("refused", counts.refused.to_string()),
        ("lost samples", counts.gaps.to_string()),
    ])
}
