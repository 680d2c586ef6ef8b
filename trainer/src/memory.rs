//! How the C library's allocator treats large blocks.
//!
//! A training step frees what it allocated and allocates the same sizes again. As it comes, glibc
//! gives large blocks back to the system each time, and the system clears every page anew: a fifth
//! to a third of a small network's step (`cargo xtask bench trainer`). What was once needed is kept
//! instead; the peak stays what it was. A process that goes on after its largest training gives back
//! what that one needed.

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

/// Gives the system what was kept and is not in use. Does nothing where the C library is another
/// one.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: malloc_trim gives back pages of blocks that are free, under the allocator's locks.
        #[allow(unsafe_code)]
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    /// Of this process, in KiB.
    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn freed_memory_goes_back_to_the_system() {
        // Blocks below the threshold of a mapping of their own. Every hundredth stays in use, so
        // that freeing the others leaves holes that the allocator keeps.
        let blocks: Vec<Vec<u8>> = (0..16_384).map(|_| vec![1; 16 << 10]).collect();
        let in_use: Vec<Vec<u8>> = blocks.into_iter().step_by(100).collect();
        let before = resident();
        give_back();
        let after = resident();
        assert!(before > after + (100 << 10), "{before} KiB, then {after} KiB");
        drop(in_use);
    }
}
