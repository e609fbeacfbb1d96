//! The provider's discovery document (OpenID Connect Discovery 1.0).
//!
//! Only the members that the gateway uses are read; all others may say what they like. Those that are
//! read have to be of the right type, and optional ones may be `null`.

use url::Url;

use super::Issuer;
use crate::token::{ClaimError, Claims};

/// What the gateway uses of the metadata, checked.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// Equal to the configured issuer, byte for byte.
    pub issuer: Issuer,
    /// Where people are sent.
    pub authorization_endpoint: Url,
    /// Where codes are exchanged.
    pub token_endpoint: Url,
    /// Where the keys are.
    pub jwks_uri: Url,
    /// Where claims are asked for.
    pub userinfo_endpoint: Option<Url>,
    /// Where sessions end (RP-Initiated Logout 1.0).
    pub end_session_endpoint: Option<Url>,
    /// Where tokens are taken back (RFC 7009).
    pub revocation_endpoint: Option<Url>,
    /// Where authorization requests are pushed to (RFC 9126).
    pub pushed_request_endpoint: Option<Url>,
    /// `require_pushed_authorization_requests`: no other authorization request is taken.
    pub requires_pushed_requests: bool,
    /// Where the same is for clients with a certificate.
    pub mtls_aliases: MtlsAliases,
    /// `token_endpoint_auth_methods_supported`; the default of the specification is `client_secret_basic`.
    pub token_endpoint_auth_methods: Vec<String>,
    /// RFC 9207: the callback must carry `iss`.
    pub iss_parameter_supported: bool,
}

/// `mtls_endpoint_aliases` (RFC 8705 5): endpoints that ask clients for a certificate.
#[derive(Clone, Debug, Default)]
pub struct MtlsAliases {
    token: Option<Url>,
    userinfo: Option<Url>,
    revocation: Option<Url>,
    pushed_request: Option<Url>,
}

impl Metadata {
    /// The same for a client with a certificate.
    ///
    /// RFC 8705 5: such a client MUST use an endpoint's alias where there is one, else the endpoint itself.
    #[must_use]
    pub fn for_certificate(mut self) -> Self {
        let aliases = std::mem::take(&mut self.mtls_aliases);
        self.token_endpoint = aliases.token.unwrap_or(self.token_endpoint);
        self.userinfo_endpoint = aliases.userinfo.or(self.userinfo_endpoint);
        self.revocation_endpoint = aliases.revocation.or(self.revocation_endpoint);
        self.pushed_request_endpoint = aliases.pushed_request.or(self.pushed_request_endpoint);
        self
    }
}

/// Why a discovery document was refused.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// Not JSON, or members missing or of a wrong type.
    #[error("the discovery document is malformed: {0}")]
    Malformed(String),
    /// SF-2, Discovery 4.3.
    #[error("the discovery document is of issuer {found:?}, the configuration says {wanted:?}")]
    IssuerMismatch {
        /// What the document says.
        found: String,
        /// What is configured.
        wanted: String,
    },
    /// TK-138: an endpoint that is not https while the issuer is.
    #[error("{member} in the discovery document is not an https URL")]
    InsecureEndpoint {
        /// The member's name.
        member: &'static str,
    },
    /// AR-2: challenge methods are listed without S256.
    #[error("the provider does not list S256 in code_challenge_methods_supported")]
    NoS256,
}

impl From<ClaimError> for MetadataError {
    fn from(error: ClaimError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// Where the discovery document of `issuer` is: its one trailing slash, if any, removed, then
/// `/.well-known/openid-configuration` (Discovery 4).
///
/// # Errors
/// When the issuer is no URL.
pub fn discovery_url(issuer: &Issuer) -> Result<Url, url::ParseError> {
    let base = issuer.0.strip_suffix('/').unwrap_or(&issuer.0);
    Url::parse(&format!("{base}/.well-known/openid-configuration"))
}

/// Reads and checks a discovery document. Plain http endpoints are accepted only when the issuer
/// itself is plain http (which `config` allows for loopback hosts only).
///
/// # Errors
/// [`MetadataError`].
pub fn parse(bytes: &[u8], issuer: &Issuer) -> Result<Metadata, MetadataError> {
    let document = Claims::parse(bytes).map_err(|error| MetadataError::Malformed(error.to_string()))?;
    check_issuer(&document, issuer)?;
    check_challenge_methods(&document)?;
    let requires_pushed_requests = flag(&document, "require_pushed_authorization_requests")?;
    let place = Place::of(issuer);
    let reader = Reader { document: &document, place };
    Ok(Metadata {
        issuer: issuer.clone(),
        authorization_endpoint: reader.required("authorization_endpoint")?,
        token_endpoint: reader.required("token_endpoint")?,
        jwks_uri: reader.required("jwks_uri")?,
        userinfo_endpoint: reader.optional("userinfo_endpoint")?,
        end_session_endpoint: reader.optional("end_session_endpoint")?,
        revocation_endpoint: reader.optional("revocation_endpoint")?,
        pushed_request_endpoint: reader
            .where_wanted("pushed_authorization_request_endpoint", requires_pushed_requests)?,
        requires_pushed_requests,
        mtls_aliases: mtls_aliases(&document, place)?,
        token_endpoint_auth_methods: auth_methods(&document)?,
        iss_parameter_supported: flag(&document, "authorization_response_iss_parameter_supported")?,
    })
}

/// Discovery 4.3; SF-2: `issuer` MUST be identical to the configured issuer.
fn check_issuer(document: &Claims, issuer: &Issuer) -> Result<(), MetadataError> {
    let found = document.string("issuer")?.ok_or_else(|| missing("issuer"))?;
    if found == &*issuer.0 {
        return Ok(());
    }
    Err(MetadataError::IssuerMismatch { found: super::printable(found, 256), wanted: issuer.to_string() })
}

/// RFC 8414 2; AR-2: a provider that lists challenge methods must list S256.
fn check_challenge_methods(document: &Claims) -> Result<(), MetadataError> {
    match list(document, "code_challenge_methods_supported")? {
        Some(methods) if !methods.contains(&"S256") => Err(MetadataError::NoS256),
        None | Some(_) => Ok(()),
    }
}

fn auth_methods(document: &Claims) -> Result<Vec<String>, MetadataError> {
    let listed = list(document, "token_endpoint_auth_methods_supported")?;
    let methods = listed.unwrap_or_else(|| vec!["client_secret_basic"]);
    Ok(methods.into_iter().map(str::to_owned).collect())
}

fn mtls_aliases(document: &Claims, place: Place) -> Result<MtlsAliases, MetadataError> {
    let name = "mtls_endpoint_aliases";
    let members = match document.value(name) {
        None | Some(serde_json::Value::Null) => return Ok(MtlsAliases::default()),
        Some(serde_json::Value::Object(members)) => Claims::new(members.clone()),
        Some(_) => return Err(MetadataError::Malformed(format!("`{name}` is not an object"))),
    };
    let reader = Reader { document: &members, place };
    Ok(MtlsAliases {
        token: reader.optional("token_endpoint")?,
        userinfo: reader.optional("userinfo_endpoint")?,
        revocation: reader.optional("revocation_endpoint")?,
        pushed_request: reader.optional("pushed_authorization_request_endpoint")?,
    })
}

fn flag(document: &Claims, name: &str) -> Result<bool, MetadataError> {
    if is_null(document, name) {
        return Ok(false);
    }
    Ok(document.boolean(name)?.unwrap_or(false))
}

fn list<'a>(document: &'a Claims, name: &str) -> Result<Option<Vec<&'a str>>, MetadataError> {
    if is_null(document, name) { Ok(None) } else { Ok(document.strings(name)?) }
}

fn is_null(document: &Claims, name: &str) -> bool {
    document.value(name).is_some_and(serde_json::Value::is_null)
}

fn missing(member: &str) -> MetadataError {
    MetadataError::Malformed(format!("`{member}` is missing"))
}

/// What endpoints have to be like, by the issuer.
#[derive(Clone, Copy)]
struct Place {
    plain_http: bool,
    port: Option<u16>,
}

impl Place {
    fn of(issuer: &Issuer) -> Self {
        let url = Url::parse(&issuer.0).ok();
        let port = url.as_ref().and_then(Url::port_or_known_default);
        Self { plain_http: url.is_some_and(|url| url.scheme() == "http"), port }
    }

    /// SF-1: HTTP's own ports, the issuer's, and those that are nobody's in particular: below 1024 are mail,
    /// name and log servers, which could be made to read a request as something else.
    fn allows(self, url: &Url) -> bool {
        let port = url.port_or_known_default();
        port == self.port || port.is_some_and(|port| matches!(port, 80 | 443 | 1024..))
    }
}

/// Reads endpoints.
struct Reader<'a> {
    document: &'a Claims,
    place: Place,
}

impl Reader<'_> {
    fn required(&self, member: &'static str) -> Result<Url, MetadataError> {
        self.optional(member)?.ok_or_else(|| missing(member))
    }

    fn where_wanted(&self, member: &'static str, wanted: bool) -> Result<Option<Url>, MetadataError> {
        if wanted { self.required(member).map(Some) } else { self.optional(member) }
    }

    fn optional(&self, member: &'static str) -> Result<Option<Url>, MetadataError> {
        if is_null(self.document, member) {
            return Ok(None);
        }
        self.document.string(member)?.map(|text| self.endpoint(member, text)).transpose()
    }

    /// SF-1, TK-138: https, or http where the issuer is; no port of another protocol; no user or password; no
    /// fragment (RFC 6749 3.1).
    fn endpoint(&self, member: &'static str, text: &str) -> Result<Url, MetadataError> {
        let url = Url::parse(text).or(Err(MetadataError::Malformed(format!("`{member}` is no URL"))))?;
        if url.scheme() != "https" && !(self.place.plain_http && url.scheme() == "http") {
            return Err(MetadataError::InsecureEndpoint { member });
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(MetadataError::Malformed(format!("`{member}` has a user, a password or a fragment")));
        }
        if !self.place.allows(&url) {
            return Err(MetadataError::Malformed(format!(
                "`{member}` has a port of another protocol than HTTP"
            )));
        }
        Ok(url)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn issuer() -> Issuer {
        Issuer("https://op.test/realms/main/".into())
    }

    fn document() -> Value {
        json!({
            "issuer": "https://op.test/realms/main/",
            "authorization_endpoint": "https://op.test/auth?tenant=1",
            "token_endpoint": "https://op.test/token",
            "jwks_uri": "https://keys.op.test/jwks",
        })
    }

    fn with(member: &str, value: Value) -> Value {
        let mut document = document();
        document.as_object_mut().unwrap().insert(member.to_owned(), value);
        document
    }

    fn read(document: &Value) -> Result<Metadata, MetadataError> {
        parse(document.to_string().as_bytes(), &issuer())
    }

    #[test]
    fn the_document_is_below_the_issuer_without_its_slash() {
        let rows = [
            ("https://op.test", "https://op.test/.well-known/openid-configuration"),
            ("https://op.test/", "https://op.test/.well-known/openid-configuration"),
            ("https://op.test/a/b", "https://op.test/a/b/.well-known/openid-configuration"),
            ("https://op.test/a/b/", "https://op.test/a/b/.well-known/openid-configuration"),
        ];
        for (issuer, url) in rows {
            assert_eq!(discovery_url(&Issuer(issuer.into())).unwrap().as_str(), url);
        }
    }

    #[test]
    fn a_minimal_document_has_the_defaults_of_the_specification() {
        let metadata = read(&document()).unwrap();
        assert_eq!(metadata.authorization_endpoint.as_str(), "https://op.test/auth?tenant=1");
        assert_eq!(metadata.jwks_uri.as_str(), "https://keys.op.test/jwks");
        assert_eq!(metadata.token_endpoint_auth_methods, ["client_secret_basic"]);
        assert_eq!((metadata.userinfo_endpoint, metadata.end_session_endpoint), (None, None));
        assert!(!metadata.iss_parameter_supported);
    }

    #[test]
    fn what_the_gateway_does_not_use_may_be_odd() {
        let rows = [
            with("response_types_supported", json!(["token code id_token", 7])),
            with("id_token_signing_alg_values_supported", json!(["none", "RS256"])),
            with("op_policy_uri", json!("")),
            with("userinfo_endpoint", Value::Null),
            with("code_challenge_methods_supported", Value::Null),
            with("code_challenge_methods_supported", json!(["plain", "S256"])),
            with("authorization_response_iss_parameter_supported", Value::Null),
        ];
        for document in rows {
            assert!(read(&document).is_ok(), "{document}");
        }
    }

    #[test]
    fn what_the_gateway_uses_is_read() {
        let mut document = with("end_session_endpoint", json!("https://op.test/end"));
        document["userinfo_endpoint"] = json!("https://op.test/me");
        document["token_endpoint_auth_methods_supported"] = json!(["client_secret_post", "none"]);
        document["authorization_response_iss_parameter_supported"] = json!(true);
        document["require_pushed_authorization_requests"] = json!(true);
        document["pushed_authorization_request_endpoint"] = json!("https://op.test/par");
        let metadata = read(&document).unwrap();
        assert_eq!(metadata.end_session_endpoint.unwrap().as_str(), "https://op.test/end");
        assert_eq!(metadata.userinfo_endpoint.unwrap().as_str(), "https://op.test/me");
        assert_eq!(metadata.token_endpoint_auth_methods, ["client_secret_post", "none"]);
        assert!(metadata.iss_parameter_supported && metadata.requires_pushed_requests);
        assert_eq!(metadata.pushed_request_endpoint.unwrap().as_str(), "https://op.test/par");
    }

    #[test]
    fn a_document_of_another_issuer_is_refused() {
        for found in [
            "https://op.test/realms/main",
            "https://op.test/realms/main/INVALID",
            "HTTPS://op.test/realms/main/",
        ] {
            let error = read(&with("issuer", json!(found))).unwrap_err();
            assert!(matches!(error, MetadataError::IssuerMismatch { .. }), "TK-138 {found}: {error}");
        }
    }

    #[test]
    fn an_endpoint_is_at_no_port_of_another_protocol() {
        let rows = [
            ("https://op.test/token", true),
            ("https://op.test:443/token", true),
            ("https://op.test:8443/token", true),
            ("https://op.test:1024/token", true),
            ("https://op.test:80/token", true),
            ("https://op.test:25/token", false),
            ("https://op.test:22/token", false),
            ("https://op.test:53/token", false),
            ("https://op.test:993/token", false),
            ("https://op.test:1023/token", false),
            ("https://op.test:0/token", false),
        ];
        for (endpoint, allowed) in rows {
            assert_eq!(read(&with("token_endpoint", json!(endpoint))).is_ok(), allowed, "{endpoint}");
            let aliases = with("mtls_endpoint_aliases", json!({ "token_endpoint": endpoint }));
            assert_eq!(read(&aliases).is_ok(), allowed, "{endpoint} as an alias");
        }
        let mut document = with("token_endpoint", json!("https://op.test:444/token"));
        assert!(read(&document).is_err());
        let issuer = "https://op.test:444/";
        document["issuer"] = json!(issuer);
        let own = parse(document.to_string().as_bytes(), &Issuer(issuer.into()));
        assert!(own.is_ok(), "the issuer's own port");
    }

    #[test]
    fn tk_138_plain_http_endpoints_are_for_plain_http_issuers() {
        for member in [
            "authorization_endpoint",
            "token_endpoint",
            "jwks_uri",
            "userinfo_endpoint",
            "end_session_endpoint",
            "pushed_authorization_request_endpoint",
        ] {
            for url in ["http://op.test/x", "ftp://op.test/x", "javascript:alert(1)", "file:///etc/passwd"] {
                let error = read(&with(member, json!(url))).unwrap_err();
                assert!(
                    matches!(error, MetadataError::InsecureEndpoint { .. }),
                    "TK-138 {member} {url}: {error}"
                );
            }
        }
        let local = Issuer("http://127.0.0.1:9000".into());
        let plain =
            document().to_string().replace("https://op.test/realms/main/", &local.0).replace("https", "http");
        assert!(parse(plain.as_bytes(), &local).is_ok());
    }

    #[test]
    fn members_that_are_missing_or_mistyped_are_refused() {
        let rows = [
            with("issuer", Value::Null),
            with("token_endpoint", Value::Null),
            with("token_endpoint", json!(7)),
            with("jwks_uri", json!("/relative")),
            with("jwks_uri", json!("https://user:secret@op.test/jwks")),
            with("authorization_endpoint", json!("https://op.test/auth#fragment")),
            with("userinfo_endpoint", json!(["https://op.test/me"])),
            with("token_endpoint_auth_methods_supported", json!([1])),
            with("authorization_response_iss_parameter_supported", json!("true")),
            with("mtls_endpoint_aliases", json!("https://mtls.op.test")),
            with("mtls_endpoint_aliases", json!({ "token_endpoint": 5 })),
            with("require_pushed_authorization_requests", json!("true")),
            with("require_pushed_authorization_requests", json!(true)),
        ];
        for document in rows {
            let error = read(&document).unwrap_err();
            assert!(matches!(error, MetadataError::Malformed(_)), "{document}: {error}");
        }
        assert!(parse(b"<html>", &issuer()).is_err());
    }

    #[test]
    fn a_client_with_a_certificate_uses_the_aliases_and_nobody_else_does() {
        let mut document = with("revocation_endpoint", json!("https://op.test/revoke"));
        document["mtls_endpoint_aliases"] = json!({
            "token_endpoint": "https://mtls.op.test/token",
            "pushed_authorization_request_endpoint": "https://mtls.op.test/par",
            "revocation_endpoint": null,
            "device_authorization_endpoint": "https://mtls.op.test/device",
        });
        let plain = read(&document).unwrap();
        assert_eq!(plain.token_endpoint.as_str(), "https://op.test/token");
        let aliased = plain.for_certificate();
        assert_eq!(aliased.token_endpoint.as_str(), "https://mtls.op.test/token");
        assert_eq!(aliased.pushed_request_endpoint.unwrap().as_str(), "https://mtls.op.test/par");
        assert_eq!(aliased.revocation_endpoint.unwrap().as_str(), "https://op.test/revoke");
        assert_eq!(aliased.authorization_endpoint.as_str(), "https://op.test/auth?tenant=1");
        let insecure =
            with("mtls_endpoint_aliases", json!({ "token_endpoint": "http://mtls.op.test/token" }));
        let error = read(&insecure).unwrap_err();
        assert!(matches!(error, MetadataError::InsecureEndpoint { .. }), "TK-138: {error}");
    }

    #[test]
    fn challenge_methods_without_s256_are_refused() {
        let error = read(&with("code_challenge_methods_supported", json!(["plain"]))).unwrap_err();
        assert!(matches!(error, MetadataError::NoS256));
    }
}
