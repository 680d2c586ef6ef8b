//! Bytes to values and back: the one place where `bincode` is used.
//!
//! Format: one version byte, then the `bincode` 2 standard encoding (little endian, variable-length
//! integers) of a frozen form of the message: of [`crate::v1`], or of [`crate::v2`] where there is a
//! second one. Invariants: a slice over the type's limit is refused before anything is read; no
//! allocation goes over [`MESSAGE_BYTES`] whatever lengths the bytes claim; bytes that are left over
//! are an error; an unknown version is an error that names it.
//!
//! Versions: every form this build knows is read. What is written depends on the reader: the message
//! itself says which form says all of it to a peer that reads up to some version ([`Wire::freeze`]).
//! A device names what it reads in `Reported`, the hub in its answer to `GET /time`; until a peer
//! has said otherwise it reads version 1.

use bincode::{Decode, Encode};

use crate::limits::MESSAGE_BYTES;

/// The newest version this build reads.
pub const VERSION: u8 = 2;

/// The version that every build reads.
pub const OLDEST: u8 = 1;

/// A message with frozen wire forms.
pub trait Wire: Sized {
    /// Its frozen forms: a type of [`crate::v1`], or [`Two`] of one of those and one of
    /// [`crate::v2`].
    type Frozen: Frozen;
    /// What the message is called in errors.
    const NAME: &'static str;
    /// The most bytes the message may take, the version byte included.
    const LIMIT_BYTES: usize;

    /// The form of this value for a peer that reads up to version `reads`; none when that peer has
    /// no form that can say it. A form that drops what an older peer need not know is a form.
    fn freeze(&self, reads: u8) -> Option<Self::Frozen>;

    /// The value of a frozen form.
    ///
    /// # Errors
    /// What is out of range, in words.
    fn thaw(frozen: Self::Frozen) -> Result<Self, Invalid>;
}

/// The frozen forms of one message, each with its version. A plain type is version 1 and alone.
pub trait Frozen: Sized {
    /// The newest version there is.
    const NEWEST: u8;

    /// Which version this one is.
    fn version(&self) -> u8;

    /// Writes the form behind what is in `out`.
    ///
    /// # Errors
    /// The encoder's.
    fn write(&self, out: &mut Vec<u8>) -> Result<(), bincode::error::EncodeError>;

    /// The form of that version at the start of `body` and how many bytes it took; none when there
    /// is no such version.
    ///
    /// # Errors
    /// The decoder's.
    fn read(version: u8, body: &[u8])
    -> Result<Option<(Self, usize)>, bincode::error::DecodeError>;
}

impl<T: Encode + Decode<()>> Frozen for T {
    const NEWEST: u8 = 1;

    fn version(&self) -> u8 {
        1
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<(), bincode::error::EncodeError> {
        write_form(self, out)
    }

    fn read(
        version: u8,
        body: &[u8],
    ) -> Result<Option<(Self, usize)>, bincode::error::DecodeError> {
        (version == 1).then(|| read_form(body)).transpose()
    }
}

/// A message with a form of version 1 and one of version 2.
#[derive(Debug)]
pub enum Two<A, B> {
    /// Of [`crate::v1`].
    V1(A),
    /// Of [`crate::v2`].
    V2(B),
}

impl<A: Encode + Decode<()>, B: Encode + Decode<()>> Frozen for Two<A, B> {
    const NEWEST: u8 = 2;

    fn version(&self) -> u8 {
        match self {
            Self::V1(_) => 1,
            Self::V2(_) => 2,
        }
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<(), bincode::error::EncodeError> {
        match self {
            Self::V1(form) => write_form(form, out),
            Self::V2(form) => write_form(form, out),
        }
    }

    fn read(
        version: u8,
        body: &[u8],
    ) -> Result<Option<(Self, usize)>, bincode::error::DecodeError> {
        Ok(match version {
            1 => Some(read_form(body).map(|(form, used)| (Self::V1(form), used))?),
            2 => Some(read_form(body).map(|(form, used)| (Self::V2(form), used))?),
            _ => None,
        })
    }
}

fn write_form<T: Encode>(form: &T, out: &mut Vec<u8>) -> Result<(), bincode::error::EncodeError> {
    bincode::encode_into_std_write(form, out, bincode::config::standard()).map(|_| ())
}

fn read_form<T: Decode<()>>(body: &[u8]) -> Result<(T, usize), bincode::error::DecodeError> {
    let config = bincode::config::standard().with_limit::<MESSAGE_BYTES>();
    bincode::decode_from_slice(body, config)
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
    #[error("cannot read {name}: version {version}, this build reads up to {newest}; upgrade it")]
    UnknownVersion {
        /// The message.
        name: &'static str,
        /// The version byte.
        version: u8,
        /// The newest version of this message that this build reads.
        newest: u8,
    },
    /// The peer's build is too old to be told.
    #[error("cannot write {name} for a peer that reads up to version {reads}; upgrade that one")]
    PeerTooOld {
        /// The message.
        name: &'static str,
        /// The newest version the peer reads.
        reads: u8,
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

/// The bytes of a message for a peer of any build.
///
/// # Errors
/// As [`encode_for`] a peer that reads [`OLDEST`].
pub fn encode<T: Wire>(value: &T) -> Result<Vec<u8>, DecodeError> {
    encode_for(value, OLDEST)
}

/// The bytes of a message for a peer that reads up to version `reads`.
///
/// # Errors
/// [`DecodeError::TooLarge`] when a reader would refuse them: the caller holds an oversized value;
/// [`DecodeError::PeerTooOld`].
pub fn encode_for<T: Wire>(value: &T, reads: u8) -> Result<Vec<u8>, DecodeError> {
    let name = T::NAME;
    let frozen = value.freeze(reads).ok_or(DecodeError::PeerTooOld { name, reads })?;
    let mut out = vec![frozen.version()];
    frozen
        .write(&mut out)
        .map_err(|error| DecodeError::Malformed { name, reason: error.to_string() })?;
    within_limit::<T>(&out)?;
    Ok(out)
}

/// The message in `bytes`, all of them, of any version that this build reads.
///
/// # Errors
/// [`DecodeError`] says what the bytes are instead.
pub fn decode<T: Wire>(bytes: &[u8]) -> Result<T, DecodeError> {
    within_limit::<T>(bytes)?;
    let name = T::NAME;
    let malformed = |reason: String| DecodeError::Malformed { name, reason };
    let (&version, body) = bytes.split_first().ok_or_else(|| malformed("no bytes".into()))?;
    let newest = T::Frozen::NEWEST;
    let (frozen, used) = T::Frozen::read(version, body)
        .map_err(|error| malformed(error.to_string()))?
        .ok_or(DecodeError::UnknownVersion { name, version, newest })?;
    if used != body.len() {
        return Err(DecodeError::Trailing { name, extra: body.len() - used });
    }
    T::thaw(frozen).map_err(|invalid| malformed(invalid.0))
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
