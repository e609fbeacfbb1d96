//! What must be seen nowhere: every secret of a gateway's busy day, looked for in all that it tells.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis::random::random_bytes;
use portcullis::session::Key;
use serde_json::json;
use url::Url;

use crate::support::browser::{Browser, Page};
use crate::support::certified_provider::{AWKWARD_SECRET, CertifiedProvider};
use crate::support::client::{Place, Request, Response};
use crate::support::gateway::{Gateway, WIKI};
use crate::support::scripted_provider::{Call, ScriptedProvider};
use crate::support::upstream::{Echo, Upstream};
use crate::support::wait_for;

const PAGE: &str = "https://wiki.test/page?secret-in-the-query=4711-0815";
const IN_QUERY: &str = "4711-0815";
const BACK_CHANNEL: &str = "/oauth2/backchannel_logout";

/// Parameters on the way to the provider and back that are worth something to who finds them.
const SENSITIVE: [&str; 6] = ["state", "nonce", "code", "code_challenge", "id_token_hint", "request_uri"];

/// Shorter ones would be found by chance.
const SHORTEST: usize = 8;

/// Who reads the beginning of a long secret has read too much already.
const BEGINNING: usize = 20;

/// What the sources of a leak had: the secrets of this day, and all that was told meanwhile.
struct Day {
    upstream: Upstream,
    provider: ScriptedProvider,
    gateway: Gateway,
    secrets: Vec<String>,
    bodies: Vec<(String, String)>,
}

impl Day {
    fn begin() -> Self {
        let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
        let mut entry = provider.entry();
        entry.more.push_str("userinfo = true\n");
        let builder = Gateway::in_front_of(&upstream)
            .path("/api", &upstream, "forward_access_token = true")
            .path("/public", &upstream, "access = \"public\"")
            .log_level("trace");
        let key = Key::from_bytes(random_bytes().unwrap()).to_text();
        let file = builder.file("session_key", key.expose());
        let gateway = builder
            .session(&format!("keys = [{{ file = \"{}\" }}]\n", file.display()))
            .provider(entry)
            .start();
        let admin_token = std::fs::read_to_string(gateway.data_dir().join("admin.token")).unwrap();
        let secrets = vec![AWKWARD_SECRET.into(), key.expose().trim().into(), admin_token.trim().into()];
        Self { upstream, provider, gateway, secrets, bodies: Vec::new() }
    }

    fn secret(&mut self, text: &str) -> String {
        self.secrets.push(text.to_owned());
        text.to_owned()
    }

    /// What people read, and what the gateway sent them to.
    fn note(&mut self, page: &Page) {
        for (url, response) in &page.hops {
            let sensitive = url.query_pairs().filter(|(name, _)| SENSITIVE.contains(&&**name));
            self.secrets.extend(sensitive.map(|(_, value)| value.into_owned()));
            if url.host_str() == Some(WIKI) {
                self.note_answer(url.path(), response);
            }
        }
    }

    fn note_answer(&mut self, what: &str, response: &Response) {
        self.bodies.push((what.to_owned(), response.text()));
    }

    fn open(&mut self, browser: &mut Browser, url: &str) -> Page {
        let page = browser.open(url);
        self.note(&page);
        self.secrets.extend(browser.jar.of(WIKI).iter().map(|cookie| cookie.value.clone()));
        page
    }

    fn ask(&mut self, request: &Request) -> Response {
        let response = self.gateway.request(request);
        self.note_answer("a single request", &response);
        response
    }

    fn sign_in_and_work(&mut self) -> Browser {
        let mut browser = Browser::new(&self.gateway);
        assert_eq!(self.open(&mut browser, PAGE).status(), 200);
        assert!(Echo::of(&browser.get("https://wiki.test/api")).one("x-forwarded-access-token").is_some());
        let basic = self.secret(&STANDARD.encode("alice:correct horse"));
        let request = Request::get("/page").with("Authorization", &format!("Basic {basic}"));
        assert_eq!(browser.fetch(PAGE, request).status, 200);
        assert_eq!(browser.get("https://wiki.test/oauth2/userinfo").status, 200);
        browser
    }

    /// A failed sign-in has more to say than one that works.
    fn fail_to_sign_in(&mut self) {
        self.provider.alter_claims(|claims| claims["nonce"] = "a nonce of another attempt".into());
        self.open(&mut Browser::new(&self.gateway), PAGE);
        self.provider.behave();
        let description = self.secret("swordfish-in-an-error");
        self.provider.alter_answer(Call::Token, move |answer| {
            answer.status = 400;
            answer.body =
                json!({ "error": "invalid_grant", "error_description": description }).to_string().into();
        });
        self.open(&mut Browser::new(&self.gateway), PAGE);
        let body = self.secret("swordfish-in-a-body");
        self.provider.alter_answer(Call::Token, move |answer| {
            answer.body = format!("{{\"access_token\":\"{body}\",\"token_type\":[]}}").into_bytes();
        });
        self.open(&mut Browser::new(&self.gateway), PAGE);
        self.provider.behave();
        self.provider.alter_answer(Call::Userinfo, |answer| {
            answer.body = b"{\"sub\":\"somebody-else-4711\"}".to_vec();
        });
        self.open(&mut Browser::new(&self.gateway), PAGE);
        self.provider.behave();
    }

    fn replay_the_callback(&mut self, browser: &mut Browser) {
        let page = self.open(&mut Browser::new(&self.gateway), PAGE);
        let callback = page.hop("https://wiki.test/oauth2/callback").0.clone();
        self.open(browser, callback.as_str());
        self.open(&mut Browser::new(&self.gateway), callback.as_str());
        let code = self.secret("a-code-that-nobody-gave");
        self.ask(&Request::get(&format!("/oauth2/callback?code={code}&state=a-made-up-state-of-22-chars")));
    }

    /// What breaks rules on its way in: each has a secret where a careless line would print it.
    fn break_rules(&mut self) {
        let cookie = self.secret("a-cookie-that-was-broken-on-the-way");
        let token = self.secret("a-bearer-token-in-a-query");
        let cookies = format!("__Host-portcullis={cookie}; __Host-portcullis=x");
        for target in ["/page", "/oauth2/sign_in", "/oauth2/userinfo", "/api"] {
            self.ask(&Request::get(target).with("Cookie", &cookies));
        }
        let large = format!("__Host-portcullis={cookie}{}", "a".repeat(70_000));
        self.ask(&Request::get("/page").with("Cookie", &large));
        for target in ["/a//b", "/a/../b", "/a;b", "/%zz", "/page"] {
            let request = Request::get(&format!("{target}?access_token={token}"));
            self.ask(&request.with("Authorization", &format!("Bearer {token}")));
        }
        self.ask(&Request::new("TRACE", &format!("/page?access_token={token}")));
        self.ask(&Request::get(&format!("/page?access_token={token}{}", "a".repeat(9_000))));
        let unknown = Request::get(&format!("/page?access_token={token}")).with("Host", "unknown.test");
        let unknown = self.gateway.place(WIKI).request(&unknown);
        self.note_answer("an unknown host", &unknown);
    }

    fn hear_logouts(&mut self) {
        let good = self.provider.logout_token(|_, claims| claims["sub"] = "nobody-here".into());
        let bad = self.provider.logout_token(|_, claims| claims["aud"] = "another-client".into());
        for token in [good.clone(), good, bad, "no-token-but-secret-all-the-same".to_owned()] {
            let form = [("logout_token".to_owned(), self.secret(&token))];
            self.ask(&Request::new("POST", BACK_CHANNEL).with_form(&form));
        }
    }

    /// An application that answers badly, and one that is gone.
    fn fail_upstream(&mut self, browser: &mut Browser) {
        let inside = self.secret("a-secret-of-the-application");
        let broken = format!("HTTP/1.1 200 OK\r\nX: a\0{inside}\r\nContent-Length: x{inside}\r\n\r\n");
        self.upstream.answers("/broken", broken.as_bytes());
        let answer = browser.get(&format!("https://wiki.test/broken?{IN_QUERY}"));
        assert_eq!(answer.status, 502);
        self.note_answer("a broken application", &answer);
        self.upstream.stop();
        let answer = browser.get(PAGE);
        assert_eq!(answer.status, 502);
        self.note_answer("an application that is gone", &answer);
    }

    fn administer(&mut self) {
        let wrong = self.secret("not-the-token-of-this-gateway");
        let backup = |token: &str| {
            Request::new("POST", "/backup")
                .with("Host", &self.gateway.admin_address().to_string())
                .with("Authorization", &format!("Bearer {token}"))
        };
        let answers =
            [self.gateway.ask_admin(&backup(&wrong)), self.gateway.ask_admin(&backup(&self.secrets[2]))];
        assert_eq!(answers.map(|answer| answer.status), [401, 200]);
        for path in ["/metrics", "/readyz", "/healthz", "/nothing"] {
            let answer = self.gateway.admin(path);
            self.note_answer(path, &answer);
        }
        for command in ["check", "doctor", "keys"] {
            let list: &[&str] = if command == "keys" { &["list"] } else { &[] };
            let output =
                portcullis().arg(command).args(list).arg("--config").arg(self.gateway.config_file()).output();
            let output = output.unwrap();
            let printed = [output.stdout, output.stderr].concat();
            assert!(!printed.is_empty(), "{command} prints something");
            self.bodies.push((command.to_owned(), String::from_utf8(printed).unwrap()));
        }
    }

    fn sign_out(&mut self, browser: &mut Browser) {
        let out = browser.post("https://wiki.test/oauth2/sign_out", PAGE);
        let location = Url::parse(out.field("location").unwrap()).unwrap();
        let sensitive = location.query_pairs().filter(|(name, _)| SENSITIVE.contains(&&**name));
        self.secrets.extend(sensitive.map(|(_, value)| value.into_owned()));
        self.gateway.wait_for_log(&["\"event\":\"sign_out\""]);
    }

    /// Every secret, and the beginning of each long one.
    fn all_secrets(&self) -> Vec<String> {
        let given = [self.secrets.clone(), self.provider.issued(), self.provider.received()].concat();
        let mut all: Vec<_> = given.into_iter().filter(|secret| secret.len() >= SHORTEST).collect();
        let beginnings: Vec<_> = all
            .iter()
            .filter(|secret| is_random(secret))
            .filter_map(|secret| secret.get(..BEGINNING).map(str::to_owned))
            .collect();
        all.extend(beginnings);
        all
    }
}

/// Tokens that we made up begin alike; drawn ones and signatures don't begin like any word.
fn is_random(secret: &str) -> bool {
    // The beginning of a JWT is its header, which all of a key have in common and which is no secret.
    secret.len() >= 2 * BEGINNING && secret.is_ascii() && !secret.contains('-') && !secret.starts_with("eyJ")
}

fn portcullis() -> Command {
    Command::new(env!("CARGO_BIN_EXE_portcullis"))
}

#[test]
fn ax_236_no_secret_is_in_any_log_page_or_metric_at_any_level() {
    let mut day = Day::begin();
    let mut browser = day.sign_in_and_work();
    day.fail_to_sign_in();
    day.replay_the_callback(&mut browser);
    day.break_rules();
    day.hear_logouts();
    day.administer();
    let mut other = day.sign_in_and_work();
    day.sign_out(&mut browser);
    day.fail_upstream(&mut other);

    let log = day.gateway.log();
    assert!(log.len() > 50 && day.bodies.len() > 40, "{} lines, {} bodies", log.len(), day.bodies.len());
    let secrets = day.all_secrets();
    assert!(secrets.len() > 60, "{} secrets", secrets.len());
    for secret in &secrets {
        let line = log.iter().find(|line| line.contains(secret.as_str()));
        assert_eq!(line, None, "{secret} in the log");
        // An application's own page may show what the application was told.
        let body = day.bodies.iter().find(|(_, body)| !is_echo(body) && body.contains(secret.as_str()));
        assert_eq!(body, None, "{secret} in a page");
    }
    assert_eq!(log.iter().find(|line| line.contains(IN_QUERY)), None, "queries are not logged");
}

/// Whether a body is the application's, which tells the head of its request.
fn is_echo(body: &str) -> bool {
    body.starts_with("{\"body") || body.starts_with("{\"line") || body.starts_with("{\"connection")
}

#[test]
fn ax_236_tokens_that_a_refresh_brings_are_in_no_log() {
    let (upstream, provider) = (Upstream::start(), CertifiedProvider::builder().refresh_tokens(10).start());
    let gateway = Gateway::in_front_of(&upstream)
        .path("/api", &upstream, "forward_access_token = true")
        .log_level("trace")
        .provider(provider.entry())
        .start();
    let mut browser = Browser::new(&gateway);
    browser.sign_in(PAGE, "alice");
    let token = |browser: &mut Browser| {
        let echo = Echo::of(&browser.get("https://wiki.test/api"));
        echo.one("x-forwarded-access-token").expect("an access token").to_owned()
    };
    let first = token(&mut browser);
    let second = wait_for("a refresh", || Some(token(&mut browser)).filter(|token| *token != first));
    gateway.wait_for_log(&["\"event\":\"refresh\""]);
    for token in [first, second] {
        assert_eq!(gateway.log().iter().find(|line| line.contains(&token)), None);
    }
}

/// Ends with its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the shell that starts a program would allow, as a service manager may.
static WITH_CORE_DUMPS: LazyLock<String> = LazyLock::new(|| {
    format!("ulimit -c unlimited 2>/dev/null; exec {} run --config \"$0\"", env!("CARGO_BIN_EXE_portcullis"))
});

#[test]
fn ax_240_the_process_leaves_no_core_dump_and_shows_no_secret_of_its_own() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let prepared = Gateway::in_front_of(&upstream).provider(provider.entry()).prepare();
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", &WITH_CORE_DUMPS]).arg(prepared.config_file()).current_dir(folder.path());
    let mut process = Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let pid = process.0.id();
    let about = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let admin = Place::plain(prepared.admin_address());
    wait_for("the gateway to be ready", || admin.connect().ok());
    for file in ["cmdline", "environ", "comm"] {
        let text = String::from_utf8_lossy(&about(file)).into_owned();
        assert!(!text.contains(AWKWARD_SECRET), "{file}: {text}");
    }
    let limits = String::from_utf8(about("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
    let killed = Command::new("kill").args(["-ABRT", &pid.to_string()]).status().unwrap();
    assert!(killed.success());
    let status = process.0.wait().unwrap();
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false), "{status}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}
