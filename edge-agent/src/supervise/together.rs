//! The agents of one process, as a service manager hears them: one service.
//!
//! `READY=1` when the last of them is ready, a sign of life when each of them gave one since the
//! last, their states side by side; a reload begins with the first that reads its configuration and
//! ends with the last.

use std::sync::{Arc, Mutex, PoisonError};

use super::Manager;
use crate::reload::Announce;

/// What is known of one agent.
#[derive(Debug)]
struct Known {
    name: String,
    ready: bool,
    alive: bool,
    reloading: bool,
    status: String,
}

#[derive(Debug)]
struct All<M> {
    manager: M,
    agents: Vec<Known>,
}

/// One agent's way to the manager.
#[derive(Debug)]
pub struct Member<M> {
    all: Arc<Mutex<All<M>>>,
    own: usize,
}

impl<M> Clone for Member<M> {
    fn clone(&self) -> Self {
        Self { all: Arc::clone(&self.all), own: self.own }
    }
}

/// A way for each of `names`; the names are shown where there are several.
pub fn members<M>(manager: M, names: impl IntoIterator<Item = String>) -> Vec<Member<M>> {
    let known = |name| Known {
        name,
        ready: false,
        alive: false,
        reloading: false,
        status: "starting".into(),
    };
    let agents: Vec<Known> = names.into_iter().map(known).collect();
    let count = agents.len();
    let all = Arc::new(Mutex::new(All { manager, agents }));
    (0..count).map(|own| Member { all: Arc::clone(&all), own }).collect()
}

impl<M> All<M> {
    fn status(&self) -> String {
        match &self.agents[..] {
            [one] => one.status.clone(),
            several => {
                let each = several.iter().map(|known| format!("{}: {}", known.name, known.status));
                each.collect::<Vec<_>>().join("; ")
            }
        }
    }

    fn are_ready(&self) -> bool {
        self.agents.iter().all(|known| known.ready)
    }

    fn reloading(&self) -> usize {
        self.agents.iter().filter(|known| known.reloading).count()
    }
}

impl<M> Member<M> {
    /// Notes something of this agent and says what follows for all, one at a time.
    fn note(&self, note: impl FnOnce(&mut Known), say: impl FnOnce(&mut All<M>)) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        note(&mut all.agents[self.own]);
        say(&mut all);
    }
}

impl<M: Manager> Manager for Member<M> {
    fn ready(&self, status: &str) {
        let known = |known: &mut Known| {
            known.ready = true;
            status.clone_into(&mut known.status);
        };
        self.note(known, |all| {
            if all.are_ready() {
                all.manager.ready(&all.status());
            }
        });
    }

    fn alive(&self) {
        self.note(
            |known| known.alive = true,
            |all| {
                if all.agents.iter().all(|known| known.alive) {
                    all.agents.iter_mut().for_each(|known| known.alive = false);
                    all.manager.alive();
                }
            },
        );
    }

    fn status(&self, status: &str) {
        self.note(
            |known| status.clone_into(&mut known.status),
            |all| {
                if all.are_ready() {
                    all.manager.status(&all.status());
                }
            },
        );
    }
}

impl<M: Announce> Announce for Member<M> {
    fn reloading(&self) {
        self.note(
            |known| known.reloading = true,
            |all| {
                if all.reloading() == 1 {
                    all.manager.reloading();
                }
            },
        );
    }

    fn reloaded(&self) {
        self.note(
            |known| known.reloading = false,
            |all| {
                if all.reloading() == 0 {
                    all.manager.reloaded();
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<String>>>);

    impl Heard {
        fn note(&self, what: impl Into<String>) {
            self.0.lock().unwrap().push(what.into());
        }

        fn take(&self) -> Vec<String> {
            std::mem::take(&mut *self.0.lock().unwrap())
        }
    }

    impl Manager for Heard {
        fn ready(&self, status: &str) {
            self.note(format!("ready {status}"));
        }

        fn alive(&self) {
            self.note("alive");
        }

        fn status(&self, status: &str) {
            self.note(format!("status {status}"));
        }
    }

    impl Announce for Heard {
        fn reloading(&self) {
            self.note("reloading");
        }

        fn reloaded(&self) {
            self.note("reloaded");
        }
    }

    fn two() -> (Heard, [Member<Heard>; 2]) {
        let heard = Heard::default();
        let names = ["a", "b"].map(String::from);
        (heard.clone(), members(heard, names).try_into().unwrap_or_else(|_| unreachable!()))
    }

    #[test]
    fn all_are_ready_when_the_last_is_and_alive_when_each_is() {
        let (heard, [a, b]) = two();
        a.status("waits");
        a.ready("answers");
        a.alive();
        assert_eq!(heard.take(), [""; 0]);
        b.ready("no model yet");
        assert_eq!(heard.take(), ["ready a: answers; b: no model yet"]);
        a.alive();
        a.alive();
        assert_eq!(heard.take(), [""; 0], "one that is hung is not hidden by the others");
        b.alive();
        assert_eq!(heard.take(), ["alive"]);
        b.alive();
        assert_eq!(heard.take(), [""; 0]);
        b.status("answers");
        assert_eq!(heard.take(), ["status a: answers; b: answers"]);
    }

    #[test]
    fn a_reload_lasts_from_the_first_to_the_last() {
        let (heard, [a, b]) = two();
        b.reloading();
        a.reloading();
        b.reloaded();
        assert_eq!(heard.take(), ["reloading"]);
        a.reloaded();
        assert_eq!(heard.take(), ["reloaded"]);
    }

    #[test]
    fn of_one_agent_the_manager_hears_what_it_says() {
        let heard = Heard::default();
        let one = members(heard.clone(), ["a".to_owned()]).remove(0);
        one.ready("no model yet");
        one.alive();
        one.alive();
        one.status("answers");
        assert_eq!(heard.take(), ["ready no model yet", "alive", "alive", "status answers"]);
    }
}
