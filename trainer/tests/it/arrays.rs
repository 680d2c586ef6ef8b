//! Arrays from file to file, as a person runs the command: windows are told apart, numbers are
//! estimated, anomalies stand out.

use std::io::{Cursor, Write as _};
use std::path::Path;

use fleetloop_protocol::Digest;
use serde_json::Value;
use trainer::durable;
use trainer::onnx::GraphWriter;
use trainer::random::Random;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::cli::{json, trainer};

/// Samples in a window.
const WINDOW: usize = 256;

/// An array as NumPy writes it.
pub fn npy(descr: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let shape: String = shape.iter().map(|size| format!("{size}, ")).collect();
    let mut dictionary =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    while (dictionary.len() + 11) % 64 != 0 {
        dictionary.push(' ');
    }
    dictionary.push('\n');
    let length = (dictionary.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], dictionary.as_bytes(), data].concat()
}

pub fn floats(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    npy("<f4", shape, &bytes)
}

pub fn integers(values: &[i64]) -> Vec<u8> {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    npy("<i8", &[values.len()], &bytes)
}

pub fn write(path: &Path, arrays: &[(&str, Vec<u8>)]) {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in arrays {
        writer.start_file(format!("{name}.npy"), SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    durable::write(path, writer.finish().unwrap().get_ref()).unwrap();
}

/// A vibration of so many cycles a window, with random phase and amplitude, in noise.
fn vibration(cycles: f32, random: &mut Random) -> Vec<f32> {
    let (phase, amplitude) = (random.between(0.0, std::f32::consts::TAU), random.between(0.7, 1.3));
    let at = |t: usize| cycles * std::f32::consts::TAU * t as f32 / WINDOW as f32 + phase;
    (0..WINDOW).map(|t| amplitude * at(t).sin() + 0.3 * random.normal()).collect()
}

/// Windows of two machines: 12 cycles for class 0, 17 for class 1.
fn windows(path: &Path, count: usize, seed: u64) {
    let mut random = Random::new(seed);
    let mut x = Vec::new();
    for sample in 0..count {
        x.extend(vibration([12.0, 17.0][sample % 2], &mut random));
    }
    let y: Vec<i64> = (0..count as i64).map(|sample| sample % 2).collect();
    write(path, &[("x", floats(&[count, 1, WINDOW], &x)), ("y", integers(&y))]);
}

pub fn recipe(dir: &Path, text: &str) {
    durable::write(&dir.join("recipe.toml"), text.as_bytes()).unwrap();
}

/// `trainer train --arrays` with the recipe of the folder.
pub fn train(dir: &Path, data: &[&str], base: &[&str], out: &str) -> Value {
    let how = ["--recipe", "recipe.toml", "--seed", "3", "--threads", "1", "--out", out, "--json"];
    json(&trainer(&[&["train", "--arrays"], data, base, &how].concat(), dir))
}

pub fn eval(dir: &Path, model: &str, arrays: &str) -> Value {
    json(&trainer(&["eval", "--model", model, "--arrays", arrays, "--json"], dir))
}

pub fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn windows_of_two_vibrations_are_told_apart_and_the_record_says_how() {
    let dir = tempfile::tempdir().unwrap();
    windows(&dir.path().join("windows.npz"), 240, 1);
    windows(&dir.path().join("unseen.npz"), 100, 2);
    recipe(dir.path(), "epochs = 12\nbatch_size = 16");
    let starter = ["--starter", "signal-cnn"];
    let one = train(dir.path(), &["windows.npz"], &starter, "one");
    assert_eq!(one["before"], Value::Null);
    assert!(number(&one["after"]["overall"]["share"]) > 0.9, "{one}");
    let unseen = eval(dir.path(), "one/model.onnx", "unseen.npz");
    assert!(number(&unseen["summary"]["overall"]["share"]) > 0.9, "{unseen}");

    let again = train(dir.path(), &["windows.npz"], &starter, "again");
    assert_eq!(again["model"], one["model"], "the same order, the same bytes");
    recipe(dir.path(), "epochs = 2\nbatch_size = 16\nfreeze = \"all-but-head\"");
    let two = train(dir.path(), &["windows.npz"], &["--base", "one/model.onnx"], "two");
    assert_eq!(two["before"], one["after"]);

    let digest = |name: &str| {
        let bytes = std::fs::read(dir.path().join(name)).unwrap();
        serde_json::to_value(Digest::of(&bytes)).unwrap()
    };
    let record = std::fs::read(dir.path().join("two/run-record.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    let made = &record["reproducible"];
    assert_eq!(made["dataset"], digest("windows.npz"));
    assert_eq!(made["base"]["model"], digest("one/model.onnx"));
    assert_eq!(made["model"], digest("two/model.onnx"));
    assert_eq!((&made["seed"], &made["judged_by"]["share"]), (&3.into(), &0.2.into()));
    assert_eq!(made["recipe"]["loss"], "cross-entropy");
    assert_eq!(made["curve"].as_array().unwrap().len(), 2);
    assert!(!made["patches"].as_array().unwrap().is_empty());
    assert!(made.get("bundle").is_none(), "{made}");
}

#[test]
fn a_model_that_leaves_the_length_of_its_window_open_learns_too() {
    let dir = tempfile::tempdir().unwrap();
    windows(&dir.path().join("windows.npz"), 80, 1);
    recipe(dir.path(), "epochs = 2");
    let mut random = Random::new(4);
    let mut noise = |count: usize| (0..count).map(|_| 0.3 * random.normal()).collect::<Vec<_>>();
    let model = GraphWriter::new("open")
        .input("x", &[None, Some(1), None])
        .output("y", &[None, Some(2)])
        .floats("w", &[4, 1, 9], &noise(36))
        .floats("v", &[4, 2], &noise(8))
        .node("Conv", &["x", "w"], &["a"], vec![])
        .node("Relu", &["a"], &["b"], vec![])
        .node("GlobalAveragePool", &["b"], &["c"], vec![])
        .node("Flatten", &["c"], &["d"], vec![])
        .node("MatMul", &["d", "v"], &["y"], vec![])
        .finish()
        .unwrap();
    durable::write(&dir.path().join("open.onnx"), &model).unwrap();
    let made = train(dir.path(), &["windows.npz"], &["--base", "open.onnx"], "out");
    assert_ne!(made["model"], serde_json::to_value(Digest::of(&model)).unwrap());
    assert!(made["before"]["overall"]["share"].is_number(), "{made}");
}

#[test]
fn numbers_are_estimated_from_columns_of_any_unit() {
    let dir = tempfile::tempdir().unwrap();
    for (name, count, seed) in [("table.npz", 600, 1), ("unseen.npz", 200, 2)] {
        let mut random = Random::new(seed);
        let (mut x, mut y) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let [a, b, c] = [0; 3].map(|_| random.normal());
            x.extend([a, 500.0 + 200.0 * b, 1e-3 * c, 7.0]);
            y.push(a - 0.5 * b * c + 0.05 * random.normal());
        }
        let arrays = [("x", floats(&[count, 4], &x)), ("y", floats(&[count], &y))];
        write(&dir.path().join(name), &arrays);
    }
    recipe(dir.path(), "epochs = 40\nbatch_size = 32");
    let data = ["table.npz", "--eval", "unseen.npz"];
    let made = train(dir.path(), &data, &["--starter", "table-mlp"], "out");
    // The answers have a deviation of 1.1; noise alone is 0.05.
    let off = &made["after"]["overall"];
    assert!(number(&off["rmse"]) < 0.3 && number(&off["mae"]) < 0.2, "{made}");
    assert_eq!(eval(dir.path(), "out/model.onnx", "unseen.npz")["summary"], made["after"]);
}

#[test]
fn anomalies_have_a_higher_score_than_what_is_normal() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::new(7);
    let mut windows = |name: &str, count: usize, cycles: f32| {
        let x: Vec<f32> = (0..count).flat_map(|_| vibration(cycles, &mut random)).collect();
        write(&dir.path().join(name), &[("x", floats(&[count, 1, WINDOW], &x))]);
    };
    windows("normal.npz", 200, 12.0);
    windows("normal-unseen.npz", 50, 12.0);
    windows("anomalous.npz", 50, 29.0);
    recipe(dir.path(), "epochs = 40\nbatch_size = 16\nlearning_rate = 0.005");
    let made = train(dir.path(), &["normal.npz"], &["--starter", "autoencoder"], "out");
    let threshold = number(&made["after"]["overall"]["p95"]);
    let score = |name: &str| eval(dir.path(), "out/model.onnx", name);
    let (normal, anomalous) = (score("normal-unseen.npz"), score("anomalous.npz"));
    let mean = |judged: &Value| number(&judged["summary"]["overall"]["mean"]);
    assert!(mean(&anomalous) > 2.0 * mean(&normal), "{} and {}", mean(&anomalous), mean(&normal));
    let above = |judged: &Value| {
        let scores = judged["scores"].as_array().unwrap();
        scores.iter().filter(|score| number(score) > threshold).count()
    };
    assert_eq!(above(&anomalous), 50, "all are above what 95 of 100 normal windows stay below");
    assert!(above(&normal) < 10, "{}", above(&normal));
}

#[test]
fn what_does_not_fit_is_said_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let x = floats(&[12, 5], &(0..60).map(|v| v as f32).collect::<Vec<_>>());
    let labels: Vec<i64> = (0..12).map(|n| n % 3).collect();
    write(&dir.path().join("rows.npz"), &[("x", x), ("y", integers(&labels))]);
    let refused = |args: &[&str]| {
        let run = trainer(&[args, &["--out", "out"]].concat(), dir.path());
        let text = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(!dir.path().join("out").exists(), "{text}");
        (run.status.code(), text)
    };
    let new = |kind: &str, input: &str, head: &[&str]| {
        let args = [&["new", kind, "--input", input], head, &["--out", "m.onnx"]].concat();
        assert!(trainer(&args, dir.path()).status.success());
    };
    let on_model = ["train", "--arrays", "rows.npz", "--base", "m.onnx"];

    new("table-mlp", "5", &["--classes", "2"]);
    let (code, text) = refused(&on_model);
    assert!(code == Some(1) && text.contains("class 2, the model knows 0 to 1"), "{text}");
    new("table-mlp", "4", &["--classes", "3"]);
    let (_, text) = refused(&on_model);
    assert!(text.contains("×4") && text.contains("shape [5]"), "{text}");
    new("signal-cnn", "1x64", &["--classes", "3"]);
    let (_, text) = refused(&on_model);
    assert!(text.contains("×1×64") && text.contains("shape [5]"), "{text}");
    new("table-mlp", "5", &["--outputs", "2"]);
    assert_eq!(refused(&on_model).0, Some(1));

    let (_, text) = refused(&["train", "--arrays", "rows.npz", "--starter", "signal-cnn"]);
    assert!(
        text.contains("signal-cnn for input [5]") && text.contains("channels x samples with"),
        "{text}"
    );
    assert!(text.contains("x[:, None]"), "{text}");
    let x = floats(&[2, 5], &[0.0; 10]);
    let more = floats(&[2, 2], &[0.0; 4]);
    let reach = floats(&[12], &[0.5; 12]);
    let rows = floats(&[12, 5], &[1.0; 60]);
    write(&dir.path().join("numbers.npz"), &[("x", rows), ("y", reach)]);
    write(&dir.path().join("unlike.npz"), &[("x", x.clone()), ("y", more)]);
    write(&dir.path().join("beyond.npz"), &[("x", x), ("y", integers(&[0, -1]))]);
    for (learn, judge, why) in [
        ("rows.npz", "beyond.npz", "sample 1 has class -1"),
        ("numbers.npz", "unlike.npz", "have 1 numbers to reach, those to judge by 2"),
    ] {
        let data = ["train", "--arrays", learn, "--eval", judge];
        let (code, text) = refused(&[&data[..], &["--starter", "table-mlp"]].concat());
        assert!(code == Some(1) && text.contains(why), "{text}");
        assert!(!text.contains(r#""phase":"train""#), "before the first step: {text}");
    }
    new("table-mlp", "5", &["--classes", "3"]);
    // Whether it is learned from or held out, a sample is named by its place in the file.
    for wrong in 0..12 {
        let x = floats(&[12, 5], &(0..60).map(|v| v as f32).collect::<Vec<_>>());
        let labels: Vec<i64> = (0..12).map(|n| if n == wrong { 7 } else { n % 3 }).collect();
        write(&dir.path().join("wrong.npz"), &[("x", x), ("y", integers(&labels))]);
        let (_, text) = refused(&["train", "--arrays", "wrong.npz", "--base", "m.onnx"]);
        assert!(text.contains(&format!("sample {wrong} has class 7")), "{text}");
    }
    let whole = std::fs::read(dir.path().join("m.onnx")).unwrap();
    std::fs::File::create(dir.path().join("cut.onnx"))
        .and_then(|mut file| std::io::Write::write_all(&mut file, &whole[..whole.len() / 2]))
        .unwrap();
    let (_, text) = refused(&["train", "--arrays", "rows.npz", "--base", "cut.onnx"]);
    assert!(text.contains("cut.onnx") && text.contains("damaged"), "{text}");
    recipe(dir.path(), "[augment]\nflip = true");
    let on_starter = ["train", "--arrays", "rows.npz", "--starter", "table-mlp"];
    let (_, text) = refused(&[&on_starter[..], &["--recipe", "recipe.toml"]].concat());
    assert!(text.contains("[augment]") && text.contains("leave it out"), "{text}");
    let (_, text) = refused(&["train", "--arrays", "none.npz", "--starter", "table-mlp"]);
    assert!(text.contains("none.npz"), "{text}");
    let both = ["train", "--arrays", "rows.npz", "--dataset", ".", "--starter", "table-mlp"];
    assert_eq!(refused(&both).0, Some(2));
    assert_eq!(refused(&["new", "table-mlp", "--input", "5"]).0, Some(1));
}
