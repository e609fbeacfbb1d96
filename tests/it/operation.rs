//! Operation: what an operator sees, and how the process ends.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::browser::Browser;
use crate::support::client::Request;
use crate::support::gateway::{Gateway, WIKI};
use crate::support::scripted_provider::ScriptedProvider;
use crate::support::upstream::{Echo, Upstream};
use crate::support::wait_for;

const PAGE: &str = "https://wiki.test/page?secret-in-the-query=4711";

/// A gateway with an application, public below `/public`, and a provider.
pub fn stage() -> (Upstream, ScriptedProvider, Gateway) {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream)
        .path("/public", &upstream, "access = \"public\"")
        .provider(provider.entry())
        .start();
    (upstream, provider, gateway)
}

#[test]
fn the_admin_listener_tells_health_readiness_and_metrics() {
    let (_upstream, _provider, gateway) = stage();
    assert_eq!(gateway.admin("/healthz").status, 200);
    let ready = wait_for("the provider to be up", || {
        let ready = gateway.admin("/readyz");
        (ready.json()["providers"]["main"] == "up").then_some(ready)
    });
    assert_eq!(ready.status, 200);
    assert_eq!(gateway.admin("/metrics").status, 200);
    assert_eq!(gateway.admin("/").status, 404);
    for path in ["/healthz", "/readyz", "/metrics"] {
        let mut browser = Browser::new(&gateway);
        browser.open(PAGE);
        let echo = Echo::of(&browser.get(&format!("https://wiki.test{path}")));
        assert_eq!(echo.line, format!("GET {path} HTTP/1.1"), "on a proxied host it is the application's");
    }
}

#[test]
fn metrics_count_what_happened() {
    let (_upstream, _provider, gateway) = stage();
    let mut browser = Browser::new(&gateway);
    browser.open(PAGE);
    assert_eq!(browser.get(PAGE).status, 200);
    assert_eq!(gateway.request(&Request::get("/api").with("Accept", "application/json")).status, 401);
    browser.post("https://wiki.test/oauth2/sign_out", PAGE);
    let text = gateway.admin("/metrics").text();
    let counts = [
        ("portcullis_sign_ins_total{provider=\"main\",outcome=\"success\"}", 1.0),
        ("portcullis_sign_outs_total{kind=\"provider\"}", 1.0),
        ("portcullis_refusals_total{code=\"sign_in_required\"}", 2.0),
        ("portcullis_provider_up{provider=\"main\"}", 1.0),
    ];
    for (series, value) in counts {
        assert!((gateway.metric(series) - value).abs() < f64::EPSILON, "{series} in\n{text}");
    }
    for family in ["portcullis_requests_total", "portcullis_provider_seconds", "portcullis_store_seconds"] {
        assert!(text.contains(family), "{family} in\n{text}");
    }
    assert!(!text.contains("alice") && !text.contains("/page"), "no names, no paths\n{text}");
}

#[test]
fn each_request_writes_one_access_event_that_the_application_can_be_matched_with() {
    let (_upstream, _provider, gateway) = stage();
    let echo = Echo::of(&gateway.request(&Request::get("/public?token=abc").with("X-Request-Id", "mine")));
    let id = echo.one("x-request-id").expect("the application gets the request id").to_owned();
    assert_ne!(id, "mine");
    let line = gateway.wait_for_log(&[&id]);
    let event: serde_json::Value = serde_json::from_str(&line).expect("the log is JSON");
    assert_eq!((&event["status"], &event["path"]), (&200.into(), &"/public".into()), "{line}");
    assert_eq!((&event["method"], &event["host"]), (&"GET".into(), &WIKI.into()), "{line}");
    let lines = gateway.log().into_iter().filter(|line| line.contains(&id)).count();
    assert_eq!(lines, 1);
}

#[test]
fn sigterm_lets_a_request_in_flight_end_and_then_the_process_ends() {
    let (upstream, _provider, mut gateway) = stage();
    let mut connection = gateway.place(WIKI).connect().unwrap();
    let place = gateway.place(WIKI);
    upstream.waits_at("/public/wait");
    connection.send(&Request::get("/public/wait").with("Host", WIKI).bytes()).unwrap();
    wait_for("the request to arrive", || (upstream.hits() == 1).then_some(()));
    gateway.send_terminate();
    wait_for("the listener to close", || place.connect().is_err().then_some(()));
    upstream.go_on();
    assert_eq!(Echo::of(&connection.response_to("GET")).line, "GET /public/wait HTTP/1.1");
    assert!(gateway.wait_for_exit().success());
}

#[test]
fn an_idle_gateway_ends_at_once() {
    let (_upstream, _provider, mut gateway) = stage();
    let idle = gateway.place(WIKI).connect().unwrap();
    assert_eq!(gateway.request(&Request::get("/public")).status, 200);
    let started = Instant::now();
    assert!(gateway.terminate().success());
    assert!(started.elapsed() < Duration::from_secs(10), "took {:?}", started.elapsed());
    drop(idle);
}

#[test]
fn a_request_that_never_ends_is_cut_after_the_shutdown_timeout() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let mut gateway = Gateway::in_front_of(&upstream)
        .path("/public", &upstream, "access = \"public\"")
        .config("[server]\nshutdown_timeout = \"1s\"")
        .provider(provider.entry())
        .start();
    upstream.waits_at("/public/wait");
    let mut connection = gateway.place(WIKI).connect().unwrap();
    connection.send(&Request::get("/public/wait").with("Host", WIKI).bytes()).unwrap();
    wait_for("the request to arrive", || (upstream.hits() == 1).then_some(()));
    let started = Instant::now();
    gateway.terminate();
    assert!(started.elapsed() < Duration::from_secs(15), "took {:?}", started.elapsed());
}

#[test]
fn readyz_says_no_before_the_listeners_close() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let mut gateway = Gateway::in_front_of(&upstream)
        .path("/public", &upstream, "access = \"public\"")
        .config("[server]\nshutdown_delay = \"3s\"")
        .provider(provider.entry())
        .start();
    gateway.send_terminate();
    wait_for("readyz to say no", || (gateway.admin("/readyz").status == 503).then_some(()));
    assert_eq!(gateway.admin("/healthz").status, 200);
    assert_eq!(gateway.request(&Request::get("/public")).status, 200, "requests are still served");
    assert!(gateway.wait_for_exit().success());
}

#[test]
fn sighup_ends_nothing() {
    let (_upstream, _provider, gateway) = stage();
    let status = Command::new("kill").args(["-HUP", &gateway.pid().to_string()]).status().unwrap();
    assert!(status.success());
    for _ in 0..20 {
        assert_eq!(gateway.request(&Request::get("/public")).status, 200);
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_occupied_port_is_told_and_ends_the_process() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let builder = Gateway::in_front_of(&upstream).provider(provider.entry());
    let taken = std::net::TcpListener::bind(builder.address()).unwrap();
    let mut gateway = builder.prepare();
    gateway.spawn();
    assert!(!gateway.wait_for_exit().success());
    let port = taken.local_addr().unwrap().port().to_string();
    gateway.wait_for_log(&[&port]);
}

#[test]
fn ax_238_what_a_client_sends_cannot_forge_a_log_line() {
    let (_upstream, _provider, gateway) = stage();
    // The right-to-left override, as UTF-8 bytes.
    let agent = "x\",\"forged\":\"yes\\\" \u{e2}\u{80}\u{ae}";
    gateway.request(&Request::get("/public/forged").with("User-Agent", agent));
    let line = gateway.wait_for_log(&["/public/forged"]);
    let event: serde_json::Value = serde_json::from_str(&line).expect("still one JSON object");
    assert_eq!(event.get("forged"), None);
    assert!(!line.contains('\u{202e}'), "{line}");
}
