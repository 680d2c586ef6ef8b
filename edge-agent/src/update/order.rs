//! The hub's last order: what it was, and whether it was given up. Pure decisions, one document.
//!
//! Invariant: the generation never goes down. It is on the disk before the order is acted upon
//! (`update/order.{0,1}`, two generations of the document), so a replayed older order is refused
//! after a power cut too. An order that was given up is not tried again under the same generation;
//! the hub orders it anew when it wants another try.

use std::path::Path;

use fleetloop_protocol::state::{Assignment, Desired, Update};
use fleetloop_protocol::{BundleDigest, Generation};
use serde::{Deserialize, Serialize};

use super::error::UpdateError;
use crate::durable::{self, Slots};

/// The largest document, in bytes.
const ORDER_BYTES: u64 = 16 * 1024;

/// The last order and what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Its place among all orders.
    pub generation: Generation,
    /// What to run; none leaves the device as it is.
    pub assignment: Option<Assignment>,
    /// Why it was given up, if it was.
    pub given_up: Option<String>,
}

/// What an order that arrives means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// Older than what is known.
    Stale,
    /// Known already.
    Known,
    /// New: to be persisted, then carried out.
    New(Order),
}

impl Order {
    /// What `desired` means to a device that knows `self`.
    pub fn receive(&self, desired: Desired) -> Received {
        if desired.generation < self.generation {
            return Received::Stale;
        }
        if desired.generation == self.generation && desired.assignment == self.assignment {
            return Received::Known;
        }
        Received::New(Self {
            generation: desired.generation,
            assignment: desired.assignment,
            given_up: None,
        })
    }

    /// What is to be installed on a device that runs `running`, if anything.
    pub fn to_do(&self, running: Option<BundleDigest>) -> Option<&Assignment> {
        let assignment = self.assignment.as_ref()?;
        (self.given_up.is_none() && running != Some(assignment.bundle)).then_some(assignment)
    }

    /// What to report of it.
    pub fn update(&self, running: Option<BundleDigest>) -> Update {
        match (&self.assignment, &self.given_up) {
            (Some(assignment), Some(reason)) => {
                Update::Failed { bundle: assignment.bundle, reason: reason.clone() }
            }
            (Some(assignment), None) if running != Some(assignment.bundle) => {
                Update::Installing { bundle: assignment.bundle }
            }
            _ => Update::Idle,
        }
    }
}

/// Where the order lies.
#[derive(Debug)]
pub struct OrderStore {
    slots: Slots,
    dir: std::path::PathBuf,
}

impl OrderStore {
    /// The store under `data_dir`; the folder is made.
    ///
    /// # Errors
    /// [`UpdateError::Durable`].
    pub fn open(data_dir: &Path) -> Result<Self, UpdateError> {
        let dir = data_dir.join("update");
        durable::create_dir(&dir)?;
        Ok(Self { slots: Slots::new(&dir, "order", ORDER_BYTES), dir })
    }

    /// The last order; generation 0 without an assignment when there was none.
    ///
    /// # Errors
    /// [`UpdateError`] when both generations of the document are damaged.
    pub fn load(&self) -> Result<Order, UpdateError> {
        let Some((_, body)) = self.slots.read()? else { return Ok(Order::default()) };
        serde_json::from_slice(&body).map_err(|error| UpdateError::Record {
            path: self.dir.join("order"),
            reason: error.to_string(),
        })
    }

    /// Keeps the order.
    ///
    /// # Errors
    /// [`UpdateError`]; the order before is then still there.
    pub fn save(&self, order: &Order) -> Result<(), UpdateError> {
        let body = serde_json::to_vec(order).map_err(|error| UpdateError::Record {
            path: self.dir.join("order"),
            reason: error.to_string(),
        })?;
        self.slots.write(&body)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetloop_protocol::{Digest, UnixMillis};

    fn bundle(name: &str) -> BundleDigest {
        BundleDigest(Digest::of(name.as_bytes()))
    }

    fn desired(generation: u64, name: Option<&str>) -> Desired {
        Desired {
            generation: Generation(generation),
            at: UnixMillis(0),
            assignment: name.map(|name| Assignment {
                target: format!("{name}/1/bundle.toml"),
                bundle: bundle(name),
            }),
        }
    }

    fn received(order: &Order, desired: Desired) -> Order {
        match order.receive(desired) {
            Received::New(order) => order,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_older_order_is_refused_and_the_same_one_changes_nothing() {
        let order = received(&Order::default(), desired(5, Some("wear")));
        assert_eq!(order.receive(desired(4, Some("old"))), Received::Stale);
        assert_eq!(order.receive(desired(5, Some("wear"))), Received::Known);
        assert_eq!(received(&order, desired(6, None)).assignment, None);
    }

    #[test]
    fn what_was_given_up_is_tried_again_under_a_new_generation_only() {
        let mut order = received(&Order::default(), desired(5, Some("wear")));
        assert!(order.to_do(None).is_some());
        assert!(order.to_do(Some(bundle("wear"))).is_none());
        order.given_up = Some("golden case 3 is off".into());
        assert!(order.to_do(None).is_none());
        assert!(matches!(order.update(None), Update::Failed { .. }));
        assert_eq!(order.receive(desired(5, Some("wear"))), Received::Known);
        let again = received(&order, desired(6, Some("wear")));
        assert!(again.to_do(None).is_some());
        assert!(matches!(again.update(None), Update::Installing { .. }));
    }

    #[test]
    fn an_order_without_an_assignment_leaves_the_device_as_it_is() {
        let order = received(&Order::default(), desired(1, None));
        assert!(order.to_do(Some(bundle("wear"))).is_none());
        assert_eq!(order.update(Some(bundle("wear"))), Update::Idle);
    }

    #[test]
    fn the_generation_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let order = received(&Order::default(), desired(9, Some("wear")));
        OrderStore::open(dir.path()).unwrap().save(&order).unwrap();
        let again = OrderStore::open(dir.path()).unwrap().load().unwrap();
        assert_eq!(again, order);
        assert_eq!(again.receive(desired(8, Some("wear"))), Received::Stale);
    }
}
