//! Why a graph is refused.

use super::{ELEMENTS, GRAPH_BYTES, MESSAGES_DEEP, NODES, RANK, SIZE, SUBGRAPHS_DEEP};

/// Why a graph is refused. Names from the file are quoted and cut short.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// The file is over its limit.
    #[error("the model has {len} bytes, the limit is {GRAPH_BYTES}")]
    TooLarge {
        /// Its length in bytes.
        len: usize,
    },
    /// It is in ONNX Runtime's own format.
    #[error("the model is in ONNX Runtime's own format; give the ONNX file that it was made of")]
    OwnFormat,
    /// It holds no graph.
    #[error("the model has no graph; give an ONNX file")]
    NoGraph,
    /// The bytes are not a plain protobuf encoding of an ONNX model.
    #[error("the model is no plain ONNX file: {what} in {place}, byte {at}; export it again")]
    NotPlain {
        /// What was found.
        what: String,
        /// Where in the model.
        place: String,
        /// Where in the file.
        at: usize,
    },
    /// A tensor's data are in another file.
    #[error(
        "the model keeps data in another file ({place}); save it as one file, or have \
         'trainer bundle' make one of it"
    )]
    External {
        /// The tensor.
        place: String,
    },
    /// An operator that nothing here knows.
    #[error(
        "the model uses operator {operator} of domain {domain}, which is not known here; export it \
         with ONNX's own operators"
    )]
    Domain {
        /// Its name.
        operator: String,
        /// Its domain.
        domain: String,
    },
    /// An operator that loads files.
    #[error("the model uses operator {operator}, which loads other files; export it without")]
    FileOperator {
        /// Its name.
        operator: String,
    },
    /// Nested too deeply.
    #[error(
        "the model is nested too deeply in {place}: at most {SUBGRAPHS_DEEP} subgraphs and \
         {MESSAGES_DEEP} messages"
    )]
    Deep {
        /// Where.
        place: String,
    },
    /// A shape over a limit, or one that contradicts the data.
    #[error(
        "the model declares a shape that is refused: {what} in {place}; at most {RANK} dimensions, \
         {SIZE} in one and {ELEMENTS} elements"
    )]
    Shape {
        /// What is wrong.
        what: String,
        /// Where.
        place: String,
    },
    /// Too many nodes.
    #[error("the model has more than {NODES} nodes")]
    Nodes,
}
