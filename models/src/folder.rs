//! Pictures in a folder by class: `FOLDER/CLASS/picture.png`.
//!
//! ```text
//!  pictures/
//!    good/       0001.jpg  0002.PNG
//!    scratched/  line 3/0001.png  line 4/0001.png     a folder within a class is a group
//! ```
//!
//! PNG and JPEG are read, whatever the case of the ending (`.png`, `.jpg`, `.jpeg`). A file whose bytes are
//! of another type than its name says is named and left out, and so is every other file, but for hidden
//! ones (`.DS_Store`) and Windows' own (`Thumbs.db`, `desktop.ini`). A group is what must not be divided
//! between learning and judging: a recording, a part, a day.
//!
//! Limits: [`FILES`], [`DEPTH`]; a picture's bytes by whoever reads it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use fleetloop_protocol::sample::MediaType;

use crate::content;

/// The most files in a folder.
pub const FILES: usize = 1_000_000;

/// How deep folders may be within a class; a deeper one is refused, links that run in circles above all.
pub const DEPTH: usize = 8;

/// One picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The file.
    pub path: PathBuf,
    /// Its name for people: the path within the folder.
    pub name: String,
    /// Its class: the name of the folder within the folder.
    pub class: String,
    /// The folders between class and file, if there are any.
    pub group: Option<String>,
    /// What its name says.
    pub media_type: MediaType,
}

/// A folder's pictures, ordered by name, and what is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folder {
    /// The pictures.
    pub entries: Vec<Entry>,
    /// Files that are left out, and why.
    pub refused: Vec<(String, String)>,
}

/// Why a folder cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The disk failed.
    #[error("cannot read {path}")]
    Read {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It has no folder for a class.
    #[error(
        "cannot use {path}: it has no folder with pictures; lay them in one folder for each class, such as {path}/good/1.png"
    )]
    NoClass {
        /// The folder.
        path: PathBuf,
    },
    /// A limit.
    #[error("cannot use {path}: {what}")]
    TooMuch {
        /// The folder.
        path: PathBuf,
        /// What is over which limit.
        what: String,
    },
    /// A picture cannot be used.
    #[error("its name says {name}, its bytes are {found}; give it the right name")]
    Type {
        /// What the name says.
        name: &'static str,
        /// What the bytes say.
        found: &'static str,
    },
}

impl Folder {
    /// Looks through a folder; no picture is opened.
    ///
    /// # Errors
    /// [`FolderError`]: the disk failed, there is no class, or a limit.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let mut folder = Self::default();
        for (name, inner) in sorted(path)? {
            let Some(class) = name.to_str().filter(|_| !is_skipped(&name)) else { continue };
            if inner.is_dir() {
                folder.walk(path, &inner, class, &mut Vec::new())?;
            } else {
                folder.refuse(path, &inner, "it is in no class's folder");
            }
        }
        if folder.entries.is_empty() && folder.refused.is_empty() {
            return Err(FolderError::NoClass { path: path.to_owned() });
        }
        Ok(folder)
    }

    /// The classes, in order.
    pub fn classes(&self) -> Vec<String> {
        let mut classes: Vec<String> = self.entries.iter().map(|e| e.class.clone()).collect();
        classes.sort();
        classes.dedup();
        classes
    }

    fn walk(
        &mut self,
        root: &Path,
        folder: &Path,
        class: &str,
        within: &mut Vec<String>,
    ) -> Result<(), FolderError> {
        let too_much = |what: String| FolderError::TooMuch { path: root.to_owned(), what };
        if within.len() > DEPTH {
            let what = format!("{} lies more than {DEPTH} folders deep", folder.display());
            return Err(too_much(what));
        }
        for (name, path) in sorted(folder)? {
            if is_skipped(&name) {
                continue;
            }
            if path.is_dir() {
                within.push(name.to_string_lossy().into_owned());
                self.walk(root, &path, class, within)?;
                within.pop();
                continue;
            }
            if self.entries.len() + self.refused.len() >= FILES {
                return Err(too_much(format!("it holds more than {FILES} files; divide it")));
            }
            match media_type_of(&path) {
                None => self.refuse(root, &path, "it is no .png, .jpg or .jpeg"),
                Some(media_type) => self.entries.push(Entry {
                    name: name_in(root, &path),
                    path,
                    class: class.to_owned(),
                    group: (!within.is_empty()).then(|| within.join("/")),
                    media_type,
                }),
            }
        }
        Ok(())
    }

    fn refuse(&mut self, root: &Path, path: &Path, why: &str) {
        self.refused.push((name_in(root, path), why.to_owned()));
    }
}

impl Entry {
    /// The file's bytes, which begin as its name says.
    ///
    /// # Errors
    /// [`FolderError`]: it cannot be read, or is of another type.
    pub fn read(&self) -> Result<Vec<u8>, FolderError> {
        let read = fs::read(&self.path);
        let bytes = read.map_err(|source| FolderError::Read { path: self.path.clone(), source })?;
        match content::media_type_of(&bytes) {
            Some(found) if found != self.media_type => {
                Err(FolderError::Type { name: self.media_type.as_str(), found: found.as_str() })
            }
            _ => Ok(bytes),
        }
    }
}

/// The media type that a file's name says: `.png`, `.jpg`, `.jpeg`, in any case.
pub fn media_type_of(path: &Path) -> Option<MediaType> {
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    match ending.as_str() {
        "png" => Some(MediaType::Png),
        "jpg" | "jpeg" => Some(MediaType::Jpeg),
        _ => None,
    }
}

fn sorted(folder: &Path) -> Result<Vec<(std::ffi::OsString, PathBuf)>, FolderError> {
    let failed = |source| FolderError::Read { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        found.push((entry.file_name(), entry.path()));
    }
    found.sort();
    Ok(found)
}

fn is_skipped(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with('.') || ["thumbs.db", "desktop.ini"].contains(&name.to_lowercase().as_str())
}

fn name_in(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::picture::{Channels, Frame};

    fn put(path: &Path, bytes: &[u8]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::File::create(path).unwrap().write_all(bytes).unwrap();
    }

    #[test]
    fn classes_groups_and_what_is_no_picture() {
        let dir = tempfile::tempdir().unwrap();
        let png = Frame::new(2, 2, Channels::Grey, vec![1; 4]).unwrap().encode_png().unwrap();
        for name in
            ["good/UPPER.JPG", "good/Prüfling 3 (neu).png", "bad/line 3/a.jpeg", "bad/b.bmp"]
        {
            put(&dir.path().join(name), &png);
        }
        for name in [".git/x.png", "good/.DS_Store", "good/Thumbs.db"] {
            put(&dir.path().join(name), b"");
        }
        put(&dir.path().join("readme.txt"), b"");
        let folder = Folder::open(dir.path()).unwrap();
        let told: Vec<_> = folder
            .entries
            .iter()
            .map(|e| (e.name.as_str(), e.class.as_str(), e.group.as_deref(), e.media_type))
            .collect();
        assert_eq!(
            told,
            [
                ("bad/line 3/a.jpeg", "bad", Some("line 3"), MediaType::Jpeg),
                ("good/Prüfling 3 (neu).png", "good", None, MediaType::Png),
                ("good/UPPER.JPG", "good", None, MediaType::Jpeg),
            ]
        );
        assert_eq!(folder.classes(), ["bad", "good"]);
        let refused: Vec<_> = folder.refused.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(refused, ["bad/b.bmp", "readme.txt"]);
        assert_eq!(folder.entries[1].read().unwrap(), png);
        let error = folder.entries[2].read().unwrap_err().to_string();
        assert!(error.contains("image/jpeg") && error.contains("image/png"), "{error}");
    }

    #[test]
    fn a_folder_without_classes_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let error = Folder::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("one folder for each class"), "{error}");
        assert!(Folder::open(&dir.path().join("none")).is_err());
    }
}
