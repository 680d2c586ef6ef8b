//! Checkpoints: a run that was killed goes on from its last one and ends in the same bytes.
//!
//! A folder with two files, written by turns and each in one piece, so that the older one is there
//! when the newer one is not whole. A file is eight bytes of name and version, the SHA-256 of all
//! that follows, and that: what the run was asked for ([`Key`]), the file's number, and the run's
//! [`State`], in bincode. A checkpoint of another run is never gone on from.
//!
//! Saving never ends a run: a disk that is full is told once in the log, and training goes on.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bincode::{Decode, Encode};
use fleetloop_protocol::Digest;
use thiserror::Error;

use super::{Epoch, draw, optimizer};
use crate::chain::chain;
use crate::durable;
use crate::graph::Parameters;

/// Name and version of the format, and of what a place in an epoch means.
const MAGIC: &[u8; 8] = b"FLOOPCK1";
/// The two files.
const FILES: [&str; 2] = ["checkpoint-0", "checkpoint-1"];

/// Why a checkpoint cannot be gone on from.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] durable::DurableError),
    /// A file cannot be read.
    #[error("cannot read the checkpoint {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is another run's.
    #[error(
        "the checkpoint in {folder} is of a run with another {}; remove the folder or choose another --out", .differs.join(", another ")
    )]
    Foreign {
        /// Where it is.
        folder: PathBuf,
        /// What is another there.
        differs: Vec<String>,
    },
}

/// What a run was asked for, part by part: what has to be the same to go on.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Key(pub Vec<(String, String)>);

/// What to do with a checkpoint of another run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// Leave it alone and do not run.
    Refuse,
    /// Overwrite it.
    Replace,
}

/// Where and how often.
#[derive(Debug, Clone)]
pub struct Place {
    /// The folder, made with the first checkpoint.
    pub folder: PathBuf,
    /// The least time between two.
    pub every: Duration,
    /// What to do with another run's.
    pub foreign: Foreign,
}

/// Everything that a run needs to go on.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct State {
    /// Epochs that are done.
    pub curve: Vec<Epoch>,
    /// The samples of the epoch under way, in order.
    pub order: Vec<usize>,
    /// How many of them were learned from.
    pub learned: usize,
    /// The sum of their losses.
    pub total: f64,
    /// How many of them were right.
    pub right: Option<usize>,
    /// Steps in all epochs.
    pub step: usize,
    /// The draws of the epochs to come.
    pub draw: draw::State,
    /// The random changes of pictures to come.
    pub augmenting: u64,
    /// The dropout to come.
    pub dropping: u64,
    /// The parameters.
    pub parameters: HashMap<String, Vec<f32>>,
    /// The parameters as the epoch under way began: what is left when it goes wrong.
    pub good: HashMap<String, Vec<f32>>,
    /// The optimiser.
    pub optimizer: optimizer::State,
    /// The best parameters so far, with their epoch and validation loss.
    pub best: Option<(u32, f32, HashMap<String, Vec<f32>>)>,
}

impl State {
    /// Whether the values are those of these parameters.
    pub fn fits(&self, parameters: &Parameters) -> bool {
        let fits = |values: &HashMap<String, Vec<f32>>| {
            values.len() == parameters.list.len()
                && parameters.list.iter().all(|p| {
                    values
                        .get(&p.name)
                        .is_some_and(|v| v.len() == p.shape.iter().product::<usize>())
                })
        };
        fits(&self.parameters)
            && fits(&self.good)
            && self.best.as_ref().is_none_or(|(_, _, values)| fits(values))
    }

    fn is_finite(&self) -> bool {
        self.parameters.values().flatten().all(|v| v.is_finite())
    }
}

/// The checkpoints of one run.
#[derive(Debug)]
pub struct Checkpoints {
    place: Place,
    key: Key,
    /// Of the newest file.
    number: u64,
    last: Instant,
    warned: bool,
}

impl Place {
    /// The checkpoints of a run, and the state of the newest one that is whole.
    ///
    /// # Errors
    /// [`CheckpointError`]: another run's, or it cannot be read.
    pub fn open(&self, key: Key) -> Result<(Checkpoints, Option<State>), CheckpointError> {
        durable::sweep(&self.folder)?;
        let mut newest: Option<(Key, u64, State)> = None;
        for file in FILES {
            let path = self.folder.join(file);
            let bytes = match std::fs::read(&path) {
                Ok(bytes) => bytes,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(CheckpointError::Read { path, source }),
            };
            match parse(&bytes) {
                Some(found) if newest.as_ref().is_none_or(|(_, number, _)| found.1 > *number) => {
                    newest = Some(found);
                }
                Some(_) => {}
                None => tracing::warn!(path = %path.display(), "a damaged checkpoint is not used"),
            }
        }
        let (number, found) =
            newest.map_or((0, None), |(k, number, state)| (number, Some((k, state))));
        let (place, last) = (self.clone(), Instant::now());
        let checkpoints = Checkpoints { place, key, number, last, warned: false };
        let state = match found {
            Some((found, state)) => checkpoints.own(&found).map(|own| own.then_some(state))?,
            None => None,
        };
        Ok((checkpoints, state))
    }

    /// Takes the checkpoints away; what else is in the folder stays.
    ///
    /// # Errors
    /// The folder cannot be changed.
    pub fn remove(&self) -> Result<(), durable::DurableError> {
        durable::sweep(&self.folder)?;
        self.remove_own().map_err(|e| durable::DurableError::new("remove", &self.folder, e))
    }

    fn remove_own(&self) -> io::Result<()> {
        for file in FILES {
            match std::fs::remove_file(self.folder.join(file)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        match std::fs::remove_dir(&self.folder) {
            Err(e)
                if !matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                ) =>
            {
                Err(e)
            }
            _ => Ok(()),
        }
    }

    /// Whether a checkpoint is there.
    pub fn is_taken(&self) -> bool {
        FILES.iter().any(|file| self.folder.join(file).is_file())
    }
}

impl Checkpoints {
    /// Whether a checkpoint is this run's.
    fn own(&self, found: &Key) -> Result<bool, CheckpointError> {
        let differs = self.key.differs(found);
        if differs.is_empty() { Ok(true) } else { self.replace(differs).map(|()| false) }
    }

    /// Begins anew where a checkpoint of another run is, if its place is to be taken.
    ///
    /// # Errors
    /// [`CheckpointError::Foreign`] if it is to be left alone.
    pub fn replace(&self, differs: Vec<String>) -> Result<(), CheckpointError> {
        match self.place.foreign {
            Foreign::Replace => {
                let (folder, differs) = (self.place.folder.display(), differs.join(", another "));
                tracing::info!(%folder, "the checkpoint is of a run with another {differs}; training begins anew");
                Ok(())
            }
            Foreign::Refuse => {
                Err(CheckpointError::Foreign { folder: self.place.folder.clone(), differs })
            }
        }
    }

    /// Whether it is time for the next one.
    pub fn is_due(&self) -> bool {
        self.last.elapsed() >= self.place.every
    }

    /// Writes a state over the older of the two files. Values that are no numbers are not kept.
    pub fn save(&mut self, state: &State) {
        self.last = Instant::now();
        if !state.is_finite() {
            return;
        }
        let number = self.number + 1;
        match write(&self.place.folder, &self.key, number, state) {
            Ok(()) => self.number = number,
            Err(error) if !self.warned => {
                self.warned = true;
                tracing::warn!(error = %chain(&error), "no checkpoint; training goes on without");
            }
            Err(_) => {}
        }
    }
}

impl Key {
    /// The names of the parts that are not the same in both.
    fn differs(&self, other: &Self) -> Vec<String> {
        let value = |name: &str| other.0.iter().find(|(n, _)| n == name).map(|(_, value)| value);
        let parts = self.0.iter().filter(|(name, wanted)| value(name) != Some(wanted));
        parts.map(|(name, _)| name.clone()).collect()
    }
}

fn write(
    folder: &Path,
    key: &Key,
    number: u64,
    state: &State,
) -> Result<(), durable::DurableError> {
    let failed = |source| durable::DurableError::new("make", folder, source);
    std::fs::create_dir_all(folder).map_err(failed)?;
    let body = bincode::encode_to_vec((key, number, state), bincode::config::standard());
    let body = body.map_err(|e| failed(io::Error::other(e)))?;
    let bytes = [MAGIC.as_slice(), Digest::of(&body).as_bytes(), &body].concat();
    durable::write(&folder.join(FILES[(number % 2) as usize]), &bytes)
}

/// None for bytes that are not whole.
fn parse(bytes: &[u8]) -> Option<(Key, u64, State)> {
    let (digest, body) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<32>()?;
    if Digest::of(body) != Digest::from_bytes(*digest) {
        return None;
    }
    let (found, read) = bincode::decode_from_slice(body, bincode::config::standard()).ok()?;
    (read == body.len()).then_some(found)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{Groups, Recipe, Targets, TrainingSet};
    use super::*;

    fn state(step: usize) -> State {
        let set = TrainingSet::new(vec![1], vec![0.5; 4], Targets::Input, Groups::one("g", 4));
        let draw = draw::Draw::new(&set.unwrap(), &[0, 1, 2, 3], &BTreeMap::new(), 1);
        let none = Parameters { list: Vec::new() };
        State {
            curve: Vec::new(),
            order: vec![2, 0, 1, 3],
            learned: 2,
            total: 0.1 + 0.2,
            right: None,
            step,
            draw: draw.state(),
            augmenting: 7,
            dropping: u64::MAX,
            parameters: HashMap::from([("w".to_owned(), vec![1.0, -2.5])]),
            good: HashMap::from([("w".to_owned(), vec![1.5, -2.0])]),
            optimizer: optimizer::Optimizer::new(&Recipe::starter()).state(&none),
            best: None,
        }
    }

    fn key(seed: &str) -> Key {
        Key(vec![("base".into(), "a".into()), ("seed".into(), seed.into())])
    }

    fn place(folder: &Path) -> Place {
        Place { folder: folder.join("kept"), every: Duration::ZERO, foreign: Foreign::Refuse }
    }

    #[test]
    fn the_newest_whole_checkpoint_is_gone_on_from() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let (mut checkpoints, none) = place.open(key("1")).unwrap();
        assert!(none.is_none() && !place.folder.exists());
        for step in 1..=3 {
            checkpoints.save(&state(step));
            assert_eq!(place.open(key("1")).unwrap().1, Some(state(step)));
        }
        // The third one lies in the second file; torn, it leaves the one before.
        let newest = place.folder.join(FILES[1]);
        let whole = std::fs::read(&newest).unwrap();
        for torn in [&whole[..whole.len() - 1], &whole[..20], &[]] {
            durable::write(&newest, torn).unwrap();
            assert_eq!(place.open(key("1")).unwrap().1, Some(state(2)));
        }
        let mut turned = whole.clone();
        turned[60] ^= 1;
        durable::write(&newest, &turned).unwrap();
        let (mut checkpoints, found) = place.open(key("1")).unwrap();
        assert_eq!(found, Some(state(2)));
        checkpoints.save(&state(4));
        assert_eq!(place.open(key("1")).unwrap().1, Some(state(4)));
        place.remove().unwrap();
        assert!(!place.folder.exists() && !place.is_taken());
        place.remove().unwrap();
    }

    #[test]
    fn another_runs_checkpoint_is_refused_by_what_differs_or_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        place.open(key("1")).unwrap().0.save(&state(1));
        let text = place.open(key("2")).unwrap_err().to_string();
        assert!(text.contains("another seed;") && !text.contains("base"), "{text}");
        let replacing = Place { foreign: Foreign::Replace, ..place.clone() };
        let (mut checkpoints, found) = replacing.open(key("2")).unwrap();
        assert_eq!(found, None);
        checkpoints.save(&state(9));
        assert_eq!(place.open(key("2")).unwrap().1, Some(state(9)));
    }

    #[test]
    fn a_checkpoint_that_cannot_be_written_or_is_no_number_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let mut checkpoints = place.open(key("1")).unwrap().0;
        checkpoints.save(&state(1));
        let mut broken = state(2);
        broken.parameters.insert("w".into(), vec![f32::NAN, 0.0]);
        checkpoints.save(&broken);
        assert_eq!(place.open(key("1")).unwrap().1, Some(state(1)));
        durable::write(&dir.path().join("file"), b"").unwrap();
        checkpoints.place.folder = dir.path().join("file/kept");
        checkpoints.save(&state(3));
        checkpoints.save(&state(4));
        assert!(checkpoints.warned);
    }
}
