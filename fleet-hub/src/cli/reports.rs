//! `fleet-hub report …`

use fleetloop_observe::output::Output;
use fleetloop_protocol::api::reports::{AcceptRequest, ReportState, StoredReport};

use super::client::Client;
use super::human;
use super::resolve;
use super::table::Table;

/// What can be done with workers' reports.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Lists reports that contradict each other, the newest first.
    List {
        /// All reports.
        #[arg(long)]
        all: bool,
    },
    /// Decides that a report counts: those that contradict it are rejected, verdicts made by them
    /// are taken back, and held jobs go on.
    Accept {
        /// Its digest, or the beginning of it.
        report: String,
        /// Why, for the audit log.
        #[arg(long)]
        reason: String,
    },
}

/// Runs a command.
///
/// # Errors
/// The hub was not reached or refused.
pub async fn run(client: &Client, output: Output, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List { all } => {
            let found: Vec<StoredReport> =
                client.get("list reports", &format!("/reports?all={all}")).await?;
            output.print(&found, |found| list(found, all))
        }
        Command::Accept { report, reason } => {
            let digest = resolve::report(client, &report).await?;
            let operation = format!("accept report {}", digest.short());
            let path = format!("/reports/{digest}/accept");
            let found: Vec<StoredReport> =
                client.post(&operation, &path, &AcceptRequest { reason }).await?;
            output.print(&found, |found| list(found, true))
        }
    }
}

fn list(reports: &[StoredReport], all: bool) -> String {
    let mut table = Table::new(&[
        "report",
        "state",
        "model",
        "dataset",
        "#right",
        "#items",
        "worker",
        "#job",
        "runtime",
        "came (UTC)",
        "against",
    ]);
    for report in reports {
        table.row([
            report.digest.short(),
            state(report),
            report.model.clone(),
            report.dataset.short(),
            report.right.to_string(),
            report.items.to_string(),
            report.worker.clone(),
            report.job.map_or("-".into(), |job| job.0.to_string()),
            report.runtime.clone(),
            human::time(report.at_ms),
            report.against.map_or("-".into(), |digest| digest.short()),
        ]);
    }
    table.render(if all { "no reports yet" } else { "no reports contradict each other" })
}

fn state(report: &StoredReport) -> String {
    let word = match report.state {
        ReportState::Counts => "counts",
        ReportState::Disputed => "disputed",
        ReportState::Rejected => "rejected",
    };
    match &report.decided {
        Some(decision) => format!("{word} (by {})", decision.by),
        None => word.to_owned(),
    }
}
