//! Protobuf's wire format, read strictly: a number is written in as few bytes as it needs, a length
//! stays inside its message, and there are no groups.

/// A field as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    /// A varint.
    Number(u64),
    /// Eight bytes.
    Fixed64,
    /// Four bytes.
    Fixed32,
    /// So many bytes from there: a message, a text, bytes or packed numbers.
    Bytes { from: usize, to: usize },
}

/// What is not plain.
pub(super) type Found = &'static str;

/// Reads the field at `at` of a message that ends at `end`; its number, its value, and where the next
/// one begins.
pub(super) fn field(bytes: &[u8], at: usize, end: usize) -> Result<(u64, Value, usize), Found> {
    let (tag, at) = varint(bytes, at, end)?;
    if tag > u64::from(u32::MAX) {
        return Err("a field number over the format's limit");
    }
    let (value, next) = match tag & 7 {
        0 => varint(bytes, at, end).map(|(number, next)| (Value::Number(number), next))?,
        1 => (Value::Fixed64, skip(at, 8, end)?),
        2 => {
            let (len, from) = varint(bytes, at, end)?;
            let to = skip(from, len, end)?;
            (Value::Bytes { from, to }, to)
        }
        5 => (Value::Fixed32, skip(at, 4, end)?),
        _ => return Err("a group or an unknown wire type"),
    };
    Ok((tag >> 3, value, next))
}

/// Reads a varint; it and where the next thing begins.
pub(super) fn varint(bytes: &[u8], at: usize, end: usize) -> Result<(u64, usize), Found> {
    let mut value = 0u64;
    for (place, byte) in bytes[at..end].iter().take(10).enumerate() {
        let low = u64::from(byte & 0x7f);
        if place == 9 && low > 1 {
            return Err("a number over 64 bits");
        }
        value |= low << (7 * place);
        if byte & 0x80 == 0 {
            if place > 0 && low == 0 {
                return Err("a number with padding");
            }
            return Ok((value, at + place + 1));
        }
    }
    Err("a number that does not end")
}

fn skip(at: usize, len: u64, end: usize) -> Result<usize, Found> {
    let next = usize::try_from(len).ok().and_then(|len| at.checked_add(len));
    next.filter(|next| *next <= end).ok_or("a field that is longer than its message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_encoding_only() {
        for (bytes, value) in [(&[0][..], 0), (&[0x7f], 127), (&[0xac, 2], 300)] {
            assert_eq!(varint(bytes, 0, bytes.len()), Ok((value, bytes.len())));
        }
        let minus_one = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(varint(&minus_one, 0, 10), Ok((u64::MAX, 10)));
        let over = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
        for bytes in [&[0x80, 0][..], &[0xac, 0x82, 0], &[0x80], &[], &over, &[0xff; 11]] {
            assert!(varint(bytes, 0, bytes.len()).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_field_stays_inside_its_message() {
        assert_eq!(field(&[0x12, 1, 9], 0, 3), Ok((2, Value::Bytes { from: 2, to: 3 }, 3)));
        let endless = [0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        for bytes in [&[0x12, 2, 9][..], &endless, &[0x1d, 1], &[0x0b], &[0x0c], &[0x0e]] {
            assert!(field(bytes, 0, bytes.len()).is_err(), "{bytes:?}");
        }
    }
}
