//! The enrolment token: where trust begins.
//!
//! Text form: `fleetloop1.` and base64url (no padding) of the wire form followed by the first four
//! bytes of its SHA-256, which catch a token that was cut or mistyped. The secret is single-use,
//! known to the hub by its hash only, and expires after 24 hours.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::digest::Digest;
use crate::form;
use crate::limits::{TEXT_BYTES, TOKEN_CHARS};
use crate::wire::{self, DecodeError, Invalid, Wire};

const PREFIX: &str = "fleetloop1.";
const CHECK_BYTES: usize = 4;

/// Everything a new device knows of its hub, checked before anything is sent.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrolmentToken {
    /// The base URL of the hub's enrolment listener, `https://host:port`.
    pub hub: String,
    /// Proves that the operator let this device in, once.
    pub secret: [u8; 32],
    /// SHA-256 of the hub's CA certificate (DER).
    pub ca: Digest,
    /// SHA-256 of the channel's root metadata, as served: the newest when the token was made.
    pub root: Digest,
}

/// A text that is not an enrolment token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not start as a token does, or is too long.
    #[error("cannot read enrolment token: it does not begin with \"{PREFIX}\"; copy all of it")]
    NotAToken,
    /// It was cut or mistyped.
    #[error("cannot read enrolment token: it is damaged; copy it again, all of it")]
    Damaged,
    /// Its contents are not what they should be.
    #[error(transparent)]
    Content(#[from] DecodeError),
}

impl fmt::Display for EnrolmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = wire::encode(self).map_err(|_| fmt::Error)?;
        let check = Digest::of(&bytes);
        bytes.extend_from_slice(&check.as_bytes()[..CHECK_BYTES]);
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl fmt::Debug for EnrolmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnrolmentToken({}, secret withheld)", self.hub)
    }
}

impl FromStr for EnrolmentToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let coded = text.strip_prefix(PREFIX).ok_or(TokenError::NotAToken)?;
        if text.len() > TOKEN_CHARS {
            return Err(TokenError::NotAToken);
        }
        let bytes = URL_SAFE_NO_PAD.decode(coded).map_err(|_| TokenError::Damaged)?;
        let (body, check) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or(TokenError::Damaged)?;
        if Digest::of(body).as_bytes()[..CHECK_BYTES] != *check {
            return Err(TokenError::Damaged);
        }
        Ok(wire::decode(body)?)
    }
}

impl Wire for EnrolmentToken {
    type Form = form::EnrolmentToken;
    const NAME: &'static str = "enrolment token";
    const LIMIT_BYTES: usize = TOKEN_CHARS;

    fn to_form(&self) -> form::EnrolmentToken {
        form::EnrolmentToken {
            hub: self.hub.clone(),
            secret: self.secret,
            ca: *self.ca.as_bytes(),
            root: *self.root.as_bytes(),
        }
    }

    fn from_form(form: form::EnrolmentToken) -> Result<Self, Invalid> {
        if !form.hub.starts_with("https://") || form.hub.len() > TEXT_BYTES {
            return Err(Invalid(format!("hub address {:?} is not https", form.hub)));
        }
        Ok(Self {
            hub: form.hub,
            secret: form.secret,
            ca: Digest::from_bytes(form.ca),
            root: Digest::from_bytes(form.root),
        })
    }
}
