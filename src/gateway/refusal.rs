//! Every way a request can end without reaching an upstream: a closed list of stable codes.

use http::StatusCode;

use crate::policy::Why;

/// A refusal. Its [`code`](Refusal::code) is the same word in the log, the metric, the page, the JSON body and the docs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each variant is told by its row in the table below")]
pub enum Refusal {
    BadRequest,
    UnknownHost,
    NoRoute,
    MethodNotAllowed,
    BodyTooLarge,
    SignInRequired(Why),
    GroupMissing,
    CrossSite,
    UnknownProvider,
    LoginCookieMissing,
    LoginMalformed,
    LoginStateMismatch,
    LoginExpired,
    LoginReplayed,
    LoginDenied,
    LoginFailed,
    ProviderUnavailable,
    StoreUnavailable,
    UpstreamUnresolved,
    UpstreamUnreachable,
    UpstreamFailed,
    UpstreamTimeout,
    Internal,
}

impl Refusal {
    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        todo!()
    }

    /// The status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        todo!()
    }
}
