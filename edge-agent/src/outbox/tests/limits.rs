//! At the limits: what is evicted, refused and not taken at all.

use super::*;

#[test]
fn eviction_takes_the_least_informative_and_leaves_a_signed_gap_that_links_the_chain() {
    let bench = Bench::new(4, 1 << 30);
    for score in [0.9, 0.6, 0.5, 0.8, 0.7, 0.95] {
        bench.append(uncertain(score)).unwrap();
    }
    let all = bench.opened(100);
    let samples: Vec<u64> = all
        .iter()
        .filter_map(|o| match o {
            Opened::Sample { sequence, .. } => Some(*sequence),
            Opened::Gap { .. } => None,
        })
        .collect();
    assert_eq!(samples, [0, 3, 4, 5]);
    let gaps: Vec<_> = all.iter().filter(|o| matches!(o, Opened::Gap { .. })).collect();
    assert_eq!(gaps.len(), 1, "neighbouring gaps merge");
    assert!(matches!(gaps[0], Opened::Gap { gap, .. } if gap.reason == GapReason::OutboxFull));
    assert_chain(&all, 6);
    for opened in &all {
        assert_eq!(bench.settle(opened.receipt()), Settled::Deleted);
    }
    let stats = bench.outbox.stats();
    assert_eq!((stats.samples, stats.gaps, stats.bytes), (0, 0, 0));
    assert_eq!((stats.samples_receipted_total, stats.evicted_total), (4, 2));
}

#[test]
fn eviction_keeps_both_kinds_and_takes_random_ones_by_age() {
    let bench = Bench::new(4, 1 << 30);
    (0..4).for_each(|_| drop(bench.append(random()).unwrap()));
    (0..4).for_each(|_| drop(bench.append(uncertain(0.9)).unwrap()));
    let kept: Vec<u64> = bench
        .opened(100)
        .iter()
        .filter_map(|o| match o {
            Opened::Sample { sequence, .. } => Some(*sequence),
            Opened::Gap { .. } => None,
        })
        .collect();
    assert_eq!(kept.iter().filter(|s| **s < 4).copied().collect::<Vec<_>>(), [2, 3]);
    assert_eq!(kept.iter().filter(|s| **s >= 4).count(), 2);
}

#[test]
fn a_gap_the_hub_may_have_seen_does_not_grow() {
    let mut bench = Bench::new(1, 1 << 30);
    for score in [0.9, 0.1] {
        bench.append(uncertain(score)).unwrap();
    }
    let first = bench.opened(100);
    assert_eq!(first.iter().filter(|o| matches!(o, Opened::Gap { .. })).count(), 1);
    bench.restart();
    bench.append(uncertain(0.2)).unwrap();
    let all = bench.opened(100);
    assert_eq!(all.iter().filter(|o| matches!(o, Opened::Gap { .. })).count(), 2);
    assert_chain(&all, 3);
}

#[test]
fn lower_limits_hold_at_once_and_higher_ones_from_then_on() {
    let bench = Bench::new(10, 1 << 20);
    (0..10).for_each(|i| drop(bench.append(uncertain(i as f32 / 10.0)).unwrap()));
    bench.outbox.set_limits(OutboxConfig { max_rows: 4, max_bytes: 1 << 20 });
    bench.runtime.block_on(bench.outbox.flush()).unwrap();
    let stats = bench.outbox.stats();
    assert_eq!((stats.samples, stats.evicted_total), (4, 6));
    bench.outbox.set_limits(OutboxConfig { max_rows: 5, max_bytes: 1 << 20 });
    (0..2).for_each(|_| drop(bench.append(uncertain(0.95)).unwrap()));
    let stats = bench.outbox.stats();
    assert_eq!((stats.samples, stats.evicted_total), (5, 7));
}

#[test]
fn what_is_under_way_is_not_evicted() {
    let bench = Bench::new(2, 1 << 30);
    bench.append(uncertain(0.1)).unwrap();
    let sent = bench.opened(1);
    for score in [0.5, 0.6, 0.7] {
        bench.append(uncertain(score)).unwrap();
    }
    assert_eq!(bench.settle(sent[0].receipt()), Settled::Deleted);
    bench.assert_accounted();
}

#[test]
fn the_byte_limit_holds() {
    let bench = Bench::new(1_000_000, 1 << 20);
    for i in 0..60 {
        let selection = Selection::Uncertain { score: (i % 7) as f32 / 7.0 };
        bench.append(draft(selection, vec![i; 50_000])).unwrap();
        assert!(bench.outbox.stats().bytes <= 1 << 20);
    }
    assert_chain(&bench.opened(10_000), 60);
    bench.assert_accounted();
}

#[test]
fn a_permanent_refusal_moves_the_sample_to_the_dead_letters_and_says_so_in_the_chain() {
    let mut bench = Bench::new(1000, 1 << 30);
    (0..3).for_each(|_| drop(bench.append(uncertain(0.9)).unwrap()));
    let sent = bench.batch(100);
    assert_eq!(bench.refuse(&sent[1], RefusalReason::NotTrusted, 9), Refused::DeadLetter);
    assert_eq!(bench.refuse(&sent[1], RefusalReason::NotTrusted, 9), Refused::Unknown);
    bench.restart();
    let stats = bench.outbox.stats();
    assert_eq!((stats.samples, stats.gaps, stats.dead_letters, stats.refused_total), (2, 1, 1, 1));
    let all = bench.opened(100);
    assert!(all.iter().any(
        |o| matches!(o, Opened::Gap { gap, .. } if gap.reason == GapReason::Refused && gap.from.0 == 1)
    ));
    assert_chain(&all, 3);
}

#[test]
fn dead_letters_are_bounded_and_the_dropped_are_counted() {
    let bench = Bench::new(1000, 1 << 30);
    for _ in 0..DEAD_LETTERS + 3 {
        bench.append(uncertain(0.9)).unwrap();
        let sent = bench.batch(1000);
        let sample = sent.iter().find(|o| o.kind == Kind::Sample).unwrap();
        bench.refuse(sample, RefusalReason::Malformed, 0);
    }
    let stats = bench.outbox.stats();
    assert_eq!((stats.dead_letters, stats.dead_dropped_total), (DEAD_LETTERS, 3));
    bench.assert_accounted();
}

#[test]
fn messages_the_hub_cannot_read_yet_do_not_hold_the_outbox_above_its_limit() {
    let bench = Bench::new(4, 1 << 30);
    (0..4).for_each(|_| drop(bench.append(uncertain(0.5)).unwrap()));
    for outgoing in bench.batch(100) {
        let refused = bench.refuse(&outgoing, RefusalReason::UnknownVersion, 3600);
        assert_eq!(refused, Refused::Retry);
    }
    (0..4).for_each(|_| drop(bench.append(uncertain(0.9)).unwrap()));
    let stats = bench.outbox.stats();
    assert_eq!((stats.samples, stats.evicted_total, stats.dead_letters), (4, 4, 0));
    bench.time.advance(LONGEST_RETRY);
    assert_chain(&bench.opened(100), 8);
}

#[test]
fn a_payload_over_the_limit_is_refused_and_takes_no_sequence() {
    let selection = Selection::Uncertain { score: 0.5 };
    for (max_bytes, limit) in [(1 << 30, PAYLOAD_BYTES), (1 << 20, 1 << 20)] {
        let bench = Bench::new(1000, max_bytes);
        bench.append(uncertain(0.1)).unwrap();
        let error = bench.append(draft(selection, vec![0; limit + 1])).unwrap_err();
        assert!(matches!(error, OutboxError::Encode(_)), "{error}");
        assert_eq!(bench.outbox.stats().samples, 1, "nothing was evicted for it");
        let most = limit - 10_000;
        assert_eq!(bench.append(draft(selection, vec![0; most])).unwrap().sequence, Sequence(1));
    }
}

#[test]
fn payloads_that_wait_for_the_disk_are_bounded_in_bytes() {
    let bench = Bench::new(1000, 1 << 30);
    let selection = Selection::Uncertain { score: 0.5 };
    let over = draft(selection, vec![0; usize::try_from(QUEUED_BYTES).unwrap() + 1]);
    assert!(matches!(bench.append(over), Err(OutboxError::Busy)));
    for _ in 0..4 {
        bench.append(draft(selection, vec![0; PAYLOAD_BYTES])).unwrap();
    }
    bench.runtime.block_on(bench.outbox.flush()).unwrap();
    assert_eq!(bench.outbox.shared.queued_bytes.load(Ordering::Relaxed), 0);
}
