//! The sign-out redirect to the provider (RP-Initiated Logout 1.0, 2).

use url::Url;

use super::ClientId;
use crate::secret::Secret;

/// `end_session_endpoint` with `id_token_hint`, `client_id`, `post_logout_redirect_uri` and `state`;
/// parameters that the endpoint's URL already has are kept.
#[must_use]
pub fn url(
    endpoint: &Url,
    id_token: &Secret<String>,
    client_id: &ClientId,
    post_logout_redirect_uri: &Url,
    state: &str,
) -> Url {
    todo!()
}
