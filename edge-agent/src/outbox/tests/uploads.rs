//! Payloads that do not fit their message.

use super::*;

#[test]
fn a_large_payload_is_offered_for_upload_then_its_message_and_the_receipt_takes_both() {
    let mut bench = Bench::new(1000, 1 << 30);
    bench.append(large(0.9, 1)).unwrap();
    bench.append(uncertain(0.5)).unwrap();
    let stats = bench.outbox.stats();
    assert_eq!((stats.samples, stats.uploads), (2, 1));
    assert!(stats.bytes > INLINE_PAYLOAD_BYTES as u64);
    bench.restart();
    assert_eq!(bench.outbox.stats().uploads, 1);
    let small = bench.batch(100);
    assert_eq!(small.len(), 1, "the small one does not wait for the large one before it");
    let (upload, message) = bench.upload().unwrap();
    assert_eq!(commitment(&upload.salt, &upload.payload), upload.commitment);
    assert_eq!(upload.payload, large(0.9, 1).payload);
    assert!(bench.upload().is_none(), "it is under way");
    let ring: KeyRing = [bench.key.public()].into_iter().collect();
    let sample = VerifiedSample::open(&message.bytes, &device(), &ring).unwrap();
    assert_eq!(sample.payload(), &Payload::Uploaded);
    assert_eq!(sample.header().get().commitment, upload.commitment);
    assert!(message.bytes.len() < 1000, "the message is small");
    for outgoing in [&message, &small[0]] {
        let receipt = open_as_hub(outgoing, bench.key.public()).receipt();
        assert_eq!(bench.settle(receipt), Settled::Deleted);
    }
    let stats = bench.outbox.stats();
    assert_eq!((stats.samples, stats.uploads, stats.bytes), (0, 0, 0));
    bench.outbox.close();
    let db = Connection::open(bench.dir.join(FILE)).unwrap();
    let left: i64 = db.query_row("SELECT count(*) FROM payload", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}

#[test]
fn the_largest_payload_that_fits_its_message_is_not_uploaded() {
    let bench = Bench::new(1000, 1 << 30);
    let fits = vec![7; INLINE_PAYLOAD_BYTES];
    bench.append(Draft { payload: fits.clone(), ..uncertain(0.9) }).unwrap();
    assert!(bench.upload().is_none());
    let batch = bench.batch(100);
    let ring: KeyRing = [bench.key.public()].into_iter().collect();
    let sample = VerifiedSample::open(&batch[0].bytes, &device(), &ring).unwrap();
    assert_eq!(sample.payload(), &Payload::Inline(fits));
}

#[test]
fn a_large_sample_begins_again_at_its_upload_when_the_hub_asks_or_the_connection_is_lost() {
    let bench = Bench::new(1000, 1 << 30);
    bench.append(large(0.9, 1)).unwrap();
    let (first, message) = bench.upload().unwrap();
    assert_eq!(bench.refuse(&message, RefusalReason::PayloadMissing, 5), Refused::Retry);
    assert!(bench.upload().is_none());
    bench.append(uncertain(0.5)).unwrap();
    assert_eq!(bench.batch(9).len(), 1, "only that one was asked to wait");
    bench.time.advance(Duration::from_secs(5));
    assert_eq!(bench.upload().unwrap().0, first);
    bench.connection_lost();
    assert_eq!(bench.upload().unwrap().0, first);
    bench.time.advance(LEASE);
    assert_eq!(bench.upload().unwrap().0, first, "no receipt came");
    let postpone = bench.outbox.postpone(first.id, Duration::from_secs(3600));
    bench.runtime.block_on(postpone).unwrap();
    bench.connection_lost();
    assert!(bench.upload().is_none());
    bench.time.advance(Duration::from_secs(3600));
    assert_eq!(bench.upload().unwrap().0, first);
}

#[test]
fn a_damaged_payload_becomes_a_gap_and_the_next_one_goes_on() {
    let mut bench = Bench::new(1000, 1 << 30);
    (0..2).for_each(|i| drop(bench.append(large(0.9, i)).unwrap()));
    bench.sql(
        "UPDATE payload SET bytes = zeroblob(100) WHERE item = (SELECT min(item) FROM payload)",
    );
    assert!(bench.upload().is_none());
    let (_, message) = bench.upload().unwrap();
    let mut all = bench.opened(100);
    all.push(open_as_hub(&message, bench.key.public()));
    assert_chain(&all, 2);
    let stats = bench.outbox.stats();
    assert_eq!((stats.damaged_total, stats.uploads), (1, 1));
    bench.assert_accounted();
}
