//! The command as a person runs it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use fleetloop_models::bundle::Bundle;
use fleetloop_models::picture::{Channels, Frame};
use fleetloop_models::session::{Session, Threads};

use super::data;

pub fn trainer(args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(args)
        .current_dir(dir)
        .env("FLEETLOOP_ORT_LIB", data::runtime().library())
        .output()
        .unwrap()
}

pub fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn from_a_starter_to_a_retrained_bundle() {
    let dir = tempfile::tempdir().unwrap();
    data::folder(dir.path(), 80);
    let shape = format!("1x{0}x{0}", data::SIDE);
    let new = [
        "new",
        "picture-cnn",
        "--input",
        &shape,
        "--classes",
        "2",
        "--seed",
        "4",
        "--out",
        "a.onnx",
        "--json",
    ];
    let first = json(&trainer(&new, dir.path()));
    assert_eq!(first, json(&trainer(&new, dir.path())), "the same seed, the same file");

    let seen = json(&trainer(&["inspect", "a.onnx", "--json"], dir.path()));
    assert_eq!(seen["trainable"], true);
    assert_eq!(seen["parameters"].as_array().unwrap().len(), 14);
    assert_eq!(seen["unsupported"].as_array().unwrap().len(), 0);

    let train = |base: &str, how: &[&str], out: &str| {
        let args = ["train", "--base", base, "--dataset", ".", "--out", out, "--threads", "1"];
        json(&trainer(&[&args[..], how, &["--json"]].concat(), dir.path()))
    };
    let one = train("a.onnx", &["--measure"], "one");
    assert!(one["after"]["overall"]["share"].as_f64().unwrap() > 0.9, "{one}");
    let two = train("one", &[], "two");
    assert_eq!(two["preprocess"], one["preprocess"], "the base's are kept");
    assert_eq!(two["before"], one["after"]);
    for file in ["bundle.toml", "model.onnx", "golden.json", "run-record.json"] {
        assert!(dir.path().join("two").join(file).is_file(), "{file}");
        // What holds samples is its user's only, whatever the umask was.
        let about = std::fs::metadata(dir.path().join("two").join(file)).unwrap();
        assert_eq!(about.permissions().mode() & 0o077, 0, "{file}");
    }
    let eval = json(&trainer(&["eval", "--bundle", "two", "--dataset", ".", "--json"], dir.path()));
    assert_eq!(eval["summary"], two["after"]);

    let again = trainer(&["train", "--base", "one", "--dataset", ".", "--out", "two"], dir.path());
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("choose another --out"));
    assert_eq!(trainer(&["train", "--dataset", "."], dir.path()).status.code(), Some(2));
}

#[test]
fn the_place_of_the_result_is_made_or_refused_before_training() {
    let dir = tempfile::tempdir().unwrap();
    data::folder(&dir.path().join("set"), 40);
    trainer::durable::write(&dir.path().join("recipe.toml"), b"epochs = 1").unwrap();
    trainer::durable::write(&dir.path().join("file"), b"").unwrap();
    let shape = format!("1x{0}x{0}", data::SIDE);
    let train = |out: &str| {
        let args = ["train", "--starter", "picture-cnn", "--input", &shape, "--dataset", "set"];
        let rest = ["--recipe", "recipe.toml", "--threads", "1", "--json", "--out", out];
        trainer(&[args.as_slice(), &rest].concat(), dir.path())
    };
    for out in ["file/out", "file/more/out"] {
        let refused = train(out);
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{text}");
        assert!(text.contains("choose another --out") && !text.contains("phase"), "{text}");
    }
    json(&train("not/there/out"));
    assert!(dir.path().join("not/there/out/bundle.toml").is_file());
}

#[test]
fn any_onnx_classifier_becomes_a_bundle_that_proves_itself() {
    let dir = tempfile::tempdir().unwrap();
    let new =
        ["new", "picture-cnn", "--input", "1x8x8", "--classes", "3", "--out", "own.onnx", "--json"];
    json(&trainer(&new, dir.path()));
    let frame = Frame::new(9, 7, Channels::Rgb, (0..189).collect()).unwrap();
    trainer::durable::write(&dir.path().join("seen.png"), &frame.encode_png().unwrap()).unwrap();
    let bundle = |labels: &str, golden: &str, out: &str| {
        let args = ["bundle", "--model", "own.onnx", "--name", "own", "--labels", labels];
        let rest = ["--mean", "0.3", "--std", "0.2", "--golden", golden, "--out", out, "--json"];
        trainer(&[args.as_slice(), &rest].concat(), dir.path())
    };
    let made = json(&bundle("a,b,c", "seen.png", "own"));
    let read = Bundle::open(&dir.path().join("own"), None).unwrap();
    assert_eq!(made["bundle"], read.digest().to_string());
    let mut session = Session::open(&data::runtime(), &read, Threads(1)).unwrap();
    assert_eq!(read.golden().check(&mut session).unwrap().cases, 1);
    for (labels, golden, why) in
        [("a,b", "seen.png", "2 labels"), ("a,b,c", "own.onnx", ".png or .jpg")]
    {
        let refused = bundle(labels, golden, "no");
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1));
        assert!(text.contains(why), "{text}");
        assert!(!dir.path().join("no").exists());
    }
}

#[test]
fn an_interrupt_ends_cleanly_and_leaves_no_half_file() {
    let dir = tempfile::tempdir().unwrap();
    let sets = dir.path().join("set");
    data::folder(&sets, 80);
    let recipe = dir.path().join("long.toml");
    trainer::durable::write(&recipe, b"epochs = 10000").unwrap();
    let shape = format!("1x{0}x{0}", data::SIDE);
    let mut child = Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args([
            "train",
            "--starter",
            "picture-cnn",
            "--input",
            &shape,
            "--dataset",
            "set",
            "--recipe",
            "long.toml",
            "--out",
            "out",
            "--threads",
            "1",
        ])
        .current_dir(dir.path())
        .env("FLEETLOOP_ORT_LIB", data::runtime().library())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Progress lines are JSON; the first of training says that the run is under way.
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let mut lines = lines.map_while(Result::ok);
    let training =
        lines.find(|line| line.contains(r#""phase":"train""#)).expect("a line about training");
    serde_json::from_str::<serde_json::Value>(&training).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    let mut left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["long.toml", "out.partial", "set"], "what it needs to go on, and no more");
    let told = rest.join("\n");
    assert!(told.contains("same command again") && told.contains("out.partial"), "{told}");
}

#[test]
fn plainer_instructions_learn_the_same_and_the_record_names_them() {
    let dir = tempfile::tempdir().unwrap();
    data::folder(dir.path(), 80);
    let shape = format!("1x{0}x{0}", data::SIDE);
    let new = ["new", "picture-cnn", "--input", &shape, "--classes", "2", "--out", "a.onnx"];
    assert!(trainer(&new, dir.path()).status.success());
    let losses = |instructions: &str| -> Option<Vec<f64>> {
        let train =
            ["train", "--base", "a.onnx", "--dataset", ".", "--out", instructions, "--json"];
        let wanted = ["--measure", "--threads", "1", "--instructions", instructions];
        let output = trainer(&[&train[..], &wanted].concat(), dir.path());
        if String::from_utf8_lossy(&output.stderr).contains("does not have the instructions") {
            return None;
        }
        let curve = json(&output)["curve"].clone();
        let record = std::fs::read(dir.path().join(instructions).join("run-record.json")).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        let target = record["reproducible"]["versions"]["target"].as_str().unwrap();
        assert!(target.ends_with(instructions), "{target}");
        Some(curve.as_array().unwrap().iter().map(|e| e["loss"].as_f64().unwrap()).collect())
    };
    let plain = losses("plain").expect("every processor has them");
    for instructions in ["avx2", "avx512"] {
        for (other, plain) in losses(instructions).into_iter().flatten().zip(&plain) {
            assert!((other - plain).abs() < 0.02, "{instructions}: {other}, plain {plain}");
        }
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error_and_a_full_disk_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let new = ["new", "table-mlp", "--input", "4", "--classes", "2", "--out", "m.onnx"];
    json(&trainer(&[&new[..], &["--json"]].concat(), dir.path()));
    for arguments in [&["operators"][..], &["inspect", "m.onnx"], &["inspect", "m.onnx", "--json"]]
    {
        let start = |stdout: Stdio| {
            Command::new(env!("CARGO_BIN_EXE_trainer"))
                .args(arguments)
                .current_dir(dir.path())
                .stdout(stdout)
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let mut child = start(Stdio::piped());
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));

        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let ended = start(full.into()).wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(said.contains("cannot write to standard output"), "{said}");
    }
}
