//! Models whose weights lie in files beside them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use burn::tensor::Device;
use onnx_ir::{Message as _, ModelProto, TensorProto};
use ort::environment::Environment;
use ort::session::Session;
use trainer::graph::{Graph, Role, Sizes};
use trainer::onnx::{GraphWriter, Model, ModelFile, patch};

/// What a file says of a tensor's data.
struct At<'a> {
    tensor: &'a str,
    entries: &'a [(&'a str, &'a str)],
}

/// x·w + b, with 2 rows of w and b.
fn written() -> Vec<u8> {
    GraphWriter::new("line")
        .input("x", &[None, Some(2)])
        .output("y", &[None, Some(3)])
        .floats("w", &[2, 3], &[0.5, -1.0, 2.0, 0.25, 8.0, -4.0])
        .floats("b", &[3], &[1.0, 2.0, 3.0])
        .node("Gemm", &["x", "w", "b"], &["y"], vec![])
        .finish()
        .unwrap()
}

/// The same with tensors' data taken out, as `onnx.save` with `save_as_external_data` writes it.
fn outside(places: &[At<'_>]) -> Vec<u8> {
    let mut model = ModelProto::parse_from_bytes(&written()).unwrap();
    for tensor in &mut model.graph.mut_or_insert_default().initializer {
        let Some(at) = places.iter().find(|at| at.tensor == tensor.name) else { continue };
        tensor.raw_data.clear();
        point(tensor, at.entries);
    }
    model.write_to_bytes().unwrap()
}

fn point(tensor: &mut TensorProto, entries: &[(&str, &str)]) {
    // Field 14, data_location, 1: EXTERNAL.
    tensor.merge_from_bytes(&[14 << 3, 1]).unwrap();
    for (key, value) in entries {
        tensor.external_data.push(Default::default());
        let entry = tensor.external_data.last_mut().unwrap();
        entry.key = (*key).to_owned();
        entry.value = (*value).to_owned();
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn put(folder: &Path, name: &str, bytes: &[u8]) {
    trainer::durable::write(&folder.join(name), bytes).unwrap();
}

/// One environment a process, kept for life.
fn environment() -> &'static Environment {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let fetched = "../.fleetloop/onnxruntime/libonnxruntime.so.1.31.1";
        let library = std::env::var_os("FLEETLOOP_ORT_LIB").map_or(fetched.into(), PathBuf::from);
        let library = ort::init_from(library).expect("cargo xtask setup fetches ONNX Runtime");
        library.with_telemetry(false).build().unwrap()
    })
}

/// What ONNX Runtime makes of rows of two, with the files beside the model if it needs any.
fn onnx_runtime(path: &Path, x: &[f32]) -> Vec<f32> {
    let mut session = Session::builder(environment()).unwrap().commit_from_file(path).unwrap();
    let input = ort::value::Tensor::from_array((vec![x.len() / 2, 2], x.to_vec())).unwrap();
    let outputs = session.run(ort::inputs![input]).unwrap();
    outputs["y"].try_extract_tensor::<f32>().unwrap().1.to_vec()
}

const WEIGHTS: [f32; 6] = [0.5, -1.0, 2.0, 0.25, 8.0, -4.0];
const BIASES: [f32; 3] = [1.0, 2.0, 3.0];

/// A folder with the model and both tensors in `data/weights.bin`, the second from byte 64 on.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let place = |offset, length| [("location", "data/weights.bin"), offset, length];
    let w = place(("offset", "0"), ("length", "24"));
    let b = place(("offset", "64"), ("length", "12"));
    let model = outside(&[At { tensor: "w", entries: &w }, At { tensor: "b", entries: &b }]);
    put(folder.path(), "line.onnx", &model);
    std::fs::create_dir(folder.path().join("data")).unwrap();
    let data = [bytes(&WEIGHTS), vec![0; 40], bytes(&BIASES)].concat();
    put(folder.path(), "data/weights.bin", &data);
    folder
}

#[test]
fn several_tensors_of_one_file_become_part_of_the_model_and_nothing_else_changes() {
    let folder = folder();
    let read = ModelFile::read(&folder.path().join("line.onnx")).unwrap();
    let names: Vec<&str> = read.sources.iter().map(|source| source.file.as_str()).collect();
    assert_eq!(names, ["line.onnx", "data/weights.bin"]);
    let (got, want) = (Model::parse(read.bytes).unwrap(), Model::parse(written()).unwrap());
    assert_eq!(got.initializers, want.initializers);
    assert_eq!(got.proto, want.proto, "the message is the one that was never split");
}

#[test]
fn a_model_that_is_whole_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "line.onnx", &written());
    let read = ModelFile::read(&folder.path().join("line.onnx")).unwrap();
    assert_eq!((read.bytes, read.sources), (written(), Vec::new()));
}

#[test]
fn the_model_made_whole_gives_what_the_split_one_gives_in_onnx_runtime() {
    let folder = folder();
    let path = folder.path().join("line.onnx");
    let x = [1.0, -2.0, 0.5, 3.0];
    let split = onnx_runtime(&path, &x);
    let read = ModelFile::read(&path).unwrap();
    assert_eq!(split, [1.0, -15.0, 13.0, 2.0, 25.5, -8.0]);
    put(folder.path(), "whole.onnx", &read.bytes);
    assert_eq!(onnx_runtime(&folder.path().join("whole.onnx"), &x), split);
}

#[test]
fn offset_and_length_may_be_left_out_and_a_checksum_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "w", &bytes(&WEIGHTS));
    put(folder.path(), "b", &[vec![0; 8], bytes(&BIASES)].concat());
    let write = |sum: &str| {
        let w = [("location", "w"), ("checksum", sum)];
        let b = [("location", "./b"), ("offset", "8")];
        let model = outside(&[At { tensor: "w", entries: &w }, At { tensor: "b", entries: &b }]);
        put(folder.path(), "line.onnx", &model);
        ModelFile::read(&folder.path().join("line.onnx"))
    };
    let sum = "bfefff60dbc2243e48f737baa7a279bf54bacee8";
    let model = Model::parse(write(sum).unwrap().bytes).unwrap();
    assert_eq!(model.initializers, Model::parse(written()).unwrap().initializers);
    let text = write(&sum.replace('0', "1")).unwrap_err().to_string();
    assert!(text.contains("another checksum"), "{text}");
}

#[test]
fn every_tensor_of_a_file_has_its_own_checksum_checked() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "w", &bytes(&WEIGHTS));
    let sum = "bfefff60dbc2243e48f737baa7a279bf54bacee8";
    let write = |second: &str| {
        let w = [("location", "w"), ("checksum", sum)];
        let b = [("location", "w"), ("length", "12"), ("checksum", second)];
        let model = outside(&[At { tensor: "w", entries: &w }, At { tensor: "b", entries: &b }]);
        put(folder.path(), "line.onnx", &model);
        ModelFile::read(&folder.path().join("line.onnx"))
    };
    assert_eq!(write(&sum.to_uppercase()).unwrap().sources.len(), 2);
    let text = write(&sum.replace('0', "1")).unwrap_err().to_string();
    assert!(text.contains("'b'") && text.contains("another checksum"), "{text}");
}

#[test]
fn half_floats_and_constant_nodes_beside_the_model_train_and_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = ModelProto::parse_from_bytes(&written()).unwrap();
    let graph = model.graph.mut_or_insert_default();
    let mut tensor = graph.initializer.remove(0);
    tensor.raw_data.clear();
    tensor.data_type = 10;
    point(&mut tensor, &[("location", "w16")]);
    let held = GraphWriter::new("held").node("Constant", &[], &["w16"], vec![]).node(
        "Cast",
        &["w16"],
        &["w"],
        vec![trainer::onnx::write::int("to", 1)],
    );
    let mut nodes = ModelProto::parse_from_bytes(&held.finish().unwrap()).unwrap();
    let mut nodes = std::mem::take(&mut nodes.graph.mut_or_insert_default().node);
    let mut value = trainer::onnx::write::int("value", 0);
    value.type_ = onnx_ir::AttributeType::TENSOR.into();
    value.t = Some(tensor).into();
    nodes[0].attribute.push(value);
    nodes.append(&mut graph.node);
    graph.node = nodes;
    put(folder.path(), "half.onnx", &model.write_to_bytes().unwrap());
    let halves = WEIGHTS.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes());
    put(folder.path(), "w16", &halves.collect::<Vec<u8>>());

    let file = ModelFile::read(&folder.path().join("half.onnx")).unwrap();
    put(folder.path(), "whole.onnx", &file.bytes);
    let x = [1.0, -2.0];
    let want = onnx_runtime(&folder.path().join("half.onnx"), &x);
    assert_eq!(onnx_runtime(&folder.path().join("whole.onnx"), &x), want);

    let model = Model::parse(file.bytes.clone()).unwrap();
    let inputs = Sizes::batch(1).inputs(&model).unwrap();
    let graph = Graph::load(model, &inputs, &Device::flex()).unwrap();
    let roles: Vec<_> = graph.parameters.list.iter().map(|p| (p.name.as_str(), p.role)).collect();
    assert_eq!(roles, [("b", Role::Bias), ("w16", Role::Weight)]);
    assert_eq!(graph.parameters.values()["w16"], WEIGHTS);
    let doubled = HashMap::from([("w16".to_owned(), WEIGHTS.map(|v| 2.0 * v).to_vec())]);
    put(folder.path(), "new.onnx", &patch(&file.bytes, &doubled).unwrap().bytes);
    assert_eq!(onnx_runtime(&folder.path().join("new.onnx"), &x), [1.0, -32.0, 23.0]);
}

#[test]
fn a_place_that_is_not_inside_the_folder_or_not_there_is_refused() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("model");
    std::fs::create_dir(&folder).unwrap();
    put(outer.path(), "secret", &bytes(&BIASES));
    put(&folder, "b", &bytes(&BIASES));
    std::os::unix::fs::symlink("../secret", folder.join("link")).unwrap();
    let secret = outer.path().join("secret");
    let absolute = secret.to_str().unwrap();
    let outside_is = "is no file inside the model's folder";
    for (entries, why) in [
        (&[("location", "../secret")][..], outside_is),
        (&[("location", absolute)], outside_is),
        (&[("location", "link")], outside_is),
        (&[("location", "nobody")], outside_is),
        (&[("location", ".")], outside_is),
        (&[("location", "")], outside_is),
        (&[("offset", "0")], "does not say in which file"),
        (&[("location", "b"), ("offset", "13")], "beyond the end"),
        (&[("location", "b"), ("length", "13")], "beyond the end"),
        (&[("location", "b"), ("offset", "18446744073709551615"), ("length", "2")], "beyond"),
        (&[("location", "b"), ("offset", "-1")], "its offset is '-1'"),
    ] {
        put(&folder, "line.onnx", &outside(&[At { tensor: "b", entries }]));
        let text = ModelFile::read(&folder.join("line.onnx")).unwrap_err().to_string();
        assert!(text.contains("'b'") && text.contains(why), "{entries:?}: {text}");
    }
}

#[test]
fn data_of_another_size_than_the_shape_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "b", &bytes(&BIASES));
    let entries = [("location", "b"), ("length", "8")];
    put(folder.path(), "line.onnx", &outside(&[At { tensor: "b", entries: &entries }]));
    let file = ModelFile::read(&folder.path().join("line.onnx")).unwrap();
    let text = Model::parse(file.bytes).unwrap_err().to_string();
    assert!(text.contains("'b'") && text.contains("needs 3"), "{text}");
}

#[test]
fn bytes_without_a_folder_say_that_a_file_is_missing() {
    let model = outside(&[At { tensor: "w", entries: &[("location", "w")] }]);
    let text = Model::parse(model).unwrap_err().to_string();
    assert!(text.contains("'w'") && text.contains("with that file beside it"), "{text}");
}
