//! A gateway for tests: memory store, a clock that the test moves, no provider.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue, Method};
use url::Url;

use super::limits::{LimitSettings, Limits as RateLimits};
use super::sessions::{CacheSettings, Reading, Sessions};
use super::{Gateway, Paths, Settings, Shared};
use crate::clock::{Clock, UnixTime};
use crate::identity::ClaimPaths;
use crate::identity::headers::{HeaderTable, Preset};
use crate::oidc::step_up::StepUp;
use crate::oidc::{Issuer, ProviderId};
use crate::policy::{Access, Rule};
use crate::route::{
    CrossSite, HostPattern, HostSettings, HostTable, PathPrefix, Route, RouteTable, Upstream, UpstreamId,
};
use crate::secret::Secret;
use crate::session::seal::seal_cookie;
use crate::session::{Key, KeyRing, Limits, Purpose, RouteLimits, Session, SessionId};
use crate::store::SessionStore;
use crate::store::guard::GuardedStore;
use crate::store::memory::MemoryStore;
use crate::telemetry::Events;
use crate::token::Claims;
use crate::web::{Host, Request, RequestId, Target};

pub(crate) const IDLE: Duration = Duration::from_mins(10);
pub(crate) const LIFETIME: Duration = Duration::from_hours(1);

pub(crate) const CACHE: CacheSettings = CacheSettings {
    bytes: 1 << 20,
    staleness: Duration::from_secs(5),
    outage_window: Duration::from_mins(1),
};

/// The gateway, its clock and its store.
pub(crate) struct Rig {
    pub(crate) gateway: Gateway,
    pub(crate) clock: Clock,
}

/// A request that owns its parts.
pub(crate) struct Owned {
    method: Method,
    pub(crate) target: Target,
    host: Host,
    pub(crate) headers: HeaderMap,
}

impl Owned {
    pub(crate) fn get(url_host: &str, target: &str) -> Self {
        Self {
            method: Method::GET,
            target: Target::parse(target.as_bytes()).unwrap(),
            host: Host::parse(url_host.as_bytes()).unwrap(),
            headers: HeaderMap::new(),
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, HeaderValue::from_str(value).unwrap());
        self
    }

    pub(crate) fn with_cookie(mut self, cookie: &str) -> Self {
        self.headers.append(COOKIE, HeaderValue::from_str(cookie).unwrap());
        self
    }

    pub(crate) fn by(mut self, method: &Method) -> Self {
        self.method = method.clone();
        self
    }

    pub(crate) fn request(&self) -> Request<'_> {
        Request {
            id: RequestId::new(),
            method: &self.method,
            target: &self.target,
            host: &self.host,
            headers: &self.headers,
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            local_port: 443,
        }
    }
}

impl Rig {
    /// Routes on app.test: `/` signed in, `/public`, `/optional`, `/admin` for the group `admins`,
    /// `/brief` within 15 minutes after sign-in, `/watched` (and `/perhaps`, optional) without pauses of three,
    /// `/token` with the access token, `/strong` for the context `phr`, `/fresh` within five minutes; `/guarded`
    /// (and `/guarded/public`) against other sites; on any other host `/any`, public.
    pub(crate) fn new() -> Self {
        let clock = Clock::manual(UnixTime::from_secs(1_800_000_000));
        Self::on(Arc::new(MemoryStore::new(clock.clone())), clock)
    }

    pub(crate) fn on(store: Arc<dyn SessionStore>, clock: Clock) -> Self {
        Self::with(store, clock, CACHE)
    }

    pub(crate) fn with(store: Arc<dyn SessionStore>, clock: Clock, cache: CacheSettings) -> Self {
        let keys = [Key::from_bytes(*b"0123456789abcdefghijklmnopqrstuv")];
        let keys = Arc::new(KeyRing::new(&keys).unwrap());
        let runtime = tokio::runtime::Handle::current();
        let events = Events::quiet();
        let store = Arc::new(GuardedStore::new(store, clock.clone(), events.clone(), runtime.clone()));
        let sessions =
            Sessions::new(Arc::clone(&store), Arc::clone(&keys), clock.clone(), runtime.clone(), cache);
        let sessions = Arc::new(sessions);
        sessions.start();
        let limits = RateLimits::new(store.clone(), clock.clone(), events.clone());
        let shared = Shared {
            store,
            sessions,
            keys,
            providers: Vec::new(),
            limits,
            clock: clock.clone(),
            events,
            runtime,
        };
        Self { gateway: Gateway::new(settings(), Arc::new(shared)), clock }
    }

    /// Somebody signed in on app.test; returns the cookie.
    pub(crate) async fn sign_in(&self, groups: &[&str]) -> String {
        let session = self.session(groups);
        let id = self.gateway.shared.sessions.begin(&session, &limits()).await.unwrap();
        self.cookie(&id, "app.test")
    }

    /// The session cookie for an id, sealed for a host.
    pub(crate) fn cookie(&self, id: &SessionId, host: &str) -> String {
        let name = "__Host-portcullis";
        let keys = &self.gateway.shared.keys;
        let value = seal_cookie(keys, Purpose::SessionCookie, name, host, id.expose()).unwrap();
        format!("{name}={value}")
    }

    pub(crate) fn session(&self, groups: &[&str]) -> Session {
        let claims = serde_json::json!({ "iss": "https://op.test", "sub": "alice", "groups": groups });
        Session {
            provider: ProviderId("main".into()),
            issuer: Issuer("https://op.test".into()),
            subject: "alice".into(),
            sid: None,
            host: "app.test".into(),
            claims: Claims::parse(claims.to_string().as_bytes()).unwrap(),
            id_token: Secret::new("id-token".into()),
            access_token: Secret::new("access-token".into()),
            access_expires_at: None,
            refresh_token: None,
            refreshed_at: None,
            refresh_sent_at: None,
            created_at: self.clock.now(),
            last_seen: self.clock.now(),
            longest_idle: Duration::ZERO,
            client: None,
            user_agent: None,
        }
    }
}

pub(crate) fn limits() -> Limits {
    Limits { idle_timeout: IDLE, max_lifetime: LIFETIME, shortest_idle: IDLE }
}

fn settings() -> Settings {
    let app = |path, access, groups: &[&str], token| route("app.test", path, access, groups, token);
    let routes = vec![
        app("/", Access::SignedIn, &[], false),
        app("/public", Access::Public, &[], false),
        app("/optional", Access::Optional, &[], false),
        app("/admin", Access::SignedIn, &["admins"], false),
        app("/token", Access::SignedIn, &[], true),
        asking(app("/strong", Access::SignedIn, &[], false), &["phr"], None),
        asking(app("/fresh", Access::SignedIn, &[], false), &[], Some(Duration::from_mins(5))),
        limited(app("/brief", Access::SignedIn, &[], false), None, Some(Duration::from_mins(15))),
        limited(app("/watched", Access::SignedIn, &[], false), Some(Duration::from_mins(3)), None),
        limited(app("/perhaps", Access::Optional, &[], false), Some(Duration::from_mins(3)), None),
        guarded(app("/guarded", Access::SignedIn, &[], false)),
        guarded(app("/guarded/public", Access::Public, &[], false)),
        route("*", "/any", Access::Public, &[], false),
    ];
    let upstream = Upstream {
        tls: false,
        host: "127.0.0.1".into(),
        port: 1,
        ca_file: None,
        connect_timeout: IDLE,
        read_timeout: IDLE,
        idle_timeout: IDLE,
    };
    let host = HostSettings {
        pattern: HostPattern::parse("app.test").unwrap(),
        public_url: Url::parse("https://app.test").unwrap(),
        provider: None,
    };
    Settings {
        routes: RouteTable::new(routes, vec![upstream]),
        hosts: HostTable::new(&[host]),
        reading: Arc::new(Reading {
            claim_paths: ClaimPaths::default(),
            headers: HeaderTable::new(&[Preset::XForwarded], Vec::new()),
            limits: limits(),
        }),
        limits: LimitSettings::default(),
        paths: Paths::new("/oauth2"),
        per_user: None,
        demo: false,
    }
}

fn route(host: &str, path: &str, access: Access, groups: &[&str], forward_access_token: bool) -> Route {
    Route {
        name: path.into(),
        host: HostPattern::parse(host).unwrap(),
        path: PathPrefix::parse(path).unwrap(),
        rule: Rule {
            access,
            groups: groups.iter().map(|&group| group.into()).collect(),
            step_up: StepUp::default(),
        },
        session: RouteLimits::default(),
        upstream: UpstreamId(0),
        keep_host: true,
        forward_access_token,
        forward_authorization: true,
        allow_encoded_slash: false,
        max_body_bytes: None,
        provider: None,
        authorization_params: Vec::new(),
        cross_site: CrossSite::default(),
        rate_limit: None,
    }
}

fn guarded(route: Route) -> Route {
    Route { cross_site: CrossSite::Deny, ..route }
}

fn asking(mut route: Route, acr: &[&str], max_age: Option<Duration>) -> Route {
    route.rule.step_up = StepUp { acr: acr.iter().map(|&acr| acr.into()).collect(), max_age };
    route
}

fn limited(mut route: Route, idle_timeout: Option<Duration>, max_lifetime: Option<Duration>) -> Route {
    route.session = RouteLimits { idle_timeout, max_lifetime };
    route
}
