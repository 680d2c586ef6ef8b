//! Every limit two processes must share. What happens at each is written beside it.

/// The longest device id, in bytes. A longer one is not a device id.
pub const DEVICE_ID_BYTES: usize = 48;

/// The largest MQTT payload that is sent inline, and so the largest signed message, in bytes.
/// A larger message is refused before it is decoded; brokers are asked to allow exactly this.
pub const MESSAGE_BYTES: usize = 128 * 1024;

/// The largest sample payload that fits a message beside its header, in bytes.
/// A larger one is uploaded over HTTPS before the message that names it is sent.
pub const INLINE_PAYLOAD_BYTES: usize = MESSAGE_BYTES - SIGNED_BODY_BYTES - 1024;

/// The largest sample payload, in bytes: 8 MiB.
/// The agent does not select a frame whose payload is larger and counts it; the hub refuses one.
pub const PAYLOAD_BYTES: usize = 8 * 1024 * 1024;

/// The largest body of a signed envelope (a header, a report, an order), in bytes.
pub const SIGNED_BODY_BYTES: usize = 16 * 1024;

/// The most predictions a sample header carries; the agent keeps the most probable ones.
pub const HEADER_PREDICTIONS: usize = 8;

/// The most classes telemetry counts; a model with more reports only totals.
pub const TELEMETRY_CLASSES: usize = 1024;

/// The most frames a second that a source may have. The agent refuses a configuration with more; the hub
/// counts no window of telemetry with more.
pub const SOURCE_RATE_HZ: u32 = 100_000;

/// The longest free text in a message (agent version, failure reason), in bytes.
/// The sender shortens it at a character boundary.
pub const TEXT_BYTES: usize = 512;

/// The largest bundle manifest, in bytes; a larger one is refused before it is parsed.
pub const MANIFEST_BYTES: usize = 64 * 1024;

/// The longest enrolment token, in characters.
pub const TOKEN_CHARS: usize = 1024;

/// Shortens `text` to at most [`TEXT_BYTES`] bytes without splitting a character.
pub fn shorten(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
