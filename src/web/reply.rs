//! An answer that the gateway gives itself.

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

/// Status, headers and a whole body. Every reply is `Cache-Control: no-store`,
/// `X-Content-Type-Options: nosniff` and `Referrer-Policy: no-referrer`.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// All headers but `Content-Length` and `Date`, which the server sets.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// A reply without a body.
    #[must_use]
    pub fn empty(status: StatusCode) -> Self {
        todo!()
    }

    /// An HTML page under the pages' Content-Security-Policy ([`super::page::CONTENT_SECURITY_POLICY`]).
    #[must_use]
    pub fn html(status: StatusCode, page: String) -> Self {
        todo!()
    }

    /// A JSON body.
    #[must_use]
    pub fn json(status: StatusCode, body: &serde_json::Value) -> Self {
        todo!()
    }

    /// A 303 to `location` (an absolute URL or a path that the caller has checked).
    ///
    /// # Errors
    /// [`LocationError`] when it holds bytes that may not stand in a header (RD-5).
    pub fn redirect(location: &str) -> Result<Self, LocationError> {
        todo!()
    }

    /// The same reply with one more header, which replaces one of the same name.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

/// A redirect target that may not stand in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the redirect target holds bytes that are not allowed in a header")]
pub struct LocationError;
