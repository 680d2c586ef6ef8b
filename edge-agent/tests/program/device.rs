//! An enrolled device in a folder, without a hub, and the built program on it.

use std::collections::HashMap;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr as _;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use edge_agent::durable;
use edge_agent::identity::{Enrolment, IdentityDir, Record};
use edge_agent::run::Stopped;
use edge_agent::status::{self, Status};
use edge_agent::update::Installed;
use fleetloop_models::bundle::Bundle;
use fleetloop_protocol::keys::SigningKey;
use fleetloop_protocol::{BundleDigest, Digest, UnixMillis};
use rcgen::{CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, KeyPair};
use rustix::process::{Pid, Signal, kill_process};
use tough::schema::key::Key;
use tough::schema::{Role as _, RoleKeys, RoleType, Root, Signature, Signed};

/// Longer than anything takes that happens at all.
const IN_TIME: Duration = Duration::from_secs(60);

/// See the module.
pub struct Device {
    pub dir: tempfile::TempDir,
    listen: SocketAddr,
}

impl Device {
    /// Enrolled, with two frame files, `dark` and `bright`, and no model.
    pub fn new() -> Self {
        edge_agent::tls::install_provider();
        let dir = tempfile::tempdir().unwrap();
        enrol(&dir.path().join("data"));
        for (name, grey) in [("dark", 10), ("bright", 200)] {
            let mut bytes = vec![0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28];
            bytes.resize(16 + 2 * 784, grey);
            durable::write(&dir.path().join(name), &bytes).unwrap();
        }
        let listen = free_address();
        let device = Self { dir, listen };
        device.configure("dark", 50, "");
        device
    }

    /// Where the device's data lies.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Its configuration's file.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("agent.toml")
    }

    /// Puts a configuration in place; its digest.
    pub fn configure(&self, images: &str, rate_hz: u32, more: &str) -> Digest {
        let listen = self.listen;
        let text = format!(
            "data_dir = 'data'\n[source]\nkind = 'idx'\nimages = '{images}'\nrate_hz = {rate_hz}\n\
             [http]\nlisten = '{listen}'\n{more}"
        );
        durable::write(&self.config(), text.as_bytes()).unwrap();
        Digest::of(text.as_bytes())
    }

    /// Installs the test bundle of that version and, if there is one, of the version before it.
    pub fn install(&self, version: u32, before: Option<u32>) -> BundleDigest {
        let put = |version: u32| {
            let from = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join(format!("../models/tests/data/linear-{version}"));
            let bundle = Bundle::open(&from, None).unwrap();
            let to = self.data().join("bundles").join(bundle.digest().to_string());
            durable::create_dir(&to).unwrap();
            for (name, bytes) in bundle.files() {
                durable::write(&to.join(name), bytes).unwrap();
            }
            bundle.digest()
        };
        let current = put(version);
        let installed = Installed { current: Some(current), previous: before.map(put) };
        let json = serde_json::to_vec(&installed).unwrap();
        durable::write(&self.data().join("current.json"), &json).unwrap();
        current
    }

    /// The status of its agent, once `is` holds of it.
    pub fn until(&self, what: &str, is: impl Fn(&Status) -> bool) -> Status {
        until(self.listen, what, is)
    }

    /// Starts the program.
    pub fn start(&self, environment: &[(&str, &str)]) -> Agent {
        self.start_with(&[], environment)
    }

    /// Starts the program, with other devices beside this one in its process.
    pub fn start_with(&self, others: &[&Self], environment: &[(&str, &str)]) -> Agent {
        let mut command = self.command("run", others);
        command.env("RUST_LOG", "warn").envs(environment.iter().copied()).stdout(Stdio::piped());
        let child = command.spawn();
        Agent { child: child.unwrap(), listen: self.listen }
    }

    /// The program with a subcommand that takes the configurations of this device and of others.
    pub fn command(&self, subcommand: &str, others: &[&Self]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edge-agent"));
        command.arg(subcommand);
        for device in [self].iter().chain(others) {
            command.arg("--config").arg(device.config());
        }
        command
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC");
        command
    }
}

/// A running program; killed when it is dropped.
pub struct Agent {
    child: Child,
    listen: SocketAddr,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Agent {
    /// Its status, once `is` holds of it.
    pub fn until(&self, what: &str, is: impl Fn(&Status) -> bool) -> Status {
        until(self.listen, what, is)
    }

    /// Waits until that bundle answers.
    pub fn until_answers(&self, bundle: BundleDigest) -> Status {
        self.until("an answer", |status| answers(status, bundle))
    }

    pub fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// Waits until it ends by itself.
    pub fn ends(mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < IN_TIME, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end; its last words.
    pub fn stop(self) -> Stopped {
        self.stop_all().pop().expect("last words")
    }

    /// Asks it to end; the last words of each device.
    pub fn stop_all(mut self) -> Vec<Stopped> {
        self.signal(Signal::TERM);
        let mut text = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        let status: ExitStatus = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Whether that bundle answers.
pub fn answers(status: &Status, bundle: BundleDigest) -> bool {
    let frames = status.running.as_ref().map_or(0, |r| r.frames.frames_answered);
    frames > 0 && status.model.as_ref().is_some_and(|model| model.digest == bundle)
}

/// A free address whose port no outgoing connection takes while the program is stopped: it is below
/// Linux's range for those.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const PORTS: std::ops::Range<u16> = 15_000..20_000;
    let begin = std::process::id().wrapping_mul(61) as u16;
    std::iter::repeat_with(|| {
        let step = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        SocketAddr::from(([127, 0, 0, 1], PORTS.start + step % (PORTS.end - PORTS.start)))
    })
    .find(|address| TcpListener::bind(address).is_ok())
    .expect("addresses never end")
}

fn until(listen: SocketAddr, what: &str, is: impl Fn(&Status) -> bool) -> Status {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let began = Instant::now();
    let mut last = None;
    while began.elapsed() < IN_TIME {
        last = runtime.block_on(status::ask(listen));
        match last {
            Some(status) if is(&status) => return status,
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    panic!("not in time: {what}; last: {last:?}");
}

/// What enrolment leaves, with a hub that nobody answers for.
fn enrol(data: &Path) {
    let identity = IdentityDir::new(data);
    let keys = identity.keys().unwrap();
    let ca = CertifiedIssuer::self_signed(
        CertificateParams::new(Vec::<String>::new()).unwrap(),
        KeyPair::generate().unwrap(),
    )
    .unwrap();
    let request = keys.tls().certificate_request().unwrap();
    let request = CertificateSigningRequestParams::from_pem(&request).unwrap();
    let certificate = request.signed_by(&ca).unwrap().pem();
    let root_json = root();
    let record = Record {
        format: 1,
        device: "dev-test".parse().unwrap(),
        hub: "https://localhost:1".into(),
        mqtt_host: "localhost".into(),
        mqtt_port: 1,
        device_url: "https://localhost:1".into(),
        channel: "dev".into(),
        ca: Digest::of(ca.as_ref().der()),
        root: Digest::of(&root_json),
        enrolled_at: UnixMillis(0),
    };
    let ca_pem = ca.as_ref().pem();
    let certificate_pem = format!("{certificate}{ca_pem}");
    identity
        .keep(&Enrolment {
            record: &record,
            certificate_pem: &certificate_pem,
            ca_pem: &ca_pem,
            root_json: &root_json,
        })
        .unwrap();
}

/// A channel's root metadata with one key for every role.
fn root() -> Vec<u8> {
    let key = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap();
    let hex: String = key.public().as_bytes().iter().map(|b| format!("{b:02x}")).collect();
    let tuf = Key::from_str(&hex).unwrap();
    let id = tuf.key_id().unwrap();
    let role =
        RoleKeys { keyids: vec![id.clone()], threshold: NonZeroU64::MIN, _extra: HashMap::new() };
    let roles = [RoleType::Root, RoleType::Timestamp, RoleType::Snapshot, RoleType::Targets];
    let root = Root {
        spec_version: "1.0.0".into(),
        consistent_snapshot: true,
        version: NonZeroU64::MIN,
        expires: serde_json::from_value("2099-01-01T00:00:00Z".into()).unwrap(),
        keys: [(id.clone(), tuf)].into_iter().collect(),
        roles: roles.into_iter().map(|kind| (kind, role.clone())).collect(),
        _extra: HashMap::new(),
    };
    let sig = key.sign(&root.canonical_form().unwrap()).to_vec().into();
    let signatures = vec![Signature { keyid: id, sig }];
    serde_json::to_vec(&Signed { signed: root, signatures }).unwrap()
}
