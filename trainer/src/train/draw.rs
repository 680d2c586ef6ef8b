//! The order of an epoch.
//!
//! An epoch draws as many samples as there are. A group with a share in the recipe gets at least
//! that share of the draws, so that a few hundred new labels weigh against thousands of old ones
//! without making the epoch longer; the samples of all other groups are one pool that gets the rest.
//! Each favoured group, and the pool, goes round its own shuffled order and starts where the last
//! epoch stopped, so no sample is forgotten.
//! A sample is drawn at most [`MOST_DRAWS`] times an epoch, however small its group is.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};

use super::TrainingSet;
use crate::random::Random;

/// The most often a sample is drawn in one epoch on average: beyond it, a handful of samples would
/// be learned by heart.
pub const MOST_DRAWS: usize = 8;

/// Where draws are between two epochs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct State {
    /// The order of each group, and how much of it was drawn.
    groups: Vec<(Vec<usize>, usize)>,
    random: u64,
}

/// Draws epochs from a set.
#[derive(Debug)]
pub struct Draw {
    groups: Vec<Group>,
    random: Random,
}

/// Samples that go round together.
#[derive(Debug)]
struct Group {
    members: Vec<usize>,
    draws: usize,
    next: usize,
}

impl Group {
    fn new(members: Vec<usize>, draws: usize) -> Self {
        let next = members.len();
        Self { members, draws, next }
    }
}

impl Draw {
    /// Prepares draws from these samples with the shares of a recipe.
    pub fn new(
        set: &TrainingSet,
        samples: &[usize],
        shares: &BTreeMap<String, f64>,
        seed: u64,
    ) -> Self {
        let mut members: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for sample in samples {
            members.entry(set.groups().name(*sample)).or_default().push(*sample);
        }
        let total = samples.len();
        let (mut groups, mut pool) = (Vec::new(), Vec::new());
        let mut rest = total;
        for (name, members) in members {
            let wanted = (shares.get(name).copied().unwrap_or(0.0) * total as f64).round() as usize;
            let draws = wanted.min(members.len() * MOST_DRAWS);
            if draws > members.len() {
                rest = rest.saturating_sub(draws);
                groups.push(Group::new(members, draws));
            } else {
                pool.extend(members);
            }
        }
        if !pool.is_empty() {
            groups.push(Group::new(pool, rest));
        }
        Self { groups, random: Random::stream(seed, 1) }
    }

    /// How many samples an epoch has.
    pub fn per_epoch(&self) -> usize {
        self.groups.iter().map(|g| g.draws).sum()
    }

    /// What [`Draw::restore`] needs to go on from here.
    pub fn state(&self) -> State {
        let groups = self.groups.iter().map(|g| (g.members.clone(), g.next)).collect();
        State { groups, random: self.random.state() }
    }

    /// Goes on from a state of the same set and shares.
    pub fn restore(&mut self, state: State) {
        for (group, (members, next)) in self.groups.iter_mut().zip(state.groups) {
            (group.members, group.next) = (members, next);
        }
        self.random = Random::new(state.random);
    }

    /// The next epoch's samples in order.
    pub fn epoch(&mut self) -> Vec<usize> {
        let mut order = Vec::with_capacity(self.per_epoch());
        for group in &mut self.groups {
            for _ in 0..group.draws {
                if group.next == group.members.len() {
                    self.random.shuffle(&mut group.members);
                    group.next = 0;
                }
                order.push(group.members[group.next]);
                group.next += 1;
            }
        }
        self.random.shuffle(&mut order);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::super::Targets;
    use super::*;

    fn set(old: usize, new: usize) -> TrainingSet {
        let count = old + new;
        let group = |i| if i < old { "import" } else { "fleet" }.to_owned();
        let groups = (0..count).map(group).collect();
        TrainingSet::new(vec![1], vec![0.0; count], Targets::Input, groups).unwrap()
    }

    fn draw(set: &TrainingSet, share: f64) -> Draw {
        let all: Vec<usize> = (0..set.len()).collect();
        Draw::new(set, &all, &BTreeMap::from([("fleet".to_owned(), share)]), 3)
    }

    fn counts(set: &TrainingSet, share: f64) -> (usize, usize) {
        let order = draw(set, share).epoch();
        let new = order.iter().filter(|i| set.groups().name(**i) == "fleet").count();
        (order.len() - new, new)
    }

    #[test]
    fn a_small_group_gets_its_share_and_the_epoch_stays_as_long() {
        assert_eq!(counts(&set(900, 100), 0.3), (700, 300));
        assert_eq!(
            counts(&set(900, 100), 0.05),
            (900, 100),
            "a share below the natural one changes nothing"
        );
        assert_eq!(
            counts(&set(990, 10), 0.3),
            (920, 80),
            "no sample is drawn more than eight times"
        );
        assert_eq!(counts(&set(0, 100), 0.3), (0, 100));
    }

    #[test]
    fn groups_of_one_sample_are_all_reached_beside_a_favoured_group() {
        let group = |i: usize| if i < 60 { format!("line {i}") } else { "fleet".to_owned() };
        let groups = (0..100).map(group).collect();
        let set = TrainingSet::new(vec![1], vec![0.0; 100], Targets::Input, groups).unwrap();
        // 70 for the fleet leave 30 for the 60 others: two epochs reach each of them once.
        let mut draw = draw(&set, 0.7);
        assert_eq!(draw.per_epoch(), 100);
        let mut drawn: Vec<usize> = (0..2).flat_map(|_| draw.epoch()).filter(|i| *i < 60).collect();
        drawn.sort_unstable();
        assert_eq!(drawn, (0..60).collect::<Vec<_>>());
    }

    #[test]
    fn an_epoch_without_shares_has_every_sample_once() {
        let (mut draw, mut again) = (draw(&set(50, 0), 0.0), draw(&set(50, 0), 0.0));
        let first = draw.epoch();
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
        assert_ne!(first, draw.epoch(), "epochs differ");
        assert_eq!(first, again.epoch(), "a seed repeats");
    }

    #[test]
    fn a_restored_state_draws_on_as_if_nothing_had_been() {
        let set = set(30, 7);
        let mut first = draw(&set, 0.4);
        first.epoch();
        let mut second = draw(&set, 0.4);
        second.restore(first.state());
        assert_eq!(first.epoch(), second.epoch());
        assert_eq!(first.epoch(), second.epoch());
    }

    #[test]
    fn only_the_samples_that_were_given_are_drawn() {
        let mut order = Draw::new(&set(9, 9), &[1, 4, 12], &BTreeMap::new(), 3).epoch();
        order.sort_unstable();
        assert_eq!(order, [1, 4, 12]);
    }

    #[test]
    fn several_epochs_reach_every_sample_of_the_thinned_group() {
        let set = set(90, 10);
        let mut draw = draw(&set, 0.5);
        let seen: std::collections::HashSet<usize> = (0..2).flat_map(|_| draw.epoch()).collect();
        assert_eq!(seen.len(), 100);
    }
}
