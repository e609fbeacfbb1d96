//! The provider's discovery document (OpenID Connect Discovery 1.0).

use url::Url;

use super::Issuer;

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
    /// `token_endpoint_auth_methods_supported`; the default of the specification is `client_secret_basic`.
    pub token_endpoint_auth_methods: Vec<String>,
    /// RFC 9207: the callback must carry `iss`.
    pub iss_parameter_supported: bool,
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

/// Where the discovery document of `issuer` is: its one trailing slash, if any, removed, then
/// `/.well-known/openid-configuration` (Discovery 4).
///
/// # Errors
/// When the issuer is no URL.
pub fn discovery_url(issuer: &Issuer) -> Result<Url, url::ParseError> {
    todo!()
}

/// Reads and checks a discovery document. Plain http endpoints are accepted only when the issuer
/// itself is plain http (which `config` allows for loopback hosts only).
///
/// # Errors
/// [`MetadataError`].
pub fn parse(bytes: &[u8], issuer: &Issuer) -> Result<Metadata, MetadataError> {
    todo!()
}
