//! The check, on files that differ from a good one by a few lines.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};
use toml::de::{DeTable, DeValue};

use super::*;
use crate::clock::bucket::Rate;
use crate::config::{EXAMPLE, known_keys};
use crate::gateway::limits::LimitSettings;
use crate::idp::credentials::AssertionAudience;
use crate::oidc::step_up::StepUp;
use crate::policy::Access;
use crate::route::{CountedBy, HostPattern, RouteRate};
use crate::session::RouteLimits;
use crate::store::redis::{Address, Password, RedisSettings, Trust};

const GOOD: &str = r#"
[[listener]]
address = "127.0.0.1:8080"

[[provider]]
id = "main"
issuer = "https://op.example"
client_id = "wiki"
client_secret = { env = "SECRET" }

[[host]]
name = "wiki.example.com"

[session]

[redis]

[identity]

[headers]

[[route]]
host = "wiki.example.com"
upstream = "http://10.0.0.5:3000"

[limits]

[server]

[admin]

[log]
"#;

const DOCS: &str = include_str!("../../../docs/configuration.md");

const KEY_PEM: &str = include_str!("../../../tests/data/keys/p256.pkcs8.pem");

fn stub_secret(reference: &SecretRef) -> Result<Found, String> {
    let name = match reference {
        SecretRef::File(name) | SecretRef::Env(name) => name.as_str(),
    };
    let key = |seed: &str| Key::from_bytes(Sha256::digest(seed).into()).to_text();
    let text = match name {
        "SECRET" | "/run/secrets/oidc_client_secret" | "/run/secrets/redis_password" => {
            Ok(Secret::new("hunter2".to_owned()))
        }
        "LONG" => Ok(Secret::new("h".repeat(32))),
        "LINES" => Ok(Secret::new("hunter2\nhunter3".to_owned())),
        "PEM" | "/run/secrets/oidc_client_key.pem" => Ok(Secret::new(KEY_PEM.to_owned())),
        "KEY" | "/run/secrets/session_key" => Ok(key("one")),
        "KEY2" => Ok(key("two")),
        "KEYS" => Ok(Secret::new(format!("{}\n{}", key("three").expose(), key("one").expose()))),
        "WEAK" => {
            Ok(Secret::new(format!("{}AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE\n", key("four").expose())))
        }
        other => Err(format!("the secret {other} is not there")),
    };
    Ok(Found { text: text?, place: format!("the secret {name}"), file: None })
}

fn stub_key_pair(tls: &TlsSettings) -> Result<(), KeyPairError> {
    match (tls.certificate.to_str(), tls.key.to_str()) {
        (Some("/etc/p/bad.crt"), _) => Err(KeyPairError::Certificate("holds no certificate".to_owned())),
        (_, Some("/etc/p/bad.key")) => Err(KeyPairError::Key("does not fit".to_owned())),
        _ => Ok(()),
    }
}

fn stub_ca_file(path: &Path) -> Result<(), String> {
    if path == Path::new("/etc/p/bad.pem") { Err("holds no certificate".to_owned()) } else { Ok(()) }
}

fn checked(text: &str) -> Result<Settings, Vec<Problem>> {
    let outside = Outside {
        base: Path::new("/etc/p"),
        state_directory: None,
        cores: 4,
        secret: &stub_secret,
        key_pair: &stub_key_pair,
        ca_file: &stub_ca_file,
    };
    check(text, &outside)
}

/// The good file with `lines` behind a section's header (`""`: at the top), in the place of the keys
/// that they set.
fn with(section: &str, lines: &str) -> String {
    let key = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    let set: Vec<_> = lines.lines().filter(|line| line.contains('=')).map(key).collect();
    let mut text = if section.is_empty() { format!("{lines}\n") } else { String::new() };
    let mut here = false;
    for line in GOOD.lines() {
        if line.starts_with('[') {
            here = line == section;
        }
        if !(here && set.contains(&key(line))) {
            text.push_str(line);
            text.push('\n');
        }
        if here && line == section {
            text.push_str(lines);
            text.push('\n');
        }
    }
    text
}

fn settings(section: &str, lines: &str) -> Settings {
    match checked(&with(section, lines)) {
        Ok(settings) => settings,
        Err(problems) => panic!("{section} {lines}: {problems:#?}"),
    }
}

fn problems(section: &str, lines: &str) -> Vec<String> {
    match checked(&with(section, lines)) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn a_good_file_has_the_documented_defaults() {
    let settings = settings("", "");
    assert_eq!(settings.admin, Some(ADMIN_ADDRESS));
    assert_eq!(settings.data_dir, Path::new("/var/lib/portcullis"));
    assert_eq!(settings.store, StoreKind::Disk);
    assert_eq!(settings.gateway.paths.prefix(), "/oauth2");
    assert_eq!(
        settings.gateway.reading.limits,
        Limits { idle_timeout: HOUR, max_lifetime: 12 * HOUR, shortest_idle: HOUR }
    );
    assert_eq!(settings.gateway.per_user, None);
    assert_eq!(settings.server.threads, 4);
    assert!(settings.server.trusted_proxies.is_empty());
    assert_eq!(&*settings.providers[0].callback_path, "callback");
    assert_eq!(settings.hosts[0].public_url.as_str(), "https://wiki.example.com/");
    assert!(settings.log.access);
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
    let route = settings.gateway.routes.iter().next().unwrap();
    assert_eq!(route.rule.access, Access::SignedIn);
    assert_eq!(
        (&*route.name, route.keep_host, route.forward_authorization, route.allow_encoded_slash),
        ("wiki.example.com/", true, true, false)
    );
}

type Case = (&'static str, &'static str, &'static [&'static str]);

/// Each case: a section, lines in it, and how each problem that is told begins.
fn assert_told(cases: &[Case]) {
    let differs = |(section, lines, wanted): &&Case| {
        let found = problems(section, lines);
        let fits = |(found, wanted): (&String, &&str)| found.starts_with(wanted);
        found.len() != wanted.len() || !found.iter().zip(*wanted).all(fits)
    };
    let told = |(section, lines, wanted): &Case| {
        format!("{section} {lines}\n  found {:#?}\n  wanted {wanted:#?}", problems(section, lines))
    };
    let wrong: Vec<_> = cases.iter().filter(differs).map(told).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn wrong_values_of_the_process_and_its_listeners_are_told() {
    assert_told(&[
        ("", "colour = \"red\"", &["colour: unknown key; known here: data_dir, "]),
        ("", "data_dir = \"\"", &["data_dir: \"\" is empty or holds a line break"]),
        ("", "endpoint_prefix = \"/\"", &["endpoint_prefix: \"/\" would leave no path for applications"]),
        ("", "endpoint_prefix = \"oauth2\"", &["endpoint_prefix: \"oauth2\" is not a canonical path"]),
        ("", "endpoint_prefix = 5", &["endpoint_prefix: 5 is not a string"]),
        ("[[listener]]", "address = \"8080\"", &["listener[0].address: \"8080\" is not an address and port"]),
        ("[[listener]]", "addres = \"x\"", &["listener[0].addres: unknown key; did you mean `address`?"]),
        ("[[listener]]", "tls = true", &["listener[0].tls: true is not a table"]),
        ("[[listener]]", "tls = { certificate = \"a\" }", &["listener[0].tls.key: is missing: a PEM file"]),
        (
            "[[listener]]",
            "tls = { certificate = \"bad.crt\", key = \"a.key\" }",
            &["listener[0].tls.certificate: \"bad.crt\" holds no certificate"],
        ),
        (
            "[[listener]]",
            "tls = { certificate = \"a.crt\", key = \"bad.key\" }",
            &["listener[0].tls.key: \"bad.key\" does not fit"],
        ),
        (
            "[server]",
            "trusted_proxies = [\"10.0.0.0/24\", \"0.0.0.0/0\", \"::/0\", \"lb.example.com\"]",
            &[
                "server.trusted_proxies[1]: \"0.0.0.0/0\" would trust everybody: whoever connects could say",
                "server.trusted_proxies[2]: \"::/0\" would trust everybody",
                "server.trusted_proxies[3]: \"lb.example.com\" is not an IP address, or a network such as",
            ],
        ),
        (
            "[server]",
            "trusted_proxies = \"10.0.0.1\"",
            &["server.trusted_proxies: \"10.0.0.1\" is not a list"],
        ),
        (
            "[server]",
            "client_address_header = \"forwarded\"",
            &["server.client_address_header: \"forwarded\" has no effect without server.trusted_proxies"],
        ),
        (
            "[server]",
            "trusted_proxies = [\"10.0.0.1\"]\nclient_address_header = \"x-real-ip\"",
            &["server.client_address_header: \"x-real-ip\" is not one of \"x-forwarded-for\", \"forwarded\""],
        ),
        (
            "[[listener]]",
            "proxy_protocol = true",
            &["listener[0].proxy_protocol: true has nobody to be believed: list the proxies in server"],
        ),
        (
            "[server]",
            "max_connections_per_address = 0",
            &["server.max_connections_per_address: 0 is not between 1 and 1000000"],
        ),
        (
            "[server]",
            "max_requests_per_connection = 0",
            &["server.max_requests_per_connection: 0 is not between 1 and 1000000000"],
        ),
        (
            "[server]",
            "max_request_target_size = \"2MiB\"",
            &["server.max_request_target_size: \"2MiB\" is not between 256 bytes and 1048576 bytes"],
        ),
        (
            "[server]",
            "body_idle_timeout = \"2h\"",
            &["server.body_idle_timeout: \"2h\" is not between 100ms and 1h"],
        ),
        (
            "[server]",
            "min_body_rate = \"1GiB\"",
            &["server.min_body_rate: \"1GiB\" is not between 0 bytes and 1048576 bytes"],
        ),
        ("[server]", "threads = 0", &["server.threads: 0 is not between 1 and 1024"]),
        ("[server]", "threads = -1", &["server.threads: -1 is not a whole number"]),
        (
            "[server]",
            "max_request_headers = 1000",
            &["server.max_request_headers: 1000 is not between 10 and 256"],
        ),
        (
            "[server]",
            "max_request_head_size = \"2MiB\"",
            &["server.max_request_head_size: \"2MiB\" is not between 1024 bytes and 1048576 bytes"],
        ),
        (
            "[admin]",
            "address = \"none\"",
            &["admin.address: \"none\" is not an address and port, or \"off\""],
        ),
        ("[log]", "format = \"xml\"", &["log.format: \"xml\" is not one of \"auto\", \"json\", \"human\""]),
        ("[log]", "level = \"verbose\"", &["log.level: \"verbose\" is not one of \"error\", "]),
    ]);
}

#[test]
fn wrong_values_of_http_2_are_told() {
    assert_told(&[
        ("[server]", "http2_max_streams = 0", &["server.http2_max_streams: 0 is not between 1 and 1000"]),
        (
            "[server]",
            "http2_window = \"1KiB\"",
            &["server.http2_window: \"1KiB\" is not between 65536 bytes and 16777216 bytes"],
        ),
        (
            "[server]",
            "http2 = false\nhttp2_max_resets = 5\nhttp2_window = \"1MiB\"",
            &[
                "server.http2_max_resets: 5 has no effect with server.http2 = false",
                "server.http2_window: \"1MiB\" has no effect with server.http2 = false",
            ],
        ),
    ]);
}

#[test]
fn wrong_values_of_a_provider_are_told() {
    assert_told(&[
        ("[[provider]]", "id = \"Main\"", &["provider[0].id: \"Main\" is not 1 to 32 of a-z, 0-9 and -"]),
        ("[[provider]]", "name = \"\\n\"", &["provider[0].name: \"\\n\" is empty or holds a line break"]),
        (
            "[[provider]]",
            "issuer = \"op.example\"",
            &["provider[0].issuer: \"op.example\" is not an http or https URL"],
        ),
        (
            "[[provider]]",
            "issuer = \"http://op.example\"",
            &[
                "provider[0].issuer: \"http://op.example\" is not an https URL (http is for loopback hosts only)",
            ],
        ),
        (
            "[[provider]]",
            "issuer = \"https://op.example?a\"",
            &["provider[0].issuer: \"https://op.example?a\" has a query"],
        ),
        (
            "[[provider]]",
            "issuer = \"https://me:pw@op.example\"",
            &["provider[0].issuer: \"https://…@op.example\" has a user name or password"],
        ),
        ("[[provider]]", "trusted_audiences = [\"\"]", &["provider[0].trusted_audiences[0]: \"\" is empty"]),
        (
            "[[provider]]",
            "userinfo_signed_response_alg = \"none\"",
            &["provider[0].userinfo_signed_response_alg: \"none\" is not one of \"RS256\", "],
        ),
        (
            "[[provider]]",
            "userinfo = false\nuserinfo_signed_response_alg = \"RS256\"",
            &["provider[0].userinfo_signed_response_alg: \"RS256\" contradicts userinfo = false"],
        ),
        ("[[provider]]", "scopes = \"openid\"", &["provider[0].scopes: \"openid\" is not a list"]),
        ("[[provider]]", "scopes = [\"email\"]", &["provider[0].scopes: does not list \"openid\""]),
        (
            "[[provider]]",
            "scopes = [\"openid\", \"a b\", 5]",
            &["provider[0].scopes[1]: \"a b\" is not one scope", "provider[0].scopes[2]: 5 is not a string"],
        ),
        (
            "[[provider]]",
            "authorization_params = { state = \"x\", prompt = 1 }",
            &[
                "provider[0].authorization_params.state: is set by the gateway itself",
                "provider[0].authorization_params.prompt: 1 is not a string",
            ],
        ),
        (
            "[[provider]]",
            "authorization_params = { max_age = \"60\" }",
            &["provider[0].authorization_params.max_age: would not be checked"],
        ),
        (
            "[[provider]]",
            "response_mode = \"fragment\"",
            &["provider[0].response_mode: \"fragment\" is not one of \"query\", \"form_post\""],
        ),
        ("[[provider]]", "id_token_algorithms = []", &["provider[0].id_token_algorithms: is empty"]),
        (
            "[[provider]]",
            "id_token_algorithms = [\"none\"]",
            &["provider[0].id_token_algorithms[0]: \"none\" is not one of \"RS256\""],
        ),
        (
            "[[provider]]",
            "id_token_algorithms = [\"HS256\"]",
            &["provider[0].id_token_algorithms[0]: \"HS256\" is not one of \"RS256\""],
        ),
        (
            "[[provider]]",
            "pushed_authorization_requests = \"yes\"",
            &["provider[0].pushed_authorization_requests: \"yes\" is not true or false"],
        ),
        ("[[provider]]", "userinfo = \"yes\"", &["provider[0].userinfo: \"yes\" is not true or false"]),
        ("[[provider]]", "leeway = \"2m\"", &["provider[0].leeway: \"2m\" is not between 0s and 1m"]),
        ("[[provider]]", "timeout = \"0s\"", &["provider[0].timeout: \"0s\" is not between 100ms and 1m"]),
        ("[[provider]]", "timeout = 10", &["provider[0].timeout: 10 is not a duration such as \"30s\""]),
        ("[[provider]]", "ca_file = \"bad.pem\"", &["provider[0].ca_file: \"bad.pem\" holds no certificate"]),
    ]);
}

#[test]
fn wrong_values_of_a_client_are_told() {
    assert_told(&[
        (
            "[[provider]]",
            "client_secret = { file = \"nowhere\" }",
            &["provider[0].client_secret: the secret nowhere is not there"],
        ),
        ("[[provider]]", "client_secret = {}", &["provider[0].client_secret: has neither `file` nor `env`"]),
        (
            "[[provider]]",
            "client_secret = { file = \"a\", env = \"b\" }",
            &["provider[0].client_secret: has both `file` and `env`"],
        ),
        (
            "[[provider]]",
            "client_auth = \"basic\"",
            &["provider[0].client_auth: \"basic\" is not one of \"client_secret_basic\", "],
        ),
        (
            "[[provider]]",
            "client_auth = \"none\"",
            &["provider[0].client_auth: \"none\" contradicts client_secret"],
        ),
        ("[[provider]]", "client_secret = []", &["provider[0].client_secret: is empty"]),
        (
            "[[provider]]",
            "client_secret = [{ env = \"SECRET\" }, { env = \"LONG\" }, { env = \"KEY\" }]",
            &["provider[0].client_secret: lists 3; at most 2 are wanted: the new secret and the old one"],
        ),
        (
            "[[provider]]",
            "client_secret = [{ env = \"SECRET\" }, \"hunter2\"]",
            &["provider[0].client_secret[1]: a secret does not belong into this file"],
        ),
        (
            "[[provider]]",
            "client_secret = [{ env = \"SECRET\" }, { env = \"LINES\" }]",
            &["provider[0].client_secret[1]: the secret LINES holds a line break"],
        ),
        (
            "[[provider]]",
            "client_secret = { env = \"SECRET\" }\nclient_auth = \"client_secret_jwt\"",
            &[
                "provider[0].client_secret: the secret SECRET is shorter than 32 bytes, too short to sign with",
            ],
        ),
        (
            "[[provider]]",
            "client_auth = \"private_key_jwt\"",
            &["provider[0].client_auth: \"private_key_jwt\" contradicts client_secret"],
        ),
        (
            "[[provider]]",
            "client_key = { env = \"SECRET\" }",
            &["provider[0].client_key: the secret SECRET holds no private key"],
        ),
        (
            "[[provider]]",
            "client_key = { env = \"PEM\" }\nclient_key_algorithm = \"PS256\"",
            &["provider[0].client_key: the secret PEM holds a key that can't sign with that algorithm"],
        ),
        (
            "[[provider]]",
            "client_key_algorithm = \"HS256\"\nclient_key = { env = \"PEM\" }",
            &["provider[0].client_key_algorithm: \"HS256\" is not one of \"RS256\""],
        ),
        (
            "[[provider]]",
            "client_key_algorithm = \"PS256\"",
            &["provider[0].client_key_algorithm: \"PS256\" has no effect without client_key"],
        ),
        (
            "[[provider]]",
            "client_auth = \"client_secret_basic\"\nclient_assertion_audience = \"token_endpoint\"",
            &[
                "provider[0].client_assertion_audience: \"token_endpoint\" has no effect where nothing is asserted",
            ],
        ),
        (
            "[[provider]]",
            "client_auth = \"tls_client_auth\"\nclient_certificate = { certificate = \"a.crt\", key = \"a.key\" }",
            &["provider[0].client_auth: \"tls_client_auth\" contradicts client_secret"],
        ),
        (
            "[[provider]]",
            "client_certificate = { certificate = \"a.crt\", key = \"bad.key\" }",
            &["provider[0].client_certificate.key: \"bad.key\" does not fit"],
        ),
        (
            "[[provider]]",
            "issuer = \"http://localhost:1\"\nclient_certificate = { certificate = \"a.crt\", key = \"a.key\" }",
            &["provider[0].client_certificate: is never shown, for the issuer is plain http"],
        ),
        (
            "[[provider]]",
            "client_assertion_audience = \"me\"",
            &["provider[0].client_assertion_audience: \"me\" is not one of \"issuer\", \"token_endpoint\""],
        ),
    ]);
}

#[test]
fn a_client_shows_itself_by_what_is_written() {
    let without_secret = |lines: &str| {
        let text = GOOD.replace("client_secret = { env = \"SECRET\" }", lines);
        match checked(&text) {
            Ok(settings) => Ok(settings.providers[0].client.clone()),
            Err(problems) => Err(problems.iter().map(ToString::to_string).collect::<Vec<_>>()),
        }
    };
    let key = without_secret("client_key = [{ env = \"PEM\" }, { env = \"PEM\" }]").unwrap();
    assert_eq!((key.secrets.len(), key.keys.len(), key.method), (0, 2, None));
    let both = "client_secret = [{ env = \"SECRET\" }, { env = \"LONG\" }]\nclient_key = { env = \"PEM\" }\n\
        client_auth = \"client_secret_post\"";
    let both = without_secret(both).unwrap();
    assert_eq!((both.secrets.len(), both.keys.len()), (2, 1), "a key is published before it is used");
    let audience = "client_secret = { env = \"SECRET\" }\nclient_assertion_audience = \"token_endpoint\"";
    assert_eq!(without_secret(audience).unwrap().audience, AssertionAudience::TokenEndpoint);
    for (lines, wanted) in [
        ("client_auth = \"private_key_jwt\"", "\"private_key_jwt\" needs client_key"),
        ("client_auth = \"client_secret_jwt\"", "\"client_secret_jwt\" needs client_secret"),
        ("client_auth = \"tls_client_auth\"", "\"tls_client_auth\" needs client_certificate"),
        (
            "client_auth = \"self_signed_tls_client_auth\"",
            "\"self_signed_tls_client_auth\" needs client_certificate",
        ),
        ("client_auth = \"none\"\nclient_key = { env = \"PEM\" }", "\"none\" contradicts client_key; leave"),
    ] {
        let told = without_secret(lines).unwrap_err();
        assert!(told.len() == 1 && told[0].contains(&format!("client_auth: {wanted}")), "{lines}: {told:?}");
    }
}

#[test]
fn wrong_values_of_a_host_are_told() {
    assert_told(&[
        ("[[host]]", "name = \"*\"", &["host[0].name: \"*\" can't have a public URL"]),
        (
            "[[host]]",
            "name = \"wiki.example.com:80\"",
            &["host[0].name: \"wiki.example.com:80\" is not a host name"],
        ),
        (
            "[[host]]",
            "public_url = \"https://other.example\"",
            &["host[0].public_url: \"https://other.example\" is not a URL of wiki.example.com"],
        ),
        (
            "[[host]]",
            "public_url = \"https://wiki.example.com/x\"",
            &["host[0].public_url: \"https://wiki.example.com/x\" has more than scheme, name and port"],
        ),
        (
            "[[host]]",
            "public_url = \"http://wiki.example.com\"",
            &[
                "host[0].public_url: \"http://wiki.example.com\" is plain http on a host that is not loopback; write https, or danger_insecure_http",
            ],
        ),
        (
            "[[host]]",
            "provider = \"other\"",
            &["host[0].provider: \"other\" is not the id of a [[provider]]"],
        ),
        ("[[host]]", "danger_insecure_http = true", &["host[0].danger_insecure_http: has no effect"]),
    ]);
}

#[test]
fn keys_are_made_by_age_unless_the_operator_has_their_own_or_says_no() {
    let days = |days| Some(days * DAY);
    let cases = [
        ("none of the operator's", "", days(90)),
        ("off", "key_rotation = \"off\"", None),
        ("another age", "key_rotation = \"30d\"", days(30)),
        ("the operator's", "keys = [{ env = \"KEY\" }]", None),
        ("under the operator's", "keys = [{ env = \"KEY\" }]\nkey_rotation = \"30d\"", days(30)),
    ];
    for (name, lines, wanted) in cases {
        let settings = settings("[session]", lines);
        assert_eq!(settings.key_rotation, wanted, "{name}");
        let delay = settings.rotation().delay;
        assert_eq!(delay.is_zero(), settings.keys.is_empty(), "{name}");
    }
}

#[test]
fn a_rate_is_a_number_in_a_span_or_off() {
    let rate = |count, per| Some(Rate { count, per });
    let cases = [
        ("none written", "", LimitSettings::default()),
        (
            "all off",
            "sign_in_starts = \"off\"\nfailed_sign_ins = \"off\"\nfailed_logouts = \"off\"",
            LimitSettings { sign_in_starts: None, failed_sign_ins: None, failed_logouts: None },
        ),
        (
            "each another",
            "sign_in_starts = \"60/1m\"\nfailed_sign_ins = \"1000 / 1s\"\nfailed_logouts = \"1/1h\"",
            LimitSettings {
                sign_in_starts: rate(60, MINUTE),
                failed_sign_ins: rate(1000, SECOND),
                failed_logouts: rate(1, HOUR),
            },
        ),
    ];
    for (name, lines, wanted) in cases {
        assert_eq!(settings("[limits]", lines).gateway.limits, wanted, "{name}");
    }
    let of_route =
        |lines: &str| settings("[[route]]", lines).gateway.routes.iter().next().unwrap().rate_limit;
    let cases = [
        ("", None),
        ("rate_limit = \"off\"", None),
        (
            "rate_limit = \"100/1m\"",
            Some(RouteRate { rate: Rate { count: 100, per: MINUTE }, by: CountedBy::Address }),
        ),
        (
            "rate_limit = \"100/1m\"\nrate_limit_by = \"user\"",
            Some(RouteRate { rate: Rate { count: 100, per: MINUTE }, by: CountedBy::User }),
        ),
    ];
    for (lines, wanted) in cases {
        assert_eq!(of_route(lines), wanted, "{lines}");
    }
    assert_told(&[
        ("[limits]", "sign_in_starts = \"60\"", &["limits.sign_in_starts: \"60\" is not a number in a span"]),
        ("[limits]", "sign_in_starts = 60", &["limits.sign_in_starts: 60 is not"]),
        (
            "[limits]",
            "failed_sign_ins = \"0/1m\"",
            &["limits.failed_sign_ins: \"0/1m\" counts to a number that is not between 1 and 60000"],
        ),
        (
            "[limits]",
            "failed_sign_ins = \"-1/1m\"",
            &["limits.failed_sign_ins: \"-1/1m\" is not a number in a span"],
        ),
        (
            "[limits]",
            "failed_logouts = \"5/2h\"",
            &["limits.failed_logouts: \"5/2h\" counts in a span that is not between 1s and 1h"],
        ),
        (
            "[limits]",
            "failed_logouts = \"1001/1s\"",
            &["limits.failed_logouts: \"1001/1s\" counts to a number that is not between 1 and 1000"],
        ),
        ("[limits]", "failed_logins = \"5/1m\"", &["limits.failed_logins: unknown key"]),
        (
            "[[route]]",
            "cross_site = \"navigate\"",
            &["route[0].cross_site: \"navigate\" is not one of \"allow\", \"deny\""],
        ),
        (
            "[[route]]",
            "host = \"*\"\naccess = \"public\"\ncross_site = \"deny\"",
            &["route[0].cross_site: \"deny\" needs a host"],
        ),
        ("[[route]]", "rate_limit = \"many\"", &["route[0].rate_limit: \"many\" is not a number in a span"]),
        (
            "[[route]]",
            "rate_limit_by = \"user\"",
            &["route[0].rate_limit_by: \"user\" has no effect without rate_limit"],
        ),
        (
            "[[route]]",
            "access = \"public\"\nrate_limit = \"5/1m\"\nrate_limit_by = \"user\"",
            &["route[0].rate_limit_by: \"user\" needs users: a public route has none"],
        ),
        (
            "[[route]]",
            "rate_limit = \"5/1m\"\nrate_limit_by = \"browser\"",
            &["route[0].rate_limit_by: \"browser\" is not one of \"address\", \"user\""],
        ),
    ]);
}

#[test]
fn wrong_values_of_sessions_claims_and_headers_are_told() {
    assert_told(&[
        (
            "[session]",
            "store = \"etcd\"",
            &["session.store: \"etcd\" is not one of \"disk\", \"redis\", \"memory\""],
        ),
        ("[session]", "idle_timeout = \"0s\"", &["session.idle_timeout: \"0s\" is not between 1s and "]),
        (
            "[session]",
            "idle_timeout = \"13h\"",
            &["session.idle_timeout: \"13h\" is longer than session.max_lifetime (12h)"],
        ),
        (
            "[session]",
            "keys = [{ env = \"SECRET\" }]",
            &["session.keys[0]: a session key is 32 random bytes in base64"],
        ),
        (
            "[session]",
            "keys = [{ env = \"KEY\" }, { env = \"KEY2\" }, { file = \"KEY\" }, { env = \"KEY2\" }]",
            &[
                "session.keys[2]: the same session key is listed twice",
                "session.keys[3]: the same session key is listed twice",
            ],
        ),
        (
            "[session]",
            "cache_staleness = \"2m\"",
            &["session.cache_staleness: \"2m\" is not between 0s and 1m"],
        ),
        ("[session]", "outage_window = \"2h\"", &["session.outage_window: \"2h\" is not between 0s and 1h"]),
        ("[session]", "max_per_user = 0", &["session.max_per_user: 0 is not between 1 and 10000"]),
        (
            "[session]",
            "at_limit = \"refuse\"",
            &["session.at_limit: \"refuse\" has no effect without session.max_per_user"],
        ),
        (
            "[session]",
            "max_per_user = 1\nat_limit = \"end\"",
            &["session.at_limit: \"end\" is not one of \"end-oldest\", \"refuse\""],
        ),
        (
            "[session]",
            "keys = [{ env = \"KEY\" }, { file = \"KEYS\" }, { env = \"WEAK\" }]",
            &[
                "session.keys[1]: the same session key is listed twice",
                "session.keys[2]: the session key is too weak",
            ],
        ),
        (
            "[session]",
            "key_rotation = \"never\"",
            &["session.key_rotation: \"never\" is not a duration such as \"90d\", or \"off\""],
        ),
        (
            "[session]",
            "key_rotation = \"1h\"",
            &["session.key_rotation: \"1h\" is not between 7days and 9years"],
        ),
        (
            "[session]",
            "cache_size = \"64MB/s\"",
            &["session.cache_size: \"64MB/s\" is not a number of bytes such as 65536"],
        ),
        ("[session]", "cache_size = 5", &["session.cache_size: 5 is not between 1048576 bytes and "]),
        ("[identity]", "user = \"\"", &["identity.user: \"\" is empty"]),
        (
            "[headers]",
            "presets = [\"x-forward\"]",
            &["headers.presets[0]: \"x-forward\" is not one of \"x-forwarded\""],
        ),
        (
            "[headers]",
            "claims = { Cookie = \"a\" }",
            &["headers.claims.Cookie: is a header with another meaning"],
        ),
        (
            "[headers]",
            "claims = { X_Team = \"a\" }",
            &["headers.claims.X_Team: is not a header name of letters, digits and -"],
        ),
        (
            "[headers]",
            "claims = { X-Team = \"a\", x-team = \"b\" }",
            &["headers.claims.x-team: is listed twice"],
        ),
        (
            "[headers]",
            "claims = { X-Forwarded-Access-Token = \"a\" }",
            &["headers.claims.X-Forwarded-Access-Token: is set where a route says forward_access_token"],
        ),
    ]);
}

#[test]
fn a_route_may_ask_for_groups_contexts_and_a_recent_sign_in() {
    let rule = |lines: &str| {
        let settings = settings("[[route]]", lines);
        settings.gateway.routes.iter().next().unwrap().rule.clone()
    };
    let all = rule("require = { groups = [\"a\"], acr = [\"phr\", \"urn:x\"], max_age = \"5m\" }");
    assert_eq!(all.groups, [std::sync::Arc::<str>::from("a")]);
    assert_eq!(all.step_up, StepUp { acr: vec!["phr".into(), "urn:x".into()], max_age: Some(5 * MINUTE) });
    assert!(rule("require = { acr = [\"phr\"] }").groups.is_empty());
    assert!(rule("require = { groups = [\"a\"] }").step_up.is_empty());
    let long = format!("require = {{ acr = [{}] }}", ["\"aaaaaaaaaaaaaaaa\""; 33].join(", "));
    assert!(
        problems("[[route]]", &long)[0]
            .starts_with("route[0].require.acr: is longer than 512 bytes together")
    );
}

#[test]
fn a_route_may_have_shorter_sessions_than_the_others_and_never_longer_ones() {
    let checked = settings("[[route]]", "session = { idle_timeout = \"10m\", max_lifetime = \"2h\" }");
    let route = checked.gateway.routes.iter().next().unwrap();
    let wanted = RouteLimits { idle_timeout: Some(10 * MINUTE), max_lifetime: Some(2 * HOUR) };
    assert_eq!(route.session, wanted);
    let limits = checked.gateway.reading.limits;
    assert_eq!((limits.idle_timeout, limits.shortest_idle), (HOUR, 10 * MINUTE));
    assert_told(&[
        (
            "[[route]]",
            "session = { idle_timeout = \"2h\", max_lifetime = \"13h\" }",
            &[
                "route[0].session.idle_timeout: \"2h\" is longer than session.idle_timeout (1h)",
                "route[0].session.max_lifetime: \"13h\" is longer than session.max_lifetime (12h)",
            ],
        ),
        (
            "[[route]]",
            "session = { idle_timeout = \"0s\" }",
            &["route[0].session.idle_timeout: \"0s\" is not between 1s and "],
        ),
        ("[[route]]", "session = {}", &["route[0].session: is empty; leave `session` out"]),
        (
            "[[route]]",
            "access = \"public\"\nsession = { max_lifetime = \"1h\" }",
            &["route[0].session: has no effect: a public route has no sessions"],
        ),
    ]);
}

#[test]
fn wrong_requirements_and_parameters_of_a_route_are_told() {
    assert_told(&[
        ("[[route]]", "require = { groups = [] }", &["route[0].require.groups: is empty"]),
        ("[[route]]", "require = {}", &["route[0].require: is empty; leave `require` out"]),
        (
            "[[route]]",
            "require = { group = [\"a\"] }",
            &["route[0].require: is empty", "route[0].require.group: unknown key; did you mean `groups`?"],
        ),
        ("[[route]]", "require = { acr = [] }", &["route[0].require.acr: is empty"]),
        ("[[route]]", "require = { acr = \"phr\" }", &["route[0].require.acr: \"phr\" is not a list"]),
        (
            "[[route]]",
            "require = { acr = [\"a b\", \"c\\\"d\", \"é\"] }",
            &[
                "route[0].require.acr[0]: \"a b\" is not one authentication context",
                "route[0].require.acr[1]: ",
                "route[0].require.acr[2]: \"é\" is not one authentication context",
            ],
        ),
        (
            "[[route]]",
            "require = { max_age = \"29s\" }",
            &["route[0].require.max_age: \"29s\" is not between 30s and "],
        ),
        (
            "[[route]]",
            "require = { max_age = 300 }",
            &["route[0].require.max_age: 300 is not a duration such as \"30s\""],
        ),
        (
            "[[route]]",
            "access = \"public\"\nauthorization_params = { prompt = \"login\" }",
            &["route[0].authorization_params: has no effect: nobody signs in on a public route"],
        ),
        (
            "[[route]]",
            "authorization_params = { nonce = \"1\", max_age = \"1\" }",
            &[
                "route[0].authorization_params.nonce: is set by the gateway itself",
                "route[0].authorization_params.max_age: would not be checked",
            ],
        ),
        (
            "[[route]]",
            "access = \"optional\"\nrequire = { groups = [\"a\"] }",
            &["route[0].require: has a meaning only with access = \"signed-in\""],
        ),
    ]);
}

#[test]
fn wrong_values_of_a_route_are_told() {
    assert_told(&[
        (
            "[[route]]",
            "host = \"wiki.example.com/\"",
            &["route[0].host: \"wiki.example.com/\" is not a host name"],
        ),
        (
            "[[route]]",
            "host = \"*\"",
            &["route[0].access: a route for any host (\"*\") can only be \"public\""],
        ),
        ("[[route]]", "path = \"/a/../b\"", &["route[0].path: \"/a/../b\" is not a canonical path"]),
        (
            "[[route]]",
            "path = \"/oauth2/x\"",
            &["route[0].path: \"/oauth2/x\" is under /oauth2, where the gateway's own"],
        ),
        (
            "[[route]]",
            "path = \"/oauth2\"",
            &["route[0].path: \"/oauth2\" is under /oauth2, where the gateway's own"],
        ),
        (
            "[[route]]",
            "upstream = \"htp://app:80\"",
            &["route[0].upstream: \"htp://app:80\" is not an http or https URL"],
        ),
        ("[[route]]", "upstream = \"http://app/x\"", &["route[0].upstream: \"http://app/x\" has a path"]),
        (
            "[[route]]",
            "upstream = \"app:3000\"",
            &["route[0].upstream: \"app:3000\" is not an http or https URL"],
        ),
        (
            "[[route]]",
            "upstream = \"http://u:p@app\"",
            &["route[0].upstream: \"http://…@app\" has a user name or password"],
        ),
        (
            "[[route]]",
            "ca_file = \"a.pem\"",
            &["route[0].ca_file: has no effect: the upstream is plain http"],
        ),
        (
            "[[route]]",
            "access = \"private\"",
            &["route[0].access: \"private\" is not one of \"signed-in\", \"optional\", \"public\""],
        ),
        (
            "[[route]]",
            "provider = \"other\"",
            &["route[0].provider: \"other\" is not the id of a [[provider]]"],
        ),
        (
            "[[route]]",
            "access = \"public\"\nprovider = \"main\"",
            &["route[0].provider: \"main\" has no effect"],
        ),
        (
            "[[route]]",
            "access = \"public\"\nforward_access_token = true",
            &["route[0].forward_access_token: true has no effect"],
        ),
        (
            "[[route]]",
            "host_header = \"app\"",
            &["route[0].host_header: \"app\" is not one of \"keep\", \"upstream\""],
        ),
        (
            "[[route]]",
            "connect_timeout = \"1h\"",
            &["route[0].connect_timeout: \"1h\" is not between 100ms and 5m"],
        ),
    ]);
}

#[test]
fn what_must_be_written_is_asked_for() {
    let found = checked("").unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        found,
        [
            "listener: is missing: at least one [[listener]] with an address such as \"0.0.0.0:443\"",
            "route: is missing: at least one [[route]] with host and upstream",
        ]
    );
    let found = checked("[[listener]]\n[[provider]]\n[[host]]\n[[route]]\n").unwrap_err();
    let found: Vec<_> = found.iter().map(|problem| problem.path.as_str()).collect();
    let wanted = [
        "listener[0].address",
        "provider[0].id",
        "provider[0].issuer",
        "provider[0].client_id",
        "host[0].name",
    ];
    assert_eq!(found, [&wanted[..], &["route[0].host", "route[0].upstream"]].concat());
}

#[test]
fn one_table_where_a_list_is_wanted_is_told_how_to_write_it() {
    let found = checked("[listener]\naddress = \"[::]:80\"\n").unwrap_err();
    assert_eq!(found[0].to_string(), "listener: one table is not a list of tables; write [[listener]]");
}

#[test]
fn mistakes_of_grammar_are_told_by_line_and_column() {
    let found = checked("[session]\nstore = disk\n\n[log]\nlevel = \"info\n").unwrap_err();
    let found: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(found[0].starts_with("line 2, column 9: "), "{found:#?}");
    assert!(found.iter().any(|problem| problem.starts_with("line 5, column ")), "{found:#?}");
}

#[test]
fn a_secret_in_the_file_is_a_problem_that_names_the_ways_out_and_not_the_secret() {
    let cases = [
        ("[[provider]]", "client_secret = \"hunter2\""),
        ("[[provider]]", "client_secret = [\"hunter2\"]"),
        ("[session]", "keys = \"hunter2\""),
        ("[session]", "keys = [\"hunter2\"]"),
    ];
    for (section, lines) in cases {
        let found = problems(section, lines);
        assert_eq!(found.len(), 1, "{lines}: {found:#?}");
        assert!(found[0].contains("{ file = ") && found[0].contains("{ env = "), "{lines}: {found:#?}");
        assert!(!found[0].contains("hunter2"), "{lines}: {found:#?}");
    }
    for lines in
        ["client_secret = { value = \"hunter2\" }", "secret = \"hunter2\"", "client_secret = hunter2"]
    {
        let found = problems("[[provider]]", lines).join("\n");
        assert!(!found.is_empty() && !found.contains("hunter2"), "{lines}: {found}");
    }
}

#[test]
fn settings_never_print_a_secret() {
    let settings = settings("[session]", "keys = [{ env = \"KEY\" }]");
    let printed = format!("{settings:?}");
    let key = stub_secret(&SecretRef::Env("KEY".to_owned())).unwrap();
    assert!(!printed.contains("hunter2") && !printed.contains(key.text.expose().trim()), "{printed}");
    assert_eq!(settings.providers[0].client.secrets[0].value, Secret::new("hunter2".to_owned()));
}

#[test]
fn problems_stand_in_the_order_of_the_file() {
    let text = "[log]\nlevel = 1\ncolour = 2\n[[route]]\nupstream = 3\nhost = \"*\"\n[session]\nstore = 4\n\
                [[listener]]\naddress = 5\n[[route]]\nhost = 6\n";
    let found = checked(text).unwrap_err();
    let found: Vec<_> = found.iter().map(|problem| problem.path.as_str()).collect();
    let wanted = [
        "provider",
        "log.level",
        "log.colour",
        "route[0].access",
        "route[0].upstream",
        "session.store",
        "listener[0].address",
        "route[1].upstream",
        "route[1].host",
    ];
    assert_eq!(found, wanted);
}

#[test]
fn plain_http_is_for_loopback_hosts_or_for_those_who_ask_for_danger() {
    let cases: &[(&str, &str, &str)] = &[
        ("localhost", "http://localhost:8080", ""),
        ("wiki.localhost", "http://wiki.localhost:8080", ""),
        ("127.0.0.2", "http://127.0.0.2", ""),
        ("[::1]", "http://[::1]:8080", ""),
        ("*.localhost", "http://*.localhost:8080", ""),
        ("wiki.example.com", "http://wiki.example.com", "danger_insecure_http = true"),
    ];
    for (name, url, danger) in cases {
        let settings = settings("[[host]]", &format!("name = \"{name}\"\npublic_url = \"{url}\"\n{danger}"));
        let warnings = settings.warnings.join("\n");
        assert!(warnings.contains("`__Host-`"), "{name}: {warnings}");
        assert_eq!(warnings.contains("danger_insecure_http"), !danger.is_empty(), "{name}: {warnings}");
        assert_eq!(settings.hosts[0].public_url.scheme(), "http", "{name}");
    }
    for name in ["localhost.example.com", "notlocalhost", "10.0.0.1", "*.example.com"] {
        let found = problems("[[host]]", &format!("name = \"{name}\"\npublic_url = \"http://{name}\""));
        assert!(found.len() == 1 && found[0].contains("not loopback"), "{name}: {found:#?}");
    }
}

#[test]
fn a_provider_on_loopback_may_be_plain_http() {
    for issuer in ["http://localhost:9000/realms/x/", "http://127.0.0.1:9000", "http://[::1]:9000"] {
        let settings = settings("[[provider]]", &format!("issuer = \"{issuer}\""));
        assert_eq!(&*settings.providers[0].issuer.0, issuer, "kept byte for byte");
    }
}

#[test]
fn each_host_of_a_route_has_a_public_url() {
    let urls = |hosts: &str, route: &str| {
        let route = format!("[[route]]\nhost = \"{route}\"\nupstream = \"http://a\"\n");
        let settings = checked(&format!("{GOOD}\n{hosts}\n{route}")).unwrap();
        let shown = |host: &crate::route::HostSettings| format!("{} {}", host.pattern, host.public_url);
        settings.hosts.iter().skip(1).map(shown).collect::<Vec<_>>()
    };
    let wide = "[[host]]\nname = \"*.example.org\"\npublic_url = \"https://*.example.org:8443\"";
    assert_eq!(urls("", "a.example.org"), ["a.example.org https://a.example.org/"]);
    assert_eq!(urls("", "*.example.org"), ["*.example.org https://wildcard.example.org/"]);
    assert_eq!(urls(wide, "a.example.org"), ["*.example.org https://wildcard.example.org:8443/"]);
    assert_eq!(urls(wide, "*.b.example.org"), ["*.example.org https://wildcard.example.org:8443/"]);
    assert_eq!(
        urls(wide, "example.org"),
        ["*.example.org https://wildcard.example.org:8443/", "example.org https://example.org/"]
    );
}

#[test]
fn a_host_has_the_provider_that_its_routes_name() {
    let second = "[[provider]]\nid = \"second\"\nissuer = \"https://b\"\nclient_id = \"c\"\n";
    let file = |host: &str, route: &str| {
        let text = with("[[host]]", &format!("name = \"*.example.com\"\nprovider = \"{host}\""));
        let text = text.replace("[[route]]", &format!("[[route]]\nprovider = \"{route}\""));
        checked(&format!("{text}\n{second}"))
    };
    let good = file("second", "second").unwrap();
    assert_eq!(good.hosts[0].provider, Some(crate::oidc::ProviderId("second".into())));
    let wrong = file("second", "main").unwrap_err();
    assert_eq!(wrong.len(), 1);
    let wanted = "host[0].provider: \"second\" is not the provider that the route wiki.example.com/ names";
    assert_eq!(wrong[0].to_string(), wanted);
    let urls = |id: &str| good.public_urls(&crate::oidc::ProviderId(id.into()), "callback").count();
    assert_eq!((urls("second"), urls("main")), (1, 0), "nothing is registered where it is of no use");
}

#[test]
fn no_answer_by_form_post_comes_to_a_host_without_secure_cookies() {
    let file = |host: &str, only: &str| {
        let text = with("[[provider]]", "response_mode = \"form_post\"");
        let second = "[[provider]]\nid = \"second\"\nissuer = \"https://b\"\nclient_id = \"c\"";
        let text = text.replace("name = \"wiki.example.com\"", &format!("name = \"{host}\"\n{only}"));
        let text = text.replace("host = \"wiki.example.com\"", &format!("host = \"{host}\""));
        checked(&format!("{text}\n{second}"))
    };
    let http = "public_url = \"http://wiki.localhost:8080\"";
    let wrong = file("wiki.localhost", http).unwrap_err();
    assert_eq!(wrong.len(), 1);
    let wanted = "host[0].public_url: is plain http, where the provider \"main\" can't answer by form_post";
    assert!(wrong[0].to_string().starts_with(wanted), "{wrong:?}");
    assert!(file("wiki.localhost", &format!("{http}\nprovider = \"main\"")).is_err());
    let other = file("wiki.localhost", &format!("{http}\nprovider = \"second\"")).unwrap();
    assert_eq!(other.providers.iter().map(|provider| provider.form_post).collect::<Vec<_>>(), [true, false]);
    assert!(file("wiki.example.com", "").is_ok());
}

#[test]
fn domains_of_addresses_have_one_spelling_and_one_provider() {
    let second = |domains: &str| {
        let lines = format!("id = \"second\"\nissuer = \"https://b\"\nclient_id = \"c\"\n{domains}");
        checked(&format!("{GOOD}\n[[provider]]\n{lines}"))
    };
    let good = second("email_domains = [\"Example.COM\", \"b\u{fc}cher.example\"]").unwrap();
    let found: Vec<_> = good.providers[1].email_domains.iter().map(AsRef::as_ref).collect();
    assert_eq!(found, ["example.com", "xn--bcher-kva.example"]);
    assert_eq!(good.warnings, Vec::<String>::new());
    let rows = [
        ("[\"a.test\", \"A.test\"]", "[1]: \"A.test\" is listed twice"),
        ("[\"*.a.test\"]", "[0]: \"*.a.test\" is not a domain"),
        ("[\"x@a.test\"]", "[0]: \"x@a.test\" is not a domain"),
        ("[\"\"]", "[0]: \"\" is not a domain"),
        ("[\"127.0.0.1\"]", "[0]: \"127.0.0.1\" is not a domain"),
        ("\"a.test\"", ": \"a.test\" is not a list"),
    ];
    for (domains, wanted) in rows {
        let told = second(&format!("email_domains = {domains}")).unwrap_err();
        let wanted = format!("provider[1].email_domains{wanted}");
        assert!(told.len() == 1 && told[0].to_string().starts_with(&wanted), "{domains}: {told:?}");
    }
    let alone = settings("[[provider]]", "email_domains = [\"a.test\"]").warnings;
    assert!(alone.len() == 1 && alone[0].contains("has no effect"), "{alone:?}");
}

#[test]
fn a_host_that_no_route_is_for_is_warned_of() {
    let warnings = settings("[[host]]", "name = \"typo.example.com\"").warnings;
    assert_eq!(warnings, ["host typo.example.com: no route is for this host"]);
    assert!(settings("[[host]]", "name = \"*.example.com\"").warnings.is_empty());
}

#[test]
fn what_deserves_a_warning_has_one() {
    let cases: &[(&str, &str, &str)] = &[
        ("[session]", "store = \"memory\"", "a restart signs everybody out"),
        ("[admin]", "address = \"0.0.0.0:9321\"", "can be reached from other machines"),
    ];
    for (section, lines, wanted) in cases {
        let warnings = settings(section, lines).warnings;
        assert!(warnings.len() == 1 && warnings[0].contains(wanted), "{lines}: {warnings:?}");
    }
}

#[test]
fn what_must_be_there_once_may_not_be_there_twice() {
    let route = |lines: &str| format!("[[route]]\nupstream = \"http://b\"\n{lines}");
    let cases = [
        (
            "[[listener]]\naddress = \"127.0.0.1:8080\"".to_owned(),
            "listener[1].address: \"127.0.0.1:8080\" is listed twice",
        ),
        (
            "[[provider]]\nid = \"main\"\nissuer = \"https://b\"\nclient_id = \"c\"".to_owned(),
            "provider[1].id: \"main\" is the id of another provider too",
        ),
        (
            "[[host]]\nname = \"WIKI.example.com\"".to_owned(),
            "host[1].name: \"WIKI.example.com\" has a [[host]] already",
        ),
        (route("host = \"Wiki.Example.com\""), "route[1]: has the same host and path as route[0]"),
        (
            route("host = \"wiki.example.com\"\npath = \"/\""),
            "route[1].path: has the same host and path as route[0]",
        ),
    ];
    for (lines, wanted) in cases {
        let found = checked(&format!("{GOOD}\n{lines}\n")).unwrap_err();
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, [wanted], "{lines}");
    }
}

#[test]
fn the_admin_listener_can_be_off_and_is_never_the_same_as_another() {
    assert_eq!(settings("[admin]", "address = \"off\"").admin, None);
    let found = problems("[admin]", "address = \"127.0.0.1:8080\"");
    assert_eq!(found, ["admin.address: \"127.0.0.1:8080\" is the address of a [[listener]] too"]);
}

#[test]
fn a_provider_is_needed_as_soon_as_one_route_is_not_public() {
    let start = GOOD.find("[[provider]]").unwrap();
    let end = GOOD.find("[[host]]").unwrap();
    let text = GOOD.replace(GOOD.get(start..end).unwrap(), "");
    let found = checked(&text).unwrap_err();
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].to_string(),
        "provider: is missing: route[0] is not public, so a [[provider]] is needed"
    );
    let public = text.replace("[[route]]\n", "[[route]]\naccess = \"public\"\n");
    assert!(checked(&public).is_ok());
}

#[test]
fn a_route_for_any_host_can_be_public() {
    let settings = settings("[[route]]", "host = \"*\"\naccess = \"public\"");
    assert_eq!(settings.gateway.routes.iter().next().unwrap().host, HostPattern::Any);
}

#[test]
fn a_body_is_as_large_as_the_route_allows() {
    let size = |lines| {
        let settings = settings("[[route]]", lines);
        settings.gateway.routes.iter().next().unwrap().max_body_bytes
    };
    let rows = [
        ("", Some(1 << 30)),
        ("max_body_size = \"10MiB\"", Some(10 << 20)),
        ("max_body_size = 0", Some(0)),
        ("max_body_size = \"off\"", None),
    ];
    for (lines, wanted) in rows {
        assert_eq!(size(lines), wanted, "{lines}");
    }
    let wanted = "route[0].max_body_size: \"much\" is not a number of bytes such as \"64MiB\", or \"off\"";
    assert_eq!(problems("[[route]]", "max_body_size = \"much\""), [wanted]);
}

#[test]
fn routes_with_equal_upstreams_share_one() {
    let more = |lines: &str| {
        format!("[[route]]\nhost = \"b.example\"\nupstream = \"http://10.0.0.5:3000/\"\n{lines}")
    };
    for (lines, wanted) in [("", 1), ("read_timeout = \"1m\"", 1), ("read_timeout = \"2m\"", 2)] {
        let settings = checked(&format!("{GOOD}\n{}\n", more(lines))).unwrap();
        assert_eq!(settings.gateway.routes.upstreams.len(), wanted, "{lines}");
    }
}

#[test]
fn upstreams_are_taken_apart() {
    let cases = [
        ("http://app", (false, "app", 80)),
        ("https://App.Example", (true, "app.example", 443)),
        ("http://10.0.0.5:3000/", (false, "10.0.0.5", 3000)),
        ("https://[fd00::1]:8443", (true, "fd00::1", 8443)),
    ];
    for (url, wanted) in cases {
        let settings = settings("[[route]]", &format!("upstream = \"{url}\""));
        let upstream = &settings.gateway.routes.upstreams[0];
        assert_eq!((upstream.tls, &*upstream.host, upstream.port), wanted, "{url}");
    }
}

#[test]
fn each_provider_but_the_first_has_a_callback_with_its_id() {
    let more = "[[provider]]\nid = \"b\"\nissuer = \"https://b\"\nclient_id = \"c\"\nname = \"Bee\"\n";
    let settings = checked(&format!("{GOOD}\n{more}")).unwrap();
    let found: Vec<_> =
        settings.providers.iter().map(|one| (&*one.callback_path, &*one.display_name)).collect();
    assert_eq!(found, [("callback", "main"), ("callback/b", "Bee")]);
}

#[test]
fn relative_paths_start_at_the_directory_of_the_file() {
    assert_eq!(settings("", "data_dir = \"state\"").data_dir, Path::new("/etc/p/state"));
    let tls = settings("[[listener]]", "tls = { certificate = \"a.crt\", key = \"/b.key\" }");
    let tls = tls.listeners[0].tls.clone().unwrap();
    assert_eq!(
        (tls.certificate.as_path(), tls.key.as_path()),
        (Path::new("/etc/p/a.crt"), Path::new("/b.key"))
    );
}

fn as_table<'a, 'i>(value: &'a DeValue<'i>) -> Option<&'a DeTable<'i>> {
    if let DeValue::Table(table) = value { Some(table) } else { None }
}

/// Every settable key of a file, as [`known_keys`] names them.
fn keys_of(text: &str) -> BTreeSet<String> {
    fn walk(table: &DeTable<'_>, path: &str, known: &[String], found: &mut BTreeSet<String>) {
        for (key, value) in table {
            let path = crate::config::read::below(path, key.get_ref());
            if known.contains(&path) {
                found.insert(path);
            } else if let DeValue::Table(table) = value.get_ref() {
                walk(table, &path, known, found);
            } else if let DeValue::Array(list) = value.get_ref() {
                let tables = list.iter().filter_map(|element| as_table(element.get_ref()));
                tables.for_each(|table| walk(table, &path, known, found));
            } else {
                panic!("{path} is no key of the file");
            }
        }
    }
    let mut found = BTreeSet::new();
    let root = DeTable::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    walk(root.get_ref(), "", &known_keys(), &mut found);
    found
}

/// The example with its settings made: `#key = value` and `#[[section]]`.
fn uncommented_example() -> String {
    let is_setting = |rest: &str| rest.starts_with('[') || rest.split(" = ").next().is_some_and(is_key);
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if is_setting(rest) => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    EXAMPLE.lines().map(line).collect()
}

fn is_key(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// The rows of the tables in the docs: section, key, default.
fn documented() -> Vec<(String, String, String)> {
    let mut section = String::new();
    let mut rows = Vec::new();
    for line in DOCS.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.trim_matches('`').to_owned();
        }
        let Some(key) = line.strip_prefix("| `").and_then(|rest| rest.split('`').next()) else { continue };
        let default = line.split(" | ").nth(2).unwrap_or_default();
        let default = default.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')).unwrap_or_default();
        rows.push((section.clone(), key.to_owned(), default.to_owned()));
    }
    rows
}

#[test]
fn example_docs_and_code_know_the_same_keys() {
    let known: BTreeSet<String> = known_keys().into_iter().collect();
    assert_eq!(keys_of(&uncommented_example()), known, "config.example.toml");
    let path = |(section, key, _): &(String, String, String)| match section.as_str() {
        "Top level" => key.clone(),
        section => format!("{}.{key}", section.trim_matches(['[', ']'])),
    };
    let documented: Vec<_> = documented().iter().map(path).collect();
    assert_eq!(documented.iter().cloned().collect::<BTreeSet<_>>(), known, "docs/configuration.md");
    assert_eq!(documented.len(), known.len(), "a key is documented twice");
}

#[test]
fn the_example_passes_the_check_as_shipped_and_with_every_setting_made() {
    for text in [EXAMPLE.to_owned(), uncommented_example()] {
        if let Err(problems) = checked(&text) {
            panic!("{problems:#?}");
        }
    }
}

/// The good file with its sessions in Redis, and these lines in `[redis]`.
fn with_redis(lines: &str) -> String {
    let addresses = if lines.contains("addresses") { "" } else { "addresses = [\"127.0.0.1:6379\"]\n" };
    let session = "[session]\nstore = \"redis\"\nkeys = [{ env = \"KEY\" }]\n";
    with("[redis]", &format!("{addresses}{lines}")).replace("[session]\n", session)
}

fn redis(lines: &str) -> Settings {
    checked(&with_redis(lines)).unwrap_or_else(|problems| panic!("{lines}: {problems:#?}"))
}

#[test]
fn what_is_not_said_of_redis_is_as_the_docs_say() {
    let defaults = documented().into_iter().filter(|(section, _, _)| section == "[redis]");
    let mut written = 0;
    for (_, key, default) in defaults.filter(|(_, _, default)| !default.is_empty()) {
        let found = format!("{:?}", redis(&format!("{key} = {default}")));
        assert_eq!(found, format!("{:?}", redis("")), "{key} = {default}");
        written += 1;
    }
    assert_eq!(written, 7);
    assert_eq!(settings("", "").redis, None, "without the store");
}

#[test]
fn redis_is_reached_as_the_file_says() {
    let lines = "addresses = [\"one:1\", \"[::1]:2\"]\ncluster = true\ntls = true\nca_file = \"ca.pem\"\n\
        username = \"gate\"\npassword = { env = \"SECRET\" }\nkey_prefix = \"p:\"\nconnections = 7\n\
        connect_timeout = \"3s\"\ntimeout = \"300ms\"";
    let found = redis(lines);
    let expected = RedisSettings {
        addresses: vec![Address::parse("one:1").unwrap(), Address::parse("[::1]:2").unwrap()],
        cluster: true,
        tls: Some(Trust::File("/etc/p/ca.pem".into())),
        username: Some("gate".to_owned()),
        password: Some(Password { value: Secret::new("hunter2".to_owned()), file: None }),
        database: 0,
        key_prefix: "p:".to_owned(),
        connections: 7,
        connect_timeout: Duration::from_secs(3),
        timeout: Duration::from_millis(300),
    };
    assert_eq!((found.store, found.redis.as_ref()), (StoreKind::Redis, Some(&expected)));
    assert_eq!(found.warnings, [""; 0]);
    assert!(!format!("{found:?}").contains("hunter2"));
    assert_eq!(redis("database = 9").redis.unwrap().database, 9);
    assert_eq!(redis("tls = true").redis.unwrap().tls, Some(Trust::System));
}

#[test]
fn mistakes_about_redis_are_told_with_their_place() {
    let cases = [
        ("addresses = []", "redis.addresses: is empty: the server, such as [\"redis.internal:6379\"]"),
        ("addresses = [\"redis://a:1\"]", "redis.addresses[0]: \"redis://a:1\" is no host and port"),
        (
            "addresses = [\"a:1\", \"b:1\"]",
            "redis.addresses: lists 2; one is wanted without redis.cluster = true",
        ),
        ("cluster = true\ndatabase = 1", "redis.database: 1 is not 0, as in a cluster"),
        ("database = 20000", "redis.database: 20000 is not between 0 and 16383"),
        ("ca_file = \"ca.pem\"", "redis.ca_file: has no effect without redis.tls = true"),
        ("tls = true\nca_file = \"bad.pem\"", "redis.ca_file: \"bad.pem\" holds no certificate"),
        ("username = \"gate\"", "redis.username: \"gate\" is a user without redis.password"),
        ("password = { env = \"NONE\" }", "redis.password: the secret NONE is not there"),
        ("password = { env = \"LINES\" }", "redis.password: the secret LINES holds a line break"),
        ("key_prefix = \"{a}\"", "redis.key_prefix: \"{a}\" is not 1 to 64 visible ASCII characters"),
        ("key_prefix = \"\"", "redis.key_prefix: \"\" is not 1 to 64 visible ASCII characters"),
        ("connections = 0", "redis.connections: 0 is not between 1 and 64"),
        ("timeout = \"1ms\"", "redis.timeout: \"1ms\" is not between 50ms and 1m"),
        ("connect_timeout = \"2m\"", "redis.connect_timeout: \"2m\" is not between 100ms and 1m"),
    ];
    for (lines, expected) in cases {
        let found: Vec<_> =
            checked(&with_redis(lines)).unwrap_err().iter().map(ToString::to_string).collect();
        assert!(found.len() == 1 && found[0].contains(expected), "{lines}: {found:?}");
        assert!(!found[0].contains("hunter"), "{lines}: {found:?}");
    }
}

#[test]
fn a_store_in_redis_needs_its_address_and_keys_that_gateways_share() {
    let found = problems("[session]", "store = \"redis\"");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().any(|problem| problem.contains("session.keys: is missing: gateways that share")));
    assert!(found.iter().any(|problem| problem.contains("redis.addresses: is missing: the server")));
    let found = problems("[session]", "store = \"redis\"\nkeys = []");
    assert!(found.iter().any(|problem| problem.contains("session.keys: is missing")), "{found:?}");
    let found = problems("[redis]", "addresses = [\"a:1\"]");
    assert!(
        found[0].contains("redis.addresses: has no effect without session.store = \"redis\""),
        "{found:?}"
    );
}

#[test]
fn a_redis_that_others_can_reach_or_hear_is_told_at_start() {
    let cases = [
        ("addresses = [\"127.0.0.1:1\"]", vec![]),
        ("addresses = [\"a:1\"]", vec!["redis.tls is false", "redis.password is missing"]),
        ("addresses = [\"a:1\"]\ntls = true", vec!["redis.password is missing"]),
        ("addresses = [\"a:1\"]\npassword = { env = \"SECRET\" }", vec!["redis.tls is false"]),
        ("addresses = [\"a:1\"]\ntls = true\npassword = { env = \"SECRET\" }", vec![]),
    ];
    for (lines, expected) in cases {
        let warnings = redis(lines).warnings;
        assert_eq!(warnings.len(), expected.len(), "{lines}: {warnings:?}");
        let all_there = warnings.iter().zip(expected).all(|(warning, start)| warning.starts_with(start));
        assert!(all_there, "{lines}: {warnings:?}");
    }
}

#[test]
fn a_default_that_is_written_changes_nothing() {
    let mut written = 0;
    for (section, key, default) in documented() {
        // Words instead of a value: "optional", "the id", `https://NAME`.
        if default.is_empty() || default.starts_with("https://") {
            continue;
        }
        let section = if section == "Top level" { String::new() } else { section };
        let found = format!("{:?}", settings(&section, &format!("{key} = {default}")));
        assert_eq!(found, format!("{:?}", settings("", "")), "{section} {key} = {default}");
        written += 1;
    }
    assert!(written > 30, "only {written} defaults were found in the docs");
}
