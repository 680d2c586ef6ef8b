//! Frames: pictures as inference sees them, and how they are encoded for the road.

mod decode;

use fleetloop_protocol::sample::MediaType;
use image::{ExtendedColorType, ImageEncoder as _};

use crate::content::ContentError;

/// The most pixels a frame may have; a larger picture is refused before it is decoded. A fuzzer looks
/// for what is wrong at a limit, not for how long it takes to get there.
pub const FRAME_PIXELS: u64 = if cfg!(fuzzing) { 64 << 10 } else { 64 << 20 };

/// The most bytes a decoder may ask for: a frame of the most pixels, in colour. So a picture of 16 bits
/// a value has fewer pixels, and what is packed beside the pixels (profiles, texts) unpacks to no more.
pub(crate) const DECODED_BYTES: u64 = FRAME_PIXELS * 3;

/// How the values of a pixel are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// One value, 0 black to 255 white.
    Grey,
    /// Red, green, blue.
    Rgb,
}

impl Channels {
    /// Bytes a pixel.
    pub const fn count(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::Rgb => 3,
        }
    }
}

/// A picture, height × width × channels, 8 bits a value, without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    width: u32,
    height: u32,
    channels: Channels,
    pixels: Vec<u8>,
}

/// Why a picture cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The number of bytes is not width × height × channels, or a side is 0.
    #[error("cannot make a frame of {width}×{height} {channels:?} from {len} bytes")]
    Size {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
        /// The layout.
        channels: Channels,
        /// How many bytes there were.
        len: usize,
    },
    /// The bytes are not a whole picture of that format within the limits.
    #[error("cannot decode picture")]
    Content(#[from] ContentError),
    /// The decoder finds more pixels or bytes than the header said.
    #[error(
        "cannot decode picture: {width}×{height} pixels, the limit is {FRAME_PIXELS} of 8 bits a value"
    )]
    TooLarge {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
    /// Its pixels are damaged, or not of that format.
    #[error("cannot decode picture as {format}: its pixels are damaged")]
    Decode {
        /// The media type.
        format: &'static str,
        /// What the decoder met.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The encoder failed.
    #[error("cannot encode picture as image/png")]
    Encode(#[source] image::ImageError),
}

impl Frame {
    /// A frame from its pixels.
    ///
    /// # Errors
    /// [`PictureError::Size`] when their number is not width × height × channels.
    pub fn new(
        width: u32,
        height: u32,
        channels: Channels,
        pixels: Vec<u8>,
    ) -> Result<Self, PictureError> {
        let want = u64::from(width) * u64::from(height) * channels.count() as u64;
        if want == 0 || want != pixels.len() as u64 {
            return Err(PictureError::Size { width, height, channels, len: pixels.len() });
        }
        Ok(Self { width, height, channels, pixels })
    }

    /// In pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// In pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The layout of a pixel.
    pub fn channels(&self) -> Channels {
        self.channels
    }

    /// The values, row by row.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Decodes a payload, every pixel of it, and turns the frame upright. Pictures with one grey channel
    /// stay grey, all others become RGB with 8 bits a value; transparency is dropped.
    ///
    /// # Errors
    /// [`PictureError`] when it is too large, damaged or not of that format.
    pub fn decode(media_type: MediaType, bytes: &[u8]) -> Result<Self, PictureError> {
        decode::decode(media_type, bytes)
    }

    /// Whether EXIF says that the pixels of a payload lie turned or mirrored; what shows the bytes as they are
    /// may not turn them.
    pub fn is_turned(media_type: MediaType, bytes: &[u8]) -> bool {
        decode::orientation(media_type, bytes) != image::metadata::Orientation::NoTransforms
    }

    /// Encodes the frame as PNG, without loss: decoding gives the same frame.
    ///
    /// # Errors
    /// [`PictureError::Encode`] when memory runs out.
    pub fn encode_png(&self) -> Result<Vec<u8>, PictureError> {
        let mut out = Vec::new();
        let color = match self.channels {
            Channels::Grey => ExtendedColorType::L8,
            Channels::Rgb => ExtendedColorType::Rgb8,
        };
        image::codecs::png::PngEncoder::new(&mut out)
            .write_image(&self.pixels, self.width, self.height, color)
            .map_err(PictureError::Encode)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content;

    #[test]
    fn png_loses_nothing() {
        for channels in [Channels::Grey, Channels::Rgb] {
            let pixels = (0..5 * 3 * channels.count()).map(|i| (i * 37 % 256) as u8).collect();
            let frame = Frame::new(5, 3, channels, pixels).unwrap();
            let png = frame.encode_png().unwrap();
            assert_eq!(Frame::decode(MediaType::Png, &png).unwrap(), frame);
        }
    }

    #[test]
    fn bytes_that_are_no_picture_are_refused() {
        assert!(Frame::decode(MediaType::Png, b"not a picture").is_err());
        assert!(Frame::new(2, 2, Channels::Grey, vec![0; 5]).is_err());
        assert!(Frame::new(0, 0, Channels::Grey, vec![]).is_err());
    }

    #[test]
    fn a_picture_bomb_is_refused_before_it_is_decoded() {
        // A valid PNG header that claims 60,000 × 60,000 pixels.
        let mut png = Frame::new(1, 1, Channels::Grey, vec![0]).unwrap().encode_png().unwrap();
        png[16..20].copy_from_slice(&60_000u32.to_be_bytes());
        png[20..24].copy_from_slice(&60_000u32.to_be_bytes());
        let crc = content::png_crc32(&png[12..29]);
        png[29..33].copy_from_slice(&crc.to_be_bytes());
        assert!(matches!(
            Frame::decode(MediaType::Png, &png),
            Err(PictureError::Content(ContentError::TooLarge { width: 60_000, height: 60_000 }))
        ));
    }

    #[test]
    fn a_picture_with_more_bytes_than_a_frame_of_the_most_pixels_is_refused() {
        // 16 bits a value, red, green, blue and transparency: 8 bytes a pixel.
        let (width, height) = (8192u32, 4096u32);
        let mut png = Frame::new(1, 1, Channels::Grey, vec![0]).unwrap().encode_png().unwrap();
        png[16..20].copy_from_slice(&width.to_be_bytes());
        png[20..24].copy_from_slice(&height.to_be_bytes());
        png[24..26].copy_from_slice(&[16, 6]);
        let crc = content::png_crc32(&png[12..29]);
        png[29..33].copy_from_slice(&crc.to_be_bytes());
        assert!(u64::from(width) * u64::from(height) < FRAME_PIXELS);
        assert!(matches!(
            Frame::decode(MediaType::Png, &png),
            Err(PictureError::Content(ContentError::TooLarge { width: 8192, height: 4096 }))
        ));
    }
}
