//! One function per event: it writes the log line and counts the metric.
//!
//! No argument of these functions is ever a secret; URLs are given without their query.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::metrics::Metrics;

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
    pub request_id: &'a dyn std::fmt::Display,
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
    /// The client's `User-Agent`, cut to 256 bytes.
    pub user_agent: Option<&'a str>,
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

    /// A request ended. INFO; counts `portcullis_requests_total{status class}` and, with a refusal,
    /// `portcullis_refusals_total{code}`.
    pub fn request_finished(&self, access: &Access<'_>) {
        todo!()
    }

    /// Somebody signed in. INFO `sign_in`; `portcullis_sign_ins_total{provider,outcome="success"}`.
    pub fn signed_in(
        &self,
        request_id: &dyn std::fmt::Display,
        provider: &str,
        user: &str,
        client: IpAddr,
        user_agent: Option<&str>,
    ) {
        todo!()
    }

    /// A sign-in failed. WARN `sign_in_failed` with code and detail (never a token);
    /// `portcullis_sign_ins_total{provider,outcome=code}`.
    pub fn sign_in_failed(
        &self,
        request_id: &dyn std::fmt::Display,
        provider: &str,
        code: &'static str,
        detail: &str,
        client: IpAddr,
        user_agent: Option<&str>,
    ) {
        todo!()
    }

    /// Somebody signed out. INFO `sign_out`; `portcullis_sign_outs_total{kind}` where kind is
    /// `local` or `provider`.
    pub fn signed_out(
        &self,
        request_id: &dyn std::fmt::Display,
        provider: &str,
        user: &str,
        kind: &'static str,
        client: IpAddr,
    ) {
        todo!()
    }

    /// The store failed. ERROR `store_unavailable`; `portcullis_store_errors_total{operation}`.
    pub fn store_failed(&self, operation: &'static str, error: &dyn std::error::Error) {
        todo!()
    }

    /// A store operation took this long; `portcullis_store_seconds{operation}`.
    pub fn store_took(&self, operation: &'static str, duration: Duration) {
        todo!()
    }

    /// A call to the provider ended; `portcullis_provider_seconds{provider,call,outcome}` where
    /// call is `discovery`, `jwks`, `token` or `userinfo` and outcome `ok` or `error`. DEBUG.
    pub fn provider_called(&self, provider: &str, call: &'static str, ok: bool, duration: Duration) {
        todo!()
    }

    /// The provider became ready (metadata and keys are there). INFO; gauge `portcullis_provider_up{provider}` 1.
    pub fn provider_up(&self, provider: &str) {
        todo!()
    }

    /// The provider can't be reached or its metadata was refused. WARN, with the next try; gauge 0.
    pub fn provider_down(&self, provider: &str, error: &dyn std::error::Error, retry_in: Duration) {
        todo!()
    }

    /// An upstream's name did not resolve. WARN.
    pub fn upstream_unresolved(&self, upstream: &str, error: &dyn std::error::Error) {
        todo!()
    }
}
