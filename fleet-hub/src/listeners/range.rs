//! The `Range` header (RFC 9110, section 14), one range of bytes: how a device resumes a fetch.

/// What to answer to a request for part of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// All of it: no range, or one that the standard lets us ignore.
    All,
    /// These bytes, both ends included.
    Part {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// Nothing of the range exists.
    Unsatisfiable,
}

/// What the header's text asks of something of `len` bytes.
pub fn wanted(header: Option<&str>, len: u64) -> Wanted {
    let Some(spec) = header.and_then(|text| text.trim().strip_prefix("bytes=")) else {
        return Wanted::All;
    };
    // Several ranges may be answered with all of it.
    let Some((first, last)) = spec.trim().split_once('-').filter(|_| !spec.contains(',')) else {
        return Wanted::All;
    };
    match (number(first), number(last)) {
        (Some(Number::None), Some(Number::Is(0))) => Wanted::Unsatisfiable,
        (Some(Number::None), Some(Number::Is(_))) if len == 0 => Wanted::Unsatisfiable,
        (Some(Number::None), Some(Number::Is(count))) => {
            Wanted::Part { first: len.saturating_sub(count), last: len - 1 }
        }
        (Some(Number::Is(first)), Some(last)) => {
            let last = match last {
                Number::None => u64::MAX,
                Number::Is(last) if last < first => return Wanted::All,
                Number::Is(last) => last,
            };
            if first >= len {
                return Wanted::Unsatisfiable;
            }
            Wanted::Part { first, last: last.min(len - 1) }
        }
        _ => Wanted::All,
    }
}

enum Number {
    None,
    Is(u64),
}

fn number(text: &str) -> Option<Number> {
    match text {
        "" => Some(Number::None),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            // Beyond every length is as good as the last.
            Some(Number::Is(digits.parse().unwrap_or(u64::MAX)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        let part = |first, last| Wanted::Part { first, last };
        for (header, expected) in [
            ("bytes=0-", part(0, 9)),
            ("bytes=3-5", part(3, 5)),
            ("bytes=3-99", part(3, 9)),
            ("bytes=-4", part(6, 9)),
            ("bytes=-99", part(0, 9)),
            ("bytes=9-9", part(9, 9)),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=99999999999999999999999-", Wanted::Unsatisfiable),
            ("bytes=5-3", Wanted::All),
            ("bytes=0-1,3-4", Wanted::All),
            ("bytes=-", Wanted::All),
            ("bytes=a-b", Wanted::All),
            ("lines=0-1", Wanted::All),
        ] {
            assert_eq!(wanted(Some(header), 10), expected, "{header}");
        }
        assert_eq!(wanted(None, 10), Wanted::All);
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Unsatisfiable);
        assert_eq!(wanted(Some("bytes=-1"), 0), Wanted::Unsatisfiable);
    }

    proptest! {
        #[test]
        fn what_is_answered_lies_within_what_there_is(
            header in prop_oneof!["bytes=[0-9]{0,22}-[0-9]{0,22}", "[ -~]{0,40}", "bytes=[-0-9, ]{0,20}"],
            len in prop_oneof![0u64..20, any::<u64>()],
        ) {
            if let Wanted::Part { first, last } = wanted(Some(&header), len) {
                prop_assert!(first <= last && last < len, "{first}-{last} of {len}");
            }
        }

        #[test]
        fn a_range_is_the_bytes_that_it_names(first in 0u64..50, count in 1u64..50, len in 1u64..50) {
            let there: Vec<u64> = (0..len).filter(|at| (first..first + count).contains(at)).collect();
            let expected = match (there.first(), there.last()) {
                (Some(first), Some(last)) => Wanted::Part { first: *first, last: *last },
                _ => Wanted::Unsatisfiable,
            };
            let header = format!("bytes={first}-{}", first + count - 1);
            prop_assert_eq!(wanted(Some(&header), len), expected);
            let last: Vec<u64> = (0..len).rev().take(count as usize).collect();
            let expected = Wanted::Part { first: *last.last().unwrap(), last: len - 1 };
            prop_assert_eq!(wanted(Some(&format!("bytes=-{count}")), len), expected);
        }
    }
}
