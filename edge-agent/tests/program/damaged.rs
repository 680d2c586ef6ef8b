//! What works on when a part of what a device keeps cannot be read.

use edge_agent::durable;

use crate::device::Device;

#[test]
fn a_model_works_though_the_metadata_that_released_it_cannot_be_read() {
    let device = Device::new();
    let installed = device.install(1, None);
    let tuf = device.data().join("tuf");
    durable::create_dir(&tuf).unwrap();
    for generation in ["trusted.0", "trusted.1"] {
        durable::write(&tuf.join(generation), b"rot").unwrap();
    }
    let agent = device.start(&[]);
    let status = agent.until_answers(installed);
    let problem = status.running.unwrap().link.last_error.unwrap();
    assert!(problem.contains("tuf/trusted") && problem.contains("enrol"), "{problem}");
    let last_words = agent.stop();
    assert!(last_words.frames_in > 0 && last_words.frames_in == last_words.frames_answered);
}
