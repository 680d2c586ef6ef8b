//! Which parameters keep the base's values.
//!
//! What is frozen leaves the list of parameters, so that the graph is planned with it as constants:
//! it gets no gradient, the backward pass ends where nothing before it trains, what follows from it
//! alone is computed once, and it is not written back. A normalisation whose scale and offset are
//! frozen is so as a whole: its running statistics stay, and they normalise while training too.
//!
//! A layer is a node that reads a weight (not only a bias, a scale or statistics), directly or
//! through nodes that only reshape it.

use std::collections::{HashMap, HashSet};

use super::choice::{Depth, Part};
use super::{Freeze, TrainError};
use crate::graph::{Graph, Role};
use crate::ops;

/// Takes what is to be frozen out of the graph's parameters and returns its names, in the order of
/// the file.
///
/// # Errors
/// [`TrainError::Freeze`]: a pattern that names nothing, more layers than there are, or nothing left
/// to train.
pub fn freeze(graph: &mut Graph, freeze: &Freeze) -> Result<Vec<String>, TrainError> {
    let failed = |why: String| TrainError::Freeze { freeze: freeze.to_string(), why };
    let readers = readers(graph);
    let mut frozen = match freeze {
        Freeze::Names(patterns) => named(graph, patterns).map_err(failed)?,
        Freeze::Depth(Depth { first }) => first_layers(graph, &readers, *first).map_err(failed)?,
        Freeze::Part(Part::AllButHead) => before_head(graph, &readers).map_err(failed)?,
    };
    if frozen.is_empty() {
        return Ok(Vec::new());
    }
    with_statistics(graph, &readers, &mut frozen);
    let mut names = Vec::new();
    let mut place = 0;
    graph.parameters.list.retain(|parameter| {
        let keeps = frozen.contains(&place);
        place += 1;
        if keeps {
            names.push(parameter.name.clone());
        }
        !keeps
    });
    if !graph.parameters.list.iter().any(|p| p.role.trains()) {
        return Err(failed("nothing is left that trains; freeze less".into()));
    }
    Ok(names)
}

/// A node and the parameters that it reads, by place.
struct Reader {
    node: usize,
    parameters: Vec<usize>,
}

/// Every node that reads parameters, in the file's order.
fn readers(graph: &Graph) -> Vec<Reader> {
    let list = &graph.parameters.list;
    let mut carried: HashMap<&str, Vec<usize>> =
        list.iter().enumerate().map(|(place, p)| (p.name.as_str(), vec![place])).collect();
    let mut readers = Vec::new();
    for (at, node) in graph.model.proto.graph.node.iter().enumerate() {
        let (mut read, mut passed) = (Vec::new(), Vec::new());
        for (input, name) in node.input.iter().enumerate() {
            for parameter in carried.get(name.as_str()).into_iter().flatten() {
                let elements = list[*parameter].shape.iter().product();
                match ops::role(node, input, elements) {
                    Role::Through => passed.push(*parameter),
                    _ => read.push(*parameter),
                }
            }
        }
        if let (Some(output), false) = (node.output.first(), passed.is_empty()) {
            carried.insert(output, passed);
        }
        if !read.is_empty() {
            readers.push(Reader { node: at, parameters: read });
        }
    }
    readers
}

impl Reader {
    fn is_layer(&self, graph: &Graph) -> bool {
        self.parameters.iter().any(|p| graph.parameters.list[*p].role == Role::Weight)
    }
}

fn named(graph: &Graph, patterns: &[String]) -> Result<HashSet<usize>, String> {
    let mut frozen = HashSet::new();
    for pattern in patterns {
        let list = graph.parameters.list.iter().enumerate();
        let found: Vec<usize> =
            list.filter(|(_, p)| matches(pattern, &p.name)).map(|(place, _)| place).collect();
        frozen.extend(&found);
        if found.is_empty() {
            return Err(format!(
                "'{pattern}' is the name of no parameter; 'trainer inspect' lists the names"
            ));
        }
    }
    Ok(frozen)
}

fn first_layers(graph: &Graph, readers: &[Reader], first: usize) -> Result<HashSet<usize>, String> {
    let layers = readers.iter().filter(|r| r.is_layer(graph)).count();
    if first >= layers {
        return Err(format!("the graph has {layers} layers with weights, and one has to train"));
    }
    let mut passed = 0;
    let inside = readers.iter().take_while(|reader| {
        passed += usize::from(reader.is_layer(graph));
        passed <= first
    });
    Ok(inside.flat_map(|reader| reader.parameters.iter().copied()).collect())
}

/// Everything but what the last layers before the first output read, and what comes after them.
fn before_head(graph: &Graph, readers: &[Reader]) -> Result<HashSet<usize>, String> {
    let nodes = &graph.model.proto.graph.node;
    let by_node: HashMap<usize, &Reader> = readers.iter().map(|r| (r.node, r)).collect();
    let mut makers: HashMap<&str, usize> = HashMap::new();
    for (at, node) in nodes.iter().enumerate() {
        makers.extend(node.output.iter().map(|output| (output.as_str(), at)));
    }
    let (mut head, mut seen) = (HashSet::<usize>::new(), HashSet::<usize>::new());
    let mut open: Vec<&str> = graph.model.outputs.iter().take(1).map(|o| o.name.as_str()).collect();
    let mut layers = 0;
    while let Some(name) = open.pop() {
        let Some(node) = makers.get(name).filter(|node| seen.insert(**node)) else { continue };
        let reader = by_node.get(node);
        head.extend(reader.into_iter().flat_map(|r| &r.parameters));
        if reader.is_some_and(|r| r.is_layer(graph)) {
            layers += 1;
        } else {
            open.extend(nodes[*node].input.iter().map(String::as_str));
        }
    }
    if layers == 0 {
        return Err("no layer with weights leads to the first output".into());
    }
    Ok((0..graph.parameters.list.len()).filter(|place| !head.contains(place)).collect())
}

/// Adds the running statistics of normalisations whose trained parameters are all frozen.
fn with_statistics(graph: &Graph, readers: &[Reader], frozen: &mut HashSet<usize>) {
    let trains = |place: &usize| graph.parameters.list[*place].role.trains();
    for reader in readers {
        let mut trained = reader.parameters.iter().filter(|p| trains(p)).peekable();
        if trained.peek().is_some() && trained.all(|p| frozen.contains(p)) {
            frozen.extend(reader.parameters.iter().filter(|p| !trains(p)));
        }
    }
}

/// Whether a name is of a pattern, in which `*` is any characters and `?` is one.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut read) = (0, 0);
    // The last star, and up to where it stands for characters: it takes one more when the rest fails.
    let mut star: Option<(usize, usize)> = None;
    while read < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(wanted) if *wanted == '?' || *wanted == name[read] => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((place, taken)) = star else { return false };
                star = Some((place, taken + 1));
                (at, read) = (place + 1, taken + 1);
            }
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::super::pass::Passes;
    use super::super::{Groups, Recipe, Targets, TrainingSet};
    use super::*;
    use crate::graph::{Fact, Sizes};
    use crate::onnx::write::ints;
    use crate::onnx::{GraphWriter, Model};
    use crate::random::Random;
    use crate::starter::{Head, Kind, starter};

    fn load(bytes: Vec<u8>) -> Graph {
        let model = Model::parse(bytes).unwrap();
        let inputs = Sizes::batch(4).inputs(&model).unwrap();
        Graph::load(model, &inputs, &Device::flex()).unwrap()
    }

    fn cnn() -> Graph {
        load(starter(Kind::PictureCnn, &[1, 8, 8], Head::Classes(2), 3).unwrap())
    }

    fn names(patterns: &[&str]) -> Freeze {
        Freeze::Names(patterns.iter().map(|p| (*p).to_owned()).collect())
    }

    const CONV_1: [&str; 5] = [
        "conv1.weight",
        "conv1.norm.scale",
        "conv1.norm.bias",
        "conv1.norm.mean",
        "conv1.norm.variance",
    ];

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, wanted) in [
            ("a.*", "a.b.c", true),
            ("*.bias", "a.b.bias", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*b*d", "abcd", true),
            ("a", "ab", false),
            ("", "", true),
            ("*ü", "xü", true),
        ] {
            assert_eq!(matches(pattern, name), wanted, "{pattern} {name}");
        }
    }

    #[test]
    fn names_depth_and_head_choose_what_they_say() {
        assert_eq!(freeze(&mut cnn(), &names(&[])).unwrap(), [""; 0]);
        assert_eq!(freeze(&mut cnn(), &names(&["conv1.*"])).unwrap(), CONV_1);
        let first = Freeze::Depth(Depth { first: 1 });
        assert_eq!(freeze(&mut cnn(), &first).unwrap(), CONV_1);
        let mut graph = cnn();
        assert_eq!(freeze(&mut graph, &Freeze::Part(Part::AllButHead)).unwrap().len(), 12);
        let left: Vec<_> = graph.parameters.list.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(left, ["dense2.weight", "dense2.bias"]);
    }

    #[test]
    fn statistics_stay_with_their_scale_and_offset() {
        let frozen = freeze(&mut cnn(), &names(&["*1.norm.scale", "*1.norm.bias"])).unwrap();
        assert_eq!(frozen, CONV_1[1..]);
        let frozen = freeze(&mut cnn(), &names(&["conv1.norm.scale"])).unwrap();
        assert_eq!(frozen, ["conv1.norm.scale"], "its offset still trains");
    }

    #[test]
    fn a_weight_behind_a_transposition_and_a_bias_after_the_product_belong_to_their_layer() {
        let two = || {
            let bytes = GraphWriter::new("two")
                .input("x", &[None, Some(2)])
                .output("y", &[None, Some(2)])
                .floats("w1", &[2, 2], &[1.0, 2.0, 3.0, 4.0])
                .floats("b1", &[2], &[1.0, 2.0])
                .floats("w2", &[2, 2], &[1.0, 2.0, 3.0, 4.0])
                .floats("b2", &[2], &[1.0, 2.0])
                .node("Transpose", &["w1"], &["t1"], vec![ints("perm", &[1, 0])])
                .node("MatMul", &["x", "t1"], &["p1"], vec![])
                .node("Add", &["p1", "b1"], &["s1"], vec![])
                .node("MatMul", &["s1", "w2"], &["p2"], vec![])
                .node("Add", &["p2", "b2"], &["y"], vec![]);
            load(bytes.finish().unwrap())
        };
        assert_eq!(freeze(&mut two(), &Freeze::Depth(Depth { first: 1 })).unwrap(), ["w1", "b1"]);
        assert_eq!(freeze(&mut two(), &Freeze::Part(Part::AllButHead)).unwrap(), ["w1", "b1"]);
    }

    #[test]
    fn what_cannot_be_frozen_is_said_by_name() {
        let refusal = |wanted: &Freeze| freeze(&mut cnn(), wanted).unwrap_err().to_string();
        let text = refusal(&names(&["conv1.*", "backbone.*"]));
        assert!(text.contains("'backbone.*'") && text.contains("inspect"), "{text}");
        let text = refusal(&Freeze::Depth(Depth { first: 4 }));
        assert!(text.contains("first = 4") && text.contains("4 layers"), "{text}");
        let text = refusal(&names(&["*"]));
        assert!(text.contains("nothing is left"), "{text}");
    }

    #[test]
    fn a_frozen_normalisation_uses_its_running_statistics_while_training() {
        let values: Vec<f32> = (0..256).map(|v| (v % 19) as f32 * 0.3).collect();
        let targets = Targets::Classes { labels: vec![0, 1, 0, 1], count: 2 };
        let set =
            TrainingSet::new(vec![1, 8, 8], values.clone(), targets, Groups::one("g", 4)).unwrap();
        let losses = |wanted: &Freeze| {
            let mut graph = cnn();
            freeze(&mut graph, wanted).unwrap();
            let passes =
                Passes::new(&graph, &set, &Recipe::starter(), &[4], &Device::flex()).unwrap();
            let samples = [0, 1, 2, 3];
            let seen = passes.learn(&graph.parameters, &samples, values.clone(), Random::new(1));
            let used = passes.judge(&graph.parameters.fixed(), &samples, values.clone());
            (seen.loss, used, seen.observed.len())
        };
        let (learned, used, observed) = losses(&Freeze::Part(Part::AllButHead));
        assert!((learned - used).abs() < 1e-5, "{learned} and {used}");
        assert_eq!(observed, 0);
        let (learned, used, observed) = losses(&names(&[]));
        assert!((learned - used).abs() > 1e-3, "the batch normalises when nothing is frozen");
        assert_eq!(observed, 4);
    }

    #[test]
    fn what_is_frozen_computes_as_before() {
        let x = vec![0.3; 4 * 64];
        let output = |wanted: &Freeze| {
            let mut graph = cnn();
            freeze(&mut graph, wanted).unwrap();
            let plan = graph.plan(&[Fact::float(vec![4, 1, 8, 8])], &graph.outputs()).unwrap();
            let device = Device::flex();
            let mut context = crate::graph::Context::infer(&device);
            let x = crate::ops::tensor::from_host(x.clone(), &[4, 1, 8, 8], &device);
            let y = plan.run(&graph.parameters.fixed(), vec![x], &mut context).remove(0);
            crate::ops::tensor::to_host(y)
        };
        assert_eq!(output(&names(&[])), output(&Freeze::Part(Part::AllButHead)));
    }
}
