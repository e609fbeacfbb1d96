//! The scene of the attack cases: hosts, routes and people, a client that speaks raw bytes, and what has
//! to hold after every case.

use std::cell::{Cell, RefCell};

use serde_json::{Value, json};

use super::DEADLINE;
use super::browser::Browser;
use super::client::{Connection, Response, status_of};
use super::gateway::{Builder, Gateway};
use super::scripted_provider::ScriptedProvider;
use super::upstream::{Echo, Upstream};

/// The host with a route of each kind.
pub const APP: &str = "app.test";
/// A host for the group `admins` alone.
pub const ADMIN: &str = "admin.test";
/// Another host.
pub const TENANT: &str = "tenantb.test";
/// A host of which only `/only` is anybody's.
pub const PARTIAL: &str = "partial.test";

const COOKIE: &str = "__Host-portcullis";
/// How the names of the gateway's cookies begin, in lower case.
const OUR_NAMES: &str = "__host-portcullis";

/// One gateway with one application behind all its routes:
///
/// - `app.test`: `/public` for anybody, `/opt` for anybody who is named if known, `/admin` for the group
///   `admins`, everything else signed in;
/// - `admin.test`: the group `admins`; `tenantb.test`: signed in; `partial.test`: `/only` for anybody.
///
/// When it is dropped it has to be alive, to have answered nothing with 5xx, to have shown nobody's
/// cookie to the application or the log, and no lax application may have served what it should not.
pub struct Rig {
    /// The application.
    pub upstream: Upstream,
    /// The provider, who says that anybody is who [`Rig::sign_in`] says.
    pub provider: ScriptedProvider,
    /// The gateway.
    pub gateway: Gateway,
    cookies: RefCell<Vec<String>>,
    fails: Cell<bool>,
}

impl Rig {
    /// In front of an application that tells what it got.
    pub fn echo() -> Self {
        Self::in_front_of(Upstream::start(), |builder, _| builder)
    }

    /// In front of an application that reads requests laxly.
    pub fn lax() -> Self {
        Self::in_front_of(Upstream::start_lax(), |builder, _| builder)
    }

    /// In front of this application, with more of a configuration.
    pub fn in_front_of(upstream: Upstream, more: impl FnOnce(Builder, &str) -> Builder) -> Self {
        let provider = ScriptedProvider::start();
        let url = upstream.url();
        let route = |host: &str, path: &str, lines: &str| {
            format!("host = \"{host}\"\npath = \"{path}\"\nupstream = \"{url}\"\n{lines}")
        };
        let admins = "require = { groups = [\"admins\"] }";
        let builder = Gateway::empty()
            .route(&route(APP, "/", ""))
            .route(&route(APP, "/public", "access = \"public\""))
            .route(&route(APP, "/opt", "access = \"optional\""))
            .route(&route(APP, "/admin", admins))
            .route(&route(ADMIN, "/", admins))
            .route(&route(TENANT, "/", ""))
            .route(&route(PARTIAL, "/only", "access = \"public\""))
            .provider(provider.entry());
        let gateway = more(builder, &url).start();
        Self { upstream, provider, gateway, cookies: RefCell::default(), fails: Cell::new(false) }
    }

    /// From now on the application fails on purpose, and answers of 5xx are right.
    pub fn lets_the_application_fail(&self) {
        self.fails.set(true);
    }

    /// Signs `alice` of the group `users` in on [`APP`]; gives the header line with her cookie.
    pub fn alice(&self) -> String {
        self.sign_in(APP, "alice", "users")
    }

    /// Signs `root` of the group `admins` in on [`APP`]; gives the header line with the cookie.
    pub fn root(&self) -> String {
        self.sign_in(APP, "root", "admins")
    }

    /// Signs somebody in on a host; gives the header line with the cookie.
    pub fn sign_in(&self, host: &str, user: &str, group: &str) -> String {
        self.sign_in_with(host, |claims| {
            claims["sub"] = json!(user);
            claims["groups"] = json!([group]);
        })
    }

    /// Signs somebody in on a host, with claims changed; gives the header line with the cookie.
    pub fn sign_in_with(&self, host: &str, change: impl Fn(&mut Value)) -> String {
        self.provider.claims(change);
        let mut browser = self.new_browser(host);
        let page = browser.open(&format!("https://{host}/signed-in"));
        assert!(matches!(page.status(), 200 | 403), "{:?}", page.urls());
        format!("Cookie: {COOKIE}={}\r\n", self.session_of(&browser, host))
    }

    /// A browser that finds a host here.
    pub fn new_browser(&self, host: &str) -> Browser {
        let mut browser = Browser::default();
        browser.finds(&format!("https://{host}"), self.gateway.place(host));
        browser
    }

    fn session_of(&self, browser: &Browser, host: &str) -> String {
        let value = browser.jar.get(host, COOKIE).expect("a session").value.clone();
        self.cookies.borrow_mut().push(value.clone());
        value
    }

    /// Sends bytes on a connection of their own.
    pub fn send(&self, bytes: impl AsRef<[u8]>) -> Connection {
        let mut connection = self.gateway.place(APP).connect().expect("the gateway accepts");
        connection.send(bytes.as_ref()).expect("the bytes can be sent");
        connection
    }

    /// Sends bytes, and reads the answer to the first request in them.
    pub fn ask(&self, bytes: impl AsRef<[u8]>) -> Response {
        let bytes = bytes.as_ref();
        let method = bytes.split(|&byte| byte == b' ').next().unwrap_or_default().to_vec();
        self.send(bytes).response_to(&String::from_utf8_lossy(&method))
    }

    /// Sends bytes that reach the application, and tells what it got.
    pub fn reach(&self, bytes: impl AsRef<[u8]>) -> Echo {
        Echo::of(&self.ask(bytes))
    }

    /// Sends bytes that are refused: one answer of 4xx, then the end; nothing reaches the application.
    pub fn refuse(&self, name: &str, bytes: impl AsRef<[u8]>) -> u16 {
        let hits = self.upstream.hits();
        let mut connection = self.send(bytes);
        let (status, head, framing) = connection.response_head("GET");
        framing.read_whole(connection.stream()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!((400..500).contains(&status), "{name}: {head:?}");
        assert!(connection.is_closed_within(DEADLINE), "{name}: goes on after {status}");
        assert_eq!(self.upstream.hits(), hits, "{name}: reached the application");
        status
    }

    /// Sends bytes whose first request does not pass: sign-in or 4xx, nothing reaches the application.
    pub fn deny(&self, name: &str, bytes: impl AsRef<[u8]>) -> u16 {
        let hits = self.upstream.hits();
        let mut connection = self.send(bytes);
        let head = connection.read_head().unwrap_or_else(|| panic!("{name}: no answer"));
        let status = status_of(&head);
        assert!(matches!(status, 302 | 303 | 400..500), "{name}: {head:?}");
        assert_eq!(self.upstream.hits(), hits, "{name}: reached the application");
        status
    }

    fn check(&self) {
        let alive = self.ask(format!("GET /public/alive HTTP/1.1\r\nHost: {APP}\r\n\r\n"));
        assert_eq!(alive.status, 200, "the gateway does not serve any more");
        assert_eq!(self.upstream.breaches(), Vec::<String>::new(), "served without right");
        for head in self.upstream.seen() {
            let cookies = head.all("cookie").join(";").to_ascii_lowercase();
            let mut names =
                cookies.split(';').map(|cookie| cookie.split('=').next().unwrap_or_default().trim());
            let is_ours = |name: &str| name == OUR_NAMES || name.starts_with(&format!("{OUR_NAMES}-"));
            assert!(!names.any(is_ours), "{head:?}");
        }
        for line in self.gateway.log() {
            let holds = |cookie: &String| line.contains(cookie.as_str());
            assert!(!self.cookies.borrow().iter().any(holds), "a cookie is in the log: {line}");
            assert!(self.fails.get() || !line.contains("\"status\":5"), "an answer of 5xx: {line}");
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.check();
        }
    }
}
