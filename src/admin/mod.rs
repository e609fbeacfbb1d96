//! The admin listener: `/healthz`, `/readyz`, `/metrics`, `/backup`. Never reachable through a proxied host.
//!
//! To everybody it only tells: it belongs on loopback or on a network of the operator's (PP-14). To
//! have something done takes the token that lies in `data_dir` ([`token`]).

mod backup;
pub mod token;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Map, Value, json};

pub use self::backup::Backups;
use crate::idp::Provider;
use crate::store::SessionStore;
use crate::telemetry::metrics::{Metrics, OPEN_METRICS, PLAIN_TEXT};

/// How long the store may take to answer `/readyz`: below the probe timeouts of load balancers.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// What the admin listener looks at.
#[derive(Clone, Debug)]
pub struct Admin {
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// For `/readyz`: 503 when it does not answer.
    pub store: Arc<dyn SessionStore>,
    /// For the body of `/readyz`; a provider that is down never changes the status.
    pub providers: Vec<Arc<Provider>>,
    /// Whether all listeners are open and no shutdown has begun.
    pub accepting: Arc<AtomicBool>,
    /// For `/backup`; `None` where the store is not on this machine's disk.
    pub backups: Option<Arc<Backups>>,
}

impl Admin {
    /// Serves until `shutdown` resolves and the requests in flight are answered.
    ///
    /// # Errors
    /// When accepting fails for good.
    pub async fn serve(
        self,
        listener: tokio::net::TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        axum::serve(listener, self.router()).with_graceful_shutdown(shutdown).await
    }

    fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/backup", post(backup::back_up))
            .fallback(not_found)
            .method_not_allowed_fallback(|| async {
                json_reply(StatusCode::METHOD_NOT_ALLOWED, &json!({"error": "method_not_allowed"}))
            })
            .with_state(self)
    }

    fn provider_states(&self) -> Map<String, Value> {
        let state = |provider: &Arc<Provider>| {
            let word = if provider.is_up() { "up" } else { "down" };
            (provider.settings().id.to_string(), Value::from(word))
        };
        self.providers.iter().map(state).collect()
    }
}

async fn answers(store: &dyn SessionStore, within: Duration) -> bool {
    matches!(tokio::time::timeout(within, store.ping()).await, Ok(Ok(())))
}

/// The process runs and answers: nothing else is looked at, so that an outage elsewhere never has
/// the process restarted.
async fn healthz() -> Response {
    json_reply(StatusCode::OK, &json!({"status": "ok"}))
}

/// Whether this instance should get requests.
async fn readyz(State(admin): State<Admin>) -> Response {
    let accepting = admin.accepting.load(Ordering::SeqCst);
    let store = answers(&*admin.store, PING_TIMEOUT).await;
    let ready = accepting && store;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "ready": ready,
        "accepting": accepting,
        "store": if store { "up" } else { "down" },
        "providers": admin.provider_states(),
    });
    json_reply(status, &body)
}

async fn metrics(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).map(HeaderValue::as_bytes).unwrap_or_default();
    let wanted = b"application/openmetrics-text";
    let is_open_metrics = accept.windows(wanted.len()).any(|part| part == wanted);
    let kind = if is_open_metrics { OPEN_METRICS } else { PLAIN_TEXT };
    reply(StatusCode::OK, kind, admin.metrics.render())
}

async fn not_found() -> Response {
    json_reply(StatusCode::NOT_FOUND, &json!({"error": "not_found"}))
}

fn json_reply(status: StatusCode, body: &Value) -> Response {
    reply(status, "application/json", format!("{body}\n"))
}

fn reply(status: StatusCode, kind: &'static str, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::clock::Clock;
    use crate::clock::bucket::Rate;
    use crate::store::memory::MemoryStore;
    use crate::store::{
        Change, Cursor, Index, Lease, Page, Record, Replaced, StoreError, StoreKey, Stored, Take, Taken,
    };
    use crate::telemetry::Events;

    /// A store whose disk fails, or hangs.
    #[derive(Debug)]
    enum Broken {
        Fails,
        Hangs,
    }

    fn failed<T>() -> Result<T, StoreError> {
        Err(StoreError::new("broken"))
    }

    #[async_trait]
    impl SessionStore for Broken {
        async fn ping(&self) -> Result<(), StoreError> {
            match self {
                Self::Fails => failed(),
                Self::Hangs => std::future::pending().await,
            }
        }
        async fn get(&self, _: StoreKey) -> Result<Option<Stored>, StoreError> {
            failed()
        }
        async fn put(&self, _: Record, _: Duration) -> Result<(), StoreError> {
            failed()
        }
        async fn replace(
            &self,
            _: Record,
            _: Duration,
            _: u64,
            _: Option<&Lease>,
        ) -> Result<Replaced, StoreError> {
            failed()
        }
        async fn remove(&self, _: StoreKey) -> Result<bool, StoreError> {
            failed()
        }
        async fn find_by(&self, _: Index) -> Result<Vec<(StoreKey, u64)>, StoreError> {
            failed()
        }
        async fn remove_by(&self, _: Index, _: Option<Index>) -> Result<Vec<StoreKey>, StoreError> {
            failed()
        }
        async fn mark(&self, _: StoreKey, _: Duration) -> Result<(), StoreError> {
            failed()
        }
        async fn is_marked(&self, _: StoreKey) -> Result<bool, StoreError> {
            failed()
        }
        async fn put_once(&self, _: StoreKey, _: Duration) -> Result<bool, StoreError> {
            failed()
        }
        async fn lease(&self, _: StoreKey, _: Duration) -> Result<Option<Lease>, StoreError> {
            failed()
        }
        async fn extend(&self, _: &Lease, _: Duration) -> Result<bool, StoreError> {
            failed()
        }
        async fn release(&self, _: Lease) -> Result<(), StoreError> {
            failed()
        }
        async fn list(&self, _: Option<Cursor>, _: usize) -> Result<Page, StoreError> {
            failed()
        }
        async fn take(&self, _: StoreKey, _: Rate, _: Take) -> Result<Taken, StoreError> {
            failed()
        }
        fn changes(&self) -> Option<tokio::sync::broadcast::Receiver<Change>> {
            None
        }
    }

    fn admin(store: impl SessionStore + 'static, accepting: bool) -> Admin {
        Admin {
            metrics: Arc::clone(Events::quiet().metrics()),
            store: Arc::new(store),
            providers: Vec::new(),
            accepting: Arc::new(AtomicBool::new(accepting)),
            backups: None,
        }
    }

    fn healthy() -> Admin {
        admin(MemoryStore::new(Clock::system()), true)
    }

    /// Head and body of the answer to one request, over a real socket.
    async fn ask(admin: Admin, request: &str, fields: &str) -> (String, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let text = format!("{request} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n{fields}\r\n");
        let talk = async {
            stream.write_all(text.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serve = admin.serve(listener, async { drop(stopped.await) });
        let talk_then_stop = async {
            let answer = talk.await;
            drop(stop);
            answer
        };
        let (served, answer) = tokio::join!(serve, talk_then_stop);
        served.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_lowercase(), body.to_owned())
    }

    #[tokio::test]
    async fn readiness_follows_the_store_and_the_listeners() {
        let cases = [
            ("all well", healthy(), 200, r#"{"accepting":true,"providers":{},"ready":true,"store":"up"}"#),
            (
                "shutting down",
                admin(MemoryStore::new(Clock::system()), false),
                503,
                r#"{"accepting":false,"providers":{},"ready":false,"store":"up"}"#,
            ),
            (
                "store down",
                admin(Broken::Fails, true),
                503,
                r#"{"accepting":true,"providers":{},"ready":false,"store":"down"}"#,
            ),
        ];
        for (name, admin, status, wanted) in cases {
            let (head, body) = ask(admin, "GET /readyz", "").await;
            assert!(head.starts_with(&format!("http/1.1 {status} ")), "{name}: {head}");
            assert_eq!(body.trim(), wanted, "{name}");
        }
    }

    #[tokio::test]
    async fn a_store_that_hangs_is_a_store_that_does_not_answer() {
        assert!(!answers(&Broken::Hangs, Duration::from_millis(5)).await);
        assert!(answers(&MemoryStore::new(Clock::system()), Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_broken_store_leaves_the_process_healthy() {
        let (head, body) = ask(admin(Broken::Fails, false), "GET /healthz", "").await;
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        assert_eq!(body, "{\"status\":\"ok\"}\n");
    }

    #[tokio::test]
    async fn metrics_come_in_the_format_that_the_scraper_asks_for() {
        let open = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
        for (fields, kind) in [(open, OPEN_METRICS), ("", PLAIN_TEXT)] {
            let (head, body) = ask(healthy(), "GET /metrics", fields).await;
            assert!(head.contains(&format!("content-type: {kind}")), "{head}");
            assert!(body.contains("portcullis_requests_total{class=\"2xx\"} 0"), "{body}");
        }
    }

    #[tokio::test]
    async fn there_is_nothing_else_and_nothing_can_be_changed() {
        let cases = [
            ("root", "GET /", 404, "not_found"),
            ("debug", "GET /debug/pprof/", 404, "not_found"),
            ("trailing slash", "GET /healthz/", 404, "not_found"),
            ("post", "POST /readyz", 405, "method_not_allowed"),
            ("delete", "DELETE /metrics", 405, "method_not_allowed"),
            ("a backup by a link", "GET /backup", 405, "method_not_allowed"),
            ("a backup of a store in memory", "POST /backup", 404, "not_found"),
        ];
        for (name, request, status, error) in cases {
            let (head, body) = ask(healthy(), request, "").await;
            assert!(head.starts_with(&format!("http/1.1 {status} ")), "{name}: {head}");
            assert!(head.contains("content-type: application/json"), "{name}: {head}");
            assert!(head.contains("cache-control: no-store"), "{name}: {head}");
            assert_eq!(body, format!("{{\"error\":\"{error}\"}}\n"), "{name}");
        }
    }
}
