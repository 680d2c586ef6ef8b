//! What is done with an IDX file that somebody brings: opened for pictures and for labels, and read.
//!
//! The fuzz target and the test that runs every file of `seeds/idx/` share this file.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use fleetloop_models::idx::{IdxPictures, read_labels};
use tempfile::NamedTempFile;

/// Reads `bytes` as a file of pictures and as one of labels; whether they are either.
///
/// # Panics
/// When something is read that the file does not hold.
pub fn attempt(bytes: &[u8]) -> bool {
    thread_local! {
        static FILE: NamedTempFile = NamedTempFile::new().expect("a temporary file");
    }
    FILE.with(|file| {
        file.as_file().set_len(0).expect("the file is ours");
        file.as_file().write_all_at(bytes, 0).expect("there is room");
        let pictures = pictures(file.path(), bytes);
        let labels = labels(file.path(), bytes);
        pictures || labels
    })
}

fn pictures(path: &Path, bytes: &[u8]) -> bool {
    let Ok(pictures) = IdxPictures::open(path) else { return false };
    for index in [0, pictures.len() / 2, pictures.len().saturating_sub(1)] {
        let Ok(frame) = pictures.read(index) else {
            assert!(pictures.is_empty());
            continue;
        };
        let (len, at) = (frame.pixels().len(), 16 + index * frame.pixels().len());
        assert_eq!(frame.pixels(), &bytes[at..at + len]);
    }
    assert!(pictures.read(pictures.len()).is_err());
    true
}

fn labels(path: &Path, bytes: &[u8]) -> bool {
    read_labels(path).is_ok_and(|labels| {
        assert_eq!(labels, bytes[8..]);
        true
    })
}
