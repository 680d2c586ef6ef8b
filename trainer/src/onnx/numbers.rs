//! The fields' numbers of ONNX's messages (onnx.proto3), as far as files are changed without being
//! parsed as a whole.

pub const MODEL_GRAPH: u64 = 7;
pub const GRAPH_NODE: u64 = 1;
pub const GRAPH_INITIALIZER: u64 = 5;
pub const NODE_OUTPUT: u64 = 2;
pub const NODE_ATTRIBUTE: u64 = 5;
pub const ATTRIBUTE_TENSOR: u64 = 5;
pub const TENSOR_DATA_TYPE: u64 = 2;
pub const TENSOR_FLOAT_DATA: u64 = 4;
pub const TENSOR_NAME: u64 = 8;
pub const TENSOR_RAW_DATA: u64 = 9;
pub const TENSOR_DOUBLE_DATA: u64 = 10;
pub const TENSOR_EXTERNAL_DATA: u64 = 13;
pub const TENSOR_DATA_LOCATION: u64 = 14;
pub const ENTRY_KEY: u64 = 1;
pub const ENTRY_VALUE: u64 = 2;

/// The value of [`TENSOR_DATA_LOCATION`] for data in another file.
pub const EXTERNAL: u64 = 1;
