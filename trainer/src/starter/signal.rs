//! A network for windows of signals: channels × samples.
//!
//! `signal-cnn` follows WDCNN (Zhang et al. 2017, "A new deep learning model for fault diagnosis
//! with good anti-noise and domain adaptation ability on raw vibration signals"): a wide first
//! convolution works as a bank of filters, four narrow ones follow, each with batch normalisation,
//! ReLU and pooling by 2. Two things differ. The channels are normalised at the entry, so that the
//! unit of the sensor does not matter; and a mean over time takes the place of WDCNN's last pooling,
//! so that the weights do not grow with the window.
//!
//! The first window is 64 samples wide and moves by 16, as published for 2,048 samples; shorter
//! windows take smaller steps, so that at least 64 positions are left.

use super::Head;
use super::layers::{BEFORE_RELU, Conv, Layers};

const EPSILON: f32 = 1e-5;
/// For raw channels, which may be small numbers: a deviation of 1e-3 is still brought to 1.
const INPUT_EPSILON: f32 = 1e-8;

/// Channels of the wide convolution and of the narrow ones.
const WIDE: usize = 16;
const NARROW: [usize; 4] = [32, 64, 64, 64];
const DENSE: usize = 100;

/// `signal-cnn`.
pub fn cnn(input: &[usize], head: Head, seed: u64) -> Result<Layers, &'static str> {
    let &[1..=64, samples @ 64..=65_536] = input else {
        return Err(
            "channels x samples with 1 to 64 channels and 64 to 65536 samples; for windows of one channel, x[:, None] in NumPy adds the axis",
        );
    };
    let layers = Layers::new("signal-cnn", "window", input, seed).norm("input", INPUT_EPSILON);
    let mut layers = block(layers, "wide", wide(samples));
    for (place, to) in NARROW.into_iter().enumerate() {
        layers = block(layers, &format!("narrow{}", place + 1), Conv::centred(to, 3, 1));
    }
    let layers = layers.global_average().flatten();
    Ok(layers.dense("dense1", DENSE, BEFORE_RELU).relu("dense1").head("dense2", head))
}

fn block(layers: Layers, name: &str, conv: Conv) -> Layers {
    layers.conv(name, conv).norm(name, EPSILON).relu(name).max_pool(name)
}

fn wide(samples: usize) -> Conv {
    let stride = (1 << (samples / 64).ilog2()).min(16);
    Conv::stepping(WIDE, (4 * stride).max(16), stride)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_convolution_is_the_published_one_for_long_windows_and_leaves_64_positions() {
        let found = |samples| {
            let conv = wide(samples);
            let padded = samples + conv.pads.0 + conv.pads.1;
            (conv.kernel, conv.stride, (padded - conv.kernel) / conv.stride + 1)
        };
        assert_eq!(found(2048), (64, 16, 128));
        assert_eq!(found(1024), (64, 16, 64));
        assert_eq!(found(1023), (32, 8, 127));
        assert_eq!(found(150), (16, 2, 75));
        assert_eq!(found(64), (16, 1, 64));
        assert!((64..3000).all(|samples| found(samples).2 >= 64));
    }
}
