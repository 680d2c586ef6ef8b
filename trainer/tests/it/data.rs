//! A small dataset: 12×12 grey pictures, bright on the left (class 0) or on the right (class 1).

use std::path::Path;

use fleetloop_models::bundle::{Description, Fit, InputSpec, Manifest, OutputKind, PreprocessSpec};
use fleetloop_models::graph::Graph;
use fleetloop_models::picture::{Channels, Frame};
use fleetloop_models::session::{Runtime, Session, Threads};
use fleetloop_protocol::Digest;
use fleetloop_protocol::api::datasets::{Dataset, Item, Split};
use fleetloop_protocol::sample::MediaType;
use trainer::blobs::Blobs;
use trainer::durable;
use trainer::onnx::GraphWriter;
use trainer::random::Random;

pub const SIDE: usize = 12;

pub fn runtime() -> Runtime {
    Runtime::load(None).expect("cargo xtask setup fetches ONNX Runtime")
}

pub fn labels() -> Vec<String> {
    vec!["left".into(), "right".into()]
}

pub fn picture(class: usize, random: &mut Random) -> Vec<u8> {
    let pixel = |at: usize, random: &mut Random| {
        let bright = (at % SIDE >= SIDE / 2) == (class == 1);
        (random.between(0.0, 120.0) + if bright { 100.0 } else { 0.0 }) as u8
    };
    let pixels = (0..SIDE * SIDE).map(|at| pixel(at, random)).collect();
    Frame::new(SIDE as u32, SIDE as u32, Channels::Grey, pixels).unwrap().encode_png().unwrap()
}

/// A dataset with payloads in `blobs`; every fourth pair of items is the gate's, every third
/// item the fleet's.
pub fn dataset(blobs: &Blobs, count: usize) -> Dataset {
    let mut random = Random::new(42);
    let mut items: Vec<Item> = (0..count)
        .map(|n| {
            let payload = blobs.put(&picture(n % 2, &mut random)).unwrap();
            Item {
                sample: Digest::of(&n.to_be_bytes()),
                payload,
                media_type: MediaType::Png,
                label: (n % 2) as u16,
                split: if (n / 2) % 4 < 3 { Split::Train } else { Split::Gate },
                group: if n % 3 == 0 { "fleet" } else { "import" }.into(),
            }
        })
        .collect();
    items.sort_by_key(|item| item.sample);
    Dataset { name: "sides".into(), labels: labels(), items }
}

/// The same as a folder.
pub fn folder(path: &Path, count: usize) -> Dataset {
    let blobs = Blobs::open(&path.join("payloads")).unwrap();
    let dataset = dataset(&blobs, count);
    durable::write(&path.join("dataset.json"), &serde_json::to_vec(&dataset).unwrap()).unwrap();
    dataset
}

/// A session over a bare graph with input `name`.
pub fn session(model: &[u8], name: &str) -> Session {
    let manifest = Manifest::draft(about(name)).unwrap();
    let graph = Graph::check(model.to_vec()).unwrap();
    Session::from_model(&runtime(), &graph, &manifest, Threads(1)).unwrap()
}

/// A description of a graph with input `name`.
pub fn about(name: &str) -> Description {
    Description {
        name: "test".into(),
        version: 1,
        labels: labels(),
        output: OutputKind::Logits,
        input: InputSpec {
            name: name.into(),
            channels: 1,
            height: SIDE as u32,
            width: SIDE as u32,
        },
        preprocess: PreprocessSpec { fit: Fit::Stretch, mean: vec![0.0], std: vec![1.0] },
        lineage: None,
    }
}

/// A graph that sums a picture's pixels, times `weight`, into two scores.
pub fn linear(weight: f32) -> Vec<u8> {
    GraphWriter::new("linear")
        .input("x", &[None, Some(1), Some(SIDE), Some(SIDE)])
        .output("y", &[None, Some(2)])
        .floats("w", &[SIDE * SIDE, 2], &vec![weight; 2 * SIDE * SIDE])
        .floats("v", &[2, 2], &[weight, 0.0, 0.0, weight])
        .node("Flatten", &["x"], &["f"], vec![])
        .node("MatMul", &["f", "w"], &["z"], vec![])
        .node("MatMul", &["z", "v"], &["y"], vec![])
        .finish()
        .unwrap()
}
