//! Several devices in one process: each has its model, configuration, outbox and port; the service
//! manager sees one service, and the log says whose line it is.

use crate::device::{Device, answers};
use rustix::process::Signal;

#[test]
fn two_devices_in_one_process_answer_with_their_own_models_and_stop_together() {
    let (one, other) = (Device::new(), Device::new());
    let (first, second) = (one.install(1, None), other.install(2, None));
    let agent = one.start_with(&[&other], &[]);
    agent.until_answers(first);
    let status = other.until("an answer of the second", |status| answers(status, second));
    assert_eq!(status.data_dir, other.data());

    // SIGHUP is for both; what changed for one does not touch the other.
    let before = agent.until_answers(first).running.unwrap().config;
    let digest = other.configure("bright", 60, "");
    agent.signal(Signal::HUP);
    other.until("the new configuration", |status| {
        status.running.as_ref().is_some_and(|running| running.config.digest == digest)
    });
    assert_eq!(agent.until_answers(first).running.unwrap().config, before);

    let stopped = agent.stop_all();
    assert_eq!(stopped.len(), 2);
    for last_words in stopped {
        assert!(last_words.frames_in > 0 && last_words.frames_in == last_words.frames_answered);
    }
}

#[test]
fn one_device_that_cannot_start_is_named_and_nobody_runs() {
    let (well, wrong) = (Device::new(), Device::new());
    std::fs::remove_dir_all(wrong.data()).unwrap();
    let output = well.command("run", &[&wrong]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && output.stdout.is_empty(), "{said}");
    let last = said.lines().last().unwrap();
    let named = format!("error: cannot run the agent of {}: ", wrong.config().display());
    assert!(last.starts_with(&named) && last.contains("enroll"), "{said}");
    let of_the_first = format!("agent{{config={}}}", well.config().display());
    assert!(said.contains(&of_the_first), "{said}");
}

#[test]
fn one_folder_is_one_device() {
    let device = Device::new();
    let output = device.command("run", &[&device]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{said}");
    assert!(said.lines().last().unwrap().starts_with("error: cannot run the agent of "), "{said}");
}
