//! Sign-outs that somebody tampers with, and logout tokens that should never have been sent: the attack cases
//! LO-169 to LO-192, each through the whole gateway.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use url::Url;

use crate::support::browser::Browser;
use crate::support::client::{Request, Response};
use crate::support::forge;
use crate::support::gateway::{Gateway, WIKI};
use crate::support::scripted_provider::{Answer, Call, Pace, ScriptedProvider};
use crate::support::upstream::Upstream;
use crate::support::wait_for;

const PAGE: &str = "https://wiki.test/page";
const SIGN_OUT: &str = "https://wiki.test/oauth2/sign_out";
const SIGNED_OUT: &str = "https://wiki.test/oauth2/signed_out";
const SESSION: &str = "__Host-portcullis";

/// What is changed in an answer of the provider.
type ChangeAnswer = fn(&mut Answer);

struct Scene {
    provider: ScriptedProvider,
    gateway: Gateway,
    _upstream: Upstream,
}

impl Scene {
    fn new(provider: ScriptedProvider) -> Self {
        let upstream = Upstream::start();
        let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
        Self { provider, gateway, _upstream: upstream }
    }

    fn signed_in(&self) -> Browser {
        let mut browser = Browser::new(&self.gateway);
        assert_eq!(browser.open(PAGE).status(), 200);
        browser
    }

    fn tell(&self, token: &str) -> Response {
        let form = [("logout_token".to_owned(), token.to_owned())];
        let call = Request::new("POST", "/oauth2/backchannel_logout");
        let answer = self.gateway.request(&call.with_form(&form));
        assert_eq!(answer.field("cache-control"), Some("no-store"));
        answer
    }
}

fn is_signed_in(browser: &Browser) -> bool {
    browser.clone().get(PAGE).status == 200
}

fn location(response: &Response) -> Url {
    let location = response.field("location").unwrap_or_else(|| panic!("no redirect: {}", response.text()));
    Url::parse(SIGN_OUT).unwrap().join(location).unwrap()
}

fn parameter(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

#[test]
fn lo_169_another_site_signs_nobody_out() {
    let scene = Scene::new(ScriptedProvider::start());
    let browser = scene.signed_in();
    let session = browser.jar.get(WIKI, SESSION).unwrap();
    let cookie = format!("{}={}", session.name, session.value);
    let get = || Request::get("/oauth2/sign_out").with("Cookie", &cookie);
    let post = || Request::new("POST", "/oauth2/sign_out").with("Cookie", &cookie).with_body(b"");
    let rows = [
        ("a link", get().with("Sec-Fetch-Site", "cross-site").with("Sec-Fetch-Mode", "navigate")),
        (
            "a link of a sister site",
            get().with("Sec-Fetch-Site", "same-site").with("Sec-Fetch-Mode", "navigate"),
        ),
        (
            "an image",
            get()
                .with("Sec-Fetch-Site", "cross-site")
                .with("Sec-Fetch-Mode", "no-cors")
                .with("Sec-Fetch-Dest", "image"),
        ),
        ("a form", post().with("Sec-Fetch-Site", "cross-site").with("Origin", "https://evil.test")),
        ("a form in an old browser", post().with("Origin", "https://evil.test")),
        ("a form without an origin", post().with("Origin", "null")),
        ("a form that says nothing", post()),
        (
            "an honest origin from elsewhere",
            post().with("Sec-Fetch-Site", "cross-site").with("Origin", "https://wiki.test"),
        ),
    ];
    for (name, request) in rows {
        let refused = scene.gateway.request(&request);
        assert_eq!(refused.status, 403, "{name}");
        assert_eq!(refused.head.all("set-cookie"), Vec::<&str>::new(), "{name}");
        assert!(is_signed_in(&browser), "{name}");
    }
    assert_eq!(scene.provider.calls(Call::Revocation), 0);
    assert_eq!(scene.gateway.request(&post().with("Origin", "https://wiki.test")).status, 302);
    assert!(!is_signed_in(&browser));
}

#[test]
fn lo_170_a_sign_out_ends_the_session_and_goes_on_to_the_provider() {
    let scene = Scene::new(ScriptedProvider::start());
    let mut browser = scene.signed_in();
    let thief = browser.clone();
    let redirect = browser.post(SIGN_OUT, PAGE);
    assert!(!is_signed_in(&thief), "the session is gone before the provider is asked");
    assert_eq!(redirect.field("cache-control"), Some("no-store"));
    assert_eq!(redirect.field("referrer-policy"), Some("no-referrer"));
    let url = location(&redirect);
    assert!(url.as_str().starts_with(&format!("{}/end_session?", scene.provider.issuer())), "{url}");
    let id_token = scene.provider.issued().into_iter().rfind(|issued| issued.split('.').count() == 3);
    assert_eq!(parameter(&url, "id_token_hint"), id_token);
    assert_eq!(parameter(&url, "client_id").as_deref(), Some("wiki"));
    assert_eq!(parameter(&url, "post_logout_redirect_uri").as_deref(), Some(SIGNED_OUT));
    let state = parameter(&url, "state").expect("a state");
    assert!(state.len() >= 22);
    let mut other = scene.signed_in();
    assert_ne!(parameter(&location(&other.post(SIGN_OUT, PAGE)), "state"), Some(state), "each its own");
}

#[test]
fn lo_171_every_cookie_really_disappears() {
    let scene = Scene::new(ScriptedProvider::start());
    let mut browser = scene.signed_in();
    for tab in ["one", "two"] {
        // Sign-ins that were begun and never ended.
        browser.open_once(&format!("https://wiki.test/oauth2/start?rd=/{tab}"));
    }
    assert_eq!(browser.jar.of(WIKI).len(), 4, "the session, two attempts, the count of round trips");
    let page = browser.open(PAGE);
    let page = browser.follow(&page, SIGN_OUT);
    assert_eq!((page.status(), page.url.path()), (200, "/oauth2/signed_out"));
    assert_eq!(browser.jar.of(WIKI), Vec::<&_>::new());
    assert_eq!(browser.jar.rejected, Vec::<String>::new(), "cookies that a browser would refuse");
}

#[test]
fn lo_172_a_sign_out_never_leads_where_a_client_says() {
    let scene = Scene::new(ScriptedProvider::start());
    let names = ["rd", "post_logout_redirect_uri", "redirect_uri", "returnTo"];
    for wanted in ["https://evil.test/", "//evil.test", "/\\evil.test", "https:evil.test"] {
        let mut url = Url::parse(SIGN_OUT).unwrap();
        url.query_pairs_mut().extend_pairs(names.map(|name| (name, wanted)));
        for mut browser in [scene.signed_in(), Browser::new(&scene.gateway)] {
            let page = browser.open(url.as_str());
            assert!(page.urls().iter().skip(1).all(|url| !url.contains("evil.test")), "{:?}", page.urls());
            assert_eq!((page.status(), page.url.path()), (200, "/oauth2/signed_out"), "{wanted}");
        }
    }
}

#[test]
fn lo_173_a_return_without_the_right_state_is_a_page_and_nothing_else() {
    let scene = Scene::new(ScriptedProvider::start());
    let mut browser = scene.signed_in();
    let mut way_back = location(&browser.post(SIGN_OUT, PAGE));
    let state = parameter(&way_back, "state").unwrap();
    way_back = Url::parse(&format!("{SIGNED_OUT}?state={state}")).unwrap();
    let honest = browser.clone().open_once(way_back.as_str());
    assert_eq!(honest.status, 200);
    let rows = [
        ("missing", browser.clone(), SIGNED_OUT.to_owned()),
        ("wrong", browser.clone(), format!("{SIGNED_OUT}?state=x{state}&rd=https://evil.test/")),
        ("of another browser", scene.signed_in(), way_back.to_string()),
    ];
    for (name, mut browser, url) in rows {
        let page = browser.open_once(&url);
        assert_eq!((page.status, page.field("location")), (200, None), "{name}");
        assert_eq!(page.text(), honest.text(), "{name}: it looks the same");
    }
    assert_eq!(browser.open_once(way_back.as_str()).text(), honest.text());
    assert_eq!(browser.open_once(way_back.as_str()).text(), honest.text(), "replayed");
    let told = || scene.gateway.log().iter().filter(|line| line.contains("sign_out_state_mismatch")).count();
    wait_for("three mismatches in the log", || (told() == 3).then_some(()));
    let mut signed_in = scene.signed_in();
    signed_in.open_once(way_back.as_str());
    assert!(is_signed_in(&signed_in), "the page ends no session");
}

#[test]
fn lo_174_a_provider_that_does_not_answer_holds_no_sign_out_up() {
    let mut scene = Scene::new(ScriptedProvider::start());
    let rows: [(&str, ChangeAnswer); 3] = [
        ("revocation hangs", |answer| answer.pace = Pace::Trickle(Duration::from_secs(20))),
        ("revocation fails", |answer| answer.status = 500),
        ("revocation is cut", |answer| answer.pace = Pace::CutAfter(1)),
    ];
    for (name, change) in rows {
        let mut browser = scene.signed_in();
        scene.provider.alter_answer(Call::Revocation, change);
        let started = Instant::now();
        assert_eq!(browser.post(SIGN_OUT, PAGE).status, 302, "{name}");
        // Whoever waited would wait ten seconds: as long as a call to the provider may take.
        assert!(started.elapsed() < Duration::from_secs(8), "{name}: {:?}", started.elapsed());
        assert!(!is_signed_in(&browser), "{name}");
        scene.provider.behave();
    }
    let (mut browser, started) = (scene.signed_in(), Instant::now());
    let thief = browser.clone();
    scene.provider.stop();
    assert_eq!(browser.post(SIGN_OUT, PAGE).status, 302, "the provider is gone");
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    assert!(!is_signed_in(&thief));
}

#[test]
fn lo_175_an_expired_id_token_is_a_hint_still() {
    let scene = Scene::new(ScriptedProvider::start());
    // Within the leeway at sign-in, so it is over by the time of the sign-out.
    scene.provider.alter_claims(|claims| {
        claims["exp"] = json!(claims["iat"].as_u64().unwrap() - 20);
        claims["iat"] = json!(claims["iat"].as_u64().unwrap() - 120);
    });
    let mut browser = scene.signed_in();
    let page = browser.open(PAGE);
    let page = browser.follow(&page, SIGN_OUT);
    assert_eq!((page.status(), page.url.path()), (200, "/oauth2/signed_out"));
    assert!(scene.provider.last(Call::EndSession).parameter("id_token_hint").is_some());
    assert!(!is_signed_in(&browser));
}

#[test]
fn lo_177_a_logout_token_that_is_signed_wrongly_ends_nothing() {
    let scene = Scene::new(ScriptedProvider::start_like_the_suite());
    let browser = scene.signed_in();
    let mut parts = (Value::Null, Value::Null);
    let good = scene.provider.logout_token(|header, claims| parts = (header.clone(), claims.clone()));
    let claims = &parts.1;
    let header = |alg: &str, kid: &str| json!({ "alg": alg, "typ": "logout+jwt", "kid": kid });
    let jwk = scene.provider.public_jwk();
    let signed = |kid: &str, alg: &str, name: &str| {
        let header = header(alg, name).to_string();
        let key = ScriptedProvider::suite_key(kid);
        key.sign_parts(header.as_bytes(), claims.to_string().as_bytes()).unwrap()
    };
    let another = ScriptedProvider::start();
    let foreign = another.logout_token(|header, foreign| {
        header["kid"] = json!("rsa-1");
        *foreign = claims.clone();
    });
    let secret = scene.provider.client_secret().as_bytes();
    let rows = [
        ("alg none", forge::unsigned(&header("none", "rsa-1"), claims)),
        ("no signature", forge::unsigned(&header("RS256", "rsa-1"), claims)),
        (
            "the public key as PEM",
            forge::mac(&header("HS256", "rsa-1"), claims, forge::public_pem(&jwk).as_bytes()),
        ),
        ("the public key as DER", forge::mac(&header("HS256", "rsa-1"), claims, &forge::public_der(&jwk))),
        ("the client's secret", forge::mac(&header("HS256", "rsa-1"), claims, secret)),
        ("another published key", signed("rsa-2", "RS256", "rsa-1")),
        ("a published key of another algorithm", signed("ec-1", "ES256", "ec-1")),
        ("another provider's key", foreign),
        ("a flipped bit", forge::with_signature(&good, |bytes| bytes[17] ^= 1)),
    ];
    for (name, token) in rows {
        assert_eq!(scene.tell(&token).status, 400, "{name}");
        assert!(is_signed_in(&browser), "{name}");
    }
    assert_eq!(scene.tell(&good).status, 200);
    assert!(!is_signed_in(&browser));
}

#[test]
fn lo_178_lo_179_lo_181_lo_182_lo_184_a_logout_token_with_a_wrong_claim_ends_nothing() {
    const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
    let scene = Scene::new(ScriptedProvider::start());
    let browser = scene.signed_in();
    let issuer = scene.provider.issuer();
    let now = || {
        let mut now = 0;
        scene.provider.logout_token(|_, claims| now = claims["iat"].as_u64().unwrap());
        now
    };
    let rows: Vec<(&str, &str, Option<Value>)> = vec![
        ("LO-178 missing", "iss", None),
        ("LO-178 another", "iss", Some(json!("https://op2.test"))),
        ("LO-178 a slash", "iss", Some(json!(format!("{issuer}/")))),
        ("LO-178 missing", "aud", None),
        ("LO-178 another", "aud", Some(json!("other"))),
        ("LO-178 array without us", "aud", Some(json!(["other"]))),
        ("LO-178 empty array", "aud", Some(json!([]))),
        ("LO-179 missing", "iat", None),
        ("LO-179 in the future", "iat", Some(json!(now() + 600))),
        ("LO-179 an hour old", "iat", Some(json!(now() - 3600))),
        ("LO-179 over", "exp", Some(json!(now() - 60))),
        ("LO-179 text", "exp", Some(json!("9999999999"))),
        ("LO-179 missing", "jti", None),
        ("LO-179 empty", "jti", Some(json!(""))),
        ("LO-179 number", "jti", Some(json!(7))),
        ("LO-181 missing", "events", None),
        ("LO-181 another", "events", Some(json!({ "http://schemas.openid.net/event/foobar": {} }))),
        ("LO-181 true", "events", Some(json!({ EVENT: true }))),
        ("LO-181 array in it", "events", Some(json!({ EVENT: [] }))),
        ("LO-181 text in it", "events", Some(json!({ EVENT: "{}" }))),
        ("LO-181 null in it", "events", Some(json!({ EVENT: null }))),
        ("LO-181 array", "events", Some(json!([EVENT]))),
        ("LO-182 text", "nonce", Some(json!("n"))),
        ("LO-182 empty", "nonce", Some(json!(""))),
        ("LO-182 null", "nonce", Some(json!(null))),
        ("LO-182 number", "nonce", Some(json!(7))),
        ("LO-184 empty", "sid", Some(json!(""))),
        ("LO-184 number", "sid", Some(json!(7))),
        ("LO-184 empty", "sub", Some(json!(""))),
        ("LO-184 null", "sub", Some(json!(null))),
    ];
    for (name, claim, value) in rows {
        let token = scene.provider.logout_token(|_, claims| {
            let claims = claims.as_object_mut().unwrap();
            match &value {
                Some(value) => drop(claims.insert(claim.to_owned(), value.clone())),
                None => drop(claims.remove(claim)),
            }
        });
        assert_eq!(scene.tell(&token).status, 400, "{name}: {claim}");
        assert!(is_signed_in(&browser), "{name}: {claim}");
    }
    for names in [json!({}), json!({ "sub": "", "sid": "" })] {
        let token = scene.provider.logout_token(|_, claims| {
            let claims = claims.as_object_mut().unwrap();
            claims.remove("sub");
            claims.remove("sid");
            claims.extend(names.as_object().unwrap().clone());
        });
        assert_eq!(scene.tell(&token).status, 400, "LO-184 {names}");
    }
    assert!(is_signed_in(&browser));
    let token = scene.provider.logout_token(|_, claims| {
        claims["events"]["https://example.test/another"] = json!({ "reason": 1 });
        claims["unknown"] = json!([true]);
    });
    assert_eq!(scene.tell(&token).status, 200, "LO-181 more than is needed");
    assert!(!is_signed_in(&browser));
}

#[test]
fn lo_178_an_audience_beside_this_client_has_to_be_trusted() {
    for (lines, status) in [("", 400), ("trusted_audiences = [\"other\"]\n", 200)] {
        let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
        let mut entry = provider.entry();
        entry.more.push_str(lines);
        let gateway = Gateway::in_front_of(&upstream).provider(entry).start();
        let scene = Scene { provider, gateway, _upstream: upstream };
        let browser = scene.signed_in();
        let with = |audiences: Value| scene.provider.logout_token(|_, claims| claims["aud"] = audiences);
        assert_eq!(scene.tell(&with(json!(["other"]))).status, 400, "without this client: {lines}");
        assert_eq!(scene.tell(&with(json!(["other", "wiki"]))).status, status, "{lines}");
        assert_eq!(is_signed_in(&browser), status == 400, "{lines}");
    }
}

#[test]
fn lo_190_a_token_of_another_kind_is_no_logout_token() {
    let scene = Scene::new(ScriptedProvider::start());
    let browser = scene.signed_in();
    for typ in ["at+jwt", "secevent+jwt", "application/at+jwt", "dpop+jwt", "id_token"] {
        let token = scene.provider.logout_token(|header, _| header["typ"] = json!(typ));
        assert_eq!(scene.tell(&token).status, 400, "{typ}");
    }
    let id_token = scene.provider.issued().into_iter().rfind(|issued| issued.split('.').count() == 3);
    assert_eq!(scene.tell(&id_token.unwrap()).status, 400, "an ID token");
    assert!(is_signed_in(&browser));
    for typ in ["JWT", "LOGOUT+JWT", "application/logout+jwt"] {
        let token = scene.provider.logout_token(|header, _| header["typ"] = json!(typ));
        assert_eq!(scene.tell(&token).status, 200, "{typ}");
    }
    assert!(!is_signed_in(&browser));
}

#[test]
fn lo_192_a_provider_signs_out_its_own_people_only() {
    let upstream = Upstream::start();
    let (first, second) = (ScriptedProvider::start(), ScriptedProvider::start());
    let mut entry = second.entry();
    entry.id = "second".into();
    let gateway = Gateway::in_front_of(&upstream).provider(first.entry()).provider(entry).start();
    let scene = Scene { provider: first, gateway, _upstream: upstream };
    let mut browser = Browser::new(&scene.gateway);
    browser.open("https://wiki.test/oauth2/start?provider=main&rd=/page");
    assert!(is_signed_in(&browser));
    // The same `sub` and the same `sid`, at another issuer.
    assert_eq!(scene.tell(&second.logout_token(|_, _| ())).status, 200);
    assert!(is_signed_in(&browser), "(iss, sid) and (iss, sub) are what is compared");
    let issuer = scene.provider.issuer();
    let forged = second.logout_token(|_, claims| claims["iss"] = json!(issuer));
    assert_eq!(scene.tell(&forged).status, 400, "in the name of the first, with the key of the second");
    assert!(is_signed_in(&browser));
    assert_eq!(scene.tell(&scene.provider.logout_token(|_, _| ())).status, 200);
    assert!(!is_signed_in(&browser));
}
