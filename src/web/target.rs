//! The request target in one canonical form (PP-1 to PP-5).
//!
//! Stands at the very start of the request path. It refuses what two readers could read in two ways
//! instead of repairing it: whoever sends such a target is no browser.

use std::borrow::Cow;
use std::fmt;

/// A path and query that every step uses and that the upstream gets, byte for byte.
///
/// The path starts with `/`, has no dot segments, no empty segments but a last one, no `;`
/// parameters, no encoded separators; escapes of unreserved characters are decoded, all others have
/// upper-case hex digits. The query is kept as sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    text: String,
    path_len: usize,
    /// The path for rules, where it differs from the path as sent upstream.
    rule_path: Option<Box<str>>,
    /// The path for rules with its escaped slashes as separators, where it holds any.
    split_path: Option<Box<str>>,
}

/// Why a target was refused; the text names the rule and never holds the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TargetError(pub &'static str);

impl Target {
    /// Normalises a raw origin-form target.
    ///
    /// # Errors
    /// [`TargetError`] for whatever could be read in two ways: not starting with `/`, fragment, raw
    /// control, space or non-ASCII byte, `"<>\` anywhere and `` ^`{} `` in the path. Further, in the
    /// path only: bad escape, escapes that decode to a control character or to invalid UTF-8
    /// (overlong forms among it), `%2F`, `%5C`, `;`, `%3B`, `//`, dot segments in any spelling.
    pub fn parse(raw: &[u8]) -> Result<Self, TargetError> {
        let target = Self::parse_with_slashes(raw)?;
        if target.split_path.is_some() { Err(SEPARATOR) } else { Ok(target) }
    }

    /// As [`Target::parse`], but a name in the path may hold an escaped slash (`/files/a%2Fb`). Whether it
    /// may pass is for the route, which has to be the same one for both readings: the slash as a character
    /// of a name ([`path`](Self::path)) and as a separator ([`split_path`](Self::split_path)).
    ///
    /// # Errors
    /// [`TargetError`], also for what would be a dot segment or an empty one in the second reading.
    pub fn parse_with_slashes(raw: &[u8]) -> Result<Self, TargetError> {
        let (path, query) = split_query(raw);
        check_query(query)?;
        if is_canonical(path)? {
            let text = ascii(raw.to_vec())?;
            return Ok(Self { text, path_len: path.len(), rule_path: None, split_path: None });
        }
        let Spelled { mut wire, rule, has_slash } = respell(path)?;
        let path_len = wire.len();
        let split_path = has_slash.then(|| ascii(rule.clone())).transpose()?;
        let split_path = split_path.map(|path| path.replace(ESCAPED_SLASH, "/").into_boxed_str());
        let rule_path = (rule != wire).then(|| ascii(rule)).transpose()?.map(String::into_boxed_str);
        wire.extend_from_slice(query);
        Ok(Self { text: ascii(wire)?, path_len, rule_path, split_path })
    }

    /// The path as rules see it: one spelling for each path that an application could decode.
    ///
    /// It is what [`as_str`](Self::as_str) starts with, but for the escapes of characters that may
    /// stand in a path plainly too: `/%40admin` is forwarded as it is, since an application may tell
    /// `%2B` from `+`, and is judged as `/@admin`, since most applications don't.
    #[must_use]
    pub fn path(&self) -> &str {
        match &self.rule_path {
            Some(path) => path,
            None => self.text.get(..self.path_len).unwrap_or_default(),
        }
    }

    /// The path as rules see it where its escaped slashes separate, as some applications read them; `None`
    /// where it holds none. Only [`Target::parse_with_slashes`] lets any through.
    #[must_use]
    pub fn split_path(&self) -> Option<&str> {
        self.split_path.as_deref()
    }

    /// The query, without its `?`; `None` where there is none.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.text.get(self.path_len..)?.strip_prefix('?')
    }

    /// Path and query, as sent upstream.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Shows the path only: queries carry codes and states.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let query = if self.query().is_some() { "?[redacted]" } else { "" };
        write!(f, "Target({}{query})", self.path())
    }
}

/// Scheme (`http` or `https`, whatever its case was), authority and origin-form of an absolute-form
/// target. The authority is as sent, for [`Host::parse`](super::Host::parse) to judge.
pub type AbsoluteForm<'a> = (&'static str, &'a [u8], Cow<'a, [u8]>);

/// Splits an absolute-form target (RFC 9112 3.2.2). `None` for everything else.
#[must_use]
pub fn split_absolute_form(raw: &[u8]) -> Option<AbsoluteForm<'_>> {
    let (scheme, rest) =
        ["http", "https"].into_iter().find_map(|scheme| Some((scheme, after_scheme(raw, scheme)?)))?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let (authority, target) = rest.split_at_checked(end)?;
    let origin_form = match target.first() {
        Some(b'/') => Cow::Borrowed(target),
        _ => Cow::Owned([b"/", target].concat()),
    };
    Some((scheme, authority, origin_form))
}

/// What follows `scheme://`.
fn after_scheme<'a>(raw: &'a [u8], scheme: &str) -> Option<&'a [u8]> {
    let (start, rest) = raw.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme.as_bytes()).then_some(rest)?.strip_prefix(b"://")
}

/// Path and query; the query still has its `?`.
fn split_query(raw: &[u8]) -> (&[u8], &[u8]) {
    let end = raw.iter().position(|byte| *byte == b'?').unwrap_or(raw.len());
    raw.split_at_checked(end).unwrap_or((raw, b""))
}

const NO_SLASH: TargetError = TargetError("the target does not start with a slash");
const RAW_BYTE: TargetError = TargetError("the target holds a byte that may not stand in one unescaped");
const FRAGMENT: TargetError = TargetError("the target holds a fragment");
const PARAMETER: TargetError = TargetError("the path holds a semicolon");
const EMPTY_SEGMENT: TargetError = TargetError("the path holds an empty segment");
const DOT_SEGMENT: TargetError = TargetError("the path holds a dot segment");
const BAD_ESCAPE: TargetError = TargetError("the path holds a percent sign without two hex digits");
const SEPARATOR: TargetError = TargetError("the path holds an escaped slash or backslash");
const NOT_UTF8: TargetError = TargetError("the path does not decode to UTF-8");
const CONTROL: TargetError = TargetError("the path decodes to a control character");

/// An escaped slash as both spellings have it.
const ESCAPED_SLASH: &str = "%2F";

/// Checks the raw bytes of a path without decoding. `true`: there is nothing to decode.
fn is_canonical(path: &[u8]) -> Result<bool, TargetError> {
    let mut canonical = true;
    for segment in segments(path)? {
        let segment = segment?;
        for byte in segment {
            match byte {
                b'%' => canonical = false,
                _ if PLAIN[usize::from(*byte)] => {}
                _ => return Err(refused_byte(*byte)),
            }
        }
        refuse_dots(segment)?;
    }
    Ok(canonical)
}

/// The segments of a path; only the last one may be empty.
fn segments(path: &[u8]) -> Result<impl Iterator<Item = Result<&[u8], TargetError>>, TargetError> {
    let rest = path.strip_prefix(b"/").ok_or(NO_SLASH)?;
    let mut segments = rest.split(|byte| *byte == b'/').peekable();
    Ok(std::iter::from_fn(move || {
        let segment = segments.next()?;
        let empty_inside = segment.is_empty() && segments.peek().is_some();
        Some(if empty_inside { Err(EMPTY_SEGMENT) } else { Ok(segment) })
    }))
}

/// A path in its two canonical spellings.
struct Spelled {
    /// For the upstream: escapes of unreserved characters decoded.
    wire: Vec<u8>,
    /// For rules: escapes of all characters decoded that may stand in a path.
    rule: Vec<u8>,
    /// Whether they hold an escaped slash.
    has_slash: bool,
}

/// Spells a path canonically; its raw bytes are checked already.
fn respell(path: &[u8]) -> Result<Spelled, TargetError> {
    let (wire, rule) = (Vec::with_capacity(path.len()), Vec::with_capacity(path.len()));
    let mut spelled = Spelled { wire, rule, has_slash: false };
    let mut decoded = Vec::new();
    for segment in segments(path)? {
        spelled.wire.push(b'/');
        spelled.rule.push(b'/');
        decoded.clear();
        let mut rest = segment?;
        while let Some(Decoded { byte, escaped }) = next_byte(&mut rest)? {
            decoded.push(byte);
            // A plain one would have ended the segment.
            spelled.has_slash |= byte == b'/';
            push(byte, !escaped || is_unreserved(byte), &mut spelled.wire);
            push(byte, is_plain(byte), &mut spelled.rule);
        }
        refuse_decoded(&decoded)?;
    }
    Ok(spelled)
}

/// A byte of a path, and whether it stood there as an escape.
struct Decoded {
    byte: u8,
    escaped: bool,
}

/// Takes the next byte off a segment.
fn next_byte(rest: &mut &[u8]) -> Result<Option<Decoded>, TargetError> {
    let (decoded, after) = match *rest {
        [] => return Ok(None),
        [b'%', high, low, after @ ..] => {
            let (high, low) = hex_value(*high).zip(hex_value(*low)).ok_or(BAD_ESCAPE)?;
            (Decoded { byte: high << 4 | low, escaped: true }, after)
        }
        [b'%', ..] => return Err(BAD_ESCAPE),
        [byte, after @ ..] => (Decoded { byte: *byte, escaped: false }, after),
    };
    *rest = after;
    Ok(Some(decoded))
}

/// Appends a byte plainly or as an escape.
fn push(byte: u8, plain: bool, out: &mut Vec<u8>) {
    if plain {
        out.push(byte);
    } else {
        out.extend([b'%', hex_digit(byte >> 4), hex_digit(byte & 0xf)]);
    }
}

/// Refuses what a segment must not be or hold after decoding.
fn refuse_decoded(segment: &[u8]) -> Result<(), TargetError> {
    let text = std::str::from_utf8(segment).map_err(|_not_utf8| NOT_UTF8)?;
    let mut names = segment.split(|&byte| byte == b'/');
    names.try_for_each(refuse_dots)?;
    if segment.contains(&b'/') && segment.split(|&byte| byte == b'/').any(<[u8]>::is_empty) {
        return Err(EMPTY_SEGMENT);
    }
    text.chars().try_for_each(|character| match character {
        '\\' => Err(SEPARATOR),
        ';' => Err(PARAMETER),
        _ if character.is_control() => Err(CONTROL),
        _ => Ok(()),
    })
}

fn refuse_dots(segment: &[u8]) -> Result<(), TargetError> {
    if matches!(segment, b"." | b"..") { Err(DOT_SEGMENT) } else { Ok(()) }
}

/// Checks a query: what may stand in a request line stays as it is, escapes are not looked into.
fn check_query(query: &[u8]) -> Result<(), TargetError> {
    query.iter().try_for_each(|byte| match byte {
        b'"' | b'<' | b'>' | b'\\' | b'#' => Err(refused_byte(*byte)),
        b'!'..=b'~' => Ok(()),
        _ => Err(RAW_BYTE),
    })
}

fn refused_byte(byte: u8) -> TargetError {
    match byte {
        b'#' => FRAGMENT,
        b';' => PARAMETER,
        _ => RAW_BYTE,
    }
}

/// Whether a byte may stand in a path segment as it is: `pchar` of RFC 3986 without `;` and `%`, and
/// `[`, `]`, `|`, which browsers send unescaped (WHATWG URL, path percent-encode set).
const fn is_plain(byte: u8) -> bool {
    is_unreserved(byte) || matches!(byte, b'!' | b'$' | b'&'..=b',' | b':' | b'=' | b'@' | b'[' | b']' | b'|')
}

/// [`is_plain`] of every byte: the check of a path is one look-up for each byte.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        plain[byte as usize] = is_plain(byte);
        byte += 1;
    }
    plain
};

/// RFC 3986 2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

const fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

const fn hex_digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'A' + value - 10 }
}

fn ascii(bytes: Vec<u8>) -> Result<String, TargetError> {
    String::from_utf8(bytes).map_err(|_not_ascii| RAW_BYTE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(raw: &str) -> Result<Target, TargetError> {
        Target::parse(raw.as_bytes())
    }

    #[test]
    fn a_canonical_target_is_kept_byte_for_byte() {
        let rows = [
            "/",
            "/a",
            "/a/",
            "/a/b.c/d-e_f~g",
            "/.well-known/x",
            "/...",
            "/..a/.b/c..",
            "/!$&'()*+,=:@[]|",
            "/a?",
            "/a?b=c",
            "/a?b=//../;x=%00%zz%2f",
            "/a?q=`{|}^[]'",
            "/a??x=?",
            "/p/%20%22%23%25%3C%3E%3F%5E%60%7B%7D",
            "/caf%C3%A9/%F0%9F%98%80",
            "/public/%252e%252e%252fadmin",
        ];
        for raw in rows {
            assert_eq!(parse(raw).map(|target| target.as_str().to_owned()), Ok(raw.to_owned()), "{raw}");
        }
    }

    #[test]
    fn path_and_query_are_told_apart_at_the_first_question_mark() {
        let rows = [
            ("/", "/", None),
            ("/a", "/a", None),
            ("/a?", "/a", Some("")),
            ("/a?b", "/a", Some("b")),
            ("/a??b?", "/a", Some("?b?")),
            ("/admin/secret?/public/x", "/admin/secret", Some("/public/x")),
            ("/%61?%61", "/a", Some("%61")),
            ("/a%3Fb?c", "/a%3Fb", Some("c")),
        ];
        for (raw, path, query) in rows {
            let target = parse(raw).unwrap();
            assert_eq!((target.path(), target.query()), (path, query), "{raw}");
        }
    }

    #[test]
    fn escapes_of_unreserved_characters_are_decoded_and_all_others_get_upper_case_digits() {
        let rows = [
            ("/%61dmin/secret", "/admin/secret"),
            ("/%41%5A%7a%30%39", "/AZz09"),
            ("/a%2eb%2Dc%5fd%7E", "/a.b-c_d~"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a%20b%2fc", ""),
            ("/a%20b%3fc", "/a%20b%3Fc"),
            ("/%2e%2e%2e", "/..."),
            ("/%40%2b", "/%40%2B"),
        ];
        for (raw, wire) in rows {
            let wire = (!wire.is_empty()).then(|| wire.to_owned());
            assert_eq!(parse(raw).ok().map(|target| target.as_str().to_owned()), wire, "{raw}");
        }
    }

    #[test]
    fn rules_see_one_spelling_of_what_the_upstream_gets_in_the_clients_own() {
        let rows = [
            ("/%40admin/x", "/%40admin/x", "/@admin/x"),
            ("/@admin/x", "/@admin/x", "/@admin/x"),
            ("/users%3Abatch%2b%61", "/users%3Abatch%2Ba", "/users:batch+a"),
            ("/%5b%7c%5d?%40", "/%5B%7C%5D?%40", "/[|]"),
            ("/%7b%25%20", "/%7B%25%20", "/%7B%25%20"),
        ];
        for (raw, wire, rule) in rows {
            let target = parse(raw).unwrap();
            let wire_path = target.as_str().split('?').next().unwrap();
            assert_eq!((target.as_str(), target.path()), (wire, rule), "{raw}");
            assert_eq!(target.query().is_some(), wire_path.len() < target.as_str().len(), "{raw}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let rows: &[(&str, &[u8], TargetError)] = &[
            ("empty", b"", NO_SLASH),
            ("asterisk-form", b"*", NO_SLASH),
            ("relative", b"admin/x", NO_SLASH),
            ("absolute-form", b"http://app.test/admin", NO_SLASH),
            ("authority-form", b"app.test:443", NO_SLASH),
            ("query only", b"?a", NO_SLASH),
            ("a backslash first", b"\\admin", NO_SLASH),
            ("dot dot", b"/public/../admin/secret", DOT_SEGMENT),
            ("dot dot at the end", b"/public/..", DOT_SEGMENT),
            ("dot", b"/./admin/secret", DOT_SEGMENT),
            ("dot at the end", b"/admin/.", DOT_SEGMENT),
            ("dot dot before the query", b"/public/..?x", DOT_SEGMENT),
            ("escaped dots", b"/public/%2e%2e/admin/secret", DOT_SEGMENT),
            ("second dot escaped", b"/public/.%2E/admin/secret", DOT_SEGMENT),
            ("first dot escaped", b"/public/%2e./admin/secret", DOT_SEGMENT),
            ("one escaped dot", b"/public/%2e", DOT_SEGMENT),
            ("escaped slash after dots", b"/public/..%2fadmin/secret", DOT_SEGMENT),
            ("escaped slashes", b"/public%2f..%2fadmin%2fsecret", DOT_SEGMENT),
            ("escaped slash", b"/public%2fadmin", SEPARATOR),
            ("escaped slash, upper case", b"/public%2Fx", SEPARATOR),
            ("backslash", b"/public/..\\admin\\secret", RAW_BYTE),
            ("escaped backslash", b"/public/..%5cadmin%5csecret", SEPARATOR),
            ("escaped backslash, upper case", b"/public/x%5Cy", SEPARATOR),
            ("dots with an empty parameter", b"/public/..;/admin/secret", PARAMETER),
            ("dots with a parameter", b"/public/..;a=b/admin/secret", PARAMETER),
            ("dot with a parameter", b"/public/.;/../admin/secret", PARAMETER),
            ("segment with a parameter", b"/public;/../admin/secret", PARAMETER),
            ("named parameter", b"/admin;x=y/secret", PARAMETER),
            ("parameter at the end", b"/admin/secret;jsessionid=1", PARAMETER),
            ("parameter of the root", b"/;x/admin/secret", PARAMETER),
            ("escaped semicolon", b"/public/..%3b/admin/secret", PARAMETER),
            ("escaped semicolon in a name", b"/admin%3Bx/secret", PARAMETER),
            ("two slashes first", b"//admin/secret", EMPTY_SEGMENT),
            ("three slashes first", b"///admin/secret", EMPTY_SEGMENT),
            ("two slashes inside", b"/public//admin", EMPTY_SEGMENT),
            ("two slashes at the end", b"/public//", EMPTY_SEGMENT),
            ("two slashes and an escape", b"/%61//b", EMPTY_SEGMENT),
            ("fragment", b"/admin/secret#/public/x", FRAGMENT),
            ("fragment in the query", b"/admin?x#y", FRAGMENT),
            ("escaped NUL", b"/public/%00/admin/secret", CONTROL),
            ("escaped NUL and dots", b"/public/%00/../admin/secret", DOT_SEGMENT),
            ("escaped NUL before an extension", b"/public/x%00.png", CONTROL),
            ("escaped line feed", b"/x%0a", CONTROL),
            ("escaped DEL", b"/x%7f", CONTROL),
            ("escaped C1 control", b"/x%C2%85", CONTROL),
            ("overlong dots and slash", b"/public/%c0%ae%c0%ae%c0%afadmin/secret", NOT_UTF8),
            ("overlong slash, three bytes", b"/x%e0%80%af", NOT_UTF8),
            ("lone continuation byte", b"/x%80", NOT_UTF8),
            ("surrogate", b"/x%ed%a0%80", NOT_UTF8),
            ("cut short", b"/x%c3", NOT_UTF8),
            ("cut short by a slash", b"/x%c3/%a9", NOT_UTF8),
            ("Latin-1", b"/adm%FFin", NOT_UTF8),
            ("raw Latin-1", b"/adm\xffin", RAW_BYTE),
            ("raw UTF-8", "/adm\u{ef}n".as_bytes(), RAW_BYTE),
            ("percent sign alone", b"/public/%", BAD_ESCAPE),
            ("one hex digit", b"/public/%2", BAD_ESCAPE),
            ("no hex digits", b"/public/%zz", BAD_ESCAPE),
            ("a sign as a digit", b"/public/%+1", BAD_ESCAPE),
            ("an escape over a slash", b"/public/%2/e", BAD_ESCAPE),
            ("IIS unicode escape", b"/public/%u002e", BAD_ESCAPE),
            ("space", b"/a b", RAW_BYTE),
            ("tab", b"/a\tb", RAW_BYTE),
            ("NUL", b"/a\0b", RAW_BYTE),
            ("line feed", b"/a\nb", RAW_BYTE),
            ("DEL", b"/a\x7fb", RAW_BYTE),
            ("quote", b"/a\"b", RAW_BYTE),
            ("less than", b"/a<b", RAW_BYTE),
            ("greater than", b"/a>b", RAW_BYTE),
            ("caret", b"/a^b", RAW_BYTE),
            ("backquote", b"/a`b", RAW_BYTE),
            ("braces", b"/a{b}", RAW_BYTE),
            ("space in the query", b"/a?b c", RAW_BYTE),
            ("tab in the query", b"/a?b\tc", RAW_BYTE),
            ("NUL in the query", b"/a?\0", RAW_BYTE),
            ("DEL in the query", b"/a?\x7f", RAW_BYTE),
            ("quote in the query", b"/a?\"", RAW_BYTE),
            ("less than in the query", b"/a?<", RAW_BYTE),
            ("greater than in the query", b"/a?>", RAW_BYTE),
            ("backslash in the query", b"/a?\\", RAW_BYTE),
            ("non-ASCII in the query", b"/a?\xc3\xa9", RAW_BYTE),
        ];
        for (name, raw, error) in rows {
            assert_eq!(Target::parse(raw).map(|target| target.text), Err(*error), "{name}");
        }
    }

    #[test]
    fn an_escaped_slash_has_two_readings_for_whom_it_may_pass() {
        let rows = [
            ("/files/a%2fb", "/files/a%2Fb", "/files/a%2Fb", Some("/files/a/b")),
            ("/%40x%2Fy%2fz/?q=%2f", "/%40x%2Fy%2Fz/?q=%2f", "/@x%2Fy%2Fz/", Some("/@x/y/z/")),
            ("/a%252Fb%2Fc", "/a%252Fb%2Fc", "/a%252Fb%2Fc", Some("/a%252Fb/c")),
            ("/a%252Fb", "/a%252Fb", "/a%252Fb", None),
            ("/a?b%2Fc", "/a?b%2Fc", "/a", None),
        ];
        for (raw, wire, path, split) in rows {
            let target = Target::parse_with_slashes(raw.as_bytes()).unwrap();
            assert_eq!((target.as_str(), target.path(), target.split_path()), (wire, path, split), "{raw}");
            assert_eq!(Target::parse(raw.as_bytes()).is_ok(), split.is_none(), "{raw}");
        }
    }

    #[test]
    fn what_would_be_a_dot_segment_or_an_empty_one_behind_an_escaped_slash_never_passes() {
        let rows = [
            ("/files/..%2fadmin", DOT_SEGMENT),
            ("/files/a%2f..", DOT_SEGMENT),
            ("/files/a%2f%2e%2e%2fadmin", DOT_SEGMENT),
            ("/files/.%2fa", DOT_SEGMENT),
            ("/files/a%2f%2e", DOT_SEGMENT),
            ("/files%2f../admin", DOT_SEGMENT),
            ("/files/%2fa", EMPTY_SEGMENT),
            ("/files/a%2f", EMPTY_SEGMENT),
            ("/files/a%2f/b", EMPTY_SEGMENT),
            ("/files/a%2f%2fb", EMPTY_SEGMENT),
            ("/%2f", EMPTY_SEGMENT),
            ("/files/a%2fb%5cc", SEPARATOR),
            ("/files/a%2fb;c", PARAMETER),
            ("/files/a%2f..%3bx", PARAMETER),
            ("/files/a%2f%00", CONTROL),
            ("/files/a%c0%afb", NOT_UTF8),
        ];
        for (raw, error) in rows {
            let refused = Target::parse_with_slashes(raw.as_bytes()).map(|target| target.text);
            assert_eq!(refused, Err(error), "{raw}");
        }
    }

    #[test]
    fn an_error_never_holds_the_target() {
        let error = parse("/hunter2;x").unwrap_err();
        assert_eq!(error.to_string(), "the path holds a semicolon");
    }

    #[test]
    fn debug_output_hides_the_query() {
        let target = parse("/oauth2/callback?code=hunter2&state=s").unwrap();
        assert_eq!(format!("{target:?}"), "Target(/oauth2/callback?[redacted])");
        assert_eq!(format!("{:?}", parse("/a").unwrap()), "Target(/a)");
    }

    #[test]
    fn an_absolute_form_is_split_into_scheme_authority_and_origin_form() {
        type Row = (&'static str, Option<(&'static str, &'static str, &'static str)>);
        let rows: &[Row] = &[
            ("http://app.test/admin/x?y", Some(("http", "app.test", "/admin/x?y"))),
            ("HTTPS://APP.TEST:443/admin", Some(("https", "APP.TEST:443", "/admin"))),
            ("http://app.test", Some(("http", "app.test", "/"))),
            ("http://app.test?x", Some(("http", "app.test", "/?x"))),
            ("http://app.test#x", Some(("http", "app.test", "/#x"))),
            ("https://app.test//admin", Some(("https", "app.test", "//admin"))),
            ("http:///x", Some(("http", "", "/x"))),
            ("http://u@app.test\\x/y", Some(("http", "u@app.test\\x", "/y"))),
            ("foo://app.test/x", None),
            ("httpx://app.test/x", None),
            ("http:/app.test/x", None),
            ("http:\\\\app.test/x", None),
            (" http://app.test/x", None),
            ("/http://app.test/x", None),
            ("app.test:443", None),
            ("*", None),
            ("", None),
        ];
        for (raw, expected) in rows {
            let split = split_absolute_form(raw.as_bytes());
            let split = split.map(|(scheme, authority, target)| {
                (scheme, String::from_utf8_lossy(authority).into_owned(), target.into_owned())
            });
            let expected = expected.map(|(scheme, authority, target)| {
                (scheme, authority.to_owned(), target.as_bytes().to_vec())
            });
            assert_eq!(split, expected, "{raw}");
        }
    }

    fn decoded(path: &str) -> Vec<u8> {
        percent_encoding::percent_decode_str(path).collect()
    }

    fn wire_path(target: &Target) -> &str {
        target.as_str().split('?').next().unwrap_or_default()
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(raw in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Target::parse(&raw);
            let _ = Target::parse_with_slashes(&raw);
            let _ = split_absolute_form(&raw);
        }

        #[test]
        fn a_canonical_form_is_its_own_canonical_form(raw in "/[a-z%0-9A-F./+@?&=-]{0,24}") {
            if let Ok(target) = parse(&raw) {
                prop_assert_eq!(parse(target.as_str()), Ok(target));
            }
        }

        #[test]
        fn both_spellings_decode_to_what_was_sent(raw in "/([a-z.+@:]|%[2-7][0-9a-fA-F]|/[a-z]){0,12}") {
            if let Ok(target) = parse(&raw) {
                prop_assert_eq!(decoded(target.path()), decoded(&raw));
                prop_assert_eq!(decoded(wire_path(&target)), decoded(&raw));
            }
        }

        #[test]
        fn both_readings_of_an_escaped_slash_have_no_dots_and_no_empty_names(
            raw in "/([a-z.]|%2[eEfF5]|/){0,12}",
        ) {
            if let Ok(target) = Target::parse_with_slashes(raw.as_bytes()) {
                let split = target.split_path().unwrap_or(target.path());
                let inner = split.strip_suffix('/').unwrap_or(split);
                let odd = |name: &str| matches!(name, "" | "." | "..");
                prop_assert!(!inner.split('/').skip(1).any(odd), "{}", split);
                prop_assert_eq!(decoded(split), decoded(&raw));
            }
        }

        #[test]
        fn paths_that_decode_alike_are_alike_to_rules(plain in "/[a-z@+:!,.]{1,8}", mask in any::<u8>()) {
            let spelled: String = plain.char_indices().map(|(at, character)| {
                if at > 0 && mask >> (at % 8) & 1 == 1 { format!("%{:02x}", character as u32) }
                else { character.to_string() }
            }).collect();
            let path = |raw: &str| parse(raw).map(|target| target.path().to_owned());
            prop_assert_eq!(path(&spelled), path(&plain));
        }
    }
}
