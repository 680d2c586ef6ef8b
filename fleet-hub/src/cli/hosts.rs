//! `fleet-hub host …` and `fleet-hub access …`

use std::path::Path;

use anyhow::Context as _;
use fleetloop_observe::output::Output;
use fleetloop_protocol::api::ApiAccess;
use fleetloop_protocol::api::hosts::{AddHost, AdminAddress, Hosts, Retire};

use super::client::Client;
use super::table::Table;
use crate::durable::{self, Access};

/// What can be done with the hub's names.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Lists the names, and the devices that do not know the newest ones.
    List,
    /// Adds a name by which the hub is reached; it takes effect at the next start.
    Add {
        /// A host name or an address.
        host: String,
    },
    /// Takes a name away, once all devices know the others; it takes effect at the next start.
    Retire {
        /// The name.
        host: String,
        /// Why not to wait for devices that do not know the newest addresses yet; those are brought
        /// back with 'edge-agent rehome'.
        #[arg(long, value_name = "REASON")]
        without_waiting: Option<String>,
    },
}

/// What can be done with an access file.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum AccessCommand {
    /// Asks the hub for its newest address and CA, and writes them into the access file.
    Refresh,
}

/// Runs a command.
///
/// # Errors
/// The hub was not reached or refused.
pub async fn run(client: &Client, output: Output, command: Command) -> anyhow::Result<()> {
    let hosts: Hosts = match command {
        Command::List => client.get("list the hub's names", "/hosts").await?,
        Command::Add { host } => {
            client.post(&format!("add host {host}"), "/hosts", &AddHost { host }).await?
        }
        Command::Retire { host, without_waiting } => {
            let operation = format!("retire host {host}");
            let request = Retire { host: Some(host), without_waiting };
            client.post(&operation, "/hosts/retire", &request).await?
        }
    };
    output.print(&hosts, describe)
}

/// Brings the access file at `path` up to date.
///
/// # Errors
/// The hub was not reached; the file cannot be written.
pub async fn refresh(client: &Client, output: Output, path: &Path) -> anyhow::Result<()> {
    let newest: AdminAddress =
        client.get("ask for the newest address and CA", "/hosts/admin").await?;
    let failed = || format!("cannot refresh access file {}", path.display());
    let text = std::fs::read_to_string(path).with_context(failed)?;
    let before: ApiAccess = toml::from_str(&text).with_context(failed)?;
    let after = ApiAccess { url: newest.url.clone(), ca_pem: newest.ca_pem.clone(), ..before };
    let text = toml::to_string(&after).with_context(failed)?;
    durable::write(path, text.as_bytes(), Access::Owner).with_context(failed)?;
    output.print(&newest, |newest| format!("{} now names {}\n", path.display(), newest.url))
}

fn describe(hosts: &Hosts) -> String {
    let mut table = Table::new(&["host", "state"]);
    for (at, host) in hosts.hosts.iter().enumerate() {
        let state = match (hosts.published.contains(host), at) {
            (false, _) => "from the next start on",
            (true, 0) => "primary",
            (true, _) => "in use",
        };
        table.row([host.clone(), state.to_owned()]);
    }
    for host in hosts.published.iter().filter(|host| !hosts.hosts.contains(host)) {
        table.row([host.clone(), "retired from the next start on".to_owned()]);
    }
    let mut text = table.render("no names");
    if hosts.restart {
        text.push_str("\nRestart the hub, so that the names take effect.\n");
    }
    if hosts.waiting.is_empty() {
        text.push_str("\nEvery enrolled device knows the newest addresses.\n");
        return text;
    }
    let mut waiting = Table::new(&["device", "name", "lacks"]);
    for device in &hosts.waiting {
        waiting.row([device.device.to_string(), device.name.clone(), device.lacks.clone()]);
    }
    text.push('\n');
    text.push_str(&waiting.render(""));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whether_it_is_served_and_a_device_what_it_lacks() {
        use fleetloop_protocol::api::hosts::WaitingDevice;
        let waiting = WaitingDevice {
            device: "dev-a".parse().unwrap(),
            name: "press 7".into(),
            generation: 3,
            lacks: "the newest addresses".into(),
        };
        let hosts = Hosts {
            hosts: vec!["new.example".into(), "newer.example".into()],
            published: vec!["new.example".into(), "old.example".into()],
            generation: 4,
            restart: true,
            waiting: vec![waiting],
        };
        let text = describe(&hosts);
        for line in [
            "new.example    primary",
            "newer.example  from the next start on",
            "old.example    retired from the next start on",
            "Restart the hub",
            "dev-a   press 7  the newest addresses",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
