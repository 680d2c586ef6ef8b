//! Models of the kinds that public bug reports are about. Each takes `x` (N×8 or N×1×8×8) and tells
//! three classes apart, unless its name says otherwise.

use onnx_ir::{AttributeType, ModelProto, NodeProto, TensorProto, ValueInfoProto};

use super::build::*;

const N: Size = Named("N");

pub fn x() -> ValueInfoProto {
    value("x", FLOAT, Some(&[N, Is(8)]))
}

pub fn y() -> ValueInfoProto {
    value("y", FLOAT, Some(&[N, Is(3)]))
}

fn picture() -> ValueInfoProto {
    value("x", FLOAT, Some(&[N, Is(1), Is(8), Is(8)]))
}

/// The weights of [`layers`], of that type.
pub fn weights(kind: i32) -> Vec<TensorProto> {
    let of = |name: &str, dims: &[usize], seed| {
        tensor(name, kind, dims, &noise(dims.iter().product(), seed))
    };
    vec![of("w1", &[8, 16], 1), of("b1", &[16], 2), of("w2", &[16, 3], 3), of("b2", &[3], 4)]
}

/// Two layers from `from` to `to`.
pub fn layers(from: &str, to: &str) -> Vec<NodeProto> {
    vec![
        node("Gemm", &[from, "w1", "b1"], &["t1"]),
        node("Relu", &["t1"], &["t2"]),
        node("Gemm", &["t2", "w2", "b2"], &[to]),
    ]
}

pub fn plain() -> ModelProto {
    model(graph(layers("x", "y"), weights(FLOAT), vec![x()], vec![y()]), 17)
}

/// [`plain`] with more nodes behind its scores `s`, which make `y`.
pub fn behind(nodes: Vec<NodeProto>, more: Vec<TensorProto>, set: i64) -> ModelProto {
    let nodes = [layers("x", "s"), nodes].concat();
    model(graph(nodes, [weights(FLOAT), more].concat(), vec![x()], vec![y()]), set)
}

pub fn constants() -> ModelProto {
    let held =
        weights(FLOAT).into_iter().map(|w| node("Constant", &[], &[&w.name.clone()]).held(w));
    let nodes = held.chain(layers("x", "y")).collect();
    model(graph(nodes, vec![], vec![x()], vec![y()]), 17)
}

/// Every initializer is an input as well; the real input stands first or last.
pub fn inputs_too(last: bool) -> ModelProto {
    let declared = |w: &TensorProto| {
        let dims: Vec<Size> = w.dims.iter().map(|d| Is(*d)).collect();
        value(&w.name, FLOAT, Some(&dims))
    };
    let mut inputs: Vec<_> = weights(FLOAT).iter().map(declared).collect();
    inputs.insert(if last { inputs.len() } else { 0 }, x());
    model(graph(layers("x", "y"), weights(FLOAT), inputs, vec![y()]), 9)
}

pub fn tied() -> ModelProto {
    let nodes = vec![
        node("MatMul", &["x", "e"], &["t1"]),
        node("Tanh", &["t1"], &["t2"]),
        node("Transpose", &["e"], &["et"]).ints("perm", &[1, 0]),
        node("MatMul", &["t2", "et"], &["t3"]),
        node("Gemm", &["t3", "w", "b"], &["y"]),
    ];
    let weights = vec![
        tensor("e", FLOAT, &[8, 16], &noise(128, 1)),
        tensor("w", FLOAT, &[8, 3], &noise(24, 2)),
        tensor("b", FLOAT, &[3], &noise(3, 3)),
    ];
    model(graph(nodes, weights, vec![x()], vec![y()]), 17)
}

/// A convolution whose values are brought to `reshape`; the input's batch is `batch`, and its floats
/// are of type `kind`.
pub fn convolution(reshape: &[f32], batch: Size, kind: i32) -> ModelProto {
    let nodes = vec![
        node("Conv", &["x", "k", "kb"], &["c"]).ints("pads", &[1, 1, 1, 1]),
        node("Relu", &["c"], &["r"]),
        node("MaxPool", &["r"], &["p"]).ints("kernel_shape", &[2, 2]).ints("strides", &[2, 2]),
        node("Reshape", &["p", "shape"], &["f"]),
        node("Gemm", &["f", "w", "b"], &["y"]),
    ];
    let weights = vec![
        tensor("k", kind, &[4, 1, 3, 3], &noise(36, 1)),
        tensor("kb", kind, &[4], &noise(4, 2)),
        tensor("shape", INT64, &[2], reshape),
        tensor("w", kind, &[64, 3], &noise(192, 3)),
        tensor("b", kind, &[3], &noise(3, 4)),
    ];
    let input = value("x", kind, Some(&[batch, Is(1), Is(8), Is(8)]));
    let output = value("y", kind, Some(&[batch, Is(3)]));
    model(graph(nodes, weights, vec![input], vec![output]), 17)
}

pub fn softmax_out() -> ModelProto {
    let mut model = convolution(&[-1.0, 64.0], N, FLOAT);
    let graph = model.graph.mut_or_insert_default();
    graph.node[4].output[0] = "l".into();
    graph.node.push(node("Softmax", &["l"], &["y"]).int("axis", 1));
    model
}

/// Convolution, `normalise`, Dropout with an unused mask (as before operator set 12), pooling.
fn normalised(set: i64, normalise: NodeProto) -> ModelProto {
    let dropout = match set {
        ..12 => node("Dropout", &["r"], &["d", "mask"]).float("ratio", 0.3),
        _ => node("Identity", &["r"], &["d"]),
    };
    let gemm = node("Gemm", &["f", "w", "b"], &["y"]);
    let nodes = vec![
        node("Conv", &["x", "k", "kb"], &["c"]).ints("pads", &[1, 1, 1, 1]),
        normalise,
        node("Relu", &["n"], &["r"]),
        dropout,
        node("GlobalAveragePool", &["d"], &["g"]),
        node("Flatten", &["g"], &["f"]),
        if set < 7 { gemm.int("broadcast", 1) } else { gemm },
    ];
    let mut weights = vec![
        tensor("k", FLOAT, &[4, 1, 3, 3], &noise(36, 1)),
        tensor("kb", FLOAT, &[4], &noise(4, 2)),
        tensor("w", FLOAT, &[4, 3], &noise(12, 3)),
        tensor("b", FLOAT, &[3], &noise(3, 4)),
    ];
    for (name, value) in [("s", 1.0), ("o", 0.0), ("m", 0.0), ("v", 1.0)] {
        weights.push(tensor(name, FLOAT, &[4], &[value; 4]));
    }
    model(graph(nodes, weights, vec![picture()], vec![y()]), set)
}

fn batch_norm(outputs: &[&str]) -> NodeProto {
    node("BatchNormalization", &["c", "s", "o", "m", "v"], outputs)
}

pub fn bn6() -> ModelProto {
    normalised(6, batch_norm(&["n"]).int("is_test", 1))
}

pub fn bn6_training() -> ModelProto {
    normalised(6, batch_norm(&["n"]))
}

pub fn bn8(spatial: i64) -> ModelProto {
    normalised(8, batch_norm(&["n"]).int("spatial", spatial))
}

pub fn bn9(outputs: &[&str]) -> ModelProto {
    normalised(9, batch_norm(outputs))
}

pub fn bn15_training() -> ModelProto {
    normalised(15, batch_norm(&["n", "rm", "rv"]).int("training_mode", 1))
}

/// A function of the file, as `torch.onnx.export(dynamo=True)` writes them; with one more inside, which
/// is given its attribute, or without.
pub fn function(nested: bool) -> ModelProto {
    const DOMAIN: &str = "pkg.onnxscript.torch_lib";
    let call = |op: &str, from: &str, to: &str| NodeProto {
        domain: DOMAIN.into(),
        ..node(op, &[from], &[to])
    };
    let nodes = vec![
        node("Gemm", &["x", "w1", "b1"], &["t1"]),
        call(if nested { "outer" } else { "aten_relu" }, "t1", "t2"),
        node("Gemm", &["t2", "w2", "b2"], &["y"]),
    ];
    let mut made = model(graph(nodes, weights(FLOAT), vec![x()], vec![y()]), 17);
    import(&mut made, DOMAIN, 1);
    let mut define = |name: &str, attribute: Option<&str>, nodes: Vec<NodeProto>| {
        made.functions.push(Default::default());
        let function = made.functions.last_mut().unwrap();
        function.name = name.into();
        function.domain = DOMAIN.into();
        function.input = vec!["a".into()];
        function.output = vec!["z".into()];
        function.attribute = attribute.iter().map(|a| (*a).to_owned()).collect();
        function.node = nodes;
        for (domain, version) in [("", 17), (DOMAIN, 1)] {
            function.opset_import.push(Default::default());
            let last = function.opset_import.last_mut().unwrap();
            last.domain = domain.into();
            last.version = version;
        }
    };
    define("aten_relu", None, vec![node("Relu", &["a"], &["z"])]);
    if nested {
        let leaky =
            node("LeakyRelu", &["a"], &["z"]).refers("alpha", AttributeType::FLOAT, "slope");
        define("leaky", Some("slope"), vec![leaky]);
        let twice = vec![
            call("leaky", "a", "z1").float("slope", 0.2),
            call("aten_relu", "z1", "t1"),
            node("Identity", &["t1"], &["z"]),
        ];
        define("outer", None, twice);
    }
    made
}

pub fn half_inside() -> ModelProto {
    let mut nodes = vec![node("Cast", &["x"], &["xh"]).int("to", HALF.into())];
    nodes.extend(layers("xh", "yh"));
    nodes.push(node("Cast", &["yh"], &["y"]).int("to", FLOAT.into()));
    model(graph(nodes, weights(HALF), vec![x()], vec![y()]), 17)
}

/// Input, weights and output of that type.
pub fn all_of(kind: i32) -> ModelProto {
    let input = value("x", kind, Some(&[N, Is(8)]));
    let output = value("y", kind, Some(&[N, Is(3)]));
    model(graph(layers("x", "y"), weights(kind), vec![input], vec![output]), 17)
}

/// Weights of 16 bits as varints, made floats before they are used.
pub fn in_varints(kind: i32) -> ModelProto {
    let mut nodes = Vec::new();
    let kept: Vec<TensorProto> = weights(kind)
        .into_iter()
        .map(|mut weight| {
            let name = weight.name.clone();
            weight.name = format!("{name}.kept");
            nodes.push(node("Cast", &[&weight.name], &[&name]).int("to", FLOAT.into()));
            varints(weight)
        })
        .collect();
    nodes.extend(layers("x", "y"));
    model(graph(nodes, kept, vec![x()], vec![y()]), 17)
}

/// Weights of 16 bits for an input of 32.
pub fn unfit() -> ModelProto {
    model(graph(layers("x", "y"), weights(HALF), vec![x()], vec![y()]), 17)
}

pub fn odd_names() -> ModelProto {
    let names = ["Größe/フィルタ 1:0", "/model/fc1/bias;read", "a\"b\\c\nd", "%s{}"];
    let mut made = plain();
    let graph = made.graph.mut_or_insert_default();
    for (tensor, name) in graph.initializer.iter_mut().zip(names) {
        tensor.name = name.into();
    }
    for (at, place, name) in [(0, 1, 0), (0, 2, 1), (2, 1, 2), (2, 2, 3)] {
        graph.node[at].input[place] = names[name].into();
    }
    graph.node[0].input[0] = "serving_default_x:0".into();
    graph.input[0].name = "serving_default_x:0".into();
    graph.node[2].output[0] = "StatefulPartitionedCall:0".into();
    graph.output[0].name = "StatefulPartitionedCall:0".into();
    made
}

pub fn same_node_names() -> ModelProto {
    let mut made = plain();
    for node in &mut made.graph.mut_or_insert_default().node {
        node.name = "node".into();
    }
    made
}

pub fn other_domain_word() -> ModelProto {
    let mut made = plain();
    made.opset_import[0].domain = "ai.onnx".into();
    for node in &mut made.graph.mut_or_insert_default().node {
        node.domain = "ai.onnx".into();
    }
    made
}

pub fn extra_domain() -> ModelProto {
    let mut made = plain();
    import(&mut made, "ai.onnx.ml", 2);
    import(&mut made, "com.microsoft", 1);
    made
}

pub fn without_set() -> ModelProto {
    let mut made = plain();
    made.opset_import.clear();
    import(&mut made, "com.microsoft", 1);
    made
}

pub fn two_inputs() -> ModelProto {
    let mut made = behind(vec![node("Add", &["s", "z"], &["y"])], vec![], 17);
    made.graph.mut_or_insert_default().input.push(value("z", FLOAT, Some(&[N, Is(3)])));
    made
}

pub fn label_first() -> ModelProto {
    let nodes = vec![
        node("ArgMax", &["s"], &["label"]).int("axis", 1).int("keepdims", 0),
        node("Softmax", &["s"], &["p"]).int("axis", 1),
    ];
    let mut made = behind(nodes, vec![], 17);
    made.graph.mut_or_insert_default().output =
        vec![value("label", INT64, Some(&[N])), value("p", FLOAT, Some(&[N, Is(3)]))];
    made
}

/// What scikit-learn's classifiers give: labels, and a map from class to probability; the scores
/// before them, or not.
pub fn zipmap(scores: bool) -> ModelProto {
    let map = NodeProto { domain: "ai.onnx.ml".into(), ..node("ZipMap", &["s"], &["z"]) };
    let mut made = behind(vec![map.ints("classlabels_int64s", &[0, 1, 2])], vec![], 17);
    import(&mut made, "ai.onnx.ml", 1);
    let mut maps = ValueInfoProto { name: "z".into(), ..Default::default() };
    let element = maps.type_.mut_or_insert_default().mut_sequence_type();
    let map = element.elem_type.mut_or_insert_default().mut_map_type();
    map.key_type = INT64;
    map.value_type.mut_or_insert_default().mut_tensor_type().elem_type = FLOAT;
    let first = if scores { vec![value("s", FLOAT, Some(&[N, Is(3)]))] } else { vec![] };
    made.graph.mut_or_insert_default().output = [first, vec![maps]].concat();
    made
}

pub fn constant_choice() -> ModelProto {
    let branch = |op: &str, to: &str| {
        graph(vec![node(op, &["t1"], &[to])], vec![], vec![], vec![value(to, FLOAT, None)])
    };
    let mut made = plain();
    let graph = made.graph.mut_or_insert_default();
    graph.node[1] = node("If", &["cond"], &["t2"])
        .branch("then_branch", branch("Relu", "br"))
        .branch("else_branch", branch("Tanh", "br2"));
    graph.initializer.push(tensor("cond", BOOL, &[], &[1.0]));
    made
}

pub fn looped() -> ModelProto {
    let body = graph(
        vec![
            node("Identity", &["c"], &["c2"]),
            node("Gemm", &["s", "wl"], &["s1"]),
            node("Tanh", &["s1"], &["s2"]),
        ],
        vec![],
        vec![
            value("i", INT64, Some(&[])),
            value("c", BOOL, Some(&[])),
            value("s", FLOAT, Some(&[N, Is(16)])),
        ],
        vec![value("c2", BOOL, Some(&[])), value("s2", FLOAT, Some(&[N, Is(16)]))],
    );
    let mut made = plain();
    let graph = made.graph.mut_or_insert_default();
    graph.node[1] = node("Loop", &["trip", "", "t1"], &["t2"]).branch("body", body);
    graph.initializer.push(tensor("trip", INT64, &[], &[3.0]));
    graph.initializer.push(tensor("wl", FLOAT, &[16, 16], &noise(256, 9)));
    made
}

pub fn sparse() -> ModelProto {
    let mut made = plain();
    let graph = made.graph.mut_or_insert_default();
    graph.initializer.remove(0);
    graph.sparse_initializer.push(Default::default());
    let sparse = graph.sparse_initializer.last_mut().unwrap();
    sparse.values = Some(tensor("w1", FLOAT, &[3], &[0.5, -0.5, 0.25])).into();
    sparse.indices = Some(tensor("ix", INT64, &[3], &[0.0, 17.0, 40.0])).into();
    sparse.dims = vec![8, 16];
    made
}

pub fn scalars() -> ModelProto {
    let mut nodes =
        vec![node("Mul", &["x", "scale"], &["xs"]), node("Add", &["xs", "off"], &["xo"])];
    nodes.extend(layers("xo", "y"));
    let mut weights = weights(FLOAT);
    weights[3] = tensor("b2", FLOAT, &[], &[0.1]);
    weights.push(tensor("scale", FLOAT, &[], &[0.5]));
    weights.push(tensor("off", FLOAT, &[1], &[0.3]));
    weights.push(tensor("unused_empty", FLOAT, &[0], &[]));
    model(graph(nodes, weights, vec![x()], vec![y()]), 17)
}

pub fn open_sides() -> ModelProto {
    let nodes = vec![
        node("Conv", &["x", "k", "kb"], &["c"]).ints("strides", &[2, 2]),
        node("Relu", &["c"], &["r"]),
        node("ReduceMean", &["r"], &["g"]).ints("axes", &[2, 3]).int("keepdims", 0),
        node("Gemm", &["g", "w", "b"], &["y"]),
    ];
    let weights = vec![
        tensor("k", FLOAT, &[4, 1, 3, 3], &noise(36, 1)),
        tensor("kb", FLOAT, &[4], &noise(4, 2)),
        tensor("w", FLOAT, &[4, 3], &noise(12, 3)),
        tensor("b", FLOAT, &[3], &noise(3, 4)),
    ];
    let input = value("x", FLOAT, Some(&[N, Is(1), Named("height"), Named("width")]));
    model(graph(nodes, weights, vec![input], vec![y()]), 17)
}

/// [`plain`] with other sizes declared.
pub fn declared(input: Option<&[Size]>, output: Option<&[Size]>) -> ModelProto {
    let mut made = plain();
    let graph = made.graph.mut_or_insert_default();
    graph.input = vec![value("x", FLOAT, input)];
    graph.output = vec![value("y", FLOAT, output)];
    made
}

pub fn out_nc11() -> ModelProto {
    let nodes =
        vec![node("Conv", &["x", "k", "kb"], &["c"]), node("GlobalAveragePool", &["c"], &["y"])];
    let weights = vec![
        tensor("k", FLOAT, &[3, 1, 3, 3], &noise(27, 1)),
        tensor("kb", FLOAT, &[3], &noise(3, 2)),
    ];
    let output = value("y", FLOAT, Some(&[N, Is(3), Is(1), Is(1)]));
    model(graph(nodes, weights, vec![picture()], vec![output]), 17)
}

fn quantised() -> Vec<TensorProto> {
    let levels = |count, seed| -> Vec<f32> {
        noise(count, seed).iter().map(|v| (v * 200.0).clamp(-127.0, 127.0)).collect()
    };
    vec![
        tensor("sx", FLOAT, &[], &[0.02]),
        tensor("zx", UINT8, &[], &[0.0]),
        tensor("sr", FLOAT, &[], &[0.02]),
        tensor("k", INT8, &[4, 1, 3, 3], &levels(36, 1)),
        tensor("ks", FLOAT, &[4], &[0.005; 4]),
        tensor("kz", INT8, &[4], &[0.0; 4]),
        tensor("kb", INT32, &[4], &[5.0, -3.0, 0.0, 9.0]),
        tensor("kbs", FLOAT, &[4], &[0.0001; 4]),
        tensor("kbz", INT32, &[4], &[0.0; 4]),
        tensor("g", INT8, &[64, 3], &levels(192, 2)),
        tensor("gs", FLOAT, &[3], &[0.005; 3]),
        tensor("gz", INT8, &[3], &[0.0; 3]),
        tensor("gb", FLOAT, &[3], &noise(3, 3)),
    ]
}

pub fn qdq() -> ModelProto {
    let nodes = vec![
        node("QuantizeLinear", &["x", "sx", "zx"], &["xq"]),
        node("DequantizeLinear", &["xq", "sx", "zx"], &["xd"]),
        node("DequantizeLinear", &["k", "ks", "kz"], &["kd"]).int("axis", 0),
        node("DequantizeLinear", &["kb", "kbs", "kbz"], &["kbd"]).int("axis", 0),
        node("Conv", &["xd", "kd", "kbd"], &["c"]).ints("pads", &[1, 1, 1, 1]),
        node("Relu", &["c"], &["r"]),
        node("QuantizeLinear", &["r", "sr", "zx"], &["rq"]),
        node("DequantizeLinear", &["rq", "sr", "zx"], &["rd"]),
        node("MaxPool", &["rd"], &["p"]).ints("kernel_shape", &[2, 2]).ints("strides", &[2, 2]),
        node("Flatten", &["p"], &["f"]),
        node("DequantizeLinear", &["g", "gs", "gz"], &["gd"]).int("axis", 1),
        node("Gemm", &["f", "gd", "gb"], &["y"]),
    ];
    model(graph(nodes, quantised(), vec![picture()], vec![y()]), 13)
}

pub fn qoperator() -> ModelProto {
    let inputs = ["xq", "sx", "zx", "k", "ks", "kz", "sr", "zx", "kb"];
    let nodes = vec![
        node("QuantizeLinear", &["x", "sx", "zx"], &["xq"]),
        node("QLinearConv", &inputs, &["cq"]).ints("pads", &[1, 1, 1, 1]),
        node("DequantizeLinear", &["cq", "sr", "zx"], &["r"]),
        node("GlobalAveragePool", &["r"], &["p"]),
        node("Flatten", &["p"], &["f"]),
        node("Gemm", &["f", "w", "b"], &["y"]),
    ];
    let mut weights = quantised();
    weights.retain(|w| ["sx", "zx", "sr", "k", "ks", "kz", "kb"].contains(&&*w.name));
    weights.push(tensor("w", FLOAT, &[4, 3], &noise(12, 3)));
    weights.push(tensor("b", FLOAT, &[3], &noise(3, 4)));
    model(graph(nodes, weights, vec![picture()], vec![y()]), 13)
}

pub fn nhwc() -> ModelProto {
    let nodes = vec![
        node("Transpose", &["x"], &["xt"]).ints("perm", &[0, 3, 1, 2]),
        node("Conv", &["xt", "k", "kb"], &["c"]),
        node("GlobalAveragePool", &["c"], &["p"]),
        node("Flatten", &["p"], &["f"]),
        node("Gemm", &["f", "w", "b"], &["y"]),
    ];
    let weights = vec![
        tensor("k", FLOAT, &[4, 3, 3, 3], &noise(108, 1)),
        tensor("kb", FLOAT, &[4], &noise(4, 2)),
        tensor("w", FLOAT, &[4, 3], &noise(12, 3)),
        tensor("b", FLOAT, &[3], &noise(3, 4)),
    ];
    let input = value("x", FLOAT, Some(&[N, Is(8), Is(8), Is(3)]));
    model(graph(nodes, weights, vec![input], vec![y()]), 17)
}

/// Integers of that type in, made floats at once.
pub fn integers_in(kind: i32) -> ModelProto {
    let nodes = vec![
        node("Cast", &["x"], &["xf"]).int("to", FLOAT.into()),
        node("Flatten", &["xf"], &["f"]),
        node("Gemm", &["f", "w", "b"], &["y"]),
    ];
    let weights =
        vec![tensor("w", FLOAT, &[64, 3], &noise(192, 1)), tensor("b", FLOAT, &[3], &noise(3, 2))];
    let input = value("x", kind, Some(&[N, Is(1), Is(8), Is(8)]));
    model(graph(nodes, weights, vec![input], vec![y()]), 17)
}

/// A Softmax in the middle, over all that is behind the batch as before operator set 13.
pub fn softmax11_4d() -> ModelProto {
    let nodes = vec![
        node("Conv", &["x", "k", "kb"], &["c"]),
        node("Softmax", &["c"], &["s"]).int("axis", 1),
        node("GlobalAveragePool", &["s"], &["p"]),
        node("Flatten", &["p"], &["f"]),
        node("Gemm", &["f", "w", "b"], &["y"]),
    ];
    let weights = vec![
        tensor("k", FLOAT, &[4, 1, 3, 3], &noise(36, 1)),
        tensor("kb", FLOAT, &[4], &noise(4, 2)),
        tensor("w", FLOAT, &[4, 3], &noise(12, 3)),
        tensor("b", FLOAT, &[3], &noise(3, 4)),
    ];
    model(graph(nodes, weights, vec![picture()], vec![y()]), 11)
}

pub fn dropout_training() -> ModelProto {
    let mut made = plain();
    made.opset_import[0].version = 13;
    let graph = made.graph.mut_or_insert_default();
    graph.node[1] = node("Dropout", &["t1", "ratio", "tm"], &["t2"]);
    graph.initializer.push(tensor("ratio", FLOAT, &[], &[0.5]));
    graph.initializer.push(tensor("tm", BOOL, &[], &[1.0]));
    made
}
