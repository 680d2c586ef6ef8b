//! Against real SQLite files; against a model of what an outbox is in [`model`].

mod model;

use std::path::PathBuf;

use fleetloop_protocol::gap::{Gap, GapReason};
use fleetloop_protocol::keys::{KeyRing, PublicKey};
use fleetloop_protocol::limits::INLINE_PAYLOAD_BYTES;
use fleetloop_protocol::receipt::{RefusalReason, Subject};
use fleetloop_protocol::sample::{Payload, VerifiedSample, commitment};
use fleetloop_protocol::{Sequence, Verified};
use rusqlite::Connection;

use super::*;
use crate::clock::ManualTime;

struct Bench {
    dir: PathBuf,
    limits: OutboxConfig,
    key: Arc<SigningKey>,
    clock: Clock,
    time: ManualTime,
    outbox: Outbox,
    runtime: tokio::runtime::Runtime,
    _temporary: Option<tempfile::TempDir>,
}

fn device() -> DeviceId {
    "dev-test".parse().unwrap()
}

fn draft(selection: Selection, payload: Vec<u8>) -> Draft {
    Draft {
        captured_at: UnixMillis(1),
        clock: ClockState::Synced,
        model: BundleDigest(Digest::of(b"model")),
        config: Digest::of(b"config"),
        media_type: MediaType::Png,
        payload,
        selection,
        predictions: vec![Prediction { class: 3, probability: 0.5 }],
    }
}

fn uncertain(score: f32) -> Draft {
    draft(Selection::Uncertain { score }, vec![7; 100])
}

/// One whose payload does not fit a message.
fn large(score: f32, payload: u8) -> Draft {
    draft(Selection::Uncertain { score }, vec![payload; INLINE_PAYLOAD_BYTES + 1])
}

fn random() -> Draft {
    draft(Selection::Random { rate: 0.01 }, vec![8; 100])
}

/// What travels, opened as the hub would.
#[derive(Debug, Clone)]
enum Opened {
    Sample { sequence: u64, before: Digest, after: Digest, receipt: Receipt },
    Gap { gap: Gap, receipt: Receipt },
}

impl Opened {
    fn receipt(&self) -> Receipt {
        match self {
            Self::Sample { receipt, .. } | Self::Gap { receipt, .. } => receipt.clone(),
        }
    }
    /// First and last sequence, and the digests before and after.
    fn link(&self) -> (u64, u64, Digest, Digest) {
        match self {
            Self::Sample { sequence, before, after, .. } => (*sequence, *sequence, *before, *after),
            Self::Gap { gap, .. } => (gap.from.0, gap.to.0, gap.before, gap.after),
        }
    }
}

fn open_as_hub(outgoing: &Outgoing, key: PublicKey) -> Opened {
    let ring: KeyRing = [key].into_iter().collect();
    assert_eq!(outgoing.message, Digest::of(&outgoing.bytes));
    let stored_at = UnixMillis(2);
    if outgoing.kind == Kind::Sample {
        let sample = VerifiedSample::open(&outgoing.bytes, &device(), &ring).unwrap();
        let (header, digest) = (sample.header().get(), sample.header().body_digest());
        let receipt = Receipt { subject: Subject::Sample(header.id.clone()), digest, stored_at };
        let (sequence, before) = (header.id.sequence.0, header.previous);
        return Opened::Sample { sequence, before, after: digest, receipt };
    }
    let gap = Verified::<Gap>::open(&outgoing.bytes, &device(), &ring).unwrap();
    let digest = gap.body_digest();
    let gap = gap.into_inner();
    let subject = Subject::Gap { epoch: gap.epoch, from: gap.from, to: gap.to };
    Opened::Gap { receipt: Receipt { subject, digest, stored_at }, gap }
}

impl Bench {
    fn at(dir: PathBuf, limits: OutboxConfig, temporary: Option<tempfile::TempDir>) -> Self {
        let key = Arc::new(SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap());
        let (clock, time) = Clock::manual(UnixMillis(1_000_000));
        let outbox = Outbox::open(&dir, &limits, device(), key.clone(), clock.clone()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { dir, limits, key, clock, time, outbox, runtime, _temporary: temporary }
    }

    fn new(max_rows: u64, max_bytes: u64) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let limits = OutboxConfig { max_bytes, max_rows };
        Self::at(temporary.path().to_owned(), limits, Some(temporary))
    }

    fn append(&self, draft: Draft) -> Result<SampleId, OutboxError> {
        let answer = self.outbox.append(draft)?;
        answer.blocking_recv().unwrap()
    }

    fn batch(&self, rows: usize) -> Vec<Outgoing> {
        self.runtime.block_on(self.outbox.next_batch(rows, usize::MAX)).unwrap()
    }

    fn opened(&self, rows: usize) -> Vec<Opened> {
        self.batch(rows).iter().map(|o| open_as_hub(o, self.key.public())).collect()
    }

    /// Takes the next payload as the uploader would, and then its message.
    fn upload(&self) -> Option<(Upload, Outgoing)> {
        let upload = self.runtime.block_on(self.outbox.next_upload()).unwrap()?;
        let message = self.runtime.block_on(self.outbox.uploaded(upload.id)).unwrap().unwrap();
        Some((upload, message))
    }

    fn settle(&self, receipt: Receipt) -> Settled {
        self.runtime.block_on(self.outbox.settle(receipt)).unwrap()
    }

    fn refuse(&self, outgoing: &Outgoing, reason: RefusalReason, retry_s: u32) -> Refused {
        let refusal = Refusal::new(outgoing.message, reason, "because", retry_s);
        self.runtime.block_on(self.outbox.refuse(refusal)).unwrap()
    }

    fn connection_lost(&self) {
        self.runtime.block_on(self.outbox.connection_lost()).unwrap();
    }

    fn restart(&mut self) {
        self.outbox.close();
        self.outbox =
            Outbox::open(&self.dir, &self.limits, device(), self.key.clone(), self.clock.clone())
                .unwrap();
    }

    fn sql(&mut self, sql: &str) {
        self.outbox.close();
        Connection::open(self.dir.join(FILE)).unwrap().execute_batch(sql).unwrap();
        self.restart();
    }

    /// signed = receipted + evicted + refused + damaged + waiting.
    fn assert_accounted(&self) {
        let s = self.outbox.stats();
        let gone = s.samples_receipted_total + s.evicted_total + s.refused_total + s.damaged_total;
        assert_eq!(s.samples_signed_total, gone + s.samples, "{s:?}");
    }
}

/// The links, sorted, form one chain from the first sequence to `end` without a hole.
fn assert_chain(parts: &[Opened], end: u64) {
    let mut links: Vec<_> = parts.iter().map(Opened::link).collect();
    links.sort_by_key(|link| link.0);
    let (mut next, mut head) = (0, Digest::ZERO);
    for (first, last, before, after) in links {
        assert_eq!((first, before), (next, head), "the chain breaks at {first}");
        (next, head) = (last + 1, after);
    }
    assert_eq!(next, end);
}

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
fn a_file_of_a_newer_agent_and_one_in_use_are_left_alone() {
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
    assert!(matches!(open().err().unwrap(), OutboxError::Newer { version: 99, .. }));
    assert!(!bench.dir.join("outbox.db.aside-1").exists());
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

#[test]
fn what_an_agent_before_uploads_left_is_sent_by_this_one() {
    let mut bench = Bench::new(1000, 1 << 30);
    (0..3).for_each(|_| drop(bench.append(uncertain(0.9)).unwrap()));
    let before = bench.outbox.stats();
    bench.sql("DROP TABLE payload; ALTER TABLE meta DROP COLUMN uploads; PRAGMA user_version = 1");
    assert_eq!(bench.outbox.stats(), OutboxStats { signed_since_start: 0, ..before });
    bench.append(large(0.9, 1)).unwrap();
    let mut all = bench.opened(100);
    all.push(open_as_hub(&bench.upload().unwrap().1, bench.key.public()));
    assert_chain(&all, 4);
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

/// A file system of 4 MiB in memory; none when this process may not mount.
fn small_disk() -> Option<(tempfile::TempDir, Mounted)> {
    let dir = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
        .arg(dir.path())
        .status()
        .is_ok_and(|status| status.success());
    mounted.then(|| {
        let path = dir.path().to_owned();
        (dir, Mounted(path))
    })
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        std::process::Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[test]
fn a_full_disk_pauses_selection_loses_nothing_and_resumes_by_itself() {
    let Some((dir, _mounted)) = small_disk() else {
        eprintln!("skipped: this process may not mount a tmpfs");
        return;
    };
    let limits = OutboxConfig { max_bytes: 1 << 30, max_rows: 1_000_000 };
    let mut bench = Bench::at(dir.path().to_owned(), limits, None);
    let big = || draft(Selection::Uncertain { score: 0.5 }, vec![9; 60_000]);
    bench.append(big()).unwrap();
    let ballast = dir.path().join("ballast");
    let fill = |bytes: usize| {
        use std::io::Write as _;
        let mut file = std::fs::File::create(&ballast).unwrap();
        while file.write_all(&vec![1; bytes]).is_ok() {}
    };
    fill(4096);
    let mut stored = 1;
    let error = loop {
        match bench.append(big()) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, OutboxError::Disk { .. }), "{error}");
    assert!(bench.outbox.stats().paused && !bench.outbox.accepting());
    assert!(matches!(bench.append(big()), Err(OutboxError::Disk { .. })));
    assert_eq!(bench.outbox.stats().append_failed, 2);
    assert_eq!(bench.outbox.stats().samples, stored, "what was stored stays");
    assert_eq!(bench.opened(1000).len() as u64, stored, "and can be sent");
    bench.restart();
    assert_eq!(bench.opened(1000).len() as u64, stored, "after a restart on the full disk too");
    assert!(matches!(bench.append(big()), Err(OutboxError::Disk { .. })));

    std::fs::remove_file(&ballast).unwrap();
    bench.time.advance(PROBE_EVERY);
    assert!(bench.outbox.accepting());
    bench.append(big()).unwrap();
    assert!(!bench.outbox.stats().paused && bench.outbox.accepting());
    bench.restart();
    assert_chain(&bench.opened(1000), stored + 1);
}

#[test]
fn an_agent_that_starts_on_a_full_disk_gets_its_outbox_once_there_is_room() {
    let Some((dir, _mounted)) = small_disk() else {
        eprintln!("skipped: this process may not mount a tmpfs");
        return;
    };
    let ballast = dir.path().join("ballast");
    {
        use std::io::Write as _;
        let mut file = std::fs::File::create(&ballast).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }
    let limits = OutboxConfig { max_bytes: 1 << 30, max_rows: 1_000_000 };
    let bench = Bench::at(dir.path().to_owned(), limits, None);
    assert!(bench.append(uncertain(0.9)).is_err());
    assert!(bench.outbox.stats().paused);
    std::fs::remove_file(&ballast).unwrap();
    bench.time.advance(PROBE_EVERY);
    assert_eq!(bench.append(uncertain(0.9)).unwrap().sequence, Sequence(0));
    assert!(!bench.outbox.stats().paused);
}
