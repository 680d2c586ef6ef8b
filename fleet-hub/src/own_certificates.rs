//! The hub's own certificates while it runs: issued at the start, renewed at two thirds of their
//! life.
//!
//! The three listeners and the hub's own MQTT client show the new ones from their next connection on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleetloop_protocol::UnixMillis;
use tokio::sync::watch;

use crate::listeners::{Listener, Tls};
use crate::pki::tls::{self, ClientCertificate, ClientCertificates};
use crate::pki::{OWN_DAYS, Pki, PkiError};
use crate::state::AppState;

/// How often the dates are looked at: often enough for a life of two years.
const LOOK_EVERY: Duration = Duration::from_secs(24 * 3600);

/// At this age they are renewed, in milliseconds.
const RENEW_AT_MS: u64 = OWN_DAYS * 24 * 3600 * 1000 / 3 * 2;

/// Renews what the hub shows.
pub struct OwnCertificates {
    state: AppState,
    pki: Arc<Pki>,
    /// When those that are shown were issued.
    issued: UnixMillis,
    listeners: Vec<(Tls, ClientCertificates)>,
    client: ClientCertificate,
}

impl OwnCertificates {
    /// For a hub whose certificates were issued now, and whose MQTT client shows one of them.
    pub fn new(state: &AppState, pki: &Arc<Pki>, client: ClientCertificate) -> Self {
        let issued = state.clock.now();
        let (state, pki) = (state.clone(), Arc::clone(pki));
        Self { state, pki, issued, listeners: Vec::new(), client }
    }

    /// The listener shows one, too.
    pub fn shown_by(&mut self, listener: &Listener, clients: ClientCertificates) {
        self.listeners.push((listener.certificate(), clients));
    }

    /// Renews what is due; whether anything was. A crash in between leaves files that the next start
    /// issues anew.
    ///
    /// # Errors
    /// The disk failed; what was shown before is shown on.
    pub fn look(&mut self) -> Result<bool, PkiError> {
        let now = self.state.clock.now();
        if !is_due(self.issued, now) {
            return Ok(false);
        }
        self.pki.issue_own(&self.state.config, now)?;
        for (listener, clients) in &self.listeners {
            listener.change(tls::server(&self.pki, *clients, &self.state.clock)?);
        }
        self.client.renew(&self.pki)?;
        self.issued = now;
        tracing::info!("the hub's certificates are renewed");
        Ok(true)
    }
}

/// Looks at the dates until the hub stops.
pub async fn run(own: Arc<Mutex<OwnCertificates>>, mut stopping: watch::Receiver<bool>) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        // Cancel-safe: a tick is kept, the stop stays.
        tokio::select! {
            _ = looks.tick() => {}
            () = crate::release::stopped(&mut stopping) => return,
        }
        let looked = own.lock().unwrap_or_else(PoisonError::into_inner).look();
        if let Err(error) = looked {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "cannot renew the hub's certificates; trying again tomorrow");
        }
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
