//! The backup: everything a hub needs to come back, as one encrypted archive.
//!
//! Format: an `age` file (age-encryption.org/v1) whose content is a tar archive. It is encrypted to
//! the recipients in `hub.toml` (`backup_recipients`); the keys that open it are made by
//! `fleet-hub init` on the offline medium, or are the operator's own. The hub cannot open its own
//! backups.
//!
//! Contents, in this order: [`ABOUT`] (when and how it was made), `hub.db` (a consistent copy, made
//! by SQLite's `VACUUM INTO`), the `*.toml` files of the data directory (configuration and access
//! files), `pki/`, `tuf/` and, when asked for, `payloads/` and `artefacts/`. Not the offline root
//! key: the hub never has it. Not `uploads/`: nothing there has a receipt, so devices still have it.
//!
//! Consistency: the database first, because releases that the repository has and the database has
//! not are adopted at the next start; then `timestamp.json` before the files it names, which never
//! change; files by content hash never change at all. Rows whose payload came after the copy do not
//! exist in it.
//!
//! | module | what it holds |
//! |---|---|
//! | [`key`] | recipients and the keys that open a backup |
//! | [`archive`] | writing the archive of a running hub |
//! | [`mod@unpack`] | opening, checking and unpacking one |
//! | [`mod@restore`] | a hub from an archive, and what that hub cannot know |

pub mod archive;
pub mod key;
pub mod restore;
pub mod unpack;

#[cfg(test)]
mod tests;

use fleetloop_protocol::UnixMillis;
use serde::{Deserialize, Serialize};

/// The first entry of an archive: an [`About`], as JSON.
pub const ABOUT: &str = "backup.json";

/// How an archive was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The archive's format; this build writes and reads [`FORMAT`].
    pub format: u32,
    /// The version of the hub that made it.
    pub hub_version: String,
    /// When the copy of the database was made, by the hub's clock.
    pub made_at: UnixMillis,
    /// Whether payloads and artefacts are in it.
    pub with_payloads: bool,
}

/// The archive format of this build.
pub const FORMAT: u32 = 1;
