//! The provider over HTTP: limits, discovery with back-off, the key set cache.
//!
//! What is asked and what is accepted is decided in [`crate::oidc`]; this module sends, waits, caches and
//! counts. Requests run on the gateway's own runtime, whoever awaits them. What cannot be had is
//! [`Unavailable`], never an empty answer.

mod breaker;
pub mod credentials;
mod discovery;
pub mod examine;
pub mod flight;
pub mod jwks;
#[cfg(test)]
mod loopback;
pub mod refresh;
pub mod transport;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;
use url::Url;

use crate::clock::{Clock, UnixTime};
use crate::oidc::authorize::LoginAttempt;
use crate::oidc::client_auth::{self, Assertion, ClientAuth, Signer};
use crate::oidc::exchange::{self, CodeExchange, ExchangeError, TokenResponse};
use crate::oidc::id_token::{self, Expected};
use crate::oidc::logout_token::{self, LogoutToken};
use crate::oidc::metadata::Metadata;
use crate::oidc::pushed::{self, Push, PushError};
use crate::oidc::revocation::{self, Revocation};
use crate::oidc::userinfo::{self, Answer, PROTECTED, UserinfoError};
use crate::oidc::{ClientId, Issuer, ProviderId, TokenError, Trust};
use crate::random::random_token;
use crate::secret::Secret;
use crate::telemetry::Events;
use crate::token::{Algorithm, Claims, KeySet, jwk};
use crate::web::media_type;
use breaker::Breaker;
use credentials::{AssertionAudience, ClientSettings, Credential, Credentials};
use discovery::Discovery;
use flight::Flight;
use jwks::{KeyCache, Origin};
use transport::reach::Reach;
use transport::{Options, Transport, TransportError};

/// The most bytes of an answer, after decompression; key sets have a smaller bound.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// The most bytes of a key set.
const MAX_KEY_SET_BYTES: usize = jwk::MAX_BYTES;

/// A `[[provider]]`, checked.
#[derive(Clone, Debug)]
pub struct ProviderSettings {
    /// Its name: in paths and logs.
    pub id: ProviderId,
    /// What people read on the sign-in page.
    pub display_name: Arc<str>,
    /// The issuer, byte for byte as the provider says it.
    pub issuer: Issuer,
    /// The client.
    pub client_id: ClientId,
    /// How it shows who it is.
    pub client: ClientSettings,
    /// Scopes, `openid` among them.
    pub scopes: Vec<Arc<str>>,
    /// Whether authorization requests are pushed also where the provider does not demand it (RFC 9126).
    pub pushed_authorization_requests: bool,
    /// Extra authorization parameters.
    pub authorization_params: Vec<(Arc<str>, Arc<str>)>,
    /// Domains of e-mail addresses whose people sign in here, as [`crate::web::email::parse_domain`] has
    /// them. Who has any is found by address and has no button.
    pub email_domains: Vec<Arc<str>>,
    /// Whether its answer comes as a form that the browser posts (OAuth 2.0 Form Post Response Mode);
    /// else in the query.
    pub form_post: bool,
    /// Pinned algorithms; RS256 by default.
    pub id_token_algorithms: Vec<Algorithm>,
    /// Audiences that may stand beside the client in a token; none by default (ID-7).
    pub trusted_audiences: Vec<Arc<str>>,
    /// Whether userinfo is asked at sign-in.
    pub userinfo: bool,
    /// The algorithm that the client registered for userinfo: then only answers signed with it count. `None`:
    /// plain answers do, and signed ones with an algorithm for ID tokens (UI-2).
    pub userinfo_signed_response_alg: Option<Algorithm>,
    /// Clock skew tolerated, at most 60 s.
    pub leeway: Duration,
    /// How long after a refresh whose answer was lost the refresh token may be sent once more: what the
    /// provider grants against reuse detection; default 0, never.
    pub refresh_reuse_grace: Duration,
    /// Whether logout tokens need `exp` and `typ: logout+jwt`.
    pub strict_logout_tokens: bool,
    /// Whether a page of the provider's that names a session ends it, without a cookie.
    pub frontchannel_logout: bool,
    /// CA certificates (PEM) that vouch for the provider, besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether it may be called at internal addresses also where its issuer is not at one.
    pub danger_internal_addresses: bool,
    /// The whole of one call to the provider; default 10 s.
    pub timeout: Duration,
    /// Path of its callback below the endpoint prefix: `callback` for the first provider of the
    /// configuration, `callback/ID` for the others (AR-7).
    pub callback_path: Arc<str>,
}

impl ProviderSettings {
    /// What every token of the provider has to match.
    #[must_use]
    pub fn trust(&self) -> Trust<'_> {
        Trust {
            issuer: &self.issuer,
            client_id: &self.client_id,
            trusted_audiences: &self.trusted_audiences,
            algorithms: &self.id_token_algorithms,
            leeway: self.leeway,
        }
    }
}

/// The provider can't be asked now.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the provider is unavailable: {reason}")]
pub struct Unavailable {
    /// What happened, without URLs' queries, tokens or bodies.
    pub reason: String,
}

/// Why a person could not be sent to the provider.
#[derive(Debug, thiserror::Error)]
pub enum PushFailure {
    /// The provider does not answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// It refused the request, or answered nonsense.
    #[error(transparent)]
    Push(#[from] PushError),
}

/// Why a sign-in failed after its callback was accepted.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// The provider does not answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The token endpoint refused or answered nonsense.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The ID token was refused.
    #[error(transparent)]
    IdToken(#[from] TokenError),
    /// Userinfo was refused.
    #[error(transparent)]
    Userinfo(#[from] UserinfoError),
}

/// Why a logout token was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LogoutError {
    /// The provider's keys can't be had.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The token was refused.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// What a completed sign-in brought.
#[derive(Debug)]
pub struct SignedIn {
    /// The tokens.
    pub tokens: TokenResponse,
    /// Claims of the ID token and, where it is asked, of userinfo.
    pub claims: Claims,
    /// When the access token ends.
    pub access_expires_at: Option<UnixTime>,
}

/// A provider: settings, what discovery said, keys. Shared by all requests.
#[derive(Debug)]
pub struct Provider {
    inner: Arc<Inner>,
}

/// What tasks on the runtime share with the provider.
#[derive(Debug)]
struct Inner {
    settings: ProviderSettings,
    transport: Transport,
    credentials: Arc<Credentials>,
    runtime: Handle,
    clock: Clock,
    events: Events,
    discovery: Discovery,
    keys: KeyCache,
    key_flight: Flight<Result<(), Unavailable>>,
    breaker: Breaker,
}

/// A provider that can't be set up at all (a CA file that can't be read, for example).
#[derive(Debug, thiserror::Error)]
#[error("provider {id}: {reason}")]
pub struct SetupError {
    /// Which.
    pub id: ProviderId,
    /// Why.
    pub reason: String,
}

impl Provider {
    /// Sets a provider up; nothing is fetched yet. HTTP runs on `runtime`.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(
        settings: ProviderSettings,
        runtime: Handle,
        clock: Clock,
        events: Events,
    ) -> Result<Arc<Self>, SetupError> {
        let setup_error = |reason| SetupError { id: settings.id.clone(), reason };
        let discovery = Discovery::new(&settings.issuer).map_err(|error| setup_error(error.to_string()))?;
        let transport = Transport::new(&transport_options(&settings), runtime.clone())
            .map_err(|error| setup_error(error.to_string()))?;
        let keys = KeyCache::new(clock.now());
        let (key_flight, breaker) = (Flight::default(), Breaker::default());
        let credentials =
            Credentials::new(&settings.id, &settings.client, &transport).map_err(setup_error)?;
        let credentials = Arc::new(credentials);
        let inner = Inner {
            settings,
            transport,
            credentials,
            runtime,
            clock,
            events,
            discovery,
            keys,
            key_flight,
            breaker,
        };
        Ok(Arc::new(Self { inner: Arc::new(inner) }))
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &ProviderSettings {
        &self.inner.settings
    }

    /// Starts discovery on the runtime: at once, again with back-off (1 s doubling to 60 s, with
    /// jitter) until it succeeds, then every hour. A failed refresh keeps the last good metadata. It ends
    /// with the provider.
    pub fn start_discovery(self: &Arc<Self>) {
        let provider = Arc::downgrade(&self.inner);
        self.inner.runtime.spawn(discovery::keep_up(provider));
    }

    /// The metadata, if discovery has succeeded once. When it has not, one attempt is made now
    /// (single flight, bounded by the timeout) so that a provider that is just back works at once.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn metadata(&self) -> Result<Arc<Metadata>, Unavailable> {
        match self.inner.discovery.metadata() {
            Some(metadata) => Ok(metadata),
            None => self.inner.discover().await,
        }
    }

    /// Whether the last discovery succeeded (for `/readyz`'s body and the metrics).
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.inner.discovery.is_up()
    }

    /// Where the browser is sent: to `url`, which has the whole authorization request; where requests are
    /// pushed, with a reference to it instead (AR-11). Each sign-in pushes its own.
    ///
    /// # Errors
    /// [`PushFailure`].
    pub async fn authorization_url(&self, metadata: &Metadata, url: Url) -> Result<Url, PushFailure> {
        if metadata.requires_pushed_requests || self.inner.settings.pushed_authorization_requests {
            self.inner.push(metadata, &url).await
        } else {
            Ok(url)
        }
    }

    /// Exchanges the code (once: TE-3), verifies the ID token (an unknown key
    /// refetches the key set once), asks userinfo if set, and merges the claims.
    ///
    /// # Errors
    /// [`SignInError`].
    pub async fn complete(
        &self,
        attempt: &LoginAttempt,
        code: &Secret<String>,
    ) -> Result<SignedIn, SignInError> {
        let metadata = self.metadata().await?;
        let tokens = self.inner.exchange(&metadata, attempt, code).await?;
        let mut claims = self.inner.verify(attempt, code, &tokens).await?;
        if let Some(more) = self.inner.userinfo(&metadata, &tokens.access_token, &claims).await? {
            claims.absorb(more, PROTECTED);
        }
        let now = self.inner.clock.now();
        let access_expires_at = tokens.expires_in.map(|life| now + life);
        Ok(SignedIn { tokens, claims, access_expires_at })
    }

    /// Takes a token back at the provider, behind the caller's back: whatever comes of it, the sign-out
    /// here is done (RL-1, RL-2). Nothing happens where the provider has no revocation endpoint.
    pub fn revoke(&self, token: Secret<String>, kind: revocation::Kind) {
        let inner = Arc::clone(&self.inner);
        self.inner.runtime.spawn(async move { inner.revoke(&token, kind).await });
    }

    /// The public halves of the client's keys, as they are on disk now; none where it has no keys.
    pub async fn public_keys(&self) -> Vec<serde_json::Value> {
        if self.inner.settings.client.keys.is_empty() {
            return Vec::new();
        }
        self.inner.credentials.renew(&self.inner.runtime).await;
        self.inner.credentials.public_keys()
    }

    /// Verifies a logout token that came from outside: an unknown key refetches the key set, at most
    /// once a minute.
    ///
    /// # Errors
    /// [`LogoutError`].
    pub async fn verify_logout_token(&self, raw: &Secret<String>) -> Result<LogoutToken, LogoutError> {
        let (inner, settings) = (&self.inner, &self.inner.settings);
        let expected =
            logout_token::Expected { trust: settings.trust(), strict: settings.strict_logout_tokens };
        let verify = |keys: &KeySet| logout_token::verify(raw, keys, &expected, inner.clock.now());
        Ok(inner.with_newest_keys(Origin::Outside, verify).await??)
    }
}

impl Inner {
    async fn exchange(
        &self,
        metadata: &Metadata,
        attempt: &LoginAttempt,
        code: &Secret<String>,
    ) -> Result<TokenResponse, SignInError> {
        let request = |auth: &ClientAuth| {
            exchange::request(&CodeExchange {
                token_endpoint: &metadata.token_endpoint,
                client_id: &self.settings.client_id,
                auth,
                code,
                verifier: &attempt.verifier,
                redirect_uri: &attempt.redirect_uri,
            })
        };
        let answer = self.call_as_client("token", metadata, request).await?;
        Ok(exchange::response(&answer)?)
    }

    async fn push(&self, metadata: &Metadata, url: &Url) -> Result<Url, PushFailure> {
        let Some(endpoint) = &metadata.pushed_request_endpoint else {
            return Err(Unavailable { reason: "the provider takes no pushed requests".to_owned() }.into());
        };
        let client_id = &self.settings.client_id;
        let request = |auth: &ClientAuth| pushed::request(&Push { endpoint, metadata, client_id, auth, url });
        let answer = self.call_as_client("pushed_request", metadata, request).await?;
        Ok(pushed::authorization_url(metadata, client_id, &pushed::response(&answer)?))
    }

    async fn verify(
        self: &Arc<Self>,
        attempt: &LoginAttempt,
        code: &Secret<String>,
        tokens: &TokenResponse,
    ) -> Result<Claims, SignInError> {
        let expected = Expected {
            trust: self.settings.trust(),
            nonce: &attempt.nonce,
            access_token: &tokens.access_token,
            code,
        };
        let verify = |keys: &KeySet| id_token::verify(&tokens.id_token, keys, &expected, self.clock.now());
        Ok(self.with_newest_keys(Origin::TokenEndpoint, verify).await??)
    }

    /// ID-4: a token whose key is unknown fetches the key set once, and is then verified once more.
    async fn with_newest_keys<T>(
        self: &Arc<Self>,
        origin: Origin,
        verify: impl Fn(&KeySet) -> Result<T, TokenError>,
    ) -> Result<Result<T, TokenError>, Unavailable> {
        let verdict = verify(&self.keys.current());
        let Err(TokenError::UnknownKey { kid }) = &verdict else { return Ok(verdict) };
        let fetched = self.fetch_newer_keys(origin, kid.as_deref()).await?;
        let verdict = verify(&self.keys.current());
        if let Err(TokenError::UnknownKey { kid }) = &verdict
            && fetched
        {
            self.keys.refuse(origin, kid.as_deref(), self.clock.now());
        }
        Ok(verdict)
    }

    /// Fetches the key set if it may be fetched now for an unknown key, and says whether it was. Whoever
    /// comes while a fetch is under way waits for that one.
    async fn fetch_newer_keys(
        self: &Arc<Self>,
        origin: Origin,
        kid: Option<&str>,
    ) -> Result<bool, Unavailable> {
        let begin = || {
            let inner = Arc::clone(self);
            let may_fetch = self.keys.may_fetch(origin, kid, self.clock.now());
            may_fetch.then_some(async move { inner.refetch_keys().await })
        };
        let fetched = self.key_flight.join(&self.runtime, begin).await;
        Ok(fetched.transpose()?.is_some())
    }

    async fn refetch_keys(self: Arc<Self>) -> Result<(), Unavailable> {
        let Some(metadata) = self.discovery.metadata() else { return Ok(()) };
        let keys = self.fetch_keys(&metadata).await?;
        self.keys.replace(keys);
        Ok(())
    }

    async fn fetch_keys(&self, metadata: &Metadata) -> Result<KeySet, Unavailable> {
        let answer = self.call("jwks", get(&metadata.jwks_uri), MAX_KEY_SET_BYTES).await?;
        let body = successful("jwks", &answer)?;
        KeySet::parse(body).map_err(|error| Unavailable { reason: error.to_string() })
    }

    async fn revoke(&self, token: &Secret<String>, kind: revocation::Kind) {
        let Some(metadata) = self.discovery.metadata() else { return };
        let Some(endpoint) = &metadata.revocation_endpoint else { return };
        let request = |auth: &ClientAuth| {
            let client_id = &self.settings.client_id;
            revocation::request(&Revocation { endpoint, client_id, auth, token, kind })
        };
        if let Err(error) = self.call_as_client("revocation", &metadata, request).await {
            let provider = &*self.settings.id.0;
            tracing::warn!(event = "revocation_failed", provider, %error, "a token was not taken back");
        }
    }

    /// UI-1: the answer counts only if it is about the subject of the ID token.
    async fn userinfo(
        self: &Arc<Self>,
        metadata: &Metadata,
        access_token: &Secret<String>,
        claims: &Claims,
    ) -> Result<Option<Claims>, SignInError> {
        let Some(endpoint) = metadata.userinfo_endpoint.as_ref().filter(|_| self.settings.userinfo) else {
            return Ok(None);
        };
        let request = userinfo::request(endpoint, access_token);
        let answer = self.call_for_somebody("userinfo", request).await;
        let answer = match answer {
            Err(TransportError::TooLarge(_)) => Err(UserinfoError::Malformed("it is too large"))?,
            answer => answer.map_err(|error| unavailable("userinfo", &error))?,
        };
        let subject = claims.string("sub").ok().flatten().unwrap_or_default();
        let told = match userinfo::response(&answer, self.settings.userinfo_signed_response_alg.is_some())? {
            Answer::Plain(claims) => claims,
            Answer::Signed(token) => self.verify_userinfo(&token).await?,
        };
        Ok(Some(userinfo::about(subject, told)?))
    }

    /// UI-2: with the provider's keys, and with the algorithm that was agreed on.
    async fn verify_userinfo(self: &Arc<Self>, token: &Secret<String>) -> Result<Claims, SignInError> {
        let settings = &self.settings;
        let agreed = settings.userinfo_signed_response_alg.as_ref().map(std::slice::from_ref);
        let trust = Trust { algorithms: agreed.unwrap_or(&settings.id_token_algorithms), ..settings.trust() };
        let verify = |keys: &KeySet| userinfo::verify(token, keys, &trust, self.clock.now());
        let verdict = self.with_newest_keys(Origin::TokenEndpoint, verify).await?;
        Ok(verdict.map_err(UserinfoError::from)?)
    }

    /// A call at which the client shows who it is, with what is on disk now.
    ///
    /// TE-3: what is sent is sent once, with one exception: where two secrets overlap and the provider
    /// answered exactly `invalid_client`, it is sent again with the other one. A provider authenticates the
    /// client before it looks at a code (RFC 6749 3.2.1, 4.1.3), so that the code is not used up by then; and
    /// where one counts it as used, the second answer is a refusal like the first.
    async fn call_as_client(
        &self,
        call: &'static str,
        metadata: &Metadata,
        request: impl Fn(&ClientAuth) -> Result<http::Request<Vec<u8>>, http::Error>,
    ) -> Result<http::Response<Bytes>, Unavailable> {
        let answer = self.try_call_as_client(call, metadata, request).await;
        answer.map_err(|error| unavailable(call, &error))
    }

    /// As [`Inner::call_as_client`], with all that is known of a failure.
    async fn try_call_as_client(
        &self,
        call: &'static str,
        metadata: &Metadata,
        request: impl Fn(&ClientAuth) -> Result<http::Request<Vec<u8>>, http::Error>,
    ) -> Result<http::Response<Bytes>, TransportError> {
        self.credentials.renew(&self.runtime).await;
        let candidates = self.credentials.candidates(&metadata.token_endpoint_auth_methods);
        let unsent = TransportError::Unreachable;
        let mut answer = Err(unsent("the client has nothing to show".to_owned()));
        for (index, credential) in candidates {
            let auth = self.client_auth(&credential, metadata).map_err(|error| unsent(error.reason))?;
            let found = self.call_for_somebody(call, request(&auth)).await?;
            if !client_auth::is_client_refused(&found) {
                self.credentials.worked(index);
                return Ok(found);
            }
            answer = Ok(found);
        }
        answer
    }

    /// What one request shows; an assertion is made anew for each (TE-2).
    fn client_auth(&self, credential: &Credential, metadata: &Metadata) -> Result<ClientAuth, Unavailable> {
        let signer = match credential {
            Credential::Plain(auth) => return Ok(auth.clone()),
            Credential::Secret(secret) => Signer::Secret(secret),
            Credential::Key(key) => Signer::Key(key),
        };
        let failed = |reason: String| Unavailable { reason: format!("no client assertion: {reason}") };
        let audience = match self.settings.client.audience {
            AssertionAudience::Issuer => &*self.settings.issuer.0,
            AssertionAudience::TokenEndpoint => metadata.token_endpoint.as_str(),
        };
        let assertion = Assertion {
            client_id: &self.settings.client_id,
            audience,
            jti: random_token::<16>().map_err(|error| failed(error.to_string()))?,
            now: self.clock.now(),
        };
        let token = assertion.sign(signer).map_err(|error| failed(error.to_string()))?;
        Ok(ClientAuth::Assertion(token))
    }

    /// One call to the provider, counted under `call`.
    async fn call(
        &self,
        call: &'static str,
        request: Result<http::Request<Vec<u8>>, http::Error>,
        max_bytes: usize,
    ) -> Result<http::Response<Bytes>, Unavailable> {
        let answer = self.call_over(&self.transport, call, request, max_bytes).await;
        answer.map_err(|error| unavailable(call, &error))
    }

    /// One call that somebody waits for: not made where the provider has not answered for a while (TE-1).
    ///
    /// It shows the client's certificate, where there is one: a token that is bound to it is taken with it
    /// alone (RFC 8705 3).
    async fn call_for_somebody(
        &self,
        call: &'static str,
        request: Result<http::Request<Vec<u8>>, http::Error>,
    ) -> Result<http::Response<Bytes>, TransportError> {
        if !self.breaker.may_ask(self.clock.now()) {
            return Err(TransportError::Unreachable(
                "not asked, after many calls without an answer".to_owned(),
            ));
        }
        let transport = self.credentials.transport();
        let answer = self.call_over(&transport, call, request, MAX_ANSWER_BYTES).await;
        if matches!(answer, Ok(_) | Err(TransportError::TooLarge(_))) {
            self.breaker.answered();
        } else if self.breaker.failed(self.clock.now()) {
            self.events.provider_circuit_opened(&self.settings.id.0, call);
        }
        answer
    }

    /// As [`Inner::call`], over another transport, with all that is known of a failure.
    async fn call_over(
        &self,
        transport: &Transport,
        call: &'static str,
        request: Result<http::Request<Vec<u8>>, http::Error>,
        max_bytes: usize,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let request = request.or(Err(TransportError::Unreachable("no request can be made".to_owned())))?;
        let started = Instant::now();
        let answer = transport.send(request, max_bytes).await;
        let ok = answer.as_ref().is_ok_and(|answer| answer.status().is_success());
        self.events.provider_called(&self.settings.id.0, call, ok, started.elapsed());
        answer
    }
}

fn unavailable(call: &str, error: &TransportError) -> Unavailable {
    Unavailable { reason: format!("{call}: {error}") }
}

fn transport_options(settings: &ProviderSettings) -> Options {
    Options {
        ca_file: settings.ca_file.clone(),
        timeout: settings.timeout,
        plain_http: settings.issuer.0.starts_with("http://"),
        reach: Reach::new(&settings.issuer.0, settings.danger_internal_addresses),
    }
}

fn get(url: &Url) -> Result<http::Request<Vec<u8>>, http::Error> {
    http::Request::get(url.as_str()).header(http::header::ACCEPT, "application/json").body(Vec::new())
}

/// TE-1: status 200 and a JSON media type.
fn successful<'a>(call: &str, answer: &'a http::Response<Bytes>) -> Result<&'a [u8], Unavailable> {
    let refused = |what| Err(Unavailable { reason: format!("{call}: the provider answered {what}") });
    if answer.status() != http::StatusCode::OK {
        return refused(answer.status().as_u16().to_string());
    }
    match media_type(answer.headers()).as_deref() {
        Some("application/json" | "application/jwk-set+json") => Ok(answer.body()),
        Some(_) | None => refused("something else than JSON".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use axum::http::StatusCode;
    use serde_json::json;

    use super::credentials::{ClientAuthMethod, Held};
    use super::loopback::{Op, reply};
    use super::*;
    use crate::telemetry::logging::{Format, Level, captured};
    use crate::token::sign::SigningKey;
    use crate::web::return_to::ReturnTo;

    const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);

    /// A provider on loopback, the gateway's view of it, and the clock of both.
    struct Bench {
        op: Op,
        clock: Clock,
        provider: Arc<Provider>,
    }

    impl Bench {
        async fn new() -> Self {
            Self::with(|_| ()).await
        }

        async fn with(change: impl FnOnce(&mut ProviderSettings)) -> Self {
            let op = Op::start(NOW).await;
            let mut settings = settings(&op);
            change(&mut settings);
            let clock = Clock::manual(NOW);
            let provider =
                Provider::new(settings, Handle::current(), clock.clone(), Events::quiet()).unwrap();
            Self { op, clock, provider }
        }

        async fn sign_in(&self) -> Result<SignedIn, SignInError> {
            let code = Secret::new("code-1".to_owned());
            self.provider.complete(&attempt(&self.op), &code).await
        }
    }

    fn settings(op: &Op) -> ProviderSettings {
        ProviderSettings {
            id: ProviderId("main".into()),
            display_name: "Main".into(),
            issuer: Issuer(op.issuer().into()),
            client_id: ClientId("client".into()),
            client: by_secret("secret"),
            scopes: vec!["openid".into()],
            pushed_authorization_requests: false,
            authorization_params: Vec::new(),
            email_domains: Vec::new(),
            form_post: false,
            id_token_algorithms: vec![Algorithm::ES256],
            trusted_audiences: Vec::new(),
            userinfo: true,
            userinfo_signed_response_alg: None,
            leeway: Duration::from_secs(10),
            strict_logout_tokens: false,
            frontchannel_logout: false,
            refresh_reuse_grace: Duration::ZERO,
            ca_file: None,
            danger_internal_addresses: false,
            timeout: Duration::from_secs(10),
            callback_path: "callback".into(),
        }
    }

    fn by_secret(secret: &str) -> ClientSettings {
        let secret = Secret::new(secret.to_owned());
        let secrets = vec![Held { value: secret.clone(), text: secret, file: None }];
        ClientSettings { secrets, ..ClientSettings::default() }
    }

    fn by_key() -> ClientSettings {
        let value = SigningKey::generate(Algorithm::ES256, Some("client-key")).unwrap();
        let keys = vec![Held { value, text: Secret::new(String::new()), file: None }];
        ClientSettings { keys, ..ClientSettings::default() }
    }

    fn attempt(op: &Op) -> LoginAttempt {
        LoginAttempt {
            provider: ProviderId("main".into()),
            issuer: Issuer(op.issuer().into()),
            client_id: ClientId("client".into()),
            state: Secret::new("s1".to_owned()),
            nonce: Secret::new("n1".to_owned()),
            verifier: Secret::new("v1".to_owned()),
            redirect_uri: "https://app.test/oauth2/callback".to_owned(),
            return_to: ReturnTo::root(),
            started_at: NOW,
            step_up: crate::oidc::step_up::StepUp::default(),
            again: false,
            replaces: None,
        }
    }

    fn is_unknown_key(verdict: &Result<SignedIn, SignInError>) -> bool {
        matches!(verdict, Err(SignInError::IdToken(TokenError::UnknownKey { .. })))
    }

    #[tokio::test]
    async fn a_sign_in_brings_tokens_and_merged_claims() {
        let bench = Bench::new().await;
        let signed_in = bench.sign_in().await.unwrap();
        let claims = &signed_in.claims;
        assert_eq!(claims.string("sub"), Ok(Some("alice")));
        assert_eq!(claims.string("email"), Ok(Some("alice@op.test")), "from userinfo");
        assert_eq!(claims.string("iss"), Ok(Some(bench.op.issuer().as_str())), "UI-3");
        assert_eq!(signed_in.access_expires_at, Some(NOW + Duration::from_mins(5)));
        assert_eq!(bench.op.hits(), ["discovery", "jwks", "token", "userinfo"]);
        assert!(bench.provider.is_up());
    }

    #[tokio::test]
    async fn userinfo_is_not_asked_where_it_is_off() {
        let bench = Bench::with(|settings| settings.userinfo = false).await;
        let signed_in = bench.sign_in().await.unwrap();
        assert!(!signed_in.claims.has("email"));
        assert_eq!(bench.op.count("userinfo"), 0);
    }

    #[tokio::test]
    async fn userinfo_about_somebody_else_ends_the_sign_in() {
        let bench = Bench::new().await;
        bench.op.answer("userinfo", reply(StatusCode::OK, &json!({"sub": "aliceinvalid"})));
        let verdict = bench.sign_in().await;
        let mismatch = Err(SignInError::Userinfo(UserinfoError::SubjectMismatch));
        assert_eq!(
            format!("{verdict:?}"),
            format!("{mismatch:?}", mismatch = mismatch as Result<SignedIn, _>)
        );
    }

    #[tokio::test]
    async fn a_rotation_just_before_signing_costs_one_fetch() {
        let bench = Bench::new().await;
        bench.sign_in().await.unwrap();
        bench.op.rotate("k2");
        bench.sign_in().await.unwrap();
        assert_eq!(bench.op.count("jwks"), 2, "TK-109");
        bench.op.rotate("k3");
        bench.sign_in().await.unwrap();
        assert_eq!(bench.op.count("jwks"), 3, "a second rotation at once");
    }

    #[tokio::test]
    async fn sign_ins_that_meet_one_rotation_share_its_fetch() {
        let bench = Bench::new().await;
        bench.provider.metadata().await.unwrap();
        bench.op.rotate("k2");
        let verdicts = futures::future::join_all((0..20).map(|_| bench.sign_in())).await;
        for verdict in verdicts {
            verdict.unwrap();
        }
        let fetched = bench.op.count("jwks");
        assert!((2..=4).contains(&fetched), "the first set, and at most what the bucket holds: {fetched}");
    }

    #[tokio::test]
    async fn a_key_that_is_never_published_is_not_fetched_for_twice_in_a_minute() {
        let bench = Bench::new().await;
        bench.sign_in().await.unwrap();
        bench.op.sign_with_unpublished_key();
        for _ in 0..5 {
            assert!(is_unknown_key(&bench.sign_in().await));
        }
        assert_eq!(bench.op.count("jwks"), 2, "the first set, and one fetch for the unknown key");
        assert_eq!(bench.op.count("token"), 6, "TE-3: one token request for each attempt");
        bench.clock.advance(Duration::from_mins(1));
        assert!(is_unknown_key(&bench.sign_in().await));
        assert_eq!(bench.op.count("jwks"), 3);
    }

    #[tokio::test]
    async fn a_fetch_that_was_not_allowed_refuses_no_key() {
        let bench = Bench::new().await;
        bench.provider.metadata().await.unwrap();
        while bench.provider.inner.keys.may_fetch(Origin::TokenEndpoint, None, NOW) {}
        bench.op.rotate("k2");
        assert!(is_unknown_key(&bench.sign_in().await));
        bench.clock.advance(Duration::from_secs(20));
        bench.sign_in().await.unwrap();
    }

    #[tokio::test]
    async fn a_key_set_that_can_not_be_fetched_leaves_the_last_good_one() {
        let bench = Bench::new().await;
        bench.sign_in().await.unwrap();
        let rows = [
            ("outage", reply(StatusCode::SERVICE_UNAVAILABLE, &json!({}))),
            ("no key set", reply(StatusCode::OK, &json!([]))),
            ("redirect", reply(StatusCode::FOUND, &json!({}))),
        ];
        for (name, answer) in rows {
            bench.op.answer("jwks", answer);
            bench.op.sign_with_unpublished_key();
            let verdict = bench.sign_in().await;
            assert!(matches!(verdict, Err(SignInError::Unavailable(_))), "{name}: {verdict:?}");
            bench.op.sign_with_published_key();
            assert!(bench.sign_in().await.is_ok(), "{name}");
        }
    }

    #[tokio::test]
    async fn a_bad_signature_fetches_nothing() {
        let bench = Bench::new().await;
        bench.op.change_claims(|claims| claims["nonce"] = json!("n11"));
        let verdict = bench.sign_in().await;
        assert!(matches!(verdict, Err(SignInError::IdToken(TokenError::Rejected(_)))), "{verdict:?}");
        bench.op.forge_signature();
        let verdict = bench.sign_in().await;
        assert!(matches!(verdict, Err(SignInError::IdToken(TokenError::Rejected(_)))), "{verdict:?}");
        assert_eq!((bench.op.count("jwks"), bench.op.count("userinfo")), (1, 0));
    }

    #[tokio::test]
    async fn the_code_is_sent_once_whatever_comes_of_it() {
        let refused = ExchangeError::Refused { status: 400, error: "invalid_grant".to_owned() };
        let rows = [
            (StatusCode::INTERNAL_SERVER_ERROR, json!({}), ExchangeError::Unavailable { status: 500 }),
            (StatusCode::BAD_REQUEST, json!({"error": "invalid_grant"}), refused),
            (StatusCode::FOUND, json!({}), ExchangeError::Malformed("an unexpected status")),
        ];
        for (status, body, wanted) in rows {
            let bench = Bench::new().await;
            bench.op.answer("token", reply(status, &body));
            let SignInError::Exchange(error) = bench.sign_in().await.unwrap_err() else { panic!("{status}") };
            assert_eq!(error, wanted, "{status}");
            assert_eq!(bench.op.count("token"), 1, "TE-3 {status}");
        }
    }

    #[tokio::test]
    async fn a_token_endpoint_that_hangs_is_unavailable_and_asked_once() {
        let bench = Bench::with(|settings| settings.timeout = Duration::from_secs(2)).await;
        bench.provider.metadata().await.unwrap();
        bench.op.hang("token");
        let verdict = bench.sign_in().await;
        assert!(matches!(&verdict, Err(SignInError::Unavailable(_))), "{verdict:?}");
        assert_eq!(bench.op.count("token"), 1);
    }

    #[tokio::test]
    async fn a_provider_that_does_not_answer_is_not_asked_for_a_while() {
        let bench = Bench::with(|settings| settings.timeout = Duration::from_millis(50)).await;
        bench.op.hang("token");
        for _ in 0..10 {
            assert!(bench.sign_in().await.is_err());
        }
        assert_eq!(bench.op.count("token"), 10);
        let refused = bench.sign_in().await.unwrap_err();
        assert!(refused.to_string().contains("not asked"), "{refused}");
        assert_eq!(bench.op.count("token"), 10, "nothing is sent");
        bench.clock.advance(Duration::from_secs(5));
        assert!(bench.sign_in().await.is_err());
        assert_eq!(bench.op.count("token"), 11, "one goes to see");
        assert!(bench.sign_in().await.unwrap_err().to_string().contains("not asked"));
    }

    #[tokio::test]
    async fn the_client_authenticates_as_configured_or_as_listed() {
        let listed = |methods: &[&str]| Some(json!(methods));
        let both = || ClientSettings { keys: by_key().keys, ..by_secret("secret") };
        let set = |method, client| ClientSettings { method: Some(method), ..client };
        let rows = [
            ("nothing listed", None, by_secret("secret"), "basic"),
            ("basic", listed(&["client_secret_post", "client_secret_basic"]), by_secret("secret"), "basic"),
            ("post alone", listed(&["private_key_jwt", "client_secret_post"]), by_secret("secret"), "post"),
            ("a MAC alone", listed(&["client_secret_jwt"]), by_secret("secret"), "HS256"),
            ("none of ours", listed(&["private_key_jwt"]), by_secret("secret"), "basic"),
            ("a key, not listed", None, by_key(), "ES256"),
            ("both, the key listed", listed(&["client_secret_basic", "private_key_jwt"]), both(), "ES256"),
            ("both, the key not listed", listed(&["client_secret_post"]), both(), "post"),
            (
                "configured",
                listed(&["client_secret_basic"]),
                set(ClientAuthMethod::ClientSecretPost, by_secret("secret")),
                "post",
            ),
            ("a MAC configured", None, set(ClientAuthMethod::ClientSecretJwt, by_secret("secret")), "HS256"),
            ("a public client", None, ClientSettings::default(), "none"),
        ];
        for (name, methods, client, wanted) in rows {
            let bench = Bench::with(|settings| settings.client = client).await;
            if let Some(methods) = methods {
                bench
                    .op
                    .change_metadata(|document| document["token_endpoint_auth_methods_supported"] = methods);
            }
            bench.sign_in().await.unwrap();
            assert_eq!(bench.op.client_auth(), wanted, "{name}");
        }
    }

    #[tokio::test]
    async fn each_assertion_is_new_and_for_the_issuer_alone() {
        let bench = Bench::with(|settings| settings.client = by_key()).await;
        for _ in 0..2 {
            bench.sign_in().await.unwrap();
        }
        let [first, second] = &bench.op.assertions()[..] else { panic!("{:?}", bench.op.assertions()) };
        assert_eq!((&first["aud"], &first["iss"]), (&json!(bench.op.issuer()), &json!("client")));
        assert_ne!(first["jti"], second["jti"], "TE-2");
        let bench = Bench::with(|settings| {
            settings.client = ClientSettings { audience: AssertionAudience::TokenEndpoint, ..by_key() };
        })
        .await;
        bench.sign_in().await.unwrap();
        assert_eq!(bench.op.assertions()[0]["aud"], json!(format!("{}/token", bench.op.issuer())));
    }

    #[tokio::test]
    async fn a_second_secret_is_tried_after_exactly_invalid_client_and_remembered() {
        let two = || {
            let mut client = by_secret("new");
            client.secrets.extend(by_secret("old").secrets);
            client
        };
        let bench = Bench::with(|settings| settings.client = two()).await;
        bench.op.take_secret("old");
        bench.sign_in().await.unwrap();
        assert_eq!(bench.op.count("token"), 2, "the new one, then the old one");
        bench.sign_in().await.unwrap();
        assert_eq!(bench.op.count("token"), 3, "the one that worked is tried first");
        bench.op.take_secret("new");
        bench.sign_in().await.unwrap();
        assert_eq!(bench.op.count("token"), 5, "the rotation is over at the provider");
        bench.op.take_secret("another");
        let SignInError::Exchange(error) = bench.sign_in().await.unwrap_err() else { panic!() };
        assert_eq!(error, ExchangeError::Refused { status: 401, error: "invalid_client".to_owned() });
        assert_eq!(bench.op.count("token"), 7, "each once");
    }

    #[tokio::test]
    async fn a_secret_that_changes_on_disk_is_shown_from_the_next_request_on() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "one").unwrap();
        let mut client = by_secret("one");
        client.secrets[0].file = Some(file.clone());
        let bench = Bench::with(|settings| settings.client = client).await;
        bench.op.take_secret("one");
        bench.sign_in().await.unwrap();
        bench.op.take_secret("two");
        bench.sign_in().await.unwrap_err();
        std::fs::write(&file, "two\n").unwrap();
        bench.sign_in().await.unwrap();
        std::fs::remove_file(&file).unwrap();
        bench.sign_in().await.unwrap();
        assert_eq!(bench.op.count("token"), 4);
    }

    #[tokio::test]
    async fn no_other_answer_has_a_code_sent_again() {
        let rows = [
            (StatusCode::BAD_REQUEST, json!({"error": "invalid_grant"})),
            (StatusCode::UNAUTHORIZED, json!({"error": "unauthorized_client"})),
            (StatusCode::UNAUTHORIZED, json!({})),
            (StatusCode::INTERNAL_SERVER_ERROR, json!({"error": "invalid_client"})),
            (StatusCode::FORBIDDEN, json!({"error": "invalid_client"})),
        ];
        for (status, body) in rows {
            let mut client = by_secret("new");
            client.secrets.extend(by_secret("old").secrets);
            let bench = Bench::with(|settings| settings.client = client).await;
            bench.op.answer("token", reply(status, &body));
            bench.sign_in().await.unwrap_err();
            assert_eq!(bench.op.count("token"), 1, "TE-3 {status} {body}");
        }
    }

    #[tokio::test]
    async fn a_provider_that_is_back_works_at_once() {
        let bench = Bench::new().await;
        bench.op.down.store(true, Ordering::SeqCst);
        let verdict = bench.sign_in().await;
        assert!(matches!(verdict, Err(SignInError::Unavailable(_))), "{verdict:?}");
        assert!(!bench.provider.is_up());
        bench.op.down.store(false, Ordering::SeqCst);
        bench.sign_in().await.unwrap();
        assert!(bench.provider.is_up());
    }

    #[tokio::test]
    async fn all_who_wait_for_metadata_share_one_attempt() {
        let bench = Bench::new().await;
        bench.op.down.store(true, Ordering::SeqCst);
        let waiting = futures::future::join_all((0..20).map(|_| bench.provider.metadata()));
        assert!(waiting.await.iter().all(Result::is_err));
        assert_eq!(bench.op.count("discovery"), 1);
    }

    #[tokio::test]
    async fn an_outage_keeps_the_last_good_metadata() {
        let bench = Bench::new().await;
        let first = bench.provider.metadata().await.unwrap();
        bench.op.down.store(true, Ordering::SeqCst);
        bench.provider.inner.discover().await.unwrap_err();
        assert!(!bench.provider.is_up());
        assert!(Arc::ptr_eq(&first, &bench.provider.metadata().await.unwrap()));
    }

    #[tokio::test]
    async fn ax_235_a_provider_that_turns_hostile_leaves_the_last_good_keys() {
        let bench = Bench::with(|settings| settings.timeout = Duration::from_secs(5)).await;
        let first = bench.provider.metadata().await.unwrap();
        let keys = bench.provider.inner.keys.current();
        let many = vec![json!({"kty": "RSA"}); 100_000];
        let few_and_large = json!({"kty": "RSA", "n": "A".repeat(2 * MAX_KEY_SET_BYTES)});
        let rows = [
            ("discovery elsewhere", "discovery", reply(StatusCode::FOUND, &json!({})), "302"),
            ("keys elsewhere", "jwks", reply(StatusCode::FOUND, &json!({})), "302"),
            ("keys for good elsewhere", "jwks", reply(StatusCode::PERMANENT_REDIRECT, &json!({})), "308"),
            ("100,000 keys", "jwks", reply(StatusCode::OK, &json!({ "keys": many })), "larger than"),
            ("101 keys", "jwks", reply(StatusCode::OK, &json!({ "keys": many[..101] })), "101 keys"),
            (
                "keys of any size",
                "jwks",
                reply(StatusCode::OK, &json!({ "keys": [few_and_large] })),
                "larger than",
            ),
        ];
        for (name, call, answer, reason) in rows {
            bench.op.answer(call, answer);
            let error = bench.provider.inner.discover().await.unwrap_err();
            assert!(error.reason.contains(reason), "{name}: {error}");
            assert!(Arc::ptr_eq(&first, &bench.provider.metadata().await.unwrap()), "{name}");
            assert!(Arc::ptr_eq(&keys, &bench.provider.inner.keys.current()), "{name}");
            bench.op.answer_as_ever(call);
        }
        bench.op.hang("jwks");
        let error = bench.provider.inner.discover().await.unwrap_err();
        assert!(error.reason.contains("no answer within"), "a key set without end: {error}");
        assert!(bench.sign_in().await.is_ok(), "the keys that were good still are");
        assert_eq!(bench.op.count("other"), 0, "a redirect is not followed");
    }

    #[tokio::test]
    async fn ax_235_metadata_that_names_what_is_inside_is_not_followed_there() {
        let bench = Bench::new().await;
        let outside = ProviderSettings { issuer: Issuer("https://192.0.2.1".into()), ..settings(&bench.op) };
        let provider =
            Provider::new(outside, Handle::current(), bench.clock.clone(), Events::quiet()).unwrap();
        let mut metadata = (*bench.provider.metadata().await.unwrap()).clone();
        let calls = bench.op.hits().len();
        for inside in ["https://169.254.169.254/jwks", "https://127.0.0.1/jwks", "https://[::1]/jwks"] {
            metadata.jwks_uri = inside.parse().unwrap();
            let error = provider.inner.fetch_keys(&metadata).await.unwrap_err();
            assert!(error.reason.contains("an internal address"), "{inside}: {error}");
        }
        assert_eq!(bench.op.hits().len(), calls);
    }

    #[tokio::test]
    async fn metadata_that_is_refused_changes_nothing() {
        let bench = Bench::new().await;
        let first = bench.provider.metadata().await.unwrap();
        bench.op.change_metadata(|document| document["issuer"] = json!("https://evil.test"));
        let error = bench.provider.inner.discover().await.unwrap_err();
        assert!(error.reason.contains("evil.test"), "TK-138 {error}");
        assert!(Arc::ptr_eq(&first, &bench.provider.metadata().await.unwrap()));
    }

    #[test]
    fn a_key_set_that_moves_is_told() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let lines = captured(Format::Json, Level::Info, || {
            runtime.block_on(async {
                let bench = Bench::new().await;
                bench.provider.metadata().await.unwrap();
                bench.provider.inner.discover().await.unwrap();
                let moved = format!("{}/jwks?moved", bench.op.issuer());
                bench.op.change_metadata(move |document| document["jwks_uri"] = json!(moved));
                bench.provider.inner.discover().await.unwrap();
            });
        });
        let moves: Vec<&String> = lines.iter().filter(|line| line.contains("key_set_moved")).collect();
        assert_eq!(moves.len(), 1, "SF-2: {lines:?}");
        assert!(moves[0].contains("/jwks\"") && moves[0].contains("/jwks?moved\""), "{moves:?}");
    }

    #[tokio::test]
    async fn metadata_without_keys_is_not_used() {
        let bench = Bench::new().await;
        bench.op.answer("jwks", reply(StatusCode::INTERNAL_SERVER_ERROR, &json!({})));
        bench.provider.metadata().await.unwrap_err();
        assert!(!bench.provider.is_up());
    }

    #[tokio::test]
    async fn discovery_goes_on_until_the_provider_is_there() {
        let bench = Bench::new().await;
        bench.op.down.store(true, Ordering::SeqCst);
        bench.provider.start_discovery();
        bench.op.wait_for("discovery", 1).await;
        bench.op.down.store(false, Ordering::SeqCst);
        bench.op.wait_for("jwks", 1).await;
        assert!(bench.op.count("discovery") >= 2);
    }

    #[tokio::test]
    async fn discovery_ends_with_its_provider() {
        let bench = Bench::new().await;
        let gone = Arc::downgrade(&bench.provider.inner);
        drop(bench);
        tokio::time::timeout(Duration::from_secs(10), discovery::keep_up(gone)).await.unwrap();
    }

    #[tokio::test]
    async fn no_error_tells_a_code_or_a_secret() {
        let bench = Bench::with(|settings| settings.timeout = Duration::from_secs(2)).await;
        bench.provider.metadata().await.unwrap();
        bench.op.hang("token");
        let told = format!("{:?}", bench.sign_in().await.unwrap_err());
        assert!(!told.contains("code-1") && !told.contains("secret"), "{told}");
    }

    #[tokio::test]
    async fn a_ca_file_that_can_not_be_read_is_told_at_once() {
        let op = Op::start(NOW).await;
        let mut settings = settings(&op);
        settings.ca_file = Some("/nonexistent/ca.pem".into());
        let error =
            Provider::new(settings, Handle::current(), Clock::manual(NOW), Events::quiet()).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/ca.pem"), "{error}");
    }
}
