//! OpenID Connect's messages as data: requests are values that `idp::transport` sends, answers are
//! parsed from bytes. No I/O, no clock, no randomness of its own.

pub mod authorize;
pub mod callback;
pub mod end_session;
pub mod exchange;
pub mod id_token;
pub mod metadata;
pub mod userinfo;

use std::fmt;
use std::sync::Arc;

/// The issuer identifier of a provider, compared byte for byte (ID-6).
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Issuer(pub Arc<str>);

/// The client identifier at a provider.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ClientId(pub Arc<str>);

/// The name of a `[[provider]]` in the configuration: `[a-z0-9-]{1,32}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ProviderId(pub Arc<str>);

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
