//! The demo's application: it knows nothing of sign-in and shows the headers that it got.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::Response;
use percent_encoding::percent_decode_str;

use super::page::{self, About, Application, Owner, Shown};

/// The name of the page that each route shows, in the order of the menu.
const PAGES: &[(&str, &str)] =
    &[("/", "Home"), ("/admin/", "Admins only"), ("/optional/", "For anybody"), ("/public/", "Public")];

/// What an application is told of a person starts like this, in the demo's configuration.
const IDENTITY_PREFIX: &str = "x-forwarded-";

/// Also `x-forwarded-`, but of the connection and not of the person.
const CONNECTION: &[&str] = &["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];

/// The application; the gateway's endpoints are below `prefix`.
pub(super) fn router(prefix: &'static str) -> Router {
    Router::new().fallback(show).with_state(prefix)
}

async fn show(State(prefix): State<&'static str>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let all = shown(&headers);
    let identity: Vec<Shown> = all.iter().filter(|header| is_identity(&header.name)).cloned().collect();
    let person = name_of(&identity);
    let content = Application {
        pages: PAGES,
        here: uri.path(),
        about: about(uri.path()),
        person: person.as_deref(),
        identity: &identity,
        prefix,
        request_line: &format!("{method} {uri} HTTP/1.1"),
        headers: &all,
    };
    page::answer(StatusCode::OK, Owner::Application, "What the application sees", &content)
}

/// Every header but cookies: no page should show what would be worth stealing in a real setup.
fn shown(headers: &HeaderMap) -> Vec<Shown> {
    let fields = headers.iter().filter(|(name, _)| *name != header::COOKIE);
    let show = |(name, value): (&header::HeaderName, &header::HeaderValue)| Shown {
        name: name.to_string(),
        value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
    };
    fields.map(show).collect()
}

fn is_identity(name: &str) -> bool {
    name.starts_with(IDENTITY_PREFIX) && !CONNECTION.contains(&name)
}

/// The person's name, or else their user id; header values are percent-encoded UTF-8.
fn name_of(identity: &[Shown]) -> Option<String> {
    let find = |wanted: &str| identity.iter().find(|header| header.name == wanted);
    let header = find("x-forwarded-name").or_else(|| find("x-forwarded-user"))?;
    Some(percent_decode_str(&header.value).decode_utf8_lossy().into_owned())
}

/// What the route of a page says of who gets there.
fn about(path: &str) -> About {
    let is_at =
        |page: &str| path == page || path.strip_prefix(page).is_some_and(|rest| rest.starts_with('/'));
    if is_at("/admin") {
        About {
            text: "Only members of the group admins get here.",
            setting: "require = { groups = [\"admins\"] }",
            is_told: true,
        }
    } else if is_at("/optional") {
        let text = "Everybody gets here, and the application is told who it is if somebody is signed in.";
        About { text, setting: "access = \"optional\"", is_told: true }
    } else if is_at("/public") {
        let text = "Everybody gets here, and the application is never told who it is.";
        About { text, setting: "access = \"public\"", is_told: false }
    } else {
        About {
            text: "Only people who signed in get here.",
            setting: "access = \"signed-in\"",
            is_told: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, value: &str) -> Shown {
        Shown { name: name.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn a_person_is_called_by_name_where_one_came() {
        let user = header("x-forwarded-user", "demo-1001");
        let name = header("x-forwarded-name", "Alice %C3%85ngstr%C3%B6m");
        let cases = [
            ("nobody", vec![], None),
            ("only an id", vec![user.clone()], Some("demo-1001")),
            ("a name too", vec![user, name], Some("Alice Ångström")),
        ];
        for (case, identity, wanted) in cases {
            assert_eq!(name_of(&identity).as_deref(), wanted, "{case}");
        }
    }

    #[test]
    fn cookies_are_not_shown_and_the_connection_is_no_identity() {
        let mut headers = HeaderMap::new();
        headers.insert("cookie", "app=1".parse().unwrap());
        headers.insert("x-forwarded-for", "127.0.0.1".parse().unwrap());
        headers.insert("x-forwarded-user", "u".parse().unwrap());
        let all = shown(&headers);
        assert!(all.iter().all(|header| header.name != "cookie"), "{all:?}");
        let identity: Vec<_> = all.iter().filter(|header| is_identity(&header.name)).collect();
        assert_eq!(identity, [&header("x-forwarded-user", "u")]);
    }
}
