//! A job's life as pure state: who holds it, until when, and how it ended.
//!
//! ```text
//!  Queued ──lease──► Leased ──done──► Done ◄─────────────┐
//!             ▲        │ ├────failed─► Failed ◄──────────┤
//!             └─ ends ─┘ └────hold───► Held ──an operator decides
//!              (the last attempt ends: Failed)
//! ```
//!
//! A worker is heard when it names the job's last lease, which only the hub and that worker know, and
//! calls with the token that the lease was given to ([`Claim`]). A lease that ran out makes the job
//! leasable again, but its holder may still finish as long as nobody else took it: work that is done is
//! not thrown away. What comes under a lease that was replaced is refused. Finishing twice with the same
//! outcome is allowed, for answers get lost.

use fleetloop_protocol::api::jobs::{JobState, LEASE_S};
use fleetloop_protocol::{BundleDigest, Digest, UnixMillis};
use serde::{Deserialize, Serialize};

/// How often a job is leased before it is given up: a job that kills its worker must not do so for
/// ever.
pub const MOST_ATTEMPTS: u32 = 5;

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Phase {
    /// Waits for a worker.
    Queued,
    /// A worker holds it, or was lost with it.
    Leased {
        /// Names this lease.
        lease: String,
        /// The worker's name, as it says itself.
        worker: String,
        /// The name of the token that it was given to.
        holder: String,
        /// When the lease ends unless it is renewed.
        until: UnixMillis,
    },
    /// Done, and its result is held until an operator decides which of two reports counts.
    Held {
        /// The lease under which it was done.
        lease: String,
        /// The token under which it was done.
        holder: String,
        /// The new bundle.
        bundle: BundleDigest,
        /// What the worker said, [`Done`](fleetloop_protocol::api::jobs::Done) as JSON, an artefact.
        result: Digest,
        /// What contradicts what, in words.
        reason: String,
    },
    /// Done.
    Done {
        /// The lease under which it was done.
        lease: String,
        /// The token under which it was done.
        holder: String,
        /// The new bundle.
        bundle: BundleDigest,
    },
    /// Given up.
    Failed {
        /// The lease under which it failed.
        lease: String,
        /// The token under which it failed.
        holder: String,
        /// Why, in words.
        reason: String,
    },
}

/// Which worker speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim<'a> {
    /// The lease that it names.
    pub lease: &'a str,
    /// The name of the token that it calls with.
    pub holder: &'a str,
}

/// All that decisions about a job depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub phase: Phase,
    /// How often it was leased.
    pub attempts: u32,
}

/// Why a worker is not heard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another lease was given out since, or the job is over.
    #[error(
        "cannot take result: the lease is not the job's last one, or the job is over; drop the \
         work and lease again"
    )]
    Stale,
    /// The lease was given to another token.
    #[error(
        "cannot take result: the lease was given to another token; call with the token that leased \
         the job"
    )]
    Holder,
    /// The result is there and waits for an operator.
    #[error(
        "cannot go on: the result is held until an operator decides which report counts; see \
         'fleet-hub report list'"
    )]
    Held,
    /// The job is done with another bundle, or failed.
    #[error("cannot take result: the job already ended otherwise under this lease")]
    Otherwise,
}

/// Whether a message changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It did.
    New,
    /// It was heard before.
    Again,
}

impl Record {
    /// A job that nobody has leased.
    pub fn new() -> Self {
        Self { phase: Phase::Queued, attempts: 0 }
    }

    /// Whether a worker may have it at `now`.
    pub fn is_leasable(&self, now: UnixMillis) -> bool {
        match &self.phase {
            Phase::Queued => true,
            Phase::Leased { until, .. } => *until <= now && self.attempts < MOST_ATTEMPTS,
            Phase::Held { .. } | Phase::Done { .. } | Phase::Failed { .. } => false,
        }
    }

    /// Gives it to `worker`, who calls with the token of the claim. Only a leasable job may be given:
    /// `false` when it is not.
    pub fn lease(&mut self, claim: Claim<'_>, worker: &str, now: UnixMillis) -> bool {
        if !self.is_leasable(now) {
            return false;
        }
        self.attempts += 1;
        self.phase = Phase::Leased {
            lease: claim.lease.to_owned(),
            worker: worker.to_owned(),
            holder: claim.holder.to_owned(),
            until: end(now),
        };
        true
    }

    /// Starts the lease's time anew.
    ///
    /// # Errors
    /// [`Refused`] under another lease or another token.
    pub fn renew(&mut self, claim: Claim<'_>, now: UnixMillis) -> Result<(), Refused> {
        self.check(claim)?;
        match &mut self.phase {
            Phase::Leased { until, .. } => {
                *until = end(now);
                Ok(())
            }
            Phase::Held { .. } => Err(Refused::Held),
            _ => Err(Refused::Stale),
        }
    }

    /// Ends it with a bundle.
    ///
    /// # Errors
    /// [`Refused`] under another lease or token, while the result is held, or when it ended otherwise.
    pub fn done(&mut self, claim: Claim<'_>, bundle: BundleDigest) -> Result<Heard, Refused> {
        let (lease, holder) = (claim.lease.to_owned(), claim.holder.to_owned());
        self.end(claim, Phase::Done { lease, holder, bundle })
    }

    /// Ends it without one.
    ///
    /// # Errors
    /// [`Refused`] under another lease or token, while a result is held, or when it ended otherwise.
    pub fn failed(&mut self, claim: Claim<'_>, reason: &str) -> Result<Heard, Refused> {
        let (lease, holder) = (claim.lease.to_owned(), claim.holder.to_owned());
        self.end(claim, Phase::Failed { lease, holder, reason: reason.to_owned() })
    }

    /// Keeps its result until an operator decides.
    ///
    /// # Errors
    /// As [`Self::done`].
    pub fn hold(
        &mut self,
        claim: Claim<'_>,
        bundle: BundleDigest,
        result: Digest,
        reason: &str,
    ) -> Result<Heard, Refused> {
        let (lease, holder) = (claim.lease.to_owned(), claim.holder.to_owned());
        self.end(claim, Phase::Held { lease, holder, bundle, result, reason: reason.to_owned() })
    }

    /// Lets a held result go on: the job is as it was before [`Self::hold`]. Returns who holds it.
    pub fn unhold(&mut self) -> Option<(String, String)> {
        let Phase::Held { lease, holder, .. } = &self.phase else { return None };
        let held = (lease.clone(), holder.clone());
        self.phase = Phase::Leased {
            lease: held.0.clone(),
            worker: held.1.clone(),
            holder: held.1.clone(),
            until: UnixMillis(0),
        };
        Some(held)
    }

    /// Whether the claim is the job's last.
    fn check(&self, claim: Claim<'_>) -> Result<(), Refused> {
        match &self.phase {
            Phase::Queued => Err(Refused::Stale),
            Phase::Leased { lease, holder, .. }
            | Phase::Held { lease, holder, .. }
            | Phase::Done { lease, holder, .. }
            | Phase::Failed { lease, holder, .. } => {
                if lease != claim.lease {
                    Err(Refused::Stale)
                } else if holder != claim.holder {
                    Err(Refused::Holder)
                } else {
                    Ok(())
                }
            }
        }
    }

    fn end(&mut self, claim: Claim<'_>, end: Phase) -> Result<Heard, Refused> {
        self.check(claim)?;
        match &self.phase {
            Phase::Queued => Err(Refused::Stale),
            Phase::Leased { .. } => {
                self.phase = end;
                Ok(Heard::New)
            }
            same if *same == end => Ok(Heard::Again),
            Phase::Held { .. } => Err(Refused::Held),
            Phase::Done { .. } | Phase::Failed { .. } => Err(Refused::Otherwise),
        }
    }

    /// Gives the job up when its last attempt ran out. Returns whether it did.
    pub fn give_up(&mut self, now: UnixMillis) -> bool {
        match &self.phase {
            Phase::Leased { lease, worker, holder, until }
                if *until <= now && self.attempts >= MOST_ATTEMPTS =>
            {
                let reason = format!(
                    "its worker was lost {MOST_ATTEMPTS} times, last {worker}; see the worker's log"
                );
                self.phase = Phase::Failed { lease: lease.clone(), holder: holder.clone(), reason };
                true
            }
            _ => false,
        }
    }

    /// As the API shows it at `now`.
    pub fn to_api(&self, now: UnixMillis) -> JobState {
        match &self.phase {
            Phase::Leased { worker, until, .. } if now < *until => {
                JobState::Running { worker: worker.clone() }
            }
            Phase::Queued | Phase::Leased { .. } => JobState::Queued,
            Phase::Held { reason, .. } => JobState::Held { reason: reason.clone() },
            Phase::Done { bundle, .. } => JobState::Done { bundle: *bundle },
            Phase::Failed { reason, .. } => JobState::Failed { reason: reason.clone() },
        }
    }
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}

fn end(now: UnixMillis) -> UnixMillis {
    UnixMillis(now.0.saturating_add(LEASE_S * 1000))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T0: UnixMillis = UnixMillis(1_000_000);

    fn later(leases: u64) -> UnixMillis {
        UnixMillis(T0.0 + leases * LEASE_S * 1000)
    }

    fn by(lease: &str) -> Claim<'_> {
        Claim { lease, holder: "worker" }
    }

    fn bundle(name: &str) -> BundleDigest {
        BundleDigest(Digest::of(name.as_bytes()))
    }

    #[test]
    fn a_lost_workers_job_goes_to_the_next_and_its_late_result_is_refused() {
        let mut job = Record::new();
        assert!(job.lease(by("a"), "w1", T0));
        assert!(!job.lease(by("b"), "w2", T0), "leased twice");
        assert!(job.lease(by("b"), "w2", later(1)));
        assert_eq!(job.done(by("a"), bundle("x")), Err(Refused::Stale));
        assert_eq!(job.renew(by("a"), later(1)), Err(Refused::Stale));
        assert_eq!(job.done(by("b"), bundle("y")), Ok(Heard::New));
        assert_eq!(job.attempts, 2);
    }

    #[test]
    fn a_slow_worker_may_finish_while_nobody_else_took_the_job() {
        let mut job = Record::new();
        job.lease(by("a"), "w1", T0);
        assert_eq!(job.to_api(later(3)), JobState::Queued);
        assert_eq!(job.renew(by("a"), later(3)), Ok(()));
        assert!(!job.is_leasable(later(3)));
        assert_eq!(job.done(by("a"), bundle("x")), Ok(Heard::New));
    }

    #[test]
    fn an_end_told_twice_is_heard_once_and_another_end_is_refused() {
        let mut job = Record::new();
        job.lease(by("a"), "w1", T0);
        assert_eq!(job.done(by("a"), bundle("x")), Ok(Heard::New));
        assert_eq!(job.done(by("a"), bundle("x")), Ok(Heard::Again));
        assert_eq!(job.done(by("a"), bundle("y")), Err(Refused::Otherwise));
        assert_eq!(job.failed(by("a"), "no"), Err(Refused::Otherwise));
        assert_eq!(job.done(by("b"), bundle("x")), Err(Refused::Stale));
        assert!(!job.is_leasable(later(9)));
    }

    #[test]
    fn another_workers_token_is_not_heard_under_a_lease_that_it_learned_of() {
        let mut job = Record::new();
        job.lease(by("a"), "w1", T0);
        let thief = Claim { lease: "a", holder: "other" };
        assert_eq!(job.renew(thief, T0), Err(Refused::Holder));
        assert_eq!(job.done(thief, bundle("x")), Err(Refused::Holder));
        assert_eq!(job.failed(thief, "no"), Err(Refused::Holder));
        assert_eq!(job.done(by("a"), bundle("x")), Ok(Heard::New));
        assert_eq!(job.done(thief, bundle("x")), Err(Refused::Holder));
    }

    #[test]
    fn a_held_result_is_not_leased_again_and_goes_on_where_it_was() {
        let mut job = Record::new();
        job.lease(by("a"), "w1", T0);
        let result = Digest::of(b"result");
        assert_eq!(job.hold(by("a"), bundle("x"), result, "why"), Ok(Heard::New));
        assert_eq!(job.hold(by("a"), bundle("x"), result, "why"), Ok(Heard::Again));
        assert_eq!(job.done(by("a"), bundle("x")), Err(Refused::Held));
        assert_eq!(job.renew(by("a"), T0), Err(Refused::Held));
        assert!(!job.is_leasable(later(9)) && !job.give_up(later(9)));
        assert_eq!(job.unhold(), Some(("a".to_owned(), "worker".to_owned())));
        assert_eq!(job.done(by("a"), bundle("x")), Ok(Heard::New));
        assert_eq!(job.unhold(), None);
    }

    #[test]
    fn a_job_that_kills_its_workers_is_given_up() {
        let mut job = Record::new();
        for attempt in 0..u64::from(MOST_ATTEMPTS) {
            assert!(job.lease(by(&attempt.to_string()), "w", later(attempt)), "attempt {attempt}");
            assert!(!job.give_up(later(attempt)));
        }
        let over = later(u64::from(MOST_ATTEMPTS));
        assert!(!job.lease(by("more"), "w", over));
        assert!(job.give_up(over) && !job.give_up(over));
        assert!(matches!(job.to_api(over), JobState::Failed { .. }));
    }

    proptest! {
        #[test]
        fn nobody_holds_a_job_beside_another(
            steps in prop::collection::vec((0..4_u8, 0..3_usize, 0..40_u64), 0..40),
        ) {
            // Whatever workers do, only the holder of the last lease is heard, and an end stays.
            let mut job = Record::new();
            let (mut now, mut last, mut n) = (T0, None::<String>, 0);
            let mut held: [String; 3] = Default::default();
            for (what, who, seconds) in steps {
                now = UnixMillis(now.0 + seconds * 1000);
                let before = job.clone();
                let ended = matches!(before.phase, Phase::Done { .. } | Phase::Failed { .. });
                let lease = held[who].clone();
                let is_last = last.as_ref() == Some(&lease);
                let heard = match what {
                    0 => {
                        n += 1;
                        let fresh = n.to_string();
                        if job.lease(by(&fresh), "w", now) {
                            held[who].clone_from(&fresh);
                            last = Some(fresh);
                        }
                        None
                    }
                    1 => Some(job.renew(by(&lease), now).is_ok()),
                    2 => Some(job.done(by(&lease), bundle("x")).is_ok()),
                    _ => { job.give_up(now); None }
                };
                if let Some(heard) = heard {
                    prop_assert!(!heard || is_last, "an old lease was heard");
                }
                prop_assert!(!ended || job == before, "an ended job changed");
                prop_assert!(job.attempts <= MOST_ATTEMPTS);
            }
        }
    }
}
