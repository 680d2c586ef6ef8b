//! The one shutdown signal. It only ever goes forward: run, drain, now.

use tokio::sync::watch;

/// How far the process has got in ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shutdown {
    /// Work as usual.
    Run,
    /// Take nothing new, finish what is there, send what can be sent, then end.
    Drain,
    /// The time for draining is over: end.
    Now,
}

/// The signal's two ends.
pub fn channel() -> (watch::Sender<Shutdown>, watch::Receiver<Shutdown>) {
    watch::channel(Shutdown::Run)
}

/// Waits until the signal is at least `stage`; a sender that is gone counts as [`Shutdown::Now`].
///
/// Cancel-safe: it only observes.
pub async fn reached(signal: &mut watch::Receiver<Shutdown>, stage: Shutdown) {
    // An error means that the sender is gone, which is as good as the signal.
    let _ = signal.wait_for(|now| *now >= stage).await;
}
