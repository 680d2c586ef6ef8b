//! `Resize` and its predecessor `Upsample`: one axis after another, as interpolation is separable.

use super::interpolate::{Coordinates, Line, Mode, Rounding, Rule};
use super::taps::Taps;
use super::{Built, NodeView, Operator, axis, bounded, no_parameters};
use crate::graph::Fact;
use crate::onnx::Kind;

pub const TABLE: &[Operator] = &[
    Operator::new("Resize", 10, no_parameters, resize),
    Operator {
        opsets: std::ops::RangeInclusive::new(7, 9),
        ..Operator::new("Upsample", 7, no_parameters, upsample)
    },
];

/// The largest size of an axis.
const MAX_SIZE: f64 = (1u64 << 24) as f64;

/// The new size of an axis, before and after rounding, and its scale.
#[derive(Debug, Clone, Copy)]
struct Target {
    scale: f64,
    width: f64,
    out: usize,
}

impl Target {
    fn scaled(size: usize, scale: f32) -> Result<Self, String> {
        let out = size as f32 * scale;
        Self::new(f64::from(scale), size as f64 * f64::from(scale), f64::from(out.floor()))
    }

    fn sized(size: usize, out: i64) -> Result<Self, String> {
        Self::new(out as f64 / size as f64, out as f64, out as f64)
    }

    fn new(scale: f64, width: f64, out: f64) -> Result<Self, String> {
        if !(1.0..=MAX_SIZE).contains(&out) {
            return Err(format!("a size of {out} makes no sense"));
        }
        Ok(Self { scale, width, out: out as usize })
    }
}

/// The floats of an input, which have to be known at load; `None` where it is left out or empty.
fn floats<'a>(node: &'a NodeView<'_>, place: usize) -> Result<Option<&'a [f32]>, String> {
    let Some(fact) = node.optional(place) else { return Ok(None) };
    node.known.borrow_mut().insert(place);
    match fact.floats() {
        Some(values) => Ok((!values.is_empty()).then_some(values)),
        None => Err(format!("input {place} has to be numbers known when the model is loaded")),
    }
}

/// The axes that are resized, in the order of the scales or sizes.
fn axes(node: &NodeView<'_>, x: &Fact) -> Result<Vec<usize>, String> {
    let axes: Vec<usize> =
        match if node.opset < 18 { None } else { node.attributes.ints("axes")? } {
            None => return Ok((0..x.rank()).collect()),
            Some(list) => list.iter().map(|a| axis(*a, x.rank())).collect::<Result<_, _>>()?,
        };
    let mut sorted = axes.clone();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(format!("axes {axes:?} name one twice"));
    }
    Ok(axes)
}

fn from_scales(x: &Fact, axes: &[usize], scales: &[f32]) -> Result<Vec<Target>, String> {
    if scales.len() != axes.len() {
        return Err(format!("{} scales do not fit {} axes", scales.len(), axes.len()));
    }
    axes.iter().zip(scales).map(|(a, scale)| Target::scaled(x.dims[*a], *scale)).collect()
}

fn from_sizes(
    node: &NodeView<'_>,
    x: &Fact,
    axes: &[usize],
    sizes: &[i64],
) -> Result<Vec<Target>, String> {
    if sizes.len() != axes.len() {
        return Err(format!("{} sizes do not fit {} axes", sizes.len(), axes.len()));
    }
    let pairs = || axes.iter().map(|a| x.dims[*a]).zip(sizes.iter().copied());
    let scales = || pairs().map(|(size, out)| out as f64 / size as f64);
    let policy = match node.opset {
        ..18 => "stretch",
        _ => node.attributes.text("keep_aspect_ratio_policy", "stretch")?,
    };
    let scale = match policy {
        "stretch" => return pairs().map(|(size, out)| Target::sized(size, out)).collect(),
        "not_larger" => scales().fold(f64::INFINITY, f64::min),
        "not_smaller" => scales().fold(0.0, f64::max),
        other => return Err(format!("there is no keep_aspect_ratio_policy {other}")),
    };
    pairs()
        .map(|(size, _)| {
            let width = scale * size as f64;
            Target::new(scale, width, (width + 0.5).floor())
        })
        .collect()
}

fn coordinates(node: &NodeView<'_>, axes: usize) -> Result<Vec<Coordinates>, String> {
    let one = match node.attributes.text("coordinate_transformation_mode", "half_pixel")? {
        "half_pixel" => Coordinates::HalfPixel,
        "half_pixel_symmetric" if node.opset >= 19 => Coordinates::HalfPixelSymmetric,
        "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
        "align_corners" => Coordinates::AlignCorners,
        "asymmetric" => Coordinates::Asymmetric,
        "tf_half_pixel_for_nn" if node.opset < 13 => Coordinates::HalfPixelForNearest,
        "tf_crop_and_resize" => {
            let roi = floats(node, 1)?.unwrap_or_default();
            if roi.len() != 2 * axes || roi.iter().any(|v| !v.is_finite()) {
                return Err(format!("{} entries of roi do not fit {axes} axes", roi.len()));
            }
            let (from, to) = roi.split_at(axes);
            let crop = |(from, to): (&f32, &f32)| Coordinates::Crop {
                from: f64::from(*from),
                to: f64::from(*to),
            };
            return Ok(from.iter().zip(to).map(crop).collect());
        }
        other => return Err(format!("coordinate_transformation_mode {other} is not known")),
    };
    Ok(vec![one; axes])
}

fn rule(node: &NodeView<'_>) -> Result<Rule, String> {
    let attributes = &node.attributes;
    let rounding = match attributes.text("nearest_mode", "round_prefer_floor")? {
        "round_prefer_floor" => Rounding::PreferFloor,
        "round_prefer_ceil" => Rounding::PreferCeil,
        "floor" => Rounding::Floor,
        "ceil" => Rounding::Ceil,
        other => return Err(format!("there is no nearest_mode {other}")),
    };
    let a = f64::from(attributes.float("cubic_coeff_a", -0.75)?);
    let mode = match attributes.text("mode", "nearest")? {
        "nearest" => Mode::Nearest(rounding),
        "linear" => Mode::Linear,
        "cubic" => Mode::Cubic(a),
        other => return Err(format!("there is no mode {other}")),
    };
    Ok(Rule {
        mode,
        antialias: node.opset >= 18 && attributes.flag("antialias", false)?,
        exclude_outside: attributes.flag("exclude_outside", false)?,
        extrapolation: attributes.float("extrapolation_value", 0.0)?,
    })
}

fn resize(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.input(0)?;
    if node.opset < 11 {
        let scales = floats(node, 1)?.ok_or("the scales are missing")?;
        return simple(node, x, scales);
    }
    let axes = axes(node, x)?;
    let targets = match (floats(node, 2)?, node.optional_ints(3)?.filter(|s| !s.is_empty())) {
        (Some(scales), None) => from_scales(x, &axes, scales)?,
        (None, Some(sizes)) => from_sizes(node, x, &axes, sizes)?,
        _ => return Err("either scales or sizes are needed".into()),
    };
    let coordinates = coordinates(node, axes.len())?;
    interpolated(x, &rule(node)?, &axes, &targets, &coordinates)
}

fn upsample(node: &NodeView<'_>) -> Result<Built, String> {
    let x = node.input(0)?;
    let scales = match node.opset {
        ..9 => node.attributes.floats("scales")?,
        _ => floats(node, 1)?,
    };
    simple(node, x, scales.ok_or("the scales are missing")?)
}

/// Resizing before operator set 11: scales only, counted from the first entry.
fn simple(node: &NodeView<'_>, x: &Fact, scales: &[f32]) -> Result<Built, String> {
    let mode = match node.attributes.text("mode", "nearest")? {
        "nearest" => Mode::Nearest(Rounding::Floor),
        "linear" | "bilinear" => Mode::Linear,
        other => return Err(format!("there is no mode {other}")),
    };
    let rule = Rule { mode, antialias: false, exclude_outside: false, extrapolation: 0.0 };
    let axes: Vec<usize> = (0..x.rank()).collect();
    let targets = from_scales(x, &axes, scales)?;
    interpolated(x, &rule, &axes, &targets, &vec![Coordinates::Asymmetric; axes.len()])
}

fn interpolated(
    x: &Fact,
    rule: &Rule,
    axes: &[usize],
    targets: &[Target],
    coordinates: &[Coordinates],
) -> Result<Built, String> {
    let nearest = matches!(rule.mode, Mode::Nearest(_));
    if nearest && rule.antialias {
        return Err("antialias does not go with the nearest entry".into());
    }
    let crops = coordinates.iter().any(|c| matches!(c, Coordinates::Crop { .. }));
    if x.kind() != Kind::Float && (!nearest || crops) {
        return Err(format!("{:?} is not interpolated", x.element));
    }
    let mut dims = x.dims.clone();
    for (axis, target) in axes.iter().zip(targets) {
        dims[*axis] = target.out;
    }
    let most: Vec<usize> = dims.iter().zip(&x.dims).map(|(a, b)| *a.max(b)).collect();
    bounded(&most)?;
    let mut taps: Vec<Taps> = Vec::new();
    for ((axis, target), coordinates) in axes.iter().zip(targets).zip(coordinates) {
        let (axis, coordinates) = (*axis, *coordinates);
        let Target { scale, width, out } = *target;
        let line = Line { axis, size: x.dims[axis], out, scale, width, coordinates };
        taps.extend(line.taps(rule)?);
    }
    Built::one(x.reshaped(dims), move |i, context| {
        taps.iter().fold(i.take(0), |x, tap| tap.apply(x, &context.device))
    })
}

#[cfg(test)]
mod tests {
    use onnx_ir::AttributeProto;

    use super::super::testing::{Case, floats, near, text};
    use crate::onnx::write::int;

    fn case(shape: &[usize], sizes: &[i64], attributes: Vec<AttributeProto>) -> Case {
        Case::new(shape).opset(19).ints("s", sizes).node("Resize", &["x", "", "", "s"], attributes)
    }

    #[test]
    fn the_nearest_entry_follows_its_rounding() {
        let nearest = |mode: &str| {
            let attributes = vec![
                text("coordinate_transformation_mode", "asymmetric"),
                text("nearest_mode", mode),
            ];
            case(&[1, 2], &[1, 4], attributes).run(&[1.0, 2.0])
        };
        assert_eq!(nearest("floor"), [1.0, 1.0, 2.0, 2.0]);
        assert_eq!(nearest("ceil"), [1.0, 2.0, 2.0, 2.0]);
        assert_eq!(nearest("round_prefer_floor"), [1.0, 1.0, 2.0, 2.0]);
        assert_eq!(nearest("round_prefer_ceil"), [1.0, 2.0, 2.0, 2.0]);
    }

    #[test]
    fn linear_follows_its_coordinates() {
        let linear = |mode: &str| {
            let attributes =
                vec![text("mode", "linear"), text("coordinate_transformation_mode", mode)];
            case(&[1, 2], &[1, 4], attributes).run(&[0.0, 3.0])
        };
        near(&linear("half_pixel"), &[0.0, 0.75, 2.25, 3.0], 1e-6);
        near(&linear("align_corners"), &[0.0, 1.0, 2.0, 3.0], 1e-6);
        near(&linear("asymmetric"), &[0.0, 1.5, 3.0, 3.0], 1e-6);
    }

    #[test]
    fn a_scale_rounds_the_size_down_as_a_float_of_the_file_does() {
        let case = Case::new(&[1, 10]).opset(13).floats("s", &[2], &[1.0, 0.7]).node(
            "Resize",
            &["x", "", "s"],
            vec![],
        );
        assert_eq!(case.output_shape(), [1, 7]);
    }

    #[test]
    fn upsampling_repeats() {
        let case = Case::new(&[1, 2]).opset(7).node(
            "Upsample",
            &["x"],
            vec![floats("scales", &[1.0, 2.0])],
        );
        assert_eq!(case.run(&[1.0, 2.0]), [1.0, 1.0, 2.0, 2.0]);
        let case = Case::new(&[1, 2]).opset(10).floats("s", &[2], &[1.0, 2.0]).node(
            "Resize",
            &["x", "s"],
            vec![text("mode", "linear")],
        );
        assert_eq!(case.run(&[1.0, 2.0]), [1.0, 1.5, 2.0, 2.0]);
    }

    #[test]
    fn gradients_match_finite_differences() {
        for mode in ["nearest", "linear", "cubic"] {
            let attributes = || vec![text("mode", mode), int("exclude_outside", 1)];
            case(&[1, 2, 3, 4], &[1, 2, 5, 3], attributes()).check_gradients();
            case(&[2, 3], &[2, 7], attributes()).check_gradients();
        }
        case(&[1, 8], &[1, 3], vec![text("mode", "linear"), int("antialias", 1)]).check_gradients();
    }

    #[test]
    fn what_makes_no_size_is_refused() {
        let refusal = |sizes: &[i64]| case(&[1, 2], sizes, vec![]).refusal();
        assert!(refusal(&[1, 0]).contains("makes no sense"));
        assert!(refusal(&[1, i64::MAX]).contains("makes no sense"));
        assert!(refusal(&[1]).contains("do not fit"));
        let text = Case::new(&[1, 2])
            .opset(13)
            .floats("s", &[2], &[1.0, f32::NAN])
            .node("Resize", &["x", "", "s"], vec![])
            .refusal();
        assert!(text.contains("makes no sense"), "{text}");
    }
}
