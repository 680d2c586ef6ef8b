//! What a service manager hears of the agent, and when it hears nothing any more.
//!
//! The threads whose silence means that the agent does not do its work (inference, outbox, link)
//! each have a [`Pulse`]. A thread of its own looks at them and tells the service manager over
//! `NOTIFY_SOCKET` (sd_notify(3)); without that variable it only logs.
//!
//! | said | when |
//! |---|---|
//! | `READY=1` | all of them were seen alive; whether there is a model is in `STATUS=` |
//! | `WATCHDOG=1` | every quarter of `WATCHDOG_USEC`, while none was silent for half of it |
//! | `RELOADING=1`, `READY=1` | a reload that SIGHUP asked for begins, and ended, well or not |
//! | `STOPPING=1` | the end begins |
//! | `STATUS=` | the state in words, whenever it changes |
//!
//! Limits: a single inference, or a disk that answers the outbox, may take half of `WATCHDOG_USEC`,
//! longer counts as hung; the manager then ends the process within twice that time. Inference and
//! link move their pulses themselves; the outbox is asked, for its thread rightly sleeps while there
//! is nothing to do.
//!
//! A process may run several agents; the manager hears of them as of one service (`together`).

mod notify;
mod pulse;
mod together;

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::outbox::{Outbox, OutboxError};
use crate::threads;

pub use notify::{ToServiceManager, stopping, watchdog};
pub use pulse::Pulse;
pub use together::{Member, members};

/// How often the pulses are looked at where no watchdog says.
const EVERY: Duration = Duration::from_secs(10);
/// How long a silence is worth an error where no watchdog says.
const SILENCE: Duration = Duration::from_secs(60);
/// How often they are looked at until all were seen.
const UNTIL_READY: Duration = Duration::from_millis(50);

/// What is watched.
pub struct Parts {
    /// For the pulses.
    pub clock: Clock,
    /// Moved by the inference thread at every frame and every nap.
    pub inference: Pulse,
    /// Moved by the link's task every second.
    pub link: Pulse,
    /// Asked.
    pub outbox: Outbox,
    /// The state in words.
    pub status: Box<dyn Fn() -> String + Send>,
    /// The manager's watchdog, if it has one.
    pub watchdog: Option<Duration>,
}

/// Where it is said.
pub trait Manager: Send + 'static {
    /// The agent is at work.
    fn ready(&self, status: &str);
    /// It still is.
    fn alive(&self);
    /// The state in words.
    fn status(&self, status: &str);
}

/// Ends the thread when it is dropped.
pub struct Watch(#[expect(dead_code, reason = "its end is the signal")] SyncSender<()>);

/// Starts the thread.
///
/// # Errors
/// The system's, when it has no thread to give.
pub fn spawn(parts: Parts, manager: impl Manager) -> std::io::Result<(Watch, JoinHandle<()>)> {
    // Nothing is ever sent: the sender's end is the signal.
    let (watch, ended) = sync_channel(1);
    let mut watcher = Watcher::new(parts, manager);
    let thread = threads::spawn("alive", move || {
        loop {
            let wait = watcher.look();
            if ended.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    })?;
    Ok((Watch(watch), thread))
}

struct Watcher<M> {
    parts: Parts,
    manager: M,
    asked: Option<oneshot::Receiver<Result<(), OutboxError>>>,
    outbox: Pulse,
    ready: bool,
    said: String,
}

impl<M: Manager> Watcher<M> {
    fn new(parts: Parts, manager: M) -> Self {
        let said = String::new();
        Self { parts, manager, asked: None, outbox: Pulse::default(), ready: false, said }
    }

    /// One look; how long until the next.
    fn look(&mut self) -> Duration {
        self.ask_outbox();
        let silent = self.silent();
        let every = self.parts.watchdog.map_or(EVERY, |watchdog| watchdog / 4);
        if !silent.is_empty() {
            if self.ready {
                self.say(format!("{} does not move", silent.join(", ")), true);
            }
            return if self.ready { every } else { UNTIL_READY.min(every) };
        }
        let status = (self.parts.status)();
        if !self.ready {
            self.ready = true;
            self.manager.ready(&status);
            self.said = status;
        } else {
            self.say(status, false);
        }
        if self.parts.watchdog.is_some() {
            self.manager.alive();
        }
        every
    }

    fn say(&mut self, status: String, is_error: bool) {
        if status == self.said {
            return;
        }
        if is_error {
            tracing::error!(status, "the agent is not at work");
        }
        self.manager.status(&status);
        self.said = status;
    }

    /// Asks the outbox's thread for a sign, one question at a time.
    fn ask_outbox(&mut self) {
        if let Some(asked) = &mut self.asked {
            // An answer is a sign of life, whatever it says.
            match asked.try_recv() {
                Ok(_) => self.outbox.beat(self.parts.clock.monotonic()),
                Err(oneshot::error::TryRecvError::Empty) => return,
                Err(oneshot::error::TryRecvError::Closed) => {}
            }
        }
        self.asked = self.parts.outbox.probe().ok();
    }

    fn silent(&self) -> Vec<&'static str> {
        let now = self.parts.clock.monotonic();
        let longest = self.parts.watchdog.map_or(SILENCE, |watchdog| watchdog / 2);
        let pulses = [
            ("inference", &self.parts.inference),
            ("outbox", &self.outbox),
            ("link", &self.parts.link),
        ];
        let silent = pulses.into_iter().filter(|(_, pulse)| !pulse.moved_within(longest, now));
        silent.map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests;
