//! The data folder is the device's user's only, whatever it was before.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::device::Device;

fn open_to_others(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mode = std::fs::symlink_metadata(folder).unwrap().permissions().mode();
    if mode & 0o077 != 0 {
        found.push(folder.to_owned());
    }
    if folder.is_dir() {
        for entry in std::fs::read_dir(folder).unwrap() {
            found.extend(open_to_others(&entry.unwrap().path()));
        }
    }
    found
}

#[test]
fn a_data_folder_that_was_open_to_everybody_is_closed_at_the_start() {
    let device = Device::new();
    device.install(1, None);
    let data = device.data();
    for name in ["", "identity", "identity/signing.key", "current.json"] {
        let path = data.join(name);
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let _agent = device.start(&[]);
    device.until("frames are answered", |status| {
        status.running.as_ref().is_some_and(|running| running.frames.frames_answered > 0)
    });
    // What SQLite and ONNX Runtime made is among them.
    assert!(data.join("outbox.db").exists() && data.join("outbox.db-wal").exists());
    assert_eq!(open_to_others(&data), Vec::<PathBuf>::new());
}
