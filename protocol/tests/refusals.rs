//! What must not be trusted, and why it is not: one named error each.

mod common;

use common::*;
use fleetloop_protocol::limits::{MESSAGE_BYTES, PAYLOAD_BYTES, SIGNED_BODY_BYTES};
use fleetloop_protocol::receipt::{Receipt, RefusalReason};
use fleetloop_protocol::sample::{Payload, SampleHeader, SampleMessage, VerifiedSample};
use fleetloop_protocol::signed::{Purpose, Signable, Signed, Verified, VerifyError};
use fleetloop_protocol::state::{Desired, Reported};
use fleetloop_protocol::telemetry::Telemetry;
use fleetloop_protocol::token::{EnrolmentToken, TokenError};
use fleetloop_protocol::wire::{self, DecodeError, Invalid, VERSION, Wire};
use fleetloop_protocol::{DeviceId, form, gap::Gap};
use proptest::prelude::*;

fn open(bytes: &[u8]) -> Result<VerifiedSample, VerifyError> {
    VerifiedSample::open(bytes, &device(), &ring(&[&key(1)]))
}

fn bytes() -> Vec<u8> {
    wire::encode(&sample(&header(), &key(1))).unwrap()
}

#[test]
fn no_bit_of_a_sample_can_be_changed() {
    let good = bytes();
    assert!(open(&good).is_ok());
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut altered = good.clone();
            altered[at] ^= 1 << bit;
            assert!(open(&altered).is_err(), "byte {at} bit {bit} of {}", good.len());
        }
    }
}

#[test]
fn a_sample_signed_by_another_devices_key_is_refused() {
    let stolen = wire::encode(&sample(&header(), &key(2))).unwrap();
    assert!(matches!(open(&stolen), Err(VerifyError::UnknownKey { .. })));
    // Even under the right key's name the signature is another's.
    let both = ring(&[&key(1), &key(2)]);
    assert!(VerifiedSample::open(&stolen, &device(), &both).is_ok());
    assert!(VerifiedSample::open(&stolen, &"dev-other".parse().unwrap(), &both).is_err());
}

#[test]
fn a_header_that_names_another_device_is_refused() {
    let other: DeviceId = "dev-other".parse().unwrap();
    let mut lying = header();
    lying.id.device = other.clone();
    let sealed = Signed::seal(&lying, &device(), &key(1)).unwrap();
    let message = SampleMessage::new(sealed, SALT, Payload::Inline(PAYLOAD.to_vec()));
    let error = open(&wire::encode(&message).unwrap()).unwrap_err();
    assert!(matches!(error, VerifyError::Device { found, .. } if found == other));
}

#[test]
fn a_signature_holds_for_one_purpose_and_one_device_only() {
    let keys = ring(&[&key(1)]);
    let order = Signed::seal(&desired(), &device(), &key(1)).unwrap();
    assert!(matches!(
        Verified::<Reported>::open(order.as_bytes(), &device(), &keys),
        Err(VerifyError::Purpose { .. })
    ));
    assert!(matches!(
        Verified::<Desired>::open(order.as_bytes(), &"dev-other".parse().unwrap(), &keys),
        Err(VerifyError::Device { .. })
    ));
}

#[test]
fn a_payload_the_header_does_not_name_is_refused() {
    let good = sample(&header(), &key(1));
    let swapped = SampleMessage { payload: Payload::Inline(b"another".to_vec()), ..good.clone() };
    let salted = SampleMessage { salt: [8; 16], ..good };
    for message in [swapped, salted] {
        let error = open(&wire::encode(&message).unwrap()).unwrap_err();
        assert_eq!(error, VerifyError::Payload);
        assert_eq!(RefusalReason::from(&error), RefusalReason::NotTrusted);
    }
}

#[test]
fn an_unknown_version_is_named_and_may_be_retried() {
    let mut newer = bytes();
    newer[0] = VERSION + 1;
    let error = open(&newer).unwrap_err();
    assert!(error.to_string().contains("version 2, this build reads version 1"), "{error}");
    assert_eq!(RefusalReason::from(&error), RefusalReason::UnknownVersion);
    assert!(!RefusalReason::UnknownVersion.is_permanent());
    assert!(!RefusalReason::PayloadMissing.is_permanent());
}

/// A header as a newer build may write it: the form is the same, the media type another.
struct Newer(SampleHeader);

impl Wire for Newer {
    type Form = form::SampleHeader;
    const NAME: &'static str = SampleHeader::NAME;
    const LIMIT_BYTES: usize = SampleHeader::LIMIT_BYTES;

    fn to_form(&self) -> form::SampleHeader {
        form::SampleHeader { media_type: "image/avif".into(), ..self.0.to_form() }
    }

    fn from_form(form: form::SampleHeader) -> Result<Self, Invalid> {
        SampleHeader::from_form(form).map(Self)
    }
}

impl Signable for Newer {
    const PURPOSE: Purpose = SampleHeader::PURPOSE;
}

#[test]
fn an_unknown_media_type_is_named_and_may_be_retried_and_other_content_may_not() {
    let newer = Signed::seal(&Newer(header()), &device(), &key(1)).unwrap();
    let error = Verified::<SampleHeader>::open(newer.as_bytes(), &device(), &ring(&[&key(1)]));
    let error = error.unwrap_err();
    assert!(error.to_string().contains("image/avif"), "{error}");
    assert_eq!(RefusalReason::from(&error), RefusalReason::UnknownVersion);
    assert!(RefusalReason::Content.is_permanent());
}

#[test]
fn an_envelope_of_an_unknown_version_is_named() {
    let mut bytes = Signed::seal(&desired(), &device(), &key(1)).unwrap().into_bytes();
    bytes[0] = VERSION + 1;
    let error = Verified::<Desired>::open(&bytes, &device(), &ring(&[&key(1)])).unwrap_err();
    let name = "signed envelope";
    assert_eq!(error, DecodeError::UnknownVersion { name, version: VERSION + 1 }.into());
}

#[test]
fn an_uploaded_payload_over_the_limit_is_refused() {
    let mut large = header();
    large.payload_len = PAYLOAD_BYTES as u32;
    let open_of = |header: &SampleHeader| open(&wire::encode(&uploaded(header, &key(1))).unwrap());
    assert!(open_of(&large).is_ok());
    large.payload_len += 1;
    assert_eq!(open_of(&large).unwrap_err(), VerifyError::Payload);
}

#[test]
fn trailing_bytes_are_refused() {
    let mut longer = bytes();
    longer.push(0);
    assert!(matches!(
        open(&longer),
        Err(VerifyError::Decode(DecodeError::Trailing { extra: 1, .. }))
    ));
}

#[test]
fn a_message_over_its_limit_is_refused_before_it_is_read() {
    let long = vec![1; MESSAGE_BYTES + 1];
    let error = open(&long).unwrap_err();
    assert_eq!(RefusalReason::from(&error), RefusalReason::TooLarge);
    let mut wide = header();
    wide.predictions = vec![wide.predictions[0]; SIGNED_BODY_BYTES];
    assert!(matches!(Signed::seal(&wide, &device(), &key(1)), Err(DecodeError::TooLarge { .. })));
}

#[test]
fn a_length_that_is_claimed_but_not_there_allocates_nothing() {
    // Version 1, then an envelope length of 2^60 as bincode writes it.
    let mut bomb = vec![1, 253];
    bomb.extend_from_slice(&(1u64 << 60).to_le_bytes());
    assert!(matches!(wire::decode::<SampleMessage>(&bomb), Err(DecodeError::Malformed { .. })));
}

#[test]
fn a_token_that_was_cut_or_mistyped_is_refused() {
    let text = token().to_string();
    assert_eq!("".parse::<EnrolmentToken>(), Err(TokenError::NotAToken));
    assert_eq!(text[..text.len() - 4].parse::<EnrolmentToken>(), Err(TokenError::Damaged));
    let mistyped = text.replacen(&text[40..41], if &text[40..41] == "A" { "B" } else { "A" }, 1);
    assert!(mistyped.parse::<EnrolmentToken>().is_err());
    assert!(!format!("{:?}", token()).contains("0505"));
}

proptest! {
    #[test]
    fn random_bytes_never_panic_and_are_never_trusted(bytes in prop::collection::vec(any::<u8>(), 0..600), versioned: bool) {
        let mut bytes = bytes;
        if versioned && !bytes.is_empty() {
            bytes[0] = VERSION;
        }
        let keys = ring(&[&key(1)]);
        prop_assert!(open(&bytes).is_err());
        prop_assert!(Verified::<SampleHeader>::open(&bytes, &device(), &keys).is_err());
        prop_assert!(Verified::<Receipt>::open(&bytes, &device(), &keys).is_err());
        prop_assert!(Verified::<Telemetry>::open(&bytes, &device(), &keys).is_err());
        prop_assert!(Verified::<Gap>::open(&bytes, &device(), &keys).is_err());
        let _ = wire::decode::<EnrolmentToken>(&bytes);
    }
}
