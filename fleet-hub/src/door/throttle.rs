//! How late the answer to a wrong credential is: a pure state machine over injected time.
//!
//! The first [`FREE`] wrong credentials of an address, or for an account, are answered at once.
//! From then on the answer is "later": wait [`FIRST`], doubled with each further one, at most
//! [`LONGEST`]. One failure is forgiven every [`FORGIVEN`]. IPv6 addresses count by /64, which is
//! what one customer holds.
//!
//! Nothing here refuses a right credential, so an attacker locks nobody out, neither behind the same
//! address (NAT, loopback) nor by naming somebody else's account. Memory: at most [`BUCKETS`]
//! addresses and accounts, about 1 MB; beyond, the half that failed longest ago is forgotten.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use fleetloop_protocol::Digest;

/// Wrong credentials that are answered at once.
pub const FREE: u32 = 10;

/// The wait after one more.
pub const FIRST: Duration = Duration::from_secs(1);

/// The longest wait.
pub const LONGEST: Duration = Duration::from_secs(60);

/// The time after which one failure is forgiven.
pub const FORGIVEN: Duration = Duration::from_secs(10);

/// Addresses and accounts that are remembered.
pub const BUCKETS: usize = 8192;

/// Failures that count at most: whoever stops is as good as new after four minutes and a half.
const MOST: u32 = FREE + 16;

/// An address as failures are counted by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network(IpAddr);

impl Network {
    /// The network that an address is counted as: itself, or the /64 of an IPv6 address. An IPv4
    /// address written as IPv6 is the IPv4 address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) if !v6.is_loopback() => {
                let [a, b, c, d, ..] = v6.segments();
                Self(IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)))
            }
            other => Self(other),
        }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            IpAddr::V6(v6) if !v6.is_loopback() => write!(f, "{v6}/64"),
            other => write!(f, "{other}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Network(Network),
    Account(Digest),
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    failures: u32,
    /// When the failures were last counted; a part of [`FORGIVEN`] that has passed since stays.
    at: Instant,
}

/// What failed, by address and account.
#[derive(Debug, Default)]
pub struct Throttle {
    buckets: HashMap<Key, Bucket>,
}

impl Throttle {
    /// Counts a wrong credential and says how long whoever sent it has to wait before the next try;
    /// zero for the first few. The account is what the credential claimed, where it claims one.
    pub fn failed(&mut self, now: Instant, from: Network, account: Option<Digest>) -> Duration {
        let by_address = self.count(now, Key::Network(from));
        let by_account = account.map_or(0, |account| self.count(now, Key::Account(account)));
        wait(by_address.max(by_account))
    }

    fn count(&mut self, now: Instant, key: Key) -> u32 {
        if self.buckets.len() >= BUCKETS && !self.buckets.contains_key(&key) {
            self.forget_half();
        }
        let bucket = self.buckets.entry(key).or_insert(Bucket { failures: 0, at: now });
        let passed = now.saturating_duration_since(bucket.at).as_secs() / FORGIVEN.as_secs();
        let forgiven = u32::try_from(passed).unwrap_or(u32::MAX);
        bucket.at = if forgiven >= bucket.failures { now } else { bucket.at + FORGIVEN * forgiven };
        bucket.failures = bucket.failures.saturating_sub(forgiven).saturating_add(1).min(MOST);
        bucket.failures
    }

    /// Keeps the half that failed last. Half at a time, so that a flood of addresses does not make
    /// every failure look through all of them.
    fn forget_half(&mut self) {
        let mut times: Vec<Instant> = self.buckets.values().map(|bucket| bucket.at).collect();
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable(middle);
        let median = *median;
        self.buckets.retain(|_, bucket| bucket.at > median);
    }

    /// How many addresses and accounts are remembered.
    pub fn remembered(&self) -> usize {
        self.buckets.len()
    }
}

fn wait(failures: u32) -> Duration {
    match failures.checked_sub(FREE + 1) {
        None => Duration::ZERO,
        Some(over) => FIRST.saturating_mul(1u32.checked_shl(over).unwrap_or(u32::MAX)).min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network(last: u8) -> Network {
        Network::of(IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn the_wait_grows_from_the_eleventh_failure_and_time_forgives() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let waits: Vec<u64> =
            (0..20).map(|_| throttle.failed(start, network(1), None).as_secs()).collect();
        assert_eq!(waits[..10], [0; 10]);
        assert_eq!(waits[10..], [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
        assert_eq!(throttle.failed(start, network(2), None), Duration::ZERO, "another address");
        let later = start + FORGIVEN * 15;
        assert_eq!(throttle.failed(later, network(1), None), Duration::ZERO, "20 - 15 + 1");
    }

    #[test]
    fn an_account_is_slowed_from_however_many_addresses() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let account = Some(Digest::of(b"dev-a"));
        let waits: Vec<u64> =
            (0..12).map(|i| throttle.failed(start, network(i), account).as_secs()).collect();
        assert_eq!(waits[9..], [0, 1, 2]);
        assert_eq!(throttle.failed(start, network(100), None), Duration::ZERO);
    }

    #[test]
    fn a_program_with_an_old_token_that_asks_every_ten_seconds_is_never_slowed() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        for i in 0..1000 {
            assert_eq!(throttle.failed(start + FORGIVEN * i, network(1), None), Duration::ZERO);
        }
    }

    #[test]
    fn an_ipv6_address_counts_by_its_network_and_a_mapped_one_as_itself() {
        let of = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), network(1));
        assert_ne!(of("::ffff:10.0.0.1"), of("::ffff:10.0.0.2"));
        assert_eq!(of("2001:db8::1").to_string(), "2001:db8::/64");
        assert_eq!(of("::1").to_string(), "::1");
    }

    #[test]
    fn a_flood_of_addresses_takes_bounded_memory_and_forgets_the_oldest_first() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        for i in 0..200_000u32 {
            let address = Network::of(IpAddr::from(i.to_be_bytes()));
            throttle.failed(start + Duration::from_millis(i.into()), address, None);
            assert!(throttle.remembered() <= BUCKETS);
        }
        let (newest, end) = (Network::of(IpAddr::from(199_999u32.to_be_bytes())), start);
        let end = end + Duration::from_millis(199_999);
        let waits: Vec<_> = (0..10).map(|_| throttle.failed(end, newest, None)).collect();
        assert_eq!(waits[9], FIRST, "the newest is remembered");
    }

    #[test]
    fn a_flood_within_one_instant_takes_bounded_memory_too() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        for i in 0..50_000u32 {
            throttle.failed(start, Network::of(IpAddr::from(i.to_be_bytes())), None);
        }
        assert!(throttle.remembered() <= BUCKETS);
    }

    proptest! {
        #[test]
        fn whatever_fails_and_whenever_the_wait_has_its_bounds(
            steps in prop::collection::vec((0u64..100_000, 0u8..4, any::<bool>()), 1..200),
        ) {
            let (mut throttle, mut now) = (Throttle::default(), Instant::now());
            for (ms, last, named) in steps {
                now += Duration::from_millis(ms);
                let wait = throttle.failed(now, network(last), named.then(|| Digest::of(b"x")));
                prop_assert!(wait.is_zero() || (FIRST..=LONGEST).contains(&wait));
            }
        }
    }
}
