//! The refresh of tokens (RFC 6749 6, OpenID Connect Core 12; RF-2 to RF-4).

use std::time::Duration;

use url::Url;
use url::form_urlencoded::Serializer;

use super::ClientId;
use super::client_auth::{ClientAuth, authenticated};
use super::exchange::{self, ExchangeError};
use crate::secret::Secret;

/// What a refresh is made of.
#[derive(Clone, Debug)]
pub struct Refresh<'a> {
    /// The token endpoint.
    pub token_endpoint: &'a Url,
    /// The client.
    pub client_id: &'a ClientId,
    /// How it authenticates: as at a sign-in.
    pub auth: &'a ClientAuth,
    /// The refresh token.
    pub refresh_token: &'a Secret<String>,
}

/// What a refresh brought.
#[derive(Clone, Debug)]
pub struct FreshTokens {
    /// The new access token.
    pub access_token: Secret<String>,
    /// A new ID token, where the provider gives one (Core 12.2).
    pub id_token: Option<Secret<String>>,
    /// The refresh token to use from now on; `None`: the one that was sent is still good (RFC 6749 6).
    pub refresh_token: Option<Secret<String>>,
    /// The access token's life, if stated (TE-5).
    pub expires_in: Option<Duration>,
}

/// The request: POST, form-encoded. No scope is asked for: the token has those that it was given with.
///
/// # Errors
/// When the endpoint can't stand in a request.
pub fn request(refresh: &Refresh<'_>) -> Result<http::Request<Vec<u8>>, http::Error> {
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token")
        .append_pair("refresh_token", refresh.refresh_token.expose());
    authenticated(refresh.token_endpoint, refresh.client_id, refresh.auth, form)
}

/// Reads the answer as that of a code (TE-4), except that an ID token need not be there.
///
/// # Errors
/// [`ExchangeError`].
pub fn response(answer: &http::Response<bytes::Bytes>) -> Result<FreshTokens, ExchangeError> {
    exchange::tokens(answer)
}

/// RF-3: whether an answer says that the refresh token is good no more, by the `error` member alone.
#[must_use]
pub fn is_over(error: &ExchangeError) -> bool {
    matches!(error, ExchangeError::Refused { error, .. } if error == "invalid_grant")
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_TYPE;
    use serde_json::json;

    use super::*;

    fn answer(status: u16, body: &serde_json::Value) -> http::Response<bytes::Bytes> {
        let answer = http::Response::builder().status(status).header(CONTENT_TYPE, "application/json");
        answer.body(bytes::Bytes::from(body.to_string())).unwrap()
    }

    #[test]
    fn a_refresh_sends_the_token_as_it_is_and_asks_for_no_scope() {
        let request = request(&Refresh {
            token_endpoint: &"https://op.test/token".parse().unwrap(),
            client_id: &ClientId("wiki".into()),
            auth: &ClientAuth::None,
            refresh_token: &Secret::new("a b+c/%~!".to_owned()),
        })
        .unwrap();
        let fields: Vec<_> = url::form_urlencoded::parse(request.body()).into_owned().collect();
        let expected =
            [("grant_type", "refresh_token"), ("refresh_token", "a b+c/%~!"), ("client_id", "wiki")];
        assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn rf_166_an_answer_may_lack_all_but_the_access_token() {
        let fresh = response(&answer(200, &json!({"access_token": "at2", "token_type": "Bearer"}))).unwrap();
        assert_eq!(fresh.access_token.expose(), "at2");
        assert!(fresh.id_token.is_none() && fresh.refresh_token.is_none() && fresh.expires_in.is_none());
    }

    #[test]
    fn rf_163_only_the_error_member_says_that_a_token_is_over() {
        let rows = [
            ("the error", 400, json!({"error": "invalid_grant"}), true),
            ("the error, with an odd status", 401, json!({"error": "invalid_grant"}), true),
            (
                "in a description",
                400,
                json!({"error": "invalid_request", "error_description": "invalid_grant"}),
                false,
            ),
            ("the client", 401, json!({"error": "invalid_client"}), false),
            ("an outage", 503, json!({"error": "invalid_grant"}), false),
            ("no error at all", 400, json!({}), false),
        ];
        for (name, status, body, over) in rows {
            assert_eq!(is_over(&response(&answer(status, &body)).unwrap_err()), over, "{name}");
        }
    }
}
