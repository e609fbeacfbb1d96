//! Which addresses a provider may be called at (SF-1).
//!
//! A provider's metadata names the places that keys, tokens and claims are asked for. Whoever can write
//! into that document, or into the DNS of a name in it, must not make the gateway knock at doors of the
//! operator's own network. So internal addresses are refused, after names are resolved and before anything
//! is connected: what was looked at is what is connected to. A provider that itself was inside when its name
//! was first resolved may name internal places; it is where the operator said it is.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Looks a name up: all its addresses.
type LookUp = dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync;

/// Where one provider may be called. All copies know the same.
#[derive(Clone)]
pub struct Reach(Arc<Bounds>);

struct Bounds {
    /// The host of the issuer, where it is a name.
    issuer: Option<String>,
    /// Whether internal addresses are allowed: settled by the configuration, by an issuer that is an address,
    /// or when the issuer's name is first resolved. Never changes then: a name that moves inside while the
    /// gateway runs is what rebinding looks like.
    internal: OnceLock<bool>,
    look_up: Box<LookUp>,
}

/// An address that a provider may not be called at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{host} is at {address}, an internal address, where this provider may not be called")]
pub(super) struct Refused {
    host: String,
    address: IpAddr,
}

impl Reach {
    /// The bounds of the provider with this issuer. `internal`: it may be called at any address.
    #[must_use]
    pub fn new(issuer: &str, internal: bool) -> Self {
        Self::with_names(issuer, internal, |name| Box::pin(system(name)))
    }

    fn with_names(
        issuer: &str,
        internal: bool,
        look_up: impl Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync + 'static,
    ) -> Self {
        let url = Url::parse(issuer).ok();
        let host = url.as_ref().and_then(Url::host);
        let settled = OnceLock::new();
        if internal {
            let _ = settled.set(true);
        } else if let Some(address) = host.as_ref().and_then(address_of) {
            let _ = settled.set(is_internal(address));
        }
        let issuer = host.as_ref().map(ToString::to_string);
        Self(Arc::new(Bounds { issuer, internal: settled, look_up: Box::new(look_up) }))
    }

    /// Refuses a URL whose host is an internal address itself: nothing is resolved for such a one.
    pub(super) fn check(&self, url: &Url) -> Result<(), Refused> {
        let Some(host) = url.host() else { return Ok(()) };
        match address_of(&host).filter(|address| is_internal(*address)) {
            Some(address) if !self.is_inside() => Err(Refused { host: host.to_string(), address }),
            _ => Ok(()),
        }
    }

    /// Whether the provider is known to be inside.
    fn is_inside(&self) -> bool {
        self.0.internal.get().copied().unwrap_or(false)
    }

    /// The addresses of a name that may be connected to.
    async fn addresses(&self, name: String) -> Result<Vec<IpAddr>, Box<dyn std::error::Error + Send + Sync>> {
        let found = (self.0.look_up)(name.clone()).await?;
        if self.0.issuer.as_deref() == Some(&name) && !found.is_empty() {
            self.0.internal.get_or_init(|| found.iter().all(|address| is_internal(*address)));
        }
        if self.is_inside() {
            return Ok(found);
        }
        let (refused, allowed): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|address| is_internal(*address));
        match refused.first() {
            Some(address) if allowed.is_empty() => Err(Refused { host: name, address: *address }.into()),
            _ => Ok(allowed),
        }
    }
}

impl Resolve for Reach {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.clone();
        Box::pin(async move {
            let addresses = reach.addresses(name.as_str().to_owned()).await?;
            // The port is set by the caller.
            let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}

impl fmt::Debug for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reach {{ issuer: {:?}, internal: {:?} }}", self.0.issuer, self.0.internal.get())
    }
}

async fn system(name: String) -> io::Result<Vec<IpAddr>> {
    Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect())
}

fn address_of<T>(host: &Host<T>) -> Option<IpAddr> {
    match host {
        Host::Ipv4(address) => Some(IpAddr::V4(*address)),
        Host::Ipv6(address) => Some(IpAddr::V6(*address)),
        Host::Domain(_) => None,
    }
}

/// Whether an address is none of the public internet's: loopback, private, link-local (clouds keep the
/// credentials of a machine at 169.254.169.254), shared (RFC 6598), unspecified, multicast, reserved, and
/// every IPv6 form that leads to one of those.
fn is_internal(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_internal_v4(address),
        IpAddr::V6(address) => is_internal_v6(address),
    }
}

/// The special-purpose registry of IANA (RFC 6890), without the three networks for documentation, which lead
/// nowhere.
fn is_internal_v4(address: Ipv4Addr) -> bool {
    match address.octets() {
        [100, second, ..] => second & 0xc0 == 64,
        [172, second, ..] => second & 0xf0 == 16,
        [0 | 10 | 127, ..] | [169, 254, ..] | [192, 168, ..] | [192, 0, 0, _] | [198, 18 | 19, ..] => true,
        [first, ..] => first >= 224,
    }
}

/// Global unicast is 2000::/3 (RFC 4291 2.4); all else is internal, but for IPv4 addresses in IPv6.
fn is_internal_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    match segments {
        // Mapped, and translated by the well-known prefix (RFC 6052).
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            is_internal_v4(v4(high, low))
        }
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => is_internal_v4(v4(high, low)),
        // Teredo (RFC 4380) hides the address of a client behind a relay; no provider is there.
        [0x2001, 0, ..] => true,
        [first, ..] => first & 0xe000 != 0x2000,
    }
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;

    use super::*;

    /// Names that a test changes.
    #[derive(Clone, Default)]
    pub(in super::super) struct Names(Arc<Mutex<Table>>);

    type Table = HashMap<String, Vec<IpAddr>>;

    impl Names {
        pub(in super::super) fn set(&self, name: &str, addresses: &[&str]) {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            self.0.lock().unwrap().insert(name.to_owned(), addresses);
        }

        /// The bounds of a provider among these names.
        pub(in super::super) fn reach(&self, issuer: &str, internal: bool) -> Reach {
            let names = self.clone();
            Reach::with_names(issuer, internal, move |wanted| {
                let found = names.0.lock().unwrap().get(&wanted).cloned();
                Box::pin(async move { found.ok_or_else(|| io::Error::other("no such name")) })
            })
        }
    }

    impl Reach {
        /// What a call to this host would connect to; the words of the refusal otherwise.
        pub(in super::super) async fn of(&self, name: &str) -> Result<Vec<String>, String> {
            let found = self.addresses(name.to_owned()).await.map_err(|error| error.to_string())?;
            Ok(found.iter().map(ToString::to_string).collect())
        }
    }

    const PUBLIC: &str = "192.0.2.10";

    #[test]
    fn what_is_not_of_the_public_internet_is_internal() {
        let internal = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0:127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "64:ff9b::1:0:7f00:1",
            "2002:7f00:1::1",
            "2002:a9fe:a9fe::1",
            "2001::1",
            "2001:0:5ef5:79fd::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "100::1",
            "4000::1",
        ];
        for text in internal {
            assert!(is_internal(text.parse().unwrap()), "{text}");
        }
        let public = [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "126.0.0.1",
            "128.0.0.1",
            "169.253.0.1",
            "169.255.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "192.0.2.1",
            "192.167.0.1",
            "192.169.0.1",
            "198.17.0.1",
            "198.20.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "223.255.255.255",
            "2001:db8::1",
            "2606:4700::1111",
            "2002:101:101::1",
            "2001:1::1",
            "3fff::1",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
        ];
        for text in public {
            assert!(!is_internal(text.parse().unwrap()), "{text}");
        }
    }

    #[tokio::test]
    async fn a_provider_outside_reaches_nothing_inside() {
        let names = Names::default();
        names.set("op.test", &[PUBLIC, "2001:db8::1"]);
        names.set("keys.test", &["198.51.100.7"]);
        names.set("mixed.test", &["10.0.0.1", PUBLIC, "::1"]);
        let reach = names.reach("https://op.test/realm", false);
        assert_eq!(reach.of("op.test").await.unwrap(), [PUBLIC, "2001:db8::1"]);
        assert_eq!(reach.of("keys.test").await.unwrap(), ["198.51.100.7"]);
        assert_eq!(reach.of("mixed.test").await.unwrap(), [PUBLIC], "only what is public is connected to");
        for inside in ["127.0.0.1", "169.254.169.254", "10.1.2.3", "::1", "::ffff:10.0.0.1", "fd00::1"] {
            names.set("metadata.test", &[inside]);
            let refusal = reach.of("metadata.test").await.unwrap_err();
            let address: IpAddr = inside.parse().unwrap();
            let wanted = format!(
                "metadata.test is at {address}, an internal address, where this provider may not be called"
            );
            assert_eq!(refusal, wanted);
        }
    }

    #[tokio::test]
    async fn ax_235_a_name_that_moves_inside_after_the_start_is_not_followed() {
        let names = Names::default();
        let reach = names.reach("https://op.test", false);
        names.set("op.test", &[]);
        assert_eq!(reach.of("op.test").await.unwrap(), Vec::<String>::new(), "no address settles nothing");
        names.set("op.test", &[PUBLIC]);
        reach.of("op.test").await.unwrap();
        names.set("op.test", &["127.0.0.1"]);
        let refusal = reach.of("op.test").await.unwrap_err();
        assert!(refusal.contains("op.test is at 127.0.0.1"), "{refusal}");
        names.set("op.test", &["127.0.0.1", PUBLIC]);
        assert_eq!(reach.of("op.test").await.unwrap(), [PUBLIC]);
    }

    #[tokio::test]
    async fn a_provider_inside_and_one_that_is_allowed_reach_what_is_inside() {
        let names = Names::default();
        names.set("op.test", &["10.0.0.5", "fd00::5"]);
        names.set("keys.test", &["10.0.0.6"]);
        let reach = names.reach("https://op.test", false);
        reach.of("keys.test").await.unwrap_err();
        assert_eq!(reach.of("op.test").await.unwrap(), ["10.0.0.5", "fd00::5"]);
        assert_eq!(reach.of("keys.test").await.unwrap(), ["10.0.0.6"], "known to be inside");
        names.set("op.test", &[PUBLIC]);
        assert_eq!(
            names.reach("https://op.test", true).of("keys.test").await.unwrap(),
            ["10.0.0.6"],
            "allowed"
        );
        names.set("op.test", &[PUBLIC, "10.0.0.5"]);
        let half = names.reach("https://op.test", false);
        assert_eq!(half.of("op.test").await.unwrap(), [PUBLIC], "half inside is outside");
        half.of("keys.test").await.unwrap_err();
    }

    #[test]
    fn a_host_that_is_an_address_is_judged_as_it_stands() {
        let outside = ["https://192.0.2.1", "https://op.test"];
        let inside = ["https://10.0.0.1", "http://127.0.0.1:8080", "https://[fd00::1]/realm"];
        let urls = [
            "https://169.254.169.254/latest",
            "https://127.1/",
            "https://0x7f000001/",
            "https://2130706433/",
            "https://0177.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[fe80::1]/",
            "https://0/",
        ];
        for url in urls {
            let url = Url::parse(url).unwrap();
            for issuer in outside {
                assert!(Reach::new(issuer, false).check(&url).is_err(), "{issuer}: {url}");
                assert!(Reach::new(issuer, true).check(&url).is_ok(), "{issuer}: {url}, allowed");
            }
            for issuer in inside {
                assert!(Reach::new(issuer, false).check(&url).is_ok(), "{issuer}: {url}");
            }
        }
        for url in ["https://192.0.2.7/", "https://op.test/", "https://[2001:db8::1]/"] {
            assert!(Reach::new("https://op.test", false).check(&Url::parse(url).unwrap()).is_ok(), "{url}");
        }
    }
}
