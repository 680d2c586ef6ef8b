//! The outbox against a model of it: a list in memory, plain enough to be right by looking at it.
//!
//! Commands come in any order, among them restarts, crashes, damage and a full disk. After each the
//! model knows the answer, every number of [`OutboxStats`] and, asked for a batch, which rows come in
//! which order. At the end everything is fetched and settled: what the hub then holds is the whole
//! chain, each part once.
//!
//! `PROPTEST_CASES=2000 TMPDIR=/dev/shm cargo test -p edge-agent outbox::tests::model` looks longer.

mod pair;
mod plain;

use std::collections::BTreeMap;

use fleetloop_protocol::sample::{Payload, SampleHeader, SampleMessage};
use fleetloop_protocol::{Signed, wire};
use proptest::prelude::*;

use super::disk::{Mounted, small_disk};
use super::*;
use pair::{Disk, Pair};

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

/// So many cases, or as many as `PROPTEST_CASES` says.
pub(super) fn cases(few: u32) -> ProptestConfig {
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
        let Some((dir, mounted)) = small_disk() else { return Ok(()) };
        let limits = OutboxConfig { max_bytes: 1 << 20, max_rows };
        let bench = Bench::at(dir.path().to_owned(), limits, None);
        let disk = Disk { ballast: dir.path().join("ballast"), _mounted: mounted, _dir: dir };
        let mut pair = Pair::new(bench, Some(disk));
        ops.iter().for_each(|op| pair.step(op));
        pair.finish();
    }
}
