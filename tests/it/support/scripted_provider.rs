//! A provider that says what a test makes it say.
//!
//! It signs `alice` in without a page. Everything it answers is right until a test alters it: each
//! `alter_…` takes a function that changes the right answer just before it is signed or sent.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use portcullis::token::Algorithm;
use portcullis::token::sign::SigningKey;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::gateway::ProviderEntry;
use super::server::{After, Exchange, Handler, Server, parameter};

/// The client, its secret, and who signs in.
const CLIENT: &str = "wiki";
const SECRET: &str = "a secret of the scripted provider";

/// The event that makes a token a logout token.
const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// An endpoint of the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// The discovery document.
    Discovery,
    /// The key set.
    Keys,
    /// Where browsers are sent.
    Authorize,
    /// Where codes are exchanged.
    Token,
    /// Where claims are asked for.
    Userinfo,
    /// Where sessions end.
    EndSession,
    /// Where tokens are taken back.
    Revocation,
}

/// An answer before it is sent.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Header fields but `Content-Length`.
    pub fields: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

type Alter<T> = Option<Box<dyn FnMut(&mut T) + Send>>;

type AlterAnswer = Box<dyn FnMut(&mut Answer) + Send>;

/// Makes the signature: takes header and payload, gives the whole token.
type Sign = Box<dyn FnMut(&Value, &Value) -> String + Send>;

/// What the provider knows of a code.
struct Grant {
    nonce: Option<String>,
    challenge: String,
    redirect_uri: String,
}

struct State {
    issuer: String,
    keys: Vec<SigningKey>,
    claims: Value,
    userinfo: Value,
    grants: HashMap<String, Grant>,
    calls: HashMap<Call, usize>,
    issued: Vec<String>,
    received: Vec<String>,
    script: Script,
}

#[derive(Default)]
struct Script {
    discovery: Alter<Value>,
    keys: Alter<Value>,
    callback: Alter<Vec<(String, String)>>,
    header: Alter<Value>,
    claims: Alter<Value>,
    sign: Option<Sign>,
    answers: HashMap<Call, AlterAnswer>,
}

/// The provider; stops when dropped.
pub struct ScriptedProvider {
    state: Arc<Mutex<State>>,
    server: Option<Server>,
    port: u16,
}

impl ScriptedProvider {
    /// Starts one whose issuer is `http://localhost:PORT`.
    pub fn start() -> Self {
        let port = super::ports::free();
        let state = Arc::new(Mutex::new(State::new(format!("http://localhost:{port}"))));
        let mut provider = Self { state, server: None, port };
        provider.come_back();
        provider
    }

    /// Its entry in a gateway's configuration.
    pub fn entry(&self) -> ProviderEntry {
        ProviderEntry {
            id: "main".into(),
            issuer: self.issuer(),
            client_id: CLIENT.into(),
            client_secret: Some(SECRET.into()),
            more: "id_token_algorithms = [\"ES256\"]\n".into(),
        }
    }

    /// Its issuer.
    pub fn issuer(&self) -> String {
        self.state().issuer.clone()
    }

    /// How often an endpoint was called.
    pub fn calls(&self, call: Call) -> usize {
        self.state().calls.get(&call).copied().unwrap_or(0)
    }

    /// Every code and token that it gave out.
    pub fn issued(&self) -> Vec<String> {
        self.state().issued.clone()
    }

    /// Every PKCE verifier that it got, and what clients authenticated with.
    pub fn received(&self) -> Vec<String> {
        self.state().received.clone()
    }

    /// Goes away: connections are refused.
    pub fn stop(&mut self) {
        drop(self.server.take());
    }

    /// Comes back, knowing all that it knew.
    pub fn come_back(&mut self) {
        self.server = Some(Server::start_at(self.port, None, handler(&self.state)));
    }

    /// Signs with a new key from now on; the old ones stay published.
    pub fn rotate_keys(&self) {
        let mut state = self.state();
        let kid = format!("key-{}", state.keys.len() + 1);
        let key = SigningKey::generate(Algorithm::ES256, Some(&kid)).unwrap();
        state.keys.insert(0, key);
    }

    /// A logout token for the client, as the specification has it, with header and claims changed.
    pub fn logout_token(&self, change: impl FnOnce(&mut Value, &mut Value)) -> String {
        let state = self.state();
        let (now, jti) = (unix_now(), portcullis::random::random_token::<16>().unwrap());
        let mut header = json!({ "alg": "ES256", "typ": "logout+jwt", "kid": state.kid() });
        let mut claims = json!({
            "iss": state.issuer,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 120,
            "jti": jti,
            "sub": "alice",
            "sid": "provider-session-1",
            "events": { LOGOUT_EVENT: {} },
        });
        change(&mut header, &mut claims);
        state.sign(&header, &claims)
    }

    /// Changes the claims of every sign-in from now on, in ID token and userinfo.
    pub fn claims(&self, change: impl Fn(&mut Value)) {
        let mut state = self.state();
        change(&mut state.claims);
        change(&mut state.userinfo);
    }

    /// Alters the discovery document.
    pub fn alter_discovery(&self, alter: impl FnMut(&mut Value) + Send + 'static) {
        self.state().script.discovery = Some(Box::new(alter));
    }

    /// Alters the key set.
    pub fn alter_keys(&self, alter: impl FnMut(&mut Value) + Send + 'static) {
        self.state().script.keys = Some(Box::new(alter));
    }

    /// Alters the parameters of the redirect to the callback.
    pub fn alter_callback(&self, alter: impl FnMut(&mut Vec<(String, String)>) + Send + 'static) {
        self.state().script.callback = Some(Box::new(alter));
    }

    /// Alters the header of ID tokens.
    pub fn alter_header(&self, alter: impl FnMut(&mut Value) + Send + 'static) {
        self.state().script.header = Some(Box::new(alter));
    }

    /// Alters the claims of ID tokens.
    pub fn alter_claims(&self, alter: impl FnMut(&mut Value) + Send + 'static) {
        self.state().script.claims = Some(Box::new(alter));
    }

    /// Signs ID tokens like this: header and claims in, the whole token out.
    pub fn sign_with(&self, sign: impl FnMut(&Value, &Value) -> String + Send + 'static) {
        self.state().script.sign = Some(Box::new(sign));
    }

    /// Alters the whole answer of an endpoint, after everything else.
    pub fn alter_answer(&self, call: Call, alter: impl FnMut(&mut Answer) + Send + 'static) {
        self.state().script.answers.insert(call, Box::new(alter));
    }

    /// Is right again in everything.
    pub fn behave(&self) {
        self.state().script = Script::default();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn new(issuer: String) -> Self {
        Self {
            issuer,
            keys: vec![SigningKey::generate(Algorithm::ES256, Some("key-1")).unwrap()],
            claims: json!({ "sub": "alice", "sid": "provider-session-1" }),
            userinfo: json!({
                "sub": "alice",
                "email": "alice@example.test",
                "email_verified": true,
                "preferred_username": "alice",
                "groups": ["staff", "wiki-admins"],
            }),
            grants: HashMap::new(),
            calls: HashMap::new(),
            issued: Vec::new(),
            received: Vec::new(),
            script: Script::default(),
        }
    }

    fn answer(&mut self, call: Call, exchange: &mut Exchange) -> io::Result<Answer> {
        *self.calls.entry(call).or_default() += 1;
        let mut answer = match call {
            Call::Discovery => json_answer(200, &self.discovery()),
            Call::Keys => json_answer(200, &self.key_set()),
            Call::Authorize => self.authorize(exchange),
            Call::Token => self.token(exchange)?,
            Call::Userinfo => json_answer(200, &self.userinfo),
            Call::EndSession => end_session(exchange),
            Call::Revocation => self.revoke(exchange)?,
        };
        if let Some(alter) = self.script.answers.get_mut(&call) {
            alter(&mut answer);
        }
        Ok(answer)
    }

    fn discovery(&mut self) -> Value {
        let issuer = &self.issuer;
        let mut document = json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}/token"),
            "userinfo_endpoint": format!("{issuer}/userinfo"),
            "jwks_uri": format!("{issuer}/keys"),
            "end_session_endpoint": format!("{issuer}/end_session"),
            "revocation_endpoint": format!("{issuer}/revoke"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        });
        alter(&mut self.script.discovery, &mut document);
        document
    }

    fn key_set(&mut self) -> Value {
        let keys: Vec<Value> = self.keys.iter().map(|key| key.public_jwk().unwrap()).collect();
        let mut set = json!({ "keys": keys });
        alter(&mut self.script.keys, &mut set);
        set
    }

    /// Signs in whoever comes.
    fn authorize(&mut self, exchange: &Exchange) -> Answer {
        let wanted = |name: &str| exchange.parameter(name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(wanted("response_type"), "code");
        assert_eq!(wanted("code_challenge_method"), "S256");
        let code = format!("code-{}", portcullis::random::random_token::<16>().unwrap());
        let redirect_uri = wanted("redirect_uri");
        let grant = Grant {
            nonce: exchange.parameter("nonce"),
            challenge: wanted("code_challenge"),
            redirect_uri: redirect_uri.clone(),
        };
        self.grants.insert(code.clone(), grant);
        self.issued.push(code.clone());
        let mut parameters = vec![("code".to_owned(), code), ("state".to_owned(), wanted("state"))];
        alter(&mut self.script.callback, &mut parameters);
        let mut url = Url::parse(&redirect_uri).unwrap();
        url.query_pairs_mut().extend_pairs(parameters);
        redirect(url.as_str())
    }

    fn token(&mut self, exchange: &mut Exchange) -> io::Result<Answer> {
        let body = exchange.body()?;
        self.received.extend(parameter(&body, "code_verifier"));
        self.received.extend(exchange.head.one("authorization").map(str::to_owned));
        self.received.push(SECRET.into());
        if !is_client(exchange) {
            return Ok(json_answer(401, &json!({ "error": "invalid_client" })));
        }
        let grant = parameter(&body, "code").and_then(|code| self.grants.remove(&code));
        let Some(grant) = grant.filter(|grant| fits(grant, &body)) else {
            return Ok(json_answer(400, &json!({ "error": "invalid_grant" })));
        };
        let access_token = format!("access-{}", portcullis::random::random_token::<16>().unwrap());
        let id_token = self.id_token(grant.nonce.as_deref());
        self.issued.extend([access_token.clone(), id_token.clone()]);
        Ok(json_answer(
            200,
            &json!({
                "access_token": access_token,
                "id_token": id_token,
                "token_type": "Bearer",
                "expires_in": 3600,
            }),
        ))
    }

    /// RFC 7009: the client shows who it is, and the token is one that was given out.
    fn revoke(&mut self, exchange: &mut Exchange) -> io::Result<Answer> {
        let body = exchange.body()?;
        let token = parameter(&body, "token").unwrap_or_default();
        let known = is_client(exchange) && self.issued.contains(&token);
        Ok(json_answer(if known { 200 } else { 401 }, &json!({})))
    }

    fn id_token(&mut self, nonce: Option<&str>) -> String {
        let now = unix_now();
        let mut claims = self.claims.clone();
        claims["iss"] = json!(self.issuer);
        claims["aud"] = json!(CLIENT);
        claims["iat"] = json!(now);
        claims["exp"] = json!(now + 300);
        claims["nonce"] = json!(nonce);
        let mut header = json!({ "alg": "ES256", "typ": "JWT", "kid": self.kid() });
        alter(&mut self.script.header, &mut header);
        alter(&mut self.script.claims, &mut claims);
        if let Some(sign) = &mut self.script.sign {
            return sign(&header, &claims);
        }
        self.sign(&header, &claims)
    }

    fn kid(&self) -> Value {
        self.keys[0].public_jwk().unwrap()["kid"].clone()
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        self.keys[0].sign_parts(header.to_string().as_bytes(), claims.to_string().as_bytes()).unwrap()
    }
}

fn alter<T>(hook: &mut Alter<T>, value: &mut T) {
    if let Some(hook) = hook {
        hook(value);
    }
}

fn handler(state: &Arc<Mutex<State>>) -> Arc<Handler> {
    let state = Arc::clone(state);
    Arc::new(move |exchange: &mut Exchange| {
        let call = match exchange.path() {
            "/.well-known/openid-configuration" => Call::Discovery,
            "/keys" => Call::Keys,
            "/authorize" => Call::Authorize,
            "/token" => Call::Token,
            "/userinfo" => Call::Userinfo,
            "/end_session" => Call::EndSession,
            "/revoke" => Call::Revocation,
            _ => return exchange.answer(404, &[], b"no such endpoint"),
        };
        let answer = state.lock().unwrap().answer(call, exchange)?;
        let fields: Vec<(&str, &str)> =
            answer.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        exchange.answer(answer.status, &fields, &answer.body)?;
        Ok(After::KeepAlive)
    })
}

/// `client_secret_basic` with form-encoded parts.
fn is_client(exchange: &Exchange) -> bool {
    let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let wanted = format!("Basic {}", STANDARD.encode(format!("{}:{}", encode(CLIENT), encode(SECRET))));
    exchange.head.one("authorization") == Some(wanted.as_str())
}

/// RFC 6749 4.1.3 and RFC 7636 4.6.
fn fits(grant: &Grant, body: &[u8]) -> bool {
    let verifier = parameter(body, "code_verifier").unwrap_or_default();
    parameter(body, "redirect_uri").as_ref() == Some(&grant.redirect_uri)
        && URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) == grant.challenge
}

fn end_session(exchange: &Exchange) -> Answer {
    let Some(back) = exchange.parameter("post_logout_redirect_uri") else {
        return json_answer(200, &json!("signed out"));
    };
    let mut url = Url::parse(&back).unwrap();
    if let Some(state) = exchange.parameter("state") {
        url.query_pairs_mut().append_pair("state", &state);
    }
    redirect(url.as_str())
}

fn json_answer(status: u16, body: &Value) -> Answer {
    let fields = vec![("Content-Type".into(), "application/json".into())];
    Answer { status, fields, body: body.to_string().into_bytes() }
}

fn redirect(url: &str) -> Answer {
    Answer { status: 303, fields: vec![("Location".into(), url.into())], body: Vec::new() }
}

#[expect(clippy::disallowed_methods, reason = "the gateway under test reads the machine's clock too")]
fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
