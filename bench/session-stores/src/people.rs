//! Sessions as sign-ins make them: sealed, with tokens and claims, under their two indexes.

use std::time::Duration;

use bytes::Bytes;
use portcullis::clock::UnixTime;
use portcullis::random::{random_bytes, random_token};
use portcullis::session::seal::seal_record;
use portcullis::session::{Key, KeyRing, Session, SessionId};
use portcullis::store::{Index, Record, StoreKey};
use serde_json::{Map, Value, json};

use crate::Outcome;

const ISSUER: &str = "https://login.example.com/realms/main";

/// The one with very many sessions.
pub const BUSY: &str = "the-one-with-ten-thousand";

/// How long an access token lives: longer than any measurement, for a refresh would be one more thing to measure.
const ACCESS: Duration = Duration::from_hours(24 * 30);

/// Where people signed in, and when.
#[derive(Debug)]
pub struct Place {
    pub provider: String,
    pub issuer: String,
    pub host: String,
    pub at: UnixTime,
    /// Claims that all of them have, in the place of those of their own.
    pub claims: Map<String, Value>,
}

/// What seals sessions.
#[derive(Debug)]
pub struct Sealer {
    ring: KeyRing,
    place: Place,
}

impl Sealer {
    /// With a key that nobody else has.
    pub fn new() -> Outcome<Self> {
        let place = Place {
            provider: "main".to_owned(),
            issuer: ISSUER.to_owned(),
            host: "wiki.example.com".to_owned(),
            at: UnixTime::from_secs(1_790_000_000),
            claims: Map::new(),
        };
        Ok(Self { ring: KeyRing::new(&[Key::from_bytes(random_bytes()?)])?, place })
    }

    /// With the keys of a gateway, for what is signed in to at its place.
    pub const fn of(ring: KeyRing, place: Place) -> Self {
        Self { ring, place }
    }

    /// The keys.
    pub const fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// The record of a new session of `subject`.
    pub fn record(&self, subject: &str) -> Outcome<Record> {
        self.record_of(&SessionId::new(random_bytes()?), subject)
    }

    /// The record of the session of `subject` with this id.
    pub fn record_of(&self, id: &SessionId, subject: &str) -> Outcome<Record> {
        let (key, sid) = (id.store_key(), random_token::<16>()?);
        let session = session(&self.place, subject, &sid)?;
        let payload = seal_record(&self.ring, &key, &session)?;
        let issuer = &self.place.issuer;
        let indexes = vec![Index::of_sub(issuer, &session.subject), Index::of_sid(issuer, &sid)];
        Ok(Record { key: StoreKey(key), indexes, payload: Bytes::from(payload) })
    }
}

/// The index of all sessions of `subject`.
pub fn sessions_of(subject: &str) -> Index {
    Index::of_sub(ISSUER, subject)
}

/// What a provider like Keycloak gives for a person in a few groups: tokens of a kilobyte or less.
fn session(place: &Place, subject: &str, sid: &str) -> Outcome<Session> {
    let Place { provider, issuer, host, at, claims: shared } = place;
    let seconds = at.as_millis() / 1000;
    let mut claims = json!({
        "iss": issuer, "sub": subject, "aud": "portcullis", "azp": "portcullis", "sid": sid,
        "exp": seconds + 300, "iat": seconds, "auth_time": seconds, "typ": "ID",
        "nonce": random_token::<32>()?, "acr": "1", "email_verified": true,
        "name": format!("Person {subject}"), "preferred_username": subject,
        "given_name": "Person", "family_name": subject, "email": format!("{subject}@example.com"),
        "groups": ["staff", "wiki-editors", "berlin", "engineering", "vpn-users"],
    });
    if let Some(claims) = claims.as_object_mut() {
        claims.extend(shared.clone());
    }
    let session = json!({
        "provider": provider,
        "issuer": issuer,
        "subject": claims.get("sub"),
        "sid": sid,
        "host": host,
        "claims": claims,
        "id_token": random_token::<675>()?,
        "access_token": random_token::<675>()?,
        "access_expires_at": (*at + ACCESS).as_millis(),
        "refresh_token": random_token::<450>()?,
        "created_at": at.as_millis(),
        "last_seen": at.as_millis(),
        "client": "198.51.100.17",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    });
    Ok(serde_json::from_value(session)?)
}
