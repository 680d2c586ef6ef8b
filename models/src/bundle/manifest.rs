//! The manifest: what a model takes and gives, and which files it consists of.
//!
//! TOML; unknown keys are errors. [`Manifest::parse`] and [`Manifest::new`] are the only ways to one,
//! and both check all of it together.

use fleetloop_protocol::limits::MANIFEST_BYTES;
use fleetloop_protocol::{BundleDigest, Digest};
use serde::{Deserialize, Serialize};

use super::{BundleError, Files};
use crate::golden::GOLDEN_BYTES;
use crate::graph::output::OutputKind;
use crate::reference::REFERENCE_BYTES;

/// The manifest's file name.
pub const MANIFEST_FILE: &str = "bundle.toml";
/// The manifest format this build reads and writes.
const FORMAT: u32 = 1;
/// The largest file of a bundle, in bytes.
pub const FILE_BYTES: u64 = 2 << 30;
/// The most labels of a classifier.
const LABELS: usize = 65_536;
/// The largest side of a model's input, in pixels.
const SIDE: u32 = 16_384;

/// What a model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// One of the labels for each frame; the graph's output has one value a label.
    Classify,
}

/// What a file of a bundle is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The ONNX graph.
    Model,
    /// The golden cases, see [`crate::golden`].
    Golden,
    /// What the answers looked like where it was made, see [`crate::reference`]. A bundle may go
    /// without.
    Reference,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Model, Self::Golden, Self::Reference];

    /// What its file is called in a bundle made here.
    pub fn default_path(self) -> &'static str {
        match self {
            Self::Model => "model.onnx",
            Self::Golden => "golden.json",
            Self::Reference => "reference.json",
        }
    }

    /// The largest file of the role, in bytes.
    pub fn limit_bytes(self) -> u64 {
        match self {
            Self::Model => FILE_BYTES,
            Self::Golden => GOLDEN_BYTES as u64,
            Self::Reference => REFERENCE_BYTES as u64,
        }
    }

    /// How many files of the role a bundle may have.
    fn counts(self) -> std::ops::RangeInclusive<usize> {
        match self {
            Self::Model | Self::Golden => 1..=1,
            Self::Reference => 0..=1,
        }
    }
}

/// The graph's input, without the batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// Its name in the graph.
    pub name: String,
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: u32,
    /// In pixels.
    pub height: u32,
    /// In pixels.
    pub width: u32,
}

/// How a frame that is not of the input's size is brought to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// Both sides are scaled on their own.
    Stretch,
    /// Scaled so that the shorter side fits, then cropped around the centre.
    Crop,
}

/// What happens to a frame before the model: grey if the input has one channel, fitted, divided by
/// 255, then `(x − mean) / std` by channel, laid out channels × height × width.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreprocessSpec {
    /// How the size is fitted.
    pub fit: Fit,
    /// One a channel, of values from 0 to 1.
    pub mean: Vec<f32>,
    /// One a channel, above 0.
    pub std: Vec<f32>,
}

impl PreprocessSpec {
    /// What is wrong with it for a picture of so many channels. Pixels are values from 0 to 1 when mean
    /// and deviation are applied, so their mean is in there and their deviation at most 1: anything else
    /// was written for values from 0 to 255, and would make nearly the same of every picture.
    pub fn problems(&self, channels: usize) -> Vec<String> {
        let (mean, std) = (&self.mean, &self.std);
        let mut problems = Vec::new();
        for (name, values) in [("mean", mean), ("std", std)] {
            if values.len() != channels {
                problems.push(format!("preprocess {name} {values:?} for {channels} channels"));
            }
        }
        let mean_fits = mean.iter().all(|m| (0.0..=1.0).contains(m));
        let std_fits = std.iter().all(|s| *s > 0.0 && *s <= 1.0);
        let large = mean.iter().chain(std).any(|value| *value > 1.0);
        if large {
            let by_255 = |values: &[f32]| {
                let words: Vec<_> = values.iter().map(|v| format!("{:.4}", v / 255.0)).collect();
                words.join(",")
            };
            problems.push(format!(
                "preprocess mean {mean:?} and std {std:?} are for values from 0 to 255; of values from 0 \
                 to 1 they are mean {} and std {}",
                by_255(mean),
                by_255(std)
            ));
        } else if !mean_fits || !std_fits {
            problems.push(format!(
                "preprocess mean {mean:?} has to be from 0 to 1, std {std:?} above 0 and at most 1"
            ));
        }
        problems
    }
}

/// Where a model came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lineage {
    /// The bundle it was trained from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<BundleDigest>,
    /// The frozen dataset it learned from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<Digest>,
    /// The recipe's digest (SHA-256 of its TOML).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipe: Option<Digest>,
    /// What made it, with its version.
    pub trainer: String,
}

/// One file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// What it is.
    pub role: Role,
    /// Its name in the bundle's directory: `[A-Za-z0-9._-]`, not beginning with a dot.
    pub path: String,
    /// Its length in bytes.
    pub len_bytes: u64,
    /// Its SHA-256.
    pub sha256: Digest,
}

/// A valid manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The manifest format, 1.
    format: u32,
    /// The model's name: `[a-z0-9_-]`, 1 to 48.
    pub name: String,
    /// Its version, from 1.
    pub version: u32,
    /// What it does.
    pub task: Task,
    /// The class of devices it is meant for; `"any"` for all.
    pub device_class: String,
    /// What each output means.
    pub labels: Vec<String>,
    /// Whether the graph's output is scores or probabilities.
    pub output: OutputKind,
    /// The graph's input.
    pub input: InputSpec,
    /// What happens to a frame before it.
    pub preprocess: PreprocessSpec,
    /// Where it came from; none when it was brought from outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,
    /// Its files: one model, one golden, at most one reference.
    #[serde(rename = "file")]
    pub files: Vec<FileEntry>,
}

/// The parts of a manifest that are not counted or hashed.
#[derive(Debug, Clone)]
pub struct Description {
    /// See [`Manifest::name`].
    pub name: String,
    /// See [`Manifest::version`].
    pub version: u32,
    /// See [`Manifest::labels`].
    pub labels: Vec<String>,
    /// See [`Manifest::output`].
    pub output: OutputKind,
    /// See [`Manifest::input`].
    pub input: InputSpec,
    /// See [`Manifest::preprocess`].
    pub preprocess: PreprocessSpec,
    /// See [`Manifest::lineage`].
    pub lineage: Option<Lineage>,
}

impl Manifest {
    /// A manifest for a bundle of `files`.
    ///
    /// # Errors
    /// [`BundleError::Invalid`] lists what is wrong with the description or with the files.
    pub fn new(about: Description, files: &Files) -> Result<Self, BundleError> {
        let entry = |(role, bytes): (&Role, &Vec<u8>)| FileEntry {
            role: *role,
            path: role.default_path().to_owned(),
            len_bytes: bytes.len() as u64,
            sha256: Digest::of(bytes),
        };
        let manifest = Self {
            format: FORMAT,
            name: about.name,
            version: about.version,
            task: Task::Classify,
            device_class: "any".to_owned(),
            labels: about.labels,
            output: about.output,
            input: about.input,
            preprocess: about.preprocess,
            lineage: about.lineage,
            files: files.iter().map(entry).collect(),
        };
        manifest.validated()
    }

    /// A manifest to preprocess and to run a graph by while the bundle's files are being made. It
    /// names empty ones, so no bundle can be opened with it.
    ///
    /// # Errors
    /// [`BundleError::Invalid`] lists what is wrong with the description.
    pub fn draft(about: Description) -> Result<Self, BundleError> {
        Self::new(about, &Files::from([(Role::Model, Vec::new()), (Role::Golden, Vec::new())]))
    }

    /// The manifest in `bytes`.
    ///
    /// # Errors
    /// [`BundleError`] when it is over its limit, not this format, or contradicts itself.
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        if bytes.len() > MANIFEST_BYTES {
            return Err(BundleError::ManifestTooLarge { len: bytes.len() });
        }
        let syntax = |reason: String| BundleError::ManifestSyntax { reason };
        let text = std::str::from_utf8(bytes).map_err(|error| syntax(error.to_string()))?;
        let manifest: Self =
            toml::from_str(text).map_err(|error| syntax(error.message().to_owned()))?;
        manifest.validated()
    }

    /// The manifest's bytes as TOML.
    ///
    /// # Errors
    /// [`BundleError::ManifestTooLarge`] when no reader would take them.
    pub fn to_toml(&self) -> Result<String, BundleError> {
        let text = toml::to_string(self)
            .map_err(|error| BundleError::ManifestSyntax { reason: error.to_string() })?;
        if text.len() > MANIFEST_BYTES {
            return Err(BundleError::ManifestTooLarge { len: text.len() });
        }
        Ok(text)
    }

    /// The file of that role: a valid manifest has one model and one golden, perhaps a reference.
    pub fn file(&self, role: Role) -> Option<&FileEntry> {
        self.files.iter().find(|file| file.role == role)
    }

    /// The name under which the bundle is released: `<name>/<version>/bundle.toml`.
    pub fn target_name(&self) -> String {
        format!("{}/{}/{MANIFEST_FILE}", self.name, self.version)
    }

    /// How many values one input has.
    pub fn input_len(&self) -> usize {
        self.input.channels as usize * self.input.height as usize * self.input.width as usize
    }

    fn validated(self) -> Result<Self, BundleError> {
        let mut problems = Vec::new();
        let mut require = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        require(self.format == FORMAT, format!("format {} is not {FORMAT}", self.format));
        require(is_name(&self.name), format!("name {:?} is not 1 to 48 of a-z0-9_-", self.name));
        require(self.version > 0, "version is 0".to_owned());
        let input = &self.input;
        require([1, 3].contains(&input.channels), format!("{} input channels", input.channels));
        for (name, side) in [("height", input.height), ("width", input.width)] {
            require((1..=SIDE).contains(&side), format!("input {name} {side}"));
        }
        problems.extend(self.preprocess.problems(input.channels as usize));
        let mut require = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        require((2..=LABELS).contains(&self.labels.len()), format!("{} labels", self.labels.len()));
        let mut sorted: Vec<&String> = self.labels.iter().collect();
        sorted.sort_unstable();
        require(sorted.windows(2).all(|pair| pair[0] != pair[1]), "a label twice".to_owned());
        for role in Role::ALL {
            let count = self.files.iter().filter(|file| file.role == role).count();
            require(
                role.counts().contains(&count),
                format!("{count} files of role {role:?}, want {:?}", role.counts()),
            );
        }
        for file in &self.files {
            require(is_file_name(&file.path), format!("file path {:?}", file.path));
            let limit = file.role.limit_bytes();
            require(
                file.len_bytes <= limit,
                format!("file {:?} of {} bytes, the limit is {limit}", file.path, file.len_bytes),
            );
            let same = self.files.iter().filter(|other| other.path == file.path).count();
            require(same == 1, format!("file path {:?} {same} times", file.path));
        }
        if problems.is_empty() { Ok(self) } else { Err(BundleError::Invalid { problems }) }
    }
}

fn is_name(text: &str) -> bool {
    (1..=48).contains(&text.len())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

fn is_file_name(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && !text.starts_with('.')
        && text != MANIFEST_FILE
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}
