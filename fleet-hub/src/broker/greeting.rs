//! The first packet of an MQTT connection: CONNECT, read by the broker's own codec, and written again
//! with the name that the client's certificate proves.

use bytes::BytesMut;
use rmqtt::codec::v3::{self, ConnectAckReason as AckV3};
use rmqtt::codec::v5::{self, ConnectAckReason as AckV5};
use rmqtt::codec::version::{ProtocolVersion, VersionCodec};
use rmqtt::codec::{MqttCodec, MqttPacket};
use tokio_util::codec::{Decoder as _, Encoder as _};

/// The largest CONNECT that is read, in bytes; a larger one ends the connection. Ours have 60.
const CONNECT_BYTES: u32 = 16 * 1024;

/// Why there is no CONNECT.
#[derive(Debug, thiserror::Error)]
#[error("the client's first packet is not an MQTT CONNECT of at most {CONNECT_BYTES} bytes: {0}")]
pub struct NoConnect(String);

/// Reads a CONNECT out of what has come so far.
#[derive(Debug)]
pub struct Greeting {
    codec: MqttCodec,
}

impl Default for Greeting {
    fn default() -> Self {
        Self { codec: MqttCodec::Version(VersionCodec) }
    }
}

impl Greeting {
    /// The CONNECT once all of it is in `read`, which keeps what comes after it.
    ///
    /// # Errors
    /// It is none.
    pub fn read(&mut self, read: &mut BytesMut) -> Result<Option<Connect>, NoConnect> {
        let mut next = || self.codec.decode(read).map_err(|error| NoConnect(error.to_string()));
        let packet = match next()? {
            Some((MqttPacket::Version(version), _)) => {
                self.codec = match version {
                    ProtocolVersion::MQTT3 => MqttCodec::V3(v3::Codec::new(CONNECT_BYTES)),
                    ProtocolVersion::MQTT5 => {
                        MqttCodec::V5(v5::Codec::new(CONNECT_BYTES, CONNECT_BYTES))
                    }
                };
                self.codec.decode(read).map_err(|error| NoConnect(error.to_string()))?
            }
            packet => packet,
        };
        match packet {
            None => Ok(None),
            Some((MqttPacket::V3(v3::Packet::Connect(connect)), _)) => {
                Ok(Some(Connect::V3(connect)))
            }
            Some((MqttPacket::V5(v5::Packet::Connect(connect)), _)) => {
                Ok(Some(Connect::V5(connect)))
            }
            Some(_) => Err(NoConnect("another packet".into())),
        }
    }
}

/// A CONNECT.
#[derive(Debug)]
pub enum Connect {
    /// Of MQTT 3.1 or 3.1.1.
    V3(Box<v3::Connect>),
    /// Of MQTT 5.
    V5(Box<v5::Connect>),
}

impl Connect {
    /// The same with another user name and password, as bytes.
    ///
    /// # Errors
    /// The codec cannot write what it has read, which would be its fault.
    pub fn introduced(self, name: &str, secret: &str) -> Result<BytesMut, NoConnect> {
        let (name, secret) = (Some(name.to_owned().into()), Some(secret.to_owned().into()));
        match self {
            Self::V3(mut connect) => {
                (connect.username, connect.password) = (name, secret);
                write(v3_codec(), MqttPacket::V3(v3::Packet::Connect(connect)))
            }
            Self::V5(mut connect) => {
                (connect.username, connect.password) = (name, secret);
                write(v5_codec(), MqttPacket::V5(v5::Packet::Connect(connect)))
            }
        }
    }

    /// What ends a session when its client id has connected again, as bytes: the older protocol has no
    /// words for it.
    ///
    /// # Errors
    /// As above.
    pub fn taken_over(&self) -> Result<BytesMut, NoConnect> {
        match self {
            Self::V3(_) => Ok(BytesMut::new()),
            Self::V5(_) => {
                let reason_code = v5::DisconnectReasonCode::SessionTakenOver;
                let why = v5::Disconnect { reason_code, ..v5::Disconnect::default() };
                write(v5_codec(), MqttPacket::V5(v5::Packet::Disconnect(why)))
            }
        }
    }

    /// The answer "not authorised", as bytes.
    ///
    /// # Errors
    /// As above.
    pub fn refusal(&self) -> Result<BytesMut, NoConnect> {
        match self {
            Self::V3(_) => {
                let return_code = AckV3::NotAuthorized;
                let ack = v3::ConnectAck { return_code, session_present: false };
                write(v3_codec(), MqttPacket::V3(v3::Packet::ConnectAck(ack)))
            }
            Self::V5(_) => {
                let reason_code = AckV5::NotAuthorized;
                let ack = v5::ConnectAck { reason_code, ..v5::ConnectAck::default() };
                write(v5_codec(), MqttPacket::V5(v5::Packet::ConnectAck(Box::new(ack))))
            }
        }
    }
}

fn v3_codec() -> MqttCodec {
    MqttCodec::V3(v3::Codec::new(0))
}

fn v5_codec() -> MqttCodec {
    MqttCodec::V5(v5::Codec::new(0, 0))
}

fn write(mut codec: MqttCodec, packet: MqttPacket) -> Result<BytesMut, NoConnect> {
    let mut bytes = BytesMut::new();
    codec.encode(packet, &mut bytes).map_err(|error| NoConnect(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A CONNECT of each version, as bytes.
    fn connects() -> [BytesMut; 2] {
        let v3 = v3::Connect {
            protocol: rmqtt::codec::types::Protocol::default(),
            clean_session: true,
            keep_alive: 30,
            last_will: None,
            client_id: "dev-a".into(),
            username: Some("somebody".into()),
            password: None,
            cert: None,
        };
        let v5 = v5::Connect {
            clean_start: true,
            keep_alive: 30,
            topic_alias_max: 3,
            user_properties: vec![("key".into(), "value".into())],
            client_id: "dev-a".into(),
            last_will: Some(v5::LastWill {
                qos: rmqtt::codec::types::QoS::AtLeastOnce,
                retain: false,
                topic: "topic".into(),
                message: "gone".to_owned().into(),
                will_delay_interval_sec: Some(1),
                correlation_data: None,
                message_expiry_interval: None,
                content_type: None,
                user_properties: Vec::new(),
                is_utf8_payload: Some(true),
                response_topic: None,
            }),
            ..v5::Connect::default()
        };
        [
            write(v3_codec(), MqttPacket::V3(v3::Packet::Connect(Box::new(v3)))).unwrap(),
            write(v5_codec(), MqttPacket::V5(v5::Packet::Connect(Box::new(v5)))).unwrap(),
        ]
    }

    fn read(bytes: &[u8]) -> Connect {
        Greeting::default().read(&mut BytesMut::from(bytes)).unwrap().unwrap()
    }

    #[test]
    fn name_and_secret_are_changed_and_nothing_else() {
        for bytes in connects() {
            let introduced = read(&bytes).introduced("dev-a", "secret").unwrap();
            match (read(&bytes), read(&introduced)) {
                (Connect::V3(before), Connect::V3(mut after)) => {
                    assert_eq!(after.username.take().as_deref(), Some("dev-a"));
                    assert_eq!(after.password.take().as_deref(), Some(&b"secret"[..]));
                    after.username.clone_from(&before.username);
                    assert_eq!(after, before);
                }
                (Connect::V5(before), Connect::V5(mut after)) => {
                    assert_eq!(after.username.take().as_deref(), Some("dev-a"));
                    assert_eq!(after.password.take().as_deref(), Some(&b"secret"[..]));
                    assert_eq!(after, before);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_connect_larger_than_its_limit_is_refused_by_its_length() {
        // 2 MiB are announced.
        let mut bytes = BytesMut::from(&b"\x10\x80\x80\x80\x01\0\x04MQTT\x05\x02\0\0"[..]);
        assert!(Greeting::default().read(&mut bytes).is_err());
        assert!(bytes.capacity() < 64 * 1024);
    }

    proptest! {
        #[test]
        fn it_is_read_in_any_pieces_and_what_follows_is_kept(
            which in 0usize..2,
            pieces in prop::collection::vec(1usize..20, 1..20),
            rest in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let bytes = [&connects()[which][..], &rest].concat();
            let (mut greeting, mut buffer) = (Greeting::default(), BytesMut::new());
            let (mut at, mut pieces) = (0, pieces.into_iter().cycle());
            let connect = loop {
                prop_assert!(at < bytes.len(), "never read");
                let end = (at + pieces.next().unwrap()).min(bytes.len());
                buffer.extend_from_slice(&bytes[at..end]);
                at = end;
                if let Some(connect) = greeting.read(&mut buffer).unwrap() {
                    break connect;
                }
            };
            buffer.extend_from_slice(&bytes[at..]);
            prop_assert_eq!(&buffer[..], &rest[..]);
            prop_assert!(matches!((which, connect), (0, Connect::V3(_)) | (1, Connect::V5(_))));
        }

        #[test]
        fn no_bytes_end_the_process(
            begin in prop_oneof![Just(&b""[..]), Just(&b"\x10\x20\0\x04MQTT\x05"[..]), Just(&b"\x10\x20\0\x04MQTT\x04"[..])],
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = Greeting::default().read(&mut BytesMut::from(&[begin, &bytes].concat()[..]));
        }
    }
}
