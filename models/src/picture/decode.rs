//! From a payload to a frame: every pixel is decoded, and the frame stands upright.
//!
//! This is the one way from a file to pixels, for device, evaluation, training and hub. So a model sees
//! what the person who labels sees: where EXIF says that the pixels lie turned or mirrored (JPEG APP1,
//! PNG `eXIf`), they are turned back.
//!
//! A damaged picture is an error, never a picture with a grey part: JPEG is decoded in strict mode, and
//! its scans are counted ([`crate::content`]), because a decoder fills what is missing.
//!
//! Transparency is dropped: the colour under it is what counts. Where all pixels have one colour and
//! only their transparency differs, the transparency is the picture, as grey.

use std::io::Cursor;

use fleetloop_protocol::sample::MediaType;
use image::metadata::Orientation;
use image::{
    DynamicImage, GrayImage, ImageDecoder as _, ImageFormat, ImageReader, Limits, RgbImage,
};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::{Channels, DECODED_BYTES, FRAME_PIXELS, Frame, PictureError};
use crate::content;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Decodes a payload.
pub(super) fn decode(media_type: MediaType, bytes: &[u8]) -> Result<Frame, PictureError> {
    content::check(media_type, bytes)?;
    let mut image = match media_type {
        MediaType::Png => png(bytes)?,
        MediaType::Jpeg => jpeg(bytes)?,
    };
    image.apply_orientation(orientation(media_type, bytes));
    let (width, height) = (image.width(), image.height());
    let (channels, pixels) = match visible(image) {
        DynamicImage::ImageLuma8(grey) => (Channels::Grey, grey.into_raw()),
        other => (Channels::Rgb, other.into_rgb8().into_raw()),
    };
    Frame::new(width, height, channels, pixels)
}

/// How the pixels lie.
pub(super) fn orientation(media_type: MediaType, bytes: &[u8]) -> Orientation {
    let exif = content::exif(media_type, bytes);
    exif.and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms)
}

fn png(bytes: &[u8]) -> Result<DynamicImage, PictureError> {
    let failed = |source: image::ImageError| failed(MediaType::Png, source.into());
    let mut reader = ImageReader::with_format(Cursor::new(bytes), ImageFormat::Png);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(DECODED_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    fits(u64::from(width) * u64::from(height), decoder.total_bytes(), width, height)?;
    DynamicImage::from_decoder(decoder).map_err(failed)
}

fn jpeg(bytes: &[u8]) -> Result<DynamicImage, PictureError> {
    let failed = |source: Source| failed(MediaType::Jpeg, source);
    // The size was checked against our own limits; a JPEG's sides have 16 bits.
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX));
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|error| failed(error.into()))?;
    let grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
    let wanted = if grey { ColorSpace::Luma } else { ColorSpace::RGB };
    decoder.set_options(decoder.options().jpeg_set_out_colorspace(wanted));
    let (width, height) = decoder.dimensions().unwrap_or_default();
    let (width, height) = (width as u32, height as u32);
    let pixels = u64::from(width) * u64::from(height);
    fits(pixels, pixels * if grey { 1 } else { 3 }, width, height)?;
    let values = decoder.decode().map_err(|error| failed(error.into()))?;
    content::whole_scans(bytes)?;
    let image = if grey {
        GrayImage::from_raw(width, height, values).map(DynamicImage::ImageLuma8)
    } else {
        RgbImage::from_raw(width, height, values).map(DynamicImage::ImageRgb8)
    };
    image.ok_or_else(|| {
        failed("the decoder gave another number of values than its header says".into())
    })
}

/// The decoder's own figures within the limits, whatever the header said.
fn fits(pixels: u64, bytes: u64, width: u32, height: u32) -> Result<(), PictureError> {
    if pixels > FRAME_PIXELS || bytes > DECODED_BYTES {
        return Err(PictureError::TooLarge { width, height });
    }
    Ok(())
}

fn failed(media_type: MediaType, source: Source) -> PictureError {
    PictureError::Decode { format: media_type.as_str(), source }
}

/// The picture without its transparency, or the transparency where that is the picture; grey where it
/// has one channel.
fn visible(image: DynamicImage) -> DynamicImage {
    use DynamicImage::{
        ImageLuma8, ImageLuma16, ImageLumaA8, ImageLumaA16, ImageRgba8, ImageRgba16,
    };
    match image {
        ImageLuma16(_) => ImageLuma8(image.into_luma8()),
        ImageLumaA8(_) | ImageLumaA16(_) => {
            let all = image.into_luma_alpha8();
            only_alpha(all.pixels().map(|pixel| ([pixel[0]; 3], pixel[1])), all.dimensions())
                .unwrap_or_else(|| ImageLuma8(DynamicImage::ImageLumaA8(all).into_luma8()))
        }
        ImageRgba8(_) | ImageRgba16(_) => {
            let all = image.into_rgba8();
            only_alpha(
                all.pixels().map(|pixel| ([pixel[0], pixel[1], pixel[2]], pixel[3])),
                all.dimensions(),
            )
            .unwrap_or(ImageRgba8(all))
        }
        other => other,
    }
}

/// The transparency as grey, if all pixels have one colour and not one transparency.
fn only_alpha(
    pixels: impl Iterator<Item = ([u8; 3], u8)> + Clone,
    (width, height): (u32, u32),
) -> Option<DynamicImage> {
    let (colour, alpha) = pixels.clone().next()?;
    let one_colour = pixels.clone().all(|(other, _)| other == colour);
    let one_alpha = pixels.clone().all(|(_, other)| other == alpha);
    if !one_colour || one_alpha {
        return None;
    }
    let values = pixels.map(|(_, alpha)| alpha).collect();
    GrayImage::from_raw(width, height, values).map(DynamicImage::ImageLuma8)
}
