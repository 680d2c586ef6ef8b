//! Looks at the certificate and renews it, for as long as the link lives.

use std::sync::Arc;
use std::time::Duration;

use fleetloop_protocol::backoff::{Backoff, spread};

use super::{Due, RenewError, decide, renew, share};
use crate::chain::chain;
use crate::clock::Clock;
use crate::identity::{Identity, IdentityError};

/// How often the dates are looked at: comparing two numbers.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long nothing is asked after the hub gave a certificate or refused one. A floor that is wrong
/// by years makes every certificate look expired; so often it is renewed then.
pub const AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// Renews the certificate of one device.
pub(crate) struct Renewer {
    identity: Arc<Identity>,
    clock: Clock,
}

impl Renewer {
    pub(crate) fn new(identity: Arc<Identity>, clock: Clock) -> Self {
        Self { identity, clock }
    }

    /// Works for ever. Cancel-safe: see [`renew`].
    pub(crate) async fn run(self) {
        let mut backoff = Backoff::default();
        let mut changes = self.identity.contacts().changes();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let Some(due) = self.due() else { continue };
            let wait = match renew(&self.identity, &self.clock).await {
                Ok(life) => {
                    let ends_ms = life.not_after.0;
                    tracing::info!(?due, ends_ms, "the certificate is renewed");
                    backoff.reset();
                    AGAIN_AFTER
                }
                Err(error) => {
                    tracing::warn!(?due, reason = chain(&error), "the certificate is not renewed");
                    match error {
                        // It knows what it says no to; a hub in trouble (5xx) is asked again soon.
                        RenewError::Refused { status: 400..500, .. }
                        | RenewError::Identity(IdentityError::Durable(_)) => spread(AGAIN_AFTER),
                        _ => backoff.next_wait(),
                    }
                }
            };
            // Cancel-safe: a change is kept, and a sleep holds nothing.
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                Ok(()) = changes.changed() => {}
            }
        }
    }

    fn due(&self) -> Option<Due> {
        let newest = self.identity.contacts().known();
        let pair = self.identity.tls().borrow().clone();
        if !newest.authorities.first().is_some_and(|ca| pair.is_signed_by(ca)) {
            return Some(Due::OtherAuthority);
        }
        let life = pair.life();
        decide(life, share(self.identity.device(), life), self.clock.past())
    }
}
