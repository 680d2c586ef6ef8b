//! `fleet-hub release …`

use fleetloop_observe::output::Output;
use fleetloop_protocol::api::models::{Release, ReleaseRequest};

use super::client::Client;
use super::human;
use super::resolve;
use super::table::Table;

/// What can be done with releases.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Signs a bundle into a channel, so that devices accept it.
    Publish {
        /// Its digest, the beginning of it, or NAME/VERSION.
        bundle: String,
        /// The channel.
        #[arg(long, default_value = "dev")]
        channel: String,
        /// Releases although no gate passed it; the reason is kept in the audit log.
        #[arg(long, value_name = "REASON")]
        without_gate: Option<String>,
        /// Releases a bundle of which the gate says that it has too few pictures to judge it.
        #[arg(long)]
        accept_few: bool,
    },
    /// Lists the releases, the newest first.
    List,
}

/// Runs a command.
///
/// # Errors
/// The hub was not reached or refused.
pub async fn run(client: &Client, output: Output, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Publish { bundle, channel, without_gate, accept_few } => {
            let bundle = resolve::bundle(client, &bundle).await?;
            let operation = format!("release {} to {channel}", bundle.0.short());
            let request = ReleaseRequest { bundle, channel, without_gate, accept_few };
            let release: Release = client.post(&operation, "/releases", &request).await?;
            output.print(&release, |r| {
                format!("released {} as {}/{}\n", r.bundle.0.short(), r.channel, r.target)
            })
        }
        Command::List => {
            let all: Vec<Release> = client.get("list releases", "/releases").await?;
            output.print(&all, |all| list(all))
        }
    }
}

fn list(all: &[Release]) -> String {
    let mut table = Table::new(&["channel", "target", "bundle", "released (UTC)", "by"]);
    for release in all {
        table.row([
            release.channel.clone(),
            release.target.clone(),
            release.bundle.0.short(),
            human::time(release.released_at_ms),
            release.released_by.clone(),
        ]);
    }
    table.render("no releases yet; 'fleet-hub release publish BUNDLE' makes one")
}
