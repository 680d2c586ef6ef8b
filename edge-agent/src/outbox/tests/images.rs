//! Files restored from images and copies of one card, against a hub that keeps one digest for each
//! identity: whatever comes when, nothing that a device still has is lost, and nothing counts twice.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// What the hub stored, by its rules.
#[derive(Default)]
struct Hub {
    /// Body digest and link of each identity.
    stored: BTreeMap<(u64, u64), Opened>,
    /// How often each payload is stored, by its first bytes.
    payloads: BTreeMap<u64, usize>,
    uploads: BTreeMap<Digest, u64>,
    conflicts: usize,
}

/// What a payload is told by.
fn tag(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().unwrap())
}

enum Answer {
    Receipt(Receipt),
    Conflict(Digest),
}

impl Hub {
    fn take(&mut self, outgoing: &Outgoing, key: PublicKey) -> Answer {
        let opened = open_as_hub(outgoing, key);
        let receipt = opened.receipt();
        let Subject::Sample(id) = receipt.subject.clone() else { panic!("no gaps here") };
        let identity = (id.epoch.0, id.sequence.0);
        if let Some(stored) = self.stored.get(&identity) {
            if stored.receipt().digest == receipt.digest {
                return Answer::Receipt(receipt);
            }
            self.conflicts += 1;
            return Answer::Conflict(outgoing.message);
        }
        let ring: KeyRing = [key].into_iter().collect();
        let sample = VerifiedSample::open(&outgoing.bytes, &device(), &ring).unwrap();
        let commitment = sample.header().get().commitment;
        let tag = match sample.payload() {
            Payload::Inline(bytes) => tag(bytes),
            Payload::Uploaded => self.uploads[&commitment],
        };
        *self.payloads.entry(tag).or_default() += 1;
        self.stored.insert(identity, opened);
        Answer::Receipt(receipt)
    }

    fn assert_whole_epochs(&self, but: u64) {
        let mut epochs: BTreeMap<u64, Vec<Opened>> = BTreeMap::new();
        for ((epoch, _), opened) in &self.stored {
            epochs.entry(*epoch).or_default().push(opened.clone());
        }
        for (epoch, parts) in epochs.into_iter().filter(|(epoch, _)| *epoch != but) {
            assert_chain(&parts, parts.len() as u64);
            assert!(epoch > but, "epochs rise");
        }
    }
}

/// One device, what it still has to deliver or delivered, and what of it is on its way.
struct Device {
    bench: Bench,
    alive: BTreeSet<u64>,
    flying: Vec<Outgoing>,
}

/// A device's files at a moment, and what they or the hub hold.
struct Image {
    dir: tempfile::TempDir,
    alive: BTreeSet<u64>,
}

impl Device {
    fn new() -> Self {
        let (alive, flying) = (BTreeSet::new(), Vec::new());
        Self { bench: Bench::new(100_000, 1 << 30), alive, flying }
    }

    fn append(&mut self, tag: u64, is_large: bool) {
        let len = if is_large { INLINE_PAYLOAD_BYTES + 1 } else { 100 };
        let mut payload = vec![7; len];
        payload[..8].copy_from_slice(&tag.to_le_bytes());
        self.bench.append(draft(Selection::Uncertain { score: 0.5 }, payload)).unwrap();
        self.alive.insert(tag);
    }

    fn offer(&mut self, rows: usize) -> usize {
        let batch = self.bench.batch(rows);
        let offered = batch.len();
        self.flying.extend(batch);
        offered
    }

    fn upload(&mut self, hub: &mut Hub) -> bool {
        let Some((upload, message)) = self.bench.upload() else { return false };
        hub.uploads.insert(upload.commitment, tag(&upload.payload));
        self.flying.push(message);
        true
    }

    /// One message reaches the hub, and its answer the device.
    fn arrive(&mut self, hub: &mut Hub, which: usize, is_answer_lost: bool) {
        if self.flying.is_empty() {
            return;
        }
        let outgoing = self.flying.remove(which % self.flying.len());
        match hub.take(&outgoing, self.bench.key.public()) {
            _ if is_answer_lost => {}
            Answer::Receipt(receipt) => drop(self.bench.settle(receipt)),
            Answer::Conflict(message) => {
                let refusal = Refusal::new(message, RefusalReason::Conflict, "other digest", 0);
                self.bench.runtime.block_on(self.bench.outbox.refuse(refusal)).unwrap();
            }
        }
    }

    /// The files as they are at this moment, without closing anything.
    fn image(&self) -> Image {
        let dir = tempfile::tempdir().unwrap();
        copy(&self.bench.dir, dir.path());
        Image { dir, alive: self.alive.clone() }
    }

    /// The device's card is written from an image.
    fn restore(&mut self, image: &Image) {
        let dir = tempfile::tempdir().unwrap();
        copy(image.dir.path(), dir.path());
        self.bench.outbox.close();
        self.bench.dir = dir.path().to_owned();
        self.bench._temporary = Some(dir);
        self.bench.restart();
        self.alive.clone_from(&image.alive);
    }

    /// Another device with a card written from an image: the same keys, a clock of its own.
    fn clone_from_image(&self, image: &Image) -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy(image.dir.path(), dir.path());
        let (clock, time) = Clock::manual(UnixMillis(1_000_000));
        let (limits, key) = (self.bench.limits.clone(), self.bench.key.clone());
        let path = dir.path().to_owned();
        let outbox = Outbox::open(&path, &limits, device(), key.clone(), clock.clone()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _temporary = Some(dir);
        let bench = Bench { dir: path, limits, key, clock, time, outbox, runtime, _temporary };
        Self { bench, alive: image.alive.clone(), flying: Vec::new() }
    }

    fn step(&mut self, op: Op, hub: &mut Hub) {
        match op {
            Op::Append { tag, is_large } => self.append(tag, is_large),
            Op::Offer { rows } => drop(self.offer(rows)),
            Op::Upload => drop(self.upload(hub)),
            Op::Arrive { which, is_answer_lost } => self.arrive(hub, which, is_answer_lost),
            Op::Lost => {
                self.flying.clear();
                self.bench.connection_lost();
            }
            Op::Restart => self.bench.restart(),
            Op::Crash => {
                let image = self.image();
                self.restore(&image);
            }
        }
    }

    /// Everything that waits is offered until it has an answer that ends it.
    fn drain(&mut self, hub: &mut Hub) {
        for _ in 0..200 {
            self.bench.time.advance(LONGEST_RETRY);
            self.bench.connection_lost();
            while self.offer(64) > 0 || self.upload(hub) {}
            while !self.flying.is_empty() {
                self.arrive(hub, 0, false);
            }
            if self.bench.outbox.stats().samples == 0 {
                return;
            }
        }
        panic!("it does not come to an end: {:?}", self.bench.outbox.stats());
    }

    fn assert_delivered(&self, hub: &Hub, most: usize) {
        for tag in &self.alive {
            let stored = hub.payloads.get(tag).copied().unwrap_or(0);
            assert!((1..=most).contains(&stored), "sample {tag} is stored {stored} times");
        }
        let stats = self.bench.outbox.stats();
        assert_eq!((stats.dead_letters, stats.gaps, stats.refused_total), (0, 0, 0));
        self.bench.assert_accounted();
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    for file in [FILE.to_owned(), format!("{FILE}-wal")] {
        // A log that is not there yet is no part of an image.
        let _ = std::fs::copy(from.join(&file), to.join(&file));
    }
}

#[test]
fn a_device_restored_from_an_image_loses_nothing_and_is_refused_once_for_each_sample_offered() {
    let (mut device, mut hub) = (Device::new(), Hub::default());
    (0..20).for_each(|tag| device.append(tag, false));
    let image = device.image();
    (20..300).for_each(|tag| device.append(tag, false));
    device.drain(&mut hub);
    let first = device.bench.outbox.stats().epoch;
    device.restore(&image);
    (1000..1254).for_each(|tag| device.append(tag, false));
    // A window of 64 goes out before its answers come.
    device.offer(64);
    while !device.flying.is_empty() {
        device.arrive(&mut hub, 0, false);
    }
    let stats = device.bench.outbox.stats();
    assert_eq!((hub.conflicts, stats.signed_again_total), (44, 44), "20 were receipted again");
    assert_eq!((stats.epochs_opened_total, stats.samples), (1, 254));
    assert!(stats.epoch > first, "epochs rise");
    device.drain(&mut hub);
    assert_eq!(hub.conflicts, 44, "what was never offered is offered under its new identity only");
    device.assert_delivered(&hub, 1);
    hub.assert_whole_epochs(first);
}

#[test]
fn two_devices_of_one_card_both_deliver_everything() {
    let (mut one, mut hub) = (Device::new(), Hub::default());
    (0..5).for_each(|tag| one.append(tag, false));
    let first = one.bench.outbox.stats().epoch;
    let mut other = one.clone_from_image(&one.image());
    for round in 0..20 {
        one.append(1000 + round, round == 7);
        other.append(2000 + round, round == 9);
        for device in [&mut one, &mut other] {
            device.drain(&mut hub);
        }
    }
    one.assert_delivered(&hub, 1);
    other.assert_delivered(&hub, 1);
    assert_eq!(hub.payloads.len(), 45);
    let opened = |device: &Device| device.bench.outbox.stats().epochs_opened_total;
    assert_eq!(opened(&one) + opened(&other), 1, "one of them moves on, and they never meet again");
    hub.assert_whole_epochs(first);
}

#[test]
fn a_hub_that_refuses_everything_as_a_conflict_is_asked_ever_more_slowly_and_costs_no_sample() {
    let mut device = Device::new();
    (0..3).for_each(|tag| device.append(tag, false));
    let mut offered = 0;
    // An hour, looked at every second.
    for _ in 0..3600 {
        for outgoing in device.bench.batch(64) {
            offered += 1;
            let refused = device.bench.refuse(&outgoing, RefusalReason::Conflict, 0);
            assert_eq!(refused, Refused::SignedAgain);
        }
        device.bench.time.advance(Duration::from_secs(1));
    }
    assert!(offered < 60, "{offered} offers in an hour");
    assert_eq!(device.bench.outbox.stats().samples, 3);
    device.bench.assert_accounted();
}

#[test]
fn what_is_offered_is_noted_once_for_many_samples_and_before_it_goes_out() {
    let mut device = Device::new();
    (0..100).for_each(|tag| device.append(tag, false));
    let mark = |device: &Device| -> i64 {
        let image = device.image();
        let db = Connection::open(image.dir.path().join(FILE)).unwrap();
        db.query_row("SELECT offered_to FROM meta", [], |row| row.get(0)).unwrap()
    };
    device.offer(10);
    let first = mark(&device);
    assert!(first >= 10, "{first}");
    device.offer(90);
    assert!(mark(&device) >= 100);
    assert!(mark(&device) - first <= 100, "one mark serves many samples");
}

#[test]
fn a_gap_of_samples_that_were_never_offered_moves_to_the_new_epoch() {
    let mut bench = Bench::new(4, 1 << 30);
    (0..2).for_each(|_| drop(bench.append(uncertain(0.9)).unwrap()));
    let sent = bench.batch(2);
    // Four wait and two went for them, none of which was offered.
    for score in [0.1, 0.2, 0.8, 0.8, 0.1] {
        bench.append(uncertain(score)).unwrap();
    }
    assert!(bench.outbox.stats().gaps > 0);
    assert_eq!(bench.refuse(&sent[1], RefusalReason::Conflict, 0), Refused::SignedAgain);
    let epoch = bench.outbox.stats().epoch();
    bench.restart();
    let (mut all, mut former) = (Vec::new(), 0);
    for _ in 0..3 {
        for outgoing in bench.batch(100) {
            let opened = open_as_hub(&outgoing, bench.key.public());
            let of = match &opened.receipt().subject {
                Subject::Sample(id) => id.epoch,
                Subject::Gap { epoch, .. } => *epoch,
            };
            if of == epoch {
                all.push(opened);
            } else {
                former += 1;
            }
        }
    }
    let (signed, gone) = (7, bench.outbox.stats().evicted_total);
    assert!(gone > 0 && former >= 1, "what was offered without an answer keeps its identity");
    let end = all.iter().map(|part| part.link().1 + 1).max().unwrap();
    assert_chain(&all, end);
    assert_eq!(end + former, signed, "every sample is accounted for");
    bench.assert_accounted();
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Append { tag: u64, is_large: bool },
    Offer { rows: usize },
    Upload,
    Arrive { which: usize, is_answer_lost: bool },
    Lost,
    Restart,
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    let rarely = |weight| prop::bool::weighted(weight);
    prop_oneof![
        8 => (any::<u64>(), rarely(0.1)).prop_map(|(tag, is_large)| Op::Append { tag, is_large }),
        4 => (1usize..20).prop_map(|rows| Op::Offer { rows }),
        1 => Just(Op::Upload),
        8 => (any::<usize>(), rarely(0.2))
            .prop_map(|(which, is_answer_lost)| Op::Arrive { which, is_answer_lost }),
        1 => Just(Op::Lost),
        1 => Just(Op::Restart),
        1 => Just(Op::Crash),
    ]
}

proptest! {
    #![proptest_config(model::cases(24))]

    #[test]
    fn a_file_restored_from_an_image_loses_nothing_it_holds_and_stores_nothing_twice(
        ops in prop::collection::vec(op(), 1..100), at in any::<(prop::sample::Index, prop::sample::Index)>(),
    ) {
        let (mut device, mut hub) = (Device::new(), Hub::default());
        let first = device.bench.outbox.stats().epoch;
        let (snapshot, restored) = (at.0.index(ops.len()), at.1.index(ops.len()));
        let (snapshot, restored) = (snapshot.min(restored), snapshot.max(restored));
        let mut image = None;
        for (place, op) in ops.iter().enumerate() {
            if place == snapshot {
                image = Some(device.image());
            }
            if place == restored {
                device.restore(image.as_ref().unwrap());
            }
            device.step(*op, &mut hub);
        }
        device.drain(&mut hub);
        device.assert_delivered(&hub, 1);
        hub.assert_whole_epochs(first);
    }

    #[test]
    fn two_devices_of_one_card_lose_nothing_and_store_nothing_twice(
        ops in prop::collection::vec((any::<bool>(), op()), 1..100), at in any::<prop::sample::Index>(),
    ) {
        let (mut one, mut hub) = (Device::new(), Hub::default());
        let first = one.bench.outbox.stats().epoch;
        let copied = at.index(ops.len());
        for (_, op) in &ops[..copied] {
            one.step(*op, &mut hub);
        }
        let mut other = one.clone_from_image(&one.image());
        for (is_other, op) in &ops[copied..] {
            let device = if *is_other { &mut other } else { &mut one };
            device.step(*op, &mut hub);
        }
        for device in [&mut one, &mut other] {
            device.drain(&mut hub);
        }
        one.assert_delivered(&hub, 1);
        other.assert_delivered(&hub, 1);
        hub.assert_whole_epochs(first);
    }
}
