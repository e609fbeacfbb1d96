//! The admin listener as an attacker tries it; and a provider that is gone when everybody needs it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::operation::stage;
use crate::support::browser::Browser;
use crate::support::client::{Request, Response};
use crate::support::gateway::{Gateway, WIKI};
use crate::support::scripted_provider::{Call, ScriptedProvider};
use crate::support::server::{After, Exchange, Server};
use crate::support::upstream::Upstream;
use crate::support::wait_for;

const PAGE: &str = "https://wiki.test/page";

/// What only the admin listener says.
const OF_ADMIN: [&str; 4] =
    ["portcullis_requests_total", "\"providers\"", "\"status\":\"ok\"", "\"sessions\":"];

fn says_nothing_of_admin(name: &str, response: &Response) {
    let text = response.text();
    for word in OF_ADMIN {
        assert!(!text.contains(word), "{name}: {text}");
    }
}

#[test]
fn ax_227_nothing_on_a_public_listener_leads_to_the_admin_listener() {
    let (_upstream, _provider, gateway) = stage();
    let admin = gateway.admin_address().to_string();
    let port = gateway.admin_address().port();
    let hosts = [
        WIKI.to_owned(),
        admin.clone(),
        format!("localhost:{port}"),
        format!("{WIKI}:{port}"),
        "127.0.0.1".to_owned(),
        format!("[::1]:{port}"),
    ];
    let mut browser = Browser::new(&gateway);
    assert_eq!(browser.open(PAGE).status(), 200);
    let cookies = browser.jar.field(&PAGE.parse().unwrap(), false).unwrap();
    for path in ["/metrics", "/readyz", "/healthz", "/backup"] {
        for host in &hosts {
            for target in [path.to_owned(), format!("http://{admin}{path}"), format!("http://{host}{path}")] {
                for method in ["GET", "POST"] {
                    let request = Request::new(method, &target).with("Host", host);
                    let name = format!("{method} {target} at {host}");
                    for request in [request.clone(), request.with("Cookie", &cookies)] {
                        let response = gateway.place(WIKI).request(&request);
                        says_nothing_of_admin(&name, &response);
                        // Who is signed in reaches the application under its own name, and nothing else.
                        assert!(response.status != 200 || host == WIKI, "{name}: {}", response.status);
                    }
                }
            }
        }
    }
}

#[test]
fn ax_228_the_admin_listener_does_nothing_for_a_browser_or_without_its_token() {
    let (_upstream, _provider, gateway) = stage();
    let token = std::fs::read_to_string(gateway.data_dir().join("admin.token")).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    let admin = gateway.admin_address().to_string();
    let mut browser = Browser::new(&gateway);
    assert_eq!(browser.open(PAGE).status(), 200);
    let cookies = browser.jar.field(&PAGE.parse().unwrap(), false).unwrap();
    let post = || Request::new("POST", "/backup");
    let here = || post().with("Host", &admin);
    let right = || here().with("Authorization", &bearer);
    let rows = [
        ("no token", here(), 401),
        (
            "a wrong one",
            here().with("Authorization", "Bearer AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
            401,
        ),
        ("a part of it", here().with("Authorization", bearer.get(..bearer.len() - 1).unwrap()), 401),
        ("more than it", here().with("Authorization", &format!("{bearer}A")), 401),
        ("another scheme", here().with("Authorization", &format!("Basic {}", token.trim())), 401),
        ("a session cookie", here().with("Cookie", &cookies), 403),
        ("the token from a page", right().with("Origin", "https://evil.test"), 403),
        ("the token from a frame", right().with("Sec-Fetch-Site", "cross-site"), 403),
        ("the token and a cookie", right().with("Cookie", &cookies), 403),
        ("under a name", post().with("Host", "admin.test").with("Authorization", &bearer), 403),
        ("by GET", Request::get("/backup").with("Host", &admin).with("Authorization", &bearer), 405),
        ("by PUT", Request::new("PUT", "/backup").with("Host", &admin).with("Authorization", &bearer), 405),
    ];
    for (name, request, status) in rows {
        assert_eq!(gateway.ask_admin(&request).status, status, "{name}");
    }
    assert!(!gateway.data_dir().join("backup").exists(), "nothing was copied");
    assert_eq!(gateway.ask_admin(&right()).status, 200);
    assert!(gateway.data_dir().join("backup").exists());
}

#[test]
fn ax_229_what_the_admin_listener_tells_opens_nothing() {
    let (_upstream, _provider, gateway) = stage();
    let mut browser = Browser::new(&gateway);
    assert_eq!(browser.open(PAGE).status(), 200);
    let told: String = ["/metrics", "/readyz", "/healthz"].map(|path| gateway.admin(path).text()).concat();
    for cookie in browser.jar.of(WIKI) {
        assert!(!told.contains(&cookie.value));
    }
    // Every run of characters that could be an id is no session when it is shown as one.
    let words = told
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_')
        .filter(|word| word.len() >= 20);
    for word in words {
        let request = Request::get("/page").with("Cookie", &format!("__Host-portcullis={word}"));
        assert_eq!(gateway.request(&request.with("Accept", "application/json")).status, 401, "{word}");
    }
    assert!(!told.contains("alice"), "{told}");
}

/// How many people's tokens are over at once.
const USERS: usize = 500;

/// How many of them sign in at the same time: no provider of a test is to be slow then.
const FEW: usize = 8;

/// How many come at the same time when it is silent.
const AT_ONCE: usize = 200;

/// The most calls to a provider at a time (TE-1).
const MOST_CALLS: usize = 64;

/// A provider that takes requests and never answers; tells how many it had at most at the same time.
fn silence(port: u16) -> (Server, Arc<AtomicUsize>) {
    let (open, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let highest = Arc::clone(&most);
    let server = Server::start_at(
        port,
        None,
        Arc::new(move |exchange: &mut Exchange| {
            highest.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // Until the gateway has waited long enough.
            let closed = io::copy(exchange.stream(), &mut io::sink());
            open.fetch_sub(1, Ordering::SeqCst);
            closed.map(|_| After::Close)
        }),
    );
    (server, most)
}

/// Lets many people do the same at once.
fn by_many<T: Send>(
    people: &mut [Browser],
    at_once: usize,
    act: impl Fn(&mut Browser) -> T + Sync,
) -> Vec<T> {
    let each = people.len().div_ceil(at_once);
    thread::scope(|scope| {
        let act = &act;
        let run = |some| scope.spawn(move || <[Browser]>::iter_mut(some).map(act).collect::<Vec<_>>());
        let running: Vec<_> = people.chunks_mut(each).map(run).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn ax_234_five_hundred_people_whose_tokens_are_over_do_not_storm_a_provider_that_is_silent() {
    let (upstream, mut provider) = (Upstream::start(), ScriptedProvider::start());
    let mut entry = provider.entry();
    entry.more.push_str("timeout = \"4s\"\n");
    let gateway = Gateway::in_front_of(&upstream)
        .path("/api", &upstream, "forward_access_token = true")
        .provider(entry)
        .start();
    provider.alter_tokens(|tokens| {
        tokens["expires_in"] = json!(10);
        tokens["refresh_token"] = json!("a refresh token");
    });
    // Where signing them all in takes longer than a token lives.
    provider.alter_answer(Call::Token, |answer| {
        if answer.status == 400 {
            answer.status = 503;
        }
    });
    let mut people = vec![Browser::new(&gateway); USERS];
    let signed_in = by_many(&mut people, FEW, |browser| browser.open(PAGE).status());
    assert_eq!(signed_in, [200; USERS]);
    let signed_in = Instant::now();
    provider.stop();
    let (silent, most) = silence(provider.port());
    wait_for("the last token to be over", || (signed_in.elapsed() > Duration::from_secs(11)).then_some(()));

    let with_token = by_many(&mut people, AT_ONCE, |browser| browser.get("https://wiki.test/api").status);
    // Whose refresh was cut off while the provider went away has to sign in for a token: 302.
    let later = with_token.iter().filter(|status| **status == 503).count();
    let sign_in = with_token.iter().filter(|status| **status == 302).count();
    assert_eq!(later + sign_in, USERS, "a token that is over was forwarded: {with_token:?}");
    assert!(later > USERS / 2, "{later} are told to come again");
    // The first ones that wait in vain open the circuit; then one call at a time sees whether there is an answer.
    assert!(silent.connections() < USERS * 3 / 4, "{} calls", silent.connections());
    let most = most.load(Ordering::SeqCst);
    // A call that is given up makes room before its connection is seen to be closed here.
    assert!((1..=2 * MOST_CALLS + MOST_CALLS / 2).contains(&most), "{most} calls at a time");
    let without = by_many(&mut people, AT_ONCE, |browser| browser.get(PAGE).status);
    assert_eq!(without, [200; USERS], "who needs no token is served");

    drop(silent);
    provider.behave();
    provider.come_back();
    wait_for("a sign-in", || (Browser::new(&gateway).open(PAGE).status() == 200).then_some(()));
}
