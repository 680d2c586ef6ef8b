//! Where a run's files lie.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A folder of the user's, which stays, or a temporary one, which is removed when all went well.
pub struct Folder {
    path: PathBuf,
    temporary: bool,
}

impl Folder {
    /// The wanted one, which must not exist yet, or a temporary one.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(wanted: Option<&Path>) -> Result<Self> {
        match wanted {
            Some(path) => {
                std::fs::create_dir(path)
                    .with_context(|| format!("cannot make the folder {}", path.display()))?;
                let path = path.canonicalize().context("cannot resolve the folder")?;
                Ok(Self { path, temporary: false })
            }
            None => {
                let made = tempfile::Builder::new().prefix("fleetloop-demo-").tempdir();
                let path = made.context("cannot make a temporary folder")?.keep();
                Ok(Self { path, temporary: true })
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder, if nobody needs it after the run.
    pub fn removed_at_end(&self) -> Option<PathBuf> {
        self.temporary.then(|| self.path.clone())
    }

    /// Removes it if nobody needs it any more.
    pub fn close(&self) {
        if self.temporary {
            // What cannot be removed lies in the system's temporary folder and hurts nobody.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
