//! The pages that people see: accessible HTML, one embedded stylesheet, light and dark, no script.
//!
//! The templates escape whatever they are given. The policy that goes with each page allows the
//! stylesheet by its hash and nothing else.

use std::sync::LazyLock;

use askama::Template;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::HeaderValue;
use sha2::{Digest, Sha256};

/// The stylesheet, embedded in every page as it stands.
const STYLE: &str = include_str!("templates/style.css");

/// `default-src 'none'`, the hash of the embedded stylesheet, `form-action 'self'`,
/// `frame-ancestors 'none'`, `base-uri 'none'`.
#[must_use]
pub fn content_security_policy() -> &'static HeaderValue {
    static POLICY: LazyLock<HeaderValue> = LazyLock::new(policy);
    &POLICY
}

fn policy() -> HeaderValue {
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    let rest = "form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
    let policy = format!("default-src 'none'; style-src 'sha256-{hash}'; {rest}");
    // Should that ever not fit into a header, pages go without style rather than without a policy.
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

/// A page without content: what a frame gets that nobody looks into.
pub const EMPTY: &str = "<!doctype html>\n<html lang=\"en\"><title>Portcullis</title></html>\n";

/// One provider on the sign-in page.
#[derive(Clone, Debug)]
pub struct Choice {
    /// What the provider is called: the button says "Continue with NAME".
    pub name: String,
    /// Where it leads: a path on this host.
    pub href: String,
}

/// The field for an e-mail address, whose domain says who signs the person in.
#[derive(Clone, Copy, Debug)]
pub struct EmailForm<'a> {
    /// Where it is posted: a path on this host.
    pub action: &'a str,
    /// Where the person goes after sign-in, as `rd`.
    pub return_to: &'a str,
    /// What stands in the field.
    pub typed: &'a str,
    /// Whether nobody signs in with what was typed.
    pub unknown: bool,
}

/// What the sign-in page offers.
#[derive(Clone, Copy, Debug)]
pub struct SignInPage<'a> {
    /// The field for an address, where a domain means something.
    pub email: Option<EmailForm<'a>>,
    /// The buttons.
    pub choices: &'a [Choice],
    /// Whether to say that this is a demo.
    pub demo: bool,
}

impl SignInPage<'_> {
    fn is_unknown(&self) -> bool {
        self.email.is_some_and(|form| form.unknown)
    }
}

/// The sign-in page.
#[must_use]
pub fn sign_in(page: &SignInPage<'_>) -> String {
    render(&SignIn { page, demo: page.demo })
}

/// The page that goes on to `href` (absolute, https) by itself: what a form is answered with that leads to
/// another site, because browsers hold the redirects behind a form to `form-action`.
#[must_use]
pub fn leaving(href: &str, name: &str, demo: bool) -> String {
    render(&Leaving { href, name, demo })
}

/// The page after sign-out. `sign_in_href` is a path on this host.
#[must_use]
pub fn signed_out(sign_in_href: &str, demo: bool) -> String {
    render(&SignedOut { sign_in_href, demo })
}

/// What the error page says.
#[derive(Clone, Debug)]
pub struct ErrorPage<'a> {
    /// The status.
    pub status: u16,
    /// The refusal's code, for example `group_missing`.
    pub code: &'a str,
    /// One sentence for the person: what happened. It is the heading and the title.
    pub message: &'a str,
    /// What they can do; may be empty.
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
    render(&Error { page, demo: page.demo })
}

#[derive(Template)]
#[template(path = "sign_in.html", config = "src/web/templates/askama.toml")]
struct SignIn<'a> {
    page: &'a SignInPage<'a>,
    demo: bool,
}

#[derive(Template)]
#[template(path = "leaving.html", config = "src/web/templates/askama.toml")]
struct Leaving<'a> {
    href: &'a str,
    name: &'a str,
    demo: bool,
}

#[derive(Template)]
#[template(path = "signed_out.html", config = "src/web/templates/askama.toml")]
struct SignedOut<'a> {
    sign_in_href: &'a str,
    demo: bool,
}

#[derive(Template)]
#[template(path = "error.html", config = "src/web/templates/askama.toml")]
struct Error<'a> {
    page: &'a ErrorPage<'a>,
    demo: bool,
}

/// Writing into a string does not fail; an empty page would say less than nothing, but nothing wrong.
fn render(page: &impl Template) -> String {
    page.render().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(name: &str, href: &str) -> Choice {
        Choice { name: name.to_owned(), href: href.to_owned() }
    }

    fn chosen(choices: &[Choice], demo: bool) -> String {
        sign_in(&SignInPage { email: None, choices, demo })
    }

    fn asked(choices: &[Choice], typed: &str, unknown: bool, demo: bool) -> String {
        let form = EmailForm { action: "/oauth2/start", return_to: "/page?x", typed, unknown };
        sign_in(&SignInPage { email: Some(form), choices, demo })
    }

    fn refused<'a>() -> ErrorPage<'a> {
        ErrorPage {
            status: 403,
            code: "group_missing",
            message: "Your account may not open this page.",
            advice: "Tell your administrator.",
            request_id: "0190d3c2",
            action: None,
            demo: false,
        }
    }

    fn every_page(demo: bool) -> Vec<(&'static str, String)> {
        let one = [choice("Keycloak", "/oauth2/start?provider=a&rd=%2F")];
        let two = [choice("Staff", "/oauth2/start?provider=a"), choice("Guests", "/oauth2/start?provider=b")];
        let action = Some(("Start again", "/oauth2/sign_in"));
        vec![
            ("sign-in", chosen(&one, demo)),
            ("sign-in with a choice", chosen(&two, demo)),
            ("sign-in by address", asked(&[], "", false, demo)),
            ("sign-in by address or choice", asked(&two, "a@b.test", true, demo)),
            ("leaving", leaving("/away", "Staff", demo)),
            ("signed-out", signed_out("/", demo)),
            ("error", error(&ErrorPage { demo, ..refused() })),
            ("error with a way on", error(&ErrorPage { action, demo, ..refused() })),
        ]
    }

    /// What stands between two marks, the first time.
    fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
        text.split_once(start).and_then(|(_, rest)| rest.split_once(end)).map_or("", |(inner, _)| inner)
    }

    #[test]
    fn the_policy_allows_the_embedded_stylesheet_and_nothing_else() {
        let hash = STANDARD.encode(Sha256::digest(STYLE));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{hash}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        );
        assert_eq!(content_security_policy(), policy.as_str());
        for (name, page) in every_page(false).into_iter().chain(every_page(true)) {
            let embedded = between(&page, "<style>", "</style>");
            assert_eq!(STANDARD.encode(Sha256::digest(embedded)), hash, "{name}");
            assert_eq!(page.matches("<style").count(), 1, "{name}");
        }
    }

    #[test]
    fn every_page_has_its_language_one_heading_and_its_landmarks() {
        for (name, page) in every_page(true) {
            assert!(page.starts_with("<!doctype html>\n<html lang=\"en\">"), "{name}");
            for tag in ["<h1", "<main>", "<header>", "<title>", "name=\"viewport\""] {
                assert_eq!(page.matches(tag).count(), 1, "{name} has one {tag}");
            }
            assert!(between(&page, "<title>", "</title>").ends_with(" \u{b7} Portcullis"), "{name}");
            assert!(between(&page, "<main>", "</main>").contains("<h1"), "{name}");
        }
    }

    #[test]
    fn no_page_needs_a_script_or_anything_from_elsewhere() {
        for (name, page) in every_page(true) {
            for foreign in
                ["<script", "<link", "<img", "<iframe", "style=", "://", "javascript:", "url(", "@import"]
            {
                assert!(!page.contains(foreign), "{name} holds {foreign}");
            }
        }
    }

    #[test]
    fn every_page_of_a_demo_and_no_other_says_so() {
        for (name, page) in every_page(true) {
            assert!(page.contains("This is a demo."), "{name}");
        }
        for (name, page) in every_page(false) {
            assert!(!between(&page, "</style>", "</html>").contains("demo"), "{name}");
        }
    }

    #[test]
    fn the_sign_in_page_has_one_link_for_each_provider() {
        let page = chosen(&[choice("Staff", "/a?x=1&y=2"), choice("Guests", "/b")], false);
        assert_eq!(page.matches("<a ").count(), 2);
        assert!(page.contains("href=\"/a?x=1&#38;y=2\">Continue with Staff</a>"));
        assert!(page.contains("href=\"/b\">Continue with Guests</a>"));
    }

    #[test]
    fn the_field_for_an_address_is_labelled_and_says_what_is_wrong_with_it() {
        let fresh = asked(&[], "", false, false);
        for text in [
            "<form class=\"actions\" method=\"post\" action=\"/oauth2/start\">",
            "<input type=\"hidden\" name=\"rd\" value=\"/page?x\">",
            "<label for=\"email\">",
            "id=\"email\" name=\"email\" type=\"email\" value=\"\" ",
        ] {
            assert!(fresh.contains(text), "{text}");
        }
        assert!(!fresh.contains("aria-invalid=") && !fresh.contains("role=\"alert\""));
        let wrong = asked(&[choice("Staff", "/a")], "eve@evil.test", true, false);
        for text in [
            "<title>Not found: Sign in",
            "value=\"eve@evil.test\"",
            "aria-invalid=\"true\" aria-describedby=\"unknown\"",
            "id=\"unknown\" role=\"alert\"",
            ", or choose below",
        ] {
            assert!(wrong.contains(text), "{text}");
        }
        assert!(!chosen(&[choice("Staff", "/a")], false).contains("<form"));
    }

    #[test]
    fn the_page_in_between_goes_on_by_itself_and_by_hand() {
        let page = leaving("https://op.test/auth?a=1&b=2", "Staff", false);
        assert!(
            page.contains(
                "<meta http-equiv=\"refresh\" content=\"0; url=https://op.test/auth?a=1&#38;b=2\">"
            )
        );
        assert!(page.contains("href=\"https://op.test/auth?a=1&#38;b=2\">Continue</a>"));
    }

    #[test]
    fn the_signed_out_page_leads_back_to_sign_in() {
        let page = signed_out("/app?x", false);
        assert_eq!(page.matches("<a ").count(), 1);
        assert!(page.contains("href=\"/app?x\">Sign in again</a>"));
    }

    #[test]
    fn the_error_page_shows_status_code_request_id_and_the_way_on() {
        let page = error(&ErrorPage { action: Some(("Start again", "/oauth2/sign_in")), ..refused() });
        let shown = [
            "<title>Your account may not open this page \u{b7} Portcullis</title>",
            "<p class=\"status\">Error 403</p>",
            ">Your account may not open this page.</h1>",
            "<p class=\"soft\">Tell your administrator.</p>",
            "<dd>group_missing</dd>",
            "<dd>0190d3c2</dd>",
            "href=\"/oauth2/sign_in\">Start again</a>",
        ];
        for text in shown {
            assert!(page.contains(text), "{text}");
        }
    }

    #[test]
    fn without_advice_or_a_way_on_the_error_page_has_no_empty_place_for_them() {
        let page = error(&ErrorPage { advice: "", ..refused() });
        assert!(!page.contains("<a ") && !page.contains("<p class=\"soft\">"));
    }

    #[test]
    fn whatever_a_page_is_given_is_shown_as_text() {
        let evil = "\"'><script>alert(1)</script>&";
        let page = ErrorPage {
            code: evil,
            message: evil,
            advice: evil,
            request_id: evil,
            action: Some((evil, evil)),
            ..refused()
        };
        let form = EmailForm { action: evil, return_to: evil, typed: evil, unknown: true };
        let by_email = sign_in(&SignInPage { email: Some(form), choices: &[], demo: false });
        let pages = [
            chosen(&[choice(evil, evil)], false),
            by_email,
            leaving(evil, evil, false),
            signed_out(evil, false),
            error(&page),
        ];
        for page in pages {
            assert!(!page.contains("<script") && !page.contains("\"'"), "{page}");
            assert!(page.contains("&#34;&#39;&#62;&#60;script&#62;alert(1)&#60;/script&#62;&#38;"), "{page}");
        }
    }

    /// The colours of one scheme by name; the second `:root` of the stylesheet is the dark one.
    fn colour(scheme: usize, name: &str) -> [f64; 3] {
        let root = STYLE.split(":root {").nth(scheme + 1).unwrap();
        let hex = between(root, &format!("--{name}: #"), ";");
        [0, 2, 4].map(|at| f64::from(u8::from_str_radix(hex.get(at..at + 2).unwrap(), 16).unwrap()) / 255.0)
    }

    /// WCAG 2.2, relative luminance.
    fn luminance(colour: [f64; 3]) -> f64 {
        let linear = colour
            .map(|part| if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) });
        0.0722f64.mul_add(linear[2], 0.2126f64.mul_add(linear[0], 0.7152 * linear[1]))
    }

    #[test]
    fn all_colours_have_the_contrast_of_wcag_aa_in_both_schemes() {
        let rows = [
            ("ink", "paper", 4.5),
            ("ink", "card", 4.5),
            ("ink", "tint", 4.5),
            ("soft", "card", 4.5),
            ("on-accent", "accent", 4.5),
            ("on-accent", "press", 4.5),
            ("on-note", "note", 4.5),
            ("wrong", "card", 4.5),
            ("edge", "card", 3.0),   // the border of a button
            ("accent", "card", 3.0), // the ring of the focus
        ];
        for scheme in [0, 1] {
            for (front, back, least) in rows {
                let (a, b) = (luminance(colour(scheme, front)), luminance(colour(scheme, back)));
                let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
                assert!(contrast >= least, "{front} on {back} in scheme {scheme}: {contrast:.2}");
            }
        }
    }
}
