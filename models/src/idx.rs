//! IDX files, as MNIST and its kin come: `0, 0, type, rank`, the sizes (big endian), the values.
//!
//! Only unsigned bytes (type 8) are read: rank 3 as grey pictures, rank 1 as labels. Sizes are
//! checked against the file's length before anything is allocated; pictures are read one by one.
//! Source: <http://yann.lecun.com/exdb/mnist/>, "The IDX file format".

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::picture::{Channels, FRAME_PIXELS, Frame, PictureError};

/// The most labels that are read.
const LABELS: u64 = 1 << 28;

/// Why an IDX file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum IdxError {
    /// The file could not be read.
    #[error("cannot read IDX file {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not an IDX file of the wanted kind.
    #[error("cannot read IDX file {path}: {reason}; give an uncompressed IDX file of bytes")]
    Format {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is no such picture.
    #[error("cannot read picture {index} of {path}: it holds {len}")]
    Index {
        /// Which file.
        path: PathBuf,
        /// The picture asked for, from 0.
        index: usize,
        /// How many there are.
        len: usize,
    },
    /// The pictures have no pixels.
    #[error("cannot read a picture of {path}")]
    Picture {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: PictureError,
    },
}

/// Grey pictures in an IDX file.
#[derive(Debug)]
pub struct IdxPictures {
    path: PathBuf,
    file: File,
    len: usize,
    height: u32,
    width: u32,
}

const PICTURES_HEADER: u64 = 16;
const LABELS_HEADER: u64 = 8;

impl IdxPictures {
    /// Opens a file of pictures.
    ///
    /// # Errors
    /// [`IdxError`] when it cannot be read or is not rank 3 of bytes.
    pub fn open(path: &Path) -> Result<Self, IdxError> {
        let (file, sizes) = open(path, 3, PICTURES_HEADER)?;
        let (len, height, width) = (sizes[0], sizes[1], sizes[2]);
        if height == 0 || width == 0 || u64::from(height) * u64::from(width) > FRAME_PIXELS {
            let reason = format!("pictures of {width}×{height}");
            return Err(IdxError::Format { path: path.to_owned(), reason });
        }
        Ok(Self { path: path.to_owned(), file, len: len as usize, height, width })
    }

    /// How many pictures there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The open file, to tell whether another has taken its place.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Picture `index`, from 0.
    ///
    /// # Errors
    /// [`IdxError`] when there is none or the disk fails.
    pub fn read(&self, index: usize) -> Result<Frame, IdxError> {
        if index >= self.len {
            return Err(IdxError::Index { path: self.path.clone(), index, len: self.len });
        }
        let mut pixels = vec![0; self.height as usize * self.width as usize];
        let at = PICTURES_HEADER + index as u64 * pixels.len() as u64;
        self.file
            .read_exact_at(&mut pixels, at)
            .map_err(|source| IdxError::Read { path: self.path.clone(), source })?;
        Frame::new(self.width, self.height, Channels::Grey, pixels)
            .map_err(|source| IdxError::Picture { path: self.path.clone(), source })
    }
}

/// The labels in an IDX file of rank 1.
///
/// # Errors
/// [`IdxError`] when it cannot be read or is not rank 1 of bytes.
pub fn read_labels(path: &Path) -> Result<Vec<u8>, IdxError> {
    let (mut file, sizes) = open(path, 1, LABELS_HEADER)?;
    if u64::from(sizes[0]) > LABELS {
        let reason = format!("{} labels", sizes[0]);
        return Err(IdxError::Format { path: path.to_owned(), reason });
    }
    let mut labels = vec![0; sizes[0] as usize];
    file.read_exact(&mut labels)
        .map_err(|source| IdxError::Read { path: path.to_owned(), source })?;
    Ok(labels)
}

/// Opens a file of bytes of that rank, its cursor behind the header, and checks its length.
fn open(path: &Path, rank: u8, header_len: u64) -> Result<(File, Vec<u32>), IdxError> {
    let failed = |source| IdxError::Read { path: path.to_owned(), source };
    let format = |reason: String| IdxError::Format { path: path.to_owned(), reason };
    let mut file = File::open(path).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    if len < header_len {
        return Err(format(format!("{len} bytes are no header")));
    }
    let mut header = vec![0; header_len as usize];
    file.read_exact(&mut header).map_err(failed)?;
    if header[..4] != [0, 0, 8, rank] {
        return Err(format(format!(
            "it begins with {:02x?}, want [00, 00, 08, {rank:02x}]",
            &header[..4]
        )));
    }
    let sizes: Vec<u32> =
        header[4..].chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]])).collect();
    let values = sizes.iter().try_fold(1u64, |n, size| n.checked_mul(u64::from(*size)));
    if values.and_then(|n| n.checked_add(header_len)) != Some(len) {
        return Err(format(format!("sizes {sizes:?} do not match its {len} bytes")));
    }
    Ok((file, sizes))
}
