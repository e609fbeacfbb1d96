//! The way to sign-in for a request that nobody is known for: a redirect to the provider where the
//! request can follow one, else 401 with JSON.

use std::sync::Arc;

use http::StatusCode;
use http::header::{HeaderValue, WWW_AUTHENTICATE};
use url::Url;
use url::form_urlencoded::byte_serialize;

use super::{Gateway, Refusal, SetCookies, diagnosis, internal, redirect, refusal};
use crate::idp::{Provider, ProviderSettings, PushFailure};
use crate::oidc::authorize::{self, LoginAttempt, Parameters, Start};
use crate::oidc::callback::ATTEMPT_LIFETIME;
use crate::oidc::client_auth::is_about_the_client;
use crate::oidc::pushed::PushError;
use crate::policy::Why;
use crate::random::{RandomError, random_token};
use crate::route::{Route, Site};
use crate::session::Purpose;
use crate::session::cookie::MAX_LOGIN_ATTEMPTS;
use crate::session::seal::{SealError, open_cookie, seal_cookie};
use crate::web::cookie;
use crate::web::return_to::ReturnTo;
use crate::web::{EmailAddress, Reply, Request, Target};

/// What a request lacks that a sign-in can bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Somebody, and why nobody is known.
    SignIn(Why),
    /// Somebody is known, and has to be authenticated as the route asks for.
    StepUp,
}

impl Need {
    /// What a refusal says is needed.
    pub(crate) const fn of(refusal: Refusal) -> Option<Self> {
        if let Refusal::SignInRequired(why) = refusal {
            Some(Self::SignIn(why))
        } else if matches!(refusal, Refusal::StepUpRequired) {
            Some(Self::StepUp)
        } else {
            None
        }
    }

    const fn refusal(self) -> Refusal {
        match self {
            Self::SignIn(why) => Refusal::SignInRequired(why),
            Self::StepUp => Refusal::StepUpRequired,
        }
    }
}

/// What a sign-in is begun for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Where the person goes afterwards.
    pub return_to: ReturnTo,
    /// Whether it is the second try for a more recent authentication.
    pub again: bool,
    /// The address that the person typed, which tells the provider who is coming.
    pub login_hint: Option<EmailAddress>,
    /// What the store knows the session by that ends with the sign-in, where the request does not show it.
    pub replaces: Option<[u8; 32]>,
}

impl Wish {
    /// To get to a page.
    #[must_use]
    pub const fn page(return_to: ReturnTo) -> Self {
        Self { return_to, again: false, login_hint: None, replaces: None }
    }
}

impl Gateway {
    /// Answers a request that needs somebody to sign in.
    pub(super) async fn challenge(
        &self,
        request: &Request<'_>,
        need: Need,
        cookies: &mut SetCookies,
    ) -> Result<Reply, Refusal> {
        let site = self.site(request).ok_or(Refusal::UnknownHost)?;
        if !request.is_navigation() || request.is_prefetch() {
            return Ok(self.unauthorized(request, &site, need));
        }
        if self.shared.sessions.is_store_down() {
            return Err(Refusal::StoreUnavailable);
        }
        // SC-4: what can't be used any more is not sent again. A session that only lacks something stays.
        if matches!(need, Need::SignIn(why) if !matches!(why, Why::NoCredential | Why::PastRoute)) {
            cookies.delete(site.cookies.session(), &site);
        }
        let return_to = self.return_to(request.target.as_str(), &site);
        let route = self.settings.routes.find(request.host, request.target).ok().flatten();
        let of_session = match route.and_then(|route| route.provider.as_ref()) {
            Some(_) => None,
            None => self.provider_of_session(request, &site, need).await?,
        };
        let named = of_session.map(|provider| &*provider.settings().id.0);
        if let Some(provider) = self.provider_for(request, &site, &return_to, named)? {
            return self.begin_sign_in(request, &site, provider, Wish::page(return_to), cookies).await;
        }
        let query: String = byte_serialize(return_to.as_str().as_bytes()).collect();
        redirect(&format!("{}?rd={query}", self.settings.paths.of("sign_in")))
    }

    /// The provider of a sign-in that leads to a page: the one that is named, the host's, the route's, the
    /// only one there is; `None`: the person chooses.
    ///
    /// # Errors
    /// [`Refusal::NoRoute`] where no provider has the name, or the host has another one.
    pub fn provider_for(
        &self,
        request: &Request<'_>,
        site: &Site,
        page: &ReturnTo,
        named: Option<&str>,
    ) -> Result<Option<&Provider>, Refusal> {
        let of_host = site.provider.as_ref();
        let of_route = self.route_of(request, page).and_then(|route| route.provider.as_ref());
        let by_default = of_host.or(of_route).map(|id| &*id.0);
        let chosen = self.provider(named.or(by_default))?;
        if chosen.is_some_and(|provider| !site.takes(&provider.settings().id)) {
            return Err(Refusal::NoRoute);
        }
        Ok(chosen)
    }

    /// The provider that somebody is signed in at who lacks something, where that is no matter of host or
    /// route.
    async fn provider_of_session(
        &self,
        request: &Request<'_>,
        site: &Site,
        need: Need,
    ) -> Result<Option<&Provider>, Refusal> {
        if !matches!(need, Need::StepUp | Need::SignIn(Why::PastRoute)) {
            return Ok(None);
        }
        let Ok(session) = self.session(site, request).await? else { return Ok(None) };
        Ok(self.provider(Some(&session.provider.0)).ok().flatten())
    }

    /// The provider that is chosen, or the only one there is; `None`: the person chooses.
    ///
    /// # Errors
    /// [`Refusal::NoRoute`] where no provider has the name.
    pub fn provider(&self, chosen: Option<&str>) -> Result<Option<&Provider>, Refusal> {
        let providers = &self.shared.providers;
        match (chosen, providers.as_slice()) {
            (Some(id), _) => {
                let named = providers.iter().find(|provider| *provider.settings().id.0 == *id);
                named.map(|named| Some(named.as_ref())).ok_or(Refusal::NoRoute)
            }
            (None, [only]) => Ok(Some(only)),
            (None, _) => Ok(None),
        }
    }

    /// AR-9: 401 without redirect and without a cookie, for whoever can't follow a login. What a route
    /// asks for stands there as in RFC 9470 3.
    pub(crate) fn unauthorized(&self, request: &Request<'_>, site: &Site, need: Need) -> Reply {
        let row = need.refusal().row();
        let mut body = refusal::json(&row, &request.id.to_string());
        let route = self.settings.routes.find(request.host, request.target).ok().flatten();
        let asked = route.map(|route| &route.rule.step_up).filter(|asked| !asked.is_empty());
        body["sign_in_url"] = self.sign_in_url(request, asked.is_some()).into();
        let mut challenge = format!(
            "Cookie realm=\"{}\", form-action=\"{}\", cookie-name={}",
            site.name,
            self.settings.paths.of("sign_in"),
            site.cookies.session()
        );
        if let (Need::StepUp, Some(asked)) = (need, asked) {
            challenge = format!("{challenge}, {}", asked.challenge());
        }
        let reply = Reply::json(StatusCode::UNAUTHORIZED, &body);
        match HeaderValue::try_from(challenge) {
            Ok(value) => reply.with_header(WWW_AUTHENTICATE, value),
            Err(_) => reply,
        }
    }

    /// Where a script may send the person. What a route asks for, it asks for its own pages: then the way
    /// back is named.
    fn sign_in_url(&self, request: &Request<'_>, is_asking: bool) -> String {
        let start = self.settings.paths.of("start");
        if !is_asking {
            return start;
        }
        let path: String = byte_serialize(request.target.path().as_bytes()).collect();
        format!("{start}?rd={path}")
    }

    /// Where somebody goes after sign-in who asked for `wanted`: a path on this host, else its root.
    #[must_use]
    pub fn return_to(&self, wanted: &str, site: &Site) -> ReturnTo {
        ReturnTo::parse(wanted, &site.public_url, self.settings.paths.prefix()).unwrap_or_else(ReturnTo::root)
    }

    /// Sends somebody to a provider, the attempt sealed in a cookie of its own. What the route of the
    /// page asks for is asked of the provider.
    ///
    /// # Errors
    /// [`Refusal::TooManySignIns`], [`Refusal::LoginLoop`], [`Refusal::ProviderUnavailable`], or [`Refusal::Internal`] without entropy.
    pub async fn begin_sign_in(
        &self,
        request: &Request<'_>,
        site: &Site,
        provider: &Provider,
        wish: Wish,
        cookies: &mut SetCookies,
    ) -> Result<Reply, Refusal> {
        let settings = provider.settings();
        if self.shared.sessions.is_store_down() {
            // The person would come back to a callback that can't be completed.
            return Err(Refusal::StoreUnavailable);
        }
        // The second way of a sign-in is part of the first.
        if !wish.again {
            self.count_sign_in_start(request).await?;
        }
        if let Err(refusal) = self.stop_loop(request, site, cookies).await {
            return Err(self.sign_in_failed(request, provider, refusal, "one round trip after the other"));
        }
        let metadata = provider.metadata().await.map_err(|error| {
            self.sign_in_failed(request, provider, Refusal::ProviderUnavailable, &error.to_string())
        })?;
        let redirect_uri = self.url(site, &settings.callback_path)?;
        let route = self.route_of(request, &wish.return_to);
        let [state, nonce, verifier] = fresh_tokens().map_err(|error| internal(request, &error))?;
        let (url, attempt) = authorize::begin(Start {
            provider: &settings.id,
            metadata: &metadata,
            client_id: &settings.client_id,
            scopes: &settings.scopes,
            extra: &extra_parameters(wish.login_hint.as_ref(), route, settings),
            redirect_uri: &redirect_uri,
            return_to: wish.return_to,
            state: state + diagnosis::mark(request, site),
            nonce,
            verifier,
            now: self.shared.clock.now(),
            step_up: route.map(|route| route.rule.step_up.clone()).unwrap_or_default(),
            again: wish.again,
            form_post: settings.form_post,
            replaces: self.replaced(request, site, settings, wish.replaces),
        });
        let url = provider.authorization_url(&metadata, url).await.map_err(|error| {
            self.sign_in_failed(request, provider, refusal_of(&error), &error.to_string())
        })?;
        self.remember(&attempt, settings.form_post, request, site, cookies)
            .map_err(|error| internal(request, &*error))?;
        redirect(url.as_str())
    }

    /// The session that a sign-in will end whose callback does not show its cookie: a POST from another
    /// site comes without.
    fn replaced(
        &self,
        request: &Request<'_>,
        site: &Site,
        settings: &ProviderSettings,
        known: Option<[u8; 32]>,
    ) -> Option<[u8; 32]> {
        let shown = || self.session_id(site, request).ok().map(|id| id.store_key());
        if settings.form_post { known.or_else(shown) } else { None }
    }

    /// The route of a page on the host of a request.
    fn route_of(&self, request: &Request<'_>, page: &ReturnTo) -> Option<&Arc<Route>> {
        let target = Target::parse_with_slashes(page.as_str().as_bytes()).ok()?;
        self.settings.routes.find(request.host, &target).ok()?
    }

    /// Tells of a sign-in that failed, with what the operator should change; returns the refusal.
    #[must_use]
    pub fn sign_in_failed(
        &self,
        request: &Request<'_>,
        provider: &Provider,
        refusal: Refusal,
        detail: &str,
    ) -> Refusal {
        self.shared.events.sign_in_failed(
            &request.id,
            &provider.settings().id.0,
            refusal.code(),
            &refusal.explain(detail),
            request.client,
            request.user_agent(),
        );
        refusal
    }

    /// The public URL of an endpoint on a site.
    ///
    /// # Errors
    /// [`Refusal::Internal`] where the two make no URL, which `config` rules out.
    pub fn url(&self, site: &Site, endpoint: &str) -> Result<Url, Refusal> {
        let path = self.settings.paths.of(endpoint);
        site.public_url.join(&path).map_err(|error| {
            tracing::error!(event = "internal", %error, %path, "an endpoint has no public URL");
            Refusal::Internal
        })
    }

    fn remember(
        &self,
        attempt: &LoginAttempt,
        form_post: bool,
        request: &Request<'_>,
        site: &Site,
        cookies: &mut SetCookies,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let name = site.cookies.login(attempt.state.expose());
        let value = match self.seal_attempt(attempt, &name, site) {
            // The way back is the one part of any length: the person starts at the root instead.
            Err(SealError::Value) => {
                let short = LoginAttempt { return_to: ReturnTo::root(), ..attempt.clone() };
                self.seal_attempt(&short, &name, site)?
            }
            sealed => sealed?,
        };
        for surplus in self.surplus_attempts(request, site) {
            cookies.delete(&surplus, site);
        }
        cookies.0.push(if form_post {
            cookie::set_for_posts(&name, &value, ATTEMPT_LIFETIME)
        } else {
            cookie::set(&name, &value, site.cookies.secure(), Some(ATTEMPT_LIFETIME))
        });
        Ok(())
    }

    fn seal_attempt(&self, attempt: &LoginAttempt, name: &str, site: &Site) -> Result<String, SealError> {
        let plain = serde_json::to_vec(attempt).map_err(|_unwritable| SealError::Value)?;
        let plain = zeroize::Zeroizing::new(plain);
        seal_cookie(&self.shared.keys, Purpose::LoginCookie, name, &site.name, &plain)
    }

    /// CB-11: the names of the browser's attempts that have to go so that one more fits; what does
    /// not open goes first, then the oldest.
    fn surplus_attempts(&self, request: &Request<'_>, site: &Site) -> Vec<String> {
        let mut attempts: Vec<(u64, String)> = cookie::starting(request.headers, site.cookies.login_prefix())
            .map(|(name, value)| (self.attempt_start(name, value, site), name.to_owned()))
            .collect();
        attempts.sort_unstable();
        attempts.dedup_by(|a, b| a.1 == b.1);
        let surplus = (attempts.len() + 1).saturating_sub(MAX_LOGIN_ATTEMPTS);
        attempts.into_iter().take(surplus).map(|(_, name)| name).collect()
    }

    /// When an attempt began, in milliseconds; 0 for one that does not open.
    fn attempt_start(&self, name: &str, value: &[u8], site: &Site) -> u64 {
        self.open_attempt(name, value, site).map_or(0, |attempt| attempt.started_at.as_millis())
    }

    /// The attempt in a cookie; `None` where it does not open.
    #[must_use]
    pub fn open_attempt(&self, name: &str, value: &[u8], site: &Site) -> Option<LoginAttempt> {
        let opened = open_cookie(&self.shared.keys, Purpose::LoginCookie, name, &site.name, value).ok()?;
        serde_json::from_slice(&opened.plain).ok()
    }
}

/// What the person typed, then extra parameters of the route and of the provider; of two with one name the
/// first is sent.
fn extra_parameters(
    typed: Option<&EmailAddress>,
    route: Option<&Arc<Route>>,
    settings: &ProviderSettings,
) -> Parameters {
    let typed = typed.map(|address| ("login_hint".into(), address.expose().into()));
    let of_route = route.map(|route| route.authorization_params.as_slice()).unwrap_or_default();
    [typed.as_slice(), of_route, &settings.authorization_params].concat()
}

/// A provider that is down, or one that wants nothing of this client.
fn refusal_of(error: &PushFailure) -> Refusal {
    match error {
        PushFailure::Unavailable(_) | PushFailure::Push(PushError::Unavailable { .. }) => {
            Refusal::ProviderUnavailable
        }
        PushFailure::Push(PushError::Refused { error, .. }) if is_about_the_client(error) => {
            Refusal::LoginFailedClient
        }
        PushFailure::Push(PushError::Refused { .. } | PushError::Malformed(_)) => Refusal::LoginFailed,
    }
}

/// State, nonce and PKCE verifier: 256 bits each (AR-2 to AR-4).
fn fresh_tokens() -> Result<[String; 3], RandomError> {
    Ok([random_token::<32>()?, random_token::<32>()?, random_token::<32>()?])
}
