//! A quantised model, its weights stored as integers and as floats, learns and runs in ONNX Runtime.

use trainer::onnx::write::{float, int, ints};
use trainer::onnx::{GraphWriter, Model};
use trainer::random::Random;

use super::data::SIDE;
use super::forward::{largest_difference, trained};

/// A convolution with weights stored as 8-bit integers, a scale for each channel, behind a quantised
/// picture, and a layer whose float weights are quantised on the way, as a training with simulated
/// quantisation exports them.
fn quantized() -> Vec<u8> {
    let mut random = Random::new(3);
    let mut eighths = |count: usize| -> Vec<f32> {
        (0..count).map(|_| (random.between(-4.0, 4.0)).round() / 8.0).collect()
    };
    let dense = eighths(2 * 4);
    let kernel: Vec<i8> = eighths(4 * 9).iter().map(|v| (v * 100.0) as i8).collect();
    GraphWriter::new("quantized")
        .input("x", &[None, Some(1), Some(SIDE), Some(SIDE)])
        .output("y", &[None, Some(2)])
        .levels("kernel", &[4, 1, 3, 3], &kernel)
        .floats("kernel_scale", &[4], &[0.01, 0.005, 0.02, 0.01])
        .levels("kernel_zero", &[4], &[0; 4])
        .floats("picture_scale", &[], &[0.03])
        .levels("zero", &[], &[-10])
        .floats("dense", &[2, 4], &dense)
        .floats("dense_scale", &[], &[0.005])
        .levels("none", &[], &[0])
        .node("QuantizeLinear", &["x", "picture_scale", "zero"], &["xq"], vec![])
        .node("DequantizeLinear", &["xq", "picture_scale", "zero"], &["xd"], vec![])
        .node(
            "DequantizeLinear",
            &["kernel", "kernel_scale", "kernel_zero"],
            &["k"],
            vec![int("axis", 0)],
        )
        .node("Conv", &["xd", "k"], &["c"], vec![ints("strides", &[2, 2])])
        .node("LeakyRelu", &["c"], &["r"], vec![float("alpha", 0.1)])
        .node("GlobalAveragePool", &["r"], &["p"], vec![])
        .node("Flatten", &["p"], &["f"], vec![])
        .node("QuantizeLinear", &["dense", "dense_scale", "none"], &["dq"], vec![])
        .node("DequantizeLinear", &["dq", "dense_scale", "none"], &["d"], vec![])
        .node("Gemm", &["f", "d"], &["y"], vec![int("transB", 1)])
        .finish()
        .unwrap()
}

#[test]
fn a_quantized_model_learns_and_equals_onnx_runtime_before_and_after() {
    let old = quantized();
    let difference = largest_difference(&old, "x");
    assert!(difference < 1e-4, "{difference}");
    let (new, patches, first, last) = trained(&old, 1);
    assert!(last < first, "the loss goes from {first} to {last}");
    let difference = largest_difference(&new, "x");
    assert!(difference < 1e-4, "after training: {difference}");

    assert_eq!(patches.len(), 2, "the kernel and the dense weights");
    for (at, (a, b)) in old.iter().zip(&new).enumerate() {
        assert!(a == b || patches.iter().any(|r| r.contains(&at)), "byte {at} is outside the list");
    }
    let (old, new) = (Model::parse(old).unwrap(), Model::parse(new).unwrap());
    assert_ne!(old.initializers["kernel"], new.initializers["kernel"]);
    assert_eq!(old.initializers["kernel_scale"], new.initializers["kernel_scale"]);
}
