//! Starter graphs for people who have no model yet.
//!
//! `picture-cnn`: two blocks of convolution 3×3 (16 and 32 channels), batch normalisation, ReLU and
//! pooling by 2, then a dense layer of 64 and one score a class. At 1×28×28 it has 106,000 weights
//! and 1.1 million multiply-adds. Weights are drawn after He et al. 2015 (normal, variance
//! 2 / fan-in); the same seed gives the same file.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::onnx::write::{float, int, ints};
use crate::onnx::{GraphWriter, OnnxError};
use crate::random::Random;

/// A kind of starter graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A small convolutional classifier of pictures.
    PictureCnn,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("picture-cnn")
    }
}

impl FromStr for Kind {
    type Err = StarterError;
    fn from_str(text: &str) -> Result<Self, StarterError> {
        match text {
            "picture-cnn" => Ok(Self::PictureCnn),
            other => Err(StarterError::Kind(other.to_owned())),
        }
    }
}

/// Why a starter graph cannot be made.
#[derive(Debug, Error)]
pub enum StarterError {
    /// There is no such kind.
    #[error("cannot make starter graph '{0}': the kind known is picture-cnn")]
    Kind(String),
    /// The input does not suit the kind.
    #[error(
        "cannot make a picture-cnn for input {0:?}: it needs channels × height × width with 1 to 16 channels and 8 to 512 pixels a side"
    )]
    Input(Vec<usize>),
    /// There is nothing to tell apart.
    #[error("cannot make a classifier of {0} classes: 2 to 65536 are needed")]
    Classes(usize),
    /// The file cannot be written.
    #[error("cannot make starter graph")]
    Onnx(#[from] OnnxError),
}

/// Channels of the two blocks and width of the dense layer of `picture-cnn`.
const CHANNELS: [usize; 2] = [16, 32];
const DENSE: usize = 64;

/// The bytes of a starter graph for inputs of that shape (without the batch).
///
/// # Errors
/// [`StarterError`] when the input or the number of classes does not suit the kind.
pub fn starter(
    kind: Kind,
    input: &[usize],
    classes: usize,
    seed: u64,
) -> Result<Vec<u8>, StarterError> {
    if !(2..=65_536).contains(&classes) {
        return Err(StarterError::Classes(classes));
    }
    match kind {
        Kind::PictureCnn => picture_cnn(input, classes, seed),
    }
}

fn picture_cnn(input: &[usize], classes: usize, seed: u64) -> Result<Vec<u8>, StarterError> {
    let &[channels @ 1..=16, height @ 8..=512, width @ 8..=512] = input else {
        return Err(StarterError::Input(input.to_vec()));
    };
    let mut random = Random::stream(seed, 10);
    let mut graph = GraphWriter::new("picture-cnn")
        .input("picture", &[None, Some(channels), Some(height), Some(width)])
        .output("scores", &[None, Some(classes)]);
    let (mut from, mut last) = (channels, "picture".to_owned());
    for (block, to) in CHANNELS.into_iter().enumerate() {
        (graph, last) = conv_block(graph, &last, block + 1, from, to, &mut random);
        from = to;
    }
    let flat = CHANNELS[1] * (height / 4) * (width / 4);
    graph = graph.node("Flatten", &[&last], &["flat"], vec![int("axis", 1)]);
    graph = dense(graph, "dense1", "flat", "dense1.out", [flat, DENSE], 2.0, &mut random);
    graph = graph.node("Relu", &["dense1.out"], &["dense1.relu"], vec![]);
    graph = dense(graph, "dense2", "dense1.relu", "scores", [DENSE, classes], 1.0, &mut random);
    Ok(graph.finish()?)
}

fn conv_block(
    graph: GraphWriter,
    input: &str,
    block: usize,
    from: usize,
    to: usize,
    random: &mut Random,
) -> (GraphWriter, String) {
    let name = |part: &str| format!("conv{block}.{part}");
    let weights = normal(from * to * 9, 2.0 / (from * 9) as f32, random);
    let (weight, scale, bias, mean, variance) = (
        name("weight"),
        name("norm.scale"),
        name("norm.bias"),
        name("norm.mean"),
        name("norm.variance"),
    );
    let graph = graph
        .floats(&weight, &[to, from, 3, 3], &weights)
        .floats(&scale, &[to], &vec![1.0; to])
        .floats(&bias, &[to], &vec![0.0; to])
        .floats(&mean, &[to], &vec![0.0; to])
        .floats(&variance, &[to], &vec![1.0; to])
        .node(
            "Conv",
            &[input, &weight],
            &[&name("out")],
            vec![ints("kernel_shape", &[3, 3]), ints("pads", &[1, 1, 1, 1])],
        )
        .node(
            "BatchNormalization",
            &[&name("out"), &scale, &bias, &mean, &variance],
            &[&name("norm")],
            vec![float("epsilon", 1e-5), float("momentum", 0.9)],
        )
        .node("Relu", &[&name("norm")], &[&name("relu")], vec![])
        .node(
            "MaxPool",
            &[&name("relu")],
            &[&name("pool")],
            vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])],
        );
    (graph, name("pool"))
}

fn dense(
    graph: GraphWriter,
    name: &str,
    input: &str,
    output: &str,
    [from, to]: [usize; 2],
    gain: f32,
    random: &mut Random,
) -> GraphWriter {
    let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
    graph
        .floats(&weight, &[to, from], &normal(from * to, gain / from as f32, random))
        .floats(&bias, &[to], &vec![0.0; to])
        .node("Gemm", &[input, &weight, &bias], &[output], vec![int("transB", 1)])
}

fn normal(count: usize, variance: f32, random: &mut Random) -> Vec<f32> {
    let deviation = variance.sqrt();
    (0..count).map(|_| random.normal() * deviation).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::graph::{Graph, Sizes};
    use crate::onnx::Model;

    #[test]
    fn a_seed_names_a_file_and_every_shape_loads() {
        let make = |input: &[usize], seed| starter(Kind::PictureCnn, input, 10, seed).unwrap();
        assert_eq!(make(&[1, 28, 28], 1), make(&[1, 28, 28], 1));
        assert_ne!(make(&[1, 28, 28], 1), make(&[1, 28, 28], 2));
        for input in [[1, 28, 28], [3, 33, 41], [1, 8, 8]] {
            let model = Model::parse(make(&input, 1)).unwrap();
            let inputs = Sizes::batch(3).inputs(&model).unwrap();
            let graph = Graph::load(model, &inputs, &Device::flex()).unwrap();
            let plan = graph.plan(&inputs, &graph.outputs()).unwrap();
            assert_eq!(plan.outputs[0].fact.dims, [3, 10]);
            assert_eq!(graph.parameters.list.len(), 14);
        }
    }

    #[test]
    fn what_a_pass_costs_is_known_before() {
        let model = starter(Kind::PictureCnn, &[1, 28, 28], 10, 1).unwrap();
        let model = Model::parse(model).unwrap();
        let inputs = Sizes::batch(2).inputs(&model).unwrap();
        let graph = Graph::load(model, &inputs, &Device::flex()).unwrap();
        let cost = graph.cost;
        let convolutions = 28 * 28 * 16 * 9 + 14 * 14 * 32 * 16 * 9;
        assert_eq!(cost.multiply_adds, 2 * (convolutions + 1568 * 64 + 64 * 10));
        let weights = 16 * 9 + 32 * 16 * 9 + 1568 * 64 + 64 + 64 * 10 + 10;
        assert_eq!(cost.parameter_bytes, 4 * (weights + 4 * (16 + 32)));
        assert!(cost.value_bytes > 4 * 2 * 3 * 28 * 28 * 16, "three values of the first block");
    }

    #[test]
    fn inputs_that_do_not_suit_are_refused() {
        for input in [&[28, 28][..], &[1, 7, 28], &[0, 28, 28], &[1, 28, 1000]] {
            assert!(matches!(starter(Kind::PictureCnn, input, 10, 0), Err(StarterError::Input(_))));
        }
        assert!(matches!(
            starter(Kind::PictureCnn, &[1, 28, 28], 1, 0),
            Err(StarterError::Classes(1))
        ));
    }
}
