//! The admin listener: `/healthz`, `/readyz`, `/metrics`. Never reachable through a proxied host.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::idp::Provider;
use crate::store::SessionStore;
use crate::telemetry::metrics::Metrics;

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
}

impl Admin {
    /// Serves until `shutdown` resolves.
    ///
    /// # Errors
    /// When accepting fails for good.
    pub async fn serve(
        self,
        listener: tokio::net::TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        todo!()
    }
}
