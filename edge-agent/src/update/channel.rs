//! The release channel as this device follows it: time, metadata, the hub's keys, bundles.
//!
//! Nothing is refreshed or installed while the clock is a guess: the hub's time is asked first, over
//! mutual TLS, and the clock decides whether it is believed. Orders, receipts and refusals are
//! trusted by the keys in the released target `hub-keys.json`, kept in `tuf/hub-keys.json` beside
//! the metadata that names its digest.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fleetloop_models::bundle::{Bundle, BundleError, Manifest};
use fleetloop_protocol::ClockState;
use fleetloop_protocol::Digest;
use fleetloop_protocol::hub_addresses::{HUB_ADDRESSES_BYTES, HUB_ADDRESSES_TARGET};
use fleetloop_protocol::hub_keys::{HUB_KEYS_BYTES, HUB_KEYS_TARGET, HubKeys};
use fleetloop_protocol::limits::MANIFEST_BYTES;
use fleetloop_protocol::revoked::{NewerList, REVOKED_BYTES, REVOKED_TARGET, RevokedList};
use fleetloop_protocol::state::Assignment;
use tokio::sync::watch;

use super::bundles::Bundles;
use super::error::UpdateError;
use super::http::HubHttp;
use super::revoked::{Kept, Next};
use super::tuf::{Fresh, TargetInfo, TrustedState, TufStore, Walk};
use crate::chain::chain;
use crate::clock::Clock;
use crate::identity::Identity;
use crate::{durable, home, tls};

/// The most keys a hub may have.
const HUB_KEYS: usize = 64;

/// The channel of one device; owned by the updater.
pub struct Channel {
    identity: Arc<Identity>,
    /// The digest of the addresses that were taken last, since start.
    addresses: Option<Digest>,
    http: HubHttp,
    clock: Clock,
    store: TufStore,
    trusted: TrustedState,
    bundles: Bundles,
    revoked: Kept,
    keys_file: PathBuf,
    keys: watch::Sender<Option<Arc<HubKeys>>>,
}

impl Channel {
    /// Opens the channel of `identity`. The hub's keys are known at once when they were before.
    ///
    /// # Errors
    /// [`UpdateError`] when trusted metadata is damaged.
    pub fn open(
        data_dir: &Path,
        identity: &Arc<Identity>,
        clock: &Clock,
    ) -> Result<Self, UpdateError> {
        let store = TufStore::open(data_dir)?;
        let trusted = store.load(identity)?;
        let channel = Self {
            identity: Arc::clone(identity),
            addresses: None,
            http: HubHttp::new(identity, clock)?,
            clock: clock.clone(),
            store,
            trusted,
            bundles: Bundles::new(data_dir),
            revoked: Kept::new(data_dir),
            keys_file: data_dir.join("tuf").join(HUB_KEYS_TARGET),
            keys: watch::Sender::new(None),
        };
        if let Some(bytes) = channel.kept_keys()? {
            channel.publish_keys(&bytes)?;
        }
        Ok(channel)
    }

    /// The hub's keys, once they are known.
    pub fn keys(&self) -> watch::Receiver<Option<Arc<HubKeys>>> {
        self.keys.subscribe()
    }

    /// Asks the time, walks the metadata and takes over the hub's keys and addresses. When who answers
    /// is not known to be the hub, the signed addresses are asked for without trusting anybody
    /// ([`crate::home`]); the next refresh uses what they say.
    ///
    /// Cancel-safe: what was verified but not yet kept is fetched again.
    ///
    /// # Errors
    /// [`UpdateError`] names the step; metadata verified before it stays trusted.
    pub async fn refresh(&mut self) -> Result<Fresh, UpdateError> {
        let url = self.identity.contacts().device_url();
        let refreshed = self.refresh_once().await;
        if let Err(UpdateError::Unreachable { source, .. }) = &refreshed
            && tls::handshake_failure(source).is_some_and(tls::is_unknown_hub)
        {
            self.look_for_the_hub(&url).await;
        }
        refreshed
    }

    async fn look_for_the_hub(&self, url: &str) {
        match home::ask(&self.identity, &self.trusted, &self.clock, url).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(url, "not known to be the hub, and it has no newer addresses");
            }
            Err(error) => tracing::warn!(url, reason = chain(&error), "it is not the hub"),
        }
    }

    async fn refresh_once(&mut self) -> Result<Fresh, UpdateError> {
        self.sync_clock().await?;
        let mut walk = Walk::new(self.trusted.clone(), self.clock.now());
        let walked = self.walk(&mut walk).await;
        if walk.trusted().versions() != self.trusted.versions() {
            // A power cut before this leaves the older state, which the next walk brings forward.
            self.store.save(walk.trusted())?;
            self.trusted = walk.trusted().clone();
        }
        walked?;
        let fresh = walk.finish()?;
        self.refresh_keys(&fresh).await?;
        self.refresh_addresses(&fresh).await?;
        if let Err(error) = self.refresh_revoked(&fresh).await {
            // Nothing that this device does depends on it.
            tracing::warn!(reason = chain(&error), "the list of revoked devices is not refreshed");
        }
        Ok(fresh)
    }

    /// The ordered bundle, verified through the channel, fetched if need be, and checked.
    ///
    /// Cancel-safe: what is fetched stays.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub async fn obtain(&mut self, assignment: &Assignment) -> Result<Bundle, UpdateError> {
        let fresh = self.refresh().await?;
        let target = fresh.target(&assignment.target)?;
        if target.sha256 != assignment.bundle.0 {
            return Err(UpdateError::OtherBundle {
                target: assignment.target.clone(),
                released: target.sha256,
                ordered: assignment.bundle,
            });
        }
        if self.bundles.has(assignment.bundle) {
            match self.bundles.open(assignment.bundle) {
                Ok(bundle) => return named(bundle.manifest(), &assignment.target).map(|()| bundle),
                Err(error) => {
                    tracing::warn!(
                        error = chain(&error),
                        "a kept bundle is damaged; fetching it again"
                    );
                }
            }
        }
        let manifest = self.manifest(target).await?;
        let parsed = Manifest::parse(&manifest).map_err(UpdateError::Bundle)?;
        named(&parsed, &assignment.target)?;
        self.bundles.fetch(&self.http, assignment.bundle, &manifest).await?;
        self.bundles.open(assignment.bundle).map_err(UpdateError::Bundle)
    }

    async fn manifest(&self, target: TargetInfo) -> Result<Vec<u8>, UpdateError> {
        if target.len_bytes > MANIFEST_BYTES as u64 {
            let len = usize::try_from(target.len_bytes).unwrap_or(usize::MAX);
            return Err(UpdateError::Bundle(BundleError::ManifestTooLarge { len }));
        }
        self.http.small_artefact(target.sha256, target.len_bytes).await
    }

    async fn sync_clock(&self) -> Result<(), UpdateError> {
        let hub_now = self.http.time().await?.now_ms;
        if let Err(error) = self.clock.synced(hub_now) {
            tracing::warn!(error = chain(&error), "the hub's time is not taken");
            if self.clock.state() == ClockState::Unsynced {
                return Err(UpdateError::ClockUnsynced { reason: error.to_string() });
            }
        }
        Ok(())
    }

    async fn walk(&self, walk: &mut Walk) -> Result<(), UpdateError> {
        while let Some(want) = walk.want()? {
            let bytes = self.http.metadata(&want).await?;
            walk.take(bytes)?;
        }
        Ok(())
    }

    async fn refresh_keys(&self, fresh: &Fresh) -> Result<(), UpdateError> {
        let target = fresh.target(HUB_KEYS_TARGET)?;
        if self.keys.borrow().is_some() && self.kept_keys()?.is_some() {
            return Ok(());
        }
        if target.len_bytes > HUB_KEYS_BYTES as u64 {
            return Err(UpdateError::BadAnswer {
                url: HUB_KEYS_TARGET.into(),
                reason: format!("{} bytes, the limit is {HUB_KEYS_BYTES}", target.len_bytes),
            });
        }
        let bytes = self.http.small_artefact(target.sha256, target.len_bytes).await?;
        self.publish_keys(&bytes)?;
        // A power cut before this leaves keys of another digest, which are not used; the next
        // refresh fetches these again.
        durable::write(&self.keys_file, &bytes)?;
        tracing::info!(digest = target.sha256.short(), "the hub's keys are known");
        Ok(())
    }

    async fn refresh_addresses(&mut self, fresh: &Fresh) -> Result<(), UpdateError> {
        let Ok(target) = fresh.target(HUB_ADDRESSES_TARGET) else { return Ok(()) };
        if self.addresses == Some(target.sha256) {
            return Ok(());
        }
        if target.len_bytes > HUB_ADDRESSES_BYTES as u64 {
            return Err(UpdateError::BadAnswer {
                url: HUB_ADDRESSES_TARGET.into(),
                reason: format!("{} bytes, the limit is {HUB_ADDRESSES_BYTES}", target.len_bytes),
            });
        }
        let bytes = self.http.small_artefact(target.sha256, target.len_bytes).await?;
        home::take(&self.identity, bytes).await?;
        self.addresses = Some(target.sha256);
        Ok(())
    }

    /// Keeps the newest list of revoked devices; a hub that lacks some of the kept one is shown that.
    async fn refresh_revoked(&self, fresh: &Fresh) -> Result<(), UpdateError> {
        let target = fresh.target(REVOKED_TARGET)?;
        if self.revoked.is(target.sha256) {
            return Ok(());
        }
        let bad = |reason: String| UpdateError::BadAnswer { url: REVOKED_TARGET.into(), reason };
        if target.len_bytes > REVOKED_BYTES as u64 {
            return Err(bad(format!("{} bytes, the limit is {REVOKED_BYTES}", target.len_bytes)));
        }
        let bytes = self.http.small_artefact(target.sha256, target.len_bytes).await?;
        let list: RevokedList =
            serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
        if let Next::Show(kept, missing) = self.revoked.next(&list) {
            tracing::warn!(
                missing,
                "the hub has forgotten revoked devices; it is shown their list"
            );
            self.http.show_newer(&kept).await?;
        }
        let targets = self.trusted.targets_text().unwrap_or_default();
        let list = String::from_utf8(bytes).map_err(|error| bad(error.to_string()))?;
        self.revoked.keep(&NewerList { targets, list })
    }

    /// The kept keys, when they are the ones that the trusted metadata names.
    fn kept_keys(&self) -> Result<Option<Vec<u8>>, UpdateError> {
        let Some(target) = self.trusted.target(HUB_KEYS_TARGET) else { return Ok(None) };
        let bytes = durable::read(&self.keys_file, HUB_KEYS_BYTES as u64).unwrap_or_default();
        Ok(bytes.filter(|bytes| Digest::of(bytes) == target.sha256))
    }

    fn publish_keys(&self, bytes: &[u8]) -> Result<(), UpdateError> {
        let keys: HubKeys = serde_json::from_slice(bytes).map_err(UpdateError::HubKeys)?;
        if keys.keys.len() > HUB_KEYS {
            let reason = format!("{} keys, the limit is {HUB_KEYS}", keys.keys.len());
            return Err(UpdateError::BadAnswer { url: HUB_KEYS_TARGET.into(), reason });
        }
        self.keys.send_replace(Some(Arc::new(keys)));
        Ok(())
    }
}

/// A manifest's own name must be its target's: a signature over version 3 releases version 3.
fn named(manifest: &Manifest, target: &str) -> Result<(), UpdateError> {
    let found = manifest.target_name();
    if found == target {
        return Ok(());
    }
    Err(UpdateError::OtherName { target: target.to_owned(), found })
}
