//! For whom a rollout waits, since when, and until when. Pure.

use std::collections::BTreeMap;

use fleetloop_protocol::api::devices::Presence;
use fleetloop_protocol::api::rollouts::{MemberState, Phase, Wait};
use fleetloop_protocol::{DeviceId, UnixMillis};

use super::machine::{Member, State};

/// Milliseconds that a device which is away is waited for: a restart, a new battery.
pub const AWAY_MS: u64 = 5 * 60 * 1000;

/// Milliseconds that a device which is there may take to fetch, try and answer with a bundle.
pub const ANSWERS_MS: u64 = 30 * 60 * 1000;

/// Whether a device that was asked has given no answer in time.
pub(super) fn is_overdue(member: &Member, is_online: bool, now: UnixMillis) -> bool {
    let Some(asked_at) = member.asked_at.filter(|_| member.state == MemberState::Assigned) else {
        return false;
    };
    now.0 >= asked_at.0.saturating_add(patience(is_online))
}

const fn patience(is_online: bool) -> u64 {
    if is_online { ANSWERS_MS } else { AWAY_MS }
}

/// What the rollout waits for, by what is known of its devices.
pub fn of(state: &State, known: &BTreeMap<DeviceId, Presence>) -> Vec<Wait> {
    if !state.is_active() {
        return Vec::new();
    }
    let presence = |device: &DeviceId| known.get(device).copied().unwrap_or(Presence::Never);
    let is_next =
        |m: &Member| m.state == MemberState::Waiting && presence(&m.device) == Presence::Online;
    let nobody_else = state.phase == Phase::Canary && !state.members.iter().any(is_next);
    let open = state.members.iter().filter(|m| m.state == MemberState::Assigned);
    let wait = |member: &Member| {
        let (presence, since_ms) = (presence(&member.device), member.asked_at?.0);
        let until_ms = since_ms.saturating_add(patience(presence == Presence::Online));
        let until_ms = (!nobody_else).then_some(until_ms);
        Some(Wait { device: member.device.clone(), presence, since_ms, until_ms })
    };
    open.filter_map(wait).collect()
}

/// Whether it waits for nothing but devices that are away, so that another rollout may begin.
pub fn is_for_nobody(state: &State, known: &BTreeMap<DeviceId, Presence>) -> bool {
    let is_there = |m: &&Member| known.get(&m.device) == Some(&Presence::Online);
    let open = |m: &&Member| matches!(m.state, MemberState::Waiting | MemberState::Assigned);
    !state.members.iter().filter(open).any(|m| is_there(&m))
}
