//! At most so many sessions of one user.
//!
//! Looked at after the new session is in the store: of two sign-ins at the same time one sees the other at
//! least, and by one order of all sessions both end the same ones.

use futures::future::try_join_all;

use super::Sessions;
use crate::clock::UnixTime;
use crate::oidc::Issuer;
use crate::session::lifetime::SKEW;
use crate::store::{Index, SessionStore as _, StoreError, StoreKey};

/// How many records are read at a time.
const READS: usize = 16;

/// How many sessions a user may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerUser {
    /// At most this many.
    pub max: usize,
    /// What happens to one more.
    pub at_limit: AtLimit,
}

/// What happens at the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AtLimit {
    /// The oldest sessions end.
    #[default]
    EndOldest,
    /// The sign-in is refused.
    Refuse,
}

/// What becomes of a session that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// It lives, and so many others ended for it.
    Yes(usize),
    /// There are too many: it has to end.
    No,
}

/// A new session, and what it is held against.
#[derive(Clone, Copy, Debug)]
pub struct Newcomer<'a> {
    /// Its key.
    pub key: StoreKey,
    /// When it was begun.
    pub created_at: UnixTime,
    /// Who issued its ID token.
    pub issuer: &'a Issuer,
    /// The subject at that issuer.
    pub subject: &'a str,
    /// The session whose place it takes, which ends anyway.
    pub replaces: Option<StoreKey>,
}

impl Sessions {
    /// Holds a user's sessions against the limit, the new one among them, which is in the store by now.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer; the limit may then be exceeded.
    pub async fn admit(&self, new: &Newcomer<'_>, limit: &PerUser) -> Result<Admitted, StoreError> {
        let mut keys = self.store.find_by(Index::of_sub(&new.issuer.0, new.subject)).await?;
        keys.retain(|(key, _)| Some(*key) != new.replaces);
        let surplus = keys.len().saturating_sub(limit.max);
        if surplus == 0 {
            return Ok(Admitted::Yes(0));
        }
        match limit.at_limit {
            AtLimit::Refuse => Ok(Admitted::No),
            AtLimit::EndOldest => self.end_oldest(&keys, surplus, new).await,
        }
    }

    async fn end_oldest(
        &self,
        keys: &[(StoreKey, u64)],
        surplus: usize,
        new: &Newcomer<'_>,
    ) -> Result<Admitted, StoreError> {
        let mut ranks = Vec::with_capacity(keys.len());
        for some in keys.chunks(READS) {
            let reads: Vec<_> = some.iter().map(|(key, _)| self.rank(*key, new.created_at)).collect();
            ranks.extend(try_join_all(reads).await?);
        }
        ranks.sort_unstable();
        let mut admitted = Admitted::Yes(surplus);
        for Rank(_, _, key) in ranks.into_iter().take(surplus) {
            if key == new.key {
                // Others began later, at the same time as this one.
                admitted = Admitted::No;
            } else {
                self.end(key).await?;
            }
        }
        Ok(admitted)
    }

    /// A session that does not open is of no use to anybody; one from the future was begun before a clock
    /// was set back.
    async fn rank(&self, key: StoreKey, now: UnixTime) -> Result<Rank, StoreError> {
        let session = self.read(key).await?;
        let created_at = session.map_or(UnixTime::from_millis(0), |session| session.created_at);
        Ok(Rank(created_at <= now + SKEW, created_at, key))
    }
}

/// The order in which sessions go, the first one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(bool, UnixTime, StoreKey);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::gateway::rig::{Owned, Rig, limits};
    use crate::session::Session;

    const ISSUER: &str = "https://op.test";

    async fn begin(rig: &Rig, change: impl FnOnce(&mut Session)) -> StoreKey {
        let mut session = rig.session(&[]);
        change(&mut session);
        let id = rig.gateway.shared().sessions.begin(&session, &limits()).await.unwrap();
        StoreKey(id.store_key())
    }

    async fn admit(
        rig: &Rig,
        key: StoreKey,
        limit: (usize, AtLimit),
        replaces: Option<StoreKey>,
    ) -> Admitted {
        let issuer = Issuer(ISSUER.into());
        let created_at = rig.clock.now();
        let new = Newcomer { key, created_at, issuer: &issuer, subject: "alice", replaces };
        let limit = PerUser { max: limit.0, at_limit: limit.1 };
        rig.gateway.shared().sessions.admit(&new, &limit).await.unwrap()
    }

    async fn living(rig: &Rig) -> BTreeSet<StoreKey> {
        let found = rig.gateway.shared().store.find_by(Index::of_sub(ISSUER, "alice")).await.unwrap();
        found.into_iter().map(|(key, _)| key).collect()
    }

    /// Sessions a second apart, the oldest first.
    async fn in_turn<const N: usize>(rig: &Rig) -> [StoreKey; N] {
        let mut keys = [StoreKey([0; 32]); N];
        for key in &mut keys {
            rig.clock.advance(Duration::from_secs(1));
            *key = begin(rig, |_| {}).await;
        }
        keys
    }

    #[tokio::test]
    async fn the_oldest_sessions_of_a_user_go_and_nobody_elses() {
        let rig = Rig::new();
        let bob = begin(&rig, |session| session.subject = "bob".into()).await;
        let elsewhere = begin(&rig, |session| session.issuer = Issuer("https://other.test".into())).await;
        let [first, second, third, fourth] = in_turn(&rig).await;
        assert_eq!(admit(&rig, fourth, (4, AtLimit::EndOldest), None).await, Admitted::Yes(0));
        assert_eq!(admit(&rig, fourth, (2, AtLimit::EndOldest), None).await, Admitted::Yes(2));
        assert_eq!(living(&rig).await, BTreeSet::from([third, fourth]));
        let store = &rig.gateway.shared().store;
        for (key, lives) in [(first, false), (second, false), (bob, true), (elsewhere, true)] {
            assert_eq!(store.get(key).await.unwrap().is_some(), lives);
        }
    }

    #[tokio::test]
    async fn what_a_session_serves_ends_with_it_when_it_makes_room() {
        let rig = Rig::new();
        let cookie = rig.sign_in(&[]).await;
        let request = Owned::get("app.test", "/x").with_cookie(&cookie);
        let plan =
            rig.gateway.decide(&request.request(), &crate::gateway::LastCookie::default()).await.unwrap();
        let [newer] = in_turn(&rig).await;
        assert_eq!(admit(&rig, newer, (1, AtLimit::EndOldest), None).await, Admitted::Yes(1));
        assert!(plan.session().unwrap().ended.is_cancelled());
        assert!(
            rig.gateway.decide(&request.request(), &crate::gateway::LastCookie::default()).await.is_err()
        );
    }

    #[tokio::test]
    async fn a_sign_in_over_the_limit_is_refused_where_that_is_set_and_ends_nothing() {
        let rig = Rig::new();
        let [first, second, third] = in_turn(&rig).await;
        assert_eq!(admit(&rig, third, (2, AtLimit::Refuse), None).await, Admitted::No);
        assert_eq!(
            admit(&rig, third, (2, AtLimit::Refuse), Some(first)).await,
            Admitted::Yes(0),
            "in its place"
        );
        assert_eq!(living(&rig).await, BTreeSet::from([first, second, third]));
    }

    #[tokio::test]
    async fn of_sign_ins_at_the_same_moment_as_many_live_as_the_limit_says() {
        let rig = Rig::new();
        let mut keys = Vec::new();
        for _ in 0..5 {
            keys.push(begin(&rig, |_| {}).await);
        }
        let all = keys.iter().map(|key| admit(&rig, *key, (2, AtLimit::EndOldest), None));
        let admitted = futures::future::join_all(all).await;
        // Whoever is told no ends what it began.
        for (key, admitted) in keys.iter().zip(admitted) {
            if admitted == Admitted::No {
                rig.gateway.shared().sessions.end(*key).await.unwrap();
            }
        }
        assert_eq!(living(&rig).await.len(), 2);
    }

    #[tokio::test]
    async fn a_clock_that_was_set_back_locks_nobody_out() {
        let rig = Rig::new();
        let ahead =
            begin(&rig, |session| session.created_at = session.created_at + Duration::from_hours(2)).await;
        let [now] = in_turn(&rig).await;
        assert_eq!(admit(&rig, now, (1, AtLimit::EndOldest), None).await, Admitted::Yes(1));
        assert_eq!(living(&rig).await, BTreeSet::from([now]));
        assert!(!living(&rig).await.contains(&ahead));
    }
}
