//! Whether what a model meets now is what it met before, told from two sketches. Pure.
//!
//! For each feature two figures are compared with what chance alone would give:
//!
//! - **PSI**, the population stability index: `Σ (pᵢ − qᵢ) ln (pᵢ / qᵢ)` over the shares of the bins,
//!   the symmetric divergence of H. Jeffreys ("An invariant form for the prior probability in
//!   estimation problems", 1946) and of S. Kullback and R. A. Leibler ("On information and
//!   sufficiency", 1951, eq. 2.6). By convention (N. Siddiqi, "Credit Risk Scorecards", 2006, ch. 10)
//!   0.1 is a shift worth looking at and 0.25 one worth acting on. Of `n` and `m` frames from one
//!   distribution in `k` bins it is distributed as `(1/n + 1/m) χ²(k−1)`, so about
//!   `(k−1)(1/n + 1/m)` (B. Yurdakul and J. Naranjo, "Statistical properties of the population
//!   stability index", Journal of Risk Model Validation 14(4), 2020). That mean is taken off before
//!   PSI is held against the conventions, and PSI must be over the distribution's quantile.
//! - **KS**, the Kolmogorov–Smirnov distance: the largest difference of the two distribution
//!   functions at the bins' edges. With `c = √(−½ ln (α/2))` chance stays below `c √((n+m)/(nm))`
//!   (N. Smirnov, "Table for estimating the goodness of fit of empirical distributions", 1948; Knuth,
//!   TAOCP 2, §3.3.1); for binned values that is an upper bound (G. E. Noether, "Note on the
//!   Kolmogorov statistic in the discrete case", 1963). Classes have no order, so no KS. It has no
//!   convention of its own and needs none: PSI ≥ 4 KS² (Pinsker), so what moves far in KS has moved
//!   in PSI.
//!
//! A feature shifts or drifts when PSI says that it matters and no figure says that it may be
//! chance. The approximation behind PSI wants frames in every bin: χ² tests ask for five (W. G.
//! Cochran, "Some methods for strengthening the common χ² tests", 1954), the logarithm's longer tail
//! for some more; with [`FRAMES_A_BIN`] the stated rate holds in simulation. So neighbouring bins are
//! pooled until each would have them in the smaller sketch, classes that would not are pooled as "the
//! others", and half a frame is added to each of what is left.
//!
//! Limits: fewer than [`FEWEST_FRAMES`] frames on either side say nothing. The bounds are those of
//! independent frames; a camera's are not, so a scene that stood still for the whole window is told
//! as drift when the reference saw more.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::sketch::{Histogram, Sketch, total};

/// The fewest frames on each side for which a verdict is given. With them, chance alone lifts PSI
/// above its mean by less than [`DRIFTED_PSI`].
pub const FEWEST_FRAMES: u64 = 500;

/// PSI over chance from which a feature shifts.
pub const SHIFTING_PSI: f64 = 0.1;

/// PSI over chance from which a feature has drifted.
pub const DRIFTED_PSI: f64 = 0.25;

/// How often, at most, chance alone takes a figure over its bound.
pub const CHANCE: f64 = 0.001;

/// The standard normal quantile of 1 − [`CHANCE`].
const NORMAL_QUANTILE: f64 = 3.090_232;

/// Frames that a bin should have.
const FRAMES_A_BIN: f64 = 20.0;

/// What a comparison came to, the worse the greater.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Too few frames to tell.
    #[default]
    Unknown,
    /// As it was.
    Steady,
    /// Something changes: worth a look.
    Shifting,
    /// It is something else: worth new labels.
    Drifted,
}

impl Verdict {
    /// The verdict in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Steady => "steady",
            Self::Shifting => "shifting",
            Self::Drifted => "drifted",
        }
    }
}

/// What is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Against {
    /// Nothing yet: what the model meets first is still being gathered.
    #[default]
    Nothing,
    /// The reference in the model's bundle.
    Bundle,
    /// What the model met first: its first frames on a device, its first day at the hub.
    First,
}

impl Against {
    /// What is compared with, in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Bundle => "bundle",
            Self::First => "first",
        }
    }
}

/// What a sketch counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// The most probable class.
    Classes,
    /// Its probability.
    Confidence,
    /// The mean of the frame's pixels.
    Brightness,
    /// Their deviation.
    Contrast,
}

impl Feature {
    /// The feature in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Classes => "classes",
            Self::Confidence => "confidence",
            Self::Brightness => "brightness",
            Self::Contrast => "contrast",
        }
    }
}

/// A figure, and what chance alone stays below but for one comparison in 1 / [`CHANCE`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// What was found.
    pub found: f64,
    /// What chance stays below.
    pub chance: f64,
}

impl Measure {
    fn is_beyond_chance(&self) -> bool {
        self.found > self.chance
    }
}

/// What became of one feature.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Which.
    pub feature: Feature,
    /// What is to be thought of it.
    pub verdict: Verdict,
    /// Frames compared with.
    pub reference_frames: u64,
    /// Frames compared.
    pub recent_frames: u64,
    /// The population stability index; none of too few frames.
    pub psi: Option<Measure>,
    /// The Kolmogorov–Smirnov distance; none of too few frames and of what has no order.
    pub ks: Option<Measure>,
    /// Where its mean moved; none of too few frames and of what has no order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<Moved>,
}

/// Where a mean moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moved {
    /// It is higher than it was.
    Up,
    /// It is lower, or the same.
    Down,
}

impl Finding {
    /// What it means to somebody who knows the camera and no statistics.
    pub fn words(&self) -> &'static str {
        use Moved::{Down, Up};
        match (self.feature, self.moved) {
            (Feature::Brightness, Some(Up)) => "the picture is brighter",
            (Feature::Brightness, Some(Down)) => "the picture is darker",
            (Feature::Contrast, Some(Up)) => "the picture has more contrast",
            (Feature::Contrast, Some(Down)) => "the picture has less contrast",
            (Feature::Confidence, Some(Up)) => "the model is surer",
            (Feature::Confidence, Some(Down)) => "the model is less sure",
            (Feature::Classes, _) => "other classes come than before",
            (Feature::Brightness | Feature::Contrast, None) => "the picture is another one",
            (Feature::Confidence, None) => "the model is sure of other things",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.feature.as_str(), self.verdict.as_str())?;
        let Some(psi) = self.psi else { return Ok(()) };
        write!(f, " (PSI {:.2}, by chance below {:.2}", psi.found, psi.chance)?;
        if let Some(ks) = self.ks {
            write!(f, "; KS {:.2}, by chance below {:.2}", ks.found, ks.chance)?;
        }
        f.write_str(")")
    }
}

/// What became of what a model meets.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Drift {
    /// The worst of the features.
    pub verdict: Verdict,
    /// Frames compared with.
    pub reference_frames: u64,
    /// Frames compared.
    pub recent_frames: u64,
    /// Feature by feature.
    pub features: Vec<Finding>,
}

/// Compares what a model meets now with what it met before.
pub fn compare(reference: &Sketch, recent: &Sketch) -> Drift {
    let features = vec![
        finding(Feature::Classes, &reference.classes, &recent.classes),
        ordered(Feature::Confidence, &reference.confidence, &recent.confidence),
        ordered(Feature::Brightness, &reference.brightness, &recent.brightness),
        ordered(Feature::Contrast, &reference.contrast, &recent.contrast),
    ];
    Drift {
        verdict: features.iter().map(|finding| finding.verdict).max().unwrap_or_default(),
        reference_frames: reference.frames(),
        recent_frames: recent.frames(),
        features,
    }
}

fn ordered<const N: usize>(
    feature: Feature,
    reference: &Histogram<N>,
    recent: &Histogram<N>,
) -> Finding {
    finding(feature, reference.counts(), recent.counts())
}

fn finding(feature: Feature, reference: &[u64], recent: &[u64]) -> Finding {
    let (reference_frames, recent_frames) = (total(reference), total(recent));
    let blank = Finding {
        feature,
        verdict: Verdict::Unknown,
        reference_frames,
        recent_frames,
        psi: None,
        ks: None,
        moved: None,
    };
    if reference_frames.min(recent_frames) < FEWEST_FRAMES {
        return blank;
    }
    let has_order = feature != Feature::Classes;
    let pairs = Pairs::of(reference, recent);
    let pooled = if has_order { pairs.pool_neighbours() } else { pairs.pool_the_rare() };
    let (psi, mean) = pooled.psi();
    let ks = has_order.then(|| pairs.ks());
    let is_beyond_chance =
        psi.is_beyond_chance() && ks.as_ref().is_none_or(Measure::is_beyond_chance);
    let verdict = match psi.found - mean {
        excess if is_beyond_chance && excess >= DRIFTED_PSI => Verdict::Drifted,
        excess if is_beyond_chance && excess >= SHIFTING_PSI => Verdict::Shifting,
        _ => Verdict::Steady,
    };
    let is_up = mean_bin(recent) > mean_bin(reference);
    let moved = has_order.then_some(if is_up { Moved::Up } else { Moved::Down });
    Finding { verdict, psi: Some(psi), ks, moved, ..blank }
}

/// The mean of a histogram, in bins.
fn mean_bin(counts: &[u64]) -> f64 {
    let sum: f64 = counts.iter().enumerate().map(|(bin, count)| bin as f64 * *count as f64).sum();
    sum / total(counts).max(1) as f64
}

/// Counts of the same bins on both sides.
struct Pairs {
    bins: Vec<[f64; 2]>,
    totals: [f64; 2],
}

impl Pairs {
    /// A bin that one side does not know is empty there.
    fn of(reference: &[u64], recent: &[u64]) -> Self {
        let count = |counts: &[u64], bin: usize| counts.get(bin).map_or(0.0, |c| *c as f64);
        let bins = reference.len().max(recent.len());
        let bins = (0..bins).map(|bin| [count(reference, bin), count(recent, bin)]);
        let bins: Vec<_> = bins.collect();
        let sum = |side: usize| bins.iter().map(|bin| bin[side]).sum();
        let totals = [sum(0), sum(1)];
        Self { bins, totals }
    }

    /// Frames that the smaller side would have in a bin if both sides were one.
    fn expected(&self, bin: &[f64; 2]) -> f64 {
        let [n, m] = self.totals;
        (bin[0] / n + bin[1] / m) / 2.0 * n.min(m)
    }

    /// The same frames in fewer bins, each of neighbours that have enough frames together.
    fn pool_neighbours(&self) -> Self {
        let mut pooled: Vec<[f64; 2]> = Vec::new();
        let mut open: Option<[f64; 2]> = None;
        for bin in &self.bins {
            let sum = open.take().map_or(*bin, |open| add(open, *bin));
            if self.expected(&sum) < FRAMES_A_BIN {
                open = Some(sum);
            } else {
                pooled.push(sum);
            }
        }
        self.with(pooled, open)
    }

    /// The same frames with all bins that have too few of them in one.
    fn pool_the_rare(&self) -> Self {
        let is_rare = |bin: &&[f64; 2]| self.expected(bin) < FRAMES_A_BIN;
        let mut common: Vec<[f64; 2]> =
            self.bins.iter().filter(|bin| !is_rare(bin)).copied().collect();
        // The least common last: it takes the others in when they are too few for a bin together.
        common.sort_by(|a, b| self.expected(b).total_cmp(&self.expected(a)));
        let others = self.bins.iter().filter(is_rare).copied().reduce(add);
        match others {
            Some(others) if self.expected(&others) >= FRAMES_A_BIN => {
                common.push(others);
                self.with(common, None)
            }
            others => self.with(common, others),
        }
    }

    /// These bins, with what is left over in the last of them.
    fn with(&self, mut bins: Vec<[f64; 2]>, rest: Option<[f64; 2]>) -> Self {
        match (bins.last_mut(), rest) {
            (Some(last), Some(rest)) => *last = add(*last, rest),
            (None, Some(rest)) => bins.push(rest),
            (_, None) => {}
        }
        Self { bins, totals: self.totals }
    }

    /// The index and its bound, and its mean by chance.
    fn psi(&self) -> (Measure, f64) {
        let ([n, m], k) = (self.totals, self.bins.len() as f64);
        let share = |count: f64, total: f64| (count + 0.5) / (total + k / 2.0);
        let terms = self.bins.iter().map(|[a, b]| {
            let (p, q) = (share(*a, n), share(*b, m));
            (p - q) * (p / q).ln()
        });
        let found = terms.sum();
        let (noise, freedom) = (1.0 / n + 1.0 / m, (k - 1.0).max(0.0));
        (Measure { found, chance: noise * chi_square_quantile(freedom) }, noise * freedom)
    }

    /// The distance and its bound.
    fn ks(&self) -> Measure {
        let [n, m] = self.totals;
        let (mut below, mut found) = ([0.0; 2], 0.0f64);
        for bin in &self.bins {
            below = add(below, *bin);
            found = found.max((below[0] / n - below[1] / m).abs());
        }
        let c = (-0.5 * (CHANCE / 2.0).ln()).sqrt();
        // The sums of shares may end a rounding above 1.
        Measure { found: found.min(1.0), chance: c * (1.0 / n + 1.0 / m).sqrt() }
    }
}

fn add(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [a[0] + b[0], a[1] + b[1]]
}

/// The quantile 1 − [`CHANCE`] of χ² with `k` degrees of freedom, to 3 per cent (E. B. Wilson and
/// M. M. Hilferty, "The distribution of chi-square", 1931).
fn chi_square_quantile(k: f64) -> f64 {
    if k < 1.0 {
        return 0.0;
    }
    let spread = 2.0 / (9.0 * k);
    k * (1.0 - spread + NORMAL_QUANTILE * spread.sqrt()).powi(3)
}

#[cfg(test)]
#[path = "drift_tests.rs"]
mod tests;
