//! A provider: name, TLS, documents, keys, client, clock, and what is to be registered there.

use std::time::Duration;

use tokio::runtime::Handle;
use url::Url;

use super::{Report, hosts};
use crate::clock::{Clock, UnixTime};
use crate::config::Settings;
use crate::idp::examine::{Document, MadeUpCode};
use crate::idp::{Provider, ProviderSettings, Unavailable};
use crate::oidc::authorize::{self, Start};
use crate::oidc::metadata::{Metadata, MetadataError};
use crate::oidc::step_up::StepUp;
use crate::telemetry::Events;
use crate::telemetry::metrics::Metrics;
use crate::token::{Claims, KeySet};
use crate::web::return_to::ReturnTo;

/// What is said of an address that the provider may not be called at.
const INTERNAL_ADDRESS: &str = "an internal address";

const INTERNAL_ADVICE: &str = "the issuer is on the public internet and its metadata names a place inside: if that is \
                               meant, set `danger_internal_addresses = true` at this provider";

/// How far the provider's clock may be away without a word; `Date` counts whole seconds.
const SMALL_SKEW: Duration = Duration::from_secs(5);

pub(super) async fn examine(
    provider: &ProviderSettings,
    settings: &Settings,
    clock: &Clock,
    report: &mut Report<'_>,
) {
    report.about(format!("provider {}", provider.id));
    let events = Events::new(Metrics::new().into(), false);
    match Provider::new(provider.clone(), Handle::current(), clock.clone(), events) {
        Ok(provider) => ask(&provider, settings, clock, report).await,
        Err(error) => report.fail(error.reason, "the gateway would not start like this"),
    }
    register(provider, settings, report);
}

/// From its name to its token endpoint; what can't be reached ends the way.
async fn ask(provider: &Provider, settings: &Settings, clock: &Clock, report: &mut Report<'_>) {
    if !has_address(provider.discovery_url(), report).await {
        return;
    }
    let asked_at = clock.now();
    let document = match provider.document().await {
        Ok(document) => document,
        Err(error) => return no_document(provider, &error, report),
    };
    if let Some(date) = document.date {
        skew(date, asked_at, clock.now(), provider.settings().leeway, report);
    }
    let Document { members, metadata, .. } = document;
    let metadata = match metadata {
        Ok(metadata) => metadata,
        Err(error) => return refused(&error, report),
    };
    report.ok(format!("{} is of this very issuer", provider.discovery_url()));
    offers(provider.settings(), &members, &metadata, report);
    contexts(provider.settings(), settings, &members, report);
    match provider.key_set(&metadata).await {
        Ok(keys) => key_set(provider.settings(), &keys, report),
        Err(error) => fail(error, "without its keys no ID token can be verified", report),
    }
    client(provider, &metadata, settings, clock, report).await;
}

async fn has_address(url: &Url, report: &mut Report<'_>) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let found = hosts::resolve(host, url.port_or_known_default().unwrap_or(443)).await;
    match &found {
        Ok(addresses) => report.ok(format!("{host} is {addresses}")),
        Err(reason) => report.fail(
            format!("{host} can't be resolved: {reason}"),
            "is `issuer` spelled right, and does this machine's DNS know it?",
        ),
    }
    found.is_ok()
}

/// Tells what can't be had; where that is for the address alone, what to do about it.
fn fail(error: Unavailable, advice: &str, report: &mut Report<'_>) {
    let is_refused = error.reason.contains(INTERNAL_ADDRESS);
    report.fail(error.reason, if is_refused { INTERNAL_ADVICE } else { advice });
}

fn no_document(provider: &Provider, error: &Unavailable, report: &mut Report<'_>) {
    let reason = &error.reason;
    let advice = if reason.contains("certificate") {
        "where its certificate is from a CA of your own, name that CA's file in `ca_file`".to_owned()
    } else if reason.contains("answered") {
        format!(
            "is `issuer` spelled as the provider spells it? Open {} in a browser",
            provider.discovery_url()
        )
    } else {
        "is the provider running, and may this machine reach it?".to_owned()
    };
    report.fail(reason.clone(), advice);
}

fn refused(error: &MetadataError, report: &mut Report<'_>) {
    let advice = match error {
        MetadataError::IssuerMismatch { found, .. } => {
            format!("if that is the provider you mean, set `issuer = {found:?}`, to the letter")
        }
        MetadataError::InsecureEndpoint { .. } => {
            "the provider has to be told its public https address".to_owned()
        }
        MetadataError::NoS256 => "switch PKCE with S256 on at the provider".to_owned(),
        MetadataError::Malformed(_) => "the provider has to mend this".to_owned(),
    };
    report.fail(error.to_string(), advice);
}

/// `now` is when the answer was there: the provider's clock was read between the two.
fn skew(date: UnixTime, asked_at: UnixTime, now: UnixTime, leeway: Duration, report: &mut Report<'_>) {
    // Whole seconds: what was cut off may be nearly one more.
    let (behind, ahead) = (asked_at.since(date + Duration::from_secs(1)), date.since(now));
    let (skew, way) = if ahead > behind { (ahead, "ahead of") } else { (behind, "behind") };
    let text = format!("its clock is {} s {way} this machine's", skew.as_secs());
    let advice = "set both clocks by NTP";
    match () {
        () if skew > leeway => report.fail(format!("{text}: its ID tokens may be refused"), advice),
        () if skew > SMALL_SKEW => report.warn(text, advice),
        () => report.ok("its clock and this machine's agree"),
    }
}

/// What the document offers, against what is configured.
fn offers(settings: &ProviderSettings, members: &Claims, metadata: &Metadata, report: &mut Report<'_>) {
    let listed = |name: &str| members.strings(name).ok().flatten();
    match listed("code_challenge_methods_supported") {
        Some(_) => report.ok("offers PKCE with S256"),
        None => report.note("does not say that it checks PKCE; it is sent all the same"),
    }
    algorithms(settings, listed("id_token_signing_alg_values_supported"), report);
    if let Some(scopes) = listed("scopes_supported") {
        let missing = |scope: &&str| !scopes.contains(scope);
        for scope in settings.scopes.iter().map(AsRef::as_ref).filter(missing) {
            report.warn(
                format!("does not list the scope {scope:?}"),
                "take it out of `scopes`, or allow it at the provider",
            );
        }
    }
    let modes = listed("response_modes_supported");
    if settings.form_post && modes.is_some_and(|modes| !modes.contains(&"form_post")) {
        report.warn("does not list the response mode form_post", "leave `response_mode` out");
    }
    if settings.userinfo && metadata.userinfo_endpoint.is_none() {
        report.note("has no userinfo endpoint: all there is to know of people has to be in the ID token");
    }
    logout(members, metadata, report);
}

/// The authentication contexts that routes ask of this provider, against what it lists.
fn contexts(provider: &ProviderSettings, settings: &Settings, members: &Claims, report: &mut Report<'_>) {
    let Some(listed) = members.strings("acr_values_supported").ok().flatten() else { return };
    for route in settings.gateway.routes.iter() {
        let asked = &route.rule.step_up.acr;
        let is_other = route.provider.as_ref().is_some_and(|only| *only != provider.id);
        if !is_other && !asked.is_empty() && !asked.iter().any(|acr| listed.contains(&&**acr)) {
            report.warn(
                format!("lists no acr of {}, of which the route {} needs one", asked.join(", "), route.name),
                "set the route's `require.acr` to what the provider can bring",
            );
        }
    }
}

fn algorithms(settings: &ProviderSettings, listed: Option<Vec<&str>>, report: &mut Report<'_>) {
    let wanted: Vec<_> = settings.id_token_algorithms.iter().map(|algorithm| algorithm.name()).collect();
    let Some(listed) = listed else { return };
    if wanted.iter().any(|name| listed.contains(name)) {
        return report.ok(format!("signs ID tokens with {}", wanted.join(" or ")));
    }
    report.fail(
        format!("lists no ID token algorithm of {}; it lists {}", wanted.join(", "), told(&listed)),
        "set `id_token_algorithms` to what this client's ID tokens are signed with",
    );
}

/// A list from outside, as a person may read it.
fn told(listed: &[&str]) -> String {
    let clean = |text: &&str| text.chars().filter(char::is_ascii_graphic).take(32).collect::<String>();
    listed.iter().take(16).map(clean).collect::<Vec<_>>().join(", ")
}

fn logout(members: &Claims, metadata: &Metadata, report: &mut Report<'_>) {
    if metadata.end_session_endpoint.is_some() {
        report.ok("ends its own session when somebody signs out here");
    } else {
        report.warn(
            "has no end_session_endpoint: who signs out here stays signed in there",
            "tell people, or ask the provider for RP-initiated logout",
        );
    }
    if members.boolean("backchannel_logout_supported").ok().flatten() != Some(true) {
        report.note("does not offer back-channel logout: who signs out there stays signed in here");
    }
}

fn key_set(settings: &ProviderSettings, keys: &KeySet, report: &mut Report<'_>) {
    let unserved = settings.id_token_algorithms.iter().filter(|algorithm| !keys.serves(**algorithm));
    let unserved: Vec<_> = unserved.map(|algorithm| algorithm.name()).collect();
    if unserved.len() < settings.id_token_algorithms.len() {
        return report.ok(format!("publishes {} keys that can be used", keys.len()));
    }
    report.fail(
        format!("publishes no key for {}", unserved.join(" or ")),
        "set `id_token_algorithms` to what this client's ID tokens are signed with",
    );
}

/// Whether the provider takes this client: a code that nobody issued has to be what it refuses.
async fn client(
    provider: &Provider,
    metadata: &Metadata,
    settings: &Settings,
    clock: &Clock,
    report: &mut Report<'_>,
) {
    let Some(redirect_uri) = redirect_uri(provider.settings(), settings) else { return };
    let (_, attempt) = authorize::begin(Start {
        provider: &provider.settings().id,
        metadata,
        client_id: &provider.settings().client_id,
        scopes: &provider.settings().scopes,
        extra: &[],
        redirect_uri: &redirect_uri,
        return_to: ReturnTo::root(),
        state: "doctor".to_owned(),
        nonce: "doctor".to_owned(),
        verifier: "doctor-doctor-doctor-doctor-doctor-doctor-0".to_owned(),
        now: clock.now(),
        step_up: StepUp::default(),
        again: false,
        form_post: false,
        replaces: None,
    });
    match provider.try_made_up_code(metadata, &attempt).await {
        Ok(MadeUpCode::CodeRefused) => {
            report.ok("takes this client at its token endpoint (it refused a made-up code, as it should)");
        }
        Ok(MadeUpCode::ClientRefused(error)) => report.fail(
            format!("refuses this client at its token endpoint ({error})"),
            "are `client_id` and `client_secret` or `client_key` right, and is `client_auth` what the provider has for this client?",
        ),
        Ok(MadeUpCode::Unclear(answer)) => report.warn(
            format!("can't be told whether it takes this client: {answer}"),
            "sign in once and read the log",
        ),
        Err(error) => fail(error, "nobody can sign in while this lasts", report),
    }
}

fn redirect_uri(provider: &ProviderSettings, settings: &Settings) -> Option<Url> {
    let host = settings.hosts.first()?;
    host.public_url.join(&settings.gateway.paths.of(&provider.callback_path)).ok()
}

/// What can't be seen from here.
fn register(provider: &ProviderSettings, settings: &Settings, report: &mut Report<'_>) {
    let keys_published = usize::from(!provider.client.keys.is_empty());
    let places = [
        ("JWKS URI of the client", "jwks", keys_published),
        ("redirect URI", &*provider.callback_path, usize::MAX),
        ("post-logout redirect URI", "signed_out", usize::MAX),
        // The call ends the sessions of every host.
        ("back-channel logout URI", "backchannel_logout", 1),
    ];
    let front = ("front-channel logout URI, session required", "frontchannel_logout", 1);
    for (what, endpoint, hosts) in places.into_iter().chain(provider.frontchannel_logout.then_some(front)) {
        for url in settings.public_urls(&provider.id, endpoint).take(hosts) {
            report.note(format!("register there as {what}: {url}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Finding, Level};
    use super::*;
    use crate::idp::transport::reach::Reach;
    use crate::idp::transport::{Options, Transport};

    fn level_of(date_at: u64, asked_at: u64, now: u64) -> Level {
        let mut found = Vec::new();
        let mut tell = |finding: &Finding| found.push(finding.level);
        let mut report = Report { subject: String::new(), tell: &mut tell, worst: Level::Ok };
        let at = UnixTime::from_millis;
        skew(at(date_at), at(asked_at), at(now), Duration::from_secs(30), &mut report);
        found[0]
    }

    #[test]
    fn clocks_agree_within_the_seconds_that_date_can_tell() {
        let rows = [
            ("the same second", 100_000, 100_900, 101_000, Level::Ok),
            ("read while a slow answer came", 100_000, 95_000, 120_000, Level::Ok),
            ("a little behind", 90_000, 100_000, 100_100, Level::Warning),
            ("a little ahead", 110_000, 100_000, 100_100, Level::Warning),
            ("further behind than ID tokens may be", 60_000, 100_000, 100_100, Level::Failure),
            ("further ahead than ID tokens may be", 140_000, 100_000, 100_100, Level::Failure),
        ];
        for (name, date, asked_at, now, expected) in rows {
            assert_eq!(level_of(date, asked_at, now), expected, "{name}");
        }
    }

    #[tokio::test]
    async fn a_refused_address_is_told_with_the_setting_that_allows_it() {
        let reach = Reach::new("https://192.0.2.1", false);
        let options = Options { ca_file: None, timeout: Duration::from_secs(1), plain_http: true, reach };
        let transport = Transport::new(&options, Handle::current()).unwrap();
        let request = http::Request::get("http://127.0.0.1:9/jwks").body(Vec::new()).unwrap();
        let refusal = transport.send(request, 1).await.unwrap_err().to_string();
        let mut found = Vec::new();
        let mut tell = |finding: &Finding| found.push(finding.clone());
        let mut report = Report { subject: String::new(), tell: &mut tell, worst: Level::Ok };
        fail(Unavailable { reason: refusal }, "is it running?", &mut report);
        fail(Unavailable { reason: "no answer".to_owned() }, "is it running?", &mut report);
        assert!(found[0].text.starts_with("127.0.0.1 is at 127.0.0.1, an internal address"), "{}", found[0]);
        let advice = |finding: &Finding| finding.advice.clone().unwrap_or_default();
        assert!(advice(&found[0]).contains("danger_internal_addresses = true"), "{}", found[0]);
        assert_eq!(advice(&found[1]), "is it running?");
    }

    #[test]
    fn what_a_provider_lists_is_told_cleaned_and_cut() {
        assert_eq!(
            told(&["RS256", "a\u{1b}[31m", &"x".repeat(99)]),
            format!("RS256, a[31m, {}", "x".repeat(32))
        );
    }
}
