//! The OpenID Foundation's tests for relying parties, by the names of their modules
//! (`oidcc-client-test-invalid-iss` is `conformance_invalid_iss`).
//!
//! The provider behaves as that of the suite, and each test looks at both sides: what the provider saw (one
//! token request, userinfo or none, no second try), and what the browser and the application got. In the
//! suite a relying party that never calls userinfo has refused; here it has to say so to the browser too.

use std::collections::BTreeSet;
use std::sync::mpsc;

use portcullis::token::Algorithm;
use portcullis::token::sign::SigningKey;
use serde_json::{Value, json};

use crate::support::browser::{Browser, Page};
use crate::support::client::{Request, Response};
use crate::support::forge;
use crate::support::gateway::{Gateway, WIKI};
use crate::support::scripted_provider::{Call, ScriptedProvider};
use crate::support::upstream::{Echo, Upstream};

const PAGE: &str = "https://wiki.test/page";
const SIGN_OUT: &str = "https://wiki.test/oauth2/sign_out";

/// The suite's provider, an application, and the gateway between them.
struct Suite {
    provider: ScriptedProvider,
    upstream: Upstream,
    gateway: Gateway,
}

impl Suite {
    /// One whose provider does as the module says from its start on.
    fn new(module: impl FnOnce(&ScriptedProvider)) -> Self {
        Self::with("", module)
    }

    /// As [`Suite::new`], with more lines for the provider in the gateway's configuration.
    fn with(lines: &str, module: impl FnOnce(&ScriptedProvider)) -> Self {
        let (upstream, provider) = (Upstream::start(), ScriptedProvider::start_like_the_suite());
        module(&provider);
        let mut entry = provider.entry();
        entry.more.push_str(lines);
        let gateway = Gateway::in_front_of(&upstream).provider(entry).start();
        Self { provider, upstream, gateway }
    }

    /// Somebody signs in: one token request, then userinfo, then the application.
    fn signs_in(&self) -> Browser {
        let before = self.calls();
        let mut browser = Browser::new(&self.gateway);
        let page = self.open(&mut browser);
        assert_eq!((page.status(), page.url.as_str()), (200, PAGE), "{}", page.html());
        assert_eq!(Echo::of(&page.response).one("x-forwarded-user"), Some("alice"));
        assert_eq!(self.calls(), before.map(|calls| calls + 1), "authorize, token, userinfo");
        browser
    }

    /// Nobody gets in: one token request, no userinfo, no second try; a page and no session.
    fn refuses(&self) {
        self.ends_with(400, "login_failed");
        assert_eq!(self.calls(), [1, 1, 0], "authorize, token, userinfo");
    }

    /// A sign-in ends with this refusal, and the application hears nothing of it.
    fn ends_with(&self, status: u16, code: &str) {
        let mut browser = Browser::new(&self.gateway);
        let page = self.open(&mut browser);
        assert_eq!(page.status(), status, "{}", page.html());
        assert!(page.html().contains(code), "{}", page.html());
        assert_eq!(browser.jar.get(WIKI, "__Host-portcullis"), None, "no session");
        assert_eq!(self.upstream.hits(), 0);
    }

    /// Opens the page, and sends the form with which a provider answers that was asked for one.
    fn open(&self, browser: &mut Browser) -> Page {
        let page = browser.open(PAGE);
        if page.url.as_str().starts_with(&self.provider.issuer()) {
            return browser.submit(&page, &[]);
        }
        page
    }

    fn calls(&self) -> [usize; 3] {
        [Call::Authorize, Call::Token, Call::Userinfo].map(|call| self.provider.calls(call))
    }
}

/// A module of the plans "Basic RP" and "Form Post RP": the provider's answer comes by query, then by form.
fn basic(module: impl Fn(&ScriptedProvider), judge: impl Fn(&Suite)) {
    for lines in ["", "response_mode = \"form_post\"\n"] {
        let suite = Suite::with(lines, &module);
        judge(&suite);
        let asked = suite.provider.last(Call::Authorize).parameter("response_mode");
        assert_eq!(asked.is_some(), !lines.is_empty(), "{asked:?}");
    }
}

/// Somebody signs in, once.
fn accepts(suite: &Suite) {
    suite.signs_in();
}

fn append(value: &mut Value, more: &str) {
    *value = format!("{}{more}", value.as_str().unwrap_or("null")).into();
}

fn remove(object: &mut Value, name: &str) {
    object.as_object_mut().unwrap().remove(name).expect("it was there");
}

/// Signs with the first of so many new keys of each kind, none of which has a name; they are published in
/// reverse order, so that the one that signs is the last of its kind.
fn use_keys_without_kid(provider: &ScriptedProvider, of_each_kind: usize) {
    let kinds = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
    let keys = kinds.iter().flat_map(|&algorithm| {
        (0..of_each_kind).map(move |_| SigningKey::generate(algorithm, None).unwrap())
    });
    provider.use_keys(keys.collect());
    provider.alter_keys(|set| {
        let keys = set["keys"].as_array_mut().unwrap();
        keys.reverse();
        for key in keys {
            key.as_object_mut().unwrap().remove("kid");
        }
    });
    provider.alter_header(|header| remove(header, "kid"));
}

// ---- Basic RP, Form Post RP ----

#[test]
fn conformance_client_test() {
    basic(
        |_| (),
        |suite| {
            suite.signs_in();
            let authorize = suite.provider.last(Call::Authorize);
            let nonce = authorize.parameter("nonce").expect("a nonce is sent");
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
            assert!(nonce.len() <= 43 && nonce.bytes().all(fits), "{nonce}");
            assert_eq!(authorize.parameter("request"), None);
            assert_eq!(
                authorize.parameter("redirect_uri").as_deref(),
                Some("https://wiki.test/oauth2/callback")
            );
            let token = suite.provider.last(Call::Token);
            assert_eq!(token.parameter("redirect_uri"), authorize.parameter("redirect_uri"));
            assert!(token.parameter("code_verifier").is_some_and(|verifier| verifier.len() >= 43));
            suite.signs_in();
            assert_ne!(
                suite.provider.last(Call::Token).parameter("code_verifier"),
                token.parameter("code_verifier")
            );
        },
    );
}

#[test]
fn conformance_invalid_iss() {
    basic(|op| op.alter_claims(|claims| append(&mut claims["iss"], "1")), Suite::refuses);
}

#[test]
fn conformance_missing_sub() {
    basic(|op| op.alter_claims(|claims| remove(claims, "sub")), Suite::refuses);
}

#[test]
fn conformance_invalid_aud() {
    basic(|op| op.alter_claims(|claims| append(&mut claims["aud"], "1")), Suite::refuses);
}

#[test]
fn conformance_missing_iat() {
    basic(|op| op.alter_claims(|claims| remove(claims, "iat")), Suite::refuses);
}

#[test]
fn conformance_kid_absent_single_jwks() {
    basic(|op| use_keys_without_kid(op, 1), accepts);
}

#[test]
fn conformance_kid_absent_multiple_jwks() {
    basic(|op| use_keys_without_kid(op, 3), accepts);
}

#[test]
fn conformance_idtoken_sig_rs256() {
    let only = |document: &mut Value| document["id_token_signing_alg_values_supported"] = json!(["RS256"]);
    basic(|op| op.alter_discovery(only), accepts);
}

#[test]
fn conformance_idtoken_sig_none() {
    let unsigned = |_: &Value, claims: &Value| forge::unsigned(&json!({ "alg": "none" }), claims);
    basic(|op| op.sign_with(unsigned), Suite::refuses);
}

#[test]
fn conformance_invalid_sig_rs256() {
    basic(|op| op.alter_tokens(|tokens| spoil(&mut tokens["id_token"])), Suite::refuses);
}

/// Changes every byte of a token's signature, as the suite does.
fn spoil(token: &mut Value) {
    let spoilt = forge::with_signature(token.as_str().unwrap(), |bytes| {
        for byte in bytes {
            *byte ^= 0x5a;
        }
    });
    *token = spoilt.into();
}

#[test]
fn conformance_userinfo_invalid_sub() {
    let another = |claims: &mut Value| append(&mut claims["sub"], "invalid");
    basic(
        |op| op.alter_userinfo(another),
        |suite| {
            suite.ends_with(400, "login_failed");
            assert_eq!(suite.calls(), [1, 1, 1]);
        },
    );
}

#[test]
fn conformance_nonce_invalid() {
    basic(|op| op.alter_claims(|claims| append(&mut claims["nonce"], "1")), Suite::refuses);
}

#[test]
fn conformance_scope_userinfo_claims() {
    basic(
        |_| (),
        |suite| {
            let mut browser = suite.signs_in();
            let scope = suite.provider.last(Call::Authorize).parameter("scope").unwrap();
            let scopes: BTreeSet<&str> = scope.split(' ').collect();
            assert!(
                scopes.contains("openid") && scopes.contains("email") && scopes.contains("profile"),
                "{scope}"
            );
            let echo = Echo::of(&browser.get(PAGE));
            assert_eq!(echo.one("x-forwarded-email"), Some("alice@example.test"), "told by userinfo alone");
        },
    );
}

#[test]
fn conformance_client_secret_basic() {
    basic(
        |_| (),
        |suite| {
            suite.signs_in();
            // The provider compares the credentials; here: that there are no others beside them.
            let token = suite.provider.last(Call::Token);
            assert!(token.head.one("authorization").is_some_and(|value| value.starts_with("Basic ")));
            assert_eq!((token.parameter("client_secret"), token.parameter("client_assertion")), (None, None));
        },
    );
}

// ---- Config RP ----

#[test]
fn conformance_discovery_openid_config() {
    let suite = Suite::new(|_| ());
    assert_eq!(suite.provider.calls(Call::Discovery), 1);
    let line = suite.provider.last(Call::Discovery).head.line;
    assert_eq!(line, "GET /test/a/portcullis/.well-known/openid-configuration HTTP/1.1");
}

#[test]
fn conformance_discovery_jwks_uri_keys() {
    let suite = Suite::new(|op| {
        op.alter_discovery(|document| append(&mut document["jwks_uri"], "/3tYkz0"));
    });
    suite.signs_in();
    assert!(suite.provider.last(Call::Keys).head.line.starts_with("GET /test/a/portcullis/keys/3tYkz0 "));
    let order: Vec<Call> = suite.provider.seen().iter().map(|seen| seen.call).collect();
    assert_eq!(order, [Call::Discovery, Call::Keys, Call::Authorize, Call::Token, Call::Userinfo]);
}

#[test]
fn conformance_discovery_issuer_mismatch() {
    let mut more = String::new();
    let suite = Suite::new(|op| {
        op.alter_discovery(move |document| {
            more.push_str("INVALID");
            append(&mut document["issuer"], &more);
        });
    });
    suite.ends_with(503, "provider_unavailable");
    assert_eq!(suite.calls(), [0, 0, 0]);
    suite.gateway.wait_for_log(&["provider_down", "INVALID"]);
}

#[test]
fn conformance_signing_key_rotation_just_before_signing() {
    let suite = Suite::new(|op| op.rotate_keys_at(Call::Token));
    let fetched = suite.provider.calls(Call::Keys);
    suite.signs_in();
    suite.signs_in();
    assert_eq!(suite.provider.calls(Call::Keys), fetched + 2, "once for each rotation");
}

#[test]
fn conformance_signing_key_rotation() {
    let suite = Suite::new(|_| ());
    suite.signs_in();
    let fetched = suite.provider.calls(Call::Keys);
    suite.provider.rotate_keys_at(Call::Authorize);
    suite.signs_in();
    assert_eq!(suite.provider.calls(Call::Keys), fetched + 1);
}

// ---- of the comprehensive plan ----

#[test]
fn conformance_missing_aud() {
    Suite::new(|op| op.alter_claims(|claims| remove(claims, "aud"))).refuses();
}

#[test]
fn conformance_invalid_sig_hs256() {
    let only = |document: &mut Value| document["id_token_signing_alg_values_supported"] = json!(["HS256"]);
    // As in the suite, and with a MAC that holds.
    for spoilt in [true, false] {
        let suite = Suite::new(|op| {
            let secret = op.client_secret();
            op.alter_discovery(only);
            op.sign_with(move |_, claims| forge::mac(&json!({ "alg": "HS256" }), claims, secret.as_bytes()));
            op.alter_tokens(move |tokens| {
                if spoilt {
                    spoil(&mut tokens["id_token"]);
                }
            });
        });
        suite.refuses();
    }
}

#[test]
fn conformance_invalid_sig_es256() {
    let only = |document: &mut Value| document["id_token_signing_alg_values_supported"] = json!(["ES256"]);
    let suite = Suite::with("id_token_algorithms = [\"ES256\"]\n", |op| {
        let key = SigningKey::generate(Algorithm::ES256, Some("ec-9")).unwrap();
        op.use_keys(vec![key]);
        op.alter_discovery(only);
        op.alter_header(|header| header["alg"] = json!("ES256"));
        op.alter_claims(|claims| remove(claims, "at_hash"));
        op.alter_tokens(|tokens| spoil(&mut tokens["id_token"]));
    });
    suite.refuses();
    suite.provider.alter_tokens(|_| ());
    suite.signs_in();
}

#[test]
fn conformance_userinfo_bearer_header() {
    let suite = Suite::new(|_| ());
    suite.signs_in();
    let userinfo = suite.provider.last(Call::Userinfo);
    assert!(userinfo.head.one("authorization").is_some_and(|value| value.starts_with("Bearer access-")));
    assert_eq!(userinfo.head.line, "GET /test/a/portcullis/userinfo HTTP/1.1", "no token in the query");
    assert!(userinfo.body.is_empty());
}

#[test]
fn conformance_userinfo_signed() {
    // Whether the gateway knows that the client is registered for it, or not.
    for lines in ["", "userinfo_signed_response_alg = \"RS256\"\n"] {
        let suite = Suite::with(lines, |op| op.sign_userinfo(|_, _| ()));
        let mut browser = suite.signs_in();
        let echo = Echo::of(&browser.get(PAGE));
        assert_eq!(echo.one("x-forwarded-email"), Some("alice@example.test"), "{lines}");
    }
}

#[test]
fn conformance_aggregated_claims() {
    let suite = Suite::new(|op| {
        op.alter_userinfo(|claims| {
            remove(claims, "groups");
            remove(claims, "preferred_username");
            let inner =
                json!({ "groups": ["staff"], "preferred_username": "root", "email": "root@evil.test" });
            let token = forge::unsigned(&json!({ "alg": "none" }), &inner);
            claims["_claim_names"] = json!({ "groups": "s", "preferred_username": "s", "email": "s" });
            claims["_claim_sources"] = json!({ "s": { "JWT": token } });
        });
    });
    let mut browser = suite.signs_in();
    let echo = Echo::of(&browser.get(PAGE));
    assert_eq!(echo.one("x-forwarded-email"), Some("alice@example.test"));
    assert_eq!(echo.one("x-forwarded-groups"), None, "what nobody signed counts for nothing");
    assert!(echo.fields.iter().all(|(_, value)| !value.contains("root")), "{:?}", echo.fields);
}

// ---- RP-initiated logout, and the back channel ----

/// A logout token as the suite makes it.
fn logout_token(provider: &ScriptedProvider, change: impl FnOnce(&mut Value, &mut Value)) -> String {
    provider.logout_token(|header, claims| {
        remove(header, "typ");
        claims["sid"] = json!(SID);
        claims["trace"] = json!("an extra claim");
        change(header, claims);
    })
}

/// Spaces and punctuation, as the suite has them.
const SID: &str = "sid 1 !\"#$%&'()*+,-./:;<=>?@[]^_`{|}~";

/// Tells the gateway of a logout as the suite does, with a parameter too many.
fn logout_call(token: &str) -> Request {
    let form = [("logout_token".to_owned(), token.to_owned()), ("extra".to_owned(), "1".to_owned())];
    Request::new("POST", "/oauth2/backchannel_logout").with("Host", WIKI).with_form(&form)
}

/// Somebody signs out, and while the browser waits the provider tells this logout. Gives what the provider was
/// answered, and where the browser ended.
fn sign_out(suite: &Suite, change: impl FnOnce(&mut Value, &mut Value)) -> (Response, Browser, Page) {
    suite.provider.claims(|claims| claims["sid"] = json!(SID));
    let mut browser = suite.signs_in();
    let call = logout_call(&logout_token(&suite.provider, change));
    let (place, (answered, answer)) = (suite.gateway.place(WIKI), mpsc::channel());
    suite.provider.alter_answer(Call::EndSession, move |_| answered.send(place.request(&call)).unwrap());
    let mut page = browser.open(PAGE);
    page = browser.follow(&page, SIGN_OUT);
    let answer = answer.recv().expect("the provider was called");
    (answer, browser, page)
}

fn is_signed_in(browser: &mut Browser) -> bool {
    browser.get(PAGE).status == 200
}

#[test]
fn conformance_rp_init_logout() {
    let suite = Suite::new(|_| ());
    let (answer, mut browser, page) = sign_out(&suite, |_, _| ());
    assert_eq!((answer.status, answer.field("cache-control")), (200, Some("no-store")));
    assert_eq!((page.status(), page.url.path()), (200, "/oauth2/signed_out"));
    let call = suite.provider.last(Call::EndSession);
    let id_token = suite.provider.issued().into_iter().rfind(|issued| issued.split('.').count() == 3);
    assert_eq!(call.parameter("id_token_hint"), id_token, "byte for byte the one that was issued");
    let back = call.parameter("post_logout_redirect_uri");
    assert_eq!(back.as_deref(), Some("https://wiki.test/oauth2/signed_out"));
    assert!(call.parameter("state").is_some_and(|state| state.len() >= 22));
    assert!(!is_signed_in(&mut browser));
}

/// The browser comes back from the provider with this query.
fn comes_back_with(query: &'static str) {
    let suite = Suite::new(|_| ());
    let mut browser = suite.signs_in();
    suite.provider.alter_answer(Call::EndSession, move |answer| {
        let location = &mut answer.fields[0].1;
        let (place, state) = location.split_once("?state=").expect("the state comes back");
        *location = format!("{place}{}", query.replace("STATE", state));
    });
    let page = browser.open(PAGE);
    let page = browser.follow(&page, SIGN_OUT);
    assert_eq!((page.status(), page.url.path()), (200, "/oauth2/signed_out"), "{query}");
    assert!(page.url.as_str().ends_with(query.split("STATE").last().unwrap()), "{}", page.url);
    assert!(!is_signed_in(&mut browser));
}

#[test]
fn conformance_rp_init_logout_other_state() {
    comes_back_with("?state=STATE_INVALID");
}

#[test]
fn conformance_rp_init_logout_no_state() {
    comes_back_with("");
}

#[test]
fn conformance_rp_backchannel_rpinitlogout() {
    let suite = Suite::new(|_| ());
    let (answer, ..) = sign_out(&suite, |_, _| ());
    assert_eq!((answer.status, answer.field("cache-control")), (200, Some("no-store")));
    // Which says little, because that browser had signed out already. Another one has not.
    suite.provider.claims(|claims| claims["sid"] = json!("sid 2 !"));
    let mut other = suite.signs_in();
    let token = logout_token(&suite.provider, |_, claims| claims["sid"] = json!("sid 2 !"));
    assert_eq!(suite.gateway.place(WIKI).request(&logout_call(&token)).status, 200);
    assert!(!is_signed_in(&mut other));
}

/// A logout token that the suite spoils is refused, and ends nobody's session.
fn hears_nothing(change: impl Fn(&mut Value, &mut Value)) {
    let suite = Suite::new(|_| ());
    let (answer, ..) = sign_out(&suite, &change);
    assert_eq!((answer.status, answer.field("cache-control")), (400, Some("no-store")));
    let mut other = suite.signs_in();
    let told = suite.gateway.place(WIKI).request(&logout_call(&logout_token(&suite.provider, &change)));
    assert_eq!(told.status, 400);
    assert!(is_signed_in(&mut other));
}

#[test]
fn conformance_rp_backchannel_rpinitlogout_no_event() {
    hears_nothing(|_, claims| remove(claims, "events"));
}

#[test]
fn conformance_rp_backchannel_rpinitlogout_with_nonce() {
    hears_nothing(|_, claims| claims["nonce"] = json!("n-0S6_WzA2Mj"));
}

#[test]
fn conformance_rp_backchannel_rpinitlogout_wrong_aud() {
    hears_nothing(|_, claims| append(&mut claims["aud"], "INVALID"));
}

#[test]
fn conformance_rp_backchannel_rpinitlogout_wrong_event() {
    hears_nothing(|_, claims| {
        claims["events"] = json!({ "http://schemas.openid.net/event/foobar": {} });
    });
}

#[test]
fn conformance_rp_backchannel_rpinitlogout_wrong_iss() {
    hears_nothing(|_, claims| append(&mut claims["iss"], "INVALID"));
}

/// As [`hears_nothing`], for a token that is signed in another way.
fn hears_no_token_like(forge: impl Fn(&Value, &Value) -> String) {
    let suite = Suite::new(|_| ());
    suite.provider.claims(|claims| claims["sid"] = json!(SID));
    let mut browser = suite.signs_in();
    let mut parts = (Value::Null, Value::Null);
    let good = logout_token(&suite.provider, |header, claims| parts = (header.clone(), claims.clone()));
    let tell = |token: &str| suite.gateway.place(WIKI).request(&logout_call(token)).status;
    assert_eq!(tell(&forge(&parts.0, &parts.1)), 400);
    assert!(is_signed_in(&mut browser));
    assert_eq!(tell(&good), 200, "the same claims with the signature that was agreed on");
    assert!(!is_signed_in(&mut browser));
}

#[test]
fn conformance_rp_backchannel_rpinitlogout_alg_none() {
    hears_no_token_like(|_, claims| forge::unsigned(&json!({ "alg": "none" }), claims));
}

#[test]
fn conformance_rp_backchannel_rpinitlogout_wrong_alg() {
    // Signed with ES256 by a key that the provider publishes, while RS256 is what was agreed on.
    let suite_key = ScriptedProvider::suite_key("ec-1");
    hears_no_token_like(move |_, claims| {
        let header = json!({ "alg": "ES256", "kid": "ec-1" }).to_string();
        suite_key.sign_parts(header.as_bytes(), claims.to_string().as_bytes()).unwrap()
    });
}
