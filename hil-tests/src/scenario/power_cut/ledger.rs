//! What the agent said it had done, from its logs, which no power cut reaches.
//!
//! An agent logs `sample stored` after the commit and `sample receipted` after the deletion. Both
//! name the sample and its header's digest. That is its word; the hub's disk is held against it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::ops::Bound::{Excluded, Included};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use fleetloop_protocol::Digest;
use serde::Deserialize;

/// Which sample of the device: epoch and sequence.
pub type Id = (u64, u64);

/// What the agents of one device said, over all their lives.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Samples that were acknowledged, and their digests.
    pub stored: BTreeMap<Id, Digest>,
    /// Samples whose receipts were accepted, and the receipts' digests.
    pub receipted: BTreeMap<Id, Digest>,
    /// Identities that were given to two samples.
    pub reused: Vec<Id>,
    /// The life under way.
    pub life: Life,
    epoch: u64,
    log: Option<Log>,
}

/// What the current process said of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Life {
    /// It has reached the hub.
    pub reached: bool,
    /// It reaches the hub now.
    pub connected: bool,
    /// Receipts it accepted since it does.
    pub receipts: usize,
    /// It took an order and has not carried it out.
    pub swapping: bool,
    /// It was asked to end and began to.
    pub stopping: bool,
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: File,
    rest: Vec<u8>,
}

#[derive(Deserialize)]
struct Line {
    fields: Fields,
}

#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    message: String,
    sample: Option<String>,
    /// In other messages it may be a short one.
    digest: Option<String>,
}

impl Ledger {
    /// A new process begins, with this log.
    ///
    /// # Errors
    /// When the log cannot be opened, or the one before cannot be understood.
    pub fn follow(&mut self, log: &Path) -> Result<()> {
        self.read()?;
        let file = File::open(log).with_context(|| format!("cannot open {}", log.display()))?;
        self.log = Some(Log { path: log.to_owned(), file, rest: Vec::new() });
        self.life = Life::default();
        Ok(())
    }

    /// Reads what was logged since the last time.
    ///
    /// # Errors
    /// When a line cannot be understood, from then on: no word of the agent may go unheard.
    pub fn read(&mut self) -> Result<()> {
        let Some(mut log) = self.log.take() else { return Ok(()) };
        let path = log.path.display().to_string();
        log.file.read_to_end(&mut log.rest).with_context(|| format!("cannot read {path}"))?;
        let taken = self.take_lines(&mut log.rest);
        self.log = Some(log);
        taken.with_context(|| format!("cannot understand {path}"))
    }

    /// Takes whole lines out of `bytes`; one that is being written is read when it is whole.
    fn take_lines(&mut self, bytes: &mut Vec<u8>) -> Result<()> {
        let mut taken = 0;
        let mut result = Ok(());
        while let Some(len) = bytes[taken..].iter().position(|byte| *byte == b'\n') {
            let line = &bytes[taken..taken + len];
            // Others, ONNX Runtime among them, write plain text to the same place.
            if line.first() == Some(&b'{') {
                result =
                    self.take(line).with_context(|| String::from_utf8_lossy(line).into_owned());
            }
            if result.is_err() {
                break;
            }
            taken += len + 1;
        }
        bytes.drain(..taken);
        result
    }

    /// Acknowledged samples of the newest epoch after the last one that was receipted: what a cut
    /// puts at risk. Receipts come about in order, and the last words of a process that was cut off
    /// may be missing.
    pub fn open(&self) -> usize {
        let all = (self.epoch, 0)..=(self.epoch, u64::MAX);
        match self.receipted.range(all.clone()).next_back() {
            Some((last, _)) => {
                self.stored.range((Excluded(*last), Included((self.epoch, u64::MAX)))).count()
            }
            None => self.stored.range(all).count(),
        }
    }

    fn take(&mut self, line: &[u8]) -> Result<()> {
        let fields = serde_json::from_slice::<Line>(line)?.fields;
        match fields.message.as_str() {
            "sample stored" => {
                let (id, digest) = named(&fields)?;
                self.epoch = id.0;
                if self.stored.insert(id, digest).is_some_and(|before| before != digest) {
                    self.reused.push(id);
                }
            }
            "sample receipted" => {
                let (id, digest) = named(&fields)?;
                self.receipted.insert(id, digest);
                self.life.receipts += 1;
            }
            "connected" => {
                (self.life.reached, self.life.connected, self.life.receipts) = (true, true, 0);
            }
            "the link is lost" => self.life.connected = false,
            "a new order" => self.life.swapping = true,
            "a bundle is installed and answers" => self.life.swapping = false,
            text if text.starts_with("stopping") => self.life.stopping = true,
            _ => {}
        }
        Ok(())
    }
}

fn named(fields: &Fields) -> Result<(Id, Digest)> {
    let (Some(sample), Some(digest)) = (&fields.sample, &fields.digest) else {
        bail!("sample or digest is missing");
    };
    let mut parts = sample.rsplit('/');
    let (sequence, epoch) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    Ok(((u64::from_str_radix(epoch, 16)?, sequence.parse()?), digest.parse()?))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn line(message: &str, sample: &str, digest: Digest) -> String {
        let fields = serde_json::json!({ "message": message, "sample": sample, "digest": digest });
        serde_json::json!({ "level": "DEBUG", "fields": fields }).to_string() + "\n"
    }

    #[test]
    fn an_agent_is_taken_at_its_word_line_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut file = File::create(&path).unwrap();
        let mut ledger = Ledger::default();
        ledger.follow(&path).unwrap();
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let text = line("sample stored", "dev-1/00000000000000ff/7", one);
        let (head, tail) = text.split_at(20);
        file.write_all(head.as_bytes()).unwrap();
        ledger.read().unwrap();
        assert!(ledger.stored.is_empty(), "half a line says nothing");
        file.write_all(tail.as_bytes()).unwrap();
        ledger.read().unwrap();
        assert_eq!(ledger.stored, BTreeMap::from([((255, 7), one)]));
        assert_eq!(ledger.open(), 1);
        let receipt = line("sample receipted", "dev-1/00000000000000ff/7", one);
        file.write_all(receipt.as_bytes()).unwrap();
        ledger.read().unwrap();
        assert_eq!((ledger.open(), ledger.reused.len()), (0, 0));
        let again = line("sample stored", "dev-1/00000000000000ff/7", two);
        file.write_all(again.as_bytes()).unwrap();
        ledger.read().unwrap();
        assert_eq!(ledger.reused, [(255, 7)], "one identity for two samples");
    }

    #[test]
    fn a_line_that_says_nothing_clear_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["{no json\n", r#"{"fields":{"message":"sample stored","sample":"a/0/1"}}"#] {
            let path = folder.path().join("log");
            writeln!(File::create(&path).unwrap(), "{}", text.trim_end()).unwrap();
            let mut ledger = Ledger::default();
            ledger.follow(&path).unwrap();
            assert!(ledger.read().is_err(), "{text}");
        }
    }
}
