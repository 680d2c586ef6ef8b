//! `fleet-hub import …`: what was imported, and taking an import back.

use fleetloop_observe::output::Output;
use fleetloop_protocol::api::datasets::Split;
use fleetloop_protocol::api::imports::{Import, RemoveImport};

use super::client::Client;
use super::human;
use super::table::{Table, facts};

/// What can be done with imports.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Lists the imports that 'sample import' made, the newest first.
    List,
    /// Shows one import.
    Show {
        /// Its number.
        import: u64,
    },
    /// Removes an import: pictures that no other import has are erased, and the labels that it gave count
    /// no more. Frozen datasets keep their digests.
    Remove {
        /// Its number.
        import: u64,
        /// Why, in words; kept with it, and in the audit log.
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
        Command::List => {
            let all: Vec<Import> = client.get("list imports", "/imports").await?;
            output.print(&all, |all| list(all))
        }
        Command::Show { import } => {
            let operation = format!("show import {import}");
            let found: Import = client.get(&operation, &format!("/imports/{import}")).await?;
            output.print(&found, show)
        }
        Command::Remove { import, reason } => {
            let operation = format!("remove import {import}");
            let path = format!("/imports/{import}/remove");
            let removed: Import = client.post(&operation, &path, &RemoveImport { reason }).await?;
            output.print(&removed, show)
        }
    }
}

const fn split(import: &Import) -> &'static str {
    match import.split {
        Split::Train => "train",
        Split::Gate => "gate",
    }
}

fn state(import: &Import) -> String {
    import.removed.as_ref().map_or("-".into(), |removed| {
        format!("{} by {}: {}", human::time(removed.at_ms), removed.by, removed.reason)
    })
}

fn list(all: &[Import]) -> String {
    let mut table =
        Table::new(&["#import", "source", "for", "#pictures", "when (UTC)", "by", "removed"]);
    for one in all {
        table.row([
            one.id.to_string(),
            one.source.clone(),
            split(one).to_owned(),
            one.pictures.to_string(),
            human::time(one.at_ms),
            one.by.clone(),
            state(one),
        ]);
    }
    table.render("no imports yet; bring pictures with 'fleet-hub sample import --folder DIR'")
}

fn show(import: &Import) -> String {
    facts(&[
        ("import", import.id.to_string()),
        ("source", import.source.clone()),
        ("for", split(import).to_owned()),
        ("pictures", import.pictures.to_string()),
        ("when", format!("{} by {}", human::time(import.at_ms), import.by)),
        ("removed", state(import)),
    ])
}
