//! `fleet-hub init`: everything a hub needs, made once.
//!
//! Invariants: nothing that exists is overwritten. An init that fails takes back what it made, the
//! keys included, so that the corrected command runs. Only a crash leaves something: the folder
//! is marked as [`unfinished`] until the last step.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use fleetloop_observe::private::{self, PrivateError};
use fleetloop_protocol::UnixMillis;
use fleetloop_protocol::api::labels::LabelSet;
use fleetloop_protocol::api::{ApiAccess, Role};

use crate::backup::key::{self, KeyError};
use crate::cli::human;
use crate::clock::Clock;
use crate::config::{Config, ConfigError, ConfigFile, FILE, Telemetry, Worker};
use crate::durable::{self, Access};
use crate::hosts::name;
use crate::keys::clock::{Doubt, doubt};
use crate::limits::Limits;
use crate::pki::{Pki, PkiError};
use crate::published::Documents;
use crate::release::{self, ReleaseError};
use crate::store::payloads::Blobs;
use crate::store::{Store, StoreError, labels, tokens};
use crate::unfinished::{self, UnfinishedError};

/// The access files that an init writes into the data directory. The hub starts its own worker with
/// the last one.
pub const ACCESS_FILES: [&str; 4] = ["admin.toml", "annotator.toml", "backup.toml", "worker.toml"];

/// What each of them may.
const ROLES: [Role; 4] = [Role::Admin, Role::Annotator, Role::Backup, Role::Worker];

/// Who an init is, in the audit log.
const WHO: &str = "init";

/// What a hub is made of.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// The data directory; it must not exist, or be empty.
    pub data: PathBuf,
    /// Where the root key goes; outside the data directory.
    pub offline_keys: PathBuf,
    /// The names by which devices and people reach the hub, the primary one first.
    pub hosts: Vec<String>,
    /// The labels that samples can be given, in the order that models learn.
    pub labels: Vec<String>,
    /// Where admin pages, API and enrolment listen.
    pub admin_listen: String,
    /// Where devices fetch.
    pub device_listen: String,
    /// Where the embedded broker listens.
    pub mqtt_listen: String,
    /// `"embedded"` or `mqtts://host:port`.
    pub broker: String,
    /// Who can open backups, as age recipients; without any, a key is made beside the offline keys.
    pub backup_recipients: Vec<String>,
}

/// Why no hub was made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The folder is another user's, or cannot be closed to other users.
    #[error(transparent)]
    Private(#[from] PrivateError),
    /// The data directory.
    #[error(transparent)]
    Folder(#[from] UnfinishedError),
    /// The offline keys would lie where the hub's process finds them.
    #[error(
        "cannot make a hub: the offline keys ({offline_keys}) would lie inside its data directory ({data}); name a folder elsewhere"
    )]
    KeysInside {
        /// The folder for the keys.
        offline_keys: PathBuf,
        /// The data directory.
        data: PathBuf,
    },
    /// The clock is wrong.
    #[error(
        "cannot make a hub: the clock says {} UTC, but {doubt}; set it, for keys and certificates count \
         from it", human::time(now.0)
    )]
    Clock {
        /// What it says.
        now: UnixMillis,
        /// What is wrong with it.
        doubt: Doubt,
    },
    /// A file or folder.
    #[error("cannot write {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// An address, host or broker.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The key of backups.
    #[error(transparent)]
    BackupKey(#[from] KeyError),
    /// A key or certificate.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The database or the files beside it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The release repository.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// A document that cannot be written as TOML.
    #[error("cannot write {what} as TOML")]
    Toml {
        /// Which.
        what: &'static str,
        /// Why not.
        #[source]
        source: toml::ser::Error,
    },
}

/// Makes a hub. It is not cancel-safe: wait for its end.
///
/// # Errors
/// [`InitError`]; all is as it was.
pub async fn init(options: &InitOptions, clock: &Clock) -> Result<Config, InitError> {
    // As it is kept; what cannot be a name is refused below.
    let host = |typed: &String| name::normal(typed).unwrap_or_else(|_| typed.clone());
    let mut file = ConfigFile {
        hosts: options.hosts.iter().map(host).collect(),
        admin_listen: options.admin_listen.clone(),
        device_listen: options.device_listen.clone(),
        mqtt_listen: options.mqtt_listen.clone(),
        broker: options.broker.clone(),
        backup_recipients: options.backup_recipients.clone(),
        limits: Limits::default(),
        telemetry: Telemetry::default(),
        worker: Worker::default(),
    };
    let now = clock.now();
    if let Some(doubt @ Doubt::BeforeProgram) = doubt(now, now) {
        return Err(InitError::Clock { now, doubt });
    }
    // Nothing is made for a configuration that cannot be.
    parse(options, &file)?;
    labels::check(&options.labels)?;
    let made = Made::claim(options)?;
    if file.backup_recipients.is_empty() {
        file.backup_recipients = vec![key::make(&options.offline_keys)?];
    }
    let (toml, config) = parse(options, &file)?;
    let paths = &config.paths;
    let pki = Pki::create(&config, now)?;
    let store = Store::open(&paths.data)?;
    Blobs::open("payload", &paths.payloads(), 0)?;
    let artefacts = Blobs::open("artefact", &paths.artefacts(), 0)?;
    let own = Documents::first(&config, &pki, now);
    release::init_repository(paths, &options.offline_keys, &own, &artefacts, clock).await?;
    let set = LabelSet { labels: options.labels.clone() };
    store.write(move |tx| labels::extend(tx, &set, WHO)).await?;
    for (file, role) in ACCESS_FILES.into_iter().zip(ROLES) {
        let name = tokens::role_name(role);
        let token = store.write(move |tx| tokens::create(tx, name, role, WHO, now)).await?;
        let access =
            ApiAccess { url: config.admin_url(), token, ca_pem: pki.authority.pem().to_owned() };
        let text = toml::to_string(&access)
            .map_err(|source| InitError::Toml { what: "an access file", source })?;
        write(&paths.data.join(file), &text, Access::Owner)?;
    }
    let header = "# A Fleetloop hub. What a key means and its default: docs/hub.md.\n";
    write(&paths.data.join(FILE), &format!("{header}{toml}"), Access::Everybody)?;
    // A crash before this leaves an unfinished folder, after it a hub.
    unfinished::done(&paths.data)?;
    made.keep();
    Ok(config)
}

/// What an init has made until now; dropped, it takes all of it back.
struct Made {
    data: PathBuf,
    is_data_new: bool,
    offline_keys: PathBuf,
    /// What was there before; none when the folder was not.
    keys_before: Option<HashSet<OsString>>,
    is_kept: bool,
}

impl Made {
    /// Takes the empty data directory, and makes the folder of the offline keys outside it.
    fn claim(options: &InitOptions) -> Result<Self, InitError> {
        let failed = |path: &Path, source| InitError::File { path: path.to_owned(), source };
        let (data, offline_keys) = (&options.data, &options.offline_keys);
        unfinished::refuse(data)?;
        let absolute =
            |path: &Path| std::path::absolute(path).map_err(|source| failed(path, source));
        if absolute(offline_keys)?.starts_with(absolute(data)?) {
            return Err(InitError::KeysInside {
                offline_keys: offline_keys.clone(),
                data: data.clone(),
            });
        }
        let keys_before = names_in(offline_keys).map_err(|source| failed(offline_keys, source))?;
        let is_data_new = !data.exists();
        let advice = format!(
            "an earlier 'fleet-hub init' of it was cut short; remove it and the keys of that attempt \
             in {}, then run init again",
            offline_keys.display()
        );
        unfinished::claim(data, &advice)?;
        let (data, offline_keys) = (data.clone(), offline_keys.clone());
        let made = Self { data, is_data_new, offline_keys, keys_before, is_kept: false };
        // It may have been there, open to everybody.
        private::secure(&made.data)?;
        std::fs::create_dir_all(&made.offline_keys)
            .map_err(|source| failed(&made.offline_keys, source))?;
        Ok(made)
    }

    fn keep(mut self) {
        self.is_kept = true;
    }

    /// The keys first: without them the folder is worthless, and it says so until it is gone.
    fn take_back(&self) -> std::io::Result<()> {
        let before = self.keys_before.as_ref();
        for name in names_in(&self.offline_keys)?.unwrap_or_default() {
            if before.is_none_or(|before| !before.contains(&name)) {
                remove(&self.offline_keys.join(name))?;
            }
        }
        if before.is_none() {
            std::fs::remove_dir(&self.offline_keys)?;
        }
        if self.is_data_new {
            return std::fs::remove_dir_all(&self.data);
        }
        for name in names_in(&self.data)?.unwrap_or_default() {
            remove(&self.data.join(name))?;
        }
        Ok(())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Err(error) = self.take_back() {
            tracing::error!(
                %error, data = %self.data.display(), keys = %self.offline_keys.display(),
                "what was made of the hub cannot all be removed; remove it by hand"
            );
        }
    }
}

/// The names in a folder; none when it is not there.
fn names_in(folder: &Path) -> std::io::Result<Option<HashSet<OsString>>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    entries.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<_>>().map(Some)
}

fn remove(path: &Path) -> std::io::Result<()> {
    if path.symlink_metadata()?.is_dir() {
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    }
}

fn parse(options: &InitOptions, file: &ConfigFile) -> Result<(String, Config), InitError> {
    let toml = toml::to_string(file).map_err(|source| InitError::Toml { what: FILE, source })?;
    let config = Config::parse(&options.data, &toml)?;
    Ok((toml, config))
}

fn write(path: &Path, text: &str, access: Access) -> Result<(), InitError> {
    durable::write(path, text.as_bytes(), access)
        .map_err(|source| InitError::File { path: path.to_owned(), source })
}
