//! A device: its keys, what it signs, and its MQTT connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use fleetloop_protocol::enrol::{EnrolRequest, EnrolResponse, proof_message};
use fleetloop_protocol::keys::{KeyRing, SigningKey};
use fleetloop_protocol::receipt::{Receipt, Refusal};
use fleetloop_protocol::renew::{RenewRequest, renew_message};
use fleetloop_protocol::sample::{
    MediaType, Payload, Prediction, SampleHeader, SampleMessage, Selection, commitment,
};
use fleetloop_protocol::signed::Signable;
use fleetloop_protocol::token::EnrolmentToken;
use fleetloop_protocol::topic::{Kind, Topic};
use fleetloop_protocol::{
    BundleDigest, ClockState, DeviceId, Digest, Epoch, SampleId, Sequence, Signed, UnixMillis,
    Verified, wire,
};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, PubAckReason, Publish, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::rig::Rig;

/// How long anything may take before a test gives up: generous, for a machine that compiles.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The salt of every sample.
pub const SALT: [u8; 16] = [7; 16];

/// A picture of one pixel, whose bytes end in `tail`: what comes behind its end marker is allowed.
pub fn picture(tail: &[u8]) -> Vec<u8> {
    [PIXEL, tail].concat()
}

/// A whole PNG: grey, one pixel.
pub const PIXEL: &[u8] = b"\x89PNG\x0d\x0a\x1a\x0a\x00\x00\x00\x0dIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00:~\x9bU\x00\x00\x00\x0aIDATx\x9cch\x00\x00\x00\x82\x00\x81w\xcdr\xb6\x00\x00\x00\x00IEND\xaeB`\x82";

pub struct Device {
    pub id: DeviceId,
    pub signing: SigningKey,
    tls_key: rcgen::KeyPair,
    certificate_pem: String,
    ca_pem: String,
}

impl Device {
    /// A device before it enrols.
    pub fn new() -> Self {
        Self {
            id: "nobody".parse().unwrap(),
            signing: SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap(),
            tls_key: rcgen::KeyPair::generate().unwrap(),
            certificate_pem: String::new(),
            ca_pem: String::new(),
        }
    }

    /// What it sends to enrol.
    pub fn request(&self, token: &EnrolmentToken) -> EnrolRequest {
        let csr = rcgen::CertificateParams::default().serialize_request(&self.tls_key).unwrap();
        let csr_pem = csr.pem().unwrap();
        let proof = self.signing.sign(&proof_message(&token.secret, &csr_pem));
        EnrolRequest {
            secret: Digest::from_bytes(token.secret).to_string(),
            signing_key: self.signing.public(),
            csr_pem,
            proof: base64::engine::general_purpose::STANDARD.encode(proof),
            agent_version: "test".into(),
        }
    }

    /// What it sends to have a certificate for `key`, signed by its enrolled key.
    pub fn renewal(&self, key: &rcgen::KeyPair) -> RenewRequest {
        let csr = rcgen::CertificateParams::default().serialize_request(key).unwrap();
        let csr_pem = csr.pem().unwrap();
        let proof = self.signing.sign(&renew_message(&self.id, &csr_pem));
        RenewRequest {
            device: self.id.clone(),
            csr_pem,
            proof: base64::engine::general_purpose::STANDARD.encode(proof),
            agent_version: "test".into(),
        }
    }

    /// Goes on with another key and the certificate for it.
    pub fn renewed(&mut self, key: rcgen::KeyPair, certificate_pem: String) {
        self.tls_key = key;
        self.certificate_pem = certificate_pem;
    }

    /// A copy of the key it has now.
    pub fn tls_key(&self) -> rcgen::KeyPair {
        rcgen::KeyPair::from_pem(&self.tls_key.serialize_pem()).unwrap()
    }

    /// The request for a certificate with the key it has now.
    pub fn csr_pem(&self) -> String {
        let csr = rcgen::CertificateParams::default().serialize_request(&self.tls_key).unwrap();
        csr.pem().unwrap()
    }

    /// Takes what the hub answered.
    pub fn take(&mut self, answer: EnrolResponse) {
        self.id = answer.device;
        self.certificate_pem = answer.certificate_pem;
        self.ca_pem = answer.ca_pem;
    }

    /// The TLS side of the device, with its certificate.
    pub fn tls(&self) -> ClientConfig {
        let chain = CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes())
            .collect::<Result<_, _>>()
            .unwrap();
        let key = PrivateKeyDer::from_pem_slice(self.tls_key.serialize_pem().as_bytes()).unwrap();
        let roots = roots(&self.ca_pem);
        ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap()
    }

    /// The same without a certificate.
    pub fn tls_without_certificate(&self) -> ClientConfig {
        ClientConfig::builder().with_root_certificates(roots(&self.ca_pem)).with_no_client_auth()
    }

    /// An HTTPS client with its certificate.
    pub fn http(&self) -> reqwest::Client {
        client(self.tls())
    }

    /// The message of its sample `sequence`, a [`picture`] with that tail.
    pub fn sample(&self, sequence: u64, tail: &[u8]) -> Vec<u8> {
        wire::encode(&self.sample_message(sequence, tail)).unwrap()
    }

    pub fn sample_message(&self, sequence: u64, tail: &[u8]) -> SampleMessage {
        self.message_of(sequence, MediaType::Png, &picture(tail))
    }

    /// The message of its sample `sequence` with that payload, whatever it is.
    pub fn message_of(
        &self,
        sequence: u64,
        media_type: MediaType,
        payload: &[u8],
    ) -> SampleMessage {
        let salt = SALT;
        let header = SampleHeader {
            id: SampleId {
                device: self.id.clone(),
                // Above 2^63, where a signed column would turn negative.
                epoch: Epoch(u64::MAX - 5),
                sequence: Sequence(sequence),
            },
            previous: Digest::ZERO,
            captured_at: UnixMillis(1),
            clock: ClockState::Unsynced,
            model: BundleDigest(Digest::of(b"model")),
            config: Digest::of(b"config"),
            media_type,
            payload_len: u32::try_from(payload.len()).unwrap(),
            commitment: commitment(&salt, payload),
            selection: Selection::Uncertain { score: 0.5 },
            predictions: vec![Prediction { class: 1, probability: 0.5 }],
        };
        let header = Signed::seal(&header, &self.id, &self.signing).unwrap();
        SampleMessage::new(header, salt, Payload::Inline(payload.to_vec()))
    }

    /// The message of its sample `sequence`, which says that the payload was uploaded.
    pub fn uploaded(&self, sequence: u64, payload: &[u8]) -> Vec<u8> {
        let message = self.message_of(sequence, MediaType::Png, payload);
        wire::encode(&SampleMessage { payload: Payload::Uploaded, ..message }).unwrap()
    }

    /// A connection under its own name, listening to its answers.
    pub async fn connect(&self, rig: &Rig) -> Mqtt {
        let mut mqtt = Mqtt::open(rig, self.id.as_str(), self.tls(), None).await.unwrap();
        for kind in [Kind::Receipt, Kind::Refusal, Kind::Desired] {
            let code = mqtt.subscribe(&Topic::new(&self.id, kind).to_string()).await;
            assert_eq!(code, SubscribeReasonCode::Success(QoS::AtLeastOnce));
        }
        mqtt
    }
}

pub fn client(tls: ClientConfig) -> reqwest::Client {
    reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap()
}

fn roots(ca_pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    roots
}

/// An MQTT connection; what arrives while something else is waited for is kept.
pub struct Mqtt {
    client: AsyncClient,
    events: EventLoop,
    inbox: VecDeque<Publish>,
}

impl Mqtt {
    /// Connects as `client_id`.
    pub async fn open(
        rig: &Rig,
        client_id: &str,
        tls: ClientConfig,
        will: Option<LastWill>,
    ) -> Result<Self, String> {
        let mut options = MqttOptions::new(client_id, "localhost", rig.config.mqtt_listen.port());
        options
            .set_max_packet_size(Some(1 << 20))
            .set_outgoing_inflight_upper_limit(16)
            .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls))));
        if let Some(will) = will {
            options.set_last_will(will);
        }
        let (client, events) = AsyncClient::new(options, 1024);
        let mut mqtt = Self { client, events, inbox: VecDeque::new() };
        mqtt.until(|packet| matches!(packet, Packet::ConnAck(_)).then_some(())).await?;
        Ok(mqtt)
    }

    /// Polls until `wanted` finds what it wants; an error of the connection ends it.
    async fn until<T>(
        &mut self,
        mut wanted: impl FnMut(&Packet) -> Option<T>,
    ) -> Result<T, String> {
        let polling = async {
            loop {
                match self.events.poll().await {
                    Ok(Event::Incoming(packet)) => {
                        if let Packet::Publish(publish) = &packet {
                            self.inbox.push_back(publish.clone());
                        }
                        if let Some(found) = wanted(&packet) {
                            return Ok(found);
                        }
                    }
                    Ok(Event::Outgoing(_)) => {}
                    Err(error) => return Err(error.to_string()),
                }
            }
        };
        tokio::time::timeout(PATIENCE, polling).await.expect("nothing came in a long time")
    }

    pub async fn subscribe(&mut self, filter: &str) -> SubscribeReasonCode {
        self.client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        let found = self.until(|packet| match packet {
            Packet::SubAck(ack) => ack.return_codes.first().copied(),
            _ => None,
        });
        found.await.unwrap()
    }

    /// Hands a message over without waiting for anything.
    pub async fn send(&self, topic: &Topic, payload: Vec<u8>) {
        self.client.publish(topic.to_string(), QoS::AtLeastOnce, false, payload).await.unwrap();
    }

    /// Publishes and waits for the broker's verdict.
    pub async fn publish(&mut self, topic: &str, payload: Vec<u8>) -> PubAckReason {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).await.unwrap();
        let found = self.until(|packet| match packet {
            Packet::PubAck(ack) => Some(ack.reason),
            _ => None,
        });
        found.await.unwrap()
    }

    /// The next message on the topic of that kind.
    pub async fn next(&mut self, device: &DeviceId, kind: Kind) -> Vec<u8> {
        let topic = Topic::new(device, kind).to_string();
        loop {
            let place = self.inbox.iter().position(|publish| publish.topic == topic.as_bytes());
            if let Some(publish) = place.and_then(|place| self.inbox.remove(place)) {
                return publish.payload.to_vec();
            }
            self.until(|packet| matches!(packet, Packet::Publish(_)).then_some(())).await.unwrap();
        }
    }

    /// The next receipt, verified, and its bytes.
    pub async fn receipt(&mut self, device: &DeviceId, keys: &KeyRing) -> (Receipt, Vec<u8>) {
        let bytes = self.next(device, Kind::Receipt).await;
        (open::<Receipt>(&bytes, device, keys), bytes)
    }

    /// The next refusal, verified.
    pub async fn refusal(&mut self, device: &DeviceId, keys: &KeyRing) -> Refusal {
        open(&self.next(device, Kind::Refusal).await, device, keys)
    }

    /// Whether a message of that kind arrives within `time`.
    pub async fn hears(&mut self, device: &DeviceId, kind: Kind, time: Duration) -> bool {
        tokio::time::timeout(time, self.next(device, kind)).await.is_ok()
    }

    /// Waits until the connection ends.
    pub async fn ended(&mut self) -> String {
        self.until(|packet| matches!(packet, Packet::Disconnect(_)).then_some(()))
            .await
            .map_or_else(|error| error, |()| "disconnected".into())
    }
}

fn open<T: Signable>(bytes: &[u8], device: &DeviceId, keys: &KeyRing) -> T {
    Verified::<T>::open(bytes, device, keys).unwrap().into_inner()
}
