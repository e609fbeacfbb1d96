//! Applications: their addresses, and what Pingora needs to know to connect to one.
//!
//! Names are resolved off the request path ([`super::background`]) into an `ArcSwap`: Pingora gets
//! socket addresses only, because its `HttpPeer::new` with a name blocks a worker and panics when the
//! name does not resolve.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::header::{HeaderValue, InvalidHeaderValue};
use pingora::protocols::tls::CaType;
use pingora::protocols::{ALPN, TcpKeepalive};
use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use pingora::utils::tls::{WrappedX509, parse_x509};
use rustls::RootCertStore;
use tokio::sync::Notify;

use super::tls::{TlsError, load_certificates};
use crate::route::{Upstream, UpstreamId};

/// What finds out that the other side of an idle connection is gone without a word. There is no timer
/// for idle connections: the upstream closes them when it wants, and their number is bounded.
const KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_mins(1),
    interval: Duration::from_secs(10),
    count: 3,
    user_timeout: Duration::ZERO,
};

/// How long an address that refused a connection is passed over while another is left.
const PASS_OVER_MILLIS: u64 = 10_000;

/// A failed connect is tried again at most so often, at another address.
const MAX_RETRIES: usize = 2;

/// Why an upstream can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Its CA file.
    #[error("upstream {upstream}: {source}")]
    CaFile {
        /// Which.
        upstream: String,
        /// Why.
        #[source]
        source: TlsError,
    },
    /// A certificate in its CA file.
    #[error("upstream {upstream}: the CA file holds no usable certificate")]
    NoCa {
        /// Which.
        upstream: String,
    },
    /// Its name can't stand in a `Host` field.
    #[error("upstream {upstream}: the name can't be sent as Host")]
    Name {
        /// Which.
        upstream: String,
        /// Why.
        #[source]
        source: InvalidHeaderValue,
    },
}

/// All upstreams, in the order of the route table.
pub(super) struct Upstreams {
    list: Vec<Destination>,
    opened: Instant,
    /// Rung after a failed connect: the name may have moved.
    failed: Notify,
}

/// One upstream.
pub(super) struct Destination {
    settings: Upstream,
    name: String,
    host: HeaderValue,
    ca: Option<Arc<CaType>>,
    group: u64,
    addresses: ArcSwap<Vec<Arc<Address>>>,
    next: AtomicUsize,
}

/// One address of an upstream.
struct Address {
    peer: HttpPeer,
    socket: SocketAddr,
    /// Milliseconds since the start, of its last failed connect; 0: none.
    failed_at: AtomicU64,
}

/// The attempts of one request.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    first: Option<usize>,
    failed: usize,
}

impl Upstreams {
    /// Sets upstreams up; those that are addresses are ready at once, names wait to be resolved.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub(super) fn new(upstreams: &[Upstream]) -> Result<Self, UpstreamError> {
        let list = upstreams.iter().enumerate().map(|(index, upstream)| Destination::new(index, upstream));
        Ok(Self { list: list.collect::<Result<_, _>>()?, opened: Instant::now(), failed: Notify::new() })
    }

    /// An upstream of the route table.
    pub(super) fn get(&self, id: UpstreamId) -> Option<&Destination> {
        self.list.get(id.0)
    }

    /// All that are names.
    pub(super) fn named(&self) -> impl Iterator<Item = &Destination> {
        self.list.iter().filter(|target| target.literal().is_none())
    }

    /// Waits for a failed connect.
    pub(super) async fn connect_failed(&self) {
        self.failed.notified().await;
    }

    /// The peer for the next attempt of a request: round-robin, past addresses that refused a
    /// connection a moment ago while another is left. `None` while the name is not resolved.
    pub(super) fn peer(&self, id: UpstreamId, attempts: &mut Attempts) -> Option<Box<HttpPeer>> {
        let target = self.get(id)?;
        let addresses = target.addresses.load();
        let first = *attempts.first.get_or_insert_with(|| target.next.fetch_add(1, Ordering::Relaxed));
        let at = |offset: usize| addresses.get((first.wrapping_add(offset)) % addresses.len().max(1));
        let fresh =
            (attempts.failed..addresses.len()).filter_map(at).find(|address| !self.is_passed_over(address));
        let address = fresh.or_else(|| at(attempts.failed))?;
        Some(Box::new(address.peer.clone()))
    }

    fn is_passed_over(&self, address: &Address) -> bool {
        let failed_at = address.failed_at.load(Ordering::Relaxed);
        failed_at != 0 && self.now().saturating_sub(failed_at) < PASS_OVER_MILLIS
    }

    /// Notes that a connect failed; says whether it is to be tried at another address.
    pub(super) fn note_failure(&self, id: UpstreamId, peer: &HttpPeer, attempts: &mut Attempts) -> bool {
        self.failed.notify_one();
        let Some(target) = self.get(id) else { return false };
        let addresses = target.addresses.load();
        let same = |address: &&Arc<Address>| address.peer._address == peer._address;
        if let Some(address) = addresses.iter().find(same) {
            address.failed_at.store(self.now(), Ordering::Relaxed);
        }
        attempts.failed += 1;
        attempts.failed <= MAX_RETRIES && attempts.failed < addresses.len()
    }

    fn now(&self) -> u64 {
        // Never 0, which stands for "no failure".
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }
}

impl Destination {
    fn new(index: usize, settings: &Upstream) -> Result<Self, UpstreamError> {
        let name = authority(settings, None);
        let default_port = if settings.tls { 443 } else { 80 };
        let host = authority(settings, Some(default_port));
        let host = HeaderValue::from_str(&host)
            .map_err(|source| UpstreamError::Name { upstream: name.clone(), source })?;
        let target = Self {
            ca: load_ca(settings, &name)?,
            settings: settings.clone(),
            name,
            host,
            group: index as u64,
            addresses: ArcSwap::default(),
            next: AtomicUsize::new(0),
        };
        if let Some(address) = target.literal() {
            target.set_addresses(&[address]);
        }
        Ok(target)
    }

    /// Its settings.
    pub(super) const fn settings(&self) -> &Upstream {
        &self.settings
    }

    /// Host and port, for the log.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its own name as a `Host` field.
    pub(super) const fn host(&self) -> &HeaderValue {
        &self.host
    }

    fn literal(&self) -> Option<SocketAddr> {
        let address: IpAddr = self.settings.host.parse().ok()?;
        Some(SocketAddr::new(address, self.settings.port))
    }

    /// Replaces the addresses; one that stays keeps what is known of it.
    pub(super) fn set_addresses(&self, resolved: &[SocketAddr]) {
        let known = self.addresses.load();
        let find = |address: &SocketAddr| known.iter().find(|known| known.socket == *address).cloned();
        let addresses: Vec<_> =
            resolved.iter().map(|address| find(address).unwrap_or_else(|| self.address(*address))).collect();
        self.addresses.store(Arc::new(addresses));
    }

    fn address(&self, address: SocketAddr) -> Arc<Address> {
        let settings = &self.settings;
        // SNI and the name that the certificate must have; an address is verified as one. Without a
        // name Pingora verifies nothing, so there is always one.
        let mut peer = HttpPeer::new(address, settings.tls, settings.host.to_string());
        // Upstreams with other CAs never share connections.
        peer.group_key = self.group;
        peer.options.alpn = ALPN::H1;
        peer.options.ca.clone_from(&self.ca);
        peer.options.connection_timeout = Some(settings.connect_timeout);
        peer.options.total_connection_timeout = Some(settings.connect_timeout);
        peer.options.read_timeout = Some(settings.read_timeout);
        peer.options.write_timeout = Some(settings.read_timeout);
        peer.options.tcp_keepalive = Some(KEEPALIVE);
        // What goes no further than here is taken away before Pingora sees it ([`super::head`]).
        peer.options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
        Arc::new(Address { peer, socket: address, failed_at: AtomicU64::new(0) })
    }
}

fn authority(settings: &Upstream, default_port: Option<u16>) -> String {
    let host = &settings.host;
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
    if default_port == Some(settings.port) { host } else { format!("{host}:{}", settings.port) }
}

fn load_ca(settings: &Upstream, name: &str) -> Result<Option<Arc<CaType>>, UpstreamError> {
    let Some(file) = &settings.ca_file else { return Ok(None) };
    let certificates = load_certificates(file)
        .map_err(|source| UpstreamError::CaFile { upstream: name.to_owned(), source })?;
    // Pingora's own parser panics on what is no certificate, so it is looked at here first.
    let usable = certificates.iter().all(|ca| RootCertStore::empty().add(ca.clone()).is_ok());
    if certificates.is_empty() || !usable {
        return Err(UpstreamError::NoCa { upstream: name.to_owned() });
    }
    let wrapped: Vec<_> =
        certificates.iter().map(|ca| WrappedX509::new(ca.as_ref().to_vec(), parse_x509)).collect();
    Ok(Some(wrapped.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: UpstreamId = UpstreamId(0);

    fn upstream(host: &str, port: u16, tls: bool) -> Upstream {
        Upstream {
            tls,
            host: host.into(),
            port,
            ca_file: None,
            connect_timeout: Duration::from_secs(1),
            read_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(3),
        }
    }

    fn resolved(addresses: &[&str]) -> Upstreams {
        let upstreams = Upstreams::new(&[upstream("app.internal", 80, false)]).unwrap();
        let addresses: Vec<_> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        upstreams.get(APP).unwrap().set_addresses(&addresses);
        upstreams
    }

    fn next(upstreams: &Upstreams) -> String {
        upstreams.peer(APP, &mut Attempts::default()).unwrap()._address.to_string()
    }

    #[test]
    fn addresses_take_turns() {
        let upstreams = resolved(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
        let turns: Vec<_> = (0..4).map(|_| next(&upstreams)).collect();
        assert_eq!(turns, ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.1:80"]);
    }

    #[test]
    fn a_failed_connect_is_tried_elsewhere_at_most_twice() {
        for (count, expected) in [(1, 0), (2, 1), (3, 2), (5, 2)] {
            let all = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80", "10.0.0.5:80"];
            let upstreams = resolved(&all[..count]);
            let (mut attempts, mut tried, mut retries) = (Attempts::default(), Vec::new(), 0);
            loop {
                let peer = upstreams.peer(APP, &mut attempts).unwrap();
                tried.push(peer._address.to_string());
                if !upstreams.note_failure(APP, &peer, &mut attempts) {
                    break;
                }
                retries += 1;
            }
            assert_eq!(retries, expected, "of {count} addresses");
            tried.dedup();
            assert_eq!(tried.len(), expected + 1, "each try is at another address: {tried:?}");
        }
    }

    #[test]
    fn an_address_that_refused_a_connection_is_passed_over_while_another_is_left() {
        let upstreams = resolved(&["10.0.0.1:80", "10.0.0.2:80"]);
        let mut attempts = Attempts::default();
        let first = upstreams.peer(APP, &mut attempts).unwrap();
        assert!(upstreams.note_failure(APP, &first, &mut attempts));
        assert_eq!([next(&upstreams), next(&upstreams)], ["10.0.0.2:80"; 2]);
        let second = upstreams.peer(APP, &mut attempts).unwrap();
        upstreams.note_failure(APP, &second, &mut attempts);
        // With none left they take turns again.
        assert_ne!(next(&upstreams), next(&upstreams));
    }

    #[test]
    fn a_new_look_up_keeps_what_is_known_of_an_address() {
        let upstreams = resolved(&["10.0.0.1:80", "10.0.0.2:80"]);
        let mut attempts = Attempts::default();
        let first = upstreams.peer(APP, &mut attempts).unwrap();
        upstreams.note_failure(APP, &first, &mut attempts);
        let again: Vec<_> =
            ["10.0.0.1:80", "10.0.0.3:80"].iter().map(|address| address.parse().unwrap()).collect();
        upstreams.get(APP).unwrap().set_addresses(&again);
        assert_eq!([next(&upstreams), next(&upstreams)], ["10.0.0.3:80"; 2]);
    }

    #[test]
    fn a_name_has_no_peer_before_it_is_resolved_and_an_address_has_one_at_once() {
        let upstreams =
            Upstreams::new(&[upstream("app.internal", 80, false), upstream("::1", 443, true)]).unwrap();
        assert!(upstreams.peer(APP, &mut Attempts::default()).is_none());
        assert_eq!(upstreams.named().count(), 1);
        let peer = upstreams.peer(UpstreamId(1), &mut Attempts::default()).unwrap();
        assert_eq!(peer._address.to_string(), "[::1]:443");
        assert!(upstreams.peer(UpstreamId(2), &mut Attempts::default()).is_none());
    }

    #[test]
    fn the_name_is_what_an_https_upstream_is_verified_by() {
        for (host, tls, sni) in [("app.internal", true, "app.internal"), ("10.0.0.1", true, "10.0.0.1")] {
            let upstreams = Upstreams::new(&[upstream(host, 443, tls)]).unwrap();
            upstreams.get(APP).unwrap().set_addresses(&["10.0.0.1:443".parse().unwrap()]);
            let peer = upstreams.peer(APP, &mut Attempts::default()).unwrap();
            assert_eq!((peer.is_tls(), &*peer.sni), (true, sni));
            assert!(peer.options.verify_cert && peer.options.verify_hostname);
            assert_eq!(peer.options.total_connection_timeout, Some(Duration::from_secs(1)));
            assert_eq!(peer.options.read_timeout, Some(Duration::from_secs(2)));
        }
    }

    #[test]
    fn the_own_name_is_told_without_the_default_port() {
        let cases = [
            ("app.internal", 80, false, "app.internal"),
            ("app.internal", 8080, false, "app.internal:8080"),
            ("app.internal", 443, true, "app.internal"),
            ("app.internal", 443, false, "app.internal:443"),
            ("::1", 80, false, "[::1]"),
        ];
        for (host, port, tls, expected) in cases {
            let upstreams = Upstreams::new(&[upstream(host, port, tls)]).unwrap();
            assert_eq!(upstreams.get(APP).unwrap().host(), expected);
        }
    }
}
