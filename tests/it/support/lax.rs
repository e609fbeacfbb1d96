//! How a lax application reads a request: in every way that some framework or server does.
//!
//! The gateway must never need an application to read strictly: what a lax one takes for a protected
//! resource has to be one in the gateway's eyes too.

use super::wire::Head;

/// Who may see what is protected.
const ROOT: &str = "root";

/// The header that names the user, as an application behind CGI finds it.
const USER: &str = "x-forwarded-user";

/// Whether a lax application served `/admin` to somebody else than `root`.
pub fn is_breach(head: &Head) -> bool {
    let target = head.line.split(' ').nth(1).unwrap_or_default();
    let resource = resource(target);
    let is_protected = resource == "/admin" || resource.starts_with("/admin/");
    let is_admin_host = cgi(head, "host").iter().any(|host| host.starts_with("admin.test"));
    (is_protected || is_admin_host) && cgi(head, USER) != [ROOT]
}

/// The resource of a target: the authority of an absolute form passed over, escapes decoded once (overlong
/// forms too), cut at a NUL, `\` taken for `/`, parameters cut off, empty segments passed over, dots
/// resolved, dots and spaces at the end of a segment dropped, all in lower case.
pub fn resource(target: &str) -> String {
    let target = match target.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
        None => target,
    };
    let path = decode(target.split(['?', '#']).next().unwrap_or_default());
    let mut resolved: Vec<String> = Vec::new();
    for segment in path.split('\0').next().unwrap_or_default().split(['/', '\\']) {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(resolved.pop()),
            name => resolved.push(name.trim_end_matches(['.', ' ']).to_ascii_lowercase()),
        }
    }
    format!("/{}", resolved.join("/"))
}

/// Every value of a header, by its name as CGI has it: in lower case, every other sign than letters and
/// digits a `-`.
pub fn cgi<'a>(head: &'a Head, name: &str) -> Vec<&'a str> {
    let mapped = |name: &str| -> String {
        let map = |sign: char| if sign.is_ascii_alphanumeric() { sign.to_ascii_lowercase() } else { '-' };
        name.chars().map(map).collect()
    };
    let fields = head.fields.iter().filter(|(field, _)| mapped(field) == name);
    fields.map(|(_, value)| value.as_str()).collect()
}

fn decode(path: &str) -> String {
    let bytes: Vec<u8> = percent_encoding::percent_decode_str(path).collect();
    let text: String = bytes.iter().map(|&byte| char::from(byte)).collect();
    text.replace("\u{c0}\u{ae}", ".").replace("\u{c0}\u{af}", "/")
}

#[test]
fn a_lax_application_finds_the_protected_resource_behind_every_spelling() {
    let spellings = [
        "/admin/secret",
        "/ADMIN/secret",
        "//admin/secret",
        "/public/../admin/secret",
        "/public/%2e%2e/admin/secret",
        "/public/..%2fadmin%2fsecret",
        "/public/..\\admin\\secret",
        "/public/..;a=b/admin;x/secret",
        "/public/%c0%ae%c0%ae%c0%afadmin/secret",
        "/admin%20/secret",
        "/admin./secret.",
        "/admin/secret%00.png",
        "http://other.test/admin/secret?x#y",
    ];
    for spelling in spellings {
        assert_eq!(resource(spelling), "/admin/secret", "{spelling}");
    }
    assert_eq!(resource("/public/%252e%252e/x"), "/public/%2e%2e/x", "decoded once");
}

#[test]
fn a_lax_application_takes_any_spelling_of_a_header() {
    let breach = |user: &str, value: &str| {
        let fields = vec![("Host".to_owned(), "app.test".to_owned()), (user.to_owned(), value.to_owned())];
        is_breach(&Head { line: "GET /admin/secret HTTP/1.1".to_owned(), fields })
    };
    assert!(breach("X-Forwarded-User", "alice"));
    for name in ["X-Forwarded-User", "x_forwarded_user", "X.Forwarded-User"] {
        assert!(!breach(name, "root"), "{name}");
    }
}
