//! What a session brings to a request, and how its end ends what it serves.

use std::io::Write as _;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use serde_json::json;

use super::streaming::{echoing_websocket, open_websocket};
use super::support::{
    Application, Client, Fixture, field, fields, settings, start, start_settings, status, wait_until,
};
use crate::clock::UnixTime;
use crate::gateway::sessions::Reading;
use crate::oidc::{Issuer, ProviderId};
use crate::secret::Secret;
use crate::session::Limits;
use crate::session::seal::seal_cookie;
use crate::session::{Key, Purpose, Session};
use crate::store::StoreKey;
use crate::token::Claims;

fn gateway(application: &Application, more: &str) -> Fixture {
    start(&text(application, more))
}

fn text(application: &Application, more: &str) -> String {
    let provider = "[[provider]]\nid = \"main\"\nissuer = \"http://127.0.0.1:9\"\nclient_id = \"a\"\n";
    let upstream = application.address;
    format!("{provider}[[route]]\nhost = \"app.test\"\nupstream = \"http://{upstream}\"\n{more}\n")
}

fn session() -> Session {
    let now = crate::clock::Clock::system().now();
    let claims = json!({"iss": "http://127.0.0.1:9", "sub": "alice", "email": "alice@app.test",
                        "groups": ["wiki", "staff"], "name": "Al\u{ef}ce"});
    Session {
        provider: ProviderId("main".into()),
        issuer: Issuer("http://127.0.0.1:9".into()),
        subject: "alice".into(),
        sid: None,
        host: "app.test".into(),
        claims: serde_json::from_value::<Claims>(claims).unwrap(),
        id_token: Secret::new("i".to_owned()),
        access_token: Secret::new("the-access-token".to_owned()),
        access_expires_at: None,
        refresh_token: None,
        refreshed_at: None,
        refresh_sent_at: None,
        created_at: now,
        last_seen: UnixTime::from_secs(now.as_secs()),
        longest_idle: Duration::ZERO,
        client: None,
        user_agent: None,
    }
}

/// Begins a session; gives its cookie field and its key.
fn sign_in(gateway: &Fixture) -> (String, StoreKey) {
    let shared = Arc::clone(gateway.gateway.shared());
    let limits = gateway.gateway.settings().reading.limits;
    let id = shared.runtime.block_on(shared.sessions.begin(&session(), &limits)).unwrap();
    let name = "__Host-portcullis";
    let value = seal_cookie(&shared.keys, Purpose::SessionCookie, name, "app.test", id.expose()).unwrap();
    (format!("Cookie: {name}={value}\r\n"), StoreKey(id.store_key()))
}

#[test]
fn an_application_is_told_who_is_asking() {
    let application = Application::echo();
    let gateway = gateway(&application, "forward_access_token = true");
    let (cookie, _) = sign_in(&gateway);
    let answer = gateway.exchange(format!(
        "GET / HTTP/1.1\r\nHost: app.test\r\n{cookie}X-Forwarded-User: root\r\n\
         Connection: close, X-Forwarded-User, X-Forwarded-Email\r\n\r\n"
    ));
    assert_eq!(status(&answer), 200, "{answer}");
    let (_, seen) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(fields(seen, "x-forwarded-user").collect::<Vec<_>>(), ["alice"]);
    assert_eq!(field(seen, "x-forwarded-email"), Some("alice@app.test"));
    assert_eq!(field(seen, "x-forwarded-groups"), Some("wiki,staff"));
    assert_eq!(field(seen, "x-forwarded-access-token"), Some("the-access-token"));
    assert_eq!(field(seen, "cookie"), None);
    // SC-15
    assert_eq!(field(&answer, "cache-control"), Some("private"));
}

#[test]
fn an_answer_to_somebody_known_is_for_no_shared_cache_and_any_other_as_the_application_says() {
    let application = Application::start(|connection, _| {
        let fields = "Cache-Control: public, max-age=600\r\nCDN-Cache-Control: max-age=600\r\n";
        connection.answer("200 OK", fields, "ok");
    });
    let cases = [
        ("signed in", "", true, "private, max-age=600", 0),
        ("known", "access = \"optional\"", true, "private, max-age=600", 0),
        ("not known", "access = \"optional\"", false, "public, max-age=600", 1),
        ("not asked", "access = \"public\"", true, "public, max-age=600", 1),
    ];
    for (name, access, shows, wanted, others) in cases {
        let gateway = gateway(&application, access);
        let cookie = if shows { sign_in(&gateway).0 } else { String::new() };
        let request = format!("GET / HTTP/1.1\r\nHost: app.test\r\n{cookie}Connection: close\r\n\r\n");
        let answer = gateway.exchange(request);
        assert_eq!(fields(&answer, "cache-control").collect::<Vec<_>>(), [wanted], "{name}");
        assert_eq!(fields(&answer, "cdn-cache-control").count(), others, "{name}");
    }
}

/// The gateway's ring gets a new first key.
fn rotate(gateway: &Fixture, old: &[&Key]) -> Key {
    let key = Key::from_bytes(crate::random::random_bytes().unwrap());
    let keys: Vec<Key> = std::iter::once(&key).chain(old.iter().copied()).cloned().collect();
    gateway.gateway.shared().keys.replace(&keys).unwrap();
    key
}

fn is_session_cookie(field: &&str) -> bool {
    field.starts_with("__Host-portcullis=") && !field.contains("Max-Age=0")
}

#[test]
fn a_cookie_that_is_sealed_anew_goes_out_only_where_it_reaches_its_own_browser() {
    let caching = |value: &'static str| {
        Application::start(move |connection, _| connection.answer("200 OK", value, "ok"))
    };
    let cases = [
        ("nothing is said of caching", caching(""), "", true),
        ("private", caching("Cache-Control: max-age=600, Private\r\n"), "", true),
        ("no-store", caching("Cache-Control: no-store\r\n"), "", true),
        ("shared", caching("Cache-Control: public, max-age=600\r\n"), "", true),
        ("by age alone", caching("Cache-Control: max-age=600\r\n"), "", true),
        ("optional", caching(""), "access = \"optional\"", true),
        ("public", caching(""), "access = \"public\"", false),
        (
            "the application ends the connection",
            Application::start(|connection, _| connection.close_writing()),
            "",
            true,
        ),
    ];
    for (name, application, more, wanted) in cases {
        let gateway = gateway(&application, more);
        let first = rotate(&gateway, &[]);
        let (cookie, _) = sign_in(&gateway);
        let request = format!("GET / HTTP/1.1\r\nHost: app.test\r\n{cookie}Connection: close\r\n\r\n");
        let before = gateway.exchange(&request);
        assert!(!fields(&before, "set-cookie").any(|field| is_session_cookie(&field)), "{name}: {before}");
        rotate(&gateway, &[&first]);
        let answer = gateway.exchange(&request);
        let set: Vec<_> = fields(&answer, "set-cookie").filter(is_session_cookie).collect();
        assert_eq!(set.len(), usize::from(wanted), "{name}: {answer}");
    }
}

#[test]
fn a_websocket_brings_the_cookie_that_was_sealed_anew() {
    let websockets = echoing_websocket();
    let gateway = gateway(&websockets, "");
    let first = rotate(&gateway, &[]);
    let (cookie, _) = sign_in(&gateway);
    rotate(&gateway, &[&first]);
    let mut client = gateway.connect();
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: app.test\r\n{cookie}Origin: https://app.test\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ));
    let head = client.read_head();
    assert_eq!(status(&head), 101, "{head}");
    assert_eq!(fields(&head, "set-cookie").filter(is_session_cookie).count(), 1, "{head}");
}

#[test]
fn an_answer_that_comes_after_the_end_of_its_session_sets_no_cookie() {
    let (asked, answer) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (to_ask, to_answer) = (Arc::clone(&asked), Arc::clone(&answer));
    let slow = Application::start(move |connection, _| {
        to_ask.wait();
        to_answer.wait();
        connection.answer("200 OK", "", "ok");
    });
    let gateway = gateway(&slow, "");
    let first = rotate(&gateway, &[]);
    let (cookie, key) = sign_in(&gateway);
    rotate(&gateway, &[&first]);
    let mut client = gateway.connect();
    client.send(format!("GET / HTTP/1.1\r\nHost: app.test\r\n{cookie}Connection: close\r\n\r\n"));
    asked.wait();
    let shared = gateway.gateway.shared();
    shared.runtime.block_on(shared.sessions.end(key)).unwrap();
    answer.wait();
    let all = client.read_all();
    assert!(!fields(&all, "set-cookie").any(|field| is_session_cookie(&field)), "{all}");
}

#[test]
fn the_end_of_a_session_ends_its_websockets_and_streams_and_nobody_elses() {
    let websockets = echoing_websocket();
    let streams = Application::start(|connection, _| {
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
        connection.read_line();
    });
    let for_websockets = gateway(&websockets, "");
    let for_streams = gateway(&streams, "");
    let (mine, key) = sign_in(&for_websockets);
    let (others, _) = sign_in(&for_websockets);
    let (streaming, streaming_key) = sign_in(&for_streams);

    let mut my_websocket = open_websocket(&for_websockets, &mine);
    let mut other_websocket = open_websocket(&for_websockets, &others);
    let mut stream = for_streams.connect();
    stream.send(format!("GET / HTTP/1.1\r\nHost: app.test\r\n{streaming}\r\n"));
    assert_eq!(status(&stream.read_head()), 200);
    assert_eq!(stream.read_exactly(6), "1\r\nx\r\n");

    for (gateway, key) in [(&for_websockets, key), (&for_streams, streaming_key)] {
        let shared = gateway.gateway.shared();
        shared.runtime.block_on(shared.sessions.end(key)).unwrap();
    }
    my_websocket.stream().set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(my_websocket.read_all(), "");
    assert_eq!(stream.read_all(), "", "no last chunk: the stream was cut");
    other_websocket.send("still here\n");
    assert_eq!(other_websocket.read_line(), "still here\n");

    let again = for_websockets.exchange(format!(
        "GET / HTTP/1.1\r\nHost: app.test\r\nAccept: application/json\r\n{mine}Connection: close\r\n\r\n"
    ));
    assert_eq!(status(&again), 401);
}

/// A gateway whose sessions are short.
fn short_lived(application: &Application, idle: u64, max: u64) -> Fixture {
    let mut settings = settings(&text(application, ""));
    let (idle_timeout, max_lifetime) = (Duration::from_secs(idle), Duration::from_secs(max));
    let limits = Limits { idle_timeout, max_lifetime, shortest_idle: idle_timeout };
    settings.gateway.reading = Arc::new(Reading { limits, ..Reading::clone(&settings.gateway.reading) });
    start_settings(settings)
}

/// Talks over a WebSocket for so long, or until it is cut.
fn talk(websocket: &mut Client, length: Duration) -> Duration {
    let begun = Instant::now();
    while begun.elapsed() < length {
        // What was cut can't be written to, either.
        if websocket.stream().write_all(b"x\n").is_err() || websocket.try_read_line().is_empty() {
            break;
        }
    }
    begun.elapsed()
}

#[test]
fn a_websocket_ends_with_the_lifetime_of_its_session_however_lively_it_is() {
    let application = echoing_websocket();
    let gateway = short_lived(&application, 3, 3);
    let (cookie, _) = sign_in(&gateway);
    let mut websocket = open_websocket(&gateway, &cookie);
    let lived = talk(&mut websocket, Duration::from_secs(20));
    assert!((2..10).contains(&lived.as_secs()), "{lived:?}");
}

#[test]
fn a_lively_websocket_is_use_of_its_session_and_a_silent_one_is_not() {
    let application = echoing_websocket();
    let gateway = short_lived(&application, 3, 3600);
    let (cookie, key) = sign_in(&gateway);
    let mut websocket = open_websocket(&gateway, &cookie);
    let lively = Duration::from_secs(6);
    assert!(talk(&mut websocket, lively) >= lively, "it is not cut");
    let shared = Arc::clone(gateway.gateway.shared());
    let session = || shared.runtime.block_on(shared.sessions.read(key)).unwrap();
    assert!(session().is_some(), "twice the idle timeout without any request");
    websocket.stream().set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    assert_eq!(websocket.read_all(), "", "cut");
    wait_until(|| session().is_none());
}

#[test]
fn an_endpoint_reads_a_small_body_and_refuses_a_large_one_by_its_length() {
    let application = Application::echo();
    let gateway = gateway(&application, "");
    let head = "POST /oauth2/sign_out HTTP/1.1\r\nHost: app.test\r\nAccept: application/json\r\nSec-Fetch-Site: same-origin\r\n";
    let mut client = gateway.connect();
    client.send(format!("{head}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"));
    assert_eq!(client.read_head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("a=b&c");
    let answer = client.read_answer();
    assert!(matches!(status(&answer), 200 | 302), "{answer}");
    let mut client = gateway.connect();
    client.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\na=b\r\n0\r\n\r\n"));
    assert!(matches!(status(&client.read_answer()), 200 | 302));
    // The body was read, so the connection is good for another request.
    client.send(format!("{head}\r\n"));
    assert!(matches!(status(&client.read_answer()), 200 | 302));

    let large = gateway.exchange(format!("{head}Content-Length: 100000\r\nExpect: 100-continue\r\n\r\n"));
    assert!(large.starts_with("HTTP/1.1 413 "), "{large}");
    assert_eq!(field(&large, "connection"), Some("close"));
    let chunks = "400\r\n".to_owned() + &"x".repeat(1024) + "\r\n";
    let grown =
        gateway.exchange(format!("{head}Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", chunks.repeat(5)));
    assert_eq!(status(&grown), 413, "{grown}");
    assert_eq!(application.hits(), 0);
}
