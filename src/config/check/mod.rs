//! The file as written -> [`Settings`], or every problem. Pure: what stands outside the file comes
//! in as [`Outside`].

mod client;
mod headers;
mod host;
mod limits;
mod provider;
mod redis;
mod route;
mod rules;
mod server;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::file::{self, File, List};
use super::problem::{Problem, Problems, Told};
use super::read::{Field, SecretRef, Size};
use super::{Http2Settings, KeyEntry, ListenerSettings, ServerSettings, Settings, StoreKind, TlsSettings};
use crate::gateway::sessions::{AtLimit, CacheSettings, PerUser, Reading};
use crate::gateway::{self, Paths};
use crate::route::{HostTable, RouteTable};
use crate::secret::{self, Secret};
use crate::session::key_ring::{check_ring, parse_keys};
use crate::session::{Key, Limits};
use crate::telemetry::logging::{Format, Level, LogSettings};
use host::Ids;
use rules::{between, one_of};
use server::has_trusted_proxies;

/// Where the admin listener is if nothing is written.
const ADMIN_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9321);
const DATA_DIR: &str = "/var/lib/portcullis";
const ENDPOINT_PREFIX: &str = "/oauth2";

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// What the check asks of the world outside the file.
pub(super) struct Outside<'a> {
    /// The directory that relative paths start from: the file's own.
    pub(super) base: &'a Path,
    /// `$STATE_DIRECTORY`, the default of `data_dir`.
    pub(super) state_directory: Option<PathBuf>,
    /// Processor cores, the default of `server.threads`.
    pub(super) cores: usize,
    /// The contents of a secret, or a complaint that does not hold them.
    pub(super) secret: &'a dyn Fn(&SecretRef) -> Result<Found, String>,
    /// Whether certificate and key can be used together.
    pub(super) key_pair: &'a dyn Fn(&TlsSettings) -> Result<(), KeyPairError>,
    /// Whether a file holds CA certificates.
    pub(super) ca_file: &'a dyn Fn(&Path) -> Result<(), String>,
}

/// A secret as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its text, of any number of lines.
    pub(super) text: Secret<String>,
    /// Where it was found, for complaints.
    pub(super) place: String,
    /// The file that it was found in.
    pub(super) file: Option<PathBuf>,
}

impl Found {
    /// The one line that most secrets are.
    pub(super) fn one_line(&self) -> Result<Secret<String>, String> {
        secret::one_line(&self.text).map_err(|error| format!("{} {error}", self.place))
    }
}

/// Why certificate and key can't be used, as complaints about their paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyPairError {
    /// The certificate's fault.
    Certificate(String),
    /// The key's fault, or it is not the certificate's.
    Key(String),
}

/// The state of one check.
struct Check<'a> {
    outside: &'a Outside<'a>,
    problems: Problems,
    warnings: Vec<String>,
}

/// Reads and checks the text of a file.
///
/// # Errors
/// Every problem, in the order of the file.
pub(super) fn check(text: &str, outside: &Outside<'_>) -> Result<Settings, Vec<Problem>> {
    let mut problems = Problems::default();
    let file = File::parse(text, &mut problems);
    let mut check = Check { outside, problems, warnings: Vec::new() };
    match file.map(|file| check.file(file)) {
        Some(Ok(settings)) if check.problems.is_empty() => Ok(settings),
        _ => Err(check.problems.into_sorted()),
    }
}

/// All values, or the proof that one of them was told to be wrong.
fn all<T>(results: impl Iterator<Item = Result<T, Told>>) -> Result<Vec<T>, Told> {
    // Every element is checked before the first wrong one ends it.
    let results: Vec<_> = results.collect();
    results.into_iter().collect()
}

impl Check<'_> {
    fn file(&mut self, file: File) -> Result<Settings, Told> {
        let File {
            data_dir,
            endpoint_prefix,
            listener,
            provider,
            host,
            session,
            redis,
            identity,
            headers,
            route,
            limits: rate_limits,
            server,
            admin,
            log,
        } = file;
        let data_dir = self.data_dir(data_dir);
        let prefix = self.endpoint_prefix(endpoint_prefix);
        let listeners = self.listeners(listener, has_trusted_proxies(&server));
        let provider_ids = provider::ids(&provider);
        let posting = provider::posting_ids(&provider);
        self.providers_where_needed(&provider, &route);
        let providers = self.providers(provider);
        let session = self.session(session);
        let limits = session.as_ref().ok().map(|session| session.limits);
        let routes = self.routes(route, prefix.as_deref().ok(), &provider_ids, limits);
        let hosts = self.hosts(host, routes.as_ref().ok(), Ids { all: &provider_ids, posting: &posting });
        let redis = self.redis(redis, session.as_ref().ok().map(|session| session.store));
        let claim_paths = self.identity(identity);
        let headers = self.headers(headers);
        let rate_limits = self.rate_limits(rate_limits);
        let server = self.server(server);
        let admin = self.admin(admin, listeners.as_deref().unwrap_or_default());
        let log = self.log(log);

        let (route::Checked { routes, upstreams }, hosts, session) = (routes?, hosts?, session?);
        Ok(Settings {
            listeners: listeners?,
            admin: admin?,
            log: log?,
            data_dir: data_dir?,
            store: session.store,
            redis: redis?,
            keys: session.keys,
            key_rotation: session.key_rotation,
            cache: session.cache,
            providers: providers?,
            gateway: gateway::Settings {
                hosts: HostTable::new(&hosts),
                reading: Arc::new(Reading {
                    claim_paths: claim_paths?,
                    headers: headers?,
                    limits: route::with_routes(session.limits, &routes),
                }),
                per_user: session.per_user,
                limits: rate_limits?,
                routes: RouteTable::new(routes, upstreams),
                paths: Paths::new(&prefix?),
                demo: false,
            },
            server: server?,
            hosts,
            warnings: std::mem::take(&mut self.warnings),
        })
    }

    /// A path of the file: relative ones start at the file's own directory.
    fn path(&self, text: &str) -> PathBuf {
        self.outside.base.join(text)
    }

    fn data_dir(&mut self, field: Field<String>) -> Result<PathBuf, Told> {
        let default = self.outside.state_directory.clone().unwrap_or_else(|| DATA_DIR.into());
        let written = field.parse(&mut self.problems, rules::not_empty).optional()?;
        Ok(written.map_or(default, |text| self.path(&text)))
    }

    fn endpoint_prefix(&mut self, field: Field<String>) -> Result<String, Told> {
        field.parse(&mut self.problems, rules::endpoint_prefix).or(ENDPOINT_PREFIX.to_owned())
    }

    fn listeners(
        &mut self,
        field: Field<List<file::Listener>>,
        has_proxies: bool,
    ) -> Result<Vec<ListenerSettings>, Told> {
        let wanted = "at least one [[listener]] with an address such as \"0.0.0.0:443\"";
        let place = field.place.clone();
        let list = field.required(&mut self.problems, wanted)?;
        if list.is_empty() {
            return Err(self.problems.add(&place, format!("is empty: {wanted}")));
        }
        let mut taken = Vec::new();
        all(list.into_iter().map(|listener| {
            let listener = listener.element(&mut self.problems)?;
            self.listener(listener, &mut taken, has_proxies)
        }))
    }

    fn listener(
        &mut self,
        listener: file::Listener,
        taken: &mut Vec<SocketAddr>,
        has_proxies: bool,
    ) -> Result<ListenerSettings, Told> {
        let file::Listener { address, tls, proxy_protocol } = listener;
        let address = address
            .parse(&mut self.problems, rules::socket_address)
            .check(&mut self.problems, |address| rules::once(address, taken, "is listed twice"))
            .required(&mut self.problems, "address and port, such as \"0.0.0.0:443\"");
        let tls = tls.optional().and_then(|tls| tls.map(|tls| self.tls(tls)).transpose());
        let proxy_protocol = proxy_protocol.check(&mut self.problems, |wanted| {
            if wanted && !has_proxies {
                return Err("has nobody to be believed: list the proxies in server.trusted_proxies");
            }
            Ok(wanted)
        });
        Ok(ListenerSettings { address: address?, tls: tls?, proxy_protocol: proxy_protocol.or(false)? })
    }

    fn tls(&mut self, tls: file::Tls) -> Result<TlsSettings, Told> {
        let file::Tls { certificate, key } = tls;
        let (at_certificate, at_key) = (certificate.clone(), key.clone());
        let certificate = certificate.required(&mut self.problems, "a PEM file with the certificate chain");
        let key = key.required(&mut self.problems, "a PEM file with the certificate's private key");
        let settings = TlsSettings { certificate: self.path(&certificate?), key: self.path(&key?) };
        match (self.outside.key_pair)(&settings) {
            Ok(()) => Ok(settings),
            Err(KeyPairError::Certificate(complaint)) => {
                Err(at_certificate.complain(&mut self.problems, complaint))
            }
            Err(KeyPairError::Key(complaint)) => Err(at_key.complain(&mut self.problems, complaint)),
        }
    }

    fn session(&mut self, field: Field<file::Session>) -> Result<SessionSettings, Told> {
        let file::Session {
            store,
            idle_timeout,
            max_lifetime,
            keys,
            key_rotation,
            cache_size,
            cache_staleness,
            outage_window,
            max_per_user,
            at_limit,
        } = field.or_empty()?;
        let store = store.parse(&mut self.problems, one_of(STORES)).or(StoreKind::default());
        if store == Ok(StoreKind::Memory) {
            self.warnings.push("session.store is \"memory\": a restart signs everybody out".to_owned());
        }
        let limits = self.limits(idle_timeout, max_lifetime);
        let has_no_keys = !keys.is_written() || keys.peek().is_some_and(Vec::is_empty);
        if store == Ok(StoreKind::Redis) && has_no_keys {
            let wanted =
                "is missing: gateways that share a store share its keys; make one with `portcullis keygen`";
            self.problems.add(&keys.place, wanted);
        }
        let keys = self.keys(keys);
        let key_rotation = self.key_rotation(key_rotation, keys.as_deref().unwrap_or_default());
        let cache = self.cache(cache_size, cache_staleness, outage_window);
        let per_user = self.per_user(max_per_user, at_limit);
        Ok(SessionSettings {
            store: store?,
            limits: limits?,
            keys: keys?,
            key_rotation: key_rotation?,
            cache: cache?,
            per_user: per_user?,
        })
    }

    fn limits(&mut self, idle: Field<Duration>, max: Field<Duration>) -> Result<Limits, Told> {
        let range = between(SECOND, 400 * DAY);
        let max_lifetime = max.check(&mut self.problems, &range).or(12 * HOUR);
        let longest = max_lifetime.unwrap_or(400 * DAY);
        let idle_timeout = idle
            .check(&mut self.problems, &range)
            .check(&mut self.problems, |idle| rules::at_most(idle, longest, "session.max_lifetime"))
            .or(HOUR.min(longest));
        let (idle_timeout, max_lifetime) = (idle_timeout?, max_lifetime?);
        Ok(Limits { idle_timeout, max_lifetime, shortest_idle: idle_timeout })
    }

    fn cache(
        &mut self,
        size: Field<Size>,
        staleness: Field<Duration>,
        outage_window: Field<Duration>,
    ) -> Result<CacheSettings, Told> {
        let problems = &mut self.problems;
        let size = size.check(problems, between(Size(1 << 20), Size(usize::MAX))).or(Size(64 << 20));
        let staleness = staleness.check(problems, between(Duration::ZERO, MINUTE)).or(5 * SECOND);
        let outage_window = outage_window.check(problems, between(Duration::ZERO, HOUR)).or(MINUTE);
        let bytes = size?.0 as u64;
        Ok(CacheSettings { bytes, staleness: staleness?, outage_window: outage_window? })
    }

    fn per_user(&mut self, max: Field<usize>, at_limit: Field<String>) -> Result<Option<PerUser>, Told> {
        let is_limited = max.is_written();
        let max = max.check(&mut self.problems, between(1, 10_000)).optional();
        let at_limit =
            at_limit.parse(&mut self.problems, one_of(AT_LIMIT)).check(&mut self.problems, |what| {
                if is_limited || what == AtLimit::default() {
                    Ok(what)
                } else {
                    Err("has no effect without session.max_per_user")
                }
            });
        let at_limit = at_limit.or(AtLimit::default())?;
        Ok(max?.map(|max| PerUser { max, at_limit }))
    }

    fn key_rotation(&mut self, field: Field<String>, keys: &[KeyEntry]) -> Result<Option<Duration>, Told> {
        let problems = &mut self.problems;
        let period = field.parse(problems, |text| rules::period_or_off(text, 7 * DAY, 3650 * DAY));
        // Where somebody has keys of their own, nothing is made unless they want it.
        period.or(keys.is_empty().then_some(90 * DAY))
    }

    fn keys(&mut self, field: Field<List<SecretRef>>) -> Result<Vec<KeyEntry>, Told> {
        let list = field.or(Vec::new())?;
        let mut ring = Vec::new();
        all(list.into_iter().map(|entry| self.key_entry(entry, &mut ring)))
    }

    fn key_entry(&mut self, entry: Field<SecretRef>, ring: &mut Vec<Key>) -> Result<KeyEntry, Told> {
        self.secret(entry, |found| {
            let keys = parse_keys(&found.text).map_err(|error| error.to_string())?;
            ring.extend(keys.iter().cloned());
            // The ring finds a key that is listed twice: at the second one.
            if let Err(error) = check_ring(ring) {
                ring.truncate(ring.len() - keys.len());
                return Err(error.to_string());
            }
            Ok(KeyEntry { keys, file: found.file })
        })
    }

    /// An element of a list of secrets, read by a rule whose error is a whole sentence.
    fn secret<T>(
        &mut self,
        entry: Field<SecretRef>,
        rule: impl FnOnce(Found) -> Result<T, String>,
    ) -> Result<T, Told> {
        let place = entry.place.clone();
        let reference = entry.element(&mut self.problems)?;
        let read = (self.outside.secret)(&reference).and_then(rule);
        read.map_err(|complaint| self.problems.add(&place, complaint))
    }

    fn ca_file(&mut self, field: Field<String>) -> Result<Option<PathBuf>, Told> {
        let (base, usable) = (self.outside.base, self.outside.ca_file);
        let rule = |text: String| {
            let path = base.join(text);
            usable(&path).map(|()| path)
        };
        field.check(&mut self.problems, rule).optional()
    }

    fn server(&mut self, field: Field<file::Server>) -> Result<ServerSettings, Told> {
        let file::Server {
            threads,
            trusted_proxies,
            client_address_header,
            max_connections,
            max_connections_per_address,
            max_requests_per_connection,
            request_head_timeout,
            tls_handshake_timeout,
            keepalive_timeout,
            max_request_head_size,
            max_request_headers,
            max_request_target_size,
            body_idle_timeout,
            min_body_rate,
            http2,
            http2_max_streams,
            http2_max_resets,
            http2_max_control_frames,
            http2_window,
            shutdown_delay,
            shutdown_timeout,
        } = field.or_empty()?;
        let trusted_proxies = self.trusted_proxies(trusted_proxies, client_address_header);
        let http2 =
            self.http2([http2_max_streams, http2_max_resets, http2_max_control_frames], http2_window, http2);
        let problems = &mut self.problems;
        let short = between(SECOND / 10, 5 * MINUTE);
        let threads = threads.check(problems, between(1, 1024)).or(self.outside.cores);
        let max_connections = max_connections.check(problems, between(1, 1_000_000)).or(10_000);
        let head_timeout = request_head_timeout.check(problems, &short).or(10 * SECOND);
        let handshake_timeout = tls_handshake_timeout.check(problems, &short).or(10 * SECOND);
        let keepalive = keepalive_timeout.check(problems, between(SECOND, HOUR)).or(MINUTE);
        // Pingora's own limits are 1 MiB and 256 fields; beyond them ours would say nothing.
        let head_size = max_request_head_size.check(problems, between(Size(1 << 10), Size(1 << 20)));
        let max_headers = max_request_headers.check(problems, between(10, 256)).or(100);
        let per_address = max_connections_per_address.check(problems, between(1, 1_000_000)).or(500);
        let requests = max_requests_per_connection.check(problems, between(1, 1_000_000_000)).or(10_000);
        let target_size = max_request_target_size.check(problems, between(Size(256), Size(1 << 20)));
        let body_idle = body_idle_timeout.check(problems, between(SECOND / 10, HOUR)).or(30 * SECOND);
        let body_rate = min_body_rate.check(problems, between(Size(0), Size(1 << 20))).or(Size(240));
        let delay = shutdown_delay.check(problems, between(Duration::ZERO, HOUR)).or(Duration::ZERO);
        let shutdown = shutdown_timeout.check(problems, between(Duration::ZERO, HOUR)).or(30 * SECOND);
        Ok(ServerSettings {
            threads: threads?,
            trusted_proxies: Arc::new(trusted_proxies?),
            max_connections: max_connections?,
            max_connections_per_address: per_address?,
            max_requests_per_connection: requests?,
            request_head_timeout: head_timeout?,
            tls_handshake_timeout: handshake_timeout?,
            keepalive_timeout: keepalive?,
            max_request_head_bytes: head_size.or(Size(32 << 10))?.0,
            max_request_headers: max_headers?,
            max_request_target_bytes: target_size.or(Size(8 << 10))?.0,
            body_idle_timeout: body_idle?,
            min_body_bytes_per_second: body_rate?.0 as u64,
            http2: http2?,
            shutdown_delay: delay?,
            shutdown_timeout: shutdown?,
        })
    }

    fn http2(
        &mut self,
        numbers: [Field<usize>; 3],
        window: Field<Size>,
        offered: Field<bool>,
    ) -> Result<Option<Http2Settings>, Told> {
        const NO_EFFECT: &str = "has no effect with server.http2 = false";
        let problems = &mut self.problems;
        let offered = offered.or(true)?;
        let number = |max| {
            let within = between(1, max);
            move |value| if offered { within(value) } else { Err(NO_EFFECT.to_owned()) }
        };
        let [streams, resets, control_frames] = numbers;
        let max_streams = streams.check(problems, number(1000)).or(100);
        let max_resets = resets.check(problems, number(100_000)).or(500);
        let max_control_frames = control_frames.check(problems, number(1_000_000)).or(10_000);
        // The least is what clients may send before they hear of it (RFC 9113 6.9.2).
        let within = between(Size(64 << 10), Size(16 << 20));
        let window =
            window.check(problems, |size| if offered { within(size) } else { Err(NO_EFFECT.to_owned()) });
        let settings = Http2Settings {
            max_streams: max_streams?,
            max_resets: max_resets?,
            max_control_frames: max_control_frames?,
            window_bytes: window.or(Size(256 << 10))?.0,
        };
        Ok(offered.then_some(settings))
    }

    fn admin(
        &mut self,
        field: Field<file::Admin>,
        listeners: &[ListenerSettings],
    ) -> Result<Option<SocketAddr>, Told> {
        let file::Admin { address } = field.or_empty()?;
        let taken = |address: SocketAddr| listeners.iter().any(|listener| listener.address == address);
        let own = |address: Option<SocketAddr>| match address {
            Some(address) if taken(address) => Err("is the address of a [[listener]] too"),
            address => Ok(address),
        };
        let address = address.parse(&mut self.problems, rules::address_or_off);
        let address = address.check(&mut self.problems, own).or(Some(ADMIN_ADDRESS))?;
        if let Some(address) = address.filter(|address| !address.ip().is_loopback()) {
            self.warnings.push(format!("admin.address {address} can be reached from other machines"));
        }
        Ok(address)
    }

    fn log(&mut self, field: Field<file::Log>) -> Result<LogSettings, Told> {
        let file::Log { format, level, access } = field.or_empty()?;
        let format = format.parse(&mut self.problems, one_of(FORMATS)).or(Format::default());
        let level = level.parse(&mut self.problems, one_of(LEVELS)).or(Level::default());
        Ok(LogSettings { format: format?, level: level?, access: access.or(true)? })
    }
}

/// What `[session]` says.
struct SessionSettings {
    store: StoreKind,
    limits: Limits,
    keys: Vec<KeyEntry>,
    key_rotation: Option<Duration>,
    cache: CacheSettings,
    per_user: Option<PerUser>,
}

const STORES: &[(&str, StoreKind)] =
    &[("disk", StoreKind::Disk), ("redis", StoreKind::Redis), ("memory", StoreKind::Memory)];

const AT_LIMIT: &[(&str, AtLimit)] = &[("end-oldest", AtLimit::EndOldest), ("refuse", AtLimit::Refuse)];

const FORMATS: &[(&str, Format)] =
    &[("auto", Format::Auto), ("json", Format::Json), ("human", Format::Human)];

const LEVELS: &[(&str, Level)] = &[
    ("error", Level::Error),
    ("warn", Level::Warn),
    ("info", Level::Info),
    ("debug", Level::Debug),
    ("trace", Level::Trace),
];

#[cfg(test)]
mod tests;
