//! A disk that is full, a real one.

use super::*;

/// A file system of 4 MiB in memory; none where this process may not mount and FLEETLOOP_NO_MOUNT says
/// that this is known.
pub(super) fn small_disk() -> Option<(tempfile::TempDir, Mounted)> {
    let dir = tempfile::tempdir().unwrap();
    let output = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
        .arg(dir.path())
        .output()
        .unwrap();
    if output.status.success() {
        let path = dir.path().to_owned();
        return Some((dir, Mounted(path)));
    }
    assert!(
        std::env::var_os("FLEETLOOP_NO_MOUNT").is_some(),
        "cannot mount a file system, so a full disk is not tested; run as root, or set \
         FLEETLOOP_NO_MOUNT to leave it out: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    None
}

pub(super) struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        std::process::Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[test]
fn a_full_disk_pauses_selection_loses_nothing_and_resumes_by_itself() {
    let Some((dir, _mounted)) = small_disk() else { return };
    let limits = OutboxConfig { max_bytes: 1 << 30, max_rows: 1_000_000 };
    let mut bench = Bench::at(dir.path().to_owned(), limits, None);
    let big = || draft(Selection::Uncertain { score: 0.5 }, vec![9; 60_000]);
    bench.append(big()).unwrap();
    let ballast = dir.path().join("ballast");
    let fill = |bytes: usize| {
        use std::io::Write as _;
        let mut file = std::fs::File::create(&ballast).unwrap();
        while file.write_all(&vec![1; bytes]).is_ok() {}
    };
    fill(4096);
    let mut stored = 1;
    let error = loop {
        match bench.append(big()) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, OutboxError::Disk { .. }), "{error}");
    assert!(bench.outbox.stats().paused && !bench.outbox.accepting());
    assert!(matches!(bench.append(big()), Err(OutboxError::Disk { .. })));
    assert_eq!(bench.outbox.stats().append_failed, 2);
    assert_eq!(bench.outbox.stats().samples, stored, "what was stored stays");
    assert_eq!(bench.opened(1000).len() as u64, stored, "and can be sent");
    bench.restart();
    assert_eq!(bench.opened(1000).len() as u64, stored, "after a restart on the full disk too");
    assert!(matches!(bench.append(big()), Err(OutboxError::Disk { .. })));

    std::fs::remove_file(&ballast).unwrap();
    bench.time.advance(PROBE_EVERY);
    assert!(bench.outbox.accepting());
    bench.append(big()).unwrap();
    assert!(!bench.outbox.stats().paused && bench.outbox.accepting());
    bench.restart();
    assert_chain(&bench.opened(1000), stored + 1);
}

#[test]
fn an_agent_that_starts_on_a_full_disk_gets_its_outbox_once_there_is_room() {
    let Some((dir, _mounted)) = small_disk() else { return };
    let ballast = dir.path().join("ballast");
    {
        use std::io::Write as _;
        let mut file = std::fs::File::create(&ballast).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }
    let limits = OutboxConfig { max_bytes: 1 << 30, max_rows: 1_000_000 };
    let bench = Bench::at(dir.path().to_owned(), limits, None);
    assert!(bench.append(uncertain(0.9)).is_err());
    assert!(bench.outbox.stats().paused);
    std::fs::remove_file(&ballast).unwrap();
    bench.time.advance(PROBE_EVERY);
    assert_eq!(bench.append(uncertain(0.9)).unwrap().sequence, Sequence(0));
    assert!(!bench.outbox.stats().paused);
}
