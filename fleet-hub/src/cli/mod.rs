//! The admin's command line: everything the API can do, over the API, with a token.
//!
//! Nothing here touches the hub's files, so it runs on any machine that holds an access file. With
//! `--json` each command prints the API's document, one; without it, tables. Progress and errors go
//! to stderr. Exit status: 0 done, 1 not done (the error says what and why), 2 asked wrongly.

pub mod backup;
pub mod client;
pub mod collect;
pub mod datasets;
pub mod devices;
pub mod drift;
pub mod fetch;
pub mod findings;
pub mod hosts;
pub mod human;
pub mod import;
pub mod imports;
pub mod insight;
pub mod keys;
pub mod labels;
pub mod models;
pub mod progress;
pub mod releases;
pub mod reports;
pub mod resolve;
pub mod rollouts;
pub mod samples;
pub mod status;
pub mod table;
pub mod tokens;
pub mod training;

use std::path::PathBuf;

use fleetloop_observe::output::Output;

use client::Client;

/// How the hub is reached, and how its answers are printed.
#[derive(Debug, Clone, clap::Args)]
pub struct Access {
    /// The access file that 'fleet-hub init' wrote: admin.toml, annotator.toml …
    #[arg(long, env = "FLEET_HUB_ACCESS", global = true, value_name = "FILE")]
    access: Option<PathBuf>,
    /// Prints the API's answer as one JSON document.
    #[arg(long, global = true)]
    json: bool,
}

impl Access {
    /// How answers are printed.
    pub fn output(&self) -> Output {
        Output::with_json(self.json)
    }
}

/// What an admin, or whoever labels, asks of a hub.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// How the hub is, in numbers.
    Status,
    /// Devices: let in, look at, shut out.
    #[command(subcommand)]
    Device(devices::Command),
    /// Findings: what the hub noticed and an operator should know.
    #[command(subcommand)]
    Finding(findings::Command),
    /// Compares what devices meet with what their models were made for.
    Drift(drift::Args),
    /// Samples: what devices sent, what was imported.
    #[command(subcommand)]
    Sample(samples::Command),
    /// Imports: what 'sample import' brought, and taking it back.
    #[command(subcommand)]
    Import(imports::Command),
    /// Labels: what to label next, what a sample shows.
    #[command(subcommand)]
    Label(labels::Command),
    /// Frozen datasets.
    #[command(subcommand)]
    Dataset(datasets::Command),
    /// Training jobs.
    #[command(subcommand)]
    Train(training::Command),
    /// Models that the hub holds.
    #[command(subcommand)]
    Model(models::Command),
    /// Workers' reports on models, and deciding between those that contradict each other.
    #[command(subcommand)]
    Report(reports::Command),
    /// Signed releases.
    #[command(subcommand)]
    Release(releases::Command),
    /// Rollouts to devices.
    #[command(subcommand)]
    Rollout(rollouts::Command),
    /// Tokens: who may ask this hub for what.
    #[command(subcommand)]
    Token(tokens::Command),
    /// Keys: what each signs, when it ends; renewed and rotated.
    #[command(subcommand)]
    Key(keys::Command),
    /// The hub's names: added before devices need them, retired when none does.
    #[command(subcommand)]
    Host(hosts::Command),
    /// The access file itself.
    #[command(subcommand)]
    Access(hosts::AccessCommand),
    /// Copies the database, the CA, the hub's keys and its configuration into one file.
    Backup(backup::Args),
}

/// A command that was asked for in a way that cannot be meant.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// The exit status for an error: 2 for [`Usage`], else 1.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<Usage>() { 2 } else { 1 }
}

/// Runs one command to its end.
///
/// # Errors
/// The access file, the hub or the command's input; the first sentence names the operation.
pub async fn run(access: Access, command: Command) -> anyhow::Result<()> {
    let output = access.output();
    let path = access.access.ok_or_else(|| {
        Usage("no access file: name one with --access FILE or FLEET_HUB_ACCESS; 'fleet-hub init' wrote admin.toml beside the hub's data".into())
    })?;
    let client = Client::open(&path)?;
    match command {
        Command::Status => status::run(&client, output).await,
        Command::Device(command) => devices::run(&client, output, command).await,
        Command::Finding(command) => findings::run(&client, output, command).await,
        Command::Drift(args) => drift::run(&client, output, args).await,
        Command::Sample(command) => samples::run(&client, output, command).await,
        Command::Import(command) => imports::run(&client, output, command).await,
        Command::Label(command) => labels::run(&client, output, command).await,
        Command::Dataset(command) => datasets::run(&client, output, command).await,
        Command::Train(command) => training::run(&client, output, command).await,
        Command::Model(command) => models::run(&client, output, command).await,
        Command::Report(command) => reports::run(&client, output, command).await,
        Command::Release(command) => releases::run(&client, output, command).await,
        Command::Rollout(command) => rollouts::run(&client, output, command).await,
        Command::Token(command) => tokens::run(&client, output, command).await,
        Command::Key(command) => {
            keys::run(&client, output, command, &crate::clock::Clock::system()).await
        }
        Command::Host(command) => hosts::run(&client, output, command).await,
        Command::Access(hosts::AccessCommand::Refresh) => {
            hosts::refresh(&client, output, &path).await
        }
        Command::Backup(args) => backup::run(&client, output, args).await,
    }
}
