//! `fleet-hub key …`
//!
//! What the root key signs is signed here, on the machine where the medium is: the hub gives public
//! keys and takes signed documents, and never sees the root key.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fleetloop_observe::output::Output;
use fleetloop_protocol::api::hosts::Retire;
use fleetloop_protocol::api::keys::{KeyName, KeyState, NextKey, RootChain, SignedRoot};
use fleetloop_protocol::keys::PublicKey;
use tough::schema::RoleType;

use super::client::Client;
use super::table::Table;
use super::{Usage, human};
use crate::clock::Clock;
use crate::release::medium::Medium;

/// The hub's clock and the one here may differ by so much, in milliseconds.
const CLOCKS_MS: u64 = 24 * 60 * 60 * 1000;

/// What can be done with keys.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Lists every key: what it signs, where it is kept, when it ends, what to do next.
    List,
    /// Begins the life of a key's metadata, or of the key, again.
    Renew {
        /// root, targets, snapshot, timestamp, receipt or assignment.
        key: KeyName,
        /// The folder with the root key; needed for root.
        #[arg(long, value_name = "PATH")]
        offline_keys: Option<PathBuf>,
    },
    /// Draws another key and lets it take the place of the one before, which is accepted for a while.
    Rotate {
        /// root, targets, snapshot, timestamp, receipt, assignment or ca.
        key: KeyName,
        /// The folder with the root key; needed for root, targets, snapshot and timestamp.
        #[arg(long, value_name = "PATH")]
        offline_keys: Option<PathBuf>,
    },
    /// Ends a rotation of the CA: the one before is not accepted any more.
    Retire {
        /// ca
        key: KeyName,
        /// Why not to wait for devices that do not know the next CA yet; they must find the hub by
        /// its signed metadata, or are brought back with 'edge-agent rehome'.
        #[arg(long, value_name = "REASON")]
        without_waiting: Option<String>,
    },
}

/// Runs a command.
///
/// # Errors
/// The hub was not reached or refused; the medium does not belong to it.
pub async fn run(
    client: &Client,
    output: Output,
    command: Command,
    clock: &Clock,
) -> anyhow::Result<()> {
    let keys = match command {
        Command::List => client.get("list the hub's keys", "/keys").await?,
        Command::Renew { key, offline_keys } => match (key, offline_keys) {
            (KeyName::Root, Some(dir)) => sign_root(client, &dir, None, clock).await?,
            (KeyName::Root, None) => return Err(needs_medium("renew", key)),
            _ => post(client, "renew", key).await?,
        },
        Command::Rotate { key, offline_keys } => match (offline(key), offline_keys) {
            (Some(role), Some(dir)) => sign_root(client, &dir, Some((key, role)), clock).await?,
            (Some(_), None) => return Err(needs_medium("rotate", key)),
            (None, _) => post(client, "rotate", key).await?,
        },
        Command::Retire { key: KeyName::Ca, without_waiting } => {
            let request = Retire { host: None, without_waiting };
            client.post("retire the CA", "/keys/ca/retire", &request).await?
        }
        Command::Retire { key, .. } => {
            return Err(Usage(format!("cannot retire key {key}: only ca is retired")).into());
        }
    };
    output.print(&keys, |keys: &Vec<KeyState>| table(keys))
}

fn needs_medium(verb: &str, key: KeyName) -> anyhow::Error {
    let text = format!(
        "cannot {verb} key {key}: the root key signs it; name its folder with --offline-keys PATH"
    );
    Usage(text).into()
}

async fn post(client: &Client, verb: &str, key: KeyName) -> anyhow::Result<Vec<KeyState>> {
    let path = format!("/keys/{key}/{verb}");
    Ok(client.post(&format!("{verb} key {key}"), &path, &serde_json::json!({})).await?)
}

/// The role whose key the root names.
const fn offline(key: KeyName) -> Option<RoleType> {
    match key {
        KeyName::Root => Some(RoleType::Root),
        KeyName::Targets => Some(RoleType::Targets),
        KeyName::Snapshot => Some(RoleType::Snapshot),
        KeyName::Timestamp => Some(RoleType::Timestamp),
        _ => None,
    }
}

/// Signs the next root, with another key for one role or the same keys. Safe to run again after a cut
/// at any moment: see [`crate::release::medium`].
async fn sign_root(
    client: &Client,
    dir: &Path,
    rotate: Option<(KeyName, RoleType)>,
    clock: &Clock,
) -> anyhow::Result<Vec<KeyState>> {
    let medium = Medium::open(dir)?;
    let mut roots = chain(client, clock).await?;
    let lacking = medium.meet(&roots)?;
    if !lacking.is_empty() {
        eprintln!("the hub lacks {} roots of the medium; handing them over", lacking.len());
        for root in lacking {
            hand_over(client, root).await?;
        }
        roots = chain(client, clock).await?;
        medium.meet(&roots)?;
    }
    let keys: Vec<(RoleType, PublicKey)> = match rotate {
        Some((key, role)) if role != RoleType::Root => {
            let path = format!("/keys/{key}/next");
            let operation = format!("have the hub make the next {key} key");
            let next: NextKey = client.post(&operation, &path, &serde_json::json!({})).await?;
            vec![(role, next.public_key)]
        }
        _ => Vec::new(),
    };
    let new_root_key = matches!(rotate, Some((_, RoleType::Root)));
    let signed = medium.sign_next(&roots, keys, new_root_key, clock.now())?;
    let listed = hand_over(client, signed).await?;
    medium.meet(&chain(client, clock).await?)?;
    if new_root_key {
        eprintln!(
            "the new root key is in {}; copy it to the other media, then destroy the one before",
            dir.display()
        );
    }
    Ok(listed)
}

async fn chain(client: &Client, clock: &Clock) -> anyhow::Result<Vec<Vec<u8>>> {
    let chain: RootChain = client.get("ask for the root metadata", "/keys/roots").await?;
    let here = clock.now();
    if here.0.abs_diff(chain.now_ms) > CLOCKS_MS {
        let (hub, here) = (human::time(chain.now_ms), human::time(here.0));
        anyhow::bail!(
            "cannot sign: the hub's clock says {hub} UTC, the one here {here} UTC; set the wrong one"
        );
    }
    Ok(chain.roots.into_iter().map(String::into_bytes).collect())
}

async fn hand_over(client: &Client, root: Vec<u8>) -> anyhow::Result<Vec<KeyState>> {
    let root = String::from_utf8(root).context("cannot hand over root metadata: not UTF-8")?;
    Ok(client.post("hand over root metadata", "/keys/roots", &SignedRoot { root }).await?)
}

fn table(keys: &[KeyState]) -> String {
    let mut table = Table::new(&["key", "signs", "kept in", "#version", "ends (UTC)", "", "next"]);
    for key in keys {
        table.row([
            key.key.to_string(),
            key.signs.clone(),
            key.kept.clone(),
            key.version.map_or("-".into(), |version| version.to_string()),
            human::time(key.ends_ms),
            if key.warns { "!" } else { "" }.to_owned(),
            key.next.clone(),
        ]);
    }
    table.render("no keys")
}
