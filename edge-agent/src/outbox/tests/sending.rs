//! What is offered, what a receipt takes away, and what a restart keeps.

use super::*;

#[test]
fn restart_keeps_every_sample_without_a_receipt_and_continues_the_chain() {
    let mut bench = Bench::new(1000, 1 << 30);
    (0..5).for_each(|i| drop(bench.append(uncertain(i as f32 / 5.0)).unwrap()));
    let sent = bench.opened(2);
    assert_eq!(bench.settle(sent[0].receipt()), Settled::Deleted);
    let before = bench.outbox.stats();
    bench.restart();
    assert_eq!(bench.outbox.stats(), OutboxStats { signed_since_start: 0, ..before });
    let id = bench.append(random()).unwrap();
    assert_eq!((id.sequence, id.epoch), (Sequence(5), before.epoch()));
    let mut all = bench.opened(100);
    assert_eq!(all.len(), 5, "what was under way is offered again after a restart");
    all.push(sent[0].clone());
    assert_chain(&all, 6);
    bench.assert_accounted();
}

#[test]
fn a_receipt_with_another_digest_deletes_nothing() {
    let bench = Bench::new(1000, 1 << 30);
    bench.append(uncertain(0.9)).unwrap();
    let good = bench.opened(1)[0].receipt();
    let other_digest = Receipt { digest: Digest::of(b"other"), ..good.clone() };
    assert_eq!(bench.settle(other_digest), Settled::OtherDigest);
    let Subject::Sample(id) = good.subject.clone() else { panic!("a sample") };
    for id in [
        SampleId { device: "dev-other".parse().unwrap(), ..id.clone() },
        SampleId { epoch: Epoch(id.epoch.0 ^ 1), ..id.clone() },
        SampleId { sequence: Sequence(1), ..id },
    ] {
        let receipt = Receipt { subject: Subject::Sample(id), ..good.clone() };
        assert_eq!(bench.settle(receipt), Settled::Unknown);
    }
    assert_eq!(bench.outbox.stats().samples, 1);
    assert_eq!(bench.settle(good.clone()), Settled::Deleted);
    assert_eq!(bench.settle(good), Settled::Unknown, "the second time it is gone");
    assert_eq!(bench.outbox.stats().samples_receipted_total, 1);
    assert_eq!(bench.outbox.stats().bytes, 0);
}

#[test]
fn what_is_under_way_is_offered_again_after_its_time_or_on_a_new_connection() {
    let bench = Bench::new(1000, 1 << 30);
    (0..3).for_each(|_| drop(bench.append(uncertain(0.9)).unwrap()));
    assert_eq!((bench.batch(2).len(), bench.batch(9).len(), bench.batch(9).len()), (2, 1, 0));
    bench.time.advance(LEASE);
    assert_eq!(bench.batch(9).len(), 3);
    bench.connection_lost();
    assert_eq!(bench.batch(9).len(), 3);
}

#[test]
fn a_batch_keeps_to_its_bytes_but_always_offers_one() {
    let bench = Bench::new(1000, 1 << 30);
    (0..3).for_each(|_| drop(bench.append(uncertain(0.9)).unwrap()));
    let one = bench.runtime.block_on(bench.outbox.next_batch(9, 1)).unwrap();
    assert_eq!(one.len(), 1);
    let two = one[0].bytes.len() * 2 + 10;
    let next = bench.runtime.block_on(bench.outbox.next_batch(9, two)).unwrap();
    assert_eq!(next.len(), 2);
}

#[test]
fn a_hub_that_is_full_is_left_alone_until_it_said() {
    let bench = Bench::new(1000, 1 << 30);
    (0..3).for_each(|_| drop(bench.append(uncertain(0.9)).unwrap()));
    let sent = bench.batch(1);
    assert_eq!(bench.refuse(&sent[0], RefusalReason::StorageFull, 60), Refused::Retry);
    bench.connection_lost();
    assert!(bench.batch(9).is_empty());
    bench.time.advance(Duration::from_secs(60));
    assert_eq!(bench.batch(9).len(), 3);
}

#[test]
fn a_message_the_hub_cannot_read_yet_waits_alone() {
    let bench = Bench::new(1000, 1 << 30);
    (0..3).for_each(|_| drop(bench.append(uncertain(0.9)).unwrap()));
    let sent = bench.batch(1);
    assert_eq!(bench.refuse(&sent[0], RefusalReason::UnknownVersion, 60), Refused::Retry);
    bench.connection_lost();
    assert_eq!(bench.batch(9).len(), 2);
}

#[test]
fn the_numbers_can_be_read_while_no_agent_runs() {
    let bench = Bench::new(1000, 1 << 30);
    bench.append(uncertain(0.9)).unwrap();
    let running = bench.outbox.stats();
    bench.outbox.close();
    let read = OutboxStats { signed_since_start: 0, ..running };
    assert_eq!(read_stats(&bench.dir, &device()).unwrap(), Some(read));
}
