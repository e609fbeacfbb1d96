//! Tokens and their claims.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::clock::UnixTime;
use portcullis::oidc::logout_token::{self, Expected, claimed_issuer};
use portcullis::oidc::{ClientId, Issuer, Trust};
use portcullis::secret::Secret;
use portcullis::token::jws::{Jws, MAX_BYTES};
use portcullis::token::sign::SigningKey;
use portcullis::token::verify::verify;
use portcullis::token::{Algorithm, Claims, KeySet, private_key, rules};
use serde_json::json;

use super::{edited, parts};

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

/// A key set and the tokens that were signed with it.
struct Signed {
    keys: KeySet,
    tokens: Vec<String>,
}

static SIGNED: LazyLock<Signed> = LazyLock::new(|| {
    let keys: Vec<SigningKey> = [
        include_str!("../../data/keys/ed25519.pkcs8.pem"),
        include_str!("../../data/keys/p256.pkcs8.pem"),
        include_str!("../../data/keys/rsa.pkcs8.pem"),
    ]
    .map(|pem| private_key::parse(&Secret::new(pem.to_owned()), None).expect("a key"))
    .into();
    let jwks: Vec<_> = keys.iter().map(|key| key.public_jwk().expect("a public half")).collect();
    let claims = json!({
        "iss": "https://op.test", "aud": "app", "sub": "alice", "iat": 1_800_000_000, "exp": 1_800_000_060,
        "jti": "j", "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
    });
    Signed {
        keys: KeySet::parse(json!({ "keys": jwks }).to_string().as_bytes()).expect("a key set"),
        tokens: keys.iter().map(|key| key.sign(&claims).expect("a token")).collect(),
    }
});

/// Nothing verifies but a genuine token; claims of any shape are judged without a panic.
///
/// The first byte says how the rest is read: as a token, as header, payload and signature, or as changes
/// to a genuine token.
pub fn token(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    let text = match kind % 3 {
        0 => String::from_utf8_lossy(rest).into_owned(),
        1 => parts::<3>(rest).map(|part| URL_SAFE_NO_PAD.encode(part)).join("."),
        _ => {
            let genuine = &SIGNED.tokens[usize::from(kind / 3) % SIGNED.tokens.len()];
            String::from_utf8_lossy(&edited(genuine, rest)).into_owned()
        }
    };
    check_token(&text);
    if let Ok(claims) = Claims::parse(rest) {
        judge(&claims);
    }
}

fn check_token(text: &str) {
    let signed = &*SIGNED;
    let is_genuine = |text: &str| signed.tokens.iter().any(|token| token == text);
    let verified = verify(text, &signed.keys, &Algorithm::ALL);
    // A signature on a curve can be mirrored into another one; what it signs stays the same.
    let signs_the_same = signed.tokens.iter().any(|token| signing_input(token) == signing_input(text));
    assert!(verified.is_err() || signs_the_same, "a forged token verifies: {text}");
    assert!(verified.is_ok() || !is_genuine(text), "a genuine token does not verify");
    assert!(verify(text, &signed.keys, &[]).is_err(), "no algorithm is allowed");
    assert!(verify(text, &KeySet::default(), &Algorithm::ALL).is_err(), "there is no key");
    if let Ok(jws) = Jws::parse(text) {
        assert!(text.len() <= MAX_BYTES && text.matches('.').count() == 2);
        assert_eq!(format!("{}.{}", jws.signing_input, jws.signature), text);
    }
    let _ = claimed_issuer(text);
    check_logout_token(text, signs_the_same);
}

fn signing_input(token: &str) -> Option<&str> {
    token.rsplit_once('.').map(|(input, _)| input)
}

fn check_logout_token(text: &str, genuine: bool) {
    let (issuer, client_id) = (Issuer("https://op.test".into()), ClientId("app".into()));
    let trust = Trust {
        issuer: &issuer,
        client_id: &client_id,
        trusted_audiences: &[],
        algorithms: &Algorithm::ALL,
        leeway: Duration::from_secs(30),
    };
    let raw = Secret::new(text.to_owned());
    let heard = logout_token::verify(&raw, &SIGNED.keys, &Expected { trust, strict: false }, NOW);
    assert!(heard.is_err() || genuine, "a forged logout token is believed: {text}");
}

/// Every rule over claims of any shape.
fn judge(claims: &Claims) {
    let leeway = Duration::from_mins(1);
    let trusted: [Arc<str>; 1] = ["api".into()];
    for now in [UnixTime::from_secs(0), NOW, UnixTime::MAX] {
        let _ = rules::expiry(claims, now, leeway);
        let _ = rules::issued_at(claims, now, leeway, Duration::MAX);
        let _ = rules::not_before(claims, now, leeway);
    }
    if rules::audience(claims, "app", &trusted).is_ok() {
        let audience = claims.value("aud").expect("it was accepted");
        let text = audience.to_string();
        assert!(text.contains("\"app\""), "{text}");
    }
    if let Ok(subject) = rules::subject(claims) {
        assert!((1..=255).contains(&subject.len()) && subject.is_ascii());
    }
    let _ = (rules::issuer(claims, "https://op.test"), rules::authorized_party(claims, "app"));
    let _ = (rules::nonce(claims, "n"), rules::no_events(claims), rules::logout_event(claims));
    let _ = rules::half_hash(claims, "at_hash", "token", Algorithm::RS256);
}
