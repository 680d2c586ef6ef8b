//! A month offline, in simulated time: one device and its hub in this process, over real TLS, the
//! real broker, the real model runtime and real files.
//!
//! The clocks of both sides are set by hand. The broker judges certificates by the system's clock
//! and cannot be given another, so the month ends tomorrow: the device's first certificate (45 days,
//! by configuration) ends twelve hours from now, and the device is back in 23. Both certificates are
//! good today, which is all that the broker sees; the hub's device listener and the device itself
//! live in the simulated time, where the first one has ended.

pub mod agent;
mod chain;

use std::time::Duration;

use edge_agent::clock::{Clock as DeviceClock, ManualTime};
use edge_agent::identity::Identity;
use edge_agent::outbox::OutboxStats;
use edge_agent::{enroll, tls};
use fleet_hub::clock::Clock;
use fleetloop_protocol::{ClockState, UnixMillis};

use crate::device::PATIENCE;
use crate::rig::Rig;
use agent::Agent;

const HOUR: u64 = 3600 * 1000;
const DAY: u64 = 24 * HOUR;
const LIFE_DAYS: u32 = 45;
/// Frames a day; each is chosen and signed.
const FRAMES: u64 = 6;
/// The year 2099.
const FAR_AHEAD: UnixMillis = UnixMillis(4_080_000_000_000);
/// Samples that fit into the outbox: a third of what is signed offline.
const ROWS: u64 = 60;

/// The moments of the story, by true time.
struct Story {
    enrolled: UnixMillis,
    left: UnixMillis,
    expired: UnixMillis,
    back: UnixMillis,
}

impl Story {
    fn around(today: UnixMillis) -> Self {
        let expired = UnixMillis(today.0 + 12 * HOUR);
        let back = UnixMillis(today.0 + 23 * HOUR);
        Self {
            enrolled: UnixMillis(expired.0 - u64::from(LIFE_DAYS) * DAY),
            left: UnixMillis(back.0 - 30 * DAY),
            expired,
            back,
        }
    }
}

/// Waits until `what` holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_offline_for_a_month_comes_back_by_itself_with_all_it_kept() {
    let mut month = Month::begin().await;
    let (agent, time) = month.online().await;
    month.rig.stop().await;
    month.twenty_days_without_a_hub(agent, time).await;
    let agent = month.ten_days_after_a_power_cut().await;
    let ended = Identity::load(month.dir.path()).unwrap();
    month.hub_clock.set(month.story.back);
    month.rig.serve().await;
    month.shut_out(&ended).await;
    let stats = month.comes_back(agent).await;
    month.accounts_for_all(&stats);
    month.rig.stop().await;
}

/// A device, its hub and their time.
struct Month {
    story: Story,
    hub_clock: Clock,
    rig: Rig,
    dir: tempfile::TempDir,
}

impl Month {
    async fn begin() -> Self {
        let story = Story::around(Clock::system().now());
        let hub_clock = Clock::manual(story.enrolled);
        let rig = Rig::start_at(hub_clock.clone(), |config| {
            config.limits.device_certificate_days = LIFE_DAYS;
        });
        let rig = rig.await;
        Self { story, hub_clock, rig, dir: tempfile::tempdir().unwrap() }
    }

    /// The agent started at that wall clock, with the floor that its folder holds.
    fn start(&self, wall: UnixMillis) -> (Agent, ManualTime) {
        let (clock, time) = self.clock(wall);
        (Agent::start(self.dir.path(), clock, ROWS), time)
    }

    fn clock(&self, wall: UnixMillis) -> (DeviceClock, ManualTime) {
        DeviceClock::manual_over(wall, self.dir.path().join("clock.json")).unwrap()
    }

    /// Enrolled and online: what is signed arrives. Half of the certificate's life is not over when
    /// the hub goes.
    async fn online(&self) -> (Agent, ManualTime) {
        let (clock, _) = self.clock(self.story.enrolled);
        let token = self.rig.token().await;
        enroll::enroll_at(&token, self.dir.path(), &clock).await.unwrap();
        Agent::install(self.dir.path());
        let (mut agent, time) = self.start(self.story.enrolled);
        let life = agent.identity.tls().borrow().life();
        assert_eq!(life.not_after.0 / 1000, self.story.expired.0 / 1000);
        agent.answers(FRAMES).await;
        agent.has_arrived().await;
        self.hub_clock.set(self.story.left);
        time.advance(Duration::from_millis(self.story.left.0 - self.story.enrolled.0));
        agent.answers(FRAMES).await;
        agent.has_arrived().await;
        assert_eq!(self.rig.count("SELECT count(*) FROM sample") as u64, 2 * FRAMES);
        assert_eq!(agent.identity.tls().borrow().life(), life, "not due yet");
        (agent, time)
    }

    /// The wall clock jumps to 2099 and to 1970; nobody is impressed.
    async fn twenty_days_without_a_hub(&self, mut agent: Agent, time: ManualTime) {
        for day in 1..=20_u64 {
            time.advance(Duration::from_millis(DAY));
            match day {
                5 => time.step_wall(FAR_AHEAD),
                9 => time.step_wall(UnixMillis(0)),
                _ => {}
            }
            assert_eq!(agent.clock.now(), UnixMillis(self.story.left.0 + day * DAY));
            agent.answers(FRAMES).await;
            agent.clock.persist().unwrap();
        }
        let stats = agent.outbox.stats();
        assert_eq!(stats.samples, ROWS, "full");
        assert!(stats.evicted_total > 0 && stats.gaps > 0, "{stats:?}");
        assert_eq!(agent.stop().await, 22 * FRAMES, "every frame was answered");
    }

    /// Without a clock chip it is 1970 again, but for the floor. The certificate ends meanwhile.
    async fn ten_days_after_a_power_cut(&self) -> Agent {
        let (mut agent, time) = self.start(UnixMillis(0));
        let began = UnixMillis(self.story.left.0 + 20 * DAY);
        assert_eq!((agent.clock.now(), agent.clock.state()), (began, ClockState::Unsynced));
        let life = agent.identity.tls().borrow().life();
        for day in 1..=10_u64 {
            time.advance(Duration::from_millis(DAY));
            match day {
                // Ahead, it is believed for what is written on samples, and for nothing else.
                4 => time.step_wall(FAR_AHEAD),
                5 => time.step_wall(UnixMillis(3)),
                _ => {}
            }
            assert_eq!(agent.clock.past(), UnixMillis(began.0 + day * DAY));
            agent.answers(FRAMES).await;
            agent.clock.persist().unwrap();
        }
        assert!(agent.clock.past() >= self.story.expired, "the certificate ended on the way");
        assert_eq!(agent.outbox.stats().samples, ROWS, "still full");
        assert_eq!(agent.identity.tls().borrow().life(), life, "nobody was there to renew it");
        agent
    }

    /// With the certificate that ended there is no way in, by the hub's clock.
    async fn shut_out(&self, ended: &Identity) {
        let (then, _) = DeviceClock::manual(self.story.back);
        let client = tls::http_client(tls::device_config(ended, &then).unwrap()).unwrap();
        assert!(client.get(self.metadata_url()).send().await.is_err());
    }

    /// The device finds its way by itself: the time, a certificate by the enrolled key, the rest.
    async fn comes_back(&self, mut agent: Agent) -> OutboxStats {
        let back = self.story.back;
        until("the clock is synced", || agent.clock.state() == ClockState::Synced).await;
        until("renewed", || agent.identity.tls().borrow().life().not_after > back).await;
        agent.has_arrived().await;
        agent.answers(FRAMES).await;
        agent.has_arrived().await;
        assert_eq!(agent.clock.now(), back);
        let kept = Identity::load(self.dir.path()).unwrap();
        assert_eq!(kept.tls().borrow().life(), agent.identity.tls().borrow().life());
        let client = tls::http_client(tls::device_config(&kept, &agent.clock).unwrap()).unwrap();
        assert_eq!(client.get(self.metadata_url()).send().await.unwrap().status(), 200);
        let stats = agent.outbox.stats();
        assert_eq!(agent.stop().await, 11 * FRAMES, "every frame was answered");
        stats
    }

    /// Nothing is missing that is not declared, and the headers link across every gap.
    fn accounts_for_all(&self, stats: &OutboxStats) {
        let told = chain::check(&self.rig, &Identity::load(self.dir.path()).unwrap());
        assert_eq!(told.samples + told.missing, 33 * FRAMES);
        assert_eq!(told.missing, stats.evicted_total);
        assert_eq!(told.samples, stats.samples_receipted_total);
        assert!(told.gaps > 0);
        assert_eq!((stats.dead_letters, stats.damaged_total), (0, 0));
        let count = |sql: &str| self.rig.count(sql);
        let unsynced = count("SELECT count(*) FROM sample WHERE clock_synced = 0");
        assert!(unsynced > 0, "samples of the days in 1970 say that their time is a guess");
        assert_eq!(count("SELECT count(*) FROM audit WHERE action = 'device.renew'"), 1);
        assert_eq!(count("SELECT count(*) FROM quarantine"), 0);
    }

    fn metadata_url(&self) -> String {
        format!("{}/tuf/dev/1.root.json", self.rig.config.device_url())
    }
}
