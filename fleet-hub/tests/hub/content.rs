//! What a device sends is looked at before it gets a receipt.

use fleetloop_models::picture::{Channels, Frame};
use fleetloop_protocol::receipt::RefusalReason;
use fleetloop_protocol::sample::MediaType;
use fleetloop_protocol::topic::{Kind, Topic};
use fleetloop_protocol::{Digest, wire};
use reqwest::StatusCode;

use crate::device::{PIXEL, picture};
use crate::rig::Rig;
use crate::uploads::put;

/// A PNG whose header claims that size.
fn bomb(side: u32) -> Vec<u8> {
    let mut png = PIXEL.to_vec();
    png[16..20].copy_from_slice(&side.to_be_bytes());
    png[20..24].copy_from_slice(&side.to_be_bytes());
    let crc = !png[12..29].iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| {
            if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 }
        })
    });
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    png
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_picture_it_says_is_refused_for_good_and_never_stored() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let topic = Topic::new(&device.id, Kind::Sample);
    let mut mqtt = device.connect(&rig).await;
    let whole = Frame::new(9, 9, Channels::Grey, vec![7; 81]).unwrap().encode_png().unwrap();
    let cases: [(&str, MediaType, Vec<u8>, &str); 6] = [
        ("a PNG named JPEG", MediaType::Jpeg, whole.clone(), "image/png"),
        ("HTML", MediaType::Png, b"<html></html>".to_vec(), "HTML"),
        ("nothing", MediaType::Png, Vec::new(), "empty"),
        ("a bomb", MediaType::Png, bomb(60_000), "too large"),
        ("half of a picture", MediaType::Png, whole[..whole.len() / 2].to_vec(), "cut off"),
        ("half of a header", MediaType::Png, whole[..20].to_vec(), "cut off"),
    ];
    for (sequence, (what, media_type, payload, words)) in cases.into_iter().enumerate() {
        let message = device.message_of(sequence as u64, media_type, &payload);
        let message = wire::encode(&message).unwrap();
        let digest = Digest::of(&message);
        mqtt.send(&topic, message).await;
        let refusal = mqtt.refusal(&device.id, &rig.receipt_keys()).await;
        assert_eq!((refusal.message, refusal.reason), (digest, RefusalReason::Content), "{what}");
        assert_eq!(refusal.retry_after_s, None, "{what}: for good");
        assert!(refusal.detail.contains(words), "{what}: {}", refusal.detail);
        assert!(!rig.state().payloads.exists(Digest::of(&payload)).await.unwrap(), "{what}");
    }
    assert_eq!(rig.count("SELECT count(*) FROM sample"), 0);
    assert_eq!(rig.count("SELECT value FROM counter WHERE name = 'refused.content'"), 6);
    mqtt.send(&topic, device.sample(99, b"what a camera writes behind the end")).await;
    mqtt.receipt(&device.id, &rig.receipt_keys()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_no_picture_is_refused_for_good_and_leaves_the_staging_folder() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let mut mqtt = device.connect(&rig).await;
    let payload = vec![b'<'; 300_000];
    assert_eq!(put(&rig, &device, &payload).await, StatusCode::NO_CONTENT);
    mqtt.send(&Topic::new(&device.id, Kind::Sample), device.uploaded(0, &payload)).await;
    let refusal = mqtt.refusal(&device.id, &rig.receipt_keys()).await;
    assert_eq!((refusal.reason, refusal.retry_after_s), (RefusalReason::Content, None));
    assert!(!rig.state().payloads.exists(Digest::of(&payload)).await.unwrap());
    let named = fleetloop_protocol::sample::commitment(&crate::device::SALT, &payload);
    assert!(!rig.state().uploads.has(&device.id, named));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_that_was_removed_gets_its_receipt_again_and_is_not_stored_again() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let topic = Topic::new(&device.id, Kind::Sample);
    let mut mqtt = device.connect(&rig).await;
    let message = device.sample(0, b"a person");
    mqtt.send(&topic, message.clone()).await;
    let (receipt, first) = mqtt.receipt(&device.id, &rig.receipt_keys()).await;
    let state = rig.state();
    let now = state.clock.now();
    state
        .store
        .write(move |tx| {
            fleet_hub::store::removal::remove(tx, &[receipt.digest], "a person", "test", now)
        })
        .await
        .unwrap();
    fleet_hub::store::removal::erase_due(&state.store, &state.payloads, state.clock.now())
        .await
        .unwrap();
    mqtt.send(&topic, message).await;
    let (_, second) = mqtt.receipt(&device.id, &rig.receipt_keys()).await;
    assert_eq!(first, second, "byte for byte");
    assert!(!state.payloads.exists(Digest::of(&picture(b"a person"))).await.unwrap());
    assert_eq!(rig.count("SELECT count(*) FROM sample WHERE removed_at_ms IS NOT NULL"), 1);
    assert_eq!(rig.count("SELECT count(*) FROM sample"), 1);
}
