//! The pages that people see: accessible HTML, one embedded stylesheet, light and dark, no script.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::HeaderValue;
use sha2::{Digest, Sha256};

/// The stylesheet, embedded in every page.
const STYLE: &str = include_str!("templates/style.css");

/// `default-src 'none'`, the hash of the embedded stylesheet, `form-action 'self'`,
/// `frame-ancestors 'none'`, `base-uri 'none'`.
#[must_use]
pub fn content_security_policy() -> &'static HeaderValue {
    static POLICY: LazyLock<HeaderValue> = LazyLock::new(policy);
    &POLICY
}

/// Should the hash ever not fit into a header, pages go without style and not without a policy.
fn policy() -> HeaderValue {
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    let rest = "form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
    let policy = format!("default-src 'none'; style-src 'sha256-{hash}'; {rest}");
    HeaderValue::try_from(policy)
        .unwrap_or(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"))
}

/// One provider on the sign-in page.
#[derive(Clone, Debug)]
pub struct Choice {
    /// What the button says.
    pub name: String,
    /// Where it leads: a path on this host.
    pub href: String,
}

/// The sign-in page.
#[must_use]
pub fn sign_in(choices: &[Choice], demo: bool) -> String {
    todo!()
}

/// The page after sign-out. `sign_in_href` is a path on this host; `remote` says whether the
/// provider's session was ended too.
#[must_use]
pub fn signed_out(sign_in_href: &str, demo: bool) -> String {
    todo!()
}

/// What the error page says.
#[derive(Clone, Debug)]
pub struct ErrorPage<'a> {
    /// The status, for the title.
    pub status: u16,
    /// The refusal's code, for example `group_missing`.
    pub code: &'a str,
    /// One sentence for the person: what happened.
    pub message: &'a str,
    /// What they can do, if anything.
    pub advice: &'a str,
    /// The request id.
    pub request_id: &'a str,
    /// A way on: label and path on this host (for example "Try again").
    pub action: Option<(&'a str, &'a str)>,
    /// Whether to say that this is a demo.
    pub demo: bool,
}

/// The error page.
#[must_use]
pub fn error(page: &ErrorPage<'_>) -> String {
    todo!()
}
