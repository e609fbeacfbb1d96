//! Why a callback came without the cookie of its sign-in: what the two requests show of it.
//!
//! The request that begins a sign-in may show already that its cookie will not come back. Nothing is
//! remembered of it here and the cookie itself is what gets lost, so a word at the end of the state says
//! it. That word and the fields behind it are anybody's to write: they choose what a page and a log line
//! say and decide nothing else.

use super::Refusal;
use crate::route::Site;
use crate::session::cookie::is_ours;
use crate::web::{Host, Request, cookie};

/// What ends a state whose sign-in began over http, though the host's public URL is https.
const OVER_HTTP: &str = ".http";

/// What ends a state whose sign-in began under another name than the host's public URL.
const OTHER_HOST: &str = ".host";

/// What belongs at the end of the state of a sign-in that this request begins; mostly nothing.
#[must_use]
pub fn mark(request: &Request<'_>, site: &Site) -> &'static str {
    let scheme = first_item(request, "x-forwarded-proto").unwrap_or_default();
    let host = first_item(request, "x-forwarded-host").and_then(|host| Host::parse(host).ok());
    if site.cookies.secure() && scheme.eq_ignore_ascii_case(b"http") {
        OVER_HTTP
    } else if host.is_some_and(|host| host.name() != &*site.name) {
        OTHER_HOST
    } else {
        ""
    }
}

/// Why the cookie of a sign-in with this state did not come. Whoever sends another cookie of ours keeps
/// cookies: then it is the sign-in that is over.
#[must_use]
pub fn missing_cookie(request: &Request<'_>, state: &str) -> Refusal {
    if cookie::pairs(request.headers).any(|(name, _)| is_ours(name)) {
        Refusal::LoginStale
    } else if request.is_framed() {
        Refusal::LoginFramed
    } else if state.ends_with(OVER_HTTP) {
        Refusal::LoginOverHttp
    } else if state.ends_with(OTHER_HOST) {
        Refusal::LoginOtherHost
    } else {
        Refusal::LoginCookieMissing
    }
}

/// The first item of a field, which the first proxy wrote that saw the browser.
fn first_item<'a>(request: &Request<'a>, name: &str) -> Option<&'a [u8]> {
    let value = request.headers.get(name)?.as_bytes();
    value.split(|byte| *byte == b',').next().map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::super::rig::{Owned, Rig};
    use super::*;

    type Fields = &'static [(&'static str, &'static str)];

    const PROTO: &str = "x-forwarded-proto";
    const NAME: &str = "x-forwarded-host";

    #[tokio::test]
    async fn a_state_says_when_its_cookie_will_not_come_back() {
        let rig = Rig::new();
        let rows: &[(&str, Fields, &str)] = &[
            ("nothing is said", &[], ""),
            ("all is well", &[(PROTO, "https"), (NAME, "app.test")], ""),
            ("http", &[(PROTO, "http")], OVER_HTTP),
            ("http, then https", &[(PROTO, "HTTP, https")], OVER_HTTP),
            ("https, then http", &[(PROTO, "https, http")], ""),
            ("another name", &[(NAME, "www.app.test")], OTHER_HOST),
            ("another name, then ours", &[(NAME, "www.app.test, app.test")], OTHER_HOST),
            ("our name and a port", &[(NAME, "APP.test:8443")], ""),
            ("no name", &[(NAME, "%%%")], ""),
            ("both", &[(NAME, "www.app.test"), (PROTO, "http")], OVER_HTTP),
        ];
        for (name, fields, wanted) in rows {
            let mut request = Owned::get("app.test", "/x");
            for (name, value) in *fields {
                request = request.with(name, value);
            }
            let site = rig.gateway.site(&request.request()).unwrap();
            assert_eq!(mark(&request.request(), &site), *wanted, "{name}");
        }
    }

    #[test]
    fn the_refusal_of_a_lost_cookie_follows_the_evidence() {
        let plain = || Owned::get("app.test", "/oauth2/callback");
        let rows = [
            ("no cookie at all", plain(), "s", Refusal::LoginCookieMissing),
            ("another application's", plain().with_cookie("theme=dark"), "s", Refusal::LoginCookieMissing),
            (
                "another attempt's",
                plain().with_cookie("__Host-portcullis-login-0=x"),
                "s",
                Refusal::LoginStale,
            ),
            ("a session's", plain().with_cookie("__Host-portcullis=x"), "s.http", Refusal::LoginStale),
            ("in a frame", plain().with("sec-fetch-dest", "iframe"), "s", Refusal::LoginFramed),
            ("begun over http", plain(), "s.http", Refusal::LoginOverHttp),
            ("begun elsewhere", plain(), "s.host", Refusal::LoginOtherHost),
            ("a word of nobody's", plain(), "s.https", Refusal::LoginCookieMissing),
        ];
        for (name, request, state, wanted) in rows {
            assert_eq!(missing_cookie(&request.request(), state), wanted, "{name}");
        }
    }
}
