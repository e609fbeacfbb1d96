//! A small provider on loopback for the tests of this module: right by default, wrong on demand.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::clock::UnixTime;
use crate::token::Algorithm;
use crate::token::sign::SigningKey;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Serves `answer` on a port of its own until the runtime ends; returns the base URL.
pub(super) async fn serve<F, A>(answer: F) -> String
where
    F: Fn(Request) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().fallback(answer);
    Handle::current().spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

/// A status and a JSON body.
#[derive(Clone)]
pub(super) struct Reply(StatusCode, String);

pub(super) fn reply(status: StatusCode, body: &Value) -> Reply {
    Reply(status, body.to_string())
}

impl Reply {
    fn into_response(self) -> Response {
        Response::builder()
            .status(self.0)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::LOCATION, "https://evil.test/")
            .body(Body::from(self.1))
            .unwrap()
    }
}

/// The provider.
#[derive(Clone)]
pub(super) struct Op {
    state: Arc<Mutex<State>>,
    hits: Arc<watch::Sender<Vec<&'static str>>>,
    /// While set, everything is answered with 503.
    pub(super) down: Arc<AtomicBool>,
}

struct State {
    issuer: String,
    now: UnixTime,
    published: SigningKey,
    signer: SigningKey,
    forged: bool,
    replies: HashMap<&'static str, Reply>,
    hanging: Vec<&'static str>,
    metadata: Value,
    claims: Value,
    client_auth: String,
    secret: Option<&'static str>,
    assertions: Vec<Value>,
}

impl Op {
    /// Starts a provider whose tokens are issued at `now`.
    pub(super) async fn start(now: UnixTime) -> Self {
        let key = new_key("k1");
        let state = State {
            issuer: String::new(),
            now,
            published: key.clone(),
            signer: key,
            forged: false,
            replies: HashMap::new(),
            hanging: Vec::new(),
            metadata: Value::Null,
            claims: Value::Null,
            client_auth: String::new(),
            secret: None,
            assertions: Vec::new(),
        };
        let hits = Arc::new(watch::Sender::new(Vec::new()));
        let op = Self { state: Arc::new(Mutex::new(state)), hits, down: Arc::default() };
        let server = op.clone();
        let issuer = serve(move |request| {
            let server = server.clone();
            async move { server.respond(request).await }
        })
        .await;
        op.with(|state| state.begin(issuer));
        op
    }

    pub(super) fn issuer(&self) -> String {
        self.with(|state| state.issuer.clone())
    }

    /// The calls so far, in their order.
    pub(super) fn hits(&self) -> Vec<&'static str> {
        self.hits.borrow().clone()
    }

    pub(super) fn count(&self, call: &str) -> usize {
        count(&self.hits.borrow(), call)
    }

    /// Waits until there were so many calls.
    pub(super) async fn wait_for(&self, call: &str, times: usize) {
        let mut hits = self.hits.subscribe();
        let reached = hits.wait_for(|hits| count(hits, call) >= times);
        tokio::time::timeout(PATIENCE, reached).await.unwrap().unwrap();
    }

    /// From now on `call` is answered with this.
    pub(super) fn answer(&self, call: &'static str, reply: Reply) {
        self.with(|state| state.replies.insert(call, reply));
    }

    /// From now on `call` is answered rightly again.
    pub(super) fn answer_as_ever(&self, call: &str) {
        self.with(|state| state.replies.remove(call));
    }

    /// From now on `call` is never answered.
    pub(super) fn hang(&self, call: &'static str) {
        self.with(|state| state.hanging.push(call));
    }

    /// A new key is published and signs; the old one is gone.
    pub(super) fn rotate(&self, kid: &str) {
        self.with(|state| {
            state.published = new_key(kid);
            state.signer = state.published.clone();
        });
    }

    pub(super) fn sign_with_unpublished_key(&self) {
        self.with(|state| state.signer = new_key("unpublished"));
    }

    pub(super) fn sign_with_published_key(&self) {
        self.with(|state| state.signer = state.published.clone());
    }

    /// From now on the signature is that of another key under the published name.
    pub(super) fn forge_signature(&self) {
        self.with(|state| state.forged = true);
    }

    pub(super) fn change_claims(&self, change: impl FnOnce(&mut Value)) {
        self.with(|state| change(&mut state.claims));
    }

    pub(super) fn change_metadata(&self, change: impl FnOnce(&mut Value)) {
        self.with(|state| change(&mut state.metadata));
    }

    /// How the client authenticated last: `basic`, `post`, `none`, or the algorithm of its assertion.
    pub(super) fn client_auth(&self) -> String {
        self.with(|state| state.client_auth.clone())
    }

    /// The claims of the assertions that came, unverified.
    pub(super) fn assertions(&self) -> Vec<Value> {
        self.with(|state| state.assertions.clone())
    }

    /// From now on this secret alone is taken, in a Basic header.
    pub(super) fn take_secret(&self, secret: &'static str) {
        self.with(|state| state.secret = Some(secret));
    }

    fn with<T>(&self, then: impl FnOnce(&mut State) -> T) -> T {
        then(&mut self.state.lock().unwrap())
    }

    async fn respond(self, request: Request) -> Response {
        let call = call_of(request.uri().path());
        self.hits.send_modify(|hits| hits.push(call));
        if self.down.load(Ordering::SeqCst) {
            return reply(StatusCode::SERVICE_UNAVAILABLE, &json!({})).into_response();
        }
        if self.with(|state| state.hanging.contains(&call)) {
            std::future::pending::<()>().await;
        }
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 64 * 1024).await.unwrap();
        self.with(|state| state.reply(call, &parts.headers, &body)).into_response()
    }
}

impl State {
    fn begin(&mut self, issuer: String) {
        self.metadata = json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/auth"),
            "token_endpoint": format!("{issuer}/token"),
            "jwks_uri": format!("{issuer}/jwks"),
            "userinfo_endpoint": format!("{issuer}/userinfo"),
        });
        self.claims = json!({
            "iss": issuer, "aud": "client", "sub": "alice", "nonce": "n1",
            "iat": self.now.as_secs(), "exp": self.now.as_secs() + 3600,
        });
        self.issuer = issuer;
    }

    fn reply(&mut self, call: &str, headers: &HeaderMap, body: &Bytes) -> Reply {
        if let Some(reply) = self.replies.get(call) {
            return reply.clone();
        }
        match call {
            "discovery" => reply(StatusCode::OK, &self.metadata),
            "jwks" => reply(StatusCode::OK, &json!({"keys": [self.published.public_jwk().unwrap()]})),
            "token" => self.token(headers, body),
            "userinfo" => reply(
                StatusCode::OK,
                &json!({"sub": "alice", "email": "alice@op.test", "iss": "https://evil.test"}),
            ),
            _ => reply(StatusCode::NOT_FOUND, &json!({})),
        }
    }

    fn shown(&mut self, headers: &HeaderMap, form: &HashMap<String, String>) -> String {
        let has_header = headers.contains_key(header::AUTHORIZATION);
        match (has_header, form.get("client_secret"), form.get("client_assertion")) {
            (true, None, None) => "basic".to_owned(),
            (false, Some(_), None) => "post".to_owned(),
            (false, None, None) => "none".to_owned(),
            (false, None, Some(assertion)) => {
                self.assertions.push(part(assertion, 1));
                part(assertion, 0)["alg"].as_str().unwrap().to_owned()
            }
            _ => "several ways".to_owned(),
        }
    }

    fn token(&mut self, headers: &HeaderMap, body: &Bytes) -> Reply {
        let form: HashMap<String, String> = url::form_urlencoded::parse(body).into_owned().collect();
        self.client_auth = self.shown(headers, &form);
        if self.secret.is_some_and(|secret| !shows_secret(headers, secret)) {
            return reply(StatusCode::UNAUTHORIZED, &json!({"error": "invalid_client"}));
        }
        let signer = if self.forged { &new_key("k1") } else { &self.signer };
        let id_token = signer.sign(&self.claims).unwrap();
        let tokens =
            json!({"access_token": "at", "token_type": "Bearer", "expires_in": 300, "id_token": id_token});
        reply(StatusCode::OK, &tokens)
    }
}

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn shows_secret(headers: &HeaderMap, secret: &str) -> bool {
    let wanted = format!("Basic {}", STANDARD.encode(format!("client:{secret}")));
    headers.get(header::AUTHORIZATION).is_some_and(|value| value == wanted.as_str())
}

fn new_key(kid: &str) -> SigningKey {
    SigningKey::generate(Algorithm::ES256, Some(kid)).unwrap()
}

fn count(hits: &[&str], call: &str) -> usize {
    hits.iter().filter(|hit| **hit == call).count()
}

fn call_of(path: &str) -> &'static str {
    match path {
        "/.well-known/openid-configuration" => "discovery",
        "/jwks" => "jwks",
        "/token" => "token",
        "/userinfo" => "userinfo",
        _ => "other",
    }
}
