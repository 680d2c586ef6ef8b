//! The thread that answers frames.

use std::sync::Arc;
use std::time::Duration;

use fleetloop_models::postprocess::Classification;
use fleetloop_models::session::SessionError;
use fleetloop_protocol::BundleDigest;
use tokio::sync::watch;

use super::overdue::IN_A_ROW;
use super::{Answer, Candidate, ModelInfo, Proven, Shared, Sink, SwapError};
use crate::clock::Clock;
use crate::frames::{Arrived, Popped};
use crate::supervise::Pulse;

/// How long the worker waits for a frame before it looks again whether the queue is closed.
const NAP: Duration = Duration::from_millis(200);

pub(super) struct Worker {
    shared: Arc<Shared>,
    clock: Clock,
    pulse: Pulse,
    sink: Box<dyn Sink>,
    running: watch::Sender<Option<BundleDigest>>,
    model: watch::Sender<Option<Arc<ModelInfo>>>,
    current: Option<Box<Proven>>,
    /// Runs over the limit in a row.
    overdue: u32,
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        clock: Clock,
        pulse: Pulse,
        sink: Box<dyn Sink>,
        running: watch::Sender<Option<BundleDigest>>,
        model: watch::Sender<Option<Arc<ModelInfo>>>,
    ) -> Self {
        Self { shared, clock, pulse, sink, running, model, current: None, overdue: 0 }
    }

    pub(super) fn run(mut self) {
        loop {
            self.pulse.beat(self.clock.monotonic());
            match self.shared.queue.pop(NAP) {
                Popped::Frame(frame) => self.frame(frame),
                Popped::Empty => {}
                Popped::Closed => break,
            }
        }
        // Whoever still waits for a verdict hears that there will be none.
        drop(self.shared.slot().take());
    }

    fn frame(&mut self, frame: Box<Arrived>) {
        self.shared.recent.offer(&frame.frame);
        // Bound to a name, or the lock would be held through the trial.
        let candidate = self.shared.slot().take();
        if let Some(candidate) = candidate {
            match self.try_candidate(candidate, &frame) {
                Some(classification) => return self.hand_on(frame, classification),
                None if self.current.is_none() => self.shared.queue.set_accepting(false),
                None => {}
            }
        }
        let Some(current) = &mut self.current else { return self.sink.failed(frame.number) };
        let model = current.info.digest;
        self.shared.overdue.worker.of(model);
        match classify(current, &frame) {
            Ok(classification) => {
                self.overdue = 0;
                self.hand_on(frame, classification);
            }
            Err(error) => {
                self.count_overdue(model, error.as_ref());
                let cause = error.as_ref().map(ToString::to_string);
                tracing::error!(frame = frame.number, cause, "the model did not answer a frame");
                self.sink.failed(frame.number);
            }
        }
    }

    /// A model that is over the limit again and again answers nothing: the process ends.
    fn count_overdue(&mut self, model: BundleDigest, error: Option<&SessionError>) {
        self.overdue = match error {
            Some(SessionError::Overdue { .. }) => self.overdue + 1,
            _ => 0,
        };
        if self.overdue == IN_A_ROW {
            self.shared.overdue.hung(model);
        }
    }

    /// Lets the new model answer. If it does, it is the model in use; if not, nothing has changed
    /// and the caller asks the old one about the same frame.
    fn try_candidate(&mut self, candidate: Candidate, frame: &Arrived) -> Option<Classification> {
        let Candidate { mut proven, verdict, discard } = candidate;
        let bundle = proven.info.digest;
        let runs = &self.shared.overdue.worker;
        runs.of(bundle);
        proven.session.set_limit(runs.limit.clone());
        match classify(&mut proven, frame) {
            Ok(classification) => {
                self.model.send_replace(Some(proven.info.clone()));
                if let Some(old) = self.current.replace(proven) {
                    // Room for one, and nothing else is ever sent.
                    drop(discard.try_send(old));
                }
                self.running.send_replace(Some(bundle));
                tracing::info!(%bundle, "the new model answers");
                // Nobody waits any more: the swap happened all the same.
                drop(verdict.send(Ok(())));
                Some(classification)
            }
            Err(_) if self.current.is_none() && verdict.is_closed() => {
                // The swap was granted while no frame came: it stays, and later frames may be
                // better.
                self.model.send_replace(Some(proven.info.clone()));
                self.current = Some(proven);
                None
            }
            Err(source) => {
                tracing::error!(%bundle, "the new model gave no answer; the old one goes on");
                drop(discard.try_send(proven));
                drop(verdict.send(Err(SwapError::FirstAnswer { bundle, source })));
                None
            }
        }
    }

    fn hand_on(&mut self, frame: Box<Arrived>, classification: Classification) {
        let Some(current) = &self.current else { return };
        let latency = self.clock.monotonic().saturating_sub(frame.due);
        let model = current.info.clone();
        if *self.running.borrow() != Some(model.digest) {
            self.running.send_replace(Some(model.digest));
        }
        self.sink.answered(Answer { frame, model, classification, latency });
    }
}

/// The model's answer; an answer that is not a number is none.
fn classify(proven: &mut Proven, frame: &Arrived) -> Result<Classification, Option<SessionError>> {
    let classification = proven.session.classify(&frame.frame).map_err(Some)?;
    if classification.is_finite() { Ok(classification) } else { Err(None) }
}
