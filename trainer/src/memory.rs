//! How the C library's allocator treats large blocks.
//!
//! A training step frees what it allocated and allocates the same sizes again. As it comes, glibc
//! gives large blocks back to the system each time, and the system clears every page anew: a fifth
//! to a third of a small network's step (`cargo xtask bench trainer`). What was once needed is kept
//! instead; the peak stays what it was.

/// Keeps freed memory for the next allocation, for the whole process. Has to run before threads are
/// made. Does nothing where the C library is another one.
pub fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// Above any tensor of a step: blocks come from the heap, and the heap is not trimmed.
        const LARGE: libc::c_int = 1 << 30;
        // SAFETY: mallopt only sets numbers of the allocator; no other thread runs yet.
        #[allow(unsafe_code)]
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
            libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE);
            libc::mallopt(libc::M_ARENA_MAX, 1);
        }
    }
}
