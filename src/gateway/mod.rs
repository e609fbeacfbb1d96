//! The verdict on a request: which route, who is asking, may they, what does the upstream get. No
//! pingora, no sockets.

pub mod challenge;
pub mod diagnosis;
pub mod forward;
mod last_cookie;
pub mod limits;
pub mod logout;
mod loops;
pub mod paths;
mod refresh;
pub mod refusal;
pub mod sessions;
pub mod shared_keys;

#[cfg(test)]
mod rig;

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderValue;

use crate::clock::{Clock, UnixTime};
use crate::idp::Provider;
use crate::policy::{self, Access, Subject, Via, Why};
use crate::route::{
    Ambiguous, CountedBy, CrossSite, HostPattern, HostTable, Route, RouteRate, RouteTable, Site,
};
use crate::session::refresh::{Due, Schedule, is_access_token_over};
use crate::session::seal::{SealError, cookie_key, open_cookie, seal_cookie};
use crate::session::{KeyRing, Purpose, Session, SessionId};
use crate::store::{SessionStore, StoreKey};
use crate::telemetry::Events;
use crate::web::cookie::{self, Found as CookieFound};
use crate::web::{Reply, Request, Source};

pub(crate) use challenge::Need;
pub use challenge::Wish;
pub use forward::ForwardPlan;
pub use last_cookie::LastCookie;
pub use paths::Paths;
use refresh::{Outcome, Refresh, lease_of};
use refusal::Action;
pub use refusal::Refusal;
use sessions::{Found, PerUser, Reading, ReadySession, Sessions};

/// What a gateway is built of; made by `config`.
#[derive(Debug)]
pub struct Settings {
    /// All routes.
    pub routes: RouteTable,
    /// All hosts.
    pub hosts: HostTable,
    /// How sessions are read: claim paths, identity headers, lifetimes.
    pub reading: Arc<Reading>,
    /// How many sessions a user may have; `None`: any number.
    pub per_user: Option<PerUser>,
    /// How often anybody may do something.
    pub limits: limits::LimitSettings,
    /// Where the endpoints are: `/oauth2`.
    pub paths: Paths,
    /// Whether every page says that this is a demo.
    pub demo: bool,
}

/// What outlives a reload of the configuration.
#[derive(Debug)]
pub struct Shared {
    /// The store behind the sessions; also remembers the states that were spent.
    pub store: Arc<dyn SessionStore>,
    /// The sessions.
    pub sessions: Arc<Sessions>,
    /// The key ring.
    pub keys: Arc<KeyRing>,
    /// The providers, in the order of the configuration.
    pub providers: Vec<Arc<Provider>>,
    /// How often somebody did something.
    pub limits: limits::Limits,
    /// Time.
    pub clock: Clock,
    /// Events.
    pub events: Events,
    /// The runtime for everything that is not proxying.
    pub runtime: tokio::runtime::Handle,
}

/// The gateway: routes, policy and headers, and what it shares with the one before a reload.
#[derive(Debug)]
pub struct Gateway {
    settings: Settings,
    shared: Arc<Shared>,
}

/// `Set-Cookie` fields that go out with an answer of the gateway's own.
#[derive(Debug, Default)]
pub struct SetCookies(pub Vec<HeaderValue>);

impl SetCookies {
    /// Deletes a cookie of the gateway.
    pub fn delete(&mut self, name: &str, site: &Site) {
        self.0.push(cookie::delete(name, site.cookies.secure()));
    }

    /// SC-12: where the store is down, nothing is known for certain, and browsers keep what they have.
    pub fn forget_in_outage(&mut self, refusal: Refusal) {
        if refusal == Refusal::StoreUnavailable {
            self.0.clear();
        }
    }
}

/// Who is asking, the session that says so, and its cookie where that was sealed anew.
#[derive(Debug)]
struct Authenticated {
    subject: Subject,
    session: Option<Arc<ReadySession>>,
    cookie: Option<HeaderValue>,
}

impl Authenticated {
    const fn nobody(why: Why) -> Self {
        Self { subject: Subject::Anonymous(why), session: None, cookie: None }
    }

    fn somebody(session: Arc<ReadySession>, cookie: Option<HeaderValue>) -> Self {
        let subject = Subject::Known(Arc::clone(&session.identity), Via::Session);
        Self { subject, session: Some(session), cookie }
    }
}

/// A session cookie that opened.
struct Shown {
    session: StoreKey,
    /// Its id, where an older key sealed it.
    by_old_key: Option<SessionId>,
}

impl Gateway {
    /// Puts a gateway together.
    #[must_use]
    pub const fn new(settings: Settings, shared: Arc<Shared>) -> Self {
        Self { settings, shared }
    }

    /// Its settings.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What it shares.
    #[must_use]
    pub const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The verdict: where the request goes and what the upstream gets, or why not. `last` is its connection's.
    ///
    /// # Errors
    /// [`Refusal`]; [`Gateway::refuse`] makes the answer of it.
    pub async fn decide(&self, request: &Request<'_>, last: &LastCookie) -> Result<ForwardPlan, Refusal> {
        let (route, site) = self.find_route(request)?;
        check_source(route, site.as_deref(), request)?;
        // Boxed, as all that few requests need.
        if let Some(RouteRate { rate, by: CountedBy::Address }) = route.rate_limit {
            Box::pin(self.count_request(route, rate, None, request)).await?;
        }
        let now = self.shared.clock.now();
        let authenticated = self.authenticate(route, site.as_deref(), request, last, now).await?;
        let Authenticated { subject, session, cookie } = authenticated;
        if let Some(RouteRate { rate, by: CountedBy::User }) = route.rate_limit {
            Box::pin(self.count_request(route, rate, subject.identity(), request)).await?;
        }
        let leeway = self.leeway(route, session.as_deref());
        let permit = policy::evaluate(&route.rule, &subject, now, leeway)?;
        let plan = forward::plan(&permit, Arc::clone(route), site, session).with_cookie(cookie);
        self.add_access_token(plan).await
    }

    /// The answer for a refusal, and what became the refusal: a redirect to sign-in where the request can
    /// follow one, else the page or JSON of the refusal.
    pub async fn refuse(
        &self,
        request: &Request<'_>,
        refusal: Refusal,
        cookies: &mut SetCookies,
    ) -> (Reply, Refusal) {
        let Some(need) = Need::of(refusal) else { return (self.render(request, refusal), refusal) };
        match self.challenge(request, need, cookies).await {
            Ok(reply) => (reply, refusal),
            Err(stopped) => {
                cookies.forget_in_outage(stopped);
                (self.render_again(request, stopped), stopped)
            }
        }
    }

    /// As [`Gateway::render`], for a sign-in that could not begin: the button leads to the page that was
    /// asked for.
    fn render_again(&self, request: &Request<'_>, refusal: Refusal) -> Reply {
        let Some(site) = self.site(request).filter(|_| refusal.row().retry) else {
            return self.render(request, refusal);
        };
        let wanted = self.return_to(request.target.as_str(), &site);
        let action = Action { label: "Try again", href: wanted.as_str() };
        refusal::render_with(refusal, request, self.settings.demo, Some(action))
    }

    /// The page or JSON of a refusal.
    #[must_use]
    pub fn render(&self, request: &Request<'_>, refusal: Refusal) -> Reply {
        refusal::render(refusal, request, &self.settings.paths, self.settings.demo)
    }

    /// The site that a request is for.
    #[must_use]
    pub fn site(&self, request: &Request<'_>) -> Option<Arc<Site>> {
        self.settings.hosts.find(request.host, request.local_port)
    }

    /// The clock skew that the provider of a session is allowed; zero where the route asks for no time.
    fn leeway(&self, route: &Route, session: Option<&ReadySession>) -> Duration {
        let session = session.filter(|_| route.rule.step_up.max_age.is_some());
        let named = session.and_then(|session| self.provider(Some(&session.provider.0)).ok().flatten());
        named.map_or(Duration::ZERO, |provider| provider.settings().leeway)
    }

    fn find_route(&self, request: &Request<'_>) -> Result<(&Arc<Route>, Option<Arc<Site>>), Refusal> {
        let site = self.site(request);
        if request.target.split_path().is_some_and(|path| self.settings.paths.hold(path)) {
            return Err(Refusal::BadRequest);
        }
        let found = self.settings.routes.find(request.host, request.target);
        let Some(route) = found.map_err(|Ambiguous| Refusal::BadRequest)? else {
            return Err(if site.is_some() { Refusal::NoRoute } else { Refusal::UnknownHost });
        };
        // PP-7: a configured name under a port that is not its own is not that host.
        if site.is_none() && route.host != HostPattern::Any {
            return Err(Refusal::UnknownHost);
        }
        Ok((route, site))
    }

    async fn authenticate(
        &self,
        route: &Route,
        site: Option<&Site>,
        request: &Request<'_>,
        last: &LastCookie,
        now: UnixTime,
    ) -> Result<Authenticated, Refusal> {
        let Some(site) = site else { return Ok(Authenticated::nobody(Why::NotAsked)) };
        if route.rule.access == Access::Public {
            return Ok(Authenticated::nobody(Why::NotAsked));
        }
        self.learn_key(request, site.cookies.session()).await?;
        let shown = match self.shown(site, request, last) {
            Ok(shown) => shown,
            Err(why) => return Ok(Authenticated::nobody(self.certain(why)?)),
        };
        let found = match self.live(site, shown.session, now).await? {
            Ok(session) if !session.fits(&route.session, now) => Err(Why::PastRoute),
            Ok(session) => self.keep_fresh(session, site, request, now).await?,
            Err(why) => Err(why),
        };
        Ok(match found {
            Ok(session) => {
                let cookie = self.reseal(site, &shown, &session);
                Authenticated::somebody(session, cookie)
            }
            Err(why) => Authenticated::nobody(why),
        })
    }

    /// SC-5: what an older key sealed is sealed anew as it passes, the cookie now and the record behind the
    /// request, so that the key may go.
    fn reseal(&self, site: &Site, shown: &Shown, session: &Arc<ReadySession>) -> Option<HeaderValue> {
        let id = shown.by_old_key.as_ref()?;
        self.shared.sessions.reseal(session, &self.settings.reading.limits);
        // Without entropy the old one does.
        self.session_cookie(site, id).ok()
    }

    /// The `Set-Cookie` of a session.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn session_cookie(&self, site: &Site, id: &SessionId) -> Result<HeaderValue, SealError> {
        let name = site.cookies.session();
        let value = seal_cookie(&self.shared.keys, Purpose::SessionCookie, name, &site.name, id.expose())?;
        // The browser forgets the cookie when the session is over at the latest; the server decides (SC-10).
        let max_age = self.settings.reading.limits.max_lifetime;
        Ok(cookie::set(name, &value, site.cookies.secure(), Some(max_age)))
    }

    /// The live session that a request shows on a site, or why there is none.
    ///
    /// # Errors
    /// [`Refusal::StoreUnavailable`]: an outage is never "no session".
    pub async fn session(
        &self,
        site: &Site,
        request: &Request<'_>,
    ) -> Result<Result<Arc<ReadySession>, Why>, Refusal> {
        self.learn_key(request, site.cookies.session()).await?;
        match self.session_id(site, request) {
            Ok(id) => self.live(site, StoreKey(id.store_key()), self.shared.clock.now()).await,
            Err(why) => Ok(Err(self.certain(why)?)),
        }
    }

    /// A cookie that does not open may be of a key that another gateway made since the store was last
    /// seen: in an outage nobody knows.
    fn certain(&self, why: Why) -> Result<Why, Refusal> {
        if why == Why::BadCredential && self.shared.sessions.is_store_down() {
            return Err(Refusal::StoreUnavailable);
        }
        Ok(why)
    }

    /// Sees to it that the key of a cookie is known here, if another gateway made it.
    ///
    /// # Errors
    /// [`Refusal::StoreUnavailable`] where that can't be told: the cookie may be good.
    pub async fn learn_key(&self, request: &Request<'_>, name: &str) -> Result<(), Refusal> {
        let sessions = &self.shared.sessions;
        if !sessions.share_keys() {
            return Ok(());
        }
        let CookieFound::One(value) = cookie::find(request.headers, name) else { return Ok(()) };
        Ok(sessions.learn_key(cookie_key(value)).await?)
    }

    /// The live session under a key on a site, or why there is none.
    async fn live(
        &self,
        site: &Site,
        key: StoreKey,
        now: UnixTime,
    ) -> Result<Result<Arc<ReadySession>, Why>, Refusal> {
        Ok(match self.shared.sessions.find(key, &self.settings.reading, now).await? {
            // SC-3: the seal binds the host already; the record says it once more.
            Found::Live(session) if *session.host == *site.name && site.takes(&session.provider) => {
                Ok(session)
            }
            Found::Live(_) => Err(Why::BadCredential),
            Found::Absent => Err(Why::NoSession),
            Found::Expired => Err(Why::Expired),
        })
    }

    /// The session with tokens that are good: refreshed behind the request's back while they are, else the
    /// request waits for it. Where the provider can't be asked the session lives on as it is.
    async fn keep_fresh(
        &self,
        session: Arc<ReadySession>,
        site: &Site,
        request: &Request<'_>,
        now: UnixTime,
    ) -> Result<Result<Arc<ReadySession>, Why>, Refusal> {
        let Some(schedule) = session.old(now) else { return Ok(Ok(session)) };
        let mut providers = self.shared.providers.iter();
        let Some(provider) = providers.find(|provider| provider.settings().id == session.provider) else {
            return Ok(Ok(session));
        };
        let due = schedule.due(sent_within(provider), now);
        if due == Due::No {
            return Ok(Ok(session));
        }
        let refresh = self.refresh(&session, provider);
        if due == Due::Soon {
            self.shared.runtime.spawn(refresh);
            return Ok(Ok(session));
        }
        match Box::pin(refresh).await {
            Some(Outcome::Done) => self.session(site, request).await,
            Some(Outcome::Ended) => Ok(Err(Why::Expired)),
            Some(Outcome::Later) | None => Ok(Ok(session)),
        }
    }

    /// The refresh of a session that is under way, or a new one.
    fn refresh(
        &self,
        session: &Arc<ReadySession>,
        provider: &Arc<Provider>,
    ) -> impl Future<Output = Option<Outcome>> + Send + use<> {
        let (session, shared) = (Arc::clone(session), Arc::clone(&self.shared));
        let refresh = Refresh {
            shared: Arc::clone(&self.shared),
            limits: self.settings.reading.limits,
            session: Arc::clone(&session),
            provider: Arc::clone(provider),
        };
        async move { session.refresh.join(&shared.runtime, || Some(refresh.run())).await }
    }

    /// The session id in a request's cookie, or why there is none.
    ///
    /// # Errors
    /// [`Why`] nobody is known.
    pub fn session_id(&self, site: &Site, request: &Request<'_>) -> Result<SessionId, Why> {
        self.open(site, shown_cookie(site, request)?).map(|(id, _by_old_key)| id)
    }

    fn shown(&self, site: &Site, request: &Request<'_>, last: &LastCookie) -> Result<Shown, Why> {
        let value = shown_cookie(site, request)?;
        // Before it is opened: keys that come meanwhile make what is kept worthless.
        let keys = self.shared.keys.exchanges();
        if let Some(session) = last.recall(keys, site, value) {
            return Ok(Shown { session, by_old_key: None });
        }
        let (id, by_old_key) = self.open(site, value)?;
        let session = StoreKey(id.store_key());
        if !by_old_key {
            last.keep(keys, site, value, session);
        }
        Ok(Shown { session, by_old_key: by_old_key.then_some(id) })
    }

    /// The session id in a cookie's value, and whether an older key sealed it.
    fn open(&self, site: &Site, value: &[u8]) -> Result<(SessionId, bool), Why> {
        let name = site.cookies.session();
        let opened = open_cookie(&self.shared.keys, Purpose::SessionCookie, name, &site.name, value)
            .map_err(|_closed| Why::BadCredential)?;
        let id = opened.plain.as_slice().try_into().map_err(|_not_ours| Why::BadCredential)?;
        Ok((SessionId::new(id), opened.by_old_key))
    }

    async fn add_access_token(&self, plan: ForwardPlan) -> Result<ForwardPlan, Refusal> {
        let Some(session) = plan.session().filter(|_| plan.route().forward_access_token) else {
            return Ok(plan);
        };
        // It may have ended between the two looks.
        let session =
            self.shared.sessions.read(session.key).await?.ok_or(Refusal::SignInRequired(Why::NoSession))?;
        let now = self.shared.clock.now();
        if is_access_token_over(&session, now) {
            return self.without_access_token(plan, &session, now);
        }
        match HeaderValue::from_str(session.access_token.expose()) {
            Ok(token) => Ok(plan.with_access_token(token)),
            Err(_) => Ok(plan),
        }
    }

    /// RF-3: a route that promises an access token has nobody served with one that is over. While another
    /// one may come the request is to be repeated; where none can, a sign-in brings one. The session lives on
    /// for other routes.
    fn without_access_token(
        &self,
        plan: ForwardPlan,
        session: &Session,
        now: UnixTime,
    ) -> Result<ForwardPlan, Refusal> {
        if plan.route().rule.access == Access::Optional {
            return Ok(plan);
        }
        let provider = self.provider(Some(&session.provider.0)).ok().flatten();
        let may_come = |provider: &Provider| {
            let within = sent_within(provider);
            Schedule::of(session).is_some_and(|schedule| schedule.due(within, now) != Due::No)
        };
        if provider.is_some_and(may_come) {
            return Err(Refusal::ProviderUnavailable);
        }
        Err(Refusal::SignInRequired(Why::PastRoute))
    }
}

/// How long ago a refresh token may have been sent that is waited for or sent again: where that was a moment
/// ago, maybe by another gateway, its answer may still come.
fn sent_within(provider: &Provider) -> Duration {
    provider.settings().refresh_reuse_grace.max(lease_of(provider))
}

/// A redirect; [`Refusal::Internal`] where the location can't stand in a header.
///
/// # Errors
/// [`Refusal::Internal`].
pub fn redirect(location: &str) -> Result<Reply, Refusal> {
    Reply::redirect(location).map_err(|error| {
        tracing::error!(event = "internal", %error, "a redirect could not be written");
        Refusal::Internal
    })
}

/// Logs what should not happen; the client is told the request id only.
pub fn internal(request: &Request<'_>, error: &dyn std::error::Error) -> Refusal {
    tracing::error!(event = "internal", request_id = %request.id, %error, "a request failed inside the gateway");
    Refusal::Internal
}

/// What a page of another site may not do is refused before anybody is asked who it is for.
///
/// PP-10: such a page may open a WebSocket to this host, and where the two are of one site in the cookies'
/// sense it comes with the session. It must not act as the person then.
fn check_source(route: &Route, site: Option<&Site>, request: &Request<'_>) -> Result<(), Refusal> {
    let acts_as_somebody = || {
        let has_cookie =
            |site: &Site| cookie::find(request.headers, site.cookies.session()) != CookieFound::Absent;
        match route.rule.access {
            Access::Public => false,
            Access::Optional => site.is_some_and(has_cookie),
            Access::SignedIn => true,
        }
    };
    let is_guarded = route.cross_site != CrossSite::Allow;
    let is_websocket = request.is_websocket() && acts_as_somebody();
    if !is_guarded && !is_websocket {
        return Ok(());
    }
    let source = request.source(&site.map(Site::origin).unwrap_or_default());
    if route.cross_site.refuses(source) || is_websocket && source != Source::Own {
        return Err(Refusal::CrossSite);
    }
    Ok(())
}

/// The one session cookie of a request (SC-8).
fn shown_cookie<'a>(site: &Site, request: &Request<'a>) -> Result<&'a [u8], Why> {
    match cookie::find(request.headers, site.cookies.session()) {
        CookieFound::Absent => Err(Why::NoCredential),
        CookieFound::Several => Err(Why::BadCredential),
        CookieFound::One(value) => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use http::Method;

    use super::rig::{IDLE, LIFETIME, Owned, Rig};
    use super::*;
    use crate::clock::bucket::Rate;
    use crate::oidc::Issuer;
    use crate::oidc::logout_token::{LogoutToken, Whose};
    use crate::session::Key;
    use crate::store::{
        Change, Cursor, Index, Lease, Page, Record, Replaced, StoreError, StoreKey, Stored, Take, Taken,
    };
    use crate::web::Target;

    async fn verdict(rig: &Rig, request: &Owned) -> Result<bool, Refusal> {
        let plan = rig.gateway.decide(&request.request(), &LastCookie::default()).await;
        plan.map(|plan| plan.session().is_some())
    }

    #[tokio::test]
    async fn a_connection_that_remembers_a_cookie_judges_as_one_that_does_not() {
        let rig = Rig::new();
        let (user, admin) = (rig.sign_in(&["users"]).await, rig.sign_in(&["admins"]).await);
        let cut = user.get(..user.len() - 1).unwrap().to_owned();
        let last = LastCookie::default();
        let asked = [
            ("app.test", "/x", &user),
            ("app.test", "/x", &user),
            ("app.test", "/admin/x", &user),
            ("app.test", "/admin/x", &admin),
            ("app.test", "/x", &cut),
            ("other.test", "/x", &admin),
            ("app.test", "/x", &admin),
            ("app.test", "/public", &admin),
            ("app.test", "/x", &user),
        ];
        for (host, path, cookie) in asked {
            let request = Owned::get(host, path).with_cookie(cookie);
            let known = |plan: ForwardPlan| plan.session().map(|session| session.key);
            let remembered = rig.gateway.decide(&request.request(), &last).await.map(known);
            let alone = rig.gateway.decide(&request.request(), &LastCookie::default()).await.map(known);
            assert_eq!(remembered, alone, "{host}{path}");
        }
    }

    #[tokio::test]
    async fn a_remembered_cookie_is_worth_nothing_once_its_session_or_its_key_is_gone() {
        let rig = Rig::new();
        let (one, two) = (rig.sign_in(&["users"]).await, rig.sign_in(&["users"]).await);
        let last = LastCookie::default();
        let ask = async |cookie: &str| {
            let request = Owned::get("app.test", "/x").with_cookie(cookie);
            rig.gateway.decide(&request.request(), &last).await.map(|plan| plan.session().unwrap().key)
        };
        let key = ask(&one).await.unwrap();
        assert_eq!(ask(&one).await, Ok(key));
        rig.gateway.shared().sessions.end(key).await.unwrap();
        assert_eq!(ask(&one).await.unwrap_err(), Refusal::SignInRequired(Why::NoSession));

        ask(&two).await.unwrap();
        rig.gateway.shared().keys.replace(&[Key::from_bytes(*b"zyxwvutsrqponmlkjihgfedcba543210")]).unwrap();
        assert_eq!(ask(&two).await.unwrap_err(), Refusal::SignInRequired(Why::BadCredential));
    }

    #[tokio::test]
    async fn a_route_and_a_cookie_make_one_verdict() {
        let rig = Rig::new();
        let (user, admin) = (rig.sign_in(&["users"]).await, rig.sign_in(&["admins"]).await);
        let twice = format!("{user}; {admin}");
        let none = Err(Refusal::SignInRequired(Why::NoCredential));
        let bad = Err(Refusal::SignInRequired(Why::BadCredential));
        let cases = [
            ("public, nobody", "/public", None, Ok(false)),
            ("public, somebody is not told", "/public", Some(&user), Ok(false)),
            ("optional, nobody", "/optional", None, Ok(false)),
            ("optional, somebody", "/optional", Some(&user), Ok(true)),
            ("optional, junk", "/optional", Some(&"__Host-portcullis=junk".to_owned()), Ok(false)),
            ("signed in, nobody", "/x", None, none),
            ("signed in, somebody", "/x", Some(&user), Ok(true)),
            ("signed in, junk", "/x", Some(&"__Host-portcullis=%%%".to_owned()), bad),
            ("signed in, two cookies", "/x", Some(&twice), bad),
            ("signed in, the name without prefix", "/x", Some(&user.replace("__Host-", "")), none),
            ("admin, nobody", "/admin/x", None, none),
            ("admin, a user", "/admin/x", Some(&user), Err(Refusal::GroupMissing)),
            ("admin, an admin", "/admin/x", Some(&admin), Ok(true)),
            ("beside admin", "/administrator", Some(&user), Ok(true)),
        ];
        for (name, path, cookie, wanted) in cases {
            let request = Owned::get("app.test", path);
            let request = match cookie {
                Some(cookie) => request.with_cookie(cookie),
                None => request,
            };
            assert_eq!(verdict(&rig, &request).await, wanted, "{name}");
        }
    }

    #[tokio::test]
    async fn an_authentication_is_enough_for_its_context_and_grows_old_under_a_live_session() {
        let rig = Rig::new();
        let mut session = rig.session(&[]);
        let claims = serde_json::json!({
            "iss": "https://op.test", "sub": "alice", "acr": "phr", "auth_time": rig.clock.now().as_secs(),
        });
        session.claims = crate::token::Claims::parse(claims.to_string().as_bytes()).unwrap();
        let id = rig.gateway.shared.sessions.begin(&session, &rig::limits()).await.unwrap();
        let (strong, weak) = (rig.cookie(&id, "app.test"), rig.sign_in(&[]).await);
        let mut at = Duration::ZERO;
        let minute = Duration::from_mins(1);
        let (good, lacks) = (Ok(true), Err(Refusal::StepUpRequired));
        let rows = [
            (Duration::ZERO, "/strong", &strong, good),
            (Duration::ZERO, "/fresh", &strong, good),
            (Duration::ZERO, "/strong", &weak, lacks),
            (Duration::ZERO, "/fresh", &weak, lacks),
            (5 * minute, "/fresh", &strong, good),
            (5 * minute + Duration::from_millis(1), "/fresh", &strong, lacks),
            (6 * minute, "/strong", &strong, good),
            (6 * minute, "/x", &strong, good),
        ];
        for (when, path, cookie, wanted) in rows {
            rig.clock.advance(when.saturating_sub(at));
            at = when;
            let request = Owned::get("app.test", path).with_cookie(cookie);
            assert_eq!(verdict(&rig, &request).await, wanted, "{path} after {when:?}");
        }
    }

    #[tokio::test]
    async fn a_websocket_with_a_session_is_opened_by_own_pages_and_by_what_is_no_browser() {
        let rig = Rig::new();
        let cookie = rig.sign_in(&[]).await;
        let cases = [
            ("own page", "/x", Some("https://app.test"), Ok(true)),
            ("no browser", "/x", None, Ok(true)),
            ("another site", "/x", Some("https://evil.test"), Err(Refusal::CrossSite)),
            ("a sister host", "/x", Some("https://other.app.test"), Err(Refusal::CrossSite)),
            ("our name over http", "/x", Some("http://app.test"), Err(Refusal::CrossSite)),
            ("no origin at all", "/x", Some("null"), Err(Refusal::CrossSite)),
            ("another site, optional", "/optional", Some("https://evil.test"), Err(Refusal::CrossSite)),
            ("another site, public", "/public", Some("https://evil.test"), Ok(false)),
            (
                "another site, public and guarded",
                "/guarded/public",
                Some("https://evil.test"),
                Err(Refusal::CrossSite),
            ),
        ];
        for (name, path, origin, wanted) in cases {
            let handshake = Owned::get("app.test", path).with_cookie(&cookie);
            let handshake = handshake.with("upgrade", "websocket").with("connection", "Upgrade");
            let handshake = match origin {
                Some(origin) => handshake.with("origin", origin),
                None => handshake,
            };
            assert_eq!(verdict(&rig, &handshake).await, wanted, "{name}");
        }
        let plain = Owned::get("app.test", "/x").with_cookie(&cookie).with("origin", "https://evil.test");
        assert_eq!(verdict(&rig, &plain).await, Ok(true), "other requests are the application's to judge");
    }

    #[tokio::test]
    async fn pb_053_a_websocket_is_judged_by_its_origin_before_the_session_is_looked_for() {
        let (_store, rig) = troubled(true);
        let cookie = rig.sign_in(&[]).await;
        let nobody = Err(Refusal::SignInRequired(Why::NoCredential));
        let rows = [
            ("own page, the store is down", "/x", true, "https://app.test", Err(Refusal::StoreUnavailable)),
            ("another site", "/x", true, "https://evil.test", Err(Refusal::CrossSite)),
            ("another site, optional", "/optional", true, "https://evil.test", Err(Refusal::CrossSite)),
            ("another site without the session", "/x", false, "https://evil.test", Err(Refusal::CrossSite)),
            (
                "another site without the session, optional",
                "/optional",
                false,
                "https://evil.test",
                Ok(false),
            ),
            ("own page without the session", "/x", false, "https://app.test", nobody),
        ];
        for (name, path, has_cookie, origin, wanted) in rows {
            let handshake = Owned::get("app.test", path).with("origin", origin);
            let handshake = handshake.with("upgrade", "websocket").with("connection", "Upgrade");
            let handshake = if has_cookie { handshake.with_cookie(&cookie) } else { handshake };
            assert_eq!(verdict(&rig, &handshake).await, wanted, "{name}");
        }
    }

    #[tokio::test]
    async fn cs_3_a_guarded_route_takes_links_of_other_sites_and_nothing_else_from_there() {
        let rig = Rig::new();
        let cookie = rig.sign_in(&[]).await;
        let (link, script) = (("navigate", "document"), ("cors", "empty"));
        let image = ("no-cors", "image");
        let (frame, object) = (("navigate", "iframe"), ("navigate", "object"));
        let (get, post) = (&Method::GET, &Method::POST);
        let refused = Err(Refusal::CrossSite);
        let rows = [
            ("own page", post, Some("same-origin"), script, None, Ok(true)),
            ("typed", get, Some("none"), link, None, Ok(true)),
            ("link", get, Some("cross-site"), link, None, Ok(true)),
            ("link of a sister host", get, Some("same-site"), link, None, Ok(true)),
            ("frame", get, Some("cross-site"), frame, None, refused),
            ("object", get, Some("same-site"), object, None, refused),
            ("image", get, Some("cross-site"), image, None, refused),
            ("script of a sister host", get, Some("same-site"), script, Some("https://b.app.test"), refused),
            ("form", post, Some("cross-site"), link, Some("https://evil.test"), refused),
            ("form of a sister host", post, Some("same-site"), link, Some("https://b.app.test"), refused),
            ("preflight", &Method::OPTIONS, Some("cross-site"), script, Some("https://evil.test"), refused),
            ("old browser, form", post, None, ("", ""), Some("https://evil.test"), refused),
            ("old browser, own form", post, None, ("", ""), Some("https://app.test"), Ok(true)),
            ("old browser, link", get, None, ("", ""), None, Ok(true)),
            ("a program", post, None, ("", ""), None, Ok(true)),
        ];
        for (name, method, site, (mode, dest), origin, wanted) in rows {
            let mut request = Owned::get("app.test", "/guarded").with_cookie(&cookie).by(method);
            if let Some(site) = site {
                request = request.with("sec-fetch-site", site);
                request = request.with("sec-fetch-mode", mode).with("sec-fetch-dest", dest);
            }
            if let Some(origin) = origin {
                request = request.with("origin", origin);
            }
            assert_eq!(verdict(&rig, &request).await, wanted, "{name}");
            request.target = Target::parse(b"/x").unwrap();
            assert_eq!(verdict(&rig, &request).await, Ok(true), "{name}, on a route without a guard");
        }
    }

    #[tokio::test]
    async fn a_host_that_is_not_configured_gets_nothing_but_what_is_for_any_host() {
        let rig = Rig::new();
        let cases = [
            ("other.test", "/x", Err(Refusal::UnknownHost)),
            ("other.test", "/any", Ok(false)),
            ("app.test:444", "/public", Err(Refusal::UnknownHost)),
            ("app.test:443", "/public", Ok(false)),
        ];
        for (host, path, wanted) in cases {
            assert_eq!(verdict(&rig, &Owned::get(host, path)).await, wanted, "{host}{path}");
        }
    }

    #[tokio::test]
    async fn a_session_of_another_host_is_no_session_even_under_a_seal_for_this_one() {
        let rig = Rig::new();
        let mut session = rig.session(&[]);
        session.host = "tenantb.test".into();
        let id = rig.gateway.shared.sessions.begin(&session, &rig::limits()).await.unwrap();
        for host in ["tenantb.test", "app.test"] {
            let request = Owned::get("app.test", "/x").with_cookie(&rig.cookie(&id, host));
            let wanted = Err(Refusal::SignInRequired(Why::BadCredential));
            assert_eq!(verdict(&rig, &request).await, wanted, "sealed for {host}");
        }
    }

    #[tokio::test]
    async fn a_session_of_another_provider_is_no_session_on_a_host_that_has_one() {
        for (provider, wanted) in [
            (None, Ok(true)),
            (Some("main"), Ok(true)),
            (Some("other"), Err(Refusal::SignInRequired(Why::BadCredential))),
        ] {
            let mut rig = Rig::new();
            let host = crate::route::HostSettings {
                pattern: HostPattern::parse("app.test").unwrap(),
                public_url: url::Url::parse("https://app.test").unwrap(),
                provider: provider.map(|id| crate::oidc::ProviderId(id.into())),
            };
            rig.gateway.settings.hosts = HostTable::new(&[host]);
            let cookie = rig.sign_in(&[]).await;
            let request = Owned::get("app.test", "/x").with_cookie(&cookie);
            assert_eq!(verdict(&rig, &request).await, wanted, "{provider:?}");
        }
    }

    #[tokio::test]
    async fn only_a_route_that_asks_gets_the_access_token() {
        let rig = Rig::new();
        let cookie = rig.sign_in(&[]).await;
        let cases = [("/token", Some("access-token")), ("/x", None), ("/public", None)];
        for (path, wanted) in cases {
            let request = Owned::get("app.test", path).with_cookie(&cookie);
            let plan = rig.gateway.decide(&request.request(), &LastCookie::default()).await.unwrap();
            let token = plan.access_token().map(|token| token.to_str().unwrap());
            assert_eq!(token, wanted, "{path}");
            assert!(plan.access_token().is_none_or(HeaderValue::is_sensitive));
        }
    }

    #[tokio::test]
    async fn a_session_ends_when_idle_or_old_and_stays_ended() {
        let rig = Rig::new();
        let cookie = rig.sign_in(&[]).await;
        let request = Owned::get("app.test", "/x").with_cookie(&cookie);
        let steps = u32::try_from(LIFETIME.as_secs() / 300).unwrap();
        for step in 1..steps {
            rig.clock.advance(Duration::from_mins(5));
            tokio::task::yield_now().await;
            assert_eq!(verdict(&rig, &request).await, Ok(true), "step {step}");
        }
        rig.clock.advance(Duration::from_mins(5));
        assert_eq!(verdict(&rig, &request).await, Err(Refusal::SignInRequired(Why::Expired)));
        assert_eq!(verdict(&rig, &request).await, Err(Refusal::SignInRequired(Why::NoSession)));

        let idle = rig.sign_in(&[]).await;
        rig.clock.advance(IDLE + Duration::from_secs(1));
        let request = Owned::get("app.test", "/x").with_cookie(&idle);
        assert!(matches!(verdict(&rig, &request).await, Err(Refusal::SignInRequired(_))));
    }

    #[tokio::test]
    async fn use_is_written_back_so_that_another_process_sees_it() {
        let rig = Rig::new();
        let cookie = rig.sign_in(&[]).await;
        let request = Owned::get("app.test", "/x").with_cookie(&cookie);
        let plan = rig.gateway.decide(&request.request(), &LastCookie::default()).await.unwrap();
        let session = Arc::clone(plan.session().unwrap());
        rig.clock.advance(IDLE / 2);
        assert_eq!(verdict(&rig, &request).await, Ok(true));
        while session.version() < 2 {
            tokio::task::yield_now().await;
        }
        let stored = rig.gateway.shared.sessions.read(session.key).await.unwrap().unwrap();
        assert_eq!(stored.last_seen, rig.clock.now());
    }

    #[tokio::test]
    async fn the_end_of_a_session_is_seen_by_what_serves_it_and_at_the_next_request() {
        let rig = Rig::new();
        let cookie = rig.sign_in(&[]).await;
        let request = Owned::get("app.test", "/x").with_cookie(&cookie);
        let plan = rig.gateway.decide(&request.request(), &LastCookie::default()).await.unwrap();
        let session = plan.session().unwrap();
        assert!(!session.ended.is_cancelled());
        rig.gateway.shared.sessions.end(session.key).await.unwrap();
        assert!(session.ended.is_cancelled());
        assert_eq!(verdict(&rig, &request).await, Err(Refusal::SignInRequired(Why::NoSession)));
    }

    #[tokio::test]
    async fn a_session_past_the_limits_of_a_route_signs_in_again_there_and_serves_the_others() {
        let rig = Rig::new();
        let cookie = rig.sign_in(&[]).await;
        let (good, past) = (Ok(true), Err(Refusal::SignInRequired(Why::PastRoute)));
        let mut at = 0;
        let rows = [
            (0, "/watched", good),
            (2, "/watched", good),
            (4, "/x", good),
            (6, "/watched", good),
            (9, "/x", good),
            (9, "/watched", past),
            (9, "/watched", past),
            (9, "/perhaps", Ok(false)),
            (14, "/brief", good),
            (15, "/brief", past),
            (15, "/x", good),
        ];
        for (minute, path, wanted) in rows {
            rig.clock.advance(Duration::from_mins(minute - at));
            at = minute;
            let request = Owned::get("app.test", path).with_cookie(&cookie);
            assert_eq!(verdict(&rig, &request).await, wanted, "{path} at {minute}");
        }
        let anew = Owned::get("app.test", "/watched").with_cookie(&rig.sign_in(&[]).await);
        assert_eq!(verdict(&rig, &anew).await, good, "a new sign-in makes good");
    }

    #[tokio::test]
    async fn the_cookie_of_a_session_past_a_routes_limits_stays() {
        let rig = Rig::new();
        let cookie = rig.sign_in(&[]).await;
        rig.clock.advance(Duration::from_mins(3));
        let navigation = [("sec-fetch-mode", "navigate"), ("accept", "text/html")];
        let request = Owned::get("app.test", "/watched").with_cookie(&cookie);
        let request =
            navigation.into_iter().fold(request, |request, (name, value)| request.with(name, value));
        let refusal =
            rig.gateway.decide(&request.request(), &LastCookie::default()).await.map(|_| ()).unwrap_err();
        let mut cookies = SetCookies::default();
        let (reply, refusal) = rig.gateway.refuse(&request.request(), refusal, &mut cookies).await;
        assert_eq!((reply.status.as_u16(), refusal.code()), (302, "sign_in_required"));
        assert!(cookies.0.is_empty(), "{cookies:?}");
    }

    /// A store that is down, or that takes its time with `get`.
    #[derive(Debug)]
    struct Troubled {
        inner: Arc<dyn SessionStore>,
        down: bool,
        in_get: tokio::sync::Notify,
        go_on: tokio::sync::Notify,
    }

    impl Troubled {
        fn check(&self) -> Result<(), StoreError> {
            if self.down { Err(StoreError::new("down")) } else { Ok(()) }
        }
    }

    #[async_trait]
    impl SessionStore for Troubled {
        async fn get(&self, key: StoreKey) -> Result<Option<Stored>, StoreError> {
            self.check()?;
            let found = self.inner.get(key).await;
            self.in_get.notify_one();
            self.go_on.notified().await;
            found
        }
        async fn put(&self, record: Record, ttl: Duration) -> Result<(), StoreError> {
            self.inner.put(record, ttl).await
        }
        async fn replace(
            &self,
            record: Record,
            ttl: Duration,
            version: u64,
            lease: Option<&Lease>,
        ) -> Result<Replaced, StoreError> {
            self.inner.replace(record, ttl, version, lease).await
        }
        async fn remove(&self, key: StoreKey) -> Result<bool, StoreError> {
            self.check()?;
            self.inner.remove(key).await
        }
        async fn find_by(&self, index: Index) -> Result<Vec<(StoreKey, u64)>, StoreError> {
            self.inner.find_by(index).await
        }
        async fn remove_by(&self, index: Index, and: Option<Index>) -> Result<Vec<StoreKey>, StoreError> {
            self.check()?;
            self.inner.remove_by(index, and).await
        }
        async fn mark(&self, key: StoreKey, ttl: Duration) -> Result<(), StoreError> {
            self.inner.mark(key, ttl).await
        }
        async fn is_marked(&self, key: StoreKey) -> Result<bool, StoreError> {
            self.inner.is_marked(key).await
        }
        async fn put_once(&self, key: StoreKey, ttl: Duration) -> Result<bool, StoreError> {
            self.inner.put_once(key, ttl).await
        }
        async fn lease(&self, key: StoreKey, ttl: Duration) -> Result<Option<Lease>, StoreError> {
            self.inner.lease(key, ttl).await
        }
        async fn extend(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
            self.inner.extend(lease, ttl).await
        }
        async fn release(&self, lease: Lease) -> Result<(), StoreError> {
            self.inner.release(lease).await
        }
        async fn list(&self, cursor: Option<Cursor>, limit: usize) -> Result<Page, StoreError> {
            self.inner.list(cursor, limit).await
        }
        async fn take(&self, key: StoreKey, rate: Rate, take: Take) -> Result<Taken, StoreError> {
            self.inner.take(key, rate, take).await
        }
        fn changes(&self) -> Option<tokio::sync::broadcast::Receiver<Change>> {
            self.inner.changes()
        }
        async fn ping(&self) -> Result<(), StoreError> {
            self.check()
        }
    }

    fn troubled(down: bool) -> (Arc<Troubled>, Rig) {
        let clock = Clock::manual(crate::clock::UnixTime::from_secs(1_800_000_000));
        let store = Arc::new(Troubled {
            inner: Arc::new(crate::store::memory::MemoryStore::new(clock.clone())),
            down,
            in_get: tokio::sync::Notify::new(),
            go_on: tokio::sync::Notify::new(),
        });
        let rig = Rig::on(Arc::clone(&store) as Arc<dyn SessionStore>, clock);
        (store, rig)
    }

    #[tokio::test]
    async fn a_store_that_is_down_is_neither_anonymous_nor_a_sign_out() {
        let (_store, rig) = troubled(true);
        let cookie = rig.sign_in(&[]).await;
        for path in ["/x", "/optional", "/admin", "/token"] {
            let request = Owned::get("app.test", path).with_cookie(&cookie).with("accept", "text/html");
            let refusal =
                rig.gateway.decide(&request.request(), &LastCookie::default()).await.map(|_| ()).unwrap_err();
            assert_eq!(refusal, Refusal::StoreUnavailable, "{path}");
            let mut cookies = SetCookies::default();
            let (reply, _) = rig.gateway.refuse(&request.request(), refusal, &mut cookies).await;
            assert_eq!(reply.status, 503);
            assert!(reply.headers.contains_key("retry-after"));
            assert!(cookies.0.is_empty(), "an outage deletes no cookie");
        }
        let public = Owned::get("app.test", "/public").with_cookie(&cookie);
        assert_eq!(verdict(&rig, &public).await, Ok(false), "public routes don't ask the store");
    }

    #[tokio::test]
    async fn lo_194_a_logout_that_the_store_cannot_carry_out_is_neither_acknowledged_nor_used_up() {
        let (_store, rig) = troubled(true);
        let token =
            LogoutToken { whose: Whose::Sub("alice".into()), jti: "j1".into(), issued_at: rig.clock.now() };
        let issuer = Issuer("https://op.test".into());
        for time in ["first", "second"] {
            assert!(rig.gateway.hear(&issuer, &token).await.is_err(), "the {time} time, not `Replayed`");
        }
    }

    #[tokio::test]
    async fn a_load_that_overlaps_the_end_brings_no_session_back() {
        let (store, rig) = troubled(false);
        let cookie = rig.sign_in(&[]).await;
        let request = Owned::get("app.test", "/x").with_cookie(&cookie);
        let view = request.request();
        let site = rig.gateway.site(&view).unwrap();
        let id = rig.gateway.session_id(&site, &view).unwrap();
        let end_it = async {
            store.in_get.notified().await;
            rig.gateway.shared.sessions.end(StoreKey(id.store_key())).await.unwrap();
            store.go_on.notify_one();
        };
        let (first, ()) = tokio::join!(verdict(&rig, &request), end_it);
        assert_eq!(first, Err(Refusal::SignInRequired(Why::NoSession)));
        store.go_on.notify_one();
        assert_eq!(verdict(&rig, &request).await, Err(Refusal::SignInRequired(Why::NoSession)));
    }

    #[tokio::test]
    async fn what_cannot_follow_a_login_gets_401_without_redirect_and_cookie() {
        let rig = Rig::new();
        let cases: [(&str, &[(&str, &str)]); 5] = [
            ("fetch", &[("sec-fetch-mode", "cors"), ("accept", "*/*")]),
            ("image", &[("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")]),
            ("xhr", &[("x-requested-with", "XMLHttpRequest"), ("accept", "text/html")]),
            ("json", &[("accept", "application/json")]),
            ("websocket", &[("upgrade", "websocket"), ("connection", "Upgrade")]),
        ];
        for (name, headers) in cases {
            let mut request = Owned::get("app.test", "/x").with_cookie("__Host-portcullis=junk");
            for (name, value) in headers {
                request
                    .headers
                    .append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
            }
            let refusal =
                rig.gateway.decide(&request.request(), &LastCookie::default()).await.map(|_| ()).unwrap_err();
            let mut cookies = SetCookies::default();
            let (reply, _) = rig.gateway.refuse(&request.request(), refusal, &mut cookies).await;
            assert_eq!(reply.status, 401, "{name}");
            assert!(reply.headers.contains_key("www-authenticate"), "{name}");
            assert!(!reply.headers.contains_key("location"), "{name}");
            assert!(cookies.0.is_empty(), "{name}");
            let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
            assert_eq!(body["error"], "sign_in_required", "{name}");
        }
    }
}
