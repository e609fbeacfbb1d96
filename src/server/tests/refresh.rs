//! Sessions whose tokens grow old, at a provider that rotates refresh tokens and takes all of them back
//! when one comes twice.

use std::collections::HashSet;
use std::net::Shutdown;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::{Application, Client, Fixture, field, settings, start_at, status};
use crate::clock::{Clock, UnixTime};
use crate::oidc::{Issuer, ProviderId};
use crate::secret::Secret;
use crate::session::seal::seal_cookie;
use crate::session::{Purpose, Session};
use crate::store::StoreKey;
use crate::token::sign::SigningKey;
use crate::token::{Algorithm, Claims};

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
const LIFE: u64 = 300;

/// No step takes longer, or it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Changes the claims of an ID token.
type Change = fn(&mut Value);

/// What the provider does at the next refreshes.
#[derive(Clone)]
struct Script {
    /// Instead of tokens.
    answer: Option<(&'static str, &'static str)>,
    /// It ends the connection and says nothing.
    silent: bool,
    /// Changes the claims of the ID token; without it there is none.
    id_token: Option<Change>,
    rotates: bool,
    expires_in: Value,
    groups: Vec<&'static str>,
    /// Instead of userinfo.
    userinfo: Option<(&'static str, String)>,
}

impl Default for Script {
    fn default() -> Self {
        let groups = vec!["staff", "admins"];
        Self {
            answer: None,
            silent: false,
            id_token: Some(|_| ()),
            rotates: true,
            expires_in: json!(LIFE),
            groups,
            userinfo: None,
        }
    }
}

struct Op {
    issuer: String,
    clock: Clock,
    key: SigningKey,
    script: Script,
    live: String,
    spent: HashSet<String>,
    refreshes: usize,
    userinfos: Vec<String>,
    revoked: Vec<String>,
    is_reused: bool,
    hold: Option<(Sender<()>, Receiver<()>)>,
}

impl Op {
    fn document(&mut self, path: &str, head: &str, body: &str) -> (&'static str, String) {
        let issuer = &self.issuer;
        match path {
            "/.well-known/openid-configuration" => ok(&json!({
                "issuer": issuer,
                "authorization_endpoint": format!("{issuer}/auth"),
                "token_endpoint": format!("{issuer}/token"),
                "userinfo_endpoint": format!("{issuer}/userinfo"),
                "revocation_endpoint": format!("{issuer}/revoke"),
                "jwks_uri": format!("{issuer}/jwks"),
            })),
            "/jwks" => ok(&json!({ "keys": [self.key.public_jwk().unwrap()] })),
            "/token" => self.refresh(body),
            "/userinfo" => {
                self.userinfos.push(field(head, "authorization").unwrap_or_default().to_owned());
                let told = ok(&json!({ "sub": "alice", "groups": self.script.groups }));
                self.script.userinfo.clone().unwrap_or(told)
            }
            "/revoke" => {
                self.revoked.push(body.to_owned());
                ok(&json!({}))
            }
            _ => ("404 Not Found", "{}".to_owned()),
        }
    }

    fn refresh(&mut self, body: &str) -> (&'static str, String) {
        let sent = |name: &str| {
            let pairs = url::form_urlencoded::parse(body.as_bytes());
            pairs.filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).next()
        };
        assert_eq!(sent("grant_type").as_deref(), Some("refresh_token"));
        self.refreshes += 1;
        let token = sent("refresh_token").unwrap();
        if self.spent.contains(&token) {
            self.is_reused = true;
            self.live.clear();
        }
        if token != self.live {
            return ("400 Bad Request", json!({ "error": "invalid_grant" }).to_string());
        }
        if let Some((status, answer)) = self.script.answer {
            return (status, answer.to_owned());
        }
        let mut tokens =
            json!({ "access_token": format!("access {}", self.refreshes), "token_type": "Bearer" });
        if self.script.rotates {
            self.spent.insert(std::mem::replace(&mut self.live, format!("refresh +{}/%", self.refreshes)));
            tokens["refresh_token"] = json!(self.live);
        }
        if !self.script.expires_in.is_null() {
            tokens["expires_in"] = self.script.expires_in.clone();
        }
        if let Some(change) = self.script.id_token {
            let mut claims = claims(&self.issuer, self.clock.now());
            change(&mut claims);
            tokens["id_token"] = json!(self.key.sign(&claims).unwrap());
        }
        ok(&tokens)
    }
}

fn ok(document: &Value) -> (&'static str, String) {
    ("200 OK", document.to_string())
}

fn claims(issuer: &str, now: UnixTime) -> Value {
    json!({ "iss": issuer, "aud": "wiki", "sub": "alice", "iat": now.as_secs(), "exp": now.as_secs() + 300 })
}

/// The provider, the gateway, the clock of both, an application.
struct Scene {
    op: Arc<Mutex<Op>>,
    gateway: Fixture,
    clock: Clock,
    _provider: Application,
    _application: Application,
}

impl Scene {
    fn new() -> Self {
        Self::with("")
    }

    fn with(more: &str) -> Self {
        let clock = Clock::manual(NOW);
        let op = Arc::new(Mutex::new(Op {
            issuer: String::new(),
            clock: clock.clone(),
            key: SigningKey::generate(Algorithm::ES256, Some("k1")).unwrap(),
            script: Script::default(),
            live: "first refresh".to_owned(),
            spent: HashSet::new(),
            refreshes: 0,
            userinfos: Vec::new(),
            revoked: Vec::new(),
            is_reused: false,
            hold: None,
        }));
        let state = Arc::clone(&op);
        let provider = Application::start(move |connection, head| serve(&state, connection, head));
        let application = Application::echo();
        let issuer = format!("http://{}", provider.address);
        op.lock().unwrap().issuer.clone_from(&issuer);
        let upstream = application.address;
        let text = format!(
            "[[provider]]\nid = \"main\"\nissuer = \"{issuer}\"\nclient_id = \"wiki\"\ntimeout = \"5s\"\n\
             id_token_algorithms = [\"ES256\"]\n{more}\n\
             [[route]]\nhost = \"app.test\"\nupstream = \"http://{upstream}\"\nforward_access_token = true\n\
             [[route]]\nhost = \"app.test\"\npath = \"/admin\"\nupstream = \"http://{upstream}\"\n\
             require = {{ groups = [\"admins\"] }}\n"
        );
        let gateway = start_at(settings(&text), clock.clone());
        Self { op, gateway, clock, _provider: provider, _application: application }
    }

    /// Somebody who signed in now; gives the cookie field.
    fn sign_in(&self) -> String {
        self.sign_in_as(|_| ())
    }

    fn sign_in_as(&self, change: impl FnOnce(&mut Session)) -> String {
        let (issuer, raw) = {
            let op = self.op();
            (op.issuer.clone(), op.key.sign(&claims(&op.issuer, NOW)).unwrap())
        };
        let mut claims = claims(&issuer, NOW);
        claims["nonce"] = json!("n");
        claims["groups"] = json!(["staff", "admins"]);
        let mut session = Session {
            provider: ProviderId("main".into()),
            issuer: Issuer(issuer.into()),
            subject: "alice".into(),
            sid: None,
            host: "app.test".into(),
            claims: serde_json::from_value::<Claims>(claims).unwrap(),
            id_token: Secret::new(raw),
            access_token: Secret::new("access 0".to_owned()),
            access_expires_at: Some(NOW + Duration::from_secs(LIFE)),
            refresh_token: Some(Secret::new("first refresh".to_owned())),
            refreshed_at: None,
            refresh_sent_at: None,
            created_at: NOW,
            last_seen: NOW,
            longest_idle: Duration::ZERO,
            client: None,
            user_agent: None,
        };
        change(&mut session);
        let shared = Arc::clone(self.gateway.gateway.shared());
        let limits = self.gateway.gateway.settings().reading.limits;
        let id = shared.runtime.block_on(shared.sessions.begin(&session, &limits)).unwrap();
        let name = "__Host-portcullis";
        let value = seal_cookie(&shared.keys, Purpose::SessionCookie, name, "app.test", id.expose()).unwrap();
        format!("Cookie: {name}={value}\r\n")
    }

    fn get(&self, cookie: &str, path: &str) -> String {
        self.gateway.exchange(request(cookie, path))
    }

    /// Status of the page, and the access token that the application got.
    fn page(&self, cookie: &str) -> (u16, String) {
        let answer = self.get(cookie, "/");
        let token =
            answer.split_once("\r\n\r\n").and_then(|(_, seen)| field(seen, "x-forwarded-access-token"));
        (status(&answer), token.unwrap_or_default().to_owned())
    }

    /// Status of a page of an application that gets no access token.
    fn tokenless(&self, cookie: &str) -> u16 {
        status(&self.get(cookie, "/admin"))
    }

    fn op(&self) -> std::sync::MutexGuard<'_, Op> {
        self.op.lock().unwrap()
    }

    fn script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.op().script);
    }

    fn advance(&self, secs: u64) {
        self.clock.advance(Duration::from_secs(secs));
    }

    fn refreshes(&self) -> usize {
        self.op().refreshes
    }

    fn wait_for(&self, what: &str, holds: impl Fn(&Op) -> bool) {
        let begun = Instant::now();
        while !holds(&self.op()) {
            assert!(begun.elapsed() < PATIENCE, "{what}");
            thread::yield_now();
        }
    }
}

fn request(cookie: &str, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: app.test\r\nAccept: text/html\r\nSec-Fetch-Mode: navigate\r\n\
         Sec-Fetch-Dest: document\r\n{cookie}Connection: close\r\n\r\n"
    )
}

fn serve(op: &Mutex<Op>, connection: &mut Client, head: &str) {
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let len = field(head, "content-length").map_or(0, |len| len.parse().unwrap());
    let body = connection.read_exactly(len);
    let (status, document) = op.lock().unwrap().document(&path, head, &body);
    if path == "/token" {
        let waits = op.lock().unwrap().hold.take();
        if let Some((arrived, go_on)) = waits {
            arrived.send(()).unwrap();
            go_on.recv_timeout(PATIENCE).unwrap();
        }
        if op.lock().unwrap().script.silent {
            connection.stream().shutdown(Shutdown::Both).unwrap();
            return;
        }
    }
    connection.answer(status, "Content-Type: application/json\r\n", &document);
}

impl Scene {
    /// The next refresh waits: tells when it came, and goes on when told.
    fn hold(&self) -> (Receiver<()>, Sender<()>) {
        let (arrived, has_arrived) = channel();
        let (go_on, may_go_on) = channel();
        self.op().hold = Some((arrived, may_go_on));
        (has_arrived, go_on)
    }

    /// A client whose request waits for a refresh that is held.
    fn wait_in_a_refresh(&self, cookie: &str) -> (Client, Sender<()>) {
        let (arrived, go_on) = self.hold();
        let mut client = self.gateway.connect();
        client.send(request(cookie, "/"));
        arrived.recv_timeout(PATIENCE).unwrap();
        (client, go_on)
    }
}

#[test]
fn conformance_refresh_token() {
    let scene = Scene::new();
    let cookie = scene.sign_in();
    assert_eq!(scene.page(&cookie), (200, "access 0".to_owned()));
    assert_eq!(scene.refreshes(), 0, "a good token is let be");
    scene.advance(LIFE);
    assert_eq!(scene.page(&cookie), (200, "access 1".to_owned()));
    assert_eq!(scene.op().userinfos, ["Bearer access 1"], "userinfo with the new token");
    scene.advance(LIFE);
    assert_eq!(scene.page(&cookie), (200, "access 2".to_owned()), "with the rotated token");
    assert_eq!((scene.refreshes(), scene.op().is_reused), (2, false));
}

#[test]
fn rf_160_of_fifty_requests_at_its_end_one_refreshes_and_all_are_served() {
    let scene = Scene::new();
    let cookie = scene.sign_in();
    scene.advance(LIFE);
    let answers: Vec<_> = thread::scope(|scope| {
        let requests: Vec<_> = (0..50).map(|_| scope.spawn(|| scene.page(&cookie))).collect();
        requests.into_iter().map(|request| request.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| *answer == (200, "access 1".to_owned())), "{answers:?}");
    assert_eq!((scene.refreshes(), scene.op().is_reused), (1, false));
}

#[test]
fn a_token_that_is_still_good_is_refreshed_behind_the_request() {
    let scene = Scene::new();
    let cookie = scene.sign_in();
    scene.advance(LIFE - 30);
    let (arrived, go_on) = scene.hold();
    assert_eq!(scene.page(&cookie), (200, "access 0".to_owned()), "it does not wait");
    arrived.recv_timeout(PATIENCE).unwrap();
    assert_eq!(scene.page(&cookie), (200, "access 0".to_owned()), "nor does the next one");
    go_on.send(()).unwrap();
    let begun = Instant::now();
    while scene.page(&cookie).1 != "access 1" {
        assert!(begun.elapsed() < PATIENCE);
    }
    assert_eq!(scene.refreshes(), 1);
}

#[test]
fn rf_167_groups_that_are_taken_away_count_from_the_refresh_on() {
    let scene = Scene::new();
    let cookie = scene.sign_in();
    assert_eq!(status(&scene.get(&cookie, "/admin")), 200);
    scene.script(|script| script.groups = vec!["staff"]);
    assert_eq!(status(&scene.get(&cookie, "/admin")), 200, "until then");
    scene.advance(LIFE);
    assert_eq!(status(&scene.get(&cookie, "/admin")), 403);
    let page = scene.get(&cookie, "/");
    assert_eq!(field(page.split_once("\r\n\r\n").unwrap().1, "x-forwarded-groups"), Some("staff"));
}

#[test]
fn rf_167_userinfo_that_says_nothing_leaves_no_groups_behind_and_an_outage_does() {
    let large = json!({ "sub": "alice", "groups": ["admins"], "x": "x".repeat(4 << 20) }).to_string();
    let rows = [
        ("down", "500 Internal Server Error", "{}".to_owned(), 200),
        ("busy", "429 Too Many Requests", "{}".to_owned(), 200),
        ("too large", "200 OK", large, 403),
        ("no object", "200 OK", "[]".to_owned(), 403),
        ("no groups", "200 OK", json!({ "sub": "alice" }).to_string(), 403),
        ("refused", "401 Unauthorized", "{}".to_owned(), 403),
        ("gone", "404 Not Found", "{}".to_owned(), 403),
        ("of somebody else", "200 OK", json!({ "sub": "bob", "groups": ["admins"] }).to_string(), 302),
    ];
    for (name, status, answer, wanted) in rows {
        let scene = Scene::new();
        let cookie = scene.sign_in();
        scene.script(|script| script.userinfo = Some((status, answer)));
        scene.advance(LIFE);
        assert_eq!(scene.tokenless(&cookie), wanted, "{name}");
        assert_eq!(scene.refreshes(), 1, "{name}");
    }
}

#[test]
fn rf_163_a_token_that_the_provider_ended_ends_the_session() {
    let scene = Scene::new();
    let cookie = scene.sign_in();
    scene.script(|script| script.answer = Some(("400 Bad Request", "{\"error\":\"invalid_grant\"}")));
    scene.advance(LIFE);
    for _ in 0..3 {
        assert_eq!(scene.page(&cookie).0, 302, "to sign-in");
    }
    assert_eq!(scene.refreshes(), 1);
}

#[test]
fn rf_163_an_outage_or_another_refusal_keeps_the_session_and_holds_off() {
    let rows = [
        ("500", "500 Internal Server Error", "{}"),
        ("429", "429 Too Many Requests", "{}"),
        ("the client", "401 Unauthorized", "{\"error\":\"invalid_client\"}"),
        (
            "words",
            "400 Bad Request",
            "{\"error\":\"invalid_request\",\"error_description\":\"invalid_grant\"}",
        ),
    ];
    for (name, status, answer) in rows {
        let scene = Scene::new();
        let cookie = scene.sign_in();
        scene.script(|script| script.answer = Some((status, answer)));
        scene.advance(LIFE);
        for _ in 0..3 {
            assert_eq!(scene.tokenless(&cookie), 200, "{name}: the session lives");
            let page = scene.get(&cookie, "/");
            let told = (super::support::status(&page), field(&page, "retry-after"));
            assert_eq!(told, (503, Some("5")), "{name}: no token is promised that is over");
        }
        assert_eq!(scene.refreshes(), 1, "{name}: the next try waits");
        scene.advance(5);
        assert_eq!(scene.page(&cookie).0, 503);
        assert_eq!(scene.refreshes(), 2, "{name}: after five seconds");
        scene.script(|script| script.answer = None);
        scene.advance(9);
        scene.page(&cookie);
        assert_eq!(scene.refreshes(), 2, "{name}: not yet, after the second failure");
        scene.advance(1);
        assert_eq!(scene.page(&cookie), (200, "access 3".to_owned()), "{name}: it is well again");
    }
}

#[test]
fn rf_163_an_answer_that_is_lost_is_never_asked_for_again_and_the_session_lives() {
    let scene = Scene::new();
    let cookie = scene.sign_in();
    scene.script(|script| script.silent = true);
    scene.advance(LIFE);
    assert_eq!(scene.page(&cookie).0, 503);
    scene.script(|script| script.silent = false);
    for _ in 0..5 {
        scene.advance(LIFE);
        assert_eq!(scene.tokenless(&cookie), 200, "without a token it goes on");
        assert_eq!(scene.page(&cookie).0, 302, "a sign-in brings one");
    }
    assert_eq!(scene.tokenless(&cookie), 200, "the session was not ended by that");
    assert_eq!((scene.refreshes(), scene.op().is_reused), (1, false));
}

#[test]
fn a_lost_answer_is_asked_for_again_within_the_grace_of_the_provider() {
    let scene = Scene::with("refresh_reuse_grace = \"30s\"");
    let cookie = scene.sign_in();
    scene.script(|script| (script.silent, script.rotates) = (true, false));
    scene.advance(LIFE);
    assert_eq!(scene.page(&cookie).0, 503);
    scene.script(|script| (script.silent, script.rotates) = (false, true));
    scene.advance(5);
    assert_eq!(scene.page(&cookie), (200, "access 2".to_owned()));
}

#[test]
fn a_gateway_that_was_killed_in_the_middle_leaves_a_session_that_lives() {
    let scene = Scene::new();
    let cookie = scene.sign_in_as(|session| session.refresh_sent_at = Some(NOW));
    scene.advance(LIFE);
    assert_eq!((scene.tokenless(&cookie), scene.page(&cookie).0), (200, 302));
    assert_eq!(scene.refreshes(), 0, "what may be spent is not sent");
}

#[test]
fn rf_164_a_refreshed_id_token_of_somebody_else_ends_the_session() {
    let rows: [(&str, Change); 6] = [
        ("conformance_refresh_token_invalid_sub", |claims| claims["sub"] = json!("alice1")),
        ("conformance_refresh_token_invalid_issuer", |claims| claims["iss"] = json!("https://op.test1")),
        ("another audience", |claims| claims["aud"] = json!("other")),
        ("another nonce", |claims| claims["nonce"] = json!("m")),
        ("expired", |claims| claims["exp"] = json!(1)),
        ("no subject", |claims| drop(claims.as_object_mut().unwrap().remove("sub"))),
    ];
    for (name, change) in rows {
        let scene = Scene::new();
        let cookie = scene.sign_in();
        scene.script(|script| script.id_token = Some(change));
        scene.advance(LIFE);
        assert_eq!(scene.page(&cookie).0, 302, "{name}");
        assert_eq!(scene.page(&cookie).0, 302, "{name}");
        assert_eq!((scene.refreshes(), scene.op().userinfos.len()), (1, 0), "{name}: no userinfo");
        scene.wait_for("what came is taken back", |op| op.revoked.len() == 1);
    }
}

#[test]
fn rf_166_without_new_tokens_the_old_ones_stay() {
    let scene = Scene::new();
    let cookie = scene.sign_in();
    scene.script(|script| (script.id_token, script.rotates) = (None, false));
    for number in 1..4 {
        scene.advance(LIFE);
        assert_eq!(scene.page(&cookie), (200, format!("access {number}")));
        assert_eq!(status(&scene.get(&cookie, "/admin")), 200, "the groups of userinfo");
    }
    assert_eq!(scene.refreshes(), 3);
}

#[test]
fn rf_168_odd_lives_cause_no_storm() {
    for life in [json!(null), json!(0), json!(-1), json!("60"), json!(1e300), json!([])] {
        let scene = Scene::new();
        let cookie = scene.sign_in();
        scene.script(|script| script.expires_in = life.clone());
        scene.advance(LIFE);
        for _ in 0..9 {
            assert_eq!(scene.page(&cookie), (200, "access 1".to_owned()), "{life}");
            scene.advance(1);
        }
        assert_eq!(scene.refreshes(), 1, "{life}");
    }
    let scene = Scene::new();
    let cookie = scene.sign_in();
    scene.script(|script| script.expires_in = json!(1));
    scene.advance(LIFE);
    for _ in 0..30 {
        assert_eq!(scene.page(&cookie).0, 200);
        scene.advance(1);
    }
    assert!(scene.refreshes() <= 4, "{} in half a minute", scene.refreshes());
}

#[test]
fn a_client_that_hangs_up_does_not_end_the_refresh() {
    let scene = Scene::new();
    let cookie = scene.sign_in();
    scene.advance(LIFE);
    let (client, go_on) = scene.wait_in_a_refresh(&cookie);
    drop(client);
    go_on.send(()).unwrap();
    scene.wait_for("userinfo is asked with what came", |op| !op.userinfos.is_empty());
    assert_eq!(scene.page(&cookie), (200, "access 1".to_owned()));
    assert_eq!((scene.refreshes(), scene.op().is_reused), (1, false));
}

#[test]
fn a_sign_out_in_the_middle_of_a_refresh_stays_a_sign_out() {
    let scene = Scene::new();
    let cookie = scene.sign_in();
    scene.advance(LIFE);
    let (mut client, go_on) = scene.wait_in_a_refresh(&cookie);
    let shared = Arc::clone(scene.gateway.gateway.shared());
    let page = shared.runtime.block_on(shared.store.list(None, 10)).unwrap();
    let keys: Vec<StoreKey> = page.records.iter().map(|stored| stored.record.key).collect();
    assert_eq!(keys.len(), 1);
    shared.runtime.block_on(shared.sessions.end(keys[0])).unwrap();
    go_on.send(()).unwrap();
    assert_eq!(status(&client.read_all()), 302);
    assert_eq!(scene.page(&cookie).0, 302);
    scene.wait_for("what came is taken back", |op| op.revoked.len() == 1);
}

#[test]
fn a_session_without_a_refresh_token_lives_by_its_own_lifetime() {
    let scene = Scene::new();
    let cookie = scene.sign_in_as(|session| session.refresh_token = None);
    assert_eq!(scene.page(&cookie), (200, "access 0".to_owned()));
    scene.advance(10 * LIFE);
    assert_eq!((scene.tokenless(&cookie), scene.page(&cookie).0), (200, 302));
    assert_eq!(scene.refreshes(), 0);
}
