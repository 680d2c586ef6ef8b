//! A rename, a move to another machine and another CA, with running agents. Loopback addresses stand
//! for machines: a hub that left 127.0.0.2 is not reached there any more.

use std::path::Path;
use std::time::Duration;

use edge_agent::{enroll, home};
use fleet_hub::cli::hosts;
use fleet_hub::cli::keys::{self, Command};
use fleet_hub::clock::Clock;
use fleet_hub::config::FILE;
use fleet_hub::durable::{self, Access};
use fleetloop_models::picture::{Channels, Frame};
use fleetloop_observe::output::Output;
use fleetloop_protocol::api::hosts::Hosts;
use fleetloop_protocol::api::keys::KeyName;
use tempfile::TempDir;

use crate::agent::Agent;
use crate::device::PATIENCE;
use crate::rig::{Rig, options};

const OLD: &str = "127.0.0.2";
const NEW: &str = "127.0.0.3";

/// A hub that is at [`OLD`] only.
async fn hub() -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.hosts = vec![OLD.into()];
    for listen in [&mut options.admin_listen, &mut options.device_listen, &mut options.mqtt_listen]
    {
        *listen = listen.replace("127.0.0.1", OLD);
    }
    Rig::start_by(dir, &options, Clock::system(), |_| {}).await
}

async fn enrol(rig: &Rig) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let clock = edge_agent::clock::Clock::system(dir.path().join("clock.json")).unwrap();
    enroll::enroll_at(&rig.token().await, dir.path(), &clock).await.unwrap();
    dir
}

async fn host(rig: &Rig, command: hosts::Command) -> Result<(), String> {
    let done = hosts::run(&rig.admin(), Output::with_json(true), command).await;
    done.map_err(|error| format!("{error:#}"))
}

async fn key(rig: &Rig, command: Command) -> Result<(), String> {
    let (client, clock) = (rig.admin(), Clock::system());
    let done = Box::pin(keys::run(&client, Output::with_json(true), command, &clock)).await;
    done.map_err(|error| format!("{error:#}"))
}

async fn known(rig: &Rig) -> Hosts {
    rig.admin().get("list the hub's names", "/hosts").await.unwrap()
}

/// Waits until so many devices do not know the newest addresses and CA.
async fn until_waiting(rig: &Rig, count: usize) {
    let waiting = async {
        while known(rig).await.waiting.len() != count {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(waited.is_ok(), "{:?}", known(rig).await);
}

/// A sample of the device reaches the hub, `when` says in which chapter.
async fn sends(agent: &Agent, when: &str) {
    let grey = u8::try_from(when.len()).unwrap();
    let frame = Frame::new(8, 8, Channels::Grey, vec![grey; 64]).unwrap();
    agent.append(frame.encode_png().unwrap()).await;
    let emptied = tokio::time::timeout(2 * PATIENCE, agent.emptied()).await;
    assert!(emptied.is_ok(), "nothing arrived {when}");
}

/// Another machine, with the data folder of the one before.
async fn move_to(rig: &mut Rig, address: &str) -> TempDir {
    rig.stop().await;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([rig.config.paths.data.as_path(), data.as_path()])
        .status();
    assert!(copied.unwrap().success());
    let file = data.join(FILE);
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace(&format!("\"{OLD}:"), &format!("\"{address}:"));
    // The new name first: by that one the admin's access file and new tokens reach the hub.
    let text = text.replace(&format!("\"{OLD}\", \"{NEW}\""), &format!("\"{NEW}\", \"{OLD}\""));
    durable::write(&file, text.as_bytes(), Access::Everybody).unwrap();
    rig.config = fleet_hub::config::Config::load(&data).unwrap();
    rig.restart().await;
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_is_renamed_and_moves_and_no_device_is_lost() {
    let mut rig = hub().await;
    let (there, away) = (enrol(&rig).await, enrol(&rig).await);
    let agent = Agent::start(there.path());
    let before = Agent::start(away.path());
    sends(&agent, "from the old place").await;
    sends(&before, "before it goes away").await;
    before.stop().await;

    host(&rig, hosts::Command::Add { host: NEW.into() }).await.unwrap();
    assert!(known(&rig).await.restart);
    rig.restart().await;
    assert_eq!(rig.config.hosts, [OLD, NEW]);
    // It asks for news when it is connected again, once a minute at most; a restart is sooner.
    agent.stop().await;
    let agent = Agent::start(there.path());
    until_waiting(&rig, 1).await;
    let retire = |why: Option<&str>| {
        let without_waiting = why.map(str::to_owned);
        hosts::Command::Retire { host: OLD.into(), without_waiting }
    };
    let waits = host(&rig, retire(None)).await.unwrap_err();
    assert!(waits.contains("1 enrolled devices"), "{waits}");

    let _machine = move_to(&mut rig, NEW).await;
    sends(&agent, "from the new place, by its other address").await;
    host(&rig, retire(Some("the other device is away"))).await.unwrap();
    rig.restart().await;
    assert_eq!((rig.config.hosts.clone(), rig.config.host()), (vec![NEW.to_owned()], NEW));
    sends(&agent, "under the new name alone").await;

    comes_home(&rig, away.path()).await;
    assert_eq!(rig.count("SELECT count(*) FROM sample"), 5);
    agent.stop().await;
    rig.stop().await;
}

/// A device that knows the old address only is told where to look, and believes signatures.
async fn comes_home(rig: &Rig, dir: &Path) {
    let stranger = Rig::start().await;
    let lured = home::rehome(dir, &stranger.config.device_url()).await;
    assert!(lured.unwrap_err().to_string().contains("device listener of the hub"));
    let nobody = home::rehome(dir, &format!("https://{OLD}:1")).await;
    assert!(nobody.is_err());
    let found = home::rehome(dir, &rig.config.device_url()).await.unwrap();
    assert!(found.news);
    assert_eq!(found.device_urls, rig.config.device_urls());
    assert!(!home::rehome(dir, &rig.config.device_url()).await.unwrap().news);
    let agent = Agent::start(dir);
    sends(&agent, "home again").await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_ca_reaches_running_devices_and_one_that_was_away() {
    let mut rig = hub().await;
    let (there, away) = (enrol(&rig).await, enrol(&rig).await);
    let agent = Agent::start(there.path());
    sends(&agent, "under the first CA").await;
    let rotate = || Command::Rotate { key: KeyName::Ca, offline_keys: None };
    key(&rig, rotate()).await.unwrap();
    let again = key(&rig, rotate()).await.unwrap_err();
    assert!(again.contains("under way"), "{again}");
    rig.restart().await;
    agent.stop().await;
    let agent = Agent::start(there.path());
    // One waits: it is away. The other took the addresses, and a certificate of the next CA.
    until_waiting(&rig, 1).await;
    sends(&agent, "with a certificate of the next CA").await;
    // A device that enrols between the two begins with the CA of its token, and follows.
    let new = enrol(&rig).await;
    let newer = Agent::start(new.path());
    sends(&newer, "a new device").await;
    until_waiting(&rig, 1).await;
    newer.stop().await;

    let retire = |why: Option<&str>| Command::Retire {
        key: KeyName::Ca,
        without_waiting: why.map(str::to_owned),
    };
    assert!(key(&rig, retire(None)).await.unwrap_err().contains("1 enrolled devices"));
    key(&rig, retire(Some("the other device is away"))).await.unwrap();
    rig.restart().await;
    sends(&agent, "under the next CA alone").await;
    // It does not know the hub's certificate, nor the hub the device's.
    let back = Agent::start(away.path());
    sends(&back, "back").await;
    agent.stop().await;
    let agent = Agent::start(there.path());
    let newer = Agent::start(new.path());
    until_waiting(&rig, 0).await;
    assert_eq!(rig.count("SELECT count(*) FROM sample"), 5);
    for agent in [back, agent, newer] {
        agent.stop().await;
    }
    rig.stop().await;
}
