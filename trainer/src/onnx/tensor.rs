//! A tensor of an ONNX file on the host.
//!
//! Read are `FLOAT`, `INT64` and `INT32` (widened to `i64`), from `raw_data` (little-endian) or the
//! typed field. Everything else, external data included, is refused with its reason.

use onnx_ir::TensorProto;

use super::OnnxError;

/// `TensorProto.DataType.FLOAT`.
pub const FLOAT: i32 = 1;
/// `TensorProto.DataType.INT32`.
pub const INT32: i32 = 6;
/// `TensorProto.DataType.INT64`.
pub const INT64: i32 = 7;

/// The elements of a tensor in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub enum Elements {
    /// 32-bit floats.
    Float(Vec<f32>),
    /// Integers; 32-bit ones are widened.
    Int(Vec<i64>),
}

/// A shape and its elements; their count is the product of the shape.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// The dimensions; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements.
    pub elements: Elements,
}

impl HostTensor {
    /// Reads one tensor of a file.
    ///
    /// # Errors
    /// [`OnnxError::Tensor`] when the payload is external, of a type this crate does not read, or
    /// not as long as the shape says.
    pub fn read(proto: &TensorProto) -> Result<Self, OnnxError> {
        let refuse = |why: String| OnnxError::Tensor { tensor: proto.name.clone(), why };
        if !proto.external_data.is_empty() || proto.data_location.value() != 0 {
            return Err(refuse("its data lies in another file; save the model as one file (save_as_external_data=False)".into()));
        }
        let shape = shape(proto)
            .ok_or_else(|| refuse("its shape has a negative or overflowing dimension".into()))?;
        let elements = match proto.data_type {
            FLOAT => Elements::Float(if proto.raw_data.is_empty() {
                proto.float_data.clone()
            } else {
                words(&proto.raw_data)
                    .ok_or_else(|| refuse(ragged(4)))?
                    .map(f32::from_le_bytes)
                    .collect()
            }),
            INT64 => Elements::Int(if proto.raw_data.is_empty() {
                proto.int64_data.clone()
            } else {
                words(&proto.raw_data)
                    .ok_or_else(|| refuse(ragged(8)))?
                    .map(i64::from_le_bytes)
                    .collect()
            }),
            INT32 => Elements::Int(if proto.raw_data.is_empty() {
                proto.int32_data.iter().map(|v| i64::from(*v)).collect()
            } else {
                words(&proto.raw_data)
                    .ok_or_else(|| refuse(ragged(4)))?
                    .map(|w| i64::from(i32::from_le_bytes(w)))
                    .collect()
            }),
            other => {
                return Err(refuse(format!(
                    "data type {other} is not read (float, int32 and int64 are); convert the model to fp32"
                )));
            }
        };
        let count = match &elements {
            Elements::Float(v) => v.len(),
            Elements::Int(v) => v.len(),
        };
        let expected: usize = shape.iter().product();
        if count != expected {
            return Err(refuse(format!(
                "shape {shape:?} needs {expected} elements, the file holds {count}"
            )));
        }
        Ok(Self { shape, elements })
    }

    /// A one-dimensional integer tensor.
    pub fn ints(values: Vec<i64>) -> Self {
        Self { shape: vec![values.len()], elements: Elements::Int(values) }
    }
}

fn shape(proto: &TensorProto) -> Option<Vec<usize>> {
    let shape: Option<Vec<usize>> = proto.dims.iter().map(|d| usize::try_from(*d).ok()).collect();
    let shape = shape?;
    shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
    Some(shape)
}

fn words<const N: usize>(raw: &[u8]) -> Option<impl Iterator<Item = [u8; N]> + '_> {
    let (chunks, rest) = raw.as_chunks::<N>();
    rest.is_empty().then(|| chunks.iter().copied())
}

fn ragged(width: usize) -> String {
    format!("its data is no multiple of {width} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proto(data_type: i32, dims: &[i64]) -> TensorProto {
        TensorProto { name: "w".into(), data_type, dims: dims.to_vec(), ..Default::default() }
    }

    #[test]
    fn raw_and_typed_payloads_read_alike() {
        let mut raw = proto(FLOAT, &[2]);
        raw.raw_data =
            [1.5f32, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into();
        let mut typed = proto(FLOAT, &[2]);
        typed.float_data = vec![1.5, -2.0];
        let want = HostTensor { shape: vec![2], elements: Elements::Float(vec![1.5, -2.0]) };
        assert_eq!(HostTensor::read(&raw).unwrap(), want);
        assert_eq!(HostTensor::read(&typed).unwrap(), want);

        let mut narrow = proto(INT32, &[2]);
        narrow.raw_data =
            [-1i32, 7].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into();
        assert_eq!(HostTensor::read(&narrow).unwrap(), HostTensor::ints(vec![-1, 7]));
    }

    #[test]
    fn what_cannot_be_read_names_the_tensor_and_the_reason() {
        let mut external = proto(FLOAT, &[2]);
        external.external_data.push(Default::default());
        let mut short = proto(FLOAT, &[3]);
        short.float_data = vec![1.0];
        let mut ragged = proto(INT64, &[1]);
        ragged.raw_data = vec![0u8; 7].into();
        for (tensor, word) in [
            (external, "another file"),
            (short, "needs 3"),
            (ragged, "multiple of 8"),
            (proto(10, &[1]), "type 10"),
            (proto(FLOAT, &[-1]), "negative"),
            (proto(FLOAT, &[i64::MAX, 4]), "overflowing"),
        ] {
            let text = HostTensor::read(&tensor).unwrap_err().to_string();
            assert!(text.contains("'w'") && text.contains(word), "{text}");
        }
    }
}
