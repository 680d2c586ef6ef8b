//! Whether two reports on one bundle can both be true.
//!
//! A bundle gives the same answer to the same item wherever it runs, but not to the last bit: float
//! kernels add in another order, and integer kernels of another processor round and saturate
//! differently. So reports are compared with a tolerance, on the items that both hold; the datasets
//! may differ. They contradict each other when one of these holds:
//!
//! - On more than [`ITEMS_OFF`] of the shared items, and on more than one, some class's probability
//!   differs by more than [`OFF`].
//! - The numbers of items that they get right, over all or in one group, differ by more than
//!   [`RIGHT_OFF`] of these items, and by more than one. Both are counted with the first report's labels.
//!
//! What stays within the tolerance can move a figure by half a point at most.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use fleetloop_protocol::Digest;
use fleetloop_protocol::api::reports::{Output, Report};

/// How far a class's probability may differ on one item. A hundred times what float kernels differ by,
/// half of what a bundle's golden cases may ask for at most.
pub const OFF: f32 = 0.05;

/// The share of the shared items on which a probability may differ by more than [`OFF`]: integer
/// kernels saturate on few items.
pub const ITEMS_OFF: f64 = 0.01;

/// The share of the shared items by which the numbers of right ones may differ.
pub const RIGHT_OFF: f64 = 0.005;

/// Why two reports cannot both be true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contradiction {
    /// Too many answers differ.
    Answers {
        /// Items whose probabilities differ by more than [`OFF`].
        off: usize,
        /// Items that both reports hold.
        shared: usize,
    },
    /// The accuracies differ too much.
    Accuracy {
        /// The group; none for all items.
        group: Option<String>,
        /// Items that the first report gets right.
        right: usize,
        /// Items that the second report gets right.
        other_right: usize,
        /// Items of the group that both reports hold.
        shared: usize,
    },
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answers { off, shared } => {
                write!(f, "{off} of {shared} answers differ by more than {OFF}")
            }
            Self::Accuracy { group, right, other_right, shared } => {
                let group = group.as_deref().map_or(String::new(), |g| format!(" of group {g}"));
                write!(
                    f,
                    "{right} of {shared} items{group} are right in one, {other_right} in the other"
                )
            }
        }
    }
}

/// How many items are right in each report, of how many.
#[derive(Default)]
struct Right {
    ours: usize,
    theirs: usize,
    shared: usize,
}

/// Why `ours` and `theirs`, both about one bundle, cannot both be true; none when they can, or when
/// they share no item.
pub fn contradiction(ours: &Report, theirs: &Report) -> Option<Contradiction> {
    let known: HashMap<Digest, &Output> = theirs.outputs.iter().map(|o| (o.sample, o)).collect();
    let mut off = 0;
    let mut groups: BTreeMap<Option<&str>, Right> = BTreeMap::new();
    for output in &ours.outputs {
        let Some(other) = known.get(&output.sample) else { continue };
        off += usize::from(is_off(output, other));
        let is_right = |o: &Output| o.best().is_some_and(|(i, _)| i == usize::from(output.label));
        let (ours, theirs) = (is_right(output).into(), is_right(other).into());
        for group in [None, Some(output.group.as_str())] {
            let right: &mut Right = groups.entry(group).or_default();
            let (sum_ours, sum_theirs): (usize, usize) = (ours, theirs);
            right.ours += sum_ours;
            right.theirs += sum_theirs;
            right.shared += 1;
        }
    }
    let shared = groups.get(&None)?.shared;
    if off > allowed(shared, ITEMS_OFF) {
        return Some(Contradiction::Answers { off, shared });
    }
    groups
        .into_iter()
        .find(|(_, right)| right.ours.abs_diff(right.theirs) > allowed(right.shared, RIGHT_OFF))
        .map(|(group, right)| Contradiction::Accuracy {
            group: group.map(str::to_owned),
            right: right.ours,
            other_right: right.theirs,
            shared: right.shared,
        })
}

/// Whether some class's probability differs by more than [`OFF`]; also when the classes do.
fn is_off(ours: &Output, theirs: &Output) -> bool {
    ours.probabilities.len() != theirs.probabilities.len()
        || ours.probabilities.iter().zip(&theirs.probabilities).any(|(a, b)| (a - b).abs() > OFF)
}

/// How many of `shared` items may differ: `share` of them, and always one.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a dataset has far fewer than 2^52 items, and a share of them is not negative"
)]
fn allowed(shared: usize, share: f64) -> usize {
    ((shared as f64 * share) as usize).max(1)
}

#[cfg(test)]
mod tests {
    use fleetloop_protocol::BundleDigest;
    use proptest::prelude::*;

    use super::*;

    /// A report on items `from..to`, of which the first `wrong` of each group are wrong, with every
    /// probability moved by `noise`.
    fn report(from: usize, to: usize, wrong: usize, noise: f32) -> Report {
        let outputs = (from..to).map(|i| {
            let right = i / 2 >= wrong;
            let p = if right { 0.9 - noise } else { 0.1 + noise };
            Output {
                sample: Digest::of(&i.to_le_bytes()),
                label: 0,
                group: ["import", "fleet"][i % 2].to_owned(),
                probabilities: vec![p, 1.0 - p],
            }
        });
        Report {
            bundle: BundleDigest(Digest::of(b"bundle")),
            dataset: Digest::of(&[to as u8]),
            runtime: "test".to_owned(),
            outputs: outputs.collect(),
        }
    }

    #[test]
    fn a_base_that_suddenly_gets_everything_wrong_contradicts_its_own_report() {
        let honest = report(0, 1000, 40, 0.0);
        let forged = report(0, 1000, 500, 0.0);
        assert_eq!(
            contradiction(&forged, &honest),
            Some(Contradiction::Answers { off: 920, shared: 1000 })
        );
    }

    #[test]
    fn another_processors_rounding_is_no_contradiction() {
        let here = report(0, 1000, 40, 0.0);
        let mut there = report(0, 1000, 40, 0.04);
        assert_eq!(contradiction(&here, &there), None);
        // An integer kernel that saturates is off by more, on few items, in both directions.
        for output in there.outputs.iter_mut().skip(75).take(10) {
            output.probabilities.reverse();
        }
        assert_eq!(contradiction(&here, &there), None);
        there.outputs[500].probabilities.reverse();
        assert!(contradiction(&here, &there).is_some());
    }

    #[test]
    fn a_few_items_cannot_be_flipped_to_favour_one_group() {
        let mut here = report(0, 1000, 0, 0.0);
        for output in &mut here.outputs {
            output.probabilities = vec![0.52, 0.48];
        }
        let mut forged = here.clone();
        for output in forged.outputs.iter_mut().filter(|o| o.group == "fleet").take(4) {
            output.probabilities = vec![0.48, 0.52];
        }
        let found = contradiction(&forged, &here);
        assert!(
            matches!(&found, Some(Contradiction::Accuracy { group: Some(group), .. }) if group == "fleet"),
            "{found:?}"
        );
    }

    #[test]
    fn what_two_datasets_share_is_compared_and_nothing_else() {
        assert_eq!(contradiction(&report(0, 100, 50, 0.0), &report(100, 200, 0, 0.0)), None);
        let found = contradiction(&report(0, 100, 50, 0.0), &report(50, 200, 0, 0.0));
        assert_eq!(found, Some(Contradiction::Answers { off: 50, shared: 50 }));
    }

    proptest! {
        #[test]
        fn who_is_asked_first_does_not_matter_and_nothing_contradicts_itself(
            ours in prop::collection::vec(0.0_f32..1.0, 1..80),
            theirs in prop::collection::vec(0.0_f32..1.0, 80),
        ) {
            let with = |values: &[f32]| {
                let mut report = report(0, ours.len(), 0, 0.0);
                for (output, p) in report.outputs.iter_mut().zip(values) {
                    output.probabilities = vec![*p, 1.0 - p];
                }
                report
            };
            let (a, b) = (with(&ours), with(&theirs));
            prop_assert_eq!(contradiction(&a, &a), None);
            prop_assert_eq!(contradiction(&a, &b).is_some(), contradiction(&b, &a).is_some());
        }
    }
}
