//! `DepthToSpace` and `SpaceToDepth`: blocks of the picture become channels and back.
//!
//! With `DCR` a channel's number is `block · channels + channel`, with `CRD` it is
//! `channel · blocks + block`.

use super::{Built, NodeView, Operator, no_parameters, tensor};
use crate::graph::Fact;

pub const TABLE: &[Operator] = &[
    Operator::new("DepthToSpace", 1, no_parameters, depth_to_space),
    Operator::new("SpaceToDepth", 1, no_parameters, space_to_depth),
];

/// Whether a channel's number counts blocks first (`DCR`).
fn blocks_first(node: &NodeView<'_>) -> Result<bool, String> {
    match node.attributes.text("mode", "DCR")? {
        "DCR" => Ok(true),
        "CRD" => Ok(false),
        other => Err(format!("there is no mode {other}")),
    }
}

/// The input's dimensions and the side of a block.
fn read<'a>(node: &'a NodeView<'_>) -> Result<(&'a Fact, [usize; 4], usize), String> {
    let x = node.input(0)?;
    let Ok(dims) = <[usize; 4]>::try_from(x.dims.as_slice()) else {
        return Err(format!("input of shape {x} is no batch of pictures"));
    };
    let side = node.attributes.int("blocksize", 0)?;
    match usize::try_from(side) {
        Ok(side) if (1..=1 << 16).contains(&side) => Ok((x, dims, side)),
        _ => Err(format!("a blocksize of {side} makes no sense")),
    }
}

/// Splits the dimensions, puts them in another order and joins them to the result's.
fn rearranged(
    x: &Fact,
    parts: Vec<usize>,
    order: [usize; 6],
    dims: Vec<usize>,
) -> Result<Built, String> {
    Built::one(x.reshaped(dims.clone()), move |i, _| {
        let parts = tensor::reshape(i.take(0), &parts);
        tensor::reshape(tensor::permute(parts, &order), &dims)
    })
}

fn depth_to_space(node: &NodeView<'_>) -> Result<Built, String> {
    let (x, [n, c, h, w], side) = read(node)?;
    if !c.is_multiple_of(side * side) {
        return Err(format!("{c} channels do not make blocks of {side} by {side}"));
    }
    let left = c / (side * side);
    let dims = vec![n, left, h * side, w * side];
    if blocks_first(node)? {
        rearranged(x, vec![n, side, side, left, h, w], [0, 3, 4, 1, 5, 2], dims)
    } else {
        rearranged(x, vec![n, left, side, side, h, w], [0, 1, 4, 2, 5, 3], dims)
    }
}

fn space_to_depth(node: &NodeView<'_>) -> Result<Built, String> {
    let (x, [n, c, h, w], side) = read(node)?;
    if !h.is_multiple_of(side) || !w.is_multiple_of(side) {
        return Err(format!("a picture of {h} by {w} is no multiple of blocks of {side}"));
    }
    let parts = vec![n, c, h / side, side, w / side, side];
    let dims = vec![n, c * side * side, h / side, w / side];
    let order = if blocks_first(node)? { [0, 3, 5, 1, 2, 4] } else { [0, 1, 3, 5, 2, 4] };
    rearranged(x, parts, order, dims)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, sequence, text};
    use crate::onnx::write::int;

    #[test]
    fn modes_differ_in_which_channels_make_a_block() {
        let run = |mode: &str| {
            Case::new(&[1, 8, 1, 1])
                .opset(13)
                .node("DepthToSpace", &["x"], vec![int("blocksize", 2), text("mode", mode)])
                .run(&sequence(8))
        };
        assert_eq!(run("DCR"), [1.0, 3.0, 5.0, 7.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!(run("CRD"), sequence(8));
    }

    #[test]
    fn one_undoes_the_other() {
        let case = Case::new(&[2, 3, 4, 6])
            .inner("SpaceToDepth", &["x"], "d", vec![int("blocksize", 2)])
            .node("DepthToSpace", &["d"], vec![int("blocksize", 2)]);
        assert_eq!(case.run(&sequence(144)), sequence(144));
    }

    #[test]
    fn gradients_match_finite_differences() {
        Case::new(&[1, 4, 2, 3])
            .node("DepthToSpace", &["x"], vec![int("blocksize", 2)])
            .check_gradients();
        Case::new(&[1, 2, 4, 2])
            .node("SpaceToDepth", &["x"], vec![int("blocksize", 2)])
            .check_gradients();
    }

    #[test]
    fn sizes_that_make_no_blocks_are_refused() {
        let refusal = |op: &str| {
            Case::new(&[1, 3, 3, 3]).node(op, &["x"], vec![int("blocksize", 2)]).refusal()
        };
        assert!(refusal("DepthToSpace").contains("do not make blocks"));
        assert!(refusal("SpaceToDepth").contains("no multiple"));
    }
}
