//! A device and its hub under every fault that this machine can make, but power cuts.

use std::path::Path;

use hil_tests::fleet::Assets;
use hil_tests::progress::Lines;
use hil_tests::rig::ThisMachine;
use hil_tests::scenario::faults;

/// Set where a rig's abilities are known to be missing although it is root's.
const KNOWN: [&str; 2] = ["FLEETLOOP_NO_MOUNT", "FLEETLOOP_NO_NETWORK"];

#[test]
fn a_device_comes_back_from_every_fault_and_every_sample_it_signed_is_stored_once() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Path::new(env!("CARGO_BIN_EXE_fleetloop-demo"));
    let rig = ThisMachine::new(folder.path(), demo).unwrap();
    let figures = faults::run(&rig, &Assets::of_this_checkout(), &Lines::default());
    let figures = figures.unwrap_or_else(|error| {
        let kept = folder.keep();
        panic!("{error:#}\nlogs are in {}", kept.join("logs").display())
    });
    println!("{figures}");
    let root = rustix::process::geteuid().is_root();
    let known = KNOWN.iter().any(|name| std::env::var_os(name).is_some());
    assert!(!root || known || figures.skipped.is_empty(), "{:?}", figures.skipped);
}
