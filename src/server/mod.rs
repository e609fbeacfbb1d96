//! Sockets: the only place that names pingora.
//!
//! Puts a gateway together from its settings and runs it: [`connection`] accepts and reads request
//! heads, [`edge`] holds Pingora's filters around the gateway's verdict, [`drain`] ends it all.
//! Pingora's own `Server` is not used, for the reasons that `drain` tells.
//!
//! Some threads proxy ([`workers`]); a runtime beside them does everything else (provider, store, admin
//! listener, names), so that neither makes the other wait.

mod background;
mod body;
mod connection;
mod convert;
mod crowd;
mod drain;
mod edge;
#[doc(hidden)]
pub mod fuzz;
mod head;
mod http2;
mod keys;
mod life;
mod open_files;
mod pace;
mod proxy_protocol;
mod scan;
mod tls;
mod transport;
mod upstream;
mod websocket;
mod workers;

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pingora::proxy::{HttpProxy, http_proxy};
use pingora::server::configuration::ServerConf;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;

use self::connection::{Door, Entrance, Way};
use self::drain::{Drain, Pace, Signals};
use self::edge::Edge;
pub use self::keys::KeysError;
use self::keys::{Keeper, KeySettings};
pub use self::tls::TlsError;
pub use self::upstream::UpstreamError;
use self::upstream::Upstreams;
use self::workers::Workers;
use crate::admin::token::Token;
use crate::admin::{Admin, Backups};
use crate::clock::Clock;
use crate::config::{ListenerSettings, ServerSettings, Settings, StoreKind};
use crate::gateway::limits::Limits;
use crate::gateway::sessions::Sessions;
use crate::gateway::{Gateway, Shared};
use crate::idp::{Provider, SetupError};
use crate::store::disk::{DiskStore, OpenError};
use crate::store::guard::GuardedStore;
use crate::store::memory::MemoryStore;
use crate::store::redis::RedisStore;
use crate::store::{SessionStore, StoreError};
use crate::telemetry::Events;
use crate::telemetry::metrics::Metrics;

/// Threads for everything that is not proxying.
const CONTROL_THREADS: usize = 2;

/// The system's queue of connections that wait to be accepted.
const BACKLOG: u32 = 4096;

/// How long tasks may take to be dropped after the drain.
const LAST_TASKS: Duration = Duration::from_secs(1);

/// So often an upstream is tried in all; a failed connect sooner stops it ([`upstream`]).
const MAX_TRIES: usize = 4;

/// Idle connections that are kept to all upstreams together, for each thread.
const UPSTREAM_POOL: usize = 1024;

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The threads.
    #[error("the runtime can't be started: {0}")]
    Runtime(#[source] io::Error),
    /// The signal handlers.
    #[error("signals can't be caught: {0}")]
    Signals(#[source] io::Error),
    /// A listener, the admin listener among them.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Certificate or key of a listener.
    #[error("listener {address}: {source}")]
    Tls {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: TlsError,
    },
    /// An upstream.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The certificate authorities that the system trusts, which vouch for https upstreams.
    #[error("the system's certificate authorities can't be loaded: {0}")]
    SystemCas(String),
    /// The session keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The store in Redis; an outage of Redis is none of these.
    #[error(transparent)]
    Redis(#[from] StoreError),
    /// A provider.
    #[error(transparent)]
    Provider(#[from] SetupError),
}

/// Runs the gateway until it is told to stop (SIGTERM, SIGINT: drain; a second one: at once; SIGHUP
/// is caught). Blocks.
///
/// # Errors
/// [`RunError`].
pub fn run(settings: Settings) -> Result<(), RunError> {
    open_files::raise_limit(settings.server.max_connections);
    let runtimes = Runtimes::new(&settings.server)?;
    let control = runtimes.control.handle().clone();
    let mut signals = control.block_on(async { Signals::catch() }).map_err(RunError::Signals)?;
    let running = runtimes.start(settings, Clock::system())?;
    control.block_on(async {
        signals.stop().await;
        running.stop();
        tokio::select! {
            () = running.finished() => {}
            // Asked twice.
            () = signals.stop() => {
                running.stop_now();
                running.finished().await;
            }
        }
    });
    running.end();
    Ok(())
}

/// Starts the gateway beside the caller; it ends when the returned value is dropped, or decently with
/// [`Running::stop`]. May be called inside an async runtime: it brings its own and does not block.
///
/// # Errors
/// [`RunError`].
pub fn start(settings: Settings, clock: Clock) -> Result<Running, RunError> {
    Runtimes::new(&settings.server)?.start(settings, clock)
}

/// A gateway that runs.
#[derive(Debug)]
pub struct Running {
    runtimes: Option<Runtimes>,
    addresses: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    ends: Ends,
}

/// The three moments of an end.
#[derive(Clone, Debug, Default)]
struct Ends {
    stop: CancellationToken,
    hurry: CancellationToken,
    finished: CancellationToken,
}

impl Ends {
    /// Waits to be told, drains, tells that it is done.
    async fn run(self, drain: Arc<Drain>, pace: Pace) {
        self.stop.cancelled().await;
        tracing::info!(event = "stopping", "no new connections are taken soon; requests in flight finish");
        let left = drain.run(pace, &self.hurry).await;
        if left > 0 {
            tracing::warn!(event = "stopped", requests = left, "requests were cut off");
        } else {
            tracing::info!(event = "stopped", "every request was finished");
        }
        self.finished.cancel();
    }
}

impl Running {
    /// Where it listens, in the order of the settings: with the ports that the system chose for 0.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where the admin listener is.
    #[must_use]
    pub const fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Begins the drain.
    pub fn stop(&self) {
        self.ends.stop.cancel();
    }

    /// Ends the drain at once.
    pub fn stop_now(&self) {
        self.ends.stop.cancel();
        self.ends.hurry.cancel();
    }

    /// Waits for the end of the drain. What is still in progress then, WebSockets among it, ends when
    /// this is dropped.
    pub async fn finished(&self) {
        self.ends.finished.cancelled().await;
    }

    /// Waits for the threads; not to be called inside an async runtime.
    fn end(mut self) {
        if let Some(runtimes) = self.runtimes.take() {
            // Whatever is still in progress is dropped here, and writes its access event.
            runtimes.proxy.end(LAST_TASKS);
            runtimes.control.shutdown_timeout(LAST_TASKS);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtimes) = self.runtimes.take() {
            drop(runtimes.proxy);
            runtimes.control.shutdown_background();
        }
    }
}

#[derive(Debug)]
struct Runtimes {
    proxy: Workers,
    control: Runtime,
}

impl Runtimes {
    fn new(settings: &ServerSettings) -> Result<Self, RunError> {
        // Pingora would install another one; whoever installed this one before did the same.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Ok(Self {
            proxy: Workers::start(settings.threads.max(1)).map_err(RunError::Runtime)?,
            control: control_runtime()?,
        })
    }

    fn start(self, settings: Settings, clock: Clock) -> Result<Running, RunError> {
        for warning in &settings.warnings {
            tracing::warn!(event = "configuration", "{warning}");
        }
        let open = Open::new(&settings, self.control.handle())?;
        let assembly = Assembly::new(settings, clock, self.control.handle())?;
        self.launch(assembly, open)
    }

    fn launch(self, assembly: Assembly, open: Open) -> Result<Running, RunError> {
        let running = Running {
            addresses: open.addresses.clone(),
            admin: open.admin.as_ref().and_then(|admin| admin.local_addr().ok()),
            ends: Ends::default(),
            runtimes: Some(self),
        };
        running.begin(assembly, open)?;
        Ok(running)
    }
}

fn control_runtime() -> Result<Runtime, RunError> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(CONTROL_THREADS).thread_name("control").enable_all();
    builder.build().map_err(RunError::Runtime)
}

/// The listeners, open but not yet accepting.
struct Open {
    entrances: Vec<(StdListener, Way)>,
    addresses: Vec<SocketAddr>,
    admin: Option<TcpListener>,
}

impl Open {
    fn new(settings: &Settings, control: &Handle) -> Result<Self, RunError> {
        let mut open = Self { entrances: Vec::new(), addresses: Vec::new(), admin: None };
        for listener in &settings.listeners {
            open.add(listener, settings.server.http2.is_some(), control)?;
        }
        open.admin = settings.admin.map(|address| bind(address, control)).transpose()?;
        Ok(open)
    }

    fn add(&mut self, settings: &ListenerSettings, http2: bool, control: &Handle) -> Result<(), RunError> {
        let address = settings.address;
        let acceptor = settings.tls.as_ref().map(|tls| tls::load(tls, http2)).transpose();
        let acceptor = acceptor.map_err(|source| RunError::Tls { address, source })?;
        let listener = bind(address, control)?.into_std();
        let listener = listener.map_err(|source| RunError::Listen { address, source })?;
        let bound = listener.local_addr().map_err(|source| RunError::Listen { address, source })?;
        let proxy_protocol = settings.proxy_protocol;
        tracing::info!(event = "listening", address = %bound, tls = acceptor.is_some(), proxy_protocol);
        self.addresses.push(bound);
        let way = Way { acceptor, local_port: bound.port(), proxy_protocol };
        self.entrances.push((listener, way));
        Ok(())
    }
}

fn bind(address: SocketAddr, runtime: &Handle) -> Result<TcpListener, RunError> {
    let _entered = runtime.enter();
    let listen = || {
        let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| RunError::Listen { address, source })
}

/// The gateway and what is around it, put together.
struct Assembly {
    gateway: Arc<Gateway>,
    upstreams: Arc<Upstreams>,
    keeper: Keeper,
    server: ServerSettings,
    disk: Option<Disk>,
}

/// The store on disk, where that is the one.
struct Disk {
    store: Arc<DiskStore>,
    data_dir: PathBuf,
}

impl Disk {
    /// Backups for whoever can read the token. Without a token, on a disk that is full, the gateway
    /// goes on and makes no backups.
    fn backups(self, address: SocketAddr) -> Option<Arc<Backups>> {
        let Self { store, data_dir } = self;
        match Token::make(&data_dir) {
            Ok(token) => Some(Arc::new(Backups { token, address, store, data_dir })),
            Err(error) => {
                tracing::warn!(event = "admin_token_failed", %error, "no backups can be made in this run");
                None
            }
        }
    }
}

impl Assembly {
    fn new(settings: Settings, clock: Clock, control: &Handle) -> Result<Self, RunError> {
        let upstreams = Arc::new(Upstreams::new(&settings.gateway.routes.upstreams)?);
        let events = Events::new(Arc::new(Metrics::new()), settings.log.access);
        let (keys, mut keeper) = keys::load(KeySettings::of(&settings), &clock, &events)?;
        let (store, disk): (Arc<dyn SessionStore>, _) = match settings.store {
            StoreKind::Disk => {
                let store = Arc::new(DiskStore::open(&settings.data_dir, clock.clone(), control.clone())?);
                let disk = Disk { store: Arc::clone(&store), data_dir: settings.data_dir.clone() };
                (store, Some(disk))
            }
            StoreKind::Memory => (Arc::new(MemoryStore::new(clock.clone())), None),
            StoreKind::Redis => {
                let redis = settings.redis.ok_or_else(|| StoreError::new("no address of Redis is known"))?;
                (Arc::new(RedisStore::open(redis, clock.clone(), control)?), None)
            }
        };
        let store = Arc::new(GuardedStore::new(store, clock.clone(), events.clone(), control.clone()));
        let provider = |provider| Provider::new(provider, control.clone(), clock.clone(), events.clone());
        let providers = settings.providers.into_iter().map(provider).collect::<Result<_, _>>()?;
        let sessions = Sessions::new(
            Arc::clone(&store),
            Arc::clone(&keys),
            clock.clone(),
            control.clone(),
            settings.cache,
        );
        let sessions = Arc::new(sessions);
        if let Some(shared) = keeper.share(store.clone(), &clock, control).map_err(KeysError::from)? {
            sessions.share_keys_with(shared);
        }
        sessions.start();
        let limits = Limits::new(store.clone(), clock.clone(), events.clone());
        let shared =
            Shared { store, sessions, keys, providers, limits, clock, events, runtime: control.clone() };
        let gateway = Arc::new(Gateway::new(settings.gateway, Arc::new(shared)));
        Ok(Self { gateway, upstreams, keeper, server: settings.server, disk })
    }
}

impl Running {
    /// Starts the tasks: providers, names, the admin listener, and with the first addresses known the
    /// listeners.
    fn begin(&self, assembly: Assembly, open: Open) -> Result<(), RunError> {
        let Some(runtimes) = &self.runtimes else { return Ok(()) };
        let control = runtimes.control.handle();
        let entrances = entrances_of(&open.entrances, &runtimes.proxy)?;
        let Assembly { gateway, upstreams, keeper, server, disk } = assembly;
        let shared = Arc::clone(gateway.shared());
        let drain = Drain::new();
        let edge = Edge::new(gateway, Arc::clone(&upstreams));
        let door = Door::new(proxy_of(edge, &server)?, Arc::clone(&drain), shared.events.clone(), &server);

        shared.providers.iter().for_each(Provider::start_discovery);
        control.spawn(keeper.keep());
        self.serve_admin(open.admin, &shared, disk, &drain, control);
        let (events, opened) = (shared.events.clone(), Arc::clone(&drain));
        control.spawn(async move {
            background::resolve_all(&upstreams, &events).await;
            for (worker, entrance) in entrances {
                worker.spawn(Arc::clone(&door).accept(entrance));
            }
            opened.opened();
            background::keep_resolving(upstreams, events).await;
        });
        let pace = Pace { delay: server.shutdown_delay, timeout: server.shutdown_timeout };
        control.spawn(self.ends.clone().run(drain, pace));
        Ok(())
    }

    fn serve_admin(
        &self,
        listener: Option<TcpListener>,
        shared: &Shared,
        disk: Option<Disk>,
        drain: &Drain,
        control: &Handle,
    ) {
        let Some(listener) = listener else { return };
        let admin = Admin {
            metrics: Arc::clone(shared.events.metrics()),
            store: Arc::clone(&shared.store),
            providers: shared.providers.clone(),
            accepting: drain.accepting(),
            backups: self.admin.and_then(|address| disk?.backups(address)),
        };
        let finished = self.ends.finished.clone();
        control.spawn(async move {
            let served = admin.serve(listener, async move { finished.cancelled().await }).await;
            if let Err(error) = served {
                tracing::error!(event = "admin_failed", %error, "the admin listener has stopped");
            }
        });
    }
}

/// Every listener for every thread that proxies: they take the connections in turns.
fn entrances_of(ways: &[(StdListener, Way)], workers: &Workers) -> Result<Vec<(Handle, Entrance)>, RunError> {
    let mut entrances = Vec::new();
    for (listener, way) in ways {
        let turn = Arc::default();
        for worker in workers.handles() {
            let _entered = worker.enter();
            let listener = listener.try_clone().and_then(TcpListener::from_std).map_err(RunError::Runtime)?;
            entrances.push((worker.clone(), Entrance::new(listener, way.clone(), Arc::clone(&turn))));
        }
    }
    Ok(entrances)
}

/// The proxy around the filters.
fn proxy_of(edge: Edge, server: &ServerSettings) -> Result<HttpProxy<Edge>, RunError> {
    // Pingora loads them too, and panics where they can't be.
    let mut authorities = pingora::tls::RootCertStore::empty();
    pingora::tls::load_platform_certs_incl_env_into_store(&mut authorities)
        .map_err(|error| RunError::SystemCas(error.to_string()))?;
    let conf = ServerConf {
        threads: server.threads,
        max_retries: MAX_TRIES,
        upstream_keepalive_pool_size: UPSTREAM_POOL,
        ..ServerConf::default()
    };
    Ok(http_proxy(&Arc::new(conf), edge))
}

#[cfg(test)]
mod tests;
