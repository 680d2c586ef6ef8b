//! What `LSTM`, `GRU` and `RNN` have in common.
//!
//! The inputs of all steps are multiplied with their weights at once; a cell then goes through the
//! steps with what it keeps between them. Sequences are all of one length. Inputs 0 to 5 mean the
//! same in all three: data, input weights, recurrent weights, biases, lengths, first output.

use burn::backend::Dispatch;
use burn::backend::ops::FloatTensorOps;

use super::gating::Gating;
use super::{Inputs, NodeView, tensor};
use crate::graph::{Context, Fact, Role, Tensor};

/// What the inputs of a recurrent layer are for.
pub(super) fn role(place: usize, _: usize) -> Role {
    match place {
        1 | 2 | 7 => Role::Weight,
        3 => Role::Bias,
        _ => Role::Constant,
    }
}

/// A layer as its node describes it.
pub(super) struct Layer {
    /// Of every direction whether it goes from the last step to the first.
    reversed: Vec<bool>,
    gating: Vec<Gating>,
    steps: usize,
    batch: usize,
    pub hidden: usize,
    /// Columns of the weights: the gates of one direction.
    columns: usize,
    batch_first: bool,
}

/// The inputs of a layer, the data with the steps and the batch in one axis.
struct Given {
    x: Tensor,
    weights: Tensor,
    recurrent: Tensor,
    bias: Option<Tensor>,
    state: Vec<Option<Tensor>>,
    peepholes: Option<Tensor>,
}

/// The weights of one direction.
pub(super) struct Weights {
    /// [hidden, gates · hidden].
    pub recurrent: Tensor,
    /// [1, gates · hidden]: the bias of the recurrent part.
    pub bias: Option<Tensor>,
    /// [1, 3 · hidden]: an LSTM's peepholes.
    pub peepholes: Option<Tensor>,
    pub gating: Gating,
    pub hidden: usize,
}

/// One step: what came in (already multiplied with its weights) and what was kept, of which the
/// output is the first.
pub(super) type Step = Box<dyn Fn(Tensor, &[Tensor]) -> Vec<Tensor>>;

impl Layer {
    /// `defaults` are the activations of one direction when the node names none.
    pub fn read(node: &NodeView<'_>, gates: usize, defaults: &[&str]) -> Result<Self, String> {
        let (x, w, r) = (node.float(0)?, node.float(1)?, node.float(2)?);
        let a = &node.attributes;
        let reversed = match a.text("direction", "forward")? {
            "forward" => vec![false],
            "reverse" => vec![true],
            "bidirectional" => vec![false, true],
            other => return Err(format!("direction '{other}' is not known")),
        };
        let directions = reversed.len();
        let batch_first = a.flag("layout", false)?;
        let &[first, second, input] = x.dims.as_slice() else {
            return Err(format!("input {x} has not three axes"));
        };
        let (steps, batch) = if batch_first { (second, first) } else { (first, second) };
        let hidden = r.dims.last().copied().unwrap_or_default();
        let columns = gates * hidden;
        let said = a.optional_int("hidden_size")?;
        if w.dims != [directions, columns, input]
            || r.dims != [directions, columns, hidden]
            || said.is_some_and(|said| said != hidden as i64)
        {
            return Err(format!("input {x} and weights {w} and {r} do not fit together"));
        }
        let gating = Gating::read(node, defaults, directions)?;
        let layer = Self { reversed, gating, steps, batch, hidden, columns, batch_first };
        layer.fits(node, 3, &[directions, 2 * columns])?;
        layer.fits(node, 5, &layer.state())?;
        if let Some(lengths) = node.optional_ints(4)?
            && lengths.iter().any(|n| *n != steps as i64)
        {
            return Err("sequences of several lengths are not done".into());
        }
        Ok(layer)
    }

    /// Checks the shape of an input that may be left out.
    pub fn fits(&self, node: &NodeView<'_>, place: usize, dims: &[usize]) -> Result<(), String> {
        if node.optional(place).is_some() {
            let fact = node.float(place)?;
            if fact.dims != dims {
                return Err(format!("input {place} of shape {fact} is not of shape {dims:?}"));
            }
        }
        Ok(())
    }

    pub fn directions(&self) -> usize {
        self.reversed.len()
    }

    /// The shape of what is kept, as the node gives and takes it.
    pub fn state(&self) -> [usize; 3] {
        let directions = self.directions();
        if self.batch_first {
            [self.batch, directions, self.hidden]
        } else {
            [directions, self.batch, self.hidden]
        }
    }

    /// All outputs, `kept` of them what is kept after the last step.
    pub fn outputs(&self, x: &Fact, kept: usize) -> Vec<Fact> {
        let (steps, directions) = (self.steps, self.directions());
        let all = if self.batch_first {
            vec![self.batch, steps, directions, self.hidden]
        } else {
            vec![steps, directions, self.batch, self.hidden]
        };
        let state = x.reshaped(self.state().to_vec());
        std::iter::once(x.reshaped(all)).chain(std::iter::repeat_n(state, kept)).collect()
    }

    /// Goes through the steps in every direction; `kept` values are kept between them.
    pub fn run(
        &self,
        inputs: &mut Inputs,
        context: &Context,
        kept: usize,
        cell: impl Fn(Weights) -> Step,
    ) -> Vec<Tensor> {
        let turned = |x| if self.batch_first { tensor::permute(x, &[1, 0, 2]) } else { x };
        let x = turned(inputs.take(0));
        let rows = [self.steps * self.batch, tensor::dims(&x)[2]];
        let given = Given {
            x: tensor::reshape(x, &rows),
            weights: inputs.take(1),
            recurrent: inputs.take(2),
            bias: inputs.try_take(3),
            state: (0..kept).map(|n| inputs.try_take(5 + n).map(turned)).collect(),
            peepholes: inputs.try_take(7),
        };
        let mut all = Vec::new();
        let mut last: Vec<Vec<Tensor>> = vec![Vec::new(); kept];
        for direction in 0..self.directions() {
            let (projected, weights) = self.prepare(&given, direction);
            let first = given.state.iter().map(|s| self.first(s.as_ref(), direction, context));
            let first = first.collect();
            let (outputs, state) =
                self.walk(projected, first, self.reversed[direction], &cell(weights));
            all.push(outputs);
            for (list, state) in last.iter_mut().zip(state) {
                list.push(tensor::reshape(state, &[1, self.batch, self.hidden]));
            }
        }
        let all = tensor::concat(all, 1);
        let all = if self.batch_first { tensor::permute(all, &[2, 0, 1, 3]) } else { all };
        let last = last.into_iter().map(|list| turned(tensor::concat(list, 0)));
        std::iter::once(all).chain(last).collect()
    }

    /// What comes in at every step, [steps, batch, gates · hidden], and the weights of a direction.
    fn prepare(&self, given: &Given, direction: usize) -> (Tensor, Weights) {
        let of = |x: &Tensor| tensor::narrow(x.clone(), 0, direction, direction + 1);
        let matrix = |x: &Tensor, inputs| {
            tensor::permute(tensor::reshape(of(x), &[self.columns, inputs]), &[1, 0])
        };
        let bias =
            |from| given.bias.as_ref().map(|b| tensor::narrow(of(b), 1, from, from + self.columns));
        let input = tensor::dims(&given.x)[1];
        let projected = Dispatch::float_matmul(given.x.clone(), matrix(&given.weights, input));
        let shape = [self.steps, self.batch, self.columns];
        let weights = Weights {
            recurrent: matrix(&given.recurrent, self.hidden),
            bias: bias(self.columns),
            peepholes: given.peepholes.as_ref().map(of),
            gating: self.gating[direction].clone(),
            hidden: self.hidden,
        };
        (tensor::reshape(added(projected, bias(0)), &shape), weights)
    }

    /// What is kept before the first step, [batch, hidden]: zero unless it is given.
    fn first(&self, given: Option<&Tensor>, direction: usize, context: &Context) -> Tensor {
        let size = [self.batch, self.hidden];
        match given {
            Some(state) => {
                let state = tensor::narrow(state.clone(), 0, direction, direction + 1);
                tensor::reshape(state, &size)
            }
            None => {
                let zeros = vec![0.0; self.batch * self.hidden];
                tensor::from_host(zeros, &size, &context.device)
            }
        }
    }

    /// Every output, [steps, 1, batch, hidden], and what is kept after the last step.
    fn walk(
        &self,
        projected: Tensor,
        mut state: Vec<Tensor>,
        reversed: bool,
        step: &Step,
    ) -> (Tensor, Vec<Tensor>) {
        let mut parts = Vec::with_capacity(self.steps);
        entries(projected, self.steps, &mut parts);
        if reversed {
            parts.reverse();
        }
        let mut outputs = Vec::with_capacity(self.steps);
        for part in parts {
            state = step(tensor::reshape(part, &[self.batch, self.columns]), &state);
            outputs.push(tensor::reshape(state[0].clone(), &[1, 1, self.batch, self.hidden]));
        }
        if reversed {
            outputs.reverse();
        }
        (tensor::concat(outputs, 0), state)
    }
}

/// The entries of the first axis, by halves: the gradient of a part is as large as what it was taken
/// from, and taking every entry from the whole would cost the square of their number.
fn entries(x: Tensor, count: usize, into: &mut Vec<Tensor>) {
    if count == 1 {
        into.push(x);
        return;
    }
    let half = count / 2;
    entries(tensor::narrow(x.clone(), 0, 0, half), half, into);
    entries(tensor::narrow(x, 0, half, count), count - half, into);
}

/// The sum with what may be absent.
pub(super) fn added(x: Tensor, bias: Option<Tensor>) -> Tensor {
    match bias {
        Some(bias) => Dispatch::float_add(x, bias),
        None => x,
    }
}

/// The columns of one gate.
pub(super) fn gate(x: &Tensor, place: usize, hidden: usize) -> Tensor {
    tensor::narrow(x.clone(), 1, place * hidden, (place + 1) * hidden)
}
