//! A provider that says what a test makes it say.
//!
//! It signs `alice` in without a page. Everything it answers is right until a test alters it: each
//! `alter_…` takes a function that changes the right answer just before it is signed or sent.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use portcullis::token::Algorithm;
use portcullis::token::sign::SigningKey;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::gateway::ProviderEntry;
use super::server::{After, Exchange, Handler, Server, parameter};
use super::wire::Head;

/// The client, its secret, and who signs in.
const CLIENT: &str = "wiki";
const SECRET: &str = "a secret of the scripted provider";

/// The client at a provider like that of the conformance suite: every character has to arrive that
/// `client_secret_basic` encodes.
const SUITE_CLIENT: &str = "wiki:portcullis";
const SUITE_SECRET: &str = "a:b+c/d%e=f g~\u{e9}";

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
    /// Where authorization requests are pushed to.
    Pushed,
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
    /// How it is sent.
    pub pace: Pace,
}

/// How an answer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// At once.
    Whole,
    /// The head, then a byte of the body each time this has passed.
    Trickle(Duration),
    /// The head with the whole length, so many bytes of the body, and the end of the connection.
    CutAfter(usize),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// To which endpoint.
    pub call: Call,
    /// The head.
    pub head: Head,
    /// The body.
    pub body: Vec<u8>,
}

impl Seen {
    /// A decoded parameter of the query, or of the form in the body.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let query = self.head.line.split([' ', '?']).nth(2).unwrap_or_default();
        parameter(query.as_bytes(), name).or_else(|| parameter(&self.body, name))
    }
}

type Alter<T> = Option<Box<dyn FnMut(&mut T) + Send>>;

type AlterAnswer = Box<dyn FnMut(&mut Answer) + Send>;

/// Changes header and claims of a token.
type AlterParts = Box<dyn FnMut(&mut Value, &mut Value) + Send>;

/// Makes the signature: takes header and payload, gives the whole token.
type Sign = Box<dyn FnMut(&Value, &Value) -> String + Send>;

/// What the provider knows of a code.
struct Grant {
    nonce: Option<String>,
    challenge: String,
    redirect_uri: String,
}

/// What stays as it is for the whole life of a provider.
#[derive(Clone, Copy)]
struct Nature {
    path: &'static str,
    algorithm: Algorithm,
    client: &'static str,
    secret: &'static str,
    /// Whether it says and sends all that the conformance suite does beside what is needed.
    like_the_suite: bool,
}

const PLAIN: Nature =
    Nature { path: "", algorithm: Algorithm::ES256, client: CLIENT, secret: SECRET, like_the_suite: false };

const LIKE_THE_SUITE: Nature = Nature {
    path: "/test/a/portcullis/",
    algorithm: Algorithm::RS256,
    client: SUITE_CLIENT,
    secret: SUITE_SECRET,
    like_the_suite: true,
};

struct State {
    nature: Nature,
    issuer: String,
    keys: Vec<SigningKey>,
    others: Vec<Value>,
    claims: Value,
    userinfo: Value,
    grants: HashMap<String, Grant>,
    pushed: HashMap<String, Vec<u8>>,
    seen: Vec<Seen>,
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
    tokens: Alter<Value>,
    userinfo: Alter<Value>,
    signed_userinfo: Option<AlterParts>,
    rotate_at: Option<Call>,
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
        Self::start_as(PLAIN)
    }

    /// Starts one like that of the Foundation's conformance suite: an issuer with a path and a slash at
    /// its end, RS256, keys of every kind, metadata in odd orders, tokens with odd characters.
    pub fn start_like_the_suite() -> Self {
        Self::start_as(LIKE_THE_SUITE)
    }

    fn start_as(nature: Nature) -> Self {
        let port = super::ports::free();
        let issuer = format!("http://localhost:{port}{}", nature.path);
        let state = Arc::new(Mutex::new(State::new(nature, issuer)));
        let mut provider = Self { state, server: None, port };
        provider.come_back();
        provider
    }

    /// Its entry in a gateway's configuration.
    pub fn entry(&self) -> ProviderEntry {
        let nature = self.state().nature;
        // RS256 is what the gateway takes where nothing is said.
        let other = Some(nature.algorithm.name()).filter(|name| *name != "RS256");
        let more = other.map(|name| format!("id_token_algorithms = [\"{name}\"]\n")).unwrap_or_default();
        ProviderEntry {
            id: "main".into(),
            issuer: self.issuer(),
            client_id: nature.client.into(),
            client_secret: Some(nature.secret.into()),
            more,
        }
    }

    /// The client's secret.
    pub fn client_secret(&self) -> &'static str {
        self.state().nature.secret
    }

    /// One of the keys of a provider like the suite's: `rsa-1` signs, beside it `rsa-2`, `ec-1`, `ec-2` and
    /// `ed-1` are published.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn suite_key(kid: &str) -> SigningKey {
        let is_it = |key: &&SigningKey| key.public_jwk().unwrap()["kid"] == kid;
        suite_keys().0.iter().find(is_it).expect("a key of that name").clone()
    }

    /// The public key that it signs with now, as a JWK.
    pub fn public_jwk(&self) -> Value {
        self.state().keys[0].public_jwk().unwrap()
    }

    /// Its issuer.
    pub fn issuer(&self) -> String {
        self.state().issuer.clone()
    }

    /// How often an endpoint was called.
    pub fn calls(&self, call: Call) -> usize {
        self.state().seen.iter().filter(|seen| seen.call == call).count()
    }

    /// Every request, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// The last request to an endpoint.
    ///
    /// # Panics
    /// When there was none.
    pub fn last(&self, call: Call) -> Seen {
        let last = self.state().seen.iter().rfind(|seen| seen.call == call).cloned();
        last.unwrap_or_else(|| panic!("no request to {call:?}"))
    }

    /// Every code and token that it gave out.
    pub fn issued(&self) -> Vec<String> {
        self.state().issued.clone()
    }

    /// Every PKCE verifier that it got, and what clients authenticated with.
    pub fn received(&self) -> Vec<String> {
        self.state().received.clone()
    }

    /// Its port, for whoever stands in for it.
    pub fn port(&self) -> u16 {
        self.port
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
        self.state().rotate_keys();
    }

    /// Signs with a new key each time this endpoint is called; the old ones are published no more.
    pub fn rotate_keys_at(&self, call: Call) {
        self.state().script.rotate_at = Some(call);
    }

    /// Uses these keys: the first one signs.
    pub fn use_keys(&self, keys: Vec<SigningKey>) {
        self.state().keys = keys;
    }

    /// A logout token for the client, as the specification has it, with header and claims changed.
    pub fn logout_token(&self, change: impl FnOnce(&mut Value, &mut Value)) -> String {
        let state = self.state();
        let (now, jti) = (unix_now(), portcullis::random::random_token::<16>().unwrap());
        let mut header = json!({ "alg": state.algorithm(), "typ": "logout+jwt", "kid": state.kid() });
        let mut claims = json!({
            "iss": state.issuer,
            "aud": state.nature.client,
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

    /// Alters the object of token answers: everything beside the ID token is there.
    pub fn alter_tokens(&self, alter: impl FnMut(&mut Value) + Send + 'static) {
        self.state().script.tokens = Some(Box::new(alter));
    }

    /// Alters the claims of userinfo.
    pub fn alter_userinfo(&self, alter: impl FnMut(&mut Value) + Send + 'static) {
        self.state().script.userinfo = Some(Box::new(alter));
    }

    /// Signs userinfo from now on, its header and claims altered.
    pub fn sign_userinfo(&self, alter: impl FnMut(&mut Value, &mut Value) + Send + 'static) {
        self.state().script.signed_userinfo = Some(Box::new(alter));
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
    fn new(nature: Nature, issuer: String) -> Self {
        let (keys, others) = if nature.like_the_suite { suite_keys() } else { (vec![key(1)], Vec::new()) };
        Self {
            nature,
            issuer,
            keys,
            others,
            claims: json!({ "sub": "alice", "sid": "provider-session-1" }),
            userinfo: json!({
                "sub": "alice",
                "email": "alice@example.test",
                "email_verified": true,
                "preferred_username": "alice",
                "groups": ["staff", "wiki-admins"],
            }),
            grants: HashMap::new(),
            pushed: HashMap::new(),
            seen: Vec::new(),
            issued: Vec::new(),
            received: Vec::new(),
            script: Script::default(),
        }
    }

    fn answer(&mut self, call: Call, exchange: &mut Exchange) -> io::Result<Answer> {
        let body = exchange.body()?;
        self.seen.push(Seen { call, head: exchange.head.clone(), body: body.clone() });
        if self.script.rotate_at == Some(call) {
            self.rotate_keys();
            self.keys.truncate(1);
        }
        let mut answer = match call {
            Call::Discovery => json_answer(200, &self.discovery()),
            Call::Keys => json_answer(200, &self.key_set()),
            Call::Authorize => self.authorize(exchange),
            Call::Token => self.token(exchange, &body),
            Call::Userinfo => self.userinfo(exchange),
            Call::EndSession => end_session(exchange),
            Call::Revocation => self.revoke(exchange, &body),
            Call::Pushed => self.take_pushed(exchange, &body),
        };
        if let Some(alter) = self.script.answers.get_mut(&call) {
            alter(&mut answer);
        }
        Ok(answer)
    }

    fn discovery(&mut self) -> Value {
        let base = self.issuer.trim_end_matches('/');
        let mut document = json!({
            "issuer": self.issuer,
            "authorization_endpoint": format!("{base}/authorize"),
            "token_endpoint": format!("{base}/token"),
            "userinfo_endpoint": format!("{base}/userinfo"),
            "jwks_uri": format!("{base}/keys"),
            "end_session_endpoint": format!("{base}/end_session"),
            "revocation_endpoint": format!("{base}/revoke"),
            "pushed_authorization_request_endpoint": format!("{base}/pushed"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [self.algorithm()],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        });
        if self.nature.like_the_suite {
            document["response_types_supported"] = json!(["token code id_token", "id_token token", "code"]);
            document["id_token_signing_alg_values_supported"] = json!(["none", "ES256", "RS256", "HS256"]);
            document["claims_parameter_supported"] = json!(true);
        }
        alter(&mut self.script.discovery, &mut document);
        document
    }

    fn key_set(&mut self) -> Value {
        let mut keys: Vec<Value> = self.keys.iter().map(|key| key.public_jwk().unwrap()).collect();
        if self.nature.like_the_suite {
            for key in &mut keys {
                key.as_object_mut().unwrap().remove("alg");
            }
        }
        // In front, so that whoever stumbles over one of them never gets to the right one.
        let mut set = json!({ "keys": ([self.others.clone(), keys].concat()) });
        alter(&mut self.script.keys, &mut set);
        set
    }

    /// Signs in whoever comes.
    fn authorize(&mut self, exchange: &Exchange) -> Answer {
        let request = match exchange.parameter("request_uri") {
            Some(reference) => self.pushed.remove(&reference).expect("a reference is used once"),
            None => exchange.target().split_once('?').expect("a query").1.as_bytes().to_vec(),
        };
        let wanted = |name: &str| parameter(&request, name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(wanted("response_type"), "code");
        assert_eq!(wanted("code_challenge_method"), "S256");
        let code = format!("code-{}", portcullis::random::random_token::<16>().unwrap());
        let redirect_uri = wanted("redirect_uri");
        let grant = Grant {
            nonce: parameter(&request, "nonce"),
            challenge: wanted("code_challenge"),
            redirect_uri: redirect_uri.clone(),
        };
        self.grants.insert(code.clone(), grant);
        self.issued.push(code.clone());
        let mut parameters = vec![("code".to_owned(), code), ("state".to_owned(), wanted("state"))];
        if self.nature.like_the_suite {
            parameters.push(("session_state".to_owned(), "a.b c".to_owned()));
        }
        alter(&mut self.script.callback, &mut parameters);
        if parameter(&request, "response_mode").as_deref() == Some("form_post") {
            return form(&redirect_uri, &parameters);
        }
        let mut url = Url::parse(&redirect_uri).unwrap();
        url.query_pairs_mut().extend_pairs(parameters);
        redirect(url.as_str())
    }

    fn token(&mut self, exchange: &Exchange, body: &[u8]) -> Answer {
        self.received.extend(parameter(body, "code_verifier"));
        self.received.extend(exchange.head.one("authorization").map(str::to_owned));
        self.received.push(self.nature.secret.into());
        if !self.is_client(exchange) {
            return json_answer(401, &json!({ "error": "invalid_client" }));
        }
        let grant = parameter(body, "code").and_then(|code| self.grants.remove(&code));
        let Some(grant) = grant.filter(|grant| fits(grant, body)) else {
            return json_answer(400, &json!({ "error": "invalid_grant" }));
        };
        let access_token = format!("access-{}", portcullis::random::random_token::<16>().unwrap());
        let id_token = self.id_token(grant.nonce.as_deref(), &access_token);
        let mut tokens = json!({
            "access_token": access_token,
            "id_token": id_token,
            "token_type": "Bearer",
            "expires_in": 3600,
        });
        self.issued.extend([access_token, id_token]);
        if self.nature.like_the_suite {
            tokens.as_object_mut().unwrap().remove("expires_in");
            let refresh_token = "refresh !#$%&'()*+,-./:;<=>?@[]^_`{|}~";
            tokens["refresh_token"] = json!(refresh_token);
            self.issued.push(refresh_token.into());
        }
        alter(&mut self.script.tokens, &mut tokens);
        json_answer(200, &tokens)
    }

    /// Core 5.3: for whoever shows an access token in the header.
    fn userinfo(&mut self, exchange: &Exchange) -> Answer {
        let shown = exchange.head.one("authorization").and_then(|value| value.strip_prefix("Bearer "));
        if !shown.is_some_and(|token| self.issued.iter().any(|issued| issued == token)) {
            return json_answer(401, &json!({ "error": "invalid_token" }));
        }
        let mut claims = self.userinfo.clone();
        alter(&mut self.script.userinfo, &mut claims);
        let mut header = json!({ "alg": self.algorithm(), "kid": self.kid() });
        let Some(change) = &mut self.script.signed_userinfo else { return json_answer(200, &claims) };
        claims["iss"] = json!(self.issuer);
        claims["aud"] = json!(self.nature.client);
        change(&mut header, &mut claims);
        let fields = vec![("Content-Type".into(), "application/jwt".into())];
        Answer { status: 200, fields, body: self.sign(&header, &claims).into_bytes(), pace: Pace::Whole }
    }

    /// RFC 7009: the client shows who it is, and the token is one that was given out.
    fn revoke(&mut self, exchange: &Exchange, body: &[u8]) -> Answer {
        let token = parameter(body, "token").unwrap_or_default();
        let known = self.is_client(exchange) && self.issued.contains(&token);
        json_answer(if known { 200 } else { 401 }, &json!({}))
    }

    /// `client_secret_basic` with form-encoded parts.
    /// RFC 9126 2: keeps the request, and gives a reference that is used once.
    fn take_pushed(&mut self, exchange: &Exchange, body: &[u8]) -> Answer {
        if !self.is_client(exchange) {
            return json_answer(401, &json!({ "error": "invalid_client" }));
        }
        let random = portcullis::random::random_token::<16>().unwrap();
        let reference = format!("urn:ietf:params:oauth:request_uri:{random}");
        self.pushed.insert(reference.clone(), body.to_vec());
        self.issued.push(reference.clone());
        json_answer(201, &json!({ "request_uri": reference, "expires_in": 60 }))
    }

    fn is_client(&self, exchange: &Exchange) -> bool {
        let Nature { client, secret, .. } = self.nature;
        let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let wanted = format!("Basic {}", STANDARD.encode(format!("{}:{}", encode(client), encode(secret))));
        exchange.head.one("authorization") == Some(wanted.as_str())
    }

    fn rotate_keys(&mut self) {
        let kid = format!("key-{}", portcullis::random::random_token::<8>().unwrap());
        self.keys.insert(0, SigningKey::generate(self.nature.algorithm, Some(&kid)).unwrap());
    }

    fn algorithm(&self) -> &'static str {
        self.nature.algorithm.name()
    }

    fn id_token(&mut self, nonce: Option<&str>, access_token: &str) -> String {
        let now = unix_now();
        let mut claims = self.claims.clone();
        claims["iss"] = json!(self.issuer);
        claims["aud"] = json!(self.nature.client);
        claims["iat"] = json!(now);
        claims["exp"] = json!(now + 300);
        claims["nonce"] = json!(nonce);
        let hash = self.nature.algorithm.hash(access_token.as_bytes());
        claims["at_hash"] = json!(URL_SAFE_NO_PAD.encode(&hash[..hash.len() / 2]));
        let mut header = json!({ "alg": self.algorithm(), "typ": "JWT", "kid": self.kid() });
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
    let base = state.lock().unwrap().nature.path.trim_end_matches('/');
    Arc::new(move |exchange: &mut Exchange| {
        let call = match exchange.path().strip_prefix(base) {
            Some("/.well-known/openid-configuration") => Call::Discovery,
            Some(path) if path.starts_with("/keys") => Call::Keys,
            Some("/authorize") => Call::Authorize,
            Some("/token") => Call::Token,
            Some("/userinfo") => Call::Userinfo,
            Some("/end_session") => Call::EndSession,
            Some("/revoke") => Call::Revocation,
            Some("/pushed") => Call::Pushed,
            _ => return exchange.answer(404, &[], b"no such endpoint"),
        };
        let answer = state.lock().unwrap().answer(call, exchange)?;
        send(&answer, exchange)
    })
}

fn send(answer: &Answer, exchange: &mut Exchange) -> io::Result<After> {
    let fields: Vec<(&str, &str)> =
        answer.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let sent_at_once = match answer.pace {
        Pace::Whole => return exchange.answer(answer.status, &fields, &answer.body),
        Pace::Trickle(_) => 0,
        Pace::CutAfter(bytes) => bytes,
    };
    let mut head = format!("HTTP/1.1 {} -\r\nContent-Length: {}\r\n", answer.status, answer.body.len());
    for (name, value) in fields {
        write!(head, "{name}: {value}\r\n").map_err(io::Error::other)?;
    }
    head.push_str("\r\n");
    let (now, later) = answer.body.split_at(sent_at_once);
    exchange.send(&[head.as_bytes(), now].concat())?;
    if let Pace::Trickle(pause) = answer.pace {
        for byte in later {
            std::thread::sleep(pause);
            exchange.send(&[*byte])?;
        }
    }
    Ok(After::Close)
}

/// The keys of the plain provider have numbers.
fn key(number: usize) -> SigningKey {
    SigningKey::generate(Algorithm::ES256, Some(&format!("key-{number}"))).unwrap()
}

/// Two RSA keys, two of P-256, one of Ed25519; and, published beside them, keys that sign nothing here.
fn suite_keys() -> (Vec<SigningKey>, Vec<Value>) {
    static KEYS: LazyLock<Vec<SigningKey>> = LazyLock::new(|| {
        use Algorithm::{ES256, EdDSA, RS256};
        let kinds = [(RS256, "rsa-1"), (RS256, "rsa-2"), (ES256, "ec-1"), (ES256, "ec-2"), (EdDSA, "ed-1")];
        kinds.map(|(algorithm, kid)| SigningKey::generate(algorithm, Some(kid)).unwrap()).into()
    });
    // No point of either curve: nobody has to get as far as to see that.
    let number = URL_SAFE_NO_PAD.encode([7; 32]);
    let mut encryption = KEYS[0].public_jwk().unwrap();
    encryption["use"] = json!("enc");
    encryption["alg"] = json!("RSA-OAEP");
    encryption["kid"] = json!("rsa-enc");
    let others = vec![
        json!({ "kty": "EC", "crv": "secp256k1", "use": "sig", "kid": "k1", "x": number, "y": number }),
        json!({ "kty": "EC", "crv": "P-256", "use": "enc", "alg": "ECDH-ES", "kid": "ec-enc", "x": number, "y": number }),
        encryption,
    ];
    (KEYS.clone(), others)
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
    Answer { status, fields, body: body.to_string().into_bytes(), pace: Pace::Whole }
}

/// A page with a form that a browser would send by itself.
fn form(action: &str, parameters: &[(String, String)]) -> Answer {
    let escape = |text: &str| text.replace('&', "&amp;").replace('"', "&quot;");
    let mut page = format!("<!doctype html><form method=\"post\" action=\"{}\">", escape(action));
    for (name, value) in parameters {
        let (name, value) = (escape(name), escape(value));
        write!(page, "<input type=\"hidden\" name=\"{name}\" value=\"{value}\">").unwrap();
    }
    page.push_str("</form>");
    let fields = vec![("Content-Type".into(), "text/html".into())];
    Answer { status: 200, fields, body: page.into_bytes(), pace: Pace::Whole }
}

fn redirect(url: &str) -> Answer {
    let fields = vec![("Location".into(), url.into())];
    Answer { status: 303, fields, body: Vec::new(), pace: Pace::Whole }
}

#[expect(clippy::disallowed_methods, reason = "the gateway under test reads the machine's clock too")]
fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
