//! One function per event: it writes the log line and counts the metric.
//!
//! No argument of these functions is ever a secret; URLs are given without their query. What a client
//! sent is escaped where the line is written (`telemetry::logging`), so that no value can end a
//! record or start another one (LG-3).

use std::error::Error;
use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::metrics::Metrics;

/// The most bytes of a `User-Agent` in a line.
const MAX_USER_AGENT_BYTES: usize = 256;

/// Writes events; cheap to clone.
#[derive(Clone, Debug)]
pub struct Events {
    metrics: Arc<Metrics>,
    access_log: bool,
}

/// One request that ended, for the access event.
#[derive(Clone)]
pub struct Access<'a> {
    /// The request's id.
    pub request_id: &'a dyn Display,
    /// The client's address.
    pub client: IpAddr,
    /// The method.
    pub method: &'a str,
    /// The canonical host name; empty where the request had none.
    pub host: &'a str,
    /// The canonical path, without the query.
    pub path: &'a str,
    /// The final status; 0 when the client went away before one was sent.
    pub status: u16,
    /// The route's name.
    pub route: Option<&'a str>,
    /// The refusal's code.
    pub refusal: Option<&'static str>,
    /// The user (issuer-local subject or chosen claim), if known.
    pub user: Option<&'a str>,
    /// From the end of the request head to the end of the answer.
    pub duration: Duration,
    /// Bytes of answer body sent.
    pub bytes_sent: usize,
    /// The client's `User-Agent`; the line has its first 256 bytes.
    pub user_agent: Option<&'a str>,
}

/// Counts a request as in flight until it is dropped.
#[derive(Debug)]
#[must_use = "the request counts as ended when this is dropped"]
pub struct InFlight(Arc<Metrics>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

impl Events {
    /// Events counted in `metrics`; `access_log` says whether the access line is written too.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, access_log: bool) -> Self {
        Self { metrics, access_log }
    }

    /// Metrics only, no access log; for tests.
    #[must_use]
    pub fn quiet() -> Self {
        Self::new(Arc::new(Metrics::new()), false)
    }

    /// The metrics behind the events.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// A request began: gauge `portcullis_requests_in_flight`, until the returned value is dropped.
    pub fn request_began(&self) -> InFlight {
        self.metrics.request_began();
        InFlight(Arc::clone(&self.metrics))
    }

    /// A request ended. INFO `request`; counts `portcullis_requests_total{class}` and
    /// `portcullis_request_seconds`, and with a refusal `portcullis_refusals_total{code}`.
    pub fn request_finished(&self, access: &Access<'_>) {
        self.metrics.count_request(access.status, access.duration);
        if let Some(code) = access.refusal {
            self.metrics.count_refusal(code);
        }
        if self.access_log {
            write_access(access);
        }
    }

    /// Somebody is over a limit; `portcullis_rate_limited_total{limit}` where limit is the setting. The first
    /// time in a span of it also WARN `rate_limited`.
    pub fn rate_limited(
        &self,
        limit: &'static str,
        route: Option<&str>,
        client: IpAddr,
        retry_after_s: u32,
        is_news: bool,
    ) {
        self.metrics.count_rate_limited(limit);
        if is_news {
            warn!(event = "rate_limited", limit, route, %client, retry_after_s);
        }
    }

    /// A connection was closed before its first request. WARN `connection_refused`, or DEBUG where whoever connects could
    /// fill the log; `portcullis_connections_refused_total{reason}`.
    pub fn connection_refused(&self, reason: &'static str, client: IpAddr, detail: &str, is_news: bool) {
        self.metrics.count_refused_connection(reason);
        if is_news {
            warn!(event = "connection_refused", reason, %client, detail);
        } else {
            debug!(event = "connection_refused", reason, %client, detail);
        }
    }

    /// Somebody signed in. INFO `sign_in`; `portcullis_sign_ins_total{provider,outcome="success"}`.
    pub fn signed_in(
        &self,
        request_id: &dyn Display,
        provider: &str,
        user: &str,
        client: IpAddr,
        user_agent: Option<&str>,
    ) {
        self.metrics.count_sign_in(provider, "success");
        let user_agent = user_agent.map(cut_user_agent);
        info!(event = "sign_in", %request_id, provider, user, %client, user_agent);
    }

    /// A sign-in failed. WARN `sign_in_failed` with code and detail (never a token);
    /// `portcullis_sign_ins_total{provider,outcome=code}`.
    pub fn sign_in_failed(
        &self,
        request_id: &dyn Display,
        provider: &str,
        code: &'static str,
        detail: &str,
        client: IpAddr,
        user_agent: Option<&str>,
    ) {
        self.metrics.count_sign_in(provider, code);
        let user_agent = user_agent.map(cut_user_agent);
        warn!(event = "sign_in_failed", %request_id, provider, code, detail, %client, user_agent);
    }

    /// Somebody signed out. INFO `sign_out`; `portcullis_sign_outs_total{kind}` where kind is
    /// `local` or `provider`.
    pub fn signed_out(
        &self,
        request_id: &dyn Display,
        provider: &str,
        user: &str,
        kind: &'static str,
        client: IpAddr,
    ) {
        self.metrics.count_sign_out(kind);
        info!(event = "sign_out", %request_id, provider, user, kind, %client);
    }

    /// Sessions of a user ended because a newer one took their place. INFO `sessions_displaced`;
    /// `portcullis_sessions_displaced_total`.
    pub fn sessions_displaced(&self, request_id: &dyn Display, provider: &str, user: &str, sessions: usize) {
        self.metrics.count_displaced(sessions);
        info!(event = "sessions_displaced", %request_id, provider, user, sessions);
    }

    /// The provider told of a sign-out. INFO `logout_heard`; `portcullis_sign_outs_total{kind}` where kind
    /// is `back-channel` or `front-channel`.
    pub fn logout_heard(
        &self,
        request_id: &dyn Display,
        provider: &str,
        kind: &'static str,
        sessions: usize,
    ) {
        self.metrics.count_sign_out(kind);
        info!(event = "logout_heard", %request_id, provider, kind, sessions);
    }

    /// The tokens of a session were refreshed. DEBUG `refresh`;
    /// `portcullis_refreshes_total{provider,outcome="success"}`.
    pub fn refreshed(&self, provider: &str, user: &str) {
        self.metrics.count_refresh(provider, "success");
        debug!(event = "refresh", provider, user);
    }

    /// A refresh failed, or a part of it. WARN `refresh_failed`;
    /// `portcullis_refreshes_total{provider,outcome}` where outcome is `over` or `id_token` (the session
    /// ended), `unavailable`, `refused`, `lost`, `unverified` or `userinfo` (it lives on).
    pub fn refresh_failed(&self, provider: &str, user: &str, outcome: &'static str, detail: &str) {
        self.metrics.count_refresh(provider, outcome);
        warn!(event = "refresh_failed", provider, user, outcome, detail);
    }

    /// These session keys are in use from now on, of which the first seals. INFO `session_keys_loaded`;
    /// gauges `portcullis_session_keys`, and `portcullis_session_keys_stale` 0.
    pub fn session_keys_loaded(&self, ids: &[impl Display]) {
        self.metrics.set_session_keys(ids.len());
        let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
        let (sealing, opening) = ids.split_first().map_or(("", &[][..]), |(first, rest)| (first, rest));
        info!(event = "session_keys_loaded", sealing, opening = opening.join(", "));
    }

    /// Session keys that changed outside can't be used: those of before stay. ERROR
    /// `session_keys_refused`; gauge `portcullis_session_keys_stale` 1.
    pub fn session_keys_refused(&self, place: &dyn Display, error: &str) {
        self.metrics.set_session_keys_stale(true);
        error!(event = "session_keys_refused", %place, error, "the session keys of before stay in use");
    }

    /// What changed outside is as it was again. Gauge `portcullis_session_keys_stale` 0.
    pub fn session_keys_settled(&self) {
        self.metrics.set_session_keys_stale(false);
    }

    /// The store failed. ERROR `store_unavailable`; `portcullis_store_errors_total{operation}`.
    pub fn store_failed(&self, operation: &'static str, error: &dyn Error) {
        self.metrics.count_store_error(operation);
        error!(event = "store_unavailable", operation, error = chain(error));
    }

    /// A request was served out of memory because the store is down; `portcullis_outage_requests_total`.
    pub fn served_in_outage(&self) {
        self.metrics.count_outage_request();
    }

    /// The store does not answer. WARN `store_outage_began`.
    pub fn store_outage_began(&self) {
        warn!(
            event = "store_outage_began",
            "the session store does not answer; what is in memory is served for a while"
        );
    }

    /// The store answers again. INFO `store_outage_ended`, with what was served out of memory meanwhile.
    pub fn store_outage_ended(&self, length: Duration, requests: u64) {
        info!(event = "store_outage_ended", duration_ms = millis(length), requests);
    }

    /// A store operation took this long; `portcullis_store_seconds{operation}`.
    pub fn store_took(&self, operation: &'static str, duration: Duration) {
        self.metrics.observe_store(operation, duration);
    }

    /// A call to the provider ended; `portcullis_provider_seconds{provider,call,outcome}` where
    /// call is `discovery`, `jwks`, `token` or `userinfo` and outcome `ok` or `error`. DEBUG
    /// `provider_call`.
    pub fn provider_called(&self, provider: &str, call: &'static str, ok: bool, duration: Duration) {
        let outcome = if ok { "ok" } else { "error" };
        self.metrics.observe_provider(provider, call, outcome, duration);
        debug!(event = "provider_call", provider, call, outcome, duration_ms = millis(duration));
    }

    /// The provider became ready (metadata and keys are there). INFO `provider_up`; gauge
    /// `portcullis_provider_up{provider}` 1.
    pub fn provider_up(&self, provider: &str) {
        self.metrics.set_provider_up(provider, true);
        info!(event = "provider_up", provider);
    }

    /// The provider publishes its keys at another address than before (SF-2). INFO `key_set_moved`.
    pub fn key_set_moved(&self, provider: &str, from: &str, to: &str) {
        info!(event = "key_set_moved", provider, from, to);
    }

    /// The provider can't be reached or its metadata was refused. WARN `provider_down`, with the next
    /// try; gauge 0.
    pub fn provider_down(&self, provider: &str, error: &dyn Error, retry_in: Duration) {
        self.metrics.set_provider_up(provider, false);
        warn!(event = "provider_down", provider, %error, retry_in_s = retry_in.as_secs());
    }

    /// Many calls to the provider in a row had no answer: it is not asked for some seconds. WARN
    /// `provider_circuit_opened`.
    pub fn provider_circuit_opened(&self, provider: &str, call: &'static str) {
        warn!(event = "provider_circuit_opened", provider, call);
    }

    /// An upstream's name did not resolve. WARN `upstream_unresolved`.
    pub fn upstream_unresolved(&self, upstream: &str, error: &dyn Error) {
        warn!(event = "upstream_unresolved", upstream, error = chain(error));
    }
}

/// The target of access lines, of which there is one for each request.
pub(super) const ACCESS: &str = concat!(env!("CARGO_PKG_NAME"), "::access");

fn write_access(access: &Access<'_>) {
    info!(
        target: ACCESS,
        event = "request",
        request_id = %access.request_id,
        client = %access.client,
        method = access.method,
        host = access.host,
        path = access.path,
        status = access.status,
        route = access.route,
        code = access.refusal,
        user = access.user,
        duration_ms = millis(access.duration),
        bytes_sent = access.bytes_sent,
        user_agent = access.user_agent.map(cut_user_agent),
    );
}

/// Milliseconds with three decimals: microseconds are enough for people.
#[expect(clippy::cast_precision_loss, reason = "52 bits of microseconds are 142 years")]
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

fn cut_user_agent(text: &str) -> &str {
    let end = (0..=MAX_USER_AGENT_BYTES).rev().find(|&end| text.is_char_boundary(end));
    end.and_then(|end| text.get(..end)).unwrap_or(text)
}

/// An error and what caused it, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::logging::{Format, Level, captured};
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

    fn access<'a>() -> Access<'a> {
        Access {
            request_id: &"r1",
            client: CLIENT,
            method: "GET",
            host: "wiki.example.com",
            path: "/a",
            status: 200,
            route: Some("wiki"),
            refusal: None,
            user: Some("alice"),
            duration: Duration::from_micros(1_234),
            bytes_sent: 5,
            user_agent: Some("curl/8"),
        }
    }

    fn logging() -> Events {
        Events::new(Arc::new(Metrics::new()), true)
    }

    fn json(line: &str) -> serde_json::Value {
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn a_request_is_one_line_with_all_its_fields() {
        let lines = captured(Format::Json, Level::Info, || logging().request_finished(&access()));
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        let mut found = json(line);
        found.as_object_mut().unwrap().remove("time").unwrap();
        let wanted = serde_json::json!({
            "level": "INFO", "event": "request", "request_id": "r1", "client": "192.0.2.7", "method": "GET",
            "host": "wiki.example.com", "path": "/a", "status": 200, "route": "wiki", "user": "alice",
            "duration_ms": 1.234, "bytes_sent": 5, "user_agent": "curl/8",
        });
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_hostile_path_and_user_agent_stay_in_one_record() {
        let hostile = "/x\r\n{\"level\":\"ERROR\"}\u{1b}[2J\u{202e}\u{2028}\u{85}\0";
        let event = || {
            let access = Access { path: hostile, user_agent: Some(hostile), ..access() };
            logging().request_finished(&access);
        };
        for format in [Format::Json, Format::Human] {
            let lines = captured(format, Level::Info, event);
            let [line] = lines.as_slice() else { panic!("{format:?}: {lines:?}") };
            let text = line.strip_suffix('\n').unwrap();
            assert!(!text.contains(char::is_control), "{format:?}: {text:?}");
            assert!(!text.contains(['\u{202e}', '\u{2028}', '\u{85}']), "{format:?}: {text:?}");
        }
        let lines = captured(Format::Json, Level::Info, event);
        assert_eq!(json(&lines[0])["path"], hostile, "JSON tells the very value");
    }

    #[test]
    fn without_the_access_log_a_request_is_still_counted() {
        let events = Events::quiet();
        let refused = Access { refusal: Some("no_route"), status: 404, ..access() };
        let lines = captured(Format::Json, Level::Trace, || events.request_finished(&refused));
        assert!(lines.is_empty(), "{lines:?}");
        let text = events.metrics().render();
        assert!(text.contains("portcullis_refusals_total{code=\"no_route\"} 1\n"), "{text}");
        assert!(text.contains("portcullis_requests_total{class=\"4xx\"} 1\n"), "{text}");
    }

    #[test]
    fn a_request_is_in_flight_until_its_guard_is_dropped() {
        let events = Events::quiet();
        let guard = events.request_began();
        assert!(events.metrics().render().contains("portcullis_requests_in_flight 1\n"));
        drop(guard);
        assert!(events.metrics().render().contains("portcullis_requests_in_flight 0\n"));
    }

    #[test]
    fn every_event_writes_its_line_and_counts_its_metric() {
        let down = std::io::Error::other("no answer");
        let events = logging();
        let cases: &[(&str, &dyn Fn(), &str)] = &[
            (
                "sign_in",
                &|| events.signed_in(&"r", "main", "alice", CLIENT, None),
                "sign_ins_total{provider=\"main\",outcome=\"success\"} 1",
            ),
            (
                "connection_refused",
                &|| events.connection_refused("address_limit", CLIENT, "", true),
                "connections_refused_total{reason=\"address_limit\"} 1",
            ),
            (
                "sign_in_failed",
                &|| events.sign_in_failed(&"r", "main", "login_failed", "why", CLIENT, None),
                "sign_ins_total{provider=\"main\",outcome=\"login_failed\"} 1",
            ),
            (
                "sign_out",
                &|| events.signed_out(&"r", "main", "alice", "local", CLIENT),
                "sign_outs_total{kind=\"local\"} 1",
            ),
            ("session_keys_loaded", &|| events.session_keys_loaded(&["a1", "b2", "c3"]), "session_keys 3"),
            (
                "session_keys_refused",
                &|| events.session_keys_refused(&"/keys", "weak"),
                "session_keys_stale 1",
            ),
            (
                "sessions_displaced",
                &|| events.sessions_displaced(&"r", "main", "alice", 2),
                "sessions_displaced_total 2",
            ),
            (
                "store_unavailable",
                &|| events.store_failed("get", &down),
                "store_errors_total{operation=\"get\"} 1",
            ),
            (
                "provider_call",
                &|| events.provider_called("main", "token", false, Duration::from_millis(1)),
                "provider_seconds_count{provider=\"main\",call=\"token\",outcome=\"error\"} 1",
            ),
            ("provider_up", &|| events.provider_up("main"), "provider_up{provider=\"main\"} 1"),
            (
                "provider_down",
                &|| events.provider_down("main", &down, Duration::from_secs(2)),
                "provider_up{provider=\"main\"} 0",
            ),
        ];
        for (name, event, metric) in cases {
            let lines = captured(Format::Json, Level::Debug, event);
            let [line] = lines.as_slice() else { panic!("{name}: {lines:?}") };
            assert_eq!(json(line)["event"], *name);
            let text = events.metrics().render();
            assert!(text.contains(&format!("portcullis_{metric}\n")), "{name}: {metric} in {text}");
        }
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("commit failed")]
        struct Outer(#[source] std::io::Error);
        let lines = captured(Format::Json, Level::Info, || {
            logging().store_failed("put", &Outer(std::io::Error::other("disk full")));
        });
        assert_eq!(json(&lines[0])["error"], "commit failed: disk full");
    }

    #[test]
    fn a_long_user_agent_is_cut_between_characters() {
        assert_eq!(cut_user_agent("short"), "short");
        assert_eq!(cut_user_agent(&"a".repeat(300)).len(), 256);
        assert_eq!(cut_user_agent(&"ä".repeat(200)).len(), 256);
        assert_eq!(cut_user_agent(&format!("a{}", "ä".repeat(200))).len(), 255);
    }
}
