//! What no door lets in, and a word of the reason.

use super::build::{
    Message, attribute, float_value, floats, harmless, int_value, ints, model, model_of, node,
    plain, subgraph, sum, truth, with_extra,
};

/// A file that has to be refused before ONNX Runtime sees it.
pub struct Refused {
    pub name: String,
    pub file: Vec<u8>,
    /// A part of the reason.
    pub reason: &'static str,
}

/// Every case.
pub fn all() -> Vec<Refused> {
    let mut all = external();
    all.extend(encodings());
    all.extend(operators());
    all.extend(shapes());
    all.extend(otherwise());
    all.push(case("a thousand nested subgraphs", &model(&nested(1000)), "nested too deeply"));
    all
}

fn case(name: impl Into<String>, model: &Message, reason: &'static str) -> Refused {
    Refused { name: name.into(), file: model.0.clone(), reason }
}

/// A weight that is in the device's key file.
fn stolen() -> Message {
    let entry = |key: &str, value: &str| Message::new().text(1, key).text(2, value);
    Message::new()
        .number(1, 1)
        .number(2, 1)
        .text(8, "stolen")
        .message(13, &entry("location", "signing.key"))
        .message(13, &entry("length", "4"))
        .number(14, 1)
}

fn with_attribute(attribute: &Message) -> Message {
    harmless().message(1, &node("Identity", &["input"], &["copy"]).message(5, attribute))
}

/// A graph in which a weight is somewhere else.
fn holding() -> Message {
    Message::new().text(2, "inner").message(5, &stolen())
}

fn sparse(values: &Message, indices: &Message) -> Message {
    Message::new().message(1, values).message(2, indices).number(3, 1)
}

fn function(change: impl FnOnce(Message) -> Message) -> Message {
    let function = Message::new().text(1, "f").text(10, "own").text(4, "a").text(5, "b");
    model(&harmless()).message(25, &function.with(change))
}

fn external() -> Vec<Refused> {
    let (good, index) = (floats("v", &[1], &[1.0]), ints("i", &[1], &[0]));
    let deep = subgraph(
        "then_branch",
        &harmless().message(1, &{
            let inner = node("If", &["c"], &["d"]).message(5, &subgraph("else_branch", &holding()));
            node("If", &["c"], &["e"])
                .message(5, &subgraph("body", &Message::new().message(1, &inner)))
        }),
    );
    let constant =
        node("Constant", &[], &["k"]).message(5, &attribute("value", 4).message(5, &stolen()));
    let training =
        |field| model(&harmless()).message(20, &Message::new().message(field, &holding()));
    let plain_place = Message::new().number(1, 1).number(2, 1).text(8, "stolen");
    let location = Message::new().text(1, "location").text(2, "signing.key");
    let of_graph = |change: &dyn Fn(Message) -> Message| model(&harmless().with(change));
    let of_attribute = |field, message: &Message| {
        model(&with_attribute(&attribute("a", 4).message(field, message)))
    };
    let cases = [
        ("an initializer", of_graph(&|g| g.message(5, &stolen()))),
        ("a sparse initializer's values", of_graph(&|g| g.message(15, &sparse(&stolen(), &index)))),
        ("a sparse initializer's indices", of_graph(&|g| g.message(15, &sparse(&good, &stolen())))),
        ("an attribute's tensor", of_attribute(5, &stolen())),
        ("an attribute's tensors", of_attribute(10, &stolen())),
        ("an attribute's sparse tensor", of_attribute(22, &sparse(&stolen(), &index))),
        ("an attribute's sparse tensors", of_attribute(23, &sparse(&good, &stolen()))),
        ("a subgraph", of_attribute(6, &holding())),
        ("one of several subgraphs", of_attribute(11, &holding())),
        ("a subgraph of a subgraph of a subgraph", model(&with_attribute(&deep))),
        ("a function's node", function(|f| f.message(7, &constant))),
        (
            "a function's default",
            function(|f| f.message(11, &attribute("a", 4).message(5, &stolen()))),
        ),
        ("what training begins with", training(1)),
        ("what training does", training(2)),
        (
            "only an address",
            of_graph(&|g| g.message(5, &plain_place.clone().message(13, &location))),
        ),
        ("only a place", of_graph(&|g| g.message(5, &plain_place.clone().number(14, 1)))),
        (
            "a place that is not known",
            of_graph(&|g| g.message(5, &plain_place.clone().number(14, 7))),
        ),
        (
            "an address beside its data",
            of_graph(&|g| g.message(5, &floats("w", &[1], &[1.0]).message(13, &location))),
        ),
    ];
    let named = cases.into_iter().map(|(name, model)| {
        case(format!("data elsewhere: {name}"), &model, "keeps data in another file")
    });
    named.collect()
}

/// The same, in encodings that another parser may read otherwise.
fn encodings() -> Vec<Refused> {
    const REASON: &str = "no plain ONNX file";
    // Field 13, whose length of 3 is written in more bytes than it needs.
    let padded = Message::new().number(1, 1).raw(&[0x6a, 0x83, 0x80, 0]).raw(&[0x0a, 1, b'x']);
    let grouped = Message::new().raw(&[0x73]).number(14, 1).raw(&[0x74]);
    let long_tag = Message::new().raw(&[0xf0, 0x80, 0, 1]);
    let as_fixed = Message::new().raw(&[0x75, 1, 0, 0, 0]);
    let as_packed = Message::new().bytes(14, &[1]);
    let one = |tensor: &Message| model(&harmless().message(5, tensor));
    let twice = attribute("a", 4)
        .message(5, &floats("w", &[1], &[1.0]))
        .message(5, &Message::new().number(14, 0));
    let unknown = model(&harmless().message(17, &holding()));
    let beyond = model(&harmless()).number(1 << 20, 1);
    let cut = Message::new().raw(&plain()[..plain().len() - 1]);
    let mut own = Message::new().bytes(2, b"..ORTM....");
    own = own.raw(&plain());
    vec![
        case("a padded length", &one(&padded), REASON),
        case("a group", &one(&grouped), REASON),
        case("a padded field number", &one(&long_tag), REASON),
        case("a place as four bytes", &one(&as_fixed), REASON),
        case("a place as packed numbers", &one(&as_packed), REASON),
        case("a tensor in two pieces", &model(&with_attribute(&twice)), REASON),
        case("a graph twice", &model(&harmless()).message(7, &harmless()), REASON),
        case("an unknown field of a graph", &unknown, REASON),
        case("an unknown field of the model", &beyond, REASON),
        case("a file that ends early", &cut, REASON),
        case("noise", &Message::new().raw(&[0xff; 64]), REASON),
        case("nothing", &Message::new(), "has no graph"),
        case("ONNX Runtime's own format", &own, "own format"),
    ]
}

fn operators() -> Vec<Refused> {
    let of = |operator: &str, domain: &str| {
        model(&harmless().message(1, &node(operator, &["input"], &["o"]).text(7, domain)))
    };
    let inner =
        subgraph("body", &Message::new().message(1, &node("X", &[], &["o"]).text(7, "evil")));
    let other = function(|f| f.message(7, &node("g", &["a"], &["b"]).text(7, "own")));
    vec![
        case("a custom domain", &of("Relu", "com.example"), "of domain"),
        case("ONNX Runtime's own domain", &of("Relu", "com.microsoft.nchwc"), "of domain"),
        case("a custom domain in a subgraph", &model(&with_attribute(&inner)), "of domain"),
        case("another function than the file's", &other, "of domain"),
        case(
            "an operator that loads a file",
            &of("EPContext", "com.microsoft"),
            "loads other files",
        ),
    ]
}

fn shapes() -> Vec<Refused> {
    const REASON: &str = "shape that is refused";
    let huge = 1u64 << 40;
    let values = (floats("v", &[1], &[1.0]), ints("i", &[1], &[0]));
    let dense = Message::new().message(1, &values.0).message(2, &values.1);
    let dense_of = |dims: &[u64]| {
        let sparse = dims.iter().fold(dense.clone(), |sparse, dim| sparse.number(3, *dim));
        model(&harmless().message(15, &sparse))
    };
    let half = dense.clone().number(3, 1 << 30).number(3, 2);
    let twice = model(&harmless().message(15, &half).message(15, &half));
    let packed = Message::new().bytes(1, &[0xff, 0xff, 0xff, 0xff, 7, 0xff, 0xff, 0xff, 0xff, 7]);
    let of = |tensor: &Message| model(&harmless().message(5, tensor));
    let value = |dims: &[u64]| model(&harmless().message(13, &float_value("v", dims)));
    vec![
        case("a tensor of a huge size", &of(&floats("t", &[huge], &[1.0])), REASON),
        case("a tensor of huge sizes, packed", &of(&packed), REASON),
        case("a tensor of a negative size", &of(&floats("t", &[u64::MAX], &[1.0])), REASON),
        case(
            "a tensor that holds less than it says",
            &of(&floats("t", &[1 << 20], &[1.0])),
            REASON,
        ),
        case("a tensor of a hundred dimensions", &of(&floats("t", &[1; 100], &[1.0])), REASON),
        case("a sparse tensor that grows", &dense_of(&[1 << 20, 1 << 20]), REASON),
        case("sparse tensors that grow together", &twice, REASON),
        case("a value of a huge size", &value(&[huge]), REASON),
        case("a value of a huge product", &value(&[1 << 20, 1 << 20]), REASON),
        case(
            "an input of a huge size",
            &model(&{ sum(with_extra().message(11, &float_value("extra", &[1 << 31]))) }),
            REASON,
        ),
    ]
}

fn nested(times: usize) -> Message {
    let mut inner = Message::new().message(1, &node("Identity", &["input"], &["x"]));
    for _ in 0..times {
        let outer = node("If", &["c"], &["x"]).message(5, &subgraph("then_branch", &inner));
        inner = Message::new().message(1, &outer);
    }
    inner.with(|inner| harmless().raw(&inner.0))
}

/// Sound files that would answer otherwise than they were judged, or not at all.
fn otherwise() -> Vec<Refused> {
    let flag = |name: &str, value| attribute(name, 2).number(3, value);
    let norm = node("BatchNormalization", &["input", "s", "o", "m", "v"], &["n"]);
    let training = norm.clone().message(5, &flag("training_mode", 1));
    let places = norm.clone().message(5, &flag("spatial", 0));
    let inside = subgraph("body", &Message::new().message(1, &training));
    let drop = harmless().message(5, &floats("ratio", &[], &[0.5])).message(5, &truth("on", true));
    let drop = drop.message(1, &node("Dropout", &["input", "ratio", "on"], &["d"]));
    let statistics = node("BatchNormalization", &["input", "s", "o", "m", "v"], &["n", "a", "b"]);
    let called = |name: &str| node("Identity", &["input"], &[name]).text(3, "same");
    let values = (floats("thin", &[1], &[1.0]), ints("i", &[1], &[0]));
    let sparse = sparse(&values.0, &values.1);
    let labels = Message::new()
        .message(1, &node("Identity", &["input"], &["label"]))
        .message(11, &float_value("input", &[0, 1, 28, 28]))
        .message(12, &int_value("label"));
    let integers = Message::new()
        .message(1, &node("Cast", &["input"], &["logits"]))
        .message(11, &int_value("input"))
        .message(12, &float_value("logits", &[0, 3]));
    let second = harmless().message(11, &float_value("second", &[1]));
    let without = Message::new().number(1, 8).message(7, &harmless());
    vec![
        case(
            "a normalisation in training",
            &model(&harmless().message(1, &training)),
            "training_mode = 1",
        ),
        case("the same in a subgraph", &model(&with_attribute(&inside)), "training_mode = 1"),
        case("statistics for every place", &model(&harmless().message(1, &places)), "spatial = 0"),
        case(
            "statistics of the batch",
            &model_of(9, &harmless().message(1, &statistics)),
            "of the batch",
        ),
        case("a dropout in training", &model(&drop), "training_mode is true"),
        case("two inputs", &model(&second), "\"second\""),
        case("an input of integers", &model(&integers), "holds int64"),
        case("labels alone", &model(&labels), "\"label\" (int64)"),
        case("a sparse weight", &model(&harmless().message(15, &sparse)), "\"thin\" is sparse"),
        case("no operator set", &without, "no version"),
        case("an old operator set", &model_of(6, &harmless()), "operator set 6"),
        case(
            "nodes of one name",
            &model(&harmless().message(1, &called("a")).message(1, &called("b"))),
            "called \"same\"",
        ),
    ]
}
