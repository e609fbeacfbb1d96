//! HTTP/2 connections that only mean harm: they end, little is kept of them, and others are served.

use std::time::{Duration, Instant};

use crate::support::gateway::{Gateway, WIKI};
use crate::support::hpack::{integer, literals};
use crate::support::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, Http2, Outcome, PING,
    PRIORITY, PROTOCOL_ERROR, REFUSED_STREAM, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, headers, request,
    setting,
};
use crate::support::upstream::{Echo, Upstream};
use crate::support::wait_for;

/// What the gateway may grow by under any of this.
const FLAT: u64 = 64 << 20;

/// What of a flood comes at a time.
type Piece = Box<dyn Fn(u32) -> Vec<u8>>;

fn stage() -> (Upstream, Gateway) {
    stage_with("")
}

fn stage_with(server: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::start();
    let gateway = Gateway::empty()
        .tls(&[WIKI])
        .route(&format!("host = \"{WIKI}\"\nupstream = \"{}\"\naccess = \"public\"", upstream.url()))
        .config(&format!("[server]\n{server}"))
        // Each request of a flood would write its lines.
        .log_level("info")
        .start();
    (upstream, gateway)
}

fn connect(gateway: &Gateway) -> Http2 {
    Http2::connect(&gateway.place(WIKI))
}

fn get() -> Vec<u8> {
    literals(&request("GET", WIKI, "/"))
}

/// Sends as long as the server takes it, and asks as another client on the way.
fn flood(gateway: &Gateway, client: &mut Http2, pieces: impl Iterator<Item = Vec<u8>>) {
    let mut asked = false;
    for (number, piece) in pieces.enumerate() {
        if client.try_send(&piece).is_err() {
            break;
        }
        if number > 10 && !asked {
            assert_eq!(connect(gateway).get(WIKI, "/").status(), 200, "another client is served meanwhile");
            asked = true;
        }
    }
}

#[test]
fn ax_233_a_flood_ends_its_connection_and_leaves_nothing_behind() {
    let (upstream, gateway) = stage();
    let open = frame(HEADERS, END_STREAM, 1, &get());
    let resets = |number: u32| {
        let pairs = (0..20).map(move |pair| 2 * (20 * number + pair) + 1);
        pairs
            .flat_map(|stream| {
                let begin = frame(HEADERS, END_HEADERS | END_STREAM, stream, &get());
                [begin, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
            })
            .collect::<Vec<u8>>()
    };
    let opened_for_nothing = |number: u32| {
        let streams = (0..20).map(move |stream| 2 * (20 * number + stream) + 1);
        streams.flat_map(|stream| headers(0, stream, &[(":method", "GET")])).collect::<Vec<u8>>()
    };
    let always = |bytes: Vec<u8>| move |_: u32| bytes.clone();
    let field = literals(&[("x-filler", &"x".repeat(16_000))]);
    let no_window = [0, 0, 0, 1];
    let plain = Vec::new();
    let body = frame(HEADERS, END_HEADERS, 1, &literals(&request("POST", WIKI, "/")));
    let cases: Vec<(&str, &Vec<u8>, Piece)> = vec![
        ("CONTINUATION without an end", &open, Box::new(always(frame(CONTINUATION, 0, 1, &field)))),
        ("CONTINUATION without anything", &open, Box::new(always(frame(CONTINUATION, 0, 1, b"").repeat(50)))),
        ("10,000 streams taken back at once", &plain, Box::new(resets)),
        ("streams that are no requests", &plain, Box::new(opened_for_nothing)),
        ("PING", &plain, Box::new(always(frame(PING, 0, 0, &[0; 8]).repeat(100)))),
        ("SETTINGS", &plain, Box::new(always(frame(SETTINGS, 0, 0, &[]).repeat(100)))),
        ("SETTINGS that change", &plain, Box::new(|number| setting(1, number % 4096).repeat(100))),
        ("PRIORITY", &plain, Box::new(always(frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 1]).repeat(100)))),
        ("WINDOW_UPDATE", &plain, Box::new(always(frame(WINDOW_UPDATE, 0, 0, &no_window).repeat(100)))),
        ("DATA without data", &body, Box::new(always(frame(DATA, 0, 1, b"").repeat(100)))),
        ("unknown frames", &plain, Box::new(always(frame(0xfe, 0, 0, b"").repeat(100)))),
    ];
    let before = gateway.resident_bytes();
    for (name, first, piece) in cases {
        let mut client = connect(&gateway);
        client.send(first);
        flood(&gateway, &mut client, (0..500).map(piece));
        let told = client.goaway();
        assert!(matches!(told, None | Some(ENHANCE_YOUR_CALM | PROTOCOL_ERROR)), "{name}: {told:?}");
        assert!(client.is_closed_within(Duration::from_secs(5)), "{name}");
        let grown = gateway.resident_bytes().saturating_sub(before);
        assert!(grown < FLAT, "{name}: {grown} bytes");
    }
    gateway.wait_for_log(&["http2_flood", "127.0.0.1"]);
    assert!(upstream.hits() < 3000, "{} requests arrived", upstream.hits());
    assert_eq!(connect(&gateway).get(WIKI, "/").status(), 200);
}

#[test]
fn ax_233_streams_taken_back_one_by_one_end_in_goaway() {
    let (upstream, gateway) = stage_with("http2_max_resets = 50");
    let mut client = connect(&gateway);
    let mut taken_back = 0;
    let told = loop {
        let stream = client.new_stream();
        let begun = client.try_send(&headers(END_STREAM, stream, &request("GET", WIKI, "/")));
        let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        // The answer to a PING comes behind the stream: each one has begun before it is taken back.
        let ping = frame(PING, 0, 0, &[7; 8]);
        if begun.and_then(|()| client.try_send(&ping)).is_err() {
            break client.goaway();
        }
        let answered = loop {
            match client.next() {
                Some(frame) if frame.kind == PING => break true,
                Some(frame) if frame.kind == GOAWAY => break false,
                Some(_) => {}
                None => break false,
            }
        };
        if !answered || client.try_send(&reset).is_err() {
            break client.goaway();
        }
        taken_back += 1;
        assert!(taken_back < 10_000, "it may go on for ever");
    };
    assert!(matches!(told, None | Some(ENHANCE_YOUR_CALM)), "{told:?}");
    assert!((50..400).contains(&taken_back), "{taken_back}");
    gateway.wait_for_log(&["http2_flood", "taken back"]);
    assert!(upstream.hits() <= 400);
}

#[test]
fn ax_233_a_block_that_unpacks_to_much_is_not_unpacked() {
    let (upstream, gateway) = stage();
    let before = gateway.resident_bytes();
    let mut outcomes = Vec::new();
    for _ in 0..20 {
        let mut client = connect(&gateway);
        // One entry that fills the table, and a request that names it again and again.
        let mut entry = vec![0x40];
        integer(&mut entry, 7, 0, 1);
        entry.push(b'x');
        integer(&mut entry, 7, 0, 4000);
        entry.extend([b'y'; 4000]);
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &[get(), entry].concat()));
        let bomb = [get(), vec![0xbe; 16_000]].concat();
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &bomb));
        outcomes.push(client.outcome(3));
    }
    let refused = |outcome: &Outcome| {
        matches!(outcome, Outcome::Reset(_) | Outcome::GoAway(_) | Outcome::Closed) || outcome.status() == 431
    };
    assert!(outcomes.iter().all(refused), "{outcomes:?}");
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < FLAT, "{grown} bytes");
    assert!(upstream.hits() <= 20, "only what came before the bombs");
    assert_eq!(connect(&gateway).get(WIKI, "/").status(), 200);
}

#[test]
fn ax_233_a_thousand_streams_at_once_are_not_served_at_once() {
    let (upstream, gateway) = stage_with("http2_max_resets = 5000");
    upstream.waits_at("/slow");
    let mut client = connect(&gateway);
    let mut streams = Vec::new();
    let mut bytes = Vec::new();
    for _ in 0..1000 {
        let stream = client.new_stream();
        streams.push(stream);
        bytes.extend(headers(END_STREAM, stream, &request("GET", WIKI, "/slow")));
    }
    client.send(&bytes);
    wait_for("a hundred requests to arrive", || (upstream.hits() == 100).then_some(()));
    assert_eq!(connect(&gateway).get(WIKI, "/").status(), 200, "another client is served meanwhile");
    let refused = client.outcomes(&streams[100..]);
    assert!(refused.iter().all(|outcome| matches!(outcome, Outcome::Reset(REFUSED_STREAM))), "{refused:?}");
    upstream.go_on();
    for outcome in client.outcomes(&streams[..100]) {
        assert_eq!(Echo::of(&outcome.response()).line, "GET /slow HTTP/1.1");
    }
    assert_eq!(upstream.hits(), 101);
}

#[test]
fn ax_233_answers_that_nobody_reads_are_not_kept() {
    let (_upstream, gateway) = stage();
    let before = gateway.resident_bytes();
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = connect(&gateway);
        // Windows for everything; and then nothing is read.
        client.send(&setting(4, 0x7fff_ffff));
        client.send(&frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes()));
        for _ in 0..20 {
            client.ask(&request("GET", WIKI, "/big?bytes=100000000"));
        }
        clients.push(client);
    }
    let begun = Instant::now();
    let mut most = 0;
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(connect(&gateway).get(WIKI, "/").status(), 200);
        most = most.max(gateway.resident_bytes().saturating_sub(before));
    }
    // What is between an application and its client of each of the hundred requests.
    assert!(most < 100 << 20, "{most} bytes");
}

#[test]
fn frames_out_of_place_end_their_stream_or_connection_and_nobody_elses() {
    let (upstream, gateway) = stage();
    upstream.waits_at("/slow");
    let ask = headers(END_STREAM, 1, &request("GET", WIKI, "/slow"));
    let post = headers(0, 1, &request("POST", WIKI, "/slow"));
    let two = |first: &[u8], second: Vec<u8>| [first.to_vec(), second].concat();
    let reset = frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes());
    let cases = [
        ("DATA behind the end", two(&ask, frame(DATA, 0, 1, b"x"))),
        ("DATA of no stream", frame(DATA, 0, 1, b"x")),
        ("DATA of stream 0", frame(DATA, 0, 0, b"x")),
        ("a head twice", two(&post, headers(0, 1, &request("GET", WIKI, "/slow")))),
        ("a head behind the end", two(&ask, headers(END_STREAM, 1, &request("GET", WIKI, "/slow")))),
        ("an even stream", headers(END_STREAM, 2, &request("GET", WIKI, "/slow"))),
        ("stream 0", headers(END_STREAM, 0, &request("GET", WIKI, "/slow"))),
        (
            "an older stream",
            two(
                &headers(END_STREAM, 5, &request("GET", WIKI, "/slow")),
                headers(END_STREAM, 3, &request("GET", WIKI, "/slow")),
            ),
        ),
        ("a window of nothing", two(&ask, frame(WINDOW_UPDATE, 0, 1, &[0; 4]))),
        (
            "a window beyond all",
            two(&ask, frame(WINDOW_UPDATE, 0, 1, &0x7fff_ffff_u32.to_be_bytes()).repeat(2)),
        ),
        (
            "a connection's window beyond all",
            frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()).repeat(2),
        ),
        ("more than the window", two(&post, frame(DATA, 0, 1, &[b'x'; 16_384]).repeat(100))),
        ("a frame that is too long", two(&post, frame(DATA, 0, 1, &vec![b'x'; 20_000]))),
        ("padding beyond the frame", two(&post, frame(DATA, 8, 1, &[200, 1, 2]))),
        (
            "a stream that depends on itself",
            frame(HEADERS, END_HEADERS | 0x20, 1, &[&[0, 0, 0, 1, 9], get().as_slice()].concat()),
        ),
        ("a priority on itself", two(&ask, frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 9]))),
        ("a reset of no stream", frame(RST_STREAM, 0, 9, &[0; 4])),
        ("a reset that is too short", two(&ask, frame(RST_STREAM, 0, 1, &[0; 3]))),
        ("a promise", two(&ask, frame(5, END_HEADERS, 1, &[&[0, 0, 0, 2], get().as_slice()].concat()))),
        (
            "another frame within a block",
            two(&frame(HEADERS, END_STREAM, 1, &get()), frame(PING, 0, 0, &[0; 8])),
        ),
        ("a CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, &get())),
        ("settings that are cut", frame(SETTINGS, 0, 0, &[0; 5])),
        ("a window that is none", setting(4, 0x8000_0000)),
        ("an acknowledgement with settings", frame(SETTINGS, 1, 0, &[0; 6])),
        ("a ping that is too short", frame(PING, 0, 0, &[0; 4])),
        ("an index into nothing", frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff, 0xff, 0xff, 0x0f])),
        ("index 0", frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x80])),
        (
            "a table beyond what was allowed",
            frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                1,
                &[&[0x3f, 0xe1, 0xff, 0x7f], get().as_slice()].concat(),
            ),
        ),
        ("a text that is cut", frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x00, 0x7f, 0xff, 0x01])),
        ("a reset in the middle", two(&ask, reset.clone())),
        ("a reset of a body", two(&post, reset)),
        ("no HTTP/2 at all", b"GET / HTTP/1.1\r\nHost: wiki.test\r\n\r\n".to_vec()),
    ];
    let mut others = connect(&gateway);
    for (name, bytes) in cases {
        let mut client = connect(&gateway);
        let sent = client.try_send(&bytes);
        assert_eq!(others.get(WIKI, "/").status(), 200, "{name}: another client is served");
        // Whatever the server made of it, it answers or is gone.
        let stream = 101;
        let asked =
            sent.and_then(|()| client.try_send(&headers(END_STREAM, stream, &request("GET", WIKI, "/next"))));
        let outcome = if asked.is_ok() { client.outcome(stream) } else { Outcome::Closed };
        if let Outcome::Answer(response) = &outcome {
            assert_eq!(Echo::of(response).line, "GET /next HTTP/1.1", "{name}");
        }
    }
    upstream.go_on();
    assert!(gateway.is_running());
}

#[test]
fn a_stream_that_is_reset_within_its_answer_frees_its_application() {
    let (upstream, gateway) = stage();
    let mut client = connect(&gateway);
    for _ in 0..20 {
        let events = client.ask(&request("GET", WIKI, "/sse"));
        assert_eq!(client.head(events).0.line, "200");
        assert_eq!(client.data(events).unwrap(), b"data: 0\n\n");
        client.send(&frame(RST_STREAM, 0, events, &8_u32.to_be_bytes()));
        assert_eq!(client.get(WIKI, "/").status(), 200);
    }
    let in_flight = || gateway.metric("portcullis_requests_in_flight");
    wait_for("the streams to end", || (in_flight() < 1.0).then_some(()));
    assert_eq!(upstream.hits(), 40);
}

#[test]
fn ax_233_a_client_that_takes_nothing_is_cut_off_after_a_minute() {
    let (_upstream, gateway) = stage();
    let mut client = connect(&gateway);
    // No window for any stream: heads come, and no byte of a body.
    client.send(&setting(4, 0));
    let started = Instant::now();
    let stream = client.ask(&request("GET", WIKI, "/big?bytes=100000000"));
    assert_eq!(client.head(stream).0.line, "200");
    client.wait_up_to(Duration::from_secs(100));
    let outcome = client.outcome(stream);
    assert!(matches!(outcome, Outcome::Reset(_)), "{outcome:?}");
    assert!(started.elapsed() > Duration::from_secs(50), "{:?}", started.elapsed());
}

#[test]
fn ax_232_idle_connections_hold_little_and_others_are_served() {
    const CONNECTIONS: u64 = 300;
    let (_upstream, gateway) = stage();
    assert_eq!(connect(&gateway).get(WIKI, "/").status(), 200);
    let before = gateway.resident_bytes();
    let asked = |_| {
        let mut client = connect(&gateway);
        assert_eq!(client.get(WIKI, "/").status(), 200);
        client
    };
    let idle: Vec<Http2> = (0..CONNECTIONS).map(asked).collect();
    let each = gateway.resident_bytes().saturating_sub(before) / CONNECTIONS;
    assert!(each < 160 << 10, "{each} bytes for each");
    assert_eq!(connect(&gateway).get(WIKI, "/").status(), 200);
    drop(idle);
}
