//! An ONNX graph from outside, checked before ONNX Runtime sees it.
//!
//! [`Graph::check`] is the only way to a [`Graph`], and a session is opened with nothing else. It reads
//! the protobuf bytes of the file once, from front to back, on a stack of its own, and refuses:
//!
//! | what | why |
//! |---|---|
//! | data in another file (`external_data`, `data_location`), wherever a tensor may stand: initializers, sparse ones, attributes, subgraphs at any depth, functions, `training_info` | ONNX Runtime would read that file of this machine |
//! | ONNX Runtime's own format | it has no such rules; [`crate::session`] loads what this device wrote itself |
//! | operators of a domain that is neither ONNX's, Microsoft's nor defined by the file's own functions, and operators that load files ([`check::FILE_OPERATORS`]) | nothing here knows what they do |
//! | subgraphs or messages nested too deeply ([`SUBGRAPHS_DEEP`], [`MESSAGES_DEEP`]) | a parser's stack |
//! | sizes over [`SIZE`], values over [`ELEMENTS`], more than [`RANK`] dimensions, more than [`NODES`] nodes, tensors that declare more than they hold | a sum that overflows, memory |
//! | what is not plainly encoded: an unknown field, a field of another wire type, a field twice that may stand once, a padded number, a group | ONNX Runtime's parser must not read another file than this check did |
//!
//! What is sound may still answer otherwise than it was judged: [`admit`] refuses that, and
//! [`output`] decides what the answer means. Both ask the file's [`Outline`].
//!
//! What it cannot see is what a graph does when it runs: a loop without an end, a value as large as the
//! memory. On a device a child process with limits finds that out (the agent's `proof` module).
//!
//! Format: <https://protobuf.dev/programming-guides/encoding/>, `onnx-ml.proto` of ONNX 1.23.

mod admit;
mod check;
mod error;
pub mod outline;
pub mod output;
mod schema;
mod trace;
mod wire;

pub use error::GraphError;
use outline::Outline;
use output::Reading;
pub use trace::read;

/// How deeply subgraphs may be nested.
pub const SUBGRAPHS_DEEP: usize = 16;
/// How deeply messages may be nested: the limit of protobuf's own parser.
pub const MESSAGES_DEEP: usize = 100;
/// The largest size of a dimension.
pub const SIZE: u64 = (1 << 31) - 1;
/// The most elements of a declared value, and of all sparse tensors together once they are dense.
pub const ELEMENTS: u64 = 1 << 31;
/// The most dimensions of a tensor or value.
pub const RANK: usize = 64;
/// The most nodes of a file, those of subgraphs and functions included.
pub const NODES: usize = 1 << 18;
/// The largest file in bytes: protobuf's own limit.
pub const GRAPH_BYTES: usize = (1 << 31) - 1;

/// The bytes of an ONNX file that may be given to ONNX Runtime.
#[derive(Clone, PartialEq, Eq)]
pub struct Graph {
    bytes: Vec<u8>,
    reading: Reading,
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Graph").field("bytes", &self.bytes.len()).finish()
    }
}

impl Graph {
    /// Checks the bytes of an ONNX file; the module says what for.
    ///
    /// # Errors
    /// [`GraphError`] names the first thing that is refused, and where.
    pub fn check(bytes: Vec<u8>) -> Result<Self, GraphError> {
        check::check(&bytes)?;
        let outline = Outline::of(&bytes);
        admit::admit(&outline)?;
        let reading = trace::read(&outline).ok_or(GraphError::NoGraph)?;
        Ok(Self { bytes, reading })
    }

    /// What its output is, as far as the graph says.
    pub fn reading(&self) -> &Reading {
        &self.reading
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The file's bytes, without the proof that they were checked.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
