//! The graphs that are measured beside the starters: ResNet18 (He et al. 2016) for small pictures,
//! and a 1-D network for windows of a signal.

use trainer::onnx::write::{float, int, ints};
use trainer::onnx::{GraphWriter, OnnxError};
use trainer::random::Random;

/// Builds a graph value by value.
struct Net {
    graph: GraphWriter,
    random: Random,
    last: String,
    count: usize,
}

impl Net {
    fn new(name: &str, input: &[usize], classes: usize) -> Self {
        let sizes = [None].into_iter().chain(input.iter().map(|d| Some(*d)));
        let graph = GraphWriter::new(name)
            .input("x", &sizes.collect::<Vec<_>>())
            .output("scores", &[None, Some(classes)]);
        Self { graph, random: Random::new(7), last: "x".into(), count: 0 }
    }

    fn name(&mut self, kind: &str) -> String {
        self.count += 1;
        format!("{kind}{}", self.count)
    }

    fn normal(&mut self, name: &str, shape: &[usize]) {
        let count: usize = shape.iter().product();
        let deviation = (2.0 / (count / shape[0]) as f32).sqrt();
        let values: Vec<f32> = (0..count).map(|_| self.random.normal() * deviation).collect();
        self.change(|graph| graph.floats(name, shape, &values));
    }

    fn change(&mut self, change: impl FnOnce(GraphWriter) -> GraphWriter) {
        let graph = std::mem::replace(&mut self.graph, GraphWriter::new(""));
        self.graph = change(graph);
    }

    /// Convolution and normalisation.
    fn conv(&mut self, [from, to]: [usize; 2], kernel: &[usize], stride: usize) -> &mut Self {
        let name = self.name("conv");
        let shape: Vec<usize> = [to, from].iter().chain(kernel).copied().collect();
        let part = |what: &str| format!("{name}.{what}");
        self.normal(&part("weight"), &shape);
        let last = std::mem::replace(&mut self.last, part("norm"));
        let pads: Vec<i64> = kernel.iter().chain(kernel).map(|k| (k / 2) as i64).collect();
        let attributes = vec![
            ints("kernel_shape", &kernel.iter().map(|k| *k as i64).collect::<Vec<_>>()),
            ints("strides", &vec![stride as i64; kernel.len()]),
            ints("pads", &pads),
        ];
        let statistics = [("scale", 1.0), ("bias", 0.0), ("mean", 0.0), ("variance", 1.0)];
        self.change(|mut graph| {
            for (what, value) in statistics {
                graph = graph.floats(&part(what), &[to], &vec![value; to]);
            }
            let norm = statistics.map(|(what, _)| part(what));
            let out = part("out");
            graph.node("Conv", &[&last, &part("weight")], &[&out], attributes).node(
                "BatchNormalization",
                &[&out, &norm[0], &norm[1], &norm[2], &norm[3]],
                &[&part("norm")],
                vec![float("epsilon", 1e-5), float("momentum", 0.9)],
            )
        });
        self
    }

    fn apply(&mut self, op: &str, attributes: Vec<onnx_ir::AttributeProto>) -> &mut Self {
        let out = self.name(op);
        let last = std::mem::replace(&mut self.last, out.clone());
        self.change(|graph| graph.node(op, &[&last], &[&out], attributes));
        self
    }

    fn add(&mut self, other: &str) -> &mut Self {
        let out = self.name("add");
        let last = std::mem::replace(&mut self.last, out.clone());
        self.change(|graph| graph.node("Add", &[&last, other], &[&out], vec![]));
        self
    }

    fn max_pool(&mut self, kernel: &[i64], stride: &[i64], pad: &[i64]) -> &mut Self {
        let attributes =
            vec![ints("kernel_shape", kernel), ints("strides", stride), ints("pads", pad)];
        self.apply("MaxPool", attributes)
    }

    /// One score a class.
    fn head(mut self, [from, to]: [usize; 2]) -> Result<Vec<u8>, OnnxError> {
        self.apply("GlobalAveragePool", vec![]).apply("Flatten", vec![int("axis", 1)]);
        self.normal("head.weight", &[to, from]);
        let last = self.last.clone();
        let graph = self.graph.floats("head.bias", &[to], &vec![0.0; to]).node(
            "Gemm",
            &[&last, "head.weight", "head.bias"],
            &["scores"],
            vec![int("transB", 1)],
        );
        graph.finish()
    }
}

/// ResNet18 for pictures of 3×64×64: 11.2 million weights.
pub fn resnet18(classes: usize) -> Result<Vec<u8>, OnnxError> {
    let mut net = Net::new("resnet18", &[3, 64, 64], classes);
    net.conv([3, 64], &[7, 7], 2).apply("Relu", vec![]);
    net.max_pool(&[3, 3], &[2, 2], &[1, 1, 1, 1]);
    let mut from = 64;
    for (stage, to) in [64, 128, 256, 512].into_iter().enumerate() {
        for block in 0..2 {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let input = net.last.clone();
            net.conv([from, to], &[3, 3], stride).apply("Relu", vec![]);
            net.conv([to, to], &[3, 3], 1);
            let mut skip = input;
            if stride != 1 {
                let main = std::mem::replace(&mut net.last, skip);
                net.conv([from, to], &[1, 1], stride);
                skip = std::mem::replace(&mut net.last, main);
            }
            net.add(&skip).apply("Relu", vec![]);
            from = to;
        }
    }
    net.head([512, classes])
}

/// A 1-D network for windows of 2 channels × 1,024 samples: a wide first kernel, then narrow ones
/// (after Zhang et al. 2017, "WDCNN").
pub fn signal(classes: usize) -> Result<Vec<u8>, OnnxError> {
    let mut net = Net::new("signal", &[2, 1024], classes);
    net.conv([2, 16], &[31], 2).apply("Relu", vec![]).max_pool(&[2], &[2], &[0, 0]);
    for [from, to] in [[16, 32], [32, 64], [64, 64]] {
        net.conv([from, to], &[3], 1).apply("Relu", vec![]).max_pool(&[2], &[2], &[0, 0]);
    }
    net.head([64, classes])
}
