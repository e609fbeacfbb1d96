//! Taking tokens back (RFC 7009): a sign-out leaves none behind at the provider that still works.

use url::Url;
use url::form_urlencoded::Serializer;

use super::ClientId;
use super::client_auth::{ClientAuth, authenticated};
use crate::secret::Secret;

/// What kind of token it is, so that the provider finds it at once (RFC 7009 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Most providers end the access tokens that came of it too.
    RefreshToken,
    /// Where there is no refresh token.
    AccessToken,
}

/// What a revocation is made of.
#[derive(Clone, Debug)]
pub struct Revocation<'a> {
    /// The revocation endpoint.
    pub endpoint: &'a Url,
    /// The client.
    pub client_id: &'a ClientId,
    /// How it authenticates: as at the token endpoint.
    pub auth: &'a ClientAuth,
    /// The token.
    pub token: &'a Secret<String>,
    /// What it is.
    pub kind: Kind,
}

/// The request: POST, form-encoded, the token in the body alone.
///
/// # Errors
/// When the endpoint can't stand in a request.
pub fn request(revocation: &Revocation<'_>) -> Result<http::Request<Vec<u8>>, http::Error> {
    let hint = match revocation.kind {
        Kind::RefreshToken => "refresh_token",
        Kind::AccessToken => "access_token",
    };
    let mut form = Serializer::new(String::new());
    form.append_pair("token", revocation.token.expose()).append_pair("token_type_hint", hint);
    authenticated(revocation.endpoint, revocation.client_id, revocation.auth, form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_back_in_the_body_with_its_kind() {
        let request = request(&Revocation {
            endpoint: &Url::parse("https://op.test/revoke").unwrap(),
            client_id: &ClientId("client".into()),
            auth: &ClientAuth::Post(Secret::new("s".to_owned())),
            token: &Secret::new("a b&c".to_owned()),
            kind: Kind::RefreshToken,
        })
        .unwrap();
        assert_eq!(request.uri().to_string(), "https://op.test/revoke");
        let body = std::str::from_utf8(request.body()).unwrap();
        let wanted = "token=a+b%26c&token_type_hint=refresh_token&client_id=client&client_secret=s";
        assert_eq!(body, wanted);
    }
}
