//! How a log record becomes one line: every value escaped, every value bounded (LG-3).

use std::cell::Cell;
use std::error::Error;
use std::fmt::{self, Write as _};
use std::time::{Duration, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::clock::Clock;

/// The most characters of one value; log collectors cut or drop lines of more than 16 KiB.
const MAX_VALUE_CHARS: usize = 2048;

thread_local! {
    /// The buffer of this thread's lines, so that a line costs no allocation.
    static BUFFER: Cell<String> = const { Cell::new(String::new()) };
}

/// The shape of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Json,
    Human,
}

/// Writes each record as one line.
pub(super) struct Lines<W> {
    shape: Shape,
    clock: Clock,
    write: W,
}

impl<W: Fn(&str, &[u8]) + Send + Sync + 'static> Lines<W> {
    pub(super) fn new(shape: Shape, write: W) -> Self {
        Self { shape, clock: Clock::system(), write }
    }
}

impl<S: Subscriber, W: Fn(&str, &[u8]) + Send + Sync + 'static> Layer<S> for Lines<W> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut out = BUFFER.take();
        out.clear();
        let mut line = Line { out, shape: self.shape, part: Part::Event, is_named: false };
        line.begin(&self.clock, event);
        // What happened stands first, wherever it was written in the code.
        event.record(&mut line);
        line.part = Part::Rest;
        event.record(&mut line);
        line.end();
        (self.write)(event.metadata().target(), line.out.as_bytes());
        BUFFER.set(line.out);
    }
}

/// Which fields are taken, each only once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Event,
    Rest,
}

struct Line {
    out: String,
    shape: Shape,
    part: Part,
    /// Whether the line has the name of an event.
    is_named: bool,
}

impl Line {
    /// Time and level, and the module where the line is a library's.
    fn begin(&mut self, clock: &Clock, event: &Event<'_>) {
        let now = UNIX_EPOCH + Duration::from_millis(clock.now().as_millis());
        let time = humantime::format_rfc3339_millis(now);
        let level = event.metadata().level();
        // Writing to a String never fails, here and below.
        let _ = match self.shape {
            Shape::Json => write!(self.out, "{{\"time\":\"{time}\",\"level\":\"{level}\""),
            Shape::Human => write!(self.out, "{time} {level:<5}"),
        };
        let target = event.metadata().target();
        if !target.starts_with(env!("CARGO_PKG_NAME")) {
            self.write("library", &target);
        }
    }

    /// Whether a field belongs to the part that is being taken.
    fn takes(&mut self, field: &Field) -> bool {
        let is_event = field.name() == "event";
        self.is_named |= is_event;
        is_event == (self.part == Part::Event)
    }

    fn end(&mut self) {
        self.out.push_str(if self.shape == Shape::Json { "}\n" } else { "\n" });
    }

    fn name(&mut self, name: &str) {
        let _ = match (self.shape, name) {
            (Shape::Json, _) => write!(self.out, ",\"{name}\":"),
            (Shape::Human, "message") if self.is_named => write!(self.out, ": "),
            (Shape::Human, "event" | "message") => write!(self.out, " "),
            (Shape::Human, _) => write!(self.out, " {name}="),
        };
    }

    /// A value of this program's making that needs no quotes: a number, a boolean.
    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        if self.takes(field) {
            self.name(field.name());
            let _ = write!(self.out, "{value}");
        }
    }

    fn value(&mut self, field: &Field, value: &dyn fmt::Display) {
        if self.takes(field) {
            self.write(field.name(), value);
        }
    }

    fn write(&mut self, name: &str, value: &dyn fmt::Display) {
        self.name(name);
        let start = self.out.len();
        let _ = write!(Escape::new(&mut self.out, self.shape), "{value}");
        let is_word = || {
            self.out
                .get(start..)
                .is_some_and(|text| !text.is_empty() && !text.contains([' ', '=', '"', '\\']))
        };
        if self.shape == Shape::Json || !(name == "message" || is_word()) {
            self.out.insert(start, '"');
            self.out.push('"');
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.value(field, &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.value(field, &format_args!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.value(field, &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.plain(field, value);
        } else {
            self.value(field, &value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }
}

/// Takes text and writes it escaped, up to [`MAX_VALUE_CHARS`].
struct Escape<'a> {
    out: &'a mut String,
    shape: Shape,
    left: usize,
}

impl<'a> Escape<'a> {
    fn new(out: &'a mut String, shape: Shape) -> Self {
        Self { out, shape, left: MAX_VALUE_CHARS }
    }

    fn push(&mut self, c: char) {
        match (c, self.shape) {
            ('"' | '\\', _) => self.out.extend(['\\', c]),
            (' '..='~', _) => self.out.push(c),
            _ if is_printable(c) => self.out.push(c),
            (_, Shape::Human) => self.out.extend(c.escape_unicode()),
            (_, Shape::Json) => push_utf16(self.out, c),
        }
    }
}

impl fmt::Write for Escape<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match self.left {
                0 => return Ok(()),
                1 => self.out.push('…'),
                _ => self.push(c),
            }
            self.left -= 1;
        }
        Ok(())
    }
}

/// Not a control, no direction mark, no invisible or unassigned character, no line separator: what
/// the standard library shows as it is.
fn is_printable(c: char) -> bool {
    c == '\'' || c.escape_debug().len() == 1
}

/// `\uXXXX`, two of them above U+FFFF (RFC 8259 7).
fn push_utf16(out: &mut String, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        let _ = write!(out, "\\u{unit:04x}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::logging::{Format, Level, captured};
    use super::*;

    fn escaped(text: &str, shape: Shape) -> String {
        let mut out = String::new();
        Escape::new(&mut out, shape).write_str(text).unwrap();
        out
    }

    #[test]
    fn whatever_could_end_or_disguise_a_record_is_escaped() {
        let cases = [
            ("line feed", "a\nb", "a\\u000ab", "a\\u{a}b"),
            ("carriage return", "\r", "\\u000d", "\\u{d}"),
            ("escape sequence", "\u{1b}[31m", "\\u001b[31m", "\\u{1b}[31m"),
            ("C1 control", "\u{9b}", "\\u009b", "\\u{9b}"),
            ("delete", "\u{7f}", "\\u007f", "\\u{7f}"),
            ("right-to-left override", "\u{202e}", "\\u202e", "\\u{202e}"),
            ("isolate", "\u{2066}", "\\u2066", "\\u{2066}"),
            ("line separator", "\u{2028}", "\\u2028", "\\u{2028}"),
            ("zero width space", "\u{200b}", "\\u200b", "\\u{200b}"),
            ("tag, above U+FFFF", "\u{e0041}", "\\udb40\\udc41", "\\u{e0041}"),
            ("quote and backslash", "\"\\", "\\\"\\\\", "\\\"\\\\"),
            ("letters stay", "Grüße 'x' 日本 🦀", "Grüße 'x' 日本 🦀", "Grüße 'x' 日本 🦀"),
        ];
        for (name, text, json, human) in cases {
            assert_eq!(escaped(text, Shape::Json), json, "{name}");
            assert_eq!(escaped(text, Shape::Human), human, "{name}");
            let read: String = serde_json::from_str(&format!("\"{json}\"")).unwrap();
            assert_eq!(read, text, "{name}: a JSON reader gets the very text");
        }
    }

    #[test]
    fn a_long_value_is_cut() {
        let text = escaped(&"x".repeat(10_000), Shape::Json);
        assert_eq!(text.chars().count(), MAX_VALUE_CHARS);
        assert!(text.ends_with("x…"));
    }

    #[test]
    fn the_human_shape_quotes_what_is_not_one_word() {
        let lines = captured(Format::Human, Level::Info, || {
            tracing::info!(
                event = "request",
                a = "word",
                b = "two words",
                c = "k=v",
                d = "",
                e = 1.5,
                f = true
            );
            tracing::warn!(reason = "x", "the text of the line");
            tracing::warn!(reason = "x", event = "stopped", "the text of the line");
        });
        let [fields, text, both] = lines.as_slice() else { panic!("{lines:?}") };
        let rest = |line: &str| line.split_once("Z ").unwrap().1.to_owned();
        assert_eq!(rest(fields), "INFO  request a=word b=\"two words\" c=\"k=v\" d=\"\" e=1.5 f=true\n");
        assert_eq!(rest(text), "WARN  the text of the line reason=x\n");
        assert_eq!(rest(both), "WARN  stopped: the text of the line reason=x\n");
    }

    #[test]
    fn a_line_of_a_library_names_it() {
        let lines = captured(Format::Json, Level::Info, || tracing::warn!(target: "h2::proto", "odd"));
        let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!((&line["library"], &line["message"]), (&"h2::proto".into(), &"odd".into()));
    }

    #[test]
    fn a_number_that_json_has_no_word_for_is_a_string() {
        let lines = captured(Format::Json, Level::Info, || tracing::info!(n = f64::NAN, m = -1, k = 2_u64));
        let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!((&line["n"], &line["m"], &line["k"]), (&"NaN".into(), &(-1).into(), &2.into()));
    }
}
