//! How samples are divided into batches. Pure.

/// Samples in as few batches as may be, whose sizes differ by one at most: what is left over after whole
/// batches, were it a last one of few samples, would spoil what normalisation has seen, and weigh more
/// than others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batches {
    count: usize,
    /// The size of the smaller ones; the larger ones have one more.
    size: usize,
    /// How many are larger. They come first.
    larger: usize,
}

impl Batches {
    /// So many samples in batches of at most so many.
    pub(super) fn of(samples: usize, at_most: usize) -> Self {
        let count = samples.div_ceil(at_most);
        let size = samples.checked_div(count).unwrap_or(0);
        Self { count, size, larger: samples - size * count }
    }

    /// How many there are.
    pub(super) const fn count(self) -> usize {
        self.count
    }

    /// Their sizes, each once.
    pub(super) fn sizes(self) -> Vec<usize> {
        let sizes = [(self.larger, self.size + 1), (self.count - self.larger, self.size)];
        sizes.into_iter().filter(|(batches, _)| *batches > 0).map(|(_, size)| size).collect()
    }

    /// Which one, from 0, holds what comes after so many samples, and which samples end it.
    pub(super) const fn after(self, samples: usize) -> (usize, usize) {
        let in_larger = self.larger * (self.size + 1);
        if samples < in_larger || self.size == 0 {
            let batch = samples / (self.size + 1);
            (batch, (batch + 1) * (self.size + 1))
        } else {
            let batch = (samples - in_larger) / self.size;
            (self.larger + batch, in_larger + (batch + 1) * self.size)
        }
    }

    /// The samples of each, in order.
    pub(super) fn split<T>(self, samples: &[T]) -> impl Iterator<Item = &[T]> {
        let (first, rest) = samples.split_at(self.larger * (self.size + 1));
        first.chunks(self.size + 1).chain(rest.chunks(self.size.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sample_more_than_whole_batches_makes_no_batch_of_one() {
        let batches = Batches::of(641, 64);
        assert_eq!((batches.count(), batches.sizes()), (11, vec![59, 58]));
        assert_eq!(Batches::of(640, 64).sizes(), [64]);
        assert_eq!(Batches::of(5, 64).sizes(), [5]);
        assert!(Batches::of(0, 64).sizes().is_empty());
    }

    #[test]
    fn every_sample_is_in_one_of_as_few_batches_as_may_be() {
        for (samples, at_most) in (0..200).flat_map(|n| (1..40).map(move |b| (n, b))) {
            let all: Vec<usize> = (0..samples).collect();
            let batches = Batches::of(samples, at_most);
            let split: Vec<&[usize]> = batches.split(&all).collect();
            assert_eq!(split.len(), samples.div_ceil(at_most));
            assert_eq!(split.len(), batches.count());
            assert_eq!(split.concat(), all);
            let sizes = batches.sizes();
            assert!(split.iter().all(|b| b.len() <= at_most && sizes.contains(&b.len())));
            for (number, batch) in split.iter().enumerate() {
                let end = batch[batch.len() - 1] + 1;
                assert!(batch.iter().all(|sample| batches.after(*sample) == (number, end)));
            }
        }
    }
}
