//! Which threads give way: all but the source's and inference's.
//!
//! A thread that encodes, signs, waits for the disk, loads a model or talks to the hub asks the
//! kernel for less of a processor that frames want too. Raising a nice value needs no right and
//! cannot be taken back; a thread hands it on to the threads that it starts.

use rustix::process::{getpriority_process, setpriority_process};

/// How far background work stands back: at +10 a thread gets about a tenth of a contended
/// processor (sched(7)).
const STEP: i32 = 10;

/// The last priority there is.
const LAST: i32 = 19;

/// The calling thread gives way from now on. Linux takes a priority of the caller for its thread.
pub fn give_way() {
    let lowered = getpriority_process(None)
        .and_then(|now| setpriority_process(None, now.saturating_add(STEP).min(LAST)));
    if let Err(error) = lowered {
        tracing::debug!(%error, "a background thread keeps its priority");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_calling_thread_gives_way() {
        let own = || getpriority_process(None).unwrap();
        let before = own();
        let inside = std::thread::spawn(move || {
            give_way();
            own()
        });
        assert_eq!(inside.join().unwrap(), (before + STEP).min(LAST));
        assert_eq!(own(), before);
    }
}
