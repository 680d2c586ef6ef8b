//! Volumes of this machine: an ext4 image each, mounted through a loop device.
//!
//! Power is cut by the file system's own shutdown: what it has not written is lost, as it is when
//! a board goes dark; mounting it again replays its journal. What a disk's own cache would lose on
//! top is not: the image keeps every block that ext4 wrote, flushed or not.
//!
//! However a run ends, nothing stays mounted: the mounts are seen by nobody but the thread that
//! made the rig and what it starts (a mount namespace), so the kernel undoes them, and the loop
//! devices with them, when the last of these is gone.
//!
//! Needs root, `mkfs.ext4`, `mount` and `umount`. Root that cannot mount is an error, and no
//! skipped test, unless `FLEETLOOP_NO_MOUNT` says that this is known.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::tool::tool;
use super::{Volume, system};
use crate::{files, wait};

/// What a volume can hold. The image is sparse: it takes what is written to it.
const SIZE_BYTES: u64 = 4 << 30;

/// Set where mounting is known to be impossible.
const NO_MOUNT: &str = "FLEETLOOP_NO_MOUNT";

/// The file that fills a full volume.
const FILLER: &str = "filler";

/// The smallest piece of room, in bytes: a block of the file system.
const SMALLEST: u64 = 4096;

/// How long a killed process may hold its files on the way out.
const BUSY: Duration = Duration::from_secs(20);

/// The volumes of a rig.
pub(super) struct Volumes {
    folder: PathBuf,
    own_mounts: io::Result<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Whether mounts stay within our own list.
    private: bool,
    mounted: Vec<PathBuf>,
}

impl Volumes {
    /// Volumes with their images in `folder`. The calling thread gets mounts of its own.
    pub(super) fn new(folder: &Path) -> Self {
        let own_mounts = system::own_mounts();
        Self { folder: folder.to_owned(), own_mounts, state: Mutex::default() }
    }

    /// Why there are none, where that is known.
    pub(super) fn lacking() -> Option<String> {
        if std::env::var_os(NO_MOUNT).is_some() {
            return Some(format!("{NO_MOUNT} is set"));
        }
        let root = rustix::process::geteuid().is_root();
        (!root).then(|| "file systems are mounted by root only; run as root".to_owned())
    }

    /// Makes a file system and mounts it.
    pub(super) fn make(&self, name: &str) -> Result<Volume> {
        if let Err(error) = &self.own_mounts {
            bail!(
                "cannot make volume {name}: this process may not have mounts of its own ({error}); \
                 run as root with CAP_SYS_ADMIN, or set {NO_MOUNT} to leave power cuts out"
            );
        }
        let folder = self.folder.join(name);
        files::folder(&folder)?;
        let image = self.folder.join(format!("{name}.img"));
        let sparse = File::create_new(&image).and_then(|file| file.set_len(SIZE_BYTES));
        sparse.with_context(|| format!("cannot make {}", image.display()))?;
        let volume = Volume { name: name.to_owned(), folder };
        // An inode for every block of payload; nothing that the kernel would finish later.
        let options = ["-q", "-i", "4096", "-E", "lazy_itable_init=1,nodiscard"];
        tool(Command::new("mkfs.ext4").args(options).arg(&image))?;
        self.mount(&volume)?;
        Ok(volume)
    }

    fn mount(&self, volume: &Volume) -> Result<()> {
        let mut state = self.state();
        if !state.private {
            tool(Command::new("mount").args(["--make-rprivate", "/"]))?;
            state.private = true;
        }
        let image = self.folder.join(format!("{}.img", volume.name));
        let mut mount = Command::new("mount");
        mount.args(["-t", "ext4", "-o", "loop,noinit_itable"]).arg(image).arg(&volume.folder);
        tool(&mut mount)?;
        state.mounted.push(volume.folder.clone());
        Ok(())
    }

    /// From here on nothing is written to it any more.
    pub(super) fn shut_down(&self, volume: &Volume) -> Result<()> {
        let cannot = || format!("cannot cut the power of volume {}", volume.name);
        if !self.state().mounted.contains(&volume.folder) {
            return Err(anyhow::anyhow!("it has none")).with_context(cannot);
        }
        File::open(&volume.folder).and_then(|root| system::shut_down(&root)).with_context(cannot)
    }

    /// Mounts it again, which replays its journal.
    pub(super) fn restore(&self, volume: &Volume) -> Result<()> {
        self.unmount(&volume.folder)?;
        self.mount(volume)
    }

    /// Unmounts all of them; what cannot be, or is not seen by the thread that asks, is left to the
    /// kernel.
    pub(super) fn unmount_all(&self) {
        let all = self.state().mounted.clone();
        for folder in all.into_iter().filter(|folder| is_mounted(folder)) {
            if let Err(error) = self.unmount(&folder) {
                crate::progress::tell(&format!("{error:#}"));
            }
        }
    }

    /// Leaves no room on it. Room is taken in ever smaller pieces, none of which is written.
    pub(super) fn fill(volume: &Volume) -> Result<()> {
        let cannot = || format!("cannot fill volume {}", volume.name);
        let file = File::create(volume.folder.join(FILLER)).with_context(cannot)?;
        let (mut taken, mut piece) = (0, SIZE_BYTES);
        while piece >= SMALLEST {
            match fallocate(&file, FallocateFlags::empty(), taken, piece) {
                Ok(()) => taken += piece,
                Err(Errno::NOSPC) => piece /= 2,
                Err(error) => return Err(error).with_context(cannot),
            }
        }
        file.sync_all().with_context(cannot)
    }

    /// Takes back what [`Self::fill`] took.
    pub(super) fn make_room(volume: &Volume) -> Result<()> {
        std::fs::remove_file(volume.folder.join(FILLER))
            .with_context(|| format!("cannot make room on volume {}", volume.name))
    }

    fn unmount(&self, folder: &Path) -> Result<()> {
        let what = format!("{} to be unmounted", folder.display());
        wait::until(&what, BUSY, Duration::from_millis(10), || {
            tool(Command::new("umount").arg(folder)).map(Some)
        })?;
        self.state().mounted.retain(|mounted| mounted != folder);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole between any two of its statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether another file system than the one above it lies there.
fn is_mounted(folder: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|found| found.dev()).ok();
    folder.parent().is_some_and(|above| device(folder) != device(above))
}
