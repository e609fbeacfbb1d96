//! How the client shows who it is: every method at a provider that nobody here wrote, and secrets and keys
//! that change while the gateway runs.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use url::Url;

use crate::support::browser::Browser;
use crate::support::certificate::Authority;
use crate::support::certified_provider::{AWKWARD_SECRET, CLIENT_NAME, CLIENTS, CertifiedProvider};
use crate::support::client::{Place, Request};
use crate::support::gateway::{Gateway, ProviderEntry};
use crate::support::scripted_provider::ScriptedProvider;
use crate::support::upstream::{Echo, Upstream};

const PAGE: &str = "https://wiki.test/page?x=1&y=a%2Bb%20c";

fn key_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/keys").join(name)
}

/// An entry with one more line.
fn with(mut entry: ProviderEntry, line: &str) -> ProviderEntry {
    entry.more.push_str(line);
    entry.more.push('\n');
    entry
}

/// What the gateway publishes.
fn published(gateway: &Gateway) -> Value {
    let answer = gateway.request(&Request::get("/oauth2/jwks"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.field("content-type"), Some("application/json"));
    answer.json()
}

fn signs_in(gateway: &Gateway) -> bool {
    let page = Browser::new(gateway).sign_in(PAGE, "alice");
    page.url.as_str() == PAGE && Echo::of(&page.response).one("x-forwarded-user") == Some("alice")
}

#[test]
fn te_2_each_client_authentication_signs_in_at_a_certified_provider() {
    const FORM: [&str; 4] = ["code", "code_verifier", "grant_type", "redirect_uri"];
    let mut provider = CertifiedProvider::start();
    let assertion: &[&str] = &["client_assertion", "client_assertion_type", "client_id"];
    let key = format!("client_key = {{ file = \"{}\" }}", key_file("p256.sec1.pem").display());
    let shown: &[(&str, &str, &[&str], &str)] = &[
        ("client_secret_basic", "Basic", &[], ""),
        ("client_secret_post", "", &["client_id", "client_secret"], ""),
        ("client_secret_jwt", "", assertion, ""),
        ("private_key_jwt", "", assertion, &key),
        ("none", "", &["client_id"], ""),
    ];
    assert_eq!(shown.iter().map(|row| row.0).collect::<Vec<_>>(), CLIENTS);
    for (method, scheme, parameters, line) in shown {
        let upstream = Upstream::start();
        let gateway =
            Gateway::in_front_of(&upstream).provider(with(provider.entry_for(method), line)).start();
        if *method == "private_key_jwt" {
            provider.change_client(method, &json!({ "jwks": published(&gateway) }));
        }
        let page = Browser::new(&gateway).sign_in(PAGE, "alice");
        assert_eq!(page.url.as_str(), PAGE, "{method}: {}", page.html());
        let echo = Echo::of(&page.response);
        assert_eq!(echo.line, "GET /page?x=1&y=a%2Bb%20c HTTP/1.1", "{method}");
        assert_eq!(echo.one("x-forwarded-user"), Some("alice"), "{method}");
        let mut parameters: Vec<_> = parameters.iter().chain(&FORM).collect();
        parameters.sort_unstable();
        let request = provider.last_token_request();
        assert_eq!(request, json!({ "authorization": scheme, "parameters": parameters }), "{method}");
    }
}

#[test]
fn te_2_a_client_certificate_signs_in_at_a_certified_provider() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let mut provider = CertifiedProvider::builder()
        .tls(&authority.issue(&["localhost"]))
        .client_authority(&authority)
        .start();
    let lines =
        "ca_file = \"ca.pem\"\nclient_certificate = { certificate = \"client.crt\", key = \"client.key\" }";
    let builder =
        Gateway::in_front_of(&upstream).provider(with(provider.entry_for("tls_client_auth"), lines));
    builder.file("ca.pem", &authority.pem());
    let client = authority.issue(&[CLIENT_NAME]);
    builder.file("client.crt", &client.chain);
    builder.file("client.key", &client.key);
    let gateway = builder.start();
    let port = Url::parse(provider.issuer()).unwrap().port().unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let signs_in = || {
        let mut browser = Browser::new(&gateway);
        let tls = Some((authority.client(), "localhost".to_owned()));
        browser.finds(&format!("https://localhost:{port}"), Place { address, tls, from: None });
        let page = browser.sign_in(PAGE, "alice");
        page.url.as_str() == PAGE && Echo::of(&page.response).one("x-forwarded-user") == Some("alice")
    };
    assert!(signs_in());
    let shown = ["client_id", "code", "code_verifier", "grant_type", "redirect_uri"];
    assert_eq!(provider.last_token_request(), json!({ "authorization": "", "parameters": shown }));
    for (name, certificate, wanted) in [
        ("another name", authority.issue(&["somebody.else.test"]), false),
        ("another authority", Authority::new().issue(&[CLIENT_NAME]), false),
        ("a renewed one", authority.issue(&[CLIENT_NAME]), true),
    ] {
        gateway.replace_file("client.crt", &certificate.chain);
        gateway.replace_file("client.key", &certificate.key);
        assert_eq!(signs_in(), wanted, "{name}");
    }
    gateway.replace_file("client.key", &authority.issue(&[CLIENT_NAME]).key);
    assert!(signs_in(), "a key that does not fit leaves the last good pair");
    gateway.wait_for_log(&["client_credential_unreadable", "client.crt"]);
}

#[test]
fn keys_of_every_kind_sign_in_at_a_certified_provider() {
    let mut provider = CertifiedProvider::start();
    for (file, algorithm) in [
        ("rsa.pkcs1.pem", "RS256"),
        ("rsa.jwk.json", "PS256"),
        ("p256.jwk.json", "ES256"),
        ("ed25519.pkcs8.pem", "EdDSA"),
    ] {
        let upstream = Upstream::start();
        let lines = format!(
            "client_key = {{ file = \"{}\" }}\nclient_key_algorithm = \"{algorithm}\"",
            key_file(file).display()
        );
        let entry = with(provider.entry_for("private_key_jwt"), &lines);
        let gateway = Gateway::in_front_of(&upstream).provider(entry).start();
        provider.change_client("private_key_jwt", &json!({ "jwks": published(&gateway) }));
        assert!(signs_in(&gateway), "{file} {algorithm}");
    }
}

#[test]
fn the_public_halves_of_all_keys_are_published_and_nothing_private() {
    let (upstream, one, two) = (Upstream::start(), ScriptedProvider::start(), ScriptedProvider::start());
    let keyed = |entry: ProviderEntry, id: &str, files: &[&str]| {
        let file = |name: &&str| format!("{{ file = \"{}\" }}", key_file(name).display());
        let files: Vec<_> = files.iter().map(file).collect();
        let entry = ProviderEntry { id: id.into(), client_secret: None, ..entry };
        with(entry, &format!("client_key = [{}]", files.join(", ")))
    };
    let gateway = Gateway::in_front_of(&upstream)
        .provider(keyed(one.entry(), "one", &["rsa.pkcs8.pem", "p256.pkcs8.pem"]))
        .provider(keyed(two.entry(), "two", &["p256.jwk.json", "ed25519.pkcs8.pem"]))
        .start();
    let set = published(&gateway);
    let kinds: Vec<_> = set["keys"].as_array().unwrap().iter().map(|key| &key["alg"]).collect();
    assert_eq!(kinds, ["RS256", "ES256", "EdDSA"], "each once, though two providers have one of them");
    for key in set["keys"].as_array().unwrap() {
        let private = ["d", "p", "q", "dp", "dq", "qi", "k"];
        assert!(private.iter().all(|member| key.get(member).is_none()), "{key}");
        assert!(key["kid"].is_string() && key["use"] == "sig", "{key}");
    }
}

#[test]
fn without_a_key_nothing_is_published() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    let answer = gateway.request(&Request::get("/oauth2/jwks"));
    assert_eq!((answer.status, upstream.hits()), (404, 0));
}

#[test]
fn a_secret_that_is_changed_on_disk_is_used_without_a_restart() {
    let mut provider = CertifiedProvider::start();
    let upstream = Upstream::start();
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    assert!(signs_in(&gateway));
    provider.change_client("client_secret_basic", &json!({ "client_secret": "the new one" }));
    assert!(!signs_in(&gateway));
    gateway.replace_file("secret-main", "the new one\n");
    assert!(signs_in(&gateway));
    gateway.wait_for_log(&["client_credential_changed", "secret-main"]);
    gateway.replace_file("secret-main", "\n");
    assert!(signs_in(&gateway), "the last good one is used");
    gateway.wait_for_log(&["client_credential_unreadable", "secret-main", "is empty"]);
    gateway.remove_file("secret-main");
    assert!(signs_in(&gateway));
    let log = gateway.log().join("\n");
    assert!(!log.contains("the new one") && !log.contains(AWKWARD_SECRET));
}

#[test]
fn a_key_that_is_changed_on_disk_is_published_and_used_without_a_restart() {
    let mut provider = CertifiedProvider::start();
    let upstream = Upstream::start();
    let entry = with(provider.entry_for("private_key_jwt"), "client_key = { file = \"client.pem\" }");
    let builder = Gateway::in_front_of(&upstream).provider(entry);
    let read = |name| std::fs::read_to_string(key_file(name)).unwrap();
    builder.file("client.pem", &read("rsa.pkcs8.pem"));
    let gateway = builder.start();
    for file in ["rsa.pkcs8.pem", "p256.pkcs8.pem"] {
        gateway.replace_file("client.pem", &read(file));
        provider.change_client("private_key_jwt", &json!({ "jwks": published(&gateway) }));
        assert!(signs_in(&gateway), "{file}");
    }
    gateway.replace_file("client.pem", "no key");
    assert!(signs_in(&gateway), "the last good one is used");
}

#[test]
fn of_two_secrets_that_overlap_the_one_that_the_provider_knows_is_found_and_remembered() {
    let mut provider = CertifiedProvider::start();
    let upstream = Upstream::start();
    let entry = ProviderEntry { client_secret: None, ..provider.entry() };
    let entry = with(entry, "client_secret = [{ file = \"new\" }, { file = \"old\" }]");
    let builder = Gateway::in_front_of(&upstream).provider(entry);
    builder.file("new", "the new one");
    builder.file("old", AWKWARD_SECRET);
    let gateway = builder.start();
    let token_calls = |provider: &mut CertifiedProvider, wanted: u64, why: &str| {
        let before = provider.calls("token");
        assert!(signs_in(&gateway), "{why}");
        assert_eq!(provider.calls("token") - before, wanted, "{why}");
    };
    token_calls(&mut provider, 2, "the new one is not known yet: the code goes again with the old one");
    token_calls(&mut provider, 1, "the old one is remembered");
    provider.change_client("client_secret_basic", &json!({ "client_secret": "the new one" }));
    token_calls(&mut provider, 2, "the old one is not known any more");
    token_calls(&mut provider, 1, "the new one is remembered");
}
