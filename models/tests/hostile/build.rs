//! Small ONNX files, written field by field (`onnx-ml.proto` says which number is what).

/// A protobuf message under construction.
#[derive(Clone, Default)]
pub struct Message(pub Vec<u8>);

impl Message {
    pub fn new() -> Self {
        Self::default()
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    pub fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn text(self, field: u64, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    pub fn message(self, field: u64, message: &Self) -> Self {
        self.bytes(field, &message.0)
    }

    /// Appends bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn with(self, change: impl FnOnce(Self) -> Self) -> Self {
        change(self)
    }
}

const FLOAT: u64 = 1;
const INT64: u64 = 7;
const BOOL: u64 = 9;

fn tensor(name: &str, kind: u64, dims: &[u64], raw: &[u8]) -> Message {
    let sized = dims.iter().fold(Message::new(), |tensor, dim| tensor.number(1, *dim));
    sized.number(2, kind).text(8, name).bytes(9, raw)
}

pub fn floats(name: &str, dims: &[u64], values: &[f32]) -> Message {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor(name, FLOAT, dims, &raw)
}

pub fn ints(name: &str, dims: &[u64], values: &[i64]) -> Message {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor(name, INT64, dims, &raw)
}

/// One truth value.
pub fn truth(name: &str, value: bool) -> Message {
    tensor(name, BOOL, &[], &[u8::from(value)])
}

pub fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> Message {
    let node = inputs.iter().fold(Message::new(), |node, name| node.text(1, name));
    outputs.iter().fold(node, |node, name| node.text(2, name)).text(4, operator)
}

/// An attribute of that type, before its value.
pub fn attribute(name: &str, kind: u64) -> Message {
    Message::new().text(1, name).number(20, kind)
}

/// A node's attribute that is a subgraph.
pub fn subgraph(name: &str, graph: &Message) -> Message {
    attribute(name, 5).message(6, graph)
}

/// A declared value; a size of 0 is open.
fn value(name: &str, kind: u64, dims: &[u64]) -> Message {
    let dims = dims.iter().fold(Message::new(), |shape, dim| {
        let open = Message::new().text(2, "batch");
        shape.message(1, &if *dim == 0 { open } else { Message::new().number(1, *dim) })
    });
    let tensor = Message::new().number(1, kind).message(2, &dims);
    Message::new().text(1, name).message(2, &Message::new().message(1, &tensor))
}

pub fn float_value(name: &str, dims: &[u64]) -> Message {
    value(name, FLOAT, dims)
}

pub fn int_value(name: &str) -> Message {
    value(name, INT64, &[])
}

pub fn bool_value(name: &str) -> Message {
    value(name, BOOL, &[])
}

/// A graph like the test bundles': `input` of batch×1×28×28 floats, `logits` of batch×3, which are the
/// mean times 1, 2 and 3, and the value `extra` on top, whatever makes that.
pub fn with_extra() -> Message {
    let axes = [1u64, 2, 3].iter().fold(attribute("axes", 7), |axes, axis| axes.number(8, *axis));
    Message::new()
        .message(1, &node("ReduceMean", &["input"], &["mean"]).message(5, &axes))
        .message(1, &node("Flatten", &["mean"], &["flat"]))
        .message(1, &node("MatMul", &["flat", "weight"], &["product"]))
        .text(2, "hostile")
        .message(5, &floats("weight", &[1, 3], &[1.0, 2.0, 3.0]))
        .message(11, &float_value("input", &[0, 1, 28, 28]))
        .message(12, &float_value("logits", &[0, 3]))
}

/// The last node of [`with_extra`]: nodes stand in the order in which they run.
pub fn sum(graph: Message) -> Message {
    graph.message(1, &node("Add", &["product", "extra"], &["logits"]))
}

/// The graph with an `extra` of 0.
pub fn harmless() -> Message {
    sum(with_extra().message(5, &floats("extra", &[1], &[0.0])))
}

pub fn model(graph: &Message) -> Message {
    model_of(17, graph)
}

/// A model of that version of ONNX's operator set.
pub fn model_of(set: u64, graph: &Message) -> Message {
    Message::new()
        .number(1, 8)
        .message(8, &Message::new().text(1, "").number(2, set))
        .message(7, graph)
}

/// A model that is what it seems to be.
pub fn plain() -> Vec<u8> {
    model(&harmless()).0
}
