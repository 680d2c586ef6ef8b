//! Bytes → [`Model`].
//!
//! Limits: [`MAX_MODEL_BYTES`] before anything is parsed; protobuf nesting is limited by the parser
//! (100 levels). Refused outright: models with functions, sparse initializers or no default
//! operator set. The original bytes stay beside the parsed message, because new weights are
//! patched into them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use fleetloop_models::graph;
use fleetloop_models::graph::outline::Outline;
use fleetloop_models::graph::output::Reading;
use onnx_ir::{Message, ModelProto, ValueInfoProto};

use super::{Element, HostTensor, OnnxError};

/// The largest file that is parsed: protobuf's own limit of 2 GiB less one byte.
pub const MAX_MODEL_BYTES: usize = (1 << 31) - 1;

/// The largest dimension that is believed; arithmetic on sizes up to it cannot overflow.
const MAX_DIM: usize = 1 << 31;

/// A dimension of a graph input as the file declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeclaredDim {
    /// A fixed size.
    Fixed(usize),
    /// A name, or nothing at all: the size is known only when the model runs.
    Open(String),
}

/// An input or output of the graph as the file declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredValue {
    /// Its name in the graph.
    pub name: String,
    /// ONNX data type number (1 = float).
    pub data_type: i32,
    /// Its dimensions; `None` when the file does not say.
    pub dims: Option<Vec<DeclaredDim>>,
}

impl DeclaredValue {
    /// The type of its elements.
    ///
    /// # Errors
    /// It is of a type that is not read.
    pub fn element(&self) -> Result<Element, String> {
        Element::of(self.data_type).map_err(|why| format!("'{}': {why}", self.name))
    }
}

impl fmt::Display for DeclaredValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |dim: &DeclaredDim| match dim {
            DeclaredDim::Fixed(n) => n.to_string(),
            DeclaredDim::Open(name) if name.is_empty() => "?".to_owned(),
            DeclaredDim::Open(name) => name.clone(),
        };
        match &self.dims {
            None => write!(f, "{} of unknown shape", self.name),
            Some(dims) => {
                write!(f, "{} {}", self.name, dims.iter().map(size).collect::<Vec<_>>().join("×"))
            }
        }
    }
}

/// A value that the file holds.
#[derive(Debug)]
pub struct Weight<'a> {
    /// Its name in the graph.
    pub name: &'a str,
    /// Its elements.
    pub tensor: Arc<HostTensor>,
    /// Whether they are kept as `raw_data`.
    pub is_raw: bool,
}

/// A parsed ONNX file beside its original bytes.
#[derive(Debug)]
pub struct Model {
    /// The file as read.
    pub bytes: Vec<u8>,
    /// The parsed message.
    pub proto: ModelProto,
    /// Version of the default operator set.
    pub opset: i64,
    /// Initializers by name.
    pub initializers: HashMap<String, Arc<HostTensor>>,
    /// Graph inputs that are no initializers.
    pub inputs: Vec<DeclaredValue>,
    /// Graph outputs.
    pub outputs: Vec<DeclaredValue>,
    /// What its first output of floats is; none when there is no such output.
    pub reading: Option<Reading>,
}

impl Model {
    /// Parses a file.
    ///
    /// # Errors
    /// [`OnnxError`] when it is too large, damaged, incomplete, or holds a tensor that is not read.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, OnnxError> {
        if bytes.len() > MAX_MODEL_BYTES {
            return Err(OnnxError::TooLarge { bytes: bytes.len(), limit: MAX_MODEL_BYTES });
        }
        let proto =
            ModelProto::parse_from_bytes(&bytes).map_err(|e| OnnxError::NotOnnx(Box::new(e)))?;
        if proto.graph.node.is_empty() {
            return Err(OnnxError::Incomplete("it has no graph".into()));
        }
        if let Some(function) = proto.functions.first() {
            return Err(OnnxError::Incomplete(format!(
                "its function '{}' is not read",
                function.name
            )));
        }
        if !proto.graph.sparse_initializer.is_empty() {
            return Err(OnnxError::Incomplete("its sparse initializers are not read".into()));
        }
        let opset = proto
            .opset_import
            .iter()
            .find(|o| o.domain.is_empty() || o.domain == "ai.onnx")
            .map(|o| o.version)
            .ok_or_else(|| OnnxError::Incomplete("it names no default operator set".into()))?;
        let mut initializers = HashMap::new();
        for tensor in &proto.graph.initializer {
            let value = Arc::new(HostTensor::read(tensor)?);
            if initializers.insert(tensor.name.clone(), value).is_some() {
                return Err(OnnxError::Incomplete(format!(
                    "initializer '{}' appears twice",
                    tensor.name
                )));
            }
        }
        let inputs = proto
            .graph
            .input
            .iter()
            .filter(|i| !initializers.contains_key(&i.name))
            .map(declared)
            .collect();
        let outputs = proto.graph.output.iter().map(declared).collect();
        let reading = graph::read(&Outline::of(&bytes));
        Ok(Self { opset, initializers, inputs, outputs, reading, bytes, proto })
    }

    /// Every initializer and every value kept in a Constant node that can be read, in the order of
    /// the file.
    pub fn weights(&self) -> impl Iterator<Item = Weight<'_>> {
        let graph = &self.proto.graph;
        let initializers = graph.initializer.iter().map(|proto| Weight {
            name: &proto.name,
            tensor: Arc::clone(&self.initializers[&proto.name]),
            is_raw: !proto.raw_data.is_empty(),
        });
        let nodes = graph.node.iter().filter(|node| node.op_type == "Constant");
        let constants = nodes.filter_map(|node| {
            let value = node.attribute.iter().find(|a| a.name == "value")?.t.as_ref()?;
            let tensor = Arc::new(HostTensor::read(value).ok()?);
            Some(Weight { name: node.output.first()?, tensor, is_raw: !value.raw_data.is_empty() })
        });
        initializers.chain(constants)
    }

    /// The first output that holds floats, or the first.
    pub fn answer(&self) -> Option<&DeclaredValue> {
        let named = |reading: &Reading| self.outputs.iter().find(|o| o.name == reading.output);
        self.reading.as_ref().and_then(named).or(self.outputs.first())
    }
}

fn declared(value: &ValueInfoProto) -> DeclaredValue {
    let tensor = value.type_.tensor_type();
    let dims = tensor.shape.as_ref().map(|shape| {
        shape
            .dim
            .iter()
            .map(|d| match usize::try_from(d.dim_value()) {
                Ok(n) if (1..=MAX_DIM).contains(&n) => DeclaredDim::Fixed(n),
                _ => DeclaredDim::Open(d.dim_param().to_owned()),
            })
            .collect()
    });
    DeclaredValue { name: value.name.clone(), data_type: tensor.elem_type, dims }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_and_emptiness_are_no_model() {
        assert!(matches!(Model::parse(vec![0xff; 64]), Err(OnnxError::NotOnnx(_))));
        assert!(matches!(Model::parse(Vec::new()), Err(OnnxError::Incomplete(_))));
    }
}
