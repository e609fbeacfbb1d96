//! What one client may take: connections, time, bytes. Whoever wants more is cut, and others are served.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::client::{Connection, Place, Request};
use crate::support::gateway::{Builder, Gateway, WIKI};
use crate::support::scripted_provider::ScriptedProvider;
use crate::support::upstream::{Echo, Upstream};
use crate::support::{DEADLINE, ports, wait_for};

/// What two thousand connections may cost: 32 KiB for each.
const MEMORY: u64 = 2000 * (32 << 10);

/// A body of more than all buffers hold.
const LENGTH: usize = 64 << 20;

/// A public application.
fn public(upstream: &Upstream, lines: &str) -> Builder {
    let url = upstream.url();
    Gateway::empty().route(&format!("host = \"{WIKI}\"\nupstream = \"{url}\"\naccess = \"public\"\n{lines}"))
}

fn get(path: &str) -> Request {
    Request::get(path).with("Host", WIKI)
}

fn connect(gateway: &Gateway) -> Connection {
    gateway.place(WIKI).connect().expect("the gateway accepts")
}

/// A connection that sends a byte now and then.
struct Crawler {
    stream: TcpStream,
    answer: Vec<u8>,
    closed_after: Option<Duration>,
}

impl Crawler {
    fn start(place: &Place, beginning: &[u8]) -> Self {
        let mut stream = TcpStream::connect(place.address).unwrap();
        stream.write_all(beginning).unwrap();
        stream.set_nonblocking(true).unwrap();
        Self { stream, answer: Vec::new(), closed_after: None }
    }

    /// Sends one more byte, takes what came, and looks whether the other side is gone.
    fn crawl(&mut self, begun: Instant) {
        if self.closed_after.is_some() {
            return;
        }
        let mut space = [0; 4096];
        let is_gone = match self.stream.read(&mut space) {
            Ok(0) => true,
            Ok(read) => {
                self.answer.extend_from_slice(&space[..read]);
                false
            }
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
        // A connection that was closed meanwhile says so with the next read.
        let _ = self.stream.write(b"x");
        self.closed_after = is_gone.then(|| begun.elapsed());
    }
}

#[test]
fn ax_232_who_sends_at_a_crawl_is_closed_at_the_deadline_and_others_are_served() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let plain = Place::plain(([127, 0, 0, 1], ports::free()).into());
    let gateway = public(&upstream, "")
        .provider(provider.entry())
        .tls(&[WIKI])
        .config(&format!("[[listener]]\naddress = \"{}\"", plain.address))
        .config("[server]\nmax_connections_per_address = 3000\nrequest_head_timeout = \"3s\"\ntls_handshake_timeout = \"3s\"\nbody_idle_timeout = \"3s\"")
        .start();
    let post = |path: &str| {
        let kind = "Content-Type: application/x-www-form-urlencoded";
        format!("POST {path} HTTP/1.1\r\nHost: {WIKI}\r\n{kind}\r\nContent-Length: 1000\r\n\r\na=")
    };
    let (callback, logout, upload) =
        (post("/oauth2/callback"), post("/oauth2/backchannel_logout"), post("/upload"));
    let tls = gateway.place(WIKI);
    let kinds: [(&Place, &[u8], usize); 5] = [
        (&plain, b"GET / HTTP/1.1\r\nHost: wiki.test\r\nX-Slow: ", 800),
        // The beginning of a ClientHello.
        (&tls, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 600),
        (&plain, callback.as_bytes(), 200),
        (&plain, logout.as_bytes(), 200),
        (&plain, upload.as_bytes(), 200),
    ];
    let begun = Instant::now();
    let start = |(place, beginning, count): (&Place, &[u8], usize)| {
        (0..count).map(|_| Crawler::start(place, beginning)).collect::<Vec<_>>()
    };
    let mut crawlers: Vec<_> = kinds.into_iter().flat_map(start).collect();
    assert_eq!(crawlers.len(), 2000);
    let mut served = 0;
    while crawlers.iter().any(|crawler| crawler.closed_after.is_none()) {
        assert!(begun.elapsed() < DEADLINE, "some go on for longer than 30 s");
        for crawler in &mut crawlers {
            crawler.crawl(begun);
        }
        // A new client, while they crawl.
        assert_eq!(plain.request(&get("/page")).status, 200);
        served += 1;
    }
    assert!(served > 1, "all were closed at once");
    let early = |crawler: &&Crawler| crawler.closed_after.is_some_and(|after| after < Duration::from_secs(2));
    assert_eq!(crawlers.iter().filter(early).count(), 0, "closed before the deadline");
    let slow = String::from_utf8_lossy(&crawlers[1999].answer).into_owned();
    assert!(slow.starts_with("HTTP/1.1 408") && slow.contains("body_too_slow"), "{slow}");
}

#[test]
fn ax_232_two_thousand_idle_connections_cost_little_and_others_are_served() {
    let upstream = Upstream::start();
    let server = "[server]\nmax_connections_per_address = 3000\nthreads = 2\nkeepalive_timeout = \"10m\"";
    let gateway = public(&upstream, "").config(server).start();
    for _ in 0..50 {
        assert_eq!(gateway.request(&Request::get("/warm")).status, 200);
    }
    let before = gateway.resident_bytes();
    let connect_and_ask = |_| {
        let mut connection = connect(&gateway);
        assert_eq!(connection.request(&get("/page")).status, 200);
        connection
    };
    let mut idle: Vec<_> = (0..2000).map(connect_and_ask).collect();
    assert_eq!(gateway.request(&Request::get("/other")).status, 200);
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < MEMORY, "{} KiB more", grown >> 10);
    // They are there, and go on.
    for connection in idle.iter_mut().step_by(100) {
        assert_eq!(connection.request(&get("/again")).status, 200);
    }
}

#[test]
fn ax_233_heads_without_measure_are_refused_and_others_are_served() {
    let upstream = Upstream::start();
    let gateway = public(&upstream, "").start();
    let fields = |count: usize| "X-Filler: 1\r\n".repeat(count);
    let rows = [
        ("257 headers", format!("GET / HTTP/1.1\r\nHost: {WIKI}\r\n{}\r\n", fields(256)), 431),
        ("101 headers", format!("GET / HTTP/1.1\r\nHost: {WIKI}\r\n{}\r\n", fields(100)), 431),
        ("100 headers", format!("GET / HTTP/1.1\r\nHost: {WIKI}\r\n{}\r\n", fields(99)), 200),
        (
            "one header of 200 KB",
            format!("GET / HTTP/1.1\r\nHost: {WIKI}\r\nX-Long: {}\r\n\r\n", "x".repeat(200_000)),
            431,
        ),
        ("a target of 64 KB", format!("GET /{} HTTP/1.1\r\nHost: {WIKI}\r\n\r\n", "x".repeat(65_536)), 414),
        ("a target of 9 KB", format!("GET /{} HTTP/1.1\r\nHost: {WIKI}\r\n\r\n", "x".repeat(9000)), 414),
        ("a target of 8 KB", format!("GET /{} HTTP/1.1\r\nHost: {WIKI}\r\n\r\n", "x".repeat(8000)), 200),
    ];
    for (name, head, wanted) in rows {
        let hits = upstream.hits();
        let mut connection = connect(&gateway);
        connection.send(head.as_bytes()).unwrap();
        assert_eq!(connection.response_to("GET").status, wanted, "{name}");
        assert_eq!(upstream.hits() - hits, usize::from(wanted == 200), "{name}");
        assert_eq!(gateway.request(&Request::get("/page")).status, 200, "after {name}");
    }
}

#[test]
fn a_target_is_as_long_as_the_configuration_allows() {
    let upstream = Upstream::start();
    let gateway = public(&upstream, "").config("[server]\nmax_request_target_size = 256").start();
    for (length, wanted) in [(256, 200), (257, 414)] {
        let path = format!("/{}", "x".repeat(length - 1));
        assert_eq!(gateway.request(&Request::get(&path)).status, wanted, "{length}");
    }
}

#[test]
fn ax_239_a_foreign_host_gets_421_and_nothing_about_itself() {
    let upstream = Upstream::start();
    let gateway = public(&upstream, "").start();
    for host in ["evil.test", "evil.test:80", "wiki.test.evil.test"] {
        let answer = gateway.place(WIKI).request(&Request::get("/").with("Host", host));
        assert_eq!(answer.status, 421, "{host}");
        let all = format!("{:?}{}", answer.head, answer.text());
        assert!(!all.contains("evil.test") && answer.field("location").is_none(), "{all}");
    }
    assert_eq!(upstream.hits(), 0);
}

#[test]
fn sc_152_cookies_without_measure_end_in_431_and_the_next_request_is_fine() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    let many = |count: usize| (0..count).map(|n| format!("c{n}=v")).collect::<Vec<_>>().join("; ");
    let rows = [
        ("60 KB in one field", vec![format!("a={}", "x".repeat(60_000))], 431),
        ("60 KB in many fields", vec![format!("a={}", "x".repeat(2000)); 30], 431),
        ("200 cookies in 200 fields", (0..200).map(|n| format!("c{n}=v")).collect(), 431),
        ("200 cookies", vec![many(200)], 302),
    ];
    for (name, fields, wanted) in rows {
        let request = fields
            .iter()
            .fold(get("/page").with("Accept", "text/html"), |request, field| request.with("Cookie", field));
        assert_eq!(gateway.place(WIKI).request(&request).status, wanted, "{name}");
        assert_eq!(gateway.request(&Request::get("/page").with("Accept", "text/html")).status, 302);
    }
    assert_eq!(upstream.hits(), 0);
}

#[test]
fn a_body_that_is_too_large_for_its_route_is_refused_before_or_while_it_comes() {
    let upstream = Upstream::start();
    let url = upstream.url();
    let gateway = public(&upstream, "max_body_size = 1000")
        .route(&format!("host = \"{WIKI}\"\npath = \"/files\"\nupstream = \"{url}\"\naccess = \"public\"\nmax_body_size = \"off\""))
        .start();
    let put =
        |path: &str, bytes: usize| Request::new("PUT", path).with("Host", WIKI).with_body(&vec![b'x'; bytes]);
    let answer = gateway.place(WIKI).request(&put("/a", 1001));
    assert_eq!((answer.status, answer.json()["error"].as_str()), (413, Some("body_too_large")));
    assert_eq!(answer.field("connection"), Some("close"));

    // Told by its length, it is not even asked for.
    let mut connection = connect(&gateway);
    let head =
        format!("PUT /a HTTP/1.1\r\nHost: {WIKI}\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n");
    connection.send(head.as_bytes()).unwrap();
    assert!(connection.read_head().unwrap().line.starts_with("HTTP/1.1 413"));
    assert_eq!(upstream.hits(), 0);

    assert_eq!(Echo::of(&gateway.place(WIKI).request(&put("/a", 1000))).body_bytes, 1000);
    assert_eq!(Echo::of(&gateway.place(WIKI).request(&put("/files", 100_000))).body_bytes, 100_000);

    let chunked = |path: &str, chunks: &[usize]| {
        let mut text = format!("PUT {path} HTTP/1.1\r\nHost: {WIKI}\r\nTransfer-Encoding: chunked\r\n\r\n");
        for &length in chunks {
            write!(text, "{length:x}\r\n{}\r\n", "x".repeat(length)).unwrap();
        }
        text
    };
    let mut connection = connect(&gateway);
    connection.send((chunked("/a", &[500, 500]) + "0\r\n\r\n").as_bytes()).unwrap();
    assert_eq!(Echo::of(&connection.response_to("PUT")).body_bytes, 1000);
    // The end of it never comes, and is not waited for.
    connection.send(chunked("/a", &[500, 500, 1]).as_bytes()).unwrap();
    let answer = connection.response_to("PUT");
    assert_eq!((answer.status, answer.json()["error"].as_str()), (413, Some("body_too_large")));
    assert!(connection.is_closed_within(DEADLINE));
    assert_eq!(gateway.request(&Request::get("/page")).status, 200);
}

#[test]
fn a_body_at_a_crawl_ends_in_408_and_a_slow_application_is_not_the_clients_fault() {
    let upstream = Upstream::start();
    upstream.waits_at("/slow");
    let gateway = public(&upstream, "").config("[server]\nbody_idle_timeout = \"2s\"").start();
    let head = |path: &str, length: usize, more: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: {WIKI}\r\nContent-Length: {length}\r\n{more}\r\n").into_bytes()
    };
    let mut crawling = connect(&gateway);
    crawling.send(&head("/fast", 1000, "")).unwrap();
    let begun = Instant::now();
    // A byte now and then, so that it is never silent for so long.
    while crawling.send(b"x").is_ok() && !crawling_ends(&mut crawling) {
        assert!(begun.elapsed() < DEADLINE, "the body may go on for ever");
    }
    assert!(begun.elapsed() >= Duration::from_secs(1), "cut after {:?}", begun.elapsed());
    gateway.wait_for_log(&["\"event\":\"request\"", "\"status\":408", "body_too_slow"]);

    // The application reads nothing for longer than a client may rest.
    let mut waiting = connect(&gateway);
    waiting.send(&head("/slow", LENGTH, "")).unwrap();
    let sender = std::thread::spawn(move || {
        waiting.send(&vec![b'x'; LENGTH]).unwrap();
        waiting
    });
    // A client that waits for its 100 Continue is not waited for.
    let mut asking = connect(&gateway);
    asking.send(&head("/slow", 5, "Expect: 100-continue\r\n")).unwrap();
    let asking = std::thread::spawn(move || {
        let interim = asking.read_head().expect("an interim answer");
        assert!(interim.line.starts_with("HTTP/1.1 100"), "{}", interim.line);
        asking.send(b"hello").unwrap();
        asking.response_to("POST")
    });
    let others = Instant::now();
    while others.elapsed() < Duration::from_secs(4) {
        assert_eq!(gateway.request(&Request::get("/page")).status, 200, "others are served");
    }
    upstream.go_on();
    assert_eq!(Echo::of(&sender.join().unwrap().response_to("POST")).body_bytes, LENGTH as u64);
    assert_eq!(Echo::of(&asking.join().unwrap()).body_bytes, 5);
}

/// Whether an answer, or the end, has come.
fn crawling_ends(connection: &mut Connection) -> bool {
    connection.is_closed_within(Duration::from_millis(50))
}

#[test]
fn the_answer_to_the_last_request_of_a_connection_closes_it() {
    let upstream = Upstream::start();
    let gateway = public(&upstream, "").config("[server]\nmax_requests_per_connection = 3").start();
    for last in ["/page", "/oauth2/nothing-here"] {
        let mut connection = connect(&gateway);
        for _ in 0..2 {
            assert_ne!(connection.request(&get("/page")).field("connection"), Some("close"));
        }
        assert_eq!(connection.request(&get(last)).field("connection"), Some("close"), "{last}");
        assert!(connection.is_closed_within(DEADLINE), "{last}");
    }
}

#[test]
fn a_client_with_too_many_connections_is_closed_at_once_and_a_trusted_proxy_is_not() {
    let upstream = Upstream::start();
    let limit = "[server]\nmax_connections_per_address = 3";
    let gateway = public(&upstream, "").config(limit).start();
    let mut open: Vec<_> = (0..3).map(|_| connect(&gateway)).collect();
    for connection in &mut open {
        assert_eq!(connection.request(&get("/page")).status, 200);
    }
    for _ in 0..5 {
        assert!(connect(&gateway).is_closed_within(DEADLINE));
    }
    assert!(gateway.metric("portcullis_connections_refused_total{reason=\"address_limit\"}") >= 5.0);
    gateway.wait_for_log(&["connection_refused", "\"level\":\"WARN\"", "127.0.0.1"]);
    for connection in &mut open {
        assert_eq!(connection.request(&get("/page")).status, 200, "those that are there go on");
    }
    drop(open);
    wait_for("a place", || {
        let mut connection = connect(&gateway);
        connection.send(&get("/page").bytes()).ok()?;
        (!connection.is_closed_within(Duration::from_millis(200))).then_some(())
    });

    let gateway =
        public(&upstream, "").config(&format!("{limit}\ntrusted_proxies = [\"127.0.0.1\"]")).start();
    let mut open: Vec<_> = (0..10).map(|_| connect(&gateway)).collect();
    for connection in &mut open {
        assert_eq!(connection.request(&get("/page")).status, 200);
    }
}
