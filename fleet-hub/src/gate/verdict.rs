//! The verdict on one candidate. See the module above.

use std::collections::{BTreeMap, BTreeSet};

use fleetloop_protocol::Digest;
use fleetloop_protocol::api::datasets::{Dataset, Item, Split};
use fleetloop_protocol::api::reports::{Check, Output, Report, Verdict};

/// What a model must reach. Accuracies are shares from 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// By group, how far below the base's accuracy the candidate's may lie. A group that is not
    /// named here may not lose anything.
    pub allowed_loss: BTreeMap<String, f64>,
    /// The accuracy over all items that a model without a base must reach.
    pub floor: f64,
}

impl Default for Policy {
    fn default() -> Self {
        let allowed_loss =
            BTreeMap::from([("import".to_owned(), 0.015), ("fleet".to_owned(), 0.0)]);
        Self { allowed_loss, floor: 0.5 }
    }
}

/// Why a report cannot be judged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// Made on another dataset.
    #[error("cannot judge report: it was made on dataset {found}, the job's is {expected}")]
    Dataset {
        /// The report's.
        found: Digest,
        /// The one to judge on.
        expected: Digest,
    },
    /// Not the items that the dataset keeps for the gate.
    #[error(
        "cannot judge report: it has {found} outputs that fit, dataset {dataset} keeps {expected} \
         items for the gate; evaluate again on exactly these"
    )]
    Items {
        /// The dataset.
        dataset: Digest,
        /// Outputs whose sample, label and group are the dataset's.
        found: usize,
        /// Items to be judged on.
        expected: usize,
    },
    /// An output that is not one probability a label.
    #[error(
        "cannot judge report: the output for sample {sample} is not {labels} finite probabilities"
    )]
    Output {
        /// The item.
        sample: Digest,
        /// How many labels the dataset has.
        labels: usize,
    },
}

/// Holds a report against the dataset: exactly its gate items, each once, with the dataset's label
/// and group, in any order, and one finite probability a label.
///
/// # Errors
/// [`GateError`] naming the first thing that does not fit.
pub fn covers(report: &Report, digest: Digest, dataset: &Dataset) -> Result<(), GateError> {
    if report.dataset != digest {
        return Err(GateError::Dataset { found: report.dataset, expected: digest });
    }
    let items: BTreeSet<_> =
        dataset.items.iter().filter(|item| item.split == Split::Gate).map(item_key).collect();
    let found: BTreeSet<_> = report.outputs.iter().map(output_key).collect();
    let fitting = found.intersection(&items).count();
    if fitting != items.len() || report.outputs.len() != items.len() {
        return Err(GateError::Items { dataset: digest, found: fitting, expected: items.len() });
    }
    let labels = dataset.labels.len();
    let readable = |output: &&Output| {
        output.probabilities.len() == labels
            && output.probabilities.iter().all(|p| (0.0..=1.001).contains(p))
    };
    match report.outputs.iter().find(|output| !readable(output)) {
        Some(output) => Err(GateError::Output { sample: output.sample, labels }),
        None => Ok(()),
    }
}

fn item_key(item: &Item) -> (Digest, u16, &str) {
    (item.sample, item.label, &item.group)
}

fn output_key(output: &Output) -> (Digest, u16, &str) {
    (output.sample, output.label, &output.group)
}

/// Whether `candidate` may be released, given what `base` made of the same items.
pub fn verdict(candidate: &Report, base: Option<&Report>, policy: &Policy) -> Verdict {
    let mut checks = vec![at_least("items judged", count(candidate.outputs.len()), 1.0)];
    match base {
        None => {
            checks.push(at_least("accuracy over all", accuracy(&candidate.outputs), policy.floor));
        }
        Some(base) => against(candidate, base, policy, &mut checks),
    }
    Verdict { passed: checks.iter().all(|check| check.passed), checks }
}

fn against(candidate: &Report, base: &Report, policy: &Policy, checks: &mut Vec<Check>) {
    let same_dataset = if candidate.dataset == base.dataset { 1.0 } else { 0.0 };
    checks.push(at_least("same dataset as the base's report", same_dataset, 1.0));
    let ours: BTreeSet<_> = candidate.outputs.iter().map(output_key).collect();
    let theirs: BTreeSet<_> = base.outputs.iter().map(output_key).collect();
    let longest = candidate.outputs.len().max(base.outputs.len());
    let shared = ours.intersection(&theirs).count();
    checks.push(at_least("items shared with the base's report", count(shared), count(longest)));

    let groups: BTreeSet<&str> =
        candidate.outputs.iter().chain(&base.outputs).map(|o| o.group.as_str()).collect();
    for group in groups {
        let of = |report: &Report| accuracy(report.outputs.iter().filter(|o| o.group == group));
        let loss = policy.allowed_loss.get(group).copied().unwrap_or(0.0);
        checks.push(at_least(
            &format!("accuracy on group {group}"),
            of(candidate),
            of(base) - loss,
        ));
    }
    let loss = policy.allowed_loss.values().copied().fold(0.0, f64::max);
    let (ours, theirs) = (accuracy(&candidate.outputs), accuracy(&base.outputs));
    checks.push(at_least("accuracy over all", ours, theirs - loss));
}

fn at_least(name: &str, value: f64, at_least: f64) -> Check {
    // The bound is a difference of quotients: a hair of rounding must not decide.
    Check { name: name.to_owned(), value, at_least, passed: value + 1e-9 >= at_least }
}

/// Share of outputs whose most probable class is the label; 0 of nothing.
fn accuracy<'a>(outputs: impl IntoIterator<Item = &'a Output>) -> f64 {
    let (mut correct, mut all) = (0, 0);
    for output in outputs {
        all += 1;
        correct += usize::from(output.is_correct());
    }
    if all == 0 { 0.0 } else { count(correct) / count(all) }
}

#[expect(clippy::cast_precision_loss, reason = "a dataset has far fewer than 2^52 items")]
fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use fleetloop_protocol::BundleDigest;
    use proptest::prelude::*;

    use super::*;

    fn output(index: usize, group: &str, correct: bool) -> Output {
        let probabilities = if correct { vec![0.9, 0.1] } else { vec![0.1, 0.9] };
        let sample = Digest::of(&index.to_le_bytes());
        Output { sample, label: 0, group: group.to_owned(), probabilities }
    }

    fn report(import: &[bool], fleet: &[bool]) -> Report {
        let mut outputs: Vec<_> =
            import.iter().enumerate().map(|(i, ok)| output(i, "import", *ok)).collect();
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

    fn share(n: usize, correct: usize) -> Vec<bool> {
        (0..n).map(|i| i < correct).collect()
    }

    #[test]
    fn one_and_a_half_points_may_be_lost_on_imported_items_and_no_more() {
        let base = report(&share(1000, 840), &share(100, 40));
        let policy = Policy::default();
        assert!(verdict(&report(&share(1000, 825), &share(100, 40)), Some(&base), &policy).passed);
        assert!(!verdict(&report(&share(1000, 824), &share(100, 90)), Some(&base), &policy).passed);
    }

    #[test]
    fn nothing_may_be_lost_on_what_the_fleet_sent() {
        let base = report(&share(100, 84), &share(100, 40));
        let worse = report(&share(100, 100), &share(100, 39));
        let verdict = verdict(&worse, Some(&base), &Policy::default());
        let failed: Vec<_> = verdict.checks.iter().filter(|c| !c.passed).map(|c| &c.name).collect();
        assert_eq!(failed, ["accuracy on group fleet"]);
    }

    #[test]
    fn a_first_model_must_reach_the_floor() {
        let policy = Policy { floor: 0.8, ..Policy::default() };
        assert!(verdict(&report(&share(10, 8), &[]), None, &policy).passed);
        assert!(!verdict(&report(&share(10, 7), &[]), None, &policy).passed);
        assert!(!verdict(&report(&[], &[]), None, &Policy { floor: 0.0, ..policy }).passed);
    }

    #[test]
    fn a_report_that_leaves_out_or_repeats_an_item_does_not_pass_beside_the_bases() {
        let base = report(&share(10, 5), &[]);
        let mut left_out = report(&share(10, 5), &[]);
        left_out.outputs.retain(Output::is_correct);
        assert!(!verdict(&left_out, Some(&base), &Policy::default()).passed);
        let mut repeated = base.clone();
        let again: Vec<_> = repeated.outputs.iter().filter(|o| o.is_correct()).cloned().collect();
        repeated.outputs.extend(again);
        assert!(!verdict(&repeated, Some(&base), &Policy::default()).passed);
        let mut elsewhere = base.clone();
        elsewhere.dataset = Digest::of(b"easier");
        assert!(!verdict(&elsewhere, Some(&base), &Policy::default()).passed);
    }

    fn dataset(report: &Report) -> Dataset {
        let item = |o: &Output, split| Item {
            sample: o.sample,
            payload: o.sample,
            media_type: fleetloop_protocol::sample::MediaType::Png,
            label: o.label,
            split,
            group: o.group.clone(),
        };
        let mut items: Vec<_> = report.outputs.iter().map(|o| item(o, Split::Gate)).collect();
        items.push(item(&output(77_777, "fleet", true), Split::Train));
        Dataset { name: "d".to_owned(), labels: vec!["a".to_owned(), "b".to_owned()], items }
    }

    #[test]
    fn a_report_must_hold_the_datasets_gate_items_with_their_labels() {
        let good = report(&share(4, 2), &share(3, 1));
        let dataset = dataset(&good);
        let digest = good.dataset;
        assert_eq!(covers(&good, digest, &dataset), Ok(()));
        let mut short = good.clone();
        short.outputs.pop();
        assert!(matches!(covers(&short, digest, &dataset), Err(GateError::Items { .. })));
        let mut twice = good.clone();
        twice.outputs.push(good.outputs[0].clone());
        assert!(matches!(covers(&twice, digest, &dataset), Err(GateError::Items { .. })));
        let mut relabelled = good.clone();
        relabelled.outputs[0].label = 1;
        assert!(matches!(covers(&relabelled, digest, &dataset), Err(GateError::Items { .. })));
        let mut nan = good.clone();
        nan.outputs[0].probabilities[0] = f32::NAN;
        assert!(matches!(covers(&nan, digest, &dataset), Err(GateError::Output { .. })));
        let other = covers(&good, Digest::of(b"x"), &dataset);
        assert!(matches!(other, Err(GateError::Dataset { .. })));
    }

    proptest! {
        #[test]
        fn a_candidate_equal_to_its_base_passes(
            import in prop::collection::vec(any::<bool>(), 0..60),
            fleet in prop::collection::vec(any::<bool>(), 1..60),
        ) {
            let base = report(&import, &fleet);
            prop_assert!(verdict(&base, Some(&base), &Policy::default()).passed);
        }

        #[test]
        fn a_candidate_that_lost_any_fleet_item_fails(
            import in prop::collection::vec(any::<bool>(), 0..60),
            fleet in prop::collection::vec(any::<bool>(), 1..60),
            at in any::<prop::sample::Index>(),
        ) {
            let (mut before, mut after) = (fleet.clone(), fleet);
            let at = at.index(before.len());
            before[at] = true;
            after[at] = false;
            let (base, worse) = (report(&import, &before), report(&import, &after));
            prop_assert!(!verdict(&worse, Some(&base), &Policy::default()).passed);
        }

        #[test]
        fn the_order_of_outputs_does_not_matter(
            import in prop::collection::vec(any::<bool>(), 1..40),
            fleet in prop::collection::vec(any::<bool>(), 1..40),
            better in prop::collection::vec(any::<bool>(), 40),
            seed in any::<u64>(),
        ) {
            let base = report(&import, &fleet);
            let ours = report(&import, &better[..fleet.len()]);
            let mut shuffled = ours.clone();
            shuffled.outputs.sort_by_key(|o| Digest::of_parts(&[&seed.to_le_bytes(), o.sample.as_bytes()]));
            let policy = Policy::default();
            prop_assert_eq!(verdict(&ours, Some(&base), &policy), verdict(&shuffled, Some(&base), &policy));
        }

        #[test]
        fn being_right_once_more_never_turns_a_pass_into_a_failure(
            import in prop::collection::vec(any::<bool>(), 1..40),
            candidate in prop::collection::vec(any::<bool>(), 40),
            at in any::<prop::sample::Index>(),
        ) {
            let base = report(&import, &[]);
            let mut ours = candidate[..import.len()].to_vec();
            let policy = Policy::default();
            let before = verdict(&report(&ours, &[]), Some(&base), &policy).passed;
            let at = at.index(ours.len());
            ours[at] = true;
            prop_assert!(!before || verdict(&report(&ours, &[]), Some(&base), &policy).passed);
        }
    }
}
