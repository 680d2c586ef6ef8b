//! Threads that log for the agent which started them: a process may run several.

use std::thread::{Builder, JoinHandle};

use tracing::Span;

/// Starts a thread within the caller's span.
///
/// # Errors
/// The system's, when it has no thread to give.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    let span = Span::current();
    Builder::new().name(name.into()).spawn(move || span.in_scope(work))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn a_thread_logs_within_the_span_of_who_started_it() {
        let log = tracing_subscriber::registry();
        let (sender, heard) = mpsc::sync_channel(1);
        tracing::subscriber::with_default(log.with(tracing_subscriber::fmt::layer()), || {
            let span = tracing::error_span!("agent");
            let id = span.id();
            let log = tracing::dispatcher::get_default(Clone::clone);
            let _entered = span.entered();
            let work = move || {
                tracing::dispatcher::with_default(&log, || {
                    sender.send(Span::current().id()).unwrap();
                });
            };
            spawn("threads", work).unwrap().join().unwrap();
            assert!(id.is_some() && heard.recv().unwrap() == id);
        });
    }
}
