//! TOML -> typed fields, one at a time, so that every mistake is told and none hides another.
//!
//! A [`Field`] knows where it stands and what was written there. A table is declared once with
//! [`section!`]: the declaration is the list of its keys, so that an unknown key is found and no
//! known one can be forgotten.

use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problems, Told};

/// The longest part of a value that a message repeats.
const MAX_SHOWN_CHARS: usize = 80;

/// A key of a table: where it stands, what was found there.
#[derive(Clone, Debug)]
pub(super) struct Field<T> {
    /// Where.
    pub(super) place: Place,
    /// The value as a message repeats it; never a secret.
    pub(super) shown: String,
    state: State<T>,
}

#[derive(Clone, Debug)]
enum State<T> {
    Absent,
    Wrong(Told),
    Value(T),
}

impl<T> Field<T> {
    /// The field of a key that is not written.
    pub(super) const fn absent(place: Place) -> Self {
        Self { place, shown: String::new(), state: State::Absent }
    }

    /// The value where one is written.
    pub(super) fn optional(self) -> Result<Option<T>, Told> {
        match self.state {
            State::Absent => Ok(None),
            State::Wrong(told) => Err(told),
            State::Value(value) => Ok(Some(value)),
        }
    }

    /// The value; it must be written. `wanted` says what belongs there.
    pub(super) fn required(self, problems: &mut Problems, wanted: &str) -> Result<T, Told> {
        match self.state {
            State::Absent => Err(problems.add(&self.place, format!("is missing: {wanted}"))),
            State::Wrong(told) => Err(told),
            State::Value(value) => Ok(value),
        }
    }

    /// The value of an element of a list or of a free table: it is always written.
    pub(super) fn element(self, problems: &mut Problems) -> Result<T, Told> {
        self.required(problems, "a value")
    }

    /// The value, or a default where none is written.
    pub(super) fn or(self, default: T) -> Result<T, Told> {
        Ok(self.optional()?.unwrap_or(default))
    }

    /// The table, or one without any key where none is written.
    pub(super) fn or_empty(self) -> Result<T, Told>
    where
        T: Section,
    {
        let empty = T::empty(&self.place);
        self.or(empty)
    }

    /// Whether the key is written, rightly or wrongly.
    pub(super) const fn is_written(&self) -> bool {
        !matches!(self.state, State::Absent)
    }

    /// The value, to look at.
    pub(super) const fn peek(&self) -> Option<&T> {
        match &self.state {
            State::Value(value) => Some(value),
            State::Absent | State::Wrong(_) => None,
        }
    }

    /// Records that the value `complaint`: "is not a URL".
    pub(super) fn complain(&self, problems: &mut Problems, complaint: impl AsRef<str>) -> Told {
        problems.add(&self.place, format!("{} {}", self.shown, complaint.as_ref()))
    }

    /// The field read by a rule, whose error is a complaint about the value.
    pub(super) fn check<U, E: AsRef<str>>(
        self,
        problems: &mut Problems,
        rule: impl FnOnce(T) -> Result<U, E>,
    ) -> Field<U> {
        let Self { place, shown, state } = self;
        let state = match state {
            State::Absent => State::Absent,
            State::Wrong(told) => State::Wrong(told),
            State::Value(value) => match rule(value) {
                Ok(value) => State::Value(value),
                Err(complaint) => {
                    State::Wrong(problems.add(&place, format!("{shown} {}", complaint.as_ref())))
                }
            },
        };
        Field { place, shown, state }
    }
}

impl Field<String> {
    /// The text read by a rule, whose error is a complaint about it.
    pub(super) fn parse<U, E: AsRef<str>>(
        self,
        problems: &mut Problems,
        rule: impl FnOnce(&str) -> Result<U, E>,
    ) -> Field<U> {
        self.check(problems, |text| rule(&text))
    }
}

/// What can stand behind a key.
pub(super) trait Read: Sized {
    /// Whether messages must not repeat what was written.
    const SECRET: bool = false;

    /// Reads a value; the error says that its problem was recorded.
    fn read(value: &DeValue<'_>, place: &Place, problems: &mut Problems) -> Result<Self, Told>;

    /// Every key that can be written here, `path` being the one of this value.
    fn keys(path: &str, found: &mut Vec<String>) {
        found.push(path.to_owned());
    }
}

/// A table of the file; [`section!`] implements it.
pub(super) trait Section: Read {
    /// The table at a place with no key in it.
    fn empty(place: &Place) -> Self;
}

/// Reads the value at a place into a field.
pub(super) fn field<T: Read>(value: &DeValue<'_>, place: Place, problems: &mut Problems) -> Field<T> {
    let shown = if T::SECRET { String::new() } else { show(value) };
    let state = match T::read(value, &place, problems) {
        Ok(value) => State::Value(value),
        Err(told) => State::Wrong(told),
    };
    Field { place, shown, state }
}

/// A table whose keys are taken out one by one.
pub(super) struct Table<'a, 'i> {
    place: &'a Place,
    entries: &'a DeTable<'i>,
    problems: &'a mut Problems,
}

impl<'a, 'i> Table<'a, 'i> {
    /// The table at a place; a key that is not in `known` is told.
    pub(super) fn new(
        place: &'a Place,
        entries: &'a DeTable<'i>,
        known: &[&str],
        problems: &'a mut Problems,
    ) -> Self {
        for (key, _) in entries {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                problems.add(&place.key(name, key.span().start), unknown(name, known));
            }
        }
        Self { place, entries, problems }
    }

    /// The field of a key.
    pub(super) fn take<T: Read>(&mut self, key: &str) -> Field<T> {
        match self.entries.get_key_value(key) {
            None => Field::absent(self.place.key(key, self.place.offset)),
            Some((name, value)) => {
                field(value.get_ref(), self.place.key(key, start(name, value)), self.problems)
            }
        }
    }
}

/// Where a key stands: for a table, its header.
fn start(key: &Spanned<toml::de::DeString<'_>>, value: &Spanned<DeValue<'_>>) -> usize {
    key.span().start.min(value.span().start)
}

fn unknown(name: &str, known: &[&str]) -> String {
    // Two letters wrong in a long word is a typing mistake; in a short one it is another word.
    let near = |key: &&&str| strsim::damerau_levenshtein(name, key) <= (key.len() / 3).clamp(1, 3);
    let distance = |key: &&&str| strsim::damerau_levenshtein(name, key);
    // `timeout` for `idle_timeout`, `issuer_url` for `issuer`; not `hidden` for `id`.
    let part = |key: &&&str| name.len().min(key.len()) > 3 && (key.contains(name) || name.contains(**key));
    match known.iter().filter(|key| near(key) || part(key)).min_by_key(distance) {
        Some(key) => format!("unknown key; did you mean `{key}`?"),
        None => format!("unknown key; known here: {}", known.join(", ")),
    }
}

/// Declares tables of the file: each struct holds a [`Field`] for each key.
macro_rules! section {
    ($($(#[$meta:meta])* struct $name:ident { $($(#[$doc:meta])* $key:ident: $type:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub(super) struct $name {
            $($(#[$doc])* pub(super) $key: $crate::config::read::Field<$type>,)*
        }

        impl $crate::config::read::Read for $name {
            fn read(
                value: &toml::de::DeValue<'_>,
                place: &$crate::config::problem::Place,
                problems: &mut $crate::config::problem::Problems,
            ) -> Result<Self, $crate::config::problem::Told> {
                let entries = $crate::config::read::entries(value, place, problems)?;
                Ok(Self::from_entries(entries, place, problems))
            }

            fn keys(path: &str, found: &mut Vec<String>) {
                $(<$type as $crate::config::read::Read>::keys(
                    &$crate::config::read::below(path, stringify!($key)), found);)*
            }
        }

        impl $crate::config::read::Section for $name {
            fn empty(place: &$crate::config::problem::Place) -> Self {
                Self {
                    $($key: $crate::config::read::Field::absent(place.key(stringify!($key), place.offset)),)*
                }
            }
        }

        impl $name {
            /// Reads the table's keys; those that it doesn't know are told.
            pub(super) fn from_entries(
                entries: &toml::de::DeTable<'_>,
                place: &$crate::config::problem::Place,
                problems: &mut $crate::config::problem::Problems,
            ) -> Self {
                let known = &[$(stringify!($key)),*];
                let mut table = $crate::config::read::Table::new(place, entries, known, problems);
                Self { $($key: table.take(stringify!($key)),)* }
            }
        }
    )*};
}
pub(super) use section;

/// The path of a key below a path.
pub(super) fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The entries of a table.
pub(super) fn entries<'a, 'i>(
    value: &'a DeValue<'i>,
    place: &Place,
    problems: &mut Problems,
) -> Result<&'a DeTable<'i>, Told> {
    let DeValue::Table(entries) = value else { return Err(mismatch(value, "a table", place, problems)) };
    Ok(entries)
}

/// A table with keys of the operator's choice.
#[derive(Clone, Debug, Default)]
pub(super) struct Named<T>(pub(super) Vec<(String, Field<T>)>);

impl<T: Read> Read for Named<T> {
    const SECRET: bool = T::SECRET;

    fn read(value: &DeValue<'_>, place: &Place, problems: &mut Problems) -> Result<Self, Told> {
        let mut rows: Vec<_> = entries(value, place, problems)?.iter().collect();
        rows.sort_by_key(|(key, _)| key.span().start);
        let read = |(key, value): (&Spanned<toml::de::DeString<'_>>, &Spanned<DeValue<'_>>)| {
            let name = key.get_ref().as_ref();
            (name.to_owned(), field(value.get_ref(), place.key(name, start(key, value)), problems))
        };
        Ok(Self(rows.into_iter().map(read).collect()))
    }
}

impl<T: Read> Read for Vec<Field<T>> {
    const SECRET: bool = T::SECRET;

    fn read(value: &DeValue<'_>, place: &Place, problems: &mut Problems) -> Result<Self, Told> {
        let DeValue::Array(elements) = value else {
            return Err(problems.add(place, not_a_list(value, place, Self::SECRET)));
        };
        let read = |(index, element): (usize, &Spanned<DeValue<'_>>)| {
            field(element.get_ref(), place.element(index, element.span().start), problems)
        };
        Ok(elements.iter().enumerate().map(read).collect())
    }

    fn keys(path: &str, found: &mut Vec<String>) {
        T::keys(path, found);
    }
}

/// One value, or a list of them.
#[derive(Clone, Debug)]
pub(super) struct OneOrMore<T>(pub(super) Vec<Field<T>>);

impl<T: Read> Read for OneOrMore<T> {
    const SECRET: bool = T::SECRET;

    fn read(value: &DeValue<'_>, place: &Place, problems: &mut Problems) -> Result<Self, Told> {
        if matches!(value, DeValue::Array(_)) {
            return Vec::read(value, place, problems).map(Self);
        }
        Ok(Self(vec![field(value, place.clone(), problems)]))
    }

    fn keys(path: &str, found: &mut Vec<String>) {
        T::keys(path, found);
    }
}

fn not_a_list(value: &DeValue<'_>, place: &Place, secret: bool) -> String {
    if matches!(value, DeValue::Table(_)) {
        return format!("one table is not a list of tables; write [[{}]]", place.path);
    }
    if secret { SECRET_IN_FILE.to_owned() } else { format!("{} is not a list", show(value)) }
}

impl Read for String {
    fn read(value: &DeValue<'_>, place: &Place, problems: &mut Problems) -> Result<Self, Told> {
        let DeValue::String(text) = value else { return Err(mismatch(value, "a string", place, problems)) };
        Ok(text.to_string())
    }
}

impl Read for bool {
    fn read(value: &DeValue<'_>, place: &Place, problems: &mut Problems) -> Result<Self, Told> {
        let DeValue::Boolean(answer) = value else {
            return Err(mismatch(value, "true or false", place, problems));
        };
        Ok(*answer)
    }
}

impl Read for usize {
    fn read(value: &DeValue<'_>, place: &Place, problems: &mut Problems) -> Result<Self, Told> {
        whole_number(value).ok_or_else(|| mismatch(value, "a whole number", place, problems))
    }
}

fn whole_number(value: &DeValue<'_>) -> Option<usize> {
    let DeValue::Integer(number) = value else { return None };
    usize::from_str_radix(number.as_str(), number.radix()).ok()
}

impl Read for Duration {
    fn read(value: &DeValue<'_>, place: &Place, problems: &mut Problems) -> Result<Self, Told> {
        let wanted = "a duration such as \"30s\", \"10m\" or \"12h\"";
        let DeValue::String(text) = value else { return Err(mismatch(value, wanted, place, problems)) };
        humantime::parse_duration(text).map_err(|_error| mismatch(value, wanted, place, problems))
    }
}

/// A number of bytes: an integer, or a string with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size(pub(super) usize);

impl Size {
    /// Reads `65536`, `64KiB`, `64 MiB`, `1GiB`; units of 1000 (`kB`, `MB`) too.
    fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits)?;
        let factor = match unit.trim_start() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            _ => return None,
        };
        number.parse::<usize>().ok()?.checked_mul(factor).map(Self)
    }

    fn find(value: &DeValue<'_>) -> Option<Self> {
        let text = if let DeValue::String(text) = value { Self::parse(text) } else { None };
        text.or_else(|| whole_number(value).map(Self))
    }
}

impl Read for Size {
    fn read(value: &DeValue<'_>, place: &Place, problems: &mut Problems) -> Result<Self, Told> {
        let wanted = "a number of bytes such as 65536 or \"64KiB\"";
        Self::find(value).ok_or_else(|| mismatch(value, wanted, place, problems))
    }
}

/// A [`Size`], or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SizeOrOff(pub(super) Option<Size>);

impl Read for SizeOrOff {
    fn read(value: &DeValue<'_>, place: &Place, problems: &mut Problems) -> Result<Self, Told> {
        if matches!(value, DeValue::String(text) if text == "off") {
            return Ok(Self(None));
        }
        match Size::find(value) {
            Some(size) => Ok(Self(Some(size))),
            None => Err(mismatch(value, "a number of bytes such as \"64MiB\", or \"off\"", place, problems)),
        }
    }
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum SecretRef {
    /// In a file.
    File(String),
    /// In an environment variable.
    Env(String),
}

const SECRET_IN_FILE: &str = "a secret does not belong into this file; \
    write { file = \"/path/of/the/secret\" } or { env = \"NAME_OF_A_VARIABLE\" }";

section! {
    /// A secret reference as written.
    struct SecretTable {
        /// The file that holds it.
        file: String,
        /// The environment variable that holds it.
        env: String,
    }
}

impl Read for SecretRef {
    const SECRET: bool = true;

    fn read(value: &DeValue<'_>, place: &Place, problems: &mut Problems) -> Result<Self, Told> {
        let DeValue::Table(entries) = value else {
            return Err(problems.add(place, SECRET_IN_FILE));
        };
        let SecretTable { file, env } = SecretTable::from_entries(entries, place, problems);
        match (file.optional()?, env.optional()?) {
            (Some(file), None) => Ok(Self::File(file)),
            (None, Some(name)) => Ok(Self::Env(name)),
            (Some(_), Some(_)) => Err(problems.add(place, "has both `file` and `env`; one is wanted")),
            (None, None) => Err(problems.add(place, "has neither `file` nor `env`; one is wanted")),
        }
    }
}

/// Records that a value is not what is wanted.
fn mismatch(value: &DeValue<'_>, wanted: &str, place: &Place, problems: &mut Problems) -> Told {
    problems.add(place, format!("{} is not {wanted}", show(value)))
}

/// A value as a message repeats it: escaped, cut, without a password in a URL.
fn show(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{:?}", cut(&without_userinfo(text))),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(date) => date.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        None => text.to_owned(),
        Some((at, _)) => text.get(..at).unwrap_or_default().to_owned() + "…",
    }
}

/// `https://me:password@host` -> `https://…@host`.
fn without_userinfo(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_1024_and_1000() {
        let cases: &[(&str, Option<usize>)] = &[
            ("65536", Some(65536)),
            ("12B", Some(12)),
            ("64KiB", Some(64 << 10)),
            ("64 MiB", Some(64 << 20)),
            ("1GiB", Some(1 << 30)),
            ("2kB", Some(2000)),
            ("2MB", Some(2_000_000)),
            ("", None),
            ("KiB", None),
            ("-1", None),
            ("1.5MiB", None),
            ("1 mib", None),
            ("99999999999999999999", None),
            ("99999999999GiB", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(Size::parse(text).map(|size| size.0), *wanted, "{text:?}");
        }
    }

    #[test]
    fn what_a_message_repeats_is_escaped_and_cut_and_holds_no_password() {
        let long = "x".repeat(200);
        let cases: &[(&str, String)] = &[
            ("plain", "\"plain\"".to_owned()),
            ("a\nb\u{1b}[31m", "\"a\\nb\\u{1b}[31m\"".to_owned()),
            ("https://me:hunter2@host/", "\"https://…@host/\"".to_owned()),
            ("http://me:hunt@er2@host/", "\"http://…@host/\"".to_owned()),
            (&long, format!("\"{}…\"", "x".repeat(MAX_SHOWN_CHARS))),
        ];
        for (text, wanted) in cases {
            assert_eq!(show(&DeValue::String((*text).into())), *wanted, "{text:?}");
        }
    }

    #[test]
    fn a_key_that_is_nearly_right_is_suggested() {
        let known = ["issuer", "client_id", "client_secret", "id", "idle_timeout"];
        let cases: &[(&str, Option<&str>)] = &[
            ("isuer", Some("issuer")),
            ("issuer_url", Some("issuer")),
            ("clientid", Some("client_id")),
            ("client-secret", Some("client_secret")),
            ("timeout", Some("idle_timeout")),
            ("ID", None),
            ("hidden", None),
            ("colour", None),
        ];
        for (name, wanted) in cases {
            let message = unknown(name, &known);
            match wanted {
                Some(key) => assert_eq!(message, format!("unknown key; did you mean `{key}`?"), "{name}"),
                None => {
                    assert!(message.starts_with("unknown key; known here: issuer, "), "{name}: {message}");
                }
            }
        }
    }
}
