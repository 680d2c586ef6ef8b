//! Networks that give their input back through a code of fewer numbers.
//!
//! Trained on normal data alone, they give back what is normal and fail at the rest: **the anomaly
//! score of an input is the mean over its values of (output − input)²**, and a threshold is a high
//! percentile of that score over normal data that was not learned from. The score is in the square
//! of the input's unit, so columns or channels of very different size should be scaled before.
//!
//! | input | layers | code |
//! |---|---|---|
//! | columns | dense 64, code, dense 64 | a third of the columns, 1 to 32 |
//! | channels × samples | three convolutions of 8 samples by steps of 4, and back | an eighth of the values |
//! | channels × height × width | three convolutions of 4×4 by steps of 2, and back | 16 channels of an eighth of each side |
//!
//! Convolutions have batch normalisation and ReLU but for the one that makes the code and the one
//! that makes the output. Sizes need not be divisible: what a step left over is added on the way
//! back.

use super::layers::{BEFORE_RELU, Conv, LINEAR, Layers};

const EPSILON: f32 = 1e-5;
const NAME: &str = "autoencoder";
const OUTPUT: &str = "reconstruction";
const DENSE: usize = 64;

/// `autoencoder`, by the number of the input's axes.
pub fn autoencoder(input: &[usize], seed: u64) -> Result<Layers, &'static str> {
    match *input {
        [columns @ 2..=4096] => Ok(rows(columns, seed)),
        [channels @ 1..=64, 64..=65_536] => {
            Ok(convolutions("window", input, (8, 4), [16, 32, 8 * channels], seed))
        }
        [1..=16, 16..=512, 16..=512] => {
            Ok(convolutions("picture", input, (4, 2), [16, 32, 16], seed))
        }
        _ => Err(
            "2 to 4096 columns; or channels x samples with 1 to 64 channels and 64 to 65536 samples; or channels x height x width with 1 to 16 channels and 16 to 512 pixels a side",
        ),
    }
}

fn rows(columns: usize, seed: u64) -> Layers {
    Layers::new(NAME, "row", &[columns], seed)
        .dense("encode1", DENSE, BEFORE_RELU)
        .relu("encode1")
        .dense("code", (columns / 3).clamp(1, 32), LINEAR)
        .dense("decode1", DENSE, BEFORE_RELU)
        .relu("decode1")
        .dense("decode2", columns, LINEAR)
        .called(OUTPUT)
}

/// Down to each of `channels`, the last of which is the code, and up again; `window` is its side and
/// its step.
fn convolutions(
    input: &str,
    shape: &[usize],
    window: (usize, usize),
    channels: [usize; 3],
    seed: u64,
) -> Layers {
    let conv = |to, gain| Conv { gain, ..Conv::stepping(to, window.0, window.1) };
    let [first, second, code] = channels;
    let mut layers = Layers::new(NAME, input, shape, seed);
    let mut shapes = Vec::new();
    for (name, to) in [("encode1", first), ("encode2", second)] {
        shapes.push(layers.shape().to_vec());
        layers = layers.conv(name, conv(to, BEFORE_RELU)).norm(name, EPSILON).relu(name);
    }
    shapes.push(layers.shape().to_vec());
    layers = layers.conv("code", conv(code, LINEAR));
    for (name, shape) in ["decode1", "decode2"].into_iter().zip(shapes[1..].iter().rev()) {
        layers = layers.conv_transpose(name, conv(shape[0], BEFORE_RELU), &shape[1..]);
        layers = layers.norm(name, EPSILON).relu(name);
    }
    layers.conv_transpose("decode3", conv(shape[0], LINEAR), &shape[1..]).called(OUTPUT)
}
