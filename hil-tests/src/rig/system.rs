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

/// This thread runs before every one of ordinary priority from now on (`SCHED_FIFO`, the lowest of its
/// levels). It has to sleep most of the time.
///
/// # Errors
/// Without the right to do so (CAP_SYS_NICE).
pub fn go_first() -> io::Result<()> {
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: the kernel reads the structure, which lives until the call returns; 0 is this thread.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const lowest) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// This thread runs on that processor only.
///
/// # Errors
/// There is no such processor.
pub fn stay_on(processor: usize) -> io::Result<()> {
    // SAFETY: a set of processors is a field of bits, for which zero is a value; CPU_SET checks that
    // the number is within it; the kernel reads as many bytes as it has.
    let done = unsafe {
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processor, &mut one);
        libc::sched_setaffinity(0, size_of_val(&one), &raw const one)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
