//! What every handler and driver of the hub shares; cheap to clone, owns nothing that runs.

use std::sync::Arc;

use fleetloop_protocol::{DeviceId, Digest, state::Desired, state::Reported};
use tokio::sync::{broadcast, mpsc, watch};

use crate::clock::Clock;
use crate::config::Config;
use crate::door::Watch;
use crate::last_use::LastUse;
use crate::pki::Pki;
use crate::quota::Quotas;
use crate::status::Vitals;
use crate::store::Store;
use crate::store::payloads::Blobs;
use crate::store::uploads::Uploads;

/// Events kept for a listener that is behind. One that falls further behind hears `Lagged` and looks
/// at the store instead, which is the truth; the events only say when to look.
pub const EVENTS: usize = 1024;

/// Orders that wait for the MQTT link. A full queue makes the asker wait; nothing is lost by a
/// restart, for a device's next report asks again.
pub const ORDERS: usize = 64;

/// Something happened that others may want to look at.
#[derive(Debug, Clone)]
pub enum HubEvent {
    /// A device's signed report is stored.
    Reported {
        /// Which device.
        device: DeviceId,
        /// What it said.
        reported: Reported,
    },
    /// A device's telemetry is stored.
    TelemetryStored {
        /// Which device.
        device: DeviceId,
    },
    /// A sample is stored.
    SampleStored {
        /// Its name.
        sample: Digest,
    },
    /// A device may connect from now on.
    DeviceEnrolled {
        /// Which device.
        device: DeviceId,
    },
    /// A device may never connect again; its session is kicked by whoever hears this.
    DeviceRevoked {
        /// Which device.
        device: DeviceId,
    },
}

/// The way to hand a device an order: signed and sent by the MQTT link.
#[derive(Debug, Clone)]
pub struct DesiredPublisher {
    queue: mpsc::Sender<(DeviceId, Desired)>,
}

impl DesiredPublisher {
    /// A publisher and the end that the link reads.
    pub fn channel() -> (Self, mpsc::Receiver<(DeviceId, Desired)>) {
        let (queue, orders) = mpsc::channel(ORDERS);
        (Self { queue }, orders)
    }

    /// Hands the order over. It was persisted before, so losing it costs a minute at most: the
    /// device's next report shows an older generation and the link sends it again.
    pub async fn publish(&self, device: DeviceId, desired: Desired) {
        if self.queue.send((device, desired)).await.is_err() {
            tracing::debug!("the MQTT link is stopping; the order goes out after the next start");
        }
    }
}

/// The hub's shared state.
#[derive(Clone)]
pub struct AppState {
    /// The configuration, validated.
    pub config: Arc<Config>,
    /// The database.
    pub store: Store,
    /// Payloads of samples.
    pub payloads: Blobs,
    /// Payloads that came before their samples.
    pub uploads: Uploads,
    /// Model files, datasets, reports, released targets.
    pub artefacts: Blobs,
    /// The time.
    pub clock: Clock,
    /// The keys and certificates that this process works with.
    pub pki: Arc<Pki>,
    /// Tells who listens that something happened.
    pub events: broadcast::Sender<HubEvent>,
    /// Sends devices their orders.
    pub desired: DesiredPublisher,
    /// Becomes true once, when the hub stops.
    pub stopping: watch::Receiver<bool>,
    /// When tokens were last used.
    pub last_use: LastUse,
    /// Counts wrong credentials.
    pub watch: Watch,
    /// What the running parts show of themselves.
    pub vitals: Vitals,
    /// What one device may cost.
    pub quotas: Quotas,
}

impl AppState {
    /// Says that something happened. Nobody listening is fine.
    pub fn tell(&self, event: HubEvent) {
        let _ = self.events.send(event);
    }
}
