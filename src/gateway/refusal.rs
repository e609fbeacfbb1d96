//! Every way a request can end without reaching an upstream: a closed list of stable codes, and how
//! each is told. Pure.

use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER};

use super::Paths;
use super::limits::Wait;
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
    BodyTooSlow,
    SignInRequired(Why),
    GroupMissing,
    StepUpRequired,
    CrossSite,
    TooManyFailures(Wait),
    TooManySignIns(Wait),
    TooManyRequests(Wait),
    LoginCookieMissing,
    LoginStale,
    LoginFramed,
    LoginOverHttp,
    LoginOtherHost,
    LoginLoop(Loop),
    LoginMalformed,
    LoginStateMismatch,
    LoginExpired,
    LoginReplayed,
    LoginDenied,
    LoginFailed,
    StepUpFailed,
    SessionLimit,
    LoginFailedClock,
    LoginFailedClient,
    ProviderUnavailable,
    StoreUnavailable,
    UpstreamUnresolved,
    UpstreamUnreachable,
    UpstreamFailed,
    UpstreamTimeout,
    Internal,
}

/// Why a browser signs in again and again: what it shows of that when it is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loop {
    /// No session cookie comes back.
    CookieLost,
    /// One comes that does not open, or two.
    CookieUnreadable,
    /// The session is not in the store.
    SessionLost,
    /// The session's time is over at once.
    SessionEnded,
    /// The session lives: something else asks for a new one.
    SignedIn,
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
    /// What the operator should change or look at; for the log, may be empty.
    pub hint: &'static str,
}

impl Row {
    const fn hinted(self, hint: &'static str) -> Self {
        Self { hint, ..self }
    }
}

const fn row(code: &'static str, status: StatusCode, message: &'static str, advice: &'static str) -> Row {
    Row { code, status, message, advice, retry: false, hint: "" }
}

const fn retry(code: &'static str, status: StatusCode, message: &'static str, advice: &'static str) -> Row {
    Row { code, status, message, advice, retry: true, hint: "" }
}

const LATER: &str = "Try again in a moment. If it goes on, tell your administrator the request id.";
const TELL: &str = "If you think this is wrong, tell your administrator the code and the request id.";
const SHARED_ADDRESS: &str =
    "behind a load balancer all clients have its address, unless it is among server.trusted_proxies";
const AGAIN: &str = "Start again. If it happens again, tell your administrator the request id.";

impl Refusal {
    /// One of each, for tables in tests and docs.
    pub const ALL: &'static [Self] = &[
        Self::BadRequest,
        Self::UnknownHost,
        Self::NoRoute,
        Self::MethodNotAllowed,
        Self::BodyTooLarge,
        Self::BodyTooSlow,
        Self::SignInRequired(Why::NoCredential),
        Self::GroupMissing,
        Self::StepUpRequired,
        Self::CrossSite,
        Self::TooManyFailures(Wait(1)),
        Self::TooManySignIns(Wait(1)),
        Self::TooManyRequests(Wait(1)),
        Self::LoginCookieMissing,
        Self::LoginStale,
        Self::LoginFramed,
        Self::LoginOverHttp,
        Self::LoginOtherHost,
        Self::LoginLoop(Loop::CookieLost),
        Self::LoginMalformed,
        Self::LoginStateMismatch,
        Self::LoginExpired,
        Self::LoginReplayed,
        Self::LoginDenied,
        Self::LoginFailed,
        Self::StepUpFailed,
        Self::SessionLimit,
        Self::LoginFailedClock,
        Self::LoginFailedClient,
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
            Self::BodyTooSlow => row(
                "body_too_slow",
                S::REQUEST_TIMEOUT,
                "Too little of the request came in time.",
                "Check your connection, then try again.",
            ),
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
                "If you meant it, begin it here: open the application itself, or use the button below where there is one.",
            ),
            Self::TooManyFailures(_) => row(
                "too_many_failures",
                S::TOO_MANY_REQUESTS,
                "Too many attempts from your network failed.",
                "Wait a minute, then open the application again. If it goes on, tell your administrator the \
                 request id.",
            )
            .hinted(SHARED_ADDRESS),
            Self::TooManySignIns(_) => retry(
                "too_many_sign_ins",
                S::TOO_MANY_REQUESTS,
                "Too many people in your network are signing in at this moment.",
                LATER,
            )
            .hinted(SHARED_ADDRESS),
            Self::TooManyRequests(_) => row(
                "too_many_requests",
                S::TOO_MANY_REQUESTS,
                "Too many requests came from you at once.",
                LATER,
            ),
            Self::LoginCookieMissing => retry(
                "login_cookie_missing",
                S::BAD_REQUEST,
                "This sign-in was not started in this browser, or its cookie was lost on the way.",
                "Start again, in one browser from start to end. If that ends here too, allow cookies for this site: \
                 private windows and extensions may block them.",
            )
            .hinted(
                "cookies are blocked, a proxy in front drops Set-Cookie, or what people open is not the public_url",
            ),
            Self::LoginStale => retry(
                "login_stale",
                S::BAD_REQUEST,
                "This sign-in is over.",
                "It was completed before, or others that began later took its place. Start again; a bookmark \
                 should lead to the application, not to a sign-in page.",
            ),
            Self::LoginFramed => retry(
                "login_framed",
                S::BAD_REQUEST,
                "Sign-in does not work inside another site's page.",
                "Open the application in a tab of its own: browsers keep its cookies from pages of other sites.",
            )
            .hinted("the application is embedded in a page of another site, where its cookies are not sent"),
            Self::LoginOverHttp => retry(
                "login_over_http",
                S::BAD_REQUEST,
                "This sign-in began over http, and its cookie needs https.",
                "Open the application with https:// in front of its name.",
            )
            .hinted(
                "X-Forwarded-Proto said http where the sign-in began: have the load balancer redirect http to https",
            ),
            Self::LoginOtherHost => retry(
                "login_other_host",
                S::BAD_REQUEST,
                "This sign-in began under another name than this one.",
                "Start again from here, and open the application under this name from now on.",
            )
            .hinted(
                "X-Forwarded-Host said another name where the sign-in began: let the load balancer keep Host and \
                 give that name a route, or have it redirect to the public_url",
            ),
            Self::LoginLoop(cause) => login_loop(cause),
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
            Self::SessionLimit => retry(
                "session_limit",
                S::FORBIDDEN,
                "You are signed in in as many places as is allowed.",
                "Sign out in another browser or application, then start again.",
            ),
            Self::LoginFailedClock => retry(
                "login_failed_clock",
                S::BAD_REQUEST,
                "The sign-in could not be completed, because two clocks disagree.",
                "It is not your clock. Tell your administrator the code and the request id.",
            )
            .hinted("the provider's clock and this machine's differ: set both by NTP, or raise the provider's leeway"),
            Self::LoginFailedClient => retry(
                "login_failed_client",
                S::BAD_REQUEST,
                "The sign-in service does not accept this gateway.",
                TELL,
            )
            .hinted("the provider refuses the client: check client_id, client_secret or client_key, and client_auth"),
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

    /// After how many seconds the same may work, as far as that is known.
    #[must_use]
    fn retry_after(self) -> Option<HeaderValue> {
        if let Self::TooManyFailures(wait) | Self::TooManySignIns(wait) | Self::TooManyRequests(wait) = self {
            return Some(HeaderValue::from(wait.0));
        }
        // Long enough that a fleet of browsers does not hammer, short enough that nobody waits.
        (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(HeaderValue::from_static("5"))
    }

    /// What happened, for the log: with what the operator should change, where that is known.
    #[must_use]
    pub fn explain(self, detail: &str) -> String {
        match self.row().hint {
            "" => detail.to_owned(),
            hint => format!("{detail}; {hint}"),
        }
    }

    /// The status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.row().status
    }
}

/// One code for all loops, words for each cause.
const fn login_loop(cause: Loop) -> Row {
    let (advice, hint) = match cause {
        Loop::CookieLost => (
            "Each time it worked, but your browser did not keep the cookie that says so. Allow cookies for this \
             site, also in private windows and extensions, then try again.",
            "the session cookie never comes back: a browser that refuses it, or a proxy in front that drops or \
             rewrites Set-Cookie",
        ),
        Loop::CookieUnreadable => (
            "Each time it worked, but your browser sends a cookie that can't be used here. Delete this site's \
             cookies, then try again.",
            "the session cookie comes back and can't be used: gateways behind one name with different session \
             keys, or two cookies of its name",
        ),
        Loop::SessionLost => (
            "Each time it worked, but your session was gone at once.",
            "the session is not in the store: gateways behind one name share no sessions, so each browser has to \
             get to the same one",
        ),
        Loop::SessionEnded => (
            "Each time it worked, but your session was over at once.",
            "the session's time is over at once: session.idle_timeout or max_lifetime is short, or the clock jumps",
        ),
        Loop::SignedIn => (
            "You are signed in, but the application keeps asking for a new sign-in.",
            "the session lives: the application itself sends people to sign-in, perhaps because it does not see \
             who they are",
        ),
    };
    let message = "You were sent to sign in again and again, so this was stopped.";
    retry("login_loop", StatusCode::BAD_REQUEST, message, advice).hinted(hint)
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
    match refusal.retry_after() {
        Some(seconds) => reply.with_header(RETRY_AFTER, seconds),
        None => reply,
    }
}

/// The JSON body of a refusal.
#[must_use]
pub fn json(row: &Row, request_id: &str) -> serde_json::Value {
    serde_json::json!({ "error": row.code, "message": row.message, "request_id": request_id })
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

    #[test]
    fn each_cause_of_a_loop_has_words_of_its_own_for_people_and_operators() {
        let causes =
            [Loop::CookieLost, Loop::CookieUnreadable, Loop::SessionLost, Loop::SessionEnded, Loop::SignedIn];
        let rows = causes.map(|cause| Refusal::LoginLoop(cause).row());
        let words: HashSet<_> = rows.iter().flat_map(|row| [row.advice, row.hint]).collect();
        assert_eq!(words.len(), 2 * causes.len());
        assert!(rows.iter().all(|row| row.code == "login_loop" && row.retry));
    }

    #[test]
    fn the_log_says_what_to_change_where_that_is_known() {
        let told = Refusal::LoginFailedClock.explain("`iat` lies in the future");
        assert!(told.starts_with("`iat` lies in the future; ") && told.contains("NTP"), "{told}");
        assert_eq!(Refusal::LoginFailed.explain("x"), "x");
    }
}
