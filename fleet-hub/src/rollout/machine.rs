//! A rollout as a pure machine: one canary, then everyone, or back.
//!
//! ```text
//!  Canary ──canary proven──► Everyone ──all proven or late──► Done
//!   │  └─ no answer in time: the next one that is there is the canary
//!   └── a device failed (in Everyone too) ──► Halted     (an operator) ──► Cancelled
//! ```
//!
//! No device holds a rollout up for ever. One that was asked and gives no answer in time ([`waits`]) is
//! *late*: nobody waits for it, it keeps its order, and takes the bundle when it is back, also after the
//! rollout has ended. A rollout *back* to an earlier bundle has no canary and is not halted.
//!
//! A device is proven by its own signed report, made under the order it was given (its generation)
//! or a later one, that the bundle is what answers. Whoever was asked to take the bundle is sent
//! back to what it ran before when the rollout ends otherwise than [`Phase::Done`]; a device whose
//! former bundle was never released cannot be sent back and is given no assignment, which leaves it
//! as it is. A revoked device leaves the rollout, one that replaces another takes its place in it; a canary that leaves before it proved anything is
//! followed by the next member.
//!
//! Invariants, each with a property test: nobody but one canary after the other is given the bundle
//! before one proved it; halting sends back every device that was asked; an event seen twice changes nothing
//! the second time; the orders of a device count strictly upwards.

use std::collections::BTreeSet;

use fleetloop_protocol::api::rollouts::{MemberState, Phase};
use fleetloop_protocol::state::{Assignment, Update};
use fleetloop_protocol::{BundleDigest, DeviceId, Generation, UnixMillis};

use super::waits;

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
    /// When this rollout gave it that order; none before it did.
    pub asked_at: Option<UnixMillis>,
}

/// A rollout, all that a decision depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// What is rolled out.
    pub order: Assignment,
    /// Where it stands.
    pub phase: Phase,
    /// Whether it goes back to an earlier bundle.
    pub back: bool,
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
    /// Whether it is there.
    pub is_online: bool,
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
    Tick {
        /// The devices that are there.
        online: BTreeSet<DeviceId>,
    },
    /// An operator ended it.
    Cancelled,
    /// Another rollout begins: nobody waits for the devices that are left.
    Superseded,
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
    /// canary is a device that is there, of those the one that reported last.
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
                .max_by_key(|i| (candidates[*i].is_online, candidates[*i].last_report))
                .ok_or(StartError::NoDevice)?,
        };
        candidates[..=first].rotate_right(1);
        let members = candidates.into_iter().map(Member::of).collect();
        Ok(Self { order, phase: Phase::Canary, back: false, members })
    }

    /// A rollout back, about to begin: everyone at once, for the fleet ran the bundle before.
    ///
    /// # Errors
    /// [`StartError::NoDevice`] without candidates.
    pub fn back(order: Assignment, mut candidates: Vec<Candidate>) -> Result<Self, StartError> {
        if candidates.is_empty() {
            return Err(StartError::NoDevice);
        }
        candidates.sort_by(|a, b| a.device.cmp(&b.device));
        let members = candidates.into_iter().map(Member::of).collect();
        Ok(Self { order, phase: Phase::Everyone, back: true, members })
    }

    /// Whether it can still change.
    pub fn is_active(&self) -> bool {
        matches!(self.phase, Phase::Canary | Phase::Everyone)
    }
}

impl Member {
    fn of(candidate: Candidate) -> Self {
        let Candidate { device, before, generation, .. } = candidate;
        Self { device, before, state: MemberState::Waiting, generation, asked_at: None }
    }

    /// Whether this rollout gave it an order that it may still follow.
    pub fn is_asked(&self) -> bool {
        matches!(self.state, MemberState::Assigned | MemberState::Proven | MemberState::Late)
    }
}

/// What becomes of `state` when `event` happens at `now`, and what is to be done.
pub fn step(state: &State, event: &Event, now: UnixMillis) -> (State, Vec<Effect>) {
    let mut next = state.clone();
    let mut effects = Vec::new();
    if !next.is_active() {
        if let (Phase::Done, Event::Reported { device, generation, running, update }) =
            (&next.phase, event)
        {
            catch_up(
                &mut next,
                device,
                &Report { generation: *generation, running: *running, update },
            );
        }
        return (next, effects);
    }
    match event {
        Event::Started => {}
        Event::Tick { online } => give_up_waiting(&mut next, online, now),
        Event::Reported { device, generation, running, update } => {
            let report = Report { generation: *generation, running: *running, update };
            let failed = take_report(&mut next, device, &report, now, &mut effects);
            if let Some(reason) = failed.filter(|_| !next.back) {
                next.phase = Phase::Halted { device: device.clone(), reason };
            }
        }
        Event::DeviceRevoked { device } => next.members.retain(|m| m.device != *device),
        Event::DeviceReplaced { device, by } => replace(&mut next, device, by),
        Event::Cancelled => next.phase = Phase::Cancelled,
        Event::Superseded => supersede(&mut next),
    }
    if next.is_active() {
        advance(&mut next, now, &mut effects);
    } else if next.phase != Phase::Done {
        send_back(&mut next, now, &mut effects);
    }
    (next, effects)
}

/// A late device is back after the rollout has ended.
fn catch_up(state: &mut State, device: &DeviceId, report: &Report<'_>) {
    let bundle = state.order.bundle;
    let is_late = |m: &&mut Member| m.device == *device && m.state == MemberState::Late;
    for member in state.members.iter_mut().filter(is_late) {
        if let Some(outcome) = outcome(member, report, bundle) {
            member.state = outcome;
        }
    }
}

/// What became of the bundle at a member, if the report says so.
fn outcome(member: &Member, report: &Report<'_>, bundle: BundleDigest) -> Option<MemberState> {
    if report.generation < member.generation {
        return None;
    }
    match report.update {
        Update::Failed { bundle: failed, reason } if *failed == bundle => {
            Some(MemberState::Failed { reason: reason.clone() })
        }
        _ => (report.running == Some(bundle)).then_some(MemberState::Proven),
    }
}

/// Whoever gave no answer in time is late; a canary is followed by the next device that is there.
fn give_up_waiting(state: &mut State, online: &BTreeSet<DeviceId>, now: UnixMillis) {
    let is_there = |device: &DeviceId| online.contains(device);
    if state.phase == Phase::Canary {
        let is_overdue =
            state.members.first().is_some_and(|m| waits::is_overdue(m, is_there(&m.device), now));
        let next = state
            .members
            .iter()
            .position(|m| m.state == MemberState::Waiting && is_there(&m.device));
        if let (true, Some(next)) = (is_overdue, next) {
            state.members[0].state = MemberState::Late;
            state.members[..=next].rotate_right(1);
        }
        return;
    }
    for member in &mut state.members {
        if waits::is_overdue(member, is_there(&member.device), now) {
            member.state = MemberState::Late;
        }
    }
}

/// Ends as what it is: everyone has the bundle but those that are away, or no canary has proved it.
fn supersede(state: &mut State) {
    if state.phase == Phase::Canary {
        state.phase = Phase::Cancelled;
        return;
    }
    let open = |m: &&mut Member| m.state == MemberState::Assigned;
    state.members.iter_mut().filter(open).for_each(|m| m.state = MemberState::Late);
}

struct Report<'a> {
    generation: Generation,
    running: Option<BundleDigest>,
    update: &'a Update,
}

/// Takes in what a device says of itself; the reason why the rollout must halt, if it must.
fn take_report(
    state: &mut State,
    device: &DeviceId,
    report: &Report<'_>,
    now: UnixMillis,
    effects: &mut Vec<Effect>,
) -> Option<String> {
    let bundle = state.order.bundle;
    let member = state.members.iter_mut().find(|m| m.device == *device)?;
    if member.state == MemberState::Waiting {
        // It heard more orders than this hub knows of: its first one will be above them.
        if is_believable(report.generation) {
            member.generation = member.generation.max(report.generation);
        }
        return None;
    }
    if !member.is_asked() || report.generation < member.generation {
        return None;
    }
    let outcome = outcome(member, report, bundle);
    if let Some(MemberState::Failed { reason }) = &outcome {
        let reason = reason.clone();
        member.state = MemberState::Failed { reason: reason.clone() };
        return Some(reason);
    }
    if let Some(outcome) = outcome {
        member.state = outcome;
    } else if report.generation > member.generation && is_believable(report.generation) {
        // It heard orders that this hub, restored from a backup, no longer knows, and does not
        // listen to ours: it is asked again above them.
        member.generation = report.generation;
        assign(member, &state.order, now, effects);
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
        // A canary that was late may be the one that proves it.
        let is_proven = state.members.iter().any(|m| m.state == MemberState::Proven);
        match state.members.first_mut() {
            None => state.phase = Phase::Cancelled,
            Some(_) if is_proven => state.phase = Phase::Everyone,
            Some(canary) if canary.state == MemberState::Waiting => {
                assign(canary, &state.order, now, effects);
            }
            Some(_) => {}
        }
    }
    if state.phase == Phase::Everyone {
        for member in state.members.iter_mut().filter(|m| m.state == MemberState::Waiting) {
            assign(member, &state.order, now, effects);
        }
        let is_over = |m: &Member| !matches!(m.state, MemberState::Waiting | MemberState::Assigned);
        if state.members.iter().all(is_over) {
            state.phase = Phase::Done;
        }
    }
}

fn assign(member: &mut Member, order: &Assignment, now: UnixMillis, effects: &mut Vec<Effect>) {
    member.state = MemberState::Assigned;
    member.asked_at = Some(now);
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
