//! The activations that recurrent layers name in attributes.

use burn::backend::ops::{ActivationOps, FloatTensorOps};
use burn::backend::{Dispatch, Scalar};

use super::NodeView;
use crate::graph::Tensor;

type Function = fn(Tensor, Scalar, Scalar) -> Tensor;

/// A name, the defaults of the scaling values it uses, and what it computes.
const KNOWN: &[(&str, Option<f32>, Option<f32>, Function)] = &[
    ("sigmoid", None, None, |x, _, _| Dispatch::sigmoid(x)),
    ("tanh", None, None, |x, _, _| Dispatch::float_tanh(x)),
    ("relu", None, None, |x, _, _| Dispatch::relu(x)),
    ("hardsigmoid", Some(0.2), Some(0.5), Dispatch::hard_sigmoid),
    ("leakyrelu", Some(0.01), None, |x, alpha, _| Dispatch::leaky_relu(x, alpha)),
    ("affine", Some(1.0), Some(0.0), |x, alpha, beta| {
        Dispatch::float_add_scalar(Dispatch::float_mul_scalar(x, alpha), beta)
    }),
    ("scaledtanh", Some(1.0), Some(1.0), |x, alpha, beta| {
        let inner = Dispatch::float_tanh(Dispatch::float_mul_scalar(x, beta));
        Dispatch::float_mul_scalar(inner, alpha)
    }),
    ("softsign", None, None, |x, _, _| {
        let size = Dispatch::float_add_scalar(Dispatch::float_abs(x.clone()), Scalar::Float(1.0));
        Dispatch::float_div(x, size)
    }),
];

/// The activations of one direction of a layer, and the limit of what goes into them.
#[derive(Clone)]
pub struct Gating {
    activations: Vec<(Function, Scalar, Scalar)>,
    clip: Option<f32>,
}

impl Gating {
    /// As the attributes say, for every direction; `defaults` are those of one direction.
    pub fn read(
        node: &NodeView<'_>,
        defaults: &[&str],
        directions: usize,
    ) -> Result<Vec<Self>, String> {
        let a = &node.attributes;
        let names = a.texts("activations")?.unwrap_or_else(|| defaults.repeat(directions));
        if names.len() != defaults.len() * directions {
            return Err(format!("{} activations do not fit", names.len()));
        }
        let mut alphas = a.floats("activation_alpha")?.unwrap_or_default().iter();
        let mut betas = a.floats("activation_beta")?.unwrap_or_default().iter();
        let clip = a.optional_float("clip")?;
        if clip.is_some_and(|c| c.is_nan() || c < 0.0) {
            return Err("a clip below zero makes no sense".into());
        }
        let mut activations = Vec::new();
        for name in names {
            let known = KNOWN.iter().find(|known| name.eq_ignore_ascii_case(known.0));
            let (_, alpha, beta, function) =
                known.ok_or_else(|| format!("activation '{name}' is not known"))?;
            let scaling = |default: &Option<f32>, given: &mut std::slice::Iter<'_, f32>| {
                let value = default.map(|d| given.next().copied().unwrap_or(d));
                Scalar::Float(f64::from(value.unwrap_or_default()))
            };
            activations.push((*function, scaling(alpha, &mut alphas), scaling(beta, &mut betas)));
        }
        let one = |part: &[_]| Self { activations: part.to_vec(), clip };
        Ok(activations.chunks(defaults.len()).map(one).collect())
    }

    /// The activation at that place of the direction's list.
    pub fn apply(&self, place: usize, x: Tensor) -> Tensor {
        let x = match self.clip.map(f64::from) {
            Some(c) => Dispatch::float_clamp(x, Scalar::Float(-c), Scalar::Float(c)),
            None => x,
        };
        let (function, alpha, beta) = self.activations[place];
        function(x, alpha, beta)
    }
}
