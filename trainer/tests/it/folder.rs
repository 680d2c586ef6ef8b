//! Pictures by class from a folder, and what is held out, as a person runs the command.

use std::collections::BTreeSet;
use std::path::Path;

use fleetloop_models::bundle::Bundle;
use fleetloop_models::picture::{Channels, Frame};
use fleetloop_protocol::api::datasets::Split;
use serde_json::Value;
use trainer::folder::{self, Judged};
use trainer::random::Random;

use super::arrays::{eval, floats, integers, npy, number, recipe, train, write};
use super::cli::{json, trainer};
use super::data;

fn put(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::io::Write::write_all(&mut std::fs::File::create(path).unwrap(), bytes).unwrap();
}

/// Bright on the left or on the right, each of ten parts in a folder of its own.
fn sides(folder: &Path, per_part: usize) {
    let mut random = Random::new(3);
    for part in 0..10 {
        for n in 0..per_part {
            for (class, name) in ["left", "right"].iter().enumerate() {
                let file = folder.join(format!("{name}/part {part}/{n}.png"));
                put(&file, &data::picture(class, &mut random));
            }
        }
    }
}

#[test]
fn a_folder_by_class_is_trained_on_and_judged_by_whole_groups() {
    let dir = tempfile::tempdir().unwrap();
    let pictures = dir.path().join("pictures");
    sides(&pictures, 6);
    put(&pictures.join("left/part 0/cut.png"), &data::picture(0, &mut Random::new(9))[..60]);
    let twice = data::picture(1, &mut Random::new(8));
    for name in ["left/part 1/twice.png", "right/part 1/twice too.png"] {
        put(&pictures.join(name), &twice);
    }

    let read = folder::read(&pictures, None, Judged::Share(0.2)).unwrap();
    let names: BTreeSet<&str> = read.refused.iter().map(|(name, _)| name.as_str()).collect();
    let want = ["left/part 0/cut.png", "left/part 1/twice.png", "right/part 1/twice too.png"];
    assert_eq!(names, want.into_iter().collect());
    assert_eq!(read.dataset.labels, ["left", "right"]);
    assert_eq!(read.dataset.items.len(), 120);
    let groups = |split| {
        let items = read.dataset.items.iter().filter(move |item| item.split == split);
        items.map(|item| item.group.clone()).collect::<BTreeSet<_>>()
    };
    assert_eq!(groups(Split::Gate), read.held_out.clone().unwrap());
    assert!(groups(Split::Gate).is_disjoint(&groups(Split::Train)));
    assert_eq!(groups(Split::Gate).len(), 2);
    let again = folder::read(&pictures, None, Judged::Share(0.2)).unwrap();
    assert_eq!(again.digest, read.digest);

    recipe(dir.path(), "epochs = 8\nbatch_size = 16");
    let input = format!("1x{0}x{0}", data::SIDE);
    let words = [
        "train",
        "--folder",
        "pictures",
        "--starter",
        "picture-cnn",
        "--input",
        &input,
        "--recipe",
        "recipe.toml",
        "--out",
        "one",
        "--threads",
        "1",
    ];
    let run = trainer(&[&words[..], &["--json"]].concat(), dir.path());
    let told = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(told.contains("left/part 0/cut.png") && told.contains("held_out"), "{told}");
    let made: Value = json(&run);
    let figures = &made["after"]["figures"];
    assert!(number(&figures["accuracy"]) > 0.9, "{made}");
    assert_eq!(figures["largest_class"], 0.5);
    assert!(number(&figures["auc"]) > 0.9, "{made}");
    assert_eq!(figures["confusion"].as_array().unwrap().len(), 2);
    let bundle = Bundle::open(&dir.path().join("one"), None).unwrap();
    let lineage = bundle.manifest().lineage.as_ref().unwrap();
    assert_eq!(lineage.dataset, Some(read.digest));

    // The labels' order is a hub's if it is given, and a base's stays.
    let words = [&words[..10], &["two", "--labels", "spare,right,left", "--threads", "1"]].concat();
    json(&trainer(&[&words[..], &["--json"]].concat(), dir.path()));
    let two = Bundle::open(&dir.path().join("two"), None).unwrap();
    assert_eq!(two.manifest().labels, ["spare", "right", "left"]);
    let on_base =
        ["train", "--folder", "pictures", "--base", "two", "--recipe", "recipe.toml", "--out", "3"];
    json(&trainer(&[&on_base[..], &["--json"]].concat(), dir.path()));
    let three = Bundle::open(&dir.path().join("3"), None).unwrap();
    assert_eq!(three.manifest().labels, ["spare", "right", "left"]);

    let text = trainer(&["eval", "--bundle", "one", "--folder", "pictures"], dir.path());
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    for words in ["of 120)", "AUC", "recall", "always the largest class would score 0.5000", "left"]
    {
        assert!(text.contains(words), "{words} is missing in {text}");
    }
    let unknown = ["eval", "--bundle", "one", "--folder", "."];
    let refused = trainer(&unknown, dir.path());
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("none of the labels"));
}

#[test]
fn pictures_without_groups_are_held_out_by_content_some_of_each_class() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::new(5);
    for n in 0..40 {
        put(&dir.path().join(format!("left/{n}.png")), &data::picture(0, &mut random));
    }
    for n in 0..2 {
        put(&dir.path().join(format!("right/{n}.png")), &data::picture(1, &mut random));
    }
    let read = folder::read(dir.path(), None, Judged::Share(0.2)).unwrap();
    assert_eq!(read.held_out, None);
    let count = |label, split| {
        let items = read.dataset.items.iter();
        items.filter(|item| item.label == label && item.split == split).count()
    };
    assert_eq!((count(1, Split::Train), count(1, Split::Gate)), (1, 1));
    assert!((3..16).contains(&count(0, Split::Gate)), "{}", count(0, Split::Gate));
}

/// Names, as NumPy writes texts.
fn texts(names: &[String]) -> Vec<u8> {
    let longest = names.iter().map(|name| name.len()).max().unwrap();
    let mut bytes = Vec::new();
    for name in names {
        let mut padded: Vec<char> = name.chars().collect();
        padded.resize(longest, '\0');
        bytes.extend(padded.iter().flat_map(|c| (*c as u32).to_le_bytes()));
    }
    npy(&format!("<U{longest}"), &[names.len()], &bytes)
}

/// Windows of recordings: what all of one recording have in common says its class by heart, and nothing
/// about the next recording's.
fn recordings(path: &Path) {
    let mut random = Random::new(11);
    let (mut x, mut y, mut groups) = (Vec::new(), Vec::new(), Vec::new());
    for recording in 0..20 {
        let mark: Vec<f32> = (0..16).map(|_| random.normal()).collect();
        for _ in 0..20 {
            x.extend(mark.iter().map(|v| v + 0.05 * random.normal()));
            y.push(recording % 2);
            groups.push(format!("recording {recording}"));
        }
    }
    let arrays = [("x", floats(&[400, 16], &x)), ("y", integers(&y)), ("group", texts(&groups))];
    write(path, &arrays);
}

#[test]
fn windows_of_one_recording_do_not_stand_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    recordings(&dir.path().join("windows.npz"));
    recipe(dir.path(), "epochs = 30\nbatch_size = 16");
    let made = train(dir.path(), &["windows.npz"], &["--starter", "table-mlp"], "out");
    // A recording is known again by its mark; by chance alone the next one's class is guessed.
    let share = number(&made["after"]["overall"]["share"]);
    assert!(share < 0.9, "{share}: samples of one recording stand on both sides");
    assert_eq!(made["after"]["overall"]["total"], 80);
    let record = std::fs::read(dir.path().join("out/run-record.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    let held = record["reproducible"]["judged_by"]["groups"].as_array().unwrap();
    assert_eq!(held.len(), 4, "{held:?}");
    let learned = record["reproducible"]["learned_from"].as_object().unwrap();
    assert!(held.iter().all(|group| !learned.contains_key(group.as_str().unwrap())), "{learned:?}");
    let classes = &made["after"]["classes"];
    assert!(classes["auc"].is_number() && classes["confusion"][1][1].is_number(), "{made}");
}

#[test]
fn zeros_and_ones_for_one_output_are_yes_or_no() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::new(2);
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for n in 0..200 {
        x.extend((0..6).map(|_| random.normal() + if n % 2 == 0 { -0.8 } else { 0.8 }));
        y.push(n % 2);
    }
    let both = [("x", floats(&[200, 6], &x)), ("y", integers(&y))];
    write(&dir.path().join("rows.npz"), &both);
    let new = ["new", "table-mlp", "--input", "6", "--outputs", "1", "--out", "one.onnx"];
    assert!(trainer(&new, dir.path()).status.success());
    recipe(dir.path(), "epochs = 20\nbatch_size = 16");
    let made = train(dir.path(), &["rows.npz"], &["--base", "one.onnx"], "out");
    let record = std::fs::read(dir.path().join("out/run-record.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(record["reproducible"]["recipe"]["loss"], "binary");
    assert!(number(&made["after"]["overall"]["share"]) > 0.9, "{made}");
    assert!(number(&made["after"]["classes"]["auc"]) > 0.95, "{made}");
    let judged = eval(dir.path(), "out/model.onnx", "rows.npz");
    assert!(number(&judged["summary"]["overall"]["share"]) > 0.9, "{judged}");
    let text = trainer(&["eval", "--model", "out/model.onnx", "--arrays", "rows.npz"], dir.path());
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("always the largest class would score 0.5000"), "{text}");
}

#[test]
fn augment_changes_pictures_in_arrays() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::new(6);
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for n in 0..60 {
        let png = data::picture(n % 2, &mut random);
        let frame = Frame::decode(fleetloop_protocol::sample::MediaType::Png, &png).unwrap();
        assert_eq!(frame.channels(), Channels::Grey);
        x.extend(frame.pixels().iter().map(|v| f32::from(*v) / 255.0));
        y.push((n % 2) as i64);
    }
    let shape = [60, 1, data::SIDE, data::SIDE];
    write(&dir.path().join("p.npz"), &[("x", floats(&shape, &x)), ("y", integers(&y))]);
    let starter = ["--starter", "picture-cnn"];
    recipe(dir.path(), "epochs = 3\nbatch_size = 16");
    let plain = train(dir.path(), &["p.npz"], &starter, "plain");
    let augment = "[augment]\nprobability = 1.0\nshift = 0.1\nbrightness = [0.5, 2.0]";
    recipe(dir.path(), &format!("epochs = 3\nbatch_size = 16\n{augment}"));
    let changed = train(dir.path(), &["p.npz"], &starter, "changed");
    assert_ne!(plain["curve"], changed["curve"], "what it learned from was changed");
    assert_ne!(plain["model"], changed["model"]);
}

#[test]
fn an_autoencoder_says_whether_it_beats_mean_brightness() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::new(4);
    // What is anomalous is brighter, and nothing else: its mean says all.
    let mut rows = |count: usize, anomalous: bool| -> Vec<f32> {
        let level = if anomalous { 3.0 } else { 0.0 };
        (0..count * 8).map(|_| level + random.normal()).collect()
    };
    let (normal, good, bad) = (rows(60, false), rows(40, false), rows(40, true));
    write(&dir.path().join("normal.npz"), &[("x", floats(&[60, 8], &normal))]);
    let y: Vec<i64> = (0..80).map(|n| i64::from(n >= 40)).collect();
    let both = floats(&[80, 8], &[good, bad].concat());
    write(&dir.path().join("both.npz"), &[("x", both), ("y", integers(&y))]);
    recipe(dir.path(), "epochs = 1\nlearning_rate = 1e-9");
    let made = train(dir.path(), &["normal.npz"], &["--starter", "autoencoder"], "out");
    assert!(made["after"]["trivial"]["flat"].is_number(), "{made}");
    let words = ["eval", "--model", "out/model.onnx", "--arrays", "both.npz", "--loss"];
    let words = [&words[..], &["reconstruction"]].concat();
    let judged = json(&trainer(&[&words[..], &["--json"]].concat(), dir.path()));
    let trivial = &judged["summary"]["trivial"];
    assert!(number(&trivial["brightness_auc"]) > 0.95, "{judged}");
    assert!(trivial["auc"].is_number(), "{judged}");
    let text = trainer(&words, dir.path());
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("AUC of the anomaly score"), "{text}");
    let beaten = number(&trivial["auc"]) > number(&trivial["brightness_auc"]);
    assert_eq!(text.contains("DOES NOT BEAT MEAN BRIGHTNESS"), !beaten, "{text}");
}

#[test]
fn numbers_are_held_against_always_the_mean() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::new(4);
    let x: Vec<f32> = (0..100 * 3).map(|_| random.normal()).collect();
    // Nothing in x says y.
    let y: Vec<f32> = (0..100).map(|_| 5.0 + random.normal()).collect();
    let both = [("x", floats(&[100, 3], &x)), ("y", floats(&[100], &y))];
    write(&dir.path().join("noise.npz"), &both);
    recipe(dir.path(), "epochs = 1\nlearning_rate = 1e-9");
    let words = ["train", "--arrays", "noise.npz", "--starter", "table-mlp", "--out", "out"];
    let run = trainer(&[&words[..], &["--recipe", "recipe.toml"]].concat(), dir.path());
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(text.contains("always the mean would be off by"), "{text}");
    assert!(text.contains("NOT BETTER THAN THAT"), "{text}");
}
