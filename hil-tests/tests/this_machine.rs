//! The rig itself: what it starts is told, ended, and never left behind.

use std::path::Path;
use std::time::Duration;

use hil_tests::progress::tell;
use hil_tests::rig::{Ability, Ended, Launch, Process, Program, Rig, Signal, ThisMachine};

const SOON: Duration = Duration::from_secs(30);

fn rig(folder: &Path) -> ThisMachine {
    ThisMachine::new(folder, Path::new(env!("CARGO_BIN_EXE_fleetloop-demo"))).unwrap()
}

/// Any program, by way of the leash, which becomes what it is told.
fn launch(name: &str, words: &[&str]) -> Launch {
    let own = std::process::id().to_string();
    let arguments = ["leash", &own].into_iter().chain(words.iter().copied());
    Launch::new(name, Program::Demo, arguments)
}

fn lives(process: &Process) -> bool {
    Path::new(&format!("/proc/{}", process.id)).exists()
}

#[test]
fn a_program_that_fails_is_an_error_with_the_end_of_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let rig = rig(folder.path());
    let said = rig.run(&launch("good", &["sh", "-c", "echo hello"]), SOON).unwrap();
    assert_eq!(said, "hello\n");
    let error = rig.run(&launch("bad", &["sh", "-c", "echo because >&2; exit 3"]), SOON);
    let text = format!("{:#}", error.unwrap_err());
    assert!(text.contains("Exited(3)") && text.contains("because"), "{text}");
    let error = rig.run(&launch("slow", &["sleep", "600"]), Duration::ZERO).unwrap_err();
    assert!(format!("{error:#}").contains("the end of slow"), "{error:#}");
}

#[test]
fn a_killed_process_takes_what_it_started_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let rig = rig(folder.path());
    let process = rig.start(&launch("family", &["sh", "-c", "sleep 600 & echo $!; wait"])).unwrap();
    let child = hil_tests::wait::until("the child", SOON, Duration::from_millis(10), || {
        Ok(rig.printed(&process)?.trim().parse::<u32>().ok())
    });
    let child = Path::new("/proc").join(child.unwrap().to_string());
    assert!(child.exists());
    rig.signal(&process, Signal::Kill).unwrap();
    assert_eq!(rig.wait(&process, SOON).unwrap(), Ended::Killed(9));
    hil_tests::wait::until("the child's end", SOON, Duration::from_millis(10), || {
        // In a container without an init an orphan stays a zombie, which is dead enough.
        let state = std::fs::read_to_string(child.join("stat")).unwrap_or_default();
        Ok((state.is_empty() || state.contains(") Z ")).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_stopped_rig_leaves_nothing_and_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let rig = rig(folder.path());
    let polite = rig.start(&launch("polite", &["sleep", "600"])).unwrap();
    let stubborn = rig
        .start(&launch("stubborn", &["sh", "-c", "trap '' TERM; echo deaf; sleep 600"]))
        .unwrap();
    hil_tests::wait::until("the trap", SOON, Duration::from_millis(10), || {
        Ok(rig.printed(&stubborn)?.contains("deaf").then_some(()))
    })
    .unwrap();
    rig.stop_all(Duration::from_millis(200));
    assert_eq!(rig.ended(&polite).unwrap(), Some(Ended::Killed(15)));
    assert_eq!(rig.ended(&stubborn).unwrap(), Some(Ended::Killed(9)));
    assert!(!lives(&polite) && !lives(&stubborn));
    assert!(rig.start(&launch("late", &["sleep", "600"])).is_err());
}

#[test]
fn a_process_on_a_leash_does_not_start_without_its_parent() {
    let folder = tempfile::tempdir().unwrap();
    let rig = rig(folder.path());
    // Process 1 did not start it.
    let orphan = Launch::new("orphan", Program::Demo, ["leash", "1", "echo", "alive"]);
    let error = rig.run(&orphan, SOON).unwrap_err();
    assert!(format!("{error:#}").contains("the rig is gone"), "{error:#}");
}

#[test]
fn ports_are_free_and_below_the_range_for_outgoing_connections() {
    let folder = tempfile::tempdir().unwrap();
    let rig = rig(folder.path());
    let (one, other) = (rig.free_port().unwrap(), rig.free_port().unwrap());
    assert_ne!(one, other);
    for port in [one, other] {
        assert!((20_000..32_000).contains(&port), "{port}");
    }
}

#[test]
fn a_power_cut_takes_what_was_not_synced_and_keeps_what_was() {
    let folder = tempfile::tempdir().unwrap();
    let rig = rig(folder.path());
    if let Some(why) = rig.lacks(Ability::PowerCut) {
        return tell(&format!("power cuts are not tested: {why}"));
    }
    let volume = rig.volume("disk").unwrap();
    let script = "cd volumes/disk && echo kept >synced && sync synced . && echo lost >unsynced \
                  && cat synced unsynced && sleep 600";
    let process = rig.start(&launch("writer", &["sh", "-c", script])).unwrap();
    hil_tests::wait::until("both files", SOON, Duration::from_millis(5), || {
        Ok(rig.printed(&process)?.contains("lost").then_some(()))
    })
    .unwrap();
    rig.cut_power(&volume, &[&process]).unwrap();
    assert_eq!(rig.ended(&process).unwrap(), Some(Ended::Killed(9)));
    assert!(std::fs::File::create(volume.folder.join("late")).is_err(), "it still has power");
    rig.restore(&volume).unwrap();
    assert_eq!(std::fs::read_to_string(volume.folder.join("synced")).unwrap(), "kept\n");
    let unsynced = std::fs::read_to_string(volume.folder.join("unsynced")).unwrap_or_default();
    assert_eq!(unsynced, "", "what was in memory only cannot come back");
}

#[test]
fn nothing_stays_mounted_and_nobody_else_sees_a_volume() {
    let folder = tempfile::tempdir().unwrap();
    let rig = rig(folder.path());
    if let Some(why) = rig.lacks(Ability::PowerCut) {
        return tell(&format!("volumes are not tested: {why}"));
    }
    let volume = rig.volume("disk").unwrap();
    let mounts =
        |process: &str| std::fs::read_to_string(format!("/proc/{process}/mounts")).unwrap();
    let here = volume.folder.to_str().unwrap();
    assert!(mounts("thread-self").contains(here));
    // The process's first thread is not the one that made the rig.
    assert!(!mounts("self").contains(here));
    rig.stop_all(Duration::ZERO);
    assert!(!mounts("thread-self").contains(here));
}
