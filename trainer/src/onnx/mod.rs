//! The ONNX file: reading it, patching tensors in place, writing new ones.
//!
//! | module | what it does |
//! |---|---|
//! | [`read`] | bytes → [`Model`], within a size limit and with what this crate refuses outright |
//! | `external` | makes a model whole whose weights lie in files beside it |
//! | `plain` | makes of a file what every reader behind the door takes |
//! | `inline` | puts functions and constant choices in their place |
//! | [`tensor`] | one `TensorProto` → [`HostTensor`] |
//! | [`attributes`] | a node's attributes, typed; what an operator did not ask for is refused |
//! | [`wire`] | the few rules of the protobuf wire format that changing a file needs |
//! | [`mod@patch`] | overwrites tensor payloads inside the original bytes and lists what it did |
//! | [`mod@write`] | builds small graphs for `trainer new` and for tests |

pub mod attributes;
mod error;
mod external;
mod inline;
mod numbers;
pub mod patch;
mod plain;
pub mod read;
pub mod tensor;
pub mod wire;
pub mod write;

pub use error::OnnxError;
pub use external::{ModelFile, Source};
pub use patch::{Patch, Patched, patch};
pub use read::{MAX_MODEL_BYTES, Model};
pub use tensor::{Element, Elements, HostTensor, Kind};
pub use write::GraphWriter;
