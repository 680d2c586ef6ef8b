//! The operations over `flex`'s tensors, and their gradients.

use burn::backend::Backend;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::tensor::TensorData;

use super::norm::{self, Extent, Normalisation};
use super::{Geometry, Kernels, Windows, conv, pointwise, pool};

/// The ways back. They are no operations of the graph: nothing is differentiated twice.
pub trait Backwards: Backend {
    /// The gradients of a convolution's input and filters, each if it is wanted.
    fn convolve_backward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        geometry: Geometry,
        wanted: [bool; 2],
    ) -> [Option<FloatTensor<Self>>; 2];

    /// The gradient of a convolution's bias.
    fn bias_backward(gradient: FloatTensor<Self>, geometry: Geometry) -> FloatTensor<Self>;

    /// The gradients of a normalisation's input, scale and bias.
    fn normalise_backward(
        of: Normalisation<FloatTensor<Self>>,
        gradient: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3];

    /// [`Kernels::largest`] with the place of each.
    fn largest_places(x: FloatTensor<Self>, windows: Windows) -> (FloatTensor<Self>, Vec<u8>);

    /// The gradient of an input of that shape.
    fn largest_backward(
        shape: Vec<usize>,
        places: &[u8],
        gradient: FloatTensor<Self>,
        windows: Windows,
    ) -> FloatTensor<Self>;

    /// The gradient where the output is above zero.
    fn rectify_backward(
        output: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl Kernels for Flex {
    fn convolve(x: FlexTensor, w: FlexTensor, geometry: Geometry) -> FlexTensor {
        convolved(&x, &w, None, &geometry)
    }

    fn convolve_biased(
        x: FlexTensor,
        w: FlexTensor,
        bias: FlexTensor,
        geometry: Geometry,
    ) -> FlexTensor {
        convolved(&x, &w, Some(bias), &geometry)
    }

    fn normalise(
        x: FlexTensor,
        scale: FlexTensor,
        bias: FlexTensor,
        epsilon: f64,
        rectified: bool,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let (shape, x) = (shape(&x), dense(x));
        let extent = extent(&shape);
        let (scale, bias) = (dense(scale), dense(bias));
        let done =
            norm::forward(extent, floats(&x), floats(&scale), floats(&bias), epsilon, rectified);
        let statistic = |values| tensor(values, &[extent.channels]);
        (tensor(done.output, &shape), statistic(done.mean), statistic(done.variance))
    }

    fn largest(x: FlexTensor, windows: Windows) -> FlexTensor {
        Self::largest_places(x, windows).0
    }

    fn rectify(x: FlexTensor) -> FlexTensor {
        changed(x, pointwise::rectify)
    }

    fn add_rectified(a: FlexTensor, b: FlexTensor) -> FlexTensor {
        let b = dense(b);
        changed(a, |a| pointwise::add_rectified(a, floats(&b)))
    }
}

impl Backwards for Flex {
    fn convolve_backward(
        x: FlexTensor,
        w: FlexTensor,
        gradient: FlexTensor,
        geometry: Geometry,
        wanted: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let (x_shape, w_shape) = (shape(&x), shape(&w));
        let (x, w, gradient) = (dense(x), dense(w), dense(gradient));
        let input =
            wanted[0].then(|| conv::input_gradient(&geometry, floats(&w), floats(&gradient)));
        let filters =
            wanted[1].then(|| conv::filter_gradient(&geometry, floats(&x), floats(&gradient)));
        [input.map(|v| tensor(v, &x_shape)), filters.map(|v| tensor(v, &w_shape))]
    }

    fn bias_backward(gradient: FlexTensor, geometry: Geometry) -> FlexTensor {
        let values = conv::bias_gradient(&geometry, floats(&dense(gradient)));
        tensor(values, &[geometry.filters])
    }

    fn normalise_backward(of: Normalisation<FlexTensor>, gradient: FlexTensor) -> [FlexTensor; 3] {
        let Normalisation { x, scale, bias, mean, variance, epsilon, rectified } = of;
        let shape = shape(&x);
        let dense = [x, scale, bias, mean, variance].map(dense);
        let [x, scale, bias, mean, variance] = dense.each_ref().map(floats);
        let of = Normalisation { x, scale, bias, mean, variance, epsilon, rectified };
        let gradients = norm::backward(extent(&shape), &of, floats(&self::dense(gradient)));
        let channels = [shape[1]];
        [
            tensor(gradients.x, &shape),
            tensor(gradients.scale, &channels),
            tensor(gradients.bias, &channels),
        ]
    }

    fn largest_places(x: FlexTensor, windows: Windows) -> (FlexTensor, Vec<u8>) {
        let shape = output_shape(&shape(&x), windows.output);
        let largest = pool::forward(&windows, floats(&dense(x)));
        (tensor(largest.values, &shape), largest.places)
    }

    fn largest_backward(
        shape: Vec<usize>,
        places: &[u8],
        gradient: FlexTensor,
        windows: Windows,
    ) -> FlexTensor {
        tensor(pool::backward(&windows, places, floats(&dense(gradient))), &shape)
    }

    fn rectify_backward(output: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let output = dense(output);
        changed(gradient, |gradient| pointwise::rectified_gradient(floats(&output), gradient))
    }
}

fn convolved(
    x: &FlexTensor,
    w: &FlexTensor,
    bias: Option<FlexTensor>,
    of: &Geometry,
) -> FlexTensor {
    let mut out = output_shape(&shape(x), of.windows.output);
    out[1] = of.filters;
    let (x, w, bias) = (dense(x.clone()), dense(w.clone()), bias.map(dense));
    tensor(conv::forward(of, floats(&x), floats(&w), bias.as_ref().map(floats)), &out)
}

/// `[batch, channels, …]` with other planes.
fn output_shape(shape: &[usize], plane: [usize; 2]) -> Vec<usize> {
    let plane = if shape.len() == 3 { &plane[1..] } else { &plane };
    [&shape[..2], plane].concat()
}

fn extent(shape: &[usize]) -> Extent {
    Extent { channels: shape[1], places: shape[2..].iter().product() }
}

fn shape(x: &FlexTensor) -> Vec<usize> {
    x.layout().shape().to_vec()
}

/// The same with its elements one after another.
fn dense(x: FlexTensor) -> FlexTensor {
    if x.is_contiguous() { x } else { x.to_contiguous() }
}

fn floats(x: &FlexTensor) -> &[f32] {
    x.as_slice().unwrap_or_else(|| unreachable!("values are 32-bit floats, made dense before"))
}

fn tensor(values: Vec<f32>, shape: &[usize]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.to_vec()))
}

/// Changes elements in place where nobody else has them.
fn changed(x: FlexTensor, change: impl FnOnce(&mut [f32])) -> FlexTensor {
    let mut x = dense(x);
    let whole = x.layout().start_offset() == 0
        && x.layout().num_elements() * size_of::<f32>() == x.bytes().len();
    match x.try_storage_mut::<f32>().filter(|_| whole) {
        Some(values) => {
            change(values);
            x
        }
        None => {
            let mut values = floats(&x).to_vec();
            change(&mut values);
            tensor(values, &shape(&x))
        }
    }
}
