//! What waits, as a file for a hub that the device reaches no more.

use std::sync::atomic::AtomicBool;

use fleetloop_protocol::export::{Head, Record, RecordKind};

use super::super::export::export_of;
use super::*;

/// What a file holds, opened as the hub would.
struct Parcel {
    head: Head,
    opened: Vec<Opened>,
    /// The payloads beside their messages.
    beside: Vec<Vec<u8>>,
}

impl Bench {
    fn try_export(&self, out: &Path) -> Result<Exported, ExportError> {
        let (key, clock) = (self.key.clone(), self.clock.clone());
        export_of(&device(), key, &self.dir, out, clock, &AtomicBool::new(false))
    }

    /// Exports what waits, while no agent runs.
    fn export(&mut self) -> Parcel {
        self.outbox.close();
        let out = tempfile::tempdir().unwrap();
        let file = out.path().join("parcel");
        let exported = self.try_export(&file).unwrap();
        assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 1, "nothing is left beside it");
        let bytes = std::fs::read(&file).unwrap();
        assert_eq!(exported.bytes, bytes.len() as u64);
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
        let head = Head::parse(&bytes[..end]).unwrap();
        let records = Record::all(&bytes[end + 1..]).unwrap();
        assert_eq!((head.records, head.samples), (records.len() as u64, exported.samples));
        let open = |record: &Record<'_>| {
            let kind = match record.kind {
                RecordKind::Sample => Kind::Sample,
                RecordKind::Gap => Kind::Gap,
            };
            let message = Digest::of(record.message);
            let bytes = record.message.to_vec();
            open_as_hub(&Outgoing { kind, bytes, message, sample: None }, self.key.public())
        };
        let opened = records.iter().map(open).collect();
        let beside = records.iter().map(|record| record.payload.to_vec()).collect();
        Parcel { head, opened, beside }
    }
}

#[test]
fn everything_that_waits_is_in_the_file_and_the_outbox_is_as_it_was() {
    let mut bench = Bench::new(3, 1 << 30);
    for score in [0.1, 0.9, 0.8] {
        bench.append(uncertain(score)).unwrap();
    }
    bench.append(large(0.7, 5)).unwrap();
    let before = bench.outbox.stats();
    assert_eq!((before.samples, before.gaps), (3, 1), "one was evicted");
    let parcel = bench.export();
    assert_eq!(parcel.head.device, device());
    assert_chain(&parcel.opened, 4);
    let beside: Vec<usize> = parcel.beside.iter().map(Vec::len).collect();
    assert_eq!(beside.iter().sum::<usize>(), INLINE_PAYLOAD_BYTES + 1, "{beside:?}");

    bench.restart();
    assert_eq!(
        bench.outbox.stats(),
        OutboxStats { signed_since_start: 0, evicted_since_start: 0, ..before }
    );
    assert_eq!(bench.batch(10).len(), 3, "an agent that starts again offers all of it");
}

#[test]
fn what_was_never_offered_before_a_conflict_is_signed_again_as_if_it_were_sent() {
    let mut bench = Bench::new(100, 1 << 30);
    for score in [0.5, 0.6, 0.7] {
        bench.append(uncertain(score)).unwrap();
    }
    let first = bench.batch(1);
    let former = bench.outbox.stats().epoch;
    assert_eq!(bench.refuse(&first[0], RefusalReason::Conflict, 0), Refused::SignedAgain);
    let epoch = bench.outbox.stats().epoch;
    assert_ne!(epoch, former);
    let parcel = bench.export();
    assert_eq!(parcel.opened.len(), 3);
    for opened in &parcel.opened {
        let Subject::Sample(id) = opened.receipt().subject else { panic!("no gaps here") };
        assert_eq!(id.epoch.0, epoch, "no identity that the hub has");
    }
    assert_chain(&parcel.opened, 3);
}

#[test]
fn a_damaged_row_is_a_gap_in_the_file() {
    let mut bench = Bench::new(100, 1 << 30);
    for score in [0.5, 0.6] {
        bench.append(uncertain(score)).unwrap();
    }
    bench.sql("UPDATE item SET message = zeroblob(length(message)) WHERE first_seq = 0");
    let parcel = bench.export();
    assert_eq!((parcel.head.records, parcel.head.samples), (2, 1));
    assert_chain(&parcel.opened, 2);
}

#[test]
fn nothing_is_written_beside_a_running_agent_or_over_a_file() {
    let bench = Bench::new(100, 1 << 30);
    bench.append(random()).unwrap();
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("parcel");
    let error = bench.try_export(&file).expect_err("an agent runs");
    assert!(error.to_string().contains("stop the agent first"), "{error}");
    bench.outbox.close();
    bench.try_export(&file).unwrap();
    let error = bench.try_export(&file).expect_err("the file is there");
    assert!(error.to_string().contains("name another file"), "{error}");
}

#[test]
fn a_foreign_or_damaged_outbox_is_an_error_and_no_empty_file() {
    let mut bench = Bench::new(100, 1 << 30);
    bench.append(random()).unwrap();
    bench.sql("UPDATE meta SET device = 'dev-other'");
    // The restart within began another file; the one that was moved aside is put back.
    bench.outbox.close();
    for suffix in ["", "-wal"] {
        let aside = bench.dir.join(format!("{FILE}.aside-1{suffix}"));
        if aside.exists() {
            std::fs::rename(&aside, bench.dir.join(format!("{FILE}{suffix}"))).unwrap();
        }
    }
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("parcel");
    let error = bench.try_export(&file).expect_err("another device's");
    assert!(error.to_string().contains("dev-other"), "{error}");
    assert!(!file.exists());
}
