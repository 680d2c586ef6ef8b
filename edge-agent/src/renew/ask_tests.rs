//! Renewal against a real TLS server, and what each step of it leaves.

use std::path::Path;

use fleetloop_protocol::UnixMillis;

use super::*;
use crate::durable;
use crate::enroll::enroll_at;
use crate::testing::{Ca, TestHub, clock};

async fn enrolled(dir: &Path) -> (TestHub, Clock, Arc<Identity>) {
    crate::tls::install_provider();
    let hub = TestHub::start(b"{\"root\": 1}".to_vec()).await;
    let (clock, _) = clock();
    enroll_at(&hub.token(), dir, &clock).await.unwrap();
    (hub, clock, Arc::new(Identity::load(dir).unwrap()))
}

/// The key that the device shows, as rustls has it.
fn shown(identity: &Identity) -> Vec<u8> {
    identity.tls().borrow().certified().cert[0].to_vec()
}

#[tokio::test]
async fn a_renewed_certificate_is_for_a_new_key_and_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, clock, identity) = enrolled(dir.path()).await;
    let (before, mut told) = (shown(&identity), identity.tls());
    let life = renew(&identity, &clock).await.unwrap();
    assert!(told.has_changed().unwrap());
    assert_eq!(told.borrow_and_update().life(), life);
    let after = shown(&identity);
    assert_ne!(before, after);
    assert_eq!(shown(&Identity::load(dir.path()).unwrap()), after);
    assert_eq!(hub.asked().last().unwrap().0, "/renew");
}

#[tokio::test]
async fn each_step_of_a_renewal_that_is_cut_leaves_a_pair_that_can_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, clock, identity) = enrolled(dir.path()).await;
    let first = shown(&identity);
    // The answer is lost: the hub certified a key that nobody has any more.
    hub.lock().lose_reply = true;
    assert!(matches!(renew(&identity, &clock).await, Err(RenewError::Unreachable { .. })));
    assert_eq!(shown(&Identity::load(dir.path()).unwrap()), first);
    // The answer is here and the cut comes while it is written: part of a temporary file.
    let temporary = dir.path().join("identity/.renewed.pem.tmp");
    durable::write(&temporary, b"-----BEGIN PRIVATE KEY-----\nMIG").unwrap();
    assert_eq!(shown(&Identity::load(dir.path()).unwrap()), first);
    // It is in place: the new pair, and the next one in the same way.
    renew(&identity, &clock).await.unwrap();
    let second = shown(&identity);
    assert_eq!(shown(&Identity::load(dir.path()).unwrap()), second);
    durable::write(&temporary, b"-----BEGIN").unwrap();
    assert_eq!(shown(&Identity::load(dir.path()).unwrap()), second);
    renew(&identity, &clock).await.unwrap();
    assert_ne!(shown(&Identity::load(dir.path()).unwrap()), second);
    // A disk that loses what it kept: the pair of enrolment, from which it is renewed again.
    durable::write(&dir.path().join("identity/renewed.pem"), b"damaged").unwrap();
    let damaged = Arc::new(Identity::load(dir.path()).unwrap());
    assert_eq!(shown(&damaged), first);
    renew(&damaged, &clock).await.unwrap();
    assert_ne!(shown(&Identity::load(dir.path()).unwrap()), first);
}

#[tokio::test]
async fn a_disk_that_refuses_loses_no_certificate_while_the_process_lives() {
    let dir = tempfile::tempdir().unwrap();
    let (_hub, clock, identity) = enrolled(dir.path()).await;
    let before = shown(&identity);
    // A folder in the temporary file's place cannot be written over, by root either.
    std::fs::create_dir(dir.path().join("identity/.renewed.pem.tmp")).unwrap();
    let error = renew(&identity, &clock).await.unwrap_err();
    assert!(matches!(error, RenewError::Identity(IdentityError::Durable(_))), "{error:?}");
    assert_ne!(shown(&identity), before);
    assert_eq!(shown(&Identity::load(dir.path()).unwrap()), before);
}

#[tokio::test]
async fn a_certificate_for_another_key_or_of_another_ca_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, clock, identity) = enrolled(dir.path()).await;
    let before = shown(&identity);
    let other = TlsKey::make().unwrap().certificate_request().unwrap();
    hub.lock().answer_csr = Some(other);
    let error = renew(&identity, &clock).await.unwrap_err();
    assert!(error.to_string().contains("for another key"), "{error}");
    hub.lock().answer_csr = None;
    hub.lock().answer_by = Some(Ca::new());
    let error = renew(&identity, &clock).await.unwrap_err();
    assert!(error.to_string().contains("does not hold"), "{error}");
    hub.lock().answer_by = None;
    hub.lock().refuses = true;
    let error = renew(&identity, &clock).await.unwrap_err();
    assert!(matches!(error, RenewError::Refused { status: 403, .. }), "{error:?}");
    assert_eq!(shown(&identity), before);
    assert!(!dir.path().join("identity/renewed.pem").exists());
}

#[tokio::test]
async fn a_floor_that_runs_ahead_keeps_no_certificate_from_being_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let (_hub, _, identity) = enrolled(dir.path()).await;
    let (clock, _) = Clock::manual(UnixMillis(0));
    let end = identity.tls().borrow().life().not_after;
    // The hub's own certificate must hold at the floor; this one's ends with the device's.
    clock.is_past(UnixMillis(end.0 - 1000));
    renew(&identity, &clock).await.unwrap();
}
