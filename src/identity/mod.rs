//! Who somebody is: claims -> [`Identity`], and [`headers`], THE TABLE of identity headers.

pub mod headers;

use std::sync::Arc;

use crate::token::Claims;

/// Where in the claims the identity is.
#[derive(Clone, Debug)]
pub struct ClaimPaths {
    /// What the application is told as the user: `sub` by default.
    pub user: Arc<str>,
    /// `email` by default.
    pub email: Arc<str>,
    /// `preferred_username` by default.
    pub preferred_username: Arc<str>,
    /// `groups` by default; dotted paths such as `realm_access.roles`.
    pub groups: Arc<str>,
}

impl Default for ClaimPaths {
    fn default() -> Self {
        Self {
            user: "sub".into(),
            email: "email".into(),
            preferred_username: "preferred_username".into(),
            groups: "groups".into(),
        }
    }
}

/// A person as applications and policies see them.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The provider that says so.
    pub issuer: Arc<str>,
    /// The subject at that provider; with `issuer` the key of the user (ID-13).
    pub subject: Arc<str>,
    /// What the application is told as the user.
    pub user: Arc<str>,
    /// The e-mail address, if it is a string.
    pub email: Option<Arc<str>>,
    /// Whether `email_verified` is the boolean true.
    pub email_verified: bool,
    /// The name that the person goes by.
    pub preferred_username: Option<Arc<str>>,
    /// The groups; `None` where the claim is missing, no list of strings, or an overage reference
    /// (ID-18): routes that need a group then refuse.
    pub groups: Option<Vec<Arc<str>>>,
}

/// Why claims make no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// `iss` or `sub` missing or no string.
    #[error("claim `{0}` is missing or not a string")]
    Missing(&'static str),
    /// The claim chosen as the user is missing or no string.
    #[error("claim `{0}`, configured as the user, is missing or not a string")]
    NoUser(String),
}

impl Identity {
    /// Reads an identity out of verified claims.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn from_claims(claims: &Claims, paths: &ClaimPaths) -> Result<Self, IdentityError> {
        todo!()
    }
}
