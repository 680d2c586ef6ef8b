//! Which threads go first: the source's and inference's; all others give way.
//!
//! A thread that encodes, signs, waits for the disk, loads a model or talks to the hub asks the kernel for
//! the least of a processor that frames want too: all of them together get a twentieth of one that frames
//! could fill alone, and whatever frames leave. Raising a nice value needs no right and cannot be taken
//! back; a thread hands it on to the threads that it starts.
//!
//! A nice value says how much, not how soon: a thread that wakes would still wait for the end of
//! another's turn, up to a tick. One that asks for shorter turns than the others does not, on Linux from
//! 6.12 on (EEVDF; `sched_setattr(2)` takes the length as `sched_runtime`); older kernels do not look. But
//! at a tick after its turn a thread that got more than its share, as frames do, gives way to any other:
//! inference's turns are a little shorter than others', and not the shortest.
//!
//! Nor does a thread whose turn has come at last give the processor back before the next tick, up to four
//! milliseconds later, however small its share. So background work that is many small pieces rests between
//! them ([`after_you`]); what is one long piece, loading a model, cannot.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use rustix::process::setpriority_process;
use rustix::time::{ClockId, clock_gettime};

/// The last priority there is: a thread gets a seventieth of a contended processor (sched(7)). At +10 it
/// got a tenth, and link and outbox together, in a drain, a quarter: as much as frames leave at all on a
/// device of one processor.
const LAST: i32 = 19;

/// How long a background thread works until it rests: less than a frame takes, and far more than a rest.
const PIECE: Duration = Duration::from_micros(200);

/// The shortest turn that the kernel gives, in nanoseconds.
const SHORTEST_TURN: u64 = 100_000;

/// The calling thread gives way to all others from now on. Linux takes a priority of the caller for its
/// thread.
pub fn give_way() {
    if let Err(error) = setpriority_process(None, LAST) {
        tracing::debug!(%error, "a background thread keeps its priority");
    }
    // Or it would keep the processor until the next tick, as if it had not.
    rest();
}

/// For background threads, between two pieces of work: one that has worked for a while rests, for the
/// shortest time there is, so that a thread which waits for this processor goes on. Costs next to nothing
/// otherwise.
pub fn after_you() {
    thread_local! {
        static RESTED_AT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }
    let used = clock_gettime(ClockId::ThreadCPUTime);
    let worked = Duration::try_from(used).unwrap_or_default();
    if worked.saturating_sub(RESTED_AT.get()) >= PIECE {
        RESTED_AT.set(worked);
        rest();
    }
}

/// Yielding the processor instead would also yield a whole turn of one's share: beside a thread that never
/// rests it leaves a twentieth of it (`sched_yield(2)`, EEVDF).
fn rest() {
    std::thread::sleep(Duration::from_nanos(1));
}

/// The calling thread, which brings frames in next to no time, begins when it wakes, whatever other
/// ordinary threads are at.
pub fn begin_at_once() {
    ask_for(|_| SHORTEST_TURN);
}

/// The calling thread, which answers frames, begins when it wakes, whatever other threads are at that take
/// the turns which the kernel gives by itself, and is not interrupted in the middle of a frame, if frames
/// take no longer than such a turn.
pub fn go_first() {
    ask_for(|usual| usual / 4 * 3);
}

/// Asks for turns of another length than those that the thread has now, in nanoseconds.
fn ask_for(turn: impl FnOnce(u64) -> u64) {
    let asked = scheduling().and_then(|mut now| {
        now.sched_runtime = turn(now.sched_runtime);
        set_scheduling(&now)
    });
    if let Err(error) = asked {
        tracing::debug!(%error, "a thread that frames wait for takes turns like others");
    }
}

/// How the calling thread is scheduled.
fn scheduling() -> io::Result<libc::sched_attr> {
    let size = size_of::<libc::sched_attr>();
    // SAFETY: a structure of numbers, for which zero is a value; the kernel writes at most `size` bytes
    // of it; 0 is this thread.
    #[expect(unsafe_code, reason = "the C library has no function for it")]
    let (done, now) = unsafe {
        let mut now: libc::sched_attr = std::mem::zeroed();
        (libc::syscall(libc::SYS_sched_getattr, 0, &raw mut now, size, 0), now)
    };
    if done == 0 { Ok(now) } else { Err(io::Error::last_os_error()) }
}

fn set_scheduling(to: &libc::sched_attr) -> io::Result<()> {
    // SAFETY: the kernel reads the structure, whose size it holds; 0 is this thread.
    #[expect(unsafe_code, reason = "the C library has no function for it")]
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const *to, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[test]
    fn only_the_calling_thread_gives_way() {
        let own = || getpriority_process(None).unwrap();
        let before = own();
        let inside = std::thread::spawn(move || {
            give_way();
            own()
        });
        assert_eq!(inside.join().unwrap(), LAST);
        assert_eq!(own(), before);
    }

    /// The times that the calling thread gave the processor up by itself.
    fn rests() -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse().unwrap()
    }

    #[test]
    fn who_has_worked_for_a_while_rests_and_who_has_not_does_not() {
        let worked = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
        let before = rests();
        for _ in 0..20 {
            let begun = worked();
            while worked() - begun < PIECE {}
            after_you();
        }
        assert!(rests() - before >= 20);
        let (before, begun) = (rests(), worked());
        for _ in 0..1000 {
            after_you();
        }
        let most = (worked() - begun).as_micros() / PIECE.as_micros() + 1;
        assert!(u128::from(rests() - before) <= most, "more than {most} rests");
    }

    #[test]
    fn only_the_calling_thread_asks_for_short_turns() {
        let turn = || scheduling().unwrap().sched_runtime;
        let before = turn();
        // Before Linux 6.12 the kernel takes no length and says 0.
        let takes = |length| if before == 0 { 0 } else { length };
        for (ask, asked) in [(begin_at_once as fn(), SHORTEST_TURN), (go_first, before / 4 * 3)] {
            let inside = std::thread::spawn(move || {
                let nice = scheduling().unwrap().sched_nice;
                ask();
                let now = scheduling().unwrap();
                assert_eq!(now.sched_nice, nice);
                now.sched_runtime
            });
            assert_eq!(inside.join().unwrap(), takes(asked));
            assert_eq!(turn(), before);
        }
    }
}
