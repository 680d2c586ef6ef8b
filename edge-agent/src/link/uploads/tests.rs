//! Against a real TLS server with faults, and a real outbox.

use fleetloop_protocol::keys::SigningKey;
use fleetloop_protocol::sample::{MediaType, Payload, Selection, VerifiedSample};
use fleetloop_protocol::{BundleDigest, ClockState, Digest, UnixMillis};

use super::*;
use crate::clock::ManualTime;
use crate::config::OutboxConfig;
use crate::outbox::Draft;
use crate::testing::{TestHub, UploadFault, clock};

struct Bench {
    hub: TestHub,
    dir: tempfile::TempDir,
    clock: Clock,
    time: ManualTime,
    outbox: Outbox,
    key: Arc<SigningKey>,
}

impl Bench {
    async fn new() -> Self {
        let (clock, time) = clock();
        let hub = TestHub::start(b"root".to_vec()).await;
        let dir = tempfile::tempdir().unwrap();
        crate::enroll::enroll_at(&hub.token(), dir.path(), &clock).await.unwrap();
        let key = Identity::load(dir.path()).unwrap().signing_key();
        let device = "dev-test".parse().unwrap();
        let limits = OutboxConfig::default();
        let outbox = Outbox::open(dir.path(), &limits, device, key.clone(), clock.clone()).unwrap();
        hub.asked();
        Self { hub, dir, clock, time, outbox, key }
    }

    async fn append(&self, len: usize) {
        let draft = Draft {
            captured_at: UnixMillis(1),
            clock: ClockState::Synced,
            model: BundleDigest(Digest::of(b"model")),
            config: Digest::of(b"config"),
            media_type: MediaType::Png,
            payload: (0..len).map(|i| (i % 251) as u8).collect(),
            selection: Selection::Uncertain { score: 0.5 },
            predictions: Vec::new(),
        };
        self.outbox.append(draft).unwrap().await.unwrap().unwrap();
    }

    fn identity(&self) -> Identity {
        Identity::load(self.dir.path()).unwrap()
    }

    fn connect(&self) -> Option<Uploads> {
        Some(Uploads::start(&self.identity(), &self.clock, self.outbox.clone()).unwrap())
    }

    /// Waits until the hub was asked for something that begins so, and says for what.
    async fn asked(&self, begins: &str) -> Vec<String> {
        loop {
            let asked: Vec<String> = self.hub.asked().into_iter().map(|(path, _)| path).collect();
            if asked.iter().any(|path| path.starts_with(begins)) {
                return asked;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

const LARGE: usize = 5_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_large_payload_is_at_the_hub_before_its_message_is_sent_and_small_ones_go_meanwhile() {
    let bench = Bench::new().await;
    bench.append(LARGE).await;
    bench.append(100).await;
    assert_eq!(bench.outbox.next_batch(10, usize::MAX).await.unwrap().len(), 1);
    let mut uploads = bench.connect();
    let message = next(&mut uploads).await.unwrap();
    let keys = [bench.key.public()].into_iter().collect();
    let sample = VerifiedSample::open(&message.bytes, &"dev-test".parse().unwrap(), &keys).unwrap();
    assert_eq!(sample.payload(), &Payload::Uploaded);
    let named = sample.header().get().commitment;
    assert_eq!(bench.hub.lock().uploads[&named].len(), LARGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_cut_or_put_off_is_done_again() {
    let bench = Bench::new().await;
    bench.hub.lock().upload_faults = vec![
        UploadFault::Answer(0, StatusCode::INSUFFICIENT_STORAGE),
        UploadFault::Answer(LARGE / 2, StatusCode::SERVICE_UNAVAILABLE),
    ];
    bench.append(LARGE).await;
    let mut uploads = bench.connect();
    // The outbox waits by the agent's clock.
    let advancing = async {
        loop {
            bench.time.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        message = next(&mut uploads) => assert!(message.is_some()),
        () = advancing => {}
    }
    let asked = bench.hub.asked();
    assert_eq!(asked.iter().filter(|(path, _)| path.starts_with("PUT")).count(), 3, "{asked:?}");
    assert_eq!(bench.hub.lock().uploads.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_hub_has_is_not_sent_again() {
    let bench = Bench::new().await;
    bench.append(LARGE).await;
    let mut uploads = bench.connect();
    next(&mut uploads).await.unwrap();
    // The message was lost with the connection.
    uploads.unwrap().end().await;
    bench.outbox.connection_lost().await.unwrap();
    bench.hub.asked();
    let mut uploads = bench.connect();
    next(&mut uploads).await.unwrap();
    let asked = bench.asked("HEAD").await;
    assert!(!asked.iter().any(|path| path.starts_with("PUT")), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_the_hub_will_not_have_waits_an_hour_and_the_next_goes_on() {
    let bench = Bench::new().await;
    bench.hub.lock().upload_faults = vec![UploadFault::Answer(LARGE, StatusCode::BAD_REQUEST)];
    bench.append(LARGE).await;
    bench.append(LARGE + 1).await;
    let mut uploads = bench.connect();
    next(&mut uploads).await.unwrap();
    assert_eq!(bench.hub.lock().uploads.values().next().unwrap().len(), LARGE + 1);
    assert!(bench.outbox.next_upload().await.unwrap().is_none());
    uploads.unwrap().end().await;
    bench.time.advance(REFUSED);
    assert_eq!(bench.outbox.next_upload().await.unwrap().unwrap().payload.len(), LARGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_does_not_move_is_given_up() {
    let bench = Bench::new().await;
    bench.append(8_000_000).await;
    let stalled = Duration::from_millis(300);
    let client = Client { stalled, ..Client::new(&bench.identity(), &bench.clock).unwrap() };
    let upload = bench.outbox.next_upload().await.unwrap().unwrap();
    // In the middle of the body, and with all of it sent.
    for taken in [100_000, 8_000_000] {
        bench.hub.lock().upload_faults = vec![UploadFault::Stall(taken)];
        match client.send(upload.clone()).await {
            Err(Failed::ForNow { reason }) => assert!(reason.contains("no progress"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    client.send(upload).await.unwrap();
    assert_eq!(bench.hub.lock().uploads.len(), 1);
}
