//! Over the real store: what counts, what is compared with what, and what is swept.

use askama::Template as _;
use fleetloop_models::bundle::{Description, Files, Manifest};
use fleetloop_protocol::drift::Verdict;
use fleetloop_protocol::sketch::Observation;
use fleetloop_protocol::state::{Reported, Update};
use fleetloop_protocol::telemetry::Telemetry;
use fleetloop_protocol::{ClockState, Digest, Epoch, Generation, UnixMillis};

use super::*;
use crate::api::testing::{Hub, NOW};
use crate::pages::view::Page;
use crate::release::fixture;
use crate::store::{devices as device_rows, findings};

const HOUR_MS: u64 = 3_600_000;

fn frames(count: usize, light: f32) -> Sketch {
    let mut sketch = Sketch::default();
    for n in 0..count {
        let spread = (n * 37 % 100) as f32 / 100.0;
        sketch.add(&Observation {
            classes: 2,
            class: n % 2,
            confidence: 0.5 + spread / 2.0,
            brightness: light + spread / 5.0,
            contrast: 0.2,
        });
    }
    sketch
}

/// A model that the hub holds, with its artefacts.
pub(crate) async fn model(hub: &Hub, name: &str, reference: Option<Sketch>) -> BundleDigest {
    let mut files: Files =
        [(Role::Model, fixture::graph(name)), (Role::Golden, b"golden".to_vec())].into();
    if let Some(sketch) = reference {
        files.insert(Role::Reference, Reference::new(sketch).unwrap().to_json().unwrap());
    }
    let labels = vec!["boot".into(), "bag".into()];
    let about = Description { labels, ..fixture::about(name, 1, None) };
    let manifest = Manifest::new(about, &files).unwrap();
    let manifest = manifest.to_toml().unwrap().into_bytes();
    let digest = BundleDigest(Digest::of(&manifest));
    for bytes in files.into_values().chain([manifest]) {
        hub.state.artefacts.put(Digest::of(&bytes), bytes.into()).await.unwrap();
    }
    registry::import(&hub.state, digest, "t").await.unwrap();
    digest
}

/// Takes a window of `device` in, as the ingest does.
async fn window(hub: &Hub, device: &str, model: BundleDigest, sketch: Sketch, n: u64) -> bool {
    let device: DeviceId = device.parse().unwrap();
    let now = hub.state.clock.now();
    let frames_answered = sketch.frames();
    let counted = Telemetry { window_s: 60, frames_answered, sketch, ..Telemetry::default() };
    let telemetry = Telemetry { model: Some(model), at_ms: n, ..counted };
    let digest = Digest::of(format!("{device} {n}").as_bytes());
    hub.state
        .store
        .write(move |tx| sketches::take(tx, &device, digest, &telemetry, now))
        .await
        .unwrap()
}

async fn ask(hub: &Hub, device: Option<&str>, hours: u32) -> FleetDrift {
    let device = device.map(|device| device.parse().unwrap());
    look(&hub.state, &Question { device, model: None, hours }).await.unwrap()
}

async fn rows(hub: &Hub) -> i64 {
    let count = |c: &Connection| Ok(c.query_row("SELECT count(*) FROM sketch", [], |r| r.get(0))?);
    hub.state.store.read(count).await.unwrap()
}

fn at_hour(hub: &Hub, hour: u64) {
    hub.state.clock.set(UnixMillis(NOW.0 + hour * HOUR_MS));
}

#[tokio::test]
async fn a_window_that_is_delivered_again_counts_once() {
    let hub = Hub::new().await;
    hub.device("dev-a", "a").await;
    let model = model(&hub, "m", Some(frames(1000, 0.5))).await;
    for (n, is_new) in [(1, true), (2, true), (1, false), (2, false), (3, true)] {
        assert_eq!(window(&hub, "dev-a", model, frames(600, 0.5), n).await, is_new, "{n}");
    }
    let found = ask(&hub, None, 1).await;
    assert_eq!(found.models[0].fleet.recent_frames, 3 * 600);
    // What is remembered for that is bounded, and covers what a broken connection repeats.
    for n in 10..100 {
        window(&hub, "dev-a", model, Sketch::default(), n).await;
    }
    assert!(!window(&hub, "dev-a", model, frames(600, 0.5), 84).await);
    let count = |c: &Connection| {
        Ok(c.query_row("SELECT count(*) FROM telemetry_window", [], |r| r.get::<_, i64>(0))?)
    };
    assert_eq!(hub.state.store.read(count).await.unwrap(), 32);
}

#[tokio::test]
async fn a_dark_device_has_drifted_and_the_others_have_not() {
    let hub = Hub::new().await;
    let with = model(&hub, "with", Some(frames(1000, 0.5))).await;
    for (device, light) in [("dev-a", 0.5), ("dev-b", 0.5), ("dev-c", 0.1)] {
        hub.device(device, device).await;
        for n in 0..3 {
            at_hour(&hub, n);
            window(&hub, device, with, frames(600, light), n).await;
        }
    }
    let found = ask(&hub, None, 24).await;
    let model = &found.models[0];
    assert_eq!((model.model, model.name.as_str()), (with, "with/1"));
    assert_eq!((model.against, model.fleet.reference_frames), (Against::Bundle, 1000));
    let verdicts: Vec<_> = model.devices.iter().map(|d| d.drift.verdict).collect();
    assert_eq!(verdicts, [Verdict::Steady, Verdict::Steady, Verdict::Drifted]);
    assert_eq!(model.fleet.recent_frames, 6 * 600);
    // One device in the dark is that device's drift, not the fleet's.
    let dark = "dev-c".parse().unwrap();
    assert_eq!((model.fleet.verdict, &model.left_out), (Verdict::Steady, &Some(dark)));
    // One device, and the last hour only.
    let one = ask(&hub, Some("dev-a"), 1).await;
    assert_eq!(one.models[0].devices.len(), 1);
    assert_eq!(one.models[0].fleet.recent_frames, 600);
}

#[tokio::test]
async fn one_device_cannot_move_the_fleet_and_two_can() {
    let hub = Hub::new().await;
    let model = model(&hub, "m", Some(frames(1000, 0.5))).await;
    for n in 0..10 {
        let device = format!("dev-{n}");
        hub.device(&device, &device).await;
        // One claims as many frames of darkness as a source can have, all others answer as ever.
        let met = if n == 0 { many(6_000_000, 0.1) } else { frames(600, 0.5) };
        window(&hub, &device, model, met, n).await;
    }
    let found = ask(&hub, None, 1).await;
    let found = &found.models[0];
    assert_eq!(found.fleet.verdict, Verdict::Steady, "{found:#?}");
    assert_eq!(found.left_out, Some("dev-0".parse().unwrap()));
    assert_eq!(found.devices[0].drift.verdict, Verdict::Drifted);
    // A second one in the dark is more than one device's matter, and still weighs as one device.
    window(&hub, "dev-1", model, many(1200, 0.1), 100).await;
    let found = ask(&hub, None, 1).await;
    let found = &found.models[0];
    assert!(found.fleet.verdict >= Verdict::Shifting, "{found:#?}");
    assert!(found.fleet.recent_frames <= 12 * 600, "{found:#?}");
}

/// As many frames, of that light.
fn many(count: u64, light: f32) -> Sketch {
    let mut sketch = frames(1000, light);
    let times = count / 1000;
    let scale = |counts: &[u64]| counts.iter().map(|n| n * times).collect::<Vec<_>>();
    sketch.classes = scale(&sketch.classes);
    sketch.confidence = scale(sketch.confidence.counts()).try_into().unwrap();
    sketch.brightness = scale(sketch.brightness.counts()).try_into().unwrap();
    sketch.contrast = scale(sketch.contrast.counts()).try_into().unwrap();
    sketch
}

#[tokio::test]
async fn a_message_of_a_billion_frames_is_a_finding_and_counts_nowhere() {
    let hub = Hub::new().await;
    hub.device("dev-a", "a").await;
    let model = model(&hub, "m", None).await;
    window(&hub, "dev-a", model, frames(600, 0.5), 1).await;
    window(&hub, "dev-a", model, many(1_000_000_000, 0.1), 2).await;
    // Nor do many small ones: an hour has room for two.
    for n in 3..200 {
        window(&hub, "dev-a", model, frames(1, 0.5), n).await;
    }
    let found = ask(&hub, None, 1).await;
    assert_eq!(found.models.len(), 1);
    let sketch = hub.state.store.read(move |c| sketches::first(c, model)).await.unwrap().unwrap();
    assert_eq!(sketch.sketch.frames(), 600 + 119);
    let filter = findings::Filter { limit: 10, ..findings::Filter::default() };
    let found = hub.state.store.read(move |c| findings::list(c, &filter)).await.unwrap();
    let mut found: Vec<_> = found.into_iter().map(|f| (f.kind, f.subject, f.count)).collect();
    found.sort();
    let of = |subject: &str, count| ("telemetry.impossible".to_owned(), subject.to_owned(), count);
    assert_eq!(found, [of("hour", 78), of("window", 1)]);
}

#[tokio::test]
async fn a_fast_device_does_not_decide_what_all_are_compared_with() {
    let hub = Hub::new().await;
    let model = model(&hub, "m", None).await;
    for (device, met) in [("dev-a", frames(600, 0.5)), ("dev-b", many(6_000_000, 0.1))] {
        hub.device(device, device).await;
        window(&hub, device, model, met, 1).await;
    }
    let first = hub.state.store.read(move |c| sketches::first(c, model)).await.unwrap().unwrap();
    assert!((1190..=1210).contains(&first.sketch.frames()), "{}", first.sketch.frames());
}

#[tokio::test]
async fn without_a_reference_the_first_day_stands_in_for_longer_than_it_is_kept() {
    let hub = Hub::new().await;
    hub.device("dev-a", "a").await;
    let model = model(&hub, "m", None).await;
    for hour in 0..24 {
        at_hour(&hub, hour);
        window(&hub, "dev-a", model, frames(100, 0.5), hour).await;
        let found = ask(&hub, None, 24).await;
        assert_eq!(found.models[0].against, Against::Nothing, "hour {hour}");
        assert_eq!(found.models[0].fleet.verdict, Verdict::Unknown);
    }
    for (hour, light, verdict) in
        [(24, 0.5, Verdict::Steady), (30, 0.5, Verdict::Steady), (100 * 24, 0.1, Verdict::Drifted)]
    {
        at_hour(&hub, hour);
        window(&hub, "dev-a", model, frames(600, light), hour).await;
        let found = ask(&hub, None, 1).await;
        let found = &found.models[0];
        assert_eq!((found.against, found.fleet.verdict), (Against::First, verdict), "{found:#?}");
        assert_eq!((found.fleet.reference_frames, found.fleet.recent_frames), (2400, 600));
    }
    // The hours of the first day are swept, what was gathered from them is not.
    assert_eq!(rows(&hub).await, 1);
}

#[tokio::test]
async fn a_first_day_with_few_frames_goes_on_until_there_are_enough() {
    let hub = Hub::new().await;
    hub.device("dev-a", "a").await;
    let model = model(&hub, "m", None).await;
    for hour in (0..100).step_by(10) {
        at_hour(&hub, hour);
        window(&hub, "dev-a", model, frames(150, 0.5), hour).await;
    }
    let found = ask(&hub, None, 168).await;
    let found = &found.models[0];
    assert_eq!((found.against, found.fleet.reference_frames), (Against::First, 1050));
    assert_eq!(found.fleet.recent_frames, 3 * 150);
}

#[tokio::test]
async fn what_is_older_than_ninety_days_is_swept_however_long_nothing_came() {
    let hub = Hub::new().await;
    hub.device("dev-a", "a").await;
    let model = model(&hub, "m", Some(frames(1000, 0.5))).await;
    for hour in 0..300 {
        at_hour(&hub, hour);
        window(&hub, "dev-a", model, frames(1, 0.5), hour).await;
    }
    assert_eq!(rows(&hub).await, 300);
    for late in 0..2 {
        let hour = 300 + KEPT_HOURS + late;
        at_hour(&hub, hour);
        window(&hub, "dev-a", model, frames(1, 0.5), hour).await;
    }
    assert_eq!(rows(&hub).await, 2);
}

#[tokio::test]
async fn models_that_are_not_held_and_revoked_devices_add_nothing() {
    let hub = Hub::new().await;
    hub.device("dev-a", "a").await;
    let model = model(&hub, "m", None).await;
    let invented = BundleDigest(Digest::of(b"invented"));
    assert!(window(&hub, "dev-a", invented, frames(600, 0.5), 1).await);
    assert_eq!(rows(&hub).await, 0);
    let id: DeviceId = "dev-a".parse().unwrap();
    hub.state.store.write(move |tx| device_rows::revoke(tx, &id, "t", NOW)).await.unwrap();
    assert!(!window(&hub, "dev-a", model, frames(600, 0.5), 2).await);
    assert_eq!(rows(&hub).await, 0);
}

#[tokio::test]
async fn a_question_over_more_hours_than_are_answered_is_refused() {
    let hub = Hub::new().await;
    hub.device("dev-a", "a").await;
    for (path, status) in [
        ("/api/v1/drift", 200),
        ("/api/v1/drift?hours=168", 200),
        ("/api/v1/drift?hours=169", 400),
        ("/api/v1/drift?hours=0", 400),
        ("/api/v1/drift?device=dev-a&hours=2160", 200),
        ("/api/v1/drift?device=dev-a&hours=2161", 400),
        ("/api/v1/drift?device=A", 400),
        ("/api/v1/drift?device=dev-z", 404),
    ] {
        assert_eq!(hub.get(path).await.status.as_u16(), status, "{path}");
    }
}

#[tokio::test]
async fn the_page_shows_a_device_that_drifts_and_what_moved() {
    let hub = Hub::new().await;
    let model = model(&hub, "m", Some(frames(1000, 0.5))).await;
    for (device, light) in [("dev-a", 0.5), ("dev-b", 0.1)] {
        let id = hub.device(device, device).await.id;
        let reported = Reported {
            generation: Generation(0),
            start: 1,
            epoch: Epoch(1),
            agent_version: "0".into(),
            at: NOW,
            clock: ClockState::Synced,
            running: Some(model),
            update: Update::Idle,
            addresses: 0,
            stopping: false,
        };
        hub.state
            .store
            .write(move |tx| device_rows::set_reported(tx, &id, &reported, NOW))
            .await
            .unwrap();
        window(&hub, device, model, frames(600, light), 1).await;
    }
    let drift = ask(&hub, None, 2).await;
    let text = hub
        .state
        .store
        .read(move |c| Page::read(c, "host".into(), "alice".into(), NOW, vec![], &drift))
        .await
        .unwrap()
        .render()
        .unwrap();
    for part in [">steady</td>", ">the picture is darker</td>", "title=\"brightness drifted (PSI"] {
        assert_eq!(text.matches(part).count(), 1, "{part}: {text}");
    }
}
