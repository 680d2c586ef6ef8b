//! Small ONNX files with everything that exporters write: types, domains, functions, branches.

use half::{bf16, f16};
use onnx_ir::{
    AttributeProto, AttributeType, GraphProto, Message as _, ModelProto, NodeProto, TensorProto,
    ValueInfoProto,
};
use trainer::random::Random;

pub const FLOAT: i32 = 1;
pub const UINT8: i32 = 2;
pub const INT8: i32 = 3;
pub const INT32: i32 = 6;
pub const INT64: i32 = 7;
pub const BOOL: i32 = 9;
pub const HALF: i32 = 10;
pub const DOUBLE: i32 = 11;
pub const BRAIN: i32 = 16;

/// Weights from a seed, small enough that no activation saturates.
pub fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    (0..count).map(|_| random.normal() * 0.3).collect()
}

/// A tensor of that type; integers are rounded.
pub fn tensor(name: &str, kind: i32, dims: &[usize], values: &[f32]) -> TensorProto {
    let bytes = |value: &f32| match kind {
        FLOAT => value.to_le_bytes().to_vec(),
        UINT8 | BOOL => vec![*value as u8],
        INT8 => vec![(*value as i8).cast_unsigned()],
        INT32 => (*value as i32).to_le_bytes().to_vec(),
        INT64 => (*value as i64).to_le_bytes().to_vec(),
        HALF => f16::from_f32(*value).to_le_bytes().to_vec(),
        BRAIN => bf16::from_f32(*value).to_le_bytes().to_vec(),
        DOUBLE => f64::from(*value).to_le_bytes().to_vec(),
        other => panic!("type {other}"),
    };
    let raw: Vec<u8> = values.iter().flat_map(bytes).collect();
    TensorProto {
        name: name.into(),
        data_type: kind,
        dims: dims.iter().map(|d| *d as i64).collect(),
        raw_data: raw.into(),
        ..Default::default()
    }
}

/// The same with its 16 bits as varints.
pub fn varints(mut tensor: TensorProto) -> TensorProto {
    let raw = std::mem::take(&mut tensor.raw_data);
    let words = raw.chunks_exact(2).map(|w| i32::from(u16::from_le_bytes([w[0], w[1]])));
    tensor.int32_data = words.collect();
    tensor
}

/// A size of a declared value.
#[derive(Clone, Copy)]
pub enum Size {
    Is(i64),
    Named(&'static str),
    Open,
}

pub use Size::{Is, Named, Open};

pub fn value(name: &str, kind: i32, dims: Option<&[Size]>) -> ValueInfoProto {
    let mut info = ValueInfoProto { name: name.into(), ..Default::default() };
    let tensor = info.type_.mut_or_insert_default().mut_tensor_type();
    tensor.elem_type = kind;
    if let Some(dims) = dims {
        let shape = tensor.shape.mut_or_insert_default();
        for dim in dims {
            shape.dim.push(Default::default());
            let last = shape.dim.last_mut().unwrap();
            match dim {
                Is(size) => last.set_dim_value(*size),
                Named(name) => last.set_dim_param((*name).into()),
                Open => {}
            }
        }
    }
    info
}

/// `a, b` in, `c` out.
pub fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        input: inputs.iter().map(|s| (*s).to_owned()).collect(),
        output: outputs.iter().map(|s| (*s).to_owned()).collect(),
        ..Default::default()
    }
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: name.into(), type_: kind.into(), ..Default::default() }
}

/// What a node is given besides its inputs.
pub trait With: Sized {
    fn with(self, attribute: AttributeProto) -> Self;
    fn int(self, name: &str, value: i64) -> Self {
        self.with(AttributeProto { i: value, ..attribute(name, AttributeType::INT) })
    }
    fn ints(self, name: &str, values: &[i64]) -> Self {
        let ints = values.to_vec();
        self.with(AttributeProto { ints, ..attribute(name, AttributeType::INTS) })
    }
    fn float(self, name: &str, value: f32) -> Self {
        self.with(AttributeProto { f: value, ..attribute(name, AttributeType::FLOAT) })
    }
    fn held(self, tensor: TensorProto) -> Self {
        let t = Some(tensor).into();
        self.with(AttributeProto { t, ..attribute("value", AttributeType::TENSOR) })
    }
    fn branch(self, name: &str, graph: GraphProto) -> Self {
        let g = Some(graph).into();
        self.with(AttributeProto { g, ..attribute(name, AttributeType::GRAPH) })
    }
    fn refers(self, name: &str, kind: AttributeType, to: &str) -> Self {
        self.with(AttributeProto { ref_attr_name: to.into(), ..attribute(name, kind) })
    }
}

impl With for NodeProto {
    fn with(mut self, attribute: AttributeProto) -> Self {
        self.attribute.push(attribute);
        self
    }
}

/// A graph of nodes, initializers, inputs and outputs.
pub fn graph(
    nodes: Vec<NodeProto>,
    initializer: Vec<TensorProto>,
    input: Vec<ValueInfoProto>,
    output: Vec<ValueInfoProto>,
) -> GraphProto {
    GraphProto { name: "g".into(), node: nodes, initializer, input, output, ..Default::default() }
}

/// A model of operator set `set`.
pub fn model(graph: GraphProto, set: i64) -> ModelProto {
    let mut model = ModelProto { ir_version: if set < 10 { 3 } else { 8 }, ..Default::default() };
    import(&mut model, "", set);
    model.graph = Some(graph).into();
    model
}

pub fn import(model: &mut ModelProto, domain: &str, version: i64) {
    model.opset_import.push(Default::default());
    let last = model.opset_import.last_mut().unwrap();
    last.domain = domain.into();
    last.version = version;
}

pub fn bytes(model: &ModelProto) -> Vec<u8> {
    model.write_to_bytes().unwrap()
}
