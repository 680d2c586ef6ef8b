//! What is done with a text that somebody pastes as an enrolment token.
//!
//! The checksum would keep a fuzzer outside for ever, so the same bytes are tried as what it covers.
//! The fuzz target and the test that runs every file of `seeds/token/` share this file.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fleetloop_protocol::Digest;
use fleetloop_protocol::limits::TOKEN_CHARS;
use fleetloop_protocol::token::EnrolmentToken;

/// Reads `bytes` as a token, and as the contents of one; whether either is one.
///
/// # Panics
/// When a token that was read is written or read otherwise the second time.
pub fn attempt(bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes).is_ok_and(read);
    let check = Digest::of(bytes);
    let inside = URL_SAFE_NO_PAD.encode([bytes, &check.as_bytes()[..4]].concat());
    let inside = read(&format!("fleetloop1.{inside}"));
    text || inside
}

fn read(text: &str) -> bool {
    let Ok(token) = text.parse::<EnrolmentToken>() else { return false };
    let again = token.to_string();
    assert!(again.len() <= TOKEN_CHARS);
    assert_eq!(again.parse(), Ok(token));
    true
}
