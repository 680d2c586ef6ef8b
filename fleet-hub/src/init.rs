//! `fleet-hub init`: everything a hub needs, made once.
//!
//! Invariants: nothing that exists is overwritten; the folder holds [`UNFINISHED`] until the last
//! step, so that what a crash leaves is named as such by the next `init` and by `serve`, and is
//! never mistaken for a hub.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use fleetloop_protocol::api::labels::LabelSet;
use fleetloop_protocol::api::{ApiAccess, Role};

use crate::clock::Clock;
use crate::config::{Config, ConfigError, ConfigFile, FILE, Telemetry};
use crate::durable::{self, Access};
use crate::limits::Limits;
use crate::pki::{Pki, PkiError};
use crate::release::{self, ReleaseError};
use crate::store::payloads::Blobs;
use crate::store::{Store, StoreError, labels, tokens};

/// Stands in the data directory while `init` is under way.
pub const UNFINISHED: &str = "init-unfinished";

/// Who an init is, in the audit log.
const WHO: &str = "init";

/// What a hub is made of.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// The data directory; it must not exist, or be empty.
    pub data: PathBuf,
    /// Where the root key goes; outside the data directory.
    pub offline_keys: PathBuf,
    /// The host name by which devices and people reach the hub.
    pub host: String,
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
}

/// Why no hub was made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The folder is in use.
    #[error(
        "cannot make a hub in {path}: it is not empty; choose another folder, or serve the hub that is there"
    )]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// An earlier init was cut short.
    #[error(
        "cannot use {path}: an earlier 'fleet-hub init' of it did not finish; remove it and the keys of that attempt in {offline_keys}, then run init again"
    )]
    Unfinished {
        /// The folder.
        path: PathBuf,
        /// Where that attempt put its root key.
        offline_keys: String,
    },
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

/// Makes a hub.
///
/// # Errors
/// [`InitError`]; whatever was made until then stays and is named as unfinished.
pub async fn init(options: &InitOptions, clock: &Clock) -> Result<Config, InitError> {
    let file = ConfigFile {
        host: options.host.clone(),
        admin_listen: options.admin_listen.clone(),
        device_listen: options.device_listen.clone(),
        mqtt_listen: options.mqtt_listen.clone(),
        broker: options.broker.clone(),
        limits: Limits::default(),
        telemetry: Telemetry::default(),
    };
    let toml = toml::to_string(&file).map_err(|source| InitError::Toml { what: FILE, source })?;
    let config = Config::parse(&options.data, &toml)?;
    claim(options)?;
    let paths = &config.paths;
    let now = clock.now();
    let pki = Pki::create(&config, now)?;
    let store = Store::open(&paths.data)?;
    Blobs::open("payload", &paths.payloads(), 0)?;
    let artefacts = Blobs::open("artefact", &paths.artefacts(), 0)?;
    let hub_keys = pki.hub_keys(now);
    release::init_repository(paths, &options.offline_keys, &hub_keys, &artefacts, clock).await?;
    let set = LabelSet { labels: options.labels.clone() };
    store.write(move |tx| labels::extend(tx, &set, WHO)).await?;
    for (name, role) in
        [("admin", Role::Admin), ("annotator", Role::Annotator), ("worker", Role::Worker)]
    {
        let token = store.write(move |tx| tokens::create(tx, name, role, WHO, now)).await?;
        let access =
            ApiAccess { url: config.admin_url(), token, ca_pem: pki.authority.pem().to_owned() };
        let text = toml::to_string(&access)
            .map_err(|source| InitError::Toml { what: "an access file", source })?;
        write(&paths.data.join(format!("{name}.toml")), &text, Access::Owner)?;
    }
    let header = "# A Fleetloop hub. What a key means and its default: docs/hub.md.\n";
    write(&paths.data.join(FILE), &format!("{header}{toml}"), Access::Everybody)?;
    // A crash before this leaves an unfinished folder, after it a hub.
    let mark = paths.data.join(UNFINISHED);
    durable::remove(&mark).map_err(|source| InitError::File { path: mark, source })?;
    Ok(config)
}

/// Takes the empty data directory and marks it as unfinished.
fn claim(options: &InitOptions) -> Result<(), InitError> {
    let failed = |path: &Path, source| InitError::File { path: path.to_owned(), source };
    let data = &options.data;
    refuse_unfinished(data)?;
    let absolute = |path: &Path| std::path::absolute(path).map_err(|source| failed(path, source));
    if absolute(&options.offline_keys)?.starts_with(absolute(data)?) {
        return Err(InitError::KeysInside {
            offline_keys: options.offline_keys.clone(),
            data: data.clone(),
        });
    }
    // Its owner's alone: keys and the database lie in it.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data)
        .map_err(|source| failed(data, source))?;
    let mut entries = std::fs::read_dir(data).map_err(|source| failed(data, source))?;
    if entries.next().is_some() {
        return Err(InitError::NotEmpty { path: data.clone() });
    }
    let offline = options.offline_keys.display().to_string();
    write(&data.join(UNFINISHED), &offline, Access::Owner)
}

/// Refuses a folder whose init was cut short.
///
/// # Errors
/// [`InitError::Unfinished`].
pub fn refuse_unfinished(data: &Path) -> Result<(), InitError> {
    match std::fs::read_to_string(data.join(UNFINISHED)) {
        Ok(offline_keys) => Err(InitError::Unfinished { path: data.to_owned(), offline_keys }),
        Err(_) => Ok(()),
    }
}

fn write(path: &Path, text: &str, access: Access) -> Result<(), InitError> {
    durable::write(path, text.as_bytes(), access)
        .map_err(|source| InitError::File { path: path.to_owned(), source })
}
