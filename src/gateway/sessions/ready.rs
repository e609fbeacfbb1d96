//! A session as it serves requests: nothing is read, parsed or rendered any more.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use tokio_util::sync::CancellationToken;

use super::trust::Trust;
use crate::clock::UnixTime;
use crate::gateway::refresh::Outcome;
use crate::identity::Identity;
use crate::idp::flight::Flight;
use crate::oidc::ProviderId;
use crate::session::refresh::Schedule;
use crate::session::{KeyId, Lifetime, RouteLimits};
use crate::store::StoreKey;

/// A session that is ready to serve requests: no tokens, headers already rendered.
#[derive(Debug)]
pub struct ReadySession {
    /// The record's key in the store.
    pub key: StoreKey,
    /// The host that it belongs to.
    pub host: Arc<str>,
    /// The provider's name in the configuration.
    pub provider: ProviderId,
    /// Who it is.
    pub identity: Arc<Identity>,
    /// The identity headers for upstreams.
    pub headers: Box<[(HeaderName, HeaderValue)]>,
    /// Cancelled when the session ends: whatever serves it stops then.
    pub ended: Arc<CancellationToken>,
    /// The refresh that is under way, if one is.
    pub(in crate::gateway) refresh: Flight<Outcome>,
    /// The question to the store that is under way, if one is.
    pub(super) question: Flight<Result<Option<Arc<Self>>, Arc<str>>>,
    pub(super) trust: Trust,
    pub(super) schedule: Option<Schedule>,
    pub(super) hold_off: HoldOff,
    /// Shared by everything that was ever made of the record and is still in use.
    pub(super) lifetime: Arc<Lifetime>,
    pub(super) version: AtomicU64,
    /// The key that sealed the record, or is about to; `None`: that is not known.
    pub(super) sealed_by: Mutex<Option<KeyId>>,
}

/// Until when nothing is refreshed, because it failed.
#[derive(Debug, Default)]
pub(super) struct HoldOff {
    failures: AtomicU32,
    /// Milliseconds of [`UnixTime`].
    until: AtomicU64,
}

/// After a refresh that failed the next one waits this long, and twice as long after each that follows.
const FIRST_HOLD_OFF: Duration = Duration::from_secs(5);

/// How often that doubles: up to about five minutes.
const DOUBLINGS: u32 = 6;

impl ReadySession {
    /// When its tokens are to be refreshed, once that may be.
    pub(in crate::gateway) fn old(&self, now: UnixTime) -> Option<&Schedule> {
        let until = UnixTime::from_millis(self.hold_off.until.load(Ordering::Relaxed));
        // Longer than it ever is: the clock was set back.
        let is_held_off = now < until && until.since(now) <= FIRST_HOLD_OFF * 2_u32.pow(DOUBLINGS);
        self.schedule.as_ref().filter(|schedule| schedule.is_old(now) && !is_held_off)
    }

    /// A refresh failed: the next one waits.
    pub(in crate::gateway) fn hold_off(&self, now: UnixTime) {
        let failures = self.hold_off.failures.fetch_add(1, Ordering::Relaxed).min(DOUBLINGS);
        let until = now + FIRST_HOLD_OFF * 2_u32.pow(failures);
        self.hold_off.until.store(until.as_millis(), Ordering::Relaxed);
    }

    /// Remembers the key that sealed the record.
    pub(super) fn note_seal(&self, key: Option<KeyId>) {
        *self.sealed_by.lock().unwrap_or_else(PoisonError::into_inner) = key;
    }

    /// Whether the record is to be sealed by this key now: of many that ask one is told so.
    pub(super) fn is_sealed_anew(&self, key: KeyId) -> bool {
        let mut sealed_by = self.sealed_by.lock().unwrap_or_else(PoisonError::into_inner);
        sealed_by.replace(key) != Some(key)
    }

    /// Whether a route with these limits takes it; asked when the request counts as use by now.
    #[must_use]
    pub fn fits(&self, limits: &RouteLimits, now: UnixTime) -> bool {
        self.lifetime.fits(limits, now)
    }

    /// The version of the record that this was made of, or that was written of it since.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    /// About how many bytes it takes in memory.
    pub(super) fn weight(&self) -> u32 {
        let identity = &self.identity;
        let groups: usize =
            identity.groups.iter().flatten().map(|group| group.len() + size_of::<Arc<str>>() + 32).sum();
        let headers: usize = self
            .headers
            .iter()
            .map(|(_, value)| value.len() + size_of::<(HeaderName, HeaderValue)>() + 32)
            .sum();
        // The structures themselves; beside them, measured with 20,000 sessions, what the cache keeps for an
        // entry, what is one for all of the session's copies, and the short texts.
        let fixed = size_of::<Self>() + size_of::<Identity>() + 1300;
        u32::try_from(fixed + groups + headers).unwrap_or(u32::MAX)
    }
}
