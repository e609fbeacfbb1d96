//! Key sets: parsed key by key from raw JSON, so that one odd key never spoils the set.
//!
//! Only public keys that can verify one of [`Algorithm`]'s signatures are kept. A symmetric key is never
//! kept, so that no published key can ever serve as a MAC key (ID-2).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use super::claims::Claims;
use super::jws::MAX_KID_BYTES;
use super::verify::Algorithm;

/// The most bytes of a key set.
pub const MAX_BYTES: usize = 512 * 1024;

/// The most keys of a set, usable or not; large providers publish about ten.
pub const MAX_KEYS: usize = 100;

/// The fewest and the most bits of an RSA modulus: below is too weak (ID-5), above only costs time.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The usable verification keys of one provider.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Vec<PublicKey>,
    passed_over: Vec<Unusable>,
}

/// A public key, prepared for verifying.
#[derive(Clone)]
pub struct PublicKey {
    kid: Option<String>,
    algorithm: Option<Algorithm>,
    kind: Kind,
    prepared: DecodingKey,
}

/// Why a key of a set was passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unusable {
    /// Not an object, or a member missing, of a wrong type or not decodable.
    Malformed,
    /// Another `kty` than RSA, EC and OKP; `oct` among them.
    KeyType,
    /// Another curve than P-256, P-384 and Ed25519; `secp256k1` among them.
    Curve,
    /// `use` is not `sig`, or `key_ops` has no `verify`.
    Purpose,
    /// `alg` is none of [`Algorithm`], or none that this kind of key can do.
    Algorithm,
    /// An RSA key of fewer than 2048 or more than 8192 bits, or with an exponent of 1 or an even one.
    Strength,
}

/// Why bytes are no key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Over [`MAX_BYTES`].
    #[error("the key set is larger than 512 KiB")]
    TooLarge,
    /// Over [`MAX_KEYS`].
    #[error("the key set has {0} keys, more than 100")]
    TooManyKeys(usize),
    /// RFC 7517 5: not an object with an array `keys`.
    #[error("the key set is not a JSON object with an array `keys`")]
    Malformed,
}

/// A kind of key; it says which algorithms it can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl KeySet {
    /// Reads a key set (RFC 7517 5). Keys that can't be used are passed over and counted.
    ///
    /// # Errors
    /// [`KeySetError`] when it is no key set at all, or too large a one.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeySetError> {
        if bytes.len() > MAX_BYTES {
            return Err(KeySetError::TooLarge);
        }
        let document = Claims::parse(bytes).or(Err(KeySetError::Malformed))?;
        let keys = document.value("keys").and_then(Value::as_array).ok_or(KeySetError::Malformed)?;
        if keys.len() > MAX_KEYS {
            return Err(KeySetError::TooManyKeys(keys.len()));
        }
        Ok(keys.iter().map(PublicKey::read).collect())
    }

    /// How many keys can be used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether a key of it can verify an algorithm's signatures.
    #[must_use]
    pub fn serves(&self, algorithm: Algorithm) -> bool {
        self.candidates(None, algorithm).next().is_some()
    }

    /// Whether no key can be used.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Why keys were passed over, one entry for each.
    #[must_use]
    pub fn passed_over(&self) -> &[Unusable] {
        &self.passed_over
    }

    /// The keys that a token with this `kid` (or none) and this algorithm may have been signed with (ID-3).
    pub(super) fn candidates<'a>(
        &'a self,
        kid: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a PublicKey> {
        self.keys
            .iter()
            .filter(move |key| kid.is_none() || key.kid.as_deref() == kid)
            .filter(move |key| key.fits(algorithm))
    }
}

impl FromIterator<Result<PublicKey, Unusable>> for KeySet {
    fn from_iter<I: IntoIterator<Item = Result<PublicKey, Unusable>>>(keys: I) -> Self {
        let mut set = Self::default();
        for key in keys {
            match key {
                Ok(key) => set.keys.push(key),
                Err(reason) => set.passed_over.push(reason),
            }
        }
        set
    }
}

impl PublicKey {
    /// The key as `jsonwebtoken` wants it.
    pub(super) const fn prepared(&self) -> &DecodingKey {
        &self.prepared
    }

    fn read(value: &Value) -> Result<Self, Unusable> {
        let jwk = value.as_object().ok_or(Unusable::Malformed)?;
        check_purpose(jwk)?;
        let (kind, prepared) = match required(jwk, "kty")? {
            "RSA" => rsa(jwk)?,
            "EC" => elliptic(jwk)?,
            "OKP" => edwards(jwk)?,
            _ => return Err(Unusable::KeyType),
        };
        Ok(Self { kid: key_id(jwk)?, algorithm: pinned(jwk, kind)?, kind, prepared })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        self.kind.does(algorithm) && self.algorithm.is_none_or(|pinned| pinned == algorithm)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} key {:?}", self.kind, self.kid)
    }
}

impl Kind {
    pub(super) const fn does(self, algorithm: Algorithm) -> bool {
        match algorithm {
            Algorithm::RS256
            | Algorithm::RS384
            | Algorithm::RS512
            | Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512 => matches!(self, Self::Rsa),
            Algorithm::ES256 => matches!(self, Self::P256),
            Algorithm::ES384 => matches!(self, Self::P384),
            Algorithm::EdDSA => matches!(self, Self::Ed25519),
        }
    }
}

/// RFC 7517 4.2 and 4.3: `use` and `key_ops` say what a key is for; absent, they allow everything.
fn check_purpose(jwk: &Map<String, Value>) -> Result<(), Unusable> {
    let signs = optional(jwk, "use")?.is_none_or(|purpose| purpose == "sig");
    let verifies = match jwk.get("key_ops") {
        None => true,
        Some(Value::Array(operations)) => operations.iter().any(|operation| operation == "verify"),
        Some(_) => return Err(Unusable::Malformed),
    };
    if signs && verifies { Ok(()) } else { Err(Unusable::Purpose) }
}

fn rsa(jwk: &Map<String, Value>) -> Result<(Kind, DecodingKey), Unusable> {
    let modulus = integer(jwk, "n")?;
    let exponent = integer(jwk, "e")?;
    if !RSA_BITS.contains(&bit_length(&modulus)) || !is_sound_exponent(&exponent) {
        return Err(Unusable::Strength);
    }
    Ok((Kind::Rsa, DecodingKey::from_rsa_raw_components(&modulus, &exponent)))
}

fn elliptic(jwk: &Map<String, Value>) -> Result<(Kind, DecodingKey), Unusable> {
    let (kind, coordinate_bytes) = match required(jwk, "crv")? {
        "P-256" => (Kind::P256, 32),
        "P-384" => (Kind::P384, 48),
        _ => return Err(Unusable::Curve),
    };
    // SEC 1, 2.3.3: an uncompressed point. Whether it lies on the curve is checked at each verification.
    let mut point = vec![0x04];
    point.extend(fixed(jwk, "x", coordinate_bytes)?);
    point.extend(fixed(jwk, "y", coordinate_bytes)?);
    Ok((kind, DecodingKey::from_ec_der(&point)))
}

fn edwards(jwk: &Map<String, Value>) -> Result<(Kind, DecodingKey), Unusable> {
    if required(jwk, "crv")? != "Ed25519" {
        return Err(Unusable::Curve);
    }
    Ok((Kind::Ed25519, DecodingKey::from_ed_der(&fixed(jwk, "x", 32)?)))
}

fn key_id(jwk: &Map<String, Value>) -> Result<Option<String>, Unusable> {
    let kid = optional(jwk, "kid")?;
    if kid.is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
        return Err(Unusable::Malformed);
    }
    Ok(kid.map(str::to_owned))
}

/// RFC 7517 4.4: a key with an `alg` is for that algorithm alone.
fn pinned(jwk: &Map<String, Value>, kind: Kind) -> Result<Option<Algorithm>, Unusable> {
    let Some(name) = optional(jwk, "alg")? else { return Ok(None) };
    let algorithm = Algorithm::find(name).filter(|algorithm| kind.does(*algorithm));
    algorithm.map(Some).ok_or(Unusable::Algorithm)
}

pub(super) fn optional<'a>(jwk: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Unusable> {
    jwk.get(name).map(|value| value.as_str().ok_or(Unusable::Malformed)).transpose()
}

pub(super) fn required<'a>(jwk: &'a Map<String, Value>, name: &str) -> Result<&'a str, Unusable> {
    optional(jwk, name)?.ok_or(Unusable::Malformed)
}

pub(super) fn bytes(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, Unusable> {
    URL_SAFE_NO_PAD.decode(required(jwk, name)?).or(Err(Unusable::Malformed))
}

pub(super) fn fixed(jwk: &Map<String, Value>, name: &str, length: usize) -> Result<Vec<u8>, Unusable> {
    Some(bytes(jwk, name)?).filter(|bytes| bytes.len() == length).ok_or(Unusable::Malformed)
}

/// A big-endian integer without leading zeros; some providers write one for the sign.
pub(super) fn integer(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, Unusable> {
    Ok(bytes(jwk, name)?.into_iter().skip_while(|byte| *byte == 0).collect())
}

fn bit_length(integer: &[u8]) -> usize {
    let unused = integer.first().map_or(0, |first| first.leading_zeros() as usize);
    integer.len() * 8 - unused
}

/// With an exponent of 1 every signature holds; even ones are no RSA; four bytes hold all in use.
fn is_sound_exponent(exponent: &[u8]) -> bool {
    let odd = exponent.last().is_some_and(|last| last % 2 == 1);
    odd && exponent != [1] && exponent.len() <= 4
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn number(bits: usize) -> String {
        let mut bytes = vec![0xff; bits.div_ceil(8)];
        bytes[0] >>= (8 - bits % 8) % 8;
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn zeros_and(bits: usize) -> String {
        URL_SAFE_NO_PAD.encode([vec![0; 200], vec![0xff; bits / 8]].concat())
    }

    fn rsa(bits: usize) -> Value {
        json!({"kty": "RSA", "n": number(bits), "e": "AQAB"})
    }

    fn ec() -> Value {
        json!({"kty": "EC", "crv": "P-256", "x": number(256), "y": number(256)})
    }

    fn with(mut jwk: Value, member: &str, value: Value) -> Value {
        jwk.as_object_mut().unwrap().insert(member.to_owned(), value);
        jwk
    }

    fn parse(keys: &[Value]) -> KeySet {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn an_unusable_key_is_passed_over_with_its_reason() {
        let rows = [
            ("oct", json!({"kty": "oct", "k": "c2VjcmV0"}), Unusable::KeyType),
            ("unknown kty", json!({"kty": "AKP"}), Unusable::KeyType),
            ("no kty", json!({"n": "AQAB"}), Unusable::Malformed),
            ("string", json!("key"), Unusable::Malformed),
            ("null", Value::Null, Unusable::Malformed),
            ("secp256k1", with(ec(), "crv", json!("secp256k1")), Unusable::Curve),
            ("Ed448", json!({"kty": "OKP", "crv": "Ed448", "x": number(456)}), Unusable::Curve),
            ("X25519", json!({"kty": "OKP", "crv": "X25519", "x": number(256)}), Unusable::Curve),
            ("short coordinate", with(ec(), "x", json!(number(248))), Unusable::Malformed),
            ("coordinate with padding", with(ec(), "x", json!("AQ==")), Unusable::Malformed),
            ("TK-115 RSA 1024", rsa(1024), Unusable::Strength),
            ("RSA 2047", rsa(2047), Unusable::Strength),
            ("RSA 8193", rsa(8193), Unusable::Strength),
            ("RSA 1024 behind zeros", with(rsa(1024), "n", json!(zeros_and(1024))), Unusable::Strength),
            ("exponent 1", with(rsa(2048), "e", json!("AQ")), Unusable::Strength),
            ("exponent 2", with(rsa(2048), "e", json!("Ag")), Unusable::Strength),
            ("exponent empty", with(rsa(2048), "e", json!("")), Unusable::Strength),
            ("modulus number", with(rsa(2048), "n", json!(5)), Unusable::Malformed),
            ("use enc", with(rsa(2048), "use", json!("enc")), Unusable::Purpose),
            ("key_ops encrypt", with(rsa(2048), "key_ops", json!(["encrypt"])), Unusable::Purpose),
            ("key_ops empty", with(rsa(2048), "key_ops", json!([])), Unusable::Purpose),
            ("key_ops string", with(rsa(2048), "key_ops", json!("verify")), Unusable::Malformed),
            ("alg RSA-OAEP", with(rsa(2048), "alg", json!("RSA-OAEP")), Unusable::Algorithm),
            ("alg HS256", with(rsa(2048), "alg", json!("HS256")), Unusable::Algorithm),
            ("alg of another kind of key", with(ec(), "alg", json!("RS256")), Unusable::Algorithm),
            ("alg null", with(ec(), "alg", Value::Null), Unusable::Malformed),
            ("kid number", with(ec(), "kid", json!(1)), Unusable::Malformed),
            ("kid of 257 bytes", with(ec(), "kid", json!("k".repeat(257))), Unusable::Malformed),
        ];
        for (name, jwk, reason) in rows {
            let set = parse(&[jwk, rsa(2048)]);
            assert_eq!(set.passed_over(), [reason], "{name}");
            assert_eq!(set.len(), 1, "{name} spoils the set");
        }
    }

    #[test]
    fn usable_keys_are_kept() {
        let rows = [
            ("RSA 2048", rsa(2048)),
            ("RSA 8192", rsa(8192)),
            (
                "a leading zero",
                with(rsa(2048), "n", json!(URL_SAFE_NO_PAD.encode([&[0][..], &[255; 256]].concat()))),
            ),
            ("P-256", ec()),
            ("P-384", json!({"kty": "EC", "crv": "P-384", "x": number(384), "y": number(384)})),
            ("Ed25519", json!({"kty": "OKP", "crv": "Ed25519", "x": number(256)})),
            (
                "with all members",
                json!({"kty": "RSA", "n": number(2048), "e": "AQAB", "use": "sig",
                "key_ops": ["verify", "sign"], "alg": "RS256", "kid": "k", "x5c": [], "unknown": {}}),
            ),
        ];
        for (name, jwk) in rows {
            let set = parse(&[jwk]);
            assert_eq!((set.len(), set.passed_over()), (1, &[][..]), "{name}");
        }
    }

    #[test]
    fn what_is_no_key_set_is_refused_whole() {
        let many = json!({"keys": vec![json!({}); MAX_KEYS + 1]}).to_string();
        let large = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(MAX_BYTES));
        let rows = [
            ("no JSON", "<html>", KeySetError::Malformed),
            ("array", "[]", KeySetError::Malformed),
            ("no keys", "{}", KeySetError::Malformed),
            ("keys is an object", r#"{"keys":{}}"#, KeySetError::Malformed),
            ("keys twice", r#"{"keys":[],"keys":[]}"#, KeySetError::Malformed),
            ("AX-235 too many keys", &many, KeySetError::TooManyKeys(MAX_KEYS + 1)),
            ("AX-235 too large", &large, KeySetError::TooLarge),
        ];
        for (name, bytes, error) in rows {
            assert_eq!(KeySet::parse(bytes.as_bytes()).unwrap_err(), error, "{name}");
        }
        assert!(KeySet::parse(br#"{"keys":[]}"#).unwrap().is_empty());
    }
}
