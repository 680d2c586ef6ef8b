//! The chain of headers, as an auditor reads it from the hub's database.

use std::collections::BTreeMap;

use edge_agent::identity::Identity;
use fleetloop_protocol::gap::Gap;
use fleetloop_protocol::keys::KeyRing;
use fleetloop_protocol::{Digest, Verified};

use crate::rig::Rig;

/// What was found.
pub struct Told {
    /// Samples stored.
    pub samples: u64,
    /// Samples that gaps declare as missing.
    pub missing: u64,
    /// Gaps.
    pub gaps: u64,
}

/// A stretch of the chain: up to which sequence, and the digests at its two ends.
struct Piece {
    to: u64,
    before: Digest,
    after: Digest,
}

/// Walks the chain of the only device from sequence 0 on; panics where it is broken, doubled, or
/// has a hole that no signed gap declares.
pub fn check(rig: &Rig, device: &Identity) -> Told {
    let ring: KeyRing = [device.signing_key().public()].into_iter().collect();
    let database = rig.database();
    let mut pieces: BTreeMap<u64, Piece> = BTreeMap::new();
    let mut told = Told { samples: 0, missing: 0, gaps: 0 };
    let mut samples =
        database.prepare("SELECT sequence, previous, sample, epoch FROM sample").unwrap();
    let mut rows = samples.query([]).unwrap();
    let mut epoch = None;
    while let Some(row) = rows.next().unwrap() {
        let digest = |column| Digest::from_bytes(row.get(column).unwrap());
        let sequence = row.get::<_, i64>(0).unwrap().cast_unsigned();
        let piece = Piece { to: sequence, before: digest(1), after: digest(2) };
        assert!(pieces.insert(sequence, piece).is_none(), "sequence {sequence} twice");
        let found: i64 = row.get(3).unwrap();
        assert_eq!(*epoch.get_or_insert(found), found, "one epoch");
        told.samples += 1;
    }
    let mut gaps = database.prepare("SELECT envelope FROM gap").unwrap();
    let mut rows = gaps.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let envelope: Vec<u8> = row.get(0).unwrap();
        let gap = Verified::<Gap>::open(&envelope, device.device(), &ring).unwrap().into_inner();
        let piece = Piece { to: gap.to.0, before: gap.before, after: gap.after };
        assert!(pieces.insert(gap.from.0, piece).is_none(), "a gap over what is stored");
        told.missing += gap.to.0 - gap.from.0 + 1;
        told.gaps += 1;
    }
    let (mut next, mut link) = (0, Digest::ZERO);
    for (from, piece) in pieces {
        assert_eq!(from, next, "an undeclared gap, or two pieces that overlap");
        assert_eq!(piece.before, link, "the link before sequence {from}");
        (next, link) = (piece.to + 1, piece.after);
    }
    told
}
