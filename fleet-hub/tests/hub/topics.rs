//! What a session may write and hear.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use fleetloop_observe::log;
use fleetloop_protocol::topic::{Kind, Topic};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{PubAckReason, SubscribeReasonCode};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

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

/// What is logged by this process from the first call on.
fn log() -> Arc<Mutex<Vec<u8>>> {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    static LINES: OnceLock<Lines> = OnceLock::new();
    let lines = LINES.get_or_init(|| {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = log::layer(log::Format::Human, move || writer.clone(), false);
        let filter = LevelFilter::WARN;
        tracing_subscriber::registry().with(layer.with_filter(filter)).init();
        lines
    });
    Arc::clone(&lines.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_cannot_forge_a_log_line_nor_drive_the_terminal() {
    let log = log();
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let mut session = device.connect(&rig).await;
    let topic = "x\n2026-12-01T00:00:00Z ERROR fleet_hub: FORGED\u{1b}[2J\u{202e}";
    session.publish(topic, device.sample(0, b"x")).await;
    let bytes = log.lock().unwrap().clone();
    let text = String::from_utf8(bytes).unwrap();
    let forged: Vec<&str> = text.lines().filter(|line| line.contains("FORGED")).collect();
    assert_eq!(forged.len(), 1, "{text}");
    assert!(forged[0].contains("refused to publish"), "{text}");
    assert!(forged[0].contains("x\\n2026-12-01T00:00:00Z"), "{text}");
    assert!(forged[0].contains("\\u{1b}[2J\\u{202e}"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
}
