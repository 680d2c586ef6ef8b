//! The one pass over a file. It keeps a stack of the messages that it is inside of, at most
//! [`MESSAGES_DEEP`] high, and copies nothing.

use std::collections::BTreeSet;

use super::schema::{Kind, Message};
use super::wire::{self, Value};
use super::{ELEMENTS, GRAPH_BYTES, GraphError, MESSAGES_DEEP, NODES, RANK, SIZE, SUBGRAPHS_DEEP};

/// The domains whose operators ONNX Runtime brings: ONNX's own, twice, its machine learning, and
/// Microsoft's, to which quantised operators belong.
const DOMAINS: [&[u8]; 4] = [b"", b"ai.onnx", b"ai.onnx.ml", b"com.microsoft"];

/// Operators that load a file which they name.
pub(super) const FILE_OPERATORS: [&[u8]; 1] = [b"EPContext"];

/// Where the identifier of ONNX Runtime's own format is, and what it is. The runtime looks for it
/// before it takes bytes for protobuf.
const OWN_FORMAT: (usize, &[u8]) = (4, b"ORTM");

/// The most characters of a name that an error shows.
const SHOWN: usize = 40;

/// A message that is being read.
struct Frame<'a> {
    message: Message,
    begin: usize,
    end: usize,
    /// The fields that may stand once and were read, a bit each.
    seen: u64,
    name: &'a [u8],
    /// Of a node or a function.
    domain: &'a [u8],
    /// Of a node.
    operator: &'a [u8],
    /// Whether a tensor's data are in another file.
    external: bool,
    dims: Dims,
}

/// The dimensions of a tensor or shape.
#[derive(Debug, Clone, Copy, Default)]
struct Dims {
    rank: usize,
    /// The product of the known ones; none before the first.
    elements: Option<u64>,
}

struct Walk<'a> {
    bytes: &'a [u8],
    stack: Vec<Frame<'a>>,
    nodes: usize,
    graphs: usize,
    /// Of all sparse tensors.
    dense_elements: u64,
    has_graph: bool,
    /// Operators of domains that are not known: a function of the file may define them.
    asked: BTreeSet<(&'a [u8], &'a [u8])>,
    functions: BTreeSet<(&'a [u8], &'a [u8])>,
}

/// Checks a file.
pub(super) fn check(bytes: &[u8]) -> Result<(), GraphError> {
    if bytes.len() > GRAPH_BYTES {
        return Err(GraphError::TooLarge { len: bytes.len() });
    }
    let (at, identifier) = OWN_FORMAT;
    if bytes.get(at..).is_some_and(|rest| rest.starts_with(identifier)) {
        return Err(GraphError::OwnFormat);
    }
    let mut walk = Walk {
        bytes,
        stack: Vec::new(),
        nodes: 0,
        graphs: 0,
        dense_elements: 0,
        has_graph: false,
        asked: BTreeSet::new(),
        functions: BTreeSet::new(),
    };
    walk.push(Message::Model, 0, bytes.len())?;
    walk.run()?;
    walk.finish()
}

impl<'a> Walk<'a> {
    fn run(&mut self) -> Result<(), GraphError> {
        let mut at = 0;
        while let Some(frame) = self.stack.last() {
            if at == frame.end {
                self.close()?;
                continue;
            }
            let end = frame.end;
            let (number, value, next) =
                wire::field(self.bytes, at, end).map_err(|what| self.not_plain(what, at))?;
            at = self.field(number, value, at, next)?;
        }
        Ok(())
    }

    /// Takes a field that begins at `at`; where to go on.
    fn field(
        &mut self,
        number: u64,
        value: Value,
        at: usize,
        next: usize,
    ) -> Result<usize, GraphError> {
        let Some(frame) = self.stack.last_mut() else { return Ok(next) };
        let message = frame.message;
        let Some(kind) = message.field(number) else {
            return Err(self.not_plain(&format!("the unknown field {number}"), at));
        };
        // Field numbers of ONNX's messages are below 64: the schema ends at 26.
        let bit = 1u64 << (number & 63);
        if !kind.repeats() && frame.seen & bit != 0 {
            return Err(self.not_plain(&format!("field {number} twice"), at));
        }
        frame.seen |= bit;
        match (kind, value) {
            (Kind::One(inner) | Kind::Many(inner), Value::Bytes { from, to }) => {
                self.push(inner, from, to)?;
                return Ok(from);
            }
            (Kind::Number, Value::Number(value)) => self.number(number, value)?,
            (Kind::Numbers, Value::Number(value)) => self.numbers(number, value)?,
            (Kind::Numbers, Value::Bytes { from, to }) => {
                let mut within = from;
                while within < to {
                    let (value, after) = wire::varint(self.bytes, within, to)
                        .map_err(|what| self.not_plain(what, within))?;
                    self.numbers(number, value)?;
                    within = after;
                }
            }
            (Kind::Bytes | Kind::Texts, Value::Bytes { from, to }) => self.text(number, from, to),
            (Kind::Fixed32 | Kind::Fixed32s, Value::Fixed32) | (Kind::Fixed64s, Value::Fixed64) => {
            }
            (Kind::Fixed32s, Value::Bytes { from, to }) if (to - from).is_multiple_of(4) => {}
            (Kind::Fixed64s, Value::Bytes { from, to }) if (to - from).is_multiple_of(8) => {}
            // Whatever it says: a tensor that holds its data says nothing.
            (Kind::ExternalData, Value::Bytes { .. }) => self.external(),
            (Kind::DataLocation, Value::Number(0)) => {}
            (Kind::DataLocation, Value::Number(_)) => self.external(),
            _ => {
                return Err(self.not_plain(&format!("field {number} in another encoding"), at));
            }
        }
        Ok(next)
    }

    fn push(&mut self, message: Message, begin: usize, end: usize) -> Result<(), GraphError> {
        let frame = Frame {
            message,
            begin,
            end,
            seen: 0,
            name: b"",
            domain: b"",
            operator: b"",
            external: false,
            dims: Dims::default(),
        };
        self.stack.push(frame);
        match message {
            Message::Graph => {
                self.has_graph = true;
                self.graphs += 1;
            }
            Message::Node => self.nodes += 1,
            _ => {}
        }
        // The graph itself is no subgraph.
        if self.graphs > SUBGRAPHS_DEEP + 1 || self.stack.len() > MESSAGES_DEEP {
            return Err(GraphError::Deep { place: self.place() });
        }
        if self.nodes > NODES {
            return Err(GraphError::Nodes);
        }
        Ok(())
    }

    fn external(&mut self) {
        if let Some(tensor) = self.stack.last_mut() {
            tensor.external = true;
        }
    }

    fn number(&mut self, number: u64, value: u64) -> Result<(), GraphError> {
        let [.., shape, dimension] = self.stack.as_mut_slice() else { return Ok(()) };
        if (dimension.message, number) != (Message::Dimension, 1) {
            return Ok(());
        }
        // Some exporters write −1 for a size that is not known.
        if value == u64::MAX {
            return Ok(());
        }
        shape.dims.multiply(value).map_err(|what| self.shape(&what))
    }

    fn numbers(&mut self, number: u64, value: u64) -> Result<(), GraphError> {
        let Some(frame) = self.stack.last_mut() else { return Ok(()) };
        match (frame.message, number) {
            (Message::Tensor, 1) | (Message::Sparse, 3) => {}
            _ => return Ok(()),
        }
        let counted = frame.dims.count().and_then(|()| frame.dims.multiply(value));
        counted.map_err(|what| self.shape(&what))
    }

    fn text(&mut self, number: u64, from: usize, to: usize) {
        let text = &self.bytes[from..to];
        let Some(frame) = self.stack.last_mut() else { return };
        if frame.message.name_field() == Some(number) {
            frame.name = text;
        }
        match (frame.message, number) {
            (Message::Node, 4) => frame.operator = text,
            (Message::Node, 7) | (Message::Function, 10) => frame.domain = text,
            _ => {}
        }
    }

    /// The message on top was read to its end.
    fn close(&mut self) -> Result<(), GraphError> {
        let Some(frame) = self.stack.last() else { return Ok(()) };
        let (dims, held) = (frame.dims, frame.end - frame.begin);
        match frame.message {
            Message::Graph => self.graphs -= 1,
            Message::Tensor if frame.external => {
                return Err(GraphError::External { place: self.place() });
            }
            // An element takes two bits at least.
            Message::Tensor if dims.elements.unwrap_or(1) > 4 * held as u64 => {
                return Err(self.shape("more elements than the tensor holds"));
            }
            Message::Sparse => {
                self.dense_elements += dims.elements.unwrap_or(1);
                if self.dense_elements > ELEMENTS {
                    return Err(self.shape("too many elements once it is dense"));
                }
            }
            Message::Node if FILE_OPERATORS.contains(&frame.operator) => {
                return Err(GraphError::FileOperator { operator: shown(frame.operator) });
            }
            Message::Node if !DOMAINS.contains(&frame.domain) => {
                self.asked.insert((frame.domain, frame.operator));
            }
            Message::Function => {
                self.functions.insert((frame.domain, frame.name));
            }
            _ => {}
        }
        let closed = self.stack.pop().map(|frame| frame.message);
        if closed == Some(Message::Dimension)
            && let Some(shape) = self.stack.last_mut()
        {
            return shape.dims.count().map_err(|what| self.shape(&what));
        }
        Ok(())
    }

    fn finish(self) -> Result<(), GraphError> {
        if !self.has_graph {
            return Err(GraphError::NoGraph);
        }
        match self.asked.difference(&self.functions).next() {
            None => Ok(()),
            Some((domain, operator)) => {
                Err(GraphError::Domain { operator: shown(operator), domain: shown(domain) })
            }
        }
    }

    fn not_plain(&self, what: &str, at: usize) -> GraphError {
        GraphError::NotPlain { what: what.to_owned(), place: self.place(), at }
    }

    fn shape(&self, what: &str) -> GraphError {
        GraphError::Shape { what: what.to_owned(), place: self.place() }
    }

    /// Where the walk is: the last messages that it is inside of.
    fn place(&self) -> String {
        let inside = &self.stack[self.stack.len().saturating_sub(4)..];
        let word = |frame: &Frame<'_>| match frame.name {
            b"" => frame.message.word().to_owned(),
            name => format!("{} {}", frame.message.word(), shown(name)),
        };
        inside.iter().map(word).collect::<Vec<_>>().join(", ")
    }
}

impl Dims {
    fn count(&mut self) -> Result<(), String> {
        self.rank += 1;
        if self.rank > RANK { Err("too many dimensions".to_owned()) } else { Ok(()) }
    }

    fn multiply(&mut self, size: u64) -> Result<(), String> {
        if size > SIZE {
            // Written as a signed number.
            return Err(format!("a size of {}", size.cast_signed()));
        }
        // Both factors are below 2^32.
        let elements = self.elements.unwrap_or(1) * size;
        self.elements = Some(elements);
        if elements > ELEMENTS { Err(format!("{elements} elements")) } else { Ok(()) }
    }
}

/// A name as errors show it: quoted, without control characters, cut short.
pub(super) fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(&name[..name.len().min(4 * SHOWN)]);
    let mut short: String = text.chars().take(SHOWN).collect();
    if short.len() < name.len() {
        short.push('…');
    }
    format!("{short:?}")
}
