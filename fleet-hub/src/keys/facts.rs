//! What is on disk about the hub's keys.

use fleetloop_protocol::UnixMillis;
use fleetloop_protocol::api::keys::KeyName;
use fleetloop_protocol::hub_keys::HubKeyUse;
use tough::schema::RoleType;

use super::{End, KeyError};
use crate::config::Config;
use crate::pki::{self, Pki};
use crate::published::Documents;
use crate::release::Repository;

/// What [`super::list`] judges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Every key that is there, in the order of [`KeyName::ALL`].
    pub ends: Vec<End>,
    /// The keys whose change waits for a restart.
    pub restart: Vec<KeyName>,
    /// How long a device's certificate is good, in days.
    pub device_certificate_days: u32,
    /// When the hub last signed release metadata.
    pub signed_at: UnixMillis,
}

/// Reads all of it; `running` are the keys that this process works with. Blocks on the disk.
///
/// # Errors
/// A file is missing or damaged.
pub fn look(config: &Config, running: &Pki) -> Result<Facts, KeyError> {
    let repository = Repository::open(&config.paths.tuf())?;
    let mut ends: Vec<End> = repository
        .ends()
        .into_iter()
        .map(|(role, version, at)| End { key: of_role(role), version: Some(version), at })
        .collect();
    let documents = Documents::read(&repository)?;
    let on_disk = Pki::load(&config.paths)?;
    let mut restart = Vec::new();
    for (key, usage, now, then) in [
        (KeyName::Receipt, HubKeyUse::Receipt, &running.receipt, &on_disk.receipt),
        (KeyName::Assignment, HubKeyUse::Assignment, &running.assignment, &on_disk.assignment),
    ] {
        let (public, known) = (now.public(), &documents.keys.keys);
        let entry = known.iter().find(|one| one.usage == usage && one.public_key == public);
        ends.push(End { key, version: None, at: entry.map_or(UnixMillis(0), |one| one.not_after) });
        if then.public() != public {
            restart.push(key);
        }
    }
    for (key, authority, before) in [
        (KeyName::Ca, Some(&on_disk.authority), Some(&running.authority)),
        (KeyName::NextCa, on_disk.next.as_ref(), running.next.as_ref()),
    ] {
        if authority.map(|ca| ca.pem()) != before.map(|ca| ca.pem()) {
            restart.push(key);
        }
        let Some(authority) = authority else { continue };
        ends.push(End { key, version: None, at: authority.ends()? });
    }
    let server = pki::certificate_ends(&running.server_pem())?;
    ends.push(End { key: KeyName::Server, version: None, at: server });
    let device_certificate_days = config.limits.device_certificate_days;
    Ok(Facts { ends, restart, device_certificate_days, signed_at: repository.signed_at() })
}

const fn of_role(role: RoleType) -> KeyName {
    match role {
        RoleType::Root => KeyName::Root,
        RoleType::Snapshot => KeyName::Snapshot,
        RoleType::Timestamp => KeyName::Timestamp,
        RoleType::Targets | RoleType::DelegatedTargets => KeyName::Targets,
    }
}
