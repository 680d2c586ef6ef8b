//! Ed25519 keys (RFC 8032) by `ring`, for samples, reports, receipts and orders.

use std::collections::HashMap;
use std::fmt;

use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::KeyId;

/// A key that could not be made or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The system gave no random bytes.
    #[error("cannot make an Ed25519 key: the system's random source failed")]
    Random,
    /// The bytes are not a PKCS#8 Ed25519 private key.
    #[error("cannot read an Ed25519 private key: want PKCS#8 (RFC 8410); restore it from a backup")]
    Pkcs8,
    /// The bytes are not a public key.
    #[error("cannot read an Ed25519 public key: want 32 bytes in base64")]
    Public,
}

/// A private key. It is neither printable nor serialisable.
pub struct SigningKey {
    pair: Ed25519KeyPair,
}

impl SigningKey {
    /// Draws a key and returns it in PKCS#8 (RFC 8410), for the caller to keep.
    ///
    /// # Errors
    /// [`KeyError::Random`] when the system has no random bytes.
    pub fn generate_pkcs8() -> Result<Vec<u8>, KeyError> {
        let document =
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Random)?;
        Ok(document.as_ref().to_vec())
    }

    /// Reads a key from PKCS#8, version 1 or 2.
    ///
    /// # Errors
    /// [`KeyError::Pkcs8`] when the bytes are anything else.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, KeyError> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes)
            .map(|pair| Self { pair })
            .map_err(|_| KeyError::Pkcs8)
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(bytes)
    }

    /// The signature over `message`, 64 bytes; the same for the same message.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut out = [0; 64];
        out.copy_from_slice(self.pair.sign(message).as_ref());
        out
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public().id())
    }
}

/// A public key, 32 bytes; base64 in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// A key from its 32 bytes. Whether it is a point on the curve shows at the first check.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key's name.
    pub fn id(&self) -> KeyId {
        KeyId(Digest::of(&self.0))
    }

    /// Whether `signature` over `message` was made with this key.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;
    fn try_from(text: String) -> Result<Self, KeyError> {
        use base64::Engine as _;
        let bytes =
            base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| KeyError::Public)?;
        Ok(Self(bytes.try_into().map_err(|_| KeyError::Public)?))
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(key.0)
    }
}

/// The keys a reader accepts for one purpose, by name.
#[derive(Debug, Clone, Default)]
pub struct KeyRing(HashMap<KeyId, PublicKey>);

impl KeyRing {
    /// The key of that name, if it is accepted.
    pub fn get(&self, id: &KeyId) -> Option<&PublicKey> {
        self.0.get(id)
    }

    /// Whether no key is accepted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<PublicKey> for KeyRing {
    fn from_iter<I: IntoIterator<Item = PublicKey>>(keys: I) -> Self {
        Self(keys.into_iter().map(|key| (key.id(), key)).collect())
    }
}

/// `N` bytes from the system's random source: salts, secrets, epochs.
///
/// # Errors
/// [`KeyError::Random`] when the system has none.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], KeyError> {
    use ring::rand::SecureRandom as _;
    let mut out = [0; N];
    SystemRandom::new().fill(&mut out).map_err(|_| KeyError::Random)?;
    Ok(out)
}

/// Whether two secrets of any length are equal, in time that does not tell where they differ.
pub fn same_secret(a: &[u8], b: &[u8]) -> bool {
    // Comparing digests makes the time independent of the contents of either.
    Digest::of(a) == Digest::of(b)
}
