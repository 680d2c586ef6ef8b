//! A device that takes another's place, over HTTPS and MQTT.

use fleet_hub::enrol;
use fleetloop_protocol::enrol::EnrolResponse;

use edge_agent::clock::Clock as DeviceClock;
use edge_agent::{enroll, outbox};
use fleet_hub::cli::collect;
use fleetloop_observe::output::Output;

use crate::device::{Device, Mqtt};
use crate::month::agent::Agent;
use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn the_old_device_works_until_the_new_one_enrols_and_is_shut_out_then() {
    let rig = Rig::start().await;
    let old = rig.enrol().await;
    let mut session = old.connect(&rig).await;
    let made = enrol::replacement_token(rig.state(), &old.id, None, 60, "test").await.unwrap();
    let token = made.token.parse().unwrap();
    assert_eq!(rig.count("SELECT count(*) FROM device WHERE state = 'revoked'"), 0);
    let mut new = Device::new();
    let answer = rig.post_enrolment(&new.request(&token)).await;
    new.take(answer.json::<EnrolResponse>().await.unwrap());
    session.ended().await;
    assert!(Mqtt::open(&rig, old.id.as_str(), old.tls(), None).await.is_err());
    let session = new.connect(&rig).await;
    drop(session);
    // The reply was lost: the same keys get the same answer, and nobody else is shut out.
    let again = rig.post_enrolment(&new.request(&token)).await;
    assert_eq!(again.json::<EnrolResponse>().await.unwrap().device, new.id);
    assert_eq!(rig.count("SELECT count(*) FROM device WHERE state = 'enrolled'"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_could_not_send_before_it_was_replaced_is_brought_in_a_file() {
    let mut rig = Rig::start().await;
    let dir = tempfile::tempdir().unwrap();
    let clock = || DeviceClock::system(dir.path().join("clock.json")).unwrap();
    enroll::enroll_at(&rig.token().await, dir.path(), &clock()).await.unwrap();
    Agent::install(dir.path());
    let mut agent = Agent::start(dir.path(), clock(), 1000);
    agent.answers(3).await;
    agent.has_arrived().await;
    let old = agent.identity.device().clone();

    rig.stop().await;
    agent.answers(5).await;
    agent.stop().await;
    rig.serve().await;
    let made = enrol::replacement_token(rig.state(), &old, None, 60, "test").await.unwrap();
    let mut new = Device::new();
    let answer = rig.post_enrolment(&new.request(&made.token.parse().unwrap())).await;
    new.take(answer.json::<EnrolResponse>().await.unwrap());
    assert_eq!(rig.count("SELECT count(*) FROM sample"), 3);

    let file = rig.dir.path().join("parcel");
    let (data, out) = (dir.path().to_owned(), file.clone());
    let exported = tokio::task::spawn_blocking(move || {
        let clock = DeviceClock::system(data.join("clock.json")).unwrap();
        outbox::export(&data, &out, clock, &std::sync::atomic::AtomicBool::new(false)).unwrap()
    });
    assert_eq!(exported.await.unwrap().samples, 5);
    let args = || collect::Args { file: file.clone(), vouch: None };
    for _ in 0..2 {
        collect::run(&rig.admin(), Output::with_json(true), args()).await.unwrap();
        assert_eq!(rig.count("SELECT count(*) FROM sample WHERE held IS NULL"), 8);
    }
    // One chain from the first sample to the last: nothing is missing.
    assert_eq!(rig.count("SELECT count(DISTINCT sequence) FROM sample"), 8);
    assert_eq!(rig.count("SELECT count(*) FROM finding WHERE kind LIKE 'chain%'"), 0);

    let whole = std::fs::read(&file).unwrap();
    std::fs::File::create(&file)
        .and_then(|mut cut| std::io::Write::write_all(&mut cut, &whole[..whole.len() - 1]))
        .unwrap();
    let error = collect::run(&rig.admin(), Output::with_json(true), args()).await.unwrap_err();
    assert!(format!("{error:#}").contains("export it again"), "{error:#}");
    assert!(format!("{error:#}").contains("cut off"), "{error:#}");
}
