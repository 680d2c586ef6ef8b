//! A device that takes another's place, over HTTPS and MQTT.

use fleet_hub::enrol;
use fleetloop_protocol::enrol::EnrolResponse;

use crate::device::{Device, Mqtt};
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
