//! In and out by folder, from the command line on a hub that serves: pictures by class, imports taken
//! back, datasets and models as folders, names instead of ids.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fleetloop_protocol::Digest;
use fleetloop_protocol::api::datasets::{Dataset, Frozen};
use fleetloop_protocol::api::imports::{Import, Imported};
use fleetloop_protocol::api::models::Model;
use fleetloop_protocol::api::samples::Sample;

use crate::rig::{Rig, options};

fn ask(rig: &Rig, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleet-hub"));
    let access = rig.config.paths.data.join("admin.toml");
    command.arg("--access").arg(access).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

fn json<T: serde::de::DeserializeOwned>(rig: &Rig, arguments: &[&str]) -> T {
    let output = ask(rig, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Pictures of the kinds that people have: see models/tests/pictures.rs.
fn pictures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/data/pictures")
}

fn put(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::io::Write::write_all(&mut std::fs::File::create(path).unwrap(), bytes).unwrap();
}

/// What works, by class, beside what is refused, with the reason.
fn cases(folder: &Path) -> BTreeMap<&'static str, &'static str> {
    let of = |name: &str| std::fs::read(pictures().join(name)).unwrap();
    for (at, name) in [
        "plain.png",
        "plain.jpg",
        "progressive.jpg",
        "cmyk.jpg",
        "exif3.jpg",
        "exif3.png",
        "exif6.jpg",
        "exif6.png",
        "grey16.png",
        "grey12in16.png",
        "palette.png",
        "palette_alpha.png",
        "grey_alpha.png",
        "only_alpha.png",
        "one_bit.png",
        "one_pixel.png",
        "interlaced.png",
    ]
    .iter()
    .enumerate()
    {
        put(&folder.join(["good", "bad"][at % 2]).join(name), &of(name));
    }
    // Bytes behind the end make other payloads of the same pictures.
    let tail = |name: &str| [of(name), vec![0; 500]].concat();
    put(&folder.join("good/UPPER.JPG"), &tail("plain.jpg"));
    put(&folder.join("good/Prüfling 3 (neu).png"), &tail("plain.png"));
    put(&folder.join("good/tail_progressive.jpg"), &tail("progressive.jpg"));
    let cut = |name: &str| of(name)[..of(name).len() * 2 / 3].to_vec();
    let mut ended = of("cut_half.jpg");
    ended.extend([0xff, 0xd9]);
    let refused: [(&str, Vec<u8>, &str); 12] = [
        ("good/cut_plain.png", cut("plain.png"), "cut off"),
        ("good/cut_plain.jpg", cut("plain.jpg"), "cut off"),
        ("bad/cut_progressive.jpg", cut("progressive.jpg"), "cut off"),
        ("bad/cut_half.jpg", of("cut_half.jpg"), "cut off"),
        ("bad/cut_half_ended.jpg", ended, "cut off"),
        ("bad/empty.png", Vec::new(), "empty"),
        ("bad/is_jpeg.png", of("plain.jpg"), "its bytes are image/jpeg"),
        ("bad/bmp.bmp", of("bmp.bmp"), "no .png, .jpg or .jpeg"),
        ("bad/webp.png", of("webp.webp"), "image/webp"),
        ("bad/tiff.tif", of("tiff.tif"), "no .png, .jpg or .jpeg"),
        ("good/twice.png", of("exif6.png"), "as bad and as good"),
        ("notes.txt", b"x".to_vec(), "in no class's folder"),
    ];
    for (name, bytes, _) in &refused {
        put(&folder.join(name), bytes);
    }
    let mut told: BTreeMap<_, _> = refused.iter().map(|(name, _, why)| (*name, *why)).collect();
    told.insert("bad/exif6.png", "as bad and as good");
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_by_class_is_imported_and_what_cannot_be_is_named() {
    let rig = Rig::start().await;
    let folder = rig.dir.path().join("pictures");
    let refused = cases(&folder);
    let import = ["sample", "import", "--folder", folder.to_str().unwrap(), "--split", "train"];
    let import = [&import[..], &["--source", "line 3, March"]].concat();
    let done: Imported = json(&rig, &import);
    let told: BTreeMap<&str, &str> =
        done.refused.iter().map(|one| (one.picture.as_str(), one.reason.as_str())).collect();
    assert_eq!(told.keys().collect::<Vec<_>>(), refused.keys().collect::<Vec<_>>());
    for (name, why) in &refused {
        assert!(told[name].contains(why), "{name}: {}", told[name]);
    }
    assert_eq!((done.stored, done.known), (19, 0), "{done:?}");
    let again: Imported = json(&rig, &import);
    assert_eq!((again.import, again.stored, again.known), (done.import, 0, 19));

    let listed: Vec<Sample> = json(&rig, &["sample", "list", "--limit", "100"]);
    assert_eq!(listed.len(), 19);
    assert!(listed.iter().all(|sample| sample.source.as_deref() == Some("line 3, March")));
    let text = said(&ask(&rig, &["sample", "list"]));
    assert!(text.contains("import: line 3, March"), "{text}");
    // The beginning of a digest does wherever the whole one does.
    let (short, label) = (listed[0].sample.short(), listed[0].label.clone().unwrap());
    let other = if label == "good" { "bad" } else { "good" };
    let set = ask(&rig, &["label", "set", &short, other]);
    assert!(set.status.success(), "{}", said(&set));
    let shown: Sample = json(&rig, &["sample", "show", &short]);
    assert_eq!(shown.label.as_deref(), Some(other));

    put(&folder.join("scratched/1.png"), &std::fs::read(pictures().join("plain.png")).unwrap());
    let unknown = ask(&rig, &import);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(said(&unknown).contains("scratched") && said(&unknown).contains("label names --add"));

    let all: Vec<Import> = json(&rig, &["import", "list"]);
    assert_eq!((all.len(), all[0].pictures), (1, 19));
    let number = all[0].id.to_string();
    let removed: Import = json(&rig, &["import", "remove", &number, "--reason", "wrong folder"]);
    assert!(removed.removed.is_some());
    let text = said(&ask(&rig, &["import", "list"]));
    assert!(text.contains("wrong folder"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exported_dataset_has_its_digest_and_all_of_its_pictures() {
    let rig = Rig::start().await;
    let folder = rig.dir.path().join("pictures");
    cases(&folder);
    for (split, class) in [("train", "good"), ("gate", "bad")] {
        let one = rig.dir.path().join(split);
        std::fs::create_dir(&one).unwrap();
        std::fs::rename(folder.join(class), one.join(class)).unwrap();
        let words = ["sample", "import", "--folder", one.to_str().unwrap(), "--split", split];
        json::<Imported>(&rig, &[&words[..], &["--source", "s"]].concat());
    }
    let frozen: Frozen = json(&rig, &["dataset", "freeze", "march"]);
    let out = rig.dir.path().join("out");
    let export = ["dataset", "export", "march", "--out", out.to_str().unwrap()];
    let said_of_it = said(&ask(&rig, &export));
    assert!(said_of_it.contains("trainer train --dataset"), "{said_of_it}");
    let bytes = std::fs::read(out.join("dataset.json")).unwrap();
    assert_eq!(Digest::of(&bytes), frozen.dataset.digest);
    let dataset: Dataset = serde_json::from_slice(&bytes).unwrap();
    assert!(dataset.items.len() > 10, "{}", dataset.items.len());
    for item in &dataset.items {
        let payload = std::fs::read(out.join("payloads").join(item.payload.to_string())).unwrap();
        assert_eq!(Digest::of(&payload), item.payload);
    }
    let again = ask(&rig, &export);
    assert_eq!(again.status.code(), Some(1));
    assert!(said(&again).contains("choose another --out"));

    // What was removed since is named in the folder, and its picture is not there.
    let gone = &dataset.items[0];
    let sample = gone.sample.short();
    json::<Vec<Sample>>(&rig, &["sample", "remove", &sample, "--reason", "a person"]);
    let later = rig.dir.path().join("later");
    json::<serde_json::Value>(
        &rig,
        &["dataset", "export", "march", "--out", later.to_str().unwrap()],
    );
    let removed: Vec<Digest> =
        serde_json::from_slice(&std::fs::read(later.join("removed.json")).unwrap()).unwrap();
    assert_eq!(removed, [gone.sample]);
    assert!(!later.join("payloads").join(gone.payload.to_string()).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_was_trained_here_keeps_its_lineage_in_and_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut wanted = options(dir.path());
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/data/linear-1");
    let manifest = std::fs::read_to_string(fixture.join("bundle.toml")).unwrap();
    let parsed = fleetloop_models::bundle::Manifest::parse(manifest.as_bytes()).unwrap();
    wanted.labels = parsed.labels.clone();
    let clock = fleet_hub::clock::Clock::system();
    let rig = Rig::start_by(dir, &wanted, clock, |_| {}).await;

    let bundle = rig.dir.path().join("bundle");
    let (base, dataset) = (Digest::of(b"base"), Digest::of(b"dataset"));
    let lineage = format!(
        "[lineage]\nbase = \"{base}\"\ndataset = \"{dataset}\"\ntrainer = \"trainer 0.1\"\n\n[[file]]"
    );
    put(&bundle.join("bundle.toml"), manifest.replacen("[[file]]", &lineage, 1).as_bytes());
    for name in ["model.onnx", "golden.json"] {
        put(&bundle.join(name), &std::fs::read(fixture.join(name)).unwrap());
    }
    let curve = r#"[{"epoch":1,"loss":0.9,"accuracy":0.5},{"epoch":2,"loss":0.25,"accuracy":0.8}]"#;
    let record =
        format!("{{\"format\":1,\"reproducible\":{{\"curve\":{curve}}},\"measured\":{{}}}}");
    put(&bundle.join("run-record.json"), record.as_bytes());
    let model: Model = json(&rig, &["model", "import", bundle.to_str().unwrap()]);
    assert_eq!(model.base.map(|base| base.0), Some(base));
    assert_eq!(model.dataset, Some(dataset));
    assert_eq!(model.run_record, Some(Digest::of(record.as_bytes())));

    // A model's name alone is its newest version.
    let shown = said(&ask(&rig, &["model", "show", &model.name]));
    assert!(shown.contains("0.2500") && shown.contains("0.8000"), "the curve: {shown}");
    assert!(shown.contains("model evaluate"), "{shown}");
    let out = rig.dir.path().join("out");
    let exported = ask(&rig, &["model", "export", &model.name, "--out", out.to_str().unwrap()]);
    assert!(exported.status.success(), "{}", said(&exported));
    for name in ["bundle.toml", "model.onnx", "golden.json", "run-record.json"] {
        let (theirs, ours) = (std::fs::read(out.join(name)), std::fs::read(bundle.join(name)));
        assert_eq!(theirs.unwrap(), ours.unwrap(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_and_a_token_are_meant_by_their_names() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let shown: serde_json::Value = json(&rig, &["device", "show", "cam"]);
    assert_eq!(shown["id"], device.id.as_str());
    let unknown = ask(&rig, &["device", "show", "camera 9"]);
    assert!(said(&unknown).contains("device list"), "{}", said(&unknown));
    let revoked = ask(&rig, &["device", "revoke", &device.id.as_str()[..8]]);
    assert!(revoked.status.success(), "{}", said(&revoked));
    let token = ask(&rig, &["token", "revoke", "annotator"]);
    assert!(token.status.success(), "{}", said(&token));
}
