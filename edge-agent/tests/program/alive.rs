//! The built program: what a service manager hears, what a reload changes, and what a model that
//! ends the agent comes to.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::device::{Agent, Device};
use edge_agent::update::trial::{BOOT_ENV, ENDS_IN_A_ROW};
use fleetloop_protocol::Digest;
use rustix::process::Signal;

/// A service manager's end of `NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    path: String,
}

impl Manager {
    fn new(device: &Device) -> Self {
        let path = device.dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        // Longer than anything takes that happens at all.
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { socket, path: path.to_str().unwrap().to_owned() }
    }

    fn start(&self, device: &Device, watchdog: &str) -> Agent {
        device.start(&[("NOTIFY_SOCKET", &self.path), ("WATCHDOG_USEC", watchdog)])
    }

    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let len = self.socket.recv(&mut buffer).expect("a message in time");
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    /// The first message that contains `what`, and all before it.
    fn until(&self, what: &str) -> Vec<String> {
        let mut heard = Vec::new();
        loop {
            heard.push(self.next());
            if heard.last().is_some_and(|last| last.contains(what)) {
                return heard;
            }
        }
    }
}

#[test]
fn the_service_manager_hears_that_it_runs_lives_reloads_and_stops() {
    let device = Device::new();
    let bundle = device.install(1, None);
    let manager = Manager::new(&device);
    let agent = manager.start(&device, "2000000");
    let mut heard = manager.until("READY=1");
    assert_eq!(heard.len(), 1, "nothing is said before it runs: {heard:?}");
    assert!(heard[0].contains("STATUS="), "{heard:?}");
    heard.extend(manager.until("WATCHDOG=1"));
    agent.until_answers(bundle);
    // It may have been said before the first sign of life.
    let answers = "STATUS=linear 1 answers";
    if !heard.iter().any(|said| said.contains(answers)) {
        manager.until(answers);
    }

    let digest = device.configure("bright", 60, "");
    agent.signal(Signal::HUP);
    let began = manager.until("RELOADING=1");
    let usec =
        began.last().and_then(|said| said.lines().find_map(|l| l.strip_prefix("MONOTONIC_USEC=")));
    assert!(usec.is_some_and(|usec| usec.parse::<u64>().is_ok_and(|usec| usec > 0)), "{began:?}");
    manager.until("READY=1");
    let status = agent.until("the new configuration", |status| {
        status.running.as_ref().is_some_and(|running| running.config.digest == digest)
    });
    assert!(status.running.unwrap().config.source.contains("bright"));

    // One that is wrong ends in READY as well: the old one is in force.
    device.configure("bright", 0, "");
    agent.signal(Signal::HUP);
    manager.until("RELOADING=1");
    manager.until("READY=1");
    agent.stop();
    let last = manager.until("STOPPING=1");
    assert!(last.iter().any(|said| said.contains("WATCHDOG=1") || said.contains("STOPPING=1")));
}

#[test]
fn without_a_service_manager_it_runs_as_well() {
    let device = Device::new();
    let bundle = device.install(1, None);
    let agent = device.start(&[]);
    agent.until_answers(bundle);
    let stopped = agent.stop();
    assert_eq!(stopped.frames_in, stopped.frames_answered);
}

#[test]
fn reloads_of_source_rate_queue_and_selection_lose_no_frame() {
    let device = Device::new();
    let bundle = device.install(1, None);
    device.configure("dark", 500, "");
    let agent = device.start(&[]);
    agent.until_answers(bundle);
    for reload in 0..12u32 {
        let images = if reload % 2 == 0 { "bright" } else { "dark" };
        let more = format!(
            "[inference]\nqueue_frames = {}\n[selection]\nrandom_rate = 0.{reload}\n\
             [outbox]\nmax_rows = {}\n[results]\nmqtt_per_second = {reload}\n",
            4096 - reload,
            100 + reload
        );
        let digest = device.configure(images, 400 + 10 * reload, &more);
        agent.signal(Signal::HUP);
        agent.until("the reload", |status| {
            let running = status.running.as_ref();
            running.is_some_and(|r| r.config.digest == digest && r.config.source.contains(images))
        });
    }
    let stopped = agent.stop();
    assert!(stopped.frames_in > 100, "{stopped:?}");
    assert_eq!(stopped.frames_answered, stopped.frames_in, "{stopped:?}");
    assert_eq!((stopped.frames_dropped, stopped.frames_failed), (0, 0));
}

#[test]
fn a_wrong_file_is_shown_and_a_right_one_is_taken_without_a_signal() {
    let device = Device::new();
    let bundle = device.install(1, None);
    let agent = device.start(&[]);
    let before = agent.until_answers(bundle).running.unwrap().config;
    device.configure("dark", 50, "[selection]\nrandom_rate = 2.0\n");
    let status = agent.until("the refusal", |status| {
        status.running.as_ref().is_some_and(|running| running.config.refused.is_some())
    });
    let text = status.to_string();
    assert!(text.contains("is not used") && text.contains("selection.random_rate"), "{text}");
    assert_eq!(status.running.unwrap().config.digest, before.digest);
    let asked = device.command("status", &[]).output().unwrap();
    let text = String::from_utf8(asked.stdout).unwrap();
    assert!(asked.status.success() && text.contains("a model answers"), "{text}");
    assert!(text.contains("is not used") && text.contains("selection.random_rate"), "{text}");
    // Written in place, in two parts.
    let whole = "# a file of its own\n".to_owned()
        + &std::fs::read_to_string(device.config()).unwrap().replace("2.0", "0.5");
    let mut file =
        std::fs::OpenOptions::new().write(true).truncate(true).open(device.config()).unwrap();
    let (first, second) = whole.as_bytes().split_at(whole.len() / 2);
    file.write_all(first).unwrap();
    file.write_all(second).unwrap();
    let digest = Digest::of(whole.as_bytes());
    agent.until("the right one", |status| {
        let config = status.running.as_ref().map(|running| &running.config);
        config.is_some_and(|config| config.digest == digest && config.refused.is_none())
    });
    agent.stop();
    device.configure("dark", 50, "[selection]\nrandom_rate =\n");
    let asked = device.command("status", &[]).output().unwrap();
    let text = String::from_utf8(asked.stdout).unwrap();
    assert!(asked.status.success() && text.contains("stopped"), "{text}");
    assert!(text.contains("cannot start") && text.contains("random_rate"), "{text}");
}

#[test]
fn kills_under_one_boot_go_back_to_the_model_before_and_power_cuts_do_not() {
    let device = Device::new();
    let two = device.install(2, Some(1));
    for cut in 0..2 * ENDS_IN_A_ROW {
        let agent = device.start(&[(BOOT_ENV, &format!("boot-{cut}"))]);
        agent.until_answers(two);
        agent.kill();
    }
    for _ in 0..2 * ENDS_IN_A_ROW {
        let agent = device.start(&[(BOOT_ENV, "last")]);
        agent.until_answers(two);
        agent.stop();
    }
    for _ in 0..ENDS_IN_A_ROW {
        let agent = device.start(&[(BOOT_ENV, "last")]);
        agent.until_answers(two);
        agent.kill();
    }
    let agent = device.start(&[(BOOT_ENV, "last")]);
    let status = agent.until("an answer", |status| {
        status.running.as_ref().is_some_and(|running| running.frames.frames_answered > 0)
    });
    let model = status.model.unwrap();
    assert_eq!(model.name.as_deref(), Some("linear 1"));
    agent.stop();
}

/// The first line of a kept graph, and what follows.
fn parts(file: &[u8]) -> (Header, Vec<u8>) {
    let end = file.iter().position(|byte| *byte == b'\n').unwrap();
    let line = std::str::from_utf8(&file[..end]).unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    let ["fleetloop-proven", key, body] = words[..] else { panic!("{line}") };
    let header = Header { key: key.parse().unwrap(), body: body.parse().unwrap() };
    (header, file[end + 1..].to_vec())
}

struct Header {
    key: Digest,
    body: Digest,
}

#[test]
fn the_optimised_graph_is_made_at_the_first_start_and_made_anew_when_it_is_damaged() {
    let device = Device::new();
    let bundle = device.install(1, None);
    let kept = device.data().join("bundles").join(bundle.to_string()).join(".optimised");
    let read = || std::fs::read(&kept).unwrap();
    let run = || {
        let agent = device.start(&[]);
        agent.until_answers(bundle);
        agent.stop()
    };
    run();
    let first = read();
    let inode = || std::fs::metadata(&kept).unwrap().ino();
    let made = inode();
    run();
    assert_eq!(inode(), made, "what is good is not made again");
    let mut damaged = first.clone();
    *damaged.last_mut().unwrap() ^= 1;
    edge_agent::durable::write(&kept, &damaged).unwrap();
    run();
    // The runtime does not write the same bytes twice; the key is the same, and they are whole.
    let (anew, body) = parts(&read());
    assert_eq!((anew.key, anew.body), (parts(&first).0.key, Digest::of(&body)), "made anew");
    // Whole by its checksum, and no graph: golden cases cannot be met by it.
    let key = anew.key;
    let forged = format!("fleetloop-proven {key} {}\nno graph", Digest::of(b"no graph"));
    edge_agent::durable::write(&kept, forged.as_bytes()).unwrap();
    let stopped = run();
    assert_eq!(stopped.frames_failed, 0);
    assert_ne!(read(), forged.as_bytes(), "thrown away, and the bundle was tried anew");
    let names = std::fs::read_dir(kept.parent().unwrap()).unwrap().count();
    assert_eq!(names, 4, "no part is left over");
    assert!(!device.data().join("update/proof").exists(), "nor of the trial");
}
