//! A hub in a temporary folder.

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use fleet_hub::cli::client::Client;
use fleet_hub::clock::Clock;
use fleet_hub::config::Config;
use fleet_hub::init::{InitOptions, init};
use fleet_hub::published::Documents;
use fleet_hub::serve::{Hub, ServeError};
use fleet_hub::{AppState, HubEvent, enrol, pki};
use fleetloop_protocol::DeviceId;
use fleetloop_protocol::enrol::{ENROL_PATH, EnrolRequest, EnrolResponse};
use fleetloop_protocol::hub_keys::{HubKeyUse, HubKeys};
use fleetloop_protocol::token::EnrolmentToken;
use tempfile::TempDir;

use crate::device::{Device, PATIENCE};

/// A hub that serves.
pub struct Rig {
    pub dir: TempDir,
    pub hub: Option<Hub>,
    pub config: Config,
    pub keys: HubKeys,
    clock: Clock,
}

/// Three ports that are free now and that no outgoing connection takes while a hub is stopped: they are
/// below Linux's range for those.
pub fn free_ports() -> [u16; 3] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const PORTS: std::ops::Range<u16> = 10_000..15_000;
    let begin = std::process::id().wrapping_mul(61) as u16;
    let mut free = std::iter::repeat_with(|| {
        let step = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        PORTS.start + step % (PORTS.end - PORTS.start)
    })
    .filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    [(); 3].map(|()| free.next().expect("ports never end"))
}

pub fn options(dir: &Path) -> InitOptions {
    let [admin, device, mqtt] = free_ports();
    InitOptions {
        data: dir.join("data"),
        offline_keys: dir.join("offline"),
        hosts: vec!["localhost".into()],
        labels: vec!["good".into(), "bad".into()],
        admin_listen: format!("127.0.0.1:{admin}"),
        device_listen: format!("127.0.0.1:{device}"),
        mqtt_listen: format!("127.0.0.1:{mqtt}"),
        broker: "embedded".into(),
        backup_recipients: Vec::new(),
    }
}

impl Rig {
    /// A fresh hub with the default limits, but for a disk floor that a small disk has.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A fresh hub whose configuration was changed.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_at(Clock::system(), change).await
    }

    /// The same in another time.
    pub async fn start_at(clock: Clock, change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path());
        Self::start_by(dir, &options, clock, change).await
    }

    /// The same by other options.
    pub async fn start_by(
        dir: TempDir,
        options: &InitOptions,
        clock: Clock,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        pki::tls::install_provider();
        let mut config = init(options, &clock).await.unwrap();
        config.limits.disk_floor_bytes = 1024;
        change(&mut config);
        let keys = hub_keys(&config);
        let mut rig = Self { dir, hub: None, config, keys, clock };
        rig.serve().await;
        rig
    }

    /// Starts the hub again.
    pub async fn serve(&mut self) {
        let begun = Instant::now();
        let hub = loop {
            match Box::pin(Hub::start(self.config.clone(), self.clock.clone())).await {
                Ok(hub) => break hub,
                // A process that another test forks holds the lock's file, too, until it executes.
                Err(ServeError::Locked { .. }) if begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error:?}"),
            }
        };
        self.hub = Some(hub);
    }

    /// Stops, reads the configuration again, and starts.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.config = Config::load(&self.config.paths.data).unwrap();
        self.config.limits.disk_floor_bytes = 1024;
        self.serve().await;
    }

    /// A client with the admin's access file, as the command line uses it.
    pub fn admin(&self) -> Client {
        Client::open(&self.config.paths.data.join("admin.toml")).unwrap()
    }

    pub async fn stop(&mut self) {
        if let Some(hub) = self.hub.take() {
            hub.stop().await;
        }
    }

    pub fn state(&self) -> &AppState {
        self.hub.as_ref().unwrap().state()
    }

    /// A client of the admin listener that trusts the hub's CA only.
    pub fn http(&self) -> reqwest::Client {
        let ca = std::fs::read(pki::ca_pem(&self.config.paths)).unwrap();
        let ca = reqwest::Certificate::from_pem(&ca).unwrap();
        reqwest::Client::builder().tls_certs_only([ca]).no_proxy().build().unwrap()
    }

    pub async fn token(&self) -> EnrolmentToken {
        let answer = enrol::new_token(self.state(), "cam", 60, "test").await.unwrap();
        answer.token.parse().unwrap()
    }

    pub async fn post_enrolment(&self, request: &EnrolRequest) -> reqwest::Response {
        let url = format!("{}{ENROL_PATH}", self.config.admin_url());
        self.http().post(url).json(request).send().await.unwrap()
    }

    /// A device that enrolled over HTTPS.
    pub async fn enrol(&self) -> Device {
        let mut device = Device::new();
        let token = self.token().await;
        let answer = self.post_enrolment(&device.request(&token)).await;
        assert_eq!(answer.status(), 200);
        device.take(answer.json::<EnrolResponse>().await.unwrap());
        device
    }

    /// The same on a hub that allows a connection so little time that a busy machine exceeds it now
    /// and then.
    pub async fn enrol_patiently(&self) -> Device {
        let mut device = Device::new();
        let request = device.request(&self.token().await);
        let url = format!("{}{ENROL_PATH}", self.config.admin_url());
        let begun = Instant::now();
        loop {
            match self.http().post(&url).json(&request).send().await {
                Ok(answer) if answer.status() == 200 => {
                    device.take(answer.json::<EnrolResponse>().await.unwrap());
                    return device;
                }
                other => assert!(begun.elapsed() < PATIENCE, "{other:?}"),
            }
        }
    }

    pub async fn revoke(&self, device: &DeviceId) {
        let state = self.state();
        let (id, now) = (device.clone(), state.clock.now());
        state
            .store
            .write(move |tx| fleet_hub::store::devices::revoke(tx, &id, "test", now))
            .await
            .unwrap();
        state.tell(HubEvent::DeviceRevoked { device: device.clone() });
    }

    /// The keys that devices accept for receipts and refusals.
    pub fn receipt_keys(&self) -> fleetloop_protocol::keys::KeyRing {
        self.keys.ring(HubKeyUse::Receipt, Clock::system().now())
    }

    /// A second connection to the database, as an auditor would open it.
    pub fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.config.paths.data.join("hub.db")).unwrap()
    }

    pub fn count(&self, sql: &str) -> i64 {
        self.database().query_row(sql, [], |row| row.get(0)).unwrap()
    }
}

fn hub_keys(config: &Config) -> HubKeys {
    let pki = pki::Pki::load(&config.paths).unwrap();
    Documents::first(config, &pki, Clock::system().now()).keys
}
