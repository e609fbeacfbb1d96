//! Who the client is: what is believed of a proxy in front, and what of nobody.

use serde_json::Value;

use crate::support::client::Request;
use crate::support::gateway::{Builder, Gateway, WIKI};
use crate::support::scripted_provider::ScriptedProvider;
use crate::support::upstream::{Echo, Upstream};
use crate::support::{DEADLINE, wait_for};

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

/// A gateway whose connections begin with a PROXY header.
fn announced(upstream: &Upstream, server: &str) -> Builder {
    let route = format!("host = \"{WIKI}\"\nupstream = \"{}\"\naccess = \"public\"", upstream.url());
    Gateway::empty().listener("proxy_protocol = true").route(&route).config(&format!("[server]\n{server}"))
}

/// Version 2: version and command, family, addresses and extensions.
fn block(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[0x20 | command, family], &length, rest].concat()
}

fn v4(address: [u8; 4]) -> Vec<u8> {
    [address.as_slice(), &[10, 0, 0, 1], &[0x11, 0x5c, 0x01, 0xbb]].concat()
}

#[test]
fn a_proxy_header_of_either_version_says_who_connected() {
    let upstream = Upstream::start();
    let gateway = announced(&upstream, "trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/24\"]").start();
    let (v6, long) = ("2001:db8::9".parse::<std::net::Ipv6Addr>().unwrap().octets(), vec![0xaa; 1000]);
    let v6 = [v6.as_slice(), &v6, &[0x11, 0x5c, 0x01, 0xbb]].concat();
    let line = |text: &str| text.as_bytes().to_vec();
    let rows: &[(&str, Vec<u8>, &str)] = &[
        ("1, IPv4", line("PROXY TCP4 203.0.113.1 10.0.0.1 4444 443\r\n"), "203.0.113.1"),
        ("1, IPv6", line("PROXY TCP6 2001:db8::2 2001:db8::1 4444 443\r\n"), "2001:db8::2"),
        ("1, unknown", line("PROXY UNKNOWN\r\n"), "127.0.0.1"),
        ("2, IPv4", block(1, 0x11, &v4([203, 0, 113, 3])), "203.0.113.3"),
        ("2, IPv6", block(1, 0x21, &v6), "2001:db8::9"),
        ("2, extensions", block(1, 0x11, &[v4([203, 0, 113, 4]), long].concat()), "203.0.113.4"),
        ("2, local", block(0, 0x11, &v4([203, 0, 113, 5])), "127.0.0.1"),
        ("2, unspecified", block(1, 0x00, &[]), "127.0.0.1"),
        // A proxy of the list is behind the one that connects: it may name the client.
        ("1, another proxy", line("PROXY TCP4 10.0.0.7 10.0.0.1 4444 443\r\n"), "203.0.113.99"),
    ];
    let request = get("/page", "X-Forwarded-For", &["203.0.113.99"]).bytes();
    for (name, header, wanted) in rows {
        let mut connection = gateway.place(WIKI).connect().unwrap();
        connection.send(&[header.as_slice(), &request].concat()).unwrap();
        let echo = Echo::of(&connection.response_to("GET"));
        assert_eq!(echo.one("x-forwarded-for"), Some(*wanted), "{name}");
        // The next request has no header.
        connection.send(&request).unwrap();
        let echo = Echo::of(&connection.response_to("GET"));
        assert_eq!(echo.one("x-forwarded-for"), Some(*wanted), "{name}");

        let mut by_byte = gateway.place(WIKI).connect().unwrap();
        for byte in header {
            by_byte.send(&[*byte]).unwrap();
        }
        by_byte.send(&request).unwrap();
        let echo = Echo::of(&by_byte.response_to("GET"));
        assert_eq!(echo.one("x-forwarded-for"), Some(*wanted), "{name}, byte by byte");
    }
}

#[test]
fn a_connection_without_a_good_proxy_header_is_closed() {
    let upstream = Upstream::start();
    let server = "trusted_proxies = [\"127.0.0.1\"]\ntls_handshake_timeout = \"500ms\"";
    let gateway = announced(&upstream, server).start();
    let request = get("/page", "X-Forwarded-For", &["203.0.113.99"]).bytes();
    let rows: &[(&str, Vec<u8>)] = &[
        ("none", Vec::new()),
        ("a line that is malformed", b"PROXY TCP4 evil 10.0.0.1 4444 443\r\n".to_vec()),
        ("a line that never ends", [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200], b"\r\n"].concat()),
        ("a line that ends without CR", b"PROXY TCP4 203.0.113.1 10.0.0.1 4444 443\n".to_vec()),
        ("another version", block(0x11, 0x11, &v4([203, 0, 113, 1]))),
        ("a block that is too short", block(1, 0x11, &[203, 0, 113, 1])),
        ("a block that is too long", block(1, 0x11, &vec![0; 5000])),
    ];
    let count = "portcullis_connections_refused_total{reason=\"proxy_header\"}";
    for (name, header) in rows {
        let before = gateway.metric(count);
        let mut connection = gateway.place(WIKI).connect().unwrap();
        // It may be closed before all of it is sent.
        let _ = connection.send(&[header.as_slice(), &request].concat());
        assert!(connection.is_closed_within(DEADLINE), "{name}");
        wait_for(name, || (gateway.metric(count) > before).then_some(()));
    }
    let mut silent = gateway.place(WIKI).connect().unwrap();
    silent.send(b"PROXY TCP4 ").unwrap();
    assert!(silent.is_closed_within(DEADLINE));
    gateway.wait_for_log(&["connection_refused", "did not come in time"]);
    assert_eq!(upstream.hits(), 0);

    // Nobody but a trusted proxy may send one.
    let gateway = announced(&upstream, "trusted_proxies = [\"192.0.2.1\"]").start();
    let mut connection = gateway.place(WIKI).connect().unwrap();
    let _ = connection.send(&[b"PROXY TCP4 203.0.113.1 10.0.0.1 4444 443\r\n".as_slice(), &request].concat());
    assert!(connection.is_closed_within(DEADLINE));
    assert!(gateway.metric("portcullis_connections_refused_total{reason=\"not_a_proxy\"}") >= 1.0);
    assert_eq!(upstream.hits(), 0);
}

#[test]
fn a_proxy_header_stands_before_tls_and_nowhere_else() {
    let upstream = Upstream::start();
    let header = b"PROXY TCP4 203.0.113.1 10.0.0.1 4444 443\r\n";
    let gateway = announced(&upstream, "trusted_proxies = [\"127.0.0.1\"]").tls(&[WIKI]).start();
    let request = get("/page", "Accept", &["*/*"]);
    let mut connection = gateway.place(WIKI).connect_behind(header).unwrap();
    let echo = Echo::of(&connection.request(&request));
    assert_eq!(echo.one("x-forwarded-for"), Some("203.0.113.1"));
    assert!(gateway.place(WIKI).connect().is_err(), "TLS without a header");

    // Where it is not expected it is a malformed request.
    let plain = behind_a_proxy(&upstream, "").start();
    let mut connection = plain.place(WIKI).connect().unwrap();
    connection.send(&[header.as_slice(), &request.bytes()].concat()).unwrap();
    assert_eq!(connection.response_to("GET").status, 400);
}
