//! ONNX Runtime's shared library, out of the wheel that PyPI has for this machine's architecture.
//!
//! The library is the same file in the wheels of every Python version, so the wheel of one fixed
//! Python is fetched, whatever Python runs here, and the library itself is pinned.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::{Pinned, Workshop, accept, is_right, unpack};
use crate::shell;

/// The release; `models` loads this file name.
const VERSION: &str = "1.31.1";

/// The library for each architecture that has one.
const LIBRARIES: [(&str, Pinned); 2] = [
    (
        "x86_64",
        Pinned {
            name: "libonnxruntime.so.1.31.1",
            sha256: "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3",
        },
    ),
    (
        "aarch64",
        Pinned {
            name: "libonnxruntime.so.1.31.1",
            sha256: "8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467",
        },
    ),
];

/// Puts the library in place if it is not there.
///
/// # Errors
/// When the architecture has none, pip fails or the library is not the pinned one.
pub fn run() -> Result<()> {
    let architecture = std::env::consts::ARCH;
    let Some((_, library)) = LIBRARIES.iter().find(|(name, _)| *name == architecture) else {
        bail!("cannot set up ONNX Runtime {VERSION}: PyPI has no wheel for {architecture}");
    };
    let folder = shell::cache().join("onnxruntime");
    let place = folder.join(library.name);
    if is_right(&place, library.sha256)? {
        eprintln!("    ONNX Runtime {VERSION} is in place");
        return Ok(());
    }
    eprintln!("==> fetch ONNX Runtime {VERSION} ({architecture}, about 24 MB) from PyPI");
    let workshop = Workshop::new("onnxruntime")?;
    let wheel = download(workshop.path(), architecture)?;
    let fresh = workshop.path().join(library.name);
    let member = format!("onnxruntime/capi/{}", library.name);
    unpack([OsStr::new("zip"), wheel.as_os_str(), member.as_ref(), fresh.as_os_str()])?;
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    accept(&fresh, &place, library.sha256)
}

fn download(folder: &Path, architecture: &str) -> Result<PathBuf> {
    let platform = format!("manylinux_2_28_{architecture}");
    let package = format!("onnxruntime=={VERSION}");
    let mut pip = shell::program("python3");
    pip.args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]);
    pip.args(["--python-version", "3.11", "--platform", &platform, "--dest"]);
    pip.arg(folder).arg(&package);
    shell::run(&mut pip).with_context(|| {
        format!(
            "cannot fetch {package}: pip and PyPI (or a mirror in pip's configuration) must be \
             reachable; or put libonnxruntime.so.{VERSION} into {} yourself",
            shell::cache().join("onnxruntime").display()
        )
    })?;
    super::wheel(folder)
}
