//! Tokens and answers that a provider, or somebody in its place, should never have sent: the attack cases
//! TK-105 to TK-138, each through the whole gateway.

use std::io::Write as _;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use portcullis::token::Algorithm;
use portcullis::token::sign::SigningKey;
use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::client::Request;
use crate::support::forge;
use crate::support::gateway::{Gateway, WIKI};
use crate::support::scripted_provider::{Answer, Call, Pace, ScriptedProvider};
use crate::support::upstream::{Echo, Upstream};

const PAGE: &str = "https://wiki.test/page";

/// What is changed in a message.
type Change = fn(&mut Value);
type ChangeAnswer = Box<dyn FnMut(&mut Answer) + Send>;

/// A provider, an application, and the gateway between them; many sign-ins, one after another.
struct Bench {
    provider: ScriptedProvider,
    upstream: Upstream,
    gateway: Gateway,
}

impl Bench {
    /// RS256 is agreed on; keys of other algorithms are published beside it.
    fn rsa() -> Self {
        Self::of(ScriptedProvider::start_like_the_suite(), "")
    }

    /// ES256 is agreed on.
    fn ec() -> Self {
        Self::of(ScriptedProvider::start(), "")
    }

    fn of(provider: ScriptedProvider, lines: &str) -> Self {
        let upstream = Upstream::start();
        let mut entry = provider.entry();
        entry.more.push_str(lines);
        let gateway = Gateway::in_front_of(&upstream)
            .path("/admin", &upstream, "require = { groups = [\"staff\"] }")
            .provider(entry)
            .start();
        Self { provider, upstream, gateway }
    }

    /// One sign-in ends with a refusal for this reason, told in the log. Afterwards the provider behaves.
    fn refuses(&self, name: &str, why: &str) {
        self.ends(name, 400, "login_failed", why);
    }

    fn ends(&self, name: &str, status: u16, code: &str, why: &str) {
        let (tokens, hits) = (self.provider.calls(Call::Token), self.upstream.hits());
        let mut browser = Browser::new(&self.gateway);
        let page = browser.open(PAGE);
        let html = page.html();
        assert!(page.status() == status && html.contains(code), "{name}: {} {html}", page.status());
        assert_eq!(browser.jar.get(WIKI, "__Host-portcullis"), None, "{name}: no session");
        assert_eq!(self.upstream.hits(), hits, "{name}: the application hears nothing");
        assert_eq!(self.provider.calls(Call::Token), tokens + 1, "{name}: one token request");
        let (_, id) = html.split_once("Request id</dt><dd>").expect("the page tells the request id");
        let (id, _) = id.split_once('<').unwrap();
        let line = self.gateway.wait_for_log(&[id, "sign_in_failed"]);
        assert!(line.contains(why), "{name}: {line}");
        self.provider.behave();
    }

    /// One sign-in succeeds.
    fn accepts(&self, name: &str) -> Browser {
        let mut browser = Browser::new(&self.gateway);
        let page = browser.open(PAGE);
        assert_eq!(page.status(), 200, "{name}: {}", page.html());
        self.provider.behave();
        browser
    }

    /// Each row's ID token has one claim that is wrong (`None`: missing); it is refused with these words.
    fn refuses_claims(&self, rows: &[(&str, &'static str, Option<Value>, &str)]) {
        for (name, claim, value, why) in rows {
            self.set(claim, value.clone());
            self.refuses(name, why);
        }
    }

    fn set(&self, claim: &'static str, value: Option<Value>) {
        self.provider.alter_claims(move |claims| {
            let claims = claims.as_object_mut().unwrap();
            match &value {
                Some(value) => claims.insert(claim.to_owned(), value.clone()),
                None => claims.remove(claim),
            };
        });
    }

    /// ID tokens are forged like this.
    fn forge(&self, forge: impl Fn(&Value, &Value) -> String + Send + 'static) {
        self.provider.sign_with(forge);
    }
}

/// Seconds since 1970, more or fewer.
#[expect(clippy::disallowed_methods, reason = "the gateway under test reads the machine's clock too")]
fn now(offset: i64) -> Value {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    json!(now.checked_add_signed(offset).unwrap())
}

fn header(alg: &str) -> Value {
    json!({ "alg": alg, "kid": "rsa-1" })
}

#[test]
fn tk_105_a_token_without_a_signature_signs_nobody_in() {
    let bench = Bench::rsa();
    for alg in ["none", "None", "NONE", "nOnE", "RS256"] {
        bench.forge(move |_, claims| forge::unsigned(&header(alg), claims));
        bench.refuses(alg, "the token's signature is not base64url");
        // The same with something in its place.
        bench.forge(move |_, claims| format!("{}AAAA", forge::unsigned(&header(alg), claims)));
        bench.refuses(alg, if alg == "RS256" { "the signature is wrong" } else { "is not allowed" });
    }
    bench.forge(|_, claims| forge::signing_input(&header("RS256"), claims));
    bench.refuses("two parts", "does not have three parts");
}

#[test]
fn tk_106_a_public_key_or_the_clients_secret_is_never_a_mac_key() {
    let bench = Bench::rsa();
    let jwk = bench.provider.public_jwk();
    let pem = forge::public_pem(&jwk);
    let secrets = [
        ("PEM", pem.clone().into_bytes()),
        ("PEM with a final newline", format!("{pem}\n").into_bytes()),
        ("DER", forge::public_der(&jwk)),
        ("JWK", jwk.to_string().into_bytes()),
        ("the modulus", URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap()),
        ("the client's secret", bench.provider.client_secret().as_bytes().to_vec()),
        ("nothing", Vec::new()),
    ];
    for (name, secret) in secrets {
        let again = secret.clone();
        bench.forge(move |_, claims| forge::mac(&header("HS256"), claims, &secret));
        bench.refuses(name, "algorithm \\\"HS256\\\" is not allowed");
        bench.forge(move |_, claims| forge::mac(&header("RS256"), claims, &again));
        bench.refuses(name, "the signature is wrong");
    }
}

#[test]
fn tk_107_another_key_or_a_changed_bit_signs_nobody_in() {
    let bench = Bench::rsa();
    let stranger = SigningKey::generate(Algorithm::RS256, Some("rsa-1")).unwrap();
    bench.forge(move |header, claims| {
        stranger.sign_parts(header.to_string().as_bytes(), claims.to_string().as_bytes()).unwrap()
    });
    bench.refuses("an attacker's key under the published name", "the signature is wrong");

    for (kid, alg, why) in [
        ("rsa-2", "RS256", "the signature is wrong"),
        ("ec-1", "ES256", "is not allowed"),
        ("ed-1", "EdDSA", "is not allowed"),
        ("ec-1", "RS256", "the signature is wrong"),
    ] {
        let key = ScriptedProvider::suite_key(kid);
        bench.forge(move |_, claims| {
            let header = header(alg).to_string();
            key.sign_parts(header.as_bytes(), claims.to_string().as_bytes()).unwrap()
        });
        bench.refuses(&format!("the published key {kid} as {alg} of rsa-1"), why);
    }

    bench.provider.alter_tokens(|tokens| {
        let token = tokens["id_token"].as_str().unwrap();
        tokens["id_token"] = json!(forge::with_signature(token, |bytes| bytes[100] ^= 1));
    });
    bench.refuses("a bit of the signature", "the signature is wrong");
    bench.provider.alter_tokens(|tokens| {
        let parts: Vec<&str> = tokens["id_token"].as_str().unwrap().split('.').collect();
        let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
        let changed = URL_SAFE_NO_PAD.encode(claims.replace("alice", "alicf"));
        tokens["id_token"] = json!([parts[0], &changed, parts[2]].join("."));
    });
    bench.refuses("a bit of the payload", "the signature is wrong");
    bench.accepts("as it was signed");
}

#[test]
fn tk_108_keys_and_addresses_in_a_tokens_header_count_for_nothing() {
    let (bench, evil) = (Bench::ec(), Upstream::start());
    let stranger = SigningKey::generate(Algorithm::ES256, Some("key-1")).unwrap();
    let jwk = stranger.public_jwk().unwrap();
    let url = format!("{}/keys", evil.url());
    for (name, member, value) in [
        ("the attacker's key", "jwk", jwk.clone()),
        ("the attacker's key set", "jku", json!(url)),
        ("the attacker's certificate", "x5c", json!([STANDARD.encode(forge::public_der(&jwk))])),
        ("where the attacker's certificate is", "x5u", json!(url)),
    ] {
        for (kid, why) in [(Some("key-1"), "the signature is wrong"), (None, "no published key fits")] {
            let (key, value) = (stranger.clone(), value.clone());
            bench.forge(move |_, claims| {
                let mut header = json!({ "alg": "ES256", "typ": "JWT" });
                header[member] = value.clone();
                if let Some(kid) = kid {
                    header["kid"] = json!(kid);
                }
                key.sign_parts(header.to_string().as_bytes(), claims.to_string().as_bytes()).unwrap()
            });
            bench.refuses(name, why);
        }
    }
    assert_eq!(evil.hits(), 0);
}

#[test]
fn tk_109_a_key_published_just_before_signing_costs_one_fetch() {
    let bench = Bench::ec();
    let fetched = bench.provider.calls(Call::Keys);
    bench.provider.rotate_keys_at(Call::Token);
    bench.accepts("a rotation");
    assert_eq!(bench.provider.calls(Call::Keys), fetched + 1);
}

#[test]
fn tk_111_without_a_kid_the_fitting_keys_are_tried_within_a_bound() {
    let nameless = |header: &mut Value| drop(header.as_object_mut().unwrap().remove("kid"));
    for count in [1, 3] {
        let bench = Bench::ec();
        let key = || SigningKey::generate(Algorithm::ES256, None).unwrap();
        bench.provider.use_keys((0..count).map(|_| key()).collect());
        bench.provider.alter_keys(|set| set["keys"].as_array_mut().unwrap().reverse());
        bench.provider.alter_header(nameless);
        bench.accepts(&format!("{count} keys"));
    }
    let (provider, upstream) = (ScriptedProvider::start(), Upstream::start());
    provider.alter_keys(|set| {
        let key = set["keys"][0].clone();
        set["keys"] = (0..500).map(|_| key.clone()).collect();
    });
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    let started = Instant::now();
    let page = Browser::new(&gateway).open(PAGE);
    assert!(page.status() == 503 && page.html().contains("provider_unavailable"), "{}", page.html());
    assert!(started.elapsed() < Duration::from_secs(10), "500 keys: {:?}", started.elapsed());
    gateway.wait_for_log(&["provider_down", "500 keys"]);
}

#[test]
fn tk_113_odd_key_ids_find_nothing_and_break_nothing() {
    let bench = Bench::ec();
    let long = "k".repeat(10 * 1024);
    for (name, kid, why) in [
        ("a path", json!("../../etc/passwd"), "no published key fits"),
        ("a query", json!("' OR 1=1"), "no published key fits"),
        ("10 KB", json!(long), "longer than 256 bytes"),
        ("a number", json!(7), "is not a string"),
        ("null", json!(null), "is not a string"),
        ("nothing in it", json!(""), "no published key fits"),
    ] {
        bench.provider.alter_header(move |header| header["kid"] = kid.clone());
        bench.refuses(name, why);
    }
    bench.accepts("the published one");
}

#[test]
fn tk_114_extensions_that_have_to_be_understood_are_refused() {
    let bench = Bench::ec();
    for (name, member, value, why) in [
        ("a known claim", "crit", json!(["exp"]), "crit"),
        ("an unknown one", "crit", json!(["x"]), "crit"),
        ("an empty list", "crit", json!([]), "crit"),
        ("an unencoded payload", "b64", json!(false), "b64"),
        ("an unencoded payload, as a text", "b64", json!("false"), "b64"),
    ] {
        bench.provider.alter_header(move |header| header[member] = value.clone());
        bench.refuses(name, why);
    }
}

/// The order of P-256's group (FIPS 186-5).
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

#[test]
fn tk_115_signatures_have_one_form_and_keys_their_strength() {
    type Spoil = fn(&mut Vec<u8>);
    let rows: [(&str, Spoil); 6] = [
        ("r = s = 0", |bytes| bytes.fill(0)),
        ("r = n", |bytes| bytes[..32].copy_from_slice(&ORDER)),
        ("s = n", |bytes| bytes[32..].copy_from_slice(&ORDER)),
        ("DER", |bytes| {
            let number = |half: &[u8]| [&[2, 33, 0], half].concat();
            let both = [number(&bytes[..32]), number(&bytes[32..])].concat();
            *bytes = [&[0x30, u8::try_from(both.len()).unwrap()], &both[..]].concat();
        }),
        ("63 bytes", |bytes| bytes.truncate(63)),
        ("65 bytes", |bytes| bytes.push(0)),
    ];
    let bench = Bench::ec();
    for (name, spoil) in rows {
        bench.provider.alter_tokens(move |tokens| {
            let token = tokens["id_token"].as_str().unwrap();
            tokens["id_token"] = json!(forge::with_signature(token, spoil));
        });
        bench.refuses(name, "the signature is wrong");
    }
    // A key of 1024 bits is as good as none.
    let provider = ScriptedProvider::start_like_the_suite();
    provider.alter_keys(|set| {
        for key in set["keys"].as_array_mut().unwrap().iter_mut().filter(|key| key["kty"] == "RSA") {
            let modulus = URL_SAFE_NO_PAD.decode(key["n"].as_str().unwrap()).unwrap();
            key["n"] = json!(URL_SAFE_NO_PAD.encode(&modulus[..128]));
        }
    });
    Bench::of(provider, "").refuses("RSA 1024", "no published key fits");
}

#[test]
fn tk_116_tk_118_tk_120_a_token_of_or_for_somebody_else_is_refused() {
    let bench = Bench::ec();
    let issuer = bench.provider.issuer();
    let (not_issuer, not_us, missing) = ("not the configured issuer", "not this client", "is missing");
    bench.refuses_claims(&[
        ("TK-116 missing", "iss", None, missing),
        ("TK-116 a slash", "iss", Some(json!(format!("{issuer}/"))), not_issuer),
        ("TK-116 upper case", "iss", Some(json!(issuer.to_uppercase())), not_issuer),
        ("TK-116 another provider", "iss", Some(json!("https://op2.test")), not_issuer),
        ("TK-116 another port", "iss", Some(json!("http://localhost:443")), not_issuer),
        ("TK-116 without a port", "iss", Some(json!("http://localhost")), not_issuer),
        ("TK-116 array", "iss", Some(json!([issuer])), "is not a string"),
        ("TK-118 missing", "aud", None, missing),
        ("TK-118 another", "aud", Some(json!("other")), not_us),
        ("TK-118 empty array", "aud", Some(json!([])), not_us),
        ("TK-118 array of another", "aud", Some(json!(["other"])), not_us),
        ("TK-118 part of the name", "aud", Some(json!("wiki2")), not_us),
        ("TK-118 upper case", "aud", Some(json!("WIKI")), not_us),
        ("TK-118 object", "aud", Some(json!({ "wiki": 1 })), "an array of strings"),
        ("TK-118 a number beside", "aud", Some(json!(["wiki", 1])), "an array of strings"),
        ("TK-120 azp of another", "azp", Some(json!("other")), "`azp`"),
        ("TK-120 azp number", "azp", Some(json!(7)), "azp"),
    ]);
    bench.set("aud", Some(json!(["wiki"])));
    bench.accepts("an array of this client alone");
    bench.set("azp", Some(json!("wiki")));
    bench.accepts("this client as the authorized party");
}

#[test]
fn tk_119_an_audience_beside_this_client_has_to_be_trusted() {
    let both = || Some(json!(["wiki", "other"]));
    let with_azp = |azp: Option<&'static str>| {
        move |claims: &mut Value| {
            claims["aud"] = json!(["wiki", "other"]);
            if let Some(azp) = azp {
                claims["azp"] = json!(azp);
            }
        }
    };
    let bench = Bench::ec();
    bench.set("aud", both());
    bench.refuses("without azp", "`aud`");
    for azp in ["other", "wiki"] {
        bench.provider.alter_claims(with_azp(Some(azp)));
        bench.refuses(azp, "`aud`");
    }
    let bench = Bench::of(ScriptedProvider::start(), "trusted_audiences = [\"other\"]\n");
    bench.set("aud", both());
    bench.refuses("trusted, without azp", "`azp` is missing");
    bench.provider.alter_claims(with_azp(Some("other")));
    bench.refuses("trusted, for the other", "`azp`");
    bench.set("aud", Some(json!("other")));
    bench.refuses("trusted, alone", "`aud`");
    bench.provider.alter_claims(with_azp(Some("wiki")));
    bench.accepts("trusted, for this client");
}

#[test]
fn tk_121_tk_122_tk_123_a_token_from_another_time_is_refused() {
    let bench = Bench::ec();
    let number = "is not a non-negative number";
    bench.refuses_claims(&[
        ("TK-121 missing", "exp", None, "is missing"),
        ("TK-121 string", "exp", Some(json!(now(300).to_string())), number),
        ("TK-121 null", "exp", Some(json!(null)), number),
        ("TK-121 negative", "exp", Some(json!(-1)), number),
        ("TK-121 zero", "exp", Some(json!(0)), "has expired"),
        ("TK-121 past beyond the leeway", "exp", Some(now(-31)), "has expired"),
        ("TK-123 iat missing", "iat", None, "is missing"),
        ("TK-123 iat string", "iat", Some(json!(now(0).to_string())), number),
        ("TK-123 iat in an hour", "iat", Some(now(3600)), "lies in the future"),
        ("TK-123 iat a day ago", "iat", Some(now(-86_400)), "too far in the past"),
        ("TK-123 nbf in an hour", "nbf", Some(now(3600)), "lies in the future"),
        ("TK-123 nbf string", "nbf", Some(json!("9999999999")), number),
    ]);
    for (name, value) in [
        ("TK-121 past within the leeway", now(-5)),
        ("TK-121 fractional", json!(now(300).as_f64().unwrap() + 0.5)),
        ("TK-122 1e300", json!(1e300)),
        ("TK-122 2^63", json!(9_223_372_036_854_775_808_u64)),
    ] {
        bench.set("exp", Some(value));
        let mut browser = bench.accepts(name);
        assert_eq!(browser.get(PAGE).status, 200, "{name}: no sign-in over and over");
    }
}

#[test]
fn tk_124_tk_126_tk_127_tk_128_a_token_of_another_sign_in_or_kind_is_refused() {
    let bench = Bench::ec();
    Browser::new(&bench.gateway).open_once(PAGE);
    let mut pending = Browser::new(&bench.gateway);
    let authorize = pending.open_once(PAGE);
    let authorize = authorize.field("location").unwrap().parse::<url::Url>().unwrap();
    let other = authorize.query_pairs().find(|(name, _)| name == "nonce").unwrap().1.into_owned();
    let (nonce, hash) = ("not the one that was sent", "`at_hash` does not match");
    let subject = "empty, not ASCII, or longer";
    bench.refuses_claims(&[
        ("TK-124 missing", "nonce", None, "is missing"),
        ("TK-124 another", "nonce", Some(json!("n-0S6_WzA2Mj")), nonce),
        ("TK-124 array", "nonce", Some(json!(["n"])), "is not a string"),
        ("TK-124 empty", "nonce", Some(json!("")), nonce),
        ("TK-124 of another sign-in under way", "nonce", Some(json!(other)), nonce),
        ("TK-126 of another token", "at_hash", Some(json!("77QmUPtjPfzWtF2AnpK9RQ")), hash),
        ("TK-126 empty", "at_hash", Some(json!("")), hash),
        ("TK-126 number", "at_hash", Some(json!(7)), "is not a string"),
        ("TK-127 missing", "sub", None, "is missing"),
        ("TK-127 empty", "sub", Some(json!("")), subject),
        ("TK-127 300 characters", "sub", Some(json!("s".repeat(300))), subject),
        ("TK-127 object", "sub", Some(json!({})), "is not a string"),
        ("TK-127 null", "sub", Some(json!(null)), "is not a string"),
        (
            "TK-128 a logout event",
            "events",
            Some(json!({ "http://schemas.openid.net/event/backchannel-logout": {} })),
            "it is not an ID token",
        ),
    ]);
    bench.provider.alter_claims(|claims| {
        let swapped: String = claims["nonce"].as_str().unwrap().chars().map(swap_case).collect();
        claims["nonce"] = json!(swapped);
    });
    bench.refuses("TK-124 in the other case", nonce);
    bench.provider.alter_tokens(|tokens| tokens["access_token"] = json!("another access token"));
    bench.refuses("TK-126 the access token was exchanged", hash);
    for typ in ["logout+jwt", "at+jwt", "application/at+jwt", "AT+JWT", "dpop+jwt"] {
        bench.provider.alter_header(move |header| header["typ"] = json!(typ));
        bench.refuses(&format!("TK-128 {typ}"), "which is for something else");
    }
    bench.set("at_hash", None);
    bench.accepts("TK-126 absent");
}

fn swap_case(char: char) -> char {
    if char.is_ascii_lowercase() { char.to_ascii_uppercase() } else { char.to_ascii_lowercase() }
}

#[test]
fn tk_126_a_hash_that_is_not_halved_is_refused() {
    const TOKEN: &str = "an access token that is known before";
    let bench = Bench::ec();
    let hash = Algorithm::ES256.hash(TOKEN.as_bytes());
    for (length, is_right) in [(32, false), (15, false), (17, false), (16, true)] {
        bench.set("at_hash", Some(json!(URL_SAFE_NO_PAD.encode(&hash[..length]))));
        bench.provider.alter_tokens(|tokens| tokens["access_token"] = json!(TOKEN));
        if is_right {
            // Only this provider's userinfo does not know the token.
            bench.refuses("half the hash", "the userinfo endpoint answered 401");
        } else {
            bench.refuses(&format!("{length} bytes of the hash"), "`at_hash` does not match");
        }
    }
}

#[test]
fn tk_130_groups_that_are_missing_mistyped_or_elsewhere_let_nobody_in() {
    let (bench, evil) = (Bench::ec(), Upstream::start());
    let endpoint = format!("{}/claims", evil.url());
    let rows = [
        ("missing", json!({})),
        ("a string", json!({ "groups": "staff" })),
        ("null", json!({ "groups": null })),
        ("an object", json!({ "groups": { "staff": true } })),
        (
            "to be fetched elsewhere",
            json!({
                "_claim_names": { "groups": "s" },
                "_claim_sources": { "s": { "endpoint": endpoint, "access_token": "t" } },
            }),
        ),
    ];
    for (name, groups) in rows {
        bench.provider.alter_userinfo(move |claims| {
            let claims = claims.as_object_mut().unwrap();
            claims.remove("groups");
            claims.extend(groups.as_object().unwrap().clone());
        });
        let mut browser = bench.accepts(name);
        let refused = browser.get("https://wiki.test/admin/users");
        assert_eq!(refused.status, 403, "{name}");
        assert!(refused.text().contains("group_missing"), "{name}: {}", refused.text());
    }
    let mut browser = bench.accepts("a list with the group");
    assert_eq!(browser.get("https://wiki.test/admin/users").status, 200);
    assert_eq!(evil.hits(), 0);
}

#[test]
fn tk_131_a_token_answer_of_another_shape_is_refused() {
    let (bench, evil) = (Bench::ec(), Upstream::start());
    let shapes: [(&str, Change, &str); 7] = [
        ("no ID token", |tokens| drop(tokens.as_object_mut().unwrap().remove("id_token")), "no id_token"),
        (
            "no access token",
            |tokens| drop(tokens.as_object_mut().unwrap().remove("access_token")),
            "no access_token",
        ),
        ("an ID token that is an object", |tokens| tokens["id_token"] = json!({}), "is not a string"),
        ("another type", |tokens| tokens["token_type"] = json!("mac"), "token_type"),
        ("no type", |tokens| drop(tokens.as_object_mut().unwrap().remove("token_type")), "token_type"),
        ("an array", |tokens| *tokens = json!([tokens]), "not a JSON object"),
        ("null", |tokens| *tokens = json!(null), "not a JSON object"),
    ];
    for (name, shape, why) in shapes {
        bench.provider.alter_tokens(shape);
        bench.refuses(name, why);
    }
    bench.provider.alter_tokens(|tokens| tokens["token_type"] = json!("bearer"));
    bench.accepts("bearer in small letters");

    let alter = |change: ChangeAnswer| bench.provider.alter_answer(Call::Token, change);
    alter(Box::new(|answer| answer.fields = vec![("Content-Type".into(), "text/html".into())]));
    bench.refuses("HTML", "not application/json");
    alter(Box::new(|answer| answer.body = b"<html>".to_vec()));
    bench.refuses("HTML that says it were JSON", "not a JSON object");
    alter(Box::new(|answer| answer.body.clear()));
    bench.refuses("nothing", "not a JSON object");
    alter(Box::new(|answer| {
        let twice =
            String::from_utf8(answer.body.clone()).unwrap().replacen('{', "{\"token_type\":\"Bearer\",", 1);
        answer.body = twice.into_bytes();
    }));
    bench.refuses("a member twice", "not a JSON object");
    let url = evil.url();
    alter(Box::new(move |answer| {
        answer.status = 302;
        answer.fields.push(("Location".into(), url.clone()));
    }));
    bench.refuses("a redirect", "an unexpected status");
    alter(Box::new(|answer| answer.status = 500));
    bench.ends("500", 503, "provider_unavailable", "500");
    alter(Box::new(|answer| answer.pace = Pace::CutAfter(40)));
    bench.ends("closed in the middle", 503, "provider_unavailable", "token:");
    assert_eq!(evil.hits(), 0);
}

#[test]
fn tk_131_an_answer_that_is_endless_slow_or_a_bomb_is_bounded() {
    let bench = Bench::of(ScriptedProvider::start(), "timeout = \"2s\"\n");
    bench.accepts("an honest answer");
    let before = bench.gateway.resident_bytes();
    let bomb = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![b' '; 64 << 20]).unwrap();
        encoder.finish().unwrap()
    };
    let rows: [(&str, Call, ChangeAnswer, &str); 4] = [
        ("100 MB of tokens", Call::Token, Box::new(|a| a.body = vec![b' '; 100 << 20]), "larger than"),
        (
            "a bomb",
            Call::Token,
            Box::new(move |answer| {
                answer.fields.push(("Content-Encoding".into(), "gzip".into()));
                answer.body = bomb.clone();
            }),
            "larger than",
        ),
        (
            "a byte a second",
            Call::Token,
            Box::new(|answer| answer.pace = Pace::Trickle(Duration::from_secs(1))),
            "no answer within 2s",
        ),
        ("100 MB of claims", Call::Userinfo, Box::new(|a| a.body = vec![b' '; 100 << 20]), "it is too large"),
    ];
    for (name, call, change, why) in rows {
        bench.provider.alter_answer(call, change);
        let started = Instant::now();
        let is_no_userinfo = why == "it is too large";
        let (status, code) =
            if is_no_userinfo { (400, "login_failed") } else { (503, "provider_unavailable") };
        bench.ends(name, status, code, why);
        assert!(started.elapsed() < Duration::from_secs(15), "{name}: {:?}", started.elapsed());
    }
    let grown = bench.gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "memory grew by {grown} bytes");
    bench.accepts("as if nothing had been");
}

#[test]
fn tk_132_other_encodings_of_a_good_token_are_refused() {
    type Recode = fn(&str) -> String;
    let rows: [(&str, Recode, &str); 7] = [
        ("padding", |token| format!("{token}=="), "not base64url"),
        ("plain base64", |token| token.replace(['-', '_'], "+") + "+/", "not base64url"),
        ("a newline within", |token| token.replacen('.', ".\n", 1), "not printable ASCII"),
        ("four parts", |token| format!("{token}.AAAA"), "three parts"),
        ("a dot at the end", |token| format!("{token}."), "three parts"),
        (
            "1 MB",
            |token| token.replacen('.', &format!(".{}", "A".repeat(1_000_000)), 1),
            "larger than 16 KiB",
        ),
        ("a space before", |token| format!(" {token}"), "not base64url"),
    ];
    let bench = Bench::ec();
    for (name, recode, why) in rows {
        bench.provider.alter_tokens(move |tokens| {
            tokens["id_token"] = json!(recode(tokens["id_token"].as_str().unwrap()));
        });
        bench.refuses(name, why);
    }
    let bench = Bench::rsa();
    for (name, header, payload, why) in [
        ("an array", "{\"alg\":\"RS256\",\"kid\":\"rsa-1\"}", "[]", "payload is not a JSON object"),
        (
            "a mark before",
            "{\"alg\":\"RS256\",\"kid\":\"rsa-1\"}",
            "\u{feff}{}",
            "payload is not a JSON object",
        ),
        (
            "a mark before the header",
            "\u{feff}{\"alg\":\"RS256\",\"kid\":\"rsa-1\"}",
            "{}",
            "header is malformed",
        ),
        ("alg twice", "{\"alg\":\"none\",\"alg\":\"RS256\"}", "{}", "header is malformed"),
    ] {
        let key = ScriptedProvider::suite_key("rsa-1");
        bench.forge(move |_, _| key.sign_parts(header.as_bytes(), payload.as_bytes()).unwrap());
        bench.refuses(name, why);
    }
}

#[test]
fn tk_133_encrypted_tokens_are_refused_before_anything_is_computed() {
    let bench = Bench::ec();
    for (name, header) in [
        ("a JWE", json!({ "alg": "RSA-OAEP", "enc": "A256GCM" })),
        ("an inflating one", json!({ "alg": "dir", "enc": "A256GCM", "zip": "DEF" })),
        (
            "2^31 rounds",
            json!({ "alg": "PBES2-HS256+A128KW", "enc": "A128GCM", "p2c": 2_147_483_648_u64, "p2s": "AAAA" }),
        ),
    ] {
        bench.forge(move |_, _| {
            let body = URL_SAFE_NO_PAD.encode(vec![b'x'; 4096]);
            format!("{}.{body}.AAAA.{body}.AAAA", URL_SAFE_NO_PAD.encode(header.to_string()))
        });
        let started = Instant::now();
        bench.refuses(name, "does not have three parts");
        assert!(started.elapsed() < Duration::from_secs(10), "{name}: {:?}", started.elapsed());
    }
}

#[test]
fn tk_134_userinfo_that_is_not_about_the_subject_or_no_answer_ends_the_sign_in() {
    let rows: [(&str, Change, &str); 5] = [
        ("another subject", |claims| claims["sub"] = json!("mallory"), "another subject"),
        ("another case", |claims| claims["sub"] = json!("Alice"), "another subject"),
        ("no subject", |claims| drop(claims.as_object_mut().unwrap().remove("sub")), "`sub` is missing"),
        ("a number", |claims| claims["sub"] = json!(7), "`sub` is missing or not a string"),
        ("an array", |claims| *claims = json!([claims]), "not a JSON object"),
    ];
    let bench = Bench::ec();
    for (name, change, why) in rows {
        bench.provider.alter_userinfo(change);
        bench.refuses(name, why);
    }
    for status in [401, 403, 500, 204] {
        bench.provider.alter_answer(Call::Userinfo, move |answer| {
            answer.status = status;
            if status == 204 {
                answer.body.clear();
            }
        });
        bench.refuses(&status.to_string(), &status.to_string());
    }
    bench.provider.alter_answer(Call::Userinfo, |answer| {
        answer.fields = vec![("Content-Type".into(), "text/html".into())];
    });
    bench.refuses("HTML", "neither application/json nor application/jwt");
}

#[test]
fn tk_134_userinfo_never_replaces_what_the_id_token_says() {
    let bench = Bench::ec();
    bench.provider.alter_claims(|claims| claims["groups"] = json!(["staff"]));
    bench.provider.alter_userinfo(|claims| {
        let more = json!({
            "iss": "https://evil.test", "exp": 1, "acr": "high", "sid": "another", "groups": ["root"],
        });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    });
    let mut browser = bench.accepts("overrides");
    assert_eq!(Echo::of(&browser.get(PAGE)).one("x-forwarded-groups"), Some("staff"));
    for (sid, status) in [("another", 200), ("provider-session-1", 302)] {
        let token = bench.provider.logout_token(|_, claims| {
            claims["sid"] = json!(sid);
            claims.as_object_mut().unwrap().remove("sub");
        });
        let call = Request::new("POST", "/oauth2/backchannel_logout");
        let heard = bench.gateway.request(&call.with_form(&[("logout_token".into(), token)]));
        assert_eq!(heard.status, 200, "{sid}");
        assert_eq!(browser.get(PAGE).status, status, "the session is that of the ID token's sid: {sid}");
    }
}

#[test]
fn tk_135_userinfo_that_is_signed_wrongly_is_refused() {
    type Spoil = fn(&mut Value, &mut Value);
    let rows: [(&str, Spoil, &str); 7] = [
        ("alg none", |header, _| header["alg"] = json!("none"), "is not allowed"),
        ("another algorithm", |header, _| header["alg"] = json!("RS384"), "is not allowed"),
        ("another client", |_, claims| claims["aud"] = json!("other"), "`aud`"),
        ("no client", |_, claims| drop(claims.as_object_mut().unwrap().remove("aud")), "`aud` is missing"),
        ("another issuer", |_, claims| claims["iss"] = json!("https://op2.test"), "`iss`"),
        ("another subject", |_, claims| claims["sub"] = json!("mallory"), "another subject"),
        ("an access token", |header, _| header["typ"] = json!("at+jwt"), "for something else"),
    ];
    let agreed = "userinfo_signed_response_alg = \"RS256\"\n";
    for lines in ["", agreed] {
        let bench = Bench::of(ScriptedProvider::start_like_the_suite(), lines);
        for (name, spoil, why) in rows {
            bench.provider.sign_userinfo(spoil);
            bench.refuses(name, why);
        }
        bench.provider.sign_userinfo(|_, _| ());
        bench.provider.alter_answer(Call::Userinfo, |answer| {
            let token = String::from_utf8(answer.body.clone()).unwrap();
            answer.body = forge::with_signature(&token, |bytes| bytes[9] ^= 1).into_bytes();
        });
        bench.refuses("a flipped bit", "the signature is wrong");
        bench.provider.sign_userinfo(|_, _| ());
        bench.accepts("signed as agreed");
    }
    let bench = Bench::of(ScriptedProvider::start_like_the_suite(), agreed);
    bench.refuses("plain, though signing is registered", "is not signed");
    let bench = Bench::of(ScriptedProvider::start_like_the_suite(), &agreed.replace("RS256", "ES256"));
    bench.provider.sign_userinfo(|_, _| ());
    bench.refuses("the algorithm of ID tokens where another was agreed on", "is not allowed");
}

#[test]
fn tk_137_id_and_secret_arrive_whatever_stands_in_them() {
    let bench = Bench::rsa();
    bench.accepts("the provider compares them");
    let shown = bench.provider.last(Call::Token).head.one("authorization").unwrap().to_owned();
    let pair = STANDARD.decode(shown.strip_prefix("Basic ").unwrap()).unwrap();
    let (id, secret) = std::str::from_utf8(&pair).unwrap().split_once(':').unwrap();
    let decode = |text: &str| {
        let form = format!("x={text}");
        let (_, value) = url::form_urlencoded::parse(form.as_bytes()).next().unwrap();
        value.into_owned()
    };
    let entry = bench.provider.entry();
    assert_eq!((decode(id), Some(decode(secret))), (entry.client_id.clone(), entry.client_secret.clone()));
    assert!(
        entry.client_id.contains(':') && entry.client_secret.unwrap().contains([':', '%', '+', ' ', 'é'])
    );
}

#[test]
fn tk_138_metadata_of_an_issuer_with_another_slash_is_not_used() {
    for (name, change) in [("a slash more", "/"), ("another case", "LOCALHOST")] {
        let (provider, upstream) = (ScriptedProvider::start(), Upstream::start());
        provider.alter_discovery(move |document| {
            let issuer = document["issuer"].as_str().unwrap().to_owned();
            let wrong = if change == "/" { issuer + "/" } else { issuer.replace("localhost", change) };
            document["issuer"] = json!(wrong);
        });
        let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
        let page = Browser::new(&gateway).open(PAGE);
        assert!(page.status() == 503 && page.html().contains("provider_unavailable"), "{name}");
        assert_eq!(provider.calls(Call::Authorize), 0, "{name}");
        gateway.wait_for_log(&["provider_down", "issuer"]);
    }
}

/// Answers that are none, for whoever asks: status, fields, body or pace of a good one changed.
fn broken_answers(evil: &Upstream) -> Vec<(&'static str, ChangeAnswer)> {
    let url = evil.url();
    vec![
        (
            "a redirect",
            Box::new(move |answer| {
                answer.status = 302;
                answer.fields.push(("Location".into(), url.clone()));
            }),
        ),
        ("HTML", Box::new(|answer| answer.fields = vec![("Content-Type".into(), "text/html".into())])),
        ("no type", Box::new(|answer| answer.fields.clear())),
        ("nothing", Box::new(|answer| answer.body.clear())),
        ("an array", Box::new(|answer| answer.body = b"[]".to_vec())),
        ("null", Box::new(|answer| answer.body = b"null".to_vec())),
        (
            "a member twice",
            Box::new(|answer| answer.body = br#"{"issuer":1,"issuer":2,"keys":[],"keys":[]}"#.to_vec()),
        ),
        ("100 MB", Box::new(|answer| answer.body = vec![b' '; 100 << 20])),
        ("deep", Box::new(|answer| answer.body = format!("{{\"keys\":{}", "[".repeat(100_000)).into_bytes())),
        ("a byte a second", Box::new(|answer| answer.pace = Pace::Trickle(Duration::from_secs(1)))),
        ("closed in the middle", Box::new(|answer| answer.pace = Pace::CutAfter(30))),
        ("404", Box::new(|answer| answer.status = 404)),
        ("500", Box::new(|answer| answer.status = 500)),
    ]
}

#[test]
fn tk_138_discovery_and_keys_of_another_shape_are_not_used() {
    for call in [Call::Discovery, Call::Keys] {
        let (provider, upstream, evil) = (ScriptedProvider::start(), Upstream::start(), Upstream::start());
        provider.alter_answer(call, |answer| answer.status = 503);
        let mut entry = provider.entry();
        entry.more.push_str("timeout = \"1s\"\n");
        let gateway = Gateway::in_front_of(&upstream).provider(entry).start();
        for (name, change) in broken_answers(&evil) {
            provider.alter_answer(call, change);
            let started = Instant::now();
            let page = Browser::new(&gateway).open(PAGE);
            let told = (page.status(), page.html().contains("provider_unavailable"));
            assert_eq!(told, (503, true), "{call:?}, {name}: {}", page.html());
            assert!(started.elapsed() < Duration::from_secs(10), "{call:?}, {name}: {:?}", started.elapsed());
        }
        assert_eq!((provider.calls(Call::Authorize), evil.hits()), (0, 0), "{call:?}");
        provider.behave();
        assert_eq!(Browser::new(&gateway).open(PAGE).status(), 200, "{call:?}: as soon as it is right");
    }
}

#[test]
fn tk_138_what_was_good_stays_when_keys_can_not_be_had() {
    let bench = Bench::of(ScriptedProvider::start(), "timeout = \"1s\"\n");
    let evil = Upstream::start();
    bench.accepts("with good keys");
    for (name, change) in broken_answers(&evil).into_iter().take(3) {
        // An unknown key makes the gateway ask for newer ones; there are none to be had.
        bench.provider.alter_answer(Call::Keys, change);
        bench.provider.alter_header(move |header| header["kid"] = json!(format!("unknown to {name}")));
        bench.ends(name, 503, "provider_unavailable", "jwks");
        bench.accepts("the published key is known still");
    }
    assert_eq!(evil.hits(), 0);
}

#[test]
fn tk_130_claims_without_end_are_bounded() {
    let bench = Bench::ec();
    bench.provider.alter_userinfo(|claims| claims["note"] = json!("x".repeat(900_000)));
    bench.refuses("more than a session may hold", "too large to be kept");
    let long = json!("x".repeat(400_000));
    let many: Vec<String> = (0..20_000).map(|number| format!("group-{number}")).collect();
    for (name, claim, value, admin) in [
        ("a long claim", "note", long.clone(), 200),
        ("a long address", "email", long, 200),
        ("many groups, but not that one", "groups", json!(many), 403),
    ] {
        bench.provider.alter_userinfo(move |claims| claims[claim] = value.clone());
        let mut browser = bench.accepts(name);
        let echo = Echo::of(&browser.get(PAGE));
        let sent: usize = echo.fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(sent < 10 * 1024, "{name}: {sent} bytes of fields");
        assert_eq!(echo.one("x-forwarded-user"), Some("alice"), "{name}");
        assert_eq!(browser.get("https://wiki.test/admin/users").status, admin, "{name}");
    }
}
