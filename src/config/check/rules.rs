//! Rules for single values; an error is a complaint that follows the value: "is not …".

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use url::{Host, Url};

use crate::config::read::Size;
use crate::route::PathPrefix;

/// A value that a range can be given for.
pub(super) trait Quantity: PartialOrd + Copy {
    /// As an operator would write it.
    fn written(self) -> String;
}

impl Quantity for Duration {
    fn written(self) -> String {
        humantime::format_duration(self).to_string()
    }
}

impl Quantity for usize {
    fn written(self) -> String {
        self.to_string()
    }
}

impl Quantity for Size {
    fn written(self) -> String {
        format!("{} bytes", self.0)
    }
}

/// Not less than `min`, not more than `max`.
pub(super) fn between<T: Quantity>(min: T, max: T) -> impl Fn(T) -> Result<T, String> {
    move |value| {
        let complaint = || format!("is not between {} and {}", min.written(), max.written());
        if (min..=max).contains(&value) { Ok(value) } else { Err(complaint()) }
    }
}

/// A duration from `min` to `max`, or `off`.
pub(super) fn period_or_off(text: &str, min: Duration, max: Duration) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    let period = humantime::parse_duration(text);
    let period = period.map_err(|_error| "is not a duration such as \"90d\", or \"off\"")?;
    between(min, max)(period).map(Some)
}

/// Not more than what another key says.
pub(super) fn at_most(value: Duration, max: Duration, key: &str) -> Result<Duration, String> {
    if value <= max { Ok(value) } else { Err(format!("is longer than {key} ({})", max.written())) }
}

/// One of a few words.
pub(super) fn one_of<T: Copy>(choices: &'static [(&'static str, T)]) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        let found = choices.iter().find(|(name, _)| *name == text);
        found.map(|(_, value)| *value).ok_or_else(|| not_one_of(choices.iter().map(|(name, _)| *name)))
    }
}

fn not_one_of<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.map(|name| format!("{name:?}")).collect();
    format!("is not one of {}", names.join(", "))
}

/// Not among those that were seen; remembers it.
pub(super) fn once<T: PartialEq + Clone>(value: T, seen: &mut Vec<T>, twice: &str) -> Result<T, String> {
    if seen.contains(&value) {
        return Err(twice.to_owned());
    }
    seen.push(value.clone());
    Ok(value)
}

/// Something is written, and on one line.
pub(super) fn not_empty(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() || text.chars().any(char::is_control) {
        return Err("is empty or holds a line break");
    }
    Ok(text.to_owned())
}

/// A word that can stand in a list with spaces and between quotes: RFC 6749 3.3.
pub(super) fn token(text: &str) -> Result<Arc<str>, NoToken> {
    let fits = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    if !text.is_empty() && text.bytes().all(fits) { Ok(text.into()) } else { Err(NoToken) }
}

/// What is no [`token`].
pub(super) struct NoToken;

/// Address and port.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_error| "is not an address and port such as \"0.0.0.0:443\" or \"[::]:443\"")
}

/// Address and port, or `off`.
pub(super) fn address_or_off(text: &str) -> Result<Option<SocketAddr>, &'static str> {
    if text == "off" {
        return Ok(None);
    }
    let address = text.parse().map_err(|_error| "is not an address and port, or \"off\"")?;
    Ok(Some(address))
}

/// The place of the gateway's own endpoints: a canonical path, not the root.
pub(super) fn endpoint_prefix(text: &str) -> Result<String, String> {
    let prefix = PathPrefix::parse(text).map_err(|error| error.to_string())?;
    match prefix.as_str() {
        "" => Err("would leave no path for applications; write one such as \"/oauth2\"".to_owned()),
        prefix => Ok(prefix.to_owned()),
    }
}

/// An http or https URL with a host and nothing secret in it.
pub(super) fn http_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_error| "is not an http or https URL")?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("is not an http or https URL");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a user name or password in it, which does not belong into a URL");
    }
    Ok(url)
}

/// An http or https URL of scheme, name and port only.
pub(super) fn origin_url(text: &str) -> Result<Url, &'static str> {
    let url = http_url(text)?;
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err("has more than scheme, name and port in it");
    }
    Ok(url)
}

/// Whether a URL's host is this machine, whatever the network does.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
