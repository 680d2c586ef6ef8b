//! A hub with few descriptors among clients that are silent, and beside a device that floods; in
//! little. `cargo xtask hil faults` runs both in full.

use std::path::Path;

use hil_tests::fleet::Assets;
use hil_tests::progress::Lines;
use hil_tests::rig::ThisMachine;
use hil_tests::scenario::crowd::{self, Plan};

#[test]
fn a_silent_crowd_larger_than_the_hubs_descriptors_keeps_nobody_out() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Path::new(env!("CARGO_BIN_EXE_fleetloop-demo"));
    let rig = ThisMachine::new(folder.path(), demo).unwrap();
    let figures = crowd::run(&rig, Plan::small(), &Assets::of_this_checkout(), &Lines::default());
    let figures = figures.unwrap_or_else(|error| {
        let kept = folder.keep();
        panic!("{error:#}\nlogs are in {}", kept.join("logs").display())
    });
    println!("{figures}");
}
