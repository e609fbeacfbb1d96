//! Bodies, events and WebSockets pass through as they come.

use std::io::{ErrorKind, Write as _};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::support::{Application, Client, Fixture, field, public, start, status};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// An application that takes every WebSocket and echoes what comes on it.
pub(super) fn echoing_websocket() -> Application {
    Application::start(|connection, head| {
        assert_eq!(field(head, "upgrade"), Some("websocket"));
        connection.send(AGREED);
        loop {
            let line = connection.read_line();
            if line.is_empty() {
                return;
            }
            connection.send(line);
        }
    })
}

pub(super) fn open_websocket(gateway: &Fixture, cookie: &str) -> Client {
    let mut client = gateway.connect();
    client.send(UPGRADE.replace("\r\n\r\n", &format!("\r\n{cookie}\r\n")));
    let head = client.read_head();
    assert_eq!(status(&head), 101, "{head}");
    client
}

#[test]
fn a_websocket_carries_bytes_both_ways() {
    let application = echoing_websocket();
    let gateway = start(&public(application.address, ""));
    let mut client = open_websocket(&gateway, "");
    for line in ["one\n", "two\n", "GET / HTTP/1.1\n"] {
        client.send(line);
        assert_eq!(client.read_line(), line);
    }
    client.close_writing();
    assert_eq!(client.read_all(), "");
    assert_eq!(application.hits(), 1);
}

#[test]
fn bytes_behind_a_handshake_wait_for_the_application_to_agree() {
    let (agree, agreed) = channel::<()>();
    let agreed = Mutex::new(agreed);
    let application = Application::start(move |connection, _| {
        // Nothing of them may be here before the answer is.
        connection.stream().set_nonblocking(true).unwrap();
        let early = connection.stream().peek(&mut [0]);
        assert_eq!(early.unwrap_err().kind(), ErrorKind::WouldBlock);
        connection.stream().set_nonblocking(false).unwrap();
        agreed.lock().unwrap().recv().unwrap();
        connection.send(AGREED);
        let line = connection.read_line();
        connection.send(format!("got {line}"));
    });
    let gateway = start(&public(application.address, ""));
    let mut client = gateway.connect();
    client.send(format!("{UPGRADE}early\n"));
    agree.send(()).unwrap();
    assert_eq!(status(&client.read_head()), 101);
    assert_eq!(client.read_line(), "got early\n");
}

#[test]
fn an_application_that_does_not_take_a_websocket_answers_like_any_other() {
    let application = Application::start(|connection, head| {
        connection.answer("200 OK", "", head.lines().next().unwrap());
    });
    let gateway = start(&public(application.address, ""));
    let mut client = gateway.connect();
    client.send(format!("{UPGRADE}GET /next HTTP/1.1\r\nHost: app.test\r\n\r\n"));
    assert!(client.read_answer().ends_with("GET /ws HTTP/1.1"));
    // What came behind it is a request of its own.
    assert!(client.read_answer().ends_with("GET /next HTTP/1.1"));
}

#[test]
fn an_answer_instead_of_a_websocket_flows_as_long_as_it_flows() {
    let application = Application::start(|connection, _| {
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n");
        for _ in 0..20 {
            std::thread::park_timeout(Duration::from_millis(100));
            connection.send(".");
        }
    });
    // Half the time that the whole answer takes, ten times the pause between its parts.
    let gateway = start(&public(application.address, "read_timeout = \"1s\""));
    let mut client = gateway.connect();
    client.send(UPGRADE);
    assert!(client.read_answer().ends_with(&".".repeat(20)));
}

#[test]
fn an_answer_instead_of_a_websocket_that_stops_flowing_is_ended() {
    let (_never, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let application = Application::start(move |connection, _| {
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n.");
        let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(30));
    });
    let gateway = start(&public(application.address, "read_timeout = \"1s\""));
    let answer = gateway.exchange(UPGRADE);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n."), "{answer}");
}

#[test]
fn a_silent_websocket_is_ended_and_a_lively_one_is_not() {
    let application = echoing_websocket();
    let gateway = start(&public(application.address, "idle_timeout = \"1s\"\nread_timeout = \"1s\""));
    let mut lively = open_websocket(&gateway, "");
    let mut silent = open_websocket(&gateway, "");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        lively.send("still here\n");
        assert_eq!(lively.read_line(), "still here\n");
        std::thread::park_timeout(Duration::from_millis(100));
    }
    silent.stream().set_nonblocking(true).unwrap();
    assert_eq!(silent.stream().peek(&mut [0]).unwrap(), 0, "it was ended meanwhile");
    assert_eq!(lively.read_all(), "", "it is ended when it falls silent");
}

#[test]
fn a_websocket_that_gets_no_answer_is_a_timeout() {
    let (_never, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let application = Application::start(move |_, _| {
        let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(10));
    });
    let gateway = start(&public(application.address, "read_timeout = \"1s\""));
    let answer = gateway.exchange(UPGRADE);
    assert_eq!(status(&answer), 504, "{answer}");
    assert!(answer.contains("upstream_timeout"), "{answer}");
    assert_eq!(gateway.finished(), 1);
}

#[test]
fn events_arrive_one_by_one_as_they_are_sent() {
    let (go_on, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let application = Application::start(move |connection, _| {
        connection
            .send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
            connection.send(format!("{:x}\r\n{event}\r\n", event.len()));
            // The next one only when the client has this one.
            wait.lock().unwrap().recv().unwrap();
        }
        connection.send("0\r\n\r\n");
    });
    let gateway = start(&public(application.address, ""));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    assert_eq!(status(&client.read_head()), 200);
    for event in ["data: 1\n", "data: 2\n", "data: 3\n"] {
        client.read_line();
        assert_eq!(client.read_line(), event);
        client.read_line();
        client.read_line();
        go_on.send(()).unwrap();
    }
}

#[test]
fn a_body_that_waits_for_100_continue_is_asked_for_by_the_application() {
    let application = Application::start(|connection, head| {
        assert_eq!(field(head, "expect"), Some("100-continue"));
        connection.send("HTTP/1.1 100 Continue\r\n\r\n");
        let len = connection.read_body(head);
        connection.answer("200 OK", "", &len.to_string());
    });
    let gateway = start(&public(application.address, ""));
    let mut client = gateway.connect();
    client.send("PUT / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.read_head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("12345");
    let answer = client.read_answer();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n5"), "{answer}");
}

#[test]
fn a_denied_request_gets_its_answer_without_100_continue() {
    let application = Application::echo();
    let gateway = start(&public(application.address, "path = \"/public\""));
    let answer = gateway.exchange(
        "PUT /x HTTP/1.1\r\nHost: app.test\r\nAccept: application/json\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert_eq!(field(&answer, "connection"), Some("close"));
    assert_eq!(application.hits(), 0);
}

#[test]
fn a_large_body_goes_through_whole() {
    let application = Application::echo();
    let gateway = start(&public(application.address, ""));
    let size = 32 * 1024 * 1024;
    let piece = vec![b'x'; 64 * 1024];
    let mut client = gateway.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: {size}\r\n\r\n"));
    for _ in 0..size / piece.len() {
        client.send(&piece);
    }
    assert!(client.read_answer().ends_with(&format!("body: {size}")));
}

#[test]
fn a_body_that_the_application_does_not_read_is_not_gathered_here() {
    let (_never, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let application = Application::start(move |_, _| {
        let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(10));
    });
    let gateway = start(&public(application.address, ""));
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1000000000\r\n\r\n");
    client.stream().set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let piece = vec![b'x'; 1024 * 1024];
    let mut sent = 0;
    // Until the sockets' own buffers are full.
    while client.stream().write_all(&piece).is_ok() {
        sent += piece.len();
        assert!(sent < 64 * 1024 * 1024, "somebody takes it all");
    }
}

#[test]
fn an_answer_that_ends_with_its_connection_becomes_chunks() {
    let application = Application::start(|connection, _| {
        connection.send("HTTP/1.0 200 OK\r\n\r\nall of it");
        connection.close_writing();
    });
    let gateway = start(&public(application.address, ""));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    let head = client.read_head();
    assert_eq!(field(&head, "transfer-encoding"), Some("chunked"));
    assert_eq!(client.read_exactly(19), "9\r\nall of it\r\n0\r\n\r\n");
}

#[test]
fn a_head_request_gets_no_body() {
    let application = Application::start(|connection, head| {
        assert!(head.starts_with("HEAD "));
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    });
    let gateway = start(&public(application.address, "path = \"/a\""));
    let mut client = gateway.connect();
    client.send("HEAD /a HTTP/1.1\r\nHost: app.test\r\n\r\n");
    assert_eq!(field(&client.read_head(), "content-length"), Some("5"));
    // The gateway's own answer neither.
    client
        .send("HEAD /b HTTP/1.1\r\nHost: app.test\r\nAccept: application/json\r\nConnection: close\r\n\r\n");
    let head = client.read_head();
    assert_eq!(status(&head), 404);
    assert_ne!(field(&head, "content-length"), Some("0"));
    assert_eq!(client.read_all(), "");
}
