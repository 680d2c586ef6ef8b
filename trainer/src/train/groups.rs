//! Where each sample came from.
//!
//! A name is kept once, and a sample adds the place of its name; where all samples have the same
//! name they add nothing. So what a small file can claim stays small.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

/// The group of each sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    samples: usize,
    names: Vec<String>,
    /// The place of each sample's name; empty where there is one name.
    places: Vec<u32>,
}

impl Groups {
    /// So many samples of one group.
    pub fn one(name: &str, samples: usize) -> Self {
        Self { samples, names: vec![name.to_owned()], places: Vec::new() }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.samples
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.samples == 0
    }

    /// The group of a sample.
    pub fn name(&self, sample: usize) -> &str {
        &self.names[self.places.get(sample).map_or(0, |place| *place as usize)]
    }

    /// The names of the groups that samples have, in order.
    pub fn names(&self) -> BTreeSet<&str> {
        self.iter().collect()
    }

    /// The groups of all samples, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.samples).map(|sample| self.name(sample))
    }

    /// Those of the samples at these places.
    #[must_use]
    pub fn part(&self, samples: &[usize]) -> Self {
        let place = |sample: &usize| self.places.get(*sample).copied();
        Self {
            samples: samples.len(),
            names: self.names.clone(),
            places: samples.iter().filter_map(place).collect(),
        }
    }
}

/// Names as they come, each kept once.
#[derive(Debug, Default)]
pub struct Names {
    names: Vec<String>,
    known: HashMap<String, u32>,
}

impl Names {
    /// The place of a name; none after 2^32 of them.
    pub fn place(&mut self, name: String) -> Option<u32> {
        match self.known.entry(name) {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(new) => {
                let place = u32::try_from(self.names.len()).ok()?;
                self.names.push(new.key().clone());
                Some(*new.insert(place))
            }
        }
    }

    /// The groups of samples whose names have these places.
    pub fn groups(self, places: Vec<u32>) -> Groups {
        let samples = places.len();
        let places = if self.names.len() > 1 { places } else { Vec::new() };
        Groups { samples, names: self.names, places }
    }
}

impl FromIterator<String> for Groups {
    fn from_iter<I: IntoIterator<Item = String>>(groups: I) -> Self {
        let mut names = Names::default();
        let places = groups.into_iter().map_while(|name| names.place(name)).collect();
        names.groups(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_once_and_found_again() {
        let groups: Groups = ["a", "b", "a", "ü"].map(str::to_owned).into_iter().collect();
        assert_eq!(groups.iter().collect::<Vec<_>>(), ["a", "b", "a", "ü"]);
        assert_eq!((groups.len(), groups.names.len()), (4, 3));
        let part = groups.part(&[3, 1]);
        assert_eq!(part.iter().collect::<Vec<_>>(), ["ü", "b"]);
        let none: Groups = std::iter::empty().collect();
        assert!(none.is_empty() && none.iter().next().is_none());
    }

    #[test]
    fn samples_of_one_group_take_no_memory() {
        let same: Groups = (0..1000).map(|_| "a".to_owned()).collect();
        assert_eq!(same, Groups::one("a", 1000));
        assert_eq!((same.places.capacity(), same.name(999)), (0, "a"));
        assert_eq!(same.part(&[5, 7]), Groups::one("a", 2));
    }
}
