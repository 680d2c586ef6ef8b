//! Bundles against the real ONNX Runtime, and everything that must be refused.

use std::path::{Path, PathBuf};

use fleetloop_models::bundle::{Bundle, BundleError, Description, Files, Manifest, Role, digest};
use fleetloop_models::golden::{GoldenCases, GoldenError};
use fleetloop_models::graph::Graph;
use fleetloop_models::picture::{Channels, Frame};
use fleetloop_models::reference::{REFERENCE_BYTES, Reference};
use fleetloop_models::session::{Runtime, Session, SessionError, Threads};
use fleetloop_models::statistics::observe_answer;
use fleetloop_protocol::sketch::Sketch;
use fleetloop_protocol::{BundleDigest, Digest};

fn dir(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/linear-{version}"))
}

fn parts(version: u32) -> (String, Vec<u8>, Vec<u8>) {
    let read = |name: &str| std::fs::read(dir(version).join(name)).unwrap();
    let manifest = String::from_utf8(read("bundle.toml")).unwrap();
    (manifest, read("model.onnx"), read("golden.json"))
}

fn session(bundle: &Bundle) -> Result<Session, SessionError> {
    Session::open(&Runtime::load(None).unwrap(), bundle, Threads(1))
}

#[test]
fn golden_cases_made_elsewhere_are_met_here() {
    for version in [1, 2] {
        let bundle = Bundle::open(&dir(version), None).unwrap();
        let report = bundle.golden().check(&mut session(&bundle).unwrap()).unwrap();
        assert_eq!(report.cases, 4);
        assert!(report.largest_difference < 1e-4, "{report:?}");
    }
}

#[test]
fn golden_cases_of_another_model_are_missed() {
    let (one, two) = (Bundle::open(&dir(1), None).unwrap(), Bundle::open(&dir(2), None).unwrap());
    let error = two.golden().check(&mut session(&one).unwrap()).unwrap_err();
    assert!(matches!(error, GoldenError::Missed { case: 0, .. }), "{error}");
    assert!(error.to_string().contains("edge-agent check"), "{error}");
}

#[test]
fn recorded_cases_are_met_and_survive_json() {
    let bundle = Bundle::open(&dir(1), None).unwrap();
    let mut session = session(&bundle).unwrap();
    let payloads: Vec<_> = bundle
        .golden()
        .frames()
        .unwrap()
        .iter()
        .map(|frame| (fleetloop_protocol::sample::MediaType::Png, frame.encode_png().unwrap()))
        .collect();
    let recorded = GoldenCases::record(&mut session, &payloads, 1e-3).unwrap();
    let read = GoldenCases::parse(&recorded.to_json().unwrap()).unwrap();
    assert_eq!(read, recorded);
    assert_eq!(read.check(&mut session).unwrap().largest_difference, 0.0);
}

#[test]
fn an_input_of_another_length_is_refused() {
    let bundle = Bundle::open(&dir(1), None).unwrap();
    let mut session = session(&bundle).unwrap();
    assert!(matches!(session.run(&[0.0; 783]), Err(SessionError::Length { .. })));
}

#[test]
fn a_frame_of_another_size_and_colour_is_brought_to_the_input() {
    let bundle = Bundle::open(&dir(1), None).unwrap();
    let mut session = session(&bundle).unwrap();
    let grey = Frame::new(28, 28, Channels::Grey, vec![90; 784]).unwrap();
    let rgb = Frame::new(57, 101, Channels::Rgb, vec![90; 57 * 101 * 3]).unwrap();
    let (a, b) = (session.outputs(&grey).unwrap(), session.outputs(&rgb).unwrap());
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4), "{a:?} {b:?}");
}

#[test]
fn a_bundle_is_refused_by_digest() {
    let wrong = BundleDigest(Digest::of(b"another"));
    let error = Bundle::open(&dir(1), Some(wrong)).unwrap_err();
    assert!(matches!(error, BundleError::WrongBundle { .. }), "{error}");
    let (manifest, model, golden) = parts(1);
    let right = Some(digest(manifest.as_bytes()));
    assert!(Bundle::open(&dir(1), right).is_ok());
    let mut altered = model.clone();
    altered[40] ^= 1;
    for (model, golden) in
        [(altered, golden.clone()), (model.clone(), b"{}".to_vec()), (vec![], golden)]
    {
        let files = Files::from([(Role::Model, model), (Role::Golden, golden)]);
        let error = Bundle::from_parts(manifest.clone().into(), files).unwrap_err();
        assert!(matches!(error, BundleError::WrongFile { .. }), "{error}");
    }
}

fn described(manifest: &Manifest) -> Description {
    Description {
        name: manifest.name.clone(),
        version: manifest.version,
        labels: manifest.labels.clone(),
        output: manifest.output,
        input: manifest.input.clone(),
        preprocess: manifest.preprocess.clone(),
        lineage: manifest.lineage.clone(),
    }
}

/// Bundle 1 with another file in the role of its reference.
fn with_reference(reference: Vec<u8>) -> Result<Bundle, BundleError> {
    let (manifest, model, golden) = parts(1);
    let about = described(&Manifest::parse(manifest.as_bytes()).unwrap());
    let files = [(Role::Model, model), (Role::Golden, golden), (Role::Reference, reference)].into();
    let manifest = Manifest::new(about, &files)?.to_toml()?;
    Bundle::from_parts(manifest.into_bytes(), files)
}

/// A sketch of what bundle 1 makes of `frames` frames.
fn sketched(frames: u32) -> Sketch {
    let bundle = Bundle::open(&dir(1), None).unwrap();
    let mut session = session(&bundle).unwrap();
    let mut sketch = Sketch::default();
    for n in 0..frames {
        let pixels = (0..784).map(|i| ((i * 7 + n * 3) % 256) as u8).collect();
        let frame = Frame::new(28, 28, Channels::Grey, pixels).unwrap();
        let answer = session.classify(&frame).unwrap();
        sketch.add(&observe_answer(&frame, &answer));
    }
    sketch
}

#[test]
fn a_bundle_carries_what_its_answers_looked_like_to_whoever_opens_it() {
    let reference = Reference::new(sketched(600)).unwrap();
    let bundle = with_reference(reference.to_json().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in bundle.files() {
        let mut file = std::fs::File::create(folder.path().join(name)).unwrap();
        std::io::Write::write_all(&mut file, bytes).unwrap();
    }
    let opened = Bundle::open(folder.path(), Some(bundle.digest())).unwrap();
    assert_eq!(opened.reference(), Some(&reference));
    assert_eq!(opened.files(), bundle.files());
    assert_eq!(Bundle::open(&dir(1), None).unwrap().reference(), None);
}

#[test]
fn a_reference_that_is_none_of_this_model_is_refused() {
    let mut other = sketched(600);
    other.classes.push(0);
    let other = serde_json::to_vec(&other).unwrap();
    for bad in [other, b"{}".to_vec(), serde_json::to_vec(&sketched(10)).unwrap()] {
        let error = with_reference(bad).unwrap_err();
        assert!(matches!(error, BundleError::Reference(_)), "{error}");
    }
    let error = with_reference(vec![b' '; REFERENCE_BYTES + 1]).unwrap_err();
    assert!(matches!(error, BundleError::Invalid { .. }), "{error}");
}

#[test]
fn a_manifest_that_contradicts_itself_names_every_problem() {
    let (manifest, ..) = parts(1);
    let bad = manifest
        .replace("version = 1", "version = 0")
        .replace("mean = [0.25]", "mean = [0.1, 0.2]")
        .replace("path = \"model.onnx\"", "path = \"../model.onnx\"");
    let error = Manifest::parse(bad.as_bytes()).unwrap_err().to_string();
    for part in ["version is 0", "mean", "../model.onnx"] {
        assert!(error.contains(part), "{error}");
    }
    let twice = manifest.replace("golden.json", "model.onnx");
    let error = Manifest::parse(twice.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("2 times"), "{error}");
    let unknown = format!("surprise = 1\n{manifest}");
    assert!(matches!(Manifest::parse(unknown.as_bytes()), Err(BundleError::ManifestSyntax { .. })));
    let long = format!("{manifest}\n# {}", "x".repeat(70_000));
    assert!(matches!(Manifest::parse(long.as_bytes()), Err(BundleError::ManifestTooLarge { .. })));
}

#[test]
fn a_manifest_survives_its_own_toml() {
    let (text, ..) = parts(1);
    let manifest = Manifest::parse(text.as_bytes()).unwrap();
    assert_eq!(Manifest::parse(manifest.to_toml().unwrap().as_bytes()).unwrap(), manifest);
    assert_eq!(manifest.target_name(), "linear/1/bundle.toml");
}

#[test]
fn a_graph_that_is_not_the_one_described_is_refused_when_it_is_loaded() {
    let runtime = Runtime::load(None).unwrap();
    let (text, model, _) = parts(1);
    let graph = Graph::check(model).unwrap();
    for (from, to, why) in [
        ("height = 28", "height = 14", "input"),
        ("name = \"input\"", "name = \"pixels\"", "called"),
        ("\"dented\"", "\"dented\", \"wet\"", "output"),
    ] {
        let manifest = Manifest::parse(text.replace(from, to).as_bytes()).unwrap();
        let error = Session::from_model(&runtime, &graph, &manifest, Threads(1)).unwrap_err();
        assert!(matches!(error, SessionError::Shape { .. }), "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn a_missing_runtime_says_how_to_get_it() {
    let error = Runtime::load(Some(Path::new("/nowhere/libonnxruntime.so"))).unwrap_err();
    let text = error.to_string();
    for part in ["/nowhere/libonnxruntime.so", "cargo xtask setup", "onnxruntime==1.31.1"] {
        assert!(text.contains(part), "{text}");
    }
    let broken = tempfile::NamedTempFile::new().unwrap();
    assert!(matches!(
        Runtime::load(Some(broken.path())),
        Err(SessionError::Library { source: Some(_), .. })
    ));
}
