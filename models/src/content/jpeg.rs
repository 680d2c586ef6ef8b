//! JPEG: SOI, then segment after segment, the scans between them, to EOI.

use super::{ContentError, Header, array};

/// The first three bytes: SOI and the beginning of the next marker.
pub(super) const START: [u8; 3] = [0xff, 0xd8, 0xff];

const EXPECTED: &str = "image/jpeg";

const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const APP1: u8 = 0xe1;

/// Walks over a file that begins with [`START`].
pub(super) fn walk(bytes: &[u8]) -> Result<Header, ContentError> {
    let mut header = None;
    let mut scans = false;
    let mut at = 2;
    loop {
        let (marker, next) = marker(bytes, at).ok_or(ContentError::Cut { expected: EXPECTED })?;
        at = next;
        match marker {
            EOI => break,
            // Markers that stand alone: TEM, RSTn, SOI.
            0x01 | 0xd0..=0xd8 => continue,
            _ => {}
        }
        let len = array(bytes, at).map(u16::from_be_bytes);
        let len = usize::from(len.ok_or(ContentError::Cut { expected: EXPECTED })?);
        if len < 2 {
            return Err(damaged("a part of it has no length"));
        }
        let part = bytes.get(at + 2..at + len).ok_or(ContentError::Cut { expected: EXPECTED })?;
        at += len;
        match marker {
            // SOF0, SOF1, SOF2: sequential and progressive, with Huffman codes.
            0xc0..=0xc2 if header.is_some() => return Err(damaged("it has two headers")),
            0xc0..=0xc2 => header = Some(frame(part)?),
            // DHT, JPG and DAC stand among the numbers of the other frame headers.
            0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                return Err(damaged(
                    "it is packed in a way that is not read (lossless or arithmetic)",
                ));
            }
            SOS => scans = true,
            _ => {}
        }
    }
    match header {
        Some(header) if scans => Ok(header),
        Some(_) => Err(damaged("it has no pixels")),
        None => Err(damaged("it has no header")),
    }
}

/// The next marker from `at` on and the place behind it. Between markers lies a scan: there 0xff is
/// followed by 0, or by more of 0xff before a marker.
pub(super) fn marker(bytes: &[u8], mut at: usize) -> Option<(u8, usize)> {
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == 0xff)? + 1;
        match *bytes.get(at)? {
            0 | 0xff => {}
            marker => return Some((marker, at + 1)),
        }
    }
}

/// The EXIF data, if the file has some.
pub(super) fn exif(bytes: &[u8]) -> Option<&[u8]> {
    const BEGINS: &[u8] = b"Exif\0\0";
    let mut at = 2;
    loop {
        let (marker, next) = marker(bytes, at)?;
        let len = usize::from(u16::from_be_bytes(array(bytes, next)?));
        let part = bytes.get(next + 2..next.checked_add(len)?)?;
        match marker {
            APP1 if part.starts_with(BEGINS) => return Some(&part[BEGINS.len()..]),
            SOS => return None,
            _ => at = next + len,
        }
    }
}

fn frame(part: &[u8]) -> Result<Header, ContentError> {
    let [precision, h1, h0, w1, w0, components] =
        array(part, 0).ok_or_else(|| damaged("its header is too short"))?;
    let (width, height) = (u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0]));
    if width == 0 || height == 0 {
        return Err(damaged("its header names no size"));
    }
    if precision != 8 {
        return Err(damaged("it does not have 8 bits a value"));
    }
    let bytes_per_pixel = match components {
        1 => 1,
        3 | 4 => 3,
        _ => return Err(damaged("its header names no kind of pixel")),
    };
    if part.len() < 6 + 3 * usize::from(components) {
        return Err(damaged("its header is too short"));
    }
    Ok(Header { width: width.into(), height: height.into(), bytes_per_pixel })
}

fn damaged(what: &'static str) -> ContentError {
    ContentError::Damaged { expected: EXPECTED, what }
}
