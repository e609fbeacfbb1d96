//! The verdict on a request: which route, who is asking, may they, what does the upstream get. No
//! pingora, no sockets.

pub mod challenge;
pub mod forward;
pub mod paths;
pub mod refusal;
pub mod sessions;

use std::sync::Arc;

use http::header::HeaderValue;

use crate::clock::Clock;
use crate::idp::Provider;
use crate::policy::{self, Access, Subject, Via, Why};
use crate::route::{HostPattern, HostTable, Route, RouteTable, Site};
use crate::session::seal::open_cookie;
use crate::session::{KeyRing, Purpose, SessionId};
use crate::store::SessionStore;
use crate::telemetry::Events;
use crate::web::cookie::{self, Found as CookieFound};
use crate::web::{Reply, Request};

pub use forward::ForwardPlan;
pub use paths::Paths;
pub use refusal::Refusal;
use sessions::{Found, Reading, ReadySession, Sessions};

/// What a gateway is built of; made by `config`.
#[derive(Debug)]
pub struct Settings {
    /// All routes.
    pub routes: RouteTable,
    /// All hosts.
    pub hosts: HostTable,
    /// How sessions are read: claim paths, identity headers, lifetimes.
    pub reading: Reading,
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

/// `Set-Cookie` fields that go out with whatever answer the request gets: the gateway's own, the
/// upstream's, a 101, the page for a dead upstream; never with another 1xx.
#[derive(Debug, Default)]
pub struct SetCookies(pub Vec<HeaderValue>);

impl SetCookies {
    /// Deletes a cookie of the gateway.
    pub fn delete(&mut self, name: &str, site: &Site) {
        self.0.push(cookie::delete(name, site.cookies.secure()));
    }
}

/// Who is asking, and the session that says so.
#[derive(Debug)]
struct Authenticated {
    subject: Subject,
    session: Option<Arc<ReadySession>>,
}

impl Authenticated {
    const fn nobody(why: Why) -> Self {
        Self { subject: Subject::Anonymous(why), session: None }
    }

    fn somebody(session: Arc<ReadySession>) -> Self {
        Self { subject: Subject::Known(Arc::clone(&session.identity), Via::Session), session: Some(session) }
    }
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

    /// The verdict: where the request goes and what the upstream gets, or why not.
    ///
    /// # Errors
    /// [`Refusal`]; [`Gateway::refuse`] makes the answer of it.
    pub async fn decide(&self, request: &Request<'_>) -> Result<ForwardPlan, Refusal> {
        let (route, site) = self.find_route(request)?;
        let Authenticated { subject, session } = self.authenticate(route, site.as_deref(), request).await?;
        let permit = policy::evaluate(&route.rule, &subject)?;
        let plan = forward::plan(&permit, Arc::clone(route), site, session);
        self.add_access_token(plan).await
    }

    /// The answer for a refusal: a redirect to sign-in where the request can follow one, else the
    /// page or JSON of the refusal.
    pub async fn refuse(&self, request: &Request<'_>, refusal: Refusal, cookies: &mut SetCookies) -> Reply {
        let challenged = match refusal {
            Refusal::SignInRequired(why) => self.challenge(request, why, cookies).await,
            #[expect(clippy::wildcard_enum_match_arm, reason = "only one refusal has a way on")]
            other => Err(other),
        };
        challenged.unwrap_or_else(|refusal| self.render(request, refusal))
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

    fn find_route(&self, request: &Request<'_>) -> Result<(&Arc<Route>, Option<Arc<Site>>), Refusal> {
        let site = self.site(request);
        let Some(route) = self.settings.routes.find(request.host, request.target) else {
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
    ) -> Result<Authenticated, Refusal> {
        let Some(site) = site else { return Ok(Authenticated::nobody(Why::NotAsked)) };
        if route.rule.access == Access::Public {
            return Ok(Authenticated::nobody(Why::NotAsked));
        }
        let found = self.session(site, request).await?;
        Ok(found.map_or_else(Authenticated::nobody, Authenticated::somebody))
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
        let id = match self.session_id(site, request) {
            Ok(id) => id,
            Err(why) => return Ok(Err(why)),
        };
        Ok(match self.shared.sessions.find(&id, &self.settings.reading).await? {
            // SC-3: the seal binds the host already; the record says it once more.
            Found::Live(session) if *session.host == *site.name => Ok(session),
            Found::Live(_) => Err(Why::BadCredential),
            Found::Absent => Err(Why::NoSession),
            Found::Expired => Err(Why::Expired),
        })
    }

    /// The session id in a request's cookie, or why there is none.
    ///
    /// # Errors
    /// [`Why`] nobody is known.
    pub fn session_id(&self, site: &Site, request: &Request<'_>) -> Result<SessionId, Why> {
        let name = site.cookies.session();
        let value = match cookie::find(request.headers, name) {
            CookieFound::Absent => return Err(Why::NoCredential),
            CookieFound::Several => return Err(Why::BadCredential),
            CookieFound::One(value) => value,
        };
        let opened = open_cookie(&self.shared.keys, Purpose::SessionCookie, name, &site.name, value);
        let id =
            opened.ok().and_then(|opened| <[u8; SessionId::LEN]>::try_from(opened.plain.as_slice()).ok());
        id.map(SessionId::new).ok_or(Why::BadCredential)
    }

    async fn add_access_token(&self, plan: ForwardPlan) -> Result<ForwardPlan, Refusal> {
        let Some(session) = plan.session().filter(|_| plan.route().forward_access_token) else {
            return Ok(plan);
        };
        // It may have ended between the two looks.
        let session =
            self.shared.sessions.read(session.key).await?.ok_or(Refusal::SignInRequired(Why::NoSession))?;
        match HeaderValue::from_str(session.access_token.expose()) {
            Ok(token) => Ok(plan.with_access_token(token)),
            Err(_) => Ok(plan),
        }
    }
}
