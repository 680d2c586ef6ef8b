//! Why a graph is refused.

use super::admit::OLDEST_SET;
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
    /// It says nothing of ONNX's own operators.
    #[error("the model names no version of ONNX's operator set; export it again")]
    NoOperatorSet,
    /// Its operators are too old.
    #[error(
        "the model uses operator set {set}, ONNX Runtime runs {OLDEST_SET} and later; convert it with \
         onnx.version_converter"
    )]
    OldOperatorSet {
        /// The version.
        set: i64,
    },
    /// It has a sparse initializer.
    #[error("the model's initializer {tensor} is sparse; save it as a dense tensor")]
    Sparse {
        /// Its name.
        tensor: String,
    },
    /// Two nodes have one name.
    #[error(
        "two nodes of the model are called {node}; give each a name of its own, or have 'trainer \
         bundle' do so"
    )]
    NodeTwice {
        /// The name.
        node: String,
    },
    /// A node would answer otherwise than it is judged or trained.
    #[error("{operator} {node} of the model cannot be relied on: {why}")]
    Unreliable {
        /// Its operator.
        operator: String,
        /// Its name.
        node: String,
        /// What it says, and what to do.
        why: &'static str,
    },
    /// Not one input.
    #[error(
        "the model has to take one input, it takes: {inputs}; make constants of the others, or export \
         it without"
    )]
    Inputs {
        /// Those it has.
        inputs: String,
    },
    /// The input holds no floats.
    #[error(
        "the model's input {input} holds {element}; it has to hold float, float16 or double: export it \
         with such an input, without the Cast behind it"
    )]
    InputType {
        /// The input.
        input: String,
        /// The type of its elements.
        element: &'static str,
    },
    /// The input holds nothing.
    #[error("the model's input {input} has a size of 0; export it with the size of a sample")]
    InputSize {
        /// The input.
        input: String,
    },
    /// No output holds floats.
    #[error(
        "none of the model's outputs holds scores as float, float16 or double: {outputs}; export it \
         with such an output (skl2onnx: zipmap=False)"
    )]
    Outputs {
        /// Those it has.
        outputs: String,
    },
}
