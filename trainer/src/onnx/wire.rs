//! The protobuf wire format, as far as patching in place needs it: where a message's
//! length-delimited fields lie. Nothing is copied, and no length is believed before it is checked
//! against the bytes at hand.
//!
//! Format: <https://protobuf.dev/programming-guides/encoding/>.

use std::ops::Range;

use super::OnnxError;

/// One length-delimited field of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The field's number in the message definition.
    pub number: u64,
    /// Where its payload lies in the file.
    pub payload: Range<usize>,
}

/// The fields of a message.
#[derive(Debug, Default)]
pub struct Parts {
    /// The length-delimited ones.
    pub fields: Vec<Field>,
    /// The varint ones: number and value.
    pub numbers: Vec<(u64, u64)>,
}

/// The length-delimited fields of the message that fills `within`; other fields are stepped over.
///
/// # Errors
/// [`OnnxError::Wire`] when the bytes end early or use a group, which ONNX never does.
pub fn fields(bytes: &[u8], within: Range<usize>) -> Result<Vec<Field>, OnnxError> {
    Ok(parts(bytes, within)?.fields)
}

/// The length-delimited fields of a message, and its varint fields by number.
///
/// # Errors
/// As [`fields`].
pub fn parts(bytes: &[u8], within: Range<usize>) -> Result<Parts, OnnxError> {
    let mut parts = Parts::default();
    let mut cursor = Cursor { bytes, at: within.start, end: within.end.min(bytes.len()) };
    while cursor.at < cursor.end {
        let tag = cursor.varint()?;
        match tag & 7 {
            0 => parts.numbers.push((tag >> 3, cursor.varint()?)),
            1 => cursor.skip(8)?,
            5 => cursor.skip(4)?,
            2 => {
                let length = cursor.varint()?;
                let length = usize::try_from(length)
                    .map_err(|_| cursor.error("length over the address space"))?;
                let start = cursor.at;
                cursor.skip(length)?;
                parts.fields.push(Field { number: tag >> 3, payload: start..cursor.at });
            }
            _ => return Err(cursor.error("unknown wire type")),
        }
    }
    Ok(parts)
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl Cursor<'_> {
    fn varint(&mut self) -> Result<u64, OnnxError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            if self.at >= self.end {
                return Err(self.error("varint cut short"));
            }
            let byte = self.bytes[self.at];
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.error("varint over 10 bytes"))
    }

    fn skip(&mut self, count: usize) -> Result<(), OnnxError> {
        match self.at.checked_add(count) {
            Some(next) if next <= self.end => {
                self.at = next;
                Ok(())
            }
            _ => Err(self.error("field longer than its message")),
        }
    }

    fn error(&self, what: &'static str) -> OnnxError {
        OnnxError::Wire(what, self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_over_scalars_and_finds_the_payload() {
        // field 1 varint 300, field 2 bytes "ab", field 3 fixed32, field 4 fixed64, field 5 empty bytes
        let mut bytes = vec![0x08, 0xac, 0x02, 0x12, 2, b'a', b'b', 0x1d, 1, 2, 3, 4, 0x21];
        bytes.extend([0; 8]);
        bytes.extend([0x2a, 0]);
        let found = fields(&bytes, 0..bytes.len()).unwrap();
        let shape: Vec<_> = found.iter().map(|f| (f.number, f.payload.clone())).collect();
        assert_eq!(shape, [(2, 5..7), (5, bytes.len()..bytes.len())]);
    }

    #[test]
    fn a_length_beyond_the_message_is_an_error() {
        for bytes in [
            &[0x12u8, 5, b'a'][..],
            &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            &[0x1d, 1],
            &[0x08, 0x80],
            &[0x0b],
        ] {
            assert!(fields(bytes, 0..bytes.len()).is_err(), "{bytes:?}");
        }
    }
}
