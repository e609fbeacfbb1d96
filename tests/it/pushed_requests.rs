//! Pushed authorization requests (RFC 9126): what the browser carries, what the provider gets, what is logged.

use serde_json::json;
use url::Url;

use crate::support::browser::Browser;
use crate::support::certified_provider::CertifiedProvider;
use crate::support::gateway::{Gateway, ProviderEntry};
use crate::support::scripted_provider::{Answer, Call, ScriptedProvider};
use crate::support::upstream::{Echo, Upstream};

const PAGE: &str = "https://wiki.test/page?x=1";

fn asking(provider: &ScriptedProvider) -> ProviderEntry {
    let mut entry = provider.entry();
    entry.more.push_str("pushed_authorization_requests = true\n");
    entry
}

fn names(url: &Url) -> Vec<String> {
    url.query_pairs().map(|(name, _)| name.into_owned()).collect()
}

#[test]
fn ar_11_a_provider_that_demands_pushed_requests_gets_them() {
    let mut provider = CertifiedProvider::builder().requires_pushed_requests().start();
    for (count, method) in ["client_secret_basic", "client_secret_jwt", "none"].into_iter().enumerate() {
        let upstream = Upstream::start();
        let gateway = Gateway::in_front_of(&upstream).provider(provider.entry_for(method)).start();
        let mut browser = Browser::new(&gateway);
        let redirect = browser.open_once(PAGE);
        let url = Url::parse(redirect.field("location").unwrap()).unwrap();
        assert_eq!(names(&url), ["client_id", "request_uri"], "{method}");
        let page = Browser::new(&gateway).sign_in(PAGE, "alice");
        assert_eq!(page.url.as_str(), PAGE, "{method}: {}", page.html());
        assert_eq!(Echo::of(&page.response).one("x-forwarded-user"), Some("alice"), "{method}");
        assert_eq!(
            provider.calls("request"),
            2 * (count as u64 + 1),
            "{method}: each attempt pushes its own"
        );
    }
}

#[test]
fn ar_11_pushed_requests_are_used_once_and_never_logged() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream).provider(asking(&provider)).start();
    for sign_ins in 1..=2 {
        let page = Browser::new(&gateway).open(PAGE);
        assert_eq!(page.url.as_str(), PAGE, "{}", page.html());
        assert_eq!((provider.calls(Call::Pushed), provider.calls(Call::Token)), (sign_ins, sign_ins));
    }
    let log = gateway.log().join("\n");
    assert!(log.contains("pushed_request"), "the call is told");
    assert!(provider.issued().iter().any(|text| text.starts_with("urn:ietf:params:oauth:request_uri:")));
    for secret in provider.issued() {
        assert!(!log.contains(&secret), "{secret} is in the log");
    }
}

#[test]
fn without_demand_and_setting_nothing_is_pushed() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    assert_eq!(Browser::new(&gateway).open(PAGE).url.as_str(), PAGE);
    assert_eq!(provider.calls(Call::Pushed), 0);
}

#[test]
fn a_request_that_can_not_be_pushed_sends_nobody_to_the_provider() {
    type Change = fn(&mut Answer);
    let refused: Change = |answer| {
        answer.status = 400;
        answer.body = br#"{"error":"invalid_request"}"#.to_vec();
    };
    let redirected: Change = |answer| {
        answer.status = 302;
        answer.fields.push(("Location".into(), "https://evil.test/".into()));
    };
    let client: Change = |answer| {
        answer.status = 401;
        answer.body = br#"{"error":"invalid_client"}"#.to_vec();
    };
    let cases: [(&str, Change, u16, &str); 6] = [
        ("the client refused", client, 400, "login_failed_client"),
        ("refused", refused, 400, "login_failed"),
        ("down", |answer| answer.status = 503, 503, "provider_unavailable"),
        ("a redirect", redirected, 400, "login_failed"),
        ("another status", |answer| answer.status = 200, 400, "login_failed"),
        ("no reference", |answer| answer.body = b"{}".to_vec(), 400, "login_failed"),
    ];
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream).provider(asking(&provider)).start();
    for (name, change, status, code) in cases {
        provider.alter_answer(Call::Pushed, change);
        let mut browser = Browser::new(&gateway);
        let page = browser.open(PAGE);
        assert_eq!(page.status(), status, "{name}: {}", page.html());
        assert!(page.html().contains(code), "{name}: {}", page.html());
        assert!(browser.jar.of("wiki.test").is_empty(), "{name}: no attempt is remembered");
    }
    assert_eq!((provider.calls(Call::Authorize), upstream.hits()), (0, 0));
}

#[test]
fn a_provider_without_the_endpoint_is_told_as_unavailable() {
    let cases = [("asked for", true, false), ("demanded", false, true)];
    for (name, asked, demanded) in cases {
        let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
        provider.alter_discovery(move |document| {
            document.as_object_mut().unwrap().remove("pushed_authorization_request_endpoint");
            document["require_pushed_authorization_requests"] = json!(demanded);
        });
        let entry = if asked { asking(&provider) } else { provider.entry() };
        let gateway = Gateway::in_front_of(&upstream).provider(entry).start();
        let page = Browser::new(&gateway).open(PAGE);
        assert_eq!(page.status(), 503, "{name}: {}", page.html());
        assert_eq!(provider.calls(Call::Authorize), 0, "{name}");
    }
}
