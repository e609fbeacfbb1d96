//! The URLs that the gateway answers itself: one URL, one file, one row of THE TABLE.

use bytes::Bytes;

use crate::gateway::{Gateway, Paths};
use crate::web::{Reply, Request, Target};

/// A row of the table.
#[derive(Debug)]
pub struct Endpoint {
    /// Path below the prefix.
    pub name: &'static str,
    /// The most bytes of body that it reads; 0: none is read.
    pub max_body_bytes: usize,
}

/// The endpoint at a target below the prefix. A path below the prefix that is no endpoint is `Some`
/// too: it is answered with 404 and never reaches an upstream.
#[must_use]
pub fn find(paths: &Paths, target: &Target) -> Option<&'static Endpoint> {
    todo!()
}

/// Answers a request to an endpoint. `body` is what was read, at most `max_body_bytes`.
pub async fn answer(
    endpoint: &'static Endpoint,
    gateway: &Gateway,
    request: &Request<'_>,
    body: Bytes,
) -> Answer {
    todo!()
}

/// An endpoint's answer, with what the access event says of it.
#[derive(Debug)]
pub struct Answer {
    /// The reply, its `Set-Cookie` fields included.
    pub reply: Reply,
    /// The refusal's code, if it was one.
    pub refusal: Option<&'static str>,
}
