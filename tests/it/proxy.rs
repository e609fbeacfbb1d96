//! The proxy: what streams through, what is cut, what is told when an application fails.

use std::io::{BufRead as _, Read as _, Write as _};
use std::time::{Duration, Instant};

use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Message, WebSocket};

use crate::support::browser::Browser;
use crate::support::certificate::Authority;
use crate::support::client::{Connection, Place, Request};
use crate::support::gateway::{Builder, Gateway, WIKI};
use crate::support::ports;
use crate::support::scripted_provider::ScriptedProvider;
use crate::support::upstream::{Echo, Upstream};
use crate::support::wire::Framing;
use crate::support::{DEADLINE, wait_for};

const GIB: u64 = 1 << 30;

/// What the gateway may grow by while a body of any size passes: its buffers, not the body.
const FLAT: u64 = 64 << 20;

/// Everything of [`WIKI`] is public.
fn public(upstream: &Upstream) -> Builder {
    public_route(Gateway::empty(), &upstream.url(), "")
}

fn public_route(builder: Builder, url: &str, more: &str) -> Builder {
    builder.route(&format!("host = \"{WIKI}\"\nupstream = \"{url}\"\naccess = \"public\"\n{more}"))
}

fn connect(gateway: &Gateway) -> Connection {
    gateway.place(WIKI).connect().expect("the gateway accepts")
}

#[test]
fn a_slow_request_head_is_cut_at_its_total_deadline() {
    let upstream = Upstream::start();
    let gateway = public(&upstream).config("[server]\nrequest_head_timeout = \"1s\"").start();
    let mut connection = connect(&gateway);
    connection.send(b"GET / HTTP/1.1\r\nHost: wiki.test\r\nX-Slow: ").unwrap();
    let started = Instant::now();
    // A byte now and then, so that no timeout for a single read ever strikes.
    while connection.send(b"x").is_ok() && !connection.is_closed_within(Duration::from_millis(100)) {
        assert!(started.elapsed() < DEADLINE, "the head may go on for ever");
    }
    assert!(started.elapsed() >= Duration::from_millis(700), "cut after {:?}", started.elapsed());
    assert_eq!(upstream.hits(), 0);
    assert_eq!(gateway.request(&Request::get("/")).status, 200, "others are served");
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it() {
    let upstream = Upstream::start();
    let gateway = public(&upstream).start();
    let mut connection = connect(&gateway);
    let head = "POST / HTTP/1.1\r\nHost: wiki.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    connection.send(head.as_bytes()).unwrap();
    let interim = connection.read_head().expect("an interim answer");
    assert!(interim.line.starts_with("HTTP/1.1 100"), "{}", interim.line);
    connection.send(b"hello").unwrap();
    assert_eq!(Echo::of(&connection.response_to("POST")).body_bytes, 5);
}

#[test]
fn a_refused_request_with_a_body_is_not_asked_for_it() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    let mut connection = connect(&gateway);
    let head = "POST /x HTTP/1.1\r\nHost: wiki.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    connection.send(head.as_bytes()).unwrap();
    let answer = connection.read_head().expect("an answer");
    assert!(answer.line.starts_with("HTTP/1.1 401"), "{}", answer.line);
}

#[test]
fn the_body_of_a_refused_request_is_never_read_as_the_next_request() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream)
        .path("/public", &upstream, "access = \"public\"")
        .provider(provider.entry())
        .start();
    let smuggled = b"GET /public/smuggled HTTP/1.1\r\nHost: wiki.test\r\n\r\n";
    let mut connection = connect(&gateway);
    let refused = connection.request(&Request::new("POST", "/x").with("Host", WIKI).with_body(smuggled));
    assert_eq!(refused.status, 401);
    // Either the body is gone and the connection lives, or both are gone.
    if connection.send(&Request::get("/public/next").with("Host", WIKI).bytes()).is_ok()
        && let Some(head) = connection.read_head()
    {
        let body = head.framing(false).read_whole(connection.stream()).unwrap();
        assert!(String::from_utf8(body).unwrap().contains("/public/next"));
    }
    assert!(upstream.hits() <= 1, "the smuggled request arrived");
}

#[test]
fn a_web_socket_carries_messages_both_ways_for_who_is_signed_in() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    let mut browser = Browser::new(&gateway);
    browser.open("https://wiki.test/");
    let cookie = browser.jar.get(WIKI, "__Host-portcullis").unwrap();
    let upgrade = Request::get("/ws")
        .with("Host", WIKI)
        .with("Connection", "Upgrade")
        .with("Upgrade", "websocket")
        .with("Origin", "https://wiki.test")
        .with("Sec-WebSocket-Version", "13")
        .with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .with("Cookie", &format!("{}={}", cookie.name, cookie.value));
    let mut connection = connect(&gateway);
    connection.send(&upgrade.bytes()).unwrap();
    let (status, head, _) = connection.response_head("GET");
    assert_eq!(status, 101);
    assert_eq!(head.one("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(head.all("set-cookie"), ["from-the-application=1"]);

    let mut socket = WebSocket::from_raw_socket(connection.into_stream(), Role::Client, None);
    let large = vec![7u8; 300_000];
    for message in [Message::text("hello"), Message::binary(large), Message::text("bye")] {
        socket.send(message.clone()).unwrap();
        assert_eq!(socket.read().unwrap(), message);
    }
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
}

#[test]
fn an_event_arrives_before_the_next_one_is_made() {
    let upstream = Upstream::start();
    let gateway = public(&upstream).start();
    let mut connection = connect(&gateway);
    connection
        .send(&Request::get("/sse").with("Host", WIKI).with("Accept", "text/event-stream").bytes())
        .unwrap();
    let (status, head, framing) = connection.response_head("GET");
    assert_eq!((status, head.one("content-type")), (200, Some("text/event-stream")));
    assert_eq!(framing, Framing::Chunked);
    let mut events = String::new();
    for turn in 0..3 {
        // The application waits for `go_on`: an event that is held back somewhere never comes.
        while !events.contains(&format!("data: {turn}\n\n")) {
            let mut line = String::new();
            assert_ne!(connection.stream().read_line(&mut line).expect("an event comes in time"), 0);
            events.push_str(&line);
        }
        upstream.go_on();
    }
}

#[test]
fn a_body_of_1_gib_passes_in_flat_memory_both_ways() {
    let upstream = Upstream::start();
    let gateway = public(&upstream).start();
    assert_eq!(gateway.request(&Request::get("/")).status, 200);
    let before = gateway.resident_bytes();

    let mut connection = connect(&gateway);
    let head = format!("PUT /upload HTTP/1.1\r\nHost: {WIKI}\r\nContent-Length: {GIB}\r\n\r\n");
    connection.send(head.as_bytes()).unwrap();
    let piece = vec![b'x'; 1 << 20];
    let mut highest = 0;
    for _ in 0..GIB >> 20 {
        connection.send(&piece).unwrap();
        highest = highest.max(gateway.resident_bytes());
    }
    assert_eq!(Echo::of(&connection.response_to("PUT")).body_bytes, GIB);
    assert!(highest < before + FLAT, "upload: from {before} to {highest} bytes resident");

    connection.send(&Request::get(&format!("/big?bytes={GIB}")).with("Host", WIKI).bytes()).unwrap();
    let (status, _, framing) = connection.response_head("GET");
    assert_eq!((status, framing), (200, Framing::Length(GIB)));
    let (mut received, mut highest) = (0, 0);
    framing
        .read(connection.stream(), |piece| {
            let step = received >> 20;
            received += piece.len() as u64;
            if received >> 20 > step {
                highest = highest.max(gateway.resident_bytes());
            }
        })
        .unwrap();
    assert_eq!(received, GIB);
    assert!(highest < before + FLAT, "download: from {before} to {highest} bytes resident");
}

#[test]
fn an_upstream_that_fails_is_told_with_a_code_and_a_request_id() {
    let mut upstream = Upstream::start();
    let slow = Upstream::start();
    let down = format!("http://127.0.0.1:{}", ports::free());
    let gateway = public(&upstream)
        .path("/down", &upstream, "access = \"public\"")
        .route(&format!("host = \"down.test\"\naccess = \"public\"\nupstream = \"{down}\""))
        .route("host = \"nowhere.test\"\naccess = \"public\"\nupstream = \"http://no-such-name.invalid:80\"")
        .path("/slow", &slow, "access = \"public\"\nread_timeout = \"300ms\"")
        .start();
    slow.waits_at("/slow");
    upstream.answers("/nonsense", b"this is no HTTP\r\n\r\n");
    upstream.answers("/nothing", b"");
    let cases = [
        ("down.test", "/", 502, "upstream_unreachable"),
        ("nowhere.test", "/", 502, "upstream_unresolved"),
        (WIKI, "/slow", 504, "upstream_timeout"),
        (WIKI, "/nonsense", 502, "upstream_failed"),
        (WIKI, "/nothing", 502, "upstream_failed"),
    ];
    for (host, path, status, code) in cases {
        let page =
            gateway.place(host).request(&Request::get(path).with("Host", host).with("Accept", "text/html"));
        assert_eq!(page.status, status, "{host}{path}: {}", page.text());
        let json = gateway.place(host).request(&Request::get(path).with("Host", host)).json();
        assert_eq!(json["error"], code, "{host}{path}");
        let id = json["request_id"].as_str().expect("a request id");
        gateway.wait_for_log(&[id, code]);
        assert!(page.text().contains(code), "{host}{path}: {}", page.text());
        assert!(
            !page.text().contains("127.0.0.1") && !page.text().contains("no-such-name"),
            "internals on the page"
        );
    }
    upstream.stop();
    assert_eq!(gateway.request(&Request::get("/")).status, 502);
}

#[test]
fn an_answer_that_is_cut_off_is_never_made_whole() {
    let upstream = Upstream::start();
    upstream.answers("/cut", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
    let gateway = public(&upstream).start();
    let mut connection = connect(&gateway);
    connection.send(&Request::get("/cut").with("Host", WIKI).bytes()).unwrap();
    let (status, _, framing) = connection.response_head("GET");
    let body = framing.read_whole(connection.stream());
    assert!(status == 502 || body.is_err(), "{status}: {body:?}");
}

#[test]
fn connections_are_kept_on_both_sides() {
    let upstream = Upstream::start();
    let gateway = public(&upstream).config("[server]\nthreads = 1").start();
    let mut connection = connect(&gateway);
    for hit in 1..=5 {
        let echo = Echo::of(&connection.request(&Request::get("/").with("Host", WIKI)));
        assert_eq!((echo.hit, echo.connection), (hit, 1));
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_target_that_could_be_read_in_two_ways_is_refused() {
    let upstream = Upstream::start();
    let gateway = public(&upstream).start();
    let targets = [
        "/a/../b",
        "/a/./b",
        "//b",
        "/a//b",
        "/%2e%2e/b",
        "/a/%2E/b",
        "/a%2fb",
        "/a%5cb",
        "/a\\b",
        "/a;b=c",
        "/..;/b",
        "/%00",
        "/%zz",
        "/%",
        "/a#b",
        "/\u{e4}",
        "/%c0%ae",
        "b",
        "http://wiki.test/../b",
        "*",
    ];
    for target in targets {
        let mut connection = connect(&gateway);
        connection.send(&Request::get(target).with("Host", WIKI).bytes()).unwrap();
        let head = connection.read_head().unwrap_or_else(|| panic!("{target}: no answer"));
        assert!(head.line.starts_with("HTTP/1.1 4"), "{target}: {}", head.line);
    }
    assert_eq!(upstream.hits(), 0);
    for target in ["/a/b", "/a%20b?x=%2F..//", "/a/?", "/~a/$b,c:d@e!'()*+="] {
        let echo = Echo::of(&gateway.request(&Request::get(target)));
        assert_eq!(echo.line, format!("GET {target} HTTP/1.1"));
    }
}

#[test]
fn a_request_that_breaks_the_grammar_is_refused_and_its_connection_closed() {
    let upstream = Upstream::start();
    let gateway = public(&upstream).start();
    let cases: &[(&str, &str)] = &[
        ("no Host", "GET / HTTP/1.1\r\n\r\n"),
        ("two Hosts", "GET / HTTP/1.1\r\nHost: wiki.test\r\nHost: wiki.test\r\n\r\n"),
        (
            "length and chunked",
            "POST / HTTP/1.1\r\nHost: wiki.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "two lengths",
            "POST / HTTP/1.1\r\nHost: wiki.test\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        ),
        (
            "another coding",
            "POST / HTTP/1.1\r\nHost: wiki.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        ),
        ("a space before the colon", "GET / HTTP/1.1\r\nHost : wiki.test\r\n\r\n"),
        ("a folded line", "GET / HTTP/1.1\r\nHost: wiki.test\r\nX: a\r\n b\r\n\r\n"),
        ("bare LF", "GET / HTTP/1.1\nHost: wiki.test\n\n"),
        (
            "HTTP/1.0 chunked",
            "POST / HTTP/1.0\r\nHost: wiki.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("TRACE", "TRACE / HTTP/1.1\r\nHost: wiki.test\r\n\r\n"),
        ("CONNECT", "CONNECT wiki.test:443 HTTP/1.1\r\nHost: wiki.test\r\n\r\n"),
        ("NUL in a value", "GET / HTTP/1.1\r\nHost: wiki.test\r\nX: a\0b\r\n\r\n"),
    ];
    for (name, bytes) in cases {
        let mut connection = connect(&gateway);
        connection.send(bytes.as_bytes()).unwrap();
        let answer = connection.read_head();
        let refused = answer
            .as_ref()
            .is_none_or(|head| head.line.starts_with("HTTP/1.1 4") || head.line.starts_with("HTTP/1.1 501"));
        assert!(refused, "{name}: {answer:?}");
    }
    assert_eq!(upstream.hits(), 0);
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let upstream = Upstream::start();
    let gateway = public(&upstream).start();
    let long = "x".repeat(40_000);
    let many = (0..150).fold(Request::get("/"), |request, n| request.with(&format!("X-{n}"), "1"));
    for (name, request) in [("40 KB", Request::get("/").with("X", &long)), ("150 fields", many)] {
        let mut connection = connect(&gateway);
        connection.send(&request.with("Host", WIKI).bytes()).unwrap();
        let head = connection.read_head().unwrap_or_else(|| panic!("{name}: no answer"));
        assert!(head.line.starts_with("HTTP/1.1 431"), "{name}: {}", head.line);
    }
    assert_eq!(upstream.hits(), 0);
}

#[test]
fn hosts_and_paths_find_their_application() {
    let names = ["exact", "wildcard", "any", "deep"];
    let [exact, wildcard, any, deep] = names.map(|_| Upstream::start());
    let route = |host: &str, path: &str, upstream: &Upstream| {
        format!(
            "host = \"{host}\"\npath = \"{path}\"\naccess = \"public\"\nupstream = \"{}\"",
            upstream.url()
        )
    };
    let gateway = Gateway::empty()
        .route(&route("*", "/", &any))
        .route(&route("*.wiki.test", "/", &wildcard))
        .route(&route("a.wiki.test", "/", &exact))
        .route(&route("a.wiki.test", "/deep/er", &deep))
        .start();
    let hits = || [&exact, &wildcard, &any, &deep].map(Upstream::hits);
    let cases = [
        ("a.wiki.test", "/x", [1, 0, 0, 0]),
        ("A.Wiki.Test.", "/deep", [2, 0, 0, 0]),
        ("a.wiki.test", "/deep/er/x", [2, 0, 0, 1]),
        ("a.wiki.test", "/deep/erx", [3, 0, 0, 1]),
        ("b.wiki.test", "/", [3, 1, 0, 1]),
        ("b.c.wiki.test", "/", [3, 2, 0, 1]),
        ("wiki.test", "/", [3, 2, 1, 1]),
    ];
    for (host, path, wanted) in cases {
        let response = gateway.place(host).request(&Request::get(path).with("Host", host));
        assert_eq!(response.status, 200, "{host}{path}: {}", response.text());
        assert_eq!(hits(), wanted, "{host}{path}");
    }
}

#[test]
fn an_unknown_host_is_refused_whatever_it_says() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    for host in ["evil.test", "wiki.test.evil.test", "wiki.test:1", "user@wiki.test", "", "wiki.test/x"] {
        let request = Request::get("/").with("Host", host).with("Accept", "text/html");
        let refused = gateway.place(WIKI).request(&request);
        assert!(matches!(refused.status, 400 | 404 | 421), "{host:?}: {}", refused.status);
        assert_eq!(refused.field("location"), None, "{host:?}");
    }
}

#[test]
fn an_upstream_with_tls_is_verified() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let upstream = Upstream::start_tls(authority.issue(&["localhost"]).server());
    let builder = Gateway::empty();
    let good = builder.file("ca.pem", &authority.pem());
    let bad = builder.file("other.pem", &stranger.pem());
    let route = |host: &str, ca: &str| {
        format!("host = \"{host}\"\naccess = \"public\"\nupstream = \"{}\"\n{ca}", upstream.url())
    };
    let gateway = builder
        .route(&route("good.test", &format!("ca_file = \"{}\"", good.display())))
        .route(&route("bad.test", &format!("ca_file = \"{}\"", bad.display())))
        .route(&route("system.test", ""))
        .start();
    for (host, status) in [("good.test", 200), ("bad.test", 502), ("system.test", 502)] {
        let response = gateway.place(host).request(&Request::get("/").with("Host", host));
        assert_eq!(response.status, status, "{host}: {}", response.text());
    }
}

#[test]
fn an_upstream_that_comes_back_is_found_again() {
    let upstream = Upstream::start();
    let port: u16 = upstream.url().rsplit(':').next().unwrap().parse().unwrap();
    let gateway = public(&upstream).start();
    assert_eq!(gateway.request(&Request::get("/")).status, 200);
    drop(upstream);
    wait_for("the application to be gone", || {
        (gateway.request(&Request::get("/")).status == 502).then_some(())
    });
    let _back = Upstream::start_at(port);
    assert_eq!(gateway.request(&Request::get("/")).status, 200);
}

#[test]
fn a_client_that_goes_away_takes_its_upstream_request_with_it() {
    let upstream = Upstream::start();
    let gateway = public(&upstream).start();
    let mut connection = connect(&gateway);
    connection.send(&Request::get("/sse").with("Host", WIKI).bytes()).unwrap();
    let (status, ..) = connection.response_head("GET");
    assert_eq!(status, 200);
    let mut some = [0];
    connection.stream().read_exact(&mut some).unwrap();
    connection.stream().flush().unwrap();
    drop(connection);
    gateway.wait_for_log(&["/sse", "\"status\":200"]);
}

#[test]
fn the_place_of_an_upstream_is_not_the_clients_choice() {
    let (upstream, other) = (Upstream::start(), Upstream::start());
    let gateway = public(&upstream).start();
    let other_url = other.url();
    let target = format!("{other_url}/x");
    let response = Place::plain(gateway.address()).request(&Request::get(&target).with("Host", WIKI));
    assert!((400..500).contains(&response.status), "{}", response.status);
    assert_eq!((upstream.hits(), other.hits()), (0, 0));
}
