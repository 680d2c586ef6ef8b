//! `trainer bundle`

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use fleetloop_models::bundle::{Description, Fit, PreprocessSpec};
use fleetloop_models::picture::Frame;
use fleetloop_models::reference::Reference;
use fleetloop_models::session::Runtime;
use fleetloop_models::statistics::observe_answer;
use fleetloop_observe::names::Names;
use fleetloop_observe::output::Output;
use fleetloop_protocol::sample::MediaType;
use fleetloop_protocol::sketch::Sketch;

use super::Compute;

use crate::pack::Draft;
use crate::{durable, pack};

#[derive(Debug, Args)]
pub struct Bundle {
    /// The ONNX file: one picture input, logits as its first output.
    #[arg(long)]
    model: PathBuf,
    /// The bundle's name: a-z, 0-9, '_' and '-'.
    #[arg(long)]
    name: String,
    /// The bundle's version.
    #[arg(long, default_value_t = 1)]
    version: u32,
    /// What its outputs mean, in their order, separated by commas; one that holds a comma stands in
    /// double quotes.
    #[arg(long)]
    labels: Names,
    /// Mean of each channel, of values from 0 to 1, as it was trained with; 0 if not given.
    #[arg(long, value_delimiter = ',')]
    mean: Vec<f32>,
    /// Deviation of each channel; 1 if not given.
    #[arg(long, value_delimiter = ',')]
    std: Vec<f32>,
    /// How a picture of another size is brought to the input.
    #[arg(long, value_enum, default_value_t = FitArgument::Stretch)]
    fit: FitArgument,
    /// Pictures (PNG or JPEG) whose logits every device must reproduce; a handful will do.
    #[arg(long, num_args = 1.., required = true)]
    golden: Vec<PathBuf>,
    /// Pictures of what the model was judged by, 500 or more: what it makes of them is what devices
    /// and the hub tell drift against. Without them that is what it meets first.
    #[arg(long, num_args = 1..)]
    reference: Vec<PathBuf>,
    /// The folder to write. It must not exist.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    compute: Compute,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FitArgument {
    /// Both sides are scaled on their own.
    Stretch,
    /// Scaled until the shorter side fits, then cropped around the centre.
    Crop,
}

impl Bundle {
    pub fn run(&self, output: Output) -> anyhow::Result<()> {
        let threads = self.compute.prepare(0)?;
        let model = super::model(&self.model)?.bytes;
        let input = pack::declared_input(&model)
            .with_context(|| format!("cannot bundle {}", self.model.display()))?;
        let channels = input.channels as usize;
        let or = |given: &[f32], default: f32| {
            if given.is_empty() { vec![default; channels] } else { given.to_vec() }
        };
        let about = Description {
            name: self.name.clone(),
            version: self.version,
            labels: self.labels.0.clone(),
            input,
            preprocess: PreprocessSpec {
                fit: match self.fit {
                    FitArgument::Stretch => Fit::Stretch,
                    FitArgument::Crop => Fit::Crop,
                },
                mean: or(&self.mean, 0.0),
                std: or(&self.std, 1.0),
            },
            lineage: None,
        };
        let payloads: Vec<_> = self
            .golden
            .iter()
            .map(|path| Ok((media_type(path)?, read(path)?)))
            .collect::<anyhow::Result<_>>()?;
        let runtime = Runtime::load(self.compute.library.as_deref())?;
        let cannot = || format!("cannot bundle {}", self.model.display());
        let mut draft = Draft::open(about, model, &runtime, threads).with_context(cannot)?;
        let reference = self.reference(&mut draft)?;
        let bundle = draft.finish(&payloads, reference.as_ref()).with_context(cannot)?;
        durable::write_folder(&self.out, &bundle.files())?;
        let made = serde_json::json!({ "out": self.out, "bundle": bundle.digest() });
        output.print(&made, |_| format!("{}: bundle {}", self.out.display(), bundle.digest()))
    }

    /// What the model makes of the pictures that were given for it.
    fn reference(&self, draft: &mut Draft) -> anyhow::Result<Option<Reference>> {
        if self.reference.is_empty() {
            return Ok(None);
        }
        let (_, _, session) = draft.parts();
        let mut sketch = Sketch::default();
        for path in &self.reference {
            let cannot = || format!("cannot use {}", path.display());
            let frame = Frame::decode(media_type(path)?, &read(path)?).with_context(cannot)?;
            let answer = session.classify(&frame).with_context(cannot)?;
            sketch.add(&observe_answer(&frame, &answer));
        }
        Ok(Some(Reference::new(sketch)?))
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn media_type(path: &Path) -> anyhow::Result<MediaType> {
    let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
    match extension.as_deref() {
        Some("png") => Ok(MediaType::Png),
        Some("jpg" | "jpeg") => Ok(MediaType::Jpeg),
        _ => anyhow::bail!("cannot use {}: give a .png or .jpg", path.display()),
    }
}
