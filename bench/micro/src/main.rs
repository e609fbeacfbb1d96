//! What the pure steps of a request cost, each alone, in nanoseconds: `./dev bench micro`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::header::HeaderName;
use mimalloc::MiMalloc;
use portcullis::clock::UnixTime;
use portcullis::gateway::forward;
use portcullis::identity::headers::{HeaderTable, Preset};
use portcullis::identity::{ClaimPaths, Identity};
use portcullis::policy::{self, Access, Rule, Subject, Via};
use portcullis::route::{CrossSite, HostPattern, PathPrefix, Route, RouteTable, UpstreamId};
use portcullis::server::fuzz::read_head;
use portcullis::session::seal::{open_cookie, open_record, seal_cookie, seal_record};
use portcullis::session::{Key, KeyRing, Purpose, RouteLimits, Session};
use portcullis::token::Claims;
use portcullis::web::{Host, Target, cookie};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const HOST: &str = "wiki.example.com";
const COOKIE: &str = "__Host-portcullis";
const NOW: UnixTime = UnixTime::from_secs(1_790_000_000);
/// What the names of a request's headers are, as a browser sends them.
const NAMES: [&str; 10] = [
    "host",
    "user-agent",
    "accept",
    "accept-language",
    "accept-encoding",
    "connection",
    "cookie",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
];

criterion_group!(steps, heads, targets, routes, cookies, records, identities, policies);
criterion_main!(steps);

/// The head of a browser's request with a session: the strict reader, and what goes on to the proxy engine.
fn heads(criterion: &mut Criterion) {
    let head = format!(
        "GET /wiki/page?action=edit HTTP/1.1\r\nHost: {HOST}\r\n\
        User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
        Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
        Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
        Connection: keep-alive\r\nCookie: {COOKIE}={}; theme=dark\r\nSec-Fetch-Dest: document\r\n\
        Sec-Fetch-Mode: navigate\r\nSec-Fetch-Site: same-origin\r\n\r\n",
        "c".repeat(110)
    );
    assert!(read_head(head.as_bytes(), head.len()).is_some(), "the head is let in");
    criterion.bench_function("request head", |bench| {
        bench.iter(|| read_head(black_box(head.as_bytes()), head.len()));
    });
}

fn targets(criterion: &mut Criterion) {
    let rows = [
        ("target, canonical already", "/wiki/page?action=edit"),
        ("target, to be normalised", "/wiki/%61bc/caf%c3%a9/of%20it?q=%41"),
    ];
    for (name, raw) in rows {
        assert!(Target::parse(raw.as_bytes()).is_ok(), "{raw} is a target");
        criterion.bench_function(name, |bench| bench.iter(|| Target::parse(black_box(raw.as_bytes()))));
    }
}

fn routes(criterion: &mut Criterion) {
    for count in [1, 100, 10_000] {
        let table = RouteTable::new((0..count).map(route).collect(), Vec::new());
        let (host, target) = (host("app7.example.com"), Target::parse(b"/team7/page/of/it"));
        let target = target.expect("it is a target");
        criterion.bench_function(&format!("route, of {count}"), |bench| {
            bench.iter(|| table.find(black_box(&host), black_box(&target)).is_ok());
        });
    }
}

/// A hundred hosts, a hundred paths on each.
fn route(n: usize) -> Route {
    Route {
        name: format!("route {n}").into(),
        host: HostPattern::parse(&format!("app{}.example.com", n % 100)).expect("it is a pattern"),
        path: PathPrefix::parse(&format!("/team{}/", n / 100)).expect("it is a path"),
        rule: Rule::default(),
        session: RouteLimits::default(),
        upstream: UpstreamId(0),
        max_body_bytes: None,
        keep_host: true,
        forward_access_token: false,
        forward_authorization: true,
        allow_encoded_slash: false,
        provider: None,
        authorization_params: Vec::new(),
        cross_site: CrossSite::Allow,
        rate_limit: None,
    }
}

/// The session's reference out of its cookie, and the cookies that are left for the application.
fn cookies(criterion: &mut Criterion) {
    let ring = ring();
    let value = seal_cookie(&ring, Purpose::SessionCookie, COOKIE, HOST, &[7; 48]).expect("it is sealed");
    let open = |value: &str| open_cookie(&ring, Purpose::SessionCookie, COOKIE, HOST, value.as_bytes());
    assert!(open(&value).is_ok(), "it opens");
    criterion.bench_function("cookie, opened", |bench| bench.iter(|| open(black_box(&value))));

    let mut headers = http::HeaderMap::new();
    let sent = format!("{COOKIE}={value}; theme=dark; lang=de");
    headers.insert(http::header::COOKIE, sent.parse().expect("it is a header"));
    criterion.bench_function("cookie, found", |bench| {
        bench.iter(|| matches!(cookie::find(black_box(&headers), COOKIE), cookie::Found::One(_)));
    });
    criterion.bench_function("cookies of the application", |bench| {
        bench.iter(|| cookie::without(black_box(&headers), portcullis::session::cookie::is_ours));
    });
}

/// What the store keeps of a session: written at sign-in, read where no cache has it.
fn records(criterion: &mut Criterion) {
    let (ring, session) = (ring(), session());
    let sealed = seal_record(&ring, &[3; 32], &session).expect("it is sealed");
    criterion.bench_function("session, sealed", |bench| {
        bench.iter(|| seal_record(&ring, &[3; 32], black_box(&session)));
    });
    criterion.bench_function("session, opened", |bench| {
        bench.iter_batched(
            || sealed.clone(),
            |sealed| open_record(&ring, &[3; 32], &sealed),
            BatchSize::SmallInput,
        );
    });
}

/// The header plan: what is taken from a client's request, once for each, and what is set, once for a session.
fn identities(criterion: &mut Criterion) {
    let (table, identity, claims) =
        (HeaderTable::new(&[Preset::default()], Vec::new()), identity(), claims());
    let names = NAMES.map(HeaderName::from_static);
    criterion.bench_function("headers of a client, ten", |bench| {
        bench.iter(|| black_box(&names).iter().filter(|name| table.is_stripped(name.as_str())).count());
    });
    criterion.bench_function("headers of an identity", |bench| {
        bench.iter(|| table.render(black_box(&identity), &claims));
    });
}

fn policies(criterion: &mut Criterion) {
    let subject = Subject::Known(Arc::new(identity()), Via::Session);
    let grouped = Rule { groups: vec!["wiki-admins".into(), "vpn-users".into()], ..Rule::default() };
    let route = Arc::new(route(0));
    for (name, rule) in [("policy, signed in", Rule::default()), ("policy, one of two groups", grouped)] {
        assert_eq!(rule.access, Access::SignedIn);
        let evaluate = || policy::evaluate(black_box(&rule), &subject, NOW, Duration::ZERO);
        assert!(evaluate().is_ok(), "{name} lets the person through");
        criterion.bench_function(name, |bench| bench.iter(|| evaluate().is_ok()));
    }
    let permit = policy::evaluate(&Rule::default(), &subject, NOW, Duration::ZERO).expect("they may");
    criterion.bench_function("plan", |bench| {
        bench.iter(|| forward::plan(black_box(&permit), Arc::clone(&route), None, None));
    });
}

fn host(name: &str) -> Host {
    Host::parse(name.as_bytes()).expect("it is a host")
}

fn ring() -> KeyRing {
    KeyRing::new(&[Key::random().expect("there is entropy")]).expect("it is a ring")
}

fn identity() -> Identity {
    Identity::from_claims(&claims(), &ClaimPaths::default()).expect("they name somebody")
}

fn claims() -> Claims {
    Claims::parse(claims_as_json().to_string().as_bytes()).expect("it is an object")
}

fn claims_as_json() -> Value {
    json!({
        "iss": "https://login.example.com/realms/main", "sub": "248289761001", "aud": "portcullis",
        "azp": "portcullis", "sid": "08a5019c-17e1-4977-8f42-65a12843ea02", "acr": "1", "typ": "ID",
        "exp": 1_790_000_300, "iat": 1_790_000_000, "auth_time": 1_790_000_000, "email_verified": true,
        "name": "Alice Example", "preferred_username": "alice", "given_name": "Alice",
        "family_name": "Example", "email": "alice@example.com",
        "groups": ["staff", "wiki-editors", "berlin", "engineering", "vpn-users"],
    })
}

/// With tokens as large as Keycloak's.
fn session() -> Session {
    let session = json!({
        "provider": "main",
        "issuer": "https://login.example.com/realms/main",
        "subject": "248289761001",
        "sid": "08a5019c-17e1-4977-8f42-65a12843ea02",
        "host": HOST,
        "claims": claims_as_json(),
        "id_token": "i".repeat(900),
        "access_token": "a".repeat(900),
        "access_expires_at": 1_790_000_300_000_u64,
        "refresh_token": "r".repeat(600),
        "created_at": 1_790_000_000_000_u64,
        "last_seen": 1_790_000_000_000_u64,
        "client": "198.51.100.17",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    });
    serde_json::from_value(session).expect("it is a session")
}
