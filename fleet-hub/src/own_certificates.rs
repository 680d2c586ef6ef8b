//! The hub's own certificates while it runs: issued at the start, renewed at two thirds of their
//! life.
//!
//! The two HTTPS listeners show the new certificate from their next connection on. The embedded
//! broker and the hub's own MQTT client read theirs once, at the start, and cannot be given another:
//! a hub that ran for the whole life of its certificates ([`OWN_DAYS`]) without a restart would lose
//! its devices on MQTT. From two thirds on its log asks for a restart, every day.

use std::sync::Arc;
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use fleetloop_protocol::UnixMillis;
use tokio::sync::watch;

use crate::listeners::Listener;
use crate::pki::tls::{self, ClientCertificates};
use crate::pki::{OWN_DAYS, Pki, PkiError};
use crate::state::AppState;

/// How often the dates are looked at: often enough for a life of two years.
const LOOK_EVERY: Duration = Duration::from_secs(24 * 3600);

/// At this age they are renewed, in milliseconds.
const RENEW_AT_MS: u64 = OWN_DAYS * 24 * 3600 * 1000 / 3 * 2;

/// Renews what the listeners show.
pub struct OwnCertificates {
    state: AppState,
    pki: Arc<Pki>,
    /// What the broker shows since the start.
    started: UnixMillis,
    /// When the listeners' was issued.
    issued: UnixMillis,
    listeners: [(RustlsConfig, ClientCertificates); 2],
}

impl OwnCertificates {
    /// For listeners whose certificates were issued now.
    pub fn new(state: &AppState, pki: &Arc<Pki>, admin: &Listener, devices: &Listener) -> Self {
        let now = state.clock.now();
        Self {
            state: state.clone(),
            pki: Arc::clone(pki),
            started: now,
            issued: now,
            listeners: [
                (admin.certificate(), ClientCertificates::NotAsked),
                (devices.certificate(), ClientCertificates::Asked),
            ],
        }
    }

    /// Looks at the dates until the hub stops.
    pub async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            // Cancel-safe: a tick is kept, the stop stays.
            tokio::select! {
                _ = looks.tick() => {}
                () = crate::release::stopped(&mut stopping) => return,
            }
            if let Err(error) = self.look() {
                let error: &dyn std::error::Error = &error;
                tracing::error!(
                    error,
                    "cannot renew the hub's certificates; trying again tomorrow"
                );
            }
            if is_due(self.started, self.state.clock.now()) {
                tracing::warn!(
                    "the broker still shows the certificate of the hub's start; restart the hub"
                );
            }
        }
    }

    /// Renews what is due. A crash in between leaves files that the next start issues anew.
    fn look(&mut self) -> Result<(), PkiError> {
        let now = self.state.clock.now();
        if !is_due(self.issued, now) {
            return Ok(());
        }
        self.pki.issue_own(&self.state.config, now)?;
        for (listener, clients) in &self.listeners {
            let config = tls::server(&self.pki, *clients, &self.state.clock)?;
            listener.reload_from_config(Arc::new(config));
        }
        self.issued = now;
        tracing::info!("the hub's certificates are renewed");
        Ok(())
    }
}

/// Whether a certificate issued at `issued` is to be renewed at `now`.
fn is_due(issued: UnixMillis, now: UnixMillis) -> bool {
    now.0.saturating_sub(issued.0) >= RENEW_AT_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hubs_certificates_are_renewed_at_two_thirds_and_not_before() {
        let issued = UnixMillis(1_790_000_000_000);
        assert!(!is_due(issued, UnixMillis(issued.0 + RENEW_AT_MS - 1)));
        assert!(is_due(issued, UnixMillis(issued.0 + RENEW_AT_MS)));
        assert!(!is_due(issued, UnixMillis(0)), "a clock that was set back renews nothing");
    }
}
