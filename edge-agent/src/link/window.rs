//! How much may be under way, and when the link no longer moves. Pure: time is passed in.

use std::collections::VecDeque;
use std::time::Duration;

/// The most messages without a receipt. 64 of the largest are 8 MiB of memory, and at 20 ms a
/// group commit at the hub they are over 3,000 messages a second.
pub(super) const WINDOW: usize = 64;

/// After this long without a receipt a message counts as lost; the outbox offers it again.
const RECEIPT_WITHIN: Duration = Duration::from_secs(30);

/// The longest standstill while something is unanswered.
const PROGRESS_WITHIN: Duration = Duration::from_secs(45);

/// What is under way on one connection.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// When each message without a receipt was handed over, the oldest first.
    waiting: VecDeque<Duration>,
    /// Messages handed to the client that are not written yet.
    queued: usize,
    /// Messages that the broker has not acknowledged.
    unacknowledged: usize,
    /// When something last moved, or had nothing to move.
    moved: Duration,
}

impl Window {
    /// A connection that stands since `now`.
    pub(super) fn new(now: Duration) -> Self {
        Self { moved: now, ..Self::default() }
    }

    /// Counts messages without a receipt as lost after [`RECEIPT_WITHIN`]; whether there were any.
    pub(super) fn lose(&mut self, now: Duration) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|at| now.saturating_sub(*at) < RECEIPT_WITHIN);
        self.waiting.len() < before
    }

    /// How many more messages may be taken from the outbox.
    pub(super) fn room(&self) -> usize {
        WINDOW.saturating_sub(self.waiting.len()).min(WINDOW.saturating_sub(self.queued))
    }

    /// Whether something without a place in the outbox may be sent as well.
    pub(super) fn has_slack(&self) -> bool {
        self.queued < WINDOW / 2
    }

    /// A message with an acknowledgement was handed over.
    pub(super) fn sent(&mut self, now: Duration) {
        if self.unacknowledged == 0 {
            // Silence before there was anything to answer does not count.
            self.moved = now;
        }
        self.queued += 1;
        self.unacknowledged += 1;
    }

    /// A message without an acknowledgement was handed over.
    pub(super) fn sent_unacknowledged(&mut self) {
        self.queued += 1;
    }

    /// A message from the outbox waits for its receipt.
    pub(super) fn awaits_receipt(&mut self, now: Duration) {
        self.waiting.push_back(now);
    }

    /// A receipt or a refusal came.
    pub(super) fn answered(&mut self) {
        self.waiting.pop_front();
    }

    /// The client wrote a message: on a slow link that is all that moves for a while.
    pub(super) fn written(&mut self, now: Duration) {
        self.queued = self.queued.saturating_sub(1);
        self.moved = now;
    }

    /// The broker acknowledged a message.
    pub(super) fn acknowledged(&mut self, now: Duration) {
        self.unacknowledged = self.unacknowledged.saturating_sub(1);
        self.moved = now;
    }

    /// The broker delivered a message. Its answers to pings say nothing of what was sent.
    pub(super) fn delivered(&mut self, now: Duration) {
        self.moved = now;
    }

    /// Whether something is unanswered and nothing has moved for too long.
    pub(super) fn stalled(&self, now: Duration) -> bool {
        self.unacknowledged > 0 && now.saturating_sub(self.moved) >= PROGRESS_WITHIN
    }

    /// Whether nothing is under way any more.
    pub(super) fn is_idle(&self) -> bool {
        self.unacknowledged == 0 && self.queued == 0 && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn at_most_a_window_is_without_a_receipt_and_a_lost_one_makes_room_again() {
        let mut window = Window::new(s(0));
        for _ in 0..WINDOW {
            window.sent(s(1));
            window.written(s(1));
            window.acknowledged(s(1));
            window.awaits_receipt(s(1));
        }
        assert!(!window.lose(s(2)));
        assert_eq!(window.room(), 0, "an acknowledgement is no receipt");
        window.answered();
        assert_eq!(window.room(), 1);
        assert!(window.lose(s(31)) && !window.lose(s(31)));
        assert_eq!(window.room(), WINDOW);
        assert!(window.is_idle());
    }

    #[test]
    fn a_link_that_takes_and_never_answers_is_noticed_and_a_quiet_one_is_not() {
        let mut window = Window::new(s(0));
        assert!(!window.stalled(s(1000)), "nothing is unanswered");
        window.sent(s(1000));
        assert!(!window.stalled(s(1044)));
        assert!(window.stalled(s(1045)));
        // A slow link writes, and a broker that has other news is alive.
        window.written(s(1040));
        assert!(!window.stalled(s(1084)));
        window.delivered(s(1080));
        assert!(!window.stalled(s(1124)));
        assert!(window.stalled(s(1125)));
        window.acknowledged(s(1120));
        assert!(!window.stalled(s(5000)));
    }

    #[test]
    fn results_wait_while_the_client_is_behind() {
        let mut window = Window::new(s(0));
        for _ in 0..WINDOW / 2 {
            assert!(window.has_slack());
            window.sent_unacknowledged();
        }
        assert!(!window.has_slack());
        window.written(s(0));
        assert!(window.has_slack());
    }
}
