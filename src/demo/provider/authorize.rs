//! The authorization endpoint: who asks is checked, who is signed in goes back with a code, everybody
//! else chooses who to be.

use axum::Form;
use axum::extract::{Query, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use url::Url;

use super::{COOKIE, Params, Provider, Shared, see_other};
use crate::demo::ledger::{BrowserSession, Grant, USERS, User, find_user};
use crate::demo::page::{self, Message, Owner, SignIn};
use crate::random::random_token;

/// An authorization request whose client and redirect URI are right.
struct Authorization {
    redirect: Url,
    state: Option<String>,
    nonce: Option<String>,
    challenge: String,
    prompt: Option<String>,
}

/// Why an authorization request is refused.
pub(super) enum Refused {
    /// The browser can't be sent back: who asks is not known (RFC 6749 4.1.2.1).
    Here(&'static str),
    /// The client is told.
    There(Box<Url>),
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Self::Here(text) => {
                let content = Message { heading: "This sign-in can't go on", text };
                page::answer(StatusCode::BAD_REQUEST, Owner::Provider, "Refused", &content)
            }
            Self::There(url) => see_other(url.as_str()),
        }
    }
}

impl Authorization {
    fn read(provider: &Provider, params: &Params) -> Result<Self, Refused> {
        let param = |name: &str| params.get(name).filter(|value| !value.is_empty());
        if param("client_id").map(String::as_str) != Some(provider.client.id) {
            return Err(Refused::Here("The client_id is not the one of the demo's gateway."));
        }
        if param("redirect_uri") != Some(&provider.client.redirect_uri) {
            return Err(Refused::Here("The redirect_uri is not the one that the demo's gateway registered."));
        }
        let Ok(redirect) = Url::parse(&provider.client.redirect_uri) else {
            return Err(Refused::Here("The registered redirect_uri is not a URL."));
        };
        let mut request = Self {
            redirect,
            state: param("state").cloned(),
            nonce: param("nonce").cloned(),
            challenge: String::new(),
            prompt: param("prompt").cloned(),
        };
        let scopes = param("scope").map(String::as_str).unwrap_or_default();
        if param("response_type").map(String::as_str) != Some("code") {
            return Err(request.refuse(provider, "unsupported_response_type"));
        }
        if !scopes.split(' ').any(|scope| scope == "openid") {
            return Err(request.refuse(provider, "invalid_scope"));
        }
        match (param("code_challenge"), param("code_challenge_method").map(String::as_str)) {
            (Some(challenge), Some("S256")) => request.challenge.clone_from(challenge),
            _ => return Err(request.refuse(provider, "invalid_request")),
        }
        Ok(request)
    }

    fn refuse(&self, provider: &Provider, error: &str) -> Refused {
        Refused::There(Box::new(self.back(provider, "error", error)))
    }

    /// Where the browser goes back to: with a code or an error, the state and the issuer (RFC 9207).
    fn back(&self, provider: &Provider, name: &str, value: &str) -> Url {
        let mut url = self.redirect.clone();
        let mut query = url.query_pairs_mut();
        query.append_pair(name, value).append_pair("iss", &provider.issuer);
        if let Some(state) = &self.state {
            query.append_pair("state", state);
        }
        drop(query);
        url
    }

    /// Gives out a code for a session and sends the browser back with it.
    fn grant(self, provider: &Provider, session: BrowserSession) -> Response {
        let url = match random_token::<32>() {
            Ok(code) if provider.remember(&code, &self, session) => self.back(provider, "code", &code),
            _ => self.back(provider, "error", "temporarily_unavailable"),
        };
        see_other(url.as_str())
    }
}

impl Provider {
    fn remember(&self, code: &str, request: &Authorization, session: BrowserSession) -> bool {
        let grant = Grant {
            session,
            nonce: request.nonce.clone(),
            challenge: request.challenge.clone(),
            redirect_uri: self.client.redirect_uri.clone(),
        };
        self.ledger().put_code(code.to_owned(), grant, self.clock.now()).is_ok()
    }
}

/// Who is signed in goes straight back with a code; everybody else chooses who to be.
pub(super) async fn ask(
    State(provider): Shared,
    Query(params): Query<Params>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let request = Authorization::read(&provider, &params)?;
    let prompt = request.prompt.as_deref();
    let session = provider.session(&headers).filter(|_| prompt != Some("login"));
    match session {
        Some(session) => Ok(request.grant(&provider, session)),
        None if prompt == Some("none") => Err(request.refuse(&provider, "login_required")),
        None => Ok(choice(&provider, &query.unwrap_or_default())),
    }
}

/// The form repeats the authorization request in its own address: it is read again when it comes back.
fn choice(provider: &Provider, query: &str) -> Response {
    let action = format!("/authorize?{query}");
    let content = SignIn { gateway: &provider.client.name, action: &action, users: USERS };
    page::answer(StatusCode::OK, Owner::Provider, "Sign in", &content)
}

/// What the person chose on the sign-in page.
pub(super) async fn choose(
    State(provider): Shared,
    Query(params): Query<Params>,
    headers: HeaderMap,
    Form(form): Form<Params>,
) -> Result<Response, Refused> {
    if !is_own_page(&provider, &headers) {
        return Err(Refused::Here("The choice was sent from another site."));
    }
    let request = Authorization::read(&provider, &params)?;
    let Some(user) = form.get("login").and_then(|login| find_user(login)) else {
        return Err(request.refuse(&provider, "access_denied"));
    };
    let Some((cookie, session)) = provider.sign_in(user) else {
        return Err(request.refuse(&provider, "temporarily_unavailable"));
    };
    let mut response = request.grant(&provider, session);
    response.headers_mut().append(header::SET_COOKIE, cookie);
    Ok(response)
}

/// Whether a form came from a page of this provider: no other site may choose who is signed in here.
fn is_own_page(provider: &Provider, headers: &HeaderMap) -> bool {
    headers.get(header::ORIGIN).is_some_and(|origin| origin.as_bytes() == provider.issuer.as_bytes())
}

impl Provider {
    fn sign_in(&self, user: &'static User) -> Option<(HeaderValue, BrowserSession)> {
        let (name, sid) = (random_token::<32>().ok()?, random_token::<16>().ok()?);
        let session = BrowserSession { user, sid, since: self.clock.now() };
        let cookie = format!("{COOKIE}={name}; Path=/; HttpOnly; SameSite=Lax");
        self.ledger().put_session(name, session.clone(), self.clock.now()).ok()?;
        Some((HeaderValue::from_str(&cookie).ok()?, session))
    }
}
