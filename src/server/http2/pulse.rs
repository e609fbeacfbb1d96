//! How an HTTP/2 connection is doing, as its three sides see it: the wire that carries it, the task that
//! drives it, the tasks of its streams.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;

use super::frames::{Flood, FrameLimits, Frames};
use crate::server::life::Counted;
use crate::server::transport::Socket;

/// No look comes sooner: what is due now is done when the connection is polled next.
const SOON: Duration = Duration::from_millis(1);

/// How long a connection may be what it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// A header block on its way; a connection before its first request.
    pub(super) head: Duration,
    /// Without a stream.
    pub(super) idle: Duration,
    /// Without a stream, once the client was told to go.
    pub(super) leaving: Duration,
}

/// Why a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing was asked for too long.
    Idle,
    /// A header block did not come to its end.
    SlowHead,
    /// More of something than any client needs.
    Flood(Flood),
}

/// What the sides of a connection tell each other.
pub(super) struct Pulse {
    times: Times,
    state: Mutex<State>,
    /// Wakes the connection when a stream ends.
    connection: AtomicWaker,
}

/// What a connection without a stream is waited for.
#[derive(Clone, Copy, Debug)]
enum Quiet {
    New,
    Used,
    Leaving,
}

struct State {
    frames: Frames,
    flood: Option<Flood>,
    flushed: bool,
    /// When something was last written.
    written: Instant,
    streams: usize,
    quiet: Quiet,
    /// Since when there is no stream.
    quiet_since: Instant,
    /// What a drain waits for: the last stream that is over. Its answer may still be on its way, and a process
    /// that ends resets what its client has not read yet.
    over: Option<Counted>,
    socket: Option<Socket>,
}

impl State {
    /// When the last stream's answer is long since there.
    fn settles_at(&self, times: &Times) -> Option<Instant> {
        let settles =
            self.over.is_some() && self.streams == 0 && self.flushed && !matches!(self.quiet, Quiet::Leaving);
        settles.then(|| self.quiet_since.max(self.written) + times.leaving)
    }

    /// Until when nothing has to be asked for.
    fn quiet_until(&self, times: &Times, now: Instant) -> Instant {
        let patience = match self.quiet {
            // The last answers are on their way to somebody slow.
            _ if !self.flushed => times.idle,
            Quiet::New => times.head,
            Quiet::Used => times.idle,
            Quiet::Leaving => times.leaving,
        };
        let since = if self.flushed { self.quiet_since } else { self.quiet_since.max(self.written) };
        // With streams in progress no end can come sooner than patience does from now.
        if self.streams > 0 { now + patience } else { since + patience }
    }
}

impl Pulse {
    /// A connection that begins now.
    pub(super) fn new(times: Times, limits: FrameLimits) -> Arc<Self> {
        let now = Instant::now();
        let state = State {
            frames: Frames::new(limits, now),
            flood: None,
            flushed: true,
            written: now,
            streams: 0,
            quiet: Quiet::New,
            quiet_since: now,
            over: None,
            socket: None,
        };
        Arc::new(Self { times, state: Mutex::new(state), connection: AtomicWaker::new() })
    }

    /// The client sent these bytes. Says whether they are to be read on: not those of a flood.
    pub(super) fn note_read(&self, bytes: &[u8]) -> bool {
        let mut state = self.lock();
        if let Err(flood) = state.frames.take(bytes, Instant::now()) {
            state.flood = Some(flood);
        }
        state.flood.is_none()
    }

    /// Whether everything that was written has left.
    pub(super) fn note_flushed(&self, flushed: bool) {
        self.lock().flushed = flushed;
    }

    /// Something has left.
    pub(super) fn note_written(&self) {
        self.lock().written = Instant::now();
    }

    /// A stream begins, for as long as what is returned lives.
    pub(super) fn begin_stream(self: &Arc<Self>, counted: Counted) -> InProgress {
        let mut state = self.lock();
        state.frames.note_good();
        state.streams += 1;
        InProgress { pulse: Arc::clone(self), counted: Some(counted), answered: false }
    }

    /// How many streams are in progress.
    pub(super) fn streams(&self) -> usize {
        self.lock().streams
    }

    /// The client was told to go.
    pub(super) fn leave(&self) {
        let mut state = self.lock();
        state.quiet = Quiet::Leaving;
        state.quiet_since = Instant::now();
    }

    /// The wire was dropped: here is what it carried.
    pub(super) fn give_back(&self, socket: Socket) {
        self.lock().socket = Some(socket);
    }

    /// The socket, once the wire was dropped.
    pub(super) fn take_back(&self) -> Option<Socket> {
        self.lock().socket.take()
    }

    /// Never resolves: has the connection woken when a stream ends, and lets the last one go when its answer
    /// is long since there. To be polled behind the connection itself.
    pub(super) fn settle<T>(&self, context: &Context<'_>) -> Poll<T> {
        self.connection.register(context.waker());
        let mut state = self.lock();
        let settled = state.settles_at(&self.times).is_some_and(|at| at <= Instant::now());
        let over = state.over.take_if(|_| settled);
        drop(state);
        drop(over);
        Poll::Pending
    }

    /// Waits for a reason to end the connection. To be polled behind the connection itself, whose reading
    /// it looks at and needs no waking of its own for.
    pub(super) async fn end(&self) -> End {
        let mut alarm = pin!(tokio::time::sleep(self.times.head));
        poll_fn(|context| {
            loop {
                match self.next_look(Instant::now()) {
                    Err(end) => return Poll::Ready(end),
                    Ok(look) if look < alarm.deadline().into_std() || alarm.is_elapsed() => {
                        alarm.as_mut().reset(look.into());
                    }
                    Ok(_) => {}
                }
                ready!(alarm.as_mut().poll(context));
            }
        })
        .await
    }

    /// When to look again.
    fn next_look(&self, now: Instant) -> Result<Instant, End> {
        let state = self.lock();
        if let Some(flood) = state.flood {
            return Err(End::Flood(flood));
        }
        let block = state.frames.unfinished_since().map(|since| since + self.times.head);
        if block.is_some_and(|end| end <= now) {
            return Err(End::SlowHead);
        }
        let quiet = state.quiet_until(&self.times, now);
        if quiet <= now {
            return Err(End::Idle);
        }
        let settled = state.settles_at(&self.times).map(|at| at.max(now + SOON));
        Ok([block, settled].into_iter().flatten().fold(quiet, Instant::min))
    }

    fn end_stream(&self, counted: Option<Counted>, answered: bool) {
        let mut state = self.lock();
        if answered {
            state.frames.note_good();
        }
        let before = std::mem::replace(&mut state.over, counted);
        state.streams -= 1;
        if state.streams == 0 {
            state.quiet_since = Instant::now();
            if matches!(state.quiet, Quiet::New) {
                state.quiet = Quiet::Used;
            }
        }
        drop(state);
        drop(before);
        self.connection.wake();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What is kept here is whole after every step, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream in progress.
pub(super) struct InProgress {
    pulse: Arc<Pulse>,
    counted: Option<Counted>,
    answered: bool,
}

impl InProgress {
    /// The application has answered it, and it is over.
    pub(super) fn end_answered(mut self) {
        self.answered = true;
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.pulse.end_stream(self.counted.take(), self.answered);
    }
}
