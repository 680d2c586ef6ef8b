//! The way home when nobody that answers is known to be the hub: its CA was rotated while the device
//! was away, its certificate has ended, its name is another.
//!
//! ```text
//!  any server ─► metadata, hub-addresses.json ─► TUF walk from the roots the device trusts ─► contacts
//! ```
//!
//! Nothing that answers is trusted. Release metadata and the addresses are proven by the signatures of
//! keys that lead back to the root metadata of enrolment, so it is no matter who hands them over, or
//! which name was typed: a server without the hub's signatures gets nothing and changes nothing. What
//! is found are addresses and CAs only; nothing is installed, and the trusted metadata is kept by the
//! ordinary refresh, over a connection that is trusted again.
//!
//! Expiry is judged at a time that is certainly past ([`Clock::past`]), for who tells the time is not
//! known either. What an attacker who keeps old metadata can gain is what was signed last before the
//! device went away, never anything older than it has.

use std::path::Path;

use fleetloop_protocol::Digest;
use fleetloop_protocol::hub_addresses::{HUB_ADDRESSES_BYTES, HUB_ADDRESSES_TARGET};

use crate::clock::{Clock, ClockError};
use crate::identity::{Identity, IdentityError};
use crate::tls;
use crate::update::UpdateError;
use crate::update::http::metadata;
use crate::update::tuf::{StoreError, TrustedState, TufStore, Walk};

/// Asks the server at `url` (its device listener) for the hub's signed addresses, and takes them.
/// Returns whether they are news.
///
/// # Errors
/// [`UpdateError`] names the step; nothing changed.
pub async fn ask(
    identity: &Identity,
    trusted: &TrustedState,
    clock: &Clock,
    url: &str,
) -> Result<bool, UpdateError> {
    let client = tls::http_client(tls::untrusted_config(clock)?)?;
    let channel = format!("{}/tuf/{}", url.trim_end_matches('/'), identity.record().channel);
    let mut walk = Walk::new(trusted.clone(), clock.past());
    while let Some(want) = walk.want()? {
        let file = format!("{channel}/{}", want.file);
        walk.take(metadata(&client, &file, want.limit_bytes).await?)?;
    }
    let target = walk.finish()?.target(HUB_ADDRESSES_TARGET)?;
    let file = format!("{channel}/targets/{}.{HUB_ADDRESSES_TARGET}", target.sha256);
    let missing = || UpdateError::BadAnswer { url: file.clone(), reason: "it is missing".into() };
    let bytes = metadata(&client, &file, HUB_ADDRESSES_BYTES as u64).await?.ok_or_else(missing)?;
    let found = Digest::of(&bytes);
    if found != target.sha256 {
        return Err(UpdateError::WrongBytes { expected: target.sha256, found });
    }
    take(identity, bytes).await
}

/// Takes addresses whose digest the release metadata names.
///
/// # Errors
/// [`UpdateError::Addresses`]; nothing changed.
pub(crate) async fn take(identity: &Identity, bytes: Vec<u8>) -> Result<bool, UpdateError> {
    let contacts = identity.contacts().clone();
    let taken = tokio::task::spawn_blocking(move || contacts.take(&bytes));
    let news = taken.await.map_err(|error| UpdateError::BadAnswer {
        url: HUB_ADDRESSES_TARGET.into(),
        reason: format!("they were not kept: {error}"),
    })??;
    if news {
        let generation = identity.contacts().known().generation;
        tracing::info!(generation, "the hub's addresses are known");
    }
    Ok(news)
}

/// What a person has done on a device that did not find its hub: the address is a hint, and the
/// signatures decide.
///
/// # Errors
/// The device is not enrolled, or nobody there has its hub's signatures.
pub async fn rehome(data_dir: &Path, url: &str) -> Result<Rehomed, RehomeError> {
    let identity = Identity::load(data_dir)?;
    let clock = Clock::system(data_dir.join("clock.json"))?;
    clock.is_past(identity.tls().borrow().life().not_before);
    let trusted = TufStore::open(data_dir)?.load(&identity)?;
    let asked = ask(&identity, &trusted, &clock, url).await;
    let news = asked.map_err(|source| RehomeError::NotTheHub { url: url.to_owned(), source })?;
    let known = identity.contacts().known();
    Ok(Rehomed { news, generation: known.generation, device_urls: known.device_urls().to_vec() })
}

/// Why a device did not find its hub.
#[derive(Debug, thiserror::Error)]
pub enum RehomeError {
    /// The device is not enrolled, or its identity is broken.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The clock's floor.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// What it trusts cannot be read.
    #[error(transparent)]
    Trusted(#[from] StoreError),
    /// Who answered there is not its hub, or nobody answered.
    #[error(
        "cannot take the hub's addresses from {url}; check that it is the device listener of the \
         hub that this device enrolled with"
    )]
    NotTheHub {
        /// The address.
        url: String,
        /// Why.
        #[source]
        source: UpdateError,
    },
}

impl std::fmt::Display for Rehomed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let urls = self.device_urls.join(", ");
        if self.news {
            writeln!(f, "the hub is at {urls}; restart the agent")
        } else {
            writeln!(f, "the device knew these addresses already: {urls}")
        }
    }
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Rehomed {
    /// Whether the addresses are newer than those that the device had.
    pub news: bool,
    /// Their generation.
    pub generation: u64,
    /// The hub's device addresses.
    pub device_urls: Vec<String>,
}
