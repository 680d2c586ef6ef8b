//! The demo's person who labels: a program that knows the answers.
//!
//! It polls the hub's label queue with the annotator's access, fetches each payload, decodes it,
//! and looks its pixels up among the training pictures, clean and drifted. It answers the true
//! label, at most a given number of times, and leaves what it does not recognise. What it has
//! answered is told as JSON lines `{"answered":n,"unknown":m}`.
//!
//! A hub that is away is asked again; a label that was answered twice counts once at the hub.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use fleetloop_models::picture::Frame;
use fleetloop_protocol::Digest;
use fleetloop_protocol::api::labels::{LabelQueue, LabelRequest};
use fleetloop_protocol::api::samples::Sample;

use crate::api::ApiClient;
use crate::drift::Drift;
use crate::pictures::Pictures;

/// How often the queue is looked at.
const POLL: Duration = Duration::from_millis(500);

/// How many samples are asked for at once.
const PAGE: usize = 50;

/// How many polls in a row may fail before it gives up: two minutes.
const FAILURES: u32 = 240;

/// What the annotator needs to know.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The access file that 'fleet-hub init' wrote for the annotator
    #[arg(long)]
    access: PathBuf,
    /// IDX file of the pictures it knows
    #[arg(long)]
    images: PathBuf,
    /// IDX file of their labels
    #[arg(long)]
    labels: PathBuf,
    /// How much darker the pictures may have become
    #[arg(long)]
    brightness: f32,
    /// How far the pictures may have moved to the right, in pixels
    #[arg(long)]
    shift_px: usize,
    /// How many labels it gives at most
    #[arg(long)]
    at_most: usize,
}

impl Options {
    /// The same as command line arguments.
    pub fn to_arguments(&self) -> Vec<std::ffi::OsString> {
        let mut arguments = vec!["annotate".into()];
        let mut add = |name: &str, value: std::ffi::OsString| {
            arguments.extend([name.into(), value]);
        };
        add("--access", self.access.clone().into());
        add("--images", self.images.clone().into());
        add("--labels", self.labels.clone().into());
        add("--brightness", self.brightness.to_string().into());
        add("--shift-px", self.shift_px.to_string().into());
        add("--at-most", self.at_most.to_string().into());
        arguments
    }

    /// Knows the pictures in two IDX files and what `drift` makes of them.
    pub fn new(
        access: PathBuf,
        (images, labels): (PathBuf, PathBuf),
        drift: Drift,
        at_most: usize,
    ) -> Self {
        let Drift { brightness, shift_px } = drift;
        Self { access, images, labels, brightness, shift_px, at_most }
    }
}

/// The true label of a picture, by the digest of its pixels.
pub struct Truth(HashMap<Digest, &'static str>);

impl Truth {
    /// Of all `pictures`, clean and drifted. Where two look the same, the first one counts.
    pub fn of(pictures: &Pictures, drift: Drift) -> Self {
        let mut known = HashMap::with_capacity(2 * pictures.len());
        for index in 0..pictures.len() {
            let (pixels, label) = pictures.get(index);
            known.entry(Digest::of(pixels)).or_insert(label);
            known.entry(Digest::of(&drift.apply(pixels, pictures.width))).or_insert(label);
        }
        Self(known)
    }

    /// The label of a decoded picture; none when it is not one of those.
    pub fn label(&self, frame: &Frame) -> Option<&'static str> {
        self.0.get(&Digest::of(frame.pixels())).copied()
    }
}

/// Labels until it has answered as often as it may.
///
/// # Errors
/// When the pictures or the access file cannot be read, or the hub stays away.
pub fn run(options: &Options) -> Result<()> {
    let pictures = Pictures::read(&options.images, &options.labels)?;
    let drift = Drift { brightness: options.brightness, shift_px: options.shift_px };
    let truth = Truth::of(&pictures, drift);
    drop(pictures);
    let api = ApiClient::open(&options.access)?;
    let (mut answered, mut unknown, mut failures) = (0, HashSet::new(), 0);
    while answered < options.at_most {
        let limit = PAGE.min(options.at_most - answered) + unknown.len();
        match label_some(&api, &truth, limit, &mut unknown) {
            Ok(0) => failures = 0,
            Ok(labelled) => {
                failures = 0;
                answered += labelled;
                println!(r#"{{"answered":{answered},"unknown":{}}}"#, unknown.len());
                continue;
            }
            Err(error) if failures == FAILURES => return Err(error),
            Err(error) => {
                failures += 1;
                eprintln!("will ask again: {error:#}");
            }
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Labels what the queue holds now, at most `limit`; how many it labelled.
fn label_some(
    api: &ApiClient,
    truth: &Truth,
    limit: usize,
    unknown: &mut HashSet<Digest>,
) -> Result<usize> {
    let queue: LabelQueue = api.get(&format!("labels/queue?limit={limit}"))?;
    let mut labelled = 0;
    for sample in queue.samples {
        if unknown.contains(&sample.sample) {
            continue;
        }
        let payload = api.bytes(&format!("payloads/{}", sample.payload))?;
        match recognise(truth, &sample, &payload)? {
            Some(label) => {
                let answer = LabelRequest { sample: sample.sample, label: label.to_owned() };
                api.post("labels", &answer)?;
                labelled += 1;
            }
            None => {
                unknown.insert(sample.sample);
            }
        }
    }
    Ok(labelled)
}

fn recognise(truth: &Truth, sample: &Sample, payload: &[u8]) -> Result<Option<&'static str>> {
    if Digest::of(payload) != sample.payload {
        bail!("the hub gave another payload than {}", sample.payload);
    }
    Ok(truth.label(&Frame::decode(sample.media_type, payload)?))
}
