//! `Dropout`: drops elements while training, passes everything in use.
//!
//! The ratio is an attribute up to operator set 11 and an input after it (default 0.5). A file
//! exported for inference often leaves the node in with its original ratio; it is honoured.

use burn::backend::Dispatch;
use burn::backend::ops::FloatTensorOps;

use super::{Built, NodeView, Operator, no_parameters, tensor};
use crate::graph::{Fact, Mode};

pub const TABLE: &[Operator] = &[Operator::new("Dropout", 7, no_parameters, build)];

fn build(node: &NodeView<'_>) -> Result<Built, String> {
    node.only_output()?;
    let x = node.float(0)?;
    let ratio = if node.opset < 12 {
        node.attributes.float("ratio", 0.5)?
    } else {
        node.scalar(1)?.unwrap_or(0.5)
    };
    node.attributes.int("seed", 0)?;
    if !(0.0..1.0).contains(&ratio) {
        return Err(format!("a ratio of {ratio} is outside 0 to 1"));
    }
    Built::one(Fact::float(x.dims.clone()), move |i, context| {
        let x = i.take(0);
        if context.mode == Mode::Infer || ratio == 0.0 {
            return x;
        }
        let shape = tensor::dims(&x);
        let kept = 1.0 / (1.0 - ratio);
        let mask = (0..shape.iter().product())
            .map(|_| if context.random.unit() < ratio { 0.0 } else { kept })
            .collect();
        Dispatch::float_mul(x, tensor::from_host(mask, &shape, &context.device))
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::Case;

    fn case() -> Case {
        Case::new(&[1, 1000]).floats("ratio", &[], &[0.25]).node("Dropout", &["x", "ratio"], vec![])
    }

    #[test]
    fn use_passes_everything() {
        assert_eq!(case().run(&[1.0; 1000]), [1.0; 1000]);
    }

    #[test]
    fn training_drops_the_ratio_and_keeps_the_mean() {
        let (out, _) = case().train(&[3.0; 1000]);
        let dropped = out.iter().filter(|v| **v == 0.0).count();
        assert!((200..300).contains(&dropped), "{dropped}");
        assert!(out.iter().all(|v| *v == 0.0 || (*v - 4.0).abs() < 1e-6));
    }
}
