//! What the system tells the process: stop, or read the settings again.

use std::io;

use runtime::{Shutdown, StopReason};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that the process listens to.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Listens from here on; before, SIGHUP would end the process.
    pub fn listen() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Calls `reload` at each SIGHUP, until SIGTERM or SIGINT begins the shutdown or something else has.
    pub async fn until_stopping(&mut self, shutdown: &Shutdown, mut reload: impl FnMut()) {
        loop {
            let name = tokio::select! {
                () = shutdown.reached(runtime::Stage::Draining) => return,
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
                _ = self.hang_up.recv() => {
                    reload();
                    continue;
                }
            };
            shutdown.begin(StopReason::Requested(name.to_string()));
            return;
        }
    }

    /// Waits for one more SIGTERM or SIGINT: somebody does not want to wait for the stop in order.
    pub async fn insists(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
