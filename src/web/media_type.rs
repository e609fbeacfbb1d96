//! What a body is, by its `Content-Type`.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// The media type of an HTML form.
pub const FORM: &str = "application/x-www-form-urlencoded";

/// The media type of a message in lower case, without its parameters.
#[must_use]
pub fn media_type(headers: &HeaderMap) -> Option<String> {
    let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let essence = content_type.split(';').next().unwrap_or_default();
    Some(essence.trim().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_media_type_is_told_without_parameters_in_lower_case() {
        let cases = [
            (None, None),
            (Some("application/json"), Some("application/json")),
            (Some("Application/JSON; charset=utf-8"), Some("application/json")),
            (Some(" application/x-www-form-urlencoded ;x"), Some(FORM)),
            (Some(""), Some("")),
            (Some("\u{e9}"), None),
        ];
        for (sent, wanted) in cases {
            let mut headers = HeaderMap::new();
            if let Some(sent) = sent {
                headers.insert(CONTENT_TYPE, HeaderValue::from_bytes(sent.as_bytes()).unwrap());
            }
            assert_eq!(media_type(&headers).as_deref(), wanted, "{sent:?}");
        }
    }
}
