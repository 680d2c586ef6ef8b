//! A rollout as a pure machine: one canary, then everyone, or back.
//!
//! ```text
//!  Canary ──canary proven──► Everyone ──all proven──► Done
//!     │                         │
//!     └── a device failed ──────┴──► Halted     (an operator) ──► Cancelled
//! ```
//!
//! A device is proven by its own signed report, made under the order it was given (its generation)
//! or a later one, that the bundle is what answers. Whoever was asked to take the bundle is sent
//! back to what it ran before when the rollout ends otherwise than [`Phase::Done`]; a device whose
//! former bundle was never released cannot be sent back and is given no assignment, which leaves it
//! as it is. A revoked device leaves the rollout, one that replaces another takes its place in it; a canary that leaves before it proved anything is
//! followed by the next member.
//!
//! Invariants, each with a property test: nobody but the canary is given the bundle before a canary
//! proved it; halting sends back every device that was asked; an event seen twice changes nothing
//! the second time; the orders of a device count strictly upwards.

use fleetloop_protocol::api::rollouts::{MemberState, Phase};
use fleetloop_protocol::state::{Assignment, Update};
use fleetloop_protocol::{BundleDigest, DeviceId, Generation, UnixMillis};

/// A device within a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub device: DeviceId,
    /// What it ran before, if that is released: what it is sent back to.
    pub before: Option<Assignment>,
    /// Where it stands.
    pub state: MemberState,
    /// The generation of its last order, this rollout's or an earlier one.
    pub generation: Generation,
}

/// A rollout, all that a decision depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// What is rolled out.
    pub order: Assignment,
    /// Where it stands.
    pub phase: Phase,
    /// The canary first, then the others by id.
    pub members: Vec<Member>,
}

/// A device that may take part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub device: DeviceId,
    /// What it runs, if that is released.
    pub before: Option<Assignment>,
    /// The generation of its last order.
    pub generation: Generation,
    /// When it last said what it runs.
    pub last_report: Option<UnixMillis>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The rollout was stored.
    Started,
    /// A device's signed report arrived.
    Reported {
        /// Which device.
        device: DeviceId,
        /// The last order it persisted.
        generation: Generation,
        /// What answers there.
        running: Option<BundleDigest>,
        /// What becomes of the order.
        update: Update,
    },
    /// A device was revoked.
    DeviceRevoked {
        /// Which device.
        device: DeviceId,
    },
    /// Another device took a device's place.
    DeviceReplaced {
        /// Which device.
        device: DeviceId,
        /// The one in its place.
        by: DeviceId,
    },
    /// Time went by, or the hub started again.
    Tick,
    /// An operator ended it.
    Cancelled,
}

/// Something to be done, in the transaction that keeps the new state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A device's next order.
    SetDesired {
        /// Which device.
        device: DeviceId,
        /// The order's number: one more than the last.
        generation: Generation,
        /// What to run; none leaves the device as it is.
        assignment: Option<Assignment>,
        /// When it was decided.
        at: UnixMillis,
    },
}

/// Why a rollout cannot begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// Nobody to roll out to.
    #[error("cannot start rollout: no device is enrolled; enrol one with 'fleet-hub device add'")]
    NoDevice,
    /// The canary is no device of this fleet.
    #[error(
        "cannot start rollout: canary {device} is not an enrolled device; see 'fleet-hub device list'"
    )]
    Canary {
        /// What was asked for.
        device: DeviceId,
    },
}

impl State {
    /// A rollout about to begin: every candidate waits, the canary stands first. Without a wish the
    /// canary is the device that reported last, for one that is away would stop the rollout.
    ///
    /// # Errors
    /// [`StartError`] without candidates, or with a canary that is none of them.
    pub fn new(
        order: Assignment,
        mut candidates: Vec<Candidate>,
        canary: Option<&DeviceId>,
    ) -> Result<Self, StartError> {
        candidates.sort_by(|a, b| a.device.cmp(&b.device));
        let first = match canary {
            Some(wanted) => candidates
                .iter()
                .position(|c| c.device == *wanted)
                .ok_or_else(|| StartError::Canary { device: wanted.clone() })?,
            // Of equals the first by id: `max_by_key` keeps the last, so it looks backwards.
            None => (0..candidates.len())
                .rev()
                .max_by_key(|i| candidates[*i].last_report)
                .ok_or(StartError::NoDevice)?,
        };
        candidates[..=first].rotate_right(1);
        let member = |c: Candidate| Member {
            device: c.device,
            before: c.before,
            state: MemberState::Waiting,
            generation: c.generation,
        };
        let members = candidates.into_iter().map(member).collect();
        Ok(Self { order, phase: Phase::Canary, members })
    }

    /// Whether it can still change.
    pub fn is_active(&self) -> bool {
        matches!(self.phase, Phase::Canary | Phase::Everyone)
    }
}

/// What becomes of `state` when `event` happens at `now`, and what is to be done.
pub fn step(state: &State, event: &Event, now: UnixMillis) -> (State, Vec<Effect>) {
    let mut next = state.clone();
    let mut effects = Vec::new();
    if !next.is_active() {
        return (next, effects);
    }
    match event {
        Event::Started | Event::Tick => {}
        Event::Reported { device, generation, running, update } => {
            let report = Report { generation: *generation, running: *running, update };
            if let Some(reason) = take_report(&mut next, device, &report) {
                next.phase = Phase::Halted { device: device.clone(), reason };
            }
        }
        Event::DeviceRevoked { device } => next.members.retain(|m| m.device != *device),
        Event::DeviceReplaced { device, by } => replace(&mut next, device, by),
        Event::Cancelled => next.phase = Phase::Cancelled,
    }
    if next.is_active() {
        advance(&mut next, now, &mut effects);
    } else {
        send_back(&mut next, now, &mut effects);
    }
    (next, effects)
}

struct Report<'a> {
    generation: Generation,
    running: Option<BundleDigest>,
    update: &'a Update,
}

/// Takes in what a device says of itself; the reason why the rollout must halt, if it must.
fn take_report(state: &mut State, device: &DeviceId, report: &Report<'_>) -> Option<String> {
    let bundle = state.order.bundle;
    let member = state.members.iter_mut().find(|m| m.device == *device)?;
    if member.state == MemberState::Waiting {
        // It heard more orders than this hub knows of: its first one will be above them.
        if is_believable(report.generation) {
            member.generation = member.generation.max(report.generation);
        }
        return None;
    }
    let asked = matches!(member.state, MemberState::Assigned | MemberState::Proven);
    if !asked || report.generation < member.generation {
        return None;
    }
    match report.update {
        Update::Failed { bundle: failed, reason } if *failed == bundle => {
            member.state = MemberState::Failed { reason: reason.clone() };
            return Some(reason.clone());
        }
        _ if report.running == Some(bundle) => member.state = MemberState::Proven,
        // It heard orders that this hub, restored from a backup, no longer knows, and does not
        // listen to ours: it is asked again above them.
        _ if report.generation > member.generation && is_believable(report.generation) => {
            member.generation = report.generation;
            member.state = MemberState::Waiting;
        }
        _ => {}
    }
    None
}

/// The new device stands where the old one stood, but what that proved it has yet to prove.
fn replace(state: &mut State, old: &DeviceId, new: &DeviceId) {
    for member in state.members.iter_mut().filter(|m| m.device == *old) {
        member.device = new.clone();
        if member.state == MemberState::Proven {
            member.state = MemberState::Assigned;
        }
    }
}

/// Whether a hub can have given as many orders; a device that claims to have seen more is not
/// believed, or it could use up the numbers that are left.
pub fn is_believable(generation: Generation) -> bool {
    generation.0 < 1 << 53
}

/// Moves on as far as what is proven allows.
fn advance(state: &mut State, now: UnixMillis, effects: &mut Vec<Effect>) {
    if state.phase == Phase::Canary {
        match state.members.first_mut() {
            None => state.phase = Phase::Cancelled,
            Some(canary) if canary.state == MemberState::Waiting => {
                assign(canary, &state.order, now, effects);
            }
            Some(canary) if canary.state == MemberState::Proven => state.phase = Phase::Everyone,
            Some(_) => {}
        }
    }
    if state.phase == Phase::Everyone {
        for member in state.members.iter_mut().filter(|m| m.state == MemberState::Waiting) {
            assign(member, &state.order, now, effects);
        }
        if state.members.iter().all(|m| m.state == MemberState::Proven) {
            state.phase = Phase::Done;
        }
    }
}

fn assign(member: &mut Member, order: &Assignment, now: UnixMillis, effects: &mut Vec<Effect>) {
    member.state = MemberState::Assigned;
    effects.push(give(member, Some(order.clone()), now));
}

fn send_back(state: &mut State, now: UnixMillis, effects: &mut Vec<Effect>) {
    for member in state.members.iter_mut().filter(|m| m.state != MemberState::Waiting) {
        let before = member.before.clone();
        effects.push(give(member, before, now));
    }
}

fn give(member: &mut Member, assignment: Option<Assignment>, at: UnixMillis) -> Effect {
    member.generation = Generation(member.generation.0 + 1);
    let (device, generation) = (member.device.clone(), member.generation);
    Effect::SetDesired { device, generation, assignment, at }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
