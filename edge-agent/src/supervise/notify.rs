//! sd_notify(3), by `sd-notify`: one datagram for each message, none without `NOTIFY_SOCKET`.
//!
//! A status may hold words from the hub or from a model; a newline in it would be another message, so it
//! is escaped. A message that cannot be sent is logged and forgotten: the manager draws its own conclusions from
//! a silence.

use std::time::Duration;

use fleetloop_observe::text::visible;
use sd_notify::NotifyState;

use super::Manager;
use crate::reload::Announce;

/// The service manager that started this process, if there is one. Agents speak to it by way of
/// their [`super::Member`].
#[derive(Debug, Clone, Copy)]
pub struct ToServiceManager;

impl Manager for ToServiceManager {
    fn ready(&self, status: &str) {
        send(&[NotifyState::Ready, NotifyState::Status(&visible(status))]);
    }

    fn alive(&self) {
        send(&[NotifyState::Watchdog]);
    }

    fn status(&self, status: &str) {
        send(&[NotifyState::Status(&visible(status))]);
    }
}

impl Announce for ToServiceManager {
    fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "cannot tell when a reload began"),
        }
    }

    fn reloaded(&self) {
        send(&[NotifyState::Ready]);
    }
}

/// The end begins.
pub fn stopping() {
    send(&[
        NotifyState::Stopping,
        NotifyState::Status("stopping: what is there is finished first"),
    ]);
}

/// How long the manager waits for a sign of life before it ends the process, if it does.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|watchdog| !watchdog.is_zero())
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager does not listen");
    }
}
