//! The metrics, in the OpenMetrics text format that Prometheus reads.
//!
//! What every request counts is resolved once (an array by status class) and is made of atomics
//! alone: a request never waits for another one's counting. Families with labels of their own (refusal
//! code, provider, store operation) are looked up under a lock, off the common path.
//!
//! Labels have few values: status class, refusal code, provider id, operation. Nothing that a client
//! sends is ever a label.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Registry, Unit};

/// The media type of [`Metrics::render`] for a scraper that asks for OpenMetrics.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The media type of [`Metrics::render`] for all others: the text is valid in the older format too.
pub const PLAIN_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds in seconds of what a request takes: from an answer out of memory to a long poll.
const REQUEST_BOUNDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Upper bounds in seconds of a call to a provider, whose timeout is 10 s by default.
const PROVIDER_BOUNDS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Upper bounds in seconds of a store operation: memory, a group commit on a disk, a slow disk.
const STORE_BOUNDS: &[f64] =
    &[0.000_01, 0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// The values of label `class`; the last is for clients that went away before an answer.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabel {
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SignInLabel {
    provider: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabel {
    limit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabel {
    provider: String,
    call: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProviderLabel {
    provider: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    operation: &'static str,
}

/// All metric families.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: [Counter; CLASSES.len()],
    request_seconds: Timing,
    in_flight: Gauge<i64, AtomicI64>,
    refusals: Family<CodeLabel, Counter>,
    rate_limited: Family<LimitLabel, Counter>,
    refused_connections: Family<ReasonLabel, Counter>,
    sign_ins: Family<SignInLabel, Counter>,
    sign_outs: Family<KindLabel, Counter>,
    displaced: Counter,
    refreshes: Family<SignInLabel, Counter>,
    provider_seconds: Family<CallLabel, Timing, TimingBounds>,
    provider_up: Family<ProviderLabel, Gauge>,
    store_seconds: Family<OperationLabel, Timing, TimingBounds>,
    store_errors: Family<OperationLabel, Counter>,
    session_keys: Gauge,
    session_keys_stale: Gauge,
    outage_requests: Counter,
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let by_class = Family::<ClassLabel, Counter>::default();
        let mut metrics = Self {
            registry: Registry::with_prefix("portcullis"),
            requests: CLASSES.map(|class| by_class.get_or_create_owned(&ClassLabel { class })),
            request_seconds: Timing::new(REQUEST_BOUNDS),
            in_flight: Gauge::default(),
            refusals: Family::default(),
            rate_limited: Family::default(),
            refused_connections: Family::default(),
            sign_ins: Family::default(),
            sign_outs: Family::default(),
            displaced: Counter::default(),
            refreshes: Family::default(),
            provider_seconds: Family::new_with_constructor(TimingBounds(PROVIDER_BOUNDS)),
            provider_up: Family::default(),
            store_seconds: Family::new_with_constructor(TimingBounds(STORE_BOUNDS)),
            store_errors: Family::default(),
            session_keys: Gauge::default(),
            session_keys_stale: Gauge::default(),
            outage_requests: Counter::default(),
        };
        metrics.register_requests(by_class);
        metrics.register_sign_ins();
        metrics.register_dependencies();
        metrics.register_keys();
        metrics
    }

    fn register_requests(&mut self, by_class: Family<ClassLabel, Counter>) {
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        let to = &mut self.registry;
        to.register("build", "The version that is running", build);
        to.register("requests", "Requests that ended, by class of status", by_class);
        to.register_with_unit(
            "request",
            "Time from the end of the request head to the end of the answer",
            Unit::Seconds,
            self.request_seconds.clone(),
        );
        to.register("requests_in_flight", "Requests that have not ended", self.in_flight.clone());
        to.register("refusals", "Requests that reached no upstream, by code", self.refusals.clone());
        to.register("rate_limited", "Requests over a rate limit, by its setting", self.rate_limited.clone());
        to.register(
            "connections_refused",
            "Connections that were closed before their first request, by reason",
            self.refused_connections.clone(),
        );
    }

    fn register_sign_ins(&mut self) {
        let to = &mut self.registry;
        to.register("sign_ins", "Sign-ins that ended, by outcome", self.sign_ins.clone());
        to.register("sign_outs", "Sign-outs, by kind", self.sign_outs.clone());
        to.register(
            "sessions_displaced",
            "Sessions that ended because their user had too many",
            self.displaced.clone(),
        );
        to.register("refreshes", "Refreshes of tokens that ended, by outcome", self.refreshes.clone());
    }

    fn register_dependencies(&mut self) {
        let to = &mut self.registry;
        to.register_with_unit(
            "provider",
            "Time that calls to a provider took",
            Unit::Seconds,
            self.provider_seconds.clone(),
        );
        to.register(
            "provider_up",
            "Whether metadata and keys of a provider are there",
            self.provider_up.clone(),
        );
        to.register_with_unit(
            "store",
            "Time that operations of the session store took",
            Unit::Seconds,
            self.store_seconds.clone(),
        );
        to.register("store_errors", "Operations of the session store that failed", self.store_errors.clone());
        to.register(
            "outage_requests",
            "Requests that were served out of memory while the session store was down",
            self.outage_requests.clone(),
        );
    }

    fn register_keys(&mut self) {
        let to = &mut self.registry;
        to.register("session_keys", "Session keys in use", self.session_keys.clone());
        to.register(
            "session_keys_stale",
            "Whether session keys changed outside and can't be used",
            self.session_keys_stale.clone(),
        );
    }

    /// The exposition in the OpenMetrics text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::with_capacity(8 * 1024);
        // Writing to a String fails only if an encoder of ours does, and none of them can; a
        // half-written exposition is then refused by the scraper, for want of its end mark.
        if text::encode(&mut out, &self.registry).is_err() {
            out.clear();
        }
        out
    }

    pub(super) fn count_request(&self, status: u16, duration: Duration) {
        let class = match status / 100 {
            class @ 1..=5 => usize::from(class - 1),
            _ => CLASSES.len() - 1,
        };
        if let Some(counter) = self.requests.get(class) {
            counter.inc();
        }
        self.request_seconds.observe(duration);
    }

    pub(super) fn request_began(&self) {
        self.in_flight.inc();
    }

    pub(super) fn request_ended(&self) {
        self.in_flight.dec();
    }

    pub(super) fn count_refusal(&self, code: &'static str) {
        self.refusals.get_or_create(&CodeLabel { code }).inc();
    }

    pub(super) fn count_rate_limited(&self, limit: &'static str) {
        self.rate_limited.get_or_create(&LimitLabel { limit }).inc();
    }

    pub(super) fn count_refused_connection(&self, reason: &'static str) {
        self.refused_connections.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(super) fn count_sign_in(&self, provider: &str, outcome: &'static str) {
        let label = SignInLabel { provider: provider.to_owned(), outcome };
        self.sign_ins.get_or_create(&label).inc();
    }

    pub(super) fn count_sign_out(&self, kind: &'static str) {
        self.sign_outs.get_or_create(&KindLabel { kind }).inc();
    }

    pub(super) fn count_displaced(&self, sessions: usize) {
        self.displaced.inc_by(sessions as u64);
    }

    pub(super) fn count_refresh(&self, provider: &str, outcome: &'static str) {
        let label = SignInLabel { provider: provider.to_owned(), outcome };
        self.refreshes.get_or_create(&label).inc();
    }

    pub(super) fn observe_provider(
        &self,
        provider: &str,
        call: &'static str,
        outcome: &'static str,
        duration: Duration,
    ) {
        let label = CallLabel { provider: provider.to_owned(), call, outcome };
        self.provider_seconds.get_or_create(&label).observe(duration);
    }

    pub(super) fn set_provider_up(&self, provider: &str, up: bool) {
        let label = ProviderLabel { provider: provider.to_owned() };
        self.provider_up.get_or_create(&label).set(i64::from(up));
    }

    pub(super) fn observe_store(&self, operation: &'static str, duration: Duration) {
        self.store_seconds.get_or_create(&OperationLabel { operation }).observe(duration);
    }

    pub(super) fn set_session_keys(&self, count: usize) {
        self.session_keys.set(i64::try_from(count).unwrap_or(i64::MAX));
        self.set_session_keys_stale(false);
    }

    pub(super) fn set_session_keys_stale(&self, stale: bool) {
        self.session_keys_stale.set(i64::from(stale));
    }

    pub(super) fn count_outage_request(&self) {
        self.outage_requests.inc();
    }

    pub(super) fn count_store_error(&self, operation: &'static str) {
        self.store_errors.get_or_create(&OperationLabel { operation }).inc();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// A histogram of durations made of atomics: that of prometheus-client takes a lock for each value.
#[derive(Clone)]
struct Timing(Arc<Cells>);

struct Cells {
    /// Upper bounds in seconds, ascending.
    bounds: &'static [f64],
    /// How many values fell into each bucket; the last is for those above every bound.
    counts: Vec<AtomicU64>,
    /// The sum of all values; 2^64 ns are 584 years.
    sum_nanos: AtomicU64,
}

impl Timing {
    fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Cells { bounds, counts, sum_nanos: AtomicU64::new(0) }))
    }

    fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = self.0.bounds.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.0.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.0.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = self.0.bounds.iter().copied().chain([f64::INFINITY]);
        bounds.zip(self.0.counts.iter().map(|count| count.load(Ordering::Relaxed))).collect()
    }
}

impl fmt::Debug for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Timing")
    }
}

impl EncodeMetric for Timing {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        let buckets = self.buckets();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_nanos(self.0.sum_nanos.load(Ordering::Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Timing {
    const TYPE: MetricType = MetricType::Histogram;
}

/// Makes the histograms of one family, all with the same bounds.
#[derive(Clone, Debug)]
struct TimingBounds(&'static [f64]);

impl MetricConstructor<Timing> for TimingBounds {
    fn new_metric(&self) -> Timing {
        Timing::new(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_class_of_status_from_the_first_scrape_on() {
        let metrics = Metrics::new();
        for status in [101, 200, 204, 302, 404, 502, 0, 999] {
            metrics.count_request(status, Duration::from_millis(3));
        }
        let text = metrics.render();
        for (class, count) in [("1xx", 1), ("2xx", 2), ("3xx", 1), ("4xx", 1), ("5xx", 1), ("none", 2)] {
            let line = format!("portcullis_requests_total{{class=\"{class}\"}} {count}\n");
            assert!(text.contains(&line), "{line} in {text}");
        }
        assert!(Metrics::new().render().contains("portcullis_requests_total{class=\"5xx\"} 0\n"));
    }

    #[test]
    fn a_duration_falls_into_the_bucket_of_its_upper_bound() {
        let cases: &[(&str, u64, &str)] = &[
            ("far below", 10, "le=\"0.001\""),
            ("on the bound", 1_000, "le=\"0.001\""),
            ("just above", 1_001, "le=\"0.0025\""),
            ("above all", 31_000_000, "le=\"+Inf\""),
        ];
        for (name, micros, bucket) in cases {
            let metrics = Metrics::new();
            metrics.count_request(200, Duration::from_micros(*micros));
            let text = metrics.render();
            let first =
                text.lines().find(|line| line.contains("request_seconds_bucket") && line.ends_with(" 1"));
            assert!(first.is_some_and(|line| line.contains(bucket)), "{name}: {first:?}");
        }
    }

    #[test]
    fn a_histogram_tells_sum_and_count() {
        let metrics = Metrics::new();
        metrics.count_request(200, Duration::from_millis(250));
        metrics.count_request(200, Duration::from_millis(500));
        let text = metrics.render();
        assert!(text.contains("portcullis_request_seconds_sum 0.75\n"), "{text}");
        assert!(text.contains("portcullis_request_seconds_count 2\n"), "{text}");
        assert!(text.contains("portcullis_request_seconds_bucket{le=\"+Inf\"} 2\n"), "{text}");
    }

    #[test]
    fn a_label_value_cannot_break_the_exposition() {
        let metrics = Metrics::new();
        metrics.set_provider_up("a\"b\\c\nd", true);
        let text = metrics.render();
        assert!(text.contains("portcullis_provider_up{provider=\"a\\\"b\\\\c\\nd\"} 1\n"), "{text}");
    }

    #[test]
    fn the_exposition_ends_with_the_mark_of_open_metrics_and_names_the_version() {
        let text = Metrics::new().render();
        assert!(text.ends_with("# EOF\n"));
        let build = format!("portcullis_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION"));
        assert!(text.contains(&build), "{text}");
    }
}
