//! A peer of version 1 as it was built then: it knows the frozen forms of version 1 and nothing that
//! came after, neither the domain's types nor today's decoder.

use bincode::config::standard;
use bincode::{Decode, Encode};
use fleetloop_protocol::Digest;
use fleetloop_protocol::keys::{PublicKey, SigningKey};
use fleetloop_protocol::v1;

/// What a signature is for, by number.
pub mod purpose {
    pub const SAMPLE_HEADER: u8 = 1;
    pub const GAP: u8 = 2;
    pub const RECEIPT: u8 = 5;
    pub const REFUSAL: u8 = 6;
    pub const DESIRED: u8 = 7;
}

/// The message in `bytes`.
///
/// # Panics
/// When they are not version 1, all of them.
pub fn read<T: Decode<()>>(bytes: &[u8]) -> T {
    let (version, body) = bytes.split_first().expect("a version byte");
    assert_eq!(*version, 1, "a peer of version 1 does not read version {version}");
    let (value, used) = bincode::decode_from_slice(body, standard()).expect("a frozen form");
    assert_eq!(used, body.len(), "bytes are left over");
    value
}

/// The bytes of a message.
pub fn write<T: Encode>(value: &T) -> Vec<u8> {
    let mut out = vec![1];
    out.extend(bincode::encode_to_vec(value, standard()).expect("it can be written"));
    out
}

/// A signed message and the digest of its body.
///
/// # Panics
/// When the signature does not hold for that purpose, device and key.
pub fn open<T: Decode<()>>(bytes: &[u8], purpose: u8, device: &str, key: PublicKey) -> (T, Digest) {
    let envelope: v1::Envelope = read(bytes);
    assert_eq!((envelope.purpose, envelope.device.as_str()), (purpose, device));
    assert_eq!(envelope.key, *key.id().0.as_bytes());
    let message = context(purpose, device, &envelope.key, &envelope.body);
    assert!(key.verifies(&message, &envelope.signature), "the signature does not hold");
    (read(&envelope.body), Digest::of(&envelope.body))
}

/// The bytes of a signed message.
pub fn seal<T: Encode>(value: &T, purpose: u8, device: &str, key: &SigningKey) -> Vec<u8> {
    seal_body(write(value), purpose, device, key)
}

/// The same of a body that is written already.
pub fn seal_body(body: Vec<u8>, purpose: u8, device: &str, signer: &SigningKey) -> Vec<u8> {
    let key = *signer.public().id().0.as_bytes();
    let signature = signer.sign(&context(purpose, device, &key, &body));
    write(&v1::Envelope { purpose, device: device.to_owned(), key, body, signature })
}

fn context(purpose: u8, device: &str, key: &[u8; 32], body: &[u8]) -> Vec<u8> {
    let len = u8::try_from(device.len()).expect("a device id is short");
    [b"fleetloop".as_slice(), &[1, purpose, len], device.as_bytes(), key, body].concat()
}
