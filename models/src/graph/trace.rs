//! Traces a graph back from its output, to say what that is.
//!
//! | met | the output is |
//! |---|---|
//! | `Softmax` over the classes; `Exp`, `ReduceSum`, `Div` spelled out; `Exp` of a `LogSoftmax` | a softmax |
//! | `Sigmoid`; `1 / (1 + exp(−x))` spelled out | a sigmoid |
//! | layers, activations without an upper bound, sums, the input itself | logits |
//! | what only changes shape, type or precision; `Clip` and means of probabilities | what is behind it is |
//! | anything else | unclear |
//!
//! `LogSoftmax` counts as logits: the softmax of logarithms of probabilities is those probabilities.

use std::cell::Cell;
use std::collections::HashMap;

use super::check::shown;
use super::outline::{Node, Outline};
use super::output::{Meaning, OutputKind, Reading};

/// Reads what the first output that holds floats is; none when there is no such output.
pub fn read(outline: &Outline) -> Option<Reading> {
    let output = outline.outputs.iter().find(|output| output.is_float())?;
    let makers = outline.nodes.iter();
    let makers = makers.flat_map(|node| node.outputs.iter().map(move |name| (name.as_str(), node)));
    let makers = makers.filter(|(name, _)| !name.is_empty()).collect();
    let trace = Trace { outline, makers, left: Cell::new(MOST) };
    let meaning = match trace.of(&output.name, DEEPEST) {
        Found::Scores | Found::Logs(_) => Meaning::Logits,
        Found::Probabilities { kind, scores, direct, .. } => {
            Meaning::Probabilities { kind, scores: scores.to_owned(), direct }
        }
        Found::Unclear(node) => {
            let shown = |name: &str| shown(name.as_bytes());
            Meaning::Unclear { operator: shown(&node.op), node: shown(node.called()) }
        }
    };
    Some(Reading { output: output.name.clone(), meaning })
}

/// How many nodes are traced back through, one behind the other.
const DEEPEST: usize = 64;
/// How many in all: two ways may meet again and again.
const MOST: usize = 4096;

struct Trace<'a> {
    outline: &'a Outline,
    makers: HashMap<&'a str, &'a Node>,
    /// How many nodes may still be looked at.
    left: Cell<usize>,
}

/// What a value is.
#[derive(Clone, Copy)]
enum Found<'a> {
    Scores,
    /// Logarithms of probabilities, whose scores are these.
    Logs(&'a str),
    Probabilities {
        kind: OutputKind,
        scores: &'a str,
        direct: bool,
        /// The axis of a softmax, where that is known.
        over: Option<i64>,
    },
    Unclear(&'a Node),
}

/// Layers, and activations that are not bounded above or go below 0: what they make are scores.
const SCORES: [&str; 39] = [
    "Constant",
    "Gemm",
    "MatMul",
    "Conv",
    "ConvTranspose",
    "BatchNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "GroupNormalization",
    "RMSNormalization",
    "Relu",
    "LeakyRelu",
    "PRelu",
    "Elu",
    "Selu",
    "Celu",
    "Gelu",
    "Softplus",
    "HardSwish",
    "Mish",
    "Swish",
    "ThresholdedRelu",
    "LSTM",
    "GRU",
    "RNN",
    "Einsum",
    "MatMulInteger",
    "ConvInteger",
    "QLinearConv",
    "QLinearMatMul",
    "QGemm",
    "FusedConv",
    "FusedMatMul",
    "FusedGemm",
    "QLinearAdd",
    "Log",
    "Neg",
    "Tanh",
    "LRN",
];
/// What changes shape, type or precision alone.
const PASSING: [&str; 13] = [
    "Identity",
    "Flatten",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Cast",
    "CastLike",
    "Dropout",
    "QuantizeLinear",
    "DequantizeLinear",
    "Clip",
    "DynamicQuantizeLinear",
    "Optional",
];
/// What averages, or takes values in another order.
const BLENDING: [&str; 6] = [
    "Transpose",
    "ReduceMean",
    "GlobalAveragePool",
    "AveragePool",
    "QLinearGlobalAveragePool",
    "QLinearAveragePool",
];
/// What may take some of several: of scores scores, of sigmoids sigmoids.
const CHOOSING: [&str; 9] = [
    "Slice",
    "Gather",
    "Split",
    "MaxPool",
    "GlobalMaxPool",
    "ReduceMax",
    "ReduceMin",
    "Pad",
    "Expand",
];

impl<'a> Trace<'a> {
    fn of(&self, value: &'a str, deep: usize) -> Found<'a> {
        let Some(node) = self.makers.get(value).copied() else { return Found::Scores };
        let left = self.left.get().saturating_sub(1);
        self.left.set(left);
        if deep == 0 || left == 0 {
            return Found::Unclear(node);
        }
        let inner = |place: usize| match node.inputs.get(place) {
            Some(input) => self.of(input, deep - 1),
            None => Found::Unclear(node),
        };
        match node.op.as_str() {
            op if SCORES.contains(&op) => Found::Scores,
            op if PASSING.contains(&op) => inner(0),
            op if BLENDING.contains(&op) => match inner(0) {
                Found::Probabilities { kind, scores, over, .. } => {
                    let stays = kind == OutputKind::Sigmoid || self.keeps(node, over);
                    let over = over.filter(|_| op != "Transpose");
                    let blended = Found::Probabilities { kind, scores, direct: false, over };
                    if stays { blended } else { Found::Unclear(node) }
                }
                Found::Logs(_) => Found::Unclear(node),
                other => other,
            },
            op if CHOOSING.contains(&op) => match inner(0) {
                Found::Probabilities { kind: OutputKind::Sigmoid, scores, .. } => {
                    let (kind, over) = (OutputKind::Sigmoid, None);
                    Found::Probabilities { kind, scores, direct: false, over }
                }
                Found::Scores => Found::Scores,
                _ => Found::Unclear(node),
            },
            "Softmax" | "QLinearSoftmax" if over_classes(node) => {
                probabilities(OutputKind::Softmax, node, if self.is_old() { 1 } else { -1 })
            }
            "Sigmoid" | "QLinearSigmoid" => probabilities(OutputKind::Sigmoid, node, 1),
            "LogSoftmax" if over_classes(node) => match node.inputs.first() {
                Some(scores) => Found::Logs(scores),
                None => Found::Unclear(node),
            },
            "Concat" | "Sum" | "Mean" | "Max" | "Min" | "ReduceSum" | "Sqrt" | "Pow" | "Abs" => {
                self.all_scores(node, deep)
            }
            "Div" | "Mul" | "Reciprocal" | "Exp" => {
                self.spelled(node, deep).unwrap_or_else(|| self.shifted(node, deep))
            }
            "Add" | "Sub" => self.shifted(node, deep),
            _ => Found::Unclear(node),
        }
    }

    /// Of several values: scores if all of them are.
    fn all_scores(&self, node: &'a Node, deep: usize) -> Found<'a> {
        let mut inputs = node.inputs.iter();
        let all = inputs.all(|input| matches!(self.of(input, deep - 1), Found::Scores));
        if all && !node.inputs.is_empty() { Found::Scores } else { Found::Unclear(node) }
    }

    /// Two values, added or multiplied: scores where both are, whether learned or computed.
    fn shifted(&self, node: &'a Node, deep: usize) -> Found<'a> {
        match node.op.as_str() {
            "Exp" | "Reciprocal" => Found::Unclear(node),
            "Div" if !node.inputs.get(1).is_some_and(|by| self.is_constant(by)) => {
                Found::Unclear(node)
            }
            _ => self.all_scores(node, deep),
        }
    }

    /// A softmax or sigmoid that is spelled out.
    fn spelled(&self, node: &'a Node, deep: usize) -> Option<Found<'a>> {
        match node.op.as_str() {
            "Div" => {
                let [above, below] = node.inputs.as_slice() else { return None };
                self.shares(above, below)
                    .or_else(|| self.logistic(below).filter(|_| self.is(above, 1.0)))
            }
            // a · (1 / Σ a)
            "Mul" => {
                let [a, b] = node.inputs.as_slice() else { return None };
                let of = |above: &'a str, below: &'a str| {
                    let below = self.maker(below, "Reciprocal")?;
                    self.shares(above, below.inputs.first()?)
                };
                of(a, b).or_else(|| of(b, a))
            }
            "Reciprocal" => self.logistic(node.inputs.first()?),
            "Exp" => {
                let input = node.inputs.first()?;
                let scores = match self.of(input, deep - 1) {
                    Found::Logs(scores) => scores,
                    _ => self.logs(input)?,
                };
                Some(softmax(scores))
            }
            _ => None,
        }
    }

    /// `exp(z) / Σ exp(z)`.
    fn shares(&self, above: &'a str, below: &'a str) -> Option<Found<'a>> {
        let total = self.maker(below, "ReduceSum")?;
        (total.inputs.first()? == above && self.sums_classes(total)).then_some(())?;
        let exponents = self.maker(above, "Exp")?.inputs.first()?;
        Some(softmax(self.unshifted(exponents)))
    }

    /// `z` of `z − ln Σ exp(z)`.
    fn logs(&self, value: &'a str) -> Option<&'a str> {
        let [scores, total] = self.maker(value, "Sub")?.inputs.as_slice() else { return None };
        if let Some(total) = self.maker(total, "ReduceLogSumExp") {
            let same = total.inputs.first()? == scores && self.sums_classes(total);
            return same.then(|| self.unshifted(scores));
        }
        let sum = self.maker(self.maker(total, "Log")?.inputs.first()?, "ReduceSum")?;
        let exponents = self.maker(sum.inputs.first()?, "Exp")?.inputs.first()?;
        (exponents == scores && self.sums_classes(sum)).then(|| self.unshifted(scores))
    }

    /// `x` of `x − max x`; anything else as it is.
    fn unshifted(&self, value: &'a str) -> &'a str {
        let shifted = || {
            let [scores, largest] = self.maker(value, "Sub")?.inputs.as_slice() else {
                return None;
            };
            let largest = self.maker(largest, "ReduceMax")?;
            (largest.inputs.first()? == scores).then_some(scores.as_str())
        };
        shifted().unwrap_or(value)
    }

    /// The sigmoid whose `1 + exp(−x)` this is.
    fn logistic(&self, value: &'a str) -> Option<Found<'a>> {
        let [a, b] = self.maker(value, "Add")?.inputs.as_slice() else { return None };
        let power = if self.is(a, 1.0) { b } else { a };
        (self.is(a, 1.0) || self.is(b, 1.0)).then_some(())?;
        let negative = self.maker(power, "Exp")?.inputs.first()?;
        let scores = match self.maker(negative, "Neg") {
            Some(negated) => negated.inputs.first()?,
            None => match self.maker(negative, "Mul")?.inputs.as_slice() {
                [x, by] if self.is(by, -1.0) => x,
                [by, x] if self.is(by, -1.0) => x,
                _ => return None,
            },
        };
        Some(Found::Probabilities { kind: OutputKind::Sigmoid, scores, direct: true, over: None })
    }

    /// Whether a softmax over that axis is one still behind a node that averages or turns: the average is
    /// over other axes. Before operator set 13 a softmax is over all axes from its own on.
    fn keeps(&self, node: &Node, over: Option<i64>) -> bool {
        let reduced = || self.axes(node).filter(|axes| !axes.is_empty());
        match (node.op.as_str(), over) {
            ("Transpose", _) => true,
            _ if self.is_old() => false,
            ("ReduceMean", Some(over)) => {
                reduced().is_some_and(|axes| axes.iter().all(|axis| *axis != over as f64))
            }
            (_, over) => over == Some(1),
        }
    }

    fn is_old(&self) -> bool {
        self.outline.opset.is_some_and(|set| set < 13)
    }

    /// The axes of a reduction, an attribute or an input.
    fn axes(&self, node: &Node) -> Option<Vec<f64>> {
        match node.inputs.get(1) {
            Some(axes) => self.outline.constants.get(axes)?.values.clone(),
            None => Some(node.ints.get("axes")?.iter().map(|axis| *axis as f64).collect()),
        }
    }

    /// Whether a sum is over the classes of each sample, and keeps their axis.
    fn sums_classes(&self, node: &Node) -> bool {
        let kept = node.int("keepdims") != Some(0);
        kept && self
            .axes(node)
            .is_some_and(|axes| matches!(axes.as_slice(), [axis] if *axis == 1.0 || *axis == -1.0))
    }

    fn maker(&self, value: &str, operator: &str) -> Option<&'a Node> {
        self.makers.get(value).copied().filter(|node| node.op == operator)
    }

    fn is_constant(&self, value: &str) -> bool {
        self.outline.constants.contains_key(value)
    }

    /// Whether a value is a constant of that number.
    fn is(&self, value: &str, number: f64) -> bool {
        let constant = self.outline.constants.get(value).and_then(|c| c.values.as_ref());
        constant.is_some_and(|values| !values.is_empty() && values.iter().all(|v| *v == number))
    }
}

fn softmax(scores: &str) -> Found<'_> {
    Found::Probabilities { kind: OutputKind::Softmax, scores, direct: true, over: None }
}

fn probabilities(kind: OutputKind, node: &Node, default: i64) -> Found<'_> {
    match node.inputs.first() {
        Some(scores) => {
            let over = Some(node.int("axis").unwrap_or(default));
            Found::Probabilities { kind, scores, direct: true, over }
        }
        None => Found::Unclear(node),
    }
}

/// Whether a softmax is over the classes: axis 1, or the last. Before operator set 13 its default is
/// axis 1, and it takes that and all behind it together; the last is the default since.
fn over_classes(node: &Node) -> bool {
    matches!(node.int("axis"), None | Some(1 | -1))
}
