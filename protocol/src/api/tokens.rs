//! API tokens: `GET /api/v1/tokens`, `POST /api/v1/tokens`, `POST /api/v1/tokens/{id}/rotate` and
//! `…/revoke`. A token's text is shown once, when it is made; the hub keeps its SHA-256.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Role;

/// The longest name of a token, in bytes.
pub const NAME_BYTES: usize = 64;

/// The longest life of a token that ends, in seconds: ten years.
pub const VALID_MAX_S: u64 = 10 * 366 * 24 * 3600;

/// The longest time for which a rotated token goes on working, in seconds: 30 days.
pub const OVERLAP_MAX_S: u64 = 30 * 24 * 3600;

/// Names a token without giving it away: `tok-` and eight of a-z and 2-7.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenId(String);

impl TokenId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is no token's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a token's id is tok- and eight of a-z and 2-7; see 'fleet-hub token list'")]
pub struct NotATokenId;

impl FromStr for TokenId {
    type Err = NotATokenId;

    fn from_str(text: &str) -> Result<Self, NotATokenId> {
        let rest = text.strip_prefix("tok-").ok_or(NotATokenId)?;
        let is_id = rest.len() == 8 && rest.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7'));
        if is_id { Ok(Self(text.to_owned())) } else { Err(NotATokenId) }
    }
}

impl TryFrom<String> for TokenId {
    type Error = NotATokenId;

    fn try_from(text: String) -> Result<Self, NotATokenId> {
        text.parse()
    }
}

impl From<TokenId> for String {
    fn from(id: TokenId) -> Self {
        id.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Whether a token works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenState {
    /// It does.
    Live,
    /// Its time is over.
    Expired,
    /// Somebody ended it.
    Revoked,
}

/// A token as the hub shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiToken {
    /// Its id.
    pub id: TokenId,
    /// What people call it; what it does is in the audit log under this name.
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// Whether it works.
    pub state: TokenState,
    /// Who made it.
    pub created_by: String,
    /// When, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When it ends; none when it does not end by itself.
    pub expires_at_ms: Option<u64>,
    /// When somebody ended it.
    pub revoked_at_ms: Option<u64>,
    /// When it was last used, to the minute; none when never.
    pub last_used_at_ms: Option<u64>,
    /// The token that took its place.
    pub replaced_by: Option<TokenId>,
}

/// Asks for a token.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewApiToken {
    /// What people call it: a person or a program. At most [`NAME_BYTES`].
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// How long it is good for, in seconds, at most [`VALID_MAX_S`]; none when it does not end.
    pub valid_s: Option<u64>,
}

/// A token that was made. Its text is shown here and never again.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MadeApiToken {
    /// The text that goes into `Authorization: Bearer …`.
    pub token: String,
    /// What is known of it.
    pub about: ApiToken,
}

/// Asks for a token that takes another's place.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateApiToken {
    /// How long the old one goes on working, in seconds, at most [`OVERLAP_MAX_S`].
    pub overlap_s: u64,
}

/// What shall become of the last admin token that does not end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LastAdmin {
    /// It is not revoked.
    #[default]
    Keep,
    /// It is revoked, although nobody may be able to administer the hub afterwards.
    LockOut,
}

/// Ends a token.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeApiToken {
    /// What to do if it is the last of an admin.
    #[serde(default)]
    pub last_admin: LastAdmin,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_id_is_what_the_hub_draws_and_nothing_else() {
        assert_eq!("tok-abcd2345".parse::<TokenId>().unwrap().to_string(), "tok-abcd2345");
        for wrong in ["", "tok-", "tok-abcd234", "tok-ABCD2345", "tok-abcd234/", "dev-abcd2345"] {
            assert!(wrong.parse::<TokenId>().is_err(), "{wrong:?}");
        }
    }
}
