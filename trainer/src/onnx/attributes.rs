//! A node's attributes, typed.
//!
//! Every read is remembered; [`Attributes::finish`] refuses what nobody asked for, so that an
//! attribute this crate does not honour never goes by in silence.

use std::cell::RefCell;
use std::collections::HashSet;

use onnx_ir::{AttributeProto, AttributeType, NodeProto, TensorProto};

/// The largest entry of a list of sizes; arithmetic on sizes up to it cannot overflow.
const MAX_SIZE: usize = 1 << 31;

/// The attributes of one node.
#[derive(Debug)]
pub struct Attributes<'a> {
    node: &'a NodeProto,
    asked: RefCell<HashSet<&'static str>>,
}

impl<'a> Attributes<'a> {
    /// The attributes of `node`.
    pub fn of(node: &'a NodeProto) -> Self {
        Self { node, asked: RefCell::default() }
    }

    fn find(
        &self,
        name: &'static str,
        kind: AttributeType,
    ) -> Result<Option<&'a AttributeProto>, String> {
        self.asked.borrow_mut().insert(name);
        match self.node.attribute.iter().find(|a| a.name == name) {
            None => Ok(None),
            Some(a) if a.type_.enum_value() == Ok(kind) => Ok(Some(a)),
            Some(a) => Err(format!("attribute '{name}' has type {:?}, not {kind:?}", a.type_)),
        }
    }

    /// An integer, or `default` when absent.
    ///
    /// # Errors
    /// The attribute has another type.
    pub fn int(&self, name: &'static str, default: i64) -> Result<i64, String> {
        Ok(self.find(name, AttributeType::INT)?.map_or(default, |a| a.i))
    }

    /// An integer, when present.
    ///
    /// # Errors
    /// The attribute has another type.
    pub fn optional_int(&self, name: &'static str) -> Result<Option<i64>, String> {
        Ok(self.find(name, AttributeType::INT)?.map(|a| a.i))
    }

    /// A float, when present.
    ///
    /// # Errors
    /// The attribute has another type.
    pub fn optional_float(&self, name: &'static str) -> Result<Option<f32>, String> {
        Ok(self.find(name, AttributeType::FLOAT)?.map(|a| a.f))
    }

    /// A boolean kept as an integer.
    ///
    /// # Errors
    /// The attribute has another type.
    pub fn flag(&self, name: &'static str, default: bool) -> Result<bool, String> {
        Ok(self.int(name, i64::from(default))? != 0)
    }

    /// A float, or `default` when absent.
    ///
    /// # Errors
    /// The attribute has another type.
    pub fn float(&self, name: &'static str, default: f32) -> Result<f32, String> {
        Ok(self.find(name, AttributeType::FLOAT)?.map_or(default, |a| a.f))
    }

    /// A list of integers, when present.
    ///
    /// # Errors
    /// The attribute has another type.
    pub fn ints(&self, name: &'static str) -> Result<Option<&'a [i64]>, String> {
        Ok(self.find(name, AttributeType::INTS)?.map(|a| a.ints.as_slice()))
    }

    /// A list of floats, when present.
    ///
    /// # Errors
    /// The attribute has another type.
    pub fn floats(&self, name: &'static str) -> Result<Option<&'a [f32]>, String> {
        Ok(self.find(name, AttributeType::FLOATS)?.map(|a| a.floats.as_slice()))
    }

    /// A list of sizes of exactly `len` entries, or `default` in every place.
    ///
    /// # Errors
    /// Another type, another length, or an entry below `least`.
    pub fn sizes(
        &self,
        name: &'static str,
        len: usize,
        default: usize,
        least: usize,
    ) -> Result<Vec<usize>, String> {
        let Some(values) = self.ints(name)? else { return Ok(vec![default; len]) };
        if values.len() != len {
            return Err(format!(
                "attribute '{name}' has {} entries, {len} are needed",
                values.len()
            ));
        }
        values
            .iter()
            .map(|v| {
                usize::try_from(*v).ok().filter(|v| (least..=MAX_SIZE).contains(v)).ok_or_else(
                    || format!("attribute '{name}' holds {v}, {least} to {MAX_SIZE} is needed"),
                )
            })
            .collect()
    }

    /// A text, or `default` when absent.
    ///
    /// # Errors
    /// The attribute has another type or is no UTF-8.
    pub fn text(&self, name: &'static str, default: &'static str) -> Result<&'a str, String> {
        match self.find(name, AttributeType::STRING)? {
            None => Ok(default),
            Some(a) => {
                std::str::from_utf8(&a.s).map_err(|_| format!("attribute '{name}' is no UTF-8"))
            }
        }
    }

    /// A list of texts, when present.
    ///
    /// # Errors
    /// The attribute has another type or is no UTF-8.
    pub fn texts(&self, name: &'static str) -> Result<Option<Vec<&'a str>>, String> {
        let Some(a) = self.find(name, AttributeType::STRINGS)? else { return Ok(None) };
        let texts = a.strings.iter().map(|s| std::str::from_utf8(s));
        let texts: Result<_, _> = texts.collect();
        texts.map(Some).map_err(|_| format!("attribute '{name}' is no UTF-8"))
    }

    /// A tensor, when present.
    ///
    /// # Errors
    /// The attribute has another type.
    pub fn tensor(&self, name: &'static str) -> Result<Option<&'a TensorProto>, String> {
        Ok(self.find(name, AttributeType::TENSOR)?.and_then(|a| a.t.as_ref()))
    }

    /// Refuses attributes that were never asked for.
    ///
    /// # Errors
    /// Names each of them.
    pub fn finish(&self) -> Result<(), String> {
        let asked = self.asked.borrow();
        let rest: Vec<&str> = self
            .node
            .attribute
            .iter()
            .map(|a| a.name.as_str())
            .filter(|n| !asked.contains(n))
            .collect();
        if rest.is_empty() {
            Ok(())
        } else {
            Err(format!("attribute {} is not honoured", rest.join(", ")))
        }
    }
}
