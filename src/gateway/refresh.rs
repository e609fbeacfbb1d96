//! Sessions whose tokens grow old: refreshed behind the requests while they are good, before anything is
//! served when they are not.
//!
//! One refresh of a session at a time: in this process one flight, among several gateways one lease in
//! the store. What is sent is noted in the store before it is sent, and what comes is stored before
//! anybody uses it (RF-1, RF-2). Runs on the gateway's own runtime: a client that hangs up ends nothing.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Shared;
use super::sessions::ReadySession;
use crate::clock::UnixTime;
use crate::idp::refresh::RefreshError;
use crate::idp::{Provider, SignInError};
use crate::oidc::refresh::FreshTokens;
use crate::oidc::revocation::Kind;
use crate::oidc::userinfo::{PROTECTED, UserinfoError};
use crate::secret::Secret;
use crate::session::refresh::{Due, Schedule};
use crate::session::{Limits, Session};
use crate::store::{Lease, Replaced, StoreError};
use crate::token::Claims;
use crate::token::jws::Jws;

/// A lease outlives a call to the provider by this much, and is extended while the work goes on.
const MARGIN: Duration = Duration::from_secs(5);

/// How often one looks whether another gateway has finished.
const POLL: Duration = Duration::from_millis(100);

/// How often a record is read anew because somebody wrote it meanwhile: uses are noted once in a tenth of
/// the idle timeout, so more than one in a row is rare.
const TRIES: usize = 8;

/// Claims of a sign-in that a fresh ID token need not repeat (Core 12.2).
const LASTING: &[&str] = &["acr", "amr", "auth_time", "azp", "nonce", "sid"];

/// What became of a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The store has fresh tokens, of this gateway or another.
    Done,
    /// The session is over.
    Ended,
    /// There are none now; the session lives on with what it has.
    Later,
}

/// What became of a change of a record.
enum Changed {
    Done,
    /// The session ended meanwhile.
    Gone,
    /// The lease is another gateway's by now.
    Lost,
}

/// One refresh of one session.
pub(super) struct Refresh {
    pub(super) shared: Arc<Shared>,
    pub(super) limits: Limits,
    pub(super) session: Arc<ReadySession>,
    pub(super) provider: Arc<Provider>,
}

impl Refresh {
    /// Does it, and sees to it that the next request finds what came of it.
    pub(super) async fn run(self) -> Outcome {
        let outcome = self.in_turn().await.unwrap_or(Outcome::Later);
        match outcome {
            Outcome::Done => self.shared.sessions.reread(self.session.key),
            Outcome::Ended => {}
            Outcome::Later => self.session.hold_off(self.shared.clock.now()),
        }
        outcome
    }

    /// Waits for the lease, or for the tokens of whoever holds it: for no longer than the lease of one that
    /// died lasts.
    async fn in_turn(&self) -> Result<Outcome, StoreError> {
        let (begun, length) = (Instant::now(), lease_of(&self.provider));
        while begun.elapsed() < length {
            if let Some(lease) = self.shared.store.lease(self.session.key, length).await? {
                let outcome = self.holding(&lease, self.refresh(&lease)).await;
                // It runs out by itself too.
                self.shared.store.release(lease).await.ok();
                return outcome;
            }
            sleep(POLL).await;
            match self.shared.sessions.read(self.session.key).await? {
                None => return Ok(Outcome::Ended),
                Some(session) if !self.is_old(&session) => return Ok(Outcome::Done),
                Some(_) => {}
            }
        }
        Ok(Outcome::Later)
    }

    /// Does the work, and keeps the lease for as long as it takes.
    async fn holding<T>(&self, lease: &Lease, work: impl Future<Output = T>) -> T {
        let (mut work, length) = (pin!(work), lease_of(&self.provider));
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = sleep(length / 3) => {
                    // A lease that is lost is noticed at the next write, which it fences.
                    self.shared.store.extend(lease, length).await.ok();
                }
            }
        }
    }

    fn is_old(&self, session: &Session) -> bool {
        let now = self.shared.clock.now();
        Schedule::of(session).is_some_and(|schedule| schedule.is_old(now))
    }

    fn due(&self, session: &Session) -> Due {
        let now = self.shared.clock.now();
        let grace = self.provider.settings().refresh_reuse_grace;
        Schedule::of(session).map_or(Due::No, |schedule| schedule.due(grace, now))
    }

    async fn refresh(&self, lease: &Lease) -> Result<Outcome, StoreError> {
        let Some(session) = self.shared.sessions.read(self.session.key).await? else {
            return Ok(Outcome::Ended);
        };
        let token = session.refresh_token.as_ref().filter(|_| self.is_old(&session));
        // Somebody was faster.
        let Some(token) = token else { return Ok(Outcome::Done) };
        // Whoever sent it is gone, and the answer with them.
        if self.due(&session) == Due::No {
            return Ok(Outcome::Later);
        }
        let now = self.shared.clock.now();
        match self.change(lease, |session| session.refresh_sent_at = Some(now)).await? {
            Changed::Done => {}
            Changed::Gone => return Ok(Outcome::Ended),
            Changed::Lost => return Ok(Outcome::Later),
        }
        match self.provider.refresh(token).await {
            Ok(fresh) => self.take(lease, &session, fresh).await,
            Err(error) => self.failed(lease, &error).await,
        }
    }

    async fn failed(&self, lease: &Lease, error: &RefreshError) -> Result<Outcome, StoreError> {
        let outcome = match error {
            RefreshError::Over => "over",
            RefreshError::Later(_) => "unavailable",
            RefreshError::Refused(_) => "refused",
            RefreshError::Lost(_) => "lost",
        };
        self.tell(outcome, &error.to_string());
        match error {
            RefreshError::Over => self.end().await,
            // What was sent stands as sent.
            RefreshError::Lost(_) => Ok(Outcome::Later),
            RefreshError::Later(_) | RefreshError::Refused(_) => {
                self.change(lease, |session| session.refresh_sent_at = None).await?;
                Ok(Outcome::Later)
            }
        }
    }

    /// Stores fresh tokens, and then asks with them who the person is now (RF-5).
    async fn take(
        &self,
        lease: &Lease,
        session: &Session,
        fresh: FreshTokens,
    ) -> Result<Outcome, StoreError> {
        let claims = match self.provider.verify_fresh(&fresh, &session.claims).await {
            Ok(Ok(claims)) => claims,
            Ok(Err(error)) => {
                self.tell("id_token", &error.to_string());
                self.revoke(&fresh);
                return self.end().await;
            }
            // The tokens must not be lost; an ID token that can't be verified counts as not given.
            Err(error) => {
                self.tell("unverified", &error.to_string());
                None
            }
        };
        let now = self.shared.clock.now();
        let renew = |session: &mut Session| renew(session, &fresh, claims.as_ref(), now);
        match self.keep(lease, renew).await? {
            Changed::Done => {}
            Changed::Gone => {
                self.revoke(&fresh);
                return Ok(Outcome::Ended);
            }
            Changed::Lost => return Ok(Outcome::Later),
        }
        self.tell_done();
        self.ask_anew(lease, &fresh.access_token, &session.claims).await
    }

    /// Claims that the ID token has not come from userinfo, and only what it says now counts. An answer that
    /// is none says nothing: who could spoil it would keep groups that were taken away. Through an outage the
    /// claims stay.
    async fn ask_anew(
        &self,
        lease: &Lease,
        access_token: &Secret<String>,
        claims: &Claims,
    ) -> Result<Outcome, StoreError> {
        let userinfo = match self.provider.fresh_userinfo(access_token, claims).await {
            Ok(userinfo) => userinfo.unwrap_or_default(),
            Err(error) => {
                self.tell("userinfo", &error.to_string());
                match error {
                    // UI-1.
                    SignInError::Userinfo(UserinfoError::SubjectMismatch) => return self.end().await,
                    SignInError::Userinfo(error) if !is_outage(&error) => Claims::default(),
                    SignInError::Userinfo(_)
                    | SignInError::Unavailable(_)
                    | SignInError::Exchange(_)
                    | SignInError::IdToken(_) => return Ok(Outcome::Done),
                }
            }
        };
        let ask = |session: &mut Session| absorb(session, userinfo.clone());
        Ok(match self.change(lease, ask).await? {
            Changed::Done | Changed::Lost => Outcome::Done,
            Changed::Gone => Outcome::Ended,
        })
    }

    /// Changes the record to what the provider gives once: a store that is down for less than the lease
    /// lasts must not lose it. A change whose answer was lost is made again and is the same.
    async fn keep(&self, lease: &Lease, change: impl Fn(&mut Session)) -> Result<Changed, StoreError> {
        let (begun, length) = (Instant::now(), lease_of(&self.provider));
        loop {
            let changed = self.change(lease, &change).await;
            if changed.is_ok() || begun.elapsed() >= length {
                return changed;
            }
            sleep(POLL).await;
        }
    }

    /// Changes the record as it is now; uses that are noted at the same time are not lost.
    async fn change(&self, lease: &Lease, change: impl Fn(&mut Session)) -> Result<Changed, StoreError> {
        let sessions = &self.shared.sessions;
        for _ in 0..TRIES {
            match sessions.rewrite(self.session.key, &change, lease, &self.limits).await? {
                Replaced::Done(_) => return Ok(Changed::Done),
                Replaced::Gone => return Ok(Changed::Gone),
                Replaced::Conflict => {}
            }
            if !self.shared.store.extend(lease, lease_of(&self.provider)).await? {
                break;
            }
        }
        Ok(Changed::Lost)
    }

    async fn end(&self) -> Result<Outcome, StoreError> {
        self.shared.sessions.end(self.session.key).await?;
        Ok(Outcome::Ended)
    }

    fn revoke(&self, fresh: &FreshTokens) {
        let (token, kind) = match &fresh.refresh_token {
            Some(token) => (token, Kind::RefreshToken),
            None => (&fresh.access_token, Kind::AccessToken),
        };
        self.provider.revoke(token.clone(), kind);
    }

    fn tell(&self, outcome: &'static str, detail: &str) {
        let (provider, user) = (&self.provider.settings().id.0, &self.session.identity.user);
        self.shared.events.refresh_failed(provider, user, outcome, detail);
    }

    fn tell_done(&self) {
        let (provider, user) = (&self.provider.settings().id.0, &self.session.identity.user);
        self.shared.events.refreshed(provider, user);
    }
}

/// How long the lease on a session lasts that is not extended: longer than one call to its provider. For as
/// long after a refresh token was sent somebody may be waiting for the answer.
pub(super) fn lease_of(provider: &Provider) -> Duration {
    provider.settings().timeout + MARGIN
}

/// Whether userinfo could not be told now, rather than was refused or is no userinfo.
const fn is_outage(error: &UserinfoError) -> bool {
    matches!(error, UserinfoError::Status { status: 429 | 500.. })
}

/// The session with fresh tokens.
fn renew(session: &mut Session, fresh: &FreshTokens, claims: Option<&Claims>, now: UnixTime) {
    session.access_token = fresh.access_token.clone();
    session.access_expires_at = fresh.expires_in.map(|life| now + life);
    session.refreshed_at = Some(now);
    session.refresh_sent_at = None;
    if let Some(token) = &fresh.refresh_token {
        session.refresh_token = Some(token.clone());
    }
    if let (Some(raw), Some(claims)) = (&fresh.id_token, claims) {
        let mut claims = claims.clone();
        claims.keep(&session.claims, LASTING);
        // What came from userinfo stays until userinfo was asked again.
        claims.absorb(std::mem::take(&mut session.claims), PROTECTED);
        session.claims = claims;
        session.id_token = raw.clone();
    }
}

/// The claims of the ID token that the session has, and of userinfo what it has not.
fn absorb(session: &mut Session, userinfo: Claims) {
    // The gateway verified it when it came, and sealed it since.
    let own = Jws::parse(session.id_token.expose()).ok().and_then(|token| Claims::parse(&token.payload).ok());
    let Some(mut claims) = own else { return };
    claims.keep(&session.claims, LASTING);
    claims.absorb(userinfo, PROTECTED);
    session.claims = claims;
}
