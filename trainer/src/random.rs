//! The random numbers of training: SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom
//! number generators", OOPSLA 2014). Small, documented, the same on every machine; not for secrets.

/// A seeded generator.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// A generator for that seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The seed of a generator that goes on as this one does.
    pub fn state(&self) -> u64 {
        self.state
    }

    /// A generator for one purpose of a seed: streams of different numbers do not overlap in practice.
    pub fn stream(seed: u64, stream: u64) -> Self {
        let mut mix = Self::new(seed ^ stream.wrapping_mul(0xa076_1d64_78bd_642f));
        Self::new(mix.bits())
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `[0, 1)`, 24 bits.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// Uniform in `[low, high)`.
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Uniform in `0..bound` (Lemire's multiplication; the bias is below 2⁻³² for the sizes here).
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// Standard normal (Box and Muller).
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * f64::from(1.0 - self.unit()).ln()).sqrt();
        (radius * (std::f64::consts::TAU * f64::from(self.unit())).cos()) as f32
    }

    /// Shuffles in place (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        // First outputs for seed 1234567 of the reference implementation (prng.di.unimi.it/splitmix64.c).
        let mut random = Random::new(1_234_567);
        let got: Vec<u64> = (0..3).map(|_| random.bits()).collect();
        assert_eq!(
            got,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn draws_stay_in_range_and_have_the_right_mean() {
        let mut random = Random::new(7);
        let n = 20_000;
        let units: f32 = (0..n).map(|_| random.unit()).sum::<f32>() / n as f32;
        assert!((units - 0.5).abs() < 0.01, "{units}");
        let normals: Vec<f32> = (0..n).map(|_| random.normal()).collect();
        let variance = normals.iter().map(|v| v * v).sum::<f32>() / n as f32;
        assert!((variance - 1.0).abs() < 0.05, "{variance}");
        assert!((0..1000).all(|_| random.below(7) < 7));
    }
}
