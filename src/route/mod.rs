//! Which application: host and path patterns, compiled at load; the longest match wins.
//!
//! First step of a verdict: [`RouteTable::find`] gives the application, [`HostTable::find`] what is
//! configured for the host (public URL, cookie names). Both read the canonical host and path only,
//! never the query, a header or raw bytes (PP-1, PP-5).

mod host;
mod path;
mod site;
mod table;

pub use host::HostPattern;
pub use path::PathPrefix;
pub use site::{HostSettings, HostTable, Site};
pub use table::{Ambiguous, CountedBy, CrossSite, Route, RouteRate, RouteTable, Upstream, UpstreamId};

/// A pattern that can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Neither a name, nor `*.` and a name, nor `*`.
    #[error("is not a host name, `*.` and a host name, or `*`")]
    Host,
    /// Not a canonical path.
    #[error("is not a canonical path: {0}")]
    Path(&'static str),
}
