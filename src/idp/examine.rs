//! What `portcullis doctor` asks a provider: the steps of a sign-in one at a time, each with its own
//! answer. Nothing of it changes what the provider knows of anybody.

use http::header::DATE;

use super::{MAX_ANSWER_BYTES, Provider, SignInError, Unavailable, get, successful};
use crate::clock::UnixTime;
use crate::oidc::authorize::LoginAttempt;
use crate::oidc::client_auth::is_about_the_client;
use crate::oidc::exchange::ExchangeError;
use crate::oidc::metadata::{Metadata, MetadataError};
use crate::secret::Secret;
use crate::token::{Claims, KeySet};

/// The discovery document as it came.
#[derive(Debug)]
pub struct Document {
    /// All its members.
    pub members: Claims,
    /// What the gateway would use of it, or why it would refuse it.
    pub metadata: Result<Metadata, MetadataError>,
    /// The provider's clock, by the answer's `Date` (RFC 9110 6.6.1: whole seconds).
    pub date: Option<UnixTime>,
}

/// What the token endpoint said to a code that nobody issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MadeUpCode {
    /// The code is refused, so the client was not (RFC 6749 5.2: `invalid_grant`).
    CodeRefused,
    /// The client is refused, with this error code.
    ClientRefused(String),
    /// Neither can be told from the answer.
    Unclear(String),
}

impl Provider {
    /// Where its discovery document is.
    #[must_use]
    pub fn discovery_url(&self) -> &url::Url {
        self.inner.discovery.url()
    }

    /// Fetches the discovery document and takes it apart; nothing of it is kept.
    ///
    /// # Errors
    /// [`Unavailable`] where there is no JSON object to take apart.
    pub async fn document(&self) -> Result<Document, Unavailable> {
        let answer = self.inner.call("discovery", get(self.discovery_url()), MAX_ANSWER_BYTES).await?;
        let body = successful("discovery", &answer)?;
        let not_an_object = |_| Unavailable { reason: "discovery: not a JSON object".to_owned() };
        Ok(Document {
            members: Claims::parse(body).map_err(not_an_object)?,
            metadata: self.inner.parse_metadata(body),
            date: answer.headers().get(DATE).and_then(|date| http_date(date.to_str().ok()?)),
        })
    }

    /// Fetches the key set; nothing of it is kept.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn key_set(&self, metadata: &Metadata) -> Result<KeySet, Unavailable> {
        self.inner.fetch_keys(metadata).await
    }

    /// Sends a made-up code to the token endpoint, authenticated as at a sign-in: by its answer a wrong
    /// secret can be told before anybody meets it.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn try_made_up_code(
        &self,
        metadata: &Metadata,
        attempt: &LoginAttempt,
    ) -> Result<MadeUpCode, Unavailable> {
        let code = Secret::new("portcullis-doctor".to_owned());
        match self.inner.exchange(metadata, attempt, &code).await {
            Ok(_) => Ok(MadeUpCode::Unclear("it took a made-up code".to_owned())),
            Err(SignInError::Unavailable(unavailable)) => Err(unavailable),
            Err(SignInError::Exchange(error)) => judge(error),
            Err(error @ (SignInError::IdToken(_) | SignInError::Userinfo(_))) => {
                Ok(MadeUpCode::Unclear(error.to_string()))
            }
        }
    }
}

fn judge(error: ExchangeError) -> Result<MadeUpCode, Unavailable> {
    match error {
        ExchangeError::Refused { error, .. } if error == "invalid_grant" => Ok(MadeUpCode::CodeRefused),
        ExchangeError::Refused { error, .. } if is_about_the_client(&error) => {
            Ok(MadeUpCode::ClientRefused(error))
        }
        // RFC 6749 5.2: 401 is for clients.
        ExchangeError::Refused { status: 401, error } => Ok(MadeUpCode::ClientRefused(error)),
        ExchangeError::Unavailable { .. } => Err(Unavailable { reason: error.to_string() }),
        ExchangeError::Refused { .. } | ExchangeError::Malformed(_) => {
            Ok(MadeUpCode::Unclear(error.to_string()))
        }
    }
}

fn http_date(text: &str) -> Option<UnixTime> {
    let since = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(UnixTime::from_secs(since.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_read_as_http_writes_it() {
        assert_eq!(http_date("Tue, 14 Nov 2023 22:13:20 GMT"), Some(UnixTime::from_secs(1_700_000_000)));
        for wrong in ["", "2023-11-14T22:13:20Z", "Thu, 01 Jan 1960 00:00:00 GMT"] {
            assert_eq!(http_date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_refused_code_is_told_from_a_refused_client() {
        let refused = |status, error: &str| ExchangeError::Refused { status, error: error.to_owned() };
        let client = |error: &str| MadeUpCode::ClientRefused(error.to_owned());
        let rows = [
            ("the code", refused(400, "invalid_grant"), MadeUpCode::CodeRefused),
            ("the code, with an odd status", refused(401, "invalid_grant"), MadeUpCode::CodeRefused),
            ("the client", refused(401, "invalid_client"), client("invalid_client")),
            ("the client, with 400", refused(400, "invalid_client"), client("invalid_client")),
            ("what the client may", refused(400, "unauthorized_client"), client("unauthorized_client")),
            ("a status alone", refused(401, "unknown"), client("unknown")),
        ];
        for (name, error, expected) in rows {
            assert_eq!(judge(error).unwrap(), expected, "{name}");
        }
        for unclear in [refused(400, "invalid_request"), ExchangeError::Malformed("not application/json")] {
            assert!(matches!(judge(unclear.clone()).unwrap(), MadeUpCode::Unclear(_)), "{unclear:?}");
        }
        assert!(judge(ExchangeError::Unavailable { status: 503 }).is_err(), "an outage is no verdict");
    }
}
