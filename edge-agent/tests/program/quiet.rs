//! What the program does besides what it is asked for: nothing.

use crate::device::Device;

#[test]
fn onnx_runtime_keeps_nothing_of_its_own_in_the_users_home() {
    let device = Device::new();
    device.install(1, None);
    let home = tempfile::tempdir().unwrap();
    let output = device
        .command("check", &[])
        .env_remove("ORT_DISABLE_TELEMETRY")
        .env_remove("XDG_CACHE_HOME")
        .env("HOME", home.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let left: Vec<_> = home.path().read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "its reports wait in {left:?}");
}
