//! What an ONNX file says of its graph: operators, names, declared types, and the few numbers that a
//! question about its meaning needs. Weights are passed over.
//!
//! It is read from bytes that were checked; of others it holds what could be read. A name of an inner graph (a subgraph, a
//! function's body) is never one of the graph around it, as ONNX demands.

use std::collections::HashMap;

use super::check::shown;
use super::wire::{self, Value};

/// `AttributeProto.AttributeType.INT`.
const ONE_INT: i64 = 2;

/// The most elements of a constant whose values are kept.
const KEPT: usize = 64;

/// A graph and what belongs to it.
#[derive(Debug, Default)]
pub struct Outline {
    /// The version of ONNX's own operator set.
    pub opset: Option<i64>,
    /// The nodes of the graph, in their order.
    pub nodes: Vec<Node>,
    /// The nodes of subgraphs and of the file's functions.
    pub inner: Vec<Node>,
    /// The inputs that are no initializers.
    pub inputs: Vec<Declared>,
    /// The outputs.
    pub outputs: Vec<Declared>,
    /// Initializers and values of Constant nodes, by name.
    pub constants: HashMap<String, Constant>,
    /// The names of sparse initializers.
    pub sparse: Vec<String>,
}

/// A node.
#[derive(Debug, Default)]
pub struct Node {
    /// Its name; often empty.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// Its operator's domain.
    pub domain: String,
    /// The values it reads; an empty name stands for one left out.
    pub inputs: Vec<String>,
    /// The values it makes.
    pub outputs: Vec<String>,
    /// Its attributes that are integers, one or several.
    pub ints: HashMap<String, Vec<i64>>,
    /// Its attribute `value`.
    value: Option<Constant>,
}

/// A value that the file holds.
#[derive(Debug, Default, Clone)]
pub struct Constant {
    name: String,
    /// Its elements as numbers, if they are few and of a plain type.
    pub values: Option<Vec<f64>>,
}

/// An input or output as the file declares it.
#[derive(Debug, Default)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// ONNX's number of its elements' type; none of what is no tensor.
    pub element: Option<i64>,
    /// Its sizes, none for an open one; none when the file does not say.
    pub dims: Option<Vec<Option<i64>>>,
}

impl Node {
    /// The integer of that name.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.ints.get(name)?.first().copied()
    }

    /// What an error calls it: its name, or what it makes.
    pub fn called(&self) -> &str {
        if self.name.is_empty() { self.outputs.first().map_or("", |o| o) } else { &self.name }
    }

    /// Whether its operator is ONNX's own.
    pub fn is_onnx(&self) -> bool {
        matches!(self.domain.as_str(), "" | "ai.onnx")
    }
}

impl Declared {
    /// The type of its elements in a word.
    pub fn type_word(&self) -> &'static str {
        match self.element {
            Some(1) => "float",
            Some(2) => "uint8",
            Some(3) => "int8",
            Some(4) => "uint16",
            Some(5) => "int16",
            Some(6) => "int32",
            Some(7) => "int64",
            Some(8) => "string",
            Some(9) => "bool",
            Some(10) => "float16",
            Some(11) => "double",
            Some(12) => "uint32",
            Some(13) => "uint64",
            Some(16) => "bfloat16",
            Some(_) => "a type that is not known here",
            None => "no tensor",
        }
    }

    /// Whether it holds floats that a runtime takes and gives: of 16, 32 or 64 bits.
    pub fn is_float(&self) -> bool {
        matches!(self.element, Some(1 | 10 | 11))
    }
}

impl std::fmt::Display for Declared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}", shown(self.name.as_bytes()), self.type_word())?;
        if let Some(dims) = self.dims.as_ref().filter(|dims| !dims.is_empty()) {
            let word = |d: &Option<i64>| d.map_or_else(|| "any".to_owned(), |d| d.to_string());
            write!(f, " {}", dims.iter().map(word).collect::<Vec<_>>().join("×"))?;
        }
        f.write_str(")")
    }
}

/// A field with a message, a text or bytes in it, or a number.
enum Part<'a> {
    Bytes(&'a [u8]),
    Number(i64),
    Float(f32),
}

/// The fields of a message. What is not plain ends it: the check came before.
fn parts(bytes: &[u8]) -> impl Iterator<Item = (u64, Part<'_>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() {
            let begin = at;
            let (number, value, next) = wire::field(bytes, at, bytes.len()).ok()?;
            at = next;
            let part = match value {
                Value::Bytes { from, to } => Part::Bytes(&bytes[from..to]),
                Value::Number(number) => Part::Number(number.cast_signed()),
                Value::Fixed32 => {
                    let last = bytes[begin..next].last_chunk::<4>()?;
                    Part::Float(f32::from_le_bytes(*last))
                }
                Value::Fixed64 => continue,
            };
            return Some((number, part));
        }
        None
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Packed varints.
fn packed(bytes: &[u8]) -> Vec<i64> {
    let (mut at, mut numbers) = (0, Vec::new());
    while let Ok((number, next)) = wire::varint(bytes, at, bytes.len()) {
        numbers.push(number.cast_signed());
        at = next;
    }
    numbers
}

impl Outline {
    /// Reads a file that was checked, or that a parser took.
    pub fn of(file: &[u8]) -> Self {
        let mut outline = Self::default();
        for (number, part) in parts(file) {
            let Part::Bytes(bytes) = part else { continue };
            match number {
                7 => outline.graph(bytes),
                8 => outline.operator_set(bytes),
                25 => outline.function(bytes),
                _ => {}
            }
        }
        let constants = &outline.constants;
        outline.inputs.retain(|input| !constants.contains_key(&input.name));
        outline
    }

    fn operator_set(&mut self, bytes: &[u8]) {
        let (mut domain, mut version) = (String::new(), 0);
        for (number, part) in parts(bytes) {
            match (number, part) {
                (1, Part::Bytes(bytes)) => domain = text(bytes),
                (2, Part::Number(number)) => version = number,
                _ => {}
            }
        }
        if matches!(domain.as_str(), "" | "ai.onnx") {
            self.opset = Some(version);
        }
    }

    fn graph(&mut self, bytes: &[u8]) {
        for (number, part) in parts(bytes) {
            let Part::Bytes(bytes) = part else { continue };
            match number {
                1 => {
                    let node = self.node(bytes);
                    self.nodes.push(node);
                }
                5 => self.initializer(bytes),
                11 => self.inputs.push(declared(bytes)),
                12 => self.outputs.push(declared(bytes)),
                15 => {
                    let values = parts(bytes).find_map(|(number, part)| match part {
                        Part::Bytes(bytes) if number == 1 => Some(constant(bytes).name),
                        _ => None,
                    });
                    self.sparse.push(values.unwrap_or_default());
                }
                _ => {}
            }
        }
    }

    /// The nodes and constants of an inner graph.
    fn inside(&mut self, bytes: &[u8], node_field: u64) {
        for (number, part) in parts(bytes) {
            let Part::Bytes(bytes) = part else { continue };
            if number == node_field {
                let node = self.node(bytes);
                self.inner.push(node);
            } else if number == 5 && node_field == 1 {
                self.initializer(bytes);
            }
        }
    }

    fn function(&mut self, bytes: &[u8]) {
        self.inside(bytes, 7);
    }

    fn initializer(&mut self, bytes: &[u8]) {
        let constant = constant(bytes);
        self.constants.insert(constant.name.clone(), constant);
    }

    fn node(&mut self, bytes: &[u8]) -> Node {
        let mut node = Node::default();
        for (number, part) in parts(bytes) {
            let Part::Bytes(bytes) = part else { continue };
            match number {
                1 => node.inputs.push(text(bytes)),
                2 => node.outputs.push(text(bytes)),
                3 => node.name = text(bytes),
                4 => node.op = text(bytes),
                5 => self.attribute(bytes, &mut node),
                7 => node.domain = text(bytes),
                _ => {}
            }
        }
        if let (Some(value), Some(name)) = (node.value.take(), node.outputs.first())
            && node.op == "Constant"
        {
            self.constants.insert(name.clone(), value);
        }
        node
    }

    fn attribute(&mut self, bytes: &[u8], node: &mut Node) {
        let (mut name, mut ints, mut float, mut kind) = (String::new(), Vec::new(), None, 0);
        for (number, part) in parts(bytes) {
            match (number, part) {
                (20, Part::Number(number)) => kind = number,
                (1, Part::Bytes(bytes)) => name = text(bytes),
                (2, Part::Float(value)) => float = Some(value),
                (3 | 8, Part::Number(value)) => ints.push(value),
                (5, Part::Bytes(bytes)) => node.value = Some(constant(bytes)),
                (6 | 11, Part::Bytes(bytes)) => self.inside(bytes, 1),
                (8, Part::Bytes(bytes)) => ints.extend(packed(bytes)),
                _ => {}
            }
        }
        // Some writers leave a number out that is 0.
        if kind == ONE_INT && ints.is_empty() {
            ints.push(0);
        }
        // Constant nodes may hold a plain number instead of a tensor.
        match name.as_str() {
            "value_int" | "value_ints" => {
                let values = Some(ints.iter().map(|value| *value as f64).collect());
                node.value = Some(Constant { name: String::new(), values });
            }
            "value_float" => {
                let values = Some(vec![f64::from(float.unwrap_or_default())]);
                node.value = Some(Constant { name: String::new(), values });
            }
            _ => {}
        }
        node.ints.insert(name, ints);
    }
}

fn declared(bytes: &[u8]) -> Declared {
    let mut declared = Declared::default();
    for (number, part) in parts(bytes) {
        match (number, part) {
            (1, Part::Bytes(bytes)) => declared.name = text(bytes),
            (2, Part::Bytes(bytes)) => {
                for (number, part) in parts(bytes) {
                    if let (1, Part::Bytes(bytes)) = (number, part) {
                        tensor_type(bytes, &mut declared);
                    }
                }
            }
            _ => {}
        }
    }
    declared
}

fn tensor_type(bytes: &[u8], declared: &mut Declared) {
    for (number, part) in parts(bytes) {
        match (number, part) {
            (1, Part::Number(element)) => declared.element = Some(element),
            (2, Part::Bytes(bytes)) => {
                let sizes = parts(bytes).filter(|(number, _)| *number == 1);
                let size = |(_, part): (u64, Part<'_>)| match part {
                    Part::Bytes(bytes) => parts(bytes).find_map(|(number, part)| match part {
                        // Some exporters write −1 for a size that is not known.
                        Part::Number(size) if number == 1 && size >= 0 => Some(size),
                        _ => None,
                    }),
                    _ => None,
                };
                declared.dims = Some(sizes.map(size).collect());
            }
            _ => {}
        }
    }
}

fn constant(bytes: &[u8]) -> Constant {
    let (mut element, mut count, mut raw) = (0, 1i64, None);
    let (mut values, mut name) = (Vec::new(), String::new());
    for (number, part) in parts(bytes) {
        match (number, part) {
            (1, Part::Number(size)) => count = count.saturating_mul(size),
            (1, Part::Bytes(bytes)) => {
                count = packed(bytes).into_iter().fold(count, i64::saturating_mul);
            }
            (2, Part::Number(number)) => element = number,
            (4, Part::Bytes(bytes)) if bytes.len() <= 4 * KEPT => {
                values.extend(words(bytes, |w| f64::from(f32::from_le_bytes(w))));
            }
            (4, Part::Float(value)) => values.push(value.into()),
            (5 | 7, Part::Bytes(bytes)) if bytes.len() <= 10 * KEPT => {
                values.extend(packed(bytes).into_iter().map(|value| value as f64));
            }
            (5 | 7, Part::Number(value)) if values.len() < KEPT => values.push(value as f64),
            (8, Part::Bytes(bytes)) => name = text(bytes),
            (9, Part::Bytes(bytes)) => raw = Some(bytes),
            (10, Part::Bytes(bytes)) if bytes.len() <= 8 * KEPT => {
                values.extend(words(bytes, f64::from_le_bytes));
            }
            _ => {}
        }
    }
    if let Some(raw) = raw.filter(|raw| raw.len() <= 8 * KEPT) {
        values = from_raw(raw, element);
    } else if element == 10 {
        let half = |bits: f64| f64::from(half::f16::from_bits(bits as u16));
        values = values.into_iter().map(half).collect();
    }
    let whole = values.len() as i64 == count;
    Constant { name, values: whole.then_some(values) }
}

fn from_raw(raw: &[u8], element: i64) -> Vec<f64> {
    match element {
        1 => words(raw, |w| f64::from(f32::from_le_bytes(w))),
        2 | 9 => raw.iter().map(|byte| f64::from(*byte)).collect(),
        3 => raw.iter().map(|byte| f64::from(byte.cast_signed())).collect(),
        6 => words(raw, |w| f64::from(i32::from_le_bytes(w))),
        7 => words(raw, |w| i64::from_le_bytes(w) as f64),
        10 => words(raw, |w| f64::from(half::f16::from_le_bytes(w))),
        11 => words(raw, f64::from_le_bytes),
        _ => Vec::new(),
    }
}

fn words<const N: usize>(raw: &[u8], read: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    raw.as_chunks::<N>().0.iter().map(|word| read(*word)).collect()
}
