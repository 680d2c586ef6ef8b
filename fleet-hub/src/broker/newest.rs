//! The newest session of each client id.
//!
//! The broker ends a session when its client id connects again, and closes the connection before it says
//! why: its DISCONNECT never arrives. A device must know, for it may be that another one uses its identity.
//! So the relay notes here which session is the newest, and says it for the broker.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

type Taken = Arc<AtomicBool>;

/// Sessions by client id, at most as many as there are connections.
#[derive(Debug, Clone, Default)]
pub(super) struct Newest(Arc<Mutex<HashMap<String, Taken>>>);

/// A session that was the newest of its client id when it began.
#[derive(Debug)]
pub(super) struct Turn {
    newest: Newest,
    name: String,
    taken: Taken,
}

impl Newest {
    /// A session of `name` begins, before the broker hears of it.
    pub(super) fn begin(&self, name: &str) -> Turn {
        let taken = Taken::default();
        if let Some(before) = self.all().insert(name.to_owned(), taken.clone()) {
            before.store(true, Ordering::Release);
        }
        Turn { newest: self.clone(), name: name.to_owned(), taken }
    }

    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<String, Taken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Whether another session of the same client id has begun since.
    pub(super) fn is_over(&self) -> bool {
        self.taken.load(Ordering::Acquire)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut all = self.newest.all();
        if all.get(&self.name).is_some_and(|newest| Arc::ptr_eq(newest, &self.taken)) {
            all.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_over_when_the_same_client_begins_another_and_nothing_stays_behind() {
        let newest = Newest::default();
        let (first, other) = (newest.begin("dev-a"), newest.begin("dev-b"));
        assert!(!first.is_over());
        let second = newest.begin("dev-a");
        assert!(first.is_over() && !second.is_over() && !other.is_over());
        drop(first);
        assert!(!second.is_over(), "the end of the old one changes nothing");
        drop((second, other));
        assert!(newest.all().is_empty());
    }
}
