//! Who is let in.

use fleet_hub::release;
use rcgen::{CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::LastWill;
use rustls::ClientConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

use crate::device::{Mqtt, client};
use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_a_certificate_gets_no_session_and_no_answer() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let naked = device.tls_without_certificate();
    assert!(Mqtt::open(&rig, device.id.as_str(), naked.clone(), None).await.is_err());
    // What a device needs that lost its certificate or its hub: the time, what is signed, renewing.
    let base = rig.config.device_url();
    let http = client(naked);
    let digest = fleetloop_protocol::Digest::of(b"x");
    let (artefact, payload) = (format!("artefacts/{digest}"), format!("payloads/{digest}"));
    let target = format!("tuf/dev/targets/{digest}.hub-keys.json");
    for (path, status) in [
        (artefact.as_str(), 403),
        (payload.as_str(), 403),
        (target.as_str(), 404),
        ("time", 200),
        ("tuf/dev/1.root.json", 200),
        ("tuf/dev/timestamp.json", 200),
    ] {
        let answer = http.get(format!("{base}/{path}")).send().await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
    }
    let answer = device.http().get(format!("{base}/tuf/dev/1.root.json")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_gets_no_session_and_no_answer() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::default();
    leaf.distinguished_name.push(DnType::CommonName, device.id.as_str());
    let leaf = leaf.signed_by(&key, &ca).unwrap();
    let private = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let ca_pem = std::fs::read(fleet_hub::pki::ca_pem(&rig.config.paths)).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(&ca_pem).unwrap()).unwrap();
    let forged = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![leaf.der().clone()], private)
        .unwrap();
    assert!(Mqtt::open(&rig, device.id.as_str(), forged.clone(), None).await.is_err());
    let url = format!("{}/time", rig.config.device_url());
    assert!(client(forged).get(&url).send().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_claims_anothers_client_id_gets_no_session_and_disturbs_none() {
    let rig = Rig::start().await;
    let (victim, thief) = (rig.enrol().await, rig.enrol().await);
    let mut session = victim.connect(&rig).await;
    for claimed in [victim.id.as_str(), "hub", "stranger"] {
        assert!(Mqtt::open(&rig, claimed, thief.tls(), None).await.is_err(), "{claimed:?}");
    }
    // The victim's session and the hub's still work.
    session.send(&sample_topic(&victim.id), victim.sample(0, b"x")).await;
    session.receipt(&victim.id, &rig.receipt_keys()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_on_anothers_topic_gets_no_session() {
    let rig = Rig::start().await;
    let (victim, thief) = (rig.enrol().await, rig.enrol().await);
    let will = |topic: String| Some(LastWill::new(topic, "x", QoS::AtLeastOnce, false, None));
    let forged = will(sample_topic(&victim.id).to_string());
    assert!(Mqtt::open(&rig, thief.id.as_str(), thief.tls(), forged).await.is_err());
    let own = will(sample_topic(&thief.id).to_string());
    assert!(Mqtt::open(&rig, thief.id.as_str(), thief.tls(), own).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_kicked_and_refused_everywhere() {
    let rig = Rig::start().await;
    let (device, other) = (rig.enrol().await, rig.enrol().await);
    let http = device.http();
    let digest = fleetloop_protocol::Digest::of(b"x");
    let url = format!("{}/artefacts/{digest}", rig.config.device_url());
    assert_eq!(http.get(&url).send().await.unwrap().status(), 404);
    let mut session = device.connect(&rig).await;
    let mut others = other.connect(&rig).await;
    rig.revoke(&device.id).await;
    session.ended().await;
    assert!(Mqtt::open(&rig, device.id.as_str(), device.tls(), None).await.is_err());
    // On the connection that it had open, too.
    assert_eq!(http.get(&url).send().await.unwrap().status(), 403);
    others.send(&sample_topic(&other.id), other.sample(0, b"x")).await;
    others.receipt(&other.id, &rig.receipt_keys()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_signed_before_it_was_revoked_is_not_stored_after() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let sample = device.sample(0, b"x");
    let id = device.id.clone();
    let now = rig.state().clock.now();
    let verified = fleetloop_protocol::sample::VerifiedSample::open(
        &sample,
        &id,
        &fleetloop_protocol::keys::KeyRing::from_iter([device.signing.public()]),
    )
    .unwrap();
    rig.revoke(&device.id).await;
    let outcome = rig
        .state()
        .store
        .write(move |tx| {
            let payload = fleetloop_protocol::Digest::of(b"x");
            fleet_hub::store::ingest::store_sample(
                tx,
                &verified,
                payload,
                b"receipt",
                fleet_hub::store::ingest::Via::Link,
                now,
            )
        })
        .await
        .unwrap();
    assert_eq!(outcome, fleet_hub::store::ingest::Outcome::Revoked);
    assert_eq!(rig.count("SELECT count(*) FROM sample"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_key_inside_the_data_directory_stops_the_hub() {
    let mut rig = Rig::start().await;
    rig.stop().await;
    let offline = std::fs::read_dir(rig.dir.path().join("offline")).unwrap();
    for key in offline {
        let key = key.unwrap().path();
        std::fs::copy(&key, rig.config.paths.data.join("forgotten")).unwrap();
    }
    assert!(release::refuse_root_key_inside(&rig.config.paths.data).is_err());
    let clock = fleet_hub::clock::Clock::system();
    let started = Box::pin(fleet_hub::serve::Hub::start(rig.config.clone(), clock)).await;
    let Err(error) = started else { panic!("it serves") };
    assert!(error.to_string().contains("root key"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_another_host_gets_nothing_from_either_listener() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    for (http, base) in
        [(rig.http(), rig.config.admin_url()), (device.http(), rig.config.device_url())]
    {
        for path in ["healthz", "time", "login", "api/v1/status", "tuf/dev/1.root.json"] {
            let url = format!("{base}/{path}");
            let other = http.get(&url).header("host", "evil.example").send().await.unwrap();
            assert_eq!(other.status(), 421, "{url}");
            let ours = http.get(&url).header("host", "localhost").send().await.unwrap();
            assert_ne!(ours.status(), 421, "{url}");
        }
    }
}

fn sample_topic(device: &fleetloop_protocol::DeviceId) -> fleetloop_protocol::topic::Topic {
    fleetloop_protocol::topic::Topic::new(device, fleetloop_protocol::topic::Kind::Sample)
}
