//! What passes the check and must be bounded where it runs.

use super::build::{
    Message, attribute, bool_value, float_value, floats, int_value, ints, model, node, subgraph,
    sum, with_extra,
};

/// A file that must be bounded where it runs.
pub struct Endless {
    pub name: &'static str,
    pub file: Vec<u8>,
    /// A part of the reason for which a device refuses it.
    pub reason: &'static str,
}

/// Every case.
pub fn all() -> Vec<Endless> {
    let case = |name, model: Message, reason| Endless { name, file: model.0, reason };
    vec![
        case("a loop of 2^62 turns", endless_loop(), "inference.run_limit_s"),
        case("a loop whose turns follow from the frame", frame_loop(), "recent frame"),
        case("a constant of 32 GiB", bomb("ConstantOfShape"), "proof.memory_mb"),
        case("a value expanded to 32 GiB", bomb("Expand"), "proof.memory_mb"),
        case("a value repeated to 32 GiB", bomb("Tile"), "Tile output tensor would require"),
        case("functions that double 40 times", doubling(40), "proof.cpu_s"),
        case("one node that compares 200,000 boxes", one_node(), "proof.cpu_s"),
    ]
}

/// A loop over `extra` that adds `step` in each of `turns` turns.
fn looped(graph: Message) -> Message {
    let body = Message::new()
        .message(1, &node("Identity", &["going"], &["goes_on"]))
        .message(1, &node("Add", &["so_far", "step"], &["next"]))
        .text(2, "body")
        .message(11, &int_value("turn"))
        .message(11, &bool_value("going"))
        .message(11, &float_value("so_far", &[1]))
        .message(12, &bool_value("goes_on"))
        .message(12, &float_value("next", &[1]));
    let turn =
        node("Loop", &["turns", "", "begin"], &["extra"]).message(5, &subgraph("body", &body));
    sum(graph
        .message(5, &floats("begin", &[1], &[0.0]))
        .message(5, &floats("step", &[1], &[0.0]))
        .message(1, &turn))
}

fn endless_loop() -> Message {
    model(&looped(with_extra().message(5, &ints("turns", &[], &[1 << 62]))))
}

/// None on a dark frame, whose mean is below 0 once it is normalised; 2^61 on a white one.
fn frame_loop() -> Message {
    let axes =
        [0u64, 1, 2, 3].iter().fold(attribute("axes", 7), |axes, axis| axes.number(8, *axis));
    let flat = attribute("keepdims", 2).number(3, 0);
    let to = attribute("to", 2).number(3, 7);
    let graph = with_extra()
        .message(5, &floats("many", &[], &[1.5e18]))
        .message(1, &node("ReduceMean", &["input"], &["light"]).message(5, &axes).message(5, &flat))
        .message(1, &node("Mul", &["light", "many"], &["count"]))
        .message(1, &node("Cast", &["count"], &["turns"]).message(5, &to));
    model(&looped(graph))
}

/// A single node that takes a minute of processor time on a bright frame and none on a dark one. The
/// runtime ends a run between two nodes only, so it cannot end this one. Every box is the same one and
/// none is suppressed, so each is compared with all before it; a dark frame's scores are below 0.
fn one_node() -> Message {
    const BOXES: u64 = 200_000;
    let number = |name, value| ints(name, &[1], &[value]);
    let axes =
        [0u64, 1, 2, 3].iter().fold(attribute("axes", 7), |axes, axis| axes.number(8, *axis));
    let flat = || attribute("keepdims", 2).number(3, 0);
    let to = attribute("to", 2).number(3, 1);
    let all = BOXES.cast_signed();
    let graph = with_extra()
        .message(5, &floats("box", &[1, 1, 4], &[0.0, 0.0, 1.0, 1.0]))
        .message(5, &ints("boxes_shape", &[3], &[1, all, 4]))
        .message(5, &ints("scores_shape", &[3], &[1, 1, all]))
        .message(5, &number("most", all))
        .message(5, &floats("overlap", &[1], &[1.0]))
        .message(5, &floats("least", &[1], &[0.0]))
        .message(5, &floats("nothing", &[1], &[0.0]))
        .message(
            1,
            &node("ReduceMean", &["input"], &["light"]).message(5, &axes).message(5, &flat()),
        )
        .message(1, &node("Expand", &["box", "boxes_shape"], &["boxes"]))
        .message(1, &node("Expand", &["light", "scores_shape"], &["scores"]))
        .message(
            1,
            &node("NonMaxSuppression", &["boxes", "scores", "most", "overlap", "least"], &["kept"]),
        )
        .message(1, &node("Cast", &["kept"], &["kept_floats"]).message(5, &to))
        .message(1, &node("ReduceSum", &["kept_floats"], &["kept_sum"]).message(5, &flat()))
        .message(1, &node("Mul", &["kept_sum", "nothing"], &["extra"]));
    model(&sum(graph))
}

/// 2^33 floats.
fn bomb(operator: &str) -> Message {
    let inputs: &[&str] = if operator == "ConstantOfShape" { &["size"] } else { &["one", "size"] };
    let keep = attribute("keepdims", 2).number(3, 0);
    model(&sum(with_extra()
        .message(5, &ints("size", &[1], &[1 << 33]))
        .message(5, &floats("one", &[1], &[0.0]))
        .message(1, &node(operator, inputs, &["large"]))
        .message(1, &node("ReduceMax", &["large"], &["extra"]).message(5, &keep))))
}

/// Each function calls the next one twice.
fn doubling(times: usize) -> Message {
    let set = |domain: &str, version| Message::new().text(1, domain).number(2, version);
    let call = |index: usize, input: &str, output: &str| match index {
        0 => node("Identity", &[input], &[output]),
        index => node(&format!("f{index}"), &[input], &[output]).text(7, "own"),
    };
    let graph = with_extra()
        .message(5, &floats("begin", &[1], &[0.0]))
        .message(1, &call(times, "begin", "extra"));
    let functions = (1..=times).map(|index| {
        Message::new()
            .text(1, &format!("f{index}"))
            .text(4, "a")
            .text(5, "c")
            .message(7, &call(index - 1, "a", "b"))
            .message(7, &call(index - 1, "b", "c"))
            .message(9, &set("", 17))
            .message(9, &set("own", 1))
            .text(10, "own")
    });
    let start = model(&sum(graph)).message(8, &set("own", 1));
    functions.fold(start, |model, function| model.message(25, &function))
}
