//! Applications that are down, slow, or nowhere.

use std::net::TcpListener;
use std::time::Duration;

use super::support::{Application, field, fields, public, start, status};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: app.test\r\nAccept: application/json\r\n\r\n";

#[test]
fn an_application_that_is_down_is_a_bad_gateway() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = start(&public(nobody, ""));
    let answer = gateway.exchange(REQUEST);
    assert_eq!(status(&answer), 502, "{answer}");
    assert!(answer.contains("upstream_unreachable"), "{answer}");
    assert!(!answer.contains("refused"), "nothing internal is told: {answer}");
}

#[test]
fn an_application_that_does_not_answer_in_time_is_a_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = start(&public(silent.local_addr().unwrap(), "read_timeout = \"1s\""));
    let answer = gateway.exchange(REQUEST);
    assert_eq!(status(&answer), 504, "{answer}");
    assert!(answer.contains("upstream_timeout"), "{answer}");
}

#[test]
fn a_name_without_an_address_is_a_bad_gateway() {
    let route =
        "[[route]]\nhost = \"app.test\"\naccess = \"public\"\nupstream = \"http://nowhere.invalid:80\"\n";
    let answer = start(route).exchange(REQUEST);
    assert_eq!(status(&answer), 502, "{answer}");
    assert!(answer.contains("upstream_unresolved"), "{answer}");
}

#[test]
fn an_application_is_found_by_name() {
    let application = Application::echo();
    let port = application.address.port();
    let route = format!(
        "[[route]]\nhost = \"app.test\"\naccess = \"public\"\nupstream = \"http://localhost:{port}\"\n"
    );
    let gateway = start(&route);
    // `localhost` may have an address where nobody listens: that is passed over.
    for _ in 0..6 {
        let mut client = gateway.connect();
        client.send(REQUEST);
        assert_eq!(status(&client.read_answer()), 200);
    }
}

#[test]
fn connections_to_an_application_are_used_again() {
    let connections = std::sync::Arc::new(std::sync::Mutex::new(std::collections::HashSet::new()));
    let seen = std::sync::Arc::clone(&connections);
    let application = Application::start(move |connection, _| {
        seen.lock().unwrap().insert(connection.stream().peer_addr().unwrap());
        connection.answer("200 OK", "", "ok");
    });
    let gateway = start(&public(application.address, ""));
    let mut client = gateway.connect();
    for _ in 0..5 {
        client.send(REQUEST);
        assert_eq!(status(&client.read_answer()), 200);
    }
    assert_eq!(connections.lock().unwrap().len(), 1);
}

#[test]
fn a_request_that_is_tried_again_is_the_same_request() {
    let heads = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = std::sync::Arc::clone(&heads);
    let application = Application::start(move |connection, head| {
        let mut heads = seen.lock().unwrap();
        heads.push(head.to_owned());
        match heads.len() {
            // A connection that had been idle may have been closed meanwhile.
            2 => connection.stream().shutdown(std::net::Shutdown::Both).unwrap(),
            _ => connection.answer("200 OK", "", "ok"),
        }
    });
    let gateway = start(&public(application.address, ""));
    let mut client = gateway.connect();
    for _ in 0..2 {
        client.send(
            "GET /a HTTP/1.1\r\nHost: app.test\r\nCookie: theme=dark\r\nX-Mine: 1\r\nX-Mine: 2\r\n\
             X-Forwarded-User: root\r\nX-Ended: 1\r\nConnection: X-Ended\r\n\r\n",
        );
        assert_eq!(status(&client.read_answer()), 200);
    }
    let heads = heads.lock().unwrap();
    assert_eq!(heads.len(), 3, "one was tried again");
    assert_eq!(heads[1], heads[2]);
    assert_eq!(fields(&heads[2], "x-mine").collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(field(&heads[2], "cookie"), Some("theme=dark"));
    for name in ["x-forwarded-user", "x-ended", "connection"] {
        assert_eq!(field(&heads[2], name), None, "{name}");
    }
}

#[test]
fn a_client_that_leaves_ends_its_request() {
    let (left, gone) = std::sync::mpsc::channel();
    let application = Application::start(move |connection, _| {
        connection.stream().set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        left.send(connection.read_line()).unwrap();
    });
    let gateway = start(&public(application.address, ""));
    let mut client = gateway.connect();
    client.send(REQUEST);
    while application.hits() == 0 {
        std::thread::yield_now();
    }
    drop(client);
    assert_eq!(
        gone.recv_timeout(Duration::from_secs(10)).unwrap(),
        "",
        "the application's side is closed too"
    );
}
