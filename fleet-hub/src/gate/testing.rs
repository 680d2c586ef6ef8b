//! Reports for the gate's tests.

use fleetloop_protocol::api::reports::{Output, Report};
use fleetloop_protocol::{BundleDigest, Digest};

/// An output for item `index`, whose label is 0.
pub fn output(index: usize, group: &str, correct: bool) -> Output {
    let probabilities = if correct { vec![0.9, 0.1] } else { vec![0.1, 0.9] };
    let sample = Digest::of(&index.to_le_bytes());
    Output { sample, label: 0, group: group.to_owned(), probabilities }
}

/// A report on imported items and on a fleet's, right or wrong.
pub fn report(import: &[bool], fleet: &[bool]) -> Report {
    let mut outputs: Vec<_> =
        import.iter().enumerate().map(|(i, ok)| output(i, "import:a", *ok)).collect();
    let fleet = fleet.iter().enumerate();
    outputs.extend(fleet.map(|(i, ok)| output(10_000 + i, "fleet", *ok)));
    outputs.sort_by_key(|o| o.sample);
    Report {
        bundle: BundleDigest(Digest::of(b"bundle")),
        dataset: Digest::of(b"dataset"),
        runtime: "test".to_owned(),
        outputs,
    }
}

/// `n` items, of which the first `correct` are right.
pub fn share(n: usize, correct: usize) -> Vec<bool> {
    (0..n).map(|i| i < correct).collect()
}
