//! When a configuration file is worth reading. Pure: it is told what the file looks like.
//!
//! A file that looks the same at two looks in a row and was not read like that is read. What is
//! being written changes its length or its times, what is renamed into place is another inode; a
//! name that holds nothing is not worth reading, and the configuration in force stays.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

/// What tells one content under a name from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    dev: u64,
    inode: u64,
    len: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// The same of the inode: a copy that keeps the time of modification changes this one.
    changed: (i64, i64),
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        Self {
            dev: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Decides look by look.
#[derive(Debug, Default)]
pub struct Follower {
    seen: Option<Identity>,
    read: Option<Identity>,
}

impl Follower {
    /// Takes a look; whether the file is to be read now.
    pub fn look(&mut self, now: Option<Identity>) -> bool {
        let settled = now.is_some() && now == self.seen;
        self.seen = now;
        settled && now != self.read
    }

    /// What was last seen was read, whatever came of it.
    pub fn read(&mut self) {
        self.read = self.seen;
    }

    /// The file is read once it is settled, even if it was read as it is.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(inode: u64, len: u64, modified: i64) -> Option<Identity> {
        Some(Identity { dev: 1, inode, len, modified: (modified, 0), changed: (modified, 0) })
    }

    fn look(follower: &mut Follower, now: Option<Identity>) -> bool {
        let read = follower.look(now);
        if read {
            follower.read();
        }
        read
    }

    #[test]
    fn a_file_is_read_once_when_it_has_settled() {
        let mut follower = Follower::default();
        let looks = [file(1, 10, 1), file(1, 10, 1), file(1, 10, 1), file(1, 10, 1)];
        assert_eq!(looks.map(|now| look(&mut follower, now)), [false, true, false, false]);
    }

    #[test]
    fn a_file_that_is_being_written_is_not_read_until_it_rests() {
        let mut follower = Follower::default();
        let looks = [file(1, 10, 1), file(1, 20, 2), file(1, 30, 3), file(1, 30, 3)];
        assert_eq!(looks.map(|now| look(&mut follower, now)), [false, false, false, true]);
    }

    #[test]
    fn a_rename_over_it_is_seen_and_a_missing_file_is_waited_for() {
        let mut follower = Follower::default();
        let looks = [file(1, 10, 1), file(1, 10, 1), file(2, 10, 1), None, None, file(2, 10, 1)];
        let read = looks.map(|now| look(&mut follower, now));
        assert_eq!(read, [false, true, false, false, false, false]);
        assert!(look(&mut follower, file(2, 10, 1)));
    }

    #[test]
    fn what_was_read_is_read_again_only_when_it_is_asked_for() {
        let mut follower = Follower::default();
        let now = file(1, 10, 1);
        assert_eq!([now; 3].map(|now| look(&mut follower, now)), [false, true, false]);
        follower.forget();
        assert_eq!([now; 3].map(|now| look(&mut follower, now)), [false, true, false]);
    }

    proptest! {
        #[test]
        fn nothing_is_read_that_was_not_seen_twice_in_a_row_and_the_last_is_read_in_the_end(
            looks in prop::collection::vec(prop::option::of((0u64..3, 0u64..3)), 1..40),
        ) {
            let mut follower = Follower::default();
            let mut last_read = None;
            let mut before = None;
            for now in looks.iter().map(|look| look.and_then(|(inode, len)| file(inode, len, 0))) {
                if look(&mut follower, now) {
                    prop_assert!(now.is_some() && now == before && now != last_read);
                    last_read = now;
                }
                before = now;
            }
            look(&mut follower, before);
            look(&mut follower, before);
            prop_assert!(before.is_none() || follower.read == before);
        }
    }
}
