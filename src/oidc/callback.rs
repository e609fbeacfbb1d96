//! The provider's answer in the browser: checked before any call to the provider (CB-1 to CB-9).

use super::authorize::LoginAttempt;
use crate::clock::UnixTime;
use crate::secret::Secret;

/// The parameters of a callback, each at most once, sizes bounded.
#[derive(Clone, Debug)]
pub struct Params {
    /// `state`; always there.
    pub state: Secret<String>,
    /// `iss` (RFC 9207).
    pub iss: Option<String>,
    /// `code` or `error`.
    pub outcome: Outcome,
}

/// What the provider answered.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A code to exchange.
    Code(Secret<String>),
    /// An error; `description` is cut and cleaned, for the log only.
    Error {
        /// The error code: at most 64 characters of `[a-z_]`, else "unknown".
        error: String,
        /// Printable text, at most 200 characters.
        description: String,
    },
}

/// Why a callback was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    /// CB-2, CB-6, CB-9.
    #[error("the callback's parameters are malformed: {0}")]
    Malformed(&'static str),
    /// The state is not that of the attempt.
    #[error("the callback's state is not the one that was sent")]
    StateMismatch,
    /// CB-5.
    #[error("the sign-in took longer than ten minutes")]
    Expired,
    /// CB-7.
    #[error("the callback names another issuer, or none where one is needed")]
    IssuerMismatch,
    /// AR-7: it came back on the callback path of another provider or host.
    #[error("the callback came back on another path than the one that was sent")]
    WrongCallback,
}

/// How long an attempt lives.
pub const ATTEMPT_LIFETIME: std::time::Duration = std::time::Duration::from_secs(600);

/// Reads the query (or form body) of a callback.
///
/// # Errors
/// [`CallbackError::Malformed`]: state or code missing, empty, too long (state over 512, code over
/// 4096 bytes) or repeated; both code and error; tokens in the query (CB-9); bytes that are no UTF-8.
/// Unknown parameters such as `session_state` are ignored.
pub fn parse(query: &str) -> Result<Params, CallbackError> {
    todo!()
}

/// Checks the parameters against the attempt that the cookie held, in the order of CB-3: state
/// (constant time), redirect URI, age, issuer. `here` is the redirect URI of the path that was called;
/// `iss_required` comes from the metadata.
///
/// # Errors
/// [`CallbackError`].
pub fn check(
    params: &Params,
    attempt: &LoginAttempt,
    here: &str,
    iss_required: bool,
    now: UnixTime,
) -> Result<(), CallbackError> {
    todo!()
}
