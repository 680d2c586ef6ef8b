//! Whether a payload is what its media type says: a walk over its headers, without its pixels.
//!
//! Every door asks [`check`] before a payload is kept or signed: the agent before it signs, the hub
//! before it gives a receipt and at an import, [`crate::picture::Frame::decode`] before it decodes. So
//! a picture that one door takes is taken at all of them, and the limits are the same
//! ([`FRAME_PIXELS`], and the bytes that its pixels unpack to).
//!
//! Checked are the first bytes, the header with the picture's size, that every part ends within the
//! file, and the end marker. Bytes after the end marker are allowed: cameras write them. What only
//! decoding finds (damaged pixels, a part of them missing) passes here: an import, a freeze, a job and a
//! bundle's golden cases decode in full ([`crate::picture::Frame::decode`]), and leave out or refuse such
//! a picture by name.
//!
//! Cost: a few bytes a chunk for PNG; for JPEG one look at each byte of the picture.
//!
//! Formats: PNG (ISO/IEC 15948, section 5), JPEG (ITU-T T.81, annex B).

mod jpeg;
mod png;
mod scans;

use fleetloop_protocol::sample::MediaType;

use crate::picture::{DECODED_BYTES, FRAME_PIXELS};

/// What a payload's header says of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// What a pixel unpacks to.
    pub bytes_per_pixel: u32,
}

/// Why a payload is not what its media type says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// There is nothing.
    #[error("the {expected} picture is empty: it has 0 bytes")]
    Empty {
        /// The media type.
        expected: &'static str,
    },
    /// The first bytes are another format's.
    #[error("the payload is {found}, its media type says {expected}; send it as what it is")]
    Other {
        /// The media type.
        expected: &'static str,
        /// What the first bytes look like.
        found: &'static str,
    },
    /// More pixels than a picture may have, or more bytes.
    #[error(
        "the picture is too large: {width}×{height} pixels, the limit is {FRAME_PIXELS} pixels of 3 bytes"
    )]
    TooLarge {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
    /// A header that cannot be.
    #[error("the {expected} picture is damaged: {what}")]
    Damaged {
        /// The media type.
        expected: &'static str,
        /// What is wrong.
        what: &'static str,
    },
    /// It ends before its end marker, or its pixels do.
    #[error("the {expected} picture is cut off: a part of it is missing")]
    Cut {
        /// The media type.
        expected: &'static str,
    },
}

/// Checks that `bytes` are a whole picture of that media type and within the limits.
///
/// # Errors
/// [`ContentError`]: sending the same bytes again never helps.
pub fn check(media_type: MediaType, bytes: &[u8]) -> Result<Header, ContentError> {
    let expected = media_type.as_str();
    if bytes.is_empty() {
        return Err(ContentError::Empty { expected });
    }
    if media_type_of(bytes) != Some(media_type) {
        return Err(ContentError::Other { expected, found: looks_like(bytes) });
    }
    let header = match media_type {
        MediaType::Png => png::walk(bytes)?,
        MediaType::Jpeg => jpeg::walk(bytes)?,
    };
    let Header { width, height, bytes_per_pixel } = header;
    let pixels = u64::from(width) * u64::from(height);
    if pixels > FRAME_PIXELS || pixels * u64::from(bytes_per_pixel) > DECODED_BYTES {
        return Err(ContentError::TooLarge { width, height });
    }
    Ok(header)
}

/// The EXIF data of a picture that [`check`] took, if it has some.
pub(crate) fn exif(media_type: MediaType, bytes: &[u8]) -> Option<&[u8]> {
    match media_type {
        MediaType::Png => png::exif(bytes),
        MediaType::Jpeg => jpeg::exif(bytes),
    }
}

/// Looks that a JPEG that [`check`] took holds all of its pixels, whatever its end marker says.
///
/// # Errors
/// [`ContentError::Cut`].
pub(crate) fn whole_scans(jpeg: &[u8]) -> Result<(), ContentError> {
    scans::whole(jpeg)
}

/// The media type that the first bytes belong to, if it is one of ours. A file's name says less.
pub fn media_type_of(bytes: &[u8]) -> Option<MediaType> {
    if bytes.starts_with(&png::SIGNATURE) {
        Some(MediaType::Png)
    } else if bytes.starts_with(&jpeg::START) {
        Some(MediaType::Jpeg)
    } else {
        None
    }
}

/// What the first bytes look like, in words.
fn looks_like(bytes: &[u8]) -> &'static str {
    let text = bytes.iter().find(|b| !b.is_ascii_whitespace());
    match bytes {
        _ if bytes.starts_with(&png::SIGNATURE) => "image/png",
        _ if bytes.starts_with(&jpeg::START) => "image/jpeg",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "image/webp",
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => "image/tiff",
        [b'G', b'I', b'F', b'8', ..] => "image/gif",
        [b'B', b'M', ..] => "image/bmp",
        _ if text == Some(&b'<') => "text in angle brackets (HTML or XML)",
        _ => "of no format that this build knows",
    }
}

/// `N` bytes at a place, if they are there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
pub(crate) use png::crc32 as png_crc32;

#[cfg(test)]
mod tests;
