//! Sessions as sign-ins make them: sealed, with tokens and claims, under their two indexes.

use bytes::Bytes;
use portcullis::random::{random_bytes, random_token};
use portcullis::session::seal::seal_record;
use portcullis::session::{Key, KeyRing, Session, SessionId};
use portcullis::store::{Index, Record, StoreKey};
use serde_json::json;

use crate::Outcome;

const ISSUER: &str = "https://login.example.com/realms/main";

/// The one with very many sessions.
pub const BUSY: &str = "the-one-with-ten-thousand";

/// What seals sessions.
#[derive(Debug)]
pub struct Sealer(KeyRing);

impl Sealer {
    pub fn new() -> Outcome<Self> {
        Ok(Self(KeyRing::new(&[Key::from_bytes(random_bytes()?)])?))
    }

    /// The record of a new session of `subject`.
    pub fn record(&self, subject: &str) -> Outcome<Record> {
        let key = SessionId::new(random_bytes()?).store_key();
        let sid = random_token::<16>()?;
        let payload = seal_record(&self.0, &key, &session(subject, &sid)?)?;
        let indexes = vec![Index::of_sub(ISSUER, subject), Index::of_sid(ISSUER, &sid)];
        Ok(Record { key: StoreKey(key), indexes, payload: Bytes::from(payload) })
    }
}

/// The index of all sessions of `subject`.
pub fn sessions_of(subject: &str) -> Index {
    Index::of_sub(ISSUER, subject)
}

/// What a provider like Keycloak gives for a person in a few groups: tokens of a kilobyte or less.
fn session(subject: &str, sid: &str) -> Outcome<Session> {
    let session = json!({
        "provider": "main",
        "issuer": ISSUER,
        "subject": subject,
        "sid": sid,
        "host": "wiki.example.com",
        "claims": {
            "iss": ISSUER, "sub": subject, "aud": "portcullis", "azp": "portcullis", "sid": sid,
            "exp": 1_790_000_300, "iat": 1_790_000_000, "auth_time": 1_790_000_000, "typ": "ID",
            "nonce": random_token::<32>()?, "acr": "1", "email_verified": true,
            "name": format!("Person {subject}"), "preferred_username": subject,
            "given_name": "Person", "family_name": subject, "email": format!("{subject}@example.com"),
            "groups": ["staff", "wiki-editors", "berlin", "engineering", "vpn-users"],
        },
        "id_token": random_token::<675>()?,
        "access_token": random_token::<675>()?,
        "access_expires_at": 1_790_000_300_000_u64,
        "refresh_token": random_token::<450>()?,
        "created_at": 1_790_000_000_000_u64,
        "last_seen": 1_790_000_000_000_u64,
        "client": "198.51.100.17",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    });
    Ok(serde_json::from_value(session)?)
}
