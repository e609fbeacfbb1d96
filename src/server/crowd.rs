//! How many connections each client has: the place that a connection holds until it ends.
//!
//! Counts by address, an IPv6 client being its /64. Trusted proxies are not counted, because each carries
//! many clients. Who has as many as are allowed is closed at once, and costs nobody else a wait (DO-4).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::web::client_addr::network;
use crate::web::proxies::TrustedProxies;

/// The connections of all clients.
#[derive(Debug)]
pub(super) struct Crowd {
    max: usize,
    proxies: Arc<TrustedProxies>,
    open: Mutex<HashMap<IpAddr, Open>>,
}

/// What one client has open.
#[derive(Debug)]
struct Open {
    connections: usize,
    /// Whether it was told of that there are too many.
    told: bool,
}

/// A connection that counts until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    /// `None`: it does not count.
    counted: Option<(Arc<Crowd>, IpAddr)>,
}

/// A client has as many connections as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    /// Whether it is the first one over the limit since the client had none.
    pub(super) is_news: bool,
}

impl Crowd {
    /// Nobody is there; each client may have `max` connections.
    pub(super) fn new(max: usize, proxies: Arc<TrustedProxies>) -> Arc<Self> {
        Arc::new(Self { max, proxies, open: Mutex::default() })
    }

    /// Takes a place for a connection of `client`.
    ///
    /// # Errors
    /// [`Full`].
    pub(super) fn enter(self: &Arc<Self>, client: IpAddr) -> Result<Place, Full> {
        if self.proxies.contain(client) {
            return Ok(Place { counted: None });
        }
        let network = network(client);
        let mut open = self.open();
        let open = open.entry(network).or_insert(Open { connections: 0, told: false });
        if open.connections >= self.max {
            return Err(Full { is_news: !std::mem::replace(&mut open.told, true) });
        }
        open.connections += 1;
        Ok(Place { counted: Some((Arc::clone(self), network)) })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, Open>> {
        // A count is whole after every step.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((crowd, network)) = &self.counted else { return };
        if let Entry::Occupied(mut open) = crowd.open().entry(*network) {
            open.get_mut().connections -= 1;
            if open.get().connections == 0 {
                open.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::proxies::{Network, ToldIn};

    fn crowd(max: usize) -> Arc<Crowd> {
        let proxy = Network::parse("10.0.0.1").unwrap();
        Crowd::new(max, Arc::new(TrustedProxies::new(vec![proxy], ToldIn::default())))
    }

    fn enter(crowd: &Arc<Crowd>, client: &str) -> Result<Place, Full> {
        crowd.enter(client.parse().unwrap())
    }

    #[test]
    fn a_client_has_so_many_connections_and_others_have_theirs() {
        let crowd = crowd(2);
        let first = enter(&crowd, "192.0.2.1").unwrap();
        let _second = enter(&crowd, "::ffff:192.0.2.1").unwrap();
        assert_eq!(enter(&crowd, "192.0.2.1").unwrap_err(), Full { is_news: true });
        assert_eq!(enter(&crowd, "192.0.2.1").unwrap_err(), Full { is_news: false });
        let _other = enter(&crowd, "192.0.2.2").unwrap();
        drop(first);
        let _third = enter(&crowd, "192.0.2.1").unwrap();
        assert_eq!(enter(&crowd, "192.0.2.1").unwrap_err(), Full { is_news: false });
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let crowd = crowd(1);
        let _place = enter(&crowd, "2001:db8:0:1::1").unwrap();
        assert!(enter(&crowd, "2001:db8:0:1:ffff::2").is_err());
        assert!(enter(&crowd, "2001:db8:0:2::1").is_ok());
    }

    #[test]
    fn a_trusted_proxy_is_not_counted() {
        let crowd = crowd(1);
        let places: Vec<_> = (0..10).map(|_| enter(&crowd, "10.0.0.1").unwrap()).collect();
        assert_eq!(places.len(), 10);
        assert!(crowd.open().is_empty());
    }

    #[test]
    fn who_has_left_is_forgotten() {
        let crowd = crowd(3);
        let places: Vec<_> = (0..3).map(|_| enter(&crowd, "192.0.2.1").unwrap()).collect();
        assert!(enter(&crowd, "192.0.2.1").is_err());
        drop(places);
        assert!(crowd.open().is_empty());
        assert!(enter(&crowd, "192.0.2.1").is_ok());
    }
}
