//! Attack cases on the framing of HTTP/1, raw, against the running gateway: HS-001 to HS-019, HS-025.
//!
//! HS-020 to HS-024 are of HTTP/2.

use std::time::Duration;

use crate::support::client::status_of;
use crate::support::rig::{ADMIN, APP, PARTIAL, Rig};
use crate::support::upstream::{Echo, Upstream};

/// What a smuggler hides in or behind a message.
const SMUGGLED: &str = "GET /public/smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n";

/// Sends bytes of which no request `/public/smuggled` may ever come to the application, and reads until
/// the connection ends; gives every answer's status.
fn statuses_of(rig: &Rig, name: &str, bytes: impl AsRef<[u8]>) -> Vec<u16> {
    let mut connection = rig.send(bytes);
    let mut statuses = Vec::new();
    while let Some(head) = connection.read_head() {
        let status = status_of(&head);
        statuses.push(status);
        if status >= 200 {
            head.framing(false)
                .read_whole(connection.stream())
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
    let lines = rig.upstream.lines();
    assert!(!lines.iter().any(|line| line.contains("smuggled")), "{name}: {lines:?}");
    statuses
}

#[test]
fn hs_001_hs_002_a_request_has_exactly_one_host() {
    let rig = Rig::echo();
    let cases = [
        ("two hosts", "Host: app.test\r\nHost: admin.test\r\n"),
        ("two hosts, the other first", "Host: admin.test\r\nHost: app.test\r\n"),
        ("the same host twice", "Host: app.test\r\nHost: app.test\r\n"),
        ("in another case", "Host: app.test\r\nhost: app.test\r\n"),
        ("no host", ""),
        ("no host but what looks like one", "X-Host: app.test\r\nHost_: app.test\r\n"),
        ("an empty host", "Host: \r\n"),
        ("a list of hosts", "Host: app.test, admin.test\r\n"),
        ("two hosts in one", "Host: app.test admin.test\r\n"),
        ("a user", "Host: u@app.test\r\n"),
        ("a path", "Host: app.test/x\r\n"),
    ];
    for (name, fields) in cases {
        for target in ["/app", "/public/x"] {
            assert_eq!(
                rig.refuse(name, format!("GET {target} HTTP/1.1\r\n{fields}\r\n{SMUGGLED}")),
                400,
                "{name}"
            );
        }
    }
}

#[test]
fn hs_004_a_length_and_a_coding_together_are_refused() {
    let rig = Rig::echo();
    let (length, chunked) = ("Content-Length: 6\r\n", "Transfer-Encoding: chunked\r\n");
    for (name, fields) in [
        ("length first", format!("{length}{chunked}")),
        ("coding first", format!("{chunked}{length}")),
        ("a length of nothing", format!("Content-Length: 0\r\n{chunked}")),
        ("in other cases", "content-LENGTH: 6\r\ntransfer-ENCODING: CHUNKED\r\n".to_owned()),
    ] {
        let head = format!("POST /public/x HTTP/1.1\r\nHost: app.test\r\n{fields}\r\n");
        assert_eq!(rig.refuse(name, format!("{head}0\r\n\r\nG")), 400, "{name}");
        assert_eq!(rig.refuse(name, format!("{head}0\r\n\r\n{SMUGGLED}")), 400, "{name}");
    }
}

#[test]
fn hs_005_hs_006_hs_007_a_coding_is_exactly_one_chunked_of_http_1_1() {
    let rig = Rig::echo();
    let codings: &[&[u8]] = &[
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n",
        b"Transfer-Encoding: chunked\x0c\r\n",
        b"Transfer-Encoding: \xa0chunked\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding: \r\n",
        b"Transfer-Encoding: \"chunked\"\r\n",
        b"Transfer-Encoding: chunked;x=y\r\n",
        b"Transfer-Encoding: ,chunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding\t: chunked\r\n",
        b" Transfer-Encoding: chunked\r\n",
        b"X: y\r\n Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding:\r\n chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
    ];
    for coding in codings {
        let name = String::from_utf8_lossy(coding);
        let head = [b"POST /public/x HTTP/1.1\r\nHost: app.test\r\n", *coding, b"\r\n"].concat();
        let body = [b"0\r\n\r\n", SMUGGLED.as_bytes()].concat();
        assert_eq!(rig.refuse(&name, [head, body].concat()), 400, "{name}");
    }
    let of_1_0 = "POST /public/x HTTP/1.0\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(rig.refuse("HTTP/1.0", of_1_0), 400);
    for good in ["chunked", "CHUNKED", "\t chunked \t"] {
        let head = format!("POST /public/x HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: {good}\r\n\r\n");
        let echo = rig.reach(format!("{head}3\r\nabc\r\n0\r\n\r\n"));
        assert_eq!((echo.one("transfer-encoding"), echo.body.as_str()), (Some("chunked"), "abc"), "{good:?}");
    }
}

#[test]
fn hs_005_a_coding_under_another_name_frames_nothing_and_goes_no_further() {
    let rig = Rig::echo();
    for name in ["Transfer_Encoding", "Transfer.Encoding", "Content_Length"] {
        let head = format!(
            "POST /public/x HTTP/1.1\r\nHost: app.test\r\nContent-Length: 3\r\n{name}: chunked\r\n\r\n"
        );
        let echo = rig.reach(format!("{head}abc"));
        assert_eq!((echo.body.as_str(), echo.one(name)), ("abc", None), "{name}");
    }
}

#[test]
fn hs_008_a_length_is_one_number_of_digits() {
    let rig = Rig::echo();
    let lengths = [
        "3\r\nContent-Length: 4",
        "3\r\nContent-Length: 3",
        "3\r\ncontent-length: 0",
        "3, 3",
        "+3",
        "-1",
        "0x3",
        "3 3",
        "3.0",
        "3e0",
        "3;",
        "\"3\"",
        "",
        "99999999999999999999",
        "9223372036854775808",
    ];
    for length in lengths {
        let head = format!("POST /public/x HTTP/1.1\r\nHost: app.test\r\nContent-Length: {length}\r\n\r\n");
        assert_eq!(rig.refuse(length, format!("{head}abc{SMUGGLED}")), 400, "{length}");
    }
}

#[test]
fn hs_009_behind_a_chunk_that_breaks_the_grammar_nothing_is_a_request() {
    let rig = Rig::echo();
    let bodies = [
        ("a size that is none", "3z\r\nabc\r\n0\r\n\r\n"),
        ("a size with a bare line feed", "3\nabc\r\n0\r\n\r\n"),
        ("a size beyond 64 bits", "FFFFFFFFFFFFFFFF1\r\nabc\r\n0\r\n\r\n"),
        ("a size with a sign", "+3\r\nabc\r\n0\r\n\r\n"),
        ("a size with a prefix", "0x3\r\nabc\r\n0\r\n\r\n"),
        ("no size", "\r\nabc\r\n0\r\n\r\n"),
        ("no CRLF behind the data", "3\r\nabc0\r\n\r\n"),
        ("another CRLF behind the data", "3\r\nabc\n\n0\r\n\r\n"),
        ("more data than said", "3\r\nabcd\r\n0\r\n\r\n"),
        ("an extension with a bare line feed", "3;a\nb\r\nabc\r\n0\r\n\r\n"),
        ("an extension with a bare carriage return", "3;a\rb\r\nabc\r\n0\r\n\r\n"),
        ("the last chunk with a bare line feed", "0\n\n"),
        ("a trailer with a bare line feed", "0\r\nX: y\n\r\n"),
        ("a folded trailer", "0\r\nX: y\r\n z\r\n\r\n"),
    ];
    for (name, body) in bodies {
        let head = "POST /public/x HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n";
        let statuses = statuses_of(&rig, name, format!("{head}{body}{SMUGGLED}"));
        assert!(matches!(statuses[..], [] | [400]), "{name}: {statuses:?}");
    }
}

#[test]
fn hs_010_hs_025_no_other_upgrade_than_to_a_websocket_is_known() {
    let rig = Rig::echo();
    let alice = rig.alice();
    let upgrades = [
        "Connection: Upgrade\r\nUpgrade: foo\r\n",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket, foo\r\n",
        "Connection: Upgrade\r\nUpgrade: foo\r\nUpgrade: websocket\r\n",
        "Upgrade: websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
    ];
    for fields in upgrades {
        let hits = rig.upstream.hits();
        let head = format!("GET /app HTTP/1.1\r\nHost: app.test\r\n{alice}{fields}\r\n");
        let mut connection = rig.send(format!("{head}GET /admin/x HTTP/1.1\r\nHost: app.test\r\n\r\n"));
        let echo = Echo::of(&connection.response_to("GET"));
        for name in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(echo.one(name), None, "{fields}");
        }
        let (status, ..) = connection.response_head("GET");
        assert_eq!((status, rig.upstream.hits()), (302, hits + 1), "{fields}: the second is judged alone");
    }
}

#[test]
fn hs_011_what_follows_a_websocket_handshake_waits_and_is_judged_when_there_is_none() {
    let rig = Rig::echo();
    let alice = rig.alice();
    rig.upstream.answers_and_stays("/no-socket", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno");
    let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: https://app.test\r\n";
    let head = format!("GET /no-socket HTTP/1.1\r\nHost: app.test\r\n{alice}{handshake}\r\n");
    let mut connection = rig.send(format!("{head}GET /admin/x HTTP/1.1\r\nHost: app.test\r\n\r\n"));
    assert_eq!(connection.response_to("GET").status, 200);
    let second = connection.read_head().map(|head| status_of(&head));
    assert!(matches!(second, None | Some(302)), "{second:?}");
    let lines = rig.upstream.lines();
    assert_eq!(lines.iter().filter(|line| line.contains("/no-socket")).count(), 1);
    assert!(!lines.iter().any(|line| line.contains("/admin")), "{lines:?}");
}

#[test]
fn hs_013_pipelined_requests_are_judged_one_by_one() {
    let rig = Rig::echo();
    let bodies = ["Content-Length: 3\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"];
    for body in bodies {
        let hits = rig.upstream.hits();
        let post = format!("POST /public/x HTTP/1.1\r\nHost: app.test\r\n{body}");
        let mut connection = rig.send(format!("{post}GET /admin/x HTTP/1.1\r\nHost: app.test\r\n\r\n"));
        assert_eq!(Echo::of(&connection.response_to("POST")).body, "abc");
        assert_eq!(connection.response_to("GET").status, 302);
        assert_eq!(rig.upstream.hits(), hits + 1);
    }
}

/// Requests that the gateway answers itself, each with its status: request line and header fields.
fn answered_by_the_gateway(alice: &str) -> Vec<(u16, String)> {
    let accept = "Accept: text/html\r\n";
    vec![
        (302, format!("GET /app HTTP/1.1\r\nHost: {APP}\r\n{accept}")),
        (401, format!("POST /app HTTP/1.1\r\nHost: {APP}\r\n")),
        (403, format!("POST /admin/x HTTP/1.1\r\nHost: {APP}\r\n{alice}")),
        (404, format!("POST /elsewhere HTTP/1.1\r\nHost: {PARTIAL}\r\n")),
        (404, format!("POST /oauth2/nothing HTTP/1.1\r\nHost: {APP}\r\n")),
        (405, format!("PUT /oauth2/callback HTTP/1.1\r\nHost: {APP}\r\n")),
        (421, "POST /app HTTP/1.1\r\nHost: unknown.test\r\n".to_owned()),
        (400, format!("POST /public/x HTTP/1.1\r\nHost: {APP}\r\nConnection: X-Forwarded-For\r\n")),
        (302, format!("GET /oauth2/start HTTP/1.1\r\nHost: {APP}\r\n{accept}")),
    ]
}

#[test]
fn the_body_of_a_request_that_the_gateway_answers_is_never_the_next_request() {
    let rig = Rig::echo();
    let alice = rig.alice();
    let hits = rig.upstream.hits();
    let chunk = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    let bodies = [
        ("whole", format!("Content-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len())),
        ("in part", format!("Content-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len() + 1000)),
        ("in chunks", format!("Transfer-Encoding: chunked\r\n\r\n{chunk}")),
        ("in a chunk that goes on", format!("Transfer-Encoding: chunked\r\n\r\nffff\r\n{SMUGGLED}")),
    ];
    for (wanted, head) in answered_by_the_gateway(&alice) {
        for (name, body) in &bodies {
            let statuses = statuses_of(&rig, name, format!("{head}{body}"));
            assert_eq!(statuses, [wanted], "{head}, the body {name}");
        }
    }
    let large =
        format!("POST /oauth2/start HTTP/1.1\r\nHost: {APP}\r\nContent-Length: 100000\r\n\r\n{SMUGGLED}");
    assert_eq!(statuses_of(&rig, "too large", large), [413]);
    assert_eq!(rig.upstream.hits(), hits);
}

#[test]
fn hs_014_a_request_that_is_not_forwarded_is_never_told_to_continue() {
    let rig = Rig::echo();
    let alice = rig.alice();
    let hits = rig.upstream.hits();
    for (wanted, head) in answered_by_the_gateway(&alice) {
        let head = format!("{head}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n");
        let first = rig.send(&head).read_head().expect("an answer");
        assert_eq!(status_of(&first), wanted, "{head}");
    }
    assert_eq!(rig.upstream.hits(), hits);
}

#[test]
fn hs_014_who_waits_to_continue_is_told_by_the_application() {
    let rig = Rig::echo();
    let head =
        "POST /public/x HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let mut connection = rig.send(head);
    assert_eq!(connection.read_head().map(|head| status_of(&head)), Some(100));
    connection.send(b"hello").unwrap();
    assert_eq!(Echo::of(&connection.response_to("POST")).body, "hello");
    // Told so, or given its answer: a client that sends at once needs no word, and one of HTTP/1.0 knows none.
    for head in [head.to_owned(), head.replace("HTTP/1.1", "HTTP/1.0")] {
        assert_eq!(rig.reach(format!("{head}hello")).body, "hello", "{head}");
    }
    let of_1_0 = rig.send(format!("{}hello", head.replace("1.1", "1.0"))).read_head();
    assert_eq!(of_1_0.map(|head| status_of(&head)), Some(200), "HTTP/1.0 knows no interim answers");
}

#[test]
fn hs_014_an_expectation_that_nobody_can_meet_is_417() {
    let rig = Rig::echo();
    let expectations = [
        "Expect: x\r\n",
        "Expect: 100-continue, x\r\n",
        "Expect: 100-continue\r\nExpect: x\r\n",
        "Expect:\r\n",
    ];
    for expect in expectations {
        let head = format!("POST /public/x HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n{expect}\r\n");
        assert_eq!(rig.refuse(expect, format!("{head}hello{SMUGGLED}")), 417, "{expect}");
    }
}

#[test]
fn hs_015_hs_016_header_fields_have_one_reading() {
    let rig = Rig::echo();
    let fields: &[(&str, &str)] = &[
        ("a folded line", "X-A: 1\r\n X-Forwarded-User: root\r\n"),
        ("a folded line, by a tab", "X-A: 1\r\n\tX-Forwarded-User: root\r\n"),
        ("a first line that is folded", " X-Forwarded-User: root\r\n"),
        ("a bare carriage return", "X-A: 1\rX-Forwarded-User: root\r\n"),
        ("a bare line feed", "X-A: 1\nX-Forwarded-User: root\r\n"),
        ("a carriage return at the end", "X-A: 1\r\r\n"),
        ("NUL", "X-A: 1\0\r\n"),
        ("an escape character", "X-A: \u{1b}[1m\r\n"),
        ("DEL", "X-A: \u{7f}\r\n"),
        ("a name with a space", "X A: 1\r\n"),
        ("a space before the colon", "X-A : 1\r\n"),
        ("a tab before the colon", "X-A\t: 1\r\n"),
        ("a name with a bracket", "X(A: 1\r\n"),
        ("a name with NUL", "X\0A: 1\r\n"),
        ("a name outside ASCII", "X-\u{c4}: 1\r\n"),
        ("no name", ": 1\r\n"),
        ("no colon", "X-A\r\n"),
    ];
    for (name, fields) in fields {
        let request = format!("GET /public/x HTTP/1.1\r\nHost: app.test\r\n{fields}\r\n{SMUGGLED}");
        assert_eq!(rig.refuse(name, request), 400, "{name}");
    }
    for (name, request) in [
        ("line feeds throughout", "GET /public/x HTTP/1.1\nHost: app.test\n\n"),
        ("a request line with a line feed", "GET /public/x HTTP/1.1\nHost: app.test\r\n\r\n"),
        ("an end with a line feed", "GET /public/x HTTP/1.1\r\nHost: app.test\r\n\n"),
        ("carriage returns throughout", "GET /public/x HTTP/1.1\rHost: app.test\r\r\n\r\n"),
        ("two spaces", "GET  /public/x HTTP/1.1\r\nHost: app.test\r\n\r\n"),
        ("a tab", "GET\t/public/x HTTP/1.1\r\nHost: app.test\r\n\r\n"),
        ("a space in front", " GET /public/x HTTP/1.1\r\nHost: app.test\r\n\r\n"),
        ("no version", "GET /public/x\r\nHost: app.test\r\n\r\n"),
        ("HTTP/0.9", "GET /public/x\r\n\r\n"),
        ("HTTP/1.2", "GET /public/x HTTP/1.2\r\nHost: app.test\r\n\r\n"),
        ("HTTP/2.0", "GET /public/x HTTP/2.0\r\nHost: app.test\r\n\r\n"),
        ("http/1.1", "GET /public/x http/1.1\r\nHost: app.test\r\n\r\n"),
        ("more behind the version", "GET /public/x HTTP/1.1 x\r\nHost: app.test\r\n\r\n"),
    ] {
        assert_eq!(rig.refuse(name, request), 400, "{name}");
    }
}

#[test]
fn hs_017_methods_that_are_for_servers_or_unknown_are_refused() {
    let rig = Rig::echo();
    let alice = rig.alice();
    let cases = [
        ("TRACE /public/x HTTP/1.1", 405),
        ("TRACK /public/x HTTP/1.1", 405),
        ("CONNECT app.test:443 HTTP/1.1", 405),
        ("CONNECT /public/x HTTP/1.1", 405),
        ("DEBUG / HTTP/1.1", 405),
        ("get /public/x HTTP/1.1", 405),
        ("GETX /public/x HTTP/1.1", 405),
        ("PRI * HTTP/2.0", 400),
        ("G(T /public/x HTTP/1.1", 400),
    ];
    for (line, wanted) in cases {
        for cookie in ["", &alice] {
            let status = rig.refuse(line, format!("{line}\r\nHost: app.test\r\n{cookie}\r\n{SMUGGLED}"));
            assert_eq!(status, wanted, "{line}");
        }
    }
}

#[test]
fn hs_019_a_method_is_not_overridden_by_a_header() {
    let rig = Rig::echo();
    let alice = rig.alice();
    let names = ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X_Method_Override"];
    for name in names {
        for target in ["/app?_method=DELETE", "/public/x?_method=DELETE"] {
            let request = format!("GET {target} HTTP/1.1\r\nHost: app.test\r\n{alice}{name}: DELETE\r\n\r\n");
            let echo = rig.reach(request);
            assert_eq!(echo.line, format!("GET {target} HTTP/1.1"), "queries are the application's");
            assert_eq!(echo.one(name), None, "{name}");
        }
    }
}

#[test]
fn an_interim_answer_comes_before_the_answer_and_never_instead_of_it() {
    let rig = Rig::echo();
    rig.lets_the_application_fail();
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let hints =
        "HTTP/1.1 103 Early Hints\r\nLink: </x.css>; rel=preload\r\nSet-Cookie: __Host-portcullis=x\r\n\r\n";
    rig.upstream.answers("/public/hints", format!("{hints}{ok}").as_bytes());
    let mut connection = rig.send("GET /public/hints HTTP/1.1\r\nHost: app.test\r\n\r\n");
    let interim = connection.read_head().expect("an interim answer");
    assert_eq!((status_of(&interim), interim.one("set-cookie")), (103, None));
    assert!(interim.one("link").is_some());
    assert_eq!(connection.response_to("GET").text(), "ok");

    let unasked = [
        ("/public/100", "HTTP/1.1 100 Continue\r\n\r\n", 200),
        ("/public/101", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", 502),
        ("/public/only", "", 200),
    ];
    for (path, interim, wanted) in unasked {
        rig.upstream.answers(path, format!("{interim}{ok}").as_bytes());
        let answer = rig.ask(format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n\r\n"));
        assert_eq!(answer.status, wanted, "{path}");
    }
}

#[test]
fn an_answer_to_head_has_no_body_and_keeps_its_length() {
    let rig = Rig::echo();
    rig.upstream
        .answers_and_stays("/public/head", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nETag: \"1\"\r\n\r\n");
    rig.upstream
        .answers_and_stays("/public/304", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n");
    let mut connection = rig.send("HEAD /public/head HTTP/1.1\r\nHost: app.test\r\n\r\n");
    let answer = connection.response_to("HEAD");
    assert_eq!(
        (answer.status, answer.field("content-length"), answer.field("etag")),
        (200, Some("1000"), Some("\"1\""))
    );
    // What the gateway answers itself is no different: without its body nothing is taken for the next answer.
    for (method, target, wanted) in
        [("HEAD", "/elsewhere", 404), ("GET", "/public/304", 304), ("HEAD", "/app", 302)]
    {
        let host = if wanted == 404 { PARTIAL } else { APP };
        connection.send(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(connection.response_to(method).status, wanted, "{method} {target}");
    }
    connection.send(b"GET /public/next HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
    assert_eq!(Echo::of(&connection.response_to("GET")).line, "GET /public/next HTTP/1.1");
}

#[test]
fn ranges_and_conditions_are_between_client_and_application() {
    let rig = Rig::echo();
    let part = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1-2/4\r\nContent-Length: 2\r\n\r\nbc";
    let none = "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */4\r\nContent-Length: 0\r\n\r\n";
    rig.upstream.answers_and_stays("/public/206", part.as_bytes());
    rig.upstream.answers_and_stays("/public/416", none.as_bytes());
    for (path, status, range, body) in
        [("/public/206", 206, "bytes 1-2/4", "bc"), ("/public/416", 416, "bytes */4", "")]
    {
        let answer = rig.ask(format!("GET {path} HTTP/1.1\r\nHost: app.test\r\nRange: bytes=1-2\r\n\r\n"));
        assert_eq!((answer.status, answer.field("content-range")), (status, Some(range)));
        assert_eq!(answer.text(), body);
    }
    let fields = [
        ("range", "bytes=0-0,-1"),
        ("if-range", "\"1\""),
        ("if-none-match", "W/\"1\""),
        ("accept-encoding", "br"),
    ];
    let lines = fields.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
    let echo = rig.reach(format!("GET /public/x HTTP/1.1\r\nHost: app.test\r\n{lines}\r\n"));
    for (name, value) in fields {
        assert_eq!(echo.one(name), Some(value));
    }
}

#[test]
fn an_answer_that_breaks_the_grammar_is_a_bad_gateway_or_cut() {
    let rig = Rig::echo();
    rig.lets_the_application_fail();
    let answers: &[(&str, &[u8])] = &[
        ("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 20\r\n\r\nok"),
        ("a list of lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 2, 20\r\n\r\nok"),
        ("a negative length", b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok"),
        ("a length with a sign", b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok"),
        ("a length that is none", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nok"),
        (
            "a bare carriage return",
            b"HTTP/1.1 200 OK\r\nX: 1\rSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\nok",
        ),
        ("NUL", b"HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 2\r\n\r\nok"),
        ("no status", b"HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\nok"),
        ("a status of four digits", b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok"),
        ("no HTTP", b"SSH-2.0-OpenSSH_9.9\r\n\r\n"),
        ("nothing", b""),
        ("half a head", b"HTTP/1.1 200 OK\r\nContent-Le"),
    ];
    for (name, answer) in answers {
        rig.upstream.answers("/public/bad", answer);
        let answer = rig.ask("GET /public/bad HTTP/1.1\r\nHost: app.test\r\n\r\n");
        assert_eq!(answer.status, 502, "{name}: {}", answer.text());
        assert_eq!(answer.head.all("set-cookie"), Vec::<&str>::new(), "{name}");
    }
    let endless = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &vec![b'x'; 2 << 20], b"\r\n\r\n"].concat();
    rig.upstream.answers("/public/endless", &endless);
    assert_eq!(rig.ask("GET /public/endless HTTP/1.1\r\nHost: app.test\r\n\r\n").status, 502);
    let cut: &[(&str, &[u8])] = &[
        (
            "a chunk that is none",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
        ),
        ("a chunk that ends early", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok"),
        ("chunks without an end", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"),
        ("a body that ends early", b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok"),
    ];
    for (name, answer) in cut {
        rig.upstream.answers("/public/cut", answer);
        let mut connection = rig.send("GET /public/cut HTTP/1.1\r\nHost: app.test\r\n\r\n");
        let (status, _, framing) = connection.response_head("GET");
        let body = framing.read_whole(connection.stream());
        assert!(status == 502 || body.is_err(), "{name}: {status} {body:?}");
    }
}

#[test]
fn an_odd_field_of_an_answer_becomes_one_plain_line_or_a_bad_gateway() {
    let rig = Rig::echo();
    rig.lets_the_application_fail();
    for fold in [": 1\r\n ", ": 1\r\n\t", ": 1\r\n \r\n ", " : 1 ", "\t: "] {
        let answer = format!("HTTP/1.1 200 OK\r\nX-A{fold}Set-Cookie: a=b\r\nContent-Length: 2\r\n\r\nok");
        rig.upstream.answers("/public/folded", answer.as_bytes());
        let answer = rig.ask("GET /public/folded HTTP/1.1\r\nHost: app.test\r\n\r\n");
        assert!(matches!(answer.status, 200 | 502), "{answer:?}");
        assert_eq!(answer.head.all("set-cookie"), Vec::<&str>::new(), "{answer:?}");
        assert!(!answer.head.fields.iter().any(|(name, _)| name.contains([' ', '\t'])), "{answer:?}");
    }
}

#[test]
fn a_length_beside_chunks_frames_no_answer() {
    let rig = Rig::echo();
    rig.lets_the_application_fail();
    for fields in [
        "Content-Length: 7\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 100\r\n",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}\r\n2\r\nok\r\n0\r\n\r\n");
        rig.upstream.answers("/public/both", answer.as_bytes());
        let answer = rig.ask("GET /public/both HTTP/1.1\r\nHost: app.test\r\n\r\n");
        assert!(matches!((answer.status, answer.text().as_str()), (200, "ok") | (502, _)), "{answer:?}");
        let framings = answer.head.all("content-length").len() + answer.head.all("transfer-encoding").len();
        assert_eq!(framings, 1, "{answer:?}");
    }
}

/// What an application sends behind its answer to poison the next client's.
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

#[test]
fn bytes_behind_an_answer_are_nobodys_answer() {
    let rig = Rig::in_front_of(Upstream::start(), |builder, _| builder.config("[server]\nthreads = 1"));
    let answers = [
        ("a length", format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{POISON}")),
        (
            "chunks",
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{POISON}"),
        ),
        ("no body", format!("HTTP/1.1 204 No Content\r\n\r\n{POISON}")),
        (
            "a body where there is none",
            format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison{POISON}"),
        ),
    ];
    for (name, answer) in answers {
        rig.upstream.answers_and_stays("/public/first", answer.as_bytes());
        let first = rig.ask("GET /public/first HTTP/1.1\r\nHost: app.test\r\n\r\n");
        assert!(!first.text().contains("poison"), "{name}");
        for _ in 0..3 {
            let next = rig.reach("GET /public/next HTTP/1.1\r\nHost: app.test\r\n\r\n");
            assert_eq!(next.line, "GET /public/next HTTP/1.1", "{name}");
        }
    }
}

#[test]
fn an_answer_that_nobody_asked_for_ends_its_connection() {
    let rig = Rig::in_front_of(Upstream::start(), |builder, _| builder.config("[server]\nthreads = 1"));
    let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    rig.upstream.answers_and_goes_on("/public/first", ok, POISON.as_bytes());
    assert_eq!(rig.ask("GET /public/first HTTP/1.1\r\nHost: app.test\r\n\r\n").text(), "ok");
    rig.upstream.go_on();
    rig.upstream.wait_until_left();
    let next = rig.reach("GET /public/next HTTP/1.1\r\nHost: app.test\r\n\r\n");
    assert_eq!((next.line.as_str(), next.connection), ("GET /public/next HTTP/1.1", 2));
}

#[test]
fn an_application_that_answers_and_leaves_before_the_body_does_no_harm() {
    let rig = Rig::echo();
    rig.lets_the_application_fail();
    rig.upstream.answers("/public/early", b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");
    let head = "POST /public/early HTTP/1.1\r\nHost: app.test\r\nContent-Length: 100000\r\n\r\n";
    let mut connection = rig.send(head);
    let piece = vec![b'x'; 10_000];
    for _ in 0..10 {
        if connection.send(&piece).is_err() {
            break;
        }
    }
    let status = connection.read_head().map(|head| status_of(&head));
    assert!(matches!(status, None | Some(413 | 502)), "{status:?}");
    let others = rig.reach(format!("GET /public/x HTTP/1.1\r\nHost: {APP}\r\n\r\n"));
    assert_eq!(others.one("host"), Some(APP));
    assert_eq!(rig.deny("the admins' host", format!("GET / HTTP/1.1\r\nHost: {ADMIN}\r\n\r\n")), 302);
    assert!(connection.is_closed_within(Duration::from_secs(10)) || status == Some(413));
}
