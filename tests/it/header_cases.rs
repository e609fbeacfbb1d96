//! Attack cases on identity and forwarded headers, raw, against the running gateway: IH-054 to IH-073.

use serde_json::{Value, json};

use crate::support::lax::cgi;
use crate::support::rig::{APP, Rig};
use crate::support::upstream::Upstream;
use crate::support::wire::Head;

/// Every header that names somebody, of every preset.
const IDENTITY: &[&str] = &[
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Forwarded-Groups",
    "X-Forwarded-Preferred-Username",
    "X-Forwarded-Access-Token",
    "X-Auth-Request-User",
    "X-Auth-Request-Email",
    "X-Auth-Request-Groups",
    "X-Auth-Request-Preferred-Username",
    "X-Auth-Request-Access-Token",
    "Remote-User",
    "Remote-Email",
    "Remote-Groups",
    "Remote-Name",
];

/// A rig that tells people's names in every preset, and `X-Department`.
fn rig(upstream: Upstream) -> Rig {
    Rig::in_front_of(upstream, |builder, _| {
        builder.config(
            "[headers]\npresets = [\"x-forwarded\", \"x-auth-request\", \"remote\"]\n\
             claims = { X-Department = \"department\" }",
        )
    })
}

/// Every identity header in several spellings, as `mallory`.
fn spoofed() -> String {
    let spellings = |name: &&str| {
        let other = |sign: &str| name.replace('-', sign);
        [
            (*name).to_owned(),
            name.to_ascii_lowercase(),
            name.to_ascii_uppercase(),
            other("_"),
            other("."),
            name.replacen('-', "_", 1),
            name.replacen('-', ".", 1).to_ascii_uppercase(),
            format!("{name}_"),
        ]
    };
    let field = |name: String| format!("{name}: mallory\r\n");
    // The gateway takes a hundred fields.
    IDENTITY.iter().take(9).chain(&IDENTITY[10..12]).flat_map(spellings).map(field).collect()
}

/// What an application may believe: nothing of mallory, and no name twice.
fn assert_unspoofed(name: &str, head: &Head, user: Option<&str>) {
    let believed: Vec<_> = head.fields.iter().filter(|(_, value)| value.contains("mallory")).collect();
    assert_eq!(believed, Vec::<&(String, String)>::new(), "{name}");
    for header in IDENTITY {
        let values = cgi(head, &header.to_ascii_lowercase());
        assert!(values.len() < 2, "{name}: {header}: {values:?}");
    }
    assert_eq!(cgi(head, "x-forwarded-user"), user.into_iter().collect::<Vec<_>>(), "{name}");
}

#[test]
fn ih_054_ih_055_no_client_names_itself_in_any_spelling_on_any_way() {
    let rig = rig(Upstream::start_lax());
    let alice = rig.alice();
    let spoofed = spoofed();
    let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: https://app.test\r\n";
    let cases = [
        ("GET /public/x HTTP/1.1", "", "", None),
        ("GET /public/x HTTP/1.1", &*alice, "", None),
        ("GET /public/x HTTP/1.0", "", "", None),
        ("HEAD /public/x HTTP/1.1", "", "", None),
        ("OPTIONS /public/x HTTP/1.1", "", "", None),
        ("POST /public/x HTTP/1.1", "", "Content-Length: 0\r\n", None),
        ("GET /opt/x HTTP/1.1", "", "", None),
        ("GET /opt/x HTTP/1.1", &alice, "", Some("alice")),
        ("GET /app HTTP/1.1", &alice, "", Some("alice")),
        ("GET /app HTTP/1.0", &alice, "", Some("alice")),
        ("HEAD /app HTTP/1.1", &alice, "", Some("alice")),
        ("OPTIONS /app HTTP/1.1", &alice, "", Some("alice")),
        ("PROPFIND /app HTTP/1.1", &alice, "", Some("alice")),
        ("GET /ws HTTP/1.1", &alice, handshake, Some("alice")),
    ];
    for (line, who, more, user) in cases {
        let hits = rig.upstream.hits();
        let request = format!("{line}\r\nHost: {APP}\r\n{spoofed}{who}{more}\r\n");
        let (status, ..) = rig.send(request).response_head(line.split(' ').next().unwrap());
        assert!(matches!(status, 200 | 101), "{line}: {status}");
        assert_eq!(rig.upstream.hits(), hits + 1, "{line}");
        assert_unspoofed(line, rig.upstream.seen().last().unwrap(), user);
    }
}

#[test]
fn ih_058_what_connection_names_takes_nothing_away_that_the_gateway_sets() {
    let rig = rig(Upstream::start());
    let alice = rig.alice();
    let nominated = [
        "Cookie, Authorization",
        "X-Forwarded-For",
        "X-Forwarded-Proto, X-Real-IP",
        "close, X-Forwarded-Host",
        "X-Forwarded-User, x-forwarded-groups",
        "\"X-Forwarded-User\"",
        "Remote-User",
        "X-Department",
        "X-Request-Id",
        ":authority",
        "Host",
        "*",
        ", ,X-Forwarded-User,",
    ];
    for names in nominated {
        let hits = rig.upstream.hits();
        let request = format!("GET /app HTTP/1.1\r\nHost: {APP}\r\n{alice}Connection: {names}\r\n\r\n");
        let status = rig.ask(request).status;
        if rig.upstream.hits() == hits {
            assert_eq!(status, 400, "{names}");
            continue;
        }
        let seen = rig.upstream.seen();
        let head = seen.last().unwrap();
        let told = [
            ("host", APP),
            ("x-forwarded-user", "alice"),
            ("x-forwarded-groups", "users"),
            ("remote-user", "alice"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", APP),
        ];
        for (name, value) in told {
            assert_eq!(head.one(name), Some(value), "Connection: {names}");
        }
        assert!(head.one("x-request-id").is_some(), "Connection: {names}");
    }
}

#[test]
fn ih_058_what_connection_names_never_takes_the_framing_of_a_body_away() {
    let rig = rig(Upstream::start());
    let smuggled = "GET /admin/smuggled HTTP/1.1\r\nHost: app.test\r\nX-Forwarded-User: root\r\n\r\n";
    let chunk = format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len());
    let bodies = [
        ("Content-Length", format!("Content-Length: {}\r\n\r\n{smuggled}", smuggled.len())),
        ("content-length, close", format!("Content-Length: {}\r\n\r\n{smuggled}", smuggled.len())),
        ("Transfer-Encoding", format!("Transfer-Encoding: chunked\r\n\r\n{chunk}")),
        ("Transfer-Encoding, Content-Length", format!("Transfer-Encoding: chunked\r\n\r\n{chunk}")),
    ];
    for (names, body) in bodies {
        let request = format!("POST /public/x HTTP/1.1\r\nHost: {APP}\r\nConnection: {names}\r\n{body}");
        let answer = rig.ask(request);
        assert!(matches!(answer.status, 200 | 400), "{names}: {}", answer.status);
        if answer.status == 200 {
            assert_eq!(answer.json()["body"], json!(smuggled), "{names}");
        }
        let next = rig.reach(format!("GET /public/next HTTP/1.1\r\nHost: {APP}\r\n\r\n"));
        assert_eq!(next.line, "GET /public/next HTTP/1.1", "{names}");
    }
    let lines = rig.upstream.lines();
    assert!(!lines.iter().any(|line| line.contains("smuggled")), "{lines:?}");
}

#[test]
fn ih_059_what_is_for_one_hop_ends_here() {
    let rig = rig(Upstream::start());
    let alice = rig.alice();
    let fields = [
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authorization", "Basic cm9vdDpyb290"),
        ("Proxy-Connection", "keep-alive"),
        ("TE", "trailers"),
        ("Trailer", "X-Forwarded-Groups"),
        ("Upgrade", "x"),
        ("X-Private", "between the two of us"),
    ];
    let lines = fields.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
    for connection in ["", "Connection: X-Private\r\n"] {
        for target in ["/public/x", "/app"] {
            let request = format!("GET {target} HTTP/1.1\r\nHost: {APP}\r\n{alice}{connection}{lines}\r\n");
            let echo = rig.reach(request);
            for (name, value) in fields {
                let kept = name == "X-Private" && connection.is_empty();
                assert_eq!(echo.one(name), kept.then_some(value), "{name}");
            }
        }
    }
}

#[test]
fn ih_060_trailers_never_become_headers() {
    let rig = rig(Upstream::start_lax());
    let alice = rig.alice();
    let trailers = "X-Forwarded-Groups: admins\r\nX-Forwarded-User: root\r\nX_Forwarded_User: root\r\nContent-Length: 0\r\n";
    for target in ["/public/x", "/app"] {
        let head = format!("POST {target} HTTP/1.1\r\nHost: {APP}\r\n{alice}Trailer: X-Forwarded-Groups\r\n");
        let request = format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n{trailers}\r\n");
        let echo = rig.reach(request);
        assert_eq!(echo.body, "abc");
        let believed =
            echo.fields.iter().find(|(_, value)| value.contains("root") || value.contains("admins"));
        assert_eq!(believed, None, "{target}");
    }
}

/// What an application got of somebody whose claims were changed so, and who says some things himself.
fn told(rig: &Rig, change: impl Fn(&mut Value)) -> Head {
    let cookie = rig.sign_in_with(APP, change);
    let spoofed = "X-Forwarded-Email: mallory\r\nX-Department: mallory\r\nRemote-Name: mallory\r\n";
    let request = format!("GET /app HTTP/1.1\r\nHost: {APP}\r\n{cookie}{spoofed}\r\n");
    assert_eq!(rig.ask(request).status, 200);
    rig.upstream.seen().pop().unwrap()
}

#[test]
fn ih_061_ih_062_claims_with_line_ends_controls_and_signs_make_one_plain_line_each() {
    let rig = rig(Upstream::start());
    let texts = [
        ("a\r\nX-Forwarded-Groups: admins", "a%0D%0AX-Forwarded-Groups: admins"),
        ("a\nX-Injected: 1\n\n", "a%0AX-Injected: 1%0A%0A"),
        ("a\rb", "a%0Db"),
        ("a\0b", "a%00b"),
        ("a\u{7f}b", "a%7Fb"),
        ("a\u{1b}[2Jb", "a%1B[2Jb"),
        ("a\u{2028}b\u{85}", "a%E2%80%A8b%C2%85"),
        ("\u{202e}a", "%E2%80%AEa"),
        (" a ", "%20a%20"),
        ("\ta", "%09a"),
        ("100%0D%0A", "100%250D%250A"),
    ];
    for (text, wanted) in texts {
        let head = told(&rig, |claims| {
            claims["preferred_username"] = json!(text);
            claims["name"] = json!(text);
            claims["department"] = json!(text);
            claims["email"] = json!(text);
            claims["groups"] = json!([text, "users"]);
        });
        for name in ["x-forwarded-preferred-username", "remote-name", "x-department"] {
            assert_eq!(head.one(name), Some(wanted), "{text:?}");
        }
        assert_eq!(head.one("x-forwarded-groups"), Some(&*format!("{wanted},users")), "{text:?}");
        assert_eq!(head.one("x-injected"), None);
        let odd = |value: &str| value.chars().any(|sign| !matches!(sign, ' '..='~'));
        let odd: Vec<_> = head.fields.iter().filter(|(_, value)| odd(value)).collect();
        assert_eq!(odd, Vec::<&(String, String)>::new(), "{text:?}");
    }
}

#[test]
fn ih_062_a_group_never_becomes_two() {
    let rig = rig(Upstream::start());
    let head = told(&rig, |claims| claims["groups"] = json!(["users,admins", "a%2Cadmins", "", "admins "]));
    assert_eq!(head.one("x-forwarded-groups"), Some("users%2Cadmins,a%252Cadmins,admins%20"));
}

#[test]
fn ih_066_claims_of_another_type_are_no_names() {
    let rig = rig(Upstream::start());
    let values = [
        (json!(null), None),
        (json!(7), Some("7")),
        (json!(-0.5), Some("-0.5")),
        (json!(true), Some("true")),
        (json!({ "a": "b" }), None),
        (json!([["nested"]]), None),
        (json!(["a", 1]), None),
        (json!([]), None),
        (json!(""), None),
        (json!(["a", "b,c"]), Some("a,b%2Cc")),
    ];
    for (value, wanted) in values {
        let head = told(&rig, |claims| {
            for name in ["email", "preferred_username", "department"] {
                claims[name] = value.clone();
            }
        });
        assert_eq!(head.one("x-department"), wanted, "{value}");
        for name in ["x-forwarded-email", "x-auth-request-email", "x-forwarded-preferred-username"] {
            assert_eq!(head.one(name), None, "{name} of {value}");
        }
        assert!(!head.fields.iter().any(|(_, value)| value.contains("mallory")), "{value}: {head:?}");
    }
}

#[test]
fn ih_067_groups_of_100_kilobytes_sign_in_or_are_refused_and_loop_nowhere() {
    let rig = rig(Upstream::start());
    let groups: Vec<String> = (0..5000).map(|number| format!("group-of-{number:010}")).collect();
    let many = json!(groups);
    let claim = many.clone();
    rig.provider.alter_userinfo(move |claims| claims["groups"] = claim.clone());
    let head = told(&rig, |_| {});
    // Half a list would be another list.
    assert_eq!(head.one("x-forwarded-groups"), None);
    assert_eq!(head.one("x-forwarded-user"), Some("alice"));

    rig.provider.behave();
    rig.provider.alter_claims(move |claims| claims["groups"] = many.clone());
    rig.lets_the_application_fail();
    let page = rig.new_browser(APP).open("https://app.test/app");
    assert!((400..=502).contains(&page.status()) && page.status() != 431, "{:?}", page.urls());
    assert!(page.hops.len() < 6, "{:?}", page.urls());
}

#[test]
fn ih_068_ih_069_only_a_trusted_proxy_says_who_the_client_is() {
    let rig = rig(Upstream::start_lax());
    let fields = [
        "X-Forwarded-For: 1.2.3.4",
        "X-Forwarded-For: 1.2.3.4, 127.0.0.1",
        "X-Real-IP: 1.2.3.4",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Port: 80",
        "X-Forwarded-Host: evil.test",
        "X_Forwarded_Host: evil.test",
        "X.Forwarded.Proto: http",
        "X-Forwarded-Server: evil.test",
        "X-Forwarded-Scheme: http",
        "X-Scheme: http",
        "Forwarded: for=1.2.3.4;host=evil.test;proto=http",
        "X-Forwarded-Prefix: /public",
        "X-Forwarded-Client-Cert: By=spiffe://x;Hash=00",
        "X-SSL-Client-Verify: SUCCESS",
        "X-SSL-Client-S-DN: CN=root",
        "SSL-Client-Verify: SUCCESS",
        "Client-Cert: :AAAA:",
        "X-Client-IP: 1.2.3.4",
        "True-Client-IP: 1.2.3.4",
        "CF-Connecting-IP: 1.2.3.4",
        "X-Remote-User: root",
        "Proxy: http://evil.test",
    ];
    let lines = fields.map(|field| format!("{field}\r\n")).concat();
    let echo = rig.reach(format!("GET /public/x HTTP/1.1\r\nHost: {APP}\r\n{lines}\r\n"));
    let own = [("x-forwarded-for", "127.0.0.1"), ("x-forwarded-proto", "https"), ("x-forwarded-host", APP)];
    for (name, value) in own {
        assert_eq!(echo.one(name), Some(value));
    }
    let told = ["1.2.3.4", "evil", "spiffe", "SUCCESS", "root", "AAAA", "/public\""];
    let believed = echo.fields.iter().find(|(_, value)| told.iter().any(|told| value.contains(told)));
    assert_eq!(believed, None);
    for field in &fields {
        let name = field.split(':').next().unwrap();
        assert!(
            own.iter().any(|(own, _)| name.eq_ignore_ascii_case(own)) || echo.one(name).is_none(),
            "{name}"
        );
    }

    let start = rig.ask(format!("GET /app HTTP/1.1\r\nHost: {APP}\r\n{lines}\r\n"));
    let location = start.field("location").expect("the way to the provider");
    assert!(location.contains("redirect_uri=https%3A%2F%2Fapp.test%2Foauth2%2Fcallback"), "{location}");
    assert!(
        start.head.all("set-cookie").iter().all(|cookie| cookie.contains("; Secure")),
        "{:?}",
        start.head
    );
}

#[test]
fn ih_070_an_application_gets_its_own_cookies_alone() {
    let rig = rig(Upstream::start());
    let alice = rig.alice();
    let session = alice.trim_start_matches("Cookie: ").trim_end().to_owned();
    let attempt = "__Host-portcullis-login-0123456789abcdef=1";
    let cases = [
        (format!("Cookie: {session}; theme=dark; {attempt}\r\n"), Some("theme=dark")),
        (format!("Cookie: theme=dark;{session}\r\n"), Some("theme=dark")),
        (format!("Cookie: theme=dark\r\nCookie: {session}\r\n"), Some("theme=dark")),
        (format!("Cookie: {session}\r\nCookie: a=1\r\nCookie: {attempt}; b=2\r\n"), Some("a=1; b=2")),
        (format!("Cookie: {session}; a=\"x; y\"; b\r\n"), Some("a=\"x; y\"; b")),
        (format!("Cookie: {session}\r\n"), None),
    ];
    for (fields, wanted) in cases {
        for target in ["/public/x", "/opt/x", "/app"] {
            let echo = rig.reach(format!("GET {target} HTTP/1.1\r\nHost: {APP}\r\n{fields}\r\n"));
            assert_eq!(echo.one("cookie"), wanted, "{target}");
        }
    }
}

#[test]
fn ih_072_what_an_application_says_of_itself_signs_nobody_in_and_out() {
    let rig = rig(Upstream::start());
    let alice = rig.alice();
    let fields = "X-Forwarded-User: leak\r\nServer: nginx\r\nSet-Cookie: __Host-portcullis=x; Path=/; Secure\r\n\
                  Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n";
    let answer = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok");
    rig.upstream.answers("/leak", answer.as_bytes());
    let answer = rig.ask(format!("GET /leak HTTP/1.1\r\nHost: {APP}\r\n{alice}\r\n"));
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    assert_eq!(answer.head.all("set-cookie"), Vec::<&str>::new());
    assert_eq!(
        rig.reach(format!("GET /app HTTP/1.1\r\nHost: {APP}\r\n{alice}\r\n")).one("x-forwarded-user"),
        Some("alice")
    );
}

#[test]
fn ih_073_a_clients_authorization_is_no_identity() {
    let rig = rig(Upstream::start());
    let alice = rig.alice();
    for credential in ["Basic cm9vdDp4", "Bearer x", "Negotiate x", "Basic", ""] {
        let field = format!("Authorization: {credential}\r\n");
        let app = rig.reach(format!("GET /app HTTP/1.1\r\nHost: {APP}\r\n{alice}{field}\r\n"));
        assert_eq!((app.one("x-forwarded-user"), app.one("remote-user")), (Some("alice"), Some("alice")));
        let nobody = rig.reach(format!("GET /opt/x HTTP/1.1\r\nHost: {APP}\r\n{field}\r\n"));
        assert_eq!((nobody.one("x-forwarded-user"), nobody.one("remote-user")), (None, None));
        rig.deny(credential, format!("GET /app HTTP/1.1\r\nHost: {APP}\r\n{field}\r\n"));
    }
}
