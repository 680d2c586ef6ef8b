//! What an outbox is: a list in memory.

use super::*;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum What {
    Sample {
        random: bool,
        score: f32,
    },
    /// `seen`: the hub may know it, so it may not grow.
    Gap {
        reason: GapReason,
        seen: bool,
    },
}

/// A row that is not offered before `until`; `retry`: not on a new connection either.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    pub(super) until: Duration,
    pub(super) retry: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) what: What,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) len: u64,
    /// Its payload is uploaded before its message is offered.
    pub(super) large: bool,
    pub(super) damaged: bool,
    pub(super) lease: Option<Lease>,
}

/// What names a row for as long as it is the same row.
pub(super) type Name = (Kind, u64, u64);

impl Row {
    pub(super) fn new(what: What, from: u64, to: u64, len: u64) -> Self {
        Self { what, from, to, len, large: false, damaged: false, lease: None }
    }

    pub(super) fn name(&self) -> Name {
        let kind = if self.is_sample() { Kind::Sample } else { Kind::Gap };
        (kind, self.from, self.to)
    }

    pub(super) fn is_sample(&self) -> bool {
        matches!(self.what, What::Sample { .. })
    }
}

/// What an outbox is. The rows are in the order in which they are offered.
pub(super) struct Model {
    pub(super) limits: OutboxConfig,
    pub(super) key: Arc<SigningKey>,
    pub(super) epoch: Epoch,
    pub(super) rows: Vec<Row>,
    pub(super) now: Duration,
    pub(super) hold_until: Duration,
    /// Totals; what waits is counted from the rows.
    pub(super) totals: OutboxStats,
}

impl Model {
    pub(super) fn of(bench: &Bench) -> Self {
        let epoch = bench.outbox.stats().epoch();
        Self {
            limits: bench.limits.clone(),
            key: bench.key.clone(),
            epoch,
            rows: Vec::new(),
            now: Duration::ZERO,
            hold_until: Duration::ZERO,
            totals: OutboxStats { epoch: epoch.0, ..OutboxStats::default() },
        }
    }

    pub(super) fn samples(&self) -> u64 {
        self.rows.iter().filter(|row| row.is_sample()).count() as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.rows.iter().map(|row| row.len).sum()
    }

    pub(super) fn stats(&self) -> OutboxStats {
        let samples = self.samples();
        let gaps = self.rows.len() as u64 - samples;
        let uploads = self.rows.iter().filter(|row| row.large).count() as u64;
        OutboxStats { samples, gaps, uploads, bytes: self.bytes(), ..self.totals }
    }

    pub(super) fn find(&self, name: Name) -> Option<usize> {
        self.rows.iter().position(|row| row.name() == name)
    }

    pub(super) fn append(&mut self, what: What, len: u64, large: bool) {
        let sequence = self.totals.samples_signed_total;
        self.rows.push(Row { large, ..Row::new(what, sequence, sequence, len) });
        self.totals.samples_signed_total += 1;
        self.totals.signed_since_start += 1;
        self.totals.paused = false;
        while self.samples() > self.limits.max_rows || self.bytes() > self.limits.max_bytes {
            let Some(at) = self.least_informative() else { break };
            let row = self.rows.remove(at);
            self.leave_gap(&row, GapReason::OutboxFull);
            self.totals.evicted_total += 1;
            self.totals.evicted_since_start += 1;
        }
    }

    /// Of the more numerous kind, and of the other when all of that kind is under way: the lowest
    /// score among the uncertain, the oldest among the random and among equals. What the hub refused
    /// for now is not under way.
    pub(super) fn least_informative(&self) -> Option<usize> {
        let is =
            |row: &Row, wanted| matches!(row.what, What::Sample { random, .. } if random == wanted);
        let randoms = self.rows.iter().filter(|row| is(row, true)).count() as u64;
        let first = randoms * 2 > self.samples();
        let rank = |row: &Row| match row.what {
            What::Sample { random: false, score } => (score, row.from),
            _ => (0.0, row.from),
        };
        [first, !first].into_iter().find_map(|kind| {
            let free = |row: &Row| is(row, kind) && row.lease.is_none_or(|lease| lease.retry);
            let mut free: Vec<usize> =
                (0..self.rows.len()).filter(|i| free(&self.rows[*i])).collect();
            free.sort_by(|a, b| rank(&self.rows[*a]).partial_cmp(&rank(&self.rows[*b])).unwrap());
            free.first().copied()
        })
    }

    /// A gap takes in its neighbours of the same reason that the hub has not seen.
    pub(super) fn leave_gap(&mut self, row: &Row, reason: GapReason) {
        let (mut from, mut to) = (row.from, row.to);
        let fresh = What::Gap { reason, seen: false };
        if let Some(left) = self.rows.iter().position(|r| r.what == fresh && r.to + 1 == from) {
            from = self.rows.remove(left).from;
        }
        if let Some(right) = self.rows.iter().position(|r| r.what == fresh && r.from == to + 1) {
            to = self.rows.remove(right).to;
        }
        self.rows.push(Row::new(fresh, from, to, self.gap_len(from, to, reason)));
    }

    /// The bytes of a gap's message; whatever it links, they are as many.
    pub(super) fn gap_len(&self, from: u64, to: u64, reason: GapReason) -> u64 {
        let (before, after) = (Digest::ZERO, Digest::ZERO);
        let (from, to) = (Sequence(from), Sequence(to));
        let gap = Gap { device: device(), epoch: self.epoch, from, to, before, after, reason };
        Signed::seal(&gap, &device(), &self.key).unwrap().as_bytes().len() as u64
    }

    /// What may be offered now, large ones or the others.
    pub(super) fn free(&mut self, large: bool) -> Vec<Name> {
        let now = self.now;
        for row in &mut self.rows {
            row.lease = row.lease.filter(|lease| lease.until > now);
        }
        if now < self.hold_until {
            return Vec::new();
        }
        let free = self.rows.iter().filter(|row| row.lease.is_none() && row.large == large);
        free.map(Row::name).collect()
    }

    /// The row whose payload is to be uploaded; a damaged one is mended instead.
    pub(super) fn next_upload(&mut self) -> Option<Name> {
        let name = *self.free(true).first()?;
        let at = self.find(name)?;
        if self.rows[at].damaged {
            self.mend(at);
            return None;
        }
        Some(name)
    }

    pub(super) fn lease(&mut self, name: Name, time: Duration, retry: bool) {
        let until = self.now + time;
        if let Some(at) = self.find(name) {
            self.rows[at].lease = Some(Lease { until, retry });
        }
    }

    pub(super) fn batch(&mut self, max_rows: usize, max_bytes: usize) -> Vec<Name> {
        let now = self.now;
        let mut names = self.free(false);
        names.truncate(max_rows);
        let (mut offered, mut bytes) = (Vec::new(), 0);
        for name in names {
            // A gap may have gone into a wider one just now, which comes later.
            let Some(at) = self.find(name) else { continue };
            if self.rows[at].damaged {
                self.mend(at);
                continue;
            }
            bytes += self.rows[at].len;
            if bytes > max_bytes as u64 && !offered.is_empty() {
                break;
            }
            let row = &mut self.rows[at];
            row.lease = Some(Lease { until: now + LEASE, retry: false });
            if let What::Gap { seen, .. } = &mut row.what {
                *seen = true;
            }
            offered.push(name);
        }
        offered
    }

    /// A damaged sample becomes a gap; a damaged gap is signed anew and stays the same gap.
    pub(super) fn mend(&mut self, at: usize) {
        let row = self.rows.remove(at);
        match row.what {
            What::Sample { .. } => {
                self.totals.damaged_total += 1;
                self.leave_gap(&row, GapReason::Damaged);
            }
            What::Gap { reason, .. } => {
                let what = What::Gap { reason, seen: true };
                self.rows.push(Row { what, damaged: false, ..row });
            }
        }
    }

    pub(super) fn settle(&mut self, name: Name, lie: Lie) -> Settled {
        let Some(at) = self.find(name) else { return Settled::Unknown };
        match lie {
            Lie::Nothing => {
                let row = self.rows.remove(at);
                self.totals.samples_receipted_total += u64::from(row.is_sample());
                Settled::Deleted
            }
            Lie::Digest => Settled::OtherDigest,
            Lie::Epoch | Lie::Sequence => Settled::Unknown,
        }
    }

    pub(super) fn refuse(&mut self, name: Name, reason: RefusalReason, retry_s: u32) -> Refused {
        let Some(at) = self.find(name) else { return Refused::Unknown };
        if !reason.is_permanent() {
            let until = self.now + Duration::from_secs(u64::from(retry_s)).min(LONGEST_RETRY);
            self.rows[at].lease = Some(Lease { until, retry: true });
            if matches!(reason, RefusalReason::StorageFull | RefusalReason::Busy) {
                self.hold_until = self.hold_until.max(until);
            }
            return Refused::Retry;
        }
        let row = self.rows.remove(at);
        if row.is_sample() {
            self.totals.refused_total += 1;
            self.totals.dead_letters += 1;
            if self.totals.dead_letters > DEAD_LETTERS {
                self.totals.dead_letters -= 1;
                self.totals.dead_dropped_total += 1;
            }
            self.leave_gap(&row, GapReason::Refused);
        }
        Refused::DeadLetter
    }

    pub(super) fn connection_lost(&mut self) {
        for row in &mut self.rows {
            row.lease = row.lease.filter(|lease| lease.retry);
        }
    }

    pub(super) fn restart(&mut self) {
        self.rows.iter_mut().for_each(|row| row.lease = None);
        self.hold_until = Duration::ZERO;
        self.totals.signed_since_start = 0;
        self.totals.evicted_since_start = 0;
        self.totals.append_failed = 0;
        self.totals.paused = false;
    }
}
