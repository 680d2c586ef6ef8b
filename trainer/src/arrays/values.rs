//! The elements of a `.npy` array, read to its end and converted.
//!
//! Nothing is allocated on a header's word: memory grows with the data that has arrived. Arrays in
//! Fortran order (NumPy writes one for a transposed array) are brought into C order.

use std::io::Read;

use half::f16;

use super::header::{Header, Type};
use crate::train::Groups;
use crate::train::groups::Names;

/// Elements converted at a time.
const CHUNK: usize = 1 << 14;

/// Numbers as floats.
///
/// # Errors
/// Why the array cannot be used.
pub fn floats(header: &Header, from: &mut dyn Read) -> Result<Vec<f32>, String> {
    match header.element {
        Type::Bool => each(header, from, |b: [u8; 1]| f32::from(u8::from(b != [0]))),
        Type::Int(1) => each(header, from, |b| f32::from(i8::from_le_bytes(b))),
        Type::Int(2) => each(header, from, |b| f32::from(i16::from_le_bytes(b))),
        Type::Int(4) => each(header, from, |b| i32::from_le_bytes(b) as f32),
        Type::Int(_) => each(header, from, |b| i64::from_le_bytes(b) as f32),
        Type::Uint(1) => each(header, from, |b| f32::from(u8::from_le_bytes(b))),
        Type::Uint(2) => each(header, from, |b| f32::from(u16::from_le_bytes(b))),
        Type::Uint(4) => each(header, from, |b| u32::from_le_bytes(b) as f32),
        Type::Uint(_) => each(header, from, |b| u64::from_le_bytes(b) as f32),
        Type::Float(2) => each(header, from, |b| f16::from_le_bytes(b).to_f32()),
        Type::Float(4) => each(header, from, f32::from_le_bytes),
        Type::Float(_) => each(header, from, |b| f64::from_le_bytes(b) as f32),
        Type::Bytes(_) | Type::Text(_) => Err("its elements are texts, no numbers".into()),
    }
}

/// Whole numbers.
///
/// # Errors
/// Why the array cannot be used.
pub fn integers(header: &Header, from: &mut dyn Read) -> Result<Vec<i64>, String> {
    match header.element {
        Type::Bool => each(header, from, |b: [u8; 1]| i64::from(b != [0])),
        Type::Int(1) => each(header, from, |b| i64::from(i8::from_le_bytes(b))),
        Type::Int(2) => each(header, from, |b| i64::from(i16::from_le_bytes(b))),
        Type::Int(4) => each(header, from, |b| i64::from(i32::from_le_bytes(b))),
        Type::Int(_) => each(header, from, i64::from_le_bytes),
        Type::Uint(1) => each(header, from, |b| i64::from(u8::from_le_bytes(b))),
        Type::Uint(2) => each(header, from, |b| i64::from(u16::from_le_bytes(b))),
        Type::Uint(4) => each(header, from, |b| i64::from(u32::from_le_bytes(b))),
        Type::Uint(_) => {
            let values = each(header, from, |b| i64::try_from(u64::from_le_bytes(b)).ok())?;
            let whole: Option<Vec<i64>> = values.into_iter().collect();
            whole.ok_or_else(|| "it holds a number above 9223372036854775807".into())
        }
        _ => Err("its elements are no integers".into()),
    }
}

/// Samples by texts, or by whole numbers written out.
///
/// # Errors
/// Why the array cannot be used.
pub fn groups(header: &Header, from: &mut dyn Read) -> Result<Groups, String> {
    let size = header.element.size();
    let mut names = Names::default();
    let places = match header.element {
        Type::Bytes(_) => elements(header, from, size, |bytes| {
            names.place(String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned())
        }),
        Type::Text(_) => elements(header, from, size, |bytes| {
            let points = bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b));
            let text: Option<String> = points.map(char::from_u32).collect();
            names.place(text?.trim_end_matches('\0').to_owned())
        }),
        _ => {
            return Ok(integers(header, from)?.iter().map(i64::to_string).collect());
        }
    }?;
    let whole: Option<Vec<u32>> = places.into_iter().collect();
    let whole = whole.ok_or("it holds a text that is no Unicode")?;
    Ok(names.groups(whole))
}

/// Elements of `N` bytes.
fn each<const N: usize, T: Clone>(
    header: &Header,
    from: &mut dyn Read,
    convert: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, String> {
    elements(header, from, N, |bytes| {
        let mut element = [0u8; N];
        element.copy_from_slice(bytes);
        convert(element)
    })
}

/// Elements of `size` bytes, which `convert` gets the least significant byte first.
fn elements<T: Clone>(
    header: &Header,
    from: &mut dyn Read,
    size: usize,
    mut convert: impl FnMut(&[u8]) -> T,
) -> Result<Vec<T>, String> {
    let unit = if matches!(header.element, Type::Text(_)) { 4 } else { size };
    let turned = header.big_endian && !matches!(header.element, Type::Bytes(_));
    let mut left = header.count().ok_or("its shape is too large")?;
    let mut values = Vec::new();
    let mut buffer = vec![0u8; size * CHUNK.min(left)];
    while left > 0 {
        let now = left.min(CHUNK);
        let bytes = &mut buffer[..now * size];
        from.read_exact(bytes).map_err(|e| format!("its data ends early or is damaged: {e}"))?;
        if turned {
            bytes.chunks_exact_mut(unit).for_each(<[u8]>::reverse);
        }
        values.extend(bytes.chunks_exact(size).map(&mut convert));
        left -= now;
    }
    // The checksum is verified where the data ends.
    match from.read(&mut [0u8; 1]) {
        Ok(0) => {}
        Ok(_) => return Err("more data follows than its shape says".into()),
        Err(e) => return Err(format!("its data is damaged: {e}")),
    }
    let turn = header.fortran_order && header.shape.len() > 1;
    Ok(if turn { last_index_fastest(&values, &header.shape) } else { values })
}

/// Fortran order into C order.
fn last_index_fastest<T: Clone>(values: &[T], shape: &[usize]) -> Vec<T> {
    let mut steps = Vec::with_capacity(shape.len());
    let mut step = 1;
    for size in shape {
        steps.push(step);
        step *= size;
    }
    let mut index = vec![0; shape.len()];
    let mut ordered = Vec::with_capacity(values.len());
    let mut at = 0;
    for _ in 0..values.len() {
        ordered.push(values[at].clone());
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += steps[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= steps[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(element: Type, shape: &[usize]) -> Header {
        Header { element, big_endian: false, fortran_order: false, shape: shape.to_vec() }
    }

    #[test]
    fn numbers_of_every_type_are_converted() {
        let read =
            |element, bytes: &[u8]| floats(&header(element, &[1]), &mut &bytes[..]).unwrap()[0];
        assert_eq!(read(Type::Bool, &[7]), 1.0);
        assert_eq!(read(Type::Int(1), &[255]), -1.0);
        assert_eq!(read(Type::Uint(1), &[255]), 255.0);
        assert_eq!(read(Type::Int(2), &(-300i16).to_le_bytes()), -300.0);
        assert_eq!(read(Type::Int(8), &(-3i64).to_le_bytes()), -3.0);
        assert_eq!(read(Type::Uint(4), &3_000_000_000u32.to_le_bytes()), 3e9);
        assert_eq!(read(Type::Float(2), &f16::from_f32(0.5).to_le_bytes()), 0.5);
        assert_eq!(read(Type::Float(8), &0.25f64.to_le_bytes()), 0.25);
        let far = floats(&header(Type::Float(8), &[1]), &mut 1e300f64.to_le_bytes().as_slice());
        assert_eq!(far.unwrap(), [f32::INFINITY], "what does not fit is no finite number");
    }

    #[test]
    fn the_most_significant_byte_may_come_first() {
        let big = Header { big_endian: true, ..header(Type::Int(4), &[2]) };
        let bytes = [1i32.to_be_bytes(), (-2i32).to_be_bytes()].concat();
        assert_eq!(integers(&big, &mut bytes.as_slice()).unwrap(), [1, -2]);
        let text = Header { big_endian: true, ..header(Type::Text(2), &[1]) };
        let bytes = [u32::from('ü').to_be_bytes(), [0; 4]].concat();
        assert_eq!(groups(&text, &mut bytes.as_slice()).unwrap(), Groups::one("ü", 1));
    }

    #[test]
    fn fortran_order_is_brought_into_c_order() {
        let fortran = Header { fortran_order: true, ..header(Type::Uint(1), &[2, 3, 2]) };
        // x[i][j][k] = 100 i + 10 j + k, with i changing fastest.
        let mut bytes = Vec::new();
        for k in 0..2 {
            for j in 0..3 {
                bytes.extend((0..2).map(|i| 100 * i + 10 * j + k));
            }
        }
        let want = [0, 1, 10, 11, 20, 21, 100, 101, 110, 111, 120, 121];
        assert_eq!(integers(&fortran, &mut bytes.as_slice()).unwrap(), want);
    }

    #[test]
    fn too_little_and_too_much_data_is_refused() {
        let read = |bytes: &[u8]| floats(&header(Type::Float(4), &[2]), &mut &bytes[..]);
        assert!(read(&[0; 7]).unwrap_err().contains("ends early"));
        assert!(read(&[0; 9]).unwrap_err().contains("more data"));
        assert!(read(&[0; 8]).is_ok());
        let huge = header(Type::Float(4), &[1 << 40]);
        assert!(floats(&huge, &mut [0u8; 64].as_slice()).is_err(), "and nothing was allocated");
    }
}
