//! What a pass costs: multiply-adds and memory, before anything runs.

use onnx_ir::NodeProto;

use super::check::Findings;
use super::{Fact, Parameters};
use crate::onnx::Kind;

/// What one pass over a batch costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Multiplications with an addition of convolutions, matrix products and recurrent layers, for
    /// the batch. A training step takes about three times as many.
    pub multiply_adds: u64,
    /// Bytes of everything that training changes.
    pub parameter_bytes: u64,
    /// Bytes of all values between the nodes together: what a training step keeps at most until it
    /// has gone back. Use needs less, for a value goes when its last reader has run.
    pub value_bytes: u64,
}

impl Cost {
    pub(super) fn of(findings: &Findings<'_>, parameters: &Parameters) -> Self {
        let fact = |name: &String| findings.facts.get(name.as_str());
        let mut cost = Self { multiply_adds: 0, parameter_bytes: 0, value_bytes: 0 };
        for step in &findings.steps {
            cost.multiply_adds += multiply_adds(step.node, &fact).unwrap_or(0);
            cost.value_bytes += step.node.output.iter().filter_map(fact).map(bytes).sum::<u64>();
        }
        for parameter in &parameters.list {
            cost.parameter_bytes += 4 * parameter.shape.iter().product::<usize>() as u64;
        }
        cost
    }
}

/// Floats take 4 bytes, integers 8, truth values 1.
fn bytes(fact: &Fact) -> u64 {
    let width = match fact.kind() {
        Kind::Float => 4,
        Kind::Int => 8,
        Kind::Bool => 1,
    };
    fact.count() as u64 * width
}

/// Of one node; `None` for operators that only move or combine elements.
fn multiply_adds<'a>(node: &NodeProto, fact: &impl Fn(&String) -> Option<&'a Fact>) -> Option<u64> {
    let input = |place: usize| fact(node.input.get(place)?);
    let output = || fact(node.output.first()?);
    let kernel = |w: &Fact| w.dims.iter().skip(1).product::<usize>();
    let count = match node.op_type.as_str() {
        "Conv" => output()?.count().checked_mul(kernel(input(1)?))?,
        "ConvTranspose" => input(0)?.count().checked_mul(kernel(input(1)?))?,
        "Gemm" => {
            let (out, a) = (output()?, input(0)?);
            // Rows times inner size is the first matrix, whichever way round it lies.
            a.count().checked_mul(*out.dims.last()?)?
        }
        "MatMul" => output()?.count().checked_mul(*input(0)?.dims.last()?)?,
        "LSTM" | "GRU" | "RNN" => {
            let (x, w, r) = (input(0)?, input(1)?, input(2)?);
            let rows = x.dims.first()? * x.dims.get(1)?;
            rows.checked_mul(w.count() + r.count())?
        }
        _ => return None,
    };
    Some(count as u64)
}
