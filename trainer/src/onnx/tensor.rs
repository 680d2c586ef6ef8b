//! A tensor of an ONNX file on the host.
//!
//! Read are floats (`f32`, `f64`, `f16`, `bf16`, widened or narrowed to `f32`), integers of any
//! width (widened to `i64`) and booleans, from `raw_data` (little-endian) or the typed field. Text,
//! complex numbers, 8- and 4-bit floats and data in another file are refused with their reason.

use half::{bf16, f16};
use onnx_ir::TensorProto;

use super::OnnxError;

/// What a value is computed as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `f32`.
    Float,
    /// `i64`.
    Int,
    /// A truth value.
    Bool,
}

/// The type of a value's elements in a file: `TensorProto.DataType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// 16-bit float.
    F16,
    /// 16-bit float with the range of a 32-bit one.
    Bf16,
    /// 8-bit integer.
    I8,
    /// 16-bit integer.
    I16,
    /// 32-bit integer.
    I32,
    /// 64-bit integer.
    I64,
    /// 8-bit unsigned integer.
    U8,
    /// 16-bit unsigned integer.
    U16,
    /// 32-bit unsigned integer.
    U32,
    /// 64-bit unsigned integer.
    U64,
    /// Truth value.
    Bool,
}

impl Element {
    /// The type of that ONNX number, or a reason why it is not read.
    ///
    /// # Errors
    /// The number names a type that is not read.
    pub fn of(data_type: i32) -> Result<Self, String> {
        Ok(match data_type {
            1 => Self::F32,
            2 => Self::U8,
            3 => Self::I8,
            4 => Self::U16,
            5 => Self::I16,
            6 => Self::I32,
            7 => Self::I64,
            9 => Self::Bool,
            10 => Self::F16,
            11 => Self::F64,
            12 => Self::U32,
            13 => Self::U64,
            16 => Self::Bf16,
            other => {
                return Err(format!(
                    "data type {other} is not read (floats of 16 to 64 bits, integers and booleans are)"
                ));
            }
        })
    }

    /// What it is computed as.
    pub fn kind(self) -> Kind {
        match self {
            Self::F32 | Self::F64 | Self::F16 | Self::Bf16 => Kind::Float,
            Self::Bool => Kind::Bool,
            _ => Kind::Int,
        }
    }

    /// Whether it is a float that a runtime takes: of 16, 32 or 64 bits.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::F32 | Self::F64)
    }

    /// Width of one element in `raw_data`, in bytes.
    pub fn width(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }

    /// The smallest and largest value of an integer type, as far as `i64` holds them.
    pub fn range(self) -> (i64, i64) {
        match self {
            Self::I8 => (i8::MIN.into(), i8::MAX.into()),
            Self::I16 => (i16::MIN.into(), i16::MAX.into()),
            Self::I32 => (i32::MIN.into(), i32::MAX.into()),
            Self::U8 => (0, u8::MAX.into()),
            Self::U16 => (0, u16::MAX.into()),
            Self::U32 => (0, u32::MAX.into()),
            Self::U64 => (0, i64::MAX),
            _ => (i64::MIN, i64::MAX),
        }
    }
}

/// The elements of a tensor in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub enum Elements {
    /// Floats of any width, as `f32`.
    Float(Vec<f32>),
    /// Integers of any width, as `i64`.
    Int(Vec<i64>),
    /// Truth values.
    Bool(Vec<bool>),
}

impl Elements {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Float(v) => v.len(),
            Self::Int(v) => v.len(),
            Self::Bool(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A shape and its elements; their count is the product of the shape.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// The type of its elements in the file.
    pub element: Element,
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
            return Err(refuse("its data lies in another file, and only this one was given; give the model's path, with that file beside it".into()));
        }
        let shape = shape(proto)
            .ok_or_else(|| refuse("its shape has a negative or overflowing dimension".into()))?;
        let element = Element::of(proto.data_type).map_err(refuse)?;
        let elements = if proto.raw_data.is_empty() {
            typed(proto, element)
        } else if proto.raw_data.len().is_multiple_of(element.width()) {
            raw(&proto.raw_data, element)
        } else {
            return Err(refuse(format!("its data is no multiple of {} bytes", element.width())));
        };
        let expected: usize = shape.iter().product();
        if elements.len() != expected {
            return Err(refuse(format!(
                "shape {shape:?} needs {expected} elements, the file holds {}",
                elements.len()
            )));
        }
        Ok(Self { element, shape, elements })
    }

    /// A one-dimensional integer tensor.
    pub fn ints(values: Vec<i64>) -> Self {
        Self { element: Element::I64, shape: vec![values.len()], elements: Elements::Int(values) }
    }

    /// A one-dimensional float tensor.
    pub fn floats(values: Vec<f32>) -> Self {
        Self { element: Element::F32, shape: vec![values.len()], elements: Elements::Float(values) }
    }

    /// The same with no dimensions; it has to have one element.
    #[must_use]
    pub fn scalar(mut self) -> Self {
        self.shape.clear();
        self
    }
}

fn shape(proto: &TensorProto) -> Option<Vec<usize>> {
    let shape: Option<Vec<usize>> = proto.dims.iter().map(|d| usize::try_from(*d).ok()).collect();
    let shape = shape?;
    shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
    Some(shape)
}

fn words<const N: usize, T>(raw: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    raw.as_chunks::<N>().0.iter().map(|word| read(*word)).collect()
}

fn raw(raw: &[u8], element: Element) -> Elements {
    match element {
        Element::F32 => Elements::Float(words(raw, f32::from_le_bytes)),
        Element::F64 => Elements::Float(words(raw, |w| f64::from_le_bytes(w) as f32)),
        Element::F16 => Elements::Float(words(raw, |w| f16::from_le_bytes(w).to_f32())),
        Element::Bf16 => Elements::Float(words(raw, |w| bf16::from_le_bytes(w).to_f32())),
        Element::I8 => Elements::Int(words(raw, |w| i8::from_le_bytes(w).into())),
        Element::I16 => Elements::Int(words(raw, |w| i16::from_le_bytes(w).into())),
        Element::I32 => Elements::Int(words(raw, |w| i32::from_le_bytes(w).into())),
        Element::I64 => Elements::Int(words(raw, i64::from_le_bytes)),
        Element::U8 => Elements::Int(words(raw, |w| u8::from_le_bytes(w).into())),
        Element::U16 => Elements::Int(words(raw, |w| u16::from_le_bytes(w).into())),
        Element::U32 => Elements::Int(words(raw, |w| u32::from_le_bytes(w).into())),
        Element::U64 => Elements::Int(words(raw, |w| u64::from_le_bytes(w) as i64)),
        Element::Bool => Elements::Bool(raw.iter().map(|b| *b != 0).collect()),
    }
}

/// From the field that protobuf has for the type; narrow ones share `int32_data`.
fn typed(proto: &TensorProto, element: Element) -> Elements {
    let narrow = || proto.int32_data.iter();
    match element {
        Element::F32 => Elements::Float(proto.float_data.clone()),
        Element::F64 => Elements::Float(proto.double_data.iter().map(|v| *v as f32).collect()),
        Element::F16 => {
            Elements::Float(narrow().map(|v| f16::from_bits(*v as u16).to_f32()).collect())
        }
        Element::Bf16 => {
            Elements::Float(narrow().map(|v| bf16::from_bits(*v as u16).to_f32()).collect())
        }
        Element::I64 => Elements::Int(proto.int64_data.clone()),
        Element::U32 | Element::U64 => {
            Elements::Int(proto.uint64_data.iter().map(|v| *v as i64).collect())
        }
        Element::Bool => Elements::Bool(narrow().map(|v| *v != 0).collect()),
        _ => Elements::Int(narrow().map(|v| i64::from(*v)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proto(data_type: i32, dims: &[i64]) -> TensorProto {
        TensorProto { name: "w".into(), data_type, dims: dims.to_vec(), ..Default::default() }
    }

    #[test]
    fn raw_and_typed_payloads_read_alike() {
        let mut raw = proto(1, &[2]);
        raw.raw_data =
            [1.5f32, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into();
        let mut typed = proto(1, &[2]);
        typed.float_data = vec![1.5, -2.0];
        let want = HostTensor::floats(vec![1.5, -2.0]);
        assert_eq!(HostTensor::read(&raw).unwrap(), want);
        assert_eq!(HostTensor::read(&typed).unwrap(), want);

        let mut narrow = proto(6, &[2]);
        narrow.raw_data =
            [-1i32, 7].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into();
        let read = HostTensor::read(&narrow).unwrap();
        assert_eq!((read.element, read.elements), (Element::I32, Elements::Int(vec![-1, 7])));
    }

    #[test]
    fn every_width_is_widened() {
        let read = |data_type, raw: &[u8], count: i64| {
            let mut tensor = proto(data_type, &[count]);
            tensor.raw_data = raw.to_vec().into();
            HostTensor::read(&tensor).unwrap().elements
        };
        assert_eq!(read(10, &[0x00, 0x3e], 1), Elements::Float(vec![1.5]));
        assert_eq!(read(16, &[0xc0, 0x3f], 1), Elements::Float(vec![1.5]));
        assert_eq!(read(11, &(-0.25f64).to_le_bytes(), 1), Elements::Float(vec![-0.25]));
        assert_eq!(read(3, &[0xff, 2], 2), Elements::Int(vec![-1, 2]));
        assert_eq!(read(2, &[0xff, 2], 2), Elements::Int(vec![255, 2]));
        assert_eq!(read(9, &[0, 1], 2), Elements::Bool(vec![false, true]));
        let mut half = proto(10, &[1]);
        half.int32_data = vec![0x3e00];
        assert_eq!(HostTensor::read(&half).unwrap().elements, Elements::Float(vec![1.5]));
    }

    #[test]
    fn what_cannot_be_read_names_the_tensor_and_the_reason() {
        let mut external = proto(1, &[2]);
        external.external_data.push(Default::default());
        let mut short = proto(1, &[3]);
        short.float_data = vec![1.0];
        let mut ragged = proto(7, &[1]);
        ragged.raw_data = vec![0u8; 7].into();
        for (tensor, word) in [
            (external, "another file"),
            (short, "needs 3"),
            (ragged, "multiple of 8"),
            (proto(8, &[1]), "type 8"),
            (proto(1, &[-1]), "negative"),
            (proto(1, &[i64::MAX, 4]), "overflowing"),
        ] {
            let text = HostTensor::read(&tensor).unwrap_err().to_string();
            assert!(text.contains("'w'") && text.contains(word), "{text}");
        }
    }
}
