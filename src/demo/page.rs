//! The pages of the demo's provider and application. Every value is escaped by the template engine;
//! every page says that it is a demo.

use std::sync::LazyLock;

use askama::Template;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::ledger::{BrowserSession, User};

/// The one stylesheet of all pages, embedded in each.
const STYLE: &str = include_str!("style.css");

/// Nothing is loaded from anywhere; the stylesheet is known by its hash. There is no `form-action`:
/// browsers hold it against the redirects that follow a form, and here they lead to another origin.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    format!("default-src 'none'; style-src 'sha256-{hash}'; frame-ancestors 'none'; base-uri 'none'")
});

/// Whose page it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The demo's OpenID provider.
    Provider,
    /// The demo's application.
    Application,
}

impl Owner {
    const fn class(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Application => "application",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Provider => "Demo provider",
            Self::Application => "Demo application",
        }
    }
}

#[derive(Template)]
#[template(
    ext = "html",
    source = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ title }} · {{ owner.name() }}</title>
<style>{{ style|safe }}</style>
</head>
<body class="{{ owner.class() }}">
<header><strong class="badge">Demo</strong> <span>{{ owner.name() }}</span></header>
<main>
{{ body|safe }}
</main>
<footer>This is a demo of Portcullis. It runs on this machine only, its keys were made when it started,
and its people are made up. Never give it a real password.</footer>
</body>
</html>
"#
)]
struct Layout<'a> {
    title: &'a str,
    owner: Owner,
    style: &'static str,
    body: String,
}

/// The provider's start page.
#[derive(Template)]
#[template(
    ext = "html",
    source = r#"<h1>An OpenID provider for the demo</h1>
{% if let Some(session) = session %}
<p>In this browser <strong>{{ session.user.name }}</strong> is signed in.</p>
<p><a class="button" href="/end_session">Sign out here</a></p>
{% else %}
<p>Nobody is signed in at the provider in this browser.</p>
{% endif %}
<p>Applications never see how you sign in here. They ask this provider who you are, with the OpenID Connect
protocol; in the demo Portcullis asks on behalf of the application behind it.</p>
<p><a href="/.well-known/openid-configuration">What this provider says of itself</a></p>
"#
)]
pub(super) struct ProviderHome<'a> {
    /// Who is signed in.
    pub(super) session: Option<&'a BrowserSession>,
}

/// The provider's sign-in page.
#[derive(Template)]
#[template(
    ext = "html",
    source = r#"<h1>Who do you want to be?</h1>
<p>The gateway at <strong>{{ gateway }}</strong> asks this provider who you are. A real provider would now ask for
a password, a key or a code; here you choose.</p>
<form method="post" action="{{ action }}">
{% for user in users %}
<button class="person" name="login" value="{{ user.login }}">
<span class="initial" aria-hidden="true">{{ user.login[..1]|upper }}</span>
<span><strong>{{ user.name }}</strong><br><small>signs in as {{ user.login }}, in {{ user.groups|join(" and ") }}</small></span>
</button>
{% endfor %}
<button class="quiet" name="login" value="">Refuse to sign in</button>
</form>
"#
)]
pub(super) struct SignIn<'a> {
    /// Who asks.
    pub(super) gateway: &'a str,
    /// Where the choice goes: the authorization request itself.
    pub(super) action: &'a str,
    /// Who there is.
    pub(super) users: &'static [User],
}

/// A short message.
#[derive(Template)]
#[template(
    ext = "html",
    source = r#"<h1>{{ heading }}</h1>
<p>{{ text }}</p>
"#
)]
pub(super) struct Message<'a> {
    /// What happened.
    pub(super) heading: &'a str,
    /// In a sentence.
    pub(super) text: &'a str,
}

/// A request header as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// Its name.
    pub(super) name: String,
    /// Its value.
    pub(super) value: String,
}

/// Who gets to a page, and the setting that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct About {
    /// In a sentence.
    pub(super) text: &'static str,
    /// As it stands in the configuration.
    pub(super) setting: &'static str,
    /// Whether the application is told who it is, if that is known.
    pub(super) is_told: bool,
}

/// A page of the application.
#[derive(Template)]
#[template(
    ext = "html",
    source = r#"<nav aria-label="Pages">
{% for (path, label) in pages %}<a href="{{ path }}"{% if *path == here %} aria-current="page"{% endif %}>{{ label }}</a>
{% endfor %}</nav>
<h1>{% if let Some(person) = person %}Hello, {{ person }}{% else %}Hello, whoever you are{% endif %}</h1>
<p>{{ about.text }} The route says <code>{{ about.setting }}</code>.</p>
<h2>Who is asking, as this application was told</h2>
{% if identity.is_empty() %}
<p class="empty">Nothing. No identity header came with this request.</p>
{% else %}
<div class="table"><table>
<thead><tr><th scope="col">Request header</th><th scope="col">Value</th></tr></thead>
<tbody>
{% for header in identity %}<tr><th scope="row"><code>{{ header.name }}</code></th><td><code>{{ header.value }}</code></td></tr>
{% endfor %}</tbody>
</table></div>
{% endif %}
<p>This application has no sign-in of its own and needs no library for it: it reads these headers, which
Portcullis sets. Copies that a browser sends itself never arrive.</p>
{% if person.is_some() %}
<form method="post" action="{{ prefix }}/sign_out"><button>Sign out, here and at the provider</button>
<a href="{{ prefix }}/userinfo">What Portcullis knows of me (JSON)</a></form>
{% elif about.is_told %}
<p><a class="button" href="{{ prefix }}/start?rd={{ here|urlencode }}">Sign in</a></p>
{% endif %}
<details><summary>The whole request</summary>
<pre><code>{{ request_line }}
{% for header in headers %}{{ header.name }}: {{ header.value }}
{% endfor %}</code></pre></details>
"#
)]
pub(super) struct Application<'a> {
    /// All pages: path and label.
    pub(super) pages: &'static [(&'static str, &'static str)],
    /// The path of the page that this is.
    pub(super) here: &'a str,
    /// What this page is for.
    pub(super) about: About,
    /// The name of who is signed in.
    pub(super) person: Option<&'a str>,
    /// The identity headers.
    pub(super) identity: &'a [Shown],
    /// Where the gateway's endpoints are.
    pub(super) prefix: &'a str,
    /// Method and target.
    pub(super) request_line: &'a str,
    /// All headers but cookies.
    pub(super) headers: &'a [Shown],
}

/// A whole page around `content`, as an answer.
pub(super) fn answer(status: StatusCode, owner: Owner, title: &str, content: &impl Template) -> Response {
    let page = content.render().and_then(|body| Layout { title, owner, style: STYLE, body }.render());
    let Ok(page) = page else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
    ];
    (status, headers, page).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    async fn text(response: Response) -> String {
        String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_hostile_value_stays_text() {
        let hostile = r#"<script>alert(1)</script>"'&"#;
        let header = [Shown { name: "user-agent".to_owned(), value: hostile.to_owned() }];
        let content = Application {
            pages: &[("/", "Home")],
            here: hostile,
            about: About { text: "t", setting: "s", is_told: true },
            person: Some(hostile),
            identity: &header,
            prefix: "/oauth2",
            request_line: hostile,
            headers: &header,
        };
        let page = text(answer(StatusCode::OK, Owner::Application, hostile, &content)).await;
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("&#60;script&#62;"), "{page}");
        let sign_in = SignIn { gateway: hostile, action: hostile, users: &[] };
        let page = text(answer(StatusCode::OK, Owner::Provider, "t", &sign_in)).await;
        assert!(!page.contains("<script") && !page.contains(r#""'&"#), "{page}");
    }

    #[tokio::test]
    async fn every_page_says_that_it_is_a_demo_and_loads_nothing() {
        for owner in [Owner::Provider, Owner::Application] {
            let response = answer(StatusCode::OK, owner, "t", &Message { heading: "h", text: "t" });
            let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
            let page = text(response).await;
            assert!(page.contains(r#"<strong class="badge">Demo</strong>"#), "{page}");
            assert!(page.contains("This is a demo of Portcullis."), "{page}");
        }
    }
}
