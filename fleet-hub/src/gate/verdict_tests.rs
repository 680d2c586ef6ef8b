//! What the gate claims, on examples and on random reports.

use fleetloop_protocol::Digest;
use fleetloop_protocol::api::reports::{Counts, Output};
use proptest::prelude::*;

use super::*;
use crate::gate::testing::{output, report, share};

fn judged(candidate: &Report, base: Option<&Report>) -> Outcome {
    verdict(candidate, base, &Policy::default()).outcome
}

fn found<'a>(verdict: &'a Verdict, name: &str) -> &'a Check {
    verdict.checks.iter().find(|check| check.name == name).expect(name)
}

/// Items of two classes, the first `larger` of the first class; the first `right` of all are right.
fn first_model(items: usize, larger: usize, right: usize) -> Report {
    let mut report = report(&share(items, right), &[]);
    report.outputs = (0..items)
        .map(|i| {
            let mut output = output(i, "import:a", i < right);
            if i >= larger {
                output.label = 1;
                output.probabilities.reverse();
            }
            output
        })
        .collect();
    report
}

#[test]
fn one_and_a_half_points_may_be_lost_on_imported_items_and_no_more() {
    let base = report(&share(1000, 840), &share(200, 80));
    assert_eq!(judged(&report(&share(1000, 825), &share(200, 80)), Some(&base)), Outcome::Passed);
    // Not surely more, and surely more.
    assert_eq!(judged(&report(&share(1000, 824), &share(200, 180)), Some(&base)), Outcome::TooFew);
    assert_eq!(judged(&report(&share(1000, 790), &share(200, 180)), Some(&base)), Outcome::Failed);
}

#[test]
fn nothing_may_be_lost_on_what_the_fleet_sent() {
    let base = report(&share(200, 170), &share(400, 160));
    let worse =
        verdict(&report(&share(200, 200), &share(400, 159)), Some(&base), &Policy::default());
    let failed: Vec<_> = worse
        .checks
        .iter()
        .filter(|c| c.outcome != Outcome::Passed)
        .map(|c| c.name.as_str())
        .collect();
    assert_eq!((failed, worse.outcome), (vec!["accuracy on group fleet"], Outcome::TooFew));
    let surely = report(&share(200, 200), &share(400, 130));
    assert_eq!(judged(&surely, Some(&base)), Outcome::Failed);
}

#[test]
fn five_pictures_are_too_few_whatever_they_show() {
    let five = |right| report(&share(5, right), &[]);
    assert_eq!(judged(&five(5), Some(&five(5))), Outcome::TooFew);
    assert_eq!(judged(&five(5), Some(&five(3))), Outcome::TooFew);
    assert_eq!(judged(&five(3), Some(&five(4))), Outcome::TooFew);
    assert_eq!(judged(&first_model(5, 3, 5), None), Outcome::TooFew);
    let mut classes = five(5);
    for (label, output) in classes.outputs.iter_mut().enumerate() {
        output.label = label as u16;
        output.probabilities = (0..5).map(|class| if class == label { 1.0 } else { 0.0 }).collect();
    }
    assert_eq!(judged(&classes, None), Outcome::TooFew, "five classes of one picture each");
    let stated = Policy { floor: Some(0.5), ..Policy::default() };
    assert_eq!(verdict(&five(5), None, &stated).outcome, Outcome::Passed, "surely above a half");
    let stated = Policy { floor: Some(0.8), ..Policy::default() };
    assert_eq!(verdict(&five(5), None, &stated).outcome, Outcome::TooFew);
    // Few are enough to see that a model is useless.
    assert_eq!(judged(&five(0), Some(&five(5))), Outcome::Failed);
}

#[test]
fn a_first_model_must_surely_be_better_than_always_answering_the_largest_class() {
    let outcome = |right| judged(&first_model(1000, 656, right), None);
    assert_eq!(outcome(500), Outcome::Failed);
    assert_eq!(outcome(656), Outcome::TooFew);
    assert_eq!(outcome(660), Outcome::TooFew);
    assert_eq!(outcome(700), Outcome::Passed);
    let all = verdict(&first_model(1000, 656, 500), None, &Policy::default());
    let check = found(&all, "accuracy over all, above always answering the largest class");
    assert_eq!((check.value, check.at_least), (0.5, 0.656));
}

#[test]
fn a_floor_is_what_a_person_states_with_a_base_too() {
    let stated = |floor| Policy { floor: Some(floor), ..Policy::default() };
    let model = report(&share(1000, 800), &[]);
    assert_eq!(verdict(&model, None, &stated(0.8)).outcome, Outcome::Passed);
    assert_eq!(verdict(&model, None, &stated(0.83)).outcome, Outcome::Failed);
    assert_eq!(verdict(&model, Some(&model), &stated(0.83)).outcome, Outcome::Failed);
    let none = report(&[], &[]);
    assert_eq!(verdict(&none, None, &stated(0.0)).outcome, Outcome::Failed);
}

#[test]
fn a_verdict_shows_what_it_rests_on() {
    let base = report(&share(1000, 840), &share(108, 59));
    let mut fleet = share(108, 95);
    fleet[..4].fill(false);
    let all = verdict(&report(&share(1000, 850), &fleet), Some(&base), &Policy::default());
    let basis = found(&all, "accuracy on group fleet").basis.as_ref().unwrap();
    assert_eq!((basis.metric.as_str(), basis.group.as_deref()), ("accuracy", Some("fleet")));
    assert_eq!(basis.counts, Counts { good: 91, of: 108 });
    let paired = basis.paired.unwrap();
    assert_eq!((paired.base, paired.won, paired.lost), (Counts { good: 59, of: 108 }, 36, 4));
    assert!(paired.p_value < 1e-6 && paired.change.low > 0.15, "{paired:?}");
    assert!(basis.interval.low > 0.75 && basis.interval.high < 0.91, "{basis:?}");
}

#[test]
fn a_source_that_is_surely_answered_worse_fails_a_model_that_is_better_elsewhere() {
    let with = |a: &[bool], b: &[bool]| {
        let mut report = report(a, &share(200, 150));
        let second = b.iter().enumerate().map(|(i, ok)| output(20_000 + i, "import:b", *ok));
        report.outputs.extend(second);
        report
    };
    let base = with(&share(1000, 800), &share(40, 38));
    let better = with(&share(1000, 900), &share(40, 38));
    assert_eq!(judged(&better, Some(&base)), Outcome::Passed, "a small source alone says nothing");
    let worse = with(&share(1000, 900), &share(40, 20));
    let worse = verdict(&worse, Some(&base), &Policy::default());
    assert_eq!(found(&worse, "accuracy on group import:b").outcome, Outcome::Failed);
    assert_eq!(found(&worse, "accuracy on group import").outcome, Outcome::Passed);
    assert_eq!(worse.outcome, Outcome::Failed);
}

#[test]
fn a_report_that_leaves_out_or_repeats_an_item_does_not_pass_beside_the_bases() {
    let base = report(&share(200, 100), &[]);
    assert_eq!(judged(&base, Some(&base)), Outcome::Passed);
    let mut left_out = base.clone();
    left_out.outputs.retain(Output::is_correct);
    assert_eq!(judged(&left_out, Some(&base)), Outcome::Failed);
    let mut repeated = base.clone();
    let again: Vec<_> = repeated.outputs.iter().filter(|o| o.is_correct()).cloned().collect();
    repeated.outputs.extend(again);
    assert_eq!(judged(&repeated, Some(&base)), Outcome::Failed);
    let mut elsewhere = base.clone();
    elsewhere.dataset = Digest::of(b"easier");
    assert_eq!(judged(&elsewhere, Some(&base)), Outcome::Failed);
}

proptest! {
    #[test]
    fn a_candidate_equal_to_its_base_never_fails_and_passes_on_enough_items(
        import in prop::collection::vec(any::<bool>(), 0..60),
        fleet in prop::collection::vec(any::<bool>(), 1..60),
        many in prop::collection::vec(any::<bool>(), 120..200),
    ) {
        let base = report(&import, &fleet);
        prop_assert_ne!(judged(&base, Some(&base)), Outcome::Failed);
        let base = report(&many, &many);
        prop_assert_eq!(judged(&base, Some(&base)), Outcome::Passed);
    }

    #[test]
    fn a_candidate_that_lost_any_fleet_item_does_not_pass(
        import in prop::collection::vec(any::<bool>(), 0..60),
        fleet in prop::collection::vec(any::<bool>(), 1..300),
        at in any::<prop::sample::Index>(),
    ) {
        let (mut before, mut after) = (fleet.clone(), fleet);
        let at = at.index(before.len());
        before[at] = true;
        after[at] = false;
        let (base, worse) = (report(&import, &before), report(&import, &after));
        prop_assert_ne!(judged(&worse, Some(&base)), Outcome::Passed);
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
        import in prop::collection::vec(any::<bool>(), 1..200),
        candidate in prop::collection::vec(any::<bool>(), 200),
        at in any::<prop::sample::Index>(),
    ) {
        let base = report(&import, &[]);
        let mut ours = candidate[..import.len()].to_vec();
        let before = judged(&report(&ours, &[]), Some(&base));
        let at = at.index(ours.len());
        ours[at] = true;
        let after = judged(&report(&ours, &[]), Some(&base));
        prop_assert!(before != Outcome::Passed || after != Outcome::Failed);
    }
}
