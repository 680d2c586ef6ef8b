//! One sample's id through the logs of the real agent and the real hub, from capture to dataset.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use fleetloop_protocol::api::datasets::DatasetSummary;
use fleetloop_protocol::api::devices::TokenResponse;
use fleetloop_protocol::api::labels::LabelRequest;
use fleetloop_protocol::api::rollouts::{Phase, Rollout};
use fleetloop_protocol::api::samples::Sample;
use hil_tests::fleet::{Agent, Assets, Hub, Selection, labels, rollout, test_bundles};
use hil_tests::pictures::{Part, Pictures, paths};
use hil_tests::rig::{Rig, ThisMachine};
use hil_tests::wait;
use serde_json::Value;

/// How long one step may take on a machine that compiles beside it.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(200);

/// Samples that are labelled: a frozen dataset has some to learn from and some to judge by.
const LABELLED: usize = 16;

/// Each step of a sample.
const STEPS: &str = "info,edge_agent=debug,fleet_hub=debug";

/// The fields of each line of a process's log, in order.
fn log(rig: &dyn Rig, name: &str) -> Vec<Value> {
    let path = rig.folder().join(format!("logs/{name}.1.log"));
    let text = std::fs::read_to_string(path).unwrap();
    // ONNX Runtime writes plain text to the same place.
    let lines = text.lines().filter(|line| line.starts_with('{'));
    let lines = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|mut line| line["fields"].take()).collect()
}

/// What a log says of a sample, a message that repeats at once only once.
fn road(log: &[Value], sample: &str) -> Vec<String> {
    let lines = log.iter().filter(|fields| fields["sample"] == sample);
    let mut messages: Vec<String> =
        lines.map(|fields| fields["message"].as_str().unwrap().to_owned()).collect();
    messages.dedup();
    messages
}

/// A hub and a device whose every frame is a sample, until some are labelled and frozen. Returns the
/// labelled ones and the dataset.
fn run(rig: &dyn Rig) -> Result<(Vec<Sample>, DatasetSummary)> {
    let assets = Assets::of_this_checkout();
    let [bundle, _] = test_bundles();
    let mut hub = Hub::init(rig, &labels(&bundle)?)?;
    hub.set_log(STEPS);
    hub.start()?;
    let digest = rollout::release_unjudged(&hub, &bundle)?.to_string();
    let every = Selection {
        uncertainty_threshold: 1.0,
        random_rate: 1.0,
        budget_bytes_per_hour: 1 << 30,
        burst_bytes: 1 << 30,
        seed: 7,
    };
    let mut agent = Agent::new(rig, "agent", &assets, every, 5.0)?;
    let (images, classes) = paths(&assets.fashion_mnist, Part::Train);
    Pictures::read(&images, &classes)?.write_images(0..200, None, &agent.images())?;
    let token: TokenResponse = hub.admin(["device", "add", "agent"])?;
    agent.enrol(&token.token)?;
    agent.set_log(STEPS);
    agent.start()?;
    let rollout: Rollout = wait::until("a device to roll out to", PATIENCE, LOOK, || {
        // It may be refused until the device has reported.
        hub.admin(["rollout", "start", &digest]).map(Some)
    })?;
    wait::until("the rollout", PATIENCE, LOOK, || {
        agent.must_run()?;
        let now: Rollout = hub.api().get(&format!("rollouts/{}", rollout.id.0))?;
        Ok((now.phase == Phase::Done).then_some(()))
    })?;
    let samples = wait::until("samples", PATIENCE, LOOK, || {
        agent.must_run()?;
        let found: Vec<Sample> = hub.api().get("samples?group=fleet")?;
        Ok((found.len() >= LABELLED).then_some(found))
    })?;
    for sample in &samples {
        hub.api().post("labels", &LabelRequest { sample: sample.sample, label: "good".into() })?;
    }
    let dataset = hub.admin(["dataset", "freeze", "first", "--gate-share", "0.5"])?;
    agent.stop().context("the agent's end")?;
    Ok((samples, dataset))
}

#[test]
fn a_samples_id_is_found_at_every_step_from_the_device_to_the_dataset() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Path::new(env!("CARGO_BIN_EXE_fleetloop-demo"));
    let rig = ThisMachine::new(folder.path(), demo).unwrap();
    let (samples, dataset) = match run(&rig) {
        Ok(found) => found,
        Err(error) => {
            panic!("{error:#}\nlogs are in {}", folder.keep().join("logs").display())
        }
    };
    let (agent, hub) = (log(&rig, "agent"), log(&rig, "hub"));
    for sample in samples {
        let id = sample.id.unwrap().to_string();
        assert_eq!(road(&agent, &id), ["sample stored", "sample sent", "sample receipted"]);
        let steps = ["sample received", "sample stored", "receipt sent", "sample labelled"];
        assert_eq!(road(&hub, &id), steps);
        // Both ends name the same digest, by which the dataset names it.
        let digest = sample.sample.to_string();
        for log in [&agent, &hub] {
            let names =
                |fields: &&Value| fields["sample"] == id && fields["message"] == "sample stored";
            assert_eq!(log.iter().find(names).unwrap()["digest"], digest);
        }
        let frozen = |fields: &Value| {
            fields["message"] == "frozen into a dataset"
                && fields["digest"] == digest
                && fields["dataset"] == dataset.digest.to_string()
        };
        assert!(hub.iter().any(frozen), "{digest}");
    }
}
