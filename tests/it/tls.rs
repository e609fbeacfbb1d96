//! TLS of the gateway's own.

use std::time::Duration;

use crate::support::browser::Browser;
use crate::support::client::{Place, Request};
use crate::support::gateway::{Gateway, WIKI};
use crate::support::scripted_provider::ScriptedProvider;
use crate::support::upstream::{Echo, Upstream};

#[test]
fn people_sign_in_over_tls_with_host_cookies() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let builder = Gateway::in_front_of(&upstream).tls(&[WIKI]);
    let origin = format!("https://{WIKI}:{}", builder.address().port());
    let gateway = builder
        .config(&format!("[[host]]\nname = \"{WIKI}\"\npublic_url = \"{origin}\""))
        .provider(provider.entry())
        .start();
    let mut browser = Browser::default();
    browser.finds(&origin, gateway.place(WIKI));
    let page = browser.open(&format!("{origin}/page?x=1"));
    assert_eq!(page.url.as_str(), format!("{origin}/page?x=1"));
    assert_eq!(browser.jar.rejected, Vec::<String>::new());
    assert!(browser.jar.get(WIKI, "__Host-portcullis").is_some_and(|cookie| cookie.secure));
    let echo = Echo::of(&page.response);
    assert_eq!(echo.one("x-forwarded-proto"), Some("https"));
    assert_eq!(echo.one("x-forwarded-host"), Some(origin.trim_start_matches("https://")));
}

#[test]
fn cleartext_on_a_tls_listener_gets_nothing() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream).tls(&[WIKI]).provider(provider.entry()).start();
    let mut connection = Place::plain(gateway.address()).connect().unwrap();
    connection.send(&Request::get("/").with("Host", WIKI).bytes()).unwrap();
    let mut answer = Vec::new();
    // The end of the connection, or a reset; a TLS alert may come before it.
    let _ = std::io::Read::read_to_end(connection.stream(), &mut answer);
    assert!(!answer.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(upstream.hits(), 0);
}

#[test]
fn a_handshake_that_never_ends_is_cut() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream)
        .tls(&[WIKI])
        .config("[server]\ntls_handshake_timeout = \"1s\"")
        .provider(provider.entry())
        .start();
    let mut silent = Place::plain(gateway.address()).connect().unwrap();
    assert!(silent.is_closed_within(Duration::from_secs(20)));
}
