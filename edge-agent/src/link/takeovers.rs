//! Whether another device uses this identity. Pure: time is passed in.
//!
//! A broker has one session for a client id and ends the older one when the id connects again. This
//! agent has one connection at a time and drops it before it makes the next, so whoever takes its session
//! is another process with the same key: a copied card, or a copied data folder.

use std::collections::VecDeque;
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::DisconnectReasonCode;
use rumqttc::v5::{ConnectionError, StateError};

/// How long a take-over counts.
const WITHIN: Duration = Duration::from_secs(3600);

/// So many say it: one may be an operator's doing.
const MANY: usize = 2;

/// Why a connection ended.
pub(super) const TAKEN_OVER: &str = "another client took this device's session at the broker; does another device use its identity?";

/// What a person is told when it happens again and again.
pub(super) const SHARED: &str = "ANOTHER DEVICE USES THIS IDENTITY, probably made from a copy of this \
     card: find it and stop it; see 'fleet-hub device list', and enrol the copy into an empty data folder";

/// The broker ended the session because the id connected again. `rmqtt` says so with another code than
/// the standard's, and with yet another when the hub itself ended the session.
pub(super) const fn is_take_over(error: &ConnectionError) -> bool {
    matches!(
        error,
        ConnectionError::MqttState(StateError::ServerDisconnect {
            reason_code: DisconnectReasonCode::SessionTakenOver
                | DisconnectReasonCode::NotAuthorized,
            ..
        })
    )
}

/// Take-overs of late.
#[derive(Debug, Default)]
pub(super) struct TakeOvers(VecDeque<Duration>);

impl TakeOvers {
    /// One happened.
    pub(super) fn happened(&mut self, now: Duration) {
        self.0.push_back(now);
        if self.0.len() > MANY {
            self.0.pop_front();
        }
    }

    /// Whether they say that another device uses this identity.
    pub(super) fn are_many(&self, now: Duration) -> bool {
        self.0.iter().filter(|at| now.saturating_sub(**at) < WITHIN).count() >= MANY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_taken_twice_in_an_hour_say_that_another_device_uses_the_identity() {
        let s = Duration::from_secs;
        let mut take_overs = TakeOvers::default();
        take_overs.happened(s(10));
        assert!(!take_overs.are_many(s(10)), "once may be an operator's doing");
        take_overs.happened(s(70));
        assert!(take_overs.are_many(s(70)));
        assert!(!take_overs.are_many(s(3610)), "the first is forgotten");
        take_overs.happened(s(3611));
        assert!(take_overs.are_many(s(3612)));
    }

    #[test]
    fn only_a_session_that_was_taken_counts() {
        let ended = |reason_code| {
            ConnectionError::MqttState(StateError::ServerDisconnect {
                reason_code,
                reason_string: None,
            })
        };
        use DisconnectReasonCode as Code;
        assert!(is_take_over(&ended(Code::SessionTakenOver)));
        assert!(is_take_over(&ended(Code::NotAuthorized)), "as rmqtt says it");
        assert!(!is_take_over(&ended(Code::AdministrativeAction)), "revoked");
        assert!(!is_take_over(&ended(Code::ServerShuttingDown)));
    }
}
