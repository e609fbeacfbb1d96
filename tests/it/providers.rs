//! Several providers: who signs whom in, and what one of them can do to another.

use serde_json::json;
use url::Url;

use crate::support::browser::{Browser, Page};
use crate::support::client::{Request, Response};
use crate::support::gateway::{Gateway, ProviderEntry};
use crate::support::scripted_provider::{Call, ScriptedProvider};
use crate::support::upstream::{Echo, Upstream};

const PAGE: &str = "https://wiki.test/page?x=1&y=%22";
const FILES: &str = "https://files.test/page";

/// Two providers, of whom the second signs `bea` in.
fn two() -> (ScriptedProvider, ScriptedProvider) {
    let (first, second) = (ScriptedProvider::start(), ScriptedProvider::start());
    second.claims(|claims| claims["sub"] = json!("bea"));
    (first, second)
}

fn entry(provider: &ScriptedProvider, id: &str, more: &str) -> ProviderEntry {
    let mut entry = provider.entry();
    entry.id = id.into();
    entry.more.push_str(more);
    entry
}

fn user(page: &Page) -> String {
    assert_eq!(page.status(), 200, "{:?}", page.urls());
    Echo::of(&page.response).one("x-forwarded-user").expect("somebody").to_owned()
}

fn query(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

fn location(response: &Response) -> String {
    response.field("location").unwrap_or_else(|| panic!("no redirect: {}", response.text())).to_owned()
}

fn is_refusal(response: &Response, status: u16, code: &str) -> bool {
    response.status == status && response.text().contains(code)
}

/// A gateway whose second provider is found by address.
fn by_address() -> (Upstream, ScriptedProvider, ScriptedProvider, Gateway) {
    let upstream = Upstream::start();
    let (first, second) = two();
    let domains = "name = \"Partners\"\nemail_domains = [\"partners.test\", \"Bücher.example\"]\n";
    let gateway = Gateway::in_front_of(&upstream)
        .provider(entry(&first, "main", "name = \"Staff\"\n"))
        .provider(entry(&second, "second", domains))
        .start();
    (upstream, first, second, gateway)
}

#[test]
fn an_address_leads_to_the_provider_of_its_domain_and_is_passed_on() {
    let (_upstream, first, second, gateway) = by_address();
    let addresses =
        ["bea@partners.test", " Bea+x@PARTNERS.Test ", "bea@bücher.example", "b@xn--bcher-kva.example"];
    for address in addresses {
        let mut browser = Browser::new(&gateway);
        let choice = browser.open(PAGE);
        assert_eq!(choice.url.path(), "/oauth2/sign_in");
        assert!(choice.html().contains("Continue with Staff"), "others have their button");
        assert!(!choice.html().contains("Partners"), "who is found by address is not listed");
        let leaving = browser.submit(&choice, &[("email", address)]);
        assert_eq!(leaving.status(), 200, "{address}: {}", leaving.html());
        assert_eq!(leaving.response.field("cache-control"), Some("no-store"));
        assert!(leaving.html().contains("http-equiv=\"refresh\" content=\"0; url=http://localhost:"));
        let page = browser.click(&leaving, &second.issuer());
        assert_eq!((page.url.as_str(), user(&page).as_str()), (PAGE, "bea"), "{address}");
        let hint = query(&page.hop(&second.issuer()).0, "login_hint");
        assert_eq!(hint.as_deref(), Some(address.trim()));
    }
    assert_eq!((first.calls(Call::Authorize), second.calls(Call::Authorize)), (0, addresses.len()));
}

#[test]
fn an_address_of_nobody_here_shows_the_page_again_and_goes_nowhere() {
    let (_upstream, first, second, gateway) = by_address();
    let typed = [
        "eve@evil.test",
        "eve@sub.partners.test",
        "eve@partners.test.evil.test",
        "eve@notpartners.test",
        "eve@partners.test.",
        "eve@partners.test@evil.test",
        "eve@part%6eers.test",
        "eve\r\n@partners.test",
        "@partners.test",
        "partners.test",
        "\"><script>alert(1)</script>@evil.test",
        "",
    ];
    for typed in typed {
        let mut browser = Browser::new(&gateway);
        let choice = browser.open(PAGE);
        let again = browser.submit(&choice, &[("email", typed)]);
        assert_eq!((again.status(), again.url.path()), (422, "/oauth2/start"), "{typed:?}");
        assert!(again.html().contains("role=\"alert\"") && !again.html().contains("<script"), "{typed:?}");
        assert_eq!(again.response.head.all("set-cookie"), Vec::<&str>::new(), "{typed:?}");
        assert_eq!(user(&browser.click(&again, "/oauth2/start?provider=main")), "alice", "{typed:?}");
        let right = browser.submit(&again, &[("email", "bea@partners.test")]);
        let page = browser.click(&right, &second.issuer());
        assert_eq!(page.url.as_str(), PAGE, "{typed:?}: the way back is kept");
    }
    assert_eq!(first.calls(Call::Authorize), typed.len());
    let log = gateway.log().join("\n");
    assert!(!log.contains("partners.test") && !log.contains("evil.test"), "addresses are in no log");
}

#[test]
fn the_form_for_an_address_is_a_form_of_a_page() {
    let (_upstream, first, second, gateway) = by_address();
    let post = || Request::new("POST", "/oauth2/start").with("Accept", "text/html");
    let address = [("email".to_owned(), "bea@partners.test".to_owned())];
    let long = [("email".to_owned(), "x".repeat(9000))];
    let rows = [
        ("a script", post().with("Sec-Fetch-Mode", "cors").with_form(&address), 401, "sign_in_required"),
        ("JSON", post().with("Content-Type", "application/json").with_body(b"{}"), 400, "bad_request"),
        ("no type", post().with_body(b"email=bea@partners.test"), 400, "bad_request"),
        ("too long", post().with_form(&long), 413, "body_too_large"),
    ];
    for (name, request, status, code) in rows {
        let refused = gateway.request(&request);
        assert!(is_refusal(&refused, status, code), "{name}: {} {}", refused.status, refused.text());
        assert_eq!(refused.head.all("set-cookie"), Vec::<&str>::new(), "{name}");
    }
    // In the query it counts for nothing.
    let page =
        Browser::new(&gateway).open("https://wiki.test/oauth2/start?email=bea@partners.test&login_hint=x");
    assert_eq!((page.status(), page.urls().len()), (200, 1), "the choice is shown");
    assert_eq!((first.calls(Call::Authorize), second.calls(Call::Authorize)), (0, 0));
    let evil = [address[0].clone(), ("rd".to_owned(), "https://evil.test/".to_owned())];
    let leaving = gateway.request(&post().with_form(&evil));
    assert_eq!(leaving.status, 200);
    assert!(!leaving.text().contains("evil.test"));
}

/// Two hosts, of which `files.test` has the second provider alone.
fn by_host() -> (Upstream, ScriptedProvider, ScriptedProvider, Gateway) {
    let upstream = Upstream::start();
    let (first, second) = two();
    let gateway = Gateway::in_front_of(&upstream)
        .route(&format!("host = \"files.test\"\nupstream = \"{}\"", upstream.url()))
        .config("[[host]]\nname = \"files.test\"\nprovider = \"second\"")
        .provider(first.entry())
        .provider(entry(&second, "second", "name = \"Partners\"\n"))
        .start();
    (upstream, first, second, gateway)
}

#[test]
fn a_host_may_have_one_provider_and_takes_no_other() {
    let (_upstream, first, second, gateway) = by_host();
    let mut browser = Browser::new(&gateway);
    browser.finds("https://files.test", gateway.place("files.test"));
    let page = browser.open(FILES);
    assert_eq!((page.url.as_str(), user(&page).as_str()), (FILES, "bea"), "nobody is asked");

    let other = browser.open("https://files.test/oauth2/start?provider=main&rd=/");
    assert!(is_refusal(&other.response, 404, "no_route"), "{:?}", other.urls());
    let choice = browser.open("https://files.test/oauth2/sign_in");
    assert!(choice.html().contains("Partners") && !choice.html().contains("Continue with main"));
    assert_eq!(browser.open("https://wiki.test/").url.path(), "/oauth2/sign_in", "elsewhere people choose");
    assert_eq!((first.calls(Call::Authorize), second.calls(Call::Authorize)), (0, 1));
}

#[test]
fn lc_086_an_answer_of_one_provider_is_no_answer_of_another() {
    let upstream = Upstream::start();
    let (first, second) = two();
    for provider in [&first, &second] {
        let issuer = provider.issuer();
        provider.alter_discovery(|document| {
            document["authorization_response_iss_parameter_supported"] = json!(true);
        });
        provider.alter_callback(move |parameters| parameters.push(("iss".to_owned(), issuer.clone())));
    }
    let gateway = Gateway::in_front_of(&upstream)
        .provider(first.entry())
        .provider(entry(&second, "second", ""))
        .start();
    let mut browser = Browser::new(&gateway);
    let start = |browser: &mut Browser, id: &str| {
        let authorize =
            location(&browser.open_once(&format!("https://wiki.test/oauth2/start?provider={id}")));
        let answer = location(&Browser::default().open_once(&authorize));
        Url::parse(&answer).unwrap()
    };
    let (one, two) = (start(&mut browser, "main"), start(&mut browser, "second"));
    let (state, of_two) = (query(&one, "state").unwrap(), query(&two, "state").unwrap());
    let with_state = |url: &Url, from: &str, to: &str| url.as_str().replace(from, to);
    let rows = [
        (
            "the second's code, to the first's attempt and path",
            with_state(&two, &of_two, &state).replace("/callback/second", "/callback"),
        ),
        ("the same, on the second's path", with_state(&two, &of_two, &state)),
        ("the paths swapped", one.as_str().replace("/callback", "/callback/second")),
        ("the other way round", two.as_str().replace("/callback/second", "/callback")),
        (
            "without the issuer that is promised",
            with_state(&two, &of_two, &state)
                .replace("/callback/second", "/callback")
                .split("&iss=")
                .next()
                .unwrap()
                .to_owned(),
        ),
    ];
    for (name, url) in rows {
        let refused = browser.clone().open_once(&url);
        assert!(is_refusal(&refused, 400, "login_state_mismatch"), "{name}: {}", refused.text());
    }
    assert_eq!((first.calls(Call::Token), second.calls(Call::Token)), (0, 0), "no code went anywhere");
    for (url, user_name) in [(one, "alice"), (two, "bea")] {
        let page = browser.open(url.as_str());
        assert_eq!(user(&page), user_name, "the honest answers work after all that");
    }
}

#[test]
fn one_subject_at_two_providers_is_two_people_to_a_logout() {
    let (upstream, first, second) = (Upstream::start(), ScriptedProvider::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream)
        .provider(first.entry())
        .provider(entry(&second, "second", ""))
        .start();
    let signed_in = |id: &str| {
        let mut browser = Browser::new(&gateway);
        let page = browser.open(&format!("https://wiki.test/oauth2/start?provider={id}"));
        assert_eq!(user(&page), "alice", "the same subject and sid at both");
        browser
    };
    let (mut one, mut two) = (signed_in("main"), signed_in("second"));
    let tell = |token: String| {
        let form =
            Request::new("POST", "/oauth2/backchannel_logout").with_form(&[("logout_token".into(), token)]);
        gateway.request(&form).status
    };
    let foreign = second.issuer();
    let forged = first.logout_token(move |_, claims| claims["iss"] = json!(foreign));
    assert_eq!(tell(forged), 400, "a provider speaks for itself alone");
    assert_eq!((one.get(PAGE).status, two.get(PAGE).status), (200, 200));
    assert_eq!(tell(second.logout_token(|_, _| ())), 200);
    assert_eq!((one.get(PAGE).status, two.get(PAGE).status), (200, 302));
    assert_eq!(tell(first.logout_token(|_, _| ())), 200);
    assert_eq!(one.get(PAGE).status, 302);
}

#[test]
fn a_provider_that_is_down_does_not_touch_the_others() {
    let upstream = Upstream::start();
    let (first, mut second) = two();
    let gateway = Gateway::in_front_of(&upstream)
        .provider(first.entry())
        .provider(entry(&second, "second", ""))
        .start();
    let open = |id: &str| {
        let mut browser = Browser::new(&gateway);
        let page = browser.open(&format!("https://wiki.test/oauth2/start?provider={id}"));
        (page, browser)
    };
    let (_, mut bea) = open("second");
    second.stop();
    assert_eq!(user(&open("main").0), "alice");
    assert_eq!(bea.get(PAGE).status, 200, "who is signed in there stays so");
    let out = bea.open_once("https://wiki.test/oauth2/sign_out");
    assert_eq!(out.status, 302, "and can sign out here: {}", out.text());
    assert_eq!(bea.get(PAGE).status, 302);
    second.come_back();
    assert_eq!(user(&open("second").0), "bea");
}

#[test]
fn a_provider_that_never_was_up_does_not_touch_the_others() {
    let upstream = Upstream::start();
    let (first, mut second) = two();
    second.stop();
    let gateway = Gateway::in_front_of(&upstream)
        .provider(first.entry())
        .provider(entry(&second, "second", ""))
        .start();
    let mut browser = Browser::new(&gateway);
    let refused = browser.open("https://wiki.test/oauth2/start?provider=second");
    assert!(is_refusal(&refused.response, 503, "provider_unavailable"));
    assert_eq!(user(&browser.open("https://wiki.test/oauth2/start?provider=main")), "alice");
    let ready = gateway.admin("/readyz");
    assert_eq!((ready.status, &ready.json()["providers"]), (200, &json!({ "main": "up", "second": "down" })));
}

#[test]
fn the_way_back_tells_the_provider_where_the_route_names_one() {
    let upstream = Upstream::start();
    let (first, second) = two();
    let gateway = Gateway::in_front_of(&upstream)
        .path("/second/", &upstream, "provider = \"second\"")
        .provider(first.entry())
        .provider(entry(&second, "other", ""))
        .provider(entry(&second, "second", ""))
        .start();
    let page = Browser::new(&gateway).open("https://wiki.test/oauth2/start?rd=/second/x");
    assert_eq!(user(&page), "bea");
    page.hop("https://wiki.test/oauth2/callback/second?");
}
