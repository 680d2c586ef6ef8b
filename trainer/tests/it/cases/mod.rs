//! Models of kinds that are met outside: every door says the same of each, in its own words.
//!
//! `inspect`, `eval` and `train` are asked as a person asks them; for pictures `bundle` as well, whose
//! bundle is then taken in as a hub does and run as a device does.

mod build;
mod kinds;
mod meaning;

use std::path::Path;

use fleetloop_models::bundle::{Bundle, OutputKind};
use fleetloop_models::graph::Graph;
use fleetloop_models::picture::{Channels, Frame};
use fleetloop_models::session::{Session, Threads};
use onnx_ir::{Message as _, ModelProto};

use super::arrays::{floats, integers, write};
use super::cli::trainer;
use super::data;
use build::{BRAIN, DOUBLE, FLOAT, HALF, INT32, Is, Named, Open, UINT8, bytes, noise};

/// Samples in the arrays: a batch of 5 leaves a rest.
const SAMPLES: usize = 24;

/// What is right.
enum Right {
    /// It is trained and run; its output is of that kind.
    Works(OutputKind),
    /// It is run, and `inspect` and `train` name what cannot be trained.
    Runs(&'static str),
    /// It is refused when it is loaded, by these words.
    Refused(&'static str),
}

use OutputKind::{Logits, Softmax};
use Right::{Refused, Runs, Works};

struct Case {
    name: &'static str,
    model: ModelProto,
    /// The shape of a sample.
    shape: &'static [usize],
    /// What `inspect` has to be told.
    sizes: &'static [&'static str],
    right: Right,
}

const ROW: &[usize] = &[8];
const PICTURE: &[usize] = &[1, 8, 8];

fn case(name: &'static str, shape: &'static [usize], model: ModelProto, right: Right) -> Case {
    Case { name, model, shape, sizes: &[], right }
}

fn rows() -> Vec<Case> {
    let row = |name, model, right| case(name, ROW, model, right);
    let told = |name, model, sizes| Case { sizes, ..case(name, ROW, model, Works(Logits)) };
    vec![
        row("plain", kinds::plain(), Works(Logits)),
        row("constants", kinds::constants(), Works(Logits)),
        row("init_as_input", kinds::inputs_too(false), Works(Logits)),
        row("init_as_input_last", kinds::inputs_too(true), Works(Logits)),
        row("tied", kinds::tied(), Works(Logits)),
        row("function", kinds::function(false), Works(Logits)),
        row("function in a function", kinds::function(true), Works(Logits)),
        row("domain_ai_onnx", kinds::other_domain_word(), Works(Logits)),
        row("extra_domain", kinds::extra_domain(), Works(Logits)),
        row("fp16_all", kinds::all_of(HALF), Works(Logits)),
        row("fp16_inside", kinds::half_inside(), Works(Logits)),
        row("double_all", kinds::all_of(DOUBLE), Works(Logits)),
        row("float16 weights as varints", kinds::in_varints(HALF), Works(Logits)),
        row("bfloat16 weights as varints", kinds::in_varints(BRAIN), Works(Logits)),
        row("odd_names", kinds::odd_names(), Works(Logits)),
        row("same_node_names", kinds::same_node_names(), Works(Logits)),
        row("label_first", kinds::label_first(), Works(Softmax)),
        row("zipmap", kinds::zipmap(true), Works(Logits)),
        row("zipmap alone", kinds::zipmap(false), Refused("\"z\" (no tensor)")),
        row("if_const", kinds::constant_choice(), Works(Logits)),
        row("loop", kinds::looped(), Runs("Loop")),
        row("sparse", kinds::sparse(), Refused("\"w1\" is sparse")),
        row("scalars", kinds::scalars(), Works(Logits)),
        told("all_dims_open", kinds::declared(Some(&[Open; 2]), Some(&[Open; 2])), &["x.1=8"]),
        told("no_shape", kinds::declared(None, None), &["x.1=8"]),
        row(
            "dim_minus1",
            kinds::declared(Some(&[Is(-1), Is(8)]), Some(&[Is(-1), Is(3)])),
            Works(Logits),
        ),
        row(
            "dim_zero",
            kinds::declared(Some(&[Is(0), Is(8)]), Some(&[Is(0), Is(3)])),
            Refused("a size of 0"),
        ),
        row("dropout_training", kinds::dropout_training(), Refused("its training_mode is true")),
        row("no operator set", kinds::without_set(), Refused("no version of ONNX's operator set")),
        // What only ONNX Runtime sees is said before "trains" is.
        row("types that do not fit", kinds::unfit(), Refused("ONNX Runtime does not load")),
        row("two inputs", kinds::two_inputs(), Refused("\"z\" (float any×3)")),
    ]
}

fn pictures() -> Vec<Case> {
    let picture = |name, model, right| case(name, PICTURE, model, right);
    let convolution = |reshape: &[f32], batch| kinds::convolution(reshape, batch, FLOAT);
    let open = Case {
        sizes: &["height=8", "width=8"],
        ..picture("open_hw", kinds::open_sides(), Works(Logits))
    };
    vec![
        picture("cnn", convolution(&[-1.0, 64.0], Named("N")), Works(Logits)),
        picture("batch4", convolution(&[0.0, 64.0], Is(4)), Works(Logits)),
        picture("reshape_batch1", convolution(&[1.0, 64.0], Is(1)), Works(Logits)),
        picture("reshape_batch1_open", convolution(&[1.0, 64.0], Named("N")), Works(Logits)),
        picture("a batch in the rest of a Reshape", convolution(&[1.0, -1.0], Is(1)), Runs("Gemm")),
        picture(
            "float16 pictures",
            kinds::convolution(&[-1.0, 64.0], Named("N"), HALF),
            Works(Logits),
        ),
        picture("double pictures", kinds::convolution(&[-1.0, 64.0], Is(1), DOUBLE), Works(Logits)),
        picture("softmax_out", kinds::softmax_out(), Works(Softmax)),
        picture("softmax11_4d", kinds::softmax11_4d(), Works(Logits)),
        picture("bn6", kinds::bn6(), Works(Logits)),
        picture("bn6 in training", kinds::bn6_training(), Refused("is_test = 0")),
        picture("bn8_spatial", kinds::bn8(1), Works(Logits)),
        picture("bn8_not_spatial", kinds::bn8(0), Refused("spatial = 0")),
        picture("bn9", kinds::bn9(&["n"]), Works(Logits)),
        picture(
            "bn9 in training",
            kinds::bn9(&["n", "m2", "v2"]),
            Refused("statistics of the batch"),
        ),
        picture("bn15_training", kinds::bn15_training(), Refused("training_mode = 1")),
        picture("out_nc11", kinds::out_nc11(), Works(Logits)),
        picture("qdq", kinds::qdq(), Works(Logits)),
        picture("qoperator", kinds::qoperator(), Runs("QLinearConv")),
        picture("uint8_in", kinds::integers_in(UINT8), Refused("holds uint8")),
        picture("int32_in", kinds::integers_in(INT32), Refused("holds int32")),
        open,
        case("nhwc", &[8, 8, 3], kinds::nhwc(), Works(Logits)),
    ]
}

/// What a command said: whether it was done, and its words.
struct Said(bool, String);

impl Said {
    fn of(output: &std::process::Output) -> Self {
        let words = [&output.stdout[..], &output.stderr].concat();
        Self(output.status.success(), String::from_utf8_lossy(&words).into_owned())
    }

    /// Checks the answer of a door; ONNX Runtime's own words never are one.
    fn is(&self, case: &str, door: &str, done: bool, words: &str) {
        let Self(was, said) = self;
        assert_eq!(*was, done, "{case}, {door}: {said}");
        assert!(said.contains(words), "{case}, {door}: no {words:?} in {said}");
        for raw in
            ["Got invalid dim", "Non-zero status", "Unexpected input data", "Load model from"]
        {
            assert!(!said.contains(raw), "{case}, {door}: {said}");
        }
    }
}

fn arrays(path: &Path, shape: &[usize]) {
    let count: usize = shape.iter().product();
    let x = noise(SAMPLES * count, 5);
    let y: Vec<i64> = (0..SAMPLES as i64).map(|sample| sample % 3).collect();
    write(path, &[("x", floats(&[&[SAMPLES], shape].concat(), &x)), ("y", integers(&y))]);
}

/// Asks every door about a case.
fn holds(case: &Case, dir: &Path) {
    let file = dir.join("m.onnx");
    trainer::durable::write(&file, &bytes(&case.model)).unwrap();
    let sizes = case.sizes.iter().flat_map(|size| ["--size", size]);
    let inspect: Vec<&str> = ["inspect", "m.onnx"].into_iter().chain(sizes).collect();
    let inspect = Said::of(&trainer(&inspect, dir));
    let eval = Said::of(&trainer(&["eval", "--model", "m.onnx", "--arrays", "a.npz"], dir));
    let train =
        ["train", "--base", "m.onnx", "--arrays", "a.npz", "--recipe", "r.toml", "--out", "out"];
    let train = Said::of(&trainer(&train, dir));
    std::fs::remove_dir_all(dir.join("out")).ok();
    std::fs::remove_dir_all(dir.join("out.partial")).ok();
    match case.right {
        Works(kind) => {
            inspect.is(case.name, "inspect", true, &format!(": {kind}\n"));
            eval.is(case.name, "eval", true, "accuracy");
            train.is(case.name, "train", true, "after");
        }
        Runs(words) => {
            inspect.is(case.name, "inspect", false, words);
            eval.is(case.name, "eval", true, "accuracy");
            train.is(case.name, "train", false, words);
        }
        Refused(words) => {
            inspect.is(case.name, "inspect", false, words);
            eval.is(case.name, "eval", false, words);
            train.is(case.name, "train", false, words);
        }
    }
}

fn folder(shape: &[usize]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    arrays(&dir.path().join("a.npz"), shape);
    trainer::durable::write(&dir.path().join("r.toml"), b"epochs = 1\nbatch_size = 5").unwrap();
    dir
}

#[test]
fn every_door_says_the_same_of_a_model_of_rows() {
    let dir = folder(ROW);
    for case in rows() {
        holds(&case, dir.path());
    }
}

#[test]
fn every_door_says_the_same_of_a_model_of_pictures() {
    for case in pictures() {
        holds(&case, folder(case.shape).path());
    }
}

/// Two of the weights of [`kinds::plain`] in a file at `location` of a folder, which is then `changed`.
fn beside(dir: &Path, location: &str, changed: impl FnOnce(&Path)) {
    let mut model = kinds::plain();
    let mut data = Vec::new();
    for tensor in &mut model.graph.mut_or_insert_default().initializer {
        if !["w1", "w2"].contains(&&*tensor.name) {
            continue;
        }
        let raw = std::mem::take(&mut tensor.raw_data);
        tensor.data_location =
            onnx_ir::TensorProto::parse_from_bytes(&[0x70, 1]).unwrap().data_location;
        let (at, len) = (data.len().to_string(), raw.len().to_string());
        for (key, value) in [("location", location), ("offset", &at), ("length", &len)] {
            tensor.external_data.push(Default::default());
            let entry = tensor.external_data.last_mut().unwrap();
            (entry.key, entry.value) = (key.into(), value.into());
        }
        data.extend_from_slice(&raw);
    }
    let path = dir.join(location);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    trainer::durable::write(&path, &data).unwrap();
    trainer::durable::write(&dir.join("m.onnx"), &bytes(&model)).unwrap();
    changed(&path);
}

#[test]
fn weights_beside_the_file_are_found_or_named() {
    let root = folder(ROW);
    let absolute = root.path().join("abs.data").to_string_lossy().into_owned();
    let none = |_: &Path| {};
    let cut = |path: &Path| trainer::durable::write(path, &[0; 100]).unwrap();
    let gone = |path: &Path| std::fs::remove_file(path).unwrap();
    let link = |path: &Path| {
        let real = path.with_extension("real");
        std::fs::rename(path, &real).unwrap();
        std::os::unix::fs::symlink(real.file_name().unwrap(), path).unwrap();
    };
    let inside = "is no file inside the model's folder; put it there";
    for (location, changed, right) in [
        ("weights/deep/model.onnx.data", &none as &dyn Fn(&Path), Ok(())),
        ("Gewichte für Linie 3 (neu) 100%.bin", &none, Ok(())),
        ("./model.data", &none, Ok(())),
        ("weights\\model.data", &none, Ok(())),
        ("link.data", &link, Ok(())),
        (absolute.as_str(), &none, Err(inside)),
        ("../up_model.data", &none, Err(inside)),
        ("gone.data", &gone, Err(inside)),
        ("short.data", &cut, Err("beyond the end of 'short.data'")),
    ] {
        let dir = root.path().join("inner");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::copy(root.path().join("a.npz"), dir.join("a.npz")).unwrap();
        beside(&dir, location, changed);
        for door in
            [&["inspect", "m.onnx"][..], &["eval", "--model", "m.onnx", "--arrays", "a.npz"]]
        {
            let said = Said::of(&trainer(door, &dir));
            said.is(location, door[0], right.is_ok(), right.err().unwrap_or_default());
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

fn grey(seed: u64) -> Frame {
    let pixels = noise(64, seed).iter().map(|v| (v * 100.0 + 128.0) as u8).collect();
    Frame::new(8, 8, Channels::Grey, pixels).unwrap()
}

/// `trainer bundle` of the file in the folder.
fn bundled(dir: &Path, more: &[&str]) -> Said {
    for seed in 0..3 {
        let png = grey(seed).encode_png().unwrap();
        trainer::durable::write(&dir.join(format!("{seed}.png")), &png).unwrap();
    }
    let fixed = ["bundle", "--model", "m.onnx", "--name", "case", "--labels", "a,b,c"];
    let golden = ["--golden", "0.png", "1.png", "2.png", "--out", "bundle"];
    Said::of(&trainer(&[&fixed, more, &golden].concat(), dir))
}

#[test]
fn a_bundle_runs_on_a_device_as_its_model_does_or_is_none() {
    let runtime = data::runtime();
    for case in
        pictures().into_iter().filter(|case| case.shape == PICTURE && case.name != "open_hw")
    {
        let dir = tempfile::tempdir().unwrap();
        trainer::durable::write(&dir.path().join("m.onnx"), &bytes(&case.model)).unwrap();
        let said = bundled(dir.path(), &["--mean", "0.5", "--std", "0.25"]);
        if let Refused(words) = case.right {
            said.is(case.name, "bundle", false, words);
            // A bundle that was made by hand does not come past a hub or a device either.
            if !case.name.starts_with("bn6") {
                let error = Graph::check(bytes(&case.model)).unwrap_err().to_string();
                assert!(error.contains(words), "{}: {error}", case.name);
            }
            continue;
        }
        let kind = if let Works(kind) = case.right { kind } else { Logits };
        said.is(
            case.name,
            "bundle",
            true,
            &format!("output: {kind}\npictures: mean 0.5, deviation 0.25"),
        );
        let bundle = Bundle::open(&dir.path().join("bundle"), None).unwrap();
        assert_eq!(bundle.manifest().output, kind, "{}", case.name);
        let mut session = Session::open(&runtime, &bundle, Threads(1)).unwrap();
        bundle.golden().check(&mut session).unwrap();
        let (answer, raw) =
            (session.classify(&grey(7)).unwrap(), session.outputs(&grey(7)).unwrap());
        let sum: f32 = answer.probabilities().iter().sum();
        assert!((sum - 1.0).abs() < 1e-3, "{}: {answer:?}", case.name);
        assert_eq!(answer.probabilities() == raw, kind == Softmax, "{}", case.name);
        // What was found out is shown.
        let shown = Said::of(&trainer(&["inspect", "bundle"], dir.path()));
        let trains = matches!(case.right, Works(_));
        shown.is(case.name, "inspect", trains, &format!(": {kind}\n"));
    }
}
