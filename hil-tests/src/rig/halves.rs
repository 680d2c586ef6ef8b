//! The processors of a machine in two halves: one that a device has to itself, and one for all that would
//! be elsewhere, the hub and whoever measures.

use anyhow::{Context as _, Result, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::Half;

/// Why a device can have none to itself.
const ONE: &str = "one processor: a device needs one, and all that would be elsewhere another";

/// The processors of this machine that this process may use.
#[derive(Debug, Clone)]
pub(super) struct Processors(Vec<usize>);

impl Processors {
    /// Those of the calling thread.
    ///
    /// # Errors
    /// When the system does not tell.
    pub(super) fn here() -> Result<Self> {
        let allowed = sched_getaffinity(None).context("cannot list the processors")?;
        Ok(Self((0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor)).collect()))
    }

    /// Why they have no halves.
    pub(super) fn lacking(&self) -> Option<String> {
        (self.0.len() < 2).then(|| ONE.to_owned())
    }

    /// A half; where their number is odd the device's is the smaller one.
    pub(super) fn half(&self, half: Half) -> &[usize] {
        let (others, device) = self.0.split_at(self.0.len().div_ceil(2));
        match half {
            Half::Device => device,
            Half::Others => others,
        }
    }
}

/// A thread that keeps off the device's half.
#[derive(Debug)]
pub struct Apart {
    before: CpuSet,
}

impl Apart {
    /// The calling thread, and those that it starts, run on the others' half until this is dropped.
    pub(super) fn begin(processors: &Processors) -> Result<Self> {
        ensure!(processors.lacking().is_none(), ONE);
        let before = sched_getaffinity(None).context("cannot list the processors")?;
        let mut others = CpuSet::new();
        processors.half(Half::Others).iter().for_each(|processor| others.set(*processor));
        sched_setaffinity(None, &others).context("cannot keep off the device's processors")?;
        Ok(Self { before })
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // These were its processors before.
        let _ = sched_setaffinity(None, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_apart_and_together_all() {
        for (all, device) in [(vec![0, 1], vec![1]), (vec![2, 3, 5], vec![5]), (vec![7], vec![])] {
            let processors = Processors(all.clone());
            assert_eq!(processors.half(Half::Device), device);
            assert_eq!(processors.lacking().is_some(), device.is_empty());
            assert_eq!([processors.half(Half::Others), &device].concat(), all);
        }
    }

    #[test]
    fn a_thread_keeps_off_until_it_need_not() {
        let processors = Processors::here().unwrap();
        if let Some(why) = processors.lacking() {
            return println!("skipped: {why}");
        }
        let now = || Processors::here().unwrap().0;
        let apart = Apart::begin(&processors).unwrap();
        assert_eq!(now(), processors.half(Half::Others));
        drop(apart);
        assert_eq!(now(), processors.0);
    }
}
