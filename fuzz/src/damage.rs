//! Models that contradict themselves: operators, shapes, numbers and names that nobody should believe.
//!
//! What comes out is a model still, so that it is not the parser that refuses it. Used on ONNX's
//! backend tests (`trainer/tests/backend`) and by the fuzz target as its mutator.

use onnx_ir::{AttributeProto, GraphProto, Message as _, ModelProto, NodeProto, TensorProto};
use trainer::ops;
use trainer::random::Random;

/// Numbers that break sums, products and indices.
const HOSTILE: [i64; 12] =
    [0, 1, -1, 2, -2, 3, 7, 1 << 31, -(1 << 31), i64::MAX, i64::MIN, i64::MAX / 2 + 1];

/// One of them.
pub fn number(random: &mut Random) -> i64 {
    HOSTILE[random.below(HOSTILE.len())]
}

/// The model with one to three things changed.
pub fn model(bytes: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let mut model = ModelProto::parse_from_bytes(bytes).ok()?;
    for _ in 0..=random.below(3) {
        match random.below(16) {
            0 => {
                if let Some(set) = model.opset_import.first_mut() {
                    set.version = random.below(30) as i64;
                }
            }
            kind => graph(model.graph.mut_or_insert_default(), kind, random),
        }
    }
    model.write_to_bytes().ok()
}

fn pick<'a, T>(list: &'a mut [T], random: &mut Random) -> Option<&'a mut T> {
    let count = list.len().max(1);
    list.get_mut(random.below(count))
}

fn graph(graph: &mut GraphProto, kind: usize, random: &mut Random) {
    match kind {
        1 => drop(graph.output.pop()),
        2 => freeze(graph, random),
        3 | 4 => {
            if let Some(tensor) = pick(&mut graph.initializer, random) {
                change_tensor(tensor, random);
            }
        }
        5 => {
            if let Some(input) = pick(&mut graph.input, random) {
                let shape = &mut input.type_.mut_or_insert_default().mut_tensor_type().shape;
                if let Some(dim) = pick(&mut shape.mut_or_insert_default().dim, random) {
                    dim.set_dim_value(number(random));
                }
            }
        }
        6 | 7 => rewire(graph, random),
        8 => {
            if let Some(node) = pick(&mut graph.node, random) {
                let count = ops::table().count();
                let operator = ops::table().nth(random.below(count));
                node.op_type = operator.map_or_else(String::new, |o| o.name.to_owned());
            }
        }
        9 => append(graph, random),
        _ => {
            if let Some(node) = pick(&mut graph.node, random) {
                change_node(node, random);
            }
        }
    }
}

/// A graph input becomes a constant.
fn freeze(graph: &mut GraphProto, random: &mut Random) {
    let Some(input) = pick(&mut graph.input, random) else { return };
    let declared = input.type_.tensor_type();
    let sizes = declared.shape.dim.iter().map(|dim| dim.dim_value().clamp(1, 64));
    let mut tensor = TensorProto {
        name: input.name.clone(),
        data_type: declared.elem_type,
        dims: sizes.collect(),
        ..Default::default()
    };
    let count = tensor.dims.iter().product::<i64>().min(4096);
    match tensor.data_type {
        1 => tensor.float_data = (0..count).map(|_| random.between(-2.0, 2.0)).collect(),
        7 => tensor.int64_data = (0..count).map(|_| number(random)).collect(),
        _ => tensor.int32_data = (0..count).map(|_| random.below(3) as i32).collect(),
    }
    graph.initializer.push(tensor);
}

fn change_tensor(tensor: &mut TensorProto, random: &mut Random) {
    match random.below(5) {
        0 => {
            if let Some(dim) = pick(&mut tensor.dims, random) {
                *dim = number(random);
            }
        }
        1 => {
            let (a, b) = (random.below(tensor.dims.len().max(1)), 0);
            if a < tensor.dims.len() {
                tensor.dims.swap(a, b);
            }
        }
        2 => tensor.dims.insert(0, 1),
        3 => tensor.data_type = random.below(17) as i32,
        _ => {
            let mut raw = tensor.raw_data.to_vec();
            let place = random.below((raw.len() / 8).max(1)) * 8;
            if let Some(word) = raw.get_mut(place..place + 8) {
                word.copy_from_slice(&number(random).to_le_bytes());
            }
            tensor.raw_data = raw.into();
            if let Some(value) = pick(&mut tensor.int64_data, random) {
                *value = number(random);
            }
        }
    }
}

/// A node reads another value.
fn rewire(graph: &mut GraphProto, random: &mut Random) {
    let mut names: Vec<String> = graph.initializer.iter().map(|t| t.name.clone()).collect();
    names.extend(graph.input.iter().map(|input| input.name.clone()));
    names.extend(graph.node.iter().flat_map(|node| node.output.iter().cloned()));
    let (Some(name), Some(node)) = (pick(&mut names, random), pick(&mut graph.node, random)) else {
        return;
    };
    match pick(&mut node.input, random) {
        Some(input) if random.below(4) > 0 => input.clone_from(name),
        _ => node.input.push(name.clone()),
    }
}

/// One more node behind an output, of the kind of another.
fn append(graph: &mut GraphProto, random: &mut Random) {
    let Some(mut node) = pick(&mut graph.node, random).cloned() else { return };
    let fresh = format!("v{}", graph.node.len());
    let Some(output) = pick(&mut graph.output, random) else { return };
    if let Some(input) = node.input.first_mut() {
        input.clone_from(&output.name);
    }
    node.output = vec![fresh.clone()];
    output.name = fresh;
    graph.node.push(node);
}

fn change_node(node: &mut NodeProto, random: &mut Random) {
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
            if let Some(attribute) = pick(&mut node.attribute, random) {
                change_attribute(attribute, random);
            }
        }
    }
}

fn change_attribute(attribute: &mut AttributeProto, random: &mut Random) {
    attribute.i = number(random);
    attribute.f = [0.0, -1.0, f32::NAN, f32::INFINITY, 1e30][random.below(5)];
    if let Some(entry) = pick(&mut attribute.ints, random) {
        *entry = number(random);
    }
    if random.below(4) == 0 {
        attribute.ints.pop();
    }
}
