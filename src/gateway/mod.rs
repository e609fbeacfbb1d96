//! The verdict on a request. No pingora, no sockets.

pub mod challenge;
pub mod forward;
pub mod paths;
pub mod refusal;
pub mod sessions;

use std::sync::Arc;

use crate::clock::Clock;
use crate::identity::ClaimPaths;
use crate::identity::headers::HeaderTable;
use crate::idp::Provider;
use crate::route::{HostTable, RouteTable};
use crate::session::{KeyRing, Limits};
use crate::store::SessionStore;
use crate::telemetry::Events;

pub use forward::ForwardPlan;
pub use paths::Paths;
pub use refusal::Refusal;

/// What a gateway is built of; made by `config`.
#[derive(Debug)]
pub struct Settings {
    /// All routes.
    pub routes: RouteTable,
    /// All hosts.
    pub hosts: HostTable,
    /// The identity headers.
    pub headers: HeaderTable,
    /// Where the identity is in the claims.
    pub claim_paths: ClaimPaths,
    /// Lifetimes of sessions.
    pub limits: Limits,
    /// Where the endpoints are: `/oauth2`.
    pub paths: Paths,
    /// Whether every page says that this is a demo.
    pub demo: bool,
    /// The most bytes that ready sessions take in memory.
    pub cache_bytes: u64,
}

/// What outlives a reload of the configuration.
#[derive(Debug)]
pub struct Shared {
    /// Sessions.
    pub store: Arc<dyn SessionStore>,
    /// The key ring.
    pub keys: KeyRing,
    /// The providers, in the order of the configuration.
    pub providers: Vec<Arc<Provider>>,
    /// Time.
    pub clock: Clock,
    /// Events.
    pub events: Events,
    /// The runtime for everything that is not proxying.
    pub runtime: tokio::runtime::Handle,
}

/// The gateway: routes, policy and headers, and what it shares with the one before a reload.
#[derive(Debug)]
pub struct Gateway {
    settings: Settings,
    shared: Arc<Shared>,
}

impl Gateway {
    /// Puts a gateway together.
    #[must_use]
    pub fn new(settings: Settings, shared: Arc<Shared>) -> Self {
        Self { settings, shared }
    }

    /// Its settings.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What it shares.
    #[must_use]
    pub const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The verdict: where the request goes and what the upstream gets, or why not.
    ///
    /// # Errors
    /// [`Refusal`]; [`Gateway::refuse`] makes the answer of it.
    pub async fn decide(
        &self,
        request: &crate::web::Request<'_>,
        cookies: &mut SetCookies,
    ) -> Result<ForwardPlan, Refusal> {
        todo!()
    }

    /// The answer for a refusal: a redirect to sign-in where the request can follow one, else the
    /// page or JSON of the refusal.
    pub async fn refuse(
        &self,
        request: &crate::web::Request<'_>,
        refusal: Refusal,
        cookies: &mut SetCookies,
    ) -> crate::web::Reply {
        todo!()
    }
}

/// `Set-Cookie` fields that go out with whatever answer the request gets: the gateway's own, the
/// upstream's, a 101, the page for a dead upstream; never with another 1xx.
#[derive(Debug, Default)]
pub struct SetCookies(pub Vec<http::HeaderValue>);
