//! The client's private keys: read from the text of a PEM or JWK file.
//!
//! What is read is only ever signed with. The public half is [`SigningKey::public_jwk`].

use aws_lc_rs::rsa::{KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::claims::Claims;
use super::jwk::{Kind, Unusable, bytes, fixed, integer, optional, required};
use super::jws::MAX_KID_BYTES;
use super::sign::{SigningKey, rsa_key};
use super::verify::Algorithm;
use crate::secret::Secret;

/// Why a text is no private key. No variant holds any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrivateKeyError {
    /// Neither PEM nor JWK.
    #[error("holds no private key: wanted is PEM (PKCS #8, PKCS #1 or SEC 1, not encrypted) or one JWK")]
    Malformed,
    /// A JWK of the public half.
    #[error("holds a public key only")]
    Public,
    /// A key that is not consistent, too weak, or of another kind.
    #[error("holds no usable key: wanted is RSA with 2048 to 8192 bits, P-256, P-384 or Ed25519")]
    Kind,
    /// The JWK says that it is for something else than signing.
    #[error("holds a key that is not for signatures (`use` or `key_ops`)")]
    Purpose,
    /// The algorithm is not one of this kind of key.
    #[error("holds a key that can't sign with that algorithm")]
    Algorithm,
}

/// A pair, its kind, and what its JWK says of it.
struct Found {
    kind: Kind,
    key: EncodingKey,
    algorithm: Option<Algorithm>,
    kid: Option<String>,
}

/// Reads a private key.
///
/// It signs with `algorithm`; without one, with the `alg` of its JWK, else with RS256, ES256, ES384 or EdDSA.
/// Its `kid` is that of its JWK, else its thumbprint (RFC 7638), so that everybody who has the public half
/// comes to the same name.
///
/// # Errors
/// [`PrivateKeyError`].
pub fn parse(text: &Secret<String>, algorithm: Option<Algorithm>) -> Result<SigningKey, PrivateKeyError> {
    let text = text.expose().trim();
    let Found { kind, key, algorithm: own, kid } =
        if text.starts_with('{') { from_jwk(text)? } else { from_pem(text)? };
    let algorithm = algorithm.or(own).unwrap_or(kind.usual_algorithm());
    if !kind.does(algorithm) {
        return Err(PrivateKeyError::Algorithm);
    }
    let kid = match kid {
        Some(kid) => kid,
        None => thumbprint(&SigningKey::new(algorithm, None, key.clone()))?,
    };
    Ok(SigningKey::new(algorithm, Some(kid), key))
}

impl Kind {
    /// What a key signs with where nothing else is said: what every provider can verify.
    const fn usual_algorithm(self) -> Algorithm {
        match self {
            Self::Rsa => Algorithm::RS256,
            Self::P256 => Algorithm::ES256,
            Self::P384 => Algorithm::ES384,
            Self::Ed25519 => Algorithm::EdDSA,
        }
    }
}

fn from_pem(text: &str) -> Result<Found, PrivateKeyError> {
    let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).or(Err(PrivateKeyError::Malformed))?;
    let pair = match &der {
        PrivateKeyDer::Pkcs1(der) => {
            RsaKeyPair::from_der(der.secret_pkcs1_der()).ok().and_then(|key| rsa(&key))
        }
        PrivateKeyDer::Sec1(der) => elliptic(der.secret_sec1_der()),
        PrivateKeyDer::Pkcs8(der) => from_pkcs8(der.secret_pkcs8_der()),
        _ => None,
    };
    let (kind, key) = pair.ok_or(PrivateKeyError::Kind)?;
    Ok(Found { kind, key, algorithm: None, kid: None })
}

/// The kind of key stands in the bytes: only one of these takes them.
fn from_pkcs8(der: &[u8]) -> Option<(Kind, EncodingKey)> {
    if let Ok(pair) = RsaKeyPair::from_pkcs8(der) {
        return rsa(&pair);
    }
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8(der) {
        return edwards(&pair);
    }
    elliptic(der)
}

fn rsa(pair: &RsaKeyPair) -> Option<(Kind, EncodingKey)> {
    Some((Kind::Rsa, rsa_key(pair).ok()?))
}

fn elliptic(der: &[u8]) -> Option<(Kind, EncodingKey)> {
    let on = |curve| EcdsaKeyPair::from_private_key_der(curve, der).ok();
    match on(&ECDSA_P256_SHA256_FIXED_SIGNING) {
        Some(pair) => pkcs8(Kind::P256, &pair),
        None => pkcs8(Kind::P384, &on(&ECDSA_P384_SHA384_FIXED_SIGNING)?),
    }
}

fn pkcs8(kind: Kind, pair: &EcdsaKeyPair) -> Option<(Kind, EncodingKey)> {
    Some((kind, EncodingKey::from_ec_der(pair.to_pkcs8v1().ok()?.as_ref())))
}

fn edwards(pair: &Ed25519KeyPair) -> Option<(Kind, EncodingKey)> {
    Some((Kind::Ed25519, EncodingKey::from_ed_der(pair.to_pkcs8v1().ok()?.as_ref())))
}

/// RFC 7517 and RFC 7518 6: the public members have to be there and to fit the private ones.
fn from_jwk(text: &str) -> Result<Found, PrivateKeyError> {
    let jwk = Claims::parse(text.as_bytes()).or(Err(PrivateKeyError::Malformed))?.into_object();
    check_purpose(&jwk)?;
    let pair = match required(&jwk, "kty")? {
        "RSA" => rsa_from_jwk(&jwk)?,
        "EC" => elliptic_from_jwk(&jwk)?,
        "OKP" => edwards_from_jwk(&jwk)?,
        _ => None,
    };
    let (kind, key) = pair.ok_or(PrivateKeyError::Kind)?;
    let algorithm = match optional(&jwk, "alg")? {
        Some(name) => Some(Algorithm::find(name).ok_or(PrivateKeyError::Algorithm)?),
        None => None,
    };
    Ok(Found { kind, key, algorithm, kid: key_id(&jwk)? })
}

impl From<Unusable> for PrivateKeyError {
    fn from(_: Unusable) -> Self {
        Self::Malformed
    }
}

fn check_purpose(jwk: &Map<String, Value>) -> Result<(), PrivateKeyError> {
    if !jwk.contains_key("d") {
        return Err(PrivateKeyError::Public);
    }
    let signs = optional(jwk, "use")?.is_none_or(|purpose| purpose == "sig");
    let may_sign = match jwk.get("key_ops") {
        None => true,
        Some(operations) => operations.as_array().is_some_and(|list| list.iter().any(|one| one == "sign")),
    };
    if signs && may_sign { Ok(()) } else { Err(PrivateKeyError::Purpose) }
}

fn key_id(jwk: &Map<String, Value>) -> Result<Option<String>, PrivateKeyError> {
    match optional(jwk, "kid")? {
        Some(kid) if kid.is_empty() || kid.len() > MAX_KID_BYTES => Err(PrivateKeyError::Malformed),
        kid => Ok(kid.map(str::to_owned)),
    }
}

type Pair = Result<Option<(Kind, EncodingKey)>, PrivateKeyError>;

fn private(jwk: &Map<String, Value>, name: &str) -> Result<Zeroizing<Vec<u8>>, PrivateKeyError> {
    Ok(Zeroizing::new(bytes(jwk, name)?))
}

fn rsa_from_jwk(jwk: &Map<String, Value>) -> Pair {
    let components = KeyPairComponents {
        public_key: PublicKeyComponents { n: integer(jwk, "n")?, e: integer(jwk, "e")? },
        d: private(jwk, "d")?,
        p: private(jwk, "p")?,
        q: private(jwk, "q")?,
        dP: private(jwk, "dp")?,
        dQ: private(jwk, "dq")?,
        qInv: private(jwk, "qi")?,
    };
    Ok(RsaKeyPair::from_components(&components).ok().and_then(|pair| rsa(&pair)))
}

fn elliptic_from_jwk(jwk: &Map<String, Value>) -> Pair {
    let (kind, curve, length): (_, &'static EcdsaSigningAlgorithm, _) = match required(jwk, "crv")? {
        "P-256" => (Kind::P256, &ECDSA_P256_SHA256_FIXED_SIGNING, 32),
        "P-384" => (Kind::P384, &ECDSA_P384_SHA384_FIXED_SIGNING, 48),
        _ => return Ok(None),
    };
    let mut point = vec![0x04];
    point.extend(fixed(jwk, "x", length)?);
    point.extend(fixed(jwk, "y", length)?);
    let scalar = Zeroizing::new(fixed(jwk, "d", length)?);
    let pair = EcdsaKeyPair::from_private_key_and_public_key(curve, &scalar, &point);
    Ok(pair.ok().and_then(|pair| pkcs8(kind, &pair)))
}

fn edwards_from_jwk(jwk: &Map<String, Value>) -> Pair {
    if required(jwk, "crv")? != "Ed25519" {
        return Ok(None);
    }
    let seed = Zeroizing::new(fixed(jwk, "d", 32)?);
    let pair = Ed25519KeyPair::from_seed_and_public_key(&seed, &fixed(jwk, "x", 32)?);
    Ok(pair.ok().and_then(|pair| edwards(&pair)))
}

/// RFC 7638 3: SHA-256 over the required members of the public key, in the order of their names, without
/// white space.
fn thumbprint(key: &SigningKey) -> Result<String, PrivateKeyError> {
    let jwk = key.public_jwk().or(Err(PrivateKeyError::Kind))?;
    let member = |name: &&str| jwk.get(*name).map(|value| format!("\"{name}\":{value}"));
    let members: Vec<_> = ["crv", "e", "kty", "n", "x", "y"].iter().filter_map(member).collect();
    Ok(URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{{{}}}", members.join(",")))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::token::KeySet;
    use crate::token::verify::verify;

    // RFC 8037, appendix A.1 and A.3.
    const ED25519: &str = r#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    const ED25519_THUMBPRINT: &str = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";

    const FILES: [(&str, &str, Algorithm); 8] = [
        ("PKCS #8, RSA", include_str!("../../tests/data/keys/rsa.pkcs8.pem"), Algorithm::RS256),
        ("PKCS #1, RSA", include_str!("../../tests/data/keys/rsa.pkcs1.pem"), Algorithm::RS256),
        ("PKCS #8, P-256", include_str!("../../tests/data/keys/p256.pkcs8.pem"), Algorithm::ES256),
        (
            "SEC 1 behind its parameters, P-256",
            include_str!("../../tests/data/keys/p256.sec1.pem"),
            Algorithm::ES256,
        ),
        ("PKCS #8, P-384", include_str!("../../tests/data/keys/p384.pkcs8.pem"), Algorithm::ES384),
        ("PKCS #8, Ed25519", include_str!("../../tests/data/keys/ed25519.pkcs8.pem"), Algorithm::EdDSA),
        ("JWK, RSA", include_str!("../../tests/data/keys/rsa.jwk.json"), Algorithm::RS256),
        ("JWK, P-256", include_str!("../../tests/data/keys/p256.jwk.json"), Algorithm::ES256),
    ];

    fn read(text: &str, algorithm: Option<Algorithm>) -> Result<SigningKey, PrivateKeyError> {
        parse(&Secret::new(text.to_owned()), algorithm)
    }

    fn file(name: &str) -> &'static str {
        FILES.iter().find(|(found, ..)| *found == name).unwrap().1
    }

    fn jwk(name: &str, change: impl FnOnce(&mut Map<String, Value>)) -> String {
        let mut jwk: Value = serde_json::from_str(file(name)).unwrap();
        change(jwk.as_object_mut().unwrap());
        jwk.to_string()
    }

    #[test]
    fn every_form_of_key_signs_what_its_public_half_verifies() {
        let jwk = ("JWK, Ed25519", ED25519, Algorithm::EdDSA);
        for (name, text, algorithm) in FILES.into_iter().chain([jwk]) {
            let key = read(text, None).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(key.algorithm(), algorithm, "{name}");
            let public = key.public_jwk().unwrap();
            assert!(public["kid"].is_string() && public.get("d").is_none(), "{name}");
            let set = KeySet::parse(json!({ "keys": [public] }).to_string().as_bytes()).unwrap();
            let token = key.sign(&json!({ "sub": "client" })).unwrap();
            verify(&token, &set, &[algorithm]).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    #[test]
    fn the_key_id_is_the_thumbprint_unless_the_jwk_has_one() {
        let key = read(ED25519, None).unwrap();
        assert_eq!(key.public_jwk().unwrap()["kid"], ED25519_THUMBPRINT, "RFC 8037 A.3");
        let named = read(&jwk("JWK, P-256", |jwk| drop(jwk.insert("kid".into(), json!("mine")))), None);
        assert_eq!(named.unwrap().public_jwk().unwrap()["kid"], "mine");
        let kid = |name| read(file(name), None).unwrap().public_jwk().unwrap()["kid"].clone();
        assert_eq!(kid("PKCS #8, RSA"), kid("PKCS #1, RSA"), "one key has one name in every form");
        assert_eq!(kid("PKCS #8, RSA"), kid("JWK, RSA"));
    }

    #[test]
    fn the_algorithm_is_the_set_one_or_that_of_the_jwk() {
        let pinned = jwk("JWK, RSA", |jwk| drop(jwk.insert("alg".into(), json!("PS384"))));
        let rows = [
            ("set", file("PKCS #8, RSA"), Some(Algorithm::PS256), Ok(Algorithm::PS256)),
            ("of the JWK", &pinned, None, Ok(Algorithm::PS384)),
            ("set over that of the JWK", &pinned, Some(Algorithm::RS512), Ok(Algorithm::RS512)),
            (
                "of another kind of key",
                file("PKCS #8, RSA"),
                Some(Algorithm::ES256),
                Err(PrivateKeyError::Algorithm),
            ),
            (
                "of another curve",
                file("PKCS #8, P-384"),
                Some(Algorithm::ES256),
                Err(PrivateKeyError::Algorithm),
            ),
        ];
        for (name, text, algorithm, wanted) in rows {
            assert_eq!(read(text, algorithm).map(|key| key.algorithm()), wanted, "{name}");
        }
    }

    #[test]
    fn what_is_no_private_key_is_refused_without_repeating_it() {
        let with = |name: &'static str, value: Value| {
            jwk("JWK, P-256", |jwk| drop(jwk.insert(name.to_owned(), value)))
        };
        let other_d = jwk("JWK, RSA", |jwk| drop(jwk.insert("d".into(), json!("AQAB"))));
        let weak = include_str!("../../tests/data/keys/rsa1024.pem");
        let rows = [
            ("empty", String::new(), PrivateKeyError::Malformed),
            ("text", "hunter2".to_owned(), PrivateKeyError::Malformed),
            ("cut off", file("PKCS #8, RSA").chars().take(400).collect(), PrivateKeyError::Malformed),
            (
                "a certificate",
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
                PrivateKeyError::Malformed,
            ),
            ("RSA 1024", weak.to_owned(), PrivateKeyError::Kind),
            ("public JWK", jwk("JWK, RSA", |jwk| drop(jwk.remove("d"))), PrivateKeyError::Public),
            ("halves that don't fit", other_d, PrivateKeyError::Kind),
            ("another point", with("x", json!("A".repeat(43))), PrivateKeyError::Kind),
            ("unknown curve", with("crv", json!("secp256k1")), PrivateKeyError::Kind),
            ("unknown kind", with("kty", json!("AKP")), PrivateKeyError::Kind),
            ("symmetric", with("kty", json!("oct")), PrivateKeyError::Kind),
            ("for encryption", with("use", json!("enc")), PrivateKeyError::Purpose),
            ("for verifying", with("key_ops", json!(["verify"])), PrivateKeyError::Purpose),
            ("for HS256", with("alg", json!("HS256")), PrivateKeyError::Algorithm),
            ("kid number", with("kid", json!(5)), PrivateKeyError::Malformed),
            ("d number", with("d", json!(5)), PrivateKeyError::Malformed),
            ("a member twice", r#"{"kty":"EC","kty":"EC"}"#.to_owned(), PrivateKeyError::Malformed),
        ];
        for (name, text, wanted) in rows {
            let error = read(&text, None).unwrap_err();
            assert_eq!(error, wanted, "{name}");
            assert!(!error.to_string().contains("hunter2"), "{name}");
        }
    }
}
