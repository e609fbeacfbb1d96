//! The JWS compact serialisation, taken apart strictly (ID-1).
//!
//! Nothing here is verified yet: what stands in a [`Jws`] is what the sender wrote. The header's `jwk`,
//! `jku`, `x5u` and `x5c` are not even kept (ID-3).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::claims::Claims;

/// The most bytes of a token: what a response header or a form could hold many times over.
pub const MAX_BYTES: usize = 16 * 1024;

/// The most bytes of a `kid`: it is looked up and logged, never a path or a query.
pub const MAX_KID_BYTES: usize = 256;

/// A token taken apart; nothing of it is verified.
#[derive(Debug)]
pub struct Jws<'a> {
    /// The header's `alg`, as written.
    pub alg: String,
    /// The header's `kid`.
    pub kid: Option<String>,
    /// The header's `typ`, as written.
    pub typ: Option<String>,
    /// What is signed: header and payload, still encoded, with the dot between them.
    pub signing_input: &'a str,
    /// The signature, still encoded; strict base64url and not empty.
    pub signature: &'a str,
    /// The payload, decoded.
    pub payload: Vec<u8>,
}

/// Why a string is no token. No variant holds the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// More than [`MAX_BYTES`].
    #[error("the token is larger than 16 KiB")]
    TooLarge,
    /// Two parts, five (an encrypted token), or any other number but three.
    #[error("the token does not have three parts")]
    Parts,
    /// Padding, white space, `+`, `/`, or nothing at all.
    #[error("the token's {0} is not base64url")]
    Base64(&'static str),
    /// The header is no object, or a member of it is missing or of a wrong type.
    #[error("the token's header is malformed: {0}")]
    Header(&'static str),
    /// RFC 7515 4.1.11 and RFC 7797: extensions that have to be understood, and are not.
    #[error("the token's header has an extension that is not understood: {0}")]
    Extension(&'static str),
}

impl<'a> Jws<'a> {
    /// Takes a token apart.
    ///
    /// RFC 7515 7.1 and 5.2; ID-1: exactly three parts of unpadded base64url, the header an object with a
    /// string `alg`, no `crit`, no `b64` but `true`.
    ///
    /// # Errors
    /// [`JwsError`].
    pub fn parse(token: &'a str) -> Result<Self, JwsError> {
        if token.len() > MAX_BYTES {
            return Err(JwsError::TooLarge);
        }
        let (signing_input, signature) = token.rsplit_once('.').ok_or(JwsError::Parts)?;
        let (header, payload) = signing_input.split_once('.').ok_or(JwsError::Parts)?;
        if payload.contains('.') {
            return Err(JwsError::Parts);
        }
        let header = Claims::parse(&decode(header, "header")?).or(Err(JwsError::Header("not an object")))?;
        refuse_extensions(&header)?;
        decode(signature, "signature")?;
        Ok(Self {
            alg: text(&header, "alg")?.ok_or(JwsError::Header("no `alg`"))?,
            kid: key_id(&header)?,
            typ: text(&header, "typ")?,
            signing_input,
            signature,
            payload: decode(payload, "payload")?,
        })
    }
}

fn decode(part: &str, name: &'static str) -> Result<Vec<u8>, JwsError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).or(Err(JwsError::Base64(name)))?;
    if bytes.is_empty() { Err(JwsError::Base64(name)) } else { Ok(bytes) }
}

fn refuse_extensions(header: &Claims) -> Result<(), JwsError> {
    if header.has("crit") {
        return Err(JwsError::Extension("crit"));
    }
    match header.boolean("b64") {
        Ok(None | Some(true)) => Ok(()),
        Ok(Some(false)) | Err(_) => Err(JwsError::Extension("b64")),
    }
}

fn text(header: &Claims, name: &'static str) -> Result<Option<String>, JwsError> {
    let value = header.string(name).or(Err(JwsError::Header("`alg`, `kid` or `typ` is not a string")))?;
    Ok(value.map(str::to_owned))
}

fn key_id(header: &Claims) -> Result<Option<String>, JwsError> {
    let kid = text(header, "kid")?;
    if kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
        return Err(JwsError::Header("`kid` is longer than 256 bytes"));
    }
    Ok(kid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, payload: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn a_token_comes_apart() {
        let token = token(r#"{"alg":"RS256","kid":"k","typ":"JWT","jku":"https://evil.test/"}"#, "{}");
        let jws = Jws::parse(&token).unwrap();
        assert_eq!(
            (jws.alg.as_str(), jws.kid.as_deref(), jws.typ.as_deref()),
            ("RS256", Some("k"), Some("JWT"))
        );
        assert_eq!(jws.payload, b"{}");
        assert_eq!(format!("{}.{}", jws.signing_input, jws.signature), token);
    }

    #[test]
    fn other_shapes_than_three_strict_parts_are_refused() {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#);
        let rows = [
            ("empty", String::new(), JwsError::Parts),
            ("TK-105 two parts", format!("{header}.e30"), JwsError::Parts),
            ("TK-132 four parts", format!("{header}.e30.c2ln.c2ln"), JwsError::Parts),
            ("TK-133 five parts", format!("{header}.e30.c2ln.c2ln.c2ln"), JwsError::Parts),
            ("TK-132 trailing dot", format!("{header}.e30.c2ln."), JwsError::Parts),
            ("TK-105 empty signature", format!("{header}.e30."), JwsError::Base64("signature")),
            ("empty payload", format!("{header}..c2ln"), JwsError::Base64("payload")),
            ("empty header", ".e30.c2ln".to_owned(), JwsError::Base64("header")),
            ("TK-132 padded payload", format!("{header}.e30=.c2ln"), JwsError::Base64("payload")),
            ("TK-132 padded signature", format!("{header}.e30.c2k="), JwsError::Base64("signature")),
            ("TK-132 plain base64", format!("{header}.e30.+/+/"), JwsError::Base64("signature")),
            ("TK-132 newline", format!("{header}.e30\n.c2ln"), JwsError::Base64("payload")),
            ("trailing bits", format!("{header}.e31.c2ln"), JwsError::Base64("payload")),
            ("TK-132 1 MB", "a".repeat(1024 * 1024), JwsError::TooLarge),
        ];
        for (name, token, wanted) in rows {
            assert_eq!(Jws::parse(&token).unwrap_err(), wanted, "{name}");
        }
    }

    #[test]
    fn headers_that_say_too_much_or_too_little_are_refused() {
        let long_kid = format!(r#"{{"alg":"RS256","kid":"{}"}}"#, "k".repeat(10 * 1024));
        let rows = [
            ("no alg", r"{}"),
            ("alg null", r#"{"alg":null}"#),
            ("alg twice", r#"{"alg":"none","alg":"RS256"}"#),
            ("array", r"[]"),
            ("TK-132 byte order mark", "\u{feff}{\"alg\":\"RS256\"}"),
            ("TK-113 kid 10 KB", &long_kid),
            ("TK-113 kid number", r#"{"alg":"RS256","kid":1}"#),
            ("TK-113 kid null", r#"{"alg":"RS256","kid":null}"#),
            ("typ number", r#"{"alg":"RS256","typ":1}"#),
            ("TK-114 crit known", r#"{"alg":"RS256","crit":["exp"]}"#),
            ("TK-114 crit unknown", r#"{"alg":"RS256","crit":["x"]}"#),
            ("crit empty", r#"{"alg":"RS256","crit":[]}"#),
            ("TK-114 b64 false", r#"{"alg":"RS256","b64":false}"#),
            ("b64 of another type", r#"{"alg":"RS256","b64":"true"}"#),
        ];
        for (name, header) in rows {
            let refused = Jws::parse(&token(header, "{}")).is_err();
            assert!(refused, "{name}");
        }
    }
}
