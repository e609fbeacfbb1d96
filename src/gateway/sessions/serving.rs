//! How long an answer goes on that was begun for a session: a WebSocket, a stream, a download.
//!
//! No longer than the session. What goes on is use of it, as a page that asks every minute is.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Found, ReadySession, Sessions};
use crate::session::Limits;
use crate::session::lifetime::Times;

/// How exactly an end is kept.
const FINEST: Duration = Duration::from_secs(1);

/// A session, and what knows of its end.
#[derive(Clone, Debug)]
pub struct Serving {
    sessions: Arc<Sessions>,
    session: Arc<ReadySession>,
    /// Held besides the session's own: that is how it is known that something is served.
    ended: Arc<CancellationToken>,
    limits: Limits,
}

impl Serving {
    /// What is served for `session`.
    #[must_use]
    pub fn new(sessions: Arc<Sessions>, session: Arc<ReadySession>, limits: Limits) -> Self {
        let ended = Arc::clone(&session.ended);
        Self { sessions, session, ended, limits }
    }

    /// Waits until somebody ends the session.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Waits until the session is over by its time; `silent_for` says how long nothing went through.
    pub async fn over(&self, silent_for: impl Fn() -> Duration) {
        let look = (self.limits.shortest_idle / 10).max(FINEST);
        loop {
            sleep(self.left().clamp(FINEST, look)).await;
            let is_over =
                if silent_for() < look { self.is_over_in_use() } else { self.is_over_unused().await };
            if is_over {
                return;
            }
        }
    }

    fn left(&self) -> Duration {
        self.session.lifetime.expires_at(&self.limits).since(self.sessions.clock.now())
    }

    /// Counts as use, if it is not over.
    fn is_over_in_use(&self) -> bool {
        let (sessions, session) = (&self.sessions, Arc::clone(&self.session));
        match sessions.used(session, &self.limits, sessions.clock.now()) {
            Ok(found) => matches!(found, Found::Expired),
            // In an outage: a sign-in is as long ago as it is, whatever other gateways know.
            Err(_) => self.session.lifetime.is_too_old(&self.limits, sessions.clock.now()),
        }
    }

    /// Another gateway may know of a later use.
    async fn is_over_unused(&self) -> bool {
        if self.left().is_zero()
            && let Ok(Some(stored)) = self.sessions.read(self.session.key).await
        {
            self.session.lifetime.merge(Times::of(&stored), self.sessions.clock.now());
        }
        self.left().is_zero() && self.is_over_in_use()
    }
}
