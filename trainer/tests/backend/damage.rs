//! Models that contradict themselves: attributes, shapes and integers that nobody should believe.

use onnx_ir::{Message as _, ModelProto, NodeProto};
use trainer::onnx::{Elements, HostTensor};
use trainer::random::Random;

/// Numbers that break sums, products and indices.
const HOSTILE: [i64; 11] =
    [0, 1, -1, 2, -2, 7, 1 << 31, -(1 << 31), i64::MAX, i64::MIN, i64::MAX / 2 + 1];

fn number(random: &mut Random) -> i64 {
    HOSTILE[random.below(HOSTILE.len())]
}

/// The model with one to three things changed.
pub fn model(bytes: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let mut model = ModelProto::parse_from_bytes(bytes).ok()?;
    let graph = model.graph.mut_or_insert_default();
    for _ in 0..=random.below(3) {
        let which = random.below(graph.node.len().max(1));
        if let Some(node) = graph.node.get_mut(which) {
            change(node, random);
        }
    }
    model.write_to_bytes().ok()
}

fn change(node: &mut NodeProto, random: &mut Random) {
    match random.below(6) {
        0 if node.input.len() > 1 => {
            let (a, b) = (random.below(node.input.len()), random.below(node.input.len()));
            node.input.swap(a, b);
        }
        1 if !node.input.is_empty() => {
            let place = random.below(node.input.len());
            node.input[place].clear();
        }
        2 if !node.attribute.is_empty() => {
            node.attribute.remove(random.below(node.attribute.len()));
        }
        _ => {
            let count = node.attribute.len().max(1);
            let Some(attribute) = node.attribute.get_mut(random.below(count)) else { return };
            attribute.i = number(random);
            attribute.f = [0.0, -1.0, f32::NAN, f32::INFINITY, 1e30][random.below(5)];
            if !attribute.ints.is_empty() {
                let place = random.below(attribute.ints.len());
                attribute.ints[place] = number(random);
            }
            if random.below(4) == 0 {
                attribute.ints.pop();
            }
        }
    }
}

/// The inputs with a shape or an integer changed.
pub fn inputs(inputs: &mut [HostTensor], random: &mut Random) {
    let which = random.below(inputs.len().max(1));
    let Some(input) = inputs.get_mut(which) else { return };
    if let Elements::Int(values) = &mut input.elements
        && !values.is_empty()
    {
        let place = random.below(values.len());
        values[place] = number(random);
    } else if !input.shape.is_empty() && random.below(2) == 0 {
        // Other sizes of the same product: an axis more, or two axes in another order.
        let (a, b) = (random.below(input.shape.len()), random.below(input.shape.len()));
        input.shape.swap(a, b);
        if random.below(2) == 0 {
            input.shape.insert(a, 1);
        }
    }
}
