//! A part of the samples that is not learned from, and when it says to end.
//!
//! The part is chosen by content: samples with the same input stand on one side, however often they
//! are there. Where groups must not be divided it is whole groups. The same seed and inputs give the same
//! part.

use std::collections::BTreeMap;

use fleetloop_protocol::Digest;

use super::held_out::{Holdings, whole_groups};
use super::{DataError, EarlyStopping, Targets, TrainingSet};
use crate::graph::Parameters;

/// Samples to learn from and samples to validate by, each in order.
#[derive(Debug, PartialEq, Eq)]
pub struct Parts {
    /// To learn from.
    pub learn: Vec<usize>,
    /// To validate by.
    pub validate: Vec<usize>,
}

/// Keeps a share of the different inputs for validation, at least one.
///
/// # Errors
/// [`DataError`]: all inputs are the same, or only one class is left to learn from.
pub fn part(set: &TrainingSet, share: f64, seed: u64) -> Result<Parts, DataError> {
    if let Some(parts) = whole(set, share) {
        return Ok(parts);
    }
    let mut by_content: BTreeMap<Digest, Vec<usize>> = BTreeMap::new();
    for sample in 0..set.len() {
        let bytes: Vec<u8> = set.input(sample).iter().flat_map(|v| v.to_le_bytes()).collect();
        let content = Digest::of_parts(&[b"validation", &seed.to_le_bytes(), &bytes]);
        by_content.entry(content).or_default().push(sample);
    }
    let most =
        by_content.len().checked_sub(1).filter(|most| *most > 0).ok_or(DataError::OneInput)?;
    let kept = ((by_content.len() as f64 * share).round() as usize).clamp(1, most);
    let mut parts = Parts { learn: Vec::new(), validate: Vec::new() };
    for (place, samples) in by_content.into_values().enumerate() {
        if place < kept { &mut parts.validate } else { &mut parts.learn }.extend(samples);
    }
    parts.learn.sort_unstable();
    parts.validate.sort_unstable();
    if let Targets::Classes { labels, .. } = set.targets()
        && parts.learn.iter().all(|sample| labels[*sample] == labels[parts.learn[0]])
    {
        return Err(DataError::OneClassLeft);
    }
    Ok(parts)
}

/// Whole groups for validation, where groups must not be divided and can be.
fn whole(set: &TrainingSet, share: f64) -> Option<Parts> {
    if !set.has_whole_groups() {
        return None;
    }
    let mut groups: BTreeMap<String, Holdings> = BTreeMap::new();
    for (sample, group) in set.groups().iter().enumerate() {
        let class = match set.targets() {
            Targets::Classes { labels, .. } => labels[sample],
            Targets::Values { .. } | Targets::Input => 0,
        };
        *groups.entry(group.to_owned()).or_default().entry(class).or_default() += 1;
    }
    let held = whole_groups(&groups, share)?;
    let (validate, learn) =
        (0..set.len()).partition(|sample| held.contains(set.groups().name(*sample)));
    Some(Parts { learn, validate })
}

/// The parameters with the smallest validation loss so far.
#[derive(Debug, Clone)]
pub struct Best {
    /// After which epoch, from 1.
    pub epoch: u32,
    /// Their loss.
    pub loss: f32,
    /// Their values.
    pub parameters: Parameters,
}

/// Takes over an epoch's parameters when their loss is below the best one by more than the rule's
/// least difference.
pub fn keep(
    best: &mut Option<Best>,
    rule: &EarlyStopping,
    epoch: u32,
    loss: f32,
    parameters: &Parameters,
) {
    if best.as_ref().is_none_or(|best| loss < best.loss - rule.min_delta) {
        *best = Some(Best { epoch, loss, parameters: parameters.clone() });
    }
}

/// Whether nothing has got better for as long as the rule's patience.
pub fn is_over(best: Option<&Best>, rule: &EarlyStopping, epoch: u32) -> bool {
    best.is_some_and(|best| epoch >= best.epoch + rule.patience)
}

#[cfg(test)]
mod tests {
    use super::super::Groups;
    use super::*;

    fn set(values: Vec<f32>) -> TrainingSet {
        let groups = Groups::one("g", values.len());
        TrainingSet::new(vec![1], values, Targets::Input, groups).unwrap()
    }

    #[test]
    fn the_same_input_stands_on_one_side() {
        let values: Vec<f32> = (0..200).map(|n| (n % 50) as f32).collect();
        let set = set(values);
        let parts = part(&set, 0.2, 3).unwrap();
        assert_eq!((parts.learn.len(), parts.validate.len()), (160, 40));
        for sample in &parts.validate {
            assert!(!parts.learn.contains(&((sample + 50) % 200)), "sample {sample}");
        }
        assert_eq!(parts, part(&set, 0.2, 3).unwrap(), "a seed repeats");
        assert_ne!(parts, part(&set, 0.2, 4).unwrap());
    }

    #[test]
    fn a_group_that_must_not_be_divided_stands_on_one_side() {
        let values: Vec<f32> = (0..60).map(|n| n as f32).collect();
        let groups: Groups = (0..60).map(|n| format!("recording {}", n / 10)).collect();
        let set = TrainingSet::new(vec![1], values, Targets::Input, groups).unwrap();
        let divided = part(&set, 0.2, 3).unwrap();
        let names = |set: &TrainingSet, samples: &[usize]| {
            samples.iter().map(|s| set.groups().name(*s).to_owned()).collect::<Vec<_>>()
        };
        assert!(names(&set, &divided.learn).contains(&names(&set, &divided.validate)[0]));
        let set = set.in_whole_groups();
        let parts = part(&set, 0.2, 3).unwrap();
        assert_eq!(parts.validate.len(), 10);
        let (learn, validate) = (names(&set, &parts.learn), names(&set, &parts.validate));
        assert!(validate.iter().all(|name| !learn.contains(name)), "{validate:?}");
    }

    #[test]
    fn both_sides_have_a_sample_or_the_set_is_refused() {
        assert_eq!(part(&set(vec![1.0, 2.0, 3.0]), 0.01, 1).unwrap().validate.len(), 1);
        assert_eq!(part(&set(vec![1.0; 3]), 0.5, 1).unwrap_err(), DataError::OneInput);
        let targets = Targets::Classes { labels: vec![0, 1], count: 2 };
        let two = TrainingSet::new(vec![1], vec![1.0, 2.0], targets, Groups::one("g", 2));
        let error = part(&two.unwrap(), 0.5, 1).unwrap_err();
        assert_eq!(error, DataError::OneClassLeft);
        assert!(error.to_string().contains("validation_share"), "{error}");
    }

    #[test]
    fn a_run_ends_when_patience_does_and_the_best_is_kept() {
        let rule = EarlyStopping { patience: 2, min_delta: 0.1, validation_share: 0.1 };
        let mut best = None;
        let losses = [1.0, 0.5, 0.45, 0.6];
        let over = losses.iter().zip(1..).map(|(loss, epoch)| {
            keep(&mut best, &rule, epoch, *loss, &Parameters { list: Vec::new() });
            is_over(best.as_ref(), &rule, epoch)
        });
        assert_eq!(over.collect::<Vec<_>>(), [false, false, false, true]);
        assert_eq!(best.map(|best| (best.epoch, best.loss)), Some((2, 0.5)));
    }
}
