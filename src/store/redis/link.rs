//! The connections to one server, kept by a task each: made anew when they are lost, with a growing,
//! jittered pause while that fails.
//!
//! A command is sent once. What was on a connection that is lost has failed, whether or not the server
//! has done it: nothing here sends it again. While no connection can be made, commands fail at once
//! with the reason; only while the first attempt is under way do they wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, Value};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::dial::{Dialer, Driver};
use super::settings::Address;
use super::trouble::Trouble;
use crate::random::random_bytes;

/// How often a connection is asked whether it still works.
const PING: Duration = Duration::from_secs(1);
/// A connection that lasts as long is no sign of trouble when it ends.
const STEADY: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A task that ends with its owner.
#[derive(Debug)]
pub(super) struct Keeper(pub(super) JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The connections to one server.
#[derive(Debug)]
pub(super) struct Link {
    address: Address,
    timeout: Duration,
    lines: Vec<Line>,
    next: AtomicUsize,
}

#[derive(Debug)]
struct Line {
    state: watch::Receiver<State>,
    renew: Arc<Notify>,
    _keeper: Keeper,
}

#[derive(Clone, Debug)]
enum State {
    Connecting,
    Up(MultiplexedConnection),
    Down(Trouble),
}

impl Link {
    /// Begins to connect.
    pub(super) fn new(address: Address, dialer: &Arc<Dialer>, runtime: &Handle) -> Self {
        let line = || {
            let (sender, state) = watch::channel(State::Connecting);
            let renew = Arc::new(Notify::new());
            let keeping = keep(address.clone(), Arc::clone(dialer), sender, Arc::clone(&renew));
            Line { state, renew, _keeper: Keeper(runtime.spawn(keeping)) }
        };
        let lines = std::iter::repeat_with(line).take(dialer.settings.connections).collect();
        Self { timeout: dialer.settings.timeout, lines, next: AtomicUsize::new(0), address }
    }

    /// Where the server is.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Sends a command and waits for its answer.
    pub(super) async fn send(&self, command: &Cmd) -> Result<Value, Trouble> {
        self.in_time(async {
            let mut connection = self.connection().await?;
            let answer = command.query_async(&mut connection).await;
            answer.map_err(|error| Trouble::of(&self.address, error))
        })
        .await
    }

    /// Sends a command for a slot that is on its way to this server.
    pub(super) async fn send_asking(&self, command: &Cmd) -> Result<Value, Trouble> {
        let mut both = Pipeline::new();
        both.cmd("ASKING").ignore().add_command(command.clone());
        self.in_time(async {
            let mut connection = self.connection().await?;
            let answers: Result<Vec<Value>, _> = both.query_async(&mut connection).await;
            let mut answers = answers.map_err(|error| Trouble::of(&self.address, error))?;
            answers.pop().ok_or_else(|| Trouble::new("Redis did not answer what was asked"))
        })
        .await
    }

    /// Leaves all connections for new ones: another server may answer at the address by now.
    pub(super) fn renew(&self) {
        for line in &self.lines {
            line.renew.notify_one();
        }
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
        timeout(self.timeout, work)
            .await
            .unwrap_or_else(|_late| Err(Trouble::late(&self.address, self.timeout)))
    }

    /// One that is up; else one that is about to be.
    async fn connection(&self) -> Result<MultiplexedConnection, Trouble> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let (mut trouble, mut connecting) = (None, None);
        for n in 0..self.lines.len() {
            let Some(line) = self.lines.get(first.wrapping_add(n) % self.lines.len()) else { continue };
            match &*line.state.borrow() {
                State::Up(connection) => return Ok(connection.clone()),
                State::Connecting => connecting = Some(line.state.clone()),
                State::Down(reason) => trouble = Some(reason.clone()),
            }
        }
        match (connecting, trouble) {
            // Where one fails there is no sense in waiting for its neighbour.
            (_, Some(reason)) => Err(reason),
            (Some(state), None) => connected(state).await,
            (None, None) => Err(Trouble::new("there is no connection to Redis")),
        }
    }
}

async fn connected(mut state: watch::Receiver<State>) -> Result<MultiplexedConnection, Trouble> {
    let settled = state.wait_for(|state| !matches!(state, State::Connecting)).await;
    match settled.as_deref() {
        Ok(State::Up(connection)) => Ok(connection.clone()),
        Ok(State::Down(reason)) => Err(reason.clone()),
        Ok(State::Connecting) | Err(_) => Err(Trouble::new("the store is closed")),
    }
}

async fn keep(address: Address, dialer: Arc<Dialer>, state: watch::Sender<State>, renew: Arc<Notify>) {
    let mut failures = 0;
    loop {
        match dialer.commands(&address).await {
            Ok((connection, driver)) => {
                let begun = Instant::now();
                state.send_replace(State::Up(connection.clone()));
                tracing::info!(event = "redis_connected", address = %address);
                let reason = until_lost(connection, driver, &renew, dialer.settings.timeout).await;
                tracing::warn!(event = "redis_connection_lost", address = %address, reason);
                state.send_replace(State::Connecting);
                failures = if begun.elapsed() < STEADY { failures + 1 } else { 0 };
            }
            Err(trouble) => {
                failures += 1;
                if !matches!(*state.borrow(), State::Down(_)) {
                    tracing::warn!(event = "redis_unreachable", address = %address, reason = %trouble);
                }
                state.send_replace(State::Down(trouble));
            }
        }
        sleep(pause(failures)).await;
    }
}

/// Moves the connection's bytes until that ends; says why it did.
async fn until_lost(
    connection: MultiplexedConnection,
    driver: Driver,
    renew: &Notify,
    limit: Duration,
) -> &'static str {
    tokio::select! {
        () = driver => "closed",
        () = unanswered(connection, limit) => "no answer",
        () = renew.notified() => "given up",
    }
}

/// Ends when a ping is not answered.
async fn unanswered(mut connection: MultiplexedConnection, limit: Duration) {
    loop {
        sleep(PING).await;
        let ping = redis::cmd("PING");
        // An error is an answer too.
        if timeout(limit, ping.query_async::<Value>(&mut connection)).await.is_err() {
            return;
        }
    }
}

/// How long to wait after so many failures: twice as long each time, half to one and a half of that, so
/// that gateways that lost Redis together don't come back together.
pub(super) fn pause(failures: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10));
    let pause = if failures == 0 { FIRST_PAUSE / 4 } else { doubled.min(LONGEST_PAUSE) };
    // Without entropy all wait alike.
    let [random] = random_bytes::<1>().unwrap_or([128]);
    pause / 2 + pause * u32::from(random) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_differ() {
        for (failures, longest) in [(0, 38), (1, 150), (2, 300), (3, 600), (5, 2400), (6, 3000), (900, 3000)]
        {
            let pauses: Vec<_> = (0..64).map(|_| pause(failures)).collect();
            let bounds = Duration::from_millis(longest / 4)..=Duration::from_millis(longest);
            assert!(pauses.iter().all(|pause| bounds.contains(pause)), "{failures}: {pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{failures}");
        }
    }
}
