//! What the rollout machine claims, on examples and on random histories.

use std::collections::{BTreeMap, BTreeSet};

use fleetloop_protocol::Digest;
use fleetloop_protocol::api::devices::Presence;
use fleetloop_protocol::api::rollouts::Wait;
use proptest::prelude::*;

use super::super::waits::{ANSWERS_MS, AWAY_MS};
use super::*;

const NOW: UnixMillis = UnixMillis(1_000);

fn bundle(name: &str) -> BundleDigest {
    BundleDigest(Digest::of(name.as_bytes()))
}

fn assignment(name: &str) -> Assignment {
    Assignment { target: format!("{name}/1/bundle.toml"), bundle: bundle(name) }
}

fn device(i: usize) -> DeviceId {
    format!("dev-{i}").parse().expect("a device id")
}

fn fleet(n: usize) -> Vec<Candidate> {
    let candidate = |i| Candidate {
        device: device(i),
        before: (i % 3 != 2).then(|| assignment("old")),
        generation: Generation(i as u64),
        is_online: false,
        last_report: None,
    };
    (0..n).map(candidate).collect()
}

fn rollout(n: usize) -> State {
    State::new(assignment("new"), fleet(n), None).expect("a fleet")
}

fn reports(state: &State, i: usize, name: &str) -> Event {
    let member = state.members.iter().find(|m| m.device == device(i));
    Event::Reported {
        device: device(i),
        generation: member.map_or(Generation(0), |m| m.generation),
        running: Some(bundle(name)),
        update: Update::Idle,
    }
}

fn tick(online: &[usize]) -> Event {
    Event::Tick { online: online.iter().map(|i| device(*i)).collect() }
}

fn after(ms: u64) -> UnixMillis {
    UnixMillis(NOW.0 + ms)
}

fn state_of(state: &State, i: usize) -> MemberState {
    state.members.iter().find(|m| m.device == device(i)).expect("a member").state.clone()
}

fn fails(state: &State, i: usize) -> Event {
    match reports(state, i, "old") {
        Event::Reported { device, generation, running, .. } => {
            let update = Update::Failed { bundle: bundle("new"), reason: "golden case 3".into() };
            Event::Reported { device, generation, running, update }
        }
        other => other,
    }
}

fn given(effects: &[Effect]) -> BTreeMap<DeviceId, Option<BundleDigest>> {
    let one = |e: &Effect| match e {
        Effect::SetDesired { device, assignment, .. } => {
            (device.clone(), assignment.as_ref().map(|a| a.bundle))
        }
    };
    effects.iter().map(one).collect()
}

fn run(mut state: State, events: &[fn(&State) -> Event]) -> (State, Vec<Effect>) {
    let mut last = Vec::new();
    for event in events {
        (state, last) = step(&state, &event(&state), NOW);
    }
    (state, last)
}

#[test]
fn everyone_follows_once_the_canary_has_proven_the_bundle() {
    let (state, effects) = run(rollout(3), &[|_| Event::Started]);
    assert_eq!(given(&effects), BTreeMap::from([(device(0), Some(bundle("new")))]));
    let (state, effects) = run(state, &[|s| reports(s, 0, "new")]);
    assert_eq!(state.phase, Phase::Everyone);
    let new = Some(bundle("new"));
    assert_eq!(given(&effects), BTreeMap::from([(device(1), new), (device(2), new)]));
    let (state, effects) = run(state, &[|s| reports(s, 2, "new"), |s| reports(s, 1, "new")]);
    assert_eq!((state.phase, effects), (Phase::Done, vec![]));
}

#[test]
fn a_report_older_than_the_order_proves_nothing() {
    let (state, _) = run(rollout(2), &[|_| Event::Started]);
    let Event::Reported { device, running, update, .. } = reports(&state, 0, "new") else {
        unreachable!("reports() makes a report")
    };
    let generation = Generation(state.members[0].generation.0 - 1);
    let old = Event::Reported { device, generation, running, update };
    assert_eq!(step(&state, &old, NOW), (state.clone(), vec![]));
}

#[test]
fn a_device_that_heard_later_orders_is_asked_again_above_them() {
    let (state, _) = run(rollout(2), &[|_| Event::Started]);
    let ahead = |generation| Event::Reported {
        device: device(0),
        generation: Generation(generation),
        running: Some(bundle("old")),
        update: Update::Idle,
    };
    let (state, effects) = step(&state, &ahead(41), NOW);
    assert_eq!(given(&effects), BTreeMap::from([(device(0), Some(bundle("new")))]));
    assert_eq!(state.members[0].generation, Generation(42));
    assert_eq!(step(&state, &ahead(u64::MAX), NOW), (state.clone(), vec![]));
}

#[test]
fn a_failing_canary_goes_back_and_nobody_else_hears_of_it() {
    let (state, effects) = run(rollout(3), &[|_| Event::Started, |s| fails(s, 0)]);
    let halted = Phase::Halted { device: device(0), reason: "golden case 3".into() };
    assert_eq!(state.phase, halted);
    assert_eq!(given(&effects), BTreeMap::from([(device(0), Some(bundle("old")))]));
}

#[test]
fn a_device_that_gives_up_after_it_was_proven_halts_the_rollout_for_all() {
    let events: &[fn(&State) -> Event] =
        &[|_| Event::Started, |s| reports(s, 0, "new"), |s| reports(s, 1, "new"), |s| fails(s, 0)];
    let (state, effects) = run(rollout(4), events);
    assert!(matches!(state.phase, Phase::Halted { .. }));
    let old = Some(bundle("old"));
    // Device 2 had nothing released to go back to.
    let all = [(device(0), old), (device(1), old), (device(2), None), (device(3), old)];
    assert_eq!(given(&effects), BTreeMap::from(all));
}

#[test]
fn a_revoked_canary_is_followed_by_the_next_device() {
    let revoke = |i| move |_: &State| Event::DeviceRevoked { device: device(i) };
    let (state, _) = run(rollout(3), &[|_| Event::Started]);
    let (state, effects) = step(&state, &revoke(0)(&state), NOW);
    assert_eq!(state.phase, Phase::Canary);
    assert_eq!(given(&effects), BTreeMap::from([(device(1), Some(bundle("new")))]));
    let (state, _) = step(&state, &revoke(1)(&state), NOW);
    let (state, effects) = step(&state, &revoke(2)(&state), NOW);
    assert_eq!((state.phase, effects), (Phase::Cancelled, vec![]));
}

#[test]
fn a_revoked_device_holds_nobody_up() {
    let (state, _) = run(rollout(2), &[|_| Event::Started, |s| reports(s, 0, "new")]);
    let (state, _) = step(&state, &Event::DeviceRevoked { device: device(1) }, NOW);
    assert_eq!(state.phase, Phase::Done);
}

#[test]
fn cancelling_sends_back_whoever_was_asked() {
    let (state, effects) = run(rollout(3), &[|_| Event::Started, |_| Event::Cancelled]);
    assert_eq!(state.phase, Phase::Cancelled);
    assert_eq!(given(&effects), BTreeMap::from([(device(0), Some(bundle("old")))]));
}

#[test]
fn a_canary_that_is_away_is_followed_by_one_that_is_there_and_may_come_back() {
    let (state, _) = run(rollout(3), &[|_| Event::Started]);
    let there = tick(&[1, 2]);
    assert_eq!(step(&state, &there, after(AWAY_MS - 1)), (state.clone(), vec![]), "in time");
    let nobody = step(&state, &tick(&[]), after(AWAY_MS));
    assert_eq!(nobody, (state.clone(), vec![]), "nobody else is there");
    let (state, effects) = step(&state, &there, after(AWAY_MS));
    assert_eq!(given(&effects), BTreeMap::from([(device(1), Some(bundle("new")))]));
    assert_eq!((state.phase.clone(), state_of(&state, 0)), (Phase::Canary, MemberState::Late));
    assert_eq!(state.members[0].device, device(1));
    // The one that was away proves it first: that is as good.
    let (back, _) = step(&state, &reports(&state, 0, "new"), after(AWAY_MS));
    assert_eq!((back.phase.clone(), state_of(&back, 0)), (Phase::Everyone, MemberState::Proven));
    // Or it could not take it: the rollout halts for it as for any other.
    let (halted, effects) = step(&state, &fails(&state, 0), after(AWAY_MS));
    assert!(matches!(halted.phase, Phase::Halted { .. }));
    assert_eq!(given(&effects).len(), 2, "both that were asked");
}

#[test]
fn a_canary_that_is_there_may_take_longer_than_one_that_is_away() {
    let (state, _) = run(rollout(2), &[|_| Event::Started]);
    let there = tick(&[0, 1]);
    assert_eq!(step(&state, &there, after(ANSWERS_MS - 1)), (state.clone(), vec![]));
    let (state, _) = step(&state, &there, after(ANSWERS_MS));
    assert_eq!(state.members[0].device, device(1));
}

#[test]
fn a_device_that_is_away_holds_nobody_up_and_follows_when_it_is_back() {
    let (state, _) = run(rollout(3), &[|_| Event::Started, |s| reports(s, 0, "new")]);
    let (state, _) = step(&state, &reports(&state, 1, "new"), NOW);
    assert_eq!(state.phase, Phase::Everyone);
    let waits = waits::of(&state, &BTreeMap::from([(device(2), Presence::Stopped)]));
    let until_ms = Some(NOW.0 + AWAY_MS);
    let presence = Presence::Stopped;
    assert_eq!(waits, [Wait { device: device(2), presence, since_ms: NOW.0, until_ms }]);
    let (state, effects) = step(&state, &tick(&[0, 1]), after(AWAY_MS));
    assert_eq!((state.phase.clone(), effects), (Phase::Done, vec![]), "nobody is sent back");
    assert_eq!(state_of(&state, 2), MemberState::Late);
    let (proven, _) = step(&state, &reports(&state, 2, "new"), after(AWAY_MS * 1000));
    assert_eq!(state_of(&proven, 2), MemberState::Proven);
    let (failed, effects) = step(&state, &fails(&state, 2), after(AWAY_MS * 1000));
    assert!(matches!(state_of(&failed, 2), MemberState::Failed { .. }));
    assert_eq!((failed.phase, effects), (Phase::Done, vec![]), "it went back by itself");
}

#[test]
fn a_rollout_that_waits_for_devices_that_are_away_makes_room_for_another() {
    let known = |online: &[usize]| {
        let presence = |i: usize| {
            if online.contains(&i) { Presence::Online } else { Presence::Silent }
        };
        (0..3).map(|i| (device(i), presence(i))).collect::<BTreeMap<_, _>>()
    };
    let (state, _) = run(rollout(3), &[|_| Event::Started]);
    assert!(waits::is_for_nobody(&state, &known(&[])));
    assert!(!waits::is_for_nobody(&state, &known(&[2])), "that one may become the canary");
    assert_eq!(waits::of(&state, &known(&[]))[0].until_ms, None, "nobody else may go first");
    let (ended, effects) = step(&state, &Event::Superseded, NOW);
    assert_eq!((ended.phase, given(&effects).len()), (Phase::Cancelled, 1));
    let (state, _) = run(state, &[|s| reports(s, 0, "new"), |s| reports(s, 1, "new")]);
    assert!(waits::is_for_nobody(&state, &known(&[0, 1])));
    let (ended, effects) = step(&state, &Event::Superseded, NOW);
    assert_eq!((ended.phase, effects), (Phase::Done, vec![]), "what is proven stays");
}

#[test]
fn going_back_asks_all_at_once_and_one_that_cannot_does_not_send_the_others_forth_again() {
    let state = State::back(assignment("new"), fleet(3)).expect("a fleet");
    let (state, effects) = run(state, &[|_| Event::Started]);
    assert_eq!(given(&effects).len(), 3);
    let (state, effects) = run(state, &[|s| fails(s, 1)]);
    assert_eq!((state.phase.clone(), effects), (Phase::Everyone, vec![]));
    let (state, _) = run(state, &[|s| reports(s, 0, "new"), |s| reports(s, 2, "new")]);
    assert_eq!(state.phase, Phase::Done);
    assert_eq!(State::back(assignment("new"), vec![]), Err(StartError::NoDevice));
}

#[test]
fn the_canary_is_the_one_named_or_of_those_that_are_there_the_one_that_reported_last() {
    let mut fleet = fleet(3);
    fleet[1].last_report = Some(UnixMillis(7));
    // It reported later, to say that it stops.
    fleet[2].last_report = Some(UnixMillis(8));
    fleet[0].is_online = true;
    fleet[1].is_online = true;
    let order = || assignment("new");
    let first = |s: &State| s.members.iter().map(|m| m.device.clone()).collect::<Vec<_>>();
    let state = State::new(order(), fleet.clone(), None).expect("a fleet");
    assert_eq!(first(&state), [device(1), device(0), device(2)]);
    let state = State::new(order(), fleet.clone(), Some(&device(2))).expect("a fleet");
    assert_eq!(first(&state), [device(2), device(0), device(1)]);
    assert!(State::new(order(), fleet, Some(&device(9))).is_err());
    assert_eq!(State::new(order(), vec![], None), Err(StartError::NoDevice));
}

/// What may happen, before it is known where the rollout stands.
#[derive(Debug, Clone)]
enum Happening {
    Started,
    Tick { online: Vec<usize>, later_ms: u64 },
    Cancelled,
    Superseded,
    Revoked(usize),
    Runs { device: usize, new: bool, late_by: u64 },
    Ahead { device: usize, by: u64 },
    Fails(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => Just(Happening::Started),
        4 => (prop::collection::vec(0..6_usize, 0..6), 0..ANSWERS_MS)
            .prop_map(|(online, later_ms)| Happening::Tick { online, later_ms }),
        1 => Just(Happening::Cancelled),
        1 => Just(Happening::Superseded),
        2 => (0..6_usize).prop_map(Happening::Revoked),
        12 => (0..6_usize, any::<bool>(), 0..3_u64)
            .prop_map(|(device, new, late_by)| Happening::Runs { device, new, late_by }),
        1 => (0..6_usize, prop_oneof![1..9_u64, Just(u64::MAX)])
            .prop_map(|(device, by)| Happening::Ahead { device, by }),
        2 => (0..6_usize).prop_map(Happening::Fails),
    ]
}

fn event(state: &State, happening: &Happening) -> Event {
    match happening {
        Happening::Started => Event::Started,
        Happening::Tick { online, .. } => tick(online),
        Happening::Cancelled => Event::Cancelled,
        Happening::Superseded => Event::Superseded,
        Happening::Revoked(i) => Event::DeviceRevoked { device: device(*i) },
        Happening::Fails(i) => fails(state, *i),
        Happening::Ahead { device, by } => match reports(state, *device, "old") {
            Event::Reported { device, generation, running, update } => {
                let generation = Generation(generation.0.saturating_add(*by));
                Event::Reported { device, generation, running, update }
            }
            other => other,
        },
        Happening::Runs { device, new, late_by } => {
            match reports(state, *device, if *new { "new" } else { "old" }) {
                Event::Reported { device, generation, running, update } => {
                    let generation = Generation(generation.0.saturating_sub(*late_by));
                    Event::Reported { device, generation, running, update }
                }
                other => other,
            }
        }
    }
}

proptest! {
    #[test]
    fn histories_keep_every_promise(
        n in 1..6_usize,
        history in prop::collection::vec(happening(), 0..60),
    ) {
        let mut state = rollout(n);
        let mut proven_by_a_canary = false;
        let mut generations: BTreeMap<DeviceId, Generation> = BTreeMap::new();
        let mut desired: BTreeMap<DeviceId, Option<BundleDigest>> = BTreeMap::new();
        let before: BTreeMap<_, _> = state.members.iter()
            .map(|m| (m.device.clone(), m.before.as_ref().map(|a| a.bundle))).collect();
        let new = Some(bundle("new"));
        let mut now = NOW;

        for happening in &history {
            if let Happening::Tick { later_ms, .. } = happening {
                now = UnixMillis(now.0 + later_ms);
            }
            let event = event(&state, happening);
            if let Event::Reported { device, generation, running, update: Update::Idle } = &event {
                // Of several canaries, one after the other, each may prove it.
                proven_by_a_canary |= state.phase == Phase::Canary && state.members.iter().any(|m| {
                    m.device == *device && m.is_asked() && *generation >= m.generation
                        && *running == new
                });
            }
            let asked: BTreeSet<_> = state.members.iter()
                .filter(|m| m.state != MemberState::Waiting).map(|m| m.device.clone()).collect();
            let was_active = state.is_active();
            let was = state.phase.clone();
            let (next, effects) = step(&state, &event, now);
            prop_assert!(was_active || (effects.is_empty() && next.phase == was), "what ended changed");

            for Effect::SetDesired { device, generation, assignment, .. } in &effects {
                let last = generations.insert(device.clone(), *generation);
                prop_assert!(last.is_none_or(|last| last < *generation));
                let assigned = assignment.as_ref().map(|a| a.bundle);
                desired.insert(device.clone(), assigned);
                if assigned == new {
                    let is_canary = next.members[0].device == *device;
                    // One that was asked before may be asked again, above orders that it heard elsewhere.
                    let again = asked.contains(device);
                    prop_assert!(proven_by_a_canary || is_canary || again, "given before it was proven");
                }
            }
            if was_active && !next.is_active() && next.phase != Phase::Done {
                let sent: BTreeSet<_> = given(&effects).into_keys().collect();
                let left: BTreeSet<_> = next.members.iter().map(|m| m.device.clone()).collect();
                let expected: BTreeSet<_> = asked.intersection(&left).cloned().collect();
                prop_assert_eq!(sent, expected, "not exactly those that were asked went back");
                for member in &next.members {
                    if let Some(now) = desired.get(&member.device) {
                        prop_assert_eq!(now, &before[&member.device]);
                    }
                }
            }
            prop_assert_eq!(step(&next, &event, now), (next.clone(), vec![]), "not idempotent");
            prop_assert_eq!(step(&next, &Event::Started, now), (next.clone(), vec![]), "left undone");
            state = next;
        }
    }

    #[test]
    fn a_fleet_that_answers_always_gets_there(n in 1..8_usize, order in any::<u64>()) {
        let (mut state, _) = step(&rollout(n), &Event::Started, NOW);
        for round in 0..2 * n {
            let i = (usize::try_from(order % 8).unwrap_or(0) + round) % n;
            for i in [i, 0] {
                state = step(&state, &reports(&state, i, "new"), NOW).0;
            }
        }
        prop_assert_eq!(state.phase, Phase::Done);
    }

    #[test]
    fn no_device_holds_a_rollout_up_for_ever(
        n in 2..8_usize,
        silent in prop::collection::vec(any::<bool>(), 8),
        online in prop::collection::vec(any::<bool>(), 8),
    ) {
        let (mut state, _) = step(&rollout(n), &Event::Started, NOW);
        // At least one device answers, and those that answer are there.
        let answers = |i: usize| i == n - 1 || !silent[i];
        let there: Vec<usize> = (0..n).filter(|i| answers(*i) || online[*i]).collect();
        let mut now = NOW;
        for _ in 0..=n {
            for i in (0..n).filter(|i| answers(*i)) {
                state = step(&state, &reports(&state, i, "new"), now).0;
            }
            now = UnixMillis(now.0 + ANSWERS_MS);
            state = step(&state, &tick(&there), now).0;
        }
        prop_assert_eq!(&state.phase, &Phase::Done);
        for i in 0..n {
            let proven = state_of(&state, i) == MemberState::Proven;
            prop_assert_eq!(proven, answers(i));
        }
    }
}
