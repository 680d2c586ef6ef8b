//! What devices fetch.

use bytes::Bytes;
use fleetloop_protocol::Digest;

use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn an_artefact_is_fetched_whole_in_part_and_resumed() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let digest = Digest::of(&bytes);
    rig.state().artefacts.put(digest, Bytes::from(bytes.clone())).await.unwrap();
    let url = format!("{}/artefacts/{digest}", rig.config.device_url());
    let http = device.http();
    let get = |range: &'static str| {
        let request = http.get(&url);
        async move { request.header("range", range).send().await.unwrap() }
    };
    let whole = http.get(&url).send().await.unwrap();
    assert_eq!((whole.status().as_u16(), whole.content_length()), (200, Some(1_200_000)));
    assert_eq!(whole.bytes().await.unwrap(), bytes);
    let rest = get("bytes=1000000-").await;
    assert_eq!(rest.status(), 206);
    assert_eq!(rest.headers()["content-range"], "bytes 1000000-1199999/1200000");
    assert_eq!(rest.bytes().await.unwrap(), bytes[1_000_000..]);
    assert_eq!(get("bytes=5-7").await.bytes().await.unwrap(), bytes[5..8]);
    assert_eq!(get("bytes=-3").await.bytes().await.unwrap(), bytes[1_199_997..]);
    let over = get("bytes=1200000-").await;
    assert_eq!(over.status(), 416);
    assert_eq!(over.headers()["content-range"], "bytes */1200000");
    let missing = format!("{}/artefacts/{}", rig.config.device_url(), Digest::of(b"none"));
    assert_eq!(http.get(missing).send().await.unwrap().status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_served_by_its_name_and_nothing_else_of_the_disk() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let http = device.http();
    let base = rig.config.device_url();
    for file in ["1.root.json", "timestamp.json"] {
        let answer = http.get(format!("{base}/tuf/dev/{file}")).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{file}");
    }
    for path in [
        "tuf/dev/2.root.json",
        "tuf/dev/..%2f..%2fhub.toml",
        "tuf/dev/..%2fkeys%2fdev-targets.pk8",
        "tuf/dev/%2e%2e",
        "tuf/keys/dev-targets.pk8",
        "tuf/dev/lock",
        "artefacts/..%2f..%2fhub.toml",
        "admin.toml",
        "api/v1/devices",
        "",
    ] {
        let answer = http.get(format!("{base}/{path}")).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hub_tells_its_time() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let before = rig.state().clock.now().0;
    let answer = device.http().get(format!("{}/time", rig.config.device_url())).send().await;
    let answer: serde_json::Value = answer.unwrap().json().await.unwrap();
    let told = answer["now_ms"].as_u64().unwrap();
    assert!(before <= told && told <= rig.state().clock.now().0);
}
