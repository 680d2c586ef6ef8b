//! Certificates that are renewed, with and without the one before.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fleet_hub::clock::Clock;
use fleetloop_protocol::UnixMillis;
use fleetloop_protocol::renew::{RENEW_PATH, RenewRequest, RenewResponse, renew_message};
use rcgen::KeyPair;

use crate::device::{Device, Mqtt, client};
use crate::rig::Rig;

const DAY_MS: u64 = 24 * 3600 * 1000;

/// Asks as a client that shows no certificate.
async fn ask(rig: &Rig, device: &Device, request: &RenewRequest) -> reqwest::Response {
    let url = format!("{}{RENEW_PATH}", rig.config.device_url());
    client(device.tls_without_certificate()).post(url).json(request).send().await.unwrap()
}

async fn renew(rig: &Rig, device: &mut Device) {
    let key = KeyPair::generate().unwrap();
    let answer = ask(rig, device, &device.renewal(&key)).await;
    assert_eq!(answer.status(), 200);
    device.renewed(key, answer.json::<RenewResponse>().await.unwrap().certificate_pem);
}

/// Gives the device a certificate that ended yesterday.
fn expire(rig: &Rig, device: &mut Device) {
    let pki = fleet_hub::pki::Pki::load(&rig.config.paths).unwrap();
    let then = UnixMillis(Clock::system().now().0 - 31 * DAY_MS);
    let issued = pki
        .authority
        .device(&device.id, &device.signing.public(), &device.csr_pem(), then, 30)
        .unwrap();
    let key = device.tls_key();
    device.renewed(key, issued.pem);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_gets_nothing_but_its_device_renews_it_by_the_enrolled_key() {
    let rig = Rig::start().await;
    let mut device = rig.enrol().await;
    expire(&rig, &mut device);
    assert!(Mqtt::open(&rig, device.id.as_str(), device.tls(), None).await.is_err());
    let url = format!("{}/tuf/dev/1.root.json", rig.config.device_url());
    assert!(device.http().get(&url).send().await.is_err());
    renew(&rig, &mut device).await;
    assert_eq!(device.http().get(&url).send().await.unwrap().status(), 200);
    let mut session = device.connect(&rig).await;
    let topic =
        fleetloop_protocol::topic::Topic::new(&device.id, fleetloop_protocol::topic::Kind::Sample);
    session.send(&topic, device.sample(0, b"x")).await;
    session.receipt(&device.id, &rig.receipt_keys()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_before_stays_good_and_the_newest_is_kept() {
    let rig = Rig::start().await;
    let mut device = rig.enrol().await;
    let before = device.http();
    renew(&rig, &mut device).await;
    let url = format!("{}/tuf/dev/1.root.json", rig.config.device_url());
    for http in [before, device.http()] {
        assert_eq!(http.get(&url).send().await.unwrap().status(), 200);
    }
    let kept = "SELECT count(*) FROM device WHERE renewed_pem IS NOT NULL
                AND renewed_pem <> certificate_pem AND certificate_ends_ms > 0";
    assert_eq!(rig.count(kept), 1);
    assert_eq!(rig.count("SELECT count(*) FROM audit WHERE action = 'device.renew'"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_gives_a_certificate_for_the_key_of_its_sender_only() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let key = KeyPair::generate().unwrap();
    let request = device.renewal(&key);
    for _ in 0..2 {
        let answer: RenewResponse = ask(&rig, &device, &request).await.json().await.unwrap();
        let pem = pem::certificate(&answer.certificate_pem);
        let (_, parsed) = x509_parser::parse_x509_certificate(&pem).unwrap();
        let own = rcgen::PublicKeyData::subject_public_key_info(&key);
        assert_eq!(parsed.public_key().raw, own);
        let name = parsed.subject().iter_common_name().next().unwrap().as_str().unwrap();
        assert_eq!(name, device.id.as_str());
    }
}

mod pem {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    /// The first certificate, DER.
    pub fn certificate(text: &str) -> Vec<u8> {
        CertificateDer::from_pem_slice(text.as_bytes()).unwrap().to_vec()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_renews_without_the_enrolled_key_and_the_answer_tells_no_device() {
    let rig = Rig::start().await;
    let (device, thief, revoked) = (rig.enrol().await, rig.enrol().await, rig.enrol().await);
    rig.revoke(&revoked.id).await;
    let key = KeyPair::generate().unwrap();
    let good = device.renewal(&key);
    let sign = |who: &Device, message: &[u8]| BASE64.encode(who.signing.sign(message));
    // Another device's key under this one's name; its own proof under this name.
    let mut forged = thief.renewal(&key);
    forged.device = device.id.clone();
    let mut signed_by_thief = good.clone();
    signed_by_thief.proof = sign(&thief, &renew_message(&device.id, &good.csr_pem));
    let mut other_request = good.clone();
    other_request.csr_pem = thief.renewal(&KeyPair::generate().unwrap()).csr_pem;
    let mut unknown = good.clone();
    unknown.device = "dev-nobody".parse().unwrap();
    unknown.proof = sign(&device, &renew_message(&unknown.device, &good.csr_pem));
    let mut answers = Vec::new();
    for (what, request) in [
        ("another's request", forged),
        ("another's signature", signed_by_thief),
        ("another certificate request", other_request),
        ("an unknown device", unknown),
        ("a revoked device", revoked.renewal(&key)),
    ] {
        let answer = ask(&rig, &device, &request).await;
        assert_eq!(answer.status(), 403, "{what}");
        answers.push(answer.text().await.unwrap().replace(request.device.as_str(), "it"));
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
    assert_eq!(rig.count("SELECT count(*) FROM device WHERE renewed_pem IS NOT NULL"), 0);
    assert_eq!(ask(&rig, &device, &good).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_too_long_or_of_another_kind_of_key_is_refused() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let mut request = device.renewal(&KeyPair::generate().unwrap());
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    request.csr_pem = device.renewal(&key).csr_pem;
    let message = renew_message(&device.id, &request.csr_pem);
    request.proof = BASE64.encode(device.signing.sign(&message));
    let refused = ask(&rig, &device, &request).await;
    assert_eq!(refused.status(), 400);
    assert!(refused.text().await.unwrap().contains("P-256"));
    request.agent_version = "x".repeat(20_000);
    assert_eq!(ask(&rig, &device, &request).await.status(), 413);
}
