//! How many connections the process's descriptors are enough for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::limits::ConnectionLimits;

/// Descriptors that the hub needs for itself: the database and its readers, files that are read and
/// written, its own client on both sides, the log, and connections that are just being closed.
const OWN: u64 = 128;

/// The fewest that are left for each purpose, however low the process's limit is.
const FEWEST: u64 = 16;

/// The most connections without authentication where the configuration does not say.
const UNAUTHENTICATED_MOST: u64 = 4096;

/// Descriptors that stand for "as many as one likes": a hub never comes near.
const ENDLESS: u64 = 1 << 20;

/// Who may have how many connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Descriptors of the process.
    pub descriptors: u64,
    /// Connections that have not authenticated; each costs one descriptor.
    pub unauthenticated: u64,
    /// The same of one listener.
    pub unauthenticated_per_listener: u64,
    /// The same of one address.
    pub unauthenticated_per_address: u64,
    /// Descriptors for connections that have authenticated.
    pub authenticated: u64,
    /// Connections of one device to one listener.
    pub per_device: u64,
}

impl Budget {
    /// What `limits` make of a process that may have `descriptors` open.
    pub fn new(descriptors: u64, limits: &ConnectionLimits) -> Self {
        let descriptors = match limits.descriptors {
            0 => descriptors,
            wanted => wanted.min(descriptors),
        }
        .min(ENDLESS);
        let left = descriptors.saturating_sub(OWN);
        let unauthenticated = match limits.unauthenticated {
            0 => (left / 3).min(UNAUTHENTICATED_MOST),
            wanted => wanted.min(left / 2),
        }
        .max(FEWEST);
        let half = (unauthenticated / 2).max(1);
        let per_listener = match limits.unauthenticated_per_listener {
            0 => half,
            wanted => wanted.min(unauthenticated),
        };
        Self {
            descriptors,
            unauthenticated,
            unauthenticated_per_listener: per_listener,
            unauthenticated_per_address: limits.unauthenticated_per_address.min(half),
            authenticated: left.saturating_sub(unauthenticated).max(FEWEST),
            per_device: limits.per_device,
        }
    }
}

/// Raises the soft limit of open descriptors to the hard one and returns what may be open now. The
/// soft limit of 1,024 that most systems start programs with is for programs that use `select`.
pub fn raise() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current.unwrap_or(u64::MAX);
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::warn!(%error, ?current, ?maximum, "cannot raise the limit of open descriptors");
            current.unwrap_or(u64::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn of_1024_descriptors_two_thirds_stay_for_those_who_authenticate() {
        let budget = Budget::new(1024, &ConnectionLimits::default());
        assert_eq!(budget.unauthenticated, 298);
        assert_eq!(budget.unauthenticated_per_listener, 149);
        assert_eq!(budget.unauthenticated_per_address, 149);
        assert_eq!(budget.authenticated, 598);
    }

    proptest! {
        #[test]
        fn what_is_promised_is_there(
            descriptors in 192u64..1 << 40,
            unauthenticated in prop_oneof![Just(0), 0u64..10_000],
            per_listener in prop_oneof![Just(0), 0u64..10_000],
            per_address in 1u64..10_000,
        ) {
            let limits = ConnectionLimits {
                unauthenticated,
                unauthenticated_per_listener: per_listener,
                unauthenticated_per_address: per_address,
                ..ConnectionLimits::default()
            };
            let budget = Budget::new(descriptors, &limits);
            prop_assert!(
                budget.unauthenticated + budget.authenticated + OWN <= budget.descriptors
            );
            prop_assert!(budget.unauthenticated_per_listener <= budget.unauthenticated);
            prop_assert!(budget.unauthenticated_per_address <= budget.unauthenticated_per_listener.max(budget.unauthenticated / 2));
            prop_assert!(budget.unauthenticated_per_address > 0);
        }
    }
}
