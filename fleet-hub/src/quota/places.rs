//! A bounded number of places that devices share, so that one cannot take them all.
//!
//! A device gets one more place while it holds at most half as many as are free. So one that floods
//! ends at a third of all, two at a quarter each, and a device that holds none gets one whenever any
//! is free. No device needs a share of its own in the configuration. (Choudhury and Hahne, "Dynamic
//! queue length thresholds for shared-memory packet switches", IEEE/ACM ToN 6(2), 1998.)

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleetloop_protocol::DeviceId;
use tokio::sync::Notify;

/// Places and who holds them.
pub struct Places {
    places: usize,
    taken: Mutex<Taken>,
    /// Told whenever a place comes free.
    freed: Notify,
}

#[derive(Default)]
struct Taken {
    by: HashMap<DeviceId, usize>,
    all: usize,
    closed: bool,
}

/// A place that is given back when this value goes.
pub struct Place {
    places: Arc<Places>,
    device: DeviceId,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.leave(&self.device);
    }
}

impl Places {
    /// So many places, all free.
    pub fn new(places: usize) -> Self {
        Self { places, taken: Mutex::default(), freed: Notify::new() }
    }

    /// Takes a place for `device`, if it may have one more.
    pub fn enter(&self, device: &DeviceId) -> bool {
        let mut taken = self.taken();
        let own = taken.by.get(device).copied().unwrap_or(0);
        let free = self.places.saturating_sub(taken.all);
        if taken.closed || free == 0 || own > free / 2 {
            return false;
        }
        taken.all += 1;
        taken.by.insert(device.clone(), own + 1);
        true
    }

    /// The same with a value that gives the place back.
    pub fn hold(self: &Arc<Self>, device: &DeviceId) -> Option<Place> {
        let held = self.enter(device);
        held.then(|| Place { places: Arc::clone(self), device: device.clone() })
    }

    /// Waits at most `limit` for a place; says whether there was one.
    pub async fn wait(&self, device: &DeviceId, limit: Duration) -> bool {
        let waiting = async {
            loop {
                let freed = self.freed.notified();
                let mut freed = std::pin::pin!(freed);
                // Before the look, so that a place that comes free after it is heard of.
                freed.as_mut().enable();
                if self.enter(device) {
                    return;
                }
                freed.await;
            }
        };
        // Cancel-safe: a place is taken in the last poll or not at all.
        tokio::time::timeout(limit, waiting).await.is_ok()
    }

    /// Gives a place back. One that is not held is nothing.
    pub fn leave(&self, device: &DeviceId) {
        {
            let mut taken = self.taken();
            let Some(own) = taken.by.get_mut(device) else { return };
            *own -= 1;
            if *own == 0 {
                taken.by.remove(device);
            }
            taken.all -= 1;
        }
        self.freed.notify_waiters();
    }

    /// Gives all places back: whoever held them is gone.
    pub fn clear(&self) {
        {
            let mut taken = self.taken();
            taken.by.clear();
            taken.all = 0;
        }
        self.freed.notify_waiters();
    }

    /// Lets nobody in from now on, and waits until all places are free.
    pub async fn close(&self) {
        self.taken().closed = true;
        loop {
            let freed = self.freed.notified();
            let mut freed = std::pin::pin!(freed);
            freed.as_mut().enable();
            if self.in_use() == 0 {
                return;
            }
            freed.await;
        }
    }

    /// How many are taken.
    pub fn in_use(&self) -> usize {
        self.taken().all
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
