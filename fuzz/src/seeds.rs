//! The files of `seeds/<target>/`, as the tests of the crate that owns the decoder run them.
//!
//! A file whose name begins with `refused-` must be refused; any other must be accepted. So a find that
//! was mended keeps its file and its verdict.

use std::path::Path;

/// Runs every file of a target.
///
/// # Panics
/// When a verdict is not the one that a file's name says, or there is no file of each kind.
pub fn replay(target: &str, attempt: fn(&[u8]) -> bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut seen = [0; 2];
    for file in files {
        let path = file.expect("the folder can be listed").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = std::fs::read(&path).expect("the file can be read");
        let wanted = !name.starts_with("refused-");
        assert_eq!(attempt(&bytes), wanted, "{}", path.display());
        seen[usize::from(wanted)] += 1;
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{} refused, {} accepted", seen[0], seen[1]);
}
