//! The end of the server.

use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::streaming::{echoing_websocket, open_websocket};
use super::support::{Application, Client, field, public, settings, start, start_settings, status};

#[test]
fn a_request_in_flight_finishes_and_nothing_new_is_taken() {
    let (answer_now, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let application = Application::start(move |connection, head| {
        if head.starts_with("GET /slow") {
            wait.lock().unwrap().recv().unwrap();
        }
        connection.answer("200 OK", "", "done");
    });
    let gateway = start(&public(application.address, ""));
    let mut idle = gateway.connect();
    idle.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    assert_eq!(status(&idle.read_answer()), 200);
    let mut busy = gateway.connect();
    busy.send("GET /slow HTTP/1.1\r\nHost: app.test\r\n\r\n");
    while application.hits() < 2 {
        std::thread::yield_now();
    }

    gateway.running.stop();
    assert_eq!(idle.read_all(), "", "an idle connection is closed");
    while TcpStream::connect(gateway.address).is_ok() {
        std::thread::yield_now();
    }
    answer_now.send(()).unwrap();
    assert!(busy.read_all().ends_with("\r\n\r\ndone"));
    gateway.wait_finished();
}

#[test]
fn a_drain_with_nothing_in_flight_takes_no_time() {
    let gateway = start(&public(Application::echo().address, ""));
    let mut idle = gateway.connect();
    idle.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    idle.read_answer();
    let begun = Instant::now();
    gateway.running.stop();
    gateway.wait_finished();
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_request_that_does_not_end_is_cut_off_at_the_timeout() {
    let (_never, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let application = Application::start(move |_, _| {
        let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(20));
    });
    let gateway = start(&format!("[server]\nshutdown_timeout = \"1s\"\n{}", public(application.address, "")));
    let mut busy = gateway.connect();
    busy.send("GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    while application.hits() == 0 {
        std::thread::yield_now();
    }
    let begun = Instant::now();
    gateway.running.stop();
    gateway.wait_finished();
    assert!(begun.elapsed() >= Duration::from_secs(1) && begun.elapsed() < Duration::from_secs(5));
    drop(gateway);
    assert_eq!(busy.read_all(), "");
}

#[test]
fn no_drain_waits_for_a_websocket() {
    let application = echoing_websocket();
    let gateway = start(&public(application.address, ""));
    let mut client = open_websocket(&gateway, "");
    gateway.running.stop();
    gateway.wait_finished();
    drop(gateway);
    assert_eq!(client.read_all(), "");
}

#[test]
fn load_balancers_are_told_before_the_listeners_close() {
    let application = Application::echo();
    let text = format!("[server]\nshutdown_delay = \"2s\"\n{}", public(application.address, ""));
    let mut settings = settings(&text);
    settings.admin = Some(([127, 0, 0, 1], 0).into());
    let gateway = start_settings(settings);
    let ready = || {
        let mut client = Client::connect(gateway.running.admin().unwrap());
        client.send("GET /readyz HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        status(&client.read_all())
    };
    while ready() != 200 {
        std::thread::yield_now();
    }
    gateway.running.stop();
    while ready() != 503 {
        std::thread::yield_now();
    }
    let answer = gateway.exchange("GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n");
    assert_eq!(status(&answer), 200, "connections are still taken");
    assert_eq!(field(&answer, "connection"), Some("close"));
    gateway.running.stop_now();
    gateway.wait_finished();
}
