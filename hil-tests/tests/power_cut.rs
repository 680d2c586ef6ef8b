//! Nothing is lost when the power goes: twenty cuts of a device, twenty of the hub.

use std::path::Path;

use fleetloop_protocol::keys::random_bytes;
use hil_tests::fleet::Assets;
use hil_tests::progress::{Lines, tell};
use hil_tests::rig::{Ability, Rig as _, ThisMachine};
use hil_tests::scenario::power_cut::{self, Plan, Side};

fn nothing_is_lost(side: Side) {
    let folder = tempfile::tempdir().unwrap();
    let demo = Path::new(env!("CARGO_BIN_EXE_fleetloop-demo"));
    let rig = ThisMachine::new(folder.path(), demo).unwrap();
    if let Some(why) = rig.lacks(Ability::PowerCut) {
        return tell(&format!("power cuts are not tested: {why}"));
    }
    // Another one each time; a failure tells it.
    let seed = u64::from(u32::from_le_bytes(random_bytes().unwrap()));
    let plan = Plan::small(side, seed);
    let missed = match power_cut::run(&rig, plan, &Assets::of_this_checkout(), &Lines::default()) {
        Ok(figures) => {
            tell(&figures.lines());
            figures.missed()
        }
        Err(error) => vec![format!("{error:#}")],
    };
    if !missed.is_empty() {
        rig.stop_all(std::time::Duration::ZERO);
        let kept = folder.keep();
        panic!("seed {seed}: {missed:#?}\nlogs are in {}", kept.join("logs").display());
    }
}

#[test]
fn twenty_power_cuts_of_a_device_lose_nothing() {
    nothing_is_lost(Side::Agent);
}

#[test]
fn twenty_power_cuts_of_the_hub_lose_nothing() {
    nothing_is_lost(Side::Hub);
}
