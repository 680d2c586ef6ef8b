//! The whole loop with real processes, each of them killed once on the way.

use std::path::Path;

use hil_tests::fleet::Assets;
use hil_tests::progress::Lines;
use hil_tests::rig::ThisMachine;
use hil_tests::scenario::close_the_loop::{self, Plan};

#[test]
fn the_loop_closes_although_hub_agent_and_worker_are_killed_on_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Path::new(env!("CARGO_BIN_EXE_fleetloop-demo"));
    let rig = ThisMachine::new(folder.path(), demo).unwrap();
    let plan = Plan { kills: true, ..Plan::small() };
    let limits = plan.limits;
    let progress = Lines::default();
    let outcome = close_the_loop::run(&rig, plan, &Assets::of_this_checkout(), &progress);
    let outcome = outcome.unwrap_or_else(|error| {
        let kept = folder.keep();
        panic!("{error:#}\nlogs are in {}", kept.join("logs").display())
    });
    let missed = outcome.figures.missed(&limits);
    assert!(missed.is_empty(), "{missed:#?}\n{:#?}", outcome.figures);
}
