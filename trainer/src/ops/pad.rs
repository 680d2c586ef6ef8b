//! `Pad`: more entries around a value of any kind, or fewer where the number is negative.
//!
//! Negative numbers take entries away before the others add some.

use burn::tensor::Device;

use super::taps::Taps;
use super::{Built, NodeView, Operator, axis, bounded, no_parameters, tensor};
use crate::graph::{Fact, Tensor};
use crate::onnx::Kind;

pub const TABLE: &[Operator] = &[Operator::new("Pad", 2, no_parameters, build)];

/// The first operator set in which the numbers are an input.
const INPUTS_SINCE: i64 = 11;

/// The longest axis whose entries are listed one by one (every mode but `constant`).
const MAX_LISTED: usize = 1 << 24;

/// What one axis gets and loses.
#[derive(Debug, Clone, Copy)]
struct Change {
    axis: usize,
    /// The entries that stay, to the second exclusive.
    kept: (usize, usize),
    /// The entries added before and after.
    added: (usize, usize),
}

impl Change {
    fn new(axis: usize, size: usize, before: i64, after: i64) -> Result<Self, String> {
        const MOST: u64 = 1 << 31;
        if before.unsigned_abs() > MOST || after.unsigned_abs() > MOST {
            return Err(format!("pads of {before} and {after} are too many"));
        }
        let (from, to) = ((-before).max(0), size as i64 - (-after).max(0));
        if from >= to {
            return Err(format!("pads of {before} and {after} take away an axis of {size}"));
        }
        let added = (before.max(0) as usize, after.max(0) as usize);
        Ok(Self { axis, kept: (from as usize, to as usize), added })
    }

    fn size(self) -> usize {
        self.added.0 + (self.kept.1 - self.kept.0) + self.added.1
    }

    /// The place of every entry of the result before the change, for a rule that folds places
    /// outside `0..n` back into it.
    fn index(self, fold: fn(i64, i64) -> i64) -> Vec<i64> {
        let n = (self.kept.1 - self.kept.0) as i64;
        let before = self.added.0 as i64;
        let places = -before..n + self.added.1 as i64;
        places.map(|place| self.kept.0 as i64 + fold(place, n)).collect()
    }
}

fn edge(place: i64, n: i64) -> i64 {
    place.clamp(0, n - 1)
}

fn wrap(place: i64, n: i64) -> i64 {
    place.rem_euclid(n)
}

fn reflect(place: i64, n: i64) -> i64 {
    let period = (2 * (n - 1)).max(1);
    let place = place.rem_euclid(period);
    place.min(period - place).min(n - 1)
}

/// The numbers for the axes they are for: all before, then all after.
fn changes(node: &NodeView<'_>, x: &Fact) -> Result<Vec<Change>, String> {
    let numbers = if node.opset < INPUTS_SINCE {
        node.attributes.ints("pads")?.ok_or("pads are missing")?
    } else {
        node.ints(1)?
    };
    let axes: Vec<usize> = match if node.opset < 18 { None } else { node.optional_ints(3)? } {
        None => (0..x.rank()).collect(),
        Some(list) => list.iter().map(|a| axis(*a, x.rank())).collect::<Result<_, _>>()?,
    };
    let mut sorted = axes.clone();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) || numbers.len() != 2 * axes.len() {
        return Err(format!("{} pads do not fit the axes {axes:?}", numbers.len()));
    }
    let (before, after) = numbers.split_at(axes.len());
    let change =
        |(place, a): (usize, &usize)| Change::new(*a, x.dims[*a], before[place], after[place]);
    axes.iter().enumerate().map(change).collect()
}

fn build(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.input(0)?;
    let changes = changes(node, x)?;
    let mut dims = x.dims.clone();
    for change in &changes {
        dims[change.axis] = change.size();
    }
    let most: Vec<usize> = dims.iter().zip(&x.dims).map(|(a, b)| *a.max(b)).collect();
    bounded(&most)?;
    let out = x.reshaped(dims);
    let old_value = if node.opset < INPUTS_SINCE {
        if node.inputs.len() > 1 {
            return Err("more than one input is known since operator set 11 only".into());
        }
        node.attributes.float("value", 0.0)?
    } else {
        match node.optional(2) {
            Some(v) if v.kind() != x.kind() || v.count() != 1 => {
                return Err(format!("the constant of shape {v} does not fit"));
            }
            _ => 0.0,
        }
    };
    let fold = match node.attributes.text("mode", "constant")? {
        "constant" => return constant(x, out, changes, old_value),
        "reflect" => reflect,
        "edge" => edge,
        "wrap" if node.opset >= 19 => wrap,
        other => return Err(format!("mode {other} is not known")),
    };
    if changes.iter().any(|change| change.size() > MAX_LISTED) {
        return Err(format!("an axis of {out} is longer than {MAX_LISTED}"));
    }
    let taps: Vec<Taps> =
        changes.iter().map(|change| Taps::pick(change.axis, change.index(fold))).collect();
    if x.rank() == 0 {
        return Built::one(out, |i, _| i.take(0));
    }
    Built::one(out, move |i, context| {
        taps.iter().fold(i.take(0), |x, tap| tap.apply(x, &context.device))
    })
}

fn constant(x: &Fact, out: Fact, changes: Vec<Change>, old: f32) -> Result<Built, String> {
    let (kind, ones) = (x.kind(), vec![1; x.rank().max(1)]);
    Built::one(out, move |i, context| {
        let x = i.take(0);
        let value = match (i.try_take(2), kind) {
            (Some(value), _) => tensor::reshape(value, &ones),
            (None, Kind::Float) => tensor::from_host(vec![old], &ones, &context.device),
            (None, Kind::Int) => tensor::ints_from_host(vec![0], &ones, &context.device),
            (None, Kind::Bool) => tensor::bools_from_host(vec![false], &ones, &context.device),
        };
        changes.iter().fold(x, |x, change| {
            let x = tensor::narrow(x, change.axis, change.kept.0, change.kept.1);
            filled(x, change.axis, change.added, &value)
        })
    })
}

/// More entries of one value, which has one element in as many dimensions, before and after.
pub fn filled(x: Tensor, axis: usize, added: (usize, usize), value: &Tensor) -> Tensor {
    let mut shape = tensor::dims(&x);
    let mut block = |count: usize| {
        shape[axis] = count;
        tensor::expand(value.clone(), &shape)
    };
    let mut parts = Vec::new();
    if added.0 > 0 {
        parts.push(block(added.0));
    }
    let after = (added.1 > 0).then(|| block(added.1));
    parts.push(x);
    parts.extend(after);
    if parts.len() == 1 { parts.remove(0) } else { tensor::concat(parts, axis) }
}

/// Floats `[N, C, spatial…]` with more entries of one value around each spatial axis.
pub fn around(x: Tensor, added: &[(usize, usize)], value: f32, device: &Device) -> Tensor {
    let value = tensor::from_host(vec![value], &vec![1; added.len() + 2], device);
    added.iter().zip(2..).fold(x, |x, (added, axis)| filled(x, axis, *added, &value))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, sequence, text};
    use crate::onnx::write::{float, ints};

    fn line(mode: &str, before: i64, after: i64) -> Vec<f32> {
        Case::new(&[1, 3])
            .opset(19)
            .ints("pads", &[0, before, 0, after])
            .node("Pad", &["x", "pads"], vec![text("mode", mode)])
            .run(&sequence(3))
    }

    #[test]
    fn every_mode_by_hand() {
        assert_eq!(line("constant", 1, 2), [0.0, 1.0, 2.0, 3.0, 0.0, 0.0]);
        assert_eq!(line("edge", 1, 2), [1.0, 1.0, 2.0, 3.0, 3.0, 3.0]);
        assert_eq!(line("reflect", 2, 2), [3.0, 2.0, 1.0, 2.0, 3.0, 2.0, 1.0]);
        assert_eq!(line("wrap", 1, 4), [3.0, 1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0]);
    }

    #[test]
    fn negative_pads_take_away_before_the_others_add() {
        assert_eq!(line("constant", -1, 1), [2.0, 3.0, 0.0]);
        assert_eq!(line("edge", -1, 1), [2.0, 3.0, 3.0]);
        assert_eq!(line("wrap", 1, -1), [2.0, 1.0, 2.0]);
        let refusal = |before, after| {
            Case::new(&[1, 3])
                .opset(13)
                .ints("pads", &[0, before, 0, after])
                .node("Pad", &["x", "pads"], vec![])
                .refusal()
        };
        assert!(refusal(-2, -1).contains("take away"));
        assert!(refusal(i64::MIN, 0).contains("too many"));
        assert!(refusal(1 << 30, 0).contains("elements"));
    }

    #[test]
    fn old_operator_sets_have_attributes_and_new_ones_axes() {
        let old = Case::new(&[1, 2]).opset(10).node(
            "Pad",
            &["x"],
            vec![ints("pads", &[0, 1, 0, 0]), float("value", 7.0)],
        );
        assert_eq!(old.run(&[1.0, 2.0]), [7.0, 1.0, 2.0]);
        let mixed = Case::new(&[1, 2]).opset(10).ints("v", &[0, 1]).node(
            "Pad",
            &["x", "", "v"],
            vec![ints("pads", &[0, 1, 0, 0])],
        );
        assert!(mixed.refusal().contains("more than one input"));
        let new = Case::new(&[1, 2])
            .opset(18)
            .ints("pads", &[0, 1])
            .ints("axes", &[-1])
            .floats("v", &[], &[7.0])
            .node("Pad", &["x", "pads", "v", "axes"], vec![]);
        assert_eq!(new.run(&[1.0, 2.0]), [1.0, 2.0, 7.0]);
    }

    #[test]
    fn gradients_match_finite_differences() {
        for mode in ["constant", "edge", "reflect", "wrap"] {
            Case::new(&[2, 3, 4])
                .opset(19)
                .ints("pads", &[0, 1, -1, 0, 2, 3])
                .node("Pad", &["x", "pads"], vec![text("mode", mode)])
                .check_gradients();
        }
    }
}
