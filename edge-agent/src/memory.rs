//! How the C library's allocator treats what is freed.
//!
//! As it comes, glibc keeps what loading a model and encoding a picture once needed. A device runs one
//! model for months: here blocks from [`KEPT_BYTES`] on have a mapping of their own and go back to the
//! system when they are freed. The opposite of `trainer/src/memory.rs`, whose steps want the same blocks
//! again and again.
//!
//! How many heaps there are is left as it comes, as many as threads: in one that it shares, a thread that
//! frames wait for waits for one that gave way in the middle of an allocation.

/// Freed blocks of this size and more, and as much at the end of a heap, go back to the system.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES: libc::c_int = 64 * 1024;

/// Gives freed memory back to the system from now on, in the whole process. Has to run before
/// threads are made. Does nothing where the C library is another one.
pub fn give_back_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: mallopt only sets numbers of the allocator; no other thread runs yet.
        #[allow(unsafe_code)]
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT_BYTES);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
        }
    }
}
