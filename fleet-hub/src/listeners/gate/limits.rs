//! `[limits.connections]` of `hub.toml`: how many connections there may be, and how long each may
//! take over what it must do.

use serde::{Deserialize, Serialize};

/// Limits of connections. Each says what happens at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionLimits {
    /// Descriptors that the hub counts on; 0 is the hard limit of the process.
    pub descriptors: u64,
    /// Connections that have not authenticated, of all listeners; 0 is a third of the descriptors
    /// that the hub does not need for itself, at most 4,096. One more closes the oldest of the
    /// address and listener that has the most.
    pub unauthenticated: u64,
    /// The same of one listener; 0 is half of `unauthenticated`.
    pub unauthenticated_per_listener: u64,
    /// The same of one address (IPv6: of one /64), at most half of `unauthenticated`. One more
    /// closes the oldest of that address.
    pub unauthenticated_per_address: u64,
    /// Connections of one device to one listener; one more closes the device's oldest.
    pub per_device: u64,
    /// From accepting a connection to the end of its TLS handshake, in seconds.
    pub handshake_s: u32,
    /// From the end of the handshake, or the first byte of a later request, to the end of the
    /// request's header, in seconds.
    pub header_s: u32,
    /// How long a request's body may be silent, in seconds.
    pub body_silence_s: u32,
    /// How many bytes of a body must come in each second, on average, after `body_silence_s`.
    pub body_bytes_per_s: u32,
    /// How long a connection may be open between two requests, in seconds.
    pub keep_alive_s: u32,
    /// From the end of the TLS handshake to the end of the MQTT CONNECT, in seconds.
    pub connect_s: u32,
    /// How long a client may take nothing of what it is sent, in seconds.
    pub write_silence_s: u32,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            descriptors: 0,
            unauthenticated: 0,
            unauthenticated_per_listener: 0,
            unauthenticated_per_address: 256,
            per_device: 8,
            handshake_s: 10,
            header_s: 10,
            body_silence_s: 30,
            body_bytes_per_s: 512,
            keep_alive_s: 60,
            connect_s: 10,
            write_silence_s: 60,
        }
    }
}

impl ConnectionLimits {
    /// What cannot be, each with its key.
    pub fn problems(&self) -> Vec<String> {
        [
            ("unauthenticated_per_address", self.unauthenticated_per_address),
            ("per_device", self.per_device),
            ("handshake_s", self.handshake_s.into()),
            ("header_s", self.header_s.into()),
            ("body_silence_s", self.body_silence_s.into()),
            ("body_bytes_per_s", self.body_bytes_per_s.into()),
            ("keep_alive_s", self.keep_alive_s.into()),
            ("connect_s", self.connect_s.into()),
            ("write_silence_s", self.write_silence_s.into()),
        ]
        .into_iter()
        .filter(|(_, value)| *value == 0)
        .map(|(key, _)| format!("limits.connections.{key} must be above 0"))
        .collect()
    }
}
