//! A real browser: Chromium over https, `__Host-` cookies, the pages that people see.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use url::Url;

use crate::support::browser::Browser;
use crate::support::certificate::Authority;
use crate::support::certified_provider::CertifiedProvider;
use crate::support::gateway::Gateway;
use crate::support::node::Program;
use crate::support::scripted_provider::{Call, ScriptedProvider};
use crate::support::upstream::Upstream;
use crate::support::{ports, wait_for};

/// `*.localhost` is loopback for every browser, without any resolver.
const HOST: &str = "wiki.localhost";

/// Has Chromium go through a scenario of `tests/node/browser.mjs`.
fn browse(scenario: &str, mut task: Value) -> Value {
    task["scenario"] = json!(scenario);
    task["chromium"] = json!(chromium());
    task["screenshots"] = json!(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots"));
    let result = Program::start("browser.mjs").ask(&task);
    assert_eq!(result["error"], Value::Null, "{}", result["error"].as_str().unwrap_or_default());
    result
}

/// The Chromium that `./dev` found, or the one of Debian.
#[expect(clippy::disallowed_methods, reason = "./dev tells the tests by an environment variable")]
fn chromium() -> PathBuf {
    std::env::var("PORTCULLIS_TEST_CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".into()).into()
}

fn cookie<'a>(cookies: &'a Value, name: &str) -> Option<&'a Value> {
    cookies.as_array()?.iter().find(|cookie| cookie["name"] == name)
}

/// The value of a field in what the application told.
fn told<'a>(echo: &'a Value, name: &str) -> Option<&'a str> {
    let fields = echo["fields"].as_array()?;
    let field =
        fields.iter().find(|field| field[0].as_str().is_some_and(|key| key.eq_ignore_ascii_case(name)));
    field?[1].as_str()
}

#[test]
fn the_demo_works_in_a_browser_from_its_start_to_sign_out() {
    let port = ports::free();
    // A demo that is killed leaves its configuration behind.
    let folder = tempfile::tempdir().unwrap();
    let demo = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["demo", "--port", &port.to_string()])
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut demo = KilledAtTheEnd(demo.expect("the binary starts"));
    let origin = format!("http://localhost:{port}");
    let mut greeting = BufReader::new(demo.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(greeting.any(|line| line.contains(&origin)), "the URL is printed");
    wait_for("the demo to listen", || TcpStream::connect(("127.0.0.1", port)).ok());

    let seen = browse("demo", json!({ "origin": origin }));
    let text = |name: &str| seen[name].as_str().unwrap_or_else(|| panic!("{name} in {seen}")).to_owned();
    let has = |name: &str, piece: &str| assert!(text(name).contains(piece), "{name}: {}", text(name));
    assert_eq!(seen["url"], json!(format!("{origin}/")));
    has("application", "Hello, Alice");
    has("application", "x-forwarded-user");
    has("admin", "Hello, Bob");
    has("public", "No identity header");
    has("forbidden", "group_missing");
    has("optional", "Hello, Bob");
    has("refused", "login_denied");
    for page in ["provider", "application", "public", "signedOut", "forbidden", "refused"] {
        assert!(text(page).to_lowercase().contains("demo"), "{page} says that it is a demo: {}", text(page));
    }
    assert!(cookie(&seen["cookies"], "portcullis").is_some_and(|cookie| cookie["httpOnly"] == true));
}

struct KilledAtTheEnd(Child);

impl Drop for KilledAtTheEnd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn two_tabs_sign_in_over_https_at_a_certified_provider_and_out_of_both() {
    two_tabs_sign_in_and_out("", "GET");
}

/// The browser decides which cookies a POST of the provider's page brings.
#[test]
fn two_tabs_sign_in_by_form_post_and_out_of_both() {
    two_tabs_sign_in_and_out("response_mode = \"form_post\"\n", "POST");
}

fn two_tabs_sign_in_and_out(provider_lines: &str, method: &str) {
    let authority = Authority::new();
    let upstream = Upstream::start();
    let builder = Gateway::empty().tls(&[HOST]);
    let origin = format!("https://{HOST}:{}", builder.address().port());
    let mut provider =
        CertifiedProvider::builder().tls(&authority.issue(&["localhost"])).host(&origin).start();
    let ca_file = builder.file("provider-ca.pem", &authority.pem());
    let mut entry = provider.entry();
    entry.more = format!("{}{provider_lines}ca_file = \"{}\"\n", entry.more, ca_file.display());
    let gateway = builder
        .route(&format!("host = \"{HOST}\"\nupstream = \"{}\"", upstream.url()))
        .config(&format!("[[host]]\nname = \"{HOST}\"\npublic_url = \"{origin}\""))
        .provider(entry)
        .start();

    let seen = browse("two_tabs", json!({ "origin": origin, "paths": ["/one?a=1", "/two?b=2"] }));
    assert_eq!(seen["landed"], json!([format!("{origin}/one?a=1"), format!("{origin}/two?b=2")]));
    for echo in seen["told"].as_array().unwrap() {
        assert_eq!(told(echo, "x-forwarded-user"), Some("alice"));
        assert_eq!(told(echo, "x-forwarded-groups"), Some("staff,wiki-admins"));
        assert_eq!(told(echo, "cookie"), None, "our cookies are not the application's");
    }
    assert_eq!((&seen["protocol"], &seen["socket"]), (&json!("h2"), &json!("hello")));
    let session = cookie(&seen["cookies"], "__Host-portcullis").expect("a session cookie");
    assert_eq!(
        (&session["secure"], &session["httpOnly"], &session["sameSite"], &session["path"]),
        (&json!(true), &json!(true), &json!("Lax"), &json!("/"))
    );
    let names: Vec<&str> =
        seen["cookies"].as_array().unwrap().iter().filter_map(|cookie| cookie["name"].as_str()).collect();
    assert_eq!(names.len(), 2, "attempts' cookies are gone: {names:?}");
    assert!(names.contains(&"__Host-portcullis-trips"), "{names:?}");
    assert!(seen["signedOut"].as_str().is_some_and(|heading| !heading.is_empty()));
    assert_eq!(seen["after"], "Certified provider: sign in", "the other tab is signed out as well");
    assert!(cookie(&seen["left"], "__Host-portcullis").is_none());
    gateway.wait_for_log(&["/oauth2/callback", &format!("\"method\":\"{method}\"")]);
    assert_eq!(provider.calls("token"), 2);
}

#[test]
fn the_pages_are_styled_accessible_and_need_no_script() {
    let upstream = Upstream::start();
    let provider = CertifiedProvider::start();
    let mut second = provider.entry_for("none");
    second.id = "second".into();
    second.more.push_str("name = \"The second provider\"\n");
    let builder = Gateway::empty().tls(&[HOST]);
    let origin = format!("https://{HOST}:{}", builder.address().port());
    let _gateway = builder
        .route(&format!("host = \"{HOST}\"\nupstream = \"{}\"", upstream.url()))
        .config(&format!("[[host]]\nname = \"{HOST}\"\npublic_url = \"{origin}\""))
        .provider(provider.entry())
        .provider(second)
        .start();
    let paths = json!({
        "sign-in": "/oauth2/sign_in?rd=/page",
        "signed-out": "/oauth2/signed_out",
        "error": "/oauth2/callback?state=x&code=y",
        "not-found": "/oauth2/nothing",
    });
    let seen = browse("pages", json!({ "origin": origin, "paths": paths }));
    let pages = seen["seen"].as_array().unwrap();
    assert_eq!(pages.len(), 4);
    for page in pages {
        let name = &page["name"];
        assert_eq!(page["errors"], json!([]), "{name}: the Content-Security-Policy stops something");
        assert_eq!((&page["headings"], &page["main"]), (&json!(1), &json!(1)), "{name}");
        assert_eq!((&page["lang"], &page["scripts"]), (&json!("en"), &json!(0)), "{name}");
        assert_eq!((&page["styled"], &page["overflows"]), (&json!(true), &json!(false)), "{name}");
        assert!(page["title"].as_str().is_some_and(|title| !title.is_empty()), "{name}");
    }
}

#[test]
fn ar_14_a_loop_ends_on_a_page_before_the_browser_gives_up() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let again = "HTTP/1.1 302 Found\r\nLocation: /oauth2/start?rd=/loop\r\nContent-Length: 0\r\n\r\n";
    upstream.answers("/loop", again.as_bytes());
    let builder = Gateway::empty().tls(&[HOST]);
    let origin = format!("https://{HOST}:{}", builder.address().port());
    let _gateway = builder
        .route(&format!("host = \"{HOST}\"\nupstream = \"{}\"", upstream.url()))
        .config(&format!("[[host]]\nname = \"{HOST}\"\npublic_url = \"{origin}\""))
        .provider(provider.entry())
        .start();
    let paths = json!({ "login-loop": "/loop" });
    let seen = browse("pages", json!({ "origin": origin, "paths": paths }));
    let page = &seen["seen"][0];
    assert_eq!(
        (&page["status"], &page["errors"], &page["overflows"]),
        (&json!(400), &json!([]), &json!(false))
    );
    let text = page["text"].as_str().unwrap_or_default();
    assert!(text.contains("login_loop") && text.contains("the application keeps asking"), "{text}");
}

#[test]
fn an_address_leads_a_browser_to_its_provider_at_another_site() {
    let authority = Authority::new();
    let upstream = Upstream::start();
    let builder = Gateway::empty().tls(&[HOST]);
    let origin = format!("https://{HOST}:{}", builder.address().port());
    let provider = CertifiedProvider::builder().tls(&authority.issue(&["localhost"])).host(&origin).start();
    let ca_file = builder.file("provider-ca.pem", &authority.pem());
    let ca_file = format!("ca_file = \"{}\"\n", ca_file.display());
    let (mut first, mut second) = (provider.entry(), provider.entry_for("none"));
    first.more = format!("{}{ca_file}name = \"Partners\"\nemail_domains = [\"partners.test\"]\n", first.more);
    second.id = "second".into();
    second.more = format!("{}{ca_file}name = \"Staff\"\n", second.more);
    let _gateway = builder
        .route(&format!("host = \"{HOST}\"\nupstream = \"{}\"", upstream.url()))
        .config(&format!("[[host]]\nname = \"{HOST}\"\npublic_url = \"{origin}\""))
        .provider(first)
        .provider(second)
        .start();
    let task = json!({
        "origin": origin,
        "path": "/page?a=1",
        "unknown": "alice@evil.test",
        "address": "alice@partners.test",
    });
    let seen = browse("by_address", task);
    assert_eq!(seen["landed"], json!(format!("{origin}/page?a=1")));
    assert_eq!(seen["errors"], json!([]), "the Content-Security-Policy stops something");
    assert_eq!((&seen["focused"], &seen["described"]), (&json!("email"), &json!("unknown")));
    assert!(seen["alert"].as_str().is_some_and(|text| text.contains("Check it, or choose below")));
    assert_eq!(seen["inspected"]["overflows"], json!(false));
    assert_eq!(seen["hinted"], json!(Url::parse(provider.issuer()).unwrap().origin().ascii_serialization()));
}

#[test]
fn a_browser_shows_the_logout_page_in_the_providers_frame_only() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let builder = Gateway::empty().tls(&[HOST]);
    let origin = format!("https://{HOST}:{}", builder.address().port());
    let mut entry = provider.entry();
    entry.more.push_str("frontchannel_logout = true\n");
    let gateway = builder
        .route(&format!("host = \"{HOST}\"\nupstream = \"{}\"", upstream.url()))
        .config(&format!("[[host]]\nname = \"{HOST}\"\npublic_url = \"{origin}\""))
        .provider(entry)
        .start();
    let mut alice = Browser::default();
    alice.finds(&origin, gateway.place(HOST));
    let application = format!("{origin}/page");
    assert_eq!(alice.open(&application).status(), 200);

    let issuer: String = url::form_urlencoded::byte_serialize(provider.issuer().as_bytes()).collect();
    let frame = |sid: &str| {
        format!("<iframe src=\"{origin}/oauth2/frontchannel_logout?iss={issuer}&amp;sid={sid}\"></iframe>")
    };
    let foreign = frame("another-session");
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n", foreign.len());
    upstream.answers("/frame", (answer + &foreign).as_bytes());
    let page = frame("provider-session-1");
    provider.alter_answer(Call::EndSession, move |answer| {
        answer.status = 200;
        answer.fields = vec![("Content-Type".to_owned(), "text/html".to_owned())];
        answer.body = page.clone().into_bytes();
    });

    let stopped = browse("pages", json!({ "origin": upstream.url(), "paths": { "frame": "/frame" } }));
    let errors = stopped["seen"][0]["errors"].as_array().unwrap();
    assert!(errors.iter().any(|error| error.as_str().unwrap().contains("frame-ancestors")), "{errors:?}");
    assert_eq!(alice.get(&application).status, 200, "nothing that was named is there");

    let shown =
        browse("pages", json!({ "origin": provider.issuer(), "paths": { "logout": "/end_session" } }));
    assert_eq!(shown["seen"][0]["errors"], json!([]));
    assert_eq!(alice.get(&application).status, 302, "the frame ended the session, without its cookie");
}
