//! What is done with the small files of a bundle: the manifest, the golden cases and the reference.
//!
//! The graph beside them is the target `model`'s. The fuzz target and the test that runs every file of
//! `seeds/manifest/` share this file.

use fleetloop_models::bundle::{Bundle, BundleError, Manifest, Role};
use fleetloop_models::golden::GoldenCases;
use fleetloop_models::reference::Reference;

/// Reads `bytes` as a manifest, as golden cases and as a reference; whether they are any of them.
///
/// # Panics
/// When what was read is written or read otherwise the second time.
pub fn attempt(bytes: &[u8]) -> bool {
    let manifest = manifest(bytes);
    let golden = golden(bytes);
    let reference = reference(bytes);
    manifest || golden || reference
}

fn manifest(bytes: &[u8]) -> bool {
    let Ok(manifest) = Manifest::parse(bytes) else { return false };
    for role in [Role::Model, Role::Golden] {
        let file = manifest.file(role).expect("a valid manifest has one of each");
        assert!(!file.path.contains('/') && !file.path.starts_with('.'), "{:?}", file.path);
    }
    assert!(manifest.input_len() > 0 && !manifest.target_name().contains(".."));
    match manifest.to_toml() {
        Ok(text) => assert_eq!(Manifest::parse(text.as_bytes()).expect("as written"), manifest),
        // A list on one line of the input has a line for each element here.
        Err(error) => assert!(matches!(error, BundleError::ManifestTooLarge { .. }), "{error}"),
    }
    // Files that are not the ones it names are refused before they are read.
    let files = [Role::Model, Role::Golden].map(|role| (role, b"other".to_vec()));
    let other = Bundle::from_parts(bytes.to_vec(), files.into());
    assert!(other.is_err());
    true
}

fn golden(bytes: &[u8]) -> bool {
    let Ok(cases) = GoldenCases::parse(bytes) else { return false };
    let json = cases.to_json().expect("what was read can be written");
    assert_eq!(GoldenCases::parse(&json).expect("as written"), cases);
    // Payloads are checked when they are run.
    drop(cases.frames());
    true
}

fn reference(bytes: &[u8]) -> bool {
    let Ok(reference) = Reference::parse(bytes) else { return false };
    let json = reference.to_json().expect("what was read can be written");
    assert_eq!(Reference::parse(&json).expect("as written"), reference);
    true
}
