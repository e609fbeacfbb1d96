//! Headers: what an application is told, and what nobody can make it believe.

use crate::support::browser::Browser;
use crate::support::certified_provider::CertifiedProvider;
use crate::support::client::Request;
use crate::support::cookie_jar::Cookie;
use crate::support::gateway::{Gateway, WIKI};
use crate::support::scripted_provider::ScriptedProvider;
use crate::support::upstream::{Echo, Upstream};
use serde_json::json;

const PAGE: &str = "https://wiki.test/page";

/// What a client might send to be taken for somebody else.
const SPOOFED: &[&str] = &[
    "X-Forwarded-User",
    "x-forwarded-user",
    "X_Forwarded_User",
    "X.Forwarded.User",
    "X-Forwarded_User",
    "X-Forwarded-Email",
    "X-Forwarded-Groups",
    "X-FORWARDED-GROUPS",
    "X-Forwarded-Preferred-Username",
    "X-Forwarded-Access-Token",
    "X-Auth-Request-User",
    "X-Auth-Request-Email",
    "X-Auth-Request-Groups",
    "X-Auth-Request-Preferred-Username",
    "Remote-User",
    "Remote_User",
    "Remote-Groups",
    "Remote-Email",
    "Remote-Name",
    "X-Remote-User",
    "X-Real-IP",
    "Forwarded",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Forwarded-Client-Cert",
    "X-SSL-Client-Verify",
    "X-HTTP-Method-Override",
    "X-Any_Underscore",
    "X-Any.Dot",
];

/// `/` signed in, `/public/`, `/optional/`.
fn stage() -> (Upstream, ScriptedProvider, Gateway) {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream)
        .path("/public/", &upstream, "access = \"public\"")
        .path("/optional/", &upstream, "access = \"optional\"")
        .provider(provider.entry())
        .start();
    (upstream, provider, gateway)
}

/// A request with every spoofed header.
fn spoofing(path: &str) -> Request {
    SPOOFED.iter().fold(Request::get(path), |request, name| request.with(name, "mallory"))
}

/// The fields of an echo that hold what the client made up.
fn believed(echo: &Echo) -> Vec<&(String, String)> {
    echo.fields.iter().filter(|(_, value)| value.contains("mallory")).collect()
}

#[test]
fn no_client_names_itself_on_any_kind_of_route() {
    let (_upstream, _provider, gateway) = stage();
    let mut browser = Browser::new(&gateway);
    browser.open(PAGE);
    for (path, user) in [("/public/", None), ("/optional/", Some("alice")), ("/page", Some("alice"))] {
        let echo = Echo::of(&browser.fetch(&format!("https://wiki.test{path}"), spoofing(path)));
        assert_eq!(believed(&echo), Vec::new() as Vec<&_>, "{path}");
        assert_eq!(echo.one("x-forwarded-user"), user, "{path}");
    }
    for path in ["/public/", "/optional/"] {
        let echo = Echo::of(&gateway.request(&spoofing(path)));
        assert_eq!(believed(&echo), Vec::new() as Vec<&_>, "{path} without a session");
        assert_eq!(echo.one("x-forwarded-user"), None, "{path} without a session");
    }
}

#[test]
fn a_connection_header_cannot_take_the_identity_away() {
    let (_upstream, _provider, gateway) = stage();
    let mut browser = Browser::new(&gateway);
    browser.open(PAGE);
    let request = Request::get("/page")
        .with("Connection", "keep-alive, X-Forwarded-User, x-forwarded-groups, X-Private")
        .with("X-Private", "between the two of us");
    let echo = Echo::of(&browser.fetch(PAGE, request));
    assert_eq!(echo.one("x-forwarded-user"), Some("alice"));
    assert_eq!(echo.one("x-forwarded-groups"), Some("staff,wiki-admins"));
    assert_eq!(echo.one("x-private"), None, "what Connection names ends here");
    for name in ["Host", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"] {
        let refused = browser.fetch(PAGE, Request::get("/page").with("Connection", name));
        assert_eq!(refused.status, 400, "Connection: {name}");
    }
}

#[test]
fn an_application_is_told_who_is_asking() {
    let (_upstream, _provider, gateway) = stage();
    let mut browser = Browser::new(&gateway);
    let echo = Echo::of(&browser.open(PAGE).response);
    let told = [
        ("x-forwarded-user", Some("alice")),
        ("x-forwarded-email", Some("alice@example.test")),
        ("x-forwarded-groups", Some("staff,wiki-admins")),
        ("x-forwarded-preferred-username", Some("alice")),
        ("x-forwarded-access-token", None),
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-forwarded-proto", Some("https")),
        ("x-forwarded-host", Some("wiki.test")),
        ("host", Some("wiki.test")),
    ];
    for (name, value) in told {
        assert_eq!(echo.one(name), value, "{name}");
    }
}

#[test]
fn what_a_client_says_of_itself_is_made_anew() {
    let (_upstream, _provider, gateway) = stage();
    let request = Request::get("/public/")
        .with("X-Forwarded-For", "10.0.0.1")
        .with("X-Forwarded-Proto", "gopher")
        .with("X-Forwarded-Host", "evil.test")
        .with("X-Forwarded-Port", "1")
        .with("X-Forwarded-Prefix", "/evil");
    let echo = Echo::of(&gateway.request(&request));
    assert_eq!(echo.one("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(echo.one("x-forwarded-proto"), Some("https"));
    assert_eq!(echo.one("x-forwarded-host"), Some("wiki.test"));
    assert_eq!((echo.one("x-forwarded-port"), echo.one("x-forwarded-prefix")), (None, None));
}

#[test]
fn awkward_names_arrive_in_one_documented_encoding() {
    let (upstream, provider) = (Upstream::start(), CertifiedProvider::start());
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    let echo = Echo::of(&Browser::new(&gateway).sign_in(PAGE, "carol").response);
    assert_eq!(echo.one("x-forwarded-user"), Some("carol"));
    assert_eq!(echo.one("x-forwarded-email"), Some("carol@ex%C3%A4mple.test"));
    assert_eq!(echo.one("x-forwarded-groups"), Some("a%2Cb,gr%C3%B6%C3%9Fe,staff"));
    assert_eq!(echo.one("x-forwarded-preferred-username"), Some("carol %C3%B6"));
}

#[test]
fn hostile_claims_make_no_header_and_no_failure() {
    let (_upstream, provider, gateway) = stage();
    provider.claims(|claims| {
        claims["email"] = json!("a@b\r\nX-Forwarded-User: root");
        claims["preferred_username"] = json!(["not", "a", "string"]);
        claims["groups"] = json!(["one", "two\r\nX-Admin: yes", " spaces ", ""]);
    });
    let echo = Echo::of(&Browser::new(&gateway).open(PAGE).response);
    assert_eq!(echo.one("x-forwarded-user"), Some("alice"));
    assert_eq!(echo.one("x-admin"), None);
    assert_eq!(echo.one("x-forwarded-preferred-username"), None);
    assert_eq!(echo.one("x-forwarded-email"), Some("a@b%0D%0AX-Forwarded-User: root"));
    let groups = echo.one("x-forwarded-groups").unwrap_or_default();
    assert!(groups.starts_with("one,two%0D%0AX-Admin: yes,%20spaces%20"), "{groups}");
}

#[test]
fn presets_and_claims_go_where_the_configuration_says() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    provider.claims(|claims| {
        claims["resource"] = json!({ "roles": ["reader", "writer"] });
        claims["employee"] = json!(4711);
    });
    let gateway = Gateway::in_front_of(&upstream)
        .config("[headers]\npresets = [\"x-auth-request\", \"remote\"]\nclaims = { \"X-Employee\" = \"employee\", \"X-Roles\" = \"resource.roles\" }")
        .config("[identity]\nuser = \"preferred_username\"\ngroups = \"resource.roles\"")
        .provider(provider.entry())
        .start();
    let mut browser = Browser::new(&gateway);
    let echo = Echo::of(&browser.open(PAGE).response);
    let told = [
        ("x-auth-request-user", Some("alice")),
        ("x-auth-request-email", Some("alice@example.test")),
        ("x-auth-request-groups", Some("reader,writer")),
        ("remote-user", Some("alice")),
        ("remote-groups", Some("reader,writer")),
        ("x-employee", Some("4711")),
        ("x-roles", Some("reader,writer")),
        ("x-forwarded-user", None),
    ];
    for (name, value) in told {
        assert_eq!(echo.one(name), value, "{name}");
    }
    let echo = Echo::of(&browser.fetch(PAGE, spoofing("/page").with("X_Employee", "mallory")));
    assert_eq!(
        believed(&echo),
        Vec::new() as Vec<&_>,
        "names of every preset are stripped, configured or not"
    );
}

#[test]
fn the_access_token_goes_only_where_a_route_asks_for_it() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream)
        .path("/api/", &upstream, "forward_access_token = true")
        .provider(provider.entry())
        .start();
    let mut browser = Browser::new(&gateway);
    browser.open(PAGE);
    let access_token = provider.issued().into_iter().find(|issued| issued.starts_with("access-")).unwrap();
    let echo = Echo::of(&browser.get("https://wiki.test/api/x"));
    assert_eq!(echo.one("x-forwarded-access-token"), Some(access_token.as_str()));
    let echo = Echo::of(&browser.get(PAGE));
    assert!(echo.fields.iter().all(|(_, value)| !value.contains(&access_token)));
}

#[test]
fn a_clients_authorization_is_kept_or_dropped_as_a_route_says_and_makes_no_identity() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream)
        .path("/kept", &upstream, "access = \"optional\"")
        .path("/dropped", &upstream, "access = \"optional\"\nforward_authorization = false")
        .provider(provider.entry())
        .start();
    for (path, forwarded) in [("/kept", Some("Basic YWxpY2U6YWxpY2U=")), ("/dropped", None)] {
        let echo =
            Echo::of(&gateway.request(&Request::get(path).with("Authorization", "Basic YWxpY2U6YWxpY2U=")));
        assert_eq!((echo.one("authorization"), echo.one("x-forwarded-user")), (forwarded, None), "{path}");
    }
}

#[test]
fn the_gateways_cookies_never_reach_an_application() {
    let (_upstream, _provider, gateway) = stage();
    let mut browser = Browser::new(&gateway);
    browser.open_once(PAGE);
    browser.open(PAGE);
    let session = browser.jar.get(WIKI, "__Host-portcullis").unwrap().clone();
    for (name, value) in [
        ("theirs", "1"),
        ("portcullis", "x"),
        ("__Secure-Portcullis", "y"),
        ("portcullis-theme", "z"),
        ("last", "a=b c\""),
    ] {
        browser.jar.put(Cookie { name: name.into(), value: value.into(), ..session.clone() });
    }
    let echo = Echo::of(&browser.get(PAGE));
    let cookies = echo.one("cookie").unwrap_or_default();
    assert!(cookies.starts_with("theirs=1") && cookies.ends_with("last=a=b c\""), "{cookies}");
    assert!(!cookies.contains(&session.value) && !cookies.contains("-login-"), "{cookies}");
    assert!(!cookies.to_ascii_lowercase().contains("portcullis="), "{cookies}");
    let crumbs = Request::get("/public/")
        .with("Cookie", "a=1")
        .with("Cookie", &format!("__Host-portcullis={}", session.value))
        .with("Cookie", "b=2");
    assert_eq!(Echo::of(&gateway.request(&crumbs)).one("cookie"), Some("a=1; b=2"));
    let only_ours = Request::get("/public/").with("Cookie", &format!("__Host-portcullis={}", session.value));
    assert_eq!(Echo::of(&gateway.request(&only_ours)).one("cookie"), None);
}

#[test]
fn an_application_cannot_set_or_clear_the_gateways_cookies() {
    let (upstream, _provider, gateway) = stage();
    let fields = [
        "Set-Cookie: theirs=1; Path=/",
        "Set-Cookie: __Host-portcullis=evil; Path=/; Secure",
        "set-cookie: __HOST-PORTCULLIS=evil; Path=/; Secure",
        "Set-Cookie:   portcullis=evil",
        "Set-Cookie: \tportcullis\t=evil",
        "Set-Cookie: __Secure-portcullis=evil; Secure",
        "Set-Cookie: __Host-portcullis-login-0123456789abcdef=; Max-Age=0; Path=/; Secure",
        "Set-Cookie: __Host-portcullis-sign-out=evil; Path=/; Secure",
        "Clear-Site-Data: \"cache\", \"cookies\", \"storage\"",
        "Set-Cookie: last=2",
    ];
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{}\r\n\r\nok", fields.join("\r\n"));
    upstream.answers("/evil", answer.as_bytes());
    let mut browser = Browser::new(&gateway);
    browser.open(PAGE);
    let before = browser.jar.get(WIKI, "__Host-portcullis").unwrap().clone();
    let response = browser.get("https://wiki.test/evil");
    assert_eq!(response.head.all("set-cookie"), ["theirs=1; Path=/", "last=2"]);
    let cleared = response.field("clear-site-data").unwrap_or_default();
    assert!(cleared.contains("\"cache\"") && cleared.contains("\"storage\""), "{cleared}");
    assert!(!cleared.contains("\"cookies\"") && !cleared.contains('*'), "{cleared}");
    assert_eq!(browser.jar.get(WIKI, "__Host-portcullis"), Some(&before));
}

#[test]
fn a_route_for_a_group_lets_its_members_in() {
    let (upstream, provider) = (Upstream::start(), CertifiedProvider::start());
    let gateway = Gateway::in_front_of(&upstream)
        .path("/admin/", &upstream, "require = { groups = [\"root\", \"wiki-admins\"] }")
        .provider(provider.entry())
        .start();
    let mut bob = Browser::new(&gateway);
    bob.sign_in(PAGE, "bob");
    for path in ["/admin", "/admin/", "/admin/x?y"] {
        let refused = bob.get(&format!("https://wiki.test{path}"));
        assert_eq!(refused.status, 403, "{path}");
        assert!(refused.text().contains("group_missing"), "{path}");
    }
    assert_eq!(bob.get("https://wiki.test/administrator").status, 200);
    let mut alice = Browser::new(&gateway);
    alice.sign_in("https://wiki.test/admin/", "alice");
    assert_eq!(alice.get("https://wiki.test/admin/x").status, 200);
    assert!(gateway.metric("portcullis_refusals_total{code=\"group_missing\"}") >= 3.0);
}

#[test]
fn groups_that_are_missing_or_of_a_wrong_type_let_nobody_in() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream)
        .path("/admin/", &upstream, "require = { groups = [\"wiki-admins\"] }")
        .provider(provider.entry())
        .start();
    for groups in
        [json!(null), json!({ "wiki-admins": true }), json!(["staff"]), json!(7), json!(["Wiki-Admins"])]
    {
        provider.claims(|claims| claims["groups"] = groups.clone());
        let page = Browser::new(&gateway).open("https://wiki.test/admin/");
        assert_eq!(page.status(), 403, "groups = {groups}: {:?}", page.urls());
    }
}

#[test]
fn the_host_that_an_application_sees_is_a_setting() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream)
        .path("/own", &upstream, "access = \"public\"\nhost_header = \"upstream\"")
        .path("/kept", &upstream, "access = \"public\"")
        .provider(provider.entry())
        .start();
    let host = upstream.url().replace("http://", "");
    for (path, wanted) in [("/own", host.as_str()), ("/kept", "wiki.test")] {
        let echo = Echo::of(&gateway.request(&Request::get(path)));
        assert_eq!(
            (echo.one("host"), echo.one("x-forwarded-host")),
            (Some(wanted), Some("wiki.test")),
            "{path}"
        );
    }
}
