//! Against real SQLite files; against a model of what an outbox is in [`model`].

mod damage;
mod disk;
mod export;
mod images;
mod limits;
mod model;
mod sending;
mod uploads;

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
