//! The outbox beside its model.

use super::plain::*;
use super::*;

/// A small disk, and what fills it.
pub(super) struct Disk {
    pub(super) ballast: PathBuf,
    pub(super) _mounted: Mounted,
    pub(super) _dir: tempfile::TempDir,
}

/// The outbox, its model, and the hub between them.
pub(super) struct Pair {
    pub(super) bench: Bench,
    pub(super) model: Model,
    pub(super) disk: Option<Disk>,
    /// Everything that was ever offered.
    pub(super) seen: Vec<Outgoing>,
    /// Everything whose receipt let it go, by kind and first sequence.
    pub(super) hub: BTreeMap<u64, Opened>,
    /// Gaps that the hub refused for good, which no hub of ours does.
    pub(super) lost: Vec<Opened>,
}

impl Pair {
    pub(super) fn new(bench: Bench, disk: Option<Disk>) -> Self {
        let model = Model::of(&bench);
        let (seen, hub, lost) = (Vec::new(), BTreeMap::new(), Vec::new());
        Self { bench, model, disk, seen, hub, lost }
    }

    /// What a command came to in the outbox, or none when the disk refused and nothing changed.
    pub(super) fn held<T>(&self, result: Result<T, OutboxError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(OutboxError::Disk { .. } | OutboxError::Open { .. }) if self.disk.is_some() => None,
            Err(error) => panic!("{error:?}"),
        }
    }

    pub(super) fn step(&mut self, op: &Op) {
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

    pub(super) fn append(&mut self, random: bool, score: u8, len: usize) {
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
    pub(super) fn stored_len(&self, draft: &Draft) -> u64 {
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
        (wire::encode(&message).unwrap().len() + beside) as u64
    }

    pub(super) fn batch(&mut self, rows: usize, bytes: usize) -> Vec<Outgoing> {
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
    pub(super) fn upload(&mut self, postpone_s: Option<u64>) -> Option<Outgoing> {
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

    pub(super) fn open(&self, outgoing: &Outgoing) -> Opened {
        open_as_hub(outgoing, self.bench.key.public())
    }

    pub(super) fn name(&self, outgoing: &Outgoing) -> Name {
        let (from, to, ..) = self.open(outgoing).link();
        (outgoing.kind, from, to)
    }

    pub(super) fn settle(&mut self, outgoing: &Outgoing, lie: Lie) {
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

    pub(super) fn refuse(&mut self, outgoing: &Outgoing, reason: RefusalReason, retry_s: u32) {
        let refusal = Refusal::new(outgoing.message, reason, "because", retry_s);
        let answer = self.bench.runtime.block_on(self.bench.outbox.refuse(refusal));
        let Some(refused) = self.held(answer) else { return };
        assert_eq!(refused, self.model.refuse(self.name(outgoing), reason, retry_s));
        if refused == Refused::DeadLetter && outgoing.kind == Kind::Gap {
            self.lost.push(self.open(outgoing));
        }
    }

    /// A row's message is rubbish from now on. The agent was not running meanwhile.
    pub(super) fn damage(&mut self, which: usize) {
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
    pub(super) fn crash(&mut self) {
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

    pub(super) fn fill_disk(&mut self) {
        use std::io::Write as _;
        let Some(disk) = &self.disk else { return };
        let mut file =
            std::fs::File::options().append(true).create(true).open(&disk.ballast).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }

    pub(super) fn free_disk(&mut self) {
        let Some(disk) = &self.disk else { return };
        // There may be nothing to remove.
        let _ = std::fs::remove_file(&disk.ballast);
    }

    /// Everything that waits is fetched and settled, and the hub holds the whole chain.
    pub(super) fn finish(mut self) {
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
