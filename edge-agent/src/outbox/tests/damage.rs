//! Rows and files whose bytes are wrong, and files of others.

use super::*;

#[test]
fn a_damaged_row_becomes_a_gap_and_the_rest_goes_on() {
    let mut bench = Bench::new(1000, 1 << 30);
    (0..3).for_each(|_| drop(bench.append(uncertain(0.9)).unwrap()));
    bench.sql("UPDATE item SET message = zeroblob(length(message)) WHERE first_seq = 1");
    let mut all = bench.opened(100);
    assert_eq!(all.len(), 2);
    all.extend(bench.opened(100));
    assert!(
        all.iter()
            .any(|o| matches!(o, Opened::Gap { gap, .. } if gap.reason == GapReason::Damaged))
    );
    assert_chain(&all, 3);
    assert_eq!(bench.outbox.stats().damaged_total, 1);
    bench.assert_accounted();
}

#[test]
fn a_damaged_row_whose_gap_takes_in_one_of_the_same_batch_does_not_block_the_queue() {
    let mut bench = Bench::new(1000, 1 << 30);
    (0..3).for_each(|_| drop(bench.append(uncertain(0.9)).unwrap()));
    bench.sql("UPDATE item SET message = zeroblob(length(message)) WHERE first_seq < 2");
    assert!(bench.batch(1).is_empty(), "the first is damaged and leaves a gap behind the others");
    let mut all = bench.opened(100);
    assert_eq!(
        all.len(),
        1,
        "the second is damaged, and its gap takes in the one that was to follow"
    );
    all.extend(bench.opened(100));
    assert_chain(&all, 3);
}

#[test]
fn a_damaged_gap_is_signed_anew() {
    let mut bench = Bench::new(1, 1 << 30);
    [0.9, 0.1].into_iter().for_each(|score| drop(bench.append(uncertain(score)).unwrap()));
    let first = bench.opened(100);
    bench.sql("UPDATE item SET message = x'00' WHERE kind = 1");
    let mut all = bench.opened(100);
    all.extend(bench.opened(100));
    assert_chain(&all, 2);
    let digests = |parts: &[Opened]| {
        parts
            .iter()
            .filter(|o| matches!(o, Opened::Gap { .. }))
            .map(|o| o.receipt().digest)
            .collect::<Vec<_>>()
    };
    assert_eq!(digests(&first), digests(&all), "it is the same gap to the hub");
}

#[test]
fn a_corrupt_file_is_moved_aside_and_a_new_epoch_begins() {
    let mut bench = Bench::new(1000, 1 << 30);
    bench.append(uncertain(0.9)).unwrap();
    let epoch = bench.outbox.stats().epoch;
    bench.outbox.close();
    crate::durable::write(&bench.dir.join(FILE), &[0x55; 8192]).unwrap();
    bench.restart();
    assert_ne!(bench.outbox.stats().epoch, epoch);
    assert_eq!(bench.append(uncertain(0.9)).unwrap().sequence, Sequence(0));
    assert!(bench.dir.join("outbox.db.aside-1").exists(), "nothing is thrown away");
}

#[test]
fn damage_that_shows_only_while_running_begins_a_new_epoch_too() {
    let mut bench = Bench::new(1000, 1 << 30);
    (0..50).for_each(|_| drop(bench.append(uncertain(0.9)).unwrap()));
    bench.outbox.close();
    let path = bench.dir.join(FILE);
    let mut bytes = std::fs::read(&path).unwrap();
    // The first pages hold the schema and `meta`; everything behind them is rubbish now.
    let page = 4096;
    assert!(bytes.len() > 12 * page);
    bytes[3 * page..].fill(0x55);
    crate::durable::write(&path, &bytes).unwrap();
    bench.restart();
    let epoch = bench.outbox.stats().epoch;
    let stored = (0..3).filter(|_| bench.append(uncertain(0.9)).is_ok()).count();
    assert!(stored >= 2, "{stored}");
    assert_ne!(bench.outbox.stats().epoch, epoch);
    assert!(bench.dir.join("outbox.db.aside-1").exists());
}

#[test]
fn another_devices_file_is_moved_aside() {
    let mut bench = Bench::new(1000, 1 << 30);
    bench.sql("UPDATE meta SET device = 'dev-before'");
    assert!(bench.dir.join("outbox.db.aside-1").exists());
    assert_eq!(bench.outbox.stats().samples_signed_total, 0);
}

#[test]
fn a_file_of_another_schema_and_one_in_use_are_left_alone() {
    let bench = Bench::new(1000, 1 << 30);
    let open = || {
        Outbox::open(&bench.dir, &bench.limits, device(), bench.key.clone(), bench.clock.clone())
    };
    assert!(matches!(open().err().unwrap(), OutboxError::Open { .. }));
    assert!(matches!(read_stats(&bench.dir, &device()), Err(OutboxError::Open { .. })));
    bench.outbox.close();
    let db = Connection::open(bench.dir.join(FILE)).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    assert!(matches!(open().err().unwrap(), OutboxError::OtherSchema { found: 99, .. }));
    assert!(!bench.dir.join("outbox.db.aside-1").exists());
}
