//! The end of the server: signals, and what is waited for.
//!
//! Pingora's own `Server` closes all listeners at SIGTERM, then sleeps its whole grace period even
//! with nothing in flight, and dies of SIGHUP. So the gateway has no such server: it accepts
//! connections itself ([`super::connection`]) and ends in three steps: it says that it is not ready,
//! waits for load balancers to see that, then closes its listeners and idle connections and is gone
//! with the last request.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// Whether the server still takes connections, and how many requests are in progress.
#[derive(Debug)]
pub(super) struct Drain {
    accepting: Arc<AtomicBool>,
    closing: CancellationToken,
    /// The same for Pingora, which ends keep-alive when this turns true.
    shutdown: watch::Sender<bool>,
    requests: AtomicUsize,
    last_left: Notify,
}

/// How long the steps of a drain take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// From "not ready" to closed listeners.
    pub(super) delay: Duration,
    /// From there to the end, whatever is still in progress.
    pub(super) timeout: Duration,
}

impl Drain {
    /// A server that has not opened its listeners yet.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            accepting: Arc::new(AtomicBool::new(false)),
            closing: CancellationToken::new(),
            shutdown: watch::Sender::new(false),
            requests: AtomicUsize::new(0),
            last_left: Notify::new(),
        })
    }

    /// What `/readyz` looks at.
    pub(super) fn accepting(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.accepting)
    }

    /// All listeners are open.
    pub(super) fn opened(&self) {
        self.accepting.store(true, Ordering::Relaxed);
    }

    /// Ends the listeners and idle connections when it is cancelled.
    pub(super) const fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Whether that has happened.
    pub(super) fn is_closing(&self) -> bool {
        *self.shutdown.borrow()
    }

    /// What Pingora wants to know of a shutdown.
    pub(super) fn shutdown_watch(&self) -> watch::Receiver<bool> {
        self.shutdown.subscribe()
    }

    /// A request begins.
    pub(super) fn enter(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// A request is over, or is none that is waited for any more.
    pub(super) fn leave(&self) {
        if self.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.last_left.notify_waiters();
        }
    }

    /// Runs the drain to its end; returns how many requests were still in progress then. `hurry`
    /// ends every wait at once.
    pub(super) async fn run(&self, pace: Pace, hurry: &CancellationToken) -> usize {
        self.accepting.store(false, Ordering::Relaxed);
        wait(pace.delay, hurry, std::future::pending()).await;
        self.shutdown.send_replace(true);
        self.closing.cancel();
        wait(pace.timeout, hurry, self.until_idle()).await;
        self.requests.load(Ordering::Relaxed)
    }

    async fn until_idle(&self) {
        loop {
            let left = self.last_left.notified();
            tokio::pin!(left);
            // Registered before the count is looked at, so that no leaving is missed.
            left.as_mut().enable();
            if self.requests.load(Ordering::Relaxed) == 0 {
                return;
            }
            left.await;
        }
    }
}

async fn wait(at_most: Duration, hurry: &CancellationToken, done: impl Future<Output = ()>) {
    tokio::select! {
        () = done => {}
        () = hurry.cancelled() => {}
        () = tokio::time::sleep(at_most) => {}
    }
}

/// The signals that the process understands.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Catches SIGTERM, SIGINT and SIGHUP from now on. To be called inside a runtime, before the
    /// first listener opens: a SIGHUP before that would end the process.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub(super) fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGTERM or SIGINT. SIGHUP changes nothing yet.
    pub(super) async fn stop(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                Some(()) = self.hangup.recv() => {
                    tracing::info!(event = "hangup", "SIGHUP is ignored");
                }
            }
        }
    }
}
