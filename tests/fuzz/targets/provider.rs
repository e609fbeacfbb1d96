//! What a provider says: its answer in the browser, its metadata, its keys.

use portcullis::oidc::callback::{self, Outcome};
use portcullis::oidc::{Issuer, metadata};
use portcullis::token::{Algorithm, KeySet};
use url::form_urlencoded;

/// What is taken out of a callback stands in it once, by a second reader too.
pub fn callback(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let Ok(params) = callback::parse(&text) else { return };
    let all = |name: &str| -> Vec<String> {
        let same = |pair: &(std::borrow::Cow<'_, str>, _)| pair.0 == name;
        form_urlencoded::parse(text.as_bytes()).filter(same).map(|(_, value)| value.into_owned()).collect()
    };
    assert_eq!(all("state"), [params.state.expose().clone()]);
    assert_eq!(all("iss"), Vec::from_iter(params.iss.clone()));
    match &params.outcome {
        Outcome::Code(code) => {
            assert_eq!(all("code"), [code.expose().clone()]);
            assert!(all("error").is_empty());
        }
        Outcome::Error { error, description } => {
            assert!(all("code").is_empty() && all("error").len() == 1);
            assert!(!error.is_empty() && error.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
            assert!(!description.chars().any(char::is_control) && description.chars().count() <= 200);
        }
    }
    assert!(all("access_token").is_empty() && all("id_token").is_empty(), "a token in the query");
    assert!(!params.state.expose().chars().any(char::is_control));
}

/// Metadata that is accepted is the issuer's, and names https only; of keys no more are kept than came.
pub fn metadata(input: &[u8]) {
    let issuer = Issuer("https://op.test".into());
    if let Ok(metadata) = metadata::parse(input, &issuer) {
        assert_eq!(metadata.issuer, issuer);
        let required = [&metadata.authorization_endpoint, &metadata.token_endpoint, &metadata.jwks_uri];
        let optional =
            [&metadata.userinfo_endpoint, &metadata.end_session_endpoint, &metadata.revocation_endpoint];
        for endpoint in required.into_iter().chain(optional.into_iter().flatten()) {
            assert!(endpoint.as_str().starts_with("https://"), "{endpoint:?} is not https");
        }
    }
    if let Ok(keys) = KeySet::parse(input) {
        assert!(keys.len() + keys.passed_over().len() <= input.len());
        let usable = Algorithm::ALL.iter().any(|algorithm| keys.serves(*algorithm));
        assert_eq!(usable, !keys.is_empty(), "a key is kept that nothing is verified with");
    }
}
