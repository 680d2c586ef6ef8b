//! Replays an IDX picture file in a loop.
//!
//! The file may be replaced by a rename at any time: it is re-opened at the next frame once another
//! file stands under its name (device and inode differ), so that the world can change without a
//! restart. While the name holds nothing readable, the old file goes on.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

use fleetloop_models::idx::IdxPictures;
use fleetloop_models::picture::Frame;

use super::{Source, SourceError};
use crate::config::IdxConfig;

/// See the module.
pub struct IdxReplay {
    config: IdxConfig,
    pictures: IdxPictures,
    identity: Identity,
    /// A replacement that could not be used, so that it is reported once.
    refused: Option<Identity>,
    next: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    dev: u64,
    inode: u64,
    len: u64,
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        Self { dev: metadata.dev(), inode: metadata.ino(), len: metadata.len() }
    }
}

impl IdxReplay {
    /// Opens the file that the configuration names.
    ///
    /// # Errors
    /// [`SourceError`] when it is not readable or too short for `start`.
    pub fn open(config: &IdxConfig) -> Result<Self, SourceError> {
        let (pictures, identity) = open(config)?;
        Ok(Self { config: config.clone(), pictures, identity, refused: None, next: 0 })
    }

    fn follow_the_name(&mut self) {
        let Ok(metadata) = std::fs::metadata(&self.config.images) else { return };
        let named = Identity::from(&metadata);
        if named == self.identity || self.refused == Some(named) {
            return;
        }
        match open(&self.config) {
            Ok((pictures, identity)) => {
                let file = self.config.images.display();
                tracing::info!(%file, pictures = pictures.len(), "the source file was replaced");
                (self.pictures, self.identity, self.refused) = (pictures, identity, None);
            }
            Err(error) => {
                tracing::error!(%error, "the new source file is not usable; the old one goes on");
                self.refused = Some(named);
            }
        }
    }
}

fn open(config: &IdxConfig) -> Result<(IdxPictures, Identity), SourceError> {
    let pictures = IdxPictures::open(&config.images)?;
    if config.start >= pictures.len() {
        return Err(SourceError::Range {
            path: config.images.display().to_string(),
            start: config.start,
            len: pictures.len(),
        });
    }
    // The identity of the open file, not of the name: the name may have moved on in between.
    let identity = pictures
        .file()
        .metadata()
        .map_or(Identity { dev: 0, inode: 0, len: 0 }, |metadata| Identity::from(&metadata));
    Ok((pictures, identity))
}

impl Source for IdxReplay {
    fn next_frame(&mut self) -> Result<Frame, SourceError> {
        self.follow_the_name();
        let there = self.pictures.len() - self.config.start;
        let count = self.config.count.unwrap_or(there).min(there);
        let index = self.config.start + self.next % count;
        self.next = (self.next + 1) % count;
        Ok(self.pictures.read(index)?)
    }

    fn describe(&self) -> String {
        format!("{} ({} pictures)", self.config.images.display(), self.pictures.len())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::durable;

    fn write_idx(path: &Path, pixels: &[u8]) {
        let mut bytes = vec![0, 0, 8, 3];
        for size in [pixels.len() as u32, 1, 1] {
            bytes.extend_from_slice(&size.to_be_bytes());
        }
        bytes.extend_from_slice(pixels);
        durable::write(path, &bytes).unwrap();
    }

    fn config(path: &Path, start: usize, count: Option<usize>) -> IdxConfig {
        IdxConfig { images: path.to_owned(), rate_hz: 1.0, start, count }
    }

    fn take(source: &mut IdxReplay, n: usize) -> Vec<u8> {
        (0..n).map(|_| source.next_frame().unwrap().pixels()[0]).collect()
    }

    #[test]
    fn replays_its_range_in_a_loop() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("images");
        write_idx(&path, &[0, 1, 2, 3, 4]);
        let mut source = IdxReplay::open(&config(&path, 1, Some(3))).unwrap();
        assert_eq!(take(&mut source, 7), [1, 2, 3, 1, 2, 3, 1]);
    }

    #[test]
    fn a_replaced_file_is_used_from_the_next_frame_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("images");
        write_idx(&path, &[1, 2]);
        let mut source = IdxReplay::open(&config(&path, 0, None)).unwrap();
        assert_eq!(take(&mut source, 2), [1, 2]);
        write_idx(&path, &[8, 9, 10]);
        assert_eq!(take(&mut source, 3), [8, 9, 10]);
        durable::write(&path, b"not idx").unwrap();
        assert_eq!(take(&mut source, 1), [8]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(take(&mut source, 1), [9]);
        write_idx(&path, &[77]);
        assert_eq!(take(&mut source, 1), [77]);
    }

    #[test]
    fn a_range_beyond_the_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("images");
        write_idx(&path, &[1, 2]);
        let error = IdxReplay::open(&config(&path, 2, None)).err().unwrap().to_string();
        assert!(error.contains("source.start") && error.contains("images"), "{error}");
    }
}
