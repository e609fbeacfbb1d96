//! What an application sees of a request, and what a client sees of an answer.

use super::support::{Application, field, fields, public, start, status};

/// The head that the application got, out of the echo's answer.
fn seen(answer: &str) -> &str {
    assert_eq!(status(answer), 200, "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1
}

#[test]
fn nothing_that_a_client_says_of_itself_reaches_an_application() {
    let application = Application::echo();
    let gateway = start(&public(application.address, ""));
    let spoofed = [
        "X-Forwarded-User: root",
        "x-forwarded-groups: admins",
        "X_Forwarded_User: root",
        "X.Forwarded.User: root",
        "X-Auth-Request-Email: root@app.test",
        "Remote-User: root",
        "X-Forwarded-Access-Token: t",
        "X-Forwarded-For: 10.0.0.1",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Host: evil.test",
        "X-Forwarded-Prefix: /public",
        "Forwarded: for=10.0.0.1",
        "X-Real-IP: 10.0.0.1",
        "X-Original-URL: /admin",
        "X-HTTP-Method-Override: DELETE",
        "X-Request-Id: mine",
    ];
    let request = format!(
        "GET / HTTP/1.1\r\nHost: app.test\r\n{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        spoofed.join("\r\n")
    );
    let answer = gateway.exchange(request);
    let seen = seen(&answer);
    for spoofed in spoofed {
        let line = format!("\r\n{}\r\n", spoofed.to_lowercase());
        assert!(!seen.to_lowercase().contains(&line), "{spoofed}: {seen}");
    }
    assert_eq!(field(seen, "x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(field(seen, "x-forwarded-proto"), Some("https"));
    assert_eq!(field(seen, "x-forwarded-host"), Some("app.test"));
    assert_eq!(fields(seen, "x-request-id").count(), 1);
    assert_eq!(field(seen, "accept"), Some("*/*"));
    assert_eq!(field(seen, "x-forwarded-user"), None);
}

#[test]
fn names_reach_an_application_in_lower_case_and_its_own_come_back_as_they_are() {
    let application = Application::start(|connection, head| {
        connection.answer("200 OK", "X-Spelled-LIKE-This: 1\r\n", head);
    });
    let gateway = start(&public(application.address, ""));
    let answer = gateway.exchange(
        "GET /a?B HTTP/1.1\r\nHost: app.test\r\nUser-Agent: Tester\r\nX-ODD: Value\r\nConnection: close\r\n\r\n",
    );
    for line in ["user-agent: Tester", "x-odd: Value", "x-forwarded-for: 127.0.0.1"] {
        assert!(seen(&answer).contains(&format!("\r\n{line}\r\n")), "{line}: {answer}");
    }
    assert!(seen(&answer).starts_with("GET /a?B HTTP/1.1\r\n"), "{answer}");
    assert!(answer.contains("\r\nX-Spelled-LIKE-This: 1\r\n"), "{answer}");
}

#[test]
fn what_connection_names_goes_and_what_the_gateway_sets_stays() {
    let application = Application::echo();
    let gateway = start(&public(application.address, ""));
    let request = "GET / HTTP/1.1\r\nHost: app.test\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n\
                   Proxy-Authorization: Basic eA==\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\
                   Connection: close, X-Mine, X-Request-Id, Upgrade\r\n\r\n";
    let answer = gateway.exchange(request);
    let seen = seen(&answer);
    for name in ["x-mine", "keep-alive", "te", "proxy-authorization", "upgrade", "http2-settings"] {
        assert_eq!(field(seen, name), None, "{name}");
    }
    assert!(field(seen, "x-request-id").is_some());
}

#[test]
fn the_gateways_cookies_stay_with_the_gateway() {
    let application = Application::echo();
    let gateway = start(&public(application.address, ""));
    let request = "GET / HTTP/1.1\r\nHost: app.test\r\nCookie: __Host-portcullis=a; theme=dark\r\n\
                   Cookie: portcullis-login-0123456789abcdef=b; lang=de\r\nConnection: close\r\n\r\n";
    let answer = gateway.exchange(request);
    assert_eq!(fields(seen(&answer), "cookie").collect::<Vec<_>>(), ["theme=dark; lang=de"]);
    let request =
        "GET / HTTP/1.1\r\nHost: app.test\r\nCookie: __Host-portcullis=a\r\nConnection: close\r\n\r\n";
    assert_eq!(field(seen(&gateway.exchange(request)), "cookie"), None);
}

#[test]
fn the_host_is_kept_in_its_canonical_form_or_replaced_by_the_applications_own() {
    let application = Application::echo();
    let kept = start(&public(application.address, ""));
    let request = "GET / HTTP/1.1\r\nHost: APP.test.\r\nConnection: close\r\n\r\n";
    assert_eq!(field(seen(&kept.exchange(request)), "host"), Some("app.test"));
    let replaced = start(&public(application.address, "host_header = \"upstream\""));
    let own = application.address.to_string();
    assert_eq!(field(seen(&replaced.exchange(request)), "host"), Some(&*own));
}

#[test]
fn an_application_can_neither_set_nor_clear_the_gateways_cookies() {
    let application = Application::start(|connection, _| {
        let fields = "Set-Cookie: theme=dark; Path=/\r\n\
                      Set-Cookie: __Host-portcullis=evil; Secure; Path=/\r\n\
                      Set-Cookie:  PORTCULLIS = evil\r\n\
                      Set-Cookie: __Host-portcullis-login-0123456789abcdef=; Max-Age=0\r\n\
                      Set-Cookie: lang=de\r\n\
                      Clear-Site-Data: \"cache\", \"cookies\"\r\n\
                      Clear-Site-Data: \"*\", \"storage\"\r\n";
        connection.answer("200 OK", fields, "ok");
    });
    let gateway = start(&public(application.address, ""));
    let answer = gateway.exchange("GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n");
    let kept: Vec<_> = fields(&answer, "set-cookie").collect();
    assert_eq!(kept, ["theme=dark; Path=/", "lang=de"]);
    assert_eq!(fields(&answer, "clear-site-data").collect::<Vec<_>>(), ["\"cache\", \"storage\""]);
}

#[test]
fn authorization_goes_along_unless_the_route_says_otherwise() {
    let application = Application::echo();
    let request =
        "GET / HTTP/1.1\r\nHost: app.test\r\nAuthorization: Basic eA==\r\nConnection: close\r\n\r\n";
    let kept = start(&public(application.address, ""));
    assert_eq!(field(seen(&kept.exchange(request)), "authorization"), Some("Basic eA=="));
    let dropped = start(&public(application.address, "forward_authorization = false"));
    assert_eq!(field(seen(&dropped.exchange(request)), "authorization"), None);
}

#[test]
fn an_answer_that_breaks_the_protocol_is_a_bad_gateway() {
    let cases = [
        ("no HTTP", "hello\r\n\r\n"),
        ("101 that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    ];
    for (name, text) in cases {
        let application = Application::start(move |connection, _| {
            connection.send(text);
            connection.close_writing();
        });
        let gateway = start(&public(application.address, ""));
        let request = "GET / HTTP/1.1\r\nHost: app.test\r\nAccept: application/json\r\n\r\n";
        let answer = gateway.exchange(request);
        assert_eq!(status(&answer), 502, "{name}: {answer}");
        assert!(answer.contains("upstream_failed"), "{name}: {answer}");
    }
}

#[test]
fn trailers_never_become_headers() {
    let application = Application::echo();
    let gateway = start(&public(application.address, ""));
    let request = "POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Forwarded-User\r\n\
                   Connection: close\r\n\r\n3\r\nabc\r\n0\r\nX-Forwarded-User: root\r\nX-Trailer: 1\r\n\r\n";
    let answer = gateway.exchange(request);
    let seen = seen(&answer);
    assert!(seen.ends_with("body: 3"), "{seen}");
    for name in ["trailer", "x-forwarded-user", "x-trailer"] {
        assert_eq!(field(seen, name), None, "{name}");
    }
}

#[test]
fn early_hints_pass_without_cookies_and_before_the_answer() {
    let application = Application::start(|connection, _| {
        connection.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nSet-Cookie: portcullis=evil\r\n\r\n");
        connection.answer("200 OK", "", "ok");
    });
    let gateway = start(&public(application.address, ""));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    let hints = client.read_head();
    assert_eq!((status(&hints), field(&hints, "link")), (103, Some("</a.css>")));
    assert_eq!(field(&hints, "set-cookie"), None);
    assert_eq!(status(&client.read_answer()), 200);
}
