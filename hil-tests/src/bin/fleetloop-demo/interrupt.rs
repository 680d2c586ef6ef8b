//! Ctrl-C, SIGTERM and a closed terminal: end every process in order, then leave.
//!
//! The signals are caught before the first process is started. A second one forces the end.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use hil_tests::progress::tell;
use hil_tests::rig::{Rig as _, ThisMachine};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::GRACE;

/// 128 + SIGINT, as shells have it.
const INTERRUPTED: i32 = 130;

/// What a signal ends: the rig at work, and the folder that is then removed.
#[derive(Clone, Default)]
pub struct Running(Arc<Mutex<Option<AtWork>>>);

type AtWork = (Arc<ThisMachine>, Option<PathBuf>);

impl Running {
    /// From now on it is this rig.
    pub fn set(&self, rig: Arc<ThisMachine>, folder: Option<PathBuf>) {
        *self.at_work() = Some((rig, folder));
    }

    fn end(&self) {
        let Some((rig, folder)) = self.at_work().take() else { return };
        rig.stop_all(GRACE);
        if let Some(folder) = folder {
            // What cannot be removed lies in the system's temporary folder.
            let _ = std::fs::remove_dir_all(folder);
        }
    }

    fn at_work(&self) -> MutexGuard<'_, Option<AtWork>> {
        // One value is put in or taken out.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a signal has come.
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens on a thread of its own, which ends the program after a signal.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn listen(running: Running) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime for signals")?;
        let signals = {
            let _entered = runtime.enter();
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal)
        };
        let [interrupt, terminate, hangup] = signals;
        let mut signals = (interrupt?, terminate?, hangup?);
        let came = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&came);
        let work = move || {
            runtime.block_on(any(&mut signals));
            told.store(true, Ordering::SeqCst);
            tell("\nending all processes (once more to force it)");
            let ending = std::thread::spawn(move || {
                running.end();
                std::process::exit(INTERRUPTED);
            });
            runtime.block_on(any(&mut signals));
            drop(ending);
            // Every process is on its leash: the kernel kills it when we are gone.
            std::process::exit(INTERRUPTED);
        };
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(work)
            .context("cannot start the thread that waits for signals")?;
        Ok(Self(came))
    }

    /// Never returns once a signal has come: the thread above ends the program, and an error that
    /// the ending itself caused is not worth telling.
    pub fn wait_if_interrupted(&self) {
        while self.0.load(Ordering::SeqCst) {
            std::thread::park();
        }
    }
}

/// Waits for any of them. Cancel-safe: `recv` loses no signal when another branch wins.
async fn any(signals: &mut (Signal, Signal, Signal)) {
    tokio::select! {
        _ = signals.0.recv() => {}
        _ = signals.1.recv() => {}
        _ = signals.2.recv() => {}
    }
}
