//! The system calls of this crate that have no safe wrapper among our dependencies.

#![expect(
    unsafe_code,
    reason = "see above; they take plain numbers, or structures that they only read"
)]

use std::fs::File;
use std::io;

use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

/// Linux, `fs/ext4/ext4.h`: `_IOR('X', 125, __u32)`, which reads its argument all the same.
const EXT4_IOC_SHUTDOWN: Opcode = opcode::read::<u32>(b'X', 125);

/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: neither data nor the journal is written any more.
const NO_LOG_FLUSH: u32 = 2;

/// Gives this thread, and what it starts from now on, a list of mounts of its own. When the last
/// of them is gone the kernel unmounts what they mounted.
///
/// # Errors
/// Without the right to do so (CAP_SYS_ADMIN).
pub fn own_mounts() -> io::Result<()> {
    // SAFETY: takes a flag, and changes nothing but what paths this thread sees.
    match unsafe { libc::unshare(libc::CLONE_NEWNS) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Stops the ext4 file system that `root` lies on as a power cut would: from now on nothing of it
/// reaches the disk, and every operation fails.
///
/// # Errors
/// When it is no ext4, or without CAP_SYS_ADMIN.
pub fn shut_down(root: &File) -> io::Result<()> {
    // SAFETY: the kernel reads four bytes, the flags, from where `Setter` has them.
    let done = unsafe { ioctl(root, Setter::<EXT4_IOC_SHUTDOWN, u32>::new(NO_LOG_FLUSH)) };
    done.map_err(io::Error::from)
}
