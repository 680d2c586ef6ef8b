//! What is staged, by device and age, and what gives way. Pure: time is passed in, and files are
//! removed by whoever is told to.

use std::collections::{HashMap, VecDeque};

use fleetloop_protocol::{DeviceId, Digest, UnixMillis};

use crate::limits::Limits;

/// What a file costs at least: a folder full of tiny ones is not free.
const LEAST_COST: u64 = 4096;

/// How often all devices are looked at for uploads that are too old, in milliseconds.
const SWEEP_EVERY_MS: u64 = 60_000;

/// A file to remove.
pub(super) type Gone = (DeviceId, Digest);

/// What became of the wish for room.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Whether it was set aside.
    pub(super) granted: bool,
    /// Files to remove, either way.
    pub(super) gone: Vec<Gone>,
}

#[derive(Debug)]
struct Staged {
    commitment: Digest,
    cost: u64,
    at: UnixMillis,
}

/// One device's uploads, the oldest first, and what is on its way.
#[derive(Debug, Default)]
struct Device {
    reserved: u64,
    staged: VecDeque<Staged>,
}

impl Device {
    fn cost(&self) -> u64 {
        self.reserved + self.staged.iter().map(|staged| staged.cost).sum::<u64>()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ledger {
    device_bytes: u64,
    total_bytes: u64,
    keep_ms: u64,
    devices: HashMap<DeviceId, Device>,
    total: u64,
    swept_at: UnixMillis,
}

impl Ledger {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            device_bytes: limits.upload_device_bytes,
            total_bytes: limits.upload_total_bytes,
            keep_ms: u64::from(limits.upload_keep_s) * 1000,
            devices: HashMap::new(),
            total: 0,
            swept_at: UnixMillis(0),
        }
    }

    /// Sets `len` bytes aside for an upload that begins; [`Ledger::release`] gives them back. Makes
    /// room from what is too old and from the device's own oldest uploads, never from another's.
    pub(super) fn reserve(&mut self, device: &DeviceId, len: u64, now: UnixMillis) -> Room {
        let cost = len.max(LEAST_COST);
        let mut gone = self.sweep(now);
        let mut own = self.devices.remove(device).unwrap_or_default();
        while own.cost() + cost > self.device_bytes
            && let Some(oldest) = own.staged.pop_front()
        {
            self.total -= oldest.cost;
            gone.push((device.clone(), oldest.commitment));
        }
        let granted =
            own.cost() + cost <= self.device_bytes && self.total + cost <= self.total_bytes;
        if granted {
            own.reserved += cost;
            self.total += cost;
        }
        self.put_back(device, own);
        Room { granted, gone }
    }

    /// Gives back what was set aside.
    pub(super) fn release(&mut self, device: &DeviceId, len: u64) {
        let cost = len.max(LEAST_COST);
        let mut own = self.devices.remove(device).unwrap_or_default();
        own.reserved = own.reserved.saturating_sub(cost);
        self.total = self.total.saturating_sub(cost);
        self.put_back(device, own);
    }

    /// An upload is on the disk.
    pub(super) fn keep(&mut self, device: &DeviceId, commitment: Digest, len: u64, at: UnixMillis) {
        self.forget(device, commitment);
        let cost = len.max(LEAST_COST);
        let own = self.devices.entry(device.clone()).or_default();
        own.staged.push_back(Staged { commitment, cost, at });
        self.total += cost;
    }

    /// An upload is no longer there.
    pub(super) fn forget(&mut self, device: &DeviceId, commitment: Digest) {
        let mut own = self.devices.remove(device).unwrap_or_default();
        if let Some(place) = own.staged.iter().position(|staged| staged.commitment == commitment) {
            let staged = own.staged.remove(place);
            self.total -= staged.map_or(0, |staged| staged.cost);
        }
        self.put_back(device, own);
    }

    /// Whether it is there.
    pub(super) fn has(&self, device: &DeviceId, commitment: Digest) -> bool {
        let own = self.devices.get(device);
        own.is_some_and(|own| own.staged.iter().any(|staged| staged.commitment == commitment))
    }

    fn sweep(&mut self, now: UnixMillis) -> Vec<Gone> {
        if now.0.saturating_sub(self.swept_at.0) < SWEEP_EVERY_MS {
            return Vec::new();
        }
        self.swept_at = now;
        let mut gone = Vec::new();
        for (device, own) in &mut self.devices {
            while let Some(oldest) = own.staged.front()
                && now.0.saturating_sub(oldest.at.0) >= self.keep_ms
            {
                self.total -= oldest.cost;
                gone.push((device.clone(), oldest.commitment));
                own.staged.pop_front();
            }
        }
        self.devices.retain(|_, own| own.cost() > 0);
        gone
    }

    fn put_back(&mut self, device: &DeviceId, own: Device) {
        if own.cost() > 0 {
            self.devices.insert(device.clone(), own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        let limits = Limits {
            upload_device_bytes: 100_000,
            upload_total_bytes: 150_000,
            upload_keep_s: 60,
            ..Limits::default()
        };
        Ledger::new(&limits)
    }

    fn device(name: &str) -> DeviceId {
        name.parse().unwrap()
    }

    fn stage(ledger: &mut Ledger, device: &DeviceId, what: &[u8], len: u64, at: u64) -> Room {
        let room = ledger.reserve(device, len, UnixMillis(at));
        if room.granted {
            ledger.release(device, len);
            ledger.keep(device, Digest::of(what), len, UnixMillis(at));
        }
        room
    }

    #[test]
    fn a_device_over_its_share_loses_its_own_oldest_and_nobody_elses() {
        let (mut ledger, a, b) = (ledger(), device("a"), device("b"));
        assert!(stage(&mut ledger, &b, b"b", 30_000, 1).granted);
        assert!(stage(&mut ledger, &a, b"1", 60_000, 2).granted);
        let room = stage(&mut ledger, &a, b"2", 60_000, 3);
        assert_eq!(room, Room { granted: true, gone: vec![(a.clone(), Digest::of(b"1"))] });
        assert!(!ledger.has(&a, Digest::of(b"1")) && ledger.has(&a, Digest::of(b"2")));
        assert!(ledger.has(&b, Digest::of(b"b")) && !ledger.has(&a, Digest::of(b"b")));
    }

    #[test]
    fn over_the_total_a_device_is_told_to_wait_and_what_is_too_old_makes_room() {
        let (mut ledger, a, b) = (ledger(), device("a"), device("b"));
        assert!(stage(&mut ledger, &a, b"1", 90_000, 60_000).granted);
        let full = stage(&mut ledger, &b, b"2", 90_000, 60_001);
        assert_eq!(full, Room { granted: false, gone: vec![] });
        let room = stage(&mut ledger, &b, b"2", 90_000, 120_000);
        assert_eq!(room, Room { granted: true, gone: vec![(a, Digest::of(b"1"))] });
    }

    #[test]
    fn what_is_on_its_way_counts_and_is_given_back() {
        let (mut ledger, a) = (ledger(), device("a"));
        assert!(ledger.reserve(&a, 90_000, UnixMillis(1)).granted);
        assert!(!ledger.reserve(&a, 90_000, UnixMillis(1)).granted);
        ledger.release(&a, 90_000);
        assert!(ledger.reserve(&a, 90_000, UnixMillis(1)).granted);
        ledger.release(&a, 90_000);
        assert_eq!((ledger.total, ledger.devices.len()), (0, 0));
    }

    #[test]
    fn the_same_again_counts_once_and_tiny_files_are_not_free() {
        let (mut ledger, a) = (ledger(), device("a"));
        for _ in 0..100 {
            assert!(stage(&mut ledger, &a, b"1", 1, 1).gone.is_empty());
        }
        assert_eq!(ledger.total, LEAST_COST);
        ledger.forget(&a, Digest::of(b"1"));
        ledger.forget(&a, Digest::of(b"1"));
        assert_eq!((ledger.total, ledger.devices.len()), (0, 0));
    }
}
