//! A device restored from an image of its card, and a card that was copied: the agent's own outbox and
//! link on real folders, the real broker, and the commands that an operator types.

use std::path::Path;
use std::time::Duration;

use edge_agent::clock::{Clock as DeviceClock, ManualTime};
use edge_agent::enroll;
use fleet_hub::cli::devices;
use fleet_hub::clock::Clock;
use fleetloop_observe::output::Output;
use fleetloop_protocol::api::datasets::{FreezeRequest, Frozen};
use fleetloop_protocol::api::devices::{Device, EpochSummary};
use fleetloop_protocol::api::findings::Finding;
use fleetloop_protocol::api::labels::LabelRequest;
use fleetloop_protocol::api::samples::Sample;
use fleetloop_protocol::{DeviceId, Digest};
use tempfile::TempDir;

use crate::agent::Agent;
use crate::device::{PATIENCE, picture};
use crate::rig::Rig;

/// Samples that may be on their way at once: those may be answered under the identity they left with.
const UNDER_WAY: i64 = 64;

async fn enrol(rig: &Rig) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let clock = DeviceClock::system(dir.path().join("clock.json")).unwrap();
    enroll::enroll_at(&rig.token().await, dir.path(), &clock).await.unwrap();
    dir
}

/// A copy of a device's whole folder: an image of its card.
fn image(of: &Path) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let copied =
        std::process::Command::new("cp").arg("-a").arg(of.join(".")).arg(dir.path()).status();
    assert!(copied.unwrap().success());
    dir
}

/// Signs one sample for each number, with a picture of its own.
async fn signs(agent: &Agent, who: &str, numbers: std::ops::Range<u32>) {
    for number in numbers {
        agent.append(picture(format!("{who} {number}").as_bytes())).await;
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(3 * PATIENCE, waiting).await;
    assert!(waited.is_ok(), "never: {what}");
}

/// How many samples of the device count, are held, and were dropped, by epoch.
async fn epochs(rig: &Rig, device: &DeviceId) -> Vec<(String, [u64; 3])> {
    let path = format!("/devices/{device}/epochs");
    let all: Vec<EpochSummary> = rig.admin().get("show epochs", &path).await.unwrap();
    let counts = |e: EpochSummary| (e.epoch, [e.samples - e.held - e.dropped, e.held, e.dropped]);
    all.into_iter().map(counts).collect()
}

/// The kinds of what the hub found about copies and epochs and nobody has acknowledged.
async fn findings(rig: &Rig) -> Vec<String> {
    let all: Vec<Finding> = rig.admin().get("list findings", "/findings").await.unwrap();
    let kinds = all.into_iter().map(|finding| finding.kind);
    kinds.filter(|kind| kind == "clone" || kind == "epoch.new").collect()
}

/// Labels every sample and freezes a dataset of all that may be in one; how many are.
async fn frozen(rig: &Rig) -> u64 {
    let samples: Vec<[u8; 32]> = {
        let database = rig.database();
        let mut all = database.prepare("SELECT sample FROM sample").unwrap();
        all.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    for sample in samples {
        let request = LabelRequest { sample: Digest::from_bytes(sample), label: "good".into() };
        let _: Sample = rig.admin().post("label a sample", "/labels", &request).await.unwrap();
    }
    let request = FreezeRequest { name: "all".into(), gate_share: 0.5, groups: vec![] };
    let frozen: Frozen = rig.admin().post("freeze", "/datasets", &request).await.unwrap();
    frozen.dataset.train + frozen.dataset.gate
}

fn hex(epoch: u64) -> String {
    format!("{epoch:016x}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_restored_from_an_image_loses_nothing_that_was_not_reported() {
    let mut rig = Rig::start().await;
    let dir = enrol(&rig).await;
    let agent = Agent::start(dir.path());
    signs(&agent, "before", 0..20).await;
    agent.emptied().await;
    // The image holds ten samples that have not been sent.
    rig.stop().await;
    signs(&agent, "in the image", 0..10).await;
    agent.stop().await;
    let card = image(dir.path());
    rig.serve().await;
    let agent = Agent::start(dir.path());
    signs(&agent, "after", 0..30).await;
    agent.emptied().await;
    let first = agent.outbox.stats().epoch;
    agent.stop().await;
    assert_eq!(rig.count("SELECT count(*) FROM sample"), 60);

    // The card is written from the image. The hub is away, so 254 samples wait when they meet again.
    rig.stop().await;
    let agent = Agent::start(card.path());
    signs(&agent, "restored", 0..254).await;
    assert_eq!(agent.outbox.stats().epoch, first);
    rig.serve().await;
    agent.emptied().await;

    let stats = agent.outbox.stats();
    assert_eq!((stats.samples, stats.gaps, stats.dead_letters), (0, 0, 0));
    assert_eq!((stats.refused_total, stats.evicted_total, stats.damaged_total), (0, 0, 0));
    assert_eq!(stats.epochs_opened_total, 1, "at the first conflict, and once");
    assert_eq!(stats.samples_receipted_total, 20 + 10 + 254);
    assert_eq!(rig.count("SELECT count(*) FROM sample"), 60 + 254);
    assert_eq!(rig.count("SELECT count(DISTINCT payload) FROM sample"), 60 + 254, "each once");
    // What was never offered was signed again before it was, so no message of it met a conflict.
    let conflicts = rig.count("SELECT count(*) FROM quarantine");
    assert!((1..=30).contains(&conflicts), "{conflicts}");
    let by_epoch = epochs(&rig, &device(&rig).await).await;
    let [(_, [old, 0, 0]), (new, [again, 0, 0])] = by_epoch.as_slice() else {
        panic!("{by_epoch:?}")
    };
    assert_eq!((*new == hex(stats.epoch), old + again), (true, 60 + 254));
    let again = i64::try_from(*again).unwrap();
    assert!(again >= 254 - UNDER_WAY, "{again} samples were signed again");

    // It goes on in its new epoch, after another start too, and is one device for the hub.
    agent.stop().await;
    let agent = Agent::start(card.path());
    signs(&agent, "later", 0..40).await;
    agent.emptied().await;
    assert_eq!(agent.outbox.stats().epoch, stats.epoch);
    assert_eq!(rig.count("SELECT count(*) FROM quarantine"), conflicts);
    assert_eq!(findings(&rig).await, ["epoch.new"]);
    assert_eq!(agent.status.borrow().notice(), None);
    assert_eq!(frozen(&rig).await, 60 + 254 + 40, "all of them count");
    agent.stop().await;
    rig.stop().await;
}

/// The only device.
async fn device(rig: &Rig) -> DeviceId {
    let mut all: Vec<Device> = rig.admin().get("list devices", "/devices").await.unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0).id
}

/// The original, over a clock that is set by hand, and its copy.
struct Twins {
    rig: Rig,
    dirs: [TempDir; 2],
    original: Agent,
    time: ManualTime,
    copy: Agent,
}

impl Twins {
    /// Both run. The original has sent five samples before the card was copied and three since then.
    async fn begin() -> Self {
        let rig = Rig::start().await;
        let dir = enrol(&rig).await;
        let agent = Agent::start(dir.path());
        signs(&agent, "before", 0..5).await;
        agent.emptied().await;
        agent.stop().await;
        let card = image(dir.path());

        let file = dir.path().join("clock.json");
        let (clock, time) = DeviceClock::manual_over(Clock::system().now(), file).unwrap();
        let original = Agent::start_at(dir.path(), clock);
        signs(&original, "original", 0..3).await;
        original.emptied().await;
        let copy = Agent::start(card.path());
        signs(&copy, "copy", 0..2).await;
        Self { rig, dirs: [dir, card], original, time, copy }
    }

    /// Both send until both say whom they met and the hub has found it, too.
    async fn meet(&self) -> u32 {
        // The copy's first samples have identities of the original's: it begins an epoch of its own.
        until("the copy has an epoch of its own", || {
            self.copy.outbox.stats().epochs_opened_total == 1
        })
        .await;
        let mut rounds = 0;
        let both_say_so = || {
            [&self.original, &self.copy].iter().all(|one| one.status.borrow().notice().is_some())
        };
        while !(both_say_so() && findings(&self.rig).await.contains(&"clone".to_owned())) {
            let seen = [&self.original, &self.copy].map(|one| one.status.borrow().clone());
            assert!(rounds < 360, "{:?} {seen:?}", findings(&self.rig).await);
            signs(&self.original, "original", 3 + rounds..4 + rounds).await;
            signs(&self.copy, "copy", 2 + rounds..3 + rounds).await;
            rounds += 1;
            self.time.advance(Duration::from_millis(500));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        // What comes now is held from the beginning.
        signs(&self.original, "original", 3 + rounds..4 + rounds).await;
        signs(&self.copy, "copy", 2 + rounds..3 + rounds).await;
        rounds += 1;
        for one in [&self.original, &self.copy] {
            until("all of both is stored", || one.outbox.stats().samples == 0).await;
        }
        rounds
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_card_is_found_on_both_sides_and_counts_when_an_operator_has_decided() {
    let twins = Twins::begin().await;
    let rounds = i64::from(twins.meet().await);
    let Twins { rig, dirs, original, time, copy } = twins;
    for agent in [&original, &copy] {
        let notice = agent.status.borrow().notice().unwrap();
        assert!(notice.starts_with("ANOTHER DEVICE USES THIS IDENTITY"), "{notice}");
        let stats = agent.outbox.stats();
        assert_eq!((stats.refused_total, stats.dead_letters, stats.evicted_total), (0, 0, 0));
    }
    let all = 5 + (3 + rounds) + (2 + rounds);
    assert_eq!(rig.count("SELECT count(*) FROM sample"), all, "of both");
    assert_eq!(rig.count("SELECT count(DISTINCT payload) FROM sample"), all, "each once");
    let id = device(&rig).await;
    let shown: Device = rig.admin().get("show", &format!("/devices/{id}")).await.unwrap();
    assert!(shown.cloned_since_ms.is_some() && shown.samples_held > 0, "{shown:?}");

    let [ours, theirs] = [&original, &copy].map(|agent| hex(agent.outbox.stats().epoch));
    let by_epoch = epochs(&rig, &id).await;
    let of = |epoch: &str| by_epoch.iter().find(|(known, _)| known == epoch).unwrap().1;
    let ([counts, held, 0], [0, all_theirs, 0]) = (of(&ours), of(&theirs)) else {
        panic!("{by_epoch:?}")
    };
    assert!(counts >= 5 + 3 && held > 0 && all_theirs > 0, "{by_epoch:?}");
    assert_eq!(frozen(&rig).await, counts, "what came before the copy");

    // The operator finds the copy, stops it, and keeps what the original sent.
    copy.stop().await;
    let keep = devices::Command::Keep {
        device: id.to_string(),
        epochs: vec![ours],
        all: false,
        none: false,
    };
    Box::pin(devices::run(&rig.admin(), Output::with_json(true), keep)).await.unwrap();
    assert!(!findings(&rig).await.contains(&"clone".to_owned()), "it is dealt with");
    signs(&original, "decided", 0..4).await;
    until("the original goes on", || original.outbox.stats().samples == 0).await;
    assert_eq!(frozen(&rig).await, counts + held + 4, "and nothing of the copy");
    let shown: Device = rig.admin().get("show", &format!("/devices/{id}")).await.unwrap();
    assert_eq!((shown.cloned_since_ms, shown.samples_held), (None, 0));
    // An hour without the other, and the device no longer says so.
    time.advance(Duration::from_secs(2 * 3600));
    until("the notice is gone", || original.status.borrow().notice().is_none()).await;
    original.stop().await;
    drop(dirs);
}
