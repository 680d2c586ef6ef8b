//! From a frame to the model's input: grey, fit, scale, normalise, lay out. See
//! [`crate::bundle::PreprocessSpec`] for the order.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::bundle::{Fit, Manifest};
use crate::picture::{Channels, Frame};

/// The preprocessing of one model. It keeps its buffers between frames.
pub struct Preprocess {
    channels: Channels,
    width: u32,
    height: u32,
    fit: Fit,
    /// `value * scale + offset` by channel is `(value / 255 − mean) / std`.
    scale: Vec<f32>,
    offset: Vec<f32>,
    resizer: Resizer,
}

/// A frame that cannot be brought to the model's input.
#[derive(Debug, thiserror::Error)]
#[error("cannot resize a frame of {width}×{height} to the model's input")]
pub struct PreprocessError {
    width: u32,
    height: u32,
    #[source]
    source: fast_image_resize::ResizeError,
}

impl Preprocess {
    /// The preprocessing that `manifest` describes.
    pub fn new(manifest: &Manifest) -> Self {
        let spec = &manifest.preprocess;
        Self {
            channels: if manifest.input.channels == 1 { Channels::Grey } else { Channels::Rgb },
            width: manifest.input.width,
            height: manifest.input.height,
            fit: spec.fit,
            scale: spec.std.iter().map(|std| 1.0 / (255.0 * std)).collect(),
            offset: spec.mean.iter().zip(&spec.std).map(|(mean, std)| -mean / std).collect(),
            resizer: Resizer::new(),
        }
    }

    /// How many values [`Preprocess::apply`] appends for a frame.
    pub fn output_len(&self) -> usize {
        self.channels.count() * self.width as usize * self.height as usize
    }

    /// Appends the model's input for `frame` to `out`: channels × height × width.
    ///
    /// # Errors
    /// [`PreprocessError`] when the frame cannot be resized.
    pub fn apply(&mut self, frame: &Frame, out: &mut Vec<f32>) -> Result<(), PreprocessError> {
        let converted = convert(frame, self.channels);
        let pixels = converted.as_deref().unwrap_or(frame.pixels());
        if (frame.width(), frame.height()) == (self.width, self.height) {
            self.normalise(pixels, out);
            return Ok(());
        }
        let resized = self.resize(pixels, frame).map_err(|source| PreprocessError {
            width: frame.width(),
            height: frame.height(),
            source,
        })?;
        self.normalise(&resized, out);
        Ok(())
    }

    fn resize(
        &mut self,
        pixels: &[u8],
        frame: &Frame,
    ) -> Result<Vec<u8>, fast_image_resize::ResizeError> {
        let kind = match self.channels {
            Channels::Grey => PixelType::U8,
            Channels::Rgb => PixelType::U8x3,
        };
        // The buffer's length was checked when the frame was made, so the view cannot fail; if it
        // ever did, the blank source would show in the golden cases.
        let source = ImageRef::new(frame.width(), frame.height(), pixels, kind).map_err(|_| {
            fast_image_resize::ResizeError::ImageError(
                fast_image_resize::ImageError::UnsupportedPixelType,
            )
        })?;
        let mut target = Image::new(self.width, self.height, kind);
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
        let options = match self.fit {
            Fit::Stretch => options,
            Fit::Crop => options.fit_into_destination(Some((0.5, 0.5))),
        };
        self.resizer.resize(&source, &mut target, &options)?;
        Ok(target.into_vec())
    }

    fn normalise(&self, pixels: &[u8], out: &mut Vec<f32>) {
        let channels = self.channels.count();
        out.reserve(pixels.len());
        for (channel, (scale, offset)) in self.scale.iter().zip(&self.offset).enumerate() {
            let values = pixels[channel..].iter().step_by(channels);
            out.extend(values.map(|value| f32::from(*value) * scale + offset));
        }
    }
}

/// The frame's pixels in another layout; none when it has that layout already.
/// Grey is luma of ITU-R BT.601 in integers: (299 R + 587 G + 114 B + 500) / 1000.
fn convert(frame: &Frame, to: Channels) -> Option<Vec<u8>> {
    match (frame.channels(), to) {
        (Channels::Grey, Channels::Grey) | (Channels::Rgb, Channels::Rgb) => None,
        (Channels::Grey, Channels::Rgb) => {
            Some(frame.pixels().iter().flat_map(|value| [*value; 3]).collect())
        }
        (Channels::Rgb, Channels::Grey) => {
            let luma = |p: &[u8]| {
                let [r, g, b] = [p[0], p[1], p[2]].map(u32::from);
                // At most 255 by construction.
                ((299 * r + 587 * g + 114 * b + 500) / 1000) as u8
            };
            Some(frame.pixels().chunks_exact(3).map(luma).collect())
        }
    }
}
