//! A full disk under the hub.

use std::path::Path;
use std::process::Command;

use fleetloop_protocol::receipt::RefusalReason;
use fleetloop_protocol::topic::{Kind, Topic};

use crate::rig::Rig;

/// A tiny file system over a folder, unmounted when dropped.
pub struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// None where this process may not mount and FLEETLOOP_NO_MOUNT says that this is known.
    pub fn over(path: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(path);
        let output = mount.output().unwrap();
        if output.status.success() {
            return Some(Self(path.to_owned()));
        }
        assert!(
            std::env::var_os("FLEETLOOP_NO_MOUNT").is_some(),
            "cannot mount a file system, so a full disk is not tested; run as root, or set \
             FLEETLOOP_NO_MOUNT to leave it out: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_samples_are_refused_for_now_and_none_is_lost() {
    // The disk itself says that it is full, not our floor.
    let mut rig = Rig::start_with(|config| config.limits.disk_floor_bytes = 0).await;
    let device = rig.enrol().await;
    rig.stop().await;
    let data = rig.config.paths.data.clone();
    let before = rig.dir.path().join("before");
    std::fs::rename(&data, &before).unwrap();
    std::fs::create_dir(&data).unwrap();
    let Some(disk) = SmallDisk::over(&data) else { return };
    let copied = Command::new("cp").arg("-a").arg(before.join(".")).arg(&data).status().unwrap();
    assert!(copied.success());
    rig.serve().await;
    let mut mqtt = device.connect(&rig).await;
    let topic = Topic::new(&device.id, Kind::Sample);
    mqtt.send(&topic, device.sample(0, &[1; 50_000])).await;
    mqtt.receipt(&device.id, &rig.receipt_keys()).await;

    let filler = data.join("filler");
    fill(&filler);
    for sequence in 1..4 {
        mqtt.send(&topic, device.sample(sequence, &[2; 50_000])).await;
        let refusal = mqtt.refusal(&device.id, &rig.receipt_keys()).await;
        assert_eq!(refusal.reason, RefusalReason::StorageFull, "{}", refusal.detail);
        assert!(refusal.retry_after_s.is_some());
    }
    std::fs::remove_file(&filler).unwrap();
    for sequence in 1..4 {
        mqtt.send(&topic, device.sample(sequence, &[2; 50_000])).await;
        mqtt.receipt(&device.id, &rig.receipt_keys()).await;
    }
    assert_eq!(rig.count("SELECT count(*) FROM sample"), 4);
    let damage: String =
        rig.database().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(damage, "ok");
    rig.stop().await;
    drop(disk);
}

/// Writes until nothing more fits.
pub fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).unwrap();
    let mut piece = 65_536;
    while piece > 0 {
        if file.write_all(&vec![0; piece]).is_err() {
            piece /= 2;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn above_the_disk_floor_samples_are_refused_for_now_and_none_is_lost() {
    let mut rig = Rig::start().await;
    let device = rig.enrol().await;
    let topic = Topic::new(&device.id, Kind::Sample);
    rig.stop().await;
    rig.config.limits.disk_floor_bytes = u64::MAX / 2;
    rig.serve().await;
    let mut mqtt = device.connect(&rig).await;
    mqtt.send(&topic, device.sample(0, b"x")).await;
    let refusal = mqtt.refusal(&device.id, &rig.receipt_keys()).await;
    assert_eq!(refusal.reason, RefusalReason::StorageFull);
    // Spread by a quarter, so that devices do not all come back at once.
    let (wait, told) = (rig.config.limits.retry_full_s, refusal.retry_after_s.unwrap());
    assert!((wait..=wait + wait / 2).contains(&told), "{told}");
    rig.stop().await;
    rig.config.limits.disk_floor_bytes = 1024;
    rig.serve().await;
    let mut mqtt = device.connect(&rig).await;
    mqtt.send(&topic, device.sample(0, b"x")).await;
    mqtt.receipt(&device.id, &rig.receipt_keys()).await;
}
