//! Every way a request can end without reaching an upstream: a closed list of stable codes, and how
//! each is told. Pure.

use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER};

use super::Paths;
use crate::policy::{Denial, Why};
use crate::store::StoreError;
use crate::web::page::{self, ErrorPage};
use crate::web::{Reply, Request};

/// A refusal. Its [`code`](Refusal::code) is the same word in the log, the metric, the page, the JSON
/// body and the docs; what each means stands in [`Refusal::row`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each variant is told by its row")]
pub enum Refusal {
    BadRequest,
    UnknownHost,
    NoRoute,
    MethodNotAllowed,
    BodyTooLarge,
    SignInRequired(Why),
    GroupMissing,
    StepUpRequired,
    CrossSite,
    LoginCookieMissing,
    LoginMalformed,
    LoginStateMismatch,
    LoginExpired,
    LoginReplayed,
    LoginDenied,
    LoginFailed,
    StepUpFailed,
    ProviderUnavailable,
    StoreUnavailable,
    UpstreamUnresolved,
    UpstreamUnreachable,
    UpstreamFailed,
    UpstreamTimeout,
    Internal,
}

/// How a refusal is told.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The stable code.
    pub code: &'static str,
    /// The status.
    pub status: StatusCode,
    /// What happened, in one sentence for the person.
    pub message: &'static str,
    /// What they can do.
    pub advice: &'static str,
    /// Whether the page offers to start again.
    pub retry: bool,
}

const fn row(code: &'static str, status: StatusCode, message: &'static str, advice: &'static str) -> Row {
    Row { code, status, message, advice, retry: false }
}

const fn retry(code: &'static str, status: StatusCode, message: &'static str, advice: &'static str) -> Row {
    Row { code, status, message, advice, retry: true }
}

const LATER: &str = "Try again in a moment. If it goes on, tell your administrator the request id.";
const TELL: &str = "If you think this is wrong, tell your administrator the code and the request id.";
const AGAIN: &str = "Start again. If it happens again, tell your administrator the request id.";

impl Refusal {
    /// One of each, for tables in tests and docs.
    pub const ALL: &'static [Self] = &[
        Self::BadRequest,
        Self::UnknownHost,
        Self::NoRoute,
        Self::MethodNotAllowed,
        Self::BodyTooLarge,
        Self::SignInRequired(Why::NoCredential),
        Self::GroupMissing,
        Self::StepUpRequired,
        Self::CrossSite,
        Self::LoginCookieMissing,
        Self::LoginMalformed,
        Self::LoginStateMismatch,
        Self::LoginExpired,
        Self::LoginReplayed,
        Self::LoginDenied,
        Self::LoginFailed,
        Self::StepUpFailed,
        Self::ProviderUnavailable,
        Self::StoreUnavailable,
        Self::UpstreamUnresolved,
        Self::UpstreamUnreachable,
        Self::UpstreamFailed,
        Self::UpstreamTimeout,
        Self::Internal,
    ];

    /// How it is told.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "a table, a row for each refusal")]
    pub const fn row(self) -> Row {
        use StatusCode as S;
        match self {
            Self::BadRequest => row(
                "bad_request",
                S::BAD_REQUEST,
                "The request could be read in more than one way, so it was refused.",
                TELL,
            ),
            Self::UnknownHost => row(
                "unknown_host",
                S::MISDIRECTED_REQUEST,
                "No application is served under this name here.",
                "Check the address.",
            ),
            Self::NoRoute => {
                row("no_route", S::NOT_FOUND, "There is nothing at this address.", "Check the address.")
            }
            Self::MethodNotAllowed => row(
                "method_not_allowed",
                S::METHOD_NOT_ALLOWED,
                "This address does not take requests of this kind.",
                TELL,
            ),
            Self::BodyTooLarge => {
                row("body_too_large", S::PAYLOAD_TOO_LARGE, "The request is too large.", TELL)
            }
            Self::SignInRequired(_) => retry(
                "sign_in_required",
                S::UNAUTHORIZED,
                "You need to sign in first.",
                "Sign in, then try again.",
            ),
            Self::GroupMissing => row(
                "group_missing",
                S::FORBIDDEN,
                "You are signed in, but your account may not open this page.",
                TELL,
            ),
            Self::StepUpRequired => row(
                "step_up_required",
                S::UNAUTHORIZED,
                "You are signed in, but this page needs a stronger or more recent sign-in.",
                "Open the page again to sign in for it.",
            ),
            Self::CrossSite => row(
                "cross_site",
                S::FORBIDDEN,
                "This request came from another site, so it was not carried out.",
                "Use the button below if you meant it.",
            ),
            Self::LoginCookieMissing => retry(
                "login_cookie_missing",
                S::BAD_REQUEST,
                "This sign-in was not started in this browser, or was already completed.",
                "Start again from the application. Allow cookies for this site, and don't bookmark sign-in pages.",
            ),
            Self::LoginMalformed => retry(
                "login_malformed",
                S::BAD_REQUEST,
                "The sign-in service sent an answer that can't be read.",
                AGAIN,
            ),
            Self::LoginStateMismatch => retry(
                "login_state_mismatch",
                S::BAD_REQUEST,
                "The sign-in service's answer does not belong to the sign-in that was started here.",
                AGAIN,
            ),
            Self::LoginExpired => retry(
                "login_expired",
                S::BAD_REQUEST,
                "Signing in took longer than ten minutes.",
                "Start again.",
            ),
            Self::LoginReplayed => {
                retry("login_replayed", S::BAD_REQUEST, "This sign-in was already used.", "Start again.")
            }
            Self::LoginDenied => {
                retry("login_denied", S::FORBIDDEN, "The sign-in service refused the sign-in.", AGAIN)
            }
            Self::LoginFailed => {
                retry("login_failed", S::BAD_REQUEST, "The sign-in could not be completed.", AGAIN)
            }
            Self::StepUpFailed => row(
                "step_up_failed",
                S::FORBIDDEN,
                "The page needs a stronger or more recent sign-in than the sign-in service gave.",
                "If you skipped a second step there, open the page again and take it. If you were offered none, tell your administrator the code and the request id.",
            ),
            Self::ProviderUnavailable => retry(
                "provider_unavailable",
                S::SERVICE_UNAVAILABLE,
                "The sign-in service can't be reached at the moment.",
                LATER,
            ),
            Self::StoreUnavailable => row(
                "store_unavailable",
                S::SERVICE_UNAVAILABLE,
                "Sessions can't be looked up at the moment. You have not been signed out.",
                LATER,
            ),
            Self::UpstreamUnresolved => row(
                "upstream_unresolved",
                S::BAD_GATEWAY,
                "The application's address can't be found at the moment.",
                LATER,
            ),
            Self::UpstreamUnreachable => row(
                "upstream_unreachable",
                S::BAD_GATEWAY,
                "The application can't be reached at the moment.",
                LATER,
            ),
            Self::UpstreamFailed => row(
                "upstream_failed",
                S::BAD_GATEWAY,
                "The application's answer was cut off or can't be read.",
                LATER,
            ),
            Self::UpstreamTimeout => {
                row("upstream_timeout", S::GATEWAY_TIMEOUT, "The application took too long to answer.", LATER)
            }
            Self::Internal => row("internal", S::INTERNAL_SERVER_ERROR, "Something went wrong here.", LATER),
        }
    }

    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        self.row().code
    }

    /// The status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.row().status
    }
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::SignInRequired(why) => Self::SignInRequired(why),
            Denial::GroupMissing => Self::GroupMissing,
            Denial::StepUpRequired(_) => Self::StepUpRequired,
        }
    }
}

impl From<StoreError> for Refusal {
    /// An outage is never "absent" and never "anonymous". `store::ObservedStore` has logged it.
    fn from(_: StoreError) -> Self {
        Self::StoreUnavailable
    }
}

/// Where a page's button leads.
#[derive(Clone, Copy, Debug)]
pub struct Action<'a> {
    /// What it says.
    pub label: &'a str,
    /// A path on this host.
    pub href: &'a str,
}

/// The answer for a refusal: a page where the client reads pages, else JSON.
#[must_use]
pub fn render(refusal: Refusal, request: &Request<'_>, paths: &Paths, demo: bool) -> Reply {
    let row = refusal.row();
    let sign_in = paths.of("sign_in");
    let action = row.retry.then_some(Action { label: "Start again", href: &sign_in });
    render_with(refusal, request, demo, action)
}

/// As [`render`], with a button of the caller's choice.
#[must_use]
pub fn render_with(refusal: Refusal, request: &Request<'_>, demo: bool, action: Option<Action<'_>>) -> Reply {
    let row = refusal.row();
    let request_id = request.id.to_string();
    let reply = if request.wants_html() {
        let page = ErrorPage {
            status: row.status.as_u16(),
            code: row.code,
            message: row.message,
            advice: row.advice,
            request_id: &request_id,
            action: action.map(|action| (action.label, action.href)),
            demo,
        };
        Reply::html(row.status, page::error(&page))
    } else {
        Reply::json(row.status, &json(&row, &request_id))
    };
    with_status_headers(reply, row.status)
}

/// The JSON body of a refusal.
#[must_use]
pub fn json(row: &Row, request_id: &str) -> serde_json::Value {
    serde_json::json!({ "error": row.code, "message": row.message, "request_id": request_id })
}

fn with_status_headers(reply: Reply, status: StatusCode) -> Reply {
    if status == StatusCode::SERVICE_UNAVAILABLE {
        // Long enough that a fleet of browsers does not hammer, short enough that nobody waits.
        return reply.with_header(RETRY_AFTER, HeaderValue::from_static("5"));
    }
    reply
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_refusal_has_a_code_of_its_own_and_a_refusing_status() {
        let codes: HashSet<_> = Refusal::ALL.iter().map(|refusal| refusal.code()).collect();
        assert_eq!(codes.len(), Refusal::ALL.len());
        for refusal in Refusal::ALL {
            assert!(refusal.status().as_u16() >= 400, "{refusal:?}");
            assert!(refusal.code().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
        }
    }
}
