//! The URLs that the gateway answers itself: one URL, one file, one row of [`TABLE`].

mod backchannel_logout;
mod callback;
mod frontchannel_logout;
mod jwks;
mod sign_in;
mod sign_out;
mod signed_out;
mod start;
mod userinfo;

use http::Method;
use http::header::{ALLOW, HeaderValue, SET_COOKIE};

use crate::gateway::limits::Kind;
use crate::gateway::{Gateway, Need, Paths, Refusal, SetCookies};
use crate::route::Site;
use crate::web::{Reply, Request, Source, Target};

/// A row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Path below the prefix; also its name in logs.
    pub name: &'static str,
    /// The methods that it takes, as the `Allow` field of a 405.
    pub methods: &'static str,
    /// The most bytes of body that are read of a POST; 0: none.
    max_body_bytes: usize,
    /// Whose requests it takes.
    pub callers: Callers,
    handler: Handler,
}

/// From which sites an endpoint is called (CS-2, CS-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    /// From any, in any way: to be called by others is what it is for, no cookie counts there, or all it says is public.
    Any,
    /// By people on their way, with a link or a form of any site: providers send them here. What pages load by themselves is
    /// nobody's way.
    Travellers,
    /// By links of any site, also in a frame; forms and scripts are the host's own.
    Links,
    /// By the host's own pages and by hand.
    Own,
}

impl Callers {
    const fn take(self, source: Source) -> bool {
        match self {
            Self::Any => true,
            Self::Travellers => !matches!(source, Source::Part),
            Self::Links => !matches!(source, Source::Part | Source::Form),
            Self::Own => matches!(source, Source::Own),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handler {
    BackchannelLogout,
    Start,
    Callback,
    FrontchannelLogout,
    Jwks,
    SignIn,
    SignOut,
    SignedOut,
    Userinfo,
    Nothing,
}

const fn row(
    name: &'static str,
    methods: &'static str,
    max_body_bytes: usize,
    callers: Callers,
    handler: Handler,
) -> Endpoint {
    Endpoint { name, methods, max_body_bytes, callers, handler }
}

/// A sign-out form has no fields; what a browser or an old snippet adds is read and ignored.
const FORM: usize = 4096;

/// The form that a provider answers with; its parameters have bounds of their own.
const CALLBACK: usize = 64 * 1024;

/// An address, and a return URL of 2 KiB whose every byte is escaped.
const EMAIL: usize = 8 * 1024;

/// BC-1: a form with one token of at most 16 KiB, and parameters that are ignored.
const LOGOUT_TOKEN: usize = 64 * 1024;

/// THE TABLE.
pub static TABLE: &[Endpoint] = &[
    row("start", "GET, POST", EMAIL, Callers::Links, Handler::Start),
    row("callback", "GET, POST", CALLBACK, Callers::Travellers, Handler::Callback),
    row("sign_in", "GET, HEAD", 0, Callers::Links, Handler::SignIn),
    row("sign_out", "GET, POST", FORM, Callers::Own, Handler::SignOut),
    row("signed_out", "GET, HEAD", 0, Callers::Links, Handler::SignedOut),
    row("userinfo", "GET", 0, Callers::Own, Handler::Userinfo),
    row("jwks", "GET, HEAD", 0, Callers::Any, Handler::Jwks),
    row("backchannel_logout", "POST", LOGOUT_TOKEN, Callers::Any, Handler::BackchannelLogout),
    row("frontchannel_logout", "GET", 0, Callers::Any, Handler::FrontchannelLogout),
];

/// What stands at every other path below the prefix: nothing, and no upstream either.
static NOTHING: Endpoint = row("", "GET, HEAD, POST", 0, Callers::Any, Handler::Nothing);

/// The endpoint at a target below the prefix; `None` for a target that is not below it.
#[must_use]
pub fn find(paths: &Paths, target: &Target) -> Option<&'static Endpoint> {
    if target.path() == paths.prefix() {
        return Some(&NOTHING);
    }
    let below = paths.below(target.path())?;
    if target.split_path().is_some() {
        return Some(&NOTHING);
    }
    // Only the callback has paths of its own below it: one for each provider (AR-7).
    let name = if below.starts_with("callback/") { "callback" } else { below };
    Some(TABLE.iter().find(|endpoint| endpoint.name == name).unwrap_or(&NOTHING))
}

/// An endpoint's answer, with what the access event says of it.
#[derive(Debug)]
pub struct Answer {
    /// The reply, its `Set-Cookie` fields included.
    pub reply: Reply,
    /// The refusal, if it was one.
    pub refusal: Option<Refusal>,
}

/// Answers a request to an endpoint. `body` is all of its body, at most [`Endpoint::max_body`].
pub async fn answer(
    endpoint: &'static Endpoint,
    gateway: &Gateway,
    request: &Request<'_>,
    body: &[u8],
) -> Answer {
    let mut cookies = SetCookies::default();
    let (mut reply, refusal) = match run(endpoint, gateway, request, body, &mut cookies).await {
        Ok(reply) => (reply, None),
        Err(refusal) => {
            cookies.forget_in_outage(refusal);
            (refuse(endpoint, gateway, request, refusal), Some(refusal))
        }
    };
    for cookie in cookies.0 {
        reply.headers.append(SET_COOKIE, cookie);
    }
    Answer { reply, refusal }
}

async fn run(
    endpoint: &Endpoint,
    gateway: &Gateway,
    request: &Request<'_>,
    body: &[u8],
    cookies: &mut SetCookies,
) -> Result<Reply, Refusal> {
    let site = gateway.site(request).ok_or(Refusal::UnknownHost)?;
    if !endpoint.takes(request.method) {
        return Err(Refusal::MethodNotAllowed);
    }
    if endpoint.callers != Callers::Any && !endpoint.callers.take(request.source(&site.origin())) {
        return Err(Refusal::CrossSite);
    }
    let call = Call { gateway, request, site: &site, body };
    match endpoint.handler {
        Handler::BackchannelLogout => backchannel_logout::answer(&call).await,
        Handler::FrontchannelLogout => frontchannel_logout::answer(&call).await,
        Handler::Start => start::answer(&call, cookies).await,
        Handler::Callback => callback::answer(&call, cookies).await,
        Handler::SignIn => sign_in::answer(&call),
        Handler::SignOut => sign_out::answer(&call, cookies).await,
        Handler::SignedOut => Ok(signed_out::answer(&call, cookies)),
        Handler::Userinfo => userinfo::answer(&call).await,
        Handler::Jwks => jwks::answer(&call).await,
        Handler::Nothing => Err(Refusal::NoRoute),
    }
}

fn refuse(endpoint: &Endpoint, gateway: &Gateway, request: &Request<'_>, refusal: Refusal) -> Reply {
    if let (Some(need), Some(site)) = (Need::of(refusal), gateway.site(request)) {
        // An endpoint never redirects to sign-in: it would come back to itself.
        return gateway.unauthorized(request, &site, need);
    }
    if refusal == Refusal::CrossSite && endpoint.handler == Handler::SignOut {
        return sign_out::confirmation(gateway, request);
    }
    let reply = gateway.render(request, refusal);
    if refusal == Refusal::MethodNotAllowed {
        let methods = match endpoint.name {
            "callback" => callback::methods(gateway, request),
            _ => endpoint.methods,
        };
        return reply.with_header(ALLOW, HeaderValue::from_static(methods));
    }
    reply
}

impl Endpoint {
    /// The most bytes of body that are read of a request with this method: only what is posted is looked
    /// at, and for everything else nobody is asked to send it.
    #[must_use]
    pub fn max_body(&self, method: &Method) -> usize {
        if *method == Method::POST && self.takes(method) { self.max_body_bytes } else { 0 }
    }

    fn takes(&self, method: &Method) -> bool {
        self.methods.split(", ").any(|name| name == method.as_str())
    }
}

/// One call of an endpoint.
#[derive(Clone, Copy)]
struct Call<'a> {
    gateway: &'a Gateway,
    request: &'a Request<'a>,
    site: &'a Site,
    body: &'a [u8],
}

impl Call<'_> {
    /// BC-10: whoever failed too often is not read any further.
    ///
    /// # Errors
    /// [`Refusal::TooManyFailures`].
    async fn check_failures(&self, kind: Kind) -> Result<(), Refusal> {
        self.gateway.check_failures(kind, self.request).await
    }

    /// Counts a call of this client that led to nothing. One too many at the same moment as others is answered as
    /// they are: it was read already.
    async fn count_failure(&self, kind: Kind) {
        self.gateway.count_failure(kind, self.request).await.ok();
    }

    /// A parameter of the query, decoded; the first of several.
    fn parameter(&self, name: &str) -> Option<String> {
        let query = self.request.target.query()?;
        url::form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_at(path: &str) -> Option<&'static str> {
        let target = Target::parse(path.as_bytes()).unwrap();
        find(&Paths::new("/oauth2"), &target).map(|endpoint| endpoint.name)
    }

    #[test]
    fn cs_3_each_endpoint_says_from_which_sites_it_is_called() {
        use Source::{Form, Frame, Link, Own, Part, Untold};
        let sources = [Own, Untold, Link, Frame, Form, Part];
        let rows = [
            ("start", "++++--"),
            ("callback", "+++++-"),
            ("sign_in", "++++--"),
            ("sign_out", "+-----"),
            ("signed_out", "++++--"),
            ("userinfo", "+-----"),
            ("jwks", "++++++"),
            ("backchannel_logout", "++++++"),
            ("frontchannel_logout", "++++++"),
        ];
        assert_eq!(
            rows.map(|(name, _)| name).as_slice(),
            TABLE.iter().map(|row| row.name).collect::<Vec<_>>()
        );
        for (endpoint, (name, wanted)) in TABLE.iter().zip(rows) {
            let taken = sources.map(|source| if endpoint.callers.take(source) { '+' } else { '-' });
            assert_eq!(taken.iter().collect::<String>(), wanted, "{name}");
        }
    }

    #[test]
    fn a_path_below_the_prefix_is_an_endpoint_or_nothing_and_never_an_upstreams() {
        let cases = [
            ("/oauth2/start?rd=/x", Some("start")),
            ("/oauth2/callback", Some("callback")),
            ("/oauth2/callback/main", Some("callback")),
            ("/oauth2/userinfo", Some("userinfo")),
            ("/oauth2/start/x", Some("")),
            ("/oauth2/", Some("")),
            ("/oauth2", Some("")),
            ("/oauth2/unknown", Some("")),
            ("/oauth2x/start", None),
            ("/", None),
        ];
        for (path, wanted) in cases {
            assert_eq!(name_at(path), wanted, "{path}");
        }
    }
}
