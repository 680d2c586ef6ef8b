//! `fleet-hub recover-admin`: a new admin token where no admin's access file is left.
//!
//! Whoever may write the hub's data directory owns the hub anyway, so nothing is asked for. The hub
//! must be stopped, as for everything that touches its files.

use std::path::PathBuf;

use fleetloop_protocol::api::{ApiAccess, Role};

use crate::cli::human;
use crate::clock::Clock;
use crate::config::Config;
use crate::durable::{self, Access};
use crate::init::ACCESS_FILES;
use crate::pki;
use crate::serve::{self, ServeError};
use crate::store::{Store, StoreError, tokens};

/// Who a recovery is, in the audit log.
const WHO: &str = "recover-admin";

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The hub runs, or its folder cannot be used.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The access file or the CA's certificate.
    #[error("cannot use {path}; mend that and run it again")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// Makes an admin token that does not end and writes `admin.toml` anew; its path.
///
/// # Errors
/// [`RecoverError`].
pub async fn recover_admin(config: &Config, clock: &Clock) -> Result<PathBuf, RecoverError> {
    let _lock = serve::lock(config)?;
    let path = config.paths.data.join(ACCESS_FILES[0]);
    let ca = pki::ca_pem(&config.paths);
    let ca_pem =
        std::fs::read_to_string(&ca).map_err(|source| RecoverError::File { path: ca, source })?;
    let failed = |source| RecoverError::File { path: path.clone(), source };
    let store = Store::open(&config.paths.data)?;
    let now = clock.now();
    let name = format!("admin, recovered {}", human::time(now.0));
    let token = store.write(move |tx| tokens::create(tx, &name, Role::Admin, WHO, now)).await?;
    let access = ApiAccess { url: config.admin_url(), token, ca_pem };
    let text = toml::to_string(&access).map_err(|error| failed(std::io::Error::other(error)))?;
    durable::write(&path, text.as_bytes(), Access::Owner).map_err(failed)?;
    Ok(path)
}
