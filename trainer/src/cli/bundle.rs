//! `trainer bundle`

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use fleetloop_models::bundle::{Description, Fit, OutputKind, PreprocessSpec};
use fleetloop_models::picture::Frame;
use fleetloop_models::reference::Reference;
use fleetloop_models::session::Runtime;
use fleetloop_models::statistics::observe_answer;
use fleetloop_observe::names::Names;
use fleetloop_observe::output::Output;
use fleetloop_protocol::sample::MediaType;
use fleetloop_protocol::sketch::Sketch;

use super::{Compute, NORMALISATIONS, Normalisation, prepared};

use crate::pack::Draft;
use crate::{durable, pack};

#[derive(Debug, Args)]
#[command(after_long_help = NORMALISATIONS)]
pub struct Bundle {
    /// The ONNX file: one picture input; scores or probabilities as its first output of floats.
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
    /// What the output is: logits (scores), softmax or sigmoid (probabilities). Found out if not given,
    /// where graph and golden pictures show it.
    #[arg(long)]
    output: Option<OutputKind>,
    #[command(flatten)]
    normalisation: Normalisation,
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
        let cannot = || format!("cannot bundle {}", self.model.display());
        let given = self.normalisation.of(input.channels as usize).with_context(cannot)?;
        let (mean, std) = given
            .with_context(|| {
                format!("give --mean and --std as the model was trained with\n{NORMALISATIONS}")
            })
            .with_context(cannot)?;
        let mut about = Description {
            name: self.name.clone(),
            version: self.version,
            labels: self.labels.0.clone(),
            output: OutputKind::Logits,
            input,
            preprocess: PreprocessSpec {
                fit: match self.fit {
                    FitArgument::Stretch => Fit::Stretch,
                    FitArgument::Crop => Fit::Crop,
                },
                mean,
                std,
            },
            lineage: None,
        };
        let payloads: Vec<_> = self
            .golden
            .iter()
            .map(|path| Ok((media_type(path)?, read(path)?)))
            .collect::<anyhow::Result<_>>()?;
        let runtime = Runtime::load(self.compute.library.as_deref())?;
        let frames = self.frames(&payloads)?;
        let frames: Vec<&Frame> = frames.iter().collect();
        pack::settle(&mut about, &model, self.output, &frames, (&runtime, threads))
            .with_context(cannot)?;
        let (output_kind, spec) = (about.output, about.preprocess.clone());
        let mut draft = Draft::open(about, model, &runtime, threads).with_context(cannot)?;
        let reference = self.reference(&mut draft)?;
        let bundle = draft.finish(&payloads, reference.as_ref()).with_context(cannot)?;
        durable::write_folder(&self.out, &bundle.files())?;
        let made = serde_json::json!({
            "out": self.out, "bundle": bundle.digest(), "output": output_kind, "preprocess": spec,
        });
        output.print(&made, |_| {
            let bundle = format!("{}: bundle {}", self.out.display(), bundle.digest());
            format!("{bundle}\noutput: {output_kind}\n{}", prepared(&spec))
        })
    }

    /// The golden pictures.
    fn frames(&self, payloads: &[(MediaType, Vec<u8>)]) -> anyhow::Result<Vec<Frame>> {
        let decode = |(path, (media_type, payload)): (&PathBuf, &(MediaType, Vec<u8>))| {
            let cannot = || format!("cannot use {}", path.display());
            Frame::decode(*media_type, payload).with_context(cannot)
        };
        self.golden.iter().zip(payloads).map(decode).collect()
    }

    /// What the model makes of the pictures that were given for it.
    fn reference(&self, draft: &mut Draft) -> anyhow::Result<Option<Reference>> {
        if self.reference.is_empty() {
            return Ok(None);
        }
        let (_, session) = draft.parts();
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
