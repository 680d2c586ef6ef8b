//! `Dropout`: drops elements while training, passes everything in use.
//!
//! The ratio is an attribute up to operator set 11 and an input after it (default 0.5). A file
//! exported for inference often leaves the node in with its original ratio; it is honoured. A file
//! that drops in use too (`training_mode`) is refused, unless its ratio is zero. The mask says what
//! was kept.

use burn::backend::Dispatch;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::Device;

use super::{Built, NodeView, Operator, no_parameters, tensor};
use crate::graph::{Context, Fact, Mode, Tensor};
use crate::onnx::{Element, Elements, HostTensor};

pub const TABLE: &[Operator] = &[Operator::new("Dropout", 1, no_parameters, build)];

fn build(node: &NodeView<'_>) -> Result<Built, String> {
    super::elementwise::ignore_consumed(node)?;
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
    if drops_in_use(node)? && ratio > 0.0 {
        return Err("it was exported in training mode; export the model for inference".into());
    }
    let masked = node.outputs.get(1) == Some(&true);
    if masked && node.opset < 10 {
        return Err("before operator set 10 its mask is not computed".into());
    }
    let out = x.reshaped(x.dims.clone());
    if !masked {
        return Built::one(out, move |i, context| dropped(i.take(0), ratio, context).0);
    }
    let mask = Fact::runtime(Element::Bool, x.dims.clone());
    Built::many(vec![out, mask], move |i, context| {
        let x = i.take(0);
        let shape = tensor::dims(&x);
        let (x, kept) = dropped(x, ratio, context);
        vec![x, truth(kept, shape, &context.device)]
    })
}

/// Whether the file asks for dropping in use too.
fn drops_in_use(node: &NodeView<'_>) -> Result<bool, String> {
    if node.opset < 7 {
        return Ok(!node.attributes.flag("is_test", false)?);
    }
    let Some(mode) = node.optional(2) else { return Ok(false) };
    node.known.borrow_mut().insert(2);
    match mode.constant.as_deref().map(|tensor| &tensor.elements) {
        Some(Elements::Bool(values)) if values.len() == 1 => Ok(values[0]),
        _ => Err("training_mode has to be one truth value known when the model is loaded".into()),
    }
}

/// What is left, and which elements were kept.
fn dropped(x: Tensor, ratio: f32, context: &mut Context) -> (Tensor, Vec<bool>) {
    let shape = tensor::dims(&x);
    let count: usize = shape.iter().product();
    if context.mode == Mode::Infer || ratio == 0.0 {
        return (x, vec![true; count]);
    }
    let kept: Vec<bool> = (0..count).map(|_| context.random.unit() >= ratio).collect();
    let factor = 1.0 / (1.0 - ratio);
    let factors = kept.iter().map(|kept| if *kept { factor } else { 0.0 }).collect();
    let factors = tensor::from_host(factors, &shape, &context.device);
    (Dispatch::float_mul(x, factors), kept)
}

fn truth(values: Vec<bool>, shape: Vec<usize>, device: &Device) -> Tensor {
    let elements = Elements::Bool(values);
    tensor::upload(&HostTensor { element: Element::Bool, shape, elements }, device)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Case;
    use super::*;
    use crate::random::Random;

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

    #[test]
    fn the_mask_says_what_was_kept() {
        let device = Device::flex();
        let mut context = Context::train(&device, Random::new(5));
        let x = tensor::from_host(vec![3.0; 100], &[10, 10], &device);
        let (out, kept) = dropped(x, 0.5, &mut context);
        let nonzero: Vec<bool> = tensor::to_host(out).iter().map(|v| *v != 0.0).collect();
        assert_eq!(nonzero, kept);
        assert!(kept.contains(&true) && kept.contains(&false));
    }

    #[test]
    fn gradients_match_finite_differences() {
        Case::new(&[2, 3]).node("Dropout", &["x"], vec![]).check_gradients();
    }
}
