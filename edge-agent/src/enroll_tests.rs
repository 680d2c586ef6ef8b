//! Enrolment against a real TLS server.

use std::os::unix::fs::PermissionsExt as _;

use fleetloop_protocol::UnixMillis;

use super::*;
use crate::identity::Identity;
use crate::testing::{Ca, SECRET, TestHub, clock};

async fn hub() -> TestHub {
    crate::tls::install_provider();
    TestHub::start(b"{\"root\": 1}".to_vec()).await
}

#[tokio::test]
async fn a_token_becomes_an_identity_whose_keys_are_the_owners_only() {
    let (hub, dir) = (hub().await, tempfile::tempdir().unwrap());
    let enrolled = enroll_at(&hub.token(), dir.path(), &clock().0).await.unwrap();
    assert_eq!(enrolled.device.as_str(), "dev-test");
    let identity = Identity::load(dir.path()).unwrap();
    assert_eq!(identity.signing_key().public(), hub.lock().enrolled[0].0);
    assert_eq!(identity.root_json(), hub.lock().root_json);
    for file in ["signing.key", "tls.key"] {
        let path = dir.path().join("identity").join(file);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
    let mode = dir.path().join("identity").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn a_device_in_1970_enrols_and_learns_a_time_that_is_past() {
    let (hub, dir) = (hub().await, tempfile::tempdir().unwrap());
    let (clock, _) = Clock::manual(UnixMillis(0));
    enroll_at(&hub.token(), dir.path(), &clock).await.unwrap();
    let record = Identity::load(dir.path()).unwrap().record().clone();
    assert!(record.enrolled_at > UnixMillis(1_764_000_000_000), "{record:?}");
}

#[tokio::test]
async fn a_hub_with_another_ca_is_refused_before_anything_is_sent() {
    let (hub, dir) = (hub().await, tempfile::tempdir().unwrap());
    let token = EnrolmentToken { ca: Ca::new().digest(), ..hub.token() };
    let error = enroll_at(&token, dir.path(), &clock().0).await.unwrap_err();
    assert!(matches!(error, EnrollError::WrongCa { .. }), "{error:?}");
    assert!(error.to_string().contains("device add"), "{error}");
    assert!(hub.asked().is_empty(), "not a byte of the application was sent");
    assert!(!dir.path().join("identity").exists(), "no key was made");
}

#[tokio::test]
async fn a_hub_under_another_name_than_its_certificates_is_refused() {
    let (hub, dir) = (hub().await, tempfile::tempdir().unwrap());
    let token =
        EnrolmentToken { hub: hub.token().hub.replace("localhost", "127.0.0.1"), ..hub.token() };
    let error = enroll_at(&token, dir.path(), &clock().0).await.unwrap_err();
    assert!(matches!(error, EnrollError::Unreachable { .. }), "{error:?}");
    assert!(hub.asked().is_empty());
}

#[tokio::test]
async fn another_release_root_is_refused_before_the_secret_is_sent() {
    let (hub, dir) = (hub().await, tempfile::tempdir().unwrap());
    let token = EnrolmentToken { root: Digest::of(b"another"), ..hub.token() };
    let error = enroll_at(&token, dir.path(), &clock().0).await.unwrap_err();
    assert!(matches!(error, EnrollError::WrongRoot { .. }), "{error:?}");
    assert_eq!(hub.asked(), [("/enrol/root.json".into(), None)]);
}

#[tokio::test]
async fn a_lost_reply_is_answered_again_with_the_same_keys() {
    let (hub, dir) = (hub().await, tempfile::tempdir().unwrap());
    hub.lock().lose_reply = true;
    let error = enroll_at(&hub.token(), dir.path(), &clock().0).await.unwrap_err();
    assert!(matches!(error, EnrollError::Unreachable { .. }), "{error:?}");
    assert!(matches!(Identity::load(dir.path()), Err(IdentityError::NotEnrolled { .. })));
    enroll_at(&hub.token(), dir.path(), &clock().0).await.unwrap();
    assert_eq!(hub.lock().enrolled.len(), 1, "the same keys were named both times");
    Identity::load(dir.path()).unwrap();
}

#[tokio::test]
async fn a_token_that_another_device_used_is_refused() {
    let (hub, first, second) =
        (hub().await, tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    enroll_at(&hub.token(), first.path(), &clock().0).await.unwrap();
    let error = enroll_at(&hub.token(), second.path(), &clock().0).await.unwrap_err();
    assert!(matches!(error, EnrollError::TokenUsed { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("used or has expired") && text.contains("device add"), "{text}");
    assert!(!text.contains(&format!("{:02x}", SECRET[0]).repeat(4)), "no secret in an error");
}

#[tokio::test]
async fn enrolling_twice_in_one_folder_names_the_device_that_is_there() {
    let (hub, dir) = (hub().await, tempfile::tempdir().unwrap());
    enroll_at(&hub.token(), dir.path(), &clock().0).await.unwrap();
    hub.asked();
    let error = enroll_at(&hub.token(), dir.path(), &clock().0).await.unwrap_err();
    assert!(matches!(error, EnrollError::AlreadyEnrolled { .. }), "{error:?}");
    assert!(error.to_string().contains("dev-test"), "{error}");
    assert!(hub.asked().is_empty());
}

#[tokio::test]
async fn an_answer_for_another_key_or_of_another_ca_is_not_kept() {
    let (hub, dir) = (hub().await, tempfile::tempdir().unwrap());
    let other = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    let csr = params.serialize_request(&other).unwrap().pem().unwrap();
    hub.lock().answer_csr = Some(csr);
    let error = enroll_at(&hub.token(), dir.path(), &clock().0).await.unwrap_err();
    assert!(error.to_string().contains("for another key"), "{error}");
    hub.lock().answer_csr = None;
    hub.lock().answer_ca = Some(Ca::new().pem());
    let error = enroll_at(&hub.token(), dir.path(), &clock().0).await.unwrap_err();
    assert!(error.to_string().contains("not the one the token names"), "{error}");
    assert!(matches!(Identity::load(dir.path()), Err(IdentityError::NotEnrolled { .. })));
}

#[tokio::test]
async fn a_hub_that_is_not_there_leaves_the_token_good() {
    crate::tls::install_provider();
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let token = EnrolmentToken {
        hub: format!("https://localhost:{port}"),
        secret: SECRET,
        ca: Digest::ZERO,
        root: Digest::ZERO,
    };
    let error = enroll_at(&token, dir.path(), &clock().0).await.unwrap_err();
    assert!(matches!(error, EnrollError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("still good"), "{error}");
}

#[tokio::test]
async fn a_damaged_token_is_refused_with_what_to_do() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), hub().await);
    let text = hub.token().to_string();
    for bad in ["", "hello", &text[..text.len() - 3], &text.replacen("fleetloop1", "fleetloop2", 1)]
    {
        let error = enroll(bad, dir.path()).await.unwrap_err();
        assert!(matches!(error, EnrollError::Token(_)), "{error:?}");
        assert!(error.to_string().contains("copy"), "{error}");
    }
    assert!(hub.asked().is_empty());
}

#[tokio::test]
async fn a_power_cut_before_the_record_leaves_a_device_that_can_enrol_again() {
    let (hub, dir) = (hub().await, tempfile::tempdir().unwrap());
    enroll_at(&hub.token(), dir.path(), &clock().0).await.unwrap();
    // The cut: everything is there but the last file.
    std::fs::remove_file(dir.path().join("identity/identity.json")).unwrap();
    assert!(matches!(Identity::load(dir.path()), Err(IdentityError::NotEnrolled { .. })));
    enroll_at(&hub.token(), dir.path(), &clock().0).await.unwrap();
    Identity::load(dir.path()).unwrap();
    assert_eq!(hub.lock().enrolled.len(), 1);
}

#[tokio::test]
async fn an_identity_with_a_foreign_ca_or_root_is_not_used() {
    let (hub, dir) = (hub().await, tempfile::tempdir().unwrap());
    enroll_at(&hub.token(), dir.path(), &clock().0).await.unwrap();
    for (file, bytes) in [("ca.pem", Ca::new().pem().into_bytes()), ("root.json", b"{}".to_vec())] {
        let path = dir.path().join("identity").join(file);
        let before = std::fs::read(&path).unwrap();
        crate::durable::write(&path, &bytes).unwrap();
        let error = Identity::load(dir.path()).unwrap_err();
        assert!(
            matches!(&error, IdentityError::Broken { path, .. } if path.ends_with(file)),
            "{error}"
        );
        crate::durable::write(&path, &before).unwrap();
    }
}
