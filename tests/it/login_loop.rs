//! Sign-ins that can't succeed: they end on a page that says why, never in one more redirect.

use std::thread;

use serde_json::json;
use url::Url;

use crate::support::browser::{Browser, Page};
use crate::support::client::{Request, Response};
use crate::support::cookie_jar::Cookie;
use crate::support::gateway::{Gateway, WIKI};
use crate::support::scripted_provider::{Call, ScriptedProvider};
use crate::support::upstream::Upstream;

const PAGE: &str = "https://wiki.test/page?x=1";
const CALLBACK: &str = "https://wiki.test/oauth2/callback?";
const HTML: &str = "text/html,application/xhtml+xml";

/// The application, a provider that signs `alice` in without a page, and the gateway.
fn scripted() -> (Upstream, ScriptedProvider, Gateway) {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    (upstream, provider, gateway)
}

fn assert_refused(response: &Response, status: u16, code: &str, name: &str) {
    let text = response.text();
    assert!(response.status == status && text.contains(&format!(">{code}<")), "{name}: {text}");
    assert_eq!(response.field("location"), None, "{name}");
}

fn location(response: &Response) -> String {
    response.field("location").unwrap_or_else(|| panic!("no redirect: {}", response.text())).to_owned()
}

/// The callback of a sign-in that this browser begins and does not complete.
fn callback(browser: &mut Browser) -> String {
    let authorize = location(&browser.open_once(PAGE));
    location(&Browser::default().open_once(&authorize))
}

fn trips(page: &Page) -> usize {
    page.urls().iter().filter(|url| url.starts_with(CALLBACK)).count()
}

#[test]
fn ar_14_a_browser_that_loses_its_session_cookie_ends_on_a_page() {
    let (upstream, _provider, gateway) = scripted();
    let mut browser = Browser::new(&gateway);
    browser.jar.blocks = Some("__Host-portcullis=".to_owned());
    let page = browser.open(PAGE);
    assert_refused(&page.response, 400, "login_loop", "the loop");
    assert!(page.html().contains("did not keep the cookie"), "{}", page.html());
    assert_eq!((trips(&page), page.url.as_str()), (4, PAGE));
    assert_eq!(upstream.hits(), 0);
    gateway.wait_for_log(&["sign_in_failed", "login_loop", "rewrites Set-Cookie"]);
    let refused = "portcullis_refusals_total{code=\"login_loop\"}";
    assert!((gateway.metric(refused) - 1.0).abs() < 0.5, "the access line has the code too");

    // The page ends the run: what comes next is the person's own act, and works once cookies are kept.
    browser.jar.blocks = None;
    let again = browser.click(&page, "/page");
    assert_eq!((again.status(), trips(&again)), (200, 1), "{:?}", again.urls());
}

#[test]
fn ar_14_an_application_that_always_asks_for_a_new_sign_in_ends_on_a_page() {
    let (upstream, provider, gateway) = scripted();
    let again = "HTTP/1.1 302 Found\r\nLocation: /oauth2/start?rd=/page\r\nContent-Length: 0\r\n\r\n";
    upstream.answers("/page", again.as_bytes());
    let page = Browser::new(&gateway).open("https://wiki.test/page");
    assert_refused(&page.response, 400, "login_loop", "the loop");
    assert!(page.html().contains("the application keeps asking"), "{}", page.html());
    assert_eq!(provider.calls(Call::Token), 4);
    gateway.wait_for_log(&["sign_in_failed", "login_loop", "the session lives"]);
}

#[test]
fn ar_14_whoever_signs_out_in_between_is_in_no_loop() {
    let (_upstream, _provider, gateway) = scripted();
    let mut browser = Browser::new(&gateway);
    for round in 0..6 {
        assert_eq!(browser.open(PAGE).status(), 200, "round {round}");
        assert_eq!(browser.post("https://wiki.test/oauth2/sign_out", PAGE).status, 302, "round {round}");
    }
}

#[test]
fn lc_091_twenty_tabs_at_once_all_get_to_the_application() {
    let (_upstream, provider, gateway) = scripted();
    let mut browser = Browser::new(&gateway);
    let tabs: Vec<String> =
        (0..20).map(|tab| location(&browser.open_once(&format!("https://wiki.test/tab{tab}")))).collect();
    let sent = browser.jar.field(&Url::parse(PAGE).unwrap(), false).unwrap();
    assert!(sent.len() < 8192, "{} bytes of cookies", sent.len());
    // Those whose attempts had to make room come last, to a browser that is signed in by then.
    for (tab, authorize) in tabs.iter().enumerate().rev() {
        let page = browser.open(authorize);
        let wanted = if tab < 15 { "/".to_owned() } else { format!("/tab{tab}") };
        assert_eq!((page.status(), page.url.path()), (200, wanted.as_str()), "tab {tab}");
    }
    assert_eq!(provider.calls(Call::Token), 5);
    assert_eq!(browser.open(PAGE).status(), 200);
}

#[test]
fn lc_102_a_provider_that_never_signs_anybody_in_causes_no_loop() {
    let (_upstream, provider, gateway) = scripted();
    let cases = [
        ("login_required", 403, "login_denied"),
        ("interaction_required", 403, "login_denied"),
        ("temporarily_unavailable", 503, "provider_unavailable"),
    ];
    for (error, status, code) in cases {
        provider.alter_callback(move |parameters| {
            parameters.retain(|(name, _)| name == "state");
            parameters.push(("error".to_owned(), error.to_owned()));
        });
        let mut browser = Browser::new(&gateway);
        for attempt in 0..6 {
            let page = browser.open(PAGE);
            assert_refused(&page.response, status, code, &format!("{error}, attempt {attempt}"));
            assert_eq!(trips(&page), 1, "{error}, attempt {attempt}");
        }
    }
    assert_eq!(provider.calls(Call::Token), 0);
}

#[test]
fn a_callback_without_its_cookie_says_what_is_known_of_the_reason() {
    let (_upstream, provider, gateway) = scripted();
    let html = |target: &str| Request::get(target).with("Accept", HTML);
    // The callback of a sign-in that begins with these fields, without its host.
    let begun = |fields: &[(&str, &str)]| {
        let begin = fields.iter().fold(html("/page"), |request, (name, value)| request.with(name, value));
        let answer = location(&Browser::default().open_once(&location(&gateway.request(&begin))));
        answer.strip_prefix("https://wiki.test").expect("the provider answers to the callback").to_owned()
    };
    let cases = [
        ("no cookie", html(&begun(&[])), "login_cookie_missing", "proxy in front drops Set-Cookie"),
        ("over http", html(&begun(&[("X-Forwarded-Proto", "http")])), "login_over_http", "redirect http"),
        (
            "another name",
            html(&begun(&[("X-Forwarded-Host", "www.wiki.test")])),
            "login_other_host",
            "X-Forwarded-Host said another name",
        ),
        (
            "in a frame",
            html(&begun(&[])).with("Sec-Fetch-Mode", "navigate").with("Sec-Fetch-Dest", "iframe"),
            "login_framed",
            "embedded in a page of another site",
        ),
        (
            "another attempt's cookie",
            html(&begun(&[])).with("Cookie", "__Host-portcullis-login-0123456789abcdef=x"),
            "login_stale",
            "no login cookie for this state",
        ),
    ];
    for (name, request, code, hint) in cases {
        let refused = gateway.request(&request);
        assert_refused(&refused, 400, code, name);
        assert!(refused.text().contains("href=\"/oauth2/sign_in\""), "{name}: a way to start again");
        assert!(
            !refused.text().contains(hint) || hint.contains("no login"),
            "{name}: hints are the operator's"
        );
        gateway.wait_for_log(&["sign_in_failed", &format!("\"{code}\""), hint]);
    }
    assert_eq!(provider.calls(Call::Token), 0);
}

type Break = fn(&ScriptedProvider);

#[test]
fn clocks_and_clients_that_do_not_fit_are_told_by_codes_of_their_own() {
    let (_upstream, provider, gateway) = scripted();
    let cases: [(&str, Break, &str, &str); 4] = [
        (
            "issued in the future",
            |op| op.alter_claims(|claims| claims["iat"] = json!(claims["iat"].as_u64().unwrap() + 600)),
            "login_failed_clock",
            "NTP",
        ),
        (
            "expired on arrival",
            |op| {
                op.alter_claims(|claims| {
                    claims["iat"] = json!(claims["iat"].as_u64().unwrap() - 900);
                    claims["exp"] = json!(claims["exp"].as_u64().unwrap() - 900);
                });
            },
            "login_failed_clock",
            "NTP",
        ),
        (
            "a client that is refused",
            |op| {
                op.alter_answer(Call::Token, |answer| {
                    answer.status = 401;
                    answer.body = br#"{"error":"invalid_client"}"#.to_vec();
                });
            },
            "login_failed_client",
            "check client_id, client_secret",
        ),
        (
            "a code that is refused",
            |op| {
                op.alter_answer(Call::Token, |answer| {
                    answer.status = 400;
                    answer.body = br#"{"error":"invalid_grant"}"#.to_vec();
                });
            },
            "login_failed",
            "invalid_grant",
        ),
    ];
    for (name, break_it, code, hint) in cases {
        break_it(&provider);
        let page = Browser::new(&gateway).open(PAGE);
        assert_refused(&page.response, 400, code, name);
        gateway.wait_for_log(&["sign_in_failed", &format!("\"{code}\""), hint]);
        provider.behave();
    }
}

#[test]
fn a_bookmarked_callback_leads_to_the_application_or_to_a_clean_sign_in_and_never_to_the_provider() {
    let (_upstream, provider, gateway) = scripted();
    let mut browser = Browser::new(&gateway);
    let bookmark = browser.open(PAGE).hop(CALLBACK).0.to_string();
    assert_eq!(provider.calls(Call::Token), 1);

    let page = browser.open(&bookmark);
    assert_eq!((page.status(), page.url.as_str()), (200, "https://wiki.test/"));
    assert_eq!((provider.calls(Call::Token), provider.calls(Call::Authorize)), (1, 1));

    // The next day the session is over.
    browser.post("https://wiki.test/oauth2/sign_out", PAGE);
    let over = browser.open(&bookmark);
    assert_refused(&over.response, 400, "login_stale", "no session");
    let choice = browser.click(&over, "/oauth2/sign_in");
    let page = browser.click(&choice, "/oauth2/start");
    assert_eq!((page.status(), page.url.as_str()), (200, "https://wiki.test/"));
    assert_eq!((provider.calls(Call::Token), provider.calls(Call::Authorize)), (2, 2));
}

#[test]
fn lc_080_a_callback_of_another_browser_signs_nobody_in_whatever_the_victim_has() {
    let (_upstream, provider, gateway) = scripted();
    let mut attacker = Browser::new(&gateway);
    let planted = callback(&mut attacker);
    let mut begun = Browser::new(&gateway);
    begun.open_once(PAGE);
    for (name, mut victim, code) in [
        ("no cookies", Browser::new(&gateway), "login_cookie_missing"),
        ("an attempt of their own", begun, "login_stale"),
    ] {
        assert_refused(&victim.open_once(&planted), 400, code, name);
        assert_eq!(victim.jar.get(WIKI, "__Host-portcullis"), None, "{name}");
    }
    assert_eq!(provider.calls(Call::Token), 0);

    let mut victim = Browser::new(&gateway);
    victim.open(PAGE);
    let session = victim.jar.get(WIKI, "__Host-portcullis").cloned();
    assert_eq!(location(&victim.open_once(&planted)), "/", "a session of their own");
    assert_eq!(victim.jar.get(WIKI, "__Host-portcullis").cloned(), session, "it stays the same");
    assert_eq!(provider.calls(Call::Token), 1, "the victim's own");
}

#[test]
fn lc_081_a_callback_that_comes_ten_times_at_once_is_one_token_request_and_one_session() {
    let (_upstream, provider, gateway) = scripted();
    let mut browser = Browser::new(&gateway);
    let callback = callback(&mut browser);
    let answers: Vec<(Browser, Response)> = thread::scope(|scope| {
        let tabs: Vec<_> = (0..10)
            .map(|_| {
                let (mut tab, callback) = (browser.clone(), &callback);
                scope.spawn(move || {
                    let answer = tab.open_once(callback);
                    (tab, answer)
                })
            })
            .collect();
        tabs.into_iter().map(|tab| tab.join().unwrap()).collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|(tab, _)| tab.jar.get(WIKI, "__Host-portcullis").is_some());
    assert_eq!((won.len(), lost.len()), (1, 9));
    assert_eq!(location(&won[0].1), "/page?x=1");
    for (_, answer) in &lost {
        assert_refused(answer, 400, "login_replayed", "the same callback");
    }
    assert_eq!(provider.calls(Call::Token), 1);
}

#[test]
fn sc_152_sign_ins_under_way_that_make_a_head_too_large_are_given_up() {
    let (upstream, _provider, gateway) = scripted();
    let mut browser = Browser::new(&gateway);
    browser.open(PAGE);
    let long = "x".repeat(1700);
    for tab in 0..5 {
        browser.open_once(&format!("https://wiki.test/oauth2/start?rd=/{tab}{long}"));
    }
    let name = "application".to_owned();
    let of_the_application = Cookie { name, value: "x".repeat(24_000), ..browser.jar.of(WIKI)[0].clone() };
    browser.jar.put(of_the_application);
    let (hits, cookies) = (upstream.hits(), browser.jar.of(WIKI).len());

    let refused = browser.open_once(PAGE);
    assert_eq!((refused.status, upstream.hits()), (431, hits));
    let left: Vec<&str> = browser.jar.of(WIKI).iter().map(|cookie| cookie.name.as_str()).collect();
    assert!(left.iter().all(|name| !name.contains("-login-")), "{left:?}");
    assert_eq!(left.len(), cookies - 5, "and nothing else: {left:?}");
    assert_eq!(browser.jar.rejected, Vec::<String>::new());
    assert_eq!(browser.open_once(PAGE).status, 200, "still signed in");
}
