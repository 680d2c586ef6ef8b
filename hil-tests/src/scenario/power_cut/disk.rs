//! What lies on a stopped hub's disk, each piece verified again: headers and gaps by the device's
//! key, payloads by what their headers say of them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use fleetloop_protocol::gap::Gap;
use fleetloop_protocol::keys::{KeyRing, PublicKey};
use fleetloop_protocol::sample::{SampleHeader, commitment};
use fleetloop_protocol::{DeviceId, Digest, Verified};
use rusqlite::{Connection, OpenFlags, Row};

use super::ledger::Id;

/// A sample as the hub has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its header's digest.
    pub digest: Digest,
    /// The digest of the header before it.
    pub previous: Digest,
}

/// What a hub has of one device.
#[derive(Debug, Clone, Default)]
pub struct HubDisk {
    /// Its samples.
    pub samples: BTreeMap<Id, Stored>,
    /// What it declared missing.
    pub gaps: Vec<Gap>,
    /// Samples that are there more than once.
    pub twice: Vec<Id>,
    /// Samples whose header or payload is not what the device signed, and why.
    pub broken: Vec<String>,
    /// Messages that contradict what is stored.
    pub quarantined: u64,
}

impl HubDisk {
    /// Reads the folder of a hub that does not run and knows one device.
    ///
    /// # Errors
    /// When the database cannot be read, or holds what no device signed.
    pub fn read(data: &Path) -> Result<Self> {
        let path = data.join("hub.db");
        let what = || format!("cannot read the hub's database {}", path.display());
        let db = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)
            .with_context(what)?;
        let sound: String =
            db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).with_context(what)?;
        ensure!(sound == "ok", "{}: {sound}", what());
        let (device, key) = device(&db).with_context(what)?;
        let mut disk = Self::default();
        disk.read_samples(&db, data, &device, &key).with_context(what)?;
        disk.read_gaps(&db, &device, &key).with_context(what)?;
        let quarantined: i64 =
            db.query_row("SELECT count(*) FROM quarantine", [], |row| row.get(0))?;
        disk.quarantined = quarantined.cast_unsigned();
        Ok(disk)
    }

    fn read_samples(
        &mut self,
        db: &Connection,
        data: &Path,
        device: &DeviceId,
        key: &KeyRing,
    ) -> Result<()> {
        let mut statement = db.prepare(
            "SELECT epoch, sequence, payload, salt, envelope FROM sample WHERE grp = 'fleet'",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let count = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
            let id = (count(0)?, count(1)?);
            match sample(row, data, device, key) {
                Ok(signed) => {
                    let header = signed.get();
                    ensure!(
                        (header.id.epoch.0, header.id.sequence.0) == id,
                        "sample {id:?} is stored under another identity than its own"
                    );
                    let stored = Stored { digest: signed.body_digest(), previous: header.previous };
                    if self.samples.insert(id, stored).is_some() {
                        self.twice.push(id);
                    }
                }
                Err(error) => self.broken.push(format!("sample {id:?}: {error:#}")),
            }
        }
        Ok(())
    }

    fn read_gaps(&mut self, db: &Connection, device: &DeviceId, key: &KeyRing) -> Result<()> {
        let mut statement = db.prepare("SELECT envelope FROM gap")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let envelope: Vec<u8> = row.get(0)?;
            self.gaps.push(Verified::<Gap>::open(&envelope, device, key)?.into_inner());
        }
        Ok(())
    }
}

/// The one device.
fn device(db: &Connection) -> Result<(DeviceId, KeyRing)> {
    let (id, key): (String, [u8; 32]) =
        db.query_row("SELECT id, signing_key FROM device", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    Ok((id.parse()?, KeyRing::from_iter([PublicKey::from_bytes(key)])))
}

/// The header of a stored sample, verified, whose payload is there and is the one it names.
fn sample(
    row: &Row<'_>,
    data: &Path,
    device: &DeviceId,
    key: &KeyRing,
) -> Result<Verified<SampleHeader>> {
    let (salt, envelope): ([u8; 16], Vec<u8>) = (row.get(3)?, row.get(4)?);
    let header = Verified::<SampleHeader>::open(&envelope, device, key)?;
    let digest = Digest::from_bytes(row.get(2)?);
    let name = digest.to_string();
    let path = data.join("payloads").join(&name[..2]).join(&name);
    let payload =
        std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(Digest::of(&payload) == digest, "the payload {name} is damaged");
    let named = header.get().commitment == commitment(&salt, &payload);
    ensure!(named, "the payload {name} is another one than the header names");
    Ok(header)
}
