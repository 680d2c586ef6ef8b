//! Fashion-MNIST, what the demo's devices look at, and IDX files made of parts of it.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use fleetloop_models::idx::{IdxPictures, read_labels};

use crate::draws::Draws;
use crate::drift::Drift;
use crate::files;

/// The classes, in the order of the labels.
pub const LABELS: [&str; 10] = [
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle-boot",
];

/// Pictures with their labels.
pub struct Pictures {
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// One after another, row by row.
    pixels: Vec<u8>,
    /// One a picture, an index into [`LABELS`].
    labels: Vec<u8>,
}

/// Which part of Fashion-MNIST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// 60,000 pictures.
    Train,
    /// 10,000 others.
    Test,
}

/// Where the two IDX files of `part` lie below `folder`.
pub fn paths(folder: &Path, part: Part) -> (PathBuf, PathBuf) {
    let stem = match part {
        Part::Train => "train",
        Part::Test => "t10k",
    };
    let file = |kind: &str| folder.join(format!("{stem}-{kind}-ubyte"));
    (file("images-idx3"), file("labels-idx1"))
}

impl Pictures {
    /// Reads two IDX files.
    ///
    /// # Errors
    /// When one is missing (the text says how to get it) or they do not fit each other.
    pub fn read(images: &Path, labels: &Path) -> Result<Self> {
        let missing = "run 'cargo xtask setup' to fetch the pictures";
        let pictures = IdxPictures::open(images).context(missing)?;
        let labels = read_labels(labels).context(missing)?;
        if pictures.is_empty() || labels.len() != pictures.len() {
            let (n, m) = (pictures.len(), labels.len());
            bail!("{} holds {n} pictures for {m} labels", images.display());
        }
        if let Some(odd) = labels.iter().find(|label| usize::from(**label) >= LABELS.len()) {
            bail!("{} holds the label {odd}, which has no name", images.display());
        }
        let first = pictures.read(0)?;
        let (width, height) = (first.width() as usize, first.height() as usize);
        let mut pixels = Vec::with_capacity(pictures.len() * width * height);
        for index in 0..pictures.len() {
            pixels.extend_from_slice(pictures.read(index)?.pixels());
        }
        Ok(Self { width, height, pixels, labels })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Picture `index` with the name of its label.
    pub fn get(&self, index: usize) -> (&[u8], &'static str) {
        let size = self.width * self.height;
        let pixels = &self.pixels[index * size..(index + 1) * size];
        (pixels, LABELS[usize::from(self.labels[index])])
    }

    /// Writes a range of the pictures as an IDX file, drifted if so wished.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_images(&self, range: Range<usize>, drift: Option<Drift>, to: &Path) -> Result<()> {
        let mut bytes = vec![0, 0, 8, 3];
        for size in [range.len(), self.height, self.width] {
            bytes.extend_from_slice(&u32::try_from(size)?.to_be_bytes());
        }
        for index in range {
            let (pixels, _) = self.get(index);
            match drift {
                Some(drift) => bytes.extend(drift.apply(pixels, self.width)),
                None => bytes.extend_from_slice(pixels),
            }
        }
        files::replace(to, &bytes)
    }
}

/// Writes square pictures of noise, no two alike, as one IDX file.
pub(crate) fn write_noise(to: &Path, count: u32, side: u32, draws: &mut Draws) -> Result<()> {
    let mut bytes = vec![0, 0, 8, 3];
    for size in [count, side, side] {
        bytes.extend_from_slice(&size.to_be_bytes());
    }
    for _ in 0..u64::from(count * side * side).div_ceil(8) {
        bytes.extend_from_slice(&draws.next().to_le_bytes());
    }
    bytes.truncate(16 + (count * side * side) as usize);
    files::replace(to, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_labels(labels: &[u8], to: &Path) {
        let mut bytes = vec![0, 0, 8, 1, 0, 0, 0, labels.len() as u8];
        bytes.extend_from_slice(labels);
        files::replace(to, &bytes).unwrap();
    }

    #[test]
    fn what_is_written_is_read_again_and_drifted_as_told() {
        let folder = tempfile::tempdir().unwrap();
        let (images, labels) = (folder.path().join("images"), folder.path().join("labels"));
        let all = Pictures {
            width: 2,
            height: 2,
            pixels: (0..12).map(|i| i * 20).collect(),
            labels: vec![3, 0, 9],
        };
        all.write_images(1..3, None, &images).unwrap();
        write_labels(&all.labels[1..3], &labels);
        let read = Pictures::read(&images, &labels).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read.get(1), (&all.pixels[8..12], "ankle-boot"));
        let drift = Drift { brightness: 0.5, shift_px: 1 };
        all.write_images(1..3, Some(drift), &images).unwrap();
        assert_eq!(Pictures::read(&images, &labels).unwrap().get(0).0, [0, 40, 0, 60]);
    }

    #[test]
    fn pictures_without_their_labels_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (images, labels) = (folder.path().join("images"), folder.path().join("labels"));
        let all = Pictures { width: 1, height: 1, pixels: vec![1, 2], labels: vec![0, 1] };
        all.write_images(0..2, None, &images).unwrap();
        write_labels(&all.labels[..1], &labels);
        assert!(Pictures::read(&images, &labels).is_err());
    }
}
