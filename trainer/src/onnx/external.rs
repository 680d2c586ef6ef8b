//! Weights that lie in files beside the model (`TensorProto.data_location` = EXTERNAL).
//!
//! [`ModelFile::read`] makes such a model one file, and a plain one (`plain`): every tensor whose data lies elsewhere gets it as
//! `raw_data`, all other bytes stay as they were but for the lengths of the messages around it. From
//! then on there is one file to train, patch and ship. `location` is a path inside the model's
//! folder, links out of it included in the refusal; `offset` and `length` default to the whole file;
//! `checksum` is the file's SHA-1, and is checked. Fields (onnx.proto3): `ModelProto.graph` = 7,
//! `GraphProto.node` = 1 and `initializer` = 5, `NodeProto.attribute` = 5, `AttributeProto.t` = 5,
//! `g` = 6, `tensors` = 10 and `graphs` = 11, `TensorProto.name` = 8, `raw_data` = 9,
//! `external_data` = 13 and `data_location` = 14, `StringStringEntryProto.key` = 1 and `value` = 2.

use std::cell::OnceCell;
use std::fs;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use fleetloop_protocol::Digest;
use serde::{Deserialize, Serialize};

use super::numbers::{
    ENTRY_KEY, ENTRY_VALUE, EXTERNAL, TENSOR_DATA_LOCATION, TENSOR_EXTERNAL_DATA, TENSOR_NAME,
    TENSOR_RAW_DATA,
};
use super::plain::plain;
use super::{MAX_MODEL_BYTES, OnnxError, wire};

/// How deep messages may be nested; the parser has the same limit.
const DEEPEST: usize = 100;

/// A file that a model was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its path inside the model's folder.
    pub file: String,
    /// Its SHA-256.
    pub digest: Digest,
}

/// An ONNX file with all its weights.
#[derive(Debug, Clone)]
pub struct ModelFile {
    /// The file, whole.
    pub bytes: Vec<u8>,
    /// The files it was made of, the model's own first; none when it was whole already.
    pub sources: Vec<Source>,
}

impl ModelFile {
    /// Reads a model and the files beside it that it names.
    ///
    /// # Errors
    /// [`OnnxError`] when a file cannot be read or lies outside the model's folder, when data is not
    /// where a tensor says, or when all together is more than one ONNX file may be.
    pub fn read(path: &Path) -> Result<Self, OnnxError> {
        let bytes = read(path)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut beside = Beside { model: &bytes, folder, files: Vec::new(), total: bytes.len() };
        let pieces = beside.message(Kind::Model, 0..bytes.len(), 0)?;
        let mut whole = Vec::with_capacity(length(&pieces));
        beside.write(&pieces, &mut whole);
        if whole.len() > MAX_MODEL_BYTES {
            return Err(too_large(whole.len()));
        }
        match plain(&whole)? {
            Some(made) => whole = made,
            None if beside.files.is_empty() => return Ok(Self { bytes, sources: Vec::new() }),
            None => {}
        }
        let source = |file: String, bytes: &[u8]| Source { file, digest: Digest::of(bytes) };
        let own = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let others = beside.files.iter().map(|file| source(file.location.clone(), &file.bytes));
        let sources = std::iter::once(source(own, &bytes)).chain(others).collect();
        Ok(Self { bytes: whole, sources })
    }
}

/// The messages on the way to a tensor.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
}

impl Kind {
    fn of_field(self, number: u64) -> Option<Self> {
        match (self, number) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) => Some(Self::Graph),
            (Self::Graph, 1) => Some(Self::Node),
            (Self::Node, 5) => Some(Self::Attribute),
            (Self::Graph | Self::Attribute, 5) | (Self::Attribute, 10) => Some(Self::Tensor),
            _ => None,
        }
    }
}

/// A part of the new file.
enum Piece {
    /// Bytes of the model as they are.
    Same(Range<usize>),
    /// A field of another length than before: its tag and length, and its payload.
    Field { head: Vec<u8>, payload: Vec<Piece> },
    /// Bytes of a file beside the model.
    Data { file: usize, range: Range<usize> },
}

impl Piece {
    fn field(number: u64, payload: Vec<Self>) -> Self {
        const BYTES: u64 = 2;
        let mut head = Vec::new();
        wire::push_varint(&mut head, number << 3 | BYTES);
        wire::push_varint(&mut head, length(&payload) as u64);
        Self::Field { head, payload }
    }
}

fn length(pieces: &[Piece]) -> usize {
    let one = |piece: &Piece| match piece {
        Piece::Same(range) | Piece::Data { range, .. } => range.len(),
        Piece::Field { head, payload } => head.len() + length(payload),
    };
    pieces.iter().map(one).sum()
}

/// A model and the files beside it.
struct Beside<'a> {
    model: &'a [u8],
    folder: &'a Path,
    /// Those read so far.
    files: Vec<DataFile>,
    /// Bytes of the new file so far.
    total: usize,
}

/// A file beside the model.
struct DataFile {
    /// Its path as the model gives it.
    location: String,
    bytes: Vec<u8>,
    /// Its SHA-1, once a tensor asks for it.
    sum: OnceCell<String>,
}

impl DataFile {
    fn has_checksum(&self, sum: &str) -> bool {
        self.sum.get_or_init(|| sha1(&self.bytes)).eq_ignore_ascii_case(sum)
    }
}

impl Beside<'_> {
    /// What a message becomes: one piece when nothing in it lies elsewhere.
    fn message(
        &mut self,
        kind: Kind,
        within: Range<usize>,
        depth: usize,
    ) -> Result<Vec<Piece>, OnnxError> {
        if depth > DEEPEST {
            return Err(OnnxError::Wire("messages nested too deeply", within.start));
        }
        let fields = wire::fields(self.model, within.clone())?;
        if kind == Kind::Tensor {
            return Ok(self.tensor(&fields)?.unwrap_or_else(|| vec![Piece::Same(within)]));
        }
        let (mut pieces, mut changed) = (Vec::new(), false);
        for field in fields {
            if let (Some(inner), Some(payload)) = (kind.of_field(field.number), field.bytes()) {
                let parts = self.message(inner, payload, depth + 1)?;
                if !matches!(parts.as_slice(), [Piece::Same(_)]) {
                    changed = true;
                    pieces.push(Piece::field(field.number, parts));
                    continue;
                }
            }
            pieces.push(Piece::Same(field.whole));
        }
        Ok(if changed { pieces } else { vec![Piece::Same(within)] })
    }

    /// A tensor with its data in place, when that lies elsewhere.
    fn tensor(&mut self, fields: &[wire::Field]) -> Result<Option<Vec<Piece>>, OnnxError> {
        let place = fields.iter().rev().find(|f| f.number == TENSOR_DATA_LOCATION);
        if place.is_none_or(|field| field.value != wire::Value::Number(EXTERNAL)) {
            return Ok(None);
        }
        let name = wire::text(self.model, fields, TENSOR_NAME).unwrap_or_default().to_owned();
        let (file, range) = self.data(fields).map_err(|error| match error {
            Missing::Said(why) => OnnxError::Tensor { tensor: name, why },
            Missing::File(error) => error,
        })?;
        self.total = self.total.saturating_add(range.len());
        if self.total > MAX_MODEL_BYTES {
            return Err(too_large(self.total));
        }
        let gone = [TENSOR_RAW_DATA, TENSOR_EXTERNAL_DATA, TENSOR_DATA_LOCATION];
        let kept = fields.iter().filter(|field| !gone.contains(&field.number));
        let mut pieces: Vec<Piece> = kept.map(|field| Piece::Same(field.whole.clone())).collect();
        pieces.push(Piece::field(TENSOR_RAW_DATA, vec![Piece::Data { file, range }]));
        Ok(Some(pieces))
    }

    /// The file with a tensor's data and where in it that lies.
    fn data(&mut self, fields: &[wire::Field]) -> Result<(usize, Range<usize>), Missing> {
        let (mut location, mut offset, mut count, mut checksum) = (None, 0, None, None);
        for entry in fields.iter().filter(|field| field.number == TENSOR_EXTERNAL_DATA) {
            let parts = wire::fields(self.model, entry.bytes().unwrap_or_default())?;
            let value = wire::text(self.model, &parts, ENTRY_VALUE).unwrap_or_default();
            let number = |what: &str| {
                value.parse::<usize>().map_err(|_| said(format!("its {what} is '{value}'")))
            };
            match wire::text(self.model, &parts, ENTRY_KEY) {
                Some("location") => location = Some(value.to_owned()),
                Some("offset") => offset = number("offset")?,
                Some("length") => count = Some(number("length")?),
                Some("checksum") => checksum = Some(value.to_owned()),
                _ => {}
            }
        }
        let location = location.ok_or_else(|| said("it does not say in which file it lies"))?;
        let file = self.file(&location)?;
        let held = &self.files[file];
        if checksum.is_some_and(|sum| !held.has_checksum(&sum)) {
            return Err(said(format!("'{location}' has another checksum; copy the files again")));
        }
        let end = count.map_or(Some(held.bytes.len()), |count| offset.checked_add(count));
        let range =
            end.filter(|end| (offset..=held.bytes.len()).contains(end)).map(|end| offset..end);
        let range = range.ok_or_else(|| {
            said(format!("its data lies beyond the end of '{location}'; copy the files again"))
        })?;
        Ok((file, range))
    }

    /// The place of a file in the list, read when it is named for the first time.
    fn file(&mut self, location: &str) -> Result<usize, Missing> {
        if let Some(known) = self.files.iter().position(|file| file.location == location) {
            return Ok(known);
        }
        let path = inside(self.folder, location)
            .ok_or_else(|| said(format!("'{location}' is no file inside the model's folder; put it there, or save the model as one file")))?;
        let bytes = read(&path)?;
        self.files.push(DataFile { location: location.to_owned(), bytes, sum: OnceCell::new() });
        let together: usize = self.files.iter().map(|file| file.bytes.len()).sum();
        if together > MAX_MODEL_BYTES {
            return Err(too_large(together).into());
        }
        Ok(self.files.len() - 1)
    }

    fn write(&self, pieces: &[Piece], to: &mut Vec<u8>) {
        for piece in pieces {
            match piece {
                Piece::Same(range) => to.extend_from_slice(&self.model[range.clone()]),
                Piece::Data { file, range } => {
                    to.extend_from_slice(&self.files[*file].bytes[range.clone()]);
                }
                Piece::Field { head, payload } => {
                    to.extend_from_slice(head);
                    self.write(payload, to);
                }
            }
        }
    }
}

/// Why a tensor's data was not found.
enum Missing {
    Said(String),
    File(OnnxError),
}

impl From<OnnxError> for Missing {
    fn from(error: OnnxError) -> Self {
        Self::File(error)
    }
}

fn said(why: impl Into<String>) -> Missing {
    Missing::Said(why.into())
}

/// The file `location`, if it is one and lies inside `folder` once links are followed.
fn inside(folder: &Path, location: &str) -> Option<PathBuf> {
    let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if !Path::new(location).components().all(plain) {
        return None;
    }
    let path = folder.join(location).canonicalize().ok()?;
    (path.starts_with(folder.canonicalize().ok()?) && path.is_file()).then_some(path)
}

fn read(path: &Path) -> Result<Vec<u8>, OnnxError> {
    let failed = |source| OnnxError::File { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(failed)?.len();
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    if bytes > MAX_MODEL_BYTES { Err(too_large(bytes)) } else { fs::read(path).map_err(failed) }
}

fn too_large(bytes: usize) -> OnnxError {
    OnnxError::TooLarge { bytes, limit: MAX_MODEL_BYTES }
}

fn sha1(bytes: &[u8]) -> String {
    let sum = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
    sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
