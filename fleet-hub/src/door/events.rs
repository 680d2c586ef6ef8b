//! Wrong credentials as security events: how many of which kind came from where, at a bounded rate.
//!
//! Pure. A minute is a window: the first failure of an address at a door is a line at once, as long
//! as the window has fewer than [`LINES`]; what comes after is counted, and the window's end makes at
//! most [`LINES`] lines of it, the largest first, and one for all others. One line in the audit log
//! stands for the whole window. Memory: at most [`SOURCES`] addresses a window; failures of further
//! ones count as "others".

use std::collections::HashMap;
use std::time::Duration;

use super::throttle::Network;

/// A window.
pub const WINDOW: Duration = Duration::from_secs(60);

/// The most lines at once in a window, and the most at its end.
pub const LINES: usize = 10;

/// Addresses that a window tells apart.
pub const SOURCES: usize = 1024;

/// Where a credential was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Door {
    /// A token in the form of the page.
    Login,
    /// A token of the API.
    Bearer,
    /// The cookie of a login.
    Session,
    /// A device's enrolment secret.
    Enrol,
    /// A device's proof at the renewal of its certificate.
    Renew,
    /// The certificate of a device that is not enrolled, or is revoked.
    Certificate,
}

/// All doors.
pub const DOORS: [Door; 6] =
    [Door::Login, Door::Bearer, Door::Session, Door::Enrol, Door::Renew, Door::Certificate];

impl Door {
    /// Its name in log, audit log and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Bearer => "bearer",
            Self::Session => "session",
            Self::Enrol => "enrol",
            Self::Renew => "renew",
            Self::Certificate => "certificate",
        }
    }
}

/// How many failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// All of them.
    pub failures: u64,
    /// Those that were answered with "later".
    pub slowed: u64,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.failures += other.failures;
        self.slowed += other.slowed;
    }
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// At which door; none for the line of all others.
    pub door: Option<Door>,
    /// From where; none for the line of all others.
    pub from: Option<Network>,
    /// How many.
    pub count: Count,
}

#[derive(Debug, Default)]
struct Source {
    /// Since the window began.
    all: Count,
    /// Those that no line has told yet.
    untold: Count,
}

/// The present window.
#[derive(Debug, Default)]
pub struct Events {
    sources: HashMap<(Door, Network), Source>,
    others: Count,
    lines: usize,
}

impl Events {
    /// Counts a failure; gives the line that is due at once, if one is.
    pub fn note(&mut self, door: Door, from: Network, slowed: bool) -> Option<Line> {
        let one = Count { failures: 1, slowed: slowed.into() };
        let is_new = !self.sources.contains_key(&(door, from));
        if is_new && self.sources.len() >= SOURCES {
            self.others.add(one);
            return None;
        }
        let source = self.sources.entry((door, from)).or_default();
        source.all.add(one);
        if is_new && self.lines < LINES {
            self.lines += 1;
            return Some(Line { door: Some(door), from: Some(from), count: one });
        }
        source.untold.add(one);
        None
    }

    /// Ends the window: the lines for what no line has told, and the audit log's words for all of
    /// it; none when nothing failed.
    pub fn end(&mut self) -> (Vec<Line>, Option<String>) {
        let ended = std::mem::take(self);
        let mut untold: Vec<_> = ended.sources.iter().map(|(key, s)| (*key, s.untold)).collect();
        untold.retain(|(_, count)| count.failures > 0);
        untold.sort_by_key(|(key, count)| (std::cmp::Reverse(count.failures), *key));
        let mut others = ended.others;
        untold.iter().skip(LINES).for_each(|(_, count)| others.add(*count));
        untold.truncate(LINES);
        let mut lines: Vec<Line> = untold
            .into_iter()
            .map(|((door, from), count)| Line { door: Some(door), from: Some(from), count })
            .collect();
        if others.failures > 0 {
            lines.push(Line { door: None, from: None, count: others });
        }
        let words = ended.words();
        (lines, words)
    }

    /// `login 3 from 10.0.0.5; bearer 1200 from 40 addresses`, by door.
    fn words(&self) -> Option<String> {
        let mut parts = Vec::new();
        for door in DOORS {
            let of_door: Vec<_> = self.sources.iter().filter(|((at, _), _)| *at == door).collect();
            let failures: u64 = of_door.iter().map(|(_, source)| source.all.failures).sum();
            match of_door[..] {
                [] => {}
                [((_, from), _)] => parts.push(format!("{} {failures} from {from}", door.name())),
                _ => parts.push(format!(
                    "{} {failures} from {} addresses",
                    door.name(),
                    of_door.len()
                )),
            }
        }
        if self.others.failures > 0 {
            parts.push(format!("{} more from other addresses", self.others.failures));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn from(i: u32) -> Network {
        Network::of(IpAddr::from(i.to_be_bytes()))
    }

    #[test]
    fn the_first_failure_is_a_line_at_once_and_the_rest_one_at_the_windows_end() {
        let mut events = Events::default();
        let first = events.note(Door::Login, from(1), false).unwrap();
        assert_eq!(first.count, Count { failures: 1, slowed: 0 });
        assert!((0..1499).all(|_| events.note(Door::Login, from(1), true).is_none()));
        let (lines, audit) = events.end();
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].count, Count { failures: 1499, slowed: 1499 });
        assert_eq!(audit.unwrap(), "login 1500 from 0.0.0.1");
        assert_eq!(events.end(), (Vec::new(), None), "a quiet window says nothing");
    }

    #[test]
    fn a_flood_from_everywhere_makes_bounded_lines_in_bounded_memory_and_loses_no_count() {
        let mut events = Events::default();
        let mut told = 0;
        for i in 0..50_000 {
            told += events.note(Door::Bearer, from(i), false).map_or(0, |l| l.count.failures);
            assert!(events.sources.len() <= SOURCES);
        }
        assert_eq!(told as usize, LINES);
        let (lines, audit) = events.end();
        assert_eq!(lines.len(), LINES + 1);
        told += lines.iter().map(|line| line.count.failures).sum::<u64>();
        assert_eq!(told, 50_000);
        let audit = audit.unwrap();
        assert!(audit.starts_with("bearer 1024 from 1024 addresses; 48976 more"), "{audit}");
    }
}
