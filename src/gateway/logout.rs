//! Sign-outs that the provider tells: whose sessions end, also those whose sign-in is still under way.

use std::time::Duration;

use super::Gateway;
use crate::clock::UnixTime;
use crate::oidc::Issuer;
use crate::oidc::callback::ATTEMPT_LIFETIME;
use crate::oidc::logout_token::{LogoutToken, MAX_AGE, Whose};
use crate::session::Session;
use crate::store::{Index, Record, StoreError, StoreKey};

/// What became of a logout token that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// So many sessions ended; none is fine too.
    Ended(usize),
    /// It was used before: nothing changed.
    Replayed,
}

/// An ID token is at most as old as the attempt that it answers: a tombstone older than this meets no
/// sign-in under way any more. Twice that, for clocks that differ.
const TOMBSTONE: Duration = Duration::from_secs(ATTEMPT_LIFETIME.as_secs() * 2);

/// A logout token is taken this long after it was made, a minute of leeway on both sides of it.
const REPLAY_WINDOW: Duration = Duration::from_secs(MAX_AGE.as_secs() + 120);

impl Gateway {
    /// Ends the sessions that a logout token of `issuer` names. Order: is the token unseen; a tombstone
    /// for sign-ins under way; the sessions; the token's id last, so that what failed can be repeated.
    ///
    /// # Errors
    /// [`StoreError`]: nobody may be told that a logout happened which did not.
    pub async fn hear(&self, issuer: &Issuer, token: &LogoutToken) -> Result<Heard, StoreError> {
        let store = &self.shared().store;
        let seen = StoreKey::derive("logout jti", &[issuer.0.as_bytes(), token.jti.as_bytes()]);
        if store.is_marked(seen).await? {
            return Ok(Heard::Replayed);
        }
        let grave = Record {
            key: tombstone(issuer, &token.whose),
            indexes: Vec::new(),
            payload: token.issued_at.as_millis().to_be_bytes().to_vec().into(),
        };
        store.put(grave, TOMBSTONE).await?;
        let (index, and) = indexes(issuer, &token.whose);
        let ended = self.shared().sessions.end_by(index, and).await?;
        store.mark(seen, REPLAY_WINDOW).await?;
        Ok(Heard::Ended(ended))
    }

    /// Ends what belongs to a session of the provider's that a page named (Front-Channel Logout 1.0, 2);
    /// says how many. Nobody vouches for the name: one that leads to nothing writes nothing, and no word is
    /// left for sign-ins under way.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end_named(&self, issuer: &Issuer, sid: &str) -> Result<usize, StoreError> {
        let index = Index::of_sid(&issuer.0, sid);
        if self.shared().store.find_by(index).await?.is_empty() {
            return Ok(0);
        }
        self.shared().sessions.end_by(index, None).await
    }

    /// Whether a logout was heard that was made after the ID token of this session: it overtook the
    /// callback, and it wins (BC-12). Asked after the session was stored, so that of the two one
    /// always sees the other.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_overtaken(&self, session: &Session, issued_at: UnixTime) -> Result<bool, StoreError> {
        for grave in graves(session) {
            let Some(stored) = self.shared().store.get(grave).await? else { continue };
            let Ok(made_at) = <[u8; 8]>::try_from(stored.record.payload.as_ref()) else { continue };
            if UnixTime::from_millis(u64::from_be_bytes(made_at)) >= issued_at {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// BC-6: `sid` and `sub` have indexes of their own; with both, a session must be under both.
fn indexes(issuer: &Issuer, whose: &Whose) -> (Index, Option<Index>) {
    match whose {
        Whose::Sid(sid) => (Index::of_sid(&issuer.0, sid), None),
        Whose::Sub(sub) => (Index::of_sub(&issuer.0, sub), None),
        Whose::Both { sid, sub } => (Index::of_sid(&issuer.0, sid), Some(Index::of_sub(&issuer.0, sub))),
    }
}

/// Where a logout leaves word for sign-ins under way.
fn tombstone(issuer: &Issuer, whose: &Whose) -> StoreKey {
    let issuer = issuer.0.as_bytes();
    match whose {
        Whose::Sid(sid) => StoreKey::derive("tombstone sid", &[issuer, sid.as_bytes()]),
        Whose::Sub(sub) => StoreKey::derive("tombstone sub", &[issuer, sub.as_bytes()]),
        Whose::Both { sid, sub } => {
            StoreKey::derive("tombstone sid+sub", &[issuer, sid.as_bytes(), sub.as_bytes()])
        }
    }
}

/// Every tombstone that would be a session's.
fn graves(session: &Session) -> impl Iterator<Item = StoreKey> {
    let (issuer, sub) = (&session.issuer, &session.subject);
    let of_sid = session.sid.iter().flat_map(move |sid| {
        let both = Whose::Both { sid: sid.clone(), sub: sub.clone() };
        [tombstone(issuer, &Whose::Sid(sid.clone())), tombstone(issuer, &both)]
    });
    std::iter::once(tombstone(issuer, &Whose::Sub(sub.clone()))).chain(of_sid)
}

#[cfg(test)]
mod tests {
    use super::super::rig::{Rig, limits};
    use super::*;

    async fn begun(rig: &Rig, sid: &str) -> StoreKey {
        let session = Session { sid: Some(sid.into()), ..rig.session(&[]) };
        let id = rig.gateway.shared().sessions.begin(&session, &limits()).await.unwrap();
        StoreKey(id.store_key())
    }

    #[tokio::test]
    async fn bc_11_the_tokens_of_a_session_that_the_provider_ends_go_with_it() {
        let rig = Rig::new();
        let (shared, issuer) = (rig.gateway.shared(), Issuer("https://op.test".into()));
        let (told, named, other) =
            (begun(&rig, "s1").await, begun(&rig, "s2").await, begun(&rig, "s3").await);
        let token =
            LogoutToken { jti: "j1".into(), issued_at: rig.clock.now(), whose: Whose::Sid("s1".into()) };
        assert_eq!(rig.gateway.hear(&issuer, &token).await.unwrap(), Heard::Ended(1));
        assert_eq!(rig.gateway.end_named(&issuer, "s2").await.unwrap(), 1);
        for (name, key) in [("back channel", told), ("front channel", named)] {
            assert!(shared.store.get(key).await.unwrap().is_none(), "{name}: nothing is kept");
            assert!(shared.sessions.read(key).await.unwrap().is_none(), "{name}");
        }
        assert!(shared.sessions.read(other).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_name_alone_leaves_no_word_for_sign_ins_under_way() {
        let rig = Rig::new();
        let issuer = Issuer("https://op.test".into());
        assert_eq!(rig.gateway.end_named(&issuer, "s1").await.unwrap(), 0);
        let session = Session { sid: Some("s1".into()), ..rig.session(&[]) };
        assert!(!rig.gateway.is_overtaken(&session, rig.clock.now()).await.unwrap());
    }
}
