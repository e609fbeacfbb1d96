//! Discovery: at once, with back-off until it succeeds, then every hour.
//!
//! Metadata and keys are fetched together, and are used only when both are good: a sign-in that could not
//! be finished is not begun. What was good once stays until something newer is good.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use url::Url;

use super::flight::Flight;
use super::{Inner, MAX_ANSWER_BYTES, Unavailable, get, successful};
use crate::oidc::Issuer;
use crate::oidc::metadata::{self, Metadata, MetadataError};

/// How long metadata and keys are good before they are fetched anew.
const REFRESH_EVERY: Duration = Duration::from_hours(1);

/// What discovery said, and whether the last one succeeded.
#[derive(Debug)]
pub(super) struct Discovery {
    url: Url,
    metadata: ArcSwapOption<Metadata>,
    up: AtomicBool,
    flight: Flight<Result<Arc<Metadata>, Unavailable>>,
}

impl Discovery {
    pub(super) fn new(issuer: &Issuer) -> Result<Self, url::ParseError> {
        let url = metadata::discovery_url(issuer)?;
        let (metadata, up, flight) = (ArcSwapOption::empty(), AtomicBool::new(false), Flight::default());
        Ok(Self { url, metadata, up, flight })
    }

    /// Where the document is.
    pub(super) const fn url(&self) -> &Url {
        &self.url
    }

    /// The last good metadata.
    pub(super) fn metadata(&self) -> Option<Arc<Metadata>> {
        self.metadata.load_full()
    }

    /// Whether the last discovery succeeded.
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }
}

impl Inner {
    /// One discovery, shared by all who want one at this time.
    pub(super) async fn discover(self: &Arc<Self>) -> Result<Arc<Metadata>, Unavailable> {
        let begin = || {
            let inner = Arc::clone(self);
            Some(async move { inner.discover_now().await })
        };
        let interrupted = || Err(Unavailable { reason: "discovery was interrupted".to_owned() });
        self.discovery.flight.join(&self.runtime, begin).await.unwrap_or_else(interrupted)
    }

    async fn discover_now(&self) -> Result<Arc<Metadata>, Unavailable> {
        let found = self.fetch_metadata_and_keys().await;
        let was_up = self.discovery.up.swap(found.is_ok(), Ordering::Relaxed);
        if found.is_ok() && !was_up {
            self.events.provider_up(&self.settings.id.0);
        }
        found
    }

    /// What the gateway uses of a discovery document, for a client with this configuration.
    pub(super) fn parse_metadata(&self, body: &[u8]) -> Result<Metadata, MetadataError> {
        let metadata = metadata::parse(body, &self.settings.issuer)?;
        let has_certificate = self.settings.client.certificate.is_some();
        Ok(if has_certificate { metadata.for_certificate() } else { metadata })
    }

    async fn fetch_metadata_and_keys(&self) -> Result<Arc<Metadata>, Unavailable> {
        let answer = self.call("discovery", get(&self.discovery.url), MAX_ANSWER_BYTES).await?;
        let body = successful("discovery", &answer)?;
        let metadata =
            self.parse_metadata(body).map_err(|error| Unavailable { reason: error.to_string() })?;
        let keys = self.fetch_keys(&metadata).await?;
        let metadata = Arc::new(metadata);
        self.keys.replace(keys);
        let before = self.discovery.metadata.swap(Some(Arc::clone(&metadata)));
        if let Some(before) = before.filter(|before| before.jwks_uri != metadata.jwks_uri) {
            let (provider, events) = (&self.settings.id.0, &self.events);
            events.key_set_moved(provider, before.jwks_uri.as_str(), metadata.jwks_uri.as_str());
        }
        Ok(metadata)
    }
}

/// Discovers until the provider is gone; it holds the provider only while it works.
pub(super) async fn keep_up(provider: Weak<Inner>) {
    let mut delays = back_off();
    while let Some(inner) = provider.upgrade() {
        let pause = match inner.discover().await {
            Ok(_) => {
                delays = back_off();
                REFRESH_EVERY
            }
            Err(error) => {
                let retry_in = delays.next().unwrap_or(REFRESH_EVERY);
                inner.events.provider_down(&inner.settings.id.0, &error, retry_in);
                retry_in
            }
        };
        drop(inner);
        tokio::time::sleep(pause).await;
    }
}

/// At most 1 s, 2 s, 4 s ... 60 s: half of each is fixed, up to as much again is jitter.
fn back_off() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(500))
        .with_max_delay(Duration::from_secs(30))
        .without_max_times()
        .with_jitter()
        .build()
}
