//! Networks of this machine: a network namespace and a pair of virtual interfaces, whose link can
//! be taken down, slowed and made to lose packets.
//!
//! The namespace lives in a process of the rig that does nothing else. When that ends, by the rig
//! or with it, the kernel takes namespace, interfaces and rules with it; nothing stays.
//!
//! Needs root, `ip`, `tc` (iproute2), `iptables`, `unshare` and `nsenter` (util-linux).

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::tool::tool;
use super::{LinkState, Network, Process};
use crate::wait;

/// The interface inside.
const INSIDE: &str = "dev0";

/// What must be there.
const TOOLS: [(&str, &str); 4] =
    [("ip", "iproute2"), ("tc", "iproute2"), ("iptables", "iptables"), ("nsenter", "util-linux")];

/// A slow link: 256 kbit/s, and packets that would wait longer than this are lost.
const SLOW: [&str; 7] = ["tbf", "rate", "256kbit", "burst", "16kb", "latency", "400ms"];

/// Where the addresses begin: the upper half of 10.0.0.0/8.
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);

/// How long a namespace may take.
const SOON: Duration = Duration::from_secs(10);

/// The share of packets that a lossy link loses, each way.
const LOSS: &str = "0.2";

/// Set where making networks is known to be impossible.
const NO_NETWORK: &str = "FLEETLOOP_NO_NETWORK";

/// Why there are no networks here, where that is known.
pub(super) fn lacking() -> Option<String> {
    if std::env::var_os(NO_NETWORK).is_some() {
        return Some(format!("{NO_NETWORK} is set"));
    }
    if !rustix::process::geteuid().is_root() {
        return Some("networks are made by root only; run as root".to_owned());
    }
    TOOLS.iter().find(|(tool, _)| !is_there(tool)).map(|(tool, package)| {
        format!("there is no '{tool}': run 'cargo xtask setup', or install {package}")
    })
}

fn is_there(tool: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(tool).is_file())
}

/// What a process must be to hold a namespace of its own.
pub(super) fn holder() -> [OsString; 4] {
    ["unshare", "--net", "sleep", "infinity"].map(OsString::from)
}

/// What goes before a program that shall see the namespace of process `id`.
pub(super) fn enter(id: u32) -> [OsString; 2] {
    ["nsenter".into(), format!("--net=/proc/{id}/ns/net").into()]
}

/// Joins the namespace of `holder` to the rig's own.
pub(super) fn join(holder: &Process, number: u8) -> Result<Network> {
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net"));
    wait::until("a network namespace", SOON, Duration::from_millis(2), || {
        let (own, its) = (namespace("self")?, namespace(&holder.id.to_string())?);
        Ok((own != its).then_some(()))
    })?;
    // Four addresses for each network; the process's number keeps rigs apart.
    let own = std::process::id();
    let first = (own << 4 | u32::from(number & 0xf)) & 0x1f_ffff;
    let address = |last: u32| Ipv4Addr::from(u32::from(FIRST) + (first << 2) + last);
    let (here, there) = (address(1), address(2));
    let outside = format!("fl{own}-{number}");
    let id = holder.id.to_string();
    ip(&["link", "add", &outside, "type", "veth", "peer", "name", INSIDE, "netns", &id])?;
    ip(&["address", "add", &format!("{here}/30"), "dev", &outside])?;
    ip(&["link", "set", &outside, "up"])?;
    inside(holder.id, &["ip", "link", "set", "lo", "up"])?;
    inside(holder.id, &["ip", "address", "add", &format!("{there}/30"), "dev", INSIDE])?;
    inside(holder.id, &["ip", "link", "set", INSIDE, "up"])?;
    Ok(Network { id: holder.id, rig: here.into() })
}

/// Brings the link of `network` into a state, whatever state it was in.
pub(super) fn set(network: &Network, state: LinkState) -> Result<()> {
    let id = network.id;
    // Everything as it was when the link was made. Without a queue there is none to delete.
    let _ = inside(id, &["tc", "qdisc", "delete", "dev", INSIDE, "root"]);
    inside(id, &["iptables", "--flush"])?;
    // The device's end: without the other the rig would lose its own address.
    let way = if state == LinkState::Down { "down" } else { "up" };
    inside(id, &["ip", "link", "set", INSIDE, way])?;
    match state {
        LinkState::Up | LinkState::Down => {}
        LinkState::Slow => {
            inside(id, &[&["tc", "qdisc", "add", "dev", INSIDE, "root"][..], &SLOW].concat())?;
        }
        LinkState::Lossy => {
            for (chain, way) in [("INPUT", "--in-interface"), ("OUTPUT", "--out-interface")] {
                let lose = ["--match", "statistic", "--mode", "random", "--probability", LOSS];
                let rule = ["iptables", "--append", chain, way, INSIDE];
                inside(id, &[&rule[..], &lose, &["--jump", "DROP"]].concat())?;
            }
        }
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> Result<()> {
    tool(Command::new("ip").args(arguments))
}

fn inside(id: u32, words: &[&str]) -> Result<()> {
    let [program, namespace] = enter(id);
    tool(Command::new(program).arg(namespace).args(words))
}
