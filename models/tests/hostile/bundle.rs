//! A bundle around a file, as the test bundles are: its golden case is a black picture, for which
//! [`super::build::harmless`] gives what it says.

use std::path::Path;

use fleetloop_models::bundle::{Description, Files, Manifest, Role, digest};
use fleetloop_models::picture::{Channels, Frame};
use fleetloop_protocol::BundleDigest;

/// The files of a bundle, its manifest beside them.
pub struct Parts {
    pub manifest: Vec<u8>,
    pub files: Files,
}

impl Parts {
    /// Version `version` of the test bundles' model, with `model` as its graph.
    pub fn of(model: &[u8], version: u32) -> Self {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/data/linear-1");
        let like = std::fs::read(from.join("bundle.toml")).unwrap();
        let like = Manifest::parse(&like).unwrap();
        let golden = serde_json::json!({ "tolerance": 0.001, "cases": [{
            "media_type": "image/png",
            "payload": base64(&black().encode_png().unwrap()),
            "output": [-0.5, -1.0, -1.5],
        }]});
        let golden = serde_json::to_vec(&golden).unwrap();
        let files = Files::from([(Role::Model, model.to_vec()), (Role::Golden, golden)]);
        let about = Description {
            name: like.name.clone(),
            version,
            labels: like.labels.clone(),
            output: like.output,
            input: like.input.clone(),
            preprocess: like.preprocess.clone(),
            lineage: None,
        };
        let manifest = Manifest::new(about, &files).unwrap().to_toml().unwrap().into_bytes();
        Self { manifest, files }
    }

    pub fn digest(&self) -> BundleDigest {
        digest(&self.manifest)
    }
}

/// A black picture.
pub fn black() -> Frame {
    Frame::new(28, 28, Channels::Grey, vec![0; 784]).unwrap()
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
