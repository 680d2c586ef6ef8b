//! The header of a `.npy` array (NumPy Enhancement Proposal 1): a Python dictionary of three keys.
//!
//! ```text
//! \x93NUMPY  major  minor  length (u16 in version 1, u32 after)  {'descr': '<f4', …}\n
//! ```
//!
//! Limits: [`HEADER_BYTES`], [`TEXT`]; sizes multiply without overflow. Types with fields and Python objects
//! are refused.

use std::io::Read;

/// The longest header that is read. NumPy writes 128 bytes for arrays such as ours.
pub const HEADER_BYTES: usize = 4096;

/// The longest text of an element, in bytes or code points.
const TEXT: usize = 256;

/// The type of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// One byte, zero or not.
    Bool,
    /// Signed, of so many bytes.
    Int(usize),
    /// Unsigned, of so many bytes.
    Uint(usize),
    /// IEEE 754, of so many bytes.
    Float(usize),
    /// So many bytes, zeros at the end left out.
    Bytes(usize),
    /// So many code points of four bytes, zeros at the end left out.
    Text(usize),
}

/// What an array is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The type of its elements.
    pub element: Type,
    /// Whether their bytes are the most significant first.
    pub big_endian: bool,
    /// Whether the first index changes fastest.
    pub fortran_order: bool,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl Type {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Self::Bool => 1,
            Self::Int(n) | Self::Uint(n) | Self::Float(n) | Self::Bytes(n) => n,
            Self::Text(n) => 4 * n,
        }
    }
}

impl Header {
    /// Reads the header and leaves `from` at the first element.
    ///
    /// # Errors
    /// Why the array cannot be used.
    pub fn read(from: &mut impl Read) -> Result<Self, String> {
        let mut start = [0u8; 8];
        from.read_exact(&mut start).map_err(|e| format!("its header cannot be read: {e}"))?;
        if &start[..6] != b"\x93NUMPY" {
            return Err("it is no NumPy array".into());
        }
        let length = match start[6] {
            1 => number::<2>(from)?,
            2 | 3 => number::<4>(from)?,
            version => return Err(format!("version {version} of the format is not known")),
        };
        if length > HEADER_BYTES {
            return Err(format!("its header has {length} bytes, at most {HEADER_BYTES} are read"));
        }
        let mut text = vec![0u8; length];
        from.read_exact(&mut text).map_err(|e| format!("its header cannot be read: {e}"))?;
        Literal { rest: &text }.header()
    }

    /// Number of elements; `None` when it does not fit.
    pub fn count(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size))
    }
}

fn number<const N: usize>(from: &mut impl Read) -> Result<usize, String> {
    let mut bytes = [0u8; N];
    from.read_exact(&mut bytes).map_err(|e| format!("its header cannot be read: {e}"))?;
    Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte)))
}

/// What is left to read of the dictionary.
struct Literal<'a> {
    rest: &'a [u8],
}

impl Literal<'_> {
    fn header(mut self) -> Result<Header, String> {
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        self.want(b'{')?;
        while !self.skip(b'}') {
            let key = self.text()?;
            self.want(b':')?;
            match key.as_str() {
                "descr" => descr = Some(self.element()?),
                "fortran_order" => fortran_order = Some(self.truth()?),
                "shape" => shape = Some(self.shape()?),
                other => return Err(format!("its header has a key '{other}' that is not known")),
            }
            if !self.skip(b',') {
                self.want(b'}')?;
                break;
            }
        }
        match (descr, fortran_order, shape) {
            (Some((element, big_endian)), Some(fortran_order), Some(shape)) => {
                Ok(Header { element, big_endian, fortran_order, shape })
            }
            _ => Err("its header lacks descr, fortran_order or shape".into()),
        }
    }

    fn element(&mut self) -> Result<(Type, bool), String> {
        if self.peek() == Some(b'[') {
            return Err("its elements have fields; save each field as an array".into());
        }
        let text = self.text()?;
        let refused = || format!("its element type '{text}' is not read");
        let mut letters = text.chars();
        let (order, kind) = (letters.next().ok_or_else(refused)?, letters.next());
        if kind == Some('O') {
            return Err(
                "its elements are Python objects; save it with a number type, as in x.astype('float32')"
                    .into(),
            );
        }
        let size: usize = letters.as_str().parse().map_err(|_| refused())?;
        let element = match (kind, size) {
            (Some('b'), 1) => Type::Bool,
            (Some('i'), 1 | 2 | 4 | 8) => Type::Int(size),
            (Some('u'), 1 | 2 | 4 | 8) => Type::Uint(size),
            (Some('f'), 2 | 4 | 8) => Type::Float(size),
            (Some('S'), 1..=TEXT) => Type::Bytes(size),
            (Some('U'), 1..=TEXT) => Type::Text(size),
            _ => return Err(refused()),
        };
        match order {
            '<' | '|' => Ok((element, false)),
            '>' => Ok((element, true)),
            _ => Err(refused()),
        }
    }

    fn shape(&mut self) -> Result<Vec<usize>, String> {
        self.want(b'(')?;
        let mut shape = Vec::new();
        while !self.skip(b')') {
            self.blanks();
            let digits = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
            let (number, rest) = self.rest.split_at(digits);
            let number = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok());
            shape.push(number.ok_or("its shape cannot be read")?);
            self.rest = rest;
            if !self.skip(b',') {
                self.want(b')')?;
                break;
            }
        }
        Ok(shape)
    }

    fn truth(&mut self) -> Result<bool, String> {
        self.blanks();
        for (word, value) in [(&b"True"[..], true), (b"False", false)] {
            if let Some(rest) = self.rest.strip_prefix(word) {
                self.rest = rest;
                return Ok(value);
            }
        }
        Err("its fortran_order is neither True nor False".into())
    }

    fn text(&mut self) -> Result<String, String> {
        self.blanks();
        let quote = self.rest.first().copied().filter(|b| matches!(b, b'\'' | b'"'));
        let end = quote.and_then(|quote| self.rest[1..].iter().position(|b| *b == quote));
        let end = end.ok_or("its header cannot be read: a quoted word is missing")?;
        let text = String::from_utf8_lossy(&self.rest[1..=end]).into_owned();
        self.rest = &self.rest[end + 2..];
        Ok(text)
    }

    fn want(&mut self, mark: u8) -> Result<(), String> {
        let missing = || format!("its header cannot be read: '{}' is missing", char::from(mark));
        self.skip(mark).then_some(()).ok_or_else(missing)
    }

    fn skip(&mut self, mark: u8) -> bool {
        let found = self.peek() == Some(mark);
        self.rest = if found { &self.rest[1..] } else { self.rest };
        found
    }

    fn peek(&mut self) -> Option<u8> {
        self.blanks();
        self.rest.first().copied()
    }

    fn blanks(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dictionary: &str) -> Vec<u8> {
        let length = dictionary.len() as u16;
        [b"\x93NUMPY\x01\x00".as_slice(), &length.to_le_bytes(), dictionary.as_bytes()].concat()
    }

    fn read(dictionary: &str) -> Result<Header, String> {
        Header::read(&mut file(dictionary).as_slice())
    }

    #[test]
    fn what_numpy_writes_is_read() {
        let header = read("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }   \n");
        let want = Header {
            element: Type::Float(4),
            big_endian: false,
            fortran_order: false,
            shape: vec![3, 4],
        };
        assert_eq!(header.unwrap(), want);
        let one = read("{'descr': '>U7', 'fortran_order': True, 'shape': (5,), }").unwrap();
        assert_eq!((one.element, one.big_endian, one.count()), (Type::Text(7), true, Some(5)));
        assert_eq!(
            read("{'descr':'|b1','fortran_order':False,'shape':()}").unwrap().count(),
            Some(1)
        );
    }

    #[test]
    fn what_is_no_plain_array_is_refused_with_its_reason() {
        let typed = |descr: &str| {
            read(&format!("{{'descr': {descr}, 'fortran_order': False, 'shape': (3,), }}"))
                .unwrap_err()
        };
        assert!(typed("'|O'").contains("Python objects"));
        assert!(typed("[('a', '<f4')]").contains("fields"));
        for descr in ["'<c8'", "'<f16'", "'=f4'", "'f4'", "''", "'<M8[ns]'", "'<U0'"] {
            assert!(typed(descr).contains("is not read"), "{descr}: {}", typed(descr));
        }
    }

    #[test]
    fn damage_is_an_error_at_every_place() {
        let whole = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }";
        for cut in 0..whole.len() {
            assert!(read(&whole[..cut]).is_err(), "{cut}");
        }
        let bytes = file(whole);
        for cut in 0..bytes.len() {
            assert!(Header::read(&mut &bytes[..cut]).is_err(), "{cut}");
        }
        assert!(read("{'descr': '<f4', 'more': False}").unwrap_err().contains("'more'"));
        let large =
            read("{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 9999999999)}");
        assert_eq!(large.unwrap().count(), None);
        assert!(read("{'descr': '<f4', 'shape': (99999999999999999999,)}").is_err());
        let long = [b"\x93NUMPY\x02\x00".as_slice(), &u32::MAX.to_le_bytes()].concat();
        assert!(Header::read(&mut long.as_slice()).unwrap_err().contains("at most"));
    }
}
