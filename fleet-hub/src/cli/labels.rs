//! `fleet-hub label …`

use fleetloop_observe::names::Names;
use fleetloop_observe::output::Output;
use fleetloop_protocol::api::labels::{ClearRequest, LabelQueue, LabelRequest, LabelSet};
use fleetloop_protocol::api::samples::Sample;

use super::client::Client;
use super::{resolve, samples};

/// What can be done with labels.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Lists what to label next, the most useful first.
    Queue {
        /// How many.
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Says what a sample shows. Saying it again replaces the label; the history is kept.
    Set {
        /// The sample: its digest, or the beginning of it.
        sample: String,
        /// One of the hub's labels.
        label: String,
    },
    /// Withdraws the labels of samples: they have none then. The history is kept.
    Clear {
        /// The samples: their digests, or the beginnings of them.
        #[arg(required = true)]
        samples: Vec<String>,
    },
    /// Lists the hub's labels, or adds some at the end.
    Names {
        /// Labels to add, separated by commas; one that holds a comma stands in double quotes.
        #[arg(long)]
        add: Option<Names>,
    },
}

/// Runs a command.
///
/// # Errors
/// The hub was not reached or refused.
pub async fn run(client: &Client, output: Output, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Queue { limit } => {
            let path = format!("/labels/queue?limit={limit}");
            let queue: LabelQueue = client.get("read the label queue", &path).await?;
            output.print(&queue, show_queue)
        }
        Command::Set { sample, label } => {
            let sample = resolve::sample(client, &sample).await?;
            let operation = format!("label sample {}", sample.short());
            let request = LabelRequest { sample, label };
            let sample: Sample = client.post(&operation, "/labels", &request).await?;
            output.print(&sample, |sample| {
                let label = sample.label.as_deref().unwrap_or("-");
                format!("{} is {label}\n", sample.sample.short())
            })
        }
        Command::Clear { samples } => {
            let samples = resolve::samples(client, &samples).await?;
            let request = ClearRequest { samples };
            let cleared: Vec<Sample> =
                client.post("clear labels", "/labels/clear", &request).await?;
            output.print(&cleared, |samples| {
                let line = |sample: &Sample| format!("{} has no label\n", sample.sample.short());
                samples.iter().map(line).collect()
            })
        }
        Command::Names { add } => {
            let mut set: LabelSet = client.get("read the labels", "/labels/set").await?;
            if let Some(Names(add)) = add {
                set.labels.extend(add);
                set = client.put("add labels", "/labels/set", &set).await?;
            }
            output.print(&set, names)
        }
    }
}

fn show_queue(queue: &LabelQueue) -> String {
    if queue.samples.is_empty() {
        return "nothing waits for a label\n".into();
    }
    format!(
        "{}\n{} wait; label one with 'fleet-hub label set SAMPLE LABEL', labels: {}\n",
        samples::list(&queue.samples, &queue.labels),
        queue.waiting,
        queue.labels.join(", ")
    )
}

fn names(set: &LabelSet) -> String {
    set.labels
        .iter()
        .enumerate()
        .fold(String::new(), |out, (i, name)| out + &format!("{i}  {name}\n"))
}
