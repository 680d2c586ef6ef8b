//! Networks for pictures: channels × height × width.

use super::Head;
use super::layers::{BEFORE_RELU, Conv, LINEAR, Layers};

const EPSILON: f32 = 1e-5;

/// Channels of the two blocks and width of the dense layer of `picture-cnn`.
const CHANNELS: [usize; 2] = [16, 32];
const DENSE: usize = 64;

/// `picture-cnn`: two blocks of convolution 3×3, batch normalisation, ReLU and pooling by 2, then a
/// dense layer and the head. Where in the picture something is, counts.
pub fn cnn(input: &[usize], head: Head, seed: u64) -> Result<Layers, &'static str> {
    let [1..=16, 8..=512, 8..=512] = input else {
        return Err("channels x height x width with 1 to 16 channels and 8 to 512 pixels a side");
    };
    let mut layers = Layers::new("picture-cnn", "picture", input, seed);
    for (block, to) in CHANNELS.into_iter().enumerate() {
        let name = format!("conv{}", block + 1);
        let conv = Conv::centred(to, 3, 1);
        layers = layers.conv(&name, conv).norm(&name, EPSILON).relu(&name).max_pool(&name);
    }
    Ok(layers.flatten().dense("dense1", DENSE, BEFORE_RELU).relu("dense1").head("dense2", head))
}

/// Channels of the first and the last convolution of `picture-mobile`.
const STEM: usize = 16;
const LAST: usize = 320;
/// Expansion, channels, blocks, stride of the first: the table of Sandler et al. 2018 at half its
/// width and depth.
const STAGES: [(usize, usize, usize, usize); 5] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 2, 2), (6, 64, 2, 2), (6, 96, 1, 1)];
/// Shorter sides from here on begin with a stride of 2; smaller pictures keep their detail.
const STRIDED_STEM: usize = 64;
const DROPOUT: f32 = 0.2;

/// `picture-mobile`: inverted residuals with linear bottlenecks (Sandler et al. 2018, MobileNetV2):
/// 1×1 expansion, depthwise 3×3, 1×1 projection, each with batch normalisation, ReLU6 after the
/// first two; then a mean over the picture, dropout and the head. What is in the picture counts,
/// not where; sizes are divided by 8 (shorter side below 64) or 16.
pub fn mobile(input: &[usize], head: Head, seed: u64) -> Result<Layers, &'static str> {
    let &[1..=16, height @ 32..=1024, width @ 32..=1024] = input else {
        return Err("channels x height x width with 1 to 16 channels and 32 to 1024 pixels a side");
    };
    let stride = if height.min(width) < STRIDED_STEM { 1 } else { 2 };
    let layers = Layers::new("picture-mobile", "picture", input, seed);
    let mut layers = rectified(layers, "stem", Conv::centred(STEM, 3, stride));
    for (stage, (expansion, to, blocks, stride)) in STAGES.into_iter().enumerate() {
        for block in 0..blocks {
            let name = format!("stage{}.block{}", stage + 1, block + 1);
            let stride = if block == 0 { stride } else { 1 };
            layers = inverted_residual(layers, &name, expansion, to, stride);
        }
    }
    layers = rectified(layers, "last", Conv::centred(LAST, 1, 1));
    Ok(layers.global_average().flatten().dropout(DROPOUT).head("dense", head))
}

fn inverted_residual(
    mut layers: Layers,
    name: &str,
    expansion: usize,
    to: usize,
    stride: usize,
) -> Layers {
    let (from, entry) = (layers.shape()[0], layers.last());
    let inner = from * expansion;
    if expansion > 1 {
        layers = rectified(layers, &format!("{name}.expand"), Conv::centred(inner, 1, 1));
    }
    let depthwise = Conv { groups: inner, ..Conv::centred(inner, 3, stride) };
    layers = rectified(layers, &format!("{name}.depthwise"), depthwise);
    let project = format!("{name}.project");
    let linear = Conv { gain: LINEAR, ..Conv::centred(to, 1, 1) };
    layers = layers.conv(&project, linear).norm(&project, EPSILON);
    if stride == 1 && from == to { layers.add(name, &entry) } else { layers }
}

fn rectified(layers: Layers, name: &str, conv: Conv) -> Layers {
    layers.conv(name, conv).norm(name, EPSILON).relu6(name)
}
