//! The harness itself: what the other topics rely on.

use serde_json::json;

use crate::support::browser::Browser;
use crate::support::certified_provider::CertifiedProvider;
use crate::support::client::{Place, Request};
use crate::support::cookie_jar::CookieJar;
use crate::support::form::{find_form, links};
use crate::support::server::{Exchange, Server};
use crate::support::upstream::{Echo, Upstream};
use std::sync::Arc;
use url::Url;

#[test]
fn the_application_tells_what_it_got_byte_for_byte() {
    let upstream = Upstream::start();
    let url = Url::parse(&upstream.url()).unwrap();
    let place = Place::plain(([127, 0, 0, 1], url.port().unwrap()).into());
    let request = Request::new("POST", "/a%20b?x=1")
        .with("Host", "h")
        .with("X_Odd.Name", "caf\u{e9}")
        .with_body(b"12345");
    let mut connection = place.connect().unwrap();
    let echo = Echo::of(&connection.request(&request));
    assert_eq!(echo.line, "POST /a%20b?x=1 HTTP/1.1");
    assert_eq!(echo.fields[1], ("X_Odd.Name".to_owned(), "caf\u{e9}".to_owned()));
    assert_eq!((echo.body_bytes, echo.connection, echo.hit), (5, 1, 1));
    let again = Echo::of(&connection.request(&Request::get("/").with("Host", "h")));
    assert_eq!((again.connection, again.hit), (1, 2));
}

#[test]
fn the_cookie_jar_refuses_what_a_browser_refuses() {
    let https = Url::parse("https://wiki.test/a/b").unwrap();
    let http = Url::parse("http://wiki.test/a/b").unwrap();
    let cases = [
        ("a plain cookie", &http, "a=1", true),
        ("Secure over http", &http, "a=1; Secure", false),
        ("__Host- as it should be", &https, "__Host-a=1; Secure; Path=/", true),
        ("__Host- without Secure", &https, "__Host-a=1; Path=/", false),
        ("__Host- with another path", &https, "__Host-a=1; Secure; Path=/a", false),
        ("__host- in small letters without a path", &https, "__host-a=1; Secure", false),
        ("__Host- with a domain", &https, "__Host-a=1; Secure; Path=/; Domain=wiki.test", false),
        ("__Secure- without Secure", &https, "__Secure-a=1", false),
        ("None without Secure", &https, "a=1; SameSite=None", false),
    ];
    for (name, url, field, accepted) in cases {
        let mut jar = CookieJar::default();
        jar.take(url, field);
        assert_eq!(
            (jar.of("wiki.test").len(), jar.rejected.len()),
            if accepted { (1, 0) } else { (0, 1) },
            "{name}"
        );
    }
}

#[test]
fn the_cookie_jar_sends_cookies_where_they_belong_and_forgets_deleted_ones() {
    let url = |text: &str| Url::parse(text).unwrap();
    let mut jar = CookieJar::default();
    jar.take(&url("https://wiki.test/a/b"), "deep=1; Path=/a; Secure; SameSite=Lax");
    jar.take(&url("https://wiki.test/"), "top=2; Path=/; SameSite=Lax");
    assert_eq!(jar.field(&url("https://wiki.test/a/c"), false).as_deref(), Some("deep=1; top=2"));
    assert_eq!(jar.field(&url("https://wiki.test/ab"), false).as_deref(), Some("top=2"));
    assert_eq!(jar.field(&url("http://wiki.test/a"), false).as_deref(), Some("top=2"));
    assert_eq!(jar.field(&url("https://other.test/a"), false), None);
    assert_eq!(jar.field(&url("https://wiki.test/a"), true), None);
    jar.take(&url("https://wiki.test/"), "top=; Path=/; Max-Age=0");
    assert_eq!(jar.field(&url("https://wiki.test/"), false), None);
}

#[test]
fn forms_and_links_are_found_with_their_escapes_undone() {
    let html = r#"<a class="x" href="/a?b=1&#38;c=2">go</a><form method="post" action="/x&amp;y"><input type="hidden" name="n" value="&lt;v&#x2F;&gt;"></form>"#;
    assert_eq!(links(html), ["/a?b=1&c=2"]);
    let form = find_form(html).unwrap();
    assert_eq!((form.action.as_str(), form.method.as_str()), ("/x&y", "POST"));
    assert_eq!(form.fields, [("n".to_owned(), "<v/>".to_owned())]);
}

#[test]
fn a_stopped_server_refuses_connections() {
    let server = Server::start(None, Arc::new(|exchange: &mut Exchange| exchange.answer(204, &[], b"")));
    let place = Place::plain(server.address());
    assert_eq!(place.request(&Request::get("/").with("Host", "h")).status, 204);
    drop(server);
    crate::support::wait_for("the port to close", || place.connect().is_err().then_some(()));
}

#[test]
fn the_certified_provider_signs_in_with_its_form_and_comes_back_after_an_outage() {
    let mut provider = CertifiedProvider::start();
    let issuer = provider.issuer().to_owned();
    let mut browser = Browser::default();
    let discovery = browser.open(&format!("{issuer}.well-known/openid-configuration")).response.json();
    assert_eq!(discovery["issuer"], json!(issuer));
    assert_eq!(provider.calls(".well-known/openid-configuration"), 1);
    provider.stop();
    provider.come_back();
    let authorize = format!(
        "{issuer}auth?client_id=none&response_type=code&scope=openid&redirect_uri=https://wiki.test/oauth2/callback&code_challenge={}&code_challenge_method=S256",
        "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    );
    let form = browser.open(&authorize);
    let upstream = Upstream::start();
    browser.finds(
        "https://wiki.test",
        Place::plain(([127, 0, 0, 1], Url::parse(&upstream.url()).unwrap().port().unwrap()).into()),
    );
    let page = browser.fill_in(&form, "alice");
    assert!(Echo::of(&page.response).line.starts_with("GET /oauth2/callback?code="), "{:?}", page.urls());
}
