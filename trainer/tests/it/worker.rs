//! The worker against a hub that the test plays: real HTTPS, real jobs.

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router, body::Bytes};
use axum_server::tls_rustls::RustlsConfig;
use fleetloop_protocol::Digest;
use fleetloop_protocol::api::ApiAccess;
use fleetloop_protocol::api::jobs::{
    Base, Done, JobFailed, JobId, JobKind, JobSpec, Lease, LeaseRequest, Renew,
};
use trainer::blobs::Blobs;
use trainer::worker::{Hub, HubError, Settings, work};

use super::{data, job};

const TOKEN: &str = "secret";

/// What the played hub holds and has seen.
#[derive(Default)]
struct Seen {
    job: Option<JobSpec>,
    /// The lease in force; an old one is refused.
    lease: Option<String>,
    leases: usize,
    files: HashMap<Digest, Vec<u8>>,
    phases: Vec<String>,
    refuse_renewal: bool,
    /// A job may be leased while another lease of it is in force.
    lease_again: bool,
    requests: usize,
    /// Answers to come that are 503 instead, whatever is asked of files and ends of jobs.
    in_trouble: usize,
    done: Option<Done>,
    failed: Option<JobFailed>,
}

#[derive(Clone, Default)]
struct Played(Arc<Mutex<Seen>>);

impl Played {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap()
    }

    /// Counts the request and checks its token.
    fn enter(&self, headers: &HeaderMap) -> Result<MutexGuard<'_, Seen>, StatusCode> {
        let mut seen = self.seen();
        seen.requests += 1;
        let given = headers.get("authorization").and_then(|v| v.to_str().ok());
        if given == Some(&format!("Bearer {TOKEN}")) {
            Ok(seen)
        } else {
            Err(StatusCode::UNAUTHORIZED)
        }
    }

    /// The same of a hub that may be in trouble.
    fn enter_if_well(&self, headers: &HeaderMap) -> Result<MutexGuard<'_, Seen>, StatusCode> {
        let mut seen = self.enter(headers)?;
        if seen.in_trouble > 0 {
            seen.in_trouble -= 1;
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        }
        Ok(seen)
    }

    /// Serves on a port of its own; returns how to reach it.
    async fn serve(&self) -> ApiAccess {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let tls =
            RustlsConfig::from_pem(cert.clone().into_bytes(), key.into_bytes()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let routes = Router::new()
            .route("/api/v1/worker/lease", post(lease))
            .route("/api/v1/worker/jobs/{id}/renew", post(renew))
            .route("/api/v1/worker/jobs/{id}/done", post(done))
            .route("/api/v1/worker/jobs/{id}/failed", post(failed))
            .route("/api/v1/datasets/{digest}", get(file))
            .route("/api/v1/datasets/{digest}/removed", get(removed))
            .route("/api/v1/payloads/{digest}", get(file))
            .route("/api/v1/artefacts/{digest}", get(file).put(store))
            .with_state(self.clone());
        tokio::spawn(
            axum_server::from_tcp_rustls(listener, tls).unwrap().serve(routes.into_make_service()),
        );
        ApiAccess { url, token: TOKEN.into(), ca_pem: cert }
    }

    /// Offers a job that trains a starter on a small dataset.
    fn offer(&self, dir: &Path, recipe: &str) {
        let blobs = Blobs::open(&dir.join("hub")).unwrap();
        let dataset = data::dataset(&blobs, 80);
        let bytes = serde_json::to_vec(&dataset).unwrap();
        let mut seen = self.seen();
        for item in &dataset.items {
            seen.files.insert(item.payload, blobs.get(item.payload).unwrap());
        }
        let digest = Digest::of(&bytes);
        seen.files.insert(digest, bytes);
        let base =
            Base::Starter { kind: "picture-cnn".into(), input: vec![1, data::SIDE, data::SIDE] };
        seen.job = Some(JobSpec {
            kind: JobKind::Train,
            model: "sides".into(),
            version: 2,
            base,
            dataset: digest,
            recipe: recipe.into(),
            seed: 9,
        });
    }
}

async fn lease(
    State(hub): State<Played>,
    headers: HeaderMap,
    Json(_): Json<LeaseRequest>,
) -> Result<Json<Option<Lease>>, StatusCode> {
    let mut seen = hub.enter(&headers)?;
    let free =
        (seen.lease.is_none() || seen.lease_again) && seen.done.is_none() && seen.failed.is_none();
    let Some(spec) = seen.job.clone().filter(|_| free) else { return Ok(Json(None)) };
    seen.leases += 1;
    let lease = format!("lease-{}", seen.leases);
    seen.lease = Some(lease.clone());
    Ok(Json(Some(Lease { job: JobId(7), lease, spec })))
}

fn current(seen: &Seen, lease: &str) -> Result<(), StatusCode> {
    if seen.lease.as_deref() == Some(lease) { Ok(()) } else { Err(StatusCode::CONFLICT) }
}

async fn renew(
    State(hub): State<Played>,
    headers: HeaderMap,
    Json(body): Json<Renew>,
) -> Result<(), StatusCode> {
    let mut seen = hub.enter(&headers)?;
    current(&seen, &body.lease)?;
    seen.phases.push(body.progress.phase);
    if seen.refuse_renewal { Err(StatusCode::CONFLICT) } else { Ok(()) }
}

async fn done(
    State(hub): State<Played>,
    headers: HeaderMap,
    Json(body): Json<Done>,
) -> Result<(), StatusCode> {
    let mut seen = hub.enter_if_well(&headers)?;
    current(&seen, &body.lease)?;
    seen.done = Some(body);
    Ok(())
}

async fn failed(
    State(hub): State<Played>,
    headers: HeaderMap,
    Json(body): Json<JobFailed>,
) -> Result<(), StatusCode> {
    let mut seen = hub.enter(&headers)?;
    current(&seen, &body.lease)?;
    seen.failed = Some(body);
    Ok(())
}

async fn file(
    State(hub): State<Played>,
    headers: HeaderMap,
    UrlPath(digest): UrlPath<Digest>,
) -> Result<Vec<u8>, StatusCode> {
    let seen = hub.enter_if_well(&headers)?;
    seen.files.get(&digest).cloned().ok_or(StatusCode::NOT_FOUND)
}

/// Nothing was removed.
async fn removed(
    State(hub): State<Played>,
    headers: HeaderMap,
) -> Result<Json<Vec<Digest>>, StatusCode> {
    hub.enter_if_well(&headers).map(|_| Json(Vec::new()))
}

async fn store(
    State(hub): State<Played>,
    headers: HeaderMap,
    UrlPath(digest): UrlPath<Digest>,
    body: Bytes,
) -> Result<(), StatusCode> {
    let mut seen = hub.enter_if_well(&headers)?;
    if Digest::of(&body) != digest {
        return Err(StatusCode::BAD_REQUEST);
    }
    seen.files.insert(digest, body.to_vec());
    Ok(())
}

fn settings(access: ApiAccess, dir: &Path) -> Settings {
    Settings {
        access,
        access_file: None,
        name: "test".into(),
        cache: dir.join("cache"),
        cache_limit_bytes: 1 << 30,
        threads: 1,
        checkpoint_every: Duration::from_secs(60),
        once: true,
    }
}

async fn one_job(access: ApiAccess, dir: &Path) {
    work(settings(access, dir), data::runtime(), Arc::new(AtomicBool::new(false))).await.unwrap();
}

const SHORT: &str = "epochs = 3\nbatch_size = 16";

/// The bundle that the offered job gives when it is done without a hub.
fn expected(dir: &Path, recipe: &str) -> fleetloop_protocol::BundleDigest {
    let blobs = Blobs::open(&dir.join("hub")).unwrap();
    let mut order = job::order(data::dataset(&blobs, 80), job::starter());
    order.recipe =
        trainer::train::Recipe::parse(recipe, &trainer::train::Recipe::starter()).unwrap();
    let runtime = data::runtime();
    let cancel = AtomicBool::new(false);
    let tools = trainer::job::Tools {
        runtime: &runtime,
        device: burn::tensor::Device::default(),
        threads: 1,
        cancel: &cancel,
        checkpoints: None,
    };
    trainer::job::run(&order, &blobs, &tools, &mut |_| {}).unwrap().bundle.digest()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_brings_back_a_bundle_whose_every_file_the_hub_then_holds() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Played::default());
    hub.offer(dir.path(), SHORT);
    one_job(hub.serve().await, dir.path()).await;
    let seen = hub.seen();
    let done = seen.done.as_ref().expect("handed in");
    assert_eq!(done.bundle, expected(dir.path(), SHORT), "the same bundle as without a hub");
    let part = |digest: &Digest| seen.files.get(digest).expect("uploaded").clone();
    let manifest = fleetloop_models::bundle::Manifest::parse(&part(&done.bundle.0)).unwrap();
    assert!(manifest.files.iter().all(|f| seen.files.contains_key(&f.sha256)));
    serde_json::from_slice::<trainer::record::RunRecord>(&part(&done.run_record.unwrap())).unwrap();
    assert_eq!(done.report.bundle, done.bundle);
    assert!(done.base_report.is_none() && seen.failed.is_none());
    assert!(!seen.phases.is_empty(), "the lease was renewed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_judges_a_bundle_that_there_is_and_makes_none() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Played::default());
    hub.offer(dir.path(), SHORT);
    let access = hub.serve().await;
    one_job(access.clone(), dir.path()).await;
    let trained = {
        let mut seen = hub.seen();
        let done = seen.done.take().expect("handed in");
        seen.lease = None;
        let job = seen.job.as_mut().unwrap();
        job.kind = JobKind::Evaluate;
        job.base = Base::Bundle { bundle: done.bundle };
        job.recipe = String::new();
        done
    };
    let files = hub.seen().files.len();
    one_job(access, dir.path()).await;
    let seen = hub.seen();
    let done = seen.done.as_ref().expect("handed in");
    assert_eq!((done.bundle, done.run_record), (trained.bundle, None));
    assert_eq!(done.report, trained.report, "what the bundle made of the same pictures before");
    assert!(done.base_report.is_none() && seen.failed.is_none());
    assert_eq!(seen.files.len(), files, "nothing is uploaded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_leaves_a_job_that_the_next_one_does() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Played::default());
    hub.offer(dir.path(), "epochs = 10000");
    let access = hub.serve().await;
    let path = dir.path().join("worker.toml");
    trainer::durable::write(&path, toml::to_string(&access).unwrap().as_bytes()).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(["worker", "--threads", "1", "--access"])
        .arg(&path)
        .env("FLEETLOOP_ORT_LIB", data::runtime().library())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !hub.seen().phases.iter().any(|phase| phase == "train") {
        assert!(child.try_wait().unwrap().is_none(), "the worker runs");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    {
        let mut seen = hub.seen();
        assert!(seen.done.is_none() && seen.failed.is_none());
        seen.lease = None; // It was not renewed, so it ended.
        seen.job.as_mut().unwrap().recipe = SHORT.into();
    }
    one_job(access, dir.path()).await;
    let seen = hub.seen();
    assert_eq!(seen.leases, 2);
    assert_eq!(seen.done.as_ref().expect("handed in").bundle, expected(dir.path(), SHORT));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_goes_on_with_its_job_when_it_gets_it_again() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Played::default());
    let recipe = "epochs = 40\nbatch_size = 8";
    hub.offer(dir.path(), recipe);
    let access = hub.serve().await;
    let path = dir.path().join("worker.toml");
    trainer::durable::write(&path, toml::to_string(&access).unwrap().as_bytes()).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(["worker", "--threads", "1", "--checkpoint-every", "0", "--access"])
        .arg(&path)
        .arg("--cache")
        .arg(settings(access.clone(), dir.path()).cache)
        .env("FLEETLOOP_ORT_LIB", data::runtime().library())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let kept = dir.path().join("cache.checkpoint");
    super::resume::kill_after(&mut child, &kept, 20);
    hub.seen().lease = None; // It was not renewed, so it ended.
    one_job(access, dir.path()).await;
    let seen = hub.seen();
    let done = seen.done.as_ref().expect("handed in");
    assert_eq!(done.bundle, expected(dir.path(), recipe));
    let record = seen.files.get(&done.run_record.unwrap()).expect("uploaded");
    let record: trainer::record::RunRecord = serde_json::from_slice(record).unwrap();
    assert!(record.measured.resumed_at_step.is_some_and(|step| step >= 10), "{record:?}");
    assert!(!kept.exists(), "a job that is done leaves no checkpoint");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_lease_was_given_away_hands_nothing_in() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Played::default());
    hub.offer(dir.path(), "epochs = 10000");
    hub.seen().refuse_renewal = true;
    one_job(hub.serve().await, dir.path()).await;
    let seen = hub.seen();
    assert!(seen.done.is_none() && seen.failed.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_in_trouble_for_a_moment_is_asked_again_instead_of_losing_the_job() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Played::default());
    hub.offer(dir.path(), SHORT);
    hub.seen().in_trouble = 3;
    one_job(hub.serve().await, dir.path()).await;
    let seen = hub.seen();
    assert_eq!((seen.leases, seen.in_trouble), (1, 0));
    assert_eq!(seen.done.as_ref().expect("handed in").bundle, expected(dir.path(), SHORT));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_can_do_no_job_takes_them_ever_more_slowly() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Played::default());
    hub.offer(dir.path(), SHORT);
    // No folder for checkpoints: a fault of this machine. The hub gives the job again at once.
    trainer::durable::write(&dir.path().join("cache.checkpoint"), b"no folder").unwrap();
    hub.seen().lease_again = true;
    let settings = Settings { once: false, ..settings(hub.serve().await, dir.path()) };
    let stop = Arc::new(AtomicBool::new(false));
    let working = tokio::spawn(work(settings, data::runtime(), Arc::clone(&stop)));
    while hub.seen().leases < 1 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    working.await.unwrap().unwrap();
    let leases = hub.seen().leases;
    assert!(leases <= 4, "{leases} jobs taken in three seconds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_be_done_is_reported_with_its_reason() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Played::default());
    hub.offer(dir.path(), "epochs = 0\nbatch_size = 0");
    one_job(hub.serve().await, dir.path()).await;
    let seen = hub.seen();
    let reason = &seen.failed.as_ref().expect("reported").reason;
    assert!(reason.contains("epochs") && reason.contains("batch_size"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_is_not_its_digest_is_not_learned_from() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Played::default());
    hub.offer(dir.path(), SHORT);
    {
        let mut seen = hub.seen();
        let dataset = seen.job.as_ref().unwrap().dataset;
        let payload = *seen.files.keys().find(|digest| **digest != dataset).unwrap();
        seen.files.insert(payload, b"something else".to_vec());
    }
    one_job(hub.serve().await, dir.path()).await;
    let seen = hub.seen();
    assert!(seen.done.is_none() && seen.failed.is_none(), "the job is left for another attempt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_cannot_be_read_leaves_the_job_for_another_attempt() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Played::default());
    hub.offer(dir.path(), SHORT);
    let kept = dir.path().join("cache.checkpoint");
    trainer::durable::write(&kept, b"no folder").unwrap();
    let access = hub.serve().await;
    one_job(access.clone(), dir.path()).await;
    {
        let mut seen = hub.seen();
        assert!(seen.done.is_none() && seen.failed.is_none());
        seen.lease = None; // It was not renewed, so it ended.
    }
    std::fs::remove_file(&kept).unwrap();
    one_job(access, dir.path()).await;
    assert!(hub.seen().done.is_some(), "the next attempt does it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_of_another_ca_hears_nothing() {
    let (hub, other) = (Played::default(), Played::default());
    let access = hub.serve().await;
    let ca_pem = other.serve().await.ca_pem;
    let error = Hub::new(&ApiAccess { ca_pem, ..access }).unwrap().lease("test").await.unwrap_err();
    assert!(matches!(error, HubError::Unreachable { .. }), "{error}");
    assert_eq!(hub.seen().requests, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_told_apart_from_an_absent_hub() {
    let hub = Played::default();
    let access = hub.serve().await;
    let error = Hub::new(&ApiAccess { token: "guess".into(), ..access })
        .unwrap()
        .lease("test")
        .await
        .unwrap_err();
    assert!(
        matches!(error, HubError::Refused { status, .. } if status == StatusCode::UNAUTHORIZED),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_started_by_a_hub_ends_with_it() {
    let (dir, hub) = (tempfile::tempdir().unwrap(), Played::default());
    let path = dir.path().join("worker.toml");
    let access = toml::to_string(&hub.serve().await).unwrap();
    trainer::durable::write(&path, access.as_bytes()).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(["worker", "--threads", "1", "--access"])
        .arg(&path)
        .env("FLEETLOOP_ORT_LIB", data::runtime().library())
        .env("FLEETLOOP_EXIT_WITH_STDIN", "1")
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while hub.seen().requests == 0 {
        assert!(child.try_wait().unwrap().is_none(), "it works while the pipe is open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    assert!(dir.path().join("worker-cache").is_dir());
}

#[tokio::test]
async fn a_worker_goes_on_with_the_token_that_its_access_file_has_now() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("worker.toml");
    let access = Played::default().serve().await;
    let old = ApiAccess { token: "rotated away".into(), ..access.clone() };
    let put = |access: &ApiAccess| {
        let text = toml::to_string(access).unwrap();
        trainer::durable::write(&file, text.as_bytes()).unwrap();
    };
    put(&old);
    let hub = Hub::new(&old).unwrap().following(Some(file.clone()));
    let error = hub.lease("test").await.unwrap_err();
    assert!(error.to_string().contains("401"), "{error}");
    put(&access);
    assert!(hub.lease("test").await.unwrap().is_none());
    trainer::durable::write(&file, b"").unwrap();
    assert!(hub.lease("test").await.unwrap().is_none(), "the new token is kept");
}
