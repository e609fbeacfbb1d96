//! HTTP/2 towards clients: what browsers do with it, and what they never would.

use std::time::{Duration, Instant};

use crate::support::browser::Browser;
use crate::support::client::{Request, Response};
use crate::support::gateway::{Builder, Gateway, WIKI};
use crate::support::hpack::literals;
use crate::support::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Http2, NO_ERROR, Outcome, WINDOW_UPDATE, frame,
    headers, request, setting,
};
use crate::support::scripted_provider::ScriptedProvider;
use crate::support::upstream::{Echo, Upstream};
use crate::support::wait_for;

const PAGE: &str = "https://wiki.test/page";

/// `/` signed in, `/public/`.
fn built(upstream: &Upstream, provider: &ScriptedProvider) -> Builder {
    Gateway::in_front_of(upstream)
        .tls(&[WIKI])
        .path("/public/", upstream, "access = \"public\"")
        .provider(provider.entry())
}

fn stage() -> (Upstream, ScriptedProvider, Gateway) {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = built(&upstream, &provider).start();
    (upstream, provider, gateway)
}

/// Signs in with HTTP/1.1; the session's cookie.
fn session(gateway: &Gateway) -> (Browser, String) {
    let mut browser = Browser::new(gateway);
    assert_eq!(browser.open(PAGE).status(), 200);
    let cookie = browser.jar.get(WIKI, "__Host-portcullis").expect("a session cookie");
    let field = format!("{}={}", cookie.name, cookie.value);
    (browser, field)
}

fn connect(gateway: &Gateway) -> Http2 {
    Http2::connect(&gateway.place(WIKI))
}

/// A GET of a path with more fields.
fn get<'a>(path: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [request("GET", WIKI, path), more.to_vec()].concat()
}

#[test]
fn a_hundred_requests_at_once_are_all_answered() {
    let (_upstream, _provider, gateway) = stage();
    let (_, cookie) = session(&gateway);
    let mut client = connect(&gateway);
    let paths: Vec<String> = (0..100).map(|number| format!("/page/{number}")).collect();
    let streams: Vec<u32> = paths.iter().map(|path| client.ask(&get(path, &[("cookie", &cookie)]))).collect();
    for (path, outcome) in paths.iter().zip(client.outcomes(&streams)) {
        let echo = Echo::of(&outcome.response());
        assert_eq!(echo.line, format!("GET {path} HTTP/1.1"));
        assert_eq!(echo.one("x-forwarded-user"), Some("alice"));
        assert_eq!(echo.one("host"), Some(WIKI));
        assert_eq!(echo.one("x-forwarded-proto"), Some("https"));
    }
    let line = gateway.wait_for_log(&["/page/99", "\"status\":200"]);
    assert!(line.contains("alice"), "{line}");
}

#[test]
fn who_is_not_signed_in_is_sent_to_the_provider_and_back() {
    let (upstream, provider, gateway) = stage();
    let mut client = connect(&gateway);
    let answer = client.outcome_of(&get("/page", &[("accept", "text/html"), ("sec-fetch-mode", "navigate")]));
    let answer = answer.response();
    assert_eq!(answer.status, 302);
    assert!(answer.field("location").unwrap().starts_with(&provider.issuer()), "{answer:?}");
    assert!(answer.field("set-cookie").unwrap().starts_with("__Host-portcullis-"), "{answer:?}");
    let api = client.outcome_of(&get("/page", &[("accept", "application/json")])).response();
    assert_eq!((api.status, upstream.hits()), (401, 0));
}

#[test]
fn heads_and_bodies_pass_as_with_http_1() {
    let (_upstream, _provider, gateway) = stage();
    let mut client = connect(&gateway);
    let mut head = client.outcome_of(&request("HEAD", WIKI, "/public/")).response();
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(head.field("content-length").is_some_and(|length| length != "0"));

    let sent = [("content-length", Some("11")), ("content-length", None)];
    for (name, length) in sent {
        let mut fields = request("POST", WIKI, "/public/form");
        fields.extend(length.map(|length| (name, length)));
        let echo = Echo::of(&client.post(&fields, b"hello world").response());
        assert_eq!((echo.line.as_str(), echo.body_bytes), ("POST /public/form HTTP/1.1", 11));
    }
    let fields = [request("POST", WIKI, "/public/"), vec![("expect", "100-continue")]].concat();
    assert_eq!(Echo::of(&client.post(&fields, b"hello").response()).body_bytes, 5);
    head = client.outcome_of(&request("OPTIONS", WIKI, "*")).response();
    assert_eq!(head.status, 204);
    assert!(head.field("allow").unwrap().contains("PROPFIND"));
}

#[test]
fn large_bodies_pass_both_ways() {
    const BYTES: usize = 8 << 20;
    let (_upstream, _provider, gateway) = stage();
    let mut client = connect(&gateway);
    let stream = client.upload(&request("POST", WIKI, "/public/upload"), BYTES);
    assert_eq!(Echo::of(&client.outcome(stream).response()).body_bytes, BYTES as u64);
    let (_, cookie) = session(&gateway);
    let answer = client.outcome_of(&get(&format!("/big?bytes={BYTES}"), &[("cookie", &cookie)])).response();
    assert_eq!((answer.status, answer.body.len()), (200, BYTES));
}

#[test]
fn events_come_one_by_one_and_end_with_their_session_alone() {
    let (upstream, _provider, gateway) = stage();
    let (mut browser, cookie) = session(&gateway);
    let mut client = connect(&gateway);
    let events = client.ask(&get("/sse", &[("cookie", &cookie)]));
    assert_eq!(client.head(events).0.line, "200");
    assert_eq!(client.data(events).unwrap(), b"data: 0\n\n");
    upstream.go_on();
    assert_eq!(client.data(events).unwrap(), b"data: 1\n\n");

    assert_eq!(browser.post("https://wiki.test/oauth2/sign_out", PAGE).status, 302);
    let outcome = client.outcome(events);
    assert!(matches!(outcome, Outcome::Reset(_)), "{outcome:?}");
    assert_eq!(client.get(WIKI, "/public/").status(), 200, "the connection goes on");
    let again = client.outcome_of(&get("/page", &[("cookie", &cookie), ("accept", "application/json")]));
    assert_eq!(again.status(), 401);
}

#[test]
fn a_server_that_closes_says_so_and_finishes_what_it_began() {
    let (upstream, _provider, mut gateway) = stage();
    upstream.waits_at("/public/slow");
    let (mut client, mut idle) = (connect(&gateway), connect(&gateway));
    assert_eq!(idle.get(WIKI, "/public/").status(), 200);
    let slow = client.ask(&request("GET", WIKI, "/public/slow"));
    wait_for("the request to arrive", || (upstream.hits() == 2).then_some(()));
    gateway.send_terminate();
    assert_eq!(idle.goaway(), Some(NO_ERROR));
    upstream.go_on();
    let echo = Echo::of(&client.outcome(slow).response());
    assert_eq!(echo.line, "GET /public/slow HTTP/1.1");
    assert_eq!(client.goaway(), Some(NO_ERROR));
    assert!(gateway.wait_for_exit().success());
}

#[test]
fn a_server_that_closes_waits_for_answers_on_their_way_out() {
    const ANSWER: usize = 64_000;
    let (_upstream, _provider, mut gateway) = stage();
    let (_, cookie) = session(&gateway);
    let mut client = connect(&gateway);
    // Windows for everything, more of it than the system holds, and nothing is read.
    client.send(&[setting(4, 1 << 24), frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 24).to_be_bytes())].concat());
    let path = format!("/big?bytes={ANSWER}");
    let streams: Vec<u32> = (0..100).map(|_| client.ask(&get(&path, &[("cookie", &cookie)]))).collect();
    wait_for("all to be answered", || {
        (gateway.log().iter().filter(|line| line.contains("\"path\":\"/big\"")).count() == 100).then_some(())
    });
    gateway.send_terminate();
    wait_for("the server to stop listening", || (!gateway.listens()).then_some(()));
    for outcome in client.outcomes(&streams) {
        assert_eq!(outcome.response().body.len(), ANSWER);
    }
    drop(client);
    assert!(gateway.wait_for_exit().success());
}

#[test]
fn ax_232_bodies_that_never_come_end_with_the_patience_of_who_waits_for_them() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = built(&upstream, &provider)
        .path("/hasty/", &upstream, "access = \"public\"\nread_timeout = \"1s\"")
        .start();
    let mut client = connect(&gateway);
    let paths = ["/hasty/", "/oauth2/backchannel_logout"];
    let begun = Instant::now();
    let streams = paths.map(|path| {
        let stream = client.new_stream();
        client.send(&headers(0, stream, &request("POST", WIKI, path)));
        client.send(&frame(DATA, 0, stream, b"x"));
        stream
    });
    let statuses: Vec<u16> = client.outcomes(&streams).iter().map(Outcome::status).collect();
    assert_eq!(statuses, [504, 400]);
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    assert_eq!(client.get(WIKI, "/public/").status(), 200);
}

#[test]
fn a_connection_that_had_its_share_of_requests_is_told_to_go() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = built(&upstream, &provider).config("[server]\nmax_requests_per_connection = 3").start();
    upstream.waits_at("/public/slow");
    let mut client = connect(&gateway);
    let slow = client.ask(&request("GET", WIKI, "/public/slow"));
    assert_eq!(client.get(WIKI, "/public/").status(), 200);
    assert_eq!(client.get(WIKI, "/public/").status(), 200);
    upstream.go_on();
    assert_eq!(client.outcome(slow).status(), 200, "what was begun is finished");
    assert_eq!(client.goaway(), Some(NO_ERROR));
    assert_eq!(connect(&gateway).get(WIKI, "/public/").status(), 200);
}

#[test]
fn it_is_spoken_where_it_is_offered_and_chosen() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = built(&upstream, &provider).config("[server]\nhttp2 = false").start();
    let mut config = rustls::ClientConfig::clone(&gateway.place(WIKI).tls.unwrap().0);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut place = gateway.place(WIKI);
    place.tls = Some((config.into(), WIKI.to_owned()));
    // `h2` is asked for first; HTTP/1.1 is spoken all the same.
    let answer = place.request(&Request::get("/public/").with("Host", WIKI));
    assert_eq!(Echo::of(&answer).line, "GET /public/ HTTP/1.1");
}

#[test]
fn hs_020_another_host_beside_the_authority_is_refused() {
    let (upstream, _provider, gateway) = stage();
    for host in ["admin.test", "wiki.test:444", "wiki.test@evil.test", ""] {
        let outcome = connect(&gateway).outcome_of(&get("/public/", &[("host", host)]));
        assert!(outcome.is_refusal(), "{host}: {outcome:?}");
    }
    assert_eq!(upstream.hits(), 0);
    let echo = Echo::of(&connect(&gateway).outcome_of(&get("/public/", &[("host", WIKI)])).response());
    assert_eq!(echo.one("host"), Some(WIKI));
}

#[test]
fn hs_021_a_malformed_head_is_refused() {
    let (upstream, _provider, gateway) = stage();
    let more = |name, value| literals(&get("/public/", &[(name, value)]));
    let only = |fields: &[(&str, &str)]| literals(fields);
    let (method, scheme, host) = ((":method", "GET"), (":scheme", "https"), (":authority", WIKI));
    let path = (":path", "/public/");
    let cases = [
        ("connection", more("connection", "x")),
        ("keep-alive", more("keep-alive", "timeout=5")),
        ("proxy-connection", more("proxy-connection", "keep-alive")),
        ("upgrade", more("upgrade", "websocket")),
        ("transfer-encoding", more("transfer-encoding", "chunked")),
        ("te", more("te", "gzip")),
        ("upper case", more("X-Upper", "x")),
        ("CRLF in a value", more("x-a", "a\r\nx-forwarded-user: root")),
        ("LF in a value", more("x-a", "a\nb")),
        ("NUL in a value", more("x-a", "a\0b")),
        ("a colon in a name", more("x:a", "x")),
        ("a space in a name", more("x a", "x")),
        ("CRLF in a name", more("x\r\ny", "x")),
        ("an empty name", more("", "x")),
        ("a pseudo-field behind a field", only(&[method, scheme, host, ("x-a", "1"), path])),
        ("two paths", only(&[method, scheme, host, path, (":path", "/")])),
        ("two methods", only(&[method, (":method", "POST"), scheme, host, path])),
        ("two authorities", only(&[method, scheme, host, (":authority", WIKI), path])),
        ("an empty path", only(&[method, scheme, host, (":path", "")])),
        ("a path without a slash", only(&[method, scheme, host, (":path", "admin/x")])),
        ("an absolute path", only(&[method, scheme, host, (":path", "https://wiki.test/public/")])),
        ("no path", only(&[method, scheme, host])),
        ("no method", only(&[scheme, host, path])),
        ("no scheme", only(&[method, host, path])),
        ("a status", only(&[method, scheme, host, path, (":status", "200")])),
        ("an unknown pseudo-field", only(&[method, scheme, host, path, (":user", "root")])),
        ("extended CONNECT", only(&[(":method", "CONNECT"), (":protocol", "websocket"), scheme, host, path])),
        ("CRLF in the path", only(&[method, scheme, host, (":path", "/public/ HTTP/1.1\r\nx: y")])),
        ("two lengths", literals(&get("/public/", &[("content-length", "0"), ("content-length", "0")]))),
        ("a length that is none", more("content-length", "0x0")),
    ];
    for (name, block) in cases {
        let mut client = connect(&gateway);
        let stream = client.new_stream();
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &block));
        let outcome = client.outcome(stream);
        assert!(outcome.is_refusal(), "{name}: {outcome:?}");
        assert_eq!(upstream.hits(), 0, "{name}");
    }
    for (method, status) in [("TRACE", 405), ("CONNECT", 405), ("get", 405), ("DEBUG", 405)] {
        let fields = request(method, WIKI, "/public/");
        let fields =
            if method == "CONNECT" { vec![fields[0], (":authority", "wiki.test:443")] } else { fields };
        let outcome = connect(&gateway).outcome_of(&fields);
        assert!(outcome.status() == status || outcome.is_refusal(), "{method}: {outcome:?}");
    }
    assert_eq!(upstream.hits(), 0);
    assert_eq!(connect(&gateway).get(WIKI, "/public/").status(), 200);
}

#[test]
fn hs_023_a_body_of_another_length_than_its_head_says_is_refused() {
    let (upstream, _provider, gateway) = stage();
    let fields = |length| [request("POST", WIKI, "/public/"), vec![("content-length", length)]].concat();
    let cases: [(&str, &str, &[u8]); 4] = [
        ("less", "10", b"abc"),
        ("more", "3", b"0123456789"),
        ("none", "10", b""),
        ("some for none", "0", b"x"),
    ];
    for (name, length, body) in cases {
        let mut client = connect(&gateway);
        let outcome = client.post(&fields(length), body);
        assert!(outcome.is_refusal(), "{name}: {outcome:?}");
        // What the application had of it is no request, and the next one is its own.
        let next = client.get(WIKI, "/public/next");
        if next.status() != 0 {
            assert_eq!(Echo::of(&next.response()).line, "GET /public/next HTTP/1.1", "{name}");
        }
    }
    let mut client = connect(&gateway);
    let stream = client.new_stream();
    client.send(&headers(END_STREAM, stream, &fields("10")));
    assert!(client.outcome(stream).is_refusal());
    let whole = connect(&gateway).post(&fields("3"), b"abc");
    assert_eq!(Echo::of(&whole.response()).body_bytes, 3);
    assert!(upstream.hits() > 0);
}

#[test]
fn hs_024_an_odd_scheme_or_authority_is_refused() {
    let (upstream, provider, gateway) = stage();
    let fields = |scheme: &'static str, authority: Option<&'static str>| {
        let mut fields = vec![(":method", "GET"), (":scheme", scheme)];
        fields.extend(authority.map(|authority| (":authority", authority)));
        fields.push((":path", "/page"));
        fields.push(("sec-fetch-mode", "navigate"));
        fields
    };
    let cases = [
        ("javascript", fields("javascript", Some(WIKI))),
        ("an empty scheme", fields("", Some(WIKI))),
        ("no authority", fields("https", None)),
        ("an empty authority", fields("https", Some(""))),
        ("userinfo", fields("https", Some("u@wiki.test"))),
        ("a path in it", fields("https", Some("wiki.test/x"))),
        ("a space in it", fields("https", Some("wiki.test evil.test"))),
        ("a bad port", fields("https", Some("wiki.test:x"))),
    ];
    for (name, fields) in cases {
        let outcome = connect(&gateway).outcome_of(&fields);
        assert!(outcome.is_refusal(), "{name}: {outcome:?}");
    }
    let unknown = connect(&gateway).get("evil.test", "/page");
    assert_eq!(unknown.status(), 421);
    // The scheme is the connection's own, whatever the client says.
    let answer = connect(&gateway).outcome_of(&fields("http", Some(WIKI))).response();
    let location = answer.field("location").expect("a way to the provider");
    assert!(
        location.starts_with(&provider.issuer()) && location.contains("https%3A%2F%2Fwiki.test"),
        "{location}"
    );
    let mut public = request("GET", WIKI, "/public/");
    public[1].1 = "http";
    let echo = Echo::of(&connect(&gateway).outcome_of(&public).response());
    assert_eq!(echo.one("x-forwarded-proto"), Some("https"));
    assert_eq!(upstream.hits(), 1);
}

#[test]
fn hs_025_cleartext_http_2_is_neither_spoken_nor_forwarded() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream)
        .path("/public/", &upstream, "access = \"public\"")
        .provider(provider.entry())
        .start();
    let upgrade = Request::get("/public/")
        .with("Connection", "Upgrade, HTTP2-Settings")
        .with("Upgrade", "h2c")
        .with("HTTP2-Settings", "AAMAAABkAAQAoAAAAAIAAAAA");
    let echo = Echo::of(&gateway.request(&upgrade));
    for name in ["connection", "upgrade", "http2-settings"] {
        assert_eq!(echo.one(name), None, "{name}");
    }
    let mut connection = gateway.place(WIKI).connect().unwrap();
    connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let (status, ..) = connection.response_head("GET");
    assert_eq!((status, upstream.hits()), (400, 1));
}

#[test]
fn ih_054_no_client_names_itself_over_http_2() {
    let (_upstream, _provider, gateway) = stage();
    let (_, cookie) = session(&gateway);
    let names = [
        "x-forwarded-user",
        "x-forwarded-email",
        "x-forwarded-groups",
        "x-forwarded-preferred-username",
        "x-forwarded-access-token",
        "x_forwarded_user",
        "x-forwarded_user",
        "x.forwarded.user",
        "remote-user",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "forwarded",
        "x-real-ip",
    ];
    for (path, user) in [("/public/", None), ("/page", Some("alice"))] {
        let mut fields = get(path, &[("cookie", &cookie)]);
        fields.extend(names.iter().map(|name| (*name, "mallory")));
        let echo = Echo::of(&connect(&gateway).outcome_of(&fields).response());
        let believed: Vec<_> = echo.fields.iter().filter(|(_, value)| value.contains("mallory")).collect();
        assert!(believed.is_empty(), "{path}: {believed:?}");
        assert_eq!(echo.one("x-forwarded-user"), user, "{path}");
        assert_eq!(echo.one("x-forwarded-for"), Some("127.0.0.1"), "{path}");
    }
}

#[test]
fn sc_150_crumbs_of_cookies_are_one_cookie_field() {
    let (_upstream, _provider, gateway) = stage();
    let (_, cookie) = session(&gateway);
    let (name, value) = cookie.split_once('=').unwrap();
    let half: String = value.chars().take(value.len() / 2).collect();
    let half = format!("{name}={half}");
    let crumbs = [("cookie", "a=1"), ("cookie", cookie.as_str()), ("cookie", "b=2; c=3")];
    let echo = Echo::of(&connect(&gateway).outcome_of(&get("/page", &crumbs)).response());
    assert_eq!(echo.one("x-forwarded-user"), Some("alice"));
    assert_eq!(echo.one("cookie"), Some("a=1; b=2; c=3"));
    // As many crumbs as browsers may have cookies: one field to every limit.
    let many: Vec<String> = (0..150).map(|number| format!("c{number}=x")).collect();
    let mut fields = get("/public/", &[]);
    fields.extend(many.iter().map(|crumb| ("cookie", crumb.as_str())));
    let echo = Echo::of(&connect(&gateway).outcome_of(&fields).response());
    assert_eq!(echo.one("cookie"), Some(many.join("; ").as_str()));
    let cut =
        connect(&gateway).outcome_of(&get("/page", &[("cookie", &half), ("accept", "application/json")]));
    assert_eq!(cut.status(), 401);
}

/// PB-026 to PB-045 and their like: the target is read by one code for both versions.
#[test]
fn pb_026_pb_045_targets_get_the_verdict_that_they_get_over_http_1() {
    let (_upstream, _provider, gateway) = stage();
    let targets = [
        "/public/",
        "/public/a?b=../c",
        "/public/%41",
        "/public/%7e",
        "/public/../page",
        "/public/%2e%2e/page",
        "/public/..%2fpage",
        "/public/%2e%2e%2fpage",
        "/public/..;/page",
        "/public/..;a=b/page",
        "/public/.;/x",
        "/public;x=y/",
        "/public/x;y",
        "//public/",
        "/public//x",
        "/./public/",
        "/public/.",
        "/public/..",
        "/public%2f",
        "/public/%5c..%5cpage",
        "/public/\\..\\page",
        "/public/%00",
        "/public/%0d%0aX:y",
        "/public/%zz",
        "/public/%",
        "/public/%2",
        "/public/%c0%ae",
        "/public/%ff",
        "/PUBLIC/",
        "/Public/",
        "/public",
        "/public?x",
        "/page",
        "/page/../public/",
        "/oauth2/userinfo",
        "/oauth2/../page",
        "/oauth2%2fuserinfo",
        "/public/%252e%252e/page",
        "/public/\u{e4}/page",
        "/public/~",
        "/public/a:b@c",
        "/public/*",
        "/public/%3f",
        "/public/%23",
        "/?/public/",
        "/public/?%00",
        "/public/?a=%0a",
    ];
    let mut differing = Vec::new();
    for target in targets {
        let one = gateway.request(&Request::get(target).with("Accept", "application/json"));
        let two = connect(&gateway).outcome_of(&get(target, &[("accept", "application/json")]));
        let refused = one.status == 400 && two.is_refusal();
        let line = |answer: &Response| (answer.status == 200).then(|| Echo::of(answer).line);
        let same =
            matches!(&two, Outcome::Answer(two) if one.status == two.status && line(&one) == line(two));
        if !refused && !same {
            differing.push((target, one.status, two));
        }
    }
    assert!(differing.is_empty(), "{differing:#?}");
    // A fragment, which no client sends, is cut off before anybody sees it; HTTP/1 refuses it.
    let echo = Echo::of(&connect(&gateway).get(WIKI, "/public/#/../page").response());
    assert_eq!(echo.line, "GET /public/ HTTP/1.1");
}

#[test]
fn heads_have_the_limits_that_they_have_over_http_1() {
    let (upstream, _provider, gateway) = stage();
    let long = "x".repeat(40 << 10);
    let many: Vec<String> = (0..120).map(|number| format!("x-{number}")).collect();
    let target = format!("/public/{}", "a".repeat(9 << 10));
    let mut crowded = get("/public/", &[]);
    crowded.extend(many.iter().map(|name| (name.as_str(), "y")));
    let cases = [
        ("bytes", get("/public/", &[("x-long", &long)]), 431),
        ("fields", crowded, 431),
        ("target", request("GET", WIKI, &target), 414),
    ];
    for (name, fields, status) in cases {
        let mut client = connect(&gateway);
        let stream = client.new_stream();
        client.send(&in_pieces(stream, &literals(&fields)));
        assert_eq!(client.outcome(stream).status(), status, "{name}");
        gateway.wait_for_log(&["\"event\":\"request\"", &format!("\"status\":{status}")]);
        assert_eq!(client.get(WIKI, "/public/").status(), 200, "{name}: the connection goes on");
    }
    assert_eq!(upstream.hits(), 3);
}

/// A block as HEADERS and CONTINUATION.
fn in_pieces(stream: u32, block: &[u8]) -> Vec<u8> {
    let pieces: Vec<&[u8]> = block.chunks(16_384).collect();
    let last = pieces.len() - 1;
    let frames = pieces.into_iter().enumerate().map(|(number, piece)| {
        let kind = if number == 0 { HEADERS } else { CONTINUATION };
        let begins = if number == 0 { END_STREAM } else { 0 };
        frame(kind, begins | if number == last { END_HEADERS } else { 0 }, stream, piece)
    });
    frames.flatten().collect()
}

#[test]
fn trailers_reach_nobody_and_malformed_ones_end_their_stream() {
    let (upstream, _provider, gateway) = stage();
    let cases = [
        ("a field", ("x-checksum", "1"), true),
        ("an identity", ("x-forwarded-user", "root"), true),
        ("a pseudo-field", (":path", "/page"), true),
        ("a field of connections", ("transfer-encoding", "chunked"), false),
    ];
    for (name, trailer, passes) in cases {
        let mut client = connect(&gateway);
        let stream = client.new_stream();
        client.send(&headers(0, stream, &request("POST", WIKI, "/public/")));
        client.send(&frame(DATA, 0, stream, b"body"));
        client.send(&headers(END_STREAM, stream, &[trailer]));
        let outcome = client.outcome(stream);
        if passes {
            let echo = Echo::of(&outcome.response());
            assert_eq!((echo.body_bytes, echo.one(trailer.0)), (4, None), "{name}");
            assert_eq!(echo.line, "POST /public/ HTTP/1.1", "{name}");
        } else {
            assert!(outcome.is_refusal(), "{name}: {outcome:?}");
        }
    }
    assert!(upstream.hits() >= 2);
}

#[test]
fn ax_232_connections_that_say_too_little_are_closed() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = built(&upstream, &provider)
        .config("[server]\nrequest_head_timeout = \"1s\"\nkeepalive_timeout = \"2s\"")
        .start();
    let place = gateway.place(WIKI);
    let silent = Http2::connect_silently(&place);
    let mut half_a_preface = Http2::connect_silently(&place);
    half_a_preface.send(b"PRI * HTTP/2.0\r\n");
    let asks_nothing = connect(&gateway);
    let mut half_a_frame = connect(&gateway);
    half_a_frame.send(&headers(END_STREAM, 1, &get("/public/", &[]))[..20]);
    let mut open_block = connect(&gateway);
    open_block.send(&frame(HEADERS, END_STREAM, 1, &literals(&get("/public/", &[]))));
    let mut idle = connect(&gateway);
    assert_eq!(idle.get(WIKI, "/public/").status(), 200);
    let mut busy = connect(&gateway);
    upstream.waits_at("/public/slow");
    let slow = busy.ask(&request("GET", WIKI, "/public/slow"));
    let mut busy_with_an_open_block = connect(&gateway);
    busy_with_an_open_block.ask(&request("GET", WIKI, "/public/slow"));
    busy_with_an_open_block.send(&frame(HEADERS, END_STREAM, 3, &literals(&get("/public/", &[]))));
    let cases = [
        ("nothing after TLS", silent),
        ("half a preface", half_a_preface),
        ("no request", asks_nothing),
        ("half a frame", half_a_frame),
        ("an open block", open_block),
        ("no other request", idle),
        ("an open block beside a request", busy_with_an_open_block),
    ];
    for (name, mut client) in cases {
        assert!(client.is_closed_within(Duration::from_secs(8)), "{name}");
    }
    gateway.wait_for_log(&["\"event\":\"request\"", "\"status\":408"]);
    upstream.go_on();
    assert_eq!(busy.outcome(slow).status(), 200, "who waits for an answer is waited for");
}
