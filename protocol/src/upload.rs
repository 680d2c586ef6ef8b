//! Uploads over the hub's device listener: a payload too large for a message, sent before it.
//!
//! `PUT /payloads/<commitment>` with the payload as the body, its length as `Content-Length` and the
//! salt in [`SALT_HEADER`]; the commitment is the one that the sample's signed header names. Answers:
//! 204 once the payload is on the hub's disk; 400 when the bytes are not the ones named; 413 over
//! [`PAYLOAD_BYTES`](crate::limits::PAYLOAD_BYTES); 507 when the hub has no room for it now.
//! `HEAD` of the same path: 204 when it is there already, 404 when not. Doing it again changes
//! nothing. An upload is no promise: the hub may drop it until a receipt names the sample.

use crate::digest::Digest;

/// The header that carries the salt: 32 hexadecimal digits.
pub const SALT_HEADER: &str = "fleetloop-salt";

/// The path of the payload with that commitment.
pub fn path(commitment: Digest) -> String {
    format!("/payloads/{commitment}")
}

/// The salt as [`SALT_HEADER`] carries it.
pub fn salt_text(salt: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(salt))
}

/// The salt in the value of a [`SALT_HEADER`]; none when it is not one.
pub fn salt(text: &str) -> Option<[u8; 16]> {
    let is_hex = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let number = is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()?;
    Some(number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_salt_is_read_as_it_was_written_and_nothing_else_is_one() {
        for bytes in [[0; 16], [0xff; 16], *b"\0\x01sixteen bytes!"] {
            assert_eq!(salt(&salt_text(bytes)), Some(bytes));
        }
        for text in ["", "0", &"g".repeat(32), &"0".repeat(33), &format!("+{}", "0".repeat(31))] {
            assert_eq!(salt(text), None, "{text}");
        }
    }
}
