//! How the servers are reached, as the configuration says it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::secret::{self, Secret};

/// Where Redis is and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisSettings {
    /// The one server, or those of a cluster that are asked for the others.
    pub addresses: Vec<Address>,
    /// Whether the addresses are of a Redis Cluster.
    pub cluster: bool,
    /// TLS, and whom it trusts; `None`: plaintext.
    pub tls: Option<Trust>,
    /// The ACL user; `None`: the user `default`.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<Password>,
    /// The number of the database; 0 in a cluster.
    pub database: u32,
    /// What every key and the channel start with.
    pub key_prefix: String,
    /// Connections to each server.
    pub connections: usize,
    /// How long a connection may take until it can be used: TCP, TLS, password.
    pub connect_timeout: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// Host and port of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Address {
    /// `host:port`, with IPv6 in brackets.
    ///
    /// # Errors
    /// What it should be.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const WANTED: &str = "is no host and port, such as \"redis.internal:6379\"";
        let (host, port) = text.rsplit_once(':').ok_or(WANTED)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(WANTED)?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').filter(|inner| inner.contains(':')),
            None => Some(host).filter(|host| !host.contains(':')),
        };
        let is_name = |host: &&str| {
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b))
        };
        let host = host.filter(is_name).ok_or(WANTED)?;
        Ok(Self { host: host.to_owned(), port })
    }

    /// Whether the way there stays within this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let as_ip = self.host.parse::<std::net::IpAddr>();
        as_ip.map_or(self.host == "localhost", |ip| ip.is_loopback())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Which certificates vouch for the servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Those that the machine trusts.
    System,
    /// Those in a PEM file, and no others.
    File(PathBuf),
}

/// A password that may change while the gateway runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Password {
    /// As it was at the start.
    pub value: Secret<String>,
    /// Where it is read again at each new connection.
    pub file: Option<PathBuf>,
}

impl Password {
    /// The present one; that of the start where the file can't be read just now.
    pub(super) fn present(&self) -> Secret<String> {
        let read = |file| secret::one_line(&secret::load_again(file).ok()?).ok();
        self.file.as_deref().and_then(read).unwrap_or_else(|| self.value.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_alike() {
        for text in ["redis.internal:6379", "127.0.0.1:1", "[::1]:65535", "redis_1:6379"] {
            assert_eq!(Address::parse(text).map(|address| address.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "redis", "redis:", ":6379", "redis:0", "redis:65536", "::1:6379", "[::1]", "a b:1"] {
            assert!(Address::parse(text).is_err(), "{text:?}");
        }
        for text in ["redis://redis:6379", "user@redis:1", "[redis]:1", "redis:6379/1"] {
            assert!(Address::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn loopback_is_what_stays_within_the_machine() {
        let cases = [("127.9.9.9:1", true), ("[::1]:1", true), ("localhost:1", true), ("10.0.0.1:1", false)];
        for (text, expected) in cases {
            assert_eq!(Address::parse(text).unwrap().is_loopback(), expected, "{text}");
        }
        assert!(!Address::parse("localhost.example:1").unwrap().is_loopback());
    }

    #[test]
    fn a_password_in_a_file_is_read_anew() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let password = Password { value: Secret::new("first".to_owned()), file: Some(file.clone()) };
        assert_eq!(password.present().expose(), "first", "no file now");
        std::fs::write(&file, "second\n").unwrap();
        assert_eq!(password.present().expose(), "second");
        std::fs::write(&file, "").unwrap();
        assert_eq!(password.present().expose(), "first", "an empty file is none");
    }
}
