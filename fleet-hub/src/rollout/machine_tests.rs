//! What the rollout machine claims, on examples and on random histories.

use std::collections::{BTreeMap, BTreeSet};

use fleetloop_protocol::Digest;
use proptest::prelude::*;

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
fn the_canary_is_the_one_named_or_the_one_that_reported_last() {
    let mut fleet = fleet(3);
    fleet[1].last_report = Some(UnixMillis(7));
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
    Tick,
    Cancelled,
    Revoked(usize),
    Runs { device: usize, new: bool, late_by: u64 },
    Ahead { device: usize, by: u64 },
    Fails(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => Just(Happening::Started),
        2 => Just(Happening::Tick),
        1 => Just(Happening::Cancelled),
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
        Happening::Tick => Event::Tick,
        Happening::Cancelled => Event::Cancelled,
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

        for happening in &history {
            let event = event(&state, happening);
            if let (Event::Reported { device, generation, running, update: Update::Idle }, Some(canary)) =
                (&event, state.members.first())
            {
                proven_by_a_canary |= state.phase == Phase::Canary && canary.device == *device
                    && canary.state == MemberState::Assigned
                    && *generation >= canary.generation && *running == new;
            }
            let asked: BTreeSet<_> = state.members.iter()
                .filter(|m| m.state != MemberState::Waiting).map(|m| m.device.clone()).collect();
            let was_active = state.is_active();
            let (next, effects) = step(&state, &event, NOW);
            prop_assert!(was_active || (effects.is_empty() && next == state), "what ended changed");

            for Effect::SetDesired { device, generation, assignment, .. } in &effects {
                let last = generations.insert(device.clone(), *generation);
                prop_assert!(last.is_none_or(|last| last < *generation));
                let assigned = assignment.as_ref().map(|a| a.bundle);
                desired.insert(device.clone(), assigned);
                if assigned == new {
                    let is_canary = next.members[0].device == *device;
                    prop_assert!(proven_by_a_canary || is_canary, "given before it was proven");
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
            prop_assert_eq!(step(&next, &event, NOW), (next.clone(), vec![]), "not idempotent");
            prop_assert_eq!(step(&next, &Event::Tick, NOW), (next.clone(), vec![]), "left undone");
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
}
