//! Over the real store: what does not fit is stored with its receipt, and found once.

use fleetloop_protocol::gap::GapReason;
use fleetloop_protocol::sample::Prediction;
use fleetloop_protocol::{SampleId, Sequence};

use super::*;
use crate::api::testing::{Device, Hub, NOW};
use crate::store::findings::Filter;
use crate::store::ingest::{self, Outcome, Via};

/// Stores a sample of that header, as the ingest does.
async fn store(hub: &Hub, device: &Device, header: &SampleHeader) -> Digest {
    let sample = device.seal(header, b"payload");
    let (digest, now) = (sample.header().body_digest(), hub.state.clock.now());
    let payload = Digest::of(b"payload");
    let stored = hub
        .state
        .store
        .write(move |tx| ingest::store_sample(tx, &sample, payload, b"receipt", Via::Link, now));
    assert_eq!(stored.await.unwrap(), Outcome::Stored, "{:?}", header.id);
    digest
}

async fn store_gap(hub: &Hub, device: &Device, from: u64, to: u64, before: Digest, after: Digest) {
    let gap = Gap {
        device: device.id.clone(),
        epoch: Epoch(1),
        from: Sequence(from),
        to: Sequence(to),
        before,
        after,
        reason: GapReason::OutboxFull,
    };
    let (gap, now) = (device.gap(&gap), hub.state.clock.now());
    let stored =
        hub.state.store.write(move |tx| ingest::store_gap(tx, &gap, b"receipt", Via::Link, now));
    assert_eq!(stored.await.unwrap(), Outcome::Stored);
}

/// A header of that sequence that names `previous`.
fn header(device: &Device, sequence: u64, previous: Digest) -> SampleHeader {
    let id = SampleId { device: device.id.clone(), epoch: Epoch(1), sequence: Sequence(sequence) };
    SampleHeader { id, previous, predictions: Vec::new(), ..device.header(b"payload") }
}

/// The kinds found of a device, with their counts; the model of these tests is not held.
async fn found(hub: &Hub, device: &Device) -> Vec<(String, u64)> {
    let filter = Filter { device: Some(device.id.clone()), all: false, limit: 100 };
    let found = hub.state.store.read(move |c| findings::list(c, &filter)).await.unwrap();
    let mut kinds: Vec<_> = found.into_iter().map(|f| (f.kind, f.count)).collect();
    kinds.retain(|(kind, _)| kind != Kind::ModelUnknown.word());
    kinds.sort();
    kinds
}

fn once(kind: Kind) -> Vec<(String, u64)> {
    vec![(kind.word().to_owned(), 1)]
}

#[tokio::test]
async fn a_whole_chain_is_no_finding_in_whatever_order_it_arrives() {
    let hub = Hub::new().await;
    let device = hub.device("dev-a", "a").await;
    let mut headers = Vec::new();
    let mut head = Digest::ZERO;
    for sequence in 0..8 {
        let next = header(&device, sequence, head);
        head = device.seal(&next, b"payload").header().body_digest();
        headers.push((next, head));
    }
    for at in [3, 1, 0, 2, 7] {
        store(&hub, &device, &headers[at].0).await;
    }
    // 4 to 6 were evicted: the gap names what links them to their neighbours.
    store_gap(&hub, &device, 4, 6, headers[3].1, headers[6].1).await;
    assert_eq!(found(&hub, &device).await, []);
}

#[tokio::test]
async fn a_wrong_previous_is_found_whether_the_neighbour_came_before_or_after() {
    let hub = Hub::new().await;
    let (one, two) = (hub.device("dev-a", "a").await, hub.device("dev-b", "b").await);
    let wrong = Digest::of(b"another");
    store(&hub, &one, &header(&one, 4, Digest::ZERO)).await;
    store(&hub, &one, &header(&one, 5, wrong)).await;
    assert_eq!(found(&hub, &one).await, once(Kind::ChainPrevious));
    store(&hub, &two, &header(&two, 5, wrong)).await;
    store(&hub, &two, &header(&two, 4, Digest::ZERO)).await;
    assert_eq!(found(&hub, &two).await, once(Kind::ChainPrevious));
    // Again is the same finding, and the other device's is its own.
    store(&hub, &two, &header(&two, 6, wrong)).await;
    assert_eq!(found(&hub, &two).await, [(Kind::ChainPrevious.word().to_owned(), 2)]);
}

#[tokio::test]
async fn a_gap_that_does_not_link_its_neighbours_or_covers_what_is_stored_is_found() {
    let hub = Hub::new().await;
    let (one, two) = (hub.device("dev-a", "a").await, hub.device("dev-b", "b").await);
    let end = store(&hub, &one, &header(&one, 0, Digest::ZERO)).await;
    store_gap(&hub, &one, 1, 3, Digest::of(b"another"), end).await;
    assert_eq!(found(&hub, &one).await, once(Kind::ChainPrevious));
    store(&hub, &two, &header(&two, 2, Digest::ZERO)).await;
    store_gap(&hub, &two, 1, 3, end, end).await;
    assert_eq!(found(&hub, &two).await, once(Kind::ChainGapOverStored));
}

#[tokio::test]
async fn a_jump_of_a_billion_is_found_once_and_what_follows_it_is_not() {
    let hub = Hub::new().await;
    for (name, jump) in [("dev-a", 1_000_000_000), ("dev-b", u64::MAX)] {
        let device = hub.device(name, name).await;
        store(&hub, &device, &header(&device, 0, Digest::ZERO)).await;
        store(&hub, &device, &header(&device, 7, Digest::ZERO)).await;
        assert_eq!(found(&hub, &device).await, []);
        let head = store(&hub, &device, &header(&device, jump, Digest::ZERO)).await;
        assert_eq!(found(&hub, &device).await, once(Kind::ChainJump), "{jump}");
        if let Some(next) = jump.checked_add(1) {
            store(&hub, &device, &header(&device, next, head)).await;
            assert_eq!(found(&hub, &device).await, once(Kind::ChainJump));
        }
    }
    let device = hub.device("dev-c", "c").await;
    store_gap(&hub, &device, 0, 1_000_000_000, Digest::ZERO, Digest::ZERO).await;
    assert_eq!(found(&hub, &device).await, once(Kind::ChainJump));
}

#[tokio::test]
async fn a_capture_time_that_cannot_be_is_found_and_an_honest_guess_is_not() {
    let hub = Hub::new().await;
    let year_9999 = 253_370_764_800_000;
    let cases = [
        ("dev-a", ClockState::Synced, year_9999, vec![(Kind::TimeFuture.word().to_owned(), 2)]),
        ("dev-b", ClockState::Unsynced, year_9999, vec![(Kind::TimeFuture.word().to_owned(), 2)]),
        ("dev-c", ClockState::Synced, 7, vec![(Kind::TimePast.word().to_owned(), 2)]),
        ("dev-d", ClockState::Unsynced, 7, vec![]),
        ("dev-e", ClockState::Synced, NOW.0 + AHEAD_MS, vec![]),
        ("dev-f", ClockState::Unsynced, NOW.0 + 30 * 24 * 3_600_000, vec![]),
    ];
    for (name, clock, captured, expected) in cases {
        let device = hub.device(name, name).await;
        let mut head = Digest::ZERO;
        for sequence in 0..2 {
            let captured_at = UnixMillis(captured);
            let header = SampleHeader { clock, captured_at, ..header(&device, sequence, head) };
            head = store(&hub, &device, &header).await;
        }
        assert_eq!(found(&hub, &device).await, expected, "{name}");
    }
}

#[tokio::test]
async fn a_model_that_is_not_held_and_a_class_that_it_does_not_have_are_found() {
    let hub = Hub::new().await;
    let device = hub.device("dev-a", "a").await;
    let held = crate::drift::tests::model(&hub, "held", None).await;
    let mut head = Digest::ZERO;
    let classes = [(held, 1), (held, 2), (device.header(b"").model, 1), (held, 65_535)];
    for (sequence, (model, class)) in (0..).zip(classes) {
        let predictions = vec![Prediction { class, probability: 0.5 }];
        let header = SampleHeader { model, predictions, ..header(&device, sequence, head) };
        head = store(&hub, &device, &header).await;
    }
    let filter = Filter { device: Some(device.id.clone()), all: false, limit: 100 };
    let found = hub.state.store.read(move |c| findings::list(c, &filter)).await.unwrap();
    let mut found: Vec<_> = found.into_iter().map(|f| (f.kind, f.subject, f.count)).collect();
    found.sort();
    let of =
        |kind: Kind, model: BundleDigest, count| (kind.word().into(), model.to_string(), count);
    let unknown = of(Kind::ModelUnknown, device.header(b"").model, 1);
    assert_eq!(found, [of(Kind::ClassUnknown, held, 2), unknown]);
}
