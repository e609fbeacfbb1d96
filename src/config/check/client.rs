//! How a `[[provider]]`'s client shows who it is -> [`ClientSettings`].

use super::rules::one_of;
use super::{Check, Found, all};
use crate::config::TlsSettings;
use crate::config::file;
use crate::config::problem::Told;
use crate::config::read::{Field, OneOrMore, SecretRef};
use crate::idp::credentials::{AssertionAudience, CertificateFiles, ClientAuthMethod, ClientSettings, Held};
use crate::oidc::Issuer;
use crate::secret::Secret;
use crate::token::sign::SigningKey;
use crate::token::{Algorithm, private_key};

const CLIENT_AUTH: &[(&str, ClientAuthMethod)] = &[
    ("client_secret_basic", ClientAuthMethod::ClientSecretBasic),
    ("client_secret_post", ClientAuthMethod::ClientSecretPost),
    ("client_secret_jwt", ClientAuthMethod::ClientSecretJwt),
    ("private_key_jwt", ClientAuthMethod::PrivateKeyJwt),
    ("tls_client_auth", ClientAuthMethod::TlsClientAuth),
    ("self_signed_tls_client_auth", ClientAuthMethod::SelfSignedTlsClientAuth),
    ("none", ClientAuthMethod::None),
];

const AUDIENCES: &[(&str, AssertionAudience)] =
    &[("issuer", AssertionAudience::Issuer), ("token_endpoint", AssertionAudience::TokenEndpoint)];

/// The new secret and the old one; each failed try with one more would cost a request.
const MAX_SECRETS: usize = 2;

/// Enough for keys that overlap; all of them are published.
const MAX_KEYS: usize = 4;

/// RFC 7518 3.2: a key of HS256 is at least as long as its hash.
const MIN_MAC_SECRET_BYTES: usize = 32;

/// The keys of a provider's table that say how its client shows who it is.
pub(super) struct Fields {
    /// `client_secret`.
    pub(super) secret: Field<OneOrMore<SecretRef>>,
    /// `client_key`.
    pub(super) key: Field<OneOrMore<SecretRef>>,
    /// `client_auth`.
    pub(super) auth: Field<String>,
    /// `client_key_algorithm`.
    pub(super) key_algorithm: Field<String>,
    /// `client_certificate`.
    pub(super) certificate: Field<file::Tls>,
    /// `client_assertion_audience`.
    pub(super) audience: Field<String>,
}

/// What is written, rightly or wrongly.
#[derive(Clone, Copy)]
struct Written {
    secret: bool,
    key: bool,
    certificate: bool,
}

impl Check<'_> {
    /// Secrets, keys and method; one without the other is a mistake of the operator.
    pub(super) fn client(&mut self, fields: Fields) -> Result<ClientSettings, Told> {
        let Fields { secret, key, auth, key_algorithm, certificate, audience } = fields;
        let written = Written {
            secret: secret.is_written(),
            key: key.is_written(),
            certificate: certificate.is_written(),
        };
        let method = auth.parse(&mut self.problems, one_of(CLIENT_AUTH));
        let method = method.check(&mut self.problems, |method| fits(method, written)).optional();
        let algorithm = self.key_algorithm(key_algorithm, written);
        let known = method.unwrap_or_default();
        let audience = self.audience(audience, known, written);
        let secrets = self.secrets(secret, known);
        let keys = self.client_keys(key, algorithm.unwrap_or_default());
        let certificate = certificate.optional().and_then(|tls| tls.map(|tls| self.tls(tls)).transpose());
        Ok(ClientSettings {
            certificate: certificate?
                .map(|TlsSettings { certificate, key }| CertificateFiles { certificate, key }),
            method: method?,
            secrets: secrets?,
            keys: keys?,
            key_algorithm: algorithm?,
            audience: audience?,
        })
    }

    /// A certificate is shown in TLS.
    pub(super) fn certificate_needs_https(&mut self, field: &Field<file::Tls>, issuer: Option<&Issuer>) {
        if field.is_written() && issuer.is_some_and(|issuer| issuer.0.starts_with("http:")) {
            self.problems.add(&field.place, "is never shown, for the issuer is plain http");
        }
    }

    fn key_algorithm(&mut self, field: Field<String>, written: Written) -> Result<Option<Algorithm>, Told> {
        let algorithm = field.parse(&mut self.problems, one_of(super::provider::ALGORITHMS));
        let rule =
            |algorithm| if written.key { Ok(algorithm) } else { Err("has no effect without client_key") };
        algorithm.check(&mut self.problems, rule).optional()
    }

    fn audience(
        &mut self,
        field: Field<String>,
        method: Option<ClientAuthMethod>,
        written: Written,
    ) -> Result<AssertionAudience, Told> {
        let asserts = match method {
            Some(ClientAuthMethod::ClientSecretJwt | ClientAuthMethod::PrivateKeyJwt) => true,
            Some(
                ClientAuthMethod::ClientSecretBasic
                | ClientAuthMethod::ClientSecretPost
                | ClientAuthMethod::TlsClientAuth
                | ClientAuthMethod::SelfSignedTlsClientAuth
                | ClientAuthMethod::None,
            ) => false,
            None => written.secret || written.key,
        };
        let rule = |audience| {
            let fits = asserts || audience == AssertionAudience::default();
            if fits { Ok(audience) } else { Err("has no effect where nothing is asserted") }
        };
        let audience = field.parse(&mut self.problems, one_of(AUDIENCES));
        audience.check(&mut self.problems, rule).or(AssertionAudience::default())
    }

    fn secrets(
        &mut self,
        field: Field<OneOrMore<SecretRef>>,
        method: Option<ClientAuthMethod>,
    ) -> Result<Vec<Held<Secret<String>>>, Told> {
        let list = self.list(field, MAX_SECRETS, "the new secret and the old one")?;
        let signs = method == Some(ClientAuthMethod::ClientSecretJwt);
        all(list.into_iter().map(|entry| self.secret(entry, |found| client_secret(found, signs))))
    }

    fn client_keys(
        &mut self,
        field: Field<OneOrMore<SecretRef>>,
        algorithm: Option<Algorithm>,
    ) -> Result<Vec<Held<SigningKey>>, Told> {
        let list = self.list(field, MAX_KEYS, "the one that signs and some that are still published")?;
        all(list.into_iter().map(|entry| self.secret(entry, |found| client_key(found, algorithm))))
    }

    fn list(
        &mut self,
        field: Field<OneOrMore<SecretRef>>,
        max: usize,
        wanted: &str,
    ) -> Result<Vec<Field<SecretRef>>, Told> {
        let place = field.place.clone();
        let Some(OneOrMore(list)) = field.optional()? else { return Ok(Vec::new()) };
        match list.len() {
            0 => Err(self.problems.add(&place, "is empty")),
            count if count > max => {
                Err(self.problems.add(&place, format!("lists {count}; at most {max} are wanted: {wanted}")))
            }
            _ => Ok(list),
        }
    }
}

/// A method has what it needs, and no secret is written that nobody would use. A key beside a secret is
/// published already: the first step from one to the other. A certificate is shown in TLS whatever the method.
fn fits(method: ClientAuthMethod, written: Written) -> Result<ClientAuthMethod, &'static str> {
    match (method, written) {
        (
            ClientAuthMethod::None
            | ClientAuthMethod::PrivateKeyJwt
            | ClientAuthMethod::TlsClientAuth
            | ClientAuthMethod::SelfSignedTlsClientAuth,
            Written { secret: true, .. },
        ) => Err("contradicts client_secret; leave one of them out"),
        (ClientAuthMethod::None, Written { key: true, .. }) => {
            Err("contradicts client_key; leave one of them out")
        }
        (ClientAuthMethod::PrivateKeyJwt, Written { key: false, .. }) => Err("needs client_key"),
        (
            ClientAuthMethod::TlsClientAuth | ClientAuthMethod::SelfSignedTlsClientAuth,
            Written { certificate: false, .. },
        ) => Err("needs client_certificate"),
        (
            ClientAuthMethod::ClientSecretBasic
            | ClientAuthMethod::ClientSecretPost
            | ClientAuthMethod::ClientSecretJwt,
            Written { secret: false, .. },
        ) => Err("needs client_secret"),
        _ => Ok(method),
    }
}

fn client_secret(found: Found, signs: bool) -> Result<Held<Secret<String>>, String> {
    let value = found.one_line()?;
    if signs && value.expose().len() < MIN_MAC_SECRET_BYTES {
        let place = found.place;
        return Err(format!("{place} is shorter than {MIN_MAC_SECRET_BYTES} bytes, too short to sign with"));
    }
    Ok(Held { text: value.clone(), value, file: found.file })
}

fn client_key(found: Found, algorithm: Option<Algorithm>) -> Result<Held<SigningKey>, String> {
    let key =
        private_key::parse(&found.text, algorithm).map_err(|error| format!("{} {error}", found.place))?;
    Ok(Held { value: key, text: found.text, file: found.file })
}
