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
    let mut url = endpoint.clone();
    url.query_pairs_mut()
        .append_pair("id_token_hint", id_token.expose())
        .append_pair("client_id", &client_id.0)
        .append_pair("post_logout_redirect_uri", post_logout_redirect_uri.as_str())
        .append_pair("state", state);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_redirect_names_the_session_the_client_and_the_way_back() {
        let url = url(
            &"https://op.test/end?tenant=1".parse().unwrap(),
            &Secret::new("aaa.bbb.ccc".to_owned()),
            &ClientId("a client".into()),
            &"https://app.test/oauth2/signed_out".parse().unwrap(),
            "s1",
        );
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let wanted = [
            ("tenant", "1"),
            ("id_token_hint", "aaa.bbb.ccc"),
            ("client_id", "a client"),
            ("post_logout_redirect_uri", "https://app.test/oauth2/signed_out"),
            ("state", "s1"),
        ];
        assert_eq!(pairs, wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
