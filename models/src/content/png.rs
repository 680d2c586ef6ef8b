//! PNG: the signature, IHDR, then chunk after chunk to IEND.

use super::{ContentError, Header, array};

/// The first eight bytes.
pub(super) const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

const EXPECTED: &str = "image/png";

/// A chunk's length, type and checksum: what it has beside its data, in bytes.
const AROUND: usize = 12;

/// Walks over a file that begins with [`SIGNATURE`].
pub(super) fn walk(bytes: &[u8]) -> Result<Header, ContentError> {
    let cut = ContentError::Cut { expected: EXPECTED };
    let mut header = ihdr(bytes)?;
    let mut at = SIGNATURE.len() + AROUND + 13;
    let (mut pixels, mut palette) = (false, false);
    loop {
        let len = array(bytes, at).map(u32::from_be_bytes).ok_or(cut.clone())? as usize;
        let kind: [u8; 4] = array(bytes, at + 4).ok_or(cut.clone())?;
        if !kind.iter().all(u8::is_ascii_alphabetic) {
            return Err(damaged("a part of it has no name"));
        }
        at = at.checked_add(AROUND + len).filter(|end| *end <= bytes.len()).ok_or(cut.clone())?;
        match &kind {
            b"IHDR" => return Err(damaged("it has two headers")),
            b"PLTE" => palette = true,
            // Transparency adds a channel to each pixel that is decoded.
            b"tRNS" if !pixels => header.bytes_per_pixel += header.transparency,
            b"IDAT" => pixels |= len > 0,
            b"IEND" => break,
            _ => {}
        }
    }
    if !pixels {
        return Err(damaged("it has no pixels"));
    }
    if header.indexed && !palette {
        return Err(damaged("its palette is missing"));
    }
    let Ihdr { width, height, bytes_per_pixel, .. } = header;
    Ok(Header { width, height, bytes_per_pixel })
}

/// The EXIF data, if the file has some; it may stand before or behind the pixels.
pub(super) fn exif(bytes: &[u8]) -> Option<&[u8]> {
    let mut at = SIGNATURE.len();
    loop {
        let len = u32::from_be_bytes(array(bytes, at)?) as usize;
        let kind: [u8; 4] = array(bytes, at + 4)?;
        let data = bytes.get(at + 8..(at + 8).checked_add(len)?)?;
        match &kind {
            b"eXIf" => return Some(data),
            b"IEND" => return None,
            _ => at = at + AROUND + len,
        }
    }
}

/// What IHDR says.
struct Ihdr {
    width: u32,
    height: u32,
    bytes_per_pixel: u32,
    /// What tRNS adds to a pixel, in bytes.
    transparency: u32,
    indexed: bool,
}

fn ihdr(bytes: &[u8]) -> Result<Ihdr, ContentError> {
    let data = SIGNATURE.len() + 8;
    let Some(part) = bytes.get(SIGNATURE.len()..data + 13 + 4) else {
        return Err(ContentError::Cut { expected: EXPECTED });
    };
    if part[..8] != *b"\0\0\0\x0dIHDR" {
        return Err(damaged("it does not begin with its header"));
    }
    if crc32(&part[4..21]).to_be_bytes() != part[21..25] {
        return Err(damaged("its header's checksum is wrong"));
    }
    let number =
        |at: usize| u32::from_be_bytes([part[at], part[at + 1], part[at + 2], part[at + 3]]);
    let (width, height) = (number(8), number(12));
    if width == 0 || height == 0 || width > i32::MAX as u32 || height > i32::MAX as u32 {
        return Err(damaged("its header names no size"));
    }
    let (depth, colour) = (part[16], part[17]);
    // Less than 8 bits a value unpack to 8.
    let value = if depth == 16 { 2 } else { 1 };
    let (values, transparency) = match (colour, depth) {
        (0, 1 | 2 | 4 | 8 | 16) => (1, value),
        (2, 8 | 16) => (3, value),
        (3, 1 | 2 | 4 | 8) => (3, 1),
        (4, 8 | 16) => (2, 0),
        (6, 8 | 16) => (4, 0),
        _ => return Err(damaged("its header names no kind of pixel")),
    };
    if part[18] != 0 || part[19] != 0 || part[20] > 1 {
        return Err(damaged("its header names an unknown way of packing"));
    }
    let (bytes_per_pixel, indexed) = (values * value, colour == 3);
    Ok(Ihdr { width, height, bytes_per_pixel, transparency, indexed })
}

fn damaged(what: &'static str) -> ContentError {
    ContentError::Damaged { expected: EXPECTED, what }
}

/// CRC-32 of the PNG specification, annex D.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| {
            if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 }
        })
    })
}
