//! Bytes to values and back: the one place where `bincode` is used.
//!
//! Format: one version byte, then the `bincode` 2 standard encoding (little endian, variable-length
//! integers) of the message's form in [`crate::form`]. Invariants: a slice over the type's limit is
//! refused before anything is read; no allocation goes over [`MESSAGE_BYTES`] whatever lengths the
//! bytes claim; bytes that are left over are an error; an unknown version is an error that names it.
//! The hub refuses a message of an unknown version for now, not for good, so that an upgrade costs
//! no sample ([`crate::receipt::RefusalReason::UnknownVersion`]).

use bincode::{Decode, Encode};

use crate::limits::MESSAGE_BYTES;

/// The version of the wire format.
pub const VERSION: u8 = 1;

/// A message with a form on the wire.
pub trait Wire: Sized {
    /// Its form: a type of [`crate::form`].
    type Form: Encode + Decode<()>;
    /// What the message is called in errors.
    const NAME: &'static str;
    /// The most bytes the message may take, the version byte included.
    const LIMIT_BYTES: usize;

    /// The form of this value.
    fn to_form(&self) -> Self::Form;

    /// The value of a form.
    ///
    /// # Errors
    /// What is out of range, in words.
    fn from_form(form: Self::Form) -> Result<Self, Invalid>;

    /// What the form names that only a newer build knows, in words. Such a message is no damage: its
    /// sender tries again when the reader was upgraded.
    fn unknown(_form: &Self::Form) -> Option<String> {
        None
    }
}

/// A field that decoded but cannot be: what is wrong, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl Invalid {
    /// From anything that explains itself.
    pub fn because(reason: impl std::fmt::Display) -> Self {
        Self(reason.to_string())
    }
}

/// Why bytes are not the message they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than the message may take.
    #[error("cannot read {name}: {len} bytes, the limit is {limit}")]
    TooLarge {
        /// The message.
        name: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Written by a newer build, or not a message at all.
    #[error(
        "cannot read {name}: version {version}, this build reads version {VERSION}; upgrade it"
    )]
    UnknownVersion {
        /// The message.
        name: &'static str,
        /// The version byte.
        version: u8,
    },
    /// It names something that this build does not know: written by a newer one.
    #[error("cannot read {name}: {what}; upgrade it")]
    Unknown {
        /// The message.
        name: &'static str,
        /// What is not known.
        what: String,
    },
    /// Not the encoding of this message.
    #[error("cannot read {name}: malformed ({reason})")]
    Malformed {
        /// The message.
        name: &'static str,
        /// What the decoder met.
        reason: String,
    },
    /// Bytes are left over.
    #[error("cannot read {name}: {extra} trailing bytes")]
    Trailing {
        /// The message.
        name: &'static str,
        /// How many bytes are left over.
        extra: usize,
    },
}

/// The bytes of a message.
///
/// # Errors
/// [`DecodeError::TooLarge`] when a reader would refuse them: the caller holds an oversized value.
pub fn encode<T: Wire>(value: &T) -> Result<Vec<u8>, DecodeError> {
    let mut out = vec![VERSION];
    bincode::encode_into_std_write(value.to_form(), &mut out, bincode::config::standard())
        .map_err(|error| DecodeError::Malformed { name: T::NAME, reason: error.to_string() })?;
    within_limit::<T>(&out)?;
    Ok(out)
}

/// The message in `bytes`, all of them.
///
/// # Errors
/// [`DecodeError`] says what the bytes are instead.
pub fn decode<T: Wire>(bytes: &[u8]) -> Result<T, DecodeError> {
    within_limit::<T>(bytes)?;
    let name = T::NAME;
    let malformed = |reason: String| DecodeError::Malformed { name, reason };
    let (&version, body) = bytes.split_first().ok_or_else(|| malformed("no bytes".into()))?;
    if version != VERSION {
        return Err(DecodeError::UnknownVersion { name, version });
    }
    let config = bincode::config::standard().with_limit::<MESSAGE_BYTES>();
    let (form, used): (T::Form, usize) =
        bincode::decode_from_slice(body, config).map_err(|error| malformed(error.to_string()))?;
    if used != body.len() {
        return Err(DecodeError::Trailing { name, extra: body.len() - used });
    }
    if let Some(what) = T::unknown(&form) {
        return Err(DecodeError::Unknown { name, what });
    }
    T::from_form(form).map_err(|invalid| malformed(invalid.0))
}

fn within_limit<T: Wire>(bytes: &[u8]) -> Result<(), DecodeError> {
    if bytes.len() > T::LIMIT_BYTES {
        return Err(DecodeError::TooLarge {
            name: T::NAME,
            len: bytes.len(),
            limit: T::LIMIT_BYTES,
        });
    }
    Ok(())
}
