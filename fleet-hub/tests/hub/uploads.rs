//! Samples whose payload is too large for a message.

use std::path::PathBuf;

use bytes::Bytes;
use fleetloop_protocol::limits::PAYLOAD_BYTES;
use fleetloop_protocol::receipt::RefusalReason;
use fleetloop_protocol::sample::commitment;
use fleetloop_protocol::topic::{Kind, Topic};
use fleetloop_protocol::upload::{self, SALT_HEADER};
use fleetloop_protocol::{DeviceId, Digest};
use reqwest::StatusCode;
use reqwest::header::CONTENT_LENGTH;

use crate::device::{Device, PIXEL, SALT, picture};
use crate::full_disk::{SmallDisk, fill};
use crate::rig::Rig;

/// A picture of that length that nothing compresses or repeats: noise behind its end marker.
fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    picture(&std::iter::repeat_with(next).take(len - PIXEL.len()).collect::<Vec<u8>>())
}

fn url(rig: &Rig, named: Digest) -> String {
    format!("{}{}", rig.config.device_url(), upload::path(named))
}

fn staged(rig: &Rig, device: &DeviceId, payload: &[u8]) -> PathBuf {
    let named = commitment(&SALT, payload).to_string();
    rig.config.paths.uploads().join(device.as_str()).join(named)
}

async fn put_as(rig: &Rig, device: &Device, named: Digest, payload: Vec<u8>) -> StatusCode {
    let request = device.http().put(url(rig, named)).header(SALT_HEADER, upload::salt_text(SALT));
    request.body(payload).send().await.unwrap().status()
}

pub async fn put(rig: &Rig, device: &Device, payload: &[u8]) -> StatusCode {
    put_as(rig, device, commitment(&SALT, payload), payload.to_vec()).await
}

async fn has(rig: &Rig, device: &Device, payload: &[u8]) -> StatusCode {
    let url = url(rig, commitment(&SALT, payload));
    device.http().head(url).send().await.unwrap().status()
}

/// Names in the staging folder, those of half-written files too.
fn names(rig: &Rig, device: &DeviceId) -> Vec<String> {
    let folder = rig.config.paths.uploads().join(device.as_str());
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_megabytes_go_all_the_way_and_the_staging_is_empty_afterwards() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let mut mqtt = device.connect(&rig).await;
    let topic = Topic::new(&device.id, Kind::Sample);
    let payload = noise(5_000_000, 1);
    assert_eq!(has(&rig, &device, &payload).await, 404);
    assert_eq!(put(&rig, &device, &payload).await, 204);
    assert_eq!(has(&rig, &device, &payload).await, 204);
    assert_eq!(put(&rig, &device, &payload).await, 204, "the same again changes nothing");
    mqtt.send(&topic, device.uploaded(0, &payload)).await;
    let (_, first) = mqtt.receipt(&device.id, &rig.receipt_keys()).await;
    let stored = rig.state().payloads.get(Digest::of(&payload)).await.unwrap();
    assert_eq!(stored, payload);
    assert!(names(&rig, &device.id).is_empty());
    assert_eq!(
        rig.count("SELECT payload_len FROM sample") as usize,
        payload.len(),
        "the row is a sample's like any other"
    );
    // The receipt was lost, so the device does all of it again.
    assert_eq!(put(&rig, &device, &payload).await, 204);
    mqtt.send(&topic, device.uploaded(0, &payload)).await;
    let (_, again) = mqtt.receipt(&device.id, &rig.receipt_keys()).await;
    assert_eq!(first, again);
    assert!(names(&rig, &device.id).is_empty());
    // A second sample of the same picture keeps one file and needs its own upload.
    mqtt.send(&topic, device.uploaded(1, &payload)).await;
    let refusal = mqtt.refusal(&device.id, &rig.receipt_keys()).await;
    assert_eq!(refusal.reason, RefusalReason::PayloadMissing);
    assert_eq!(put(&rig, &device, &payload).await, 204);
    mqtt.send(&topic, device.uploaded(1, &payload)).await;
    mqtt.receipt(&device.id, &rig.receipt_keys()).await;
    assert_eq!(rig.count("SELECT count(DISTINCT payload) FROM sample"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_whose_upload_is_not_there_is_refused_for_now_and_holds_nobody_up() {
    let rig = Rig::start().await;
    let (device, other) = (rig.enrol().await, rig.enrol().await);
    let mut mqtt = device.connect(&rig).await;
    let topic = Topic::new(&device.id, Kind::Sample);
    let payload = noise(200_000, 2);
    // What another device uploaded is not this one's.
    assert_eq!(put(&rig, &other, &payload).await, 204);
    let message = device.uploaded(0, &payload);
    mqtt.send(&topic, message.clone()).await;
    let refusal = mqtt.refusal(&device.id, &rig.receipt_keys()).await;
    assert_eq!(
        (refusal.reason, refusal.message),
        (RefusalReason::PayloadMissing, Digest::of(&message))
    );
    // At most half as long again: devices that were refused together do not come back together.
    let wait_s = rig.config.limits.retry_busy_s;
    assert!(refusal.retry_after_s.is_some_and(|s| (wait_s..=wait_s * 3 / 2).contains(&s)));
    mqtt.send(&topic, device.sample(1, b"small")).await;
    mqtt.receipt(&device.id, &rig.receipt_keys()).await;
    assert_eq!(put(&rig, &device, &payload).await, 204);
    mqtt.send(&topic, message).await;
    mqtt.receipt(&device.id, &rig.receipt_keys()).await;
    assert!(staged(&rig, &other.id, &payload).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_the_ones_named_are_refused_and_leave_nothing() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let (payload, other) = (noise(300_000, 3), noise(300_000, 4));
    let named = commitment(&SALT, &payload);
    assert_eq!(put_as(&rig, &device, named, other).await, 400);
    let url = url(&rig, named);
    let http = device.http();
    // Without its salt, with another one, over the limit, and without a length.
    let plain = http.put(&url).body(payload.clone()).send().await.unwrap();
    assert_eq!(plain.status(), 400);
    let salted = http.put(&url).header(SALT_HEADER, upload::salt_text([8; 16]));
    assert_eq!(salted.body(payload.clone()).send().await.unwrap().status(), 400);
    let large = http
        .put(&url)
        .header(SALT_HEADER, upload::salt_text(SALT))
        .header(CONTENT_LENGTH, PAYLOAD_BYTES + 1)
        .body(reqwest::Body::wrap_stream(futures::stream::pending::<Result<Bytes, String>>()));
    assert_eq!(large.send().await.unwrap().status(), 413);
    let endless = http
        .put(&url)
        .header(SALT_HEADER, upload::salt_text(SALT))
        .body(reqwest::Body::wrap_stream(futures::stream::pending::<Result<Bytes, String>>()));
    assert_eq!(endless.send().await.unwrap().status(), 411);
    let unnamed = format!("{}/payloads/..%2fhub.toml", rig.config.device_url());
    let unnamed = http.put(unnamed).header(SALT_HEADER, upload::salt_text(SALT));
    assert_eq!(unnamed.body(payload.clone()).send().await.unwrap().status(), 404);
    assert!(names(&rig, &device.id).is_empty());
    rig.revoke(&device.id).await;
    assert_eq!(put(&rig, &device, &payload).await, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_before_the_body_was_read_is_heard_and_the_connection_goes_on() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let payload = Bytes::from(noise(5_000_000, 13));
    let (http, url) = (device.http(), url(&rig, commitment(&SALT, &payload)));
    for _ in 0..20 {
        let unsalted = http.put(&url).body(payload.clone()).send().await.unwrap();
        assert_eq!(unsalted.status(), 400);
        assert_eq!(http.head(&url).send().await.unwrap().status(), 404);
    }
    let admin = format!("{}/api/v1/nothing", rig.config.admin_url());
    let unknown = rig.http().put(admin).body(payload).send().await.unwrap();
    assert!(unknown.status().is_client_error());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_cut_in_the_middle_leaves_nothing_and_is_done_again() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let payload = noise(5_000_000, 5);
    let half = Bytes::copy_from_slice(&payload[..2_500_000]);
    let begun = futures::stream::iter([Ok::<_, std::io::Error>(half)]);
    let cut = futures::stream::once(async { Err(std::io::Error::other("cut by the test")) });
    let request = device
        .http()
        .put(url(&rig, commitment(&SALT, &payload)))
        .header(SALT_HEADER, upload::salt_text(SALT))
        .header(CONTENT_LENGTH, payload.len())
        .body(reqwest::Body::wrap_stream(futures::StreamExt::chain(begun, cut)));
    assert!(request.send().await.is_err());
    // The hub hears of the cut in its own time.
    while !names(&rig, &device.id).is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(has(&rig, &device, &payload).await, 404);
    assert_eq!(put(&rig, &device, &payload).await, 204);
    let mut mqtt = device.connect(&rig).await;
    mqtt.send(&Topic::new(&device.id, Kind::Sample), device.uploaded(0, &payload)).await;
    mqtt.receipt(&device.id, &rig.receipt_keys()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_outlives_a_restart_and_one_that_rotted_is_asked_for_again() {
    let mut rig = Rig::start().await;
    let device = rig.enrol().await;
    let (good, rotten) = (noise(200_000, 6), noise(200_000, 7));
    for payload in [&good, &rotten] {
        assert_eq!(put(&rig, &device, payload).await, 204);
    }
    rig.stop().await;
    let half = rig.config.paths.uploads().join(device.id.as_str()).join(".upload-half");
    std::fs::File::create(&half).unwrap();
    let file = std::fs::File::options().write(true).open(staged(&rig, &device.id, &rotten));
    std::io::Write::write_all(&mut file.unwrap(), b"rot").unwrap();
    rig.serve().await;
    assert!(!half.exists(), "what was half written is swept");
    let mut mqtt = device.connect(&rig).await;
    let topic = Topic::new(&device.id, Kind::Sample);
    assert_eq!(has(&rig, &device, &good).await, 204);
    mqtt.send(&topic, device.uploaded(0, &good)).await;
    mqtt.receipt(&device.id, &rig.receipt_keys()).await;
    mqtt.send(&topic, device.uploaded(1, &rotten)).await;
    let refusal = mqtt.refusal(&device.id, &rig.receipt_keys()).await;
    assert_eq!(refusal.reason, RefusalReason::PayloadMissing);
    assert_eq!(has(&rig, &device, &rotten).await, 404);
    assert_eq!(put(&rig, &device, &rotten).await, 204);
    mqtt.send(&topic, device.uploaded(1, &rotten)).await;
    mqtt.receipt(&device.id, &rig.receipt_keys()).await;
    assert_eq!(rig.state().payloads.get(Digest::of(&rotten)).await.unwrap(), rotten);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_over_its_share_loses_its_oldest_upload_and_all_together_are_told_to_wait() {
    let rig = Rig::start_with(|config| {
        config.limits.upload_device_bytes = PAYLOAD_BYTES as u64;
        config.limits.upload_total_bytes = PAYLOAD_BYTES as u64 + 1_000_000;
    })
    .await;
    let (device, other) = (rig.enrol().await, rig.enrol().await);
    let (first, second) = (noise(5_000_000, 8), noise(5_000_000, 9));
    assert_eq!(put(&rig, &device, &first).await, 204);
    assert_eq!(put(&rig, &device, &second).await, 204);
    assert_eq!(names(&rig, &device.id), [commitment(&SALT, &second).to_string()]);
    let third = noise(4_500_000, 10);
    assert_eq!(put(&rig, &other, &third).await, 507);
    let mut mqtt = device.connect(&rig).await;
    mqtt.send(&Topic::new(&device.id, Kind::Sample), device.uploaded(0, &second)).await;
    mqtt.receipt(&device.id, &rig.receipt_keys()).await;
    assert_eq!(put(&rig, &other, &third).await, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn above_the_disk_floor_uploads_are_put_off() {
    let mut rig = Rig::start().await;
    let device = rig.enrol().await;
    rig.stop().await;
    rig.config.limits.disk_floor_bytes = u64::MAX / 2;
    rig.serve().await;
    assert_eq!(put(&rig, &device, &noise(200_000, 11)).await, 507);
    assert!(names(&rig, &device.id).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_an_upload_is_put_off_and_goes_through_once_there_is_room() {
    let mut rig = Rig::start_with(|config| config.limits.disk_floor_bytes = 0).await;
    let device = rig.enrol().await;
    rig.stop().await;
    let uploads = rig.config.paths.uploads();
    let Some(disk) = SmallDisk::over(&uploads) else { return };
    rig.serve().await;
    let payload = noise(2_000_000, 12);
    let filler = uploads.join("filler");
    fill(&filler);
    assert_eq!(put(&rig, &device, &payload).await, 507);
    assert!(names(&rig, &device.id).is_empty());
    std::fs::remove_file(&filler).unwrap();
    assert_eq!(put(&rig, &device, &payload).await, 204);
    let mut mqtt = device.connect(&rig).await;
    mqtt.send(&Topic::new(&device.id, Kind::Sample), device.uploaded(0, &payload)).await;
    mqtt.receipt(&device.id, &rig.receipt_keys()).await;
    rig.stop().await;
    drop(disk);
}
