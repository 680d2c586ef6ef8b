//! Drift, by the real road: frames counted by the code that counts on devices, signed, over the
//! broker into the database, out through the API.

use fleet_hub::HubEvent;
use fleet_hub::cli::client::Client;
use fleet_hub::registry;
use fleetloop_models::bundle::{
    Description, Files, Fit, InputSpec, Manifest, OutputKind, PreprocessSpec, Role,
};
use fleetloop_models::picture::{Channels, Frame};
use fleetloop_models::reference::Reference;
use fleetloop_models::statistics::observe;
use fleetloop_protocol::api::drift::FleetDrift;
use fleetloop_protocol::drift::{Against, Feature, Verdict};
use fleetloop_protocol::sketch::Sketch;
use fleetloop_protocol::telemetry::Telemetry;
use fleetloop_protocol::topic::{Kind, Topic};
use fleetloop_protocol::{BundleDigest, Digest, Signed};

use crate::device::{Device, PATIENCE};
use crate::rig::Rig;

/// What a model makes of `count` pictures of a place under `light`.
fn sketch(count: usize, light: f32) -> Sketch {
    let mut sketch = Sketch::default();
    for n in 0..count {
        let shade = |i: usize| (light * ((i * 29 + n * 53) % 211) as f32) as u8;
        let frame = Frame::new(28, 28, Channels::Grey, (0..784).map(shade).collect()).unwrap();
        let confidence = 0.6 + (n % 40) as f32 / 100.0;
        sketch.add(&observe(&frame, 2, (n % 2, confidence)));
    }
    sketch
}

async fn model(rig: &Rig) -> BundleDigest {
    let reference = Reference::new(sketch(1000, 1.0)).unwrap().to_json().unwrap();
    let files: Files = [
        (Role::Model, include_bytes!("../../../models/tests/data/linear-1/model.onnx").to_vec()),
        (Role::Golden, b"golden".to_vec()),
        (Role::Reference, reference),
    ]
    .into();
    let about = Description {
        name: "place".into(),
        version: 1,
        labels: vec!["good".into(), "bad".into()],
        output: OutputKind::Logits,
        input: InputSpec { name: "x".into(), channels: 1, height: 28, width: 28 },
        preprocess: PreprocessSpec { fit: Fit::Stretch, mean: vec![0.5], std: vec![0.5] },
        lineage: None,
    };
    let manifest = Manifest::new(about, &files).unwrap().to_toml().unwrap().into_bytes();
    let digest = BundleDigest(Digest::of(&manifest));
    let state = rig.state();
    for bytes in files.into_values().chain([manifest]) {
        state.artefacts.put(Digest::of(&bytes), bytes.into()).await.unwrap();
    }
    registry::import(state, digest, "test").await.unwrap();
    digest
}

/// The signed report of a window.
fn window(device: &Device, model: BundleDigest, n: u64, light: f32) -> Vec<u8> {
    let report = Telemetry {
        model: Some(model),
        at_ms: n,
        window_s: 60,
        frames_answered: 600,
        sketch: sketch(600, light),
        ..Telemetry::default()
    };
    Signed::seal(&report, &device.id, &device.signing).unwrap().into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_in_the_dark_is_found_and_its_neighbour_is_not() {
    let rig = Rig::start().await;
    let model = model(&rig).await;
    let mut stored = rig.state().events.subscribe();
    let (bright, dark) = (rig.enrol().await, rig.enrol().await);
    let mut sent = 0;
    for (device, light) in [(&bright, 1.0), (&dark, 0.4)] {
        let mqtt = device.connect(&rig).await;
        let topic = Topic::new(&device.id, Kind::Telemetry);
        for n in 0..3 {
            let message = window(device, model, n, light);
            // The second is delivered twice, as after a broken connection.
            for _ in 0..=u64::from(n == 1) {
                mqtt.send(&topic, message.clone()).await;
                sent += 1;
            }
        }
        let mut mqtt = mqtt;
        let all = async {
            while sent > 0 {
                // The events come while the device's connection is polled.
                tokio::select! {
                    event = stored.recv() => {
                        sent -= i32::from(matches!(event, Ok(HubEvent::TelemetryStored { .. })));
                    }
                    _ = mqtt.next(&device.id, Kind::Refusal) => panic!("telemetry was refused"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, all).await.unwrap();
    }

    let access = rig.config.paths.data.join("admin.toml");
    let found: FleetDrift =
        Client::open(&access).unwrap().get("compare", "/drift?hours=2").await.unwrap();
    assert_eq!(found.models.len(), 1);
    assert_eq!(
        (found.models[0].name.as_str(), found.models[0].against),
        ("place/1", Against::Bundle)
    );
    let verdict = |device: &Device, feature| {
        let met = found.models[0].devices.iter().find(|met| met.device == device.id).unwrap();
        assert_eq!(met.drift.recent_frames, 3 * 600, "each window counts once");
        met.drift.features.iter().find(|f| f.feature == feature).unwrap().verdict
    };
    for feature in [Feature::Brightness, Feature::Contrast] {
        assert_eq!(verdict(&bright, feature), Verdict::Steady, "{found:#?}");
        assert_eq!(verdict(&dark, feature), Verdict::Drifted, "{found:#?}");
    }
    for device in [&bright, &dark] {
        assert_eq!(verdict(device, Feature::Confidence), Verdict::Steady, "{found:#?}");
        assert_eq!(verdict(device, Feature::Classes), Verdict::Steady, "{found:#?}");
    }
}
