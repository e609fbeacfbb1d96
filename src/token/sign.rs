//! Signing: what the client shows of itself at the provider, the demo's provider, and the hostile provider
//! of the tests.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm as Jwa, EncodingKey};
use serde::Serialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::verify::Algorithm;
use crate::secret::Secret;

/// A private key with its algorithm and its `kid`.
#[derive(Clone, Debug)]
pub struct SigningKey {
    algorithm: Algorithm,
    kid: Option<String>,
    key: EncodingKey,
}

/// A key could not be made, or something could not be signed with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// No key.
    #[error("the key could not be generated")]
    Generate,
    /// No signature, or no public key.
    #[error("the key could not be used")]
    Use,
    /// Claims that are no JSON.
    #[error("the claims could not be written as JSON")]
    Claims,
}

impl SigningKey {
    /// Makes a new key: 2048 bits for the RSA algorithms, the algorithm's curve for the others.
    ///
    /// # Errors
    /// [`SignError::Generate`].
    pub fn generate(algorithm: Algorithm, kid: Option<&str>) -> Result<Self, SignError> {
        let key = match algorithm {
            Algorithm::RS256
            | Algorithm::RS384
            | Algorithm::RS512
            | Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512 => generate_rsa()?,
            Algorithm::ES256 => generate_ec(&ECDSA_P256_SHA256_FIXED_SIGNING)?,
            Algorithm::ES384 => generate_ec(&ECDSA_P384_SHA384_FIXED_SIGNING)?,
            Algorithm::EdDSA => generate_ed25519()?,
        };
        Ok(Self { algorithm, kid: kid.map(str::to_owned), key })
    }

    /// A key that was read from outside.
    pub(super) const fn new(algorithm: Algorithm, kid: Option<String>, key: EncodingKey) -> Self {
        Self { algorithm, kid, key }
    }

    /// What it signs with.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The public key as a JWK (RFC 7517): `use` is `sig`, with `alg`, and `kid` where the key has one.
    ///
    /// # Errors
    /// [`SignError::Use`].
    pub fn public_jwk(&self) -> Result<Value, SignError> {
        let jwk = Jwk::from_encoding_key(&self.key, self.algorithm.jwa()).or(Err(SignError::Use))?;
        let mut jwk = serde_json::to_value(jwk).or(Err(SignError::Use))?;
        let members = jwk.as_object_mut().ok_or(SignError::Use)?;
        members.insert("use".to_owned(), json!("sig"));
        if let Some(kid) = &self.kid {
            members.insert("kid".to_owned(), json!(kid));
        }
        Ok(jwk)
    }

    /// Signs claims as a JWT with `alg`, `kid` and `typ`.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, SignError> {
        let mut header = json!({"alg": self.algorithm.name(), "typ": "JWT"});
        if let (Some(kid), Some(members)) = (&self.kid, header.as_object_mut()) {
            members.insert("kid".to_owned(), json!(kid));
        }
        let payload = serde_json::to_vec(claims).or(Err(SignError::Claims))?;
        self.sign_parts(header.to_string().as_bytes(), &payload)
    }

    /// Signs any header and any payload, right or wrong, with this key and its algorithm.
    ///
    /// # Errors
    /// [`SignError::Use`].
    pub fn sign_parts(&self, header: &[u8], payload: &[u8]) -> Result<String, SignError> {
        sign_bytes(header, payload, &self.key, self.algorithm.jwa())
    }
}

/// Signs claims as a JWT with a secret that both sides know: HS256 (RFC 7518 3.2).
///
/// # Errors
/// [`SignError`].
pub fn sign_with_secret(secret: &Secret<String>, claims: &impl Serialize) -> Result<String, SignError> {
    let header = json!({"alg": "HS256", "typ": "JWT"}).to_string();
    let payload = serde_json::to_vec(claims).or(Err(SignError::Claims))?;
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    sign_bytes(header.as_bytes(), &payload, &key, Jwa::HS256)
}

fn sign_bytes(header: &[u8], payload: &[u8], key: &EncodingKey, algorithm: Jwa) -> Result<String, SignError> {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = jsonwebtoken::crypto::sign(input.as_bytes(), key, algorithm).or(Err(SignError::Use))?;
    Ok(format!("{input}.{signature}"))
}

fn generate_rsa() -> Result<EncodingKey, SignError> {
    rsa_key(&RsaKeyPair::generate(KeySize::Rsa2048).or(Err(SignError::Generate))?)
}

/// `jsonwebtoken` takes RSA keys out of PKCS #8 only where they come as PEM.
pub(super) fn rsa_key(pair: &RsaKeyPair) -> Result<EncodingKey, SignError> {
    let pkcs8 = pair.as_der().or(Err(SignError::Generate))?;
    let base64 = Zeroizing::new(STANDARD.encode(pkcs8.as_ref()));
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", *base64);
    EncodingKey::from_rsa_pem(Zeroizing::new(pem).as_bytes()).or(Err(SignError::Generate))
}

fn generate_ec(curve: &'static EcdsaSigningAlgorithm) -> Result<EncodingKey, SignError> {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(curve, &SystemRandom::new()).or(Err(SignError::Generate))?;
    Ok(EncodingKey::from_ec_der(pkcs8.as_ref()))
}

fn generate_ed25519() -> Result<EncodingKey, SignError> {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).or(Err(SignError::Generate))?;
    Ok(EncodingKey::from_ed_der(pkcs8.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::KeySet;
    use crate::token::verify::verify;

    #[test]
    fn every_algorithm_signs_what_its_own_public_key_verifies() {
        for algorithm in Algorithm::ALL {
            let key = SigningKey::generate(algorithm, Some("k1")).unwrap();
            let set = json!({"keys": [key.public_jwk().unwrap()]}).to_string();
            let set = KeySet::parse(set.as_bytes()).unwrap();
            assert_eq!((set.len(), set.passed_over()), (1, &[][..]), "{algorithm:?}");

            let token = key.sign(&json!({"sub": "alice"})).unwrap();
            let verified = verify(&token, &set, &[algorithm]).unwrap();
            assert_eq!(verified.claims.string("sub"), Ok(Some("alice")), "{algorithm:?}");
            assert_eq!(verified.algorithm, algorithm);
        }
    }

    #[test]
    fn a_secret_signs_with_hmac_sha_256() {
        // The MAC was computed with OpenSSL.
        let claims = json!({"iss": "joe"});
        let token = sign_with_secret(&Secret::new("a secret of 32 bytes or more.....".to_owned()), &claims);
        let token = token.unwrap();
        let (input, mac) = token.rsplit_once('.').unwrap();
        assert_eq!(input, "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJqb2UifQ");
        assert_eq!(mac, "n7B06r-J6WP4Xt05Z2PNxKCegiRhtLO1psYI1PBEHq4");
    }

    #[test]
    fn the_private_key_never_shows() {
        let key = SigningKey::generate(Algorithm::ES256, None).unwrap();
        let public = key.public_jwk().unwrap();
        assert!(public.get("d").is_none(), "{public}");
        assert!(format!("{key:?}").contains("[redacted]"));
    }
}
