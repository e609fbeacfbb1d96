//! The demo's OpenID provider: authorization code with PKCE, an RS256 key made at start, two people and
//! no passwords. It is strict where a real one is, so that the demo shows the real flow.

mod authorize;
mod sign_out;
mod token;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::ledger::{BrowserSession, Ledger};
use super::page::{self, Owner, ProviderHome};
use crate::clock::Clock;
use crate::secret::Secret;
use crate::token::Algorithm;
use crate::token::sign::{SignError, SigningKey};

/// The provider's own session cookie. It lives on 127.0.0.1 and the gateway's on localhost, which are
/// two hosts to a browser.
const COOKIE: &str = "demo_provider";

/// The one client: the gateway.
#[derive(Clone, Debug)]
pub(super) struct Client {
    /// Its id.
    pub(super) id: &'static str,
    /// Its secret, made at start.
    pub(super) secret: Secret<String>,
    /// Its redirect URI.
    pub(super) redirect_uri: String,
    /// Where it has people sent after sign-out.
    pub(super) post_logout_redirect_uri: String,
    /// What people know it as.
    pub(super) name: String,
}

/// The provider.
#[derive(Debug)]
pub(super) struct Provider {
    issuer: String,
    client: Client,
    key: SigningKey,
    jwk: Value,
    clock: Clock,
    ledger: Mutex<Ledger>,
}

type Shared = State<Arc<Provider>>;
type Params = HashMap<String, String>;

impl Provider {
    /// A provider with a new key; `issuer` has no trailing slash.
    pub(super) fn new(issuer: String, client: Client, clock: Clock) -> Result<Self, SignError> {
        let key = SigningKey::generate(Algorithm::RS256, Some("demo"))?;
        let jwk = key.public_jwk()?;
        Ok(Self { issuer, client, key, jwk, clock, ledger: Mutex::default() })
    }

    /// Its URLs.
    pub(super) fn router(self) -> Router {
        Router::new()
            .route("/", get(home))
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/jwks", get(jwks))
            .route("/authorize", get(authorize::ask).post(authorize::choose))
            .route("/token", post(token::exchange))
            .route("/userinfo", get(userinfo))
            .route("/end_session", get(sign_out::end_session))
            .with_state(Arc::new(self))
    }

    /// A panic under the lock loses at most one entry of a demo.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self, headers: &HeaderMap) -> Option<BrowserSession> {
        self.ledger().find_session(cookie(headers)?, self.clock.now()).cloned()
    }
}

async fn home(State(provider): Shared, headers: HeaderMap) -> Response {
    let session = provider.session(&headers);
    let content = ProviderHome { session: session.as_ref() };
    page::answer(StatusCode::OK, Owner::Provider, "An OpenID provider for the demo", &content)
}

async fn metadata(State(provider): Shared) -> Response {
    let at = |path: &str| format!("{}{path}", provider.issuer);
    json_answer(
        StatusCode::OK,
        &json!({
            "issuer": provider.issuer,
            "authorization_endpoint": at("/authorize"),
            "token_endpoint": at("/token"),
            "jwks_uri": at("/jwks"),
            "userinfo_endpoint": at("/userinfo"),
            "end_session_endpoint": at("/end_session"),
            "scopes_supported": ["openid", "profile", "email"],
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": true,
            "claims_supported": ["sub", "name", "preferred_username", "email", "email_verified", "groups"],
        }),
    )
}

async fn jwks(State(provider): Shared) -> Response {
    json_answer(StatusCode::OK, &json!({ "keys": [provider.jwk] }))
}

async fn userinfo(State(provider): Shared, headers: HeaderMap) -> Response {
    let token =
        headers.get(header::AUTHORIZATION).and_then(|field| field.to_str().ok()?.strip_prefix("Bearer "));
    let user = token.and_then(|token| provider.ledger().find_token(token, provider.clock.now()));
    let Some(user) = user else {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"")];
        return (challenge, json_answer(StatusCode::UNAUTHORIZED, &json!({ "error": "invalid_token" })))
            .into_response();
    };
    json_answer(
        StatusCode::OK,
        &json!({
            "sub": user.sub,
            "name": user.name,
            "preferred_username": user.login,
            "email": user.email,
            "email_verified": true,
            "groups": user.groups,
        }),
    )
}

/// The value of the provider's session cookie.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let fields = headers.get_all(header::COOKIE).iter().filter_map(|field| field.to_str().ok());
    let mut pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

fn see_other(location: &str) -> Response {
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (StatusCode::SEE_OTHER, headers).into_response()
}

fn json_answer(status: StatusCode, body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use sha2::{Digest as _, Sha256};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use url::{Url, form_urlencoded};

    use super::*;
    use crate::oidc::id_token::{Expected, verify};
    use crate::oidc::{ClientId, Issuer, Trust};
    use crate::token::KeySet;

    const ISSUER: &str = "http://127.0.0.1:1";
    const REDIRECT: &str = "http://localhost/cb";
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    /// A secret whose bytes differ when they are form-urlencoded.
    const SECRET: &str = "s:e+c r%et";

    /// The provider on a port of its own.
    struct Running(std::net::SocketAddr);

    struct Answer {
        status: u16,
        head: String,
        body: String,
    }

    impl Running {
        async fn start() -> Self {
            let client = Client {
                id: "gateway",
                secret: Secret::new(SECRET.to_owned()),
                redirect_uri: REDIRECT.to_owned(),
                post_logout_redirect_uri: "http://localhost/out".to_owned(),
                name: "localhost".to_owned(),
            };
            let provider = Provider::new(ISSUER.to_owned(), client, Clock::system()).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::runtime::Handle::current()
                .spawn(async move { axum::serve(listener, provider.router()).await.unwrap() });
            Self(address)
        }

        async fn send(&self, request: &str, fields: &[(&str, &str)], body: &str) -> Answer {
            let length = body.len();
            let fields: String =
                fields.iter().map(|(name, value)| [name, ": ", value, "\r\n"].concat()).collect();
            let head = format!(
                "{request} HTTP/1.1\r\nHost: op\r\nConnection: close\r\nContent-Length: {length}\r\n"
            );
            let text = [&head, &fields, "\r\n", body].concat();
            let mut stream = TcpStream::connect(self.0).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            Answer { status, head: head.to_owned(), body: body.to_owned() }
        }

        async fn get(&self, target: &str, fields: &[(&str, &str)]) -> Answer {
            self.send(&format!("GET {target}"), fields, "").await
        }

        /// Chooses somebody on the sign-in page of an authorization request.
        async fn choose(&self, query: &str, login: &str, origin: &str) -> Answer {
            let fields = [("Origin", origin), ("Content-Type", "application/x-www-form-urlencoded")];
            self.send(&format!("POST /authorize?{query}"), &fields, &format!("login={login}")).await
        }

        async fn exchange(&self, code: &str, secret: &str, changed: (&str, &str)) -> Answer {
            let basic = STANDARD.encode(format!("gateway:{}", encode(secret)));
            let authorization = format!("Basic {basic}");
            let fields = [
                ("Authorization", authorization.as_str()),
                ("Content-Type", "application/x-www-form-urlencoded"),
            ];
            let form = [
                ("grant_type", "authorization_code"),
                ("code", code),
                ("redirect_uri", REDIRECT),
                ("code_verifier", VERIFIER),
            ];
            self.send("POST /token", &fields, &pairs(&form, changed)).await
        }

        /// A code for somebody.
        async fn code(&self, login: &str) -> String {
            let answer = self.choose(&query(("", "")), login, ISSUER).await;
            answer.location_param("code").unwrap()
        }
    }

    impl Answer {
        fn field(&self, name: &str) -> Option<&str> {
            self.head.lines().find_map(|line| {
                let (found, value) = line.split_once(": ")?;
                found.eq_ignore_ascii_case(name).then_some(value)
            })
        }

        fn location_param(&self, name: &str) -> Option<String> {
            let url = Url::parse(self.field("location")?).unwrap();
            url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
        }

        fn json(&self) -> Value {
            serde_json::from_str(&self.body).unwrap()
        }
    }

    fn encode(text: &str) -> String {
        form_urlencoded::byte_serialize(text.as_bytes()).collect()
    }

    /// Form parameters, one of them changed or added; an empty value takes it away.
    fn pairs(base: &[(&str, &str)], (name, value): (&str, &str)) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(base.iter().filter(|(key, _)| *key != name));
        if !value.is_empty() {
            form.append_pair(name, value);
        }
        form.finish()
    }

    fn query(changed: (&str, &str)) -> String {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
        let base = [
            ("client_id", "gateway"),
            ("redirect_uri", REDIRECT),
            ("response_type", "code"),
            ("scope", "openid email"),
            ("state", "st&te"),
            ("nonce", "n1"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        pairs(&base, changed)
    }

    #[tokio::test]
    async fn a_sign_in_brings_an_id_token_that_the_gateways_verifier_accepts() {
        let provider = Running::start().await;
        let page = provider.get(&format!("/authorize?{}", query(("", ""))), &[]).await;
        assert_eq!(page.status, 200);
        assert!(page.body.contains("Alice Ångström") && page.body.contains("value=\"bob\""), "{}", page.body);

        let back = provider.choose(&query(("", "")), "bob", ISSUER).await;
        assert_eq!((back.status, back.location_param("state").as_deref()), (303, Some("st&te")));
        assert_eq!(back.location_param("iss").as_deref(), Some(ISSUER));

        let code = back.location_param("code").unwrap();
        let tokens = provider.exchange(&code, SECRET, ("", "")).await;
        assert_eq!(tokens.status, 200, "{}", tokens.body);
        let tokens = tokens.json();
        let token = |name: &str| Secret::new(tokens[name].as_str().unwrap().to_owned());
        let keys = KeySet::parse(provider.get("/jwks", &[]).await.body.as_bytes()).unwrap();
        let trust = Trust {
            issuer: &Issuer(ISSUER.into()),
            client_id: &ClientId("gateway".into()),
            trusted_audiences: &[],
            algorithms: &[Algorithm::RS256],
            leeway: std::time::Duration::ZERO,
        };
        let expected = Expected {
            trust,
            nonce: &Secret::new("n1".to_owned()),
            access_token: &token("access_token"),
            code: &Secret::new(code.clone()),
        };
        let claims = verify(&token("id_token"), &keys, &expected, Clock::system().now()).unwrap();
        assert_eq!(claims.string("sub"), Ok(Some("demo-1002")));

        let bearer = format!("Bearer {}", token("access_token").expose());
        let info = provider.get("/userinfo", &[("Authorization", &bearer)]).await.json();
        assert_eq!((&info["sub"], &info["groups"]), (&json!("demo-1002"), &json!(["staff", "admins"])));
        assert_eq!(provider.get("/userinfo", &[("Authorization", "Bearer x")]).await.status, 401);
    }

    #[tokio::test]
    async fn a_code_is_redeemed_once_and_by_its_owner_only() {
        let provider = Running::start().await;
        let cases = [
            ("wrong secret", "other", ("", ""), 401, "invalid_client"),
            ("wrong verifier", SECRET, ("code_verifier", "x"), 400, "invalid_grant"),
            ("no verifier", SECRET, ("code_verifier", ""), 400, "invalid_grant"),
            ("wrong redirect URI", SECRET, ("redirect_uri", "http://localhost/other"), 400, "invalid_grant"),
            ("wrong grant type", SECRET, ("grant_type", "password"), 400, "unsupported_grant_type"),
            ("wrong code", SECRET, ("code", "x"), 400, "invalid_grant"),
        ];
        for (name, secret, changed, status, error) in cases {
            let code = provider.code("alice").await;
            let answer = provider.exchange(&code, secret, changed).await;
            assert_eq!((answer.status, &answer.json()["error"]), (status, &json!(error)), "{name}");
        }
        let code = provider.code("alice").await;
        assert_eq!(provider.exchange(&code, SECRET, ("", "")).await.status, 200);
        assert_eq!(provider.exchange(&code, SECRET, ("", "")).await.json()["error"], "invalid_grant");
        let code = provider.code("alice").await;
        provider.exchange(&code, SECRET, ("code_verifier", "x")).await;
        let second = provider.exchange(&code, SECRET, ("", "")).await;
        assert_eq!(second.json()["error"], "invalid_grant", "a code that failed is spent too");
    }

    #[tokio::test]
    async fn a_wrong_authorization_request_is_refused_and_leads_nowhere_else() {
        let provider = Running::start().await;
        let cases = [
            ("another client", ("client_id", "x"), 400, None),
            ("another redirect URI", ("redirect_uri", "http://localhost/cb/"), 400, None),
            ("no redirect URI", ("redirect_uri", ""), 400, None),
            ("implicit flow", ("response_type", "id_token"), 303, Some("unsupported_response_type")),
            ("no openid", ("scope", "email"), 303, Some("invalid_scope")),
            ("no PKCE", ("code_challenge", ""), 303, Some("invalid_request")),
            ("plain PKCE", ("code_challenge_method", "plain"), 303, Some("invalid_request")),
            ("nobody signed in", ("prompt", "none"), 303, Some("login_required")),
        ];
        for (name, changed, status, error) in cases {
            let answer = provider.get(&format!("/authorize?{}", query(changed)), &[]).await;
            assert_eq!(answer.status, status, "{name}");
            assert_eq!(answer.location_param("error").as_deref(), error, "{name}");
            assert!(answer.field("location").is_none_or(|to| to.starts_with(REDIRECT)), "{name}");
        }
    }

    #[tokio::test]
    async fn a_choice_is_taken_from_the_providers_own_page_only() {
        let provider = Running::start().await;
        let cases = [
            ("own page", "alice", ISSUER, 303, None),
            ("refused", "", ISSUER, 303, Some("access_denied")),
            ("nobody we know", "root", ISSUER, 303, Some("access_denied")),
            ("another site", "alice", "https://evil.test", 400, None),
            ("no origin", "alice", "null", 400, None),
        ];
        for (name, login, origin, status, error) in cases {
            let answer = provider.choose(&query(("", "")), login, origin).await;
            assert_eq!(answer.status, status, "{name}");
            assert_eq!(answer.location_param("error").as_deref(), error, "{name}");
            let signed_in = answer.field("set-cookie").is_some();
            assert_eq!(signed_in, answer.location_param("code").is_some(), "{name}");
        }
    }

    #[tokio::test]
    async fn a_browser_stays_signed_in_until_it_signs_out() {
        let provider = Running::start().await;
        let back = provider.choose(&query(("", "")), "alice", ISSUER).await;
        let cookie = back.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        let fields = [("Cookie", cookie.as_str())];
        let ask = format!("/authorize?{}", query(("", "")));
        assert!(provider.get(&ask, &fields).await.location_param("code").is_some(), "no page a second time");
        let again = format!("/authorize?{}", query(("prompt", "login")));
        assert_eq!(provider.get(&again, &fields).await.status, 200, "unless it is asked for");

        let cases = [
            ("another address", "http://evil.test/", 200, None),
            ("the registered one", "http://localhost/out", 303, Some("http://localhost/out?state=s+1")),
        ];
        for (name, back, status, location) in cases {
            let target = format!("/end_session?state=s+1&post_logout_redirect_uri={}", encode(back));
            let answer = provider.get(&target, &fields).await;
            assert_eq!((answer.status, answer.field("location")), (status, location), "{name}");
            assert!(answer.field("set-cookie").unwrap().contains("Max-Age=0"), "{name}");
        }
        assert_eq!(provider.get(&ask, &fields).await.status, 200, "the page asks anew");
    }
}
