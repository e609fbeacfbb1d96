//! `portcullis doctor` at a good chain, and at chains with one broken link.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::certified_provider::CertifiedProvider;
use crate::support::gateway::Gateway;
use crate::support::ports;
use crate::support::scripted_provider::{Answer, Call, ScriptedProvider};
use crate::support::upstream::Upstream;

/// What the doctor said.
struct Report {
    status: i32,
    text: String,
    findings: Vec<Value>,
}

fn examine(gateway: &Gateway) -> Report {
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.args(["doctor", "--config"]).arg(gateway.config_file()).args(more);
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (status, lines) = run(&["--json"]);
    let findings = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (in_words, text) = run(&[]);
    assert_eq!(status, in_words, "{text}");
    Report { status, text, findings }
}

impl Report {
    /// Says that there is such a finding.
    fn expect(&self, level: &str, subject: &str, piece: &str) {
        let fits = |finding: &&Value| {
            finding["level"] == level
                && finding["subject"].as_str().unwrap().starts_with(subject)
                && finding.to_string().contains(piece)
        };
        assert!(
            self.findings.iter().any(|finding| fits(&finding)),
            "{level} {subject} {piece}\n{}",
            self.text
        );
    }

    fn failures(&self) -> Vec<&Value> {
        self.findings.iter().filter(|finding| finding["level"] == "failure").collect()
    }
}

#[test]
fn a_good_chain_has_no_failure_and_tells_what_to_register() {
    let provider = CertifiedProvider::builder().host("https://localhost").start();
    let upstream = Upstream::start();
    let gateway = Gateway::empty()
        .provider(provider.entry())
        .route(&format!("host = \"localhost\"\nupstream = \"{}\"", upstream.url()))
        .prepare();
    let report = examine(&gateway);
    assert_eq!(report.status, 0, "{}", report.text);
    assert_eq!(report.failures(), Vec::<&Value>::new());
    let main = "provider main";
    for piece in
        ["of this very issuer", "PKCE with S256", "takes this client", "keys that can be used", "agree"]
    {
        report.expect("ok", main, piece);
    }
    report.expect("note", main, "redirect URI: https://localhost/oauth2/callback");
    report.expect("note", main, "post-logout redirect URI: https://localhost/oauth2/signed_out");
    report.expect("note", main, "back-channel logout URI: https://localhost/oauth2/backchannel_logout");
    report.expect("ok", "host localhost", "__Host-");
    report.expect("note", "host localhost", "load balancer");
    report.expect("ok", "application http://", "answers");
    report.expect("note", "sessions", "made at the first start");
    assert!(!gateway.data_dir().exists(), "nothing was made");
}

#[test]
fn a_certified_provider_that_refuses_the_client_is_told_from_one_that_refuses_the_code() {
    let provider = CertifiedProvider::builder().host("https://localhost").start();
    let upstream = Upstream::start();
    for method in ["client_secret_basic", "client_secret_post"] {
        let mut entry = provider.entry_for(method);
        entry.client_secret = Some("not the secret".into());
        let gateway = Gateway::in_front_of(&upstream).provider(entry).prepare();
        let report = examine(&gateway);
        assert_eq!(report.status, 1, "{}", report.text);
        report.expect(
            "failure",
            "provider main",
            "refuses this client at its token endpoint (invalid_client)",
        );
        assert!(!report.text.contains("not the secret"), "{}", report.text);
    }
}

/// Something in the chain that is broken, and what has to be said of it.
type Row = (&'static str, fn(&ScriptedProvider), &'static str);

#[test]
fn each_broken_link_of_a_provider_is_named_with_what_to_change() {
    fn alter(provider: &ScriptedProvider, member: &'static str, value: Value) {
        provider.alter_discovery(move |document| document[member] = value.clone());
    }
    fn answer(provider: &ScriptedProvider, call: Call, change: fn(&mut Answer)) {
        provider.alter_answer(call, change);
    }
    let rows: &[Row] = &[
        (
            "another issuer",
            |op| alter(op, "issuer", json!("https://op.test/")),
            "set `issuer = \\\"https://op.test/\\\"`",
        ),
        (
            "no S256",
            |op| alter(op, "code_challenge_methods_supported", json!(["plain"])),
            "switch PKCE with S256 on",
        ),
        (
            "other algorithms",
            |op| alter(op, "id_token_signing_alg_values_supported", json!(["none", "HS256"])),
            "it lists none, HS256",
        ),
        ("no keys", |op| op.alter_keys(|keys| keys["keys"] = json!([])), "publishes no key for ES256"),
        (
            "no key set",
            |op| answer(op, Call::Keys, |answer| answer.status = 500),
            "jwks: the provider answered 500",
        ),
        ("a redirect", |op| answer(op, Call::Discovery, |answer| answer.status = 301), "is `issuer` spelled"),
        (
            "a page",
            |op| answer(op, Call::Discovery, |answer| answer.body = b"<html>".to_vec()),
            "discovery: not a JSON object",
        ),
        (
            "a clock",
            |op| {
                answer(op, Call::Discovery, |answer| {
                    answer.fields.push(("Date".into(), "Tue, 14 Nov 2023 22:13:20 GMT".into()));
                });
            },
            "set both clocks by NTP",
        ),
        (
            "a token endpoint that is down",
            |op| answer(op, Call::Token, |answer| answer.status = 503),
            "answered 503",
        ),
    ];
    let provider = ScriptedProvider::start();
    let upstream = Upstream::start();
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).prepare();
    for (name, break_it, piece) in rows {
        provider.behave();
        break_it(&provider);
        let report = examine(&gateway);
        assert_eq!(report.status, 1, "{name}\n{}", report.text);
        report.expect("failure", "provider main", piece);
        assert_eq!(report.failures().len(), 1, "{name}\n{}", report.text);
    }
}

#[test]
fn what_is_asked_of_a_provider_that_does_not_list_it_is_warned_of() {
    let (provider, upstream) = (ScriptedProvider::start(), Upstream::start());
    let mut entry = provider.entry();
    entry.more.push_str("response_mode = \"form_post\"\n");
    let gateway = Gateway::in_front_of(&upstream)
        .path("/step/", &upstream, "require = { acr = [\"urn:mfa\", \"phr\"] }")
        .provider(entry)
        .prepare();
    let warned = |acr: &'static str, mode: &'static str| {
        provider.alter_discovery(move |document| {
            document["acr_values_supported"] = json!(["pwd", acr]);
            document["response_modes_supported"] = json!(["query", mode]);
        });
        let report = examine(&gateway);
        ["lists no acr of urn:mfa, phr", "does not list the response mode"]
            .map(|text| report.text.contains(text))
    };
    assert_eq!(warned("x", "fragment"), [true, true]);
    assert_eq!(warned("phr", "form_post"), [false, false]);
}

#[test]
fn what_is_down_is_told_and_the_rest_is_examined_all_the_same() {
    let mut provider = ScriptedProvider::start();
    provider.stop();
    let gateway = Gateway::empty()
        .provider(provider.entry())
        .route(&format!("host = \"localhost\"\nupstream = \"http://127.0.0.1:{}\"", ports::free()))
        .prepare();
    let report = examine(&gateway);
    assert_eq!(report.status, 1, "{}", report.text);
    report.expect("failure", "provider main", "is the provider running");
    report.expect("failure", "application http://127.0.0.1", "does not answer");
    report.expect("note", "provider main", "redirect URI");
}

#[test]
fn it_runs_beside_the_gateway_and_ends_no_session() {
    let provider = ScriptedProvider::start();
    let upstream = Upstream::start();
    let mut gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    let report = examine(&gateway);
    report.expect("ok", "sessions", "which a running gateway holds open");
    assert_eq!(report.failures(), Vec::<&Value>::new(), "{}", report.text);
    gateway.terminate_cleanly();
    examine(&gateway).expect("ok", "sessions", "can be read again");
    gateway.restart();
}

#[test]
fn a_configuration_that_cannot_be_used_ends_with_78_and_all_its_problems() {
    let upstream = Upstream::start();
    let gateway = Gateway::in_front_of(&upstream).top("colour = \"red\"\n").prepare();
    let report = examine(&gateway);
    assert_eq!(report.status, 78, "{}", report.text);
    report.expect("unusable", "", "colour");
    report.expect("unusable", "", "a [[provider]] is needed");
}
