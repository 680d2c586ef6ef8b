//! The hub's process, killed.

use std::collections::BTreeMap;
use std::process::Stdio;

use fleetloop_protocol::Digest;
use fleetloop_protocol::receipt::Subject;
use fleetloop_protocol::topic::{Kind, Topic};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::rig::Rig;

/// Samples that a device sends.
const SAMPLES: u64 = 300;

async fn serve(rig: &Rig) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_fleet-hub"))
        .args(["serve", "--no-worker", "--data"])
        .arg(&rig.config.paths.data)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().expect("it ended before it was ready");
    assert!(line.starts_with("ready admin=https://localhost:"), "{line}");
    child
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_hub_has_every_sample_it_gave_a_receipt_for_and_takes_the_others_again() {
    let mut rig = Rig::start().await;
    let device = rig.enrol().await;
    rig.stop().await;
    let topic = Topic::new(&device.id, Kind::Sample);
    let message = |sequence: u64| device.sample(sequence, &[sequence as u8; 2000]);
    let mut receipts: BTreeMap<u64, (Digest, Vec<u8>)> = BTreeMap::new();
    let keys = rig.receipt_keys();

    let mut hub = serve(&rig).await;
    let mut mqtt = device.connect(&rig).await;
    for sequence in 0..SAMPLES {
        mqtt.send(&topic, message(sequence)).await;
    }
    while receipts.len() < 40 {
        let (receipt, bytes) = mqtt.receipt(&device.id, &keys).await;
        let Subject::Sample(id) = receipt.subject else { panic!("not a sample") };
        receipts.insert(id.sequence.0, (receipt.digest, bytes));
    }
    hub.kill().await.unwrap();

    for (sequence, (digest, bytes)) in &receipts {
        let stored: Vec<u8> = rig
            .database()
            .query_row("SELECT receipt FROM sample WHERE sample = ?1", [digest.as_bytes()], |row| {
                row.get(0)
            })
            .unwrap_or_else(|error| panic!("sample {sequence} is lost: {error}"));
        assert_eq!(stored, *bytes);
    }

    let hub = serve(&rig).await;
    let mut mqtt = device.connect(&rig).await;
    let missing: Vec<u64> = (0..SAMPLES).filter(|n| !receipts.contains_key(n)).collect();
    for sequence in &missing {
        mqtt.send(&topic, message(*sequence)).await;
    }
    while receipts.len() < SAMPLES as usize {
        let (receipt, bytes) = mqtt.receipt(&device.id, &keys).await;
        let Subject::Sample(id) = receipt.subject else { panic!("not a sample") };
        receipts.insert(id.sequence.0, (receipt.digest, bytes));
    }
    assert_eq!(rig.count("SELECT count(*) FROM sample"), SAMPLES as i64);

    let mut hub = hub;
    let pid = rustix::process::Pid::from_raw(i32::try_from(hub.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(hub.wait().await.unwrap().success());
}
