//! Imports: labelled pictures that no device of this fleet took.
//!
//! Three steps, each of which may be repeated: which payloads the hub has not got ([`Missing`]), those
//! payloads ([`Pictures`]), and the import itself, whole or not at all ([`ImportRequest`]). What is sent
//! and never imported is erased after a day.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::datasets::Split;
use super::samples::Removed;
use crate::digest::Digest;
use crate::sample::MediaType;

/// The name of an imported sample: SHA-256 of the JSON, without white space, of its payload's digest
/// under the key `import`. A picture is one sample, however often it is imported.
pub fn sample_of(payload: Digest) -> Digest {
    Digest::of(format!("{{\"import\":\"{payload}\"}}").as_bytes())
}

/// Payloads, `POST /api/v1/imports/missing`; the answer holds those of them that the hub has not got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Missing {
    /// SHA-256 of each, at most 900.
    pub payloads: Vec<Digest>,
}

/// Payloads of an import to come, `POST /api/v1/imports/pictures`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pictures {
    /// The pictures, at most 512 a request.
    pub items: Vec<Picture>,
}

/// One payload.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Picture {
    /// Its bytes, in base64.
    pub payload: String,
    /// How it is encoded.
    pub media_type: MediaType,
}

/// What became of payloads: those that are no whole pictures of their media type are not stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Not stored, and why.
    pub refused: Vec<Refused>,
}

/// A picture that is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// SHA-256 of its payload; the command line prints the file's name instead.
    pub picture: String,
    /// Why, in words.
    pub reason: String,
}

/// An import, `POST /api/v1/imports`: one transaction. Its payloads were sent before.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    /// Where they come from, in words; shown with each.
    pub source: String,
    /// What they are for.
    pub split: Split,
    /// The payloads of each label; a label must be one of the hub's. A payload under two labels is
    /// refused.
    pub classes: BTreeMap<String, Vec<Digest>>,
}

/// How an import went.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Imported {
    /// Its number; none when nothing was left to import.
    pub import: Option<u64>,
    /// Pictures that are new.
    pub stored: u64,
    /// Pictures that the hub had, whose label is another now: the newest holds.
    pub relabelled: u64,
    /// Pictures that the hub had with this label.
    pub known: u64,
    /// Among those that the hub had: imported for the gate before, so they stay with it.
    pub kept_for_gate: u64,
    /// Removed with 'sample remove' before: they stay removed.
    pub removed: u64,
    /// Left out.
    pub refused: Vec<Refused>,
}

/// An import as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// Its number.
    pub id: u64,
    /// Where its pictures come from.
    pub source: String,
    /// What they are for.
    pub split: Split,
    /// How many there are, those that other imports have too included.
    pub pictures: u64,
    /// Who imported them.
    pub by: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// When, by whom and why it was removed.
    pub removed: Option<Removed>,
}

/// `POST /api/v1/imports/{id}/remove`: pictures of no other import are erased; of the others the labels
/// that this one gave count no more.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveImport {
    /// Why, in words.
    pub reason: String,
}
