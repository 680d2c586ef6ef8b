//! What is done with a payload, which a device vouches for and nobody else: decoded as PNG and as JPEG.
//!
//! The fuzz target and the test that runs every file of `seeds/picture/` share this file.

use fleetloop_models::picture::{FRAME_PIXELS, Frame};
use fleetloop_protocol::sample::MediaType;

/// Decodes `bytes` as a picture of each kind; whether they are one.
///
/// # Panics
/// When a frame is larger than a frame may be, or is not the same after PNG.
pub fn attempt(bytes: &[u8]) -> bool {
    let png = decode(MediaType::Png, bytes);
    let jpeg = decode(MediaType::Jpeg, bytes);
    png || jpeg
}

fn decode(media_type: MediaType, bytes: &[u8]) -> bool {
    let Ok(frame) = Frame::decode(media_type, bytes) else { return false };
    assert!(u64::from(frame.width()) * u64::from(frame.height()) <= FRAME_PIXELS);
    let png = frame.encode_png().expect("a frame can be written");
    assert_eq!(Frame::decode(MediaType::Png, &png).expect("as written"), frame);
    true
}
