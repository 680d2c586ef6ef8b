//! What each operation keeps for the way back, and the way back.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, TensorMetadata};

use super::flex::Backwards;
use super::norm::Normalisation;
use super::{Geometry, Kernels, Windows};

impl<B: Kernels + Backwards, C: CheckpointStrategy> Kernels for Autodiff<B, C> {
    fn convolve(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        geometry: Geometry,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), w.node()];
        let (x, w) = (x.into_primitive(), w.into_primitive());
        match Convolve.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let output = B::convolve(x.clone(), w.clone(), geometry);
                prep.finish(Convolution { x, w, geometry }, output)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::convolve(x, w, geometry)),
        }
    }

    fn convolve_biased(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        geometry: Geometry,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), w.node(), bias.node()];
        let (x, w, bias) = (x.into_primitive(), w.into_primitive(), bias.into_primitive());
        match ConvolveBiased.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let output = B::convolve_biased(x.clone(), w.clone(), bias, geometry);
                prep.finish(Convolution { x, w, geometry }, output)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::convolve_biased(x, w, bias, geometry)),
        }
    }

    fn normalise(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f64,
        rectified: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let nodes = [x.node(), scale.node(), bias.node()];
        let [x, scale, bias] = [x, scale, bias].map(|value| value.into_primitive());
        let (output, mean, variance) =
            B::normalise(x.clone(), scale.clone(), bias.clone(), epsilon, rectified);
        let plain = [mean.clone(), variance.clone()].map(Self::from_inner);
        let output = match Normalise.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let of = Normalisation { x, scale, bias, mean, variance, epsilon, rectified };
                prep.finish(of, output)
            }
            OpsKind::UnTracked(prep) => prep.finish(output),
        };
        let [mean, variance] = plain;
        (output, mean, variance)
    }

    fn largest(x: FloatTensor<Self>, windows: Windows) -> FloatTensor<Self> {
        let node = x.node();
        let x = x.into_primitive();
        match Largest.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let shape = x.shape().to_vec();
                let (output, places) = B::largest_places(x, windows);
                prep.finish((shape, places, windows), output)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::largest(x, windows)),
        }
    }

    fn rectify(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let node = x.node();
        let output = B::rectify(x.into_primitive());
        match Rectify.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(output.clone(), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn add_rectified(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [a.node(), b.node()];
        let output = B::add_rectified(a.into_primitive(), b.into_primitive());
        match AddRectified.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(output.clone(), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }
}

#[derive(Debug, Clone)]
struct Convolution<T> {
    x: T,
    w: T,
    geometry: Geometry,
}

/// Hands a gradient to a parent that wants one.
fn give<B: Backend>(
    gradients: &mut Gradients,
    parent: Option<NodeId>,
    gradient: Option<FloatTensor<B>>,
) {
    if let (Some(parent), Some(gradient)) = (parent, gradient) {
        gradients.register::<B>(parent, gradient);
    }
}

#[derive(Debug)]
struct Convolve;

impl<B: Kernels + Backwards> Backward<B, 2> for Convolve {
    type State = Convolution<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let parents = ops.parents.map(|parent| parent.map(|node| node.id));
        let Convolution { x, w, geometry } = ops.state;
        let wanted = parents.map(|parent| parent.is_some());
        let [x, w] = B::convolve_backward(x, w, gradient, geometry, wanted);
        give::<B>(gradients, parents[0], x);
        give::<B>(gradients, parents[1], w);
    }
}

#[derive(Debug)]
struct ConvolveBiased;

impl<B: Kernels + Backwards> Backward<B, 3> for ConvolveBiased {
    type State = Convolution<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let parents = ops.parents.map(|parent| parent.map(|node| node.id));
        let Convolution { x, w, geometry } = ops.state;
        let wanted = [parents[0].is_some(), parents[1].is_some()];
        if parents[2].is_some() {
            let bias = B::bias_backward(gradient.clone(), geometry);
            give::<B>(gradients, parents[2], Some(bias));
        }
        let [x, w] = B::convolve_backward(x, w, gradient, geometry, wanted);
        give::<B>(gradients, parents[0], x);
        give::<B>(gradients, parents[1], w);
    }
}

#[derive(Debug)]
struct Normalise;

impl<B: Kernels + Backwards> Backward<B, 3> for Normalise {
    type State = Normalisation<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let parents = ops.parents.map(|parent| parent.map(|node| node.id));
        let all = B::normalise_backward(ops.state, gradient);
        for (parent, gradient) in parents.into_iter().zip(all) {
            give::<B>(gradients, parent, Some(gradient));
        }
    }
}

#[derive(Debug)]
struct Largest;

impl<B: Kernels + Backwards> Backward<B, 1> for Largest {
    type State = (Vec<usize>, Vec<u8>, Windows);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [parent] = ops.parents.map(|parent| parent.map(|node| node.id));
        let (shape, places, windows) = ops.state;
        let gradient = B::largest_backward(shape, &places, gradient, windows);
        give::<B>(gradients, parent, Some(gradient));
    }
}

#[derive(Debug)]
struct Rectify;

impl<B: Kernels + Backwards> Backward<B, 1> for Rectify {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [parent] = ops.parents.map(|parent| parent.map(|node| node.id));
        give::<B>(gradients, parent, Some(B::rectify_backward(ops.state, gradient)));
    }
}

#[derive(Debug)]
struct AddRectified;

impl<B: Kernels + Backwards> Backward<B, 2> for AddRectified {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let parents = ops.parents.map(|parent| parent.map(|node| node.id));
        let gradient = B::rectify_backward(ops.state, gradient);
        give::<B>(gradients, parents[0], Some(gradient.clone()));
        give::<B>(gradients, parents[1], Some(gradient));
    }
}
