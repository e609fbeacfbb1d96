//! The threads that proxy: each has a runtime of its own, and keeps the connections that it accepted.
//!
//! A runtime whose threads take tasks from one another would pay for that with every wake-up, and a request
//! would find the caches of its processor cold. Connections are many enough to be spread by turns
//! (docs/performance.md).

use std::io;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// How often it is looked whether a thread has ended.
const LOOK_AFTER: Duration = Duration::from_millis(1);

/// The threads; they end when this is dropped.
#[derive(Debug)]
pub(super) struct Workers(Vec<Worker>);

#[derive(Debug)]
struct Worker {
    handle: Handle,
    /// Ends the thread when it is dropped.
    _stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Workers {
    /// Starts so many threads.
    ///
    /// # Errors
    /// That of the system, where it starts no more.
    pub(super) fn start(threads: usize) -> io::Result<Self> {
        (0..threads)
            .map(|number| Worker::start(format!("proxy-{number}")))
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// The runtime of each.
    pub(super) fn handles(&self) -> impl Iterator<Item = &Handle> {
        self.0.iter().map(|worker| &worker.handle)
    }

    /// Ends them, and waits so long for it. Whatever is still in progress is dropped by its own thread.
    pub(super) fn end(self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let ending: Vec<_> = self.0.into_iter().map(|worker| worker.thread).collect();
        while ending.iter().any(|thread| !thread.is_finished()) && Instant::now() < deadline {
            thread::sleep(LOOK_AFTER);
        }
    }
}

impl Worker {
    fn start(name: String) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name(name).spawn(move || {
            // An error is the word to stop: nothing is ever sent.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, _stop: stop, thread })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};

    use super::*;

    struct Counted(Arc<AtomicUsize>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn each_thread_runs_what_it_is_given_and_what_is_left_is_dropped_at_the_end() {
        let workers = Workers::start(3).unwrap();
        let (names, seen) = mpsc::channel();
        let dropped = Arc::new(AtomicUsize::new(0));
        for handle in workers.handles() {
            let (names, counted) = (names.clone(), Counted(Arc::clone(&dropped)));
            handle.spawn(async move {
                names.send(thread::current().name().unwrap().to_owned()).unwrap();
                std::future::pending::<()>().await;
                drop(counted);
            });
        }
        let mut names: Vec<_> = seen.iter().take(3).collect();
        names.sort();
        assert_eq!(names, ["proxy-0", "proxy-1", "proxy-2"]);
        workers.end(Duration::from_secs(10));
        assert_eq!(dropped.load(Ordering::SeqCst), 3);
    }
}
