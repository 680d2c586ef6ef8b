//! Downloads that are cut, and power that is, at any step of an installation.

use super::*;
use crate::update::{bundle_state, current_bundle};

#[tokio::test]
async fn a_cut_download_goes_on_where_it_was_cut() {
    let rig = Rig::new().await;
    let bytes: Vec<u8> = (0..50_000u32).map(|i| (i % 251) as u8).collect();
    let digest = rig.hub.add_artefact(&bytes);
    let (http, part) = (rig.http(), rig.dir.path().join("x.part"));
    rig.hub.lock().cut_after = vec![1000, 30_000];
    rig.hub.asked();
    for cut in ["first", "second"] {
        let error = http.artefact(digest, 50_000, &part).await.unwrap_err();
        assert!(matches!(error, UpdateError::Unreachable { .. }), "{cut}: {error}");
        assert_eq!(error.retry(), Retry::Always);
    }
    http.artefact(digest, 50_000, &part).await.unwrap();
    assert_eq!(std::fs::read(&part).unwrap(), bytes);
    let ranges: Vec<_> = rig.hub.asked().into_iter().map(|(_, range)| range).collect();
    assert_eq!(ranges, [None, Some("bytes=1000-".into()), Some("bytes=31000-".into())]);
}

#[tokio::test]
async fn a_part_that_a_power_cut_damaged_is_fetched_again_and_wrong_bytes_are_refused() {
    let rig = Rig::new().await;
    let bytes = vec![7u8; 10_000];
    let digest = rig.hub.add_artefact(&bytes);
    let (http, part) = (rig.http(), rig.dir.path().join("x.part"));
    // The cut left the length and not the bytes.
    durable::write(&part, &[0; 4000]).unwrap();
    rig.hub.asked();
    http.artefact(digest, 10_000, &part).await.unwrap();
    let ranges: Vec<_> = rig.hub.asked().into_iter().map(|(_, range)| range).collect();
    assert_eq!(ranges, [Some("bytes=4000-".into()), None]);

    let wrong = Digest::of(b"promised");
    rig.hub.lock().artefacts.insert(wrong, bytes.clone());
    let part = rig.dir.path().join("y.part");
    let error = http.artefact(wrong, 10_000, &part).await.unwrap_err();
    assert!(matches!(error, UpdateError::WrongBytes { .. }), "{error}");
    assert_eq!(error.retry(), Retry::Never);
    assert!(!part.exists(), "wrong bytes are not kept");
    // More than was named is never written.
    let error = http.artefact(digest, 9_000, &part).await.unwrap_err();
    assert!(matches!(error, UpdateError::BadAnswer { .. }), "{error}");
    assert!(part.metadata().unwrap().len() <= 9_000);
}

/// The state on the disk after the order was taken and `steps` of its installation were done.
async fn cut_after(rig: &Rig, steps: u32, old: &Files, new: &Files) {
    for files in [old, new] {
        let digest = files.digest();
        if steps >= 3 || std::ptr::eq(files, old) {
            rig.bundles().fetch(&rig.http(), digest, &files.manifest).await.unwrap();
        }
        if steps >= 5 || std::ptr::eq(files, old) {
            rig.bundles().answered(digest).unwrap();
        }
    }
    if (1..3).contains(&steps) {
        // One file complete, the other in part, and at step 2 the manifest.
        let incoming = rig.dir.path().join(format!("bundles/.{}.incoming", new.digest()));
        durable::create_dir(&incoming).unwrap();
        durable::write(&incoming.join("model.onnx"), &new.model).unwrap();
        let part = incoming.join(format!("{}.part", Digest::of(&new.golden)));
        durable::write(&part, &new.golden[..100]).unwrap();
        if steps == 2 {
            durable::rename(&part, &incoming.join("golden.json")).unwrap();
            durable::write(&incoming.join("golden.json"), &new.golden).unwrap();
            durable::write(&incoming.join("bundle.toml"), &new.manifest).unwrap();
        }
    }
    let assignment = Some(Assignment { target: TWO.into(), bundle: new.digest() });
    let order = Order { generation: Generation(2), assignment, given_up: None };
    OrderStore::open(rig.dir.path()).unwrap().save(&order).unwrap();
}

#[tokio::test]
async fn a_power_cut_at_any_step_of_an_installation_starts_a_good_model_and_ends_with_the_new_one()
{
    for steps in 0..=5 {
        let mut rig = Rig::new().await;
        let (old, new) = (Files::fixture(1), Files::fixture(2));
        rig.release(&[(ONE, &old), (TWO, &new)]).await;
        cut_after(&rig, steps, &old, &new).await;
        let starts = rig.bundles().installed().unwrap().current.unwrap();
        assert_eq!(starts, if steps == 5 { new.digest() } else { old.digest() }, "step {steps}");
        rig.bundles().open(starts).unwrap();

        rig.hub.asked();
        let host = Host::new();
        let running = rig.start(&host);
        running.installed(2).await;
        assert_eq!(*host.running.borrow(), Some(new.digest()), "step {steps}");
        running.stop().await;
        let installed = rig.bundles().installed().unwrap();
        assert_eq!(installed.current, Some(new.digest()), "step {steps}");
        assert_eq!(installed.previous, Some(old.digest()), "step {steps}");
        let model = format!("/artefacts/{}", Digest::of(&new.model));
        let fetched = rig.hub.asked().iter().any(|(path, _)| *path == model);
        assert_eq!(fetched, steps == 0, "step {steps}: a complete file is not fetched again");
        let names = std::fs::read_dir(rig.dir.path().join("bundles")).unwrap().count();
        assert_eq!(names, 2, "step {steps}: nothing is left over");
    }
}

#[tokio::test]
async fn a_damaged_current_bundle_falls_back_to_the_one_before_at_start() {
    let mut rig = Rig::new().await;
    let (old, new) = (Files::fixture(1), Files::fixture(2));
    rig.release(&[(ONE, &old), (TWO, &new)]).await;
    cut_after(&rig, 5, &old, &new).await;
    OrderStore::open(rig.dir.path()).unwrap().save(&Order::default()).unwrap();
    let model = rig.dir.path().join(format!("bundles/{}/model.onnx", new.digest()));
    durable::write(&model, b"damaged").unwrap();
    assert_eq!(current_bundle(rig.dir.path()).unwrap().unwrap().digest(), old.digest());

    let host = Host::new();
    let running = rig.start(&host);
    host.running.subscribe().wait_for(|now| *now == Some(old.digest())).await.unwrap();
    running.until(|p| p.update == Update::Idle).await;
    running.stop().await;
    assert_eq!(bundle_state(rig.dir.path()).unwrap().current, Some(old.digest()));
}
