//! Models of a usual size for scenarios that look at time and memory and not at what is answered:
//! `trainer new` and `trainer bundle`, random weights.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use fleetloop_models::idx::IdxPictures;

use super::Assets;
use crate::files;
use crate::pictures::{LABELS, Part, paths};
use crate::rig::{Launch, Program, Rig};

/// How long making one may take.
const COMMAND: Duration = Duration::from_secs(60);

/// Pictures that a device must reproduce the answer for.
const GOLDEN: usize = 3;

/// Makes two versions of a picture model, 96×96 grey pixels and 23 million multiply-adds a frame,
/// and returns their bundles' folders.
///
/// # Errors
/// When the trainer cannot make them.
pub fn mobile(rig: &dyn Rig, assets: &Assets) -> Result<[PathBuf; 2]> {
    let folder = rig.folder().join("models");
    files::folder(&folder)?;
    let golden = golden(assets, &folder)?;
    Ok([version(rig, assets, &folder, &golden, 1)?, version(rig, assets, &folder, &golden, 2)?])
}

fn golden(assets: &Assets, folder: &Path) -> Result<Vec<PathBuf>> {
    let (images, _) = paths(&assets.fashion_mnist, Part::Test);
    let pictures = IdxPictures::open(&images).context("run 'cargo xtask setup'")?;
    let write = |index| {
        let path = folder.join(format!("golden-{index}.png"));
        files::replace(&path, &pictures.read(index)?.encode_png()?)?;
        Ok(path)
    };
    (0..GOLDEN).map(write).collect()
}

fn version(
    rig: &dyn Rig,
    assets: &Assets,
    folder: &Path,
    golden: &[PathBuf],
    version: u32,
) -> Result<PathBuf> {
    let run = |name: &str, arguments: Vec<OsString>| {
        let launch = Launch::new(name, Program::Trainer, arguments)
            .env("FLEETLOOP_ORT_LIB", &assets.onnxruntime);
        rig.run(&launch, COMMAND)
    };
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let model = folder.join(format!("mobile-{version}.onnx"));
    let (classes, number) = (LABELS.len().to_string(), version.to_string());
    let mut new = words(&["new", "picture-mobile", "--input", "1x96x96", "--classes", &classes]);
    new.extend(words(&["--seed", &number, "--out"]));
    new.push(model.clone().into());
    run("model-new", new)?;
    let bundle = folder.join(format!("mobile-{version}"));
    let labels = LABELS.join(",");
    let mut pack = words(&["bundle", "--name", "mobile", "--version", &number]);
    pack.extend(words(&["--labels", &labels, "--mean", "0", "--std", "1", "--model"]));
    pack.extend([model.into(), "--out".into(), bundle.clone().into(), "--golden".into()]);
    pack.extend(golden.iter().map(OsString::from));
    run("model-bundle", pack)?;
    Ok(bundle)
}
