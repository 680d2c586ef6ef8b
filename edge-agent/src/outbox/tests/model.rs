//! The outbox against a model of it: a list in memory, plain enough to be right by looking at it.
//!
//! Commands come in any order, among them restarts, crashes, damage and a full disk. After each the
//! model knows the answer, every number of [`OutboxStats`] and, asked for a batch, which rows come in
//! which order. At the end everything is fetched and settled: what the hub then holds is the whole
//! chain, each part once.
//!
//! `PROPTEST_CASES=2000 TMPDIR=/dev/shm cargo test -p edge-agent outbox::tests::model` looks longer.

use std::collections::BTreeMap;

use fleetloop_protocol::sample::{Payload, SampleHeader, SampleMessage};
use fleetloop_protocol::{Signed, wire};
use proptest::prelude::*;

use super::*;

/// One command.
#[derive(Debug, Clone)]
enum Op {
    Append {
        random: bool,
        score: u8,
        len: usize,
    },
    Batch {
        rows: usize,
        bytes: usize,
    },
    /// Fetches a payload to upload; `postpone_s`: that does not work.
    Upload {
        postpone_s: Option<u64>,
    },
    Settle {
        which: usize,
        lie: Lie,
    },
    Refuse {
        which: usize,
        reason: RefusalReason,
        retry_s: u32,
    },
    ConnectionLost,
    Wait {
        s: u64,
    },
    Damage {
        which: usize,
    },
    Restart,
    Crash,
    FillDisk,
    FreeDisk,
}

/// What is wrong with a receipt.
#[derive(Debug, Clone, Copy)]
enum Lie {
    Nothing,
    Digest,
    Epoch,
    Sequence,
}

/// A payload that does not fit its message.
const LARGE: usize = INLINE_PAYLOAD_BYTES + 1;

fn op() -> impl Strategy<Value = Op> {
    use RefusalReason as R;
    let which = any::<usize>;
    let reason = prop::sample::select(vec![
        R::Malformed,
        R::UnknownVersion,
        R::TooLarge,
        R::NotTrusted,
        R::Conflict,
        R::StorageFull,
        R::Busy,
        R::PayloadMissing,
    ]);
    let lie = prop_oneof![
        6 => Just(Lie::Nothing),
        1 => Just(Lie::Digest),
        1 => Just(Lie::Epoch),
        1 => Just(Lie::Sequence),
    ];
    prop_oneof![
        12 => (any::<bool>(), any::<u8>(), prop_oneof![9 => 0usize..3000, 1 => LARGE..LARGE + 9])
            .prop_map(|(random, score, len)| Op::Append { random, score, len }),
        6 => (1usize..6, prop_oneof![Just(usize::MAX), 1usize..6000])
            .prop_map(|(rows, bytes)| Op::Batch { rows, bytes }),
        2 => prop::option::weighted(0.2, 0u64..4000).prop_map(|postpone_s| Op::Upload { postpone_s }),
        6 => (which(), lie).prop_map(|(which, lie)| Op::Settle { which, lie }),
        3 => (which(), reason, 0u32..8000)
            .prop_map(|(which, reason, retry_s)| Op::Refuse { which, reason, retry_s }),
        1 => Just(Op::ConnectionLost),
        2 => prop_oneof![0u64..40, 0u64..4000].prop_map(|s| Op::Wait { s }),
        2 => which().prop_map(|which| Op::Damage { which }),
        1 => Just(Op::Restart),
        1 => Just(Op::Crash),
    ]
}

fn op_on_a_small_disk() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => op(),
        // Large enough to meet the end of the disk.
        4 => (any::<bool>(), any::<u8>())
            .prop_map(|(random, score)| Op::Append { random, score, len: 60_000 }),
        1 => Just(Op::FillDisk),
        1 => Just(Op::FreeDisk),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    Sample {
        random: bool,
        score: f32,
    },
    /// `seen`: the hub may know it, so it may not grow.
    Gap {
        reason: GapReason,
        seen: bool,
    },
}

/// A row that is not offered before `until`; `retry`: not on a new connection either.
#[derive(Debug, Clone, Copy)]
struct Lease {
    until: Duration,
    retry: bool,
}

#[derive(Debug, Clone)]
struct Row {
    what: What,
    from: u64,
    to: u64,
    len: u64,
    /// Its payload is uploaded before its message is offered.
    large: bool,
    damaged: bool,
    lease: Option<Lease>,
}

/// What names a row for as long as it is the same row.
type Name = (Kind, u64, u64);

impl Row {
    fn new(what: What, from: u64, to: u64, len: u64) -> Self {
        Self { what, from, to, len, large: false, damaged: false, lease: None }
    }

    fn name(&self) -> Name {
        let kind = if self.is_sample() { Kind::Sample } else { Kind::Gap };
        (kind, self.from, self.to)
    }

    fn is_sample(&self) -> bool {
        matches!(self.what, What::Sample { .. })
    }
}

/// What an outbox is. The rows are in the order in which they are offered.
struct Model {
    limits: OutboxConfig,
    key: Arc<SigningKey>,
    epoch: Epoch,
    rows: Vec<Row>,
    now: Duration,
    hold_until: Duration,
    /// Totals; what waits is counted from the rows.
    totals: OutboxStats,
}

impl Model {
    fn of(bench: &Bench) -> Self {
        let epoch = bench.outbox.stats().epoch();
        Self {
            limits: bench.limits.clone(),
            key: bench.key.clone(),
            epoch,
            rows: Vec::new(),
            now: Duration::ZERO,
            hold_until: Duration::ZERO,
            totals: OutboxStats { epoch: epoch.0, ..OutboxStats::default() },
        }
    }

    fn samples(&self) -> u64 {
        self.rows.iter().filter(|row| row.is_sample()).count() as u64
    }

    fn bytes(&self) -> u64 {
        self.rows.iter().map(|row| row.len).sum()
    }

    fn stats(&self) -> OutboxStats {
        let samples = self.samples();
        let gaps = self.rows.len() as u64 - samples;
        let uploads = self.rows.iter().filter(|row| row.large).count() as u64;
        OutboxStats { samples, gaps, uploads, bytes: self.bytes(), ..self.totals }
    }

    fn find(&self, name: Name) -> Option<usize> {
        self.rows.iter().position(|row| row.name() == name)
    }

    fn append(&mut self, what: What, len: u64, large: bool) {
        let sequence = self.totals.samples_signed_total;
        self.rows.push(Row { large, ..Row::new(what, sequence, sequence, len) });
        self.totals.samples_signed_total += 1;
        self.totals.signed_since_start += 1;
        self.totals.paused = false;
        while self.samples() > self.limits.max_rows || self.bytes() > self.limits.max_bytes {
            let Some(at) = self.least_informative() else { break };
            let row = self.rows.remove(at);
            self.leave_gap(&row, GapReason::OutboxFull);
            self.totals.evicted_total += 1;
            self.totals.evicted_since_start += 1;
        }
    }

    /// Of the more numerous kind, and of the other when all of that kind is under way: the lowest
    /// score among the uncertain, the oldest among the random and among equals. What the hub refused
    /// for now is not under way.
    fn least_informative(&self) -> Option<usize> {
        let is =
            |row: &Row, wanted| matches!(row.what, What::Sample { random, .. } if random == wanted);
        let randoms = self.rows.iter().filter(|row| is(row, true)).count() as u64;
        let first = randoms * 2 > self.samples();
        let rank = |row: &Row| match row.what {
            What::Sample { random: false, score } => (score, row.from),
            _ => (0.0, row.from),
        };
        [first, !first].into_iter().find_map(|kind| {
            let free = |row: &Row| is(row, kind) && row.lease.is_none_or(|lease| lease.retry);
            let mut free: Vec<usize> =
                (0..self.rows.len()).filter(|i| free(&self.rows[*i])).collect();
            free.sort_by(|a, b| rank(&self.rows[*a]).partial_cmp(&rank(&self.rows[*b])).unwrap());
            free.first().copied()
        })
    }

    /// A gap takes in its neighbours of the same reason that the hub has not seen.
    fn leave_gap(&mut self, row: &Row, reason: GapReason) {
        let (mut from, mut to) = (row.from, row.to);
        let fresh = What::Gap { reason, seen: false };
        if let Some(left) = self.rows.iter().position(|r| r.what == fresh && r.to + 1 == from) {
            from = self.rows.remove(left).from;
        }
        if let Some(right) = self.rows.iter().position(|r| r.what == fresh && r.from == to + 1) {
            to = self.rows.remove(right).to;
        }
        self.rows.push(Row::new(fresh, from, to, self.gap_len(from, to, reason)));
    }

    /// The bytes of a gap's message; whatever it links, they are as many.
    fn gap_len(&self, from: u64, to: u64, reason: GapReason) -> u64 {
        let (before, after) = (Digest::ZERO, Digest::ZERO);
        let (from, to) = (Sequence(from), Sequence(to));
        let gap = Gap { device: device(), epoch: self.epoch, from, to, before, after, reason };
        Signed::seal(&gap, &device(), &self.key).unwrap().as_bytes().len() as u64
    }

    /// What may be offered now, large ones or the others.
    fn free(&mut self, large: bool) -> Vec<Name> {
        let now = self.now;
        for row in &mut self.rows {
            row.lease = row.lease.filter(|lease| lease.until > now);
        }
        if now < self.hold_until {
            return Vec::new();
        }
        let free = self.rows.iter().filter(|row| row.lease.is_none() && row.large == large);
        free.map(Row::name).collect()
    }

    /// The row whose payload is to be uploaded; a damaged one is mended instead.
    fn next_upload(&mut self) -> Option<Name> {
        let name = *self.free(true).first()?;
        let at = self.find(name)?;
        if self.rows[at].damaged {
            self.mend(at);
            return None;
        }
        Some(name)
    }

    fn lease(&mut self, name: Name, time: Duration, retry: bool) {
        let until = self.now + time;
        if let Some(at) = self.find(name) {
            self.rows[at].lease = Some(Lease { until, retry });
        }
    }

    fn batch(&mut self, max_rows: usize, max_bytes: usize) -> Vec<Name> {
        let now = self.now;
        let mut names = self.free(false);
        names.truncate(max_rows);
        let (mut offered, mut bytes) = (Vec::new(), 0);
        for name in names {
            // A gap may have gone into a wider one just now, which comes later.
            let Some(at) = self.find(name) else { continue };
            if self.rows[at].damaged {
                self.mend(at);
                continue;
            }
            bytes += self.rows[at].len;
            if bytes > max_bytes as u64 && !offered.is_empty() {
                break;
            }
            let row = &mut self.rows[at];
            row.lease = Some(Lease { until: now + LEASE, retry: false });
            if let What::Gap { seen, .. } = &mut row.what {
                *seen = true;
            }
            offered.push(name);
        }
        offered
    }

    /// A damaged sample becomes a gap; a damaged gap is signed anew and stays the same gap.
    fn mend(&mut self, at: usize) {
        let row = self.rows.remove(at);
        match row.what {
            What::Sample { .. } => {
                self.totals.damaged_total += 1;
                self.leave_gap(&row, GapReason::Damaged);
            }
            What::Gap { reason, .. } => {
                let what = What::Gap { reason, seen: true };
                self.rows.push(Row { what, damaged: false, ..row });
            }
        }
    }

    fn settle(&mut self, name: Name, lie: Lie) -> Settled {
        let Some(at) = self.find(name) else { return Settled::Unknown };
        match lie {
            Lie::Nothing => {
                let row = self.rows.remove(at);
                self.totals.samples_receipted_total += u64::from(row.is_sample());
                Settled::Deleted
            }
            Lie::Digest => Settled::OtherDigest,
            Lie::Epoch | Lie::Sequence => Settled::Unknown,
        }
    }

    fn refuse(&mut self, name: Name, reason: RefusalReason, retry_s: u32) -> Refused {
        let Some(at) = self.find(name) else { return Refused::Unknown };
        if !reason.is_permanent() {
            let until = self.now + Duration::from_secs(u64::from(retry_s)).min(LONGEST_RETRY);
            self.rows[at].lease = Some(Lease { until, retry: true });
            if matches!(reason, RefusalReason::StorageFull | RefusalReason::Busy) {
                self.hold_until = self.hold_until.max(until);
            }
            return Refused::Retry;
        }
        let row = self.rows.remove(at);
        if row.is_sample() {
            self.totals.refused_total += 1;
            self.totals.dead_letters += 1;
            if self.totals.dead_letters > DEAD_LETTERS {
                self.totals.dead_letters -= 1;
                self.totals.dead_dropped_total += 1;
            }
            self.leave_gap(&row, GapReason::Refused);
        }
        Refused::DeadLetter
    }

    fn connection_lost(&mut self) {
        for row in &mut self.rows {
            row.lease = row.lease.filter(|lease| lease.retry);
        }
    }

    fn restart(&mut self) {
        self.rows.iter_mut().for_each(|row| row.lease = None);
        self.hold_until = Duration::ZERO;
        self.totals.signed_since_start = 0;
        self.totals.evicted_since_start = 0;
        self.totals.append_failed = 0;
        self.totals.paused = false;
    }
}

/// A small disk, and what fills it.
struct Disk {
    ballast: PathBuf,
    _mounted: Mounted,
    _dir: tempfile::TempDir,
}

/// The outbox, its model, and the hub between them.
struct Pair {
    bench: Bench,
    model: Model,
    disk: Option<Disk>,
    /// Everything that was ever offered.
    seen: Vec<Outgoing>,
    /// Everything whose receipt let it go, by kind and first sequence.
    hub: BTreeMap<u64, Opened>,
    /// Gaps that the hub refused for good, which no hub of ours does.
    lost: Vec<Opened>,
}

impl Pair {
    fn new(bench: Bench, disk: Option<Disk>) -> Self {
        let model = Model::of(&bench);
        let (seen, hub, lost) = (Vec::new(), BTreeMap::new(), Vec::new());
        Self { bench, model, disk, seen, hub, lost }
    }

    /// What a command came to in the outbox, or none when the disk refused and nothing changed.
    fn held<T>(&self, result: Result<T, OutboxError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(OutboxError::Disk { .. } | OutboxError::Open { .. }) if self.disk.is_some() => None,
            Err(error) => panic!("{error:?}"),
        }
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Append { random, score, len } => self.append(random, score, len),
            Op::Batch { rows, bytes } => drop(self.batch(rows, bytes)),
            Op::Upload { postpone_s } => drop(self.upload(postpone_s)),
            Op::Settle { which, lie } if !self.seen.is_empty() => {
                self.settle(&self.seen[which % self.seen.len()].clone(), lie);
            }
            Op::Refuse { which, reason, retry_s } if !self.seen.is_empty() => {
                self.refuse(&self.seen[which % self.seen.len()].clone(), reason, retry_s);
            }
            Op::Settle { .. } | Op::Refuse { .. } => {}
            Op::ConnectionLost => {
                self.bench.connection_lost();
                self.model.connection_lost();
            }
            Op::Wait { s } => {
                self.bench.time.advance(Duration::from_secs(s));
                self.model.now += Duration::from_secs(s);
            }
            Op::Damage { which } => self.damage(which),
            Op::Restart => {
                self.bench.restart();
                self.model.restart();
            }
            Op::Crash => self.crash(),
            Op::FillDisk => self.fill_disk(),
            Op::FreeDisk => self.free_disk(),
        }
        let rows = &self.model.rows;
        assert_eq!(self.bench.outbox.stats(), self.model.stats(), "after {op:?}: {rows:?}");
    }

    fn append(&mut self, random: bool, score: u8, len: usize) {
        let score = f32::from(score) / 255.0;
        let selection =
            if random { Selection::Random { rate: 0.01 } } else { Selection::Uncertain { score } };
        let draft = draft(selection, vec![7; len]);
        let bytes = self.stored_len(&draft);
        let accepting = self.bench.outbox.accepting();
        let answer = self.bench.append(draft);
        if len as u64 > self.model.limits.max_bytes && accepting {
            // It could never be kept.
            assert!(matches!(answer, Err(OutboxError::Encode(_))), "{answer:?}");
            self.model.totals.append_failed += 1;
            return;
        }
        match self.held(answer) {
            Some(id) => {
                assert!(accepting, "an outbox that does not accept took a sample");
                assert_eq!(id.sequence.0, self.model.totals.samples_signed_total);
                self.model.append(What::Sample { random, score }, bytes, len >= LARGE);
            }
            None => {
                self.model.totals.append_failed += 1;
                self.model.totals.paused = true;
            }
        }
    }

    /// The bytes of a sample's message and of what lies beside it; whatever it links and whatever its
    /// salt, they are as many.
    fn stored_len(&self, draft: &Draft) -> u64 {
        let header = SampleHeader {
            id: SampleId {
                device: device(),
                epoch: self.model.epoch,
                sequence: Sequence(self.model.totals.samples_signed_total),
            },
            previous: Digest::ZERO,
            captured_at: draft.captured_at,
            clock: draft.clock,
            model: draft.model,
            config: draft.config,
            media_type: draft.media_type,
            payload_len: draft.payload.len() as u32,
            commitment: Digest::ZERO,
            selection: draft.selection,
            predictions: draft.predictions.clone(),
        };
        let sealed = Signed::seal(&header, &device(), &self.bench.key).unwrap();
        let (payload, beside) = if draft.payload.len() < LARGE {
            (Payload::Inline(draft.payload.clone()), 0)
        } else {
            (Payload::Uploaded, draft.payload.len())
        };
        let message = SampleMessage::new(sealed, [0; 16], payload);
        (wire::encode_for(&message, wire::VERSION).unwrap().len() + beside) as u64
    }

    fn batch(&mut self, rows: usize, bytes: usize) -> Vec<Outgoing> {
        let asked = self.bench.runtime.block_on(self.bench.outbox.next_batch(rows, bytes));
        let Some(batch) = self.held(asked) else { return Vec::new() };
        let names: Vec<Name> = batch.iter().map(|outgoing| self.name(outgoing)).collect();
        assert_eq!(names, self.model.batch(rows, bytes));
        for outgoing in &batch {
            let row = &self.model.rows[self.model.find(self.name(outgoing)).unwrap()];
            assert_eq!(outgoing.bytes.len() as u64, row.len);
            if let (What::Gap { reason, .. }, Opened::Gap { gap, .. }) =
                (row.what, self.open(outgoing))
            {
                assert_eq!(gap.reason, reason);
            }
        }
        self.seen.extend(batch.iter().cloned());
        batch
    }

    /// The message whose payload was uploaded, if there was one and that worked.
    fn upload(&mut self, postpone_s: Option<u64>) -> Option<Outgoing> {
        let (runtime, outbox) = (&self.bench.runtime, &self.bench.outbox);
        let upload = self.held(runtime.block_on(outbox.next_upload()))?;
        let name = self.model.next_upload();
        assert_eq!(upload.is_some(), name.is_some());
        let (upload, name) = (upload?, name?);
        assert_eq!(commitment(&upload.salt, &upload.payload), upload.commitment);
        self.model.lease(name, UPLOAD_LEASE, false);
        if let Some(s) = postpone_s {
            let wait = Duration::from_secs(s);
            self.held(runtime.block_on(outbox.postpone(upload.id, wait)))?;
            self.model.lease(name, wait.min(LONGEST_RETRY), true);
            return None;
        }
        let message = self.held(runtime.block_on(outbox.uploaded(upload.id)))?.unwrap();
        assert_eq!(self.name(&message), name);
        self.model.lease(name, LEASE, false);
        self.seen.push(message.clone());
        Some(message)
    }

    fn open(&self, outgoing: &Outgoing) -> Opened {
        open_as_hub(outgoing, self.bench.key.public())
    }

    fn name(&self, outgoing: &Outgoing) -> Name {
        let (from, to, ..) = self.open(outgoing).link();
        (outgoing.kind, from, to)
    }

    fn settle(&mut self, outgoing: &Outgoing, lie: Lie) {
        let opened = self.open(outgoing);
        let mut receipt = opened.receipt();
        match lie {
            Lie::Nothing => {}
            Lie::Digest => receipt.digest = Digest::of(b"other"),
            Lie::Epoch => match &mut receipt.subject {
                Subject::Sample(id) => id.epoch.0 ^= 1,
                Subject::Gap { epoch, .. } => epoch.0 ^= 1,
            },
            Lie::Sequence => match &mut receipt.subject {
                Subject::Sample(id) => id.sequence.0 += 1 << 40,
                Subject::Gap { to, .. } => to.0 += 1 << 40,
            },
        }
        let answer = self.bench.runtime.block_on(self.bench.outbox.settle(receipt));
        let Some(settled) = self.held(answer) else { return };
        assert_eq!(settled, self.model.settle(self.name(outgoing), lie));
        if settled == Settled::Deleted {
            let first = opened.link().0;
            assert!(self.hub.insert(first, opened).is_none(), "{first} was let go twice");
        }
    }

    fn refuse(&mut self, outgoing: &Outgoing, reason: RefusalReason, retry_s: u32) {
        let refusal = Refusal::new(outgoing.message, reason, "because", retry_s);
        let answer = self.bench.runtime.block_on(self.bench.outbox.refuse(refusal));
        let Some(refused) = self.held(answer) else { return };
        assert_eq!(refused, self.model.refuse(self.name(outgoing), reason, retry_s));
        if refused == Refused::DeadLetter && outgoing.kind == Kind::Gap {
            self.lost.push(self.open(outgoing));
        }
    }

    /// A row's message is rubbish from now on. The agent was not running meanwhile.
    fn damage(&mut self, which: usize) {
        if self.model.rows.is_empty() || self.disk.is_some() {
            return;
        }
        let at = which % self.model.rows.len();
        let row = &mut self.model.rows[at];
        row.damaged = true;
        let (kind, from) = (i64::from(!row.is_sample()), row.from);
        self.bench.sql(&format!(
            "UPDATE item SET message = zeroblob(length(message)) WHERE kind = {kind} AND first_seq = {from}"
        ));
        self.model.restart();
    }

    /// The process ends between two commands, without closing anything: another one finds the files as
    /// they are at this moment.
    fn crash(&mut self) {
        if self.disk.is_some() {
            // There may be no room for the image.
            return;
        }
        let image = tempfile::tempdir().unwrap();
        for file in [FILE.to_owned(), format!("{FILE}-wal")] {
            // A log that is not there yet is no part of the image.
            let _ = std::fs::copy(self.bench.dir.join(&file), image.path().join(&file));
        }
        self.bench.outbox.close();
        self.bench.dir = image.path().to_owned();
        self.bench._temporary = Some(image);
        self.bench.restart();
        self.model.restart();
    }

    fn fill_disk(&mut self) {
        use std::io::Write as _;
        let Some(disk) = &self.disk else { return };
        let mut file =
            std::fs::File::options().append(true).create(true).open(&disk.ballast).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }

    fn free_disk(&mut self) {
        let Some(disk) = &self.disk else { return };
        // There may be nothing to remove.
        let _ = std::fs::remove_file(&disk.ballast);
    }

    /// Everything that waits is fetched and settled, and the hub holds the whole chain.
    fn finish(mut self) {
        self.step(&Op::FreeDisk);
        self.step(&Op::Wait { s: PROBE_EVERY.as_secs() });
        self.step(&Op::Restart);
        let signed = self.model.totals.samples_signed_total;
        // Damage shows when a row is offered, so a later round fetches what became of it.
        for _ in 0..3 {
            for _ in 0..self.model.stats().uploads {
                if let Some(outgoing) = self.upload(None) {
                    self.settle(&outgoing, Lie::Nothing);
                }
            }
            for outgoing in self.batch(usize::from(u16::MAX), usize::MAX) {
                self.settle(&outgoing, Lie::Nothing);
            }
        }
        let stats = self.bench.outbox.stats();
        assert_eq!((stats.samples, stats.gaps, stats.bytes), (0, 0, 0));
        assert_eq!(stats, self.model.stats());
        let all: Vec<Opened> = self.hub.into_values().chain(self.lost).collect();
        assert_chain(&all, signed);
        // And it goes on.
        let id = self.bench.append(uncertain(0.5)).unwrap();
        assert_eq!(id.sequence.0, signed);
    }
}

/// So many cases, or as many as `PROPTEST_CASES` says.
fn cases(few: u32) -> ProptestConfig {
    let config = ProptestConfig::default();
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    ProptestConfig { cases: if asked { config.cases } else { few }, ..config }
}

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn the_outbox_does_what_its_model_does(
        ops in prop::collection::vec(op(), 1..80), max_rows in 1u64..8,
        max_bytes in prop_oneof![1u64 << 12..1 << 15, 1u64 << 17..1 << 20],
    ) {
        let mut pair = Pair::new(Bench::new(max_rows, max_bytes), None);
        ops.iter().for_each(|op| pair.step(op));
        pair.finish();
    }
}

proptest! {
    #![proptest_config(cases(8))]

    #[test]
    fn on_a_disk_that_fills_up_it_does_so_too_or_nothing(
        ops in prop::collection::vec(op_on_a_small_disk(), 1..80), max_rows in 1u64..50,
    ) {
        let Some((dir, mounted)) = small_disk() else {
            eprintln!("skipped: this process may not mount a tmpfs");
            return Ok(());
        };
        let limits = OutboxConfig { max_bytes: 1 << 20, max_rows };
        let bench = Bench::at(dir.path().to_owned(), limits, None);
        let disk = Disk { ballast: dir.path().join("ballast"), _mounted: mounted, _dir: dir };
        let mut pair = Pair::new(bench, Some(disk));
        ops.iter().for_each(|op| pair.step(op));
        pair.finish();
    }
}
