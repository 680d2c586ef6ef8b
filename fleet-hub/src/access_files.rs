//! The access files that `init` wrote into the data directory: brought up to date at each start, for
//! the hub's name and CA change. Their tokens are left alone, and a file that is gone stays gone.
//!
//! Copies elsewhere are brought up to date by `fleet-hub access refresh`.

use std::path::Path;

use fleetloop_protocol::api::ApiAccess;

use crate::config::Config;
use crate::durable::{self, Access};
use crate::pki::Pki;

/// The files, without their ending, and the role of each.
pub const NAMES: [&str; 3] = ["admin", "annotator", "worker"];

/// Writes the primary address and all accepted CAs into each file that says something else.
pub fn refresh(config: &Config, pki: &Pki) {
    for name in NAMES {
        let path = config.paths.data.join(format!("{name}.toml"));
        if let Err(reason) = refresh_one(&path, config, pki) {
            let path = path.display();
            tracing::warn!(%path, reason, "an access file is left as it is");
        }
    }
}

fn refresh_one(path: &Path, config: &Config, pki: &Pki) -> Result<(), String> {
    if !path.exists() {
        return Ok(());
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let before: ApiAccess = toml::from_str(&text).map_err(|error| error.to_string())?;
    let (url, ca_pem) = (config.admin_url(), pki.accepted().concat());
    if (&before.url, &before.ca_pem) == (&url, &ca_pem) {
        return Ok(());
    }
    let after = ApiAccess { url, ca_pem, ..before };
    let text = toml::to_string(&after).map_err(|error| error.to_string())?;
    durable::write(path, text.as_bytes(), Access::Owner).map_err(|error| error.to_string())
}
