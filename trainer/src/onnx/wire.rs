//! The protobuf wire format, as far as changing a file in place needs it: where a message's
//! fields lie. Nothing is copied, and no length is believed before it is checked
//! against the bytes at hand.
//!
//! Format: <https://protobuf.dev/programming-guides/encoding/>.

use std::ops::Range;

use super::OnnxError;

/// One field of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The field's number in the message definition.
    pub number: u64,
    /// Where it lies in the file, its tag and length included.
    pub whole: Range<usize>,
    /// What it holds.
    pub value: Value,
}

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A message, a text, bytes or packed numbers: where they lie in the file.
    Bytes(Range<usize>),
    /// A varint.
    Number(u64),
    /// Four or eight bytes, which nobody here reads.
    Fixed,
}

impl Field {
    /// Where its message, text or bytes lie in the file.
    pub fn bytes(&self) -> Option<Range<usize>> {
        match &self.value {
            Value::Bytes(range) => Some(range.clone()),
            _ => None,
        }
    }
}

/// The fields of the message that fills `within`.
///
/// # Errors
/// [`OnnxError::Wire`] when the bytes end early or use a group, which ONNX never does.
pub fn fields(bytes: &[u8], within: Range<usize>) -> Result<Vec<Field>, OnnxError> {
    let mut fields = Vec::new();
    let mut cursor = Cursor { bytes, at: within.start, end: within.end.min(bytes.len()) };
    while cursor.at < cursor.end {
        let begin = cursor.at;
        let tag = cursor.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(cursor.varint()?),
            1 => cursor.skip(8).map(|_| Value::Fixed)?,
            5 => cursor.skip(4).map(|_| Value::Fixed)?,
            2 => {
                let length = cursor.varint()?;
                let length = usize::try_from(length)
                    .map_err(|_| cursor.error("length over the address space"))?;
                Value::Bytes(cursor.skip(length)?)
            }
            _ => return Err(cursor.error("unknown wire type")),
        };
        fields.push(Field { number: tag >> 3, whole: begin..cursor.at, value });
    }
    Ok(fields)
}

/// The last of the fields of that number as text: what a parser takes of a repeated scalar field.
pub fn text<'a>(bytes: &'a [u8], fields: &[Field], number: u64) -> Option<&'a str> {
    let field = fields.iter().rev().find(|field| field.number == number)?;
    std::str::from_utf8(bytes.get(field.bytes()?)?).ok()
}

/// Appends a varint.
pub fn push_varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
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

    /// Steps over so many bytes and says where they lie.
    fn skip(&mut self, count: usize) -> Result<Range<usize>, OnnxError> {
        match self.at.checked_add(count) {
            Some(next) if next <= self.end => {
                let skipped = self.at..next;
                self.at = next;
                Ok(skipped)
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
    fn every_field_is_found_with_its_tag_and_payload() {
        // field 1 varint 300, field 2 bytes "ab", field 3 fixed32, field 4 fixed64, field 5 empty bytes
        let mut bytes = vec![0x08, 0xac, 0x02, 0x12, 2, b'a', b'b', 0x1d, 1, 2, 3, 4, 0x21];
        bytes.extend([0; 8]);
        bytes.extend([0x2a, 0]);
        let found = fields(&bytes, 0..bytes.len()).unwrap();
        let end = bytes.len();
        let shape: Vec<_> = found.iter().map(|f| (f.number, f.whole.clone(), f.bytes())).collect();
        let want = [
            (1, 0..3, None),
            (2, 3..7, Some(5..7)),
            (3, 7..12, None),
            (4, 12..21, None),
            (5, 21..end, Some(end..end)),
        ];
        assert_eq!(shape, want);
        assert_eq!(found[0].value, Value::Number(300));
        let mut written = Vec::new();
        push_varint(&mut written, 300);
        assert_eq!(written, bytes[1..3]);
    }

    #[test]
    fn the_last_text_of_a_number_counts_and_has_to_be_unicode() {
        let bytes = [0x12, 1, b'a', 0x12, 1, b'b', 0x1a, 1, 0xff, 0x20, 7];
        let found = fields(&bytes, 0..bytes.len()).unwrap();
        let texts = [1, 2, 3, 4].map(|number| text(&bytes, &found, number));
        assert_eq!(texts, [None, Some("b"), None, None]);
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
