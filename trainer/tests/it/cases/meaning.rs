//! What an output means, through all spellings of it: found out, or asked for.

use fleetloop_models::bundle::OutputKind::{self, Logits, Sigmoid, Softmax};
use fleetloop_models::bundle::{BundleError, Files, Manifest, Role};
use fleetloop_models::graph::Graph;
use onnx_ir::{ModelProto, NodeProto, TensorProto};

use super::build::*;
use super::*;

/// Nodes behind the scores `s` that make `y` of them, and their constants.
struct Ending {
    name: &'static str,
    nodes: Vec<NodeProto>,
    more: Vec<TensorProto>,
    set: i64,
    kind: Option<OutputKind>,
}

fn ending(name: &'static str, nodes: Vec<NodeProto>, kind: Option<OutputKind>) -> Ending {
    Ending { name, nodes, more: vec![], set: 17, kind }
}

fn axes(values: &[f32]) -> TensorProto {
    tensor("axes", INT64, &[values.len()], values)
}

fn number(name: &str, value: f32) -> TensorProto {
    tensor(name, FLOAT, &[], &[value])
}

/// Exponents of `from`, their sum and the quotient `y`.
fn spelled(from: &str) -> Vec<NodeProto> {
    vec![
        node("Exp", &[from], &["e"]),
        node("ReduceSum", &["e", "axes"], &["sum"]).int("keepdims", 1),
        node("Div", &["e", "sum"], &["y"]),
    ]
}

fn shifted() -> Vec<NodeProto> {
    vec![
        node("ReduceMax", &["s"], &["max"]).ints("axes", &[-1]).int("keepdims", 1),
        node("Sub", &["s", "max"], &["z"]),
    ]
}

fn endings() -> Vec<Ending> {
    let spelled_out = [shifted(), spelled("z")].concat();
    let logistic = |last: NodeProto| {
        vec![
            node("Neg", &["s"], &["n"]),
            node("Exp", &["n"], &["e"]),
            node("Add", &["e", "one"], &["a"]),
            last,
        ]
    };
    let flat =
        |op: NodeProto| vec![op, node("Flatten", &["p"], &["q"]), node("Identity", &["q"], &["y"])];
    let logs = vec![node("LogSoftmax", &["s"], &["l"]).int("axis", 1), node("Exp", &["l"], &["y"])];
    let with = |ending: Ending, more: Vec<TensorProto>| Ending { more, ..ending };
    vec![
        ending("Softmax", vec![node("Softmax", &["s"], &["y"])], Some(Softmax)),
        ending("Softmax, then shapes", flat(node("Softmax", &["s"], &["p"])), Some(Softmax)),
        Ending {
            set: 11,
            ..ending("Softmax of set 11", vec![node("Softmax", &["s"], &["y"])], Some(Softmax))
        },
        ending("Sigmoid", vec![node("Sigmoid", &["s"], &["y"])], Some(Sigmoid)),
        ending("Sigmoid, then shapes", flat(node("Sigmoid", &["s"], &["p"])), Some(Sigmoid)),
        with(ending("spelled out", spelled_out, Some(Softmax)), vec![axes(&[-1.0])]),
        with(ending("spelled out, unshifted", spelled("s"), Some(Softmax)), vec![axes(&[1.0])]),
        ending("Exp of LogSoftmax", logs, Some(Softmax)),
        ending("LogSoftmax", vec![node("LogSoftmax", &["s"], &["y"]).int("axis", 1)], Some(Logits)),
        with(
            ending(
                "1 / (1 + exp(-x))",
                logistic(node("Div", &["one", "a"], &["y"])),
                Some(Sigmoid),
            ),
            vec![number("one", 1.0)],
        ),
        with(
            ending("Reciprocal", logistic(node("Reciprocal", &["a"], &["y"])), Some(Sigmoid)),
            vec![number("one", 1.0)],
        ),
        with(
            ending(
                "Softmax, clipped",
                vec![node("Softmax", &["s"], &["p"]), node("Clip", &["p", "low", "high"], &["y"])],
                Some(Softmax),
            ),
            vec![number("low", 1e-7), number("high", 1.0)],
        ),
        // What a graph cannot show: the values do, or a person has to.
        ending("HardSigmoid", vec![node("HardSigmoid", &["s"], &["y"])], None),
        ending("Relu", vec![node("Relu", &["s"], &["y"])], Some(Logits)),
        ending(
            "a Softmax over the batch",
            vec![node("Softmax", &["s"], &["y"]).int("axis", 0)],
            None,
        ),
    ]
}

fn behind(ending: &Ending) -> ModelProto {
    kinds::behind(ending.nodes.clone(), ending.more.clone(), ending.set)
}

#[test]
fn every_spelling_of_a_softmax_or_sigmoid_is_found_and_nothing_else_taken_for_one() {
    for ending in endings() {
        let graph = Graph::check(bytes(&behind(&ending))).unwrap();
        assert_eq!(graph.reading().meaning.kind(), ending.kind, "{}", ending.name);
    }
}

/// A model that cannot but learn which of three corners is bright, whatever comes behind its scores.
#[test]
fn training_steps_before_every_one_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let count = 120;
    let mut x = noise(count * 8, 11);
    for sample in 0..count {
        x[sample * 8 + sample % 3] += 2.0;
    }
    let y: Vec<i64> = (0..count as i64).map(|sample| sample % 3).collect();
    write(&dir.path().join("a.npz"), &[("x", floats(&[count, 8], &x)), ("y", integers(&y))]);
    let recipe = b"epochs = 30\nbatch_size = 10\nlearning_rate = 0.02";
    trainer::durable::write(&dir.path().join("r.toml"), recipe).unwrap();
    // A sigmoid of every place, averaged over places: no score has an element for each probability.
    let averaged = ending(
        "Sigmoid, then Unsqueeze, ReduceMean",
        vec![
            node("Concat", &["s", "s"], &["c"]).int("axis", 1),
            node("Reshape", &["c", "three"], &["r"]),
            node("Sigmoid", &["r"], &["p"]),
            node("ReduceMean", &["p"], &["y"]).ints("axes", &[1]).int("keepdims", 0),
        ],
        Some(Sigmoid),
    );
    let three = tensor("three", INT64, &[3], &[-1.0, 2.0, 3.0]);
    let averaged = Ending { more: vec![three], ..averaged };
    let clear =
        endings().into_iter().filter(|ending| ending.kind.is_some() && ending.name != "Relu");
    for ending in clear.chain([averaged]) {
        let model = bytes(&behind(&ending));
        trainer::durable::write(&dir.path().join("m.onnx"), &model).unwrap();
        let args = ["train", "--base", "m.onnx", "--arrays", "a.npz", "--recipe", "r.toml"];
        let rest = ["--threads", "1", "--out", "out", "--json"];
        let made = super::super::cli::json(&trainer(&[&args[..], &rest].concat(), dir.path()));
        let last = made["curve"].as_array().unwrap().last().unwrap()["loss"].as_f64().unwrap();
        // A second softmax would keep it above .55, a second sigmoid above .31.
        assert!(last < 0.2, "{}: {last}", ending.name);
        assert!(made["after"]["overall"]["share"].as_f64().unwrap() > 0.9, "{}", ending.name);
        std::fs::remove_dir_all(dir.path().join("out")).unwrap();
    }
}

/// The convolution for pictures with `nodes` behind its scores `l`.
fn picture(nodes: Vec<NodeProto>) -> ModelProto {
    let mut model = kinds::convolution(&[-1.0, 64.0], Named("N"), FLOAT);
    let graph = model.graph.mut_or_insert_default();
    graph.node[4].output[0] = "l".into();
    graph.node.extend(nodes);
    graph.initializer.push(number("one", 1.0));
    graph.initializer.push(axes(&[1.0]));
    model
}

#[test]
fn what_the_graph_does_not_show_the_pictures_show_or_a_person_has_to_say() {
    let hard = || vec![node("HardSigmoid", &["l"], &["y"])];
    // The square of each score over the sum of squares: probabilities of no spelling that is known.
    let squares = vec![
        node("Mul", &["l", "l"], &["q"]),
        node("ReduceSum", &["q", "axes"], &["sum"]).int("keepdims", 1),
        node("Div", &["q", "sum"], &["y"]),
    ];
    let odd = vec![node("Sin", &["l"], &["q"]), node("Sub", &["q", "one"], &["y"])];
    let soft = || vec![node("Softmax", &["l"], &["y"]).int("axis", 1)];
    let prepared = ["--mean", "0.5", "--std", "0.25"];
    for (name, nodes, said, right) in [
        ("a sigmoid is asked for", hard(), None, Err("say it with --output")),
        ("and believed", hard(), Some("sigmoid"), Ok(Sigmoid)),
        ("rows that add up to one are a softmax", squares, None, Ok(Softmax)),
        ("values below 0 are scores", odd, None, Ok(Logits)),
        (
            "a graph is not contradicted",
            soft(),
            Some("logits"),
            Err("is softmax as the graph shows"),
        ),
        ("nor are values", hard(), Some("softmax"), Err("do not add up to 1")),
    ] {
        let dir = tempfile::tempdir().unwrap();
        trainer::durable::write(&dir.path().join("m.onnx"), &bytes(&picture(nodes))).unwrap();
        let output: Vec<&str> = said.into_iter().flat_map(|said| ["--output", said]).collect();
        let said = bundled(dir.path(), &[&prepared[..], &output].concat());
        match right {
            Err(words) => said.is(name, "bundle", false, words),
            Ok(kind) => {
                said.is(name, "bundle", true, &format!("output: {kind}"));
                let bundle = Bundle::open(&dir.path().join("bundle"), None).unwrap();
                assert_eq!(bundle.manifest().output, kind, "{name}");
            }
        }
    }
}

/// 4 of 211 frames were worth sending, and 209 were sent: each probability was softmaxed again.
#[test]
fn a_device_is_as_sure_as_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = kinds::softmax_out();
    for tensor in &mut model.graph.mut_or_insert_default().initializer {
        if tensor.name == "w" {
            let values: Vec<f32> = noise(192, 3).iter().map(|v| v * 20.0).collect();
            *tensor = build::tensor("w", FLOAT, &[64, 3], &values);
        }
    }
    trainer::durable::write(&dir.path().join("m.onnx"), &bytes(&model)).unwrap();
    bundled(dir.path(), &["--mean", "0.5", "--std", "0.25"]).is("sure", "bundle", true, "softmax");
    let bundle = Bundle::open(&dir.path().join("bundle"), None).unwrap();
    let mut session = Session::open(&data::runtime(), &bundle, Threads(1)).unwrap();
    let answer = session.classify(&grey(1)).unwrap();
    // Softmaxed again, the surest answer of three is 0.576.
    assert!(answer.best().1 > 0.9 && answer.entropy() < 0.3, "{answer:?}");
}

#[test]
fn a_bundle_with_a_softmax_is_retrained_before_it_and_keeps_its_output() {
    use onnx_ir::Message as _;
    let dir = tempfile::tempdir().unwrap();
    data::folder(&dir.path().join("set"), 80);
    let base = trainer::starter::starter(
        trainer::starter::Kind::PictureCnn,
        &[1, data::SIDE, data::SIDE],
        trainer::starter::Head::Classes(2),
        1,
    );
    let mut model = ModelProto::parse_from_bytes(&base.unwrap()).unwrap();
    let graph = model.graph.mut_or_insert_default();
    let output = graph.output[0].name.clone();
    graph.node.push(node("Softmax", &[&output], &["p"]).int("axis", 1));
    graph.output[0].name = "p".into();
    trainer::durable::write(&dir.path().join("s.onnx"), &bytes(&model)).unwrap();
    for (base, how, out) in [("s.onnx", &["--measure"][..], "one"), ("one", &[], "two")] {
        let args = ["train", "--base", base, "--dataset", "set", "--threads", "1", "--out", out];
        let args = [&args[..], how, &["--json"]].concat();
        let made = super::super::cli::json(&trainer(&args, dir.path()));
        assert_eq!(made["output"], "softmax");
        let last = made["curve"].as_array().unwrap().last().unwrap()["loss"].as_f64().unwrap();
        // A second softmax over two classes keeps it above .31.
        assert!(last < 0.2, "{out}: {last}");
        let bundle = Bundle::open(&dir.path().join(out), None).unwrap();
        assert_eq!(bundle.manifest().output, Softmax);
    }
}

#[test]
fn a_manifest_that_says_otherwise_than_the_graph_is_refused_wherever_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    trainer::durable::write(&dir.path().join("m.onnx"), &bytes(&kinds::softmax_out())).unwrap();
    bundled(dir.path(), &["--mean", "0.5", "--std", "0.25"]).is("made", "bundle", true, "softmax");
    let read = |name: &str| std::fs::read(dir.path().join("bundle").join(name)).unwrap();
    let files =
        Files::from([(Role::Model, read("model.onnx")), (Role::Golden, read("golden.json"))]);
    let text = String::from_utf8(read("bundle.toml")).unwrap();
    let open = |text: &str| Bundle::from_parts(text.as_bytes().to_vec(), files.clone());
    assert!(open(&text).is_ok());
    for other in ["logits", "sigmoid"] {
        let error = open(&text.replace("\"softmax\"", &format!("{other:?}"))).unwrap_err();
        assert!(matches!(&error, BundleError::Output(_)), "{error}");
        let words = trainer::chain::chain(&error);
        assert!(
            words.contains("softmax as the graph shows") && words.contains("trainer bundle"),
            "{words}"
        );
    }
    let silent = text.replace("output = \"softmax\"\n", "");
    assert!(matches!(Manifest::parse(silent.as_bytes()), Err(BundleError::ManifestSyntax { .. })));
}

#[test]
fn mean_and_deviation_are_asked_for_and_those_for_0_to_255_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = bytes(&kinds::convolution(&[-1.0, 64.0], Named("N"), FLOAT));
    trainer::durable::write(&dir.path().join("m.onnx"), &model).unwrap();
    for (given, words) in [
        (&[][..], "give --mean and --std as the model was trained with"),
        (&["--mean", "123.675", "--std", "58.395"], "mean 0.4850 and std 0.2290"),
        (&["--mean", "0.5,0.5", "--std", "0.25"], "for 1 channels"),
        (&["--mean", "0.5", "--std", "0"], "above 0"),
        (&["--mean", "-0.5", "--std", "0.5"], "from 0 to 1"),
    ] {
        bundled(dir.path(), given).is("given", "bundle", false, words);
    }
    // A raw model that is trained on pictures is not measured without a word either.
    data::folder(&dir.path().join("set"), 40);
    let base = trainer::starter::starter(
        trainer::starter::Kind::PictureCnn,
        &[1, data::SIDE, data::SIDE],
        trainer::starter::Head::Classes(2),
        1,
    );
    trainer::durable::write(&dir.path().join("s.onnx"), &base.unwrap()).unwrap();
    trainer::durable::write(&dir.path().join("r.toml"), b"epochs = 1").unwrap();
    let train = |base: &str, how: &[&str], out: &str| {
        let args =
            ["train", "--base", base, "--dataset", "set", "--recipe", "r.toml", "--out", out];
        Said::of(&trainer(&[&args[..], how].concat(), dir.path()))
    };
    train("s.onnx", &[], "no").is("asked", "train", false, "--measure if it has learned nothing");
    let large = ["--mean", "128", "--std", "64"];
    train("s.onnx", &large, "no").is("large", "train", false, "values from 0 to 255");
    let known = ["--mean", "0.4", "--std", "0.3"];
    train("s.onnx", &known, "one").is("known", "train", true, "pictures: mean 0.4, deviation 0.3");
    train("one", &[], "two").is("kept", "train", true, "pictures: mean 0.4, deviation 0.3");
    train("one", &known, "no").is("kept", "train", false, "a bundle keeps its mean");
    train("s.onnx", &["--measure"], "three").is("measured", "train", true, "pictures: mean 0.");
}
