//! Where log lines go, one after the other.
//!
//! Access lines, one for each request, are gathered, and a thread of its own writes them a moment later: a request
//! neither makes a system call for its line nor waits for whoever reads the log. Every other line is written at
//! once, behind everything that came before it. A log that can't be written must not stop the gateway: there is
//! nobody left to tell.

use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How long lines are gathered.
const GATHERED_FOR: Duration = Duration::from_millis(20);

/// With more bytes than this waiting, whoever has one more line writes them all: a reader that is too slow slows
/// the gateway down, and loses nothing.
const MOST_BYTES: usize = 1 << 20;

/// An output and the lines that wait for it, in their order.
pub(super) struct Outlet {
    waiting: Mutex<Vec<u8>>,
    /// Rung when the first of them came.
    came: Condvar,
    out: Mutex<Box<dyn Write + Send>>,
}

impl Outlet {
    /// Lines for `out`. Somebody has to write what is gathered: [`Outlet::start`], [`Outlet::write_out`].
    pub(super) fn new(out: impl Write + Send + 'static) -> Self {
        Self { waiting: Mutex::default(), came: Condvar::new(), out: Mutex::new(Box::new(out)) }
    }

    /// Starts the thread that writes.
    ///
    /// # Errors
    /// That of the system, where it starts no more.
    pub(super) fn start(self: &Arc<Self>) -> io::Result<()> {
        let outlet = Arc::clone(self);
        thread::Builder::new().name("log".to_owned()).spawn(move || outlet.write_on()).map(drop)
    }

    /// Takes a line, which ends with its line feed, and which others may follow before it is written or not.
    pub(super) fn take(&self, may_wait: bool, line: &[u8]) {
        let mut waiting = lock(&self.waiting);
        let is_first = waiting.is_empty();
        waiting.extend_from_slice(line);
        let is_urgent = !may_wait || waiting.len() > MOST_BYTES;
        drop(waiting);
        if is_urgent {
            self.write_out();
        } else if is_first {
            self.came.notify_one();
        }
    }

    /// Writes whatever waits.
    pub(super) fn write_out(&self) {
        // Whoever holds the output takes the lines, so that later ones never come first.
        let mut out = lock(&self.out);
        let lines = take_from(&mut lock(&self.waiting));
        let _ = out.write_all(&lines).and_then(|()| out.flush());
    }

    fn write_on(&self) {
        loop {
            drop(self.came.wait_while(lock(&self.waiting), |waiting| waiting.is_empty()));
            thread::sleep(GATHERED_FOR);
            self.write_out();
        }
    }
}

/// The lines; leaves as much room for the next ones.
fn take_from(waiting: &mut Vec<u8>) -> Vec<u8> {
    let room = Vec::with_capacity(waiting.len());
    mem::replace(waiting, room)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Lines are whole after every step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Tells what is written at once.
    struct Told(mpsc::Sender<String>);

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(String::from_utf8(bytes.to_vec()).unwrap()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn outlet() -> (Arc<Outlet>, mpsc::Receiver<String>) {
        let (told, written) = mpsc::channel();
        (Arc::new(Outlet::new(Told(told))), written)
    }

    #[test]
    fn what_may_not_wait_is_written_at_once_behind_all_that_came_before() {
        let (outlet, written) = outlet();
        outlet.take(true, b"one\n");
        outlet.take(true, b"two\n");
        assert!(written.try_recv().is_err(), "they wait");
        outlet.take(false, b"three\n");
        assert_eq!(written.try_recv().unwrap(), "one\ntwo\nthree\n");
    }

    #[test]
    fn what_waits_is_written_together_by_the_thread_for_it() {
        let (outlet, written) = outlet();
        outlet.start().unwrap();
        let mut all = String::new();
        for number in 0..100 {
            outlet.take(true, format!("{number}\n").as_bytes());
        }
        let mut writes = 0;
        while !all.ends_with("\n99\n") {
            all += &written.recv_timeout(Duration::from_secs(10)).unwrap();
            writes += 1;
        }
        assert!(writes < 100, "{writes} writes");
        assert!(all.lines().map(|line| line.parse::<usize>().unwrap()).eq(0..100), "{all}");
    }

    #[test]
    fn no_more_waits_than_fits() {
        let (outlet, written) = outlet();
        let line = [[b'x'; 1023].as_slice(), b"\n"].concat();
        for _ in 0..=MOST_BYTES / line.len() {
            assert!(written.try_recv().is_err());
            outlet.take(true, &line);
        }
        assert!(written.try_recv().unwrap().len() > MOST_BYTES);
    }
}
