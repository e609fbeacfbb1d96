//! Who the client is: what is believed of a proxy in front, and what of nobody.

use serde_json::Value;

use crate::support::client::Request;
use crate::support::gateway::{Builder, Gateway, WIKI};
use crate::support::scripted_provider::ScriptedProvider;
use crate::support::upstream::{Echo, Upstream};

/// A public application whose clients may all say who they are.
fn behind_a_proxy(upstream: &Upstream, more: &str) -> Builder {
    let route = format!("host = \"{WIKI}\"\nupstream = \"{}\"\naccess = \"public\"", upstream.url());
    let proxies = "[server]\ntrusted_proxies = [\"127.0.0.1\", \"10.0.0.0/24\"]";
    Gateway::empty().route(&route).config(&format!("{proxies}\n{more}"))
}

fn get(path: &str, name: &str, values: &[&str]) -> Request {
    values.iter().fold(Request::get(path).with("Host", WIKI), |request, value| request.with(name, value))
}

#[test]
fn fa_209_a_trusted_proxy_names_the_client_of_each_request() {
    let upstream = Upstream::start();
    let gateway = behind_a_proxy(&upstream, "").start();
    let thousand = "10.0.0.9,".repeat(1000);
    let rows: &[(&str, &[&str], &str)] = &[
        ("nobody", &[], "127.0.0.1"),
        ("the client", &["203.0.113.1"], "203.0.113.1"),
        ("behind what it says of itself", &["10.0.0.1, 203.0.113.2"], "203.0.113.2"),
        ("behind another proxy", &["1.1.1.1, 203.0.113.3, 10.0.0.7"], "203.0.113.3"),
        ("in several lines", &["1.1.1.1", "203.0.113.4", "10.0.0.7"], "203.0.113.4"),
        ("IPv6", &["2001:DB8::0:5"], "2001:db8::5"),
        ("a word", &["a"], "127.0.0.1"),
        ("empty", &[""], "127.0.0.1"),
        ("a word behind a proxy", &["203.0.113.6, a, 10.0.0.7"], "10.0.0.7"),
        ("a thousand entries", &[&thousand, "203.0.113.7"], "203.0.113.7"),
        ("nobody again", &[], "127.0.0.1"),
    ];
    // One connection: each request has a client of its own.
    let mut connection = gateway.place(WIKI).connect().unwrap();
    for (number, (name, values, wanted)) in rows.iter().enumerate() {
        let path = format!("/row-{number}");
        let echo = Echo::of(&connection.request(&get(&path, "X-Forwarded-For", values)));
        assert_eq!(echo.one("x-forwarded-for"), Some(*wanted), "{name}");
        let line = gateway.wait_for_log(&["\"event\":\"request\"", &format!("\"{path}\"")]);
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["client"], *wanted, "{name}: {line}");
    }
}

#[test]
fn forwarded_is_read_where_the_configuration_says_so_and_the_other_header_is_not() {
    let upstream = Upstream::start();
    let gateway = behind_a_proxy(&upstream, "client_address_header = \"forwarded\"").start();
    let rows: &[(&str, &str, &str)] = &[
        ("the client", "for=1.1.1.1, for=203.0.113.1;proto=https", "203.0.113.1"),
        ("IPv6 with a port", "for=\"[2001:db8::2]:4711\"", "2001:db8::2"),
        ("unknown", "for=1.1.1.1, for=unknown", "127.0.0.1"),
        ("obfuscated", "for=1.1.1.1, for=_hidden", "127.0.0.1"),
        ("a quote that the client left open", "for=\"1.1.1.1, for=203.0.113.3", "203.0.113.3"),
    ];
    for (name, value, wanted) in rows {
        let request = get("/", "Forwarded", &[value]).with("X-Forwarded-For", "203.0.113.99");
        let echo = Echo::of(&gateway.place(WIKI).request(&request));
        assert_eq!(echo.one("x-forwarded-for"), Some(*wanted), "{name}");
        assert_eq!(echo.one("forwarded"), None, "{name}");
    }
}

#[test]
fn who_is_not_on_the_list_of_proxies_says_nothing() {
    let upstream = Upstream::start();
    let route = format!("host = \"{WIKI}\"\nupstream = \"{}\"\naccess = \"public\"", upstream.url());
    for more in ["", "trusted_proxies = [\"192.0.2.0/24\", \"::1\"]"] {
        let gateway = Gateway::empty().route(&route).config(&format!("[server]\n{more}")).start();
        let request = get("/", "X-Forwarded-For", &["203.0.113.1"])
            .with("Forwarded", "for=203.0.113.1")
            .with("X-Real-IP", "203.0.113.1");
        let echo = Echo::of(&gateway.place(WIKI).request(&request));
        assert_eq!(echo.one("x-forwarded-for"), Some("127.0.0.1"), "{more}");
        assert_eq!((echo.one("forwarded"), echo.one("x-real-ip")), (None, None), "{more}");
    }
}

#[test]
fn not_even_a_trusted_proxy_says_what_the_public_url_is() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream)
        .provider(provider.entry())
        .config("[server]\ntrusted_proxies = [\"127.0.0.1\"]")
        .start();
    let request = Request::get("/page")
        .with("Accept", "text/html")
        .with("X-Forwarded-For", "203.0.113.1")
        .with("X-Forwarded-Proto", "http")
        .with("X-Forwarded-Host", "evil.test")
        .with("X-Forwarded-Port", "80");
    let answer = gateway.request(&request);
    let location = answer.field("location").expect("a redirect to the provider");
    let uri = url::form_urlencoded::byte_serialize(b"https://wiki.test/oauth2/callback").collect::<String>();
    assert!(location.contains(&format!("redirect_uri={uri}")), "{location}");
    let cookies = answer.head.all("set-cookie");
    assert!(!cookies.is_empty() && cookies.iter().all(|cookie| cookie.contains("; Secure")), "{cookies:?}");
    assert!(!format!("{:?}", answer.head).contains("evil.test"));
}
