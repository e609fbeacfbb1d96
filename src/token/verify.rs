//! One verifier for every signature.
//!
//! `jsonwebtoken` does the cryptography and nothing else: which algorithm may be used, which key fits,
//! and every claim rule is decided here and in [`super::rules`].

use jsonwebtoken::Algorithm as Jwa;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::claims::Claims;
use super::jwk::{KeySet, PublicKey};
use super::jws::{Jws, JwsError};
use super::printable;

/// How many keys are tried for a token that names none: more signatures than any provider has keys in
/// use at one time, and few enough that a token costs less than a millisecond.
const MAX_TRIES: usize = 16;

/// A signature algorithm that a provider may be pinned to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs, reason = "the names are those of RFC 7518 3.1 and RFC 8037 3.1")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
    ];

    /// The algorithm of this exact name; `None` for all others, `none` and `HS256` among them (ID-2).
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// Its name in a JOSE header.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }

    /// The hash that the algorithm uses, for `at_hash` and `c_hash` (Core 3.1.3.6). Of the EdDSA curves
    /// only Ed25519 is accepted, and its hash is SHA-512 (RFC 8032 5.1).
    #[must_use]
    pub fn hash(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::RS256 | Self::PS256 | Self::ES256 => Sha256::digest(bytes).to_vec(),
            Self::RS384 | Self::PS384 | Self::ES384 => Sha384::digest(bytes).to_vec(),
            Self::RS512 | Self::PS512 | Self::EdDSA => Sha512::digest(bytes).to_vec(),
        }
    }

    pub(super) const fn jwa(self) -> Jwa {
        match self {
            Self::RS256 => Jwa::RS256,
            Self::RS384 => Jwa::RS384,
            Self::RS512 => Jwa::RS512,
            Self::PS256 => Jwa::PS256,
            Self::PS384 => Jwa::PS384,
            Self::PS512 => Jwa::PS512,
            Self::ES256 => Jwa::ES256,
            Self::ES384 => Jwa::ES384,
            Self::EdDSA => Jwa::EdDSA,
        }
    }
}

/// A token whose signature holds. Its claims are not checked yet: that is for [`super::rules`].
#[derive(Debug)]
pub struct Verified {
    /// The payload.
    pub claims: Claims,
    /// The algorithm that it was signed with.
    pub algorithm: Algorithm,
    /// The header's `typ`.
    pub typ: Option<String>,
}

/// Why a token is not accepted. No variant holds the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// No token at all.
    #[error(transparent)]
    Malformed(#[from] JwsError),
    /// ID-2: `none`, a MAC, or an algorithm that the provider is not pinned to.
    #[error("algorithm {0:?} is not allowed")]
    Algorithm(String),
    /// No key of the set fits: one that was published since may.
    #[error("no published key fits the token (kid {kid:?})")]
    NoKey {
        /// The token's key id, cut and cleaned.
        kid: Option<String>,
    },
    /// The key fits and the signature does not.
    #[error("the signature is wrong")]
    Signature,
    /// What is signed is no JSON object.
    #[error("the token's payload is not a JSON object")]
    Payload,
}

/// Verifies a token's signature with one of `keys` and one of `algorithms`.
///
/// Core 3.1.3.7 (6)-(8), RFC 8725 3.1 and 3.2: the algorithm comes from the allow-list, never from the
/// token or the key alone. With a `kid` only keys of that name are tried; without one, all that fit the
/// algorithm, up to sixteen.
///
/// # Errors
/// [`VerifyError`]. A token without `kid` that none of the fitting keys verifies is
/// [`VerifyError::NoKey`]: nothing tells it from one that was signed with a newer key.
pub fn verify(token: &str, keys: &KeySet, algorithms: &[Algorithm]) -> Result<Verified, VerifyError> {
    let jws = Jws::parse(token)?;
    let algorithm = allowed(&jws.alg, algorithms)?;
    verify_signature(&jws, algorithm, keys)?;
    let claims = Claims::parse(&jws.payload).or(Err(VerifyError::Payload))?;
    Ok(Verified { claims, algorithm, typ: jws.typ })
}

fn allowed(name: &str, algorithms: &[Algorithm]) -> Result<Algorithm, VerifyError> {
    Algorithm::find(name)
        .filter(|algorithm| algorithms.contains(algorithm))
        .ok_or_else(|| VerifyError::Algorithm(printable(name, 32)))
}

fn verify_signature(jws: &Jws<'_>, algorithm: Algorithm, keys: &KeySet) -> Result<(), VerifyError> {
    let mut candidates = keys.candidates(jws.kid.as_deref(), algorithm).take(MAX_TRIES).peekable();
    let none_fits = candidates.peek().is_none();
    if candidates.any(|key| signature_holds(jws, algorithm, key)) {
        return Ok(());
    }
    if none_fits || jws.kid.is_none() {
        return Err(VerifyError::NoKey { kid: jws.kid.as_deref().map(|kid| printable(kid, 64)) });
    }
    Err(VerifyError::Signature)
}

fn signature_holds(jws: &Jws<'_>, algorithm: Algorithm, key: &PublicKey) -> bool {
    let signed = jws.signing_input.as_bytes();
    // An error is a key or signature that can't be read: not a signature that holds.
    jsonwebtoken::crypto::verify(jws.signature, signed, key.prepared(), algorithm.jwa()).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use serde_json::{Value, json};

    use super::*;
    use crate::token::sign::SigningKey;

    static RSA: LazyLock<SigningKey> =
        LazyLock::new(|| SigningKey::generate(Algorithm::RS256, Some("rsa")).unwrap());
    static EC: LazyLock<SigningKey> =
        LazyLock::new(|| SigningKey::generate(Algorithm::ES256, Some("ec")).unwrap());

    const BOTH: &[Algorithm] = &[Algorithm::RS256, Algorithm::ES256];

    fn set(jwks: &[Value]) -> KeySet {
        KeySet::parse(json!({ "keys": jwks }).to_string().as_bytes()).unwrap()
    }

    fn jwk(key: &SigningKey) -> Value {
        key.public_jwk().unwrap()
    }

    fn without(mut jwk: Value, member: &str) -> Value {
        jwk.as_object_mut().unwrap().remove(member);
        jwk
    }

    fn with(mut jwk: Value, member: &str, value: Value) -> Value {
        jwk.as_object_mut().unwrap().insert(member.to_owned(), value);
        jwk
    }

    fn published() -> KeySet {
        set(&[jwk(&RSA), jwk(&EC)])
    }

    fn claims() -> Value {
        json!({"sub": "alice"})
    }

    fn mac(header: &Value, secret: &[u8]) -> String {
        let input = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims().to_string())
        );
        let key = jsonwebtoken::EncodingKey::from_secret(secret);
        let signature = jsonwebtoken::crypto::sign(input.as_bytes(), &key, Jwa::HS256).unwrap();
        format!("{input}.{signature}")
    }

    fn with_signature(token: &str, signature: &[u8]) -> String {
        let (input, _) = token.rsplit_once('.').unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn signature(token: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(token.rsplit_once('.').unwrap().1).unwrap()
    }

    #[test]
    fn a_token_of_a_published_key_is_verified() {
        for (key, algorithm) in [(&*RSA, Algorithm::RS256), (&*EC, Algorithm::ES256)] {
            let verified = verify(&key.sign(&claims()).unwrap(), &published(), BOTH).unwrap();
            assert_eq!(verified.claims, Claims::parse(claims().to_string().as_bytes()).unwrap());
            assert_eq!((verified.algorithm, verified.typ.as_deref()), (algorithm, Some("JWT")));
        }
    }

    #[test]
    fn algorithms_outside_the_allow_list_are_refused() {
        for alg in ["none", "None", "NONE", "nOnE", "HS256", "rs256", "RS256 ", "ES256K", "RSA-OAEP", ""] {
            let header = json!({"alg": alg, "kid": "rsa"}).to_string();
            let token = RSA.sign_parts(header.as_bytes(), b"{}").unwrap();
            let error = verify(&token, &published(), &Algorithm::ALL).unwrap_err();
            assert_eq!(error, VerifyError::Algorithm(alg.to_owned()), "TK-105 {alg:?}");
        }
        let token = EC.sign(&claims()).unwrap();
        let error = verify(&token, &published(), &[Algorithm::RS256]).unwrap_err();
        assert_eq!(
            error,
            VerifyError::Algorithm("ES256".to_owned()),
            "a good key, and another algorithm pinned"
        );
        assert!(verify(&token, &published(), &[]).is_err(), "nothing is allowed");
    }

    #[test]
    fn a_public_key_is_never_a_mac_key() {
        let jwk = jwk(&RSA);
        let n = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", STANDARD.encode(&n));
        let secrets: [(&str, Vec<u8>); 6] = [
            ("PEM", pem.clone().into_bytes()),
            ("PEM with a final newline", format!("{pem}\n").into_bytes()),
            ("DER", n),
            ("JWK", jwk.to_string().into_bytes()),
            ("client secret", b"secret".to_vec()),
            ("empty", Vec::new()),
        ];
        for (name, secret) in secrets {
            for header in [json!({"alg": "HS256", "kid": "rsa"}), json!({"alg": "HS256"})] {
                let token = mac(&header, &secret);
                let error = verify(&token, &published(), &Algorithm::ALL).unwrap_err();
                assert_eq!(error, VerifyError::Algorithm("HS256".to_owned()), "TK-106 {name}");
            }
        }
    }

    #[test]
    fn a_published_symmetric_key_verifies_nothing() {
        let oct = json!({"kty": "oct", "kid": "rsa", "k": URL_SAFE_NO_PAD.encode("secret")});
        let token = mac(&json!({"alg": "RS256", "kid": "rsa"}), b"secret");
        let error = verify(&token, &set(&[oct]), &Algorithm::ALL).unwrap_err();
        assert_eq!(error, VerifyError::NoKey { kid: Some("rsa".to_owned()) });
    }

    #[test]
    fn signatures_of_other_keys_and_changed_tokens_are_refused() {
        let stranger = SigningKey::generate(Algorithm::ES256, Some("ec")).unwrap();
        let good = RSA.sign(&claims()).unwrap();
        let (input, _) = good.rsplit_once('.').unwrap();
        let mut flipped = signature(&good);
        flipped[7] ^= 1;
        let payload = format!("{}{}", input, "A");
        let rows = [
            ("TK-107 an attacker's key", stranger.sign(&claims()).unwrap()),
            ("TK-107 a bit of the signature", with_signature(&good, &flipped)),
            ("TK-107 the payload", format!("{payload}AAA.{}", URL_SAFE_NO_PAD.encode(signature(&good)))),
            (
                "TK-108 header with the attacker's key",
                stranger
                    .sign_parts(
                        json!({"alg": "ES256", "kid": "ec", "jwk": jwk(&stranger), "x5c": ["MII"],
                               "jku": "https://evil.test/jwks", "x5u": "https://evil.test/cert"})
                        .to_string()
                        .as_bytes(),
                        b"{}",
                    )
                    .unwrap(),
            ),
        ];
        for (name, token) in rows {
            assert_eq!(verify(&token, &published(), BOTH).unwrap_err(), VerifyError::Signature, "{name}");
        }
    }

    #[test]
    fn elliptic_signatures_have_one_form() {
        let good = EC.sign(&claims()).unwrap();
        let raw = signature(&good);
        let order: [u8; 32] = [
            0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6,
            0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
        ];
        let integer = |part: &[u8]| [&[0x02, 33, 0x00], part].concat();
        let der = [&[0x30, 70][..], &integer(&raw[..32]), &integer(&raw[32..])].concat();
        let rows = [
            ("TK-115 r and s zero", vec![0; 64]),
            ("TK-115 r is the order", [&order[..], &raw[32..]].concat()),
            ("TK-115 DER", der),
            ("TK-115 63 bytes", raw[..63].to_vec()),
            ("TK-115 65 bytes", [&raw[..], &[0]].concat()),
        ];
        for (name, signature) in rows {
            let token = with_signature(&good, &signature);
            assert_eq!(verify(&token, &published(), BOTH).unwrap_err(), VerifyError::Signature, "{name}");
        }
        assert!(verify(&with_signature(&good, &raw), &published(), BOTH).is_ok());
    }

    #[test]
    fn a_kid_leads_to_keys_of_that_name_and_kind_alone() {
        let token = EC.sign(&claims()).unwrap();
        let unknown = VerifyError::NoKey { kid: Some("ec".to_owned()) };
        let rows = [
            ("the kid belongs to an RSA key", set(&[with(jwk(&RSA), "kid", json!("ec"))]), unknown.clone()),
            ("the key has another kid", set(&[with(jwk(&EC), "kid", json!("other"))]), unknown.clone()),
            ("the key has no kid", set(&[without(jwk(&EC), "kid")]), unknown.clone()),
            (
                "the key is for another algorithm",
                set(&[with(jwk(&EC), "alg", json!("ES384"))]),
                unknown.clone(),
            ),
            ("the key is for encryption", set(&[with(jwk(&EC), "use", json!("enc"))]), unknown.clone()),
            ("no keys", set(&[]), unknown),
        ];
        for (name, keys, error) in rows {
            assert_eq!(verify(&token, &keys, BOTH).unwrap_err(), error, "{name}");
        }
        let token = RSA.sign(&claims()).unwrap();
        let pinned = set(&[with(jwk(&RSA), "alg", json!("RS512"))]);
        let error = verify(&token, &pinned, BOTH).unwrap_err();
        assert_eq!(error, VerifyError::NoKey { kid: Some("rsa".to_owned()) }, "a key for RS512 alone");
    }

    #[test]
    fn keys_of_one_name_and_two_kinds_do_not_stand_in_each_others_way() {
        let token = EC.sign(&claims()).unwrap();
        let twins = set(&[with(jwk(&RSA), "kid", json!("ec")), jwk(&EC)]);
        assert!(verify(&token, &twins, BOTH).is_ok(), "one name, two kinds of key");
    }

    #[test]
    fn odd_kids_find_nothing() {
        for kid in ["../../etc/passwd", "' OR 1=1", ""] {
            let header = json!({"alg": "RS256", "kid": kid}).to_string();
            let token = RSA.sign_parts(header.as_bytes(), b"{}").unwrap();
            let error = verify(&token, &published(), BOTH).unwrap_err();
            assert_eq!(error, VerifyError::NoKey { kid: Some(kid.to_owned()) }, "TK-113 {kid}");
        }
    }

    #[test]
    fn without_a_kid_every_fitting_key_is_tried_up_to_a_bound() {
        let signer = SigningKey::generate(Algorithm::ES256, None).unwrap();
        let token = signer.sign(&claims()).unwrap();
        let others: Vec<Value> =
            (0..MAX_TRIES).map(|_| jwk(&SigningKey::generate(Algorithm::ES256, None).unwrap())).collect();
        let after = |count: usize| {
            let mut keys = others[..count].to_vec();
            keys.push(jwk(&RSA));
            keys.push(jwk(&signer));
            set(&keys)
        };
        assert!(verify(&token, &after(0), BOTH).is_ok(), "TK-111 one");
        assert!(verify(&token, &after(2), BOTH).is_ok(), "TK-111 three, of which one fits");
        assert!(verify(&token, &after(MAX_TRIES - 1), BOTH).is_ok(), "the last that is tried");
        let beyond = verify(&token, &after(MAX_TRIES), BOTH).unwrap_err();
        assert_eq!(beyond, VerifyError::NoKey { kid: None }, "beyond the bound");
        let none = verify(&token, &set(&others), BOTH).unwrap_err();
        assert_eq!(none, VerifyError::NoKey { kid: None }, "a newer key may have signed it");
    }

    #[test]
    fn a_signed_payload_that_is_no_object_is_refused() {
        let header = json!({"alg": "ES256", "kid": "ec"}).to_string();
        for payload in ["[]", "null", "\u{feff}{}", r#"{"sub":"a","sub":"b"}"#] {
            let token = EC.sign_parts(header.as_bytes(), payload.as_bytes()).unwrap();
            assert_eq!(
                verify(&token, &published(), BOTH).unwrap_err(),
                VerifyError::Payload,
                "TK-132 {payload}"
            );
        }
    }

    #[test]
    fn what_a_token_says_is_cleaned_before_it_is_told() {
        let header = json!({"alg": "RS256", "kid": "a\n\u{202e}b"}).to_string();
        let token = RSA.sign_parts(header.as_bytes(), b"{}").unwrap();
        let error = verify(&token, &published(), BOTH).unwrap_err();
        assert_eq!(error, VerifyError::NoKey { kid: Some("a??b".to_owned()) });
    }
}
