//! What a session may write and hear.

use std::time::Duration;

use fleetloop_protocol::topic::{Kind, Topic};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{PubAckReason, SubscribeReasonCode};

use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn a_device_cannot_write_to_anothers_topic_nor_answer_for_the_hub() {
    let rig = Rig::start().await;
    let (victim, thief) = (rig.enrol().await, rig.enrol().await);
    let mut listening = victim.connect(&rig).await;
    let mut session = thief.connect(&rig).await;
    for topic in [
        Topic::new(&victim.id, Kind::Sample).to_string(),
        Topic::new(&victim.id, Kind::Receipt).to_string(),
        Topic::new(&thief.id, Kind::Receipt).to_string(),
        "anything/else".to_owned(),
    ] {
        let reason = session.publish(&topic, thief.sample(0, b"x")).await;
        assert_eq!(reason, PubAckReason::NotAuthorized, "{topic}");
    }
    // Its own still work, and nothing reached the victim or the database meanwhile.
    session.send(&Topic::new(&thief.id, Kind::Sample), thief.sample(0, b"x")).await;
    session.receipt(&thief.id, &rig.receipt_keys()).await;
    assert!(!listening.hears(&victim.id, Kind::Receipt, Duration::from_millis(300)).await);
    assert_eq!(rig.count("SELECT count(*) FROM sample"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_cannot_listen_to_anothers_topic_nor_share_a_subscription() {
    let rig = Rig::start().await;
    let (victim, thief) = (rig.enrol().await, rig.enrol().await);
    let mut listening = victim.connect(&rig).await;
    let mut session = thief.connect(&rig).await;
    let receipts = Topic::new(&victim.id, Kind::Receipt);
    for filter in [
        receipts.to_string(),
        format!("$share/group/{receipts}"),
        format!("$share/group/{}", Topic::new(&thief.id, Kind::Receipt)),
        Topic::all(Kind::Receipt),
        Topic::all(Kind::Sample),
        "fleetloop/#".to_owned(),
        "#".to_owned(),
        "$SYS/#".to_owned(),
    ] {
        let code = session.subscribe(&filter).await;
        assert!(!matches!(code, SubscribeReasonCode::Success(_)), "{filter}: {code:?}");
    }
    let own = session.subscribe(&Topic::new(&thief.id, Kind::Result).to_string()).await;
    assert_eq!(own, SubscribeReasonCode::Success(QoS::AtLeastOnce));
    listening.send(&Topic::new(&victim.id, Kind::Sample), victim.sample(0, b"x")).await;
    listening.receipt(&victim.id, &rig.receipt_keys()).await;
    assert!(!session.hears(&victim.id, Kind::Receipt, Duration::from_millis(300)).await);
}
