//! Arrays as data: a NumPy `.npz` file of windows, rows, pictures or anything else a model takes.
//!
//! | array | shape | what |
//! |---|---|---|
//! | `x` | samples × input | numbers of any type; the model gets them as they are, in 32 bits |
//! | `y` | samples, or samples × 1 | integers: each sample's class, or a number to reach |
//! | `y` | samples × output | numbers to reach |
//! | `group` | samples | texts or integers: where each sample came from (a recording, a part); all `arrays` if left out |
//!
//! Without `y` there is only the input to give back. `numpy.savez` and `numpy.savez_compressed` write
//! such files. Fortran order and either order of bytes are read.
//!
//! Limits, checked before anything is allocated for them: [`FILE_BYTES`], [`VALUES`]. What a header
//! claims is not believed: memory grows with the data that has arrived, and the checksum of each
//! array is verified.

mod error;
mod header;
pub mod judge;
mod values;

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::Path;

use fleetloop_protocol::Digest;
use zip::ZipArchive;
use zip::result::ZipError;

use crate::train::held_out::{Holdings, whole_groups};
use crate::train::{Groups, Loss, Targets};
pub use error::ArraysError;
use header::{Header, Type};

/// The largest file that is read: 4 GiB.
pub const FILE_BYTES: u64 = 4 << 30;
/// The most elements of an array, which take 4 GiB in 32 bits.
pub const VALUES: usize = 1 << 30;

/// The group of samples that name none.
const GROUP: &str = "arrays";

/// What to do with integers for a model of one output.
const NUMBERS: &str =
    "; for numbers to reach, give --loss mse; a recipe's loss = \"mse\" when training";

/// What the inputs are to become, as the file says it.
#[derive(Debug, Clone, PartialEq)]
enum Answers {
    /// One integer a sample: a class or a number.
    Integers(Vec<i64>),
    /// Numbers of that shape a sample.
    Numbers { shape: Vec<usize>, values: Vec<f32> },
}

impl Answers {
    /// Whether they are zeros and ones, of both.
    fn are_yes_or_no(&self) -> bool {
        let both =
            |zeros: usize, ones: usize, all: usize| zeros > 0 && ones > 0 && zeros + ones == all;
        match self {
            Self::Integers(all) => {
                let count = |wanted| all.iter().filter(|value| **value == wanted).count();
                both(count(0), count(1), all.len())
            }
            Self::Numbers { values: all, .. } => {
                let count = |wanted| all.iter().filter(|value| **value == wanted).count();
                both(count(0.0), count(1.0), all.len())
            }
        }
    }
}

/// Samples in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrays {
    /// SHA-256 of the file that they were read from.
    pub digest: Digest,
    shape: Vec<usize>,
    inputs: Vec<f32>,
    answers: Option<Answers>,
    groups: Groups,
    /// Where in the file each sample stands, from 0.
    places: Vec<usize>,
}

impl Arrays {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ArraysError`]: what is wrong with which array, or which sample.
    pub fn open(path: &Path) -> Result<Self, ArraysError> {
        let failed = |source| ArraysError::Read { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        if bytes > FILE_BYTES {
            return Err(ArraysError::TooLarge(bytes));
        }
        let mut read = Vec::new();
        file.take(FILE_BYTES).read_to_end(&mut read).map_err(failed)?;
        Self::parse(&read)
    }

    /// Reads a file's bytes.
    ///
    /// # Errors
    /// As [`Arrays::open`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ArraysError> {
        let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(ArraysError::Archive)?;
        let x = read(&mut archive, "x", |header, from| {
            Ok((header.shape.clone(), values::floats(header, from)?))
        })?;
        let Some((shape, inputs)) = x else {
            let names = archive.file_names().filter_map(Result::ok);
            return Err(ArraysError::NoInputs(names.map(std::borrow::Cow::into_owned).collect()));
        };
        let (samples, shape) = inputs_shape(&shape)?;
        finite("x", &inputs, samples)?;
        let answers = read(&mut archive, "y", |header, from| answers(header, from, samples))?;
        if let Some(Answers::Numbers { values, .. }) = &answers {
            finite("y", values, samples)?;
        }
        let groups = read(&mut archive, "group", |header, from| {
            as_many(header, samples)?;
            if header.shape.len() != 1 {
                return Err(format!("its shape is {:?}; want one name a sample", header.shape));
            }
            values::groups(header, from)
        })?;
        let groups = groups.unwrap_or_else(|| Groups::one(GROUP, samples));
        let places = (0..samples).collect();
        Ok(Self { digest: Digest::of(bytes), shape, inputs, answers, groups, places })
    }

    /// Number of samples; never 0.
    #[expect(clippy::len_without_is_empty, reason = "there is always a sample")]
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Shape of an input, without the batch.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The inputs, one after another.
    pub fn inputs(&self) -> &[f32] {
        &self.inputs
    }

    /// Where each sample came from.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Where in the file each sample stands, from 0: what a message names.
    pub fn places(&self) -> &[usize] {
        &self.places
    }

    /// Samples by group.
    pub fn by_group(&self) -> BTreeMap<String, usize> {
        let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
        for group in self.groups.iter() {
            *groups.entry(group).or_default() += 1;
        }
        groups.into_iter().map(|(name, samples)| (name.to_owned(), samples)).collect()
    }

    /// The loss that suits what is there and a model of so many `outputs`, where that is known: integers
    /// are classes, other numbers are to be reached, and without either there is the input to give back.
    /// Zeros and ones for one output are yes or no.
    pub fn loss(&self, outputs: Option<usize>) -> Loss {
        let one_output = match &self.answers {
            // A model that is made for them gets an output for each number, but two for two classes.
            Some(Answers::Numbers { .. }) => {
                self.outputs() == Some(1) && outputs.is_none_or(|n| n == 1)
            }
            _ => outputs == Some(1),
        };
        match &self.answers {
            Some(answers) if one_output && answers.are_yes_or_no() => Loss::Binary,
            Some(Answers::Integers(_)) => Loss::CrossEntropy,
            Some(Answers::Numbers { .. }) => Loss::Mse,
            None => Loss::Reconstruction,
        }
    }

    /// Which samples are anomalous, where the answers say so: integers, 0 for what is normal.
    pub fn anomalous(&self) -> Option<Vec<bool>> {
        let Some(Answers::Integers(labels)) = &self.answers else { return None };
        Some(labels.iter().map(|label| *label != 0).collect())
    }

    /// The smallest value of each channel, where samples are pictures: channels × height × width with 1
    /// or 3 channels. It counts as black.
    pub fn black(&self) -> Option<Vec<f32>> {
        let [channels @ (1 | 3), height, width] = self.shape[..] else { return None };
        let plane = height * width;
        let mut black = vec![f32::INFINITY; channels];
        for (at, values) in self.inputs.chunks_exact(plane).enumerate() {
            let least = &mut black[at % channels];
            *least = values.iter().copied().fold(*least, f32::min);
        }
        Some(black)
    }

    /// Classes there are, if the answers can be classes: one more than the largest.
    pub fn classes(&self) -> Option<usize> {
        let Some(Answers::Integers(labels)) = &self.answers else { return None };
        usize::try_from(*labels.iter().max()?).ok()?.checked_add(1)
    }

    /// Numbers that each sample is to reach, if there are any.
    pub fn outputs(&self) -> Option<usize> {
        match self.answers.as_ref()? {
            Answers::Integers(_) => Some(1),
            Answers::Numbers { shape, .. } => Some(shape.iter().product()),
        }
    }

    /// The targets of a loss; `classes` are those of the model.
    ///
    /// # Errors
    /// [`ArraysError::Answers`] when the file does not hold what the loss wants.
    pub fn targets(&self, loss: Loss, classes: usize) -> Result<Targets, ArraysError> {
        let refused = |why: String| ArraysError::Answers { loss, why };
        match (loss, &self.answers) {
            (Loss::Reconstruction, _) => Ok(Targets::Input),
            (_, None) => Err(refused("there is no array y".into())),
            (Loss::CrossEntropy, Some(Answers::Numbers { .. })) => Err(refused(
                "y holds no classes; classes are one integer a sample, as in y.astype('int64')"
                    .into(),
            )),
            (Loss::CrossEntropy, Some(Answers::Integers(labels))) => {
                let label = |(sample, label): (usize, &i64)| {
                    let found = usize::try_from(*label).ok().filter(|label| *label < classes);
                    found.ok_or_else(|| {
                        let instead = if classes > 1 { "" } else { NUMBERS };
                        refused(format!(
                            "sample {} has class {label}, the model knows 0 to {}{instead}",
                            self.places[sample],
                            classes.saturating_sub(1)
                        ))
                    })
                };
                let labels = labels.iter().enumerate().map(label).collect::<Result<_, _>>()?;
                Ok(Targets::Classes { labels, count: classes })
            }
            (_, Some(Answers::Integers(values))) => Ok(Targets::Values {
                shape: Vec::new(),
                values: values.iter().map(|v| *v as f32).collect(),
            }),
            (_, Some(Answers::Numbers { shape, values })) => {
                Ok(Targets::Values { shape: shape.clone(), values: values.clone() })
            }
        }
    }

    /// Divides the samples into what is learned from and the `share` that is held out. Which
    /// samples those are follows from their content alone, so that equal samples stand on one side
    /// and a file with more samples holds out the same ones.
    ///
    /// # Errors
    /// [`ArraysError::EmptyPart`] when either is empty.
    pub fn held_out(self, share: f64) -> Result<(Self, Self), ArraysError> {
        let samples = self.len();
        let (out, kept): (Vec<usize>, Vec<usize>) =
            (0..samples).partition(|sample| fraction(self.input(*sample)) < share);
        let empty = |purpose| ArraysError::EmptyPart { share, samples, purpose };
        if kept.is_empty() {
            return Err(empty("learn from"));
        }
        if out.is_empty() {
            return Err(empty("judge by"));
        }
        Ok((self.part(&kept), self.part(&out)))
    }

    /// Holds out whole groups, about that `share` of the samples, where there are groups: windows of one
    /// recording do not stand on both sides. None where samples cannot be divided by their groups.
    pub fn held_out_groups(&self, share: f64) -> Option<(Self, Self, Vec<String>)> {
        let mut groups: BTreeMap<String, Holdings> = BTreeMap::new();
        for (sample, group) in self.groups.iter().enumerate() {
            let class = match &self.answers {
                Some(Answers::Integers(labels)) => usize::try_from(labels[sample]).unwrap_or(0),
                _ => 0,
            };
            *groups.entry(group.to_owned()).or_default().entry(class).or_default() += 1;
        }
        let held = whole_groups(&groups, share)?;
        let (out, kept): (Vec<usize>, Vec<usize>) =
            (0..self.len()).partition(|sample| held.contains(self.groups.name(*sample)));
        Some((self.part(&kept), self.part(&out), held.into_iter().collect()))
    }

    /// Shape of an input, the inputs, and where each sample came from.
    pub fn into_parts(self) -> (Vec<usize>, Vec<f32>, Groups) {
        (self.shape, self.inputs, self.groups)
    }

    /// The samples at these places.
    pub fn part(&self, places: &[usize]) -> Self {
        let answers = self.answers.as_ref().map(|answers| match answers {
            Answers::Integers(labels) => {
                Answers::Integers(places.iter().map(|p| labels[*p]).collect())
            }
            Answers::Numbers { shape, values } => {
                Answers::Numbers { shape: shape.clone(), values: rows(values, self.len(), places) }
            }
        });
        Self {
            digest: self.digest,
            shape: self.shape.clone(),
            inputs: rows(&self.inputs, self.len(), places),
            answers,
            groups: self.groups.part(places),
            places: places.iter().map(|place| self.places[*place]).collect(),
        }
    }

    fn input(&self, sample: usize) -> &[f32] {
        let per_sample = self.inputs.len() / self.len();
        &self.inputs[sample * per_sample..(sample + 1) * per_sample]
    }
}

/// Where in 0 to 1 a sample falls, by its content.
fn fraction(input: &[f32]) -> f64 {
    let bytes: Vec<u8> = input.iter().flat_map(|v| v.to_le_bytes()).collect();
    Digest::of(&bytes).fraction()
}

fn rows(values: &[f32], samples: usize, places: &[usize]) -> Vec<f32> {
    let per_sample = values.len() / samples;
    places.iter().flat_map(|p| &values[p * per_sample..(p + 1) * per_sample]).copied().collect()
}

/// Reads one array of the archive, if it is there.
fn read<T>(
    archive: &mut ZipArchive<Cursor<&[u8]>>,
    name: &'static str,
    convert: impl FnOnce(&Header, &mut dyn Read) -> Result<T, String>,
) -> Result<Option<T>, ArraysError> {
    let refused = |why: String| ArraysError::Array { name, why };
    let mut entry = match archive.by_name(&format!("{name}.npy")) {
        Ok(entry) => entry,
        Err(ZipError::FileNotFound) => return Ok(None),
        Err(error) => return Err(refused(format!("it cannot be unpacked: {error}"))),
    };
    let header = Header::read(&mut entry).map_err(refused)?;
    if header.count().is_none_or(|count| count > VALUES) {
        let shape = &header.shape;
        return Err(refused(format!("its shape is {shape:?}; at most {VALUES} values are read")));
    }
    convert(&header, &mut entry).map(Some).map_err(refused)
}

fn inputs_shape(shape: &[usize]) -> Result<(usize, Vec<usize>), ArraysError> {
    match shape {
        [samples @ 1..=VALUES, input @ ..] if !input.is_empty() && !input.contains(&0) => {
            Ok((*samples, input.to_vec()))
        }
        _ => Err(ArraysError::Array {
            name: "x",
            why: format!(
                "its shape is {shape:?}; want samples first and then the input's shape, as in x[:, None] for a single column"
            ),
        }),
    }
}

fn answers(header: &Header, from: &mut dyn Read, samples: usize) -> Result<Answers, String> {
    as_many(header, samples)?;
    let shape = header.shape[1..].to_vec();
    match header.element {
        Type::Bool | Type::Int(_) | Type::Uint(_) if matches!(shape[..], [] | [1]) => {
            Ok(Answers::Integers(values::integers(header, from)?))
        }
        _ if shape.contains(&0) => Err(format!("its shape is {:?}: nothing", header.shape)),
        _ => Ok(Answers::Numbers { values: values::floats(header, from)?, shape }),
    }
}

fn as_many(header: &Header, samples: usize) -> Result<(), String> {
    let shape = &header.shape;
    if shape.first() == Some(&samples) {
        return Ok(());
    }
    Err(format!("its shape is {shape:?}, x has {samples} samples; want as many"))
}

fn finite(name: &'static str, values: &[f32], samples: usize) -> Result<(), ArraysError> {
    let Some(place) = values.iter().position(|v| !v.is_finite()) else { return Ok(()) };
    let sample = place / (values.len() / samples);
    let why =
        format!("sample {sample} holds a value that is no finite number in 32 bits; remove it");
    Err(ArraysError::Array { name, why })
}

#[cfg(test)]
mod tests;
