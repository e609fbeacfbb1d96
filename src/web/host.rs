//! The host that a request names, in one canonical form.

/// A host name with its port, canonical: lower case, without a trailing dot.
///
/// `name` is a DNS name, an IPv4 address, or an IPv6 address in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    name: String,
    port: Option<u16>,
}

/// A `Host` field that is no `host[:port]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the Host field is not a valid host[:port]")]
pub struct HostError;

impl Host {
    /// Reads `host[:port]` (RFC 9110 7.2, PP-7).
    ///
    /// # Errors
    /// [`HostError`] for userinfo, an empty or odd name, a port that is no number in 1..=65535.
    pub fn parse(bytes: &[u8]) -> Result<Self, HostError> {
        todo!()
    }

    /// The name, without the port.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port, if the request named one.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        self.port
    }
}
