//! Layers of a starter graph, one after another, with seeded weights.
//!
//! Each layer reads the last value and makes the next; names are `layer.part`, so that a recipe can
//! name what it freezes. The shape of the last value is kept, without the batch.

use onnx_ir::AttributeProto;

use super::Head;
use crate::onnx::write::{float, int, ints};
use crate::onnx::{GraphWriter, OnnxError};
use crate::random::Random;

/// The gain of weights before a ReLU, which lets half of the variance through.
pub const BEFORE_RELU: f32 = 2.0;
/// The gain of weights before anything else.
pub const LINEAR: f32 = 1.0;

/// The random stream of starter weights.
const STREAM: u64 = 10;

/// A convolution without bias; every axis alike.
#[derive(Debug, Clone, Copy)]
pub struct Conv {
    /// Output channels.
    pub to: usize,
    /// Side of the window.
    pub kernel: usize,
    /// Step of the window.
    pub stride: usize,
    /// Zeros before and after each axis.
    pub pads: (usize, usize),
    /// Channels are divided into so many groups.
    pub groups: usize,
    /// [`BEFORE_RELU`] or [`LINEAR`].
    pub gain: f32,
}

impl Conv {
    /// An odd window: the size is divided by the stride, rounded up.
    pub fn centred(to: usize, kernel: usize, stride: usize) -> Self {
        let pads = (kernel / 2, kernel / 2);
        Self { to, kernel, stride, pads, groups: 1, gain: BEFORE_RELU }
    }

    /// A window at least as wide as its step: the size is divided by the stride, rounded down.
    pub fn stepping(to: usize, kernel: usize, stride: usize) -> Self {
        let before = (kernel - stride) / 2;
        let pads = (before, kernel - stride - before);
        Self { pads, ..Self::centred(to, kernel, stride) }
    }
}

/// A graph made layer by layer.
pub struct Layers {
    graph: GraphWriter,
    random: Random,
    /// Name of the last value.
    last: String,
    shape: Vec<usize>,
}

impl Layers {
    /// A graph with one input of `shape` (without the batch).
    pub fn new(name: &str, input: &str, shape: &[usize], seed: u64) -> Self {
        Self {
            graph: GraphWriter::new(name).input(input, &batched(shape)),
            random: Random::stream(seed, STREAM),
            last: input.to_owned(),
            shape: shape.to_vec(),
        }
    }

    /// Name of the last value.
    pub fn last(&self) -> String {
        self.last.clone()
    }

    /// Shape of the last value, without the batch.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// A convolution.
    pub fn conv(mut self, name: &str, conv: Conv) -> Self {
        let axes = self.shape.len() - 1;
        let from = self.shape[0] / conv.groups;
        let taps = from * conv.kernel.pow(axes as u32);
        let weight = format!("{name}.weight");
        let shape = [vec![conv.to, from], vec![conv.kernel; axes]].concat();
        self = self.weights(&weight, &shape, conv.gain / taps as f32);
        let pads = [vec![conv.pads.0; axes], vec![conv.pads.1; axes]].concat();
        let mut attributes = vec![sizes("kernel_shape", &shape[2..]), sizes("pads", &pads)];
        if conv.stride != 1 {
            attributes.push(sizes("strides", &vec![conv.stride; axes]));
        }
        if conv.groups != 1 {
            attributes.push(int("group", conv.groups as i64));
        }
        for size in &mut self.shape[1..] {
            *size = (*size + conv.pads.0 + conv.pads.1 - conv.kernel) / conv.stride + 1;
        }
        self.shape[0] = conv.to;
        self.node("Conv", &[&weight], &format!("{name}.out"), attributes)
    }

    /// A transposed convolution that undoes the sizes of `conv` to those of `wanted`.
    pub fn conv_transpose(mut self, name: &str, conv: Conv, wanted: &[usize]) -> Self {
        let axes = self.shape.len() - 1;
        let shape = [vec![self.shape[0], conv.to], vec![conv.kernel; axes]].concat();
        // Windows overlap: each output is reached by kernel / stride taps along an axis.
        let taps =
            self.shape[0] as f32 * (conv.kernel as f32 / conv.stride as f32).powi(axes as i32);
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        self = self.weights(&weight, &shape, conv.gain / taps);
        self.graph = self.graph.floats(&bias, &[conv.to], &vec![0.0; conv.to]);
        let reached =
            |size: usize| (size - 1) * conv.stride + conv.kernel - conv.pads.0 - conv.pads.1;
        let missing: Vec<usize> =
            self.shape[1..].iter().zip(wanted).map(|(size, want)| want - reached(*size)).collect();
        let attributes = vec![
            sizes("kernel_shape", &shape[2..]),
            sizes("pads", &[vec![conv.pads.0; axes], vec![conv.pads.1; axes]].concat()),
            sizes("strides", &vec![conv.stride; axes]),
            sizes("output_padding", &missing),
        ];
        self.shape = [&[conv.to], wanted].concat();
        self.node("ConvTranspose", &[&weight, &bias], &format!("{name}.out"), attributes)
    }

    /// Batch normalisation; ε keeps a channel without variance finite.
    pub fn norm(mut self, name: &str, epsilon: f32) -> Self {
        let part = |part: &str| format!("{name}.norm.{part}");
        let channels = self.shape[0];
        let names = ["scale", "bias", "mean", "variance"].map(part);
        for (name, value) in names.iter().zip([1.0, 0.0, 0.0, 1.0]) {
            self.graph = self.graph.floats(name, &[channels], &vec![value; channels]);
        }
        let attributes = vec![float("epsilon", epsilon), float("momentum", 0.9)];
        let inputs = names.each_ref().map(String::as_str);
        self.node("BatchNormalization", &inputs, &format!("{name}.norm"), attributes)
    }

    /// A rectified linear unit.
    pub fn relu(self, name: &str) -> Self {
        self.node("Relu", &[], &format!("{name}.relu"), vec![])
    }

    /// A rectified linear unit that ends at 6.
    pub fn relu6(mut self, name: &str) -> Self {
        for (limit, value) in [("zero", 0.0), ("six", 6.0)] {
            self.graph = self.graph.floats(&format!("{name}.{limit}"), &[], &[value]);
        }
        let limits = [format!("{name}.zero"), format!("{name}.six")];
        self.node("Clip", &[&limits[0], &limits[1]], &format!("{name}.relu"), vec![])
    }

    /// The largest of every two along each axis; an odd one at the end is left out.
    pub fn max_pool(mut self, name: &str) -> Self {
        let axes = self.shape.len() - 1;
        self.shape[1..].iter_mut().for_each(|size| *size /= 2);
        let two = vec![2; axes];
        let attributes = vec![sizes("kernel_shape", &two), sizes("strides", &two)];
        self.node("MaxPool", &[], &format!("{name}.pool"), attributes)
    }

    /// The mean of each channel.
    pub fn global_average(mut self) -> Self {
        self.shape[1..].fill(1);
        self.node("GlobalAveragePool", &[], "average", vec![])
    }

    /// Leaves out that share of the values while training.
    pub fn dropout(mut self, share: f32) -> Self {
        self.graph = self.graph.floats("dropout.ratio", &[], &[share]);
        self.node("Dropout", &["dropout.ratio"], "dropout.out", vec![])
    }

    /// Adds an earlier value of the same shape.
    pub fn add(self, name: &str, earlier: &str) -> Self {
        self.node("Add", &[earlier], &format!("{name}.sum"), vec![])
    }

    /// One dimension of everything.
    pub fn flatten(mut self) -> Self {
        self.shape = vec![self.shape.iter().product()];
        self.node("Flatten", &[], "flat", vec![int("axis", 1)])
    }

    /// A dense layer with bias.
    pub fn dense(self, name: &str, to: usize, gain: f32) -> Self {
        self.dense_as(name, &format!("{name}.out"), to, gain)
    }

    /// The last dense layer: scores or values.
    pub fn head(self, name: &str, head: Head) -> Self {
        match head {
            Head::Classes(n) => self.dense_as(name, "scores", n, LINEAR),
            Head::Values(n) => self.dense_as(name, "values", n, LINEAR),
            Head::Reconstruction => self,
        }
    }

    /// Calls the last value so, whatever layer made it.
    pub fn called(self, name: &str) -> Self {
        self.node("Identity", &[], name, vec![])
    }

    /// The file's bytes; the last value is the output.
    pub fn finish(self) -> Result<Vec<u8>, OnnxError> {
        self.graph.output(&self.last, &batched(&self.shape)).finish()
    }

    fn dense_as(mut self, name: &str, output: &str, to: usize, gain: f32) -> Self {
        let from = self.shape[0];
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        self = self.weights(&weight, &[to, from], gain / from as f32);
        self.graph = self.graph.floats(&bias, &[to], &vec![0.0; to]);
        self.shape = vec![to];
        self.node("Gemm", &[&weight, &bias], output, vec![int("transB", 1)])
    }

    /// Normally distributed weights.
    fn weights(mut self, name: &str, shape: &[usize], variance: f32) -> Self {
        let (count, deviation) = (shape.iter().product(), variance.sqrt());
        let values: Vec<f32> = (0..count).map(|_| self.random.normal() * deviation).collect();
        self.graph = self.graph.floats(name, shape, &values);
        self
    }

    /// A node that reads the last value and `rest`, and makes the last value.
    fn node(
        mut self,
        op: &str,
        rest: &[&str],
        output: &str,
        attributes: Vec<AttributeProto>,
    ) -> Self {
        let inputs = [&[self.last.as_str()], rest].concat();
        self.graph = self.graph.node(op, &inputs, &[output], attributes);
        output.clone_into(&mut self.last);
        self
    }
}

fn batched(shape: &[usize]) -> Vec<Option<usize>> {
    [None].into_iter().chain(shape.iter().copied().map(Some)).collect()
}

fn sizes(name: &str, values: &[usize]) -> AttributeProto {
    let values: Vec<i64> = values.iter().map(|v| *v as i64).collect();
    ints(name, &values)
}
