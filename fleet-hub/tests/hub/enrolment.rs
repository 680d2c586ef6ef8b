//! Tokens and who may use them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fleet_hub::clock::Clock;
use fleet_hub::enrol;
use fleetloop_protocol::Digest;
use fleetloop_protocol::UnixMillis;
use fleetloop_protocol::enrol::{ENROL_ROOT_PATH, EnrolResponse, proof_message};

use crate::device::Device;
use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_names_the_authority_and_the_root_that_the_hub_serves() {
    let rig = Rig::start().await;
    let token = rig.token().await;
    assert_eq!(token.hub, rig.config.admin_url());
    let root = rig.http().get(format!("{}{ENROL_ROOT_PATH}", token.hub)).send().await.unwrap();
    assert_eq!(Digest::of(&root.bytes().await.unwrap()), token.root);
    assert_eq!(fleet_hub::pki::ca_digest(&rig.config.paths).unwrap(), token.ca);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_token_answers_its_own_device_again_and_refuses_every_other() {
    let rig = Rig::start().await;
    let token = rig.token().await;
    let (device, thief) = (Device::new(), Device::new());
    let first = rig.post_enrolment(&device.request(&token)).await;
    let first: EnrolResponse = first.json().await.unwrap();
    // The reply was lost: the same device asks again.
    let again = rig.post_enrolment(&device.request(&token)).await;
    assert_eq!(again.json::<EnrolResponse>().await.unwrap(), first);
    let refused = rig.post_enrolment(&thief.request(&token)).await;
    assert_eq!(refused.status(), 409);
    assert!(refused.text().await.unwrap().contains("the token is used"));
    assert_eq!(rig.count("SELECT count(*) FROM device"), 1);
    rig.revoke(&first.device).await;
    assert_eq!(rig.post_enrolment(&device.request(&token)).await.status(), 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_devices_with_one_token_at_the_same_time_are_one_device() {
    let rig = Rig::start().await;
    let token = rig.token().await;
    let devices: Vec<Device> = (0..6).map(|_| Device::new()).collect();
    let requests: Vec<_> = devices.iter().map(|device| device.request(&token)).collect();
    let answers = requests.iter().map(|request| rig.post_enrolment(request));
    let answers = futures::future::join_all(answers).await;
    let let_in = answers.iter().filter(|answer| answer.status() == 200).count();
    assert_eq!(let_in, 1);
    assert_eq!(rig.count("SELECT count(*) FROM device"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_proves_too_little_is_refused_and_uses_nothing_up() {
    let rig = Rig::start().await;
    let token = rig.token().await;
    let (device, other) = (Device::new(), Device::new());
    let good = device.request(&token);
    let foreign = other.request(&token);
    let mut no_proof = good.clone();
    no_proof.proof = foreign.proof.clone();
    let mut others_csr = good.clone();
    others_csr.csr_pem = foreign.csr_pem.clone();
    let mut others_key = good.clone();
    others_key.signing_key = foreign.signing_key;
    let mut broken_csr = good.clone();
    broken_csr.csr_pem = damaged(&good.csr_pem);
    // The proof holds; only the certificate request's own signature does not.
    let proof = device.signing.sign(&proof_message(&token.secret, &broken_csr.csr_pem));
    broken_csr.proof = BASE64.encode(proof);
    let mut wrong_secret = good.clone();
    wrong_secret.secret = Digest::of(b"guess").to_string();
    for (what, request) in [
        ("another's proof", no_proof),
        ("another's certificate request", others_csr),
        ("another's signing key", others_key),
        ("a damaged certificate request", broken_csr),
        ("a wrong secret", wrong_secret),
    ] {
        let status = rig.post_enrolment(&request).await.status();
        assert!(status.is_client_error(), "{what}: {status}");
    }
    let long = rig.http().post(format!("{}/enrol", token.hub)).body(vec![b'x'; 100_000]);
    let status = long.header("content-type", "application/json").send().await.unwrap().status();
    assert_eq!(status, 413);
    assert_eq!(rig.count("SELECT count(*) FROM device"), 0);
    assert_eq!(rig.post_enrolment(&good).await.status(), 200);
}

/// The request with the last bit of its signature turned.
fn damaged(csr_pem: &str) -> String {
    let lines: Vec<&str> = csr_pem.lines().filter(|line| !line.starts_with('-')).collect();
    let mut der = BASE64.decode(lines.concat()).unwrap();
    *der.last_mut().unwrap() ^= 1;
    format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        BASE64.encode(der)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_request_with_another_kind_of_key_is_refused() {
    let rig = Rig::start().await;
    let token = rig.token().await;
    let device = Device::new();
    let mut request = device.request(&token);
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let proof = proof_message(&token.secret, &csr);
    request.proof = BASE64.encode(device.signing.sign(&proof));
    request.csr_pem = csr;
    let refused = rig.post_enrolment(&request).await;
    assert_eq!(refused.status(), 400);
    assert!(refused.text().await.unwrap().contains("P-256"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_lets_nobody_in() {
    let rig = Rig::start().await;
    let mut state = rig.state().clone();
    let clock = Clock::manual(UnixMillis(Clock::system().now().0 - 61_000));
    state.clock = clock;
    let token = enrol::new_token(&state, "late", 60, "test").await.unwrap();
    let token = token.token.parse().unwrap();
    let refused = rig.post_enrolment(&Device::new().request(&token)).await;
    assert_eq!(refused.status(), 409);
    assert!(refused.text().await.unwrap().contains("expired"));
    assert!(enrol::new_token(&state, "late", 24 * 3600 + 1, "test").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_secrets_and_proofs_are_slowed_and_a_right_one_is_taken_from_the_same_address() {
    let rig = Rig::start().await;
    let enrolled = rig.enrol().await;
    let token = rig.token().await;
    let device = Device::new();
    let good = device.request(&token);
    let mut wrong_token = rig.token().await;
    wrong_token.secret = [7; 32];
    let wrong = device.request(&wrong_token);
    for n in 0..10 {
        assert_eq!(rig.post_enrolment(&wrong).await.status(), 403, "{n}");
    }
    let slowed = rig.post_enrolment(&wrong).await;
    assert_eq!(slowed.status(), 429);
    assert_eq!(slowed.headers()["retry-after"].as_bytes(), b"1");
    assert_eq!(rig.post_enrolment(&good).await.status(), 200);
    // At every door of that address, and never for who holds a right key.
    let bearer = rig.http().get(format!("{}/api/v1/status", rig.config.admin_url()));
    assert_eq!(bearer.bearer_auth("fleethub1_guess").send().await.unwrap().status(), 429);
    let url = format!("{}/tuf/dev/1.root.json", rig.config.device_url());
    assert_eq!(enrolled.http().get(url).send().await.unwrap().status(), 200);
    let wrong = rig.state().watch.failures();
    assert_eq!((wrong["enrol"], wrong["bearer"]), (11, 1));
}
