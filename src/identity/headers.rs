//! THE TABLE of identity headers: the list of what is stripped from clients and the list of what is
//! set for upstreams are one table, so that spoofing has one place to fail.
//!
//! # The encoding of values
//!
//! A value is UTF-8 with these bytes as `%` and two upper-case hex digits (RFC 3986 2.1): controls
//! (0x00 to 0x1f), DEL, every byte of a character outside ASCII, `%` itself, and spaces at either end.
//! In a list (groups, claims that are lists) the items are joined with `,`, and a `,` inside an item is
//! encoded too. An application gets the original back by splitting at `,` (lists only), then decoding
//! percent escapes; a value of plain ASCII without `%` stands as it is (IH-5, IH-6).

use std::sync::Arc;

use http::header::{HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;

use super::Identity;
use crate::token::Claims;

/// What a header is filled with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// [`Identity::user`].
    User,
    /// [`Identity::email`].
    Email,
    /// [`Identity::groups`], joined with `,`; a `,` inside a group is percent-encoded.
    Groups,
    /// [`Identity::preferred_username`].
    PreferredUsername,
    /// A claim at a dotted path: string, number, boolean, or list of strings.
    Claim(Arc<str>),
}

/// A set of names that applications already read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Preset {
    /// `X-Forwarded-User`, `-Email`, `-Groups`, `-Preferred-Username`.
    #[default]
    XForwarded,
    /// `X-Auth-Request-User`, `-Email`, `-Groups`, `-Preferred-Username`.
    XAuthRequest,
    /// `Remote-User`, `Remote-Email`, `Remote-Groups`, `Remote-Name` (the claim `name`).
    Remote,
}

/// A preset, a name in it, and what fills it.
type Row = (Preset, &'static str, fn() -> Source);

/// THE TABLE: each row is set where its preset is chosen, and stripped from clients everywhere.
const TABLE: &[Row] = &[
    (Preset::XForwarded, "x-forwarded-user", || Source::User),
    (Preset::XForwarded, "x-forwarded-email", || Source::Email),
    (Preset::XForwarded, "x-forwarded-groups", || Source::Groups),
    (Preset::XForwarded, "x-forwarded-preferred-username", || Source::PreferredUsername),
    (Preset::XAuthRequest, "x-auth-request-user", || Source::User),
    (Preset::XAuthRequest, "x-auth-request-email", || Source::Email),
    (Preset::XAuthRequest, "x-auth-request-groups", || Source::Groups),
    (Preset::XAuthRequest, "x-auth-request-preferred-username", || Source::PreferredUsername),
    (Preset::Remote, "remote-user", || Source::User),
    (Preset::Remote, "remote-email", || Source::Email),
    (Preset::Remote, "remote-groups", || Source::Groups),
    (Preset::Remote, "remote-name", || Source::Claim("name".into())),
];

/// The header that carries the access token on routes that ask for it.
pub const ACCESS_TOKEN_HEADER: HeaderName = HeaderName::from_static("x-forwarded-access-token");

/// Names that no row sets and no client may send: they carry tokens.
const TOKEN_HEADERS: &[&str] = &["x-forwarded-access-token", "x-auth-request-access-token"];

/// The most bytes of all identity headers of a request, as lines on the wire. Servers refuse heads
/// above 8 KiB (nginx, Apache, Tomcat) or 16 KiB (Node): with a header more, nobody would get in.
const MAX_BYTES: usize = 8 * 1024;

/// What a plain value does not hold; characters outside ASCII are always encoded.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// The same for an item of a list.
const ENCODED_IN_LIST: &AsciiSet = &ENCODED.add(b',');

/// The headers as configured.
#[derive(Clone, Debug)]
pub struct HeaderTable {
    rows: Vec<(HeaderName, Source)>,
    /// Names that are stripped, by their length: most client headers meet none of the same length.
    stripped: Vec<Vec<HeaderName>>,
}

/// Identity headers, rendered once for a session and copied to each request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RenderedHeaders(pub Vec<(HeaderName, HeaderValue)>);

impl HeaderTable {
    /// The presets' rows and the extra ones; a later row replaces an earlier one of the same name.
    #[must_use]
    pub fn new(presets: &[Preset], extra: Vec<(HeaderName, Source)>) -> Self {
        let preset_rows = |preset| TABLE.iter().filter(move |(row_of, _, _)| *row_of == preset);
        let chosen = presets.iter().copied().flat_map(preset_rows);
        let chosen = chosen.map(|(_, name, source)| (HeaderName::from_static(name), source()));
        let mut rows: Vec<(HeaderName, Source)> = Vec::new();
        for row in chosen.chain(extra) {
            rows.retain(|earlier| earlier.0 != row.0);
            rows.push(row);
        }
        Self { stripped: by_length(&rows), rows }
    }

    /// Whether a client's header of this name must not reach an upstream: every name of every
    /// preset and row, in any spelling (`_`, `.`, case); every name with a byte outside `[A-Za-z0-9-]`
    /// (IH-2); the access token header. `name` may be of any case.
    ///
    /// Asked for every header of every request: no allocation, no hash.
    #[must_use]
    pub fn is_stripped(&self, name: &str) -> bool {
        let is_plain = name.bytes().all(|byte| PLAIN_BYTES[usize::from(byte)]);
        let same_length = self.stripped.get(name.len()).map_or(&[][..], Vec::as_slice);
        !is_plain || same_length.iter().any(|known| known.as_str().eq_ignore_ascii_case(name))
    }

    /// Renders the headers of an identity. Claims that are missing, empty or of a wrong type give no
    /// header (IH-7). Values have the module's encoding (IH-5). Together at most 8 KiB; a header that
    /// doesn't fit is left out whole: half a list of groups would be another list.
    #[must_use]
    pub fn render(&self, identity: &Identity, claims: &Claims) -> RenderedHeaders {
        let mut left = MAX_BYTES;
        let mut rendered = Vec::with_capacity(self.rows.len());
        for (name, source) in &self.rows {
            let Some(value) = source.value(identity, claims) else { continue };
            let line = name.as_str().len() + ": ".len() + value.len() + "\r\n".len();
            let Some(rest) = left.checked_sub(line) else { continue };
            left = rest;
            rendered.push((name.clone(), value));
        }
        RenderedHeaders(rendered)
    }

    /// The configured names, for docs and the `check` command.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.rows.iter().map(|(name, _)| name)
    }
}

/// `[A-Za-z0-9-]`.
const PLAIN_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte.is_ascii() {
        table[byte as usize] = byte.is_ascii_alphanumeric() || byte == b'-';
        byte += 1;
    }
    table
};

/// Every name that is stripped, at the place of its length.
fn by_length(rows: &[(HeaderName, Source)]) -> Vec<Vec<HeaderName>> {
    let ours = TABLE.iter().map(|(_, name, _)| *name).chain(TOKEN_HEADERS.iter().copied());
    let names = ours.map(HeaderName::from_static).chain(rows.iter().map(|(name, _)| name.clone()));
    let mut table: Vec<Vec<HeaderName>> = Vec::new();
    for name in names {
        let len = name.as_str().len();
        table.resize(table.len().max(len + 1), Vec::new());
        if let Some(same_length) = table.get_mut(len).filter(|known| !known.contains(&name)) {
            same_length.push(name);
        }
    }
    table
}

impl Source {
    /// What the header says of this person, encoded; `None` where there is nothing to say.
    fn value(&self, identity: &Identity, claims: &Claims) -> Option<HeaderValue> {
        let text = match self {
            Self::User => encode(&identity.user),
            Self::Email => encode(identity.email.as_deref()?),
            Self::Groups => encode_list(identity.groups.iter().flatten().map(|group| &**group)),
            Self::PreferredUsername => encode(identity.preferred_username.as_deref()?),
            Self::Claim(path) => encode_claim(claims.at(path)?)?,
        };
        if text.is_empty() { None } else { HeaderValue::try_from(text).ok() }
    }
}

fn encode_claim(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(encode(text)),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(bool) => Some(bool.to_string()),
        Value::Array(items) => {
            let items: Vec<&str> = items.iter().map(Value::as_str).collect::<Option<_>>()?;
            Some(encode_list(items.into_iter()))
        }
        Value::Null | Value::Object(_) => None,
    }
}

/// A single value in the module's encoding.
fn encode(text: &str) -> String {
    encode_with(text, ENCODED)
}

/// A list in the module's encoding; empty items are left out.
fn encode_list<'a>(items: impl Iterator<Item = &'a str>) -> String {
    let items = items.filter(|item| !item.is_empty()).map(|item| encode_with(item, ENCODED_IN_LIST));
    items.collect::<Vec<_>>().join(",")
}

/// Spaces at either end are encoded because upstreams trim them.
fn encode_with(text: &str, encoded: &'static AsciiSet) -> String {
    let from_start = text.trim_start_matches(' ');
    let inner = from_start.trim_end_matches(' ');
    let mut out = "%20".repeat(text.len() - from_start.len());
    out.extend(utf8_percent_encode(inner, encoded));
    out.push_str(&"%20".repeat(from_start.len() - inner.len()));
    out
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::identity::Authentication;

    const ALL: [Preset; 3] = [Preset::XForwarded, Preset::XAuthRequest, Preset::Remote];

    fn person() -> Identity {
        Identity {
            issuer: "https://op.example".into(),
            subject: "1".into(),
            user: "1".into(),
            email: Some("zoe@example.com".into()),
            email_verified: true,
            preferred_username: Some("zoe".into()),
            groups: Some(vec!["staff".into(), "wiki".into()]),
            authentication: Authentication::default(),
        }
    }

    fn claims(value: &Value) -> Claims {
        Claims::new(value.as_object().unwrap().clone())
    }

    /// A header that is filled with the claim `c`.
    fn extra(name: &'static str) -> Vec<(HeaderName, Source)> {
        vec![(HeaderName::from_static(name), Source::Claim("c".into()))]
    }

    fn rendered(table: &HeaderTable, identity: &Identity, value: &Value) -> Vec<(String, String)> {
        let RenderedHeaders(headers) = table.render(identity, &claims(value));
        let text = |(name, value): &(HeaderName, HeaderValue)| {
            (name.to_string(), value.to_str().unwrap().to_owned())
        };
        headers.iter().map(text).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// What an application does.
    fn decode(value: &str) -> String {
        percent_decode_str(value).decode_utf8().unwrap().into_owned()
    }

    #[test]
    fn each_preset_says_the_same_under_its_names() {
        let cases = [
            (Preset::XForwarded, "x-forwarded-", "preferred-username", "zoe"),
            (Preset::XAuthRequest, "x-auth-request-", "preferred-username", "zoe"),
            (Preset::Remote, "remote-", "name", "Zo%C3%AB"),
        ];
        for (preset, start, name, wanted) in cases {
            let table = HeaderTable::new(&[preset], vec![]);
            let found = rendered(&table, &person(), &json!({"name": "Zoë"}));
            let rows =
                [("user", "1"), ("email", "zoe@example.com"), ("groups", "staff,wiki"), (name, wanted)];
            let wanted: Vec<_> =
                rows.iter().map(|(row, value)| (format!("{start}{row}"), (*value).to_owned())).collect();
            assert_eq!(found, wanted);
        }
    }

    #[test]
    fn presets_can_be_chosen_together_and_a_later_row_replaces_an_earlier_one() {
        let table = HeaderTable::new(&[Preset::XForwarded, Preset::Remote], extra("x-forwarded-user"));
        let found = rendered(&table, &person(), &json!({"c": "chosen"}));
        assert_eq!(found.len(), 7);
        let users: Vec<_> = found.iter().filter(|(name, _)| name == "x-forwarded-user").collect();
        assert_eq!(users, [&("x-forwarded-user".to_owned(), "chosen".to_owned())]);
        assert_eq!(table.names().count(), 8);
    }

    #[test]
    fn every_row_of_the_table_is_stripped_whatever_was_chosen() {
        for presets in [&[][..], &[Preset::Remote], &ALL] {
            let table = HeaderTable::new(presets, vec![]);
            for name in TABLE.iter().map(|(_, name, _)| *name).chain(TOKEN_HEADERS.iter().copied()) {
                let spellings = [
                    name.to_owned(),
                    name.to_ascii_uppercase(),
                    name.replace('-', "_"),
                    name.replace('-', "."),
                    name.replacen('-', "_", 1),
                    name.replace('-', "_").to_ascii_uppercase(),
                ];
                for spelling in spellings {
                    assert!(table.is_stripped(&spelling), "{spelling} with {presets:?}");
                }
            }
        }
    }

    #[test]
    fn every_header_that_is_set_is_stripped() {
        let table = HeaderTable::new(&ALL, extra("x-my-claim"));
        for name in table.names() {
            assert!(table.is_stripped(name.as_str()), "{name}");
        }
        for name in ["x-my-claim", "X-MY-Claim", "x_my_claim", "x.my.claim"] {
            assert!(table.is_stripped(name), "{name}");
        }
        assert!(table.is_stripped(ACCESS_TOKEN_HEADER.as_str()));
        assert!(!HeaderTable::new(&ALL, vec![]).is_stripped("x-my-claim"));
    }

    #[test]
    fn names_with_odd_bytes_are_stripped_and_plain_ones_let_be() {
        let table = HeaderTable::new(&ALL, vec![]);
        for name in ["x_y", "x.y", "a!b", "x~", "x y", "a:b", "é"] {
            assert!(table.is_stripped(name), "{name}");
        }
        let plain = [
            "host",
            "Accept",
            "user-agent",
            "content-length",
            "cookie",
            "authorization",
            "sec-fetch-mode",
            "x-requested-with",
            "remote-use",
            "remote-users",
            "x-forwarded-use",
            "xremote-user",
            "dnt",
            "a",
            "x-forwarded-preferred-username-which-is-longer-than-all-that-are-known",
        ];
        for name in plain {
            assert!(!table.is_stripped(name), "{name}");
        }
    }

    #[test]
    fn what_is_not_known_gives_no_header() {
        let nobody = Identity { email: None, preferred_username: None, groups: None, ..person() };
        let table = HeaderTable::new(&[Preset::XForwarded], vec![]);
        assert_eq!(rendered(&table, &nobody, &json!({})), pairs(&[("x-forwarded-user", "1")]));
        let no_groups = Identity { groups: Some(vec![]), ..nobody };
        assert_eq!(rendered(&table, &no_groups, &json!({})), pairs(&[("x-forwarded-user", "1")]));
    }

    #[test]
    fn a_claim_is_told_by_its_type() {
        let table = HeaderTable::new(&[], extra("x-c"));
        let cases = [
            (json!("text"), Some("text")),
            (json!("a,b"), Some("a,b")),
            (json!(7), Some("7")),
            (json!(-1.5), Some("-1.5")),
            (json!(true), Some("true")),
            (json!(["a", "b,c", "", "d"]), Some("a,b%2Cc,d")),
            (json!(null), None),
            (json!(""), None),
            (json!([]), None),
            (json!([""]), None),
            (json!({"a": 1}), None),
            (json!(["a", 1]), None),
            (json!([["a"]]), None),
        ];
        for (value, wanted) in cases {
            let found = rendered(&table, &person(), &json!({"c": value}));
            let wanted: Vec<_> = wanted.into_iter().map(|text| ("x-c".to_owned(), text.to_owned())).collect();
            assert_eq!(found, wanted, "{value}");
        }
        assert!(rendered(&table, &person(), &json!({})).is_empty());
    }

    #[test]
    fn a_claim_may_stand_at_a_dotted_path() {
        let table =
            HeaderTable::new(&[], vec![(HeaderName::from_static("x-c"), Source::Claim("a.b".into()))]);
        assert_eq!(rendered(&table, &person(), &json!({"a": {"b": "deep"}})), pairs(&[("x-c", "deep")]));
    }

    #[test]
    fn values_have_one_encoding() {
        let cases = [
            ("plain", "plain"),
            ("with space; and, \"marks\"", "with space; and, \"marks\""),
            ("100%", "100%25"),
            ("%41", "%2541"),
            ("a\r\nX-Forwarded-Groups: admins", "a%0D%0AX-Forwarded-Groups: admins"),
            ("\0\t\u{1b}\u{7f}", "%00%09%1B%7F"),
            ("Zoë", "Zo%C3%AB"),
            ("\u{2028}\u{202e}\u{85}", "%E2%80%A8%E2%80%AE%C2%85"),
            (" a b  ", "%20a b%20%20"),
            ("   ", "%20%20%20"),
            ("", ""),
        ];
        for (text, wanted) in cases {
            assert_eq!(encode(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn a_group_never_becomes_two() {
        let identity = Identity { groups: Some(vec!["a,admins".into(), " b ".into()]), ..person() };
        let table = HeaderTable::new(&[], vec![(HeaderName::from_static("x-g"), Source::Groups)]);
        assert_eq!(rendered(&table, &identity, &json!({})), pairs(&[("x-g", "a%2Cadmins,%20b%20")]));
    }

    #[test]
    fn a_header_that_does_not_fit_is_left_out_whole() {
        let many = (0..2000).map(|n| format!("group-{n}").into()).collect();
        let identity = Identity { groups: Some(many), ..person() };
        let table = HeaderTable::new(&[Preset::XForwarded], extra("x-c"));
        let names = |value: &Value| -> Vec<String> {
            rendered(&table, &identity, value).into_iter().map(|(name, _)| name).collect()
        };
        let others = ["x-forwarded-user", "x-forwarded-email", "x-forwarded-preferred-username"];
        assert_eq!(names(&json!({})), others);
        assert_eq!(names(&json!({"c": "x".repeat(MAX_BYTES)})), others);
        assert_eq!(names(&json!({"c": "x".repeat(MAX_BYTES - 200)})).last().unwrap(), "x-c");
    }

    #[test]
    fn the_bound_is_for_all_headers_together() {
        let row = |name, claim: &str| (HeaderName::from_static(name), Source::Claim(claim.into()));
        let table = HeaderTable::new(&[], vec![row("x-1", "long"), row("x-2", "long"), row("x-3", "short")]);
        let found = rendered(&table, &person(), &json!({"long": "x".repeat(MAX_BYTES / 2), "short": "x"}));
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["x-1", "x-3"]);
    }

    #[test]
    fn all_lines_together_stay_below_the_bound() {
        let table = HeaderTable::new(&[], extra("x-c"));
        let most = MAX_BYTES - "x-c: \r\n".len();
        assert_eq!(rendered(&table, &person(), &json!({"c": "x".repeat(most)})).len(), 1);
        assert_eq!(rendered(&table, &person(), &json!({"c": "x".repeat(most + 1)})).len(), 0);
    }

    proptest! {
        #[test]
        fn a_value_survives_the_wire(text in any::<String>()) {
            let value = encode(&text);
            prop_assert!(value.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            prop_assert_eq!(value.trim(), &value);
            prop_assert!(HeaderValue::from_str(&value).is_ok());
            prop_assert_eq!(decode(&value), text);
        }

        #[test]
        fn a_list_survives_the_wire(
            items in prop::collection::vec("[ ,%a\\x00-\\x1fé]{1,6}|\\PC{1,6}", 1..6),
        ) {
            let value = encode_list(items.iter().map(String::as_str));
            prop_assert_eq!(value.trim(), &value);
            prop_assert_eq!(value.split(',').map(decode).collect::<Vec<_>>(), items);
        }
    }
}
