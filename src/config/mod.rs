//! The configuration: the file as written -> checked, every problem told -> [`Settings`].
//!
//! `file` says which keys there are, `read` takes them out of TOML one by one, `check` (pure) makes
//! settings of them, `outside` reads secrets and certificates. Nothing here acts on the settings, and
//! nothing prints a secret.

mod check;
mod file;
mod key_file;
mod outside;
mod problem;
mod read;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use check::Outside;

use crate::gateway::sessions::CacheSettings;
use crate::gateway::{self, shared_keys};
use crate::idp::ProviderSettings;
use crate::oidc::ProviderId;
use crate::route::{HostPattern, HostSettings};
use crate::secret::Secret;
use crate::session::Key;
use crate::session::made_keys::Rotation;
use crate::store::redis::RedisSettings;
use crate::telemetry::logging::LogSettings;
use crate::web::proxies::TrustedProxies;

pub use key_file::{KeyFile, KeyFileError, RotationRequest};
pub use problem::{ConfigError, Problem};

/// Everything a gateway runs on.
#[derive(Debug)]
pub struct Settings {
    /// Where it listens.
    pub listeners: Vec<ListenerSettings>,
    /// Where the admin listener is; `None`: off.
    pub admin: Option<SocketAddr>,
    /// The log.
    pub log: LogSettings,
    /// Where the disk store and generated keys are.
    pub data_dir: PathBuf,
    /// Which store.
    pub store: StoreKind,
    /// Where Redis is, where the store is there.
    pub redis: Option<RedisSettings>,
    /// The keys as configured, which make one ring; empty: one is made in `data_dir` on first start.
    pub keys: Vec<KeyEntry>,
    /// How old a key grows that gateways made themselves until they make another one. With configured keys
    /// those are the roots of what is made, in the store; `None`: nothing is.
    pub key_rotation: Option<Duration>,
    /// Ready sessions in memory.
    pub cache: CacheSettings,
    /// The providers.
    pub providers: Vec<ProviderSettings>,
    /// Routes, hosts, headers, lifetimes.
    pub gateway: gateway::Settings,
    /// Connections and shutdown.
    pub server: ServerSettings,
    /// Public URLs of hosts, as `gateway.hosts` was compiled from them.
    pub hosts: Vec<HostSettings>,
    /// What is allowed but deserves a WARN at start, for example plain-http hosts.
    pub warnings: Vec<String>,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Where.
    pub address: SocketAddr,
    /// With TLS of its own.
    pub tls: Option<TlsSettings>,
    /// Whether connections begin with a PROXY header, which only trusted proxies may send.
    pub proxy_protocol: bool,
}

/// Certificate and key, PEM files, checked to exist and to fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum StoreKind {
    /// In `data_dir`.
    #[default]
    Disk,
    /// In memory.
    Memory,
    /// In Redis or Valkey.
    Redis,
}

/// One element of `session.keys`.
#[derive(Clone, Debug)]
pub struct KeyEntry {
    /// Its keys as they were read, at least one.
    pub keys: Vec<Key>,
    /// The file that they are in.
    pub file: Option<PathBuf>,
}

/// Connections, timeouts, shutdown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Worker threads; default: one for each core.
    pub threads: usize,
    /// Who may name the client; default: nobody.
    pub trusted_proxies: Arc<TrustedProxies>,
    /// The most open client connections; default 10,000.
    pub max_connections: usize,
    /// Of those, the most from one address that is no trusted proxy's; default 500.
    pub max_connections_per_address: usize,
    /// The most requests on one HTTP/1 connection; default 10,000.
    pub max_requests_per_connection: usize,
    /// From the first byte of a request head to its last; default 10 s.
    pub request_head_timeout: Duration,
    /// TLS handshake; default 10 s.
    pub tls_handshake_timeout: Duration,
    /// How long an idle keep-alive connection stays open; default 60 s.
    pub keepalive_timeout: Duration,
    /// The most bytes of a request head; default 32 KiB (431 above).
    pub max_request_head_bytes: usize,
    /// The most header fields; default 100 (431 above).
    pub max_request_headers: usize,
    /// The most bytes of a request target; default 8 KiB (414 above).
    pub max_request_target_bytes: usize,
    /// How long a client is waited for within a request's body; default 30 s (408 then).
    pub body_idle_timeout: Duration,
    /// The bytes of a body for each second that the client is waited for beyond that; default 240, 0 for any.
    pub min_body_bytes_per_second: u64,
    /// HTTP/2 on listeners with TLS; `None`: it is not offered.
    pub http2: Option<Http2Settings>,
    /// How long `/readyz` says "not ready" before the listeners close; default 0 s.
    pub shutdown_delay: Duration,
    /// How long requests in flight may take after that; default 30 s.
    pub shutdown_timeout: Duration,
}

/// What one client may do on an HTTP/2 connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Settings {
    /// Requests at a time; default 100.
    pub max_streams: usize,
    /// Requests within ten seconds that are taken back or refused; default 500.
    pub max_resets: usize,
    /// Frames within ten seconds that carry nothing; default 10,000.
    pub max_control_frames: usize,
    /// Bytes of a request's body on their way to an application that does not read; default 256 KiB.
    pub window_bytes: usize,
}

/// Longer than any sealed cookie lives but the session's.
const OTHER_COOKIES: Duration = Duration::from_hours(1);

impl Settings {
    /// How the keys follow one another that the gateway makes itself.
    #[must_use]
    pub fn rotation(&self) -> Rotation {
        let life = self.gateway.reading.limits.max_lifetime + OTHER_COOKIES;
        // One gateway tells nobody; several have to hear of it.
        let delay = if self.keys.is_empty() { Duration::ZERO } else { shared_keys::DELAY };
        Rotation { every: self.key_rotation, life, delay }
    }

    /// The URLs of an endpoint, one for each host of a provider, as they are registered there.
    pub fn public_urls(&self, provider: &ProviderId, endpoint: &str) -> impl Iterator<Item = String> {
        let path = self.gateway.paths.of(endpoint);
        let takes = move |host: &&HostSettings| host.provider.as_ref().is_none_or(|only| only == provider);
        self.hosts.iter().filter(takes).map(move |host| match &host.pattern {
            HostPattern::Wildcard(_) => format!("{}{path} for each name that is used", origin(host)),
            HostPattern::Exact(_) | HostPattern::Any => format!("{}{path}", origin(host)),
        })
    }
}

fn origin(host: &HostSettings) -> String {
    let port = host.public_url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", host.public_url.scheme(), host.pattern)
}

/// Reads, checks and resolves a file (secret references included).
///
/// Relative paths in it start at its own directory.
///
/// # Errors
/// [`ConfigError`] with every problem.
pub fn load(path: &Path) -> Result<Settings, ConfigError> {
    let base = path.parent().unwrap_or(Path::new(""));
    let outside = Outside {
        base,
        state_directory: outside::state_directory(),
        cores: outside::cores(),
        secret: &|reference| outside::read_secret(base, outside::variable, reference),
        key_pair: &outside::check_key_pair,
        ca_file: &outside::check_ca_file,
    };
    let unreadable = |message| vec![Problem { path: String::new(), message }];
    let text = outside::read_text(path).map_err(unreadable);
    let settings = text.and_then(|text| check::check(&text, &outside));
    settings.map_err(|problems| ConfigError { file: path.display().to_string(), problems })
}

/// Checks a text with nothing around it, for the fuzzer and the test that replays its seeds: every secret is
/// `secret`, every file that is named is a good one.
///
/// # Errors
/// Every problem, in the order of the file.
#[doc(hidden)]
pub fn check_alone(text: &str, secret: &Secret<String>) -> Result<Settings, Vec<Problem>> {
    let found = check::Found { text: secret.clone(), place: "the secret".to_owned(), file: None };
    let outside = Outside {
        base: Path::new("/"),
        state_directory: None,
        cores: 2,
        secret: &|_| Ok(found.clone()),
        key_pair: &|_| Ok(()),
        ca_file: &|_| Ok(()),
    };
    check::check(text, &outside)
}

/// `config.example.toml`, as shipped.
pub const EXAMPLE: &str = include_str!("../../config.example.toml");

/// Every key that a file can have, for example `route.require.groups`; a table of free keys such as
/// `headers.claims` is one. Example and docs are held against this list.
#[must_use]
pub fn known_keys() -> Vec<String> {
    file::File::all_keys()
}
