//! A network for rows of a table.
//!
//! `table-mlp`: batch normalisation of the columns, so that each may have its own unit, then two
//! dense layers with ReLU and the head. A column that never changes is harmless.

use super::Head;
use super::layers::{BEFORE_RELU, Layers};

/// For raw columns, which may be small numbers: a deviation of 1e-3 is still brought to 1.
const INPUT_EPSILON: f32 = 1e-8;

/// Widths of the dense layers.
const DENSE: [usize; 2] = [128, 64];

/// `table-mlp`.
pub fn mlp(input: &[usize], head: Head, seed: u64) -> Result<Layers, &'static str> {
    let [1..=4096] = input else { return Err("the number of columns, 1 to 4096") };
    let mut layers = Layers::new("table-mlp", "row", input, seed).norm("input", INPUT_EPSILON);
    for (place, to) in DENSE.into_iter().enumerate() {
        let name = format!("dense{}", place + 1);
        layers = layers.dense(&name, to, BEFORE_RELU).relu(&name);
    }
    Ok(layers.head("dense3", head))
}
