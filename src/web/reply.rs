//! An answer that the gateway gives itself.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, StatusCode};

use super::page;

/// Status, headers and a whole body. Every reply is `Cache-Control: no-store`,
/// `X-Content-Type-Options: nosniff` and `Referrer-Policy: no-referrer`.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// All headers but `Content-Length` and `Date`, which the server sets.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// A reply without a body.
    #[must_use]
    pub fn empty(status: StatusCode) -> Self {
        let headers = HeaderMap::from_iter([
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        ]);
        Self { status, headers, body: Bytes::new() }
    }

    /// An HTML page under the pages' Content-Security-Policy ([`page::content_security_policy`]), in
    /// no frame.
    #[must_use]
    pub fn html(status: StatusCode, page: String) -> Self {
        Self { body: Bytes::from(page), ..Self::empty(status) }
            .with_header(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))
            .with_header(CONTENT_SECURITY_POLICY, page::content_security_policy().clone())
            .with_header(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"))
    }

    /// A page without content that pages of one origin may show in a frame, and nobody else.
    #[must_use]
    pub fn framed(status: StatusCode, ancestor: &str) -> Self {
        let policy =
            format!("default-src 'none'; frame-ancestors {ancestor}; base-uri 'none'; form-action 'none'");
        // What is no header value is no origin either.
        let policy = HeaderValue::try_from(policy)
            .unwrap_or(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
        Self { body: Bytes::from_static(page::EMPTY.as_bytes()), ..Self::empty(status) }
            .with_header(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))
            .with_header(CONTENT_SECURITY_POLICY, policy)
    }

    /// A JSON body.
    #[must_use]
    pub fn json(status: StatusCode, body: &serde_json::Value) -> Self {
        Self { body: Bytes::from(body.to_string()), ..Self::empty(status) }
            .with_header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
    }

    /// A 302 to `location` (an absolute URL or a path that the caller has checked).
    ///
    /// # Errors
    /// [`LocationError`] when it is empty or holds bytes that may not stand in a header (RD-5):
    /// everything but visible ASCII.
    pub fn redirect(location: &str) -> Result<Self, LocationError> {
        if location.is_empty() || !location.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(LocationError);
        }
        let location = HeaderValue::from_str(location).map_err(|_invalid| LocationError)?;
        Ok(Self::empty(StatusCode::FOUND).with_header(LOCATION, location))
    }

    /// The same reply with one more header, which replaces one of the same name.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

/// A redirect target that may not stand in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the redirect target holds bytes that are not allowed in a header")]
pub struct LocationError;

#[cfg(test)]
mod tests {
    use super::*;

    fn header(reply: &Reply, name: &str) -> Option<String> {
        let mut values = reply.headers.get_all(name).iter();
        let value = values.next()?.to_str().unwrap().to_owned();
        assert_eq!(values.next(), None, "{name} stands once");
        Some(value)
    }

    fn every_kind() -> [(&'static str, Reply); 5] {
        [
            ("empty", Reply::empty(StatusCode::NO_CONTENT)),
            ("html", Reply::html(StatusCode::OK, "<p>".to_owned())),
            ("framed", Reply::framed(StatusCode::OK, "https://op.test")),
            ("json", Reply::json(StatusCode::OK, &serde_json::json!({}))),
            ("redirect", Reply::redirect("/x").unwrap()),
        ]
    }

    #[test]
    fn no_reply_is_stored_sniffed_or_named_as_a_referrer() {
        for (kind, reply) in every_kind() {
            assert_eq!(header(&reply, "cache-control").as_deref(), Some("no-store"), "{kind}");
            assert_eq!(header(&reply, "x-content-type-options").as_deref(), Some("nosniff"), "{kind}");
            assert_eq!(header(&reply, "referrer-policy").as_deref(), Some("no-referrer"), "{kind}");
        }
    }

    #[test]
    fn a_framed_page_is_for_one_origin_and_holds_nothing() {
        let rows = [
            ("an origin", "https://op.test:8443", "frame-ancestors https://op.test:8443;"),
            ("no header value", "https://op.test\r\n", "frame-ancestors 'none'"),
        ];
        for (name, ancestor, wanted) in rows {
            let reply = Reply::framed(StatusCode::OK, ancestor);
            let policy = header(&reply, "content-security-policy").unwrap();
            assert!(
                policy.contains(wanted) && policy.starts_with("default-src 'none'; "),
                "{name}: {policy}"
            );
            assert_eq!(header(&reply, "x-frame-options"), None, "{name}");
            assert!(!reply.body.windows(7).any(|part| part == b"<script"), "{name}");
        }
    }

    #[test]
    fn a_page_comes_with_its_policy_and_stands_in_no_frame() {
        let reply = Reply::html(StatusCode::FORBIDDEN, "<p>caf\u{e9}".to_owned());
        assert_eq!(reply.status, StatusCode::FORBIDDEN);
        assert_eq!(reply.body, "<p>caf\u{e9}".as_bytes());
        assert_eq!(header(&reply, "content-type").as_deref(), Some("text/html; charset=utf-8"));
        assert_eq!(header(&reply, "x-frame-options").as_deref(), Some("DENY"));
        let policy = header(&reply, "content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    }

    #[test]
    fn json_is_sent_as_json() {
        let reply = Reply::json(StatusCode::UNAUTHORIZED, &serde_json::json!({"code": "sign_in_required"}));
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
        assert_eq!(reply.body, r#"{"code":"sign_in_required"}"#);
        assert_eq!(header(&reply, "content-type").as_deref(), Some("application/json"));
    }

    #[test]
    fn a_redirect_is_a_302_without_a_body() {
        let reply = Reply::redirect("https://op.test/authorize?a=b%20c&d='").unwrap();
        assert_eq!((reply.status, reply.body.len()), (StatusCode::FOUND, 0));
        assert_eq!(header(&reply, "location").as_deref(), Some("https://op.test/authorize?a=b%20c&d='"));
    }

    #[test]
    fn a_redirect_target_that_could_end_the_header_is_refused() {
        let rows = [
            "",
            "/a\r\nSet-Cookie: x=y",
            "/a\nb",
            "/a\rb",
            "/a\0",
            "/a\tb",
            "/a b",
            " /a",
            "/caf\u{e9}",
            "/\u{7f}",
        ];
        for location in rows {
            assert_eq!(Reply::redirect(location).err(), Some(LocationError), "{location:?}");
        }
    }

    #[test]
    fn a_header_replaces_one_of_the_same_name() {
        let reply =
            Reply::empty(StatusCode::OK).with_header(CACHE_CONTROL, HeaderValue::from_static("private"));
        assert_eq!(header(&reply, "cache-control").as_deref(), Some("private"));
    }
}
