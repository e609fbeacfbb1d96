//! What is no request, and where one ends.

use std::time::{Duration, Instant};

use super::support::{Application, field, public, start, status, wait_until};

#[test]
fn a_request_that_could_be_read_in_two_ways_is_refused_and_reaches_no_application() {
    let application = Application::echo();
    let gateway = start(&public(application.address, ""));
    let cases: &[(&str, &[u8], u16)] = &[
        ("two hosts", b"GET / HTTP/1.1\r\nHost: app.test\r\nHost: b\r\n\r\n", 400),
        ("no host", b"GET / HTTP/1.1\r\n\r\n", 400),
        (
            "length and coding",
            b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
            400,
        ),
        ("bare line feeds", b"GET / HTTP/1.1\nHost: app.test\n\n", 400),
        ("folding", b"GET / HTTP/1.1\r\nHost: app.test\r\nX: 1\r\n Y: 2\r\n\r\n", 400),
        ("another host in the target", b"GET http://b/ HTTP/1.1\r\nHost: app.test\r\n\r\n", 400),
        ("escaped slash", b"GET /a%2fb HTTP/1.1\r\nHost: app.test\r\n\r\n", 400),
        ("TRACE", b"TRACE / HTTP/1.1\r\nHost: app.test\r\n\r\n", 405),
        ("CONNECT", b"CONNECT app.test:443 HTTP/1.1\r\nHost: app.test:443\r\n\r\n", 405),
        ("protected field nominated", b"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: X-Forwarded-For\r\n\r\n", 400),
    ];
    for (name, request, expected) in cases {
        let answer = gateway.exchange(request);
        assert_eq!(status(&answer), *expected, "{name}: {answer}");
        assert_eq!(field(&answer, "connection"), Some("close"), "{name}");
    }
    assert_eq!(application.hits(), 0);
    assert_eq!(gateway.finished(), cases.len());
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let application = Application::echo();
    let gateway =
        start(&format!("[server]\nmax_request_head_size = \"16KiB\"\n{}", public(application.address, "")));
    let huge = "a".repeat(20_000);
    let cases = [
        ("field", format!("GET / HTTP/1.1\r\nHost: app.test\r\nX: {huge}\r\n\r\n"), 431),
        ("fields", format!("GET / HTTP/1.1\r\nHost: app.test\r\n{}\r\n", "X: y\r\n".repeat(101)), 431),
        ("target", format!("GET /{} HTTP/1.1\r\nHost: app.test\r\n\r\n", "a".repeat(9000)), 414),
    ];
    for (name, request, expected) in cases {
        assert_eq!(status(&gateway.exchange(request)), expected, "{name}");
    }
    assert_eq!(application.hits(), 0);
}

#[test]
fn a_slow_head_is_cut_at_its_deadline() {
    let application = Application::echo();
    let gateway =
        start(&format!("[server]\nrequest_head_timeout = \"500ms\"\n{}", public(application.address, "")));
    let begun = Instant::now();
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\n");
    let mut writer = client.stream().try_clone().unwrap();
    let slow = std::thread::spawn(move || {
        // A byte now and then would keep a timeout for single reads away for good.
        use std::io::Write as _;
        while writer.write_all(b"X").is_ok() && begun.elapsed() < Duration::from_secs(10) {
            std::thread::park_timeout(Duration::from_millis(50));
        }
    });
    let answer = client.read_answer();
    assert_eq!(status(&answer), 408);
    let taken = begun.elapsed();
    assert!(taken >= Duration::from_millis(500) && taken < Duration::from_secs(5), "{taken:?}");
    drop(client);
    slow.join().unwrap();
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let application = Application::echo();
    let gateway = start(&format!(
        "[server]\nrequest_head_timeout = \"200ms\"\nkeepalive_timeout = \"1s\"\n{}",
        public(application.address, "")
    ));
    assert_eq!(gateway.connect().read_all(), "");
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    assert_eq!(status(&client.read_answer()), 200);
    assert_eq!(client.read_all(), "");
    assert_eq!(gateway.finished(), 1);
}

#[test]
fn pipelined_requests_are_answered_in_order_and_judged_one_by_one() {
    let application = Application::echo();
    let gateway = start(&format!(
        "{}[[route]]\nhost = \"app.test\"\npath = \"/admin\"\nupstream = \"http://{}\"\n{PROVIDER}",
        public(application.address, ""),
        application.address
    ));
    let body = "GET /inside HTTP/1.1\r\nHost: app.test\r\n\r\n";
    let post = format!("POST /1 HTTP/1.1\r\nHost: app.test\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let chunked =
        "POST /2 HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let get = "GET /3 HTTP/1.1\r\nHost: app.test\r\n\r\n";
    let denied = "POST /admin/x HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\n\r\n";
    let last = "GET /4 HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n";
    let mut client = gateway.connect();
    client.send([&post, chunked, get, denied, last].concat());
    for (expected, line) in
        [(200, "POST /1 "), (200, "POST /2 "), (200, "GET /3 "), (401, ""), (200, "GET /4 ")]
    {
        let answer = client.read_answer();
        assert_eq!(status(&answer), expected, "{line}: {answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(expected != 200 || body.starts_with(line), "{line}: {body}");
    }
    assert_eq!(client.read_all(), "");
    assert_eq!(application.hits(), 4);
}

#[test]
fn what_is_sent_while_a_request_is_in_progress_waits_for_its_turn() {
    let (answer_now, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let application = Application::start(move |connection, head| {
        if head.starts_with("GET /slow") {
            wait.lock().unwrap().recv().unwrap();
        }
        connection.answer("200 OK", "", head.lines().next().unwrap());
    });
    let gateway = start(&public(application.address, ""));
    let mut client = gateway.connect();
    client.send("GET /slow HTTP/1.1\r\nHost: app.test\r\n\r\n");
    wait_until(|| application.hits() == 1);
    client.send("GET /next HTTP/1.1\r\nHost: app.test\r\n\r\n");
    answer_now.send(()).unwrap();
    assert!(client.read_answer().ends_with("GET /slow HTTP/1.1"));
    assert!(client.read_answer().ends_with("GET /next HTTP/1.1"));
}

#[test]
fn a_malformed_chunk_ends_the_connection_and_nothing_behind_it_is_a_request() {
    let application = Application::echo();
    let gateway = start(&public(application.address, ""));
    for (name, body) in [
        ("no hexadecimal number", "3z\r\nabc\r\n0\r\n\r\n"),
        ("no CRLF behind the data", "3\r\nabcd0\r\n\r\n"),
        ("bare line feed in an extension", "3;a\nb\r\nabc\r\n0\r\n\r\n"),
        ("more than 64 bits", "FFFFFFFFFFFFFFFF1\r\nabc"),
    ] {
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n";
        let head = "POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = gateway.exchange([head, body, smuggled].concat());
        assert!(matches!(status(&answer), 0 | 400), "{name}: {answer}");
        assert!(!answer.contains("/smuggled"), "{name}: {answer}");
    }
}

#[test]
fn an_answer_to_a_body_that_is_not_read_closes_the_connection() {
    let application = Application::echo();
    let gateway = start(&public(application.address, "path = \"/public\""));
    let body = "GET /public HTTP/1.1\r\nHost: app.test\r\n\r\n";
    let post = format!(
        "POST /elsewhere HTTP/1.1\r\nHost: app.test\r\nAccept: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len() + 1
    );
    let answer = gateway.exchange([&post, body].concat());
    assert_eq!(status(&answer), 404, "{answer}");
    assert_eq!(field(&answer, "connection"), Some("close"));
    assert_eq!(application.hits(), 0);
}

#[test]
fn the_server_itself_answers_what_asks_it() {
    let application = Application::echo();
    let gateway = start(&public(application.address, ""));
    let answer = gateway.exchange("OPTIONS * HTTP/1.1\r\nHost: app.test\r\n\r\n");
    assert_eq!(status(&answer), 204, "{answer}");
    assert!(field(&answer, "allow").unwrap().starts_with("GET, HEAD, POST"));
    assert_eq!(application.hits(), 0);
}

#[test]
fn the_absolute_form_reaches_the_application_as_a_path() {
    let application = Application::echo();
    let gateway = start(&public(application.address, ""));
    let answer =
        gateway.exchange("GET HTTP://APP.test/a?b HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n");
    assert!(answer.contains("\r\n\r\nGET /a?b HTTP/1.1\r\n"), "{answer}");
}

#[test]
fn a_client_of_http_1_0_gets_its_answer_and_the_end() {
    let application = Application::echo();
    let gateway = start(&public(application.address, ""));
    let answer = gateway.exchange("GET / HTTP/1.0\r\nHost: app.test\r\n\r\n");
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(field(&answer, "connection"), Some("close"));
}

/// A provider that nobody needs to reach.
const PROVIDER: &str = "[[provider]]\nid = \"main\"\nissuer = \"http://127.0.0.1:9\"\nclient_id = \"a\"\n";
