//! Tokens as an attacker would make them.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::EncodingKey;
use serde_json::Value;

/// The identifiers `rsaEncryption` with NULL, and `id-ecPublicKey` with `prime256v1`.
const RSA: &[u8] = &[6, 9, 42, 134, 72, 134, 247, 13, 1, 1, 1, 5, 0];
const P256: &[u8] = &[6, 7, 42, 134, 72, 206, 61, 2, 1, 6, 8, 42, 134, 72, 206, 61, 3, 1, 7];

/// A token without a signature, whatever its header says.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.", signing_input(header, claims))
}

/// A token with an HMAC-SHA-256 under this secret, whatever its header says.
pub fn mac(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let input = signing_input(header, claims);
    let key = EncodingKey::from_secret(secret);
    let mac = jsonwebtoken::crypto::sign(input.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).unwrap();
    format!("{input}.{mac}")
}

/// The same token with other bytes for a signature.
pub fn with_signature(token: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let (input, signature) = token.rsplit_once('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    change(&mut signature);
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A public RSA or P-256 key as the DER of a `SubjectPublicKeyInfo` (RFC 5280 4.1).
pub fn public_der(jwk: &Value) -> Vec<u8> {
    let member = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    let (algorithm, key) = match jwk["kty"].as_str() {
        Some("RSA") => {
            // A number whose first bit is set would be negative without a zero before it.
            let numbers = ["n", "e"].map(|name| match member(name) {
                bytes if bytes[0] < 0x80 => der(2, &bytes),
                bytes => der(2, &[&[0], &bytes[..]].concat()),
            });
            (RSA, der(0x30, &numbers.concat()))
        }
        _ => (P256, [&[4], &member("x")[..], &member("y")[..]].concat()),
    };
    let bits = der(3, &[&[0], &key[..]].concat());
    der(0x30, &[der(0x30, algorithm), bits].concat())
}

/// The same as PEM, without a final newline.
pub fn public_pem(jwk: &Value) -> String {
    let text = STANDARD.encode(public_der(jwk));
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", lines.join("\n"))
}

/// Any header and claims, encoded as what is signed.
pub fn signing_input(header: &Value, claims: &Value) -> String {
    let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    format!("{}.{}", encode(header), encode(claims))
}

/// A DER value with its tag and length.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let digits = &length[length.iter().position(|byte| *byte != 0).unwrap_or(7)..];
    let short = content.len() < 128;
    let head =
        if short { vec![tag, digits[0]] } else { vec![tag, 0x80 | u8::try_from(digits.len()).unwrap()] };
    let long = if short { &[][..] } else { digits };
    [&head[..], long, content].concat()
}
