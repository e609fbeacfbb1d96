//! The authorization request: URL and what has to be remembered of it.

use std::sync::Arc;

use openidconnect::{PkceCodeChallenge, PkceCodeVerifier};
use serde::{Deserialize, Serialize};
use url::Url;

use super::metadata::Metadata;
use super::step_up::StepUp;
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
    /// What was asked of it besides a subject.
    #[serde(default, skip_serializing_if = "StepUp::is_empty")]
    pub step_up: StepUp,
    /// Whether it is the second try for a more recent authentication: there is no third.
    #[serde(default)]
    pub again: bool,
    /// What the store knows the session by that the browser had, where the callback will not show its
    /// cookie: it ends with the sign-in (CB-12).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<[u8; 32]>,
}

/// Names and values of extra parameters, in their order.
pub type Parameters = Vec<(Arc<str>, Arc<str>)>;

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
    /// What is asked besides a subject (AR-12).
    pub step_up: StepUp,
    /// Whether it is the second try for a more recent authentication.
    pub again: bool,
    /// Whether the answer shall come as a POST.
    pub form_post: bool,
    /// As in the attempt.
    pub replaces: Option<[u8; 32]>,
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
    if start.form_post {
        url.query_pairs_mut().append_pair("response_mode", "form_post");
    }
    for (name, value) in step_up_parameters(&start) {
        append_new(&mut url, name, &value);
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

/// What a route asks for. Providers that go by their own session first time understand `prompt=login`
/// (Core 3.1.2.1).
fn step_up_parameters(start: &Start<'_>) -> Vec<(&'static str, String)> {
    let again = start.again.then(|| ("prompt", "login".to_owned()));
    start.step_up.parameters().into_iter().chain(again).collect()
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
        step_up: start.step_up,
        again: start.again,
        replaces: start.replaces,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::oidc::metadata::MtlsAliases;

    // The verifier and challenge of RFC 7636, appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    fn begun(endpoint: &str, extra: &[(Arc<str>, Arc<str>)]) -> (Url, LoginAttempt) {
        begun_with(endpoint, extra, &StepUp::default())
    }

    fn begun_with(endpoint: &str, extra: &[(Arc<str>, Arc<str>)], step_up: &StepUp) -> (Url, LoginAttempt) {
        let metadata = Metadata {
            issuer: Issuer("https://op.test".into()),
            authorization_endpoint: endpoint.parse().unwrap(),
            token_endpoint: "https://op.test/token".parse().unwrap(),
            jwks_uri: "https://op.test/jwks".parse().unwrap(),
            userinfo_endpoint: None,
            end_session_endpoint: None,
            revocation_endpoint: None,
            pushed_request_endpoint: None,
            requires_pushed_requests: false,
            mtls_aliases: MtlsAliases::default(),
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
            step_up: step_up.clone(),
            again: !step_up.is_empty(),
            form_post: !step_up.is_empty(),
            replaces: None,
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
    #[test]
    fn what_a_route_asks_for_is_sent_and_kept_and_wins_over_extra_parameters() {
        let asked = StepUp { acr: vec!["phr".into()], max_age: Some(std::time::Duration::from_mins(5)) };
        let extra = [("acr_values".into(), "pwd".into()), ("prompt".into(), "none".into())];
        let (url, attempt) = begun_with("https://op.test/auth", &extra, &asked);
        for (name, wanted) in
            [("acr_values", "phr"), ("max_age", "300"), ("prompt", "login"), ("response_mode", "form_post")]
        {
            let found: Vec<_> = url.query_pairs().filter(|(key, _)| key == name).collect();
            assert_eq!(found.len(), 1, "{name}");
            assert_eq!(found[0].1, wanted, "{name}");
        }
        assert_eq!((attempt.step_up, attempt.again), (asked, true));
    }

    #[test]
    fn an_attempt_of_an_older_version_asked_for_nothing() {
        let (_, attempt) = begun("https://op.test/auth", &[]);
        let mut written = serde_json::to_value(&attempt).unwrap();
        written.as_object_mut().unwrap().remove("again");
        assert_eq!(written.get("step_up"), None);
        let read: LoginAttempt = serde_json::from_value(written).unwrap();
        assert_eq!((read.step_up, read.again), (StepUp::default(), false));
    }
}
