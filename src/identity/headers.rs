//! THE TABLE of identity headers: the list of what is stripped from clients and the list of what is
//! set for upstreams are one table, so that spoofing has one place to fail.

use std::sync::Arc;

use http::header::{HeaderName, HeaderValue};

use super::Identity;
use crate::token::Claims;

/// What a header is filled with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// [`Identity::user`].
    User,
    /// [`Identity::email`].
    Email,
    /// [`Identity::groups`], joined with `,`; a `,` inside a group is percent-encoded.
    Groups,
    /// [`Identity::preferred_username`].
    PreferredUsername,
    /// A claim at a dotted path: string, number, boolean, or list of strings.
    Claim(Arc<str>),
}

/// A set of names that applications already read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Preset {
    /// `X-Forwarded-User`, `-Email`, `-Groups`, `-Preferred-Username`.
    #[default]
    XForwarded,
    /// `X-Auth-Request-User`, `-Email`, `-Groups`, `-Preferred-Username`.
    XAuthRequest,
    /// `Remote-User`, `Remote-Email`, `Remote-Groups`, `Remote-Name`.
    Remote,
}

/// The headers as configured.
#[derive(Clone, Debug)]
pub struct HeaderTable {
    rows: Vec<(HeaderName, Source)>,
}

/// Identity headers, rendered once for a session and copied to each request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RenderedHeaders(pub Vec<(HeaderName, HeaderValue)>);

/// The header that carries the access token on routes that ask for it.
pub const ACCESS_TOKEN_HEADER: HeaderName = HeaderName::from_static("x-forwarded-access-token");

impl HeaderTable {
    /// The presets' rows and the extra ones; a later row replaces an earlier one of the same name.
    #[must_use]
    pub fn new(presets: &[Preset], extra: Vec<(HeaderName, Source)>) -> Self {
        todo!()
    }

    /// Whether a client's header of this name must not reach an upstream: every name of every
    /// preset and row, in any spelling (`_`, `.`, case); every name with a byte outside `[A-Za-z0-9-]`
    /// (IH-2); the access token header. `name` may be of any case.
    #[must_use]
    pub fn is_stripped(&self, name: &str) -> bool {
        todo!()
    }

    /// Renders the headers of an identity. Claims that are missing or of a wrong type give no header
    /// (IH-7). Values are percent-encoded UTF-8 where they hold controls, non-ASCII, `%`, or white
    /// space at an end (IH-5). Together at most 8 KiB; a header that doesn't fit is left out.
    #[must_use]
    pub fn render(&self, identity: &Identity, claims: &Claims) -> RenderedHeaders {
        todo!()
    }

    /// The configured names, for docs and the `check` command.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.rows.iter().map(|(name, _)| name)
    }
}
