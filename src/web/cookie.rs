//! Cookies on the wire: reading all `Cookie` fields, taking ours out, writing `Set-Cookie`.
//!
//! Everything here works on bytes: one odd cookie of another application must not hide ours, and ours
//! must not slip through because of one (SC-7).

use std::time::Duration;

use ::cookie::{Cookie, Expiration, SameSite, time};
use bytes::Bytes;
use http::HeaderMap;
use http::header::{COOKIE, HeaderValue};
use memchr::memchr;

use super::trim_white_space;

/// What the request's `Cookie` fields say under one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// No cookie of that name.
    Absent,
    /// Exactly one.
    One(&'a [u8]),
    /// More than one: none of them counts (SC-8).
    Several,
}

/// Looks up `name` (exact bytes) in every `Cookie` field, h2 crumbs included (SC-7).
#[must_use]
pub fn find<'a>(headers: &'a HeaderMap, name: &str) -> Found<'a> {
    let mut values = pairs(headers).filter(|(found, _)| *found == name.as_bytes()).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (None, _) => Found::Absent,
        (Some(value), None) => Found::One(value),
        (Some(_), Some(_)) => Found::Several,
    }
}

/// Every cookie pair of the request, name and value, as bytes, in order; a bad pair is passed over.
pub fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    crumbs(headers).filter_map(split_pair)
}

/// The cookies whose names start with `prefix` (exact bytes), name and value, in order.
pub fn starting<'a>(headers: &'a HeaderMap, prefix: &str) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    let named = pairs(headers).filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, value)));
    named.filter(move |(name, _)| name.starts_with(prefix))
}

/// The `Cookie` field for the upstream: all crumbs joined with `; ` (PP-12), without the cookies for
/// which `is_ours` says yes. `None` when nothing is left. All other bytes are kept as sent.
#[must_use]
pub fn without(headers: &HeaderMap, is_ours: impl Fn(&[u8]) -> bool) -> Option<HeaderValue> {
    let mut kept = Vec::with_capacity(USUAL_BYTES);
    for crumb in crumbs(headers).filter(|crumb| !is_ours(returned_name(crumb))) {
        if !kept.is_empty() {
            kept.extend_from_slice(b"; ");
        }
        kept.extend_from_slice(crumb);
    }
    let value = HeaderValue::from_maybe_shared(Bytes::from(kept)).ok()?;
    (!value.is_empty()).then(|| sensitive(value))
}

/// What most requests have left of their cookies.
const USUAL_BYTES: usize = 256;

/// The name of the cookie that a `Set-Cookie` field of an upstream sets, trimmed as a browser does.
///
/// A cookie without a name is returned by browsers as its bare value, so that `=a=b` comes back as
/// the cookie `a`: such a field has the name that it comes back with.
#[must_use]
pub fn set_cookie_name(field: &[u8]) -> &[u8] {
    returned_name(trim_white_space(field.split(|byte| *byte == b';').next().unwrap_or_default()))
}

/// A `Set-Cookie` field: `HttpOnly; SameSite=Lax; Path=/`, `Secure` if asked, `Max-Age` if given.
///
/// `name` is a token and `value` base64url, both made by the gateway. Anything else gives an empty
/// field, which browsers pass over.
#[must_use]
pub fn set(name: &str, value: &str, secure: bool, max_age: Option<Duration>) -> HeaderValue {
    let max_age = max_age.map(|age| time::Duration::try_from(age).unwrap_or(time::Duration::MAX));
    let mut cookie = ours(name, value, secure);
    cookie.set_max_age(max_age);
    field(&cookie)
}

/// A `Set-Cookie` field that deletes `name`, with the attributes it was set with (SC-13).
#[must_use]
pub fn delete(name: &str, secure: bool) -> HeaderValue {
    let mut cookie = ours(name, "", secure);
    cookie.set_max_age(time::Duration::ZERO);
    cookie.set_expires(Expiration::from(time::OffsetDateTime::UNIX_EPOCH));
    field(&cookie)
}

/// As [`set`], for a cookie that has to come along when another site posts a form here:
/// `SameSite=None; Secure` (SC-2).
#[must_use]
pub fn set_for_posts(name: &str, value: &str, max_age: Duration) -> HeaderValue {
    let mut cookie = ours(name, value, true);
    cookie.set_same_site(SameSite::None);
    cookie.set_max_age(time::Duration::try_from(max_age).unwrap_or(time::Duration::MAX));
    field(&cookie)
}

/// A `Set-Cookie` field that deletes what [`set_for_posts`] set.
#[must_use]
pub fn delete_for_posts(name: &str) -> HeaderValue {
    let mut cookie = ours(name, "", true);
    cookie.set_same_site(SameSite::None);
    cookie.set_max_age(time::Duration::ZERO);
    cookie.set_expires(Expiration::from(time::OffsetDateTime::UNIX_EPOCH));
    field(&cookie)
}

/// The pieces of all `Cookie` fields, trimmed, without empty ones.
fn crumbs(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let fields = headers.get_all(COOKIE).into_iter();
    let crumbs = fields.flat_map(|field| Crumbs { rest: Some(field.as_bytes()) });
    crumbs.map(trim_white_space).filter(|crumb| !crumb.is_empty())
}

/// The pieces of a `Cookie` field between semicolons. Such fields are long, and are looked through twice for
/// each request: not byte by byte.
struct Crumbs<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Crumbs<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest.take()?;
        let Some((crumb, behind)) = memchr(b';', rest).and_then(|at| rest.split_at_checked(at)) else {
            return Some(rest);
        };
        self.rest = behind.get(1..);
        Some(crumb)
    }
}

/// Name and value at the first `=`; `None` without `=` or without a name.
fn split_pair(crumb: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = crumb.iter().position(|byte| *byte == b'=')?;
    let (name, value) = crumb.split_at_checked(equals)?;
    let name = trim_white_space(name);
    (!name.is_empty()).then_some((name, trim_white_space(value.strip_prefix(b"=")?)))
}

/// The name under which a pair comes back from a browser; a nameless one is named by its value.
fn returned_name(pair: &[u8]) -> &[u8] {
    let pair = trim_white_space(pair.strip_prefix(b"=").unwrap_or(pair));
    trim_white_space(pair.split(|byte| *byte == b'=').next().unwrap_or_default())
}

fn ours<'a>(name: &'a str, value: &'a str, secure: bool) -> Cookie<'a> {
    let cookie = Cookie::build((name, value)).http_only(true).same_site(SameSite::Lax).path("/");
    if secure { cookie.secure(true).build() } else { cookie.build() }
}

/// Writes a cookie; an empty field where name or value could end the pair.
fn field(cookie: &Cookie<'_>) -> HeaderValue {
    let is_safe =
        !cookie.name().is_empty() && [cookie.name(), cookie.value()].iter().all(|text| is_plain(text));
    let text = if is_safe { cookie.to_string() } else { String::new() };
    sensitive(HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("")))
}

/// Letters, digits and what base64url, names and dotted values need besides.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~'))
}

/// Marks a value so that no log shows it and no compression table keeps it.
fn sensitive(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Name, `Cookie` fields, and what is expected of them.
    type Row<T> = (&'static str, &'static [&'static [u8]], T);

    fn request(fields: &[&[u8]]) -> HeaderMap {
        fields.iter().map(|field| (COOKIE, HeaderValue::from_bytes(field).unwrap())).collect()
    }

    fn is_ours(name: &[u8]) -> bool {
        name.starts_with(b"__Host-p") || name == b"p"
    }

    #[test]
    fn one_cookie_is_found_by_the_exact_bytes_of_its_name() {
        let rows: &[Row<Found<'_>>] = &[
            ("no field", &[], Found::Absent),
            ("an empty field", &[b""], Found::Absent),
            ("alone", &[b"p=1"], Found::One(b"1")),
            ("an empty value", &[b"p="], Found::One(b"")),
            ("among others", &[b"a=0; p=1; b=2"], Found::One(b"1")),
            ("without spaces", &[b"a=0;p=1;b=2"], Found::One(b"1")),
            ("with odd spaces", &[b" \t p \t= \t1 \t ; a=0"], Found::One(b"1")),
            ("in a later crumb", &[b"a=0", b"p=1", b"b=2"], Found::One(b"1")),
            ("twice", &[b"p=1; p=2"], Found::Several),
            ("twice with the same value", &[b"p=1; p=1"], Found::Several),
            ("twice in two crumbs", &[b"p=1", b"p=2"], Found::Several),
            ("three times", &[b"p=1; p=2", b"p=3"], Found::Several),
            ("another case", &[b"P=1"], Found::Absent),
            ("a longer name", &[b"pp=1; p2=2; xp=3"], Found::Absent),
            ("no equals sign", &[b"p"], Found::Absent),
            ("no name", &[b"=p=1"], Found::Absent),
            ("a value with equals signs", &[b"p=a=b=="], Found::One(b"a=b==")),
            ("quotes stay", &[b"p=\"1\""], Found::One(b"\"1\"")),
            ("quotes do not hide a semicolon", &[b"a=\"x; p=1; y\""], Found::One(b"1")),
            ("no $Version syntax", &[b"$Version=1; p=1; $Path=/"], Found::One(b"1")),
            ("a comma is no separator", &[b"a=0, p=1"], Found::Absent),
            ("bad pairs before it", &[b";; ;=;x; =y ; p=1"], Found::One(b"1")),
            ("non-ASCII bytes before it", &[b"a=\xff\xfe; \xc3\xa9=1; p=1"], Found::One(b"1")),
            ("no-break space is no white space", &[b"\xa0p=1; \xc2\xa0p=2"], Found::Absent),
        ];
        for (name, fields, expected) in rows {
            assert_eq!(find(&request(fields), "p"), *expected, "{name}");
        }
    }

    #[test]
    fn every_good_pair_is_listed_in_order() {
        let headers = request(&[b"a=1; bad; b=2", b"", b"a=3;=x"]);
        let expected: [(&[u8], &[u8]); 3] = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")];
        assert_eq!(pairs(&headers).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn our_cookies_are_taken_out_and_all_others_stay() {
        let rows: &[Row<Option<&[u8]>>] = &[
            ("no field", &[], None),
            ("nothing of ours", &[b"theme=dark; x=y"], Some(b"theme=dark; x=y")),
            ("only ours", &[b"p=1"], None),
            ("only ours, several", &[b"p=1; __Host-p-login=2", b"p=3"], None),
            ("between others", &[b"a=1; p=2; b=3"], Some(b"a=1; b=3")),
            ("first and last", &[b"__Host-p=1; theme=dark; p=2"], Some(b"theme=dark")),
            ("crumbs are joined", &[b"a=1", b"p=2", b"b=3"], Some(b"a=1; b=3")),
            ("without spaces", &[b"a=1;p=2;b=3"], Some(b"a=1; b=3")),
            ("spaces around our name", &[b"a=1;\tp =2"], Some(b"a=1")),
            ("ours without a value", &[b"a=1; p"], Some(b"a=1")),
            ("ours as the value of a nameless one", &[b"=p=2; a=1"], Some(b"a=1")),
            ("ours inside quotes", &[b"a=\"x; p=1; y\""], Some(b"a=\"x; y\"")),
            ("bad pairs stay", &[b"x; =y; p=1;; a=\"1"], Some(b"x; =y; a=\"1")),
            ("other bytes stay", &[b"a=\xff \xfe; p=1; b=c d"], Some(b"a=\xff \xfe; b=c d")),
        ];
        for (name, fields, expected) in rows {
            let left = without(&request(fields), is_ours);
            assert_eq!(left.as_ref().map(HeaderValue::as_bytes), *expected, "{name}");
        }
    }

    #[test]
    fn the_cookies_for_the_upstream_are_shown_in_no_log() {
        let left = without(&request(&[b"a=hunter2; p=1"]), is_ours).unwrap();
        assert!(left.is_sensitive());
    }

    #[test]
    fn a_set_cookie_field_has_the_name_under_which_the_cookie_comes_back() {
        let rows: &[(&[u8], &[u8])] = &[
            (b"a=1", b"a"),
            (b"a=1; Path=/; Secure", b"a"),
            (b" \ta\t = 1; Path=/", b"a"),
            (b"a", b"a"),
            (b"a; Path=/", b"a"),
            (b"a=", b"a"),
            (b"=a=1", b"a"),
            (b" = a =1; Path=/", b"a"),
            (b"=a", b"a"),
            (b"==a=1", b""),
            (b"\xa0a=1", b"\xa0a"),
            (b"__HOST-a=1", b"__HOST-a"),
            (b"x=1, a=2", b"x"),
            (b"; a=1", b""),
            (b"", b""),
        ];
        for (field, name) in rows {
            assert_eq!(set_cookie_name(field), *name, "{}", String::from_utf8_lossy(field));
        }
    }

    #[test]
    fn our_cookies_are_set_with_every_attribute_that_guards_them() {
        let minute = Some(Duration::from_mins(1));
        let rows = [
            (
                "for the session",
                "__Host-p",
                true,
                None,
                "__Host-p=AZ-_09; HttpOnly; SameSite=Lax; Secure; Path=/",
            ),
            (
                "for a while",
                "__Host-p",
                true,
                minute,
                "__Host-p=AZ-_09; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=60",
            ),
            ("on cleartext", "p", false, None, "p=AZ-_09; HttpOnly; SameSite=Lax; Path=/"),
            (
                "for ever",
                "p",
                false,
                Some(Duration::MAX),
                "p=AZ-_09; HttpOnly; SameSite=Lax; Path=/; Max-Age=9223372036854775807",
            ),
        ];
        for (row, name, secure, max_age, expected) in rows {
            let field = set(name, "AZ-_09", secure, max_age);
            assert_eq!(field.to_str().unwrap(), expected, "{row}");
            assert!(field.is_sensitive(), "{row}");
        }
    }

    #[test]
    fn a_cookie_for_a_form_of_another_site_comes_along_over_https_only() {
        let field = set_for_posts("__Host-p", "AZ-_09", Duration::from_mins(1));
        let wanted = "__Host-p=AZ-_09; HttpOnly; SameSite=None; Secure; Path=/; Max-Age=60";
        assert_eq!(field.to_str().unwrap(), wanted);
        let deleted = delete_for_posts("__Host-p");
        let wanted = "__Host-p=; HttpOnly; SameSite=None; Secure; Path=/; Max-Age=0; ";
        assert!(deleted.to_str().unwrap().starts_with(wanted), "{deleted:?}");
        assert!(field.is_sensitive() && deleted.is_sensitive());
    }

    #[test]
    fn a_deletion_repeats_the_attributes_of_the_setting() {
        let gone = "Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT";
        let rows = [
            ("__Host-p", true, format!("__Host-p=; HttpOnly; SameSite=Lax; Secure; Path=/; {gone}")),
            ("p", false, format!("p=; HttpOnly; SameSite=Lax; Path=/; {gone}")),
        ];
        for (name, secure, expected) in rows {
            assert_eq!(delete(name, secure).to_str().unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn a_name_or_value_that_could_add_attributes_or_headers_sets_nothing() {
        let rows = [
            ("p", "a; Domain=test"),
            ("p", "a\r\nX: y"),
            ("p", "a b"),
            ("p", "a\"b"),
            ("p", "a,b"),
            ("p", "caf\u{e9}"),
            ("p=x", "a"),
            ("p;", "a"),
            ("p ", "a"),
            ("", "a"),
        ];
        for (name, value) in rows {
            assert_eq!(set(name, value, true, None).as_bytes(), b"", "{name:?} {value:?}");
        }
        assert_eq!(delete("p;", true).as_bytes(), b"");
    }

    proptest! {
        #[test]
        fn no_cookie_of_ours_survives_the_removal(field in "([a-c p=;\t\"]|__Host-p){0,24}") {
            let left = without(&request(&[field.as_bytes()]), is_ours);
            let headers: HeaderMap = left.into_iter().map(|left| (COOKIE, left)).collect();
            prop_assert_eq!(pairs(&headers).filter(|(name, _)| is_ours(name)).count(), 0);
            prop_assert!(without(&headers, is_ours).as_ref() == headers.get(COOKIE));
        }
    }
}
