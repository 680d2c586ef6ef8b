//! What the fuzzer begins with: a small graph of each kind of network, and files that once went wrong.

use std::path::{Path, PathBuf};

use trainer::onnx::GraphWriter;
use trainer::onnx::write::{float, int, ints};
use trainer::random::Random;

/// The committed files.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/model")
}

/// Every committed file.
pub fn committed() -> Vec<(PathBuf, Vec<u8>)> {
    let files = std::fs::read_dir(folder()).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> =
        files.map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect();
    files.sort();
    files
}

/// Every graph, by the name of its file.
pub fn all() -> Vec<(&'static str, Vec<u8>)> {
    let graphs = [
        ("picture.onnx", picture()),
        ("recurrent.onnx", recurrent()),
        ("attention.onnx", attention()),
        ("quantized.onnx", quantized()),
        ("upsample.onnx", upsample()),
        ("signal.onnx", signal()),
        ("shapes.onnx", shapes()),
        ("choices.onnx", choices()),
    ];
    graphs.map(|(name, graph)| (name, graph.finish().unwrap())).to_vec()
}

fn begin(input: &[usize]) -> GraphWriter {
    let dims: Vec<Option<usize>> =
        std::iter::once(None).chain(input.iter().copied().map(Some)).collect();
    GraphWriter::new("seed").input("x", &dims).output("y", &[None, Some(2)])
}

fn weights(graph: GraphWriter, name: &str, shape: &[usize]) -> GraphWriter {
    let mut random = Random::new(name.len() as u64);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| random.between(-0.5, 0.5)).collect();
    graph.floats(name, shape, &values)
}

fn picture() -> GraphWriter {
    let mut graph = begin(&[1, 6, 6]);
    for (name, shape) in [("w", &[2, 1, 3, 3][..]), ("b", &[2]), ("g", &[2, 2]), ("c", &[2])] {
        graph = weights(graph, name, shape);
    }
    let pool = vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])];
    graph
        .floats("scale", &[2], &[1.0, 0.5])
        .floats("mean", &[2], &[0.0, 0.1])
        .floats("variance", &[2], &[1.0, 0.5])
        .node("Conv", &["x", "w", "b"], &["a"], vec![ints("pads", &[1, 1, 1, 1])])
        .node("BatchNormalization", &["a", "scale", "b", "mean", "variance"], &["n"], vec![])
        .node("Relu", &["n"], &["r"], vec![])
        .node("MaxPool", &["r"], &["p"], pool.clone())
        .node("AveragePool", &["r"], &["o"], pool)
        .node("Add", &["p", "o"], &["s"], vec![])
        .node("GlobalAveragePool", &["s"], &["m"], vec![])
        .node("Flatten", &["m"], &["f"], vec![])
        .node("Gemm", &["f", "g", "c"], &["l"], vec![int("transB", 1)])
        .node("Softmax", &["l"], &["y"], vec![int("axis", 1)])
}

fn recurrent() -> GraphWriter {
    let mut graph = begin(&[3, 2]);
    for (name, shape) in [
        ("w", &[1, 8, 2][..]),
        ("r", &[1, 8, 2]),
        ("b", &[1, 16]),
        ("u", &[1, 6, 2]),
        ("v", &[1, 6, 2]),
    ] {
        graph = weights(graph, name, shape);
    }
    graph
        .ints("axes", &[0])
        .node("Transpose", &["x"], &["t"], vec![ints("perm", &[1, 0, 2])])
        .node("LSTM", &["t", "w", "r", "b"], &["h", "", "c"], vec![int("hidden_size", 2)])
        .node("Squeeze", &["h", "axes1"], &["s"], vec![])
        .ints("axes1", &[1])
        .node("GRU", &["s", "u", "v"], &["", "k"], vec![int("hidden_size", 2)])
        .node("Squeeze", &["k", "axes"], &["y"], vec![])
}

fn attention() -> GraphWriter {
    let mut graph = begin(&[3, 4]);
    for (name, shape) in
        [("q", &[4, 4][..]), ("k", &[4, 4]), ("s", &[4]), ("b", &[4]), ("o", &[4, 2])]
    {
        graph = weights(graph, name, shape);
    }
    graph
        .ints("heads", &[0, 3, 2, 2])
        .ints("flat", &[0, 3, 4])
        .ints("axis", &[1])
        .floats("root", &[], &[1.4])
        .node("LayerNormalization", &["x", "s", "b"], &["n"], vec![float("epsilon", 1e-5)])
        .node("MatMul", &["n", "q"], &["a"], vec![])
        .node("MatMul", &["n", "k"], &["c"], vec![])
        .node("Reshape", &["a", "heads"], &["ah"], vec![])
        .node("Reshape", &["c", "heads"], &["ch"], vec![])
        .node("Transpose", &["ah"], &["at"], vec![ints("perm", &[0, 2, 1, 3])])
        .node("Transpose", &["ch"], &["ct"], vec![ints("perm", &[0, 2, 3, 1])])
        .node("MatMul", &["at", "ct"], &["m"], vec![])
        .node("Div", &["m", "root"], &["d"], vec![])
        .node("Softmax", &["d"], &["p"], vec![int("axis", -1)])
        .node("MatMul", &["p", "at"], &["v"], vec![])
        .node("Transpose", &["v"], &["vt"], vec![ints("perm", &[0, 2, 1, 3])])
        .node("Reshape", &["vt", "flat"], &["f"], vec![])
        .node("Erf", &["f"], &["e"], vec![])
        .node("ReduceMean", &["e"], &["u"], vec![ints("axes", &[1]), int("keepdims", 0)])
        .node("MatMul", &["u", "o"], &["y"], vec![])
}

fn quantized() -> GraphWriter {
    weights(begin(&[3]), "w", &[3, 2])
        .floats("s", &[], &[0.1])
        .floats("t", &[2], &[0.01, 0.02])
        .levels("z", &[], &[1])
        .levels("i", &[2, 2], &[5, -3, 100, 7])
        .node("QuantizeLinear", &["x", "s", "z"], &["q"], vec![])
        .node("DequantizeLinear", &["q", "s", "z"], &["d"], vec![])
        .node("QuantizeLinear", &["w", "t"], &["v"], vec![int("axis", 1)])
        .node("DequantizeLinear", &["v", "t"], &["f"], vec![int("axis", 1)])
        .node("MatMul", &["d", "f"], &["m"], vec![])
        .node("DequantizeLinear", &["i", "t"], &["j"], vec![int("axis", 0)])
        .node("MatMul", &["m", "j"], &["y"], vec![])
}

fn upsample() -> GraphWriter {
    let mut graph = begin(&[2, 3, 3]);
    for (name, shape) in [("w", &[2, 2, 2, 2][..]), ("k", &[2, 4, 6, 6])] {
        graph = weights(graph, name, shape);
    }
    graph
        .floats("scales", &[4], &[1.0, 1.0, 2.0, 2.0])
        .ints("pads", &[0, 0, 1, 0, 0, 0, 0, 1])
        .ints("from", &[0, 1])
        .ints("to", &[6, 7])
        .ints("axes", &[2, 3])
        .node("ConvTranspose", &["x", "w"], &["c"], vec![ints("strides", &[2, 2])])
        .node("Resize", &["x", "", "scales"], &["r"], vec![])
        .node("Concat", &["c", "r"], &["j"], vec![int("axis", 1)])
        .node("Pad", &["j", "pads"], &["p"], vec![])
        .node("Slice", &["p", "from", "to", "axes"], &["s"], vec![])
        .node("LeakyRelu", &["s"], &["l"], vec![float("alpha", 0.1)])
        .node("Conv", &["l", "k"], &["o"], vec![])
        .node("Flatten", &["o"], &["y"], vec![])
}

fn signal() -> GraphWriter {
    let mut graph = begin(&[2, 12]);
    for (name, shape) in [("w", &[4, 1, 3][..]), ("v", &[2, 4, 1]), ("a", &[4, 1])] {
        graph = weights(graph, name, shape);
    }
    let dilated = vec![int("group", 2), ints("dilations", &[2]), ints("strides", &[2])];
    graph
        .node("Conv", &["x", "w"], &["c"], dilated)
        .node("PRelu", &["c", "a"], &["p"], vec![])
        .node("InstanceNormalization", &["p", "g", "h"], &["n"], vec![])
        .floats("g", &[4], &[1.0, 2.0, 3.0, 4.0])
        .floats("h", &[4], &[0.0; 4])
        .node("Conv", &["n", "v"], &["d"], vec![])
        .node("Sigmoid", &["d"], &["s"], vec![])
        .node("ReduceMax", &["s"], &["y"], vec![ints("axes", &[2]), int("keepdims", 0)])
}

fn shapes() -> GraphWriter {
    weights(begin(&[2, 3, 2]), "w", &[12, 2])
        .ints("zero", &[0])
        .ints("rest", &[-1])
        .ints("two", &[2])
        .node("Shape", &["x"], &["s"], vec![])
        .node("Gather", &["s", "zero"], &["n"], vec![])
        .node("Concat", &["n", "rest"], &["t"], vec![int("axis", 0)])
        .node("Reshape", &["x", "t"], &["f"], vec![])
        .node("MatMul", &["f", "w"], &["m"], vec![])
        .node("Concat", &["n", "two"], &["e"], vec![int("axis", 0)])
        .node("ConstantOfShape", &["e"], &["c"], vec![])
        .node("Add", &["m", "c"], &["a"], vec![])
        .node("Expand", &["a", "e"], &["x1"], vec![])
        .node("Tile", &["x1", "ones"], &["y"], vec![])
        .ints("ones", &[1, 1])
}

fn choices() -> GraphWriter {
    weights(begin(&[4]), "w", &[5, 2])
        .floats("limit", &[], &[0.2])
        .floats("low", &[], &[-1.0])
        .floats("high", &[], &[1.0])
        .ints("axis", &[1])
        .ints("count", &[2])
        .node("Less", &["x", "limit"], &["c"], vec![])
        .node("Neg", &["x"], &["n"], vec![])
        .node("Where", &["c", "x", "n"], &["u"], vec![])
        .node("Clip", &["u", "low", "high"], &["k"], vec![])
        .node("TopK", &["k", "count"], &["t", "i"], vec![])
        .node("Abs", &["t"], &["a"], vec![])
        .node("Cast", &["c"], &["j"], vec![int("to", 7)])
        .node("Gather", &["w", "j"], &["e"], vec![int("axis", 0)])
        .node("ReduceSum", &["e", "axis"], &["r"], vec![int("keepdims", 0)])
        .node("Mul", &["a", "r"], &["p"], vec![])
        .node("Pow", &["p", "high"], &["q"], vec![])
        .node("LogSoftmax", &["q"], &["y"], vec![int("axis", 1)])
}
