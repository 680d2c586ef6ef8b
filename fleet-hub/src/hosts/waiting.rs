//! Which devices do not know the newest addresses and certificate authority yet.

use fleetloop_protocol::api::hosts::WaitingDevice;
use rusqlite::Connection;

use crate::pki::Pki;
use crate::store::{StoreError, devices};

/// The enrolled devices that have not reported `generation`, or whose certificate is not signed by
/// the next CA while there is one.
pub(super) fn list(
    connection: &Connection,
    generation: u64,
    pki: &Pki,
) -> Result<Vec<WaitingDevice>, StoreError> {
    let mut waiting = Vec::new();
    for device in devices::enrolled_certificates(connection)? {
        let known = device.reported.as_ref().map_or(0, |reported| reported.addresses);
        let next = pki.next.as_ref();
        let lacks = if known < generation {
            "the newest addresses"
        } else if next.is_some_and(|next| !next.issued(&device.certificate_pem)) {
            "a certificate of the next CA"
        } else {
            continue;
        };
        let (name, lacks) = (device.name, lacks.to_owned());
        waiting.push(WaitingDevice { device: device.id, name, generation: known, lacks });
    }
    Ok(waiting)
}
