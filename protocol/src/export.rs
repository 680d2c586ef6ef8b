//! A file of what an agent still had to send, for a hub that the device reaches no more.
//!
//! Format: one line of JSON, the [`Head`], then its records one after another. A record is nine bytes
//! (a kind, the message's length and the payload's as little-endian `u32`), the message as the device
//! would have published it, and the payload if it does not travel in its message. Nothing in the file
//! is trusted: each message is signed by its device, and each payload is what its header names.
//!
//! Limits: a head has at most [`HEAD_BYTES`], a message [`MESSAGE_BYTES`], a payload [`PAYLOAD_BYTES`].
//! More is an error before anything is allocated.

use serde::{Deserialize, Serialize};

use crate::ids::DeviceId;
use crate::limits::{MESSAGE_BYTES, PAYLOAD_BYTES};
use crate::time::UnixMillis;

/// What the first field of a head says.
pub const FORMAT: &str = "outbox-export";

/// The longest head, its line end included, in bytes.
pub const HEAD_BYTES: usize = 1024;

/// What comes before a record's message, in bytes.
pub const RECORD_HEAD_BYTES: usize = 9;

/// The longest record, in bytes.
pub const RECORD_BYTES: usize = RECORD_HEAD_BYTES + MESSAGE_BYTES + PAYLOAD_BYTES;

/// The first line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// [`FORMAT`].
    pub fleetloop: String,
    /// Whose outbox it was.
    pub device: DeviceId,
    /// When the file was made, by the device's clock.
    pub exported_at_ms: UnixMillis,
    /// Records that follow.
    pub records: u64,
    /// Samples among them; the others say which samples the outbox dropped.
    pub samples: u64,
}

/// Why bytes are no such file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// The first line is another one.
    #[error("it does not begin as 'edge-agent outbox export' writes it")]
    Head,
    /// A record is none.
    #[error("record {at} is damaged: {why}")]
    Record {
        /// Its place, from 1.
        at: u64,
        /// What is wrong.
        why: &'static str,
    },
}

/// A request takes no further record behind so many bytes.
pub const PIECE_BYTES: usize = 1 << 20;

/// The most bytes of records in a request.
pub const REQUEST_BYTES: usize = PIECE_BYTES + RECORD_BYTES;

/// Whether a record's message is a sample or a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// A [`crate::sample::SampleMessage`].
    Sample,
    /// A signed [`crate::gap::Gap`].
    Gap,
}

/// What comes before a message: how it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHead {
    /// What the message is.
    pub kind: RecordKind,
    /// Its length in bytes.
    pub message_len: usize,
    /// The length of the payload behind it, in bytes; 0 when it is in the message.
    pub payload_len: usize,
}

impl RecordHead {
    /// Reads it; `at` is the record's place, from 1.
    ///
    /// # Errors
    /// [`ExportError::Record`]: an unknown kind, or lengths over the limits.
    pub fn decode(bytes: [u8; RECORD_HEAD_BYTES], at: u64) -> Result<Self, ExportError> {
        let [kind, m0, m1, m2, m3, p0, p1, p2, p3] = bytes;
        let refuse = |why| Err(ExportError::Record { at, why });
        let kind = match kind {
            0 => RecordKind::Sample,
            1 => RecordKind::Gap,
            _ => return refuse("its kind is not known"),
        };
        let message_len = u32::from_le_bytes([m0, m1, m2, m3]) as usize;
        let payload_len = u32::from_le_bytes([p0, p1, p2, p3]) as usize;
        if message_len > MESSAGE_BYTES || payload_len > PAYLOAD_BYTES {
            return refuse("it is longer than any message");
        }
        Ok(Self { kind, message_len, payload_len })
    }

    /// The length of what follows, in bytes.
    pub const fn rest_len(&self) -> usize {
        self.message_len + self.payload_len
    }
}

/// A message, and the payload that does not travel in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// What the message is.
    pub kind: RecordKind,
    /// The message, complete.
    pub message: &'a [u8],
    /// The payload; empty when it is in the message.
    pub payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record's first bytes; message and payload follow.
    ///
    /// # Errors
    /// [`ExportError::Record`] when a reader would refuse it; `at` is its place, from 1.
    pub fn head(&self, at: u64) -> Result<[u8; RECORD_HEAD_BYTES], ExportError> {
        let too_long = |_| ExportError::Record { at, why: "it is longer than any message" };
        let message_len = u32::try_from(self.message.len()).map_err(too_long)?;
        let payload_len = u32::try_from(self.payload.len()).map_err(too_long)?;
        let mut bytes = [0; RECORD_HEAD_BYTES];
        bytes[0] = u8::from(self.kind == RecordKind::Gap);
        bytes[1..5].copy_from_slice(&message_len.to_le_bytes());
        bytes[5..].copy_from_slice(&payload_len.to_le_bytes());
        RecordHead::decode(bytes, at).map(|_| bytes)
    }

    /// All records in `bytes`.
    ///
    /// # Errors
    /// [`ExportError::Record`] names the first that is damaged or cut off.
    pub fn all(mut bytes: &'a [u8]) -> Result<Vec<Self>, ExportError> {
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let at = records.len() as u64 + 1;
            let cut_off = ExportError::Record { at, why: "it is cut off" };
            let (head, rest) = bytes.split_first_chunk().ok_or_else(|| cut_off.clone())?;
            let head = RecordHead::decode(*head, at)?;
            let (message, rest) = rest.split_at_checked(head.message_len).ok_or(cut_off.clone())?;
            let (payload, rest) = rest.split_at_checked(head.payload_len).ok_or(cut_off)?;
            records.push(Self { kind: head.kind, message, payload });
            bytes = rest;
        }
        Ok(records)
    }
}

impl Head {
    /// Of so many records of `device`.
    pub fn new(device: DeviceId, now: UnixMillis, records: u64, samples: u64) -> Self {
        Self { fleetloop: FORMAT.to_owned(), device, exported_at_ms: now, records, samples }
    }

    /// Its line, which ends with a line feed.
    pub fn line(&self) -> String {
        // A struct of texts and numbers is always JSON.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// Reads a line, with or without its end.
    ///
    /// # Errors
    /// [`ExportError::Head`].
    pub fn parse(line: &[u8]) -> Result<Self, ExportError> {
        let head: Self = serde_json::from_slice(line).map_err(|_| ExportError::Head)?;
        if head.fleetloop == FORMAT { Ok(head) } else { Err(ExportError::Head) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDS: [Record<'static>; 2] = [
        Record { kind: RecordKind::Sample, message: b"message", payload: b"payload" },
        Record { kind: RecordKind::Gap, message: b"gap", payload: b"" },
    ];

    fn written() -> Vec<u8> {
        let mut bytes = Vec::new();
        for record in RECORDS {
            bytes.extend(record.head(1).expect("short ones"));
            bytes.extend([record.message, record.payload].concat());
        }
        bytes
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let bytes = written();
        assert_eq!(Record::all(&bytes).expect("whole"), RECORDS);
        assert_eq!(bytes[..9], [0, 7, 0, 0, 0, 7, 0, 0, 0], "as the header of this module says");
    }

    #[test]
    fn a_record_that_is_cut_off_anywhere_is_named() {
        let bytes = written();
        let second = bytes.len() - 12;
        for len in (1..bytes.len()).filter(|len| *len != second) {
            let at = if len < second { 1 } else { 2 };
            let expected = ExportError::Record { at, why: "it is cut off" };
            assert_eq!(Record::all(&bytes[..len]).expect_err("cut off"), expected, "{len} bytes");
        }
    }

    #[test]
    fn lengths_over_the_limits_are_refused_before_anything_is_read() {
        let mut bytes = written();
        bytes[4] = 0xff;
        let error = Record::all(&bytes).expect_err("4 GiB");
        assert_eq!(error.to_string(), "record 1 is damaged: it is longer than any message");
        bytes[0] = 9;
        assert!(Record::all(&bytes).expect_err("no kind").to_string().contains("kind"));
    }

    #[test]
    fn a_head_is_one_line_and_nothing_else_is_a_head() {
        let head = Head::new("dev-a".parse().expect("an id"), UnixMillis(5), 3, 2);
        let line = head.line();
        assert_eq!(
            line,
            "{\"fleetloop\":\"outbox-export\",\"device\":\"dev-a\",\"exported_at_ms\":5,\
             \"records\":3,\"samples\":2}\n"
        );
        assert_eq!(Head::parse(line.as_bytes()), Ok(head));
        assert_eq!(Head::parse(b"{}"), Err(ExportError::Head));
        let other = line.replace(FORMAT, "backup");
        assert_eq!(Head::parse(other.as_bytes()), Err(ExportError::Head));
    }
}
