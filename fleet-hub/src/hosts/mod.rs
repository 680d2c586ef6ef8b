//! The hub's names: added, published, retired.
//!
//! ```text
//! host add ─► hub.toml ─► restart: certificate and hub-addresses.json name it ─► devices report it
//! host retire ─► (all enrolled devices reported it) ─► hub.toml ─► restart: it is gone
//! ```
//!
//! `hub.toml` is the truth; a start publishes it ([`crate::published`]). A name that devices use is
//! not taken from them: retiring waits until each enrolled device has reported the newest addresses,
//! or the admin says why not to wait.

pub mod http;
pub mod name;
mod waiting;

use std::sync::Arc;

use fleetloop_protocol::api::hosts::Hosts;
use fleetloop_protocol::limits::shorten;
use serde::Deserialize;

use crate::AppState;
use crate::config::{Config, ConfigError, FILE};
use crate::durable::{self, Access};
use crate::pki::Pki;
use crate::published::Documents;
use crate::release::{ReleaseError, Repository};
use crate::store::{StoreError, audit};

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// It does not fit what is configured.
    #[error("cannot {verb} {host:?}: {reason}")]
    NotThis {
        /// What was asked.
        verb: &'static str,
        /// For which name.
        host: String,
        /// Why not, and what instead.
        reason: String,
    },
    /// The configuration cannot be read, or would not be one.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration cannot be written.
    #[error("cannot write {FILE}; is the data directory the hub's own?")]
    Write(#[source] std::io::Error),
    /// The release repository.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The names, and who does not know the newest ones.
///
/// # Errors
/// A file or the database failed.
pub async fn known(state: &AppState, pki: &Arc<Pki>) -> Result<Hosts, ReleaseError> {
    let config = Arc::clone(&state.config);
    let read = tokio::task::spawn_blocking(move || {
        let documents = Documents::read(&Repository::open(&config.paths.tuf())?)?;
        // One that cannot be read is named by `add` and by the next start.
        let configured =
            Config::load(&config.paths.data).map_or_else(|_| vec![], |on_disk| on_disk.hosts);
        Ok::<_, ReleaseError>((documents.addresses, configured))
    });
    let (addresses, configured) = read.await.map_err(|_| ReleaseError::Panicked)??;
    let (generation, pki) = (addresses.generation, Arc::clone(pki));
    let waiting = state.store.read(move |c| waiting::list(c, generation, &pki)).await?;
    let published = state.config.hosts.clone();
    let restart = configured != published || addresses.device_urls != state.config.device_urls();
    Ok(Hosts { hosts: configured, published, generation, restart, waiting })
}

/// Why devices that do not know the newest addresses or CA are waited for.
pub fn waits(count: usize) -> String {
    format!(
        "{count} enrolled devices do not know the newest addresses and CA yet (see 'fleet-hub host \
         list'); wait for them, revoke those that are gone, or say why not with --without-waiting"
    )
}

/// Adds a name; the next start serves and publishes it.
///
/// # Errors
/// It is no name, or there already; the file cannot be written.
pub async fn add(state: &AppState, host: &str, who: &str) -> Result<(), HostError> {
    let not_this = |reason: &str| HostError::NotThis {
        verb: "add host",
        host: shorten(host),
        reason: reason.to_owned(),
    };
    let host = &name::normal(host).map_err(|why| not_this(&format!("it {why}")))?;
    let mut hosts = Config::load(&state.config.paths.data)?.hosts;
    if hosts.contains(host) {
        return Err(not_this("the configuration has it; restart the hub, so that it takes effect"));
    }
    hosts.push(host.clone());
    replace(state, &hosts)?;
    note(state, who, "host.add", host, String::new()).await
}

/// Retires a name; from the next start on the hub is not reached by it.
///
/// # Errors
/// It is the last one, or not there; devices are waited for; the file cannot be written.
pub async fn retire(
    state: &AppState,
    pki: &Arc<Pki>,
    host: &str,
    without_waiting: Option<&str>,
    who: &str,
) -> Result<(), HostError> {
    let not_this = |reason: String| {
        Err(HostError::NotThis { verb: "retire host", host: shorten(host), reason })
    };
    let known = known(state, pki).await?;
    let host = &*name::normal(host).unwrap_or_else(|_| host.to_owned());
    let left: Vec<String> = known.hosts.iter().filter(|name| *name != host).cloned().collect();
    if left.len() == known.hosts.len() {
        return not_this("the configuration does not have it; see 'fleet-hub host list'".into());
    }
    if left.is_empty() {
        return not_this("it is the only one; add another first: fleet-hub host add NAME".into());
    }
    let reason = without_waiting.map(str::trim).filter(|reason| !reason.is_empty()).map(shorten);
    if known.restart && reason.is_none() {
        return not_this("names wait for a restart to be published; restart the hub first".into());
    }
    let detail = match (reason, known.waiting.len()) {
        (Some(reason), count) => format!("without waiting for {count} devices: {reason}"),
        (None, 0) => String::new(),
        (None, count) => return not_this(waits(count)),
    };
    replace(state, &left)?;
    note(state, who, "host.retire", host, detail).await
}

/// Writes the names into `hub.toml`, in the place of those there, and leaves the rest as it is.
fn replace(state: &AppState, hosts: &[String]) -> Result<(), HostError> {
    #[derive(Deserialize)]
    struct Place {
        hosts: toml::Spanned<Vec<String>>,
    }
    let data = &state.config.paths.data;
    let path = data.join(FILE);
    let text = std::fs::read_to_string(&path).map_err(HostError::Write)?;
    let parse = |source| ConfigError::Parse { path: path.clone(), source: Box::new(source) };
    let place: Place = toml::from_str(&text).map_err(parse)?;
    let names: Vec<String> = hosts.iter().map(|host| format!("{host:?}")).collect();
    let mut next = text;
    next.replace_range(place.hosts.span(), &format!("[{}]", names.join(", ")));
    Config::parse(data, &next)?;
    durable::write(&path, next.as_bytes(), Access::Everybody).map_err(HostError::Write)
}

async fn note(
    state: &AppState,
    who: &str,
    action: &'static str,
    host: &str,
    detail: String,
) -> Result<(), HostError> {
    let (who, host) = (who.to_owned(), shorten(host));
    Ok(state.store.write(move |tx| audit(tx, &who, action, &host, &detail)).await?)
}
