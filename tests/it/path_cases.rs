//! Attack cases on paths, hosts and policy, raw, in front of an application that reads laxly: PB-026 to PB-053.
//!
//! PB-051 needs rules on headers, which there are none of.

use crate::support::client::status_of;
use crate::support::rig::{APP, Rig, TENANT};
use crate::support::upstream::{Echo, Upstream};

fn get(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {APP}\r\n{fields}\r\n")
}

/// Every target is refused as malformed, whoever asks, and reaches nobody.
fn refused(rig: &Rig, targets: &[&str]) {
    let alice = rig.alice();
    for target in targets {
        for who in ["", &alice] {
            assert_eq!(rig.refuse(target, latin_1(&get(target, who))), 400, "{target}");
        }
    }
}

/// Characters up to 255 as the byte of that number.
fn latin_1(text: &str) -> Vec<u8> {
    text.chars().map(|sign| u8::try_from(sign).expect("latin-1")).collect()
}

#[test]
fn pb_026_pb_027_dot_segments_in_any_spelling_are_refused() {
    let targets = [
        "/public/../admin/secret",
        "/public/x/../../admin/secret",
        "/public/..",
        "/public/.",
        "/public/%2e%2e/admin/secret",
        "/public/%2E%2E/admin/secret",
        "/public/.%2E/admin/secret",
        "/public/%2e./admin/secret",
        "/public/%2e%2e",
        "/public/%2e/%2e%2e/admin/secret",
    ];
    refused(&Rig::lax(), &targets);
}

#[test]
fn pb_028_pb_029_separators_in_any_spelling_are_refused() {
    let targets = [
        "/public/..%2fadmin/secret",
        "/public/..%2Fadmin/secret",
        "/public%2f..%2fadmin%2fsecret",
        "/public/x%2f..%2f..%2fadmin/secret",
        "/public%2fx",
        "/public/..\\admin\\secret",
        "/public\\..\\admin\\secret",
        "/public/..%5cadmin%5csecret",
        "/public/..%5Cadmin%5Csecret",
        "/public/x%5cy",
    ];
    refused(&Rig::lax(), &targets);
}

#[test]
fn pb_028_an_escaped_slash_passes_where_its_route_allows_it_and_leads_to_no_other() {
    let rig = Rig::in_front_of(Upstream::start_lax(), |builder, url| {
        let route = |path: &str, lines: &str| {
            format!("host = \"{APP}\"\npath = \"{path}\"\nupstream = \"{url}\"\n{lines}")
        };
        let allowed = "allow_encoded_slash = true\n";
        builder
            .route(&route("/files", &format!("{allowed}access = \"public\"")))
            .route(&route("/files/strict", "require = { groups = [\"admins\"] }"))
            .route(&route("/mine", allowed))
    });
    for (target, forwarded) in [
        ("/files/a%2Fb", "/files/a%2Fb"),
        ("/files/a%2fb/c?d=e%2ff", "/files/a%2Fb/c?d=e%2ff"),
        ("/files/admin%2Fx", "/files/admin%2Fx"),
    ] {
        assert_eq!(rig.reach(get(target, "")).line, format!("GET {forwarded} HTTP/1.1"));
    }
    let root = rig.root();
    let refused = [
        "/files/..%2fadmin/secret",
        "/files/a%2f..%2f..%2fadmin/secret",
        "/files/%2e%2e%2fadmin/secret",
        "/files/a%2f../admin",
        "/files%2f..%2fadmin%2fsecret",
        "/files/a%2f%2fb",
        "/files/a%2f/b",
        "/files/%2fadmin/secret",
        "/files/a%2f",
        "/files/a%5cb",
        "/files/a%2f..%5cb",
        "/files/a%2fb;c",
        "/files%2fx",
        "/files%2fstrict/x",
        "/files/strict%2fx",
        "/files/strict/a%2fb",
        "/files%2Fstrict%2Fx",
        "/admin%2fsecret",
        "/admin/a%2fb",
        "/public%2fx",
        "/public/a%2fb",
        "/public/admin%2fx",
        "/%2fadmin/secret",
        "/app%2fx",
        "/mine%2fx",
        "/oauth2%2fstart",
    ];
    for target in refused {
        for who in ["", &root] {
            assert_eq!(rig.refuse(target, get(target, who)), 400, "{target}");
        }
    }
    assert_eq!(rig.deny("an endpoint", get("/oauth2/callback/a%2fb", &root)), 404);
    let mut browser = rig.new_browser(APP);
    let page = browser.open("https://app.test/mine/a%2Fb?c");
    assert_eq!(Echo::of(&page.response).line, "GET /mine/a%2Fb?c HTTP/1.1", "and the way back leads there");
}

#[test]
fn pb_030_pb_031_parameters_of_segments_are_refused() {
    let targets = [
        "/public/..;/admin/secret",
        "/public/..;a=b/admin/secret",
        "/public/.;/../admin/secret",
        "/public;/../admin/secret",
        "/public/..%3b/admin/secret",
        "/public/..%3Ba=b/admin/secret",
        "/admin;x=y/secret",
        "/admin/secret;jsessionid=1",
        "/;x/admin/secret",
        "/ro;x=1/..;/admin/secret",
        "/;/admin/secret",
        "/admin%3bx/secret",
    ];
    refused(&Rig::lax(), &targets);
}

#[test]
fn pb_032_empty_segments_are_refused() {
    let targets = [
        "//admin/secret",
        "///admin/secret",
        "/public//../admin/secret",
        "/public//admin",
        "/./admin/secret",
        "/public//",
        "//evil.test/admin/secret",
        "/%2e//admin/secret",
    ];
    refused(&Rig::lax(), &targets);
}

#[test]
fn pb_034_pb_035_an_absolute_form_names_the_host_and_is_judged_by_its_path() {
    let rig = Rig::lax();
    let alice = rig.alice();
    let refused = [
        "http://admin.test/secret",
        "http://admin.test:80/secret",
        "http://app.test@admin.test/secret",
        "http://u:p@app.test/admin/secret",
        "https://app.test//admin/secret",
        "https://app.test/public/../admin/secret",
        "foo://app.test/admin/secret",
        "http:/app.test/admin/secret",
        "http:app.test/admin/secret",
        "http:///admin/secret",
        "//app.test/admin/secret",
        "http://app.test\\admin/secret",
        "http://app.test:81/admin/secret",
        "ws://app.test/admin/secret",
        "app.test/admin/secret",
        "admin/secret",
        "?/admin/secret",
    ];
    for target in refused {
        assert_eq!(rig.refuse(target, get(target, &alice)), 400, "{target}");
    }
    for target in
        ["http://app.test/admin/secret", "HTTP://APP.TEST:443/admin/secret", "https://app.test./admin"]
    {
        let status = rig.deny(target, get(target, &alice));
        assert!(matches!(status, 403 | 400), "{target}: {status}");
    }
    let echo = rig.reach(get("http://app.test/public/x?y=http://z//", ""));
    assert_eq!(echo.line, "GET /public/x?y=http://z// HTTP/1.1", "the application gets the origin form");
}

#[test]
fn pb_036_the_asterisk_asks_the_gateway_and_never_an_application() {
    let rig = Rig::lax();
    assert_eq!(rig.refuse("GET *", get("*", "")), 400);
    assert_eq!(rig.refuse("OPTIONS */x", "OPTIONS */x HTTP/1.1\r\nHost: app.test\r\n\r\n"), 400);
    let mut connection = rig.send("OPTIONS * HTTP/1.1\r\nHost: app.test\r\n\r\n");
    let head = connection.read_head().expect("an answer");
    assert!(matches!(status_of(&head), 200 | 204), "{head:?}");
    assert_eq!(rig.upstream.hits(), 0);
}

#[test]
fn pb_037_pb_038_a_query_has_no_part_in_the_verdict_and_a_fragment_is_refused() {
    let rig = Rig::lax();
    let alice = rig.alice();
    for target in ["/admin/secret?/public/x", "/admin/secret?path=/public/", "/admin?/../public/x"] {
        assert_eq!(rig.deny(target, get(target, "")), 302, "{target}");
        assert_eq!(rig.deny(target, get(target, &alice)), 403, "{target}");
    }
    for target in ["/public/x?../admin", "/public/x?/admin/secret", "/public/?%2e%2e%2f;x=%00"] {
        assert_eq!(rig.reach(get(target, "")).line, format!("GET {target} HTTP/1.1"));
    }
    for target in ["/admin/secret#/public/x", "/public/x#/../admin/secret", "/public/x?y#z", "/#/public/x"] {
        assert_eq!(rig.refuse(target, get(target, &alice)), 400, "{target}");
    }
    // An escaped one is a character of a name: what it leads to is judged by the whole path.
    assert_eq!(rig.deny("an escaped number sign", get("/admin/secret%23/public/x", "")), 302);
}

#[test]
fn pb_040_pb_041_escapes_that_are_none_or_of_controls_or_no_text_are_refused() {
    let targets = [
        "/public/%00/../admin/secret",
        "/public/x%00.png",
        "/public/%0d%0aX-Forwarded-User:%20root",
        "/public/%7f",
        "/public/%1b",
        "/public/%c2%85",
        "/public/%c0%ae%c0%ae%c0%afadmin/secret",
        "/public/%e0%80%ae",
        "/public/%f0%80%80%af",
        "/public/%ed%a0%80",
        "/public/%ff",
        "/adm\u{ff}in",
        "/public/adm\u{c3}\u{af}n",
        "/public/%",
        "/public/%2",
        "/public/%zz",
        "/public/%u002e%u002e/admin/secret",
        "/public/%-1",
    ];
    refused(&Rig::lax(), &targets);
}

#[test]
fn pb_042_a_path_is_decoded_once_and_forwarded_as_it_came() {
    let rig = Rig::lax();
    for target in [
        "/public/%252e%252e%252fadmin/secret",
        "/public/%252e%252e/admin/secret",
        "/public/x%253by",
        "/public/%255c%252500",
    ] {
        assert_eq!(rig.reach(get(target, "")).line, format!("GET {target} HTTP/1.1"));
    }
}

#[test]
fn pb_043_bytes_that_must_be_escaped_are_refused() {
    let targets = [
        "/public/a b",
        "/public/a\tb",
        "/public/a\u{7f}b",
        "/public/\"a\"",
        "/public/<a>",
        "/public/a\u{1}b",
        "/public/a\u{b}b",
        "/public/{a}",
        "/public/a^b",
        "/public/a`b",
        "/public/?a b",
        "/public/?\"",
        "/public/?<>",
        "/public/?\\",
        "/public/?\u{e9}",
    ];
    refused(&Rig::lax(), &targets);
}

#[test]
fn pb_044_pb_045_what_is_no_public_path_letter_by_letter_is_never_anonymous() {
    let rig = Rig::lax();
    let alice = rig.alice();
    let targets = [
        "/Admin/secret",
        "/ADMIN/secret",
        "/%61dmin/secret",
        "/%41dmin/secret",
        "/admin%20/secret",
        "/admin./secret",
        "/Public/x",
        "/PUBLIC/../admin/secret",
        "/publicX/admin",
        "/public.evil",
        "/public%20/x",
        "/public-",
        "/publi",
    ];
    for target in targets {
        rig.deny(target, get(target, ""));
    }
    assert_eq!(rig.deny("escapes are read", get("/%61dmin/secret", &alice)), 403);
    assert_eq!(rig.deny("escapes are read", get("/%61%64%6D%69%6e", &alice)), 403);
    assert_eq!(rig.reach(get("/%70ublic/x", "")).line, "GET /public/x HTTP/1.1");
    assert_eq!(rig.reach(get("/admin/secret", &rig.root())).line, "GET /admin/secret HTTP/1.1");
}

#[test]
fn pb_047_an_unknown_host_is_misdirected_in_every_form() {
    let rig = Rig::lax();
    let alice = rig.alice();
    let port = rig.gateway.address().port();
    let unknown = [
        "unknown.test",
        "UNKNOWN.test.",
        "app.test.evil.test",
        "xapp.test",
        "test",
        "127.0.0.1",
        "[::1]",
        "app.test:1",
        "app.test:8443",
        &format!("unknown.test:{port}"),
        &format!("127.0.0.1:{port}"),
        &format!("app.test:{}", rig.gateway.admin_address().port()),
    ];
    for host in unknown {
        for target in ["/app", "/public/x", "/oauth2/start", &format!("http://{host}/app")] {
            let hits = rig.upstream.hits();
            let answer = rig.ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{alice}\r\n"));
            assert_eq!((answer.status, answer.field("location")), (421, None), "{host} {target}");
            assert_eq!(rig.upstream.hits(), hits, "{host} {target}");
        }
    }
    for host in [
        "app.test:99999",
        "app.test:",
        "app.test:+443",
        "app..test",
        "app.test..",
        "*.test",
        "app_test\u{e9}",
    ] {
        let request = format!("GET /public/x HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let status = rig.deny(host, latin_1(&request));
        assert!(matches!(status, 400 | 421), "{host}: {status}");
    }
    for host in
        ["app.test", "APP.test", "app.test.", "App.Test.:443", "app.test:0443", &format!("app.test:{port}")]
    {
        let status = rig.ask(format!("GET /public/x HTTP/1.1\r\nHost: {host}\r\n\r\n")).status;
        assert!(matches!(status, 200 | 400), "{host}: {status}");
    }
}

#[test]
fn pb_047_a_session_of_one_host_is_none_of_another() {
    let rig = Rig::lax();
    let alice = rig.alice();
    for host in [TENANT, "admin.test"] {
        let request = format!("GET /app HTTP/1.1\r\nHost: {host}\r\n{alice}\r\n");
        assert_eq!(rig.deny(host, request), 302);
    }
}

#[test]
fn pb_048_pb_049_no_header_of_a_client_changes_what_is_asked_for_or_lets_in() {
    let rig = Rig::lax();
    let alice = rig.alice();
    let fields = [
        "X-Original-URL: /public/x",
        "X-Original-URI: /public/x",
        "X-Rewrite-URL: /public/x",
        "X-Forwarded-Uri: /public/x",
        "X-Forwarded-Path: /public/x",
        "X-Forwarded-Prefix: /public",
        "X-Envoy-Original-Path: /public/x",
        "X-Forwarded-Host: app.test",
        "X-Forwarded-Method: OPTIONS",
        "X_Original_URL: /public/x",
        "X-Real-IP: 127.0.0.1",
        "X-Forwarded-For: 127.0.0.1",
        "User-Agent: GoogleHC/1.0",
        "User-Agent: kube-probe/1.30",
        "User-Agent: ELB-HealthChecker/2.0",
        "Authorization: Basic cm9vdDpyb290",
        "X-Forwarded-User: root",
        "X-Portcullis-Skip: 1",
    ];
    for field in fields {
        assert_eq!(rig.deny(field, get("/admin/secret", &format!("{field}\r\n"))), 302);
        assert_eq!(rig.deny(field, get("/admin/secret", &format!("{alice}{field}\r\n"))), 403);
        let served = rig.reach(get("/public/x", &format!("{field}\r\n")));
        assert_eq!(served.line, "GET /public/x HTTP/1.1");
        let (name, _) = field.split_once(':').unwrap();
        if name.starts_with("X-Original") || name.starts_with("X-Rewrite") || name.starts_with("X-Envoy") {
            assert_eq!(served.one(name), None, "{field}");
        }
    }
}

#[test]
fn pb_050_a_preflight_is_judged_as_any_other_request() {
    let rig = Rig::lax();
    let alice = rig.alice();
    let preflight =
        "Origin: https://evil.test\r\nAccess-Control-Request-Method: DELETE\r\nX-Forwarded-User: root\r\n";
    for (who, wanted) in [("", 401), (&*alice, 403)] {
        let request = format!("OPTIONS /admin/secret HTTP/1.1\r\nHost: app.test\r\n{preflight}{who}\r\n");
        let hits = rig.upstream.hits();
        let answer = rig.ask(request);
        assert_eq!((answer.status, answer.field("access-control-allow-origin")), (wanted, None));
        assert_eq!(rig.upstream.hits(), hits);
    }
    let public = rig.reach(format!("OPTIONS /public/x HTTP/1.1\r\nHost: app.test\r\n{preflight}\r\n"));
    assert_eq!(public.one("x-forwarded-user"), None);
}

#[test]
fn pb_052_nothing_of_the_admin_listener_is_on_a_public_one() {
    let rig = Rig::lax();
    let targets = [
        "/metrics",
        "/healthz",
        "/readyz",
        "/livez",
        "/debug/pprof/",
        "/-/reload",
        "/backup",
        "/oauth2/metrics",
        "/oauth2/healthz",
        "/oauth2/readyz",
    ];
    for target in targets {
        let answer = rig.ask(get(target, ""));
        assert!(matches!(answer.status, 302 | 404), "{target}: {}", answer.status);
        let text = answer.text();
        assert!(!text.contains("portcullis_") && !text.contains("\"ready\""), "{target}: {text}");
    }
    let admin = rig.gateway.admin_address();
    for (host, target) in
        [(admin.to_string(), "/metrics".to_owned()), (APP.into(), format!("http://{admin}/metrics"))]
    {
        rig.deny(&target, format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
}

#[test]
fn pb_053_a_websocket_needs_a_session_and_a_page_of_its_own_site() {
    let rig = Rig::echo();
    let alice = rig.alice();
    let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let own = "Origin: https://app.test\r\n";
    let cases = [
        ("nobody", "", own, 401),
        ("a page of another site", &*alice, "Origin: https://evil.test\r\n", 403),
        ("a page of a host beside it", &alice, "Origin: https://tenantb.test\r\n", 403),
        ("another scheme", &alice, "Origin: http://app.test\r\n", 403),
        ("another port", &alice, "Origin: https://app.test:444\r\n", 403),
        ("a sandbox", &alice, "Origin: null\r\n", 403),
        ("two origins", &alice, "Origin: https://app.test\r\nOrigin: https://evil.test\r\n", 403),
        ("the browser says so", &alice, "Sec-Fetch-Site: cross-site\r\nOrigin: https://app.test\r\n", 403),
    ];
    let hits = rig.upstream.hits();
    for (name, who, origin, wanted) in cases {
        let answer = rig.ask(format!("GET /ws HTTP/1.1\r\nHost: app.test\r\n{who}{handshake}{origin}\r\n"));
        assert_eq!(answer.status, wanted, "{name}");
    }
    assert_eq!(rig.upstream.hits(), hits);
    let mut agreed = rig.send(format!("GET /ws HTTP/1.1\r\nHost: app.test\r\n{alice}{handshake}{own}\r\n"));
    assert_eq!(agreed.response_head("GET").0, 101);
}
