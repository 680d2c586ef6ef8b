//! Rollouts through the store: what is kept, what is told, and what a restart finds.

use fleetloop_protocol::BundleDigest;
use fleetloop_protocol::api::rollouts::{MemberState, Phase, Rollout, RolloutId, RolloutRequest};
use fleetloop_protocol::state::Update;

use super::super::commands::{back, cancel, start};
use super::super::waits;
use super::*;
use crate::release::fixture::Hub;
use crate::store::devices;

fn request(bundle: BundleDigest, canary: Option<&DeviceId>) -> RolloutRequest {
    RolloutRequest { bundle, canary: canary.cloned() }
}

async fn desired_of(hub: &Hub, device: &DeviceId) -> Option<(u64, Option<BundleDigest>)> {
    let device = device.clone();
    let row = hub.state.store.read(move |c| desired::get(c, &device)).await.unwrap();
    row.map(|row| (row.generation.0, row.assignment.map(|a| a.bundle)))
}

async fn phase(hub: &Hub, id: RolloutId) -> Phase {
    hub.state.store.read(move |c| rollouts::get(c, id)).await.unwrap().state.phase
}

/// A device that does what it was told last.
async fn obey(hub: &Hub, device: &DeviceId) {
    let (generation, bundle) = desired_of(hub, device).await.expect("an order");
    hub.report(device, Generation(generation), bundle, Update::Idle).await;
    look(&hub.state, device.clone()).await.unwrap();
}

async fn rolled_out(hub: &Hub, bundle: BundleDigest, fleet: &[DeviceId]) {
    let rollout = start(&hub.state, request(bundle, None), "admin").await.unwrap();
    for member in &rollout.members {
        obey(hub, &member.device).await;
    }
    assert_eq!(phase(hub, rollout.id).await, Phase::Done);
    for device in fleet {
        assert_eq!(desired_of(hub, device).await.unwrap().1, Some(bundle));
    }
}

#[tokio::test]
async fn orders_are_kept_before_they_are_told_and_told_once() {
    let mut hub = Hub::new().await;
    let fleet = [hub.enrol("dev-a").await, hub.enrol("dev-b").await];
    let bundle = hub.released("wear", 1).await;
    let rollout = start(&hub.state, request(bundle, Some(&fleet[1])), "admin").await.unwrap();
    let (device, order) = hub.orders.recv().await.unwrap();
    assert_eq!((&device, order.generation), (&fleet[1], Generation(1)));
    assert_eq!(order.assignment.unwrap().target, "wear/1/bundle.toml");
    assert_eq!(desired_of(&hub, &fleet[1]).await, Some((1, Some(bundle))));
    assert_eq!(desired_of(&hub, &fleet[0]).await, None);

    obey(&hub, &fleet[1]).await;
    assert_eq!(hub.orders.recv().await.unwrap().0, fleet[0]);
    obey(&hub, &fleet[1]).await;
    look_at_all(&hub.state).await.unwrap();
    assert!(hub.orders.try_recv().is_err());
    obey(&hub, &fleet[0]).await;
    assert_eq!(phase(&hub, rollout.id).await, Phase::Done);
}

#[tokio::test]
async fn only_what_is_released_is_rolled_out_and_only_to_enrolled_devices() {
    let hub = Hub::new().await;
    let bundle = hub.bundle("wear", 1, None).await;
    crate::registry::import(&hub.state, bundle, "admin").await.unwrap();
    let refused = start(&hub.state, request(bundle, None), "admin").await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    let released = hub.released("wear", 2).await;
    let refused = start(&hub.state, request(released, None), "admin").await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    hub.enrol("dev-a").await;
    let nobody = "dev-z".parse().unwrap();
    let refused = start(&hub.state, request(released, Some(&nobody)), "admin").await;
    assert!(matches!(refused, Err(StoreError::Invalid { .. })), "{refused:?}");
    start(&hub.state, request(released, None), "admin").await.unwrap();
}

#[tokio::test]
async fn a_second_rollout_is_refused_naming_the_first() {
    let hub = Hub::new().await;
    let device = hub.enrol("dev-a").await;
    hub.report(&device, Generation(0), None, Update::Idle).await;
    let (one, two) = (hub.released("wear", 1).await, hub.released("wear", 2).await);
    let first = start(&hub.state, request(one, None), "admin").await.unwrap();
    let refused = start(&hub.state, request(two, None), "admin").await.unwrap_err();
    assert!(matches!(&refused, StoreError::Conflict { what } if what.contains("rollout 1")));
    cancel(&hub.state, first.id, "admin").await.unwrap();
    start(&hub.state, request(two, None), "admin").await.unwrap();
    assert!(cancel(&hub.state, first.id, "admin").await.is_err());
}

#[tokio::test]
async fn a_failing_canary_sends_itself_back_and_the_fleet_stays() {
    let hub = Hub::new().await;
    let fleet = [hub.enrol("dev-a").await, hub.enrol("dev-b").await];
    let (old, new) = (hub.released("wear", 1).await, hub.released("wear", 2).await);
    rolled_out(&hub, old, &fleet).await;

    let rollout = start(&hub.state, request(new, Some(&fleet[0])), "admin").await.unwrap();
    let update = Update::Failed { bundle: new, reason: "golden case 3 is off".into() };
    hub.report(&fleet[0], Generation(2), Some(old), update).await;
    look(&hub.state, fleet[0].clone()).await.unwrap();
    let halted = Phase::Halted { device: fleet[0].clone(), reason: "golden case 3 is off".into() };
    assert_eq!(phase(&hub, rollout.id).await, halted);
    assert_eq!(desired_of(&hub, &fleet[0]).await, Some((3, Some(old))));
    assert_eq!(desired_of(&hub, &fleet[1]).await, Some((1, Some(old))));
    // Its further reports change nothing.
    obey(&hub, &fleet[0]).await;
    assert_eq!(desired_of(&hub, &fleet[0]).await, Some((3, Some(old))));
}

#[tokio::test]
async fn a_restart_at_any_point_goes_on_where_it_was() {
    let mut hub = Hub::new().await;
    let fleet = [hub.enrol("dev-a").await, hub.enrol("dev-b").await, hub.enrol("dev-c").await];
    let bundle = hub.released("wear", 1).await;
    let id = start(&hub.state, request(bundle, Some(&fleet[0])), "admin").await.unwrap().id;
    for device in &fleet {
        let before = hub.state.store.read(move |c| rollouts::get(c, id)).await.unwrap();
        hub = hub.restarted();
        let after = hub.state.store.read(move |c| rollouts::get(c, id)).await.unwrap();
        assert_eq!(before, after, "the rows are the state");
        look_at_all(&hub.state).await.unwrap();
        assert_eq!(hub.state.store.read(move |c| rollouts::get(c, id)).await.unwrap(), after);
        // The report was stored, and the hub died before anybody looked at it.
        let (generation, bundle) = desired_of(&hub, device).await.unwrap();
        hub.report(device, Generation(generation), bundle, Update::Idle).await;
        hub = hub.restarted();
        look_at_all(&hub.state).await.unwrap();
    }
    assert_eq!(phase(&hub, id).await, Phase::Done);
}

#[tokio::test]
async fn a_device_that_enrolled_later_gets_what_the_channel_runs() {
    let hub = Hub::new().await;
    let first = hub.enrol("dev-a").await;
    let (old, new) = (hub.released("wear", 1).await, hub.released("wear", 2).await);
    let late = hub.enrol("dev-z").await;
    hub.report(&late, Generation(0), None, Update::Idle).await;
    look(&hub.state, late.clone()).await.unwrap();
    assert_eq!(desired_of(&hub, &late).await, None, "nothing is rolled out yet");
    rolled_out(&hub, old, &[first.clone(), late.clone()]).await;

    let rollout = start(&hub.state, request(new, Some(&first)), "admin").await.unwrap();
    let latest = hub.enrol("dev-y").await;
    hub.report(&latest, Generation(0), None, Update::Idle).await;
    look(&hub.state, latest.clone()).await.unwrap();
    assert_eq!(desired_of(&hub, &latest).await, Some((1, Some(old))), "not proven yet");
    obey(&hub, &first).await;
    assert_eq!(phase(&hub, rollout.id).await, Phase::Everyone);
    obey(&hub, &latest).await;
    assert_eq!(desired_of(&hub, &latest).await, Some((2, Some(new))));
}

#[tokio::test]
async fn a_device_ahead_of_a_hub_restored_from_a_backup_still_listens() {
    let hub = Hub::new().await;
    let device = hub.enrol("dev-a").await;
    let bundle = hub.released("wear", 1).await;
    hub.report(&device, Generation(41), None, Update::Idle).await;
    start(&hub.state, request(bundle, None), "admin").await.unwrap();
    assert_eq!(desired_of(&hub, &device).await, Some((42, Some(bundle))));
    // One that claims what no hub can have said is not believed, and stops nobody.
    let liar = hub.enrol("dev-b").await;
    hub.report(&liar, Generation(u64::MAX), None, Update::Idle).await;
    obey(&hub, &device).await;
    look(&hub.state, liar.clone()).await.unwrap();
    assert_eq!(desired_of(&hub, &liar).await, Some((1, Some(bundle))));
}

#[tokio::test]
async fn a_revoked_device_leaves_the_rollout() {
    let hub = Hub::new().await;
    let fleet = [hub.enrol("dev-a").await, hub.enrol("dev-b").await];
    let bundle = hub.released("wear", 1).await;
    let id = start(&hub.state, request(bundle, Some(&fleet[0])), "admin").await.unwrap().id;
    let gone = fleet[0].clone();
    let now = hub.state.clock.now();
    hub.state.store.write(move |tx| devices::revoke(tx, &gone, "admin", now)).await.unwrap();
    look(&hub.state, fleet[0].clone()).await.unwrap();
    let stored = hub.state.store.read(move |c| rollouts::get(c, id)).await.unwrap();
    let members: Vec<_> = stored.state.members.iter().map(|m| (&m.device, &m.state)).collect();
    assert_eq!(members, [(&fleet[1], &MemberState::Assigned)]);
}

#[tokio::test]
async fn the_driver_moves_on_by_what_the_hub_hears() {
    let mut hub = Hub::new().await;
    let fleet = [hub.enrol("dev-a").await, hub.enrol("dev-b").await];
    let bundle = hub.released("wear", 1).await;
    let driver = tokio::spawn(run(hub.state.clone()));
    let id = start(&hub.state, request(bundle, Some(&fleet[0])), "admin").await.unwrap().id;
    for device in &fleet {
        let (told, order) = hub.orders.recv().await.unwrap();
        assert_eq!(told, *device);
        hub.report(device, order.generation, Some(bundle), Update::Idle).await;
    }
    while phase(&hub, id).await != Phase::Done {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    hub.stop.send(true).unwrap();
    driver.await.unwrap();
}

/// Enrols `new` in the place of `old`, below HTTP.
async fn replace(hub: &Hub, old: &DeviceId, new: &str) -> Result<DeviceId, StoreError> {
    let id: DeviceId = new.parse().unwrap();
    let secret_sha256 = fleetloop_protocol::Digest::of(new.as_bytes());
    let token = devices::NewToken {
        secret_sha256,
        name: "the new one".into(),
        replaces: Some(old.clone()),
        expires_at: UnixMillis(u64::MAX >> 1),
    };
    let device = devices::NewDevice {
        id: id.clone(),
        signing_key: fleetloop_protocol::keys::PublicKey::from_bytes([9; 32]),
        certificate_pem: String::new(),
        certificate_ends: UnixMillis(0),
        agent_version: "0".into(),
        secret_sha256,
        keys_sha256: secret_sha256,
    };
    let now = hub.state.clock.now();
    hub.state
        .store
        .write(move |tx| {
            devices::add_token(tx, &token, "admin", now)?;
            devices::add(tx, &device, now)
        })
        .await?;
    look_at_all(&hub.state).await?;
    Ok(id)
}

#[tokio::test]
async fn a_device_that_replaces_another_gets_its_orders_and_has_yet_to_prove_the_bundle() {
    let hub = Hub::new().await;
    let fleet = [hub.enrol("dev-a").await, hub.enrol("dev-b").await];
    let bundle = hub.released("wear", 1).await;
    let rollout = start(&hub.state, request(bundle, Some(&fleet[0])), "admin").await.unwrap();
    obey(&hub, &fleet[0]).await;
    assert_eq!(phase(&hub, rollout.id).await, Phase::Everyone);
    // The canary proved it, and its successor has not.
    let new = replace(&hub, &fleet[0], "dev-c").await.unwrap();
    assert_eq!(desired_of(&hub, &new).await, desired_of(&hub, &fleet[0]).await);
    obey(&hub, &fleet[1]).await;
    assert_eq!(phase(&hub, rollout.id).await, Phase::Everyone);
    obey(&hub, &new).await;
    assert_eq!(phase(&hub, rollout.id).await, Phase::Done);
    let (old_id, new_id) = (fleet[0].clone(), new.clone());
    let rows = hub.state.store.read(move |connection| {
        Ok((devices::get(connection, &old_id)?, devices::get(connection, &new_id)?))
    });
    let (old_row, new_row) = rows.await.unwrap();
    assert_eq!(
        (old_row.replaced_by, new_row.replaces),
        (Some(new.clone()), Some(fleet[0].clone()))
    );
    assert_eq!(old_row.state, fleetloop_protocol::api::devices::DeviceState::Revoked);
    assert_eq!(new_row.name, "the new one");
}

#[tokio::test]
async fn a_place_is_taken_once_and_outside_a_rollout_too() {
    let hub = Hub::new().await;
    let old = hub.enrol("dev-a").await;
    let bundle = hub.released("wear", 1).await;
    rolled_out(&hub, bundle, std::slice::from_ref(&old)).await;
    let new = replace(&hub, &old, "dev-c").await.unwrap();
    assert_eq!(desired_of(&hub, &new).await, desired_of(&hub, &old).await);
    let again = replace(&hub, &old, "dev-d").await;
    assert!(
        matches!(&again, Err(StoreError::Conflict { what }) if what.contains("dev-c")),
        "{again:?}"
    );
    let unknown = replace(&hub, &"dev-x".parse().unwrap(), "dev-e").await;
    assert!(unknown.is_err());
    replace(&hub, &new, "dev-f").await.unwrap();
}

/// The device says that it stops, under the orders that it has.
async fn stops(hub: &Hub, device: &DeviceId, running: Option<BundleDigest>) {
    let generation = desired_of(hub, device).await.map_or(0, |(generation, _)| generation);
    hub.report(device, Generation(generation), running, Update::Idle).await;
    let id = device.to_string();
    let sql = "UPDATE device SET reported = json_set(reported, '$.stopping', json('true'))
        WHERE id = ?1";
    hub.state.store.write(move |tx| Ok(tx.execute(sql, [id])?)).await.unwrap();
}

async fn shown_at(hub: &Hub, id: RolloutId) -> Rollout {
    let now = hub.state.clock.now();
    let read =
        move |c: &rusqlite::Connection| Ok(rollouts::get(c, id)?.to_api(&rollouts::known(c, now)?));
    hub.state.store.read(read).await.unwrap()
}

async fn later(hub: &Hub, ms: u64) {
    hub.state.clock.set(UnixMillis(hub.state.clock.now().0 + ms));
}

#[tokio::test]
async fn a_device_that_was_just_stopped_is_no_canary_and_ends_no_rollout_that_it_misses() {
    let hub = Hub::new().await;
    let fleet = [hub.enrol("dev-a").await, hub.enrol("dev-b").await];
    let [stopped, there] = &fleet;
    let (old, new) = (hub.released("wear", 1).await, hub.released("wear", 2).await);
    rolled_out(&hub, old, &fleet).await;
    later(&hub, 1000).await;
    stops(&hub, stopped, Some(old)).await;

    let rollout = start(&hub.state, request(new, None), "admin").await.unwrap();
    assert_eq!(rollout.members[0].device, *there, "it reported before the one that stopped");
    obey(&hub, there).await;
    let shown = shown_at(&hub, rollout.id).await;
    assert_eq!(shown.phase, Phase::Everyone);
    let wait = &shown.waits[0];
    assert_eq!((&wait.device, wait.presence), (stopped, Presence::Stopped));
    assert_eq!(wait.until_ms, Some(wait.since_ms + waits::AWAY_MS));
    later(&hub, waits::AWAY_MS).await;
    // A hub that was away itself has yet to hear of its devices.
    look_at(&hub.state, None, Patience::Waits).await.unwrap();
    assert_eq!(phase(&hub, rollout.id).await, Phase::Everyone);
    look_at_all(&hub.state).await.unwrap();
    let shown = shown_at(&hub, rollout.id).await;
    assert_eq!((&shown.phase, shown.waits.len()), (&Phase::Done, 0));
    assert_eq!(shown.members[1].state, MemberState::Late);

    // A week later it is back, under the order that it was given.
    later(&hub, 7 * 24 * 3600 * 1000).await;
    assert_eq!(desired_of(&hub, stopped).await.unwrap().1, Some(new));
    obey(&hub, stopped).await;
    assert_eq!(shown_at(&hub, rollout.id).await.members[1].state, MemberState::Proven);
}

#[tokio::test]
async fn a_canary_that_goes_away_is_replaced_and_another_rollout_may_begin_while_nobody_is_there() {
    let hub = Hub::new().await;
    let fleet = [hub.enrol("dev-a").await, hub.enrol("dev-b").await];
    let (old, new) = (hub.released("wear", 1).await, hub.released("wear", 2).await);
    rolled_out(&hub, old, &fleet).await;
    let rollout = start(&hub.state, request(new, Some(&fleet[0])), "admin").await.unwrap();
    let refused = start(&hub.state, request(old, None), "admin").await;
    assert!(
        matches!(refused, Err(StoreError::Conflict { .. })),
        "the canary is there: {refused:?}"
    );
    // Both are silent: nobody can go first, and nothing is taken back.
    later(&hub, waits::AWAY_MS).await;
    look_at_all(&hub.state).await.unwrap();
    let shown = shown_at(&hub, rollout.id).await;
    assert_eq!((&shown.phase, shown.waits[0].until_ms), (&Phase::Canary, None));
    // The other one comes.
    hub.report(&fleet[1], Generation(1), Some(old), Update::Idle).await;
    look_at_all(&hub.state).await.unwrap();
    let shown = shown_at(&hub, rollout.id).await;
    assert_eq!(
        (&shown.members[0].device, &shown.members[0].state),
        (&fleet[1], &MemberState::Assigned)
    );
    assert_eq!(shown.members[1].state, MemberState::Late);
    // And goes again: who wants to do something else may.
    stops(&hub, &fleet[1], Some(old)).await;
    let other = start(&hub.state, request(old, None), "admin").await.unwrap();
    assert_eq!(phase(&hub, rollout.id).await, Phase::Cancelled);
    assert_eq!(desired_of(&hub, &fleet[0]).await.unwrap().1, Some(old), "it was sent back");
    assert_eq!(other.phase, Phase::Canary);
}

#[tokio::test]
async fn going_back_gives_all_devices_what_they_ran_before() {
    let hub = Hub::new().await;
    let fleet = [hub.enrol("dev-a").await, hub.enrol("dev-b").await];
    let refused = back(&hub.state, "admin").await.unwrap_err();
    assert!(refused.to_string().contains("cannot go back"), "{refused}");
    let (old, new) = (hub.released("wear", 1).await, hub.released("wear", 2).await);
    rolled_out(&hub, old, &fleet).await;
    assert!(back(&hub.state, "admin").await.is_err(), "there is one model only");
    rolled_out(&hub, new, &fleet).await;

    let going = back(&hub.state, "admin").await.unwrap();
    assert_eq!((going.bundle, going.back, &going.phase), (old, true, &Phase::Everyone));
    for device in &fleet {
        assert_eq!(desired_of(&hub, device).await.unwrap().1, Some(old));
        obey(&hub, device).await;
    }
    assert_eq!(phase(&hub, going.id).await, Phase::Done);
    let late = hub.enrol("dev-c").await;
    hub.report(&late, Generation(0), None, Update::Idle).await;
    look(&hub.state, late.clone()).await.unwrap();
    assert_eq!(desired_of(&hub, &late).await, Some((1, Some(old))), "a new device, too");
    // One that is under way is ended instead.
    let rollout = start(&hub.state, request(new, Some(&fleet[0])), "admin").await.unwrap();
    let ended = back(&hub.state, "admin").await.unwrap();
    assert_eq!((ended.id, ended.phase), (rollout.id, Phase::Cancelled));
}
