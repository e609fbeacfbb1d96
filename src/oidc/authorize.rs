//! The authorization request: URL and what has to be remembered of it.

use std::sync::Arc;

use openidconnect::{PkceCodeChallenge, PkceCodeVerifier};
use serde::{Deserialize, Serialize};
use url::Url;

use super::metadata::Metadata;
use super::{ClientId, Issuer, ProviderId};
use crate::clock::UnixTime;
use crate::secret::Secret;
use crate::web::return_to::ReturnTo;

/// One trip to the provider; lives only in a sealed cookie (AR-3).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoginAttempt {
    /// Whom the person was sent to.
    pub provider: ProviderId,
    /// The issuer at that time.
    pub issuer: Issuer,
    /// The client at that time.
    pub client_id: ClientId,
    /// 128 bits or more, base64url.
    pub state: Secret<String>,
    /// 128 bits or more, base64url, at most 43 characters.
    pub nonce: Secret<String>,
    /// The PKCE verifier, 43 characters.
    pub verifier: Secret<String>,
    /// The redirect URI that was sent.
    pub redirect_uri: String,
    /// Where the person goes afterwards.
    pub return_to: ReturnTo,
    /// When it began.
    pub started_at: UnixTime,
}

/// What an authorization request is made of.
#[derive(Clone, Debug)]
pub struct Start<'a> {
    /// The provider.
    pub provider: &'a ProviderId,
    /// Its metadata.
    pub metadata: &'a Metadata,
    /// The client.
    pub client_id: &'a ClientId,
    /// The scopes, `openid` among them (AR-1).
    pub scopes: &'a [Arc<str>],
    /// Extra parameters from the configuration; the gateway's own names in it are refused by `config` (AR-6).
    pub extra: &'a [(Arc<str>, Arc<str>)],
    /// The registered redirect URI on this host (AR-5).
    pub redirect_uri: &'a Url,
    /// Where the person goes afterwards.
    pub return_to: ReturnTo,
    /// Random bytes, 16 or more each in base64url, never used before.
    pub state: String,
    /// As `state`.
    pub nonce: String,
    /// 32 random bytes in base64url: 43 characters.
    pub verifier: String,
    /// Now.
    pub now: UnixTime,
}

/// Builds the authorization URL (`response_type=code`, PKCE S256, state, nonce) and the attempt.
///
/// Core 3.1.2.1, RFC 7636 4.3; AR-1 to AR-6. Parameters that the endpoint's URL already has are kept. An
/// extra parameter with a name that the URL already has is left out, so that nothing stands there twice.
#[must_use]
pub fn begin(start: Start<'_>) -> (Url, LoginAttempt) {
    let mut url = start.metadata.authorization_endpoint.clone();
    for (name, value) in own_parameters(&start) {
        url.query_pairs_mut().append_pair(name, &value);
    }
    for (name, value) in start.extra {
        append_new(&mut url, name, value);
    }
    (url, attempt(start))
}

fn own_parameters(start: &Start<'_>) -> [(&'static str, String); 8] {
    let verifier = PkceCodeVerifier::new(start.verifier.clone());
    let challenge = PkceCodeChallenge::from_code_verifier_sha256(&verifier);
    [
        ("response_type", "code".to_owned()),
        ("client_id", start.client_id.0.to_string()),
        ("redirect_uri", start.redirect_uri.to_string()),
        ("scope", start.scopes.join(" ")),
        ("state", start.state.clone()),
        ("nonce", start.nonce.clone()),
        ("code_challenge", challenge.as_str().to_owned()),
        ("code_challenge_method", challenge.method().as_str().to_owned()),
    ]
}

fn append_new(url: &mut Url, name: &str, value: &str) {
    if url.query_pairs().all(|(present, _)| present != name) {
        url.query_pairs_mut().append_pair(name, value);
    }
}

fn attempt(start: Start<'_>) -> LoginAttempt {
    LoginAttempt {
        provider: start.provider.clone(),
        issuer: start.metadata.issuer.clone(),
        client_id: start.client_id.clone(),
        state: Secret::new(start.state),
        nonce: Secret::new(start.nonce),
        verifier: Secret::new(start.verifier),
        redirect_uri: start.redirect_uri.to_string(),
        return_to: start.return_to,
        started_at: start.now,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    // The verifier and challenge of RFC 7636, appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    fn begun(endpoint: &str, extra: &[(Arc<str>, Arc<str>)]) -> (Url, LoginAttempt) {
        let metadata = Metadata {
            issuer: Issuer("https://op.test".into()),
            authorization_endpoint: endpoint.parse().unwrap(),
            token_endpoint: "https://op.test/token".parse().unwrap(),
            jwks_uri: "https://op.test/jwks".parse().unwrap(),
            userinfo_endpoint: None,
            end_session_endpoint: None,
            revocation_endpoint: None,
            token_endpoint_auth_methods: Vec::new(),
            iss_parameter_supported: false,
        };
        begin(Start {
            provider: &ProviderId("main".into()),
            metadata: &metadata,
            client_id: &ClientId("a client&b".into()),
            scopes: &["openid".into(), "email".into()],
            extra,
            redirect_uri: &"https://app.test/oauth2/callback".parse().unwrap(),
            return_to: ReturnTo::root(),
            state: "state-1".to_owned(),
            nonce: "nonce-1".to_owned(),
            verifier: VERIFIER.to_owned(),
            now: UnixTime::from_secs(100),
        })
    }

    #[test]
    fn the_request_has_each_parameter_once() {
        let (url, _) = begun("https://op.test/auth", &[]);
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let query: BTreeMap<&str, &str> = pairs.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(pairs.len(), query.len());
        let wanted = BTreeMap::from([
            ("response_type", "code"),
            ("client_id", "a client&b"),
            ("redirect_uri", "https://app.test/oauth2/callback"),
            ("scope", "openid email"),
            ("state", "state-1"),
            ("nonce", "nonce-1"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ]);
        assert_eq!(query, wanted);
    }

    #[test]
    fn neither_the_verifier_nor_the_return_url_travels() {
        let (url, attempt) = begun("https://op.test/auth", &[]);
        assert!(!url.as_str().contains(VERIFIER));
        assert_eq!(attempt.verifier.expose(), VERIFIER);
        assert_eq!(
            (attempt.state.expose().as_str(), attempt.nonce.expose().as_str()),
            ("state-1", "nonce-1")
        );
        assert_eq!(attempt.redirect_uri, "https://app.test/oauth2/callback");
        assert_eq!(attempt.started_at, UnixTime::from_secs(100));
    }

    #[test]
    fn extra_parameters_are_added_and_never_double_ours_or_the_endpoints() {
        let extra = [
            ("prompt".into(), "login".into()),
            ("state".into(), "mine".into()),
            ("tenant".into(), "2".into()),
            ("prompt".into(), "none".into()),
        ];
        let (url, _) = begun("https://op.test/auth?tenant=1", &extra);
        let all = |name: &str| -> Vec<String> {
            url.query_pairs()
                .filter(|(found, _)| found == name)
                .map(|(_, value)| value.into_owned())
                .collect()
        };
        assert_eq!(all("prompt"), ["login"]);
        assert_eq!(all("state"), ["state-1"]);
        assert_eq!(all("tenant"), ["1"]);
    }
}
