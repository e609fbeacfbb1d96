//! Claims as a JSON object with typed getters: a wrong type is an error, never "absent" (ID-15).
//!
//! Everything JSON that comes from a provider is read here: claims, JOSE headers, key sets, token
//! answers, metadata. An object that names a member twice is refused (RFC 7515 4 and RFC 7519 4 leave
//! the choice between that and "the last one wins"): two readers of one document must never see two
//! different values. That holds for the outermost object; inside nested ones the last member wins.

use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// The most bytes of JSON that are read. Nesting is bounded to 128 levels by the parser itself.
pub const MAX_BYTES: usize = 1024 * 1024;

/// A JSON object of claims.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Claims(Map<String, Value>);

/// A claim that is not of the type that its specification gives it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("claim `{name}` is not {wanted}")]
pub struct ClaimError {
    /// The claim's name.
    pub name: String,
    /// What it should be, with its article: "a string".
    pub wanted: &'static str,
}

impl Claims {
    /// Wraps a JSON object.
    #[must_use]
    pub const fn new(object: Map<String, Value>) -> Self {
        Self(object)
    }

    /// Reads a JSON object from bytes.
    ///
    /// # Errors
    /// When the bytes are no JSON, no object (TE-4), more than [`MAX_BYTES`], or name a member twice;
    /// the text never holds the bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotAnObject> {
        if bytes.len() > MAX_BYTES {
            return Err(NotAnObject);
        }
        let UniqueMembers(object) = serde_json::from_slice(bytes).or(Err(NotAnObject))?;
        Ok(Self(object))
    }

    /// The JSON object.
    #[must_use]
    pub fn into_object(self) -> Map<String, Value> {
        self.0
    }

    /// Whether there is such a claim, of whatever type, null included.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The raw value.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A string claim; `None` where it is absent.
    ///
    /// # Errors
    /// [`ClaimError`] for any other JSON type, null included.
    pub fn string(&self, name: &str) -> Result<Option<&str>, ClaimError> {
        self.typed(name, "a string", Value::as_str)
    }

    /// A boolean claim.
    ///
    /// # Errors
    /// [`ClaimError`] for any other JSON type.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, ClaimError> {
        self.typed(name, "a boolean", Value::as_bool)
    }

    /// A `NumericDate` (RFC 7519 2) in whole seconds; fractions are cut, too large numbers saturate.
    ///
    /// # Errors
    /// [`ClaimError`] for any other JSON type and for negative numbers.
    pub fn seconds(&self, name: &str) -> Result<Option<u64>, ClaimError> {
        self.typed(name, "a non-negative number", whole_seconds)
    }

    /// A string, or an array of strings, as a list (`aud`).
    ///
    /// # Errors
    /// [`ClaimError`] for any other JSON type.
    pub fn strings(&self, name: &str) -> Result<Option<Vec<&str>>, ClaimError> {
        self.typed(name, "a string or an array of strings", string_list)
    }

    /// The value at a dotted path, for example `realm_access.roles`. A claim whose whole name is the
    /// path wins (names like `https://example.com/groups` have dots).
    #[must_use]
    pub fn at(&self, path: &str) -> Option<&Value> {
        if let Some(whole) = self.0.get(path) {
            return Some(whole);
        }
        let mut segments = path.split('.');
        let first = self.0.get(segments.next()?)?;
        segments.try_fold(first, |value, segment| value.as_object()?.get(segment))
    }

    /// Adds the members of `other` that this has not, except the names in `protected` (UI-3).
    pub fn absorb(&mut self, other: Self, protected: &[&str]) {
        for (name, value) in other.0 {
            if !protected.contains(&name.as_str()) {
                self.0.entry(name).or_insert(value);
            }
        }
    }

    /// Adds the members of `other` with these names that this has not.
    pub fn keep(&mut self, other: &Self, names: &[&str]) {
        for name in names {
            if let Some(value) = other.0.get(*name).filter(|_| !self.has(name)) {
                self.0.insert((*name).to_owned(), value.clone());
            }
        }
    }

    fn typed<'a, T>(
        &'a self,
        name: &str,
        wanted: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ClaimError> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| ClaimError { name: name.to_owned(), wanted })
    }
}

/// Bytes that should be a JSON object and are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON object, or one that names a member twice")]
pub struct NotAnObject;

/// An object whose member names are all different.
struct UniqueMembers(Map<String, Value>);

impl<'de> Deserialize<'de> for UniqueMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueMembersVisitor).map(Self)
    }
}

struct UniqueMembersVisitor;

impl<'de> Visitor<'de> for UniqueMembersVisitor {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, value)) = members.next_entry::<String, Value>()? {
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a member is named twice"));
            }
        }
        Ok(object)
    }
}

/// A `NumericDate` may be 1e300 (TK-122); casts from floats saturate, and a fraction is cut.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and negative numbers are refused before it"
)]
fn whole_seconds(value: &Value) -> Option<u64> {
    if let Some(whole) = value.as_u64() {
        return Some(whole);
    }
    value.as_f64().filter(|number| *number >= 0.0).map(|number| number as u64)
}

fn string_list(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(one) => Some(vec![one]),
        Value::Array(several) => several.iter().map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(json: &str) -> Claims {
        Claims::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn only_an_object_with_unique_members_is_read() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_BYTES));
        let refused: &[(&str, &[u8])] = &[
            ("TK-132 array", b"[]"),
            ("TK-132 byte order mark", b"\xef\xbb\xbf{}"),
            ("TK-131 duplicate member", br#"{"sub":"a","sub":"b"}"#),
            ("duplicate member, escaped", br#"{"sub":"a","\u0073ub":"b"}"#),
            ("trailing bytes", b"{} {}"),
            ("string", b"\"sub\""),
            ("null", b"null"),
            ("nothing", b""),
            ("no UTF-8", b"{\"sub\":\"\xff\"}"),
            ("200 levels", deep.as_bytes()),
            ("over 1 MiB", large.as_bytes()),
        ];
        for (name, bytes) in refused {
            assert_eq!(Claims::parse(bytes), Err(NotAnObject), "{name}");
        }
        assert!(Claims::parse(b" {} ").is_ok());
    }

    #[test]
    fn a_wrong_type_is_an_error_and_never_absent() {
        let odd = claims(r#"{"null":null,"number":1,"text":"x","list":["a",1],"negative":-1,"object":{}}"#);
        assert_eq!(odd.string("missing"), Ok(None));
        for name in ["null", "number", "list", "object"] {
            assert!(odd.string(name).is_err(), "{name} is no string");
        }
        for name in ["null", "text", "list", "negative", "object"] {
            assert!(odd.seconds(name).is_err(), "{name} is no date");
        }
        for name in ["null", "number", "list", "object"] {
            assert!(odd.strings(name).is_err(), "{name} is no list of strings");
        }
        for name in ["null", "number", "text"] {
            assert!(odd.boolean(name).is_err(), "{name} is no boolean");
        }
    }

    #[test]
    fn dates_are_cut_to_seconds_and_saturate() {
        let rows = [
            ("whole", "17", 17),
            ("fraction", "17.9", 17),
            ("zero", "0", 0),
            ("minus zero", "-0.0", 0),
            ("TK-122 1e300", "1e300", u64::MAX),
            ("TK-122 2^63", "9223372036854775808", 9_223_372_036_854_775_808),
        ];
        for (name, json, seconds) in rows {
            let claims = claims(&format!("{{\"exp\":{json}}}"));
            assert_eq!(claims.seconds("exp"), Ok(Some(seconds)), "{name}");
        }
        assert!(claims(r#"{"exp":-0.5}"#).seconds("exp").is_err());
    }

    #[test]
    fn an_audience_is_one_string_or_several() {
        assert_eq!(claims(r#"{"aud":"a"}"#).strings("aud"), Ok(Some(vec!["a"])));
        assert_eq!(claims(r#"{"aud":["a","b"]}"#).strings("aud"), Ok(Some(vec!["a", "b"])));
        assert_eq!(claims(r#"{"aud":[]}"#).strings("aud"), Ok(Some(vec![])));
    }

    #[test]
    fn a_dotted_path_walks_objects_unless_a_whole_name_matches() {
        let claims =
            claims(r#"{"a":{"b":{"c":1}},"a.b":2,"https://x.example/groups":["g"],"list":[{"x":1}]}"#);
        let rows = [
            ("nested", "a.b.c", Some(Value::from(1))),
            ("whole name wins", "a.b", Some(Value::from(2))),
            ("name that is a URL", "https://x.example/groups", Some(serde_json::json!(["g"]))),
            ("not there", "a.x", None),
            ("through an array", "list.0.x", None),
            ("past the end", "a.b.c.d", None),
            ("empty", "", None),
        ];
        for (name, path, found) in rows {
            assert_eq!(claims.at(path), found.as_ref(), "{name}");
        }
    }

    #[test]
    fn absorbing_neither_replaces_nor_takes_protected_members() {
        let mut id_token = claims(r#"{"sub":"a","email":"a@x.example"}"#);
        id_token.absorb(claims(r#"{"email":"b@x.example","acr":"high","name":"A"}"#), &["acr"]);
        assert_eq!(id_token, claims(r#"{"sub":"a","email":"a@x.example","name":"A"}"#));
    }
}
